"""A user's program as the type checker sees it: checked by ``mypy --strict``, never run.

A line with ``type: ignore`` is a mistake that must be found; strict mode says when it is not.
"""

from __future__ import annotations

import array
from collections.abc import Iterator
from typing import assert_never, assert_type

import mcast


def make() -> None:
    with mcast.Context(linger=0.5, rate=1e9) as ctx:
        assert_type(ctx, mcast.Context)
        assert_type(ctx.socket(mcast.PUB), mcast.Pub)
        assert_type(ctx.socket(mcast.SUB, rcvhwm=10, on_loss="raise"), mcast.Sub)
        assert_type(ctx.socket(mcast.SocketType.PUB), mcast.Pub)
        kind: mcast.SocketType = mcast.SocketType(1)
        assert_type(ctx.socket(kind), mcast.Socket)
        assert_type(ctx.stats(), dict[str, object])
        assert_type(ctx.closed, bool)
        ctx.socket("PUB")  # type: ignore[call-overload]
        ctx.socket(mcast.PUB, rate=[1])  # type: ignore[call-overload]
        ctx.term(0.1)


def publish(pub: mcast.Pub) -> None:
    pub.connect("epgm://lo;239.192.1.1:5555")
    pub.connect(5555)  # type: ignore[arg-type]
    pub.send(b"bytes")
    pub.send(bytearray(b"bytes"), mcast.SNDMORE)
    pub.send(memoryview(b"bytes"), timeout=0.5)
    pub.send(array.array("i", [1]), mcast.DONTWAIT)
    pub.send("text")  # type: ignore[arg-type]
    pub.send(5)  # type: ignore[arg-type]
    pub.send(b"x", timeout="1")  # type: ignore[arg-type]
    pub.send_multipart([b"a", bytearray(b"b"), memoryview(b"c")])
    pub.send_multipart((b"a", b"b"))
    pub.send_multipart(["a"])  # type: ignore[list-item]
    assert_type(pub.send_many([b"a", b"b"]), int)
    assert_type(pub.send_many(b"%d" % number for number in range(3)), int)
    pub.send_many([1])  # type: ignore[list-item]


def subscribe(sub: mcast.Sub) -> None:
    sub.subscribe()
    sub.subscribe(b"AAPL")
    sub.subscribe("AAPL")
    sub.unsubscribe(memoryview(b"AAPL"))
    sub.subscribe(5)  # type: ignore[arg-type]
    assert_type(sub.recv(), bytes)
    assert_type(sub.recv(mcast.DONTWAIT), bytes)
    assert_type(sub.recv(timeout=0.5), bytes)
    assert_type(sub.recv_multipart(), list[bytes])
    assert_type(sub.recv_many(100, timeout=0.1), list[bytes])
    assert_type(sub.recv_many_multipart(100), list[list[bytes]])
    assert_type(sub.rcvmore, bool)
    assert_type(sub.poll(1.0), int)
    assert_type(sub.fileno(), int)
    sub.recv_many("100")  # type: ignore[arg-type]


def options(socket: mcast.Socket) -> None:
    assert_type(socket.rate, float)
    assert_type(socket.linger, float)
    assert_type(socket.rcvhwm, int)
    assert_type(socket.multicast_maxtpdu, int | None)
    socket.rate = 1e9
    socket.linger = 1
    socket.rcvhwm = 10
    socket.multicast_maxtpdu = None
    socket.rcvhwm = "10"  # type: ignore[assignment]
    assert_type(socket.on_loss, str)
    assert_type(socket.multicast_loop, bool)
    assert_type(socket.peer_expiry, float | None)
    socket.on_loss = "raise"
    socket.peer_expiry = None
    socket.on_loss = 5  # type: ignore[assignment]
    socket.on_los = "raise"  # type: ignore[attr-defined]
    socket.set("rate", 1e6)
    socket.set("rate", [1])  # type: ignore[arg-type]
    assert_type(socket.get("rate"), float | int | bool | str | bytes | None)
    assert_type(socket.endpoints, list[str])
    assert_type(socket.stats(), dict[str, int | float])


def events(sub: mcast.Sub) -> int:
    """A match over all events: the checker knows that there are no others."""
    assert_type(sub.events(), Iterator[mcast.Event])
    lost = 0
    for event in sub.events(timeout=None):
        match event:
            case mcast.Lost():
                assert_type(event.reason, mcast.LossReason)
                lost += event.count
            case mcast.PeerJoined():
                assert_type(event.address, str)
            case mcast.PeerLeft():
                assert_type(event.tail_unknown, bool)
            case mcast.PeerRestarted():
                assert_type(event.first, int)
            case mcast.PeerQuiet() | mcast.PeerHeard():
                assert_type(event.silent_s, float)
            case mcast.RepairsLimited():
                assert_type(event.wait_s, float)
    return lost


def exhaustive(event: mcast.Event) -> str:
    match event:
        case mcast.Lost() | mcast.PeerLeft():
            return event.reason
        case mcast.PeerJoined() | mcast.PeerRestarted():
            return str(event.first)
        case mcast.PeerQuiet() | mcast.PeerHeard() | mcast.RepairsLimited():
            return event.tsi
        case _:
            assert_never(event)


def errors(sub: mcast.Sub) -> None:
    try:
        sub.recv(timeout=1)
    except mcast.Again as error:
        timeout: TimeoutError = error
        print(timeout)
    except mcast.LossError as error:
        assert_type(error.first, int)
        assert_type(error.reason, str)
    except mcast.Error as error:
        print(error)


def poll(subs: list[mcast.Sub]) -> None:
    poller = mcast.Poller()
    for sub in subs:
        poller.register(sub, mcast.POLLIN)
    poller.register(0, mcast.POLLIN)
    poller.register("stdin")  # type: ignore[arg-type]
    for ready, flags in poller.poll(timeout=1.0):
        assert_type(ready, mcast.Socket | int)
        assert_type(flags, int)
