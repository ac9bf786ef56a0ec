"""Every mistake is an error at the call that makes it, of the right class, and says what to do."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

import mcast

Pair = tuple[mcast.Pub, mcast.Sub]
SocketMaker = Callable[[mcast.Context], mcast.Socket]


def pub_of(ctx: mcast.Context) -> mcast.Socket:
    return ctx.socket(mcast.PUB)


def sub_of(ctx: mcast.Context) -> mcast.Socket:
    return ctx.socket(mcast.SUB)


BOTH = pytest.mark.parametrize("make", [pub_of, sub_of])


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "nonsense",
        "epgm://",
        "epgm://lo",
        "epgm://lo;239.192.1.1",
        "epgm://lo;239.192.1.1:0",
        "epgm://lo;239.192.1.1:65536",
        "epgm://lo;127.0.0.1:5555",
        "epgm://lo;239.192.1.1:port",
        "epgm://lo;[ff02::1:5555",
        "pgm://lo;239.192.1.1:5555",
        "tcp://127.0.0.1",
        "inproc://",
    ],
)
def test_a_wrong_url_is_an_endpoint_error(
    ctx: mcast.Context, make: SocketMaker, wrong: str
) -> None:
    socket = make(ctx)
    for method in (socket.connect, socket.bind, socket.disconnect):
        with pytest.raises(mcast.EndpointError) as caught:
            method(wrong)
        assert isinstance(caught.value, ValueError)
    assert socket.endpoints == []


@BOTH
@pytest.mark.parametrize("wrong", [None, 5, b"epgm://lo;239.192.1.1:5555"])
def test_a_url_is_text(ctx: mcast.Context, make: SocketMaker, wrong: Any) -> None:
    with pytest.raises(mcast.EndpointError, match="a URL is a str"):
        make(ctx).connect(wrong)


@BOTH
@pytest.mark.parametrize("interface", ["nosuch0", "203.0.113.77", "203.0.113.0/24"])
def test_an_unknown_interface_is_an_error_that_lists_the_choices(
    ctx: mcast.Context, make: SocketMaker, interface: str
) -> None:
    with pytest.raises(mcast.InterfaceError, match="lo"):
        make(ctx).connect(f"epgm://{interface};239.192.1.1:5555")


@BOTH
def test_connecting_twice_or_leaving_what_was_not_joined_is_an_error(
    ctx: mcast.Context, url: str, make: SocketMaker
) -> None:
    socket = make(ctx)
    with pytest.raises(mcast.EndpointError, match="not connected"):
        socket.disconnect(url)
    socket.connect(url)
    with pytest.raises(mcast.EndpointError, match="already connected"):
        socket.bind(url)
    socket.unbind(url)
    with pytest.raises(mcast.EndpointError, match="not connected"):
        socket.disconnect(url)
    socket.connect(url)


@BOTH
@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every port")
def test_a_privileged_port_is_a_transport_error(ctx: mcast.Context, make: SocketMaker) -> None:
    with pytest.raises(mcast.TransportError) as caught:
        make(ctx).connect("epgm://lo;239.192.1.1:1")
    assert isinstance(caught.value, PermissionError | OSError)


@BOTH
def test_packets_above_the_interface_s_mtu_are_refused(
    ctx: mcast.Context, url: str, make: SocketMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from mcast.runtime import links

    real = links.resolve_interface

    def small(name: str, version: Any) -> Any:
        return replace(real(name, version), mtu_bytes=1280)

    monkeypatch.setattr(links, "resolve_interface", small)
    socket = make(ctx)
    socket.set("multicast_maxtpdu", 1281)
    with pytest.raises(mcast.OptionError, match="1280"):
        socket.connect(url)
    socket.set("multicast_maxtpdu", None)
    socket.connect(url)  # 1500 is the default, or what the interface takes


@BOTH
def test_a_failed_connect_leaves_no_descriptor(
    ctx: mcast.Context, url: str, make: SocketMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcast.runtime import links

    socket = make(ctx)
    before = sorted(os.listdir("/proc/self/fd"))

    def no_memory(**_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(links, "PgmEngine", no_memory)
        with pytest.raises(MemoryError):
            socket.connect(url)
    assert sorted(os.listdir("/proc/self/fd")) == before
    socket.connect(url)


def test_an_unknown_kind_of_socket_is_an_option_error(ctx: mcast.Context) -> None:
    kind: Any
    for kind in (11, -1, "PUB", None):
        with pytest.raises(mcast.OptionError, match=r"one of mcast\.PUB, mcast\.SUB"):
            ctx.socket(kind)


def test_a_message_over_the_limit_is_refused_and_the_next_arrives(
    ctx: mcast.Context, url: str
) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB, max_msg_size=1000)
    pub.connect(url)
    calls: list[Callable[[], object]] = [
        lambda: pub.send(bytes(1001)),
        lambda: pub.send_multipart([bytes(500), bytes(501)]),
        lambda: pub.send_many([b"fits", bytes(1001)]),
    ]
    for call in calls:
        with pytest.raises(mcast.MessageTooLongError, match="1000") as caught:
            call()
        assert isinstance(caught.value, ValueError)
    pub.send(bytes(1000))
    assert sub.recv(timeout=5.0) == bytes(1000)


def test_a_message_over_half_the_window_is_refused_with_the_cure(
    ctx: mcast.Context, url: str
) -> None:
    pub = ctx.socket(mcast.PUB, txw_bytes=1 << 16)
    pub.connect(url)
    for call in (lambda: pub.send(bytes(60_000)), lambda: pub.send_many([bytes(60_000)])):
        with pytest.raises(mcast.MessageTooLongError, match="txw_bytes"):
            call()
    pub.send(bytes(20_000))


def test_a_publisher_without_an_endpoint_says_so(ctx: mcast.Context) -> None:
    pub = ctx.socket(mcast.PUB)
    for call in (lambda: pub.send(b"x"), lambda: pub.send_many([b"x"])):
        with pytest.raises(mcast.PatternError, match="connect"):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda socket: socket.recv(),
        lambda socket: socket.recv_multipart(),
        lambda socket: socket.recv_many(1),
        lambda socket: socket.recv_many_multipart(1),
        lambda socket: socket.subscribe(b""),
        lambda socket: socket.unsubscribe(b""),
        lambda socket: socket.events(),
    ],
)
def test_a_pub_cannot_receive_and_says_who_can(
    ctx: mcast.Context, call: Callable[[mcast.Socket], object]
) -> None:
    with pytest.raises(mcast.PatternError, match=r"PUB socket cannot .*SUB"):
        call(ctx.socket(mcast.PUB))


@pytest.mark.parametrize(
    "call",
    [
        lambda socket: socket.send(b""),
        lambda socket: socket.send_multipart([b""]),
        lambda socket: socket.send_many([b""]),
    ],
)
def test_a_sub_cannot_send_and_says_who_can(
    ctx: mcast.Context, call: Callable[[mcast.Socket], object]
) -> None:
    with pytest.raises(mcast.PatternError, match=r"SUB socket cannot .*PUB"):
        call(ctx.socket(mcast.SUB))


EVERY_CALL: dict[str, Callable[[Any], object]] = {
    "connect": lambda socket: socket.connect("epgm://lo;239.192.1.1:5555"),
    "disconnect": lambda socket: socket.disconnect("epgm://lo;239.192.1.1:5555"),
    "set": lambda socket: socket.set("linger", 1.0),
    "get": lambda socket: socket.get("linger"),
    "attribute": lambda socket: setattr(socket, "linger", 1.0),
    "poll": lambda socket: socket.poll(0),
    "fileno": lambda socket: socket.fileno(),
    "stats": lambda socket: socket.stats(),
    "with": lambda socket: socket.__enter__(),
    "send": lambda socket: socket.send(b""),
    "send more": lambda socket: socket.send(b"", mcast.SNDMORE),
    "send_multipart": lambda socket: socket.send_multipart([b""]),
    "send_many": lambda socket: socket.send_many([b""]),
    "recv": lambda socket: socket.recv(),
    "recv at once": lambda socket: socket.recv(mcast.DONTWAIT),
    "recv_multipart": lambda socket: socket.recv_multipart(timeout=0),
    "recv_many": lambda socket: socket.recv_many(1),
    "recv_many_multipart": lambda socket: socket.recv_many_multipart(1),
    "subscribe": lambda socket: socket.subscribe(b""),
    "unsubscribe": lambda socket: socket.unsubscribe(b""),
    "events": lambda socket: list(socket.events()),
}


@BOTH
@pytest.mark.parametrize("name", EVERY_CALL)
def test_every_call_on_a_closed_socket_says_that_it_is_closed(
    ctx: mcast.Context, url: str, make: SocketMaker, name: str
) -> None:
    socket = make(ctx)
    socket.connect(url)
    socket.close()
    socket.close()  # a second time does nothing
    assert socket.closed
    with pytest.raises(mcast.ClosedError, match="closed") as caught:
        EVERY_CALL[name](socket)
    assert not isinstance(caught.value, mcast.ForkedError)


def test_what_waited_in_a_closed_socket_is_gone(pair: Pair) -> None:
    pub, sub = pair
    pub.send_multipart([b"a", b"b"])
    pub.send(b"c")
    assert sub.recv(timeout=5.0) == b"a"
    sub.close()
    with pytest.raises(mcast.ClosedError):
        sub.recv()


def test_a_closed_context_makes_no_sockets(url: str) -> None:
    ctx = mcast.Context(linger=0)
    socket = ctx.socket(mcast.SUB)
    socket.connect(url)
    ctx.term()
    ctx.term()  # a second time does nothing
    assert ctx.closed
    assert socket.closed
    calls: list[Callable[[], object]] = [
        lambda: ctx.socket(mcast.SUB),
        ctx.stats,
        ctx.__enter__,
    ]
    for call in calls:
        with pytest.raises(mcast.ClosedError, match="make a new one"):
            call()


@BOTH
@pytest.mark.parametrize("linger", [-1, "1", float("nan"), 3601])
def test_a_wrong_linger_closes_nothing(
    ctx: mcast.Context, url: str, make: SocketMaker, linger: Any
) -> None:
    socket = make(ctx)
    socket.connect(url)
    with pytest.raises(mcast.OptionError, match="linger"):
        socket.close(linger)
    with pytest.raises(mcast.OptionError, match="linger"):
        ctx.term(linger)
    assert not socket.closed
    assert not ctx.closed
    socket.stats()


def test_an_error_raised_again_and_again_keeps_no_frames_alive(ctx: mcast.Context) -> None:
    socket = ctx.socket(mcast.SUB)
    socket.close()
    seen = []
    for _ in range(2):
        with pytest.raises(mcast.ClosedError) as caught:
            socket.recv()
        seen.append(caught.value)
    assert seen[0] is not seen[1]


@pytest.mark.parametrize("wait", [lambda sub: sub.recv(), lambda sub: sub.poll()])
def test_a_bug_in_one_endpoint_ends_that_one_and_wakes_who_waits(
    pair: Pair,
    ctx: mcast.Context,
    make_url: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wait: Callable[[mcast.Sub], object],
) -> None:
    pub, sub = pair
    other_url = make_url()
    other_sub, other_pub = ctx.socket(mcast.SUB), ctx.socket(mcast.PUB)
    other_sub.connect(other_url)
    other_sub.subscribe()
    other_pub.connect(other_url)
    caught: list[BaseException] = []

    def waiting() -> None:
        try:
            wait(sub)
            sub.recv()
        except mcast.Error as error:
            caught.append(error)

    thread = threading.Thread(target=waiting)
    thread.start()

    def bug(*_: object) -> None:
        raise ZeroDivisionError("planted")

    link = sub.links[0]
    monkeypatch.setattr(link._engine, "handle_datagrams", bug)
    link._engine.streams.clear()  # what is plain does not get there
    pub.send(b"x")
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(caught[0], mcast.TransportError)
    assert "planted" in str(caught[0])
    assert "endpoint failed" in caplog.text
    with pytest.raises(mcast.TransportError, match="new socket"):
        sub.recv(timeout=1.0)
    with contextlib.suppress(mcast.Error):
        list(sub.events(1.0))
    other_pub.send(b"y")
    assert other_sub.recv(timeout=5.0) == b"y"


def test_a_bug_in_a_publisher_s_endpoint_is_told_to_who_sends(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pub, _ = pair

    def bug(*_: object) -> None:
        raise ZeroDivisionError("planted")

    link = pub.links[0]
    monkeypatch.setattr(link._engine, "handle_timeout", bug)
    pub.send(b"x")
    assert link.closed.wait(5)
    with pytest.raises(mcast.TransportError, match="planted"):
        pub.send(b"y")
