"""Waiting: poll, Poller, and descriptors that are readable exactly while there is something."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

import pytest

import mcast

Pair = tuple[mcast.Pub, mcast.Sub]
LIMIT_S = 5.0


def is_readable(fd: int, timeout_s: float = 0.0) -> bool:
    return bool(select.select([fd], [], [], timeout_s)[0])


def test_the_descriptor_is_readable_exactly_while_messages_wait(pair: Pair) -> None:
    pub, sub = pair
    fd = sub.fileno()
    assert fd == sub.fileno()
    assert not is_readable(fd)
    for _ in range(3):
        pub.send_many([b"1", b"2"])
        assert is_readable(fd, LIMIT_S)
        assert is_readable(fd), "looking changes nothing"
        assert sub.recv(timeout=LIMIT_S) == b"1"
        assert is_readable(fd, LIMIT_S)
        assert sub.recv(timeout=LIMIT_S) == b"2"
        assert not is_readable(fd)


def test_the_descriptor_stays_readable_while_parts_are_left(pair: Pair) -> None:
    pub, sub = pair
    fd = sub.fileno()
    pub.send_multipart([b"a", b"b", b"c"])
    for more in (True, True, False):
        assert is_readable(fd, LIMIT_S)
        sub.recv()
        assert is_readable(fd) is more is sub.rcvmore
    pub.send_multipart([b"a", b"b", b"c"])
    assert is_readable(fd, LIMIT_S)
    sub.recv()
    sub.recv_multipart()
    assert not is_readable(fd)


@pytest.mark.parametrize("method", ["recv_many", "recv_many_multipart", "recv_multipart"])
def test_every_way_of_receiving_clears_the_descriptor(pair: Pair, method: str) -> None:
    pub, sub = pair
    fd = sub.fileno()
    pub.send(b"x")
    assert is_readable(fd, LIMIT_S)
    receive = getattr(sub, method)
    receive() if method == "recv_multipart" else receive(10)
    assert not is_readable(fd)


def test_a_descriptor_asked_for_late_knows_what_waits_already(pair: Pair) -> None:
    pub, sub = pair
    pub.send(b"x")
    assert sub.poll(LIMIT_S) == mcast.POLLIN
    assert is_readable(sub.fileno())


def test_the_descriptor_of_a_pub_is_readable_while_there_is_room(
    ctx: mcast.Context, url: str
) -> None:
    pub = ctx.socket(mcast.PUB, rate=1e6, sndhwm=10)
    pub.connect(url)
    fd = pub.fileno()
    assert is_readable(fd)
    with pytest.raises(mcast.Again):  # noqa: PT012
        while True:
            pub.send(bytes(1000), mcast.DONTWAIT)
    assert not is_readable(fd)
    assert is_readable(fd, LIMIT_S)  # the rate makes room
    pub.send(bytes(1000), mcast.DONTWAIT)


def test_closing_makes_the_descriptor_readable_for_who_waits(pair: Pair) -> None:
    _, sub = pair
    fd = sub.fileno()
    found: list[list[tuple[int, int]]] = []
    watched = select.poll()
    watched.register(fd, select.POLLIN)
    thread = threading.Thread(target=lambda: found.append(watched.poll(LIMIT_S * 1000)))
    thread.start()
    time.sleep(0.05)
    sub.close()
    thread.join(LIMIT_S)
    assert found
    assert found[0]


def test_no_spurious_readiness_survives_a_stream(pair: Pair) -> None:
    pub, sub = pair
    fd = sub.fileno()
    count = 20_000
    thread = threading.Thread(target=lambda: [pub.send(b"%d" % number) for number in range(count)])
    thread.start()
    expected = 0
    while expected < count:
        assert is_readable(fd, LIMIT_S)
        try:
            while True:
                assert int(sub.recv(mcast.DONTWAIT)) == expected
                expected += 1
        except mcast.Again:
            pass
    thread.join()
    assert not is_readable(fd)


# poll


def test_poll_waits_and_tells_what_holds(pair: Pair) -> None:
    pub, sub = pair
    assert sub.poll(0) == 0
    started = time.monotonic()
    assert sub.poll(0.05) == 0
    assert time.monotonic() - started >= 0.05
    threading.Timer(0.05, pub.send, [b"x"]).start()
    assert sub.poll(LIMIT_S) == mcast.POLLIN
    assert sub.poll(LIMIT_S, mcast.POLLIN | mcast.POLLOUT) == mcast.POLLIN
    assert sub.recv(mcast.DONTWAIT) == b"x"
    assert pub.poll(0, mcast.POLLOUT) == mcast.POLLOUT


def test_poll_for_what_a_kind_never_does_returns_at_once(pair: Pair) -> None:
    pub, sub = pair
    assert pub.poll(None, mcast.POLLIN) == 0
    assert sub.poll(None, mcast.POLLOUT) == 0


# Poller


def test_a_poller_watches_several_sockets_and_descriptors(
    ctx: mcast.Context, make_url: Callable[[], str]
) -> None:
    subs, pubs = [], []
    for _ in range(3):
        url = make_url()
        sub, pub = ctx.socket(mcast.SUB), ctx.socket(mcast.PUB)
        sub.connect(url)
        sub.subscribe()
        pub.connect(url)
        subs.append(sub)
        pubs.append(pub)
    reader, writer = os.pipe()
    try:
        poller = mcast.Poller()
        for sub in subs:
            poller.register(sub, mcast.POLLIN)
        poller.register(reader, mcast.POLLIN)
        assert poller.poll(0) == []
        assert poller.poll(0.02) == []
        pubs[1].send(b"x")
        assert poller.poll(LIMIT_S) == [(subs[1], mcast.POLLIN)]
        os.write(writer, b"y")
        found: dict[object, int] = dict(poller.poll(LIMIT_S))
        assert found == {subs[1]: mcast.POLLIN, reader: mcast.POLLIN}
        subs[1].recv()
        assert poller.poll(LIMIT_S) == [(reader, mcast.POLLIN)]
        os.read(reader, 1)
        assert poller.poll(0) == []
        poller.register(writer, mcast.POLLOUT)
        assert poller.poll(LIMIT_S) == [(writer, mcast.POLLOUT)]
        poller.modify(writer, 0)
        poller.unregister(reader)
        with pytest.raises(KeyError):
            poller.unregister(reader)
        pubs[0].send(b"z")
        assert poller.poll(LIMIT_S) == [(subs[0], mcast.POLLIN)]
    finally:
        os.close(reader)
        os.close(writer)


def test_a_poller_does_not_spin_while_a_publisher_is_full(ctx: mcast.Context, url: str) -> None:
    pub = ctx.socket(mcast.PUB, rate=2e5, sndhwm=5)
    pub.connect(url)
    poller = mcast.Poller()
    poller.register(pub, mcast.POLLOUT)
    assert poller.poll(0) == [(pub, mcast.POLLOUT)]
    with pytest.raises(mcast.Again):  # noqa: PT012
        while True:
            pub.send(bytes(1000), mcast.DONTWAIT)
    before = time.thread_time()
    started = time.monotonic()
    assert poller.poll(LIMIT_S) == [(pub, mcast.POLLOUT)]
    assert time.monotonic() - started > 0.01
    assert time.thread_time() - before < 0.01


def test_a_poller_for_what_a_socket_never_does_just_waits(pair: Pair) -> None:
    pub, sub = pair
    pub.send(b"x")
    assert sub.poll(LIMIT_S)
    poller = mcast.Poller()
    poller.register(sub, mcast.POLLOUT)
    before = time.thread_time()
    assert poller.poll(0.1) == []
    assert time.thread_time() - before < 0.02


def test_a_closed_socket_ends_a_poller_s_wait_with_an_error(pair: Pair) -> None:
    _, sub = pair
    poller = mcast.Poller()
    poller.register(sub, mcast.POLLIN)
    threading.Timer(0.05, sub.close).start()
    with pytest.raises(mcast.ClosedError):
        poller.poll(LIMIT_S)
    with pytest.raises(mcast.ClosedError):
        poller.poll(0)
