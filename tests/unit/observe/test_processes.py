"""A status is read with suspicion, and two of them make a rate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.observe import ContextStatus, SocketStatus, rates
from mcast.observe.processes import parse_status_untrusted

pytestmark = pytest.mark.kernel_independent

TOLD: dict[str, Any] = {
    "format": 1,
    "pid": 7,
    "command": "python feed.py",
    "kernel": "native",
    "loop": "thread",
    "loop_turns": 3,
    "monotonic_ns": 5_000_000_000,
    "uptime_s": 2.0,
    "sockets": [
        {"number": 1, "type": "PUB", "endpoints": ["epgm://lo;239.192.1.1:5555"], "counters": {}}
    ],
}


def parse(**changes: Any) -> ContextStatus:
    return parse_status_untrusted("/a", json.dumps({**TOLD, **changes}).encode())


def test_a_status_is_read_whole() -> None:
    context = parse()
    assert (context.pid, context.command, context.uptime_s) == (7, "python feed.py", 2.0)
    assert context.sockets == (SocketStatus(1, "PUB", ("epgm://lo;239.192.1.1:5555",), {}),)


def test_null_is_a_rate_without_limit() -> None:
    socket = {**TOLD["sockets"][0], "counters": {"rate": None}}
    assert parse(sockets=[socket]).sockets[0].counters == {"rate": math.inf}


def test_control_characters_never_reach_a_terminal() -> None:
    assert parse(command="a\x1b[2Jb\nc").command == "a?[2Jb?c"


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"pid": "7"},
        {"pid": 7.5},
        {"pid": True},
        {"pid": 1 << 90},
        {"command": 5},
        {"sockets": {}},
        {"sockets": [5]},
        {"sockets": [{}]},
        {"sockets": [{**TOLD["sockets"][0], "counters": {"a b": 1}}]},
        {"sockets": [{**TOLD["sockets"][0], "counters": {"a": "1"}}]},
        {"sockets": [{**TOLD["sockets"][0], "endpoints": [5]}]},
        {"sockets": [TOLD["sockets"][0]] * 10_001},
    ],
)
def test_what_is_no_status_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its status"):
        parse(**changes)


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_no_bytes_do_more_than_be_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match="status"):
        parse_status_untrusted("/a", answer)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="no status"):
        parse_status_untrusted("/a", b"[" * 200_000)


def with_counts(seconds: int, **counts: int) -> ContextStatus:
    socket = SocketStatus(1, "SUB", (), dict(counts))
    return replace(parse(), monotonic_ns=seconds * 10**9, sockets=(socket,))


def test_rates_are_the_growth_between_two_looks() -> None:
    (rate,) = rates([with_counts(4, lost=5, peers=1)], [with_counts(6, lost=9, peers=3)])
    assert rate.elapsed_s == 2.0
    assert rate.grown == {"lost": 4}  # peers is a gauge
    assert rate.per_second("lost") == 2.0
    assert rate.per_second("gone") == 0.0


def test_a_socket_not_seen_before_counts_from_the_start_of_its_context() -> None:
    (rate,) = rates([], [with_counts(6, lost=8)])
    assert (rate.elapsed_s, rate.per_second("lost")) == (2.0, 4.0)


def test_no_rate_is_negative() -> None:
    (rate,) = rates([with_counts(4, lost=9)], [with_counts(6, lost=2)])
    assert rate.grown == {"lost": 2}
