"""Any split of a peer's bytes gives the same events, and no bytes at all raise."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.kernel import Message
from mcast.zmtp import PlainServer, Ready, Security, ZmtpEvent
from tests.unit.zmtp.ends import CLIENT, PAIRS, SERVER, End, S, talk
from tests.unit.zmtp.wire import (
    NULL_GREETING,
    SUB_READY,
    command,
    frame,
    greeting,
    message,
    ping,
    properties,
)

pytestmark = pytest.mark.kernel_independent

bodies = st.sampled_from([b"", b"x", b"\x01A", b"\x00A", bytes(255), bytes(256), bytes(3000)])
good = st.one_of(
    st.lists(bodies, min_size=1, max_size=4).map(lambda parts: message(*parts)),
    st.sampled_from([b"A", b"", b"B" * 300]).map(lambda topic: command(b"SUBSCRIBE", topic)),
    st.just(command(b"CANCEL", b"A")),
    st.integers(0, 0xFFFF).map(ping),
    st.just(command(b"UNKNOWN", b"?")),
)
bad = st.sampled_from(
    [frame(0x40, b""), frame(5, b"x"), frame(4, b""), command(b"PING"), frame(1, b"") * 2000]
)
cuts = st.lists(st.integers(0, 1 << 16), max_size=12)


def pieces(data: bytes, where: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in where)})
    return [data[low:high] for low, high in pairwise(edges)]


def heard(datas: list[bytes], security: Security = PAIRS["NULL"][0]) -> tuple[End, list[object]]:
    end = End("XPUB", security)
    end.hear(*datas)
    return end, [*end.stream, end.sent]


@given(st.lists(good, max_size=12), st.lists(bad, max_size=1), st.lists(good, max_size=2), cuts)
def test_any_split_gives_the_same_events(
    before: list[bytes], fault: list[bytes], after: list[bytes], where: list[int]
) -> None:
    data = b"".join((NULL_GREETING, SUB_READY, *before, *fault, *after))
    end, whole = heard([data])
    assert heard(pieces(data, where))[1] == whole
    if not fault:
        assert not end.engine.is_over
        assert end.all(Ready)


@given(st.lists(good, max_size=8), cuts)
def test_any_split_of_plain_gives_the_same_events(more: list[bytes], where: list[int]) -> None:
    """Each step as the protocol has it: no side may hurry ahead."""
    steps = [
        greeting(b"PLAIN"),
        command(b"HELLO", b"\x01u\x01p"),
        command(b"INITIATE", properties(Socket_Type=b"SUB")) + b"".join(more),
    ]
    end, whole = heard(steps, PlainServer())
    assert end.all(Ready)
    assert heard([part for step in steps for part in pieces(step, where)], PlainServer())[1] == (
        whole
    )


@given(
    st.lists(bodies | st.lists(bodies, min_size=2, max_size=3).map(lambda several: tuple(several))),
    st.none() | st.integers(0, 1 << 20),
    cuts,
)
def test_any_split_of_curve_gives_the_same_events(
    batch: list[Message], flipped_bit: int | None, where: list[int]
) -> None:
    def outcome(cut: bool) -> list[ZmtpEvent | Message]:
        server, client = End("XPUB", SERVER, seed=2), End("XSUB", CLIENT, seed=3)
        talk(server, client)
        client.engine.subscribe(b"A")
        client.engine.send(batch)
        client.drain()
        data = bytearray(client.take_sent())
        if flipped_bit is not None:
            data[flipped_bit // 8 % len(data)] ^= 1 << flipped_bit % 8
        server.hear(*(pieces(bytes(data), where) if cut else [bytes(data)]))
        return server.stream

    assert outcome(cut=True) == outcome(cut=False)


mutations = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4)


@given(st.binary(max_size=400), cuts)
def test_random_bytes_never_raise(data: bytes, where: list[int]) -> None:
    for mechanism, (server, client) in PAIRS.items():
        for security in (server, client):
            for start in (b"", greeting(mechanism.encode())):
                end = End("PUB", security).hear(start, *pieces(data, where))
                end.run(10 * S)
                assert end.engine.is_over
                assert not end.all(Ready) or mechanism == "NULL"


@given(st.lists(good, max_size=6), mutations, cuts)
def test_mutated_sessions_never_raise(
    session: list[bytes], changes: list[tuple[int, int]], where: list[int]
) -> None:
    data = bytearray(b"".join((NULL_GREETING, SUB_READY, *session)))
    for position, value in changes:
        data[position % len(data)] = value
    end, _ = heard(pieces(bytes(data), where))
    end.run(7000 * S)
    assert len(end.all(Ready)) <= 1
