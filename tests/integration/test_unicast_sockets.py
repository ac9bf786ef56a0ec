"""Sockets over tcp, ipc and inproc, from ``bind`` to ``close``, on real sockets of this host."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import mcast
import mcast.asyncio
from mcast import MonitorKind

URLS = ["tcp://127.0.0.1:*", "tcp://[::1]:*", "ipc://*", "ipc://@mcast-test", "inproc://test"]


@pytest.fixture
def ctx() -> Iterator[mcast.Context]:
    with mcast.Context() as made:
        yield made


def until(holds: Callable[[], object], timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def pair_of(
    ctx: mcast.Context, left: mcast.SocketType, right: mcast.SocketType, url: str = URLS[0]
) -> tuple[mcast.Socket, mcast.Socket]:
    bound, connected = ctx.socket(left), ctx.socket(right)
    bound.bind(url)
    connected.connect(bound.last_endpoint)
    return bound, connected


@pytest.mark.parametrize("url", URLS)
def test_a_message_arrives_whole_and_in_order_over_every_transport(
    ctx: mcast.Context, url: str
) -> None:
    pull, push = pair_of(ctx, mcast.PULL, mcast.PUSH, url)
    big = bytes(range(256)) * 8192  # 2 MiB
    messages = [[b""], [b"a"], [b"one", b"", b"three"], [big, b"end"]] * 5
    sender = threading.Thread(target=lambda: [push.send_multipart(each) for each in messages])
    sender.start()
    assert [pull.recv_multipart(timeout=10) for _ in messages] == messages
    sender.join()


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:*", "ipc://*"])
def test_publisher_that_drops_nothing_goes_on_when_its_subscriber_has_read(
    ctx: mcast.Context, url: str
) -> None:
    count, batch = 300, [b"x" * 1024] * 100
    sub = ctx.socket(mcast.SUB, rcvhwm=1000)
    sub.subscribe(b"")
    sub.bind(url)
    pub = ctx.socket(mcast.PUB, xpub_nodrop=True, sndhwm=1000)
    pub.connect(sub.last_endpoint)
    until(lambda: pub.send(b"x") or sub.poll(0.01))
    sub.recv()
    sent: list[int] = []
    sender = threading.Thread(
        target=lambda: sent.extend(pub.send_many(batch, timeout=9) for _ in range(count))
    )
    sender.start()
    received = 0
    while received < 100 * count:
        received += len(sub.recv_many(100, timeout=2))
    sender.join()
    assert sent == [100] * count


def test_messages_that_the_linger_gives_up_are_counted() -> None:
    with mcast.Context() as context:
        push = context.socket(mcast.PUSH, linger=0.05)
        push.connect("ipc://@mcast-nobody-listens")
        push.send_many([b"one", b"two", b"three"])
        assert push.unsent_count == 0
        push.close()
        until(lambda: push.finished)
    assert push.unsent_count == 3


@pytest.mark.parametrize("url", URLS)
def test_requests_and_replies_alternate(ctx: mcast.Context, url: str) -> None:
    rep, req = pair_of(ctx, mcast.REP, mcast.REQ, url)
    for number in range(20):
        req.send(b"%d" % number, timeout=5)
        with pytest.raises(mcast.PatternError, match="receives the reply"):
            req.send(b"again")
        assert rep.recv(timeout=5) == b"%d" % number
        rep.send_multipart([b"r", b"%d" % number])
        assert req.recv_multipart(timeout=5) == [b"r", b"%d" % number]


def test_connect_may_come_before_bind(ctx: mcast.Context) -> None:
    dealer, router = ctx.socket(mcast.DEALER), ctx.socket(mcast.ROUTER)
    dealer.connect("inproc://later")
    dealer.connect("ipc://@mcast-later")
    dealer.send_many([b"first", b"second"])
    router.bind("inproc://later")
    router.bind("ipc://@mcast-later")
    got = {router.recv_multipart(timeout=5)[1] for _ in range(2)}
    assert got == {b"first", b"second"}


def test_a_sub_hears_its_topics_only_and_changes_them_at_any_time(ctx: mcast.Context) -> None:
    pub, sub = pair_of(ctx, mcast.XPUB, mcast.SUB)
    sub.subscribe("A")
    assert pub.recv(timeout=5) == b"\1A"
    pub.send(b"A1")
    pub.send(b"B1")
    sub.subscribe("B")
    assert pub.recv(timeout=5) == b"\1B"
    pub.send(b"B2")
    sub.unsubscribe("A")
    assert pub.recv(timeout=5) == b"\0A"
    pub.send(b"A2")
    pub.send(b"B3")
    assert [sub.recv(timeout=5) for _ in range(3)] == [b"A1", b"B2", b"B3"]


def test_a_pub_serves_multicast_and_tcp_at_once_and_a_sub_hears_both(ctx: mcast.Context) -> None:
    pub, by_tcp, by_both = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB), ctx.socket(mcast.SUB)
    group = "epgm://lo;239.192.77.1:17701"
    pub.bind(group)
    pub.bind("tcp://127.0.0.1:*")
    for sub in (by_tcp, by_both):
        sub.subscribe()
        sub.connect(pub.last_endpoint)
    by_both.connect(group)
    until(lambda: pub.stats()["connections"] == 2)
    time.sleep(0.1)  # subscriptions are on their way
    pub.send_multipart([b"x", b"1"])
    assert by_tcp.recv_multipart(timeout=5) == [b"x", b"1"]
    assert [by_both.recv_multipart(timeout=5) for _ in range(2)] == [[b"x", b"1"]] * 2
    with pytest.raises(mcast.Again):
        by_tcp.recv(timeout=0.05)


def test_a_push_waits_at_its_high_water_mark_and_goes_on_when_there_is_room(
    ctx: mcast.Context,
) -> None:
    push = ctx.socket(mcast.PUSH, sndhwm=5)
    push.connect("inproc://nobody-yet")
    for _ in range(5):
        push.send(b"queued", timeout=0)
    with pytest.raises(mcast.Again):
        push.send(b"one too many", timeout=0.05)
    pull = ctx.socket(mcast.PULL, rcvhwm=5)
    pull.bind("inproc://nobody-yet")
    push.send(b"now", timeout=5)
    assert [pull.recv(timeout=5) for _ in range(6)] == [b"queued"] * 5 + [b"now"]


def test_a_slow_pull_holds_up_its_push_by_tcp_and_nothing_is_lost(ctx: mcast.Context) -> None:
    pull, push = pair_of(ctx, mcast.PULL, mcast.PUSH)
    sent = 0
    body = bytes(100_000)
    while push.poll(0.5, mcast.POLLOUT):
        push.send_multipart([b"%d" % sent, body], timeout=0)
        sent += 1
    with pytest.raises(mcast.Again):
        push.send(b"one more", timeout=0)
    assert sent < 4000  # 400 MB would not be held up
    for number in range(sent):
        assert pull.recv_multipart(timeout=5)[0] == b"%d" % number


def test_a_connection_comes_back_when_its_peer_does(ctx: mcast.Context) -> None:
    push = ctx.socket(mcast.PUSH, reconnect_ivl=0.02)
    monitor = push.monitor()
    pull = ctx.socket(mcast.PULL)
    pull.bind("tcp://127.0.0.1:*")
    url = pull.last_endpoint
    push.connect(url)
    push.send(b"one")
    assert pull.recv(timeout=5) == b"one"
    pull.close()
    until(lambda: push.stats()["connections"] == 0)
    push.send(b"two")  # waits for the connection to come
    again = ctx.socket(mcast.PULL)
    until(lambda: _binds(again, url))
    assert again.recv(timeout=5) == b"two"
    kinds = [monitor.recv(timeout=1).kind for _ in range(4)]
    assert kinds[:3] == [
        MonitorKind.CONNECT_DELAYED,
        MonitorKind.CONNECTED,
        MonitorKind.HANDSHAKE_SUCCEEDED,
    ]
    assert kinds[3] is MonitorKind.DISCONNECTED


def _binds(socket: mcast.Socket, url: str) -> bool:
    try:
        socket.bind(url)
    except mcast.TransportError:
        return False
    return True


def test_what_was_sent_leaves_although_the_socket_is_closed_at_once() -> None:
    with mcast.Context() as ours, mcast.Context() as theirs:
        pull = theirs.socket(mcast.PULL)
        pull.bind("tcp://127.0.0.1:*")
        push = ours.socket(mcast.PUSH)
        push.connect(pull.last_endpoint)
        push.send_many([b"%d" % number for number in range(900)])
        push.close(linger=5)
        assert [pull.recv(timeout=5) for _ in range(900)] == [b"%d" % n for n in range(900)]


def test_closing_without_linger_takes_no_time(ctx: mcast.Context) -> None:
    push = ctx.socket(mcast.PUSH, linger=0)
    push.connect("tcp://127.0.0.1:9")
    push.send(b"to nobody")
    begun = time.monotonic()
    push.close()
    until(lambda: push.finished)
    assert time.monotonic() - begun < 0.5


def test_a_router_with_mandatory_says_whom_it_does_not_know(ctx: mcast.Context) -> None:
    router = ctx.socket(mcast.ROUTER, router_mandatory=True)
    router.bind("tcp://127.0.0.1:*")
    with pytest.raises(mcast.UnroutableError):
        router.send_multipart([b"nobody", b"hello"])


def test_a_dish_hears_the_groups_it_joined_over_tcp_and_udp(ctx: mcast.Context) -> None:
    radio, dish = ctx.socket(mcast.RADIO), ctx.socket(mcast.DISH)
    assert isinstance(radio, mcast.Radio)
    assert isinstance(dish, mcast.Dish)
    dish.join("weather")
    dish.bind("udp://lo;239.192.77.2:17702")
    dish.bind("tcp://127.0.0.1:*")
    radio.connect(dish.last_endpoint)
    radio.connect("udp://lo;239.192.77.2:17702")
    until(lambda: radio.stats()["connections"] == 1)
    time.sleep(0.1)
    radio.publish("weather", b"rain")
    radio.publish("sport", b"0:0")
    assert [dish.recv_multipart(timeout=5) for _ in range(2)] == [[b"weather", b"rain"]] * 2
    with pytest.raises(mcast.Again):
        dish.recv(timeout=0.05)


def test_conflate_keeps_the_newest(ctx: mcast.Context) -> None:
    pull = ctx.socket(mcast.PULL, conflate=True)
    pull.bind("inproc://conflate")
    push = ctx.socket(mcast.PUSH)
    push.connect("inproc://conflate")
    push.send_many([b"%d" % number for number in range(100)])
    assert pull.recv(timeout=5) == b"99"


def test_poll_tells_reading_and_writing_apart(ctx: mcast.Context) -> None:
    left, right = pair_of(ctx, mcast.PAIR, mcast.PAIR)
    assert right.poll(5, mcast.POLLOUT) == mcast.POLLOUT
    assert right.poll(0, mcast.POLLIN) == 0
    until(lambda: left.poll(0, mcast.POLLOUT))
    left.send(b"x")
    assert right.poll(5, mcast.POLLIN) == mcast.POLLIN
    poller = mcast.Poller()
    poller.register(right, mcast.POLLIN)
    assert poller.poll(5) == [(right, mcast.POLLIN)]
    assert right.recv() == b"x"
    assert poller.poll(0) == []


def test_names_and_passwords_are_judged_by_the_authenticator(ctx: mcast.Context) -> None:
    pull = ctx.socket(mcast.PULL, plain_server=True)
    with pytest.raises(mcast.OptionError, match="nobody judges"):
        pull.bind("tcp://127.0.0.1:*")
    pull.authenticate(mcast.allow(users={"ann": "secret"}))
    pull.bind("tcp://127.0.0.1:*")
    good = ctx.socket(mcast.PUSH, plain_username="ann", plain_password="secret")
    bad = ctx.socket(mcast.PUSH, plain_username="ann", plain_password="guess", linger=0)
    monitor = bad.monitor()
    bad.connect(pull.last_endpoint)
    with contextlib.suppress(mcast.Again):  # it may have been refused already, for good
        bad.send(b"let me in", timeout=0.1)
    good.connect(pull.last_endpoint)
    good.send(b"hello")
    assert pull.recv(timeout=5) == b"hello"
    events = [monitor.recv(timeout=5) for _ in range(3)]
    assert (events[2].kind, events[2].value) == (MonitorKind.HANDSHAKE_FAILED, 400)
    with pytest.raises(mcast.Again):
        pull.recv(timeout=0.1)


def test_allow_takes_public_keys_as_keypair_gives_them(ctx: mcast.Context) -> None:
    server_public, server_secret = mcast.curve_keypair()
    friend_public, friend_secret = mcast.curve_keypair()
    pull = ctx.socket(mcast.PULL, curve_server=True, curve_secretkey=server_secret)
    pull.authenticate(mcast.allow(keys=[friend_public]))
    pull.bind("tcp://127.0.0.1:*")
    for secret, message in ((mcast.curve_keypair()[1], b"stranger"), (friend_secret, b"friend")):
        push = ctx.socket(mcast.PUSH, curve_serverkey=server_public, curve_secretkey=secret)
        push.connect(pull.last_endpoint)
        with contextlib.suppress(mcast.Again):  # a stranger may be refused before it can send
            push.send(message, timeout=1.0)
    assert pull.recv(timeout=5) == b"friend"
    with pytest.raises(mcast.Again):
        pull.recv(timeout=0.1)
    with pytest.raises(mcast.OptionError, match="each of keys has 40 characters in Z85, not 5"):
        mcast.allow(keys=["short"])


def test_options_that_a_transport_or_type_cannot_honour_are_errors(ctx: mcast.Context) -> None:
    key = bytes(range(32))
    pub = ctx.socket(mcast.PUB, curve_server=True, curve_secretkey=key)
    with pytest.raises(mcast.OptionError, match="cannot honour curve_server"):
        pub.bind("epgm://lo;239.192.77.3:17703")
    with pytest.raises(mcast.OptionError, match="no handshake"):
        pub.bind("inproc://secret")
    with pytest.raises(mcast.OptionError, match="conflate is an option of"):
        ctx.socket(mcast.REP, conflate=True)
    with pytest.raises(mcast.EndpointError, match="PUB and SUB only"):
        ctx.socket(mcast.PUSH).connect("epgm://lo;239.192.77.3:17703")
    with pytest.raises(mcast.EndpointError, match="over udp:// a DISH binds"):
        ctx.socket(mcast.PUB).bind("udp://lo;239.192.77.3:17703")


def test_wrong_endpoints_say_what_to_do(ctx: mcast.Context) -> None:
    rep, other = ctx.socket(mcast.REP), ctx.socket(mcast.REP)
    rep.bind("tcp://127.0.0.1:*")
    with pytest.raises(mcast.TransportError, match="choose another port"):
        other.bind(rep.last_endpoint)
    with pytest.raises(mcast.EndpointError, match="only to bind"):
        other.connect("tcp://127.0.0.1:*")
    with pytest.raises(mcast.EndpointError, match="unknown"):
        other.connect("tcp://no-such-host.invalid:5555")
    with pytest.raises(mcast.TransportError, match="directory does not exist"):
        other.bind("ipc:///no/such/directory/socket")
    rep.bind("inproc://taken")
    with pytest.raises(mcast.TransportError, match="has the name"):
        other.bind("inproc://taken")
    other.connect("tcp://127.0.0.1:9")
    with pytest.raises(mcast.EndpointError, match="already connected"):
        other.connect("tcp://127.0.0.1:9")
    with pytest.raises(mcast.MessageTooLongError):
        ctx.socket(mcast.PUSH, max_msg_size=3).send(b"long")


def test_the_caller_drives_unicast_sockets_without_a_thread() -> None:
    for busy_poll in (False, True):
        with mcast.Context(loop="caller", busy_poll=busy_poll) as ctx:
            rep, req = pair_of(ctx, mcast.REP, mcast.REQ)
            for _ in range(3):
                req.send(b"ping", timeout=5)
                assert rep.recv(timeout=5) == b"ping"
                rep.send(b"pong")
                assert req.recv(timeout=5) == b"pong"


def test_every_pattern_is_awaitable() -> None:
    async def talk() -> None:
        async with mcast.asyncio.Context() as ctx:
            router, dealer = ctx.socket(mcast.ROUTER), ctx.socket(mcast.DEALER)
            monitor = router.monitor()
            router.bind("tcp://127.0.0.1:*")
            dealer.connect(router.last_endpoint)
            assert (await anext(monitor)).kind is MonitorKind.LISTENING
            assert await dealer.send_many([b"%d" % number for number in range(3000)]) == 3000
            got: list[bytes] = []
            while len(got) < 3000:
                batch = await router.recv_many_multipart(1000, timeout=5)
                got += [parts[1] for parts in batch]
            assert got == [b"%d" % number for number in range(3000)]
            name = batch[0][0]
            waiting = asyncio.create_task(dealer.recv(timeout=5))
            assert await dealer.poll(0, mcast.POLLIN) == 0
            await router.send_multipart([name, b"reply"])
            assert await waiting == b"reply"
            waiting = asyncio.create_task(dealer.recv())
            await asyncio.sleep(0)
            dealer.close()
            with pytest.raises(mcast.ClosedError):
                await waiting

    asyncio.run(asyncio.wait_for(talk(), 20))


@pytest.mark.parametrize("loop", ["thread", "caller"])
@pytest.mark.parametrize("url", ["tcp://127.0.0.1:*", "ipc://@again", "inproc://again"])
def test_an_address_is_free_again_when_close_returns(loop: str, url: str) -> None:
    with mcast.Context(loop=loop) as ctx:
        for _ in range(20):
            rep = ctx.socket(mcast.REP)
            rep.bind(url)
            url = rep.last_endpoint
            rep.close()


def test_a_closed_listener_tells_its_monitor_once(ctx: mcast.Context) -> None:
    rep = ctx.socket(mcast.REP)
    monitor = rep.monitor()
    rep.bind("tcp://127.0.0.1:*")
    rep.close()
    until(lambda: rep.finished)
    kinds = [event.kind for event in monitor]
    assert kinds == [MonitorKind.LISTENING, MonitorKind.CLOSED]


def test_unbind_takes_the_endpoint_as_it_was_asked_for_and_as_it_became(ctx: mcast.Context) -> None:
    rep = ctx.socket(mcast.REP)
    for asked in ("tcp://127.0.0.1:*", "tcp://lo:*", "ipc://*"):
        rep.bind(asked)
        rep.unbind(asked)
        assert rep.endpoints == []
        rep.bind(asked)
        rep.unbind(rep.last_endpoint)
        assert rep.endpoints == []


def test_unbind_of_what_was_asked_for_twice_wants_to_know_which(ctx: mcast.Context) -> None:
    rep = ctx.socket(mcast.REP)
    rep.bind("tcp://127.0.0.1:*")
    rep.bind("tcp://127.0.0.1:*")
    with pytest.raises(mcast.EndpointError, match="more than once: name one of tcp://127"):
        rep.unbind("tcp://127.0.0.1:*")
    assert len(rep.endpoints) == 2


def test_a_context_s_connections_that_are_over_are_forgotten(ctx: mcast.Context) -> None:
    push = ctx.socket(mcast.PUSH)
    for _ in range(3):
        pull = ctx.socket(mcast.PULL)
        pull.bind("inproc://now-and-then")
        push.connect("inproc://now-and-then")
        assert "inproc://now-and-then" in push.endpoints
        pull.close()
        until(lambda: not push.endpoints)
