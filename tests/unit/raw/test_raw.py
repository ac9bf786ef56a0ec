"""Groups, numbers, pace and account of plain datagrams, without a socket."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.errors import EndpointError
from mcast.raw import (
    HEAD_BYTES,
    MOST_GROUPS,
    Pace,
    Stamp,
    Verifier,
    number_into,
    parse_groups,
    stamp_of_untrusted,
)

pytestmark = pytest.mark.kernel_independent

MS = 1_000_000


# Groups


@pytest.mark.parametrize("text", ["239.1.1.250:5000+10", "239.1.1.250+10:5000"])
def test_range_counts_addresses_on_across_the_last_octet(text: str) -> None:
    found = parse_groups(text, interface="lo")
    assert len(found) == 10
    assert (found[0].group, found[9].group) == ("239.1.1.250", "239.1.2.3")
    assert {(e.port, e.interface, e.source) for e in found} == {(5000, "lo", None)}


def test_group_has_its_source_and_ipv6_its_brackets() -> None:
    (found,) = parse_groups("10.0.0.5@232.1.2.3:5000", interface="eth0")
    assert (found.group, found.source) == ("232.1.2.3", "10.0.0.5")
    first, second = parse_groups("[ff08::ffff]:5000+2", interface="eth0")
    assert (first.group, second.group) == ("ff08::ffff", "ff08::1:0")
    (found,) = parse_groups("[fd00::5]@[ff38::1]:5000", interface="eth0")
    assert found.source == "fd00::5"


@pytest.mark.parametrize("url", ["epgm://eth1;239.1.1.1:5000", "udp://eth1;239.1.1.1:5000"])
def test_url_brings_its_own_interface(url: str) -> None:
    (found,) = parse_groups(url, interface="lo")
    assert (found.interface, found.group, found.port) == ("eth1", "239.1.1.1", 5000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("239.1.1.1", "group and a port"),
        ("239.1.1.1:5000+0", "1 to 512"),
        (f"239.1.1.1:5000+{MOST_GROUPS + 1}", "1 to 512"),
        ("239.1.1.1+2:5000+2", "two counts"),
        ("239.255.255.255:5000+2", "not multicast"),
        ("10.0.0.1:5000", "not multicast"),
        ("239.1.1.1:70000", "port"),
        ("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1+2", "last address"),
        ("tcp://10.0.0.1:5000", "not multicast"),
        ("", "group and a port"),
    ],
)
def test_what_is_no_group_is_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(EndpointError, match=words):
        parse_groups(text, interface="")


@given(st.text(max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        assert 1 <= len(parse_groups(text)) <= MOST_GROUPS
    except EndpointError:
        pass


# Numbers


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_number_survives_the_way(run: int, number: int, sent_ns: int) -> None:
    buffer = bytearray(2 * HEAD_BYTES)
    number_into(buffer, HEAD_BYTES, run, number, sent_ns)
    assert stamp_of_untrusted(memoryview(buffer)[HEAD_BYTES:]) == Stamp(run, number, sent_ns)
    assert stamp_of_untrusted(memoryview(buffer)[HEAD_BYTES:-1]) is None
    assert stamp_of_untrusted(memoryview(buffer)) is None


# Pace


def sent_after(pace: Pace, seconds: float, step_ns: int, most: int = 1000) -> int:
    """How many became due when it is asked every ``step_ns``."""
    return sum(pace.due(now_ns, most) for now_ns in range(0, int(seconds * 1e9), step_ns))


@pytest.mark.parametrize("step_ns", [10_000, MS, 37 * MS])
@pytest.mark.parametrize("per_second", [10, 1000, 50_000])
def test_rate_is_kept_however_often_it_is_asked(per_second: int, step_ns: int) -> None:
    found = sent_after(Pace(per_second), 2.0, step_ns, most=10_000)
    assert abs(found - 2 * per_second) <= per_second * step_ns / 1e9 + 1


def test_bursts_leave_together_and_keep_the_rate() -> None:
    pace = Pace(1000, burst_count=100)
    assert pace.due(0, 1000) == 100
    assert pace.due(99 * MS, 1000) == 0
    assert pace.wait_s(99 * MS) == pytest.approx(0.001)
    assert pace.due(100 * MS, 1000) == 100
    assert pace.due(200 * MS, 30) == 30  # the rest of what was wanted in all


def test_a_sender_that_was_held_up_does_not_make_up_for_all_of_it() -> None:
    pace = Pace(1000)
    assert pace.due(0, 10_000) == 1
    assert pace.due(10_000 * MS, 10_000) == 101  # 100 ms of it, and the one that is due


def test_no_pace_takes_all() -> None:
    assert Pace(inf).due(0, 44) == 44
    with pytest.raises(ValueError, match="> 0"):
        Pace(0)


# Account


def account(numbers: list[int]) -> tuple[int, int, int, int, int]:
    verifier = Verifier()
    for number in numbers:
        verifier.take(0, "10.0.0.1", Stamp(1, number, 0), 100, 0)
    (stream,) = verifier.streams.values()
    return (
        stream.received_count,
        stream.lost_count,
        stream.gap_count,
        stream.duplicate_count,
        stream.reordered_count,
    )


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2], (3, 0, 0, 0, 0)),
        ([5, 6, 7], (3, 0, 0, 0, 0)),  # heard from the middle on
        ([0, 1, 4, 5, 8], (5, 4, 2, 0, 0)),
        ([0, 2, 1, 3], (4, 0, 1, 0, 1)),
        ([0, 1, 1, 0, 2], (3, 0, 0, 2, 0)),
        ([0, 3, 1, 1], (3, 1, 1, 1, 1)),
        ([3, 2, 4], (3, 0, 0, 0, 1)),  # before the first one seen: nothing was counted as lost
        ([0, 2**64 - 1], (2, 2**64 - 2, 1, 0, 0)),
        ([0, 100_000, 5], (2, 99_999, 1, 0, 0)),  # too late to tell: it stays lost
    ],
)
def test_account_of_numbers(numbers: list[int], expected: tuple[int, ...]) -> None:
    assert account(numbers) == expected


@given(st.permutations(range(60)), st.lists(st.integers(0, 59), max_size=30))
def test_account_adds_up_whatever_the_order(order: list[int], again: list[int]) -> None:
    kept = [number for number in order if number % 7]
    numbers = [0, *kept, *(number for number in again if number % 7)]
    received, lost, _, duplicates, _ = account(numbers)
    assert received == len(kept) + 1
    assert lost == max(kept) + 1 - received
    assert duplicates == len(numbers) - received


def test_jitter_is_that_of_rfc_3550() -> None:
    verifier = Verifier()
    for number, transit_ms in enumerate([5, 5, 21, 5]):
        sent_ns = number * 10 * MS
        verifier.take(0, "a", Stamp(1, number, sent_ns), 100, sent_ns + transit_ms * MS)
    (stream,) = verifier.streams.values()
    first = 16 * MS / 16
    assert stream.jitter_ns == pytest.approx(first + (16 * MS - first) / 16)


def test_streams_are_told_apart_and_their_number_is_limited() -> None:
    verifier = Verifier()
    for place, source, run in [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1)]:
        verifier.take(place, source, Stamp(run, 0, 0), 100, 0)
    assert len(verifier.streams) == 4
    for run in range(3000):
        verifier.take(9, "x", Stamp(run, 0, 0), 100, 0)
    assert len(verifier.streams) == 1024
    assert verifier.refused_count == 3000 - 1020
    verifier.take(0, "a", None, 10, 0)
    assert verifier.plain_count == 1
