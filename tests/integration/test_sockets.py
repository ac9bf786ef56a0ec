"""What a user does with the sockets: send, receive, subscribe, set options. On real loopback."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import pytest

import mcast
from mcast.options import OptionValue

Pair = tuple[mcast.Pub, mcast.Sub]

LIMIT_S = 5.0
"""Longer than anything here takes; a message that has not come by then never will."""
QUIET_S = 0.15
"""Long enough for a message on loopback that should not come."""


def test_the_example_of_the_manual_works() -> None:
    with mcast.Context() as ctx:
        pub = ctx.socket(mcast.PUB, rate=1e9)
        pub.connect("epgm://lo;239.192.1.1:5555")
        sub = ctx.socket(mcast.SUB)
        sub.connect("epgm://lo;239.192.1.1:5555")
        sub.subscribe(b"AAPL")
        pub.send(b"AAPL 189.20")
        pub.send_multipart([b"AAPL", b"189.20"])
        assert pub.send_many([b"a", b"b"]) == 2
        pub.send(b"AAPL")
        assert sub.recv(timeout=1.0) == b"AAPL 189.20"
        assert sub.recv_multipart() == [b"AAPL", b"189.20"]
        assert sub.recv_many(1000, timeout=0.1) == [b"AAPL"]
        assert [type(event) for event in sub.events()] == [mcast.PeerJoined]
        assert sub.stats()["messages_received"] == 3
        assert sub.stats()["messages_filtered"] == 2


# Bytes-like in, bytes out.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"bytes", b"bytes"),
        (b"", b""),
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"memoryview"), b"memoryview"),
        (memoryview(b"s-t-r-i-d-e")[::2], b"stride"),
        (memoryview(bytes(range(12))).cast("B", (3, 4)), bytes(range(12))),
        (memoryview(array.array("H", [1, 2])), array.array("H", [1, 2]).tobytes()),
        (memoryview(array.array("d", [0.5, 1.5]))[::-1], array.array("d", [1.5, 0.5]).tobytes()),
        (array.array("i", [1, -2, 3]), array.array("i", [1, -2, 3]).tobytes()),
        (array.array("i"), b""),
    ],
)
def test_any_buffer_goes_in_and_bytes_come_out(pair: Pair, data: Any, expected: bytes) -> None:
    pub, sub = pair
    pub.send(data)
    pub.send_multipart([data, b"end"])
    pub.send_many([data])
    pub.send(data, mcast.SNDMORE)
    pub.send(b"last")
    first = sub.recv(timeout=LIMIT_S)
    assert first == expected
    assert type(first) is bytes
    assert sub.recv_multipart(timeout=LIMIT_S) == [expected, b"end"]
    assert sub.recv_multipart(timeout=LIMIT_S) == [expected]
    assert sub.recv_multipart(timeout=LIMIT_S) == [expected, b"last"]


def test_a_buffer_may_be_changed_after_send(pair: Pair) -> None:
    pub, sub = pair
    data = bytearray(b"before")
    pub.send(data, mcast.SNDMORE)
    data[:] = b"middle"
    pub.send(data)
    data[:] = b"after!"
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"before", b"middle"]


@pytest.mark.parametrize("wrong", ["text", 5, None, 1.5, ["list"]])
def test_what_is_not_bytes_like_is_refused_at_the_call(pair: Pair, wrong: Any) -> None:
    pub, sub = pair
    calls: list[Callable[[], object]] = [
        lambda: pub.send(wrong),
        lambda: pub.send(wrong, mcast.SNDMORE),
        lambda: pub.send_multipart([b"good", wrong]),
        lambda: pub.send_many([b"good", wrong]),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="bytes-like"):
            call()
    with pytest.raises(TypeError):
        pub.send_multipart(wrong)
    with pytest.raises(TypeError):
        pub.send_many(wrong)
    pub.send(b"next")
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"next"]


def test_text_is_refused_with_the_advice_to_encode_it(pair: Pair) -> None:
    text: Any = "text"
    with pytest.raises(TypeError, match="encode"):
        pair[0].send(text)


@pytest.mark.parametrize("one", [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc"])
def test_one_message_in_the_place_of_many_is_refused(pair: Pair, one: Any) -> None:
    with pytest.raises(TypeError, match="not one"):
        pair[0].send_multipart(one)
    with pytest.raises(TypeError, match="not one"):
        pair[0].send_many(one)


@pytest.mark.parametrize("topic", [7, None, 1.5])
def test_a_topic_is_bytes_like_or_text(pair: Pair, topic: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        pair[1].subscribe(topic)
    with pytest.raises(TypeError, match="bytes-like"):
        pair[1].unsubscribe(topic)


@pytest.mark.parametrize("size", [0, 1, 253, 254, 255, 1400, 1426, 1427, 70_000, 1_000_000])
def test_a_message_of_any_size_arrives_whole(pair: Pair, size: int) -> None:
    pub, sub = pair
    data = bytes(i * 7 % 251 for i in range(size))
    pub.send(data)
    pub.send_multipart([b"head", data, b"tail"])
    assert sub.recv(timeout=LIMIT_S) == data
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"head", data, b"tail"]


# Messages of several parts.


def test_recv_gives_part_after_part_and_rcvmore_tells_whether_there_are_more(pair: Pair) -> None:
    pub, sub = pair
    pub.send_multipart([b"a", b"b", b"c"])
    pub.send(b"d")
    seen = []
    for _ in range(4):
        part = sub.recv(timeout=LIMIT_S)
        seen.append((part, sub.rcvmore))
    assert seen == [(b"a", True), (b"b", True), (b"c", False), (b"d", False)]


def test_recv_multipart_after_recv_gives_the_parts_left_over(pair: Pair) -> None:
    pub, sub = pair
    pub.send_multipart([b"a", b"b", b"c"])
    pub.send(b"d")
    assert sub.recv(timeout=LIMIT_S) == b"a"
    assert sub.recv_multipart() == [b"b", b"c"]
    assert not sub.rcvmore
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"d"]


def test_recv_many_gives_parts_in_order_and_its_sibling_keeps_messages_apart(pair: Pair) -> None:
    pub, sub = pair
    for _ in range(2):
        pub.send_multipart([b"a", b"b"])
        pub.send(b"c")
    assert sub.recv_many(1, timeout=LIMIT_S) == [b"a", b"b"]
    assert sub.recv_many(1, timeout=LIMIT_S) == [b"c"]
    assert collect(sub.recv_many_multipart, 2) == [[b"a", b"b"], [b"c"]]


def collect(receive: Callable[..., list[Any]], count: int) -> list[Any]:
    """``count`` items of a batched call, which may return fewer at a time."""
    items: list[Any] = []
    while len(items) < count:
        items += receive(count, timeout=LIMIT_S)
    return items


def test_recv_many_after_recv_begins_with_the_parts_left_over(pair: Pair) -> None:
    pub, sub = pair
    pub.send_multipart([b"a", b"b", b"c"])
    assert sub.recv(timeout=LIMIT_S) == b"a"
    assert sub.recv_many(10) == [b"b", b"c"]


def test_recv_many_returns_no_more_than_asked(pair: Pair) -> None:
    pub, sub = pair
    pub.send_many([b"%d" % i for i in range(100)])
    batches = []
    while sum(map(len, batches)) < 100:
        batches.append(sub.recv_many(7, timeout=LIMIT_S))
    assert max(map(len, batches)) <= 7
    assert [int(data) for batch in batches for data in batch] == list(range(100))


@pytest.mark.parametrize("count", [0, -1])
def test_recv_many_of_nothing_is_an_error(pair: Pair, count: int) -> None:
    with pytest.raises(mcast.OptionError, match="1 or more"):
        pair[1].recv_many(count)


def test_sndmore_parts_leave_as_one_message(pair: Pair) -> None:
    pub, sub = pair
    pub.send(b"a", mcast.SNDMORE)
    pub.send_multipart([b"b", b"c"], mcast.SNDMORE)
    with pytest.raises(mcast.Again):
        sub.recv(timeout=QUIET_S)
    pub.send_multipart([b"d", b"e"])
    pub.send(b"f")
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"a", b"b", b"c", b"d", b"e"]
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"f"]


def test_send_many_in_the_middle_of_a_message_is_refused(pair: Pair) -> None:
    pub, sub = pair
    pub.send(b"a", mcast.SNDMORE)
    with pytest.raises(mcast.PatternError, match="SNDMORE"):
        pub.send_many([b"b"])
    pub.send(b"c")
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"a", b"c"]


def test_too_many_parts_are_refused_and_leave_no_trace(ctx: mcast.Context, url: str) -> None:
    pub, sub = ctx.socket(mcast.PUB, max_parts=3), ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe()
    pub.connect(url)
    for parts in ([], [b"x"] * 4):
        with pytest.raises(mcast.OptionError, match="1 to 3 parts"):
            pub.send_multipart(parts)
    pub.send(b"1", mcast.SNDMORE)
    pub.send(b"2", mcast.SNDMORE)
    with pytest.raises(mcast.OptionError, match="1 to 3 parts"):
        pub.send(b"3", mcast.SNDMORE)
    pub.send(b"3")
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"1", b"2", b"3"]


# Subscriptions, as libzmq.


def heard(pub: mcast.Pub, sub: mcast.Sub, *topics: bytes) -> list[bytes]:
    """Which of the topics, all sent now, the subscriber gets."""
    sub.subscribe(b"\0end")
    for topic in topics:
        pub.send(topic)
    pub.send(b"\0end")
    found = []
    while (message := sub.recv(timeout=LIMIT_S)) != b"\0end":
        found.append(message)
    sub.unsubscribe(b"\0end")
    return found


@pytest.fixture
def deaf_pair(ctx: mcast.Context, url: str) -> Pair:
    """A publisher and a subscriber without subscriptions."""
    sub, pub = ctx.socket(mcast.SUB), ctx.socket(mcast.PUB)
    sub.connect(url)
    pub.connect(url)
    return pub, sub


def test_without_a_subscription_nothing_comes(deaf_pair: Pair) -> None:
    pub, sub = deaf_pair
    pub.send(b"anything")
    with pytest.raises(mcast.Again):
        sub.recv(timeout=QUIET_S)


def test_the_empty_subscription_means_all(deaf_pair: Pair) -> None:
    pub, sub = deaf_pair
    sub.subscribe(b"")
    assert heard(pub, sub, b"", b"a", b"\xff") == [b"", b"a", b"\xff"]


def test_a_subscription_is_a_prefix_of_the_first_part(deaf_pair: Pair) -> None:
    pub, sub = deaf_pair
    sub.subscribe(b"AA")
    sub.subscribe("MS")
    sub.subscribe(bytearray(b"N"))
    found = heard(pub, sub, b"AA", b"AAPL", b"A", b"BAA", b"MSFT", b"M", b"N", b"")
    assert found == [b"AA", b"AAPL", b"MSFT", b"N"]


def test_only_the_first_part_is_compared_and_the_message_comes_whole(deaf_pair: Pair) -> None:
    pub, sub = deaf_pair
    sub.subscribe(b"x")
    pub.send_multipart([b"y", b"x"])
    pub.send_multipart([b"x", b"y"])
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"x", b"y"]


def test_subscriptions_are_counted(deaf_pair: Pair) -> None:
    pub, sub = deaf_pair
    sub.subscribe(b"a")
    sub.subscribe(b"a")
    sub.unsubscribe(b"a")
    assert heard(pub, sub, b"a") == [b"a"]
    sub.unsubscribe(b"a")
    assert heard(pub, sub, b"a") == []
    sub.unsubscribe(b"a")  # as libzmq: no error
    sub.subscribe(b"a")
    assert heard(pub, sub, b"a") == [b"a"]


def test_unsubscribing_a_longer_prefix_leaves_the_shorter_one(deaf_pair: Pair) -> None:
    pub, sub = deaf_pair
    sub.subscribe(b"a")
    sub.subscribe(b"ab")
    sub.unsubscribe(b"ab")
    assert heard(pub, sub, b"abc", b"b") == [b"abc"]


def test_subscriptions_made_before_connect_count(ctx: mcast.Context, url: str) -> None:
    sub, pub = ctx.socket(mcast.SUB), ctx.socket(mcast.PUB)
    sub.subscribe(b"a")
    sub.connect(url)
    pub.connect(url)
    assert heard(pub, sub, b"ab", b"b") == [b"ab"]


# Timeouts.


@pytest.mark.parametrize("method", ["recv", "recv_multipart"])
def test_nothing_to_receive_raises_again_which_is_a_timeout_error(pair: Pair, method: str) -> None:
    receive = getattr(pair[1], method)
    for call in (
        lambda: receive(mcast.DONTWAIT),
        lambda: receive(mcast.NOBLOCK),
        lambda: receive(timeout=0),
        lambda: receive(timeout=0.01),
    ):
        with pytest.raises(mcast.Again) as caught:
            call()
        assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize(
    "call",
    [
        lambda _, sub: sub.recv(timeout=-1),
        lambda _, sub: sub.recv_multipart(timeout=-1),
        lambda _, sub: sub.recv_many(1, timeout=-1),
        lambda _, sub: sub.recv_many_multipart(1, timeout=-1),
        lambda _, sub: sub.poll(-1),
        lambda _, sub: sub.events(-1),
        lambda pub, _: pub.poll(-1, mcast.POLLOUT),
        lambda *_: mcast.Poller().poll(-1),
    ],
)
def test_a_negative_timeout_is_refused_and_told_what_waits_for_ever(
    pair: Pair, call: Callable[[mcast.Pub, mcast.Sub], object]
) -> None:
    with pytest.raises(mcast.OptionError, match=r"seconds.*None"):
        call(*pair)


@pytest.mark.parametrize("method", ["recv_many", "recv_many_multipart"])
def test_nothing_to_receive_in_batches_raises_again(pair: Pair, method: str) -> None:
    with pytest.raises(mcast.Again):
        getattr(pair[1], method)(10, timeout=0.01)


def test_an_endless_timeout_is_no_error(pair: Pair) -> None:
    pub, sub = pair
    pub.send(b"x")
    assert sub.recv(timeout=float("inf")) == b"x"
    pub.send(b"y")
    assert sub.poll(float("inf")) == mcast.POLLIN


# Options.

WRONG_OPTIONS: list[tuple[str, object]] = [
    ("rate", 0),
    ("rate", -1.0),
    ("rate", float("nan")),
    ("rate", "fast"),
    ("rate", True),
    ("repair_share", 0),
    ("recovery_ivl", 0),
    ("recovery_ivl", 3601),
    ("txw_bytes", 1),
    ("txw_bytes", 1e6),
    ("rxw_bytes", 1 << 35),
    ("multicast_hops", -1),
    ("multicast_hops", 256),
    ("multicast_hops", 1.0),
    ("multicast_loop", 1),
    ("multicast_maxtpdu", 127),
    ("multicast_maxtpdu", 9001),
    ("dscp", 64),
    ("sndhwm", 0),
    ("rcvhwm", 0),
    ("sndbuf", -1),
    ("rcvbuf", "4M"),
    ("max_msg_size", 0),
    ("max_parts", 65537),
    ("linger", -1),
    ("linger", None),
    ("coalesce", 1),
    ("profile", "wan"),
    ("profile", None),
    ("repair_deadline", 0),
    ("peer_expiry", 0),
    ("max_peers", 0),
    ("on_loss", "ignore"),
    ("initial_sqn", 1 << 32),
    ("drop_rate", 1.0),
    ("drop_seed", -1),
]


@pytest.mark.parametrize(("name", "value"), WRONG_OPTIONS)
def test_a_wrong_option_is_refused_wherever_it_is_given(
    ctx: mcast.Context, name: str, value: Any
) -> None:
    pub = ctx.socket(mcast.PUB)
    for call in (
        lambda: mcast.Context(**{name: value}),
        lambda: ctx.socket(mcast.SUB, **{name: value}),
        lambda: pub.set(name, value),
    ):
        with pytest.raises(mcast.OptionError, match=name) as caught:
            call()
        assert isinstance(caught.value, ValueError)
    assert pub.get(name) == getattr(mcast.SocketOptions(linger=0.0), name)


@pytest.mark.parametrize("name", list(mcast.SocketOptions.__slots__))
def test_every_option_can_be_read_and_written_back(ctx: mcast.Context, name: str) -> None:
    socket = ctx.socket(mcast.SUB)
    value = socket.get(name)
    socket.set(name, value)
    assert socket.get(name) == value
    assert socket.getsockopt(name) == value


def test_an_unknown_option_is_an_error_that_lists_the_known(ctx: mcast.Context) -> None:
    socket = ctx.socket(mcast.PUB)
    calls: list[Callable[[], object]] = [
        lambda: ctx.socket(mcast.PUB, rat=1e9),
        lambda: socket.set("rat", 1e9),
        lambda: socket.setsockopt("rat", 1e9),
        lambda: socket.get("rat"),
        lambda: mcast.Context(rat=1e9),
    ]
    for call in calls:
        with pytest.raises(mcast.OptionError, match=r"unknown option rat; .*linger.*rate"):
            call()


def test_a_socket_takes_the_context_s_defaults_and_its_own_options_on_top() -> None:
    with mcast.Context(rate=5e6, linger=0) as ctx:
        assert ctx.socket(mcast.PUB).get("rate") == 5e6
        assert ctx.socket(mcast.PUB, rate=6e6).get("rate") == 6e6
        assert ctx.socket(mcast.PUB, rate=6e6).get("linger") == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", 2e6),
        ("recovery_ivl", 3.0),
        ("multicast_hops", 4),
        ("multicast_maxtpdu", 1400),
        ("sndhwm", 5),
        ("rcvhwm", 6),
        ("linger", 0.25),
    ],
)
def test_the_usual_options_are_attributes_too(
    ctx: mcast.Context, name: str, value: OptionValue
) -> None:
    socket = ctx.socket(mcast.SUB)
    setattr(socket, name, value)
    assert getattr(socket, name) == value == socket.get(name)
    with pytest.raises(mcast.OptionError, match=name):
        setattr(socket, name, "wrong")


@pytest.mark.parametrize("name", list(mcast.SocketOptions.__slots__))
def test_every_option_is_an_attribute(ctx: mcast.Context, name: str) -> None:
    sockets = [ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)]
    for socket in sockets:
        setattr(socket, name, getattr(socket, name))
        assert getattr(socket, name) == socket.get(name)


def test_a_loss_policy_set_as_an_attribute_holds(ctx: mcast.Context) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.on_loss = "raise"
    assert sub.get("on_loss") == "raise"
    assert sub._queue.raises_on_loss


@pytest.mark.parametrize("name", ["on_los", "subscribe", "send", "endpoints", "rcvtimeo"])
def test_setting_what_is_no_option_is_an_error_that_lists_the_options(
    ctx: mcast.Context, name: str
) -> None:
    for kind in (mcast.PUB, mcast.SUB):
        with pytest.raises(AttributeError, match=rf"'{name}' is no option.*on_loss, .*peer_expiry"):
            setattr(ctx.socket(kind), name, b"x")


def test_an_unknown_attribute_cannot_be_read(ctx: mcast.Context) -> None:
    with pytest.raises(AttributeError, match="on_los"):
        _ = ctx.socket(mcast.SUB).on_los  # type: ignore[attr-defined]


def test_the_largest_message_holds_at_once(pair: Pair) -> None:
    pub, sub = pair
    pub.send(b"x" * 1000)
    pub.max_msg_size = 100
    for _ in range(3):
        with pytest.raises(mcast.MessageTooLongError, match="max_msg_size is 100"):
            pub.send(b"x" * 101)
        pub.send(b"x" * 100)
    pub.max_msg_size = 1000
    pub.send(b"x" * 1000)
    assert [len(sub.recv(timeout=LIMIT_S)) for _ in range(5)] == [1000, 100, 100, 100, 1000]


def test_the_short_way_is_back_after_a_message_of_parts_that_failed(pair: Pair) -> None:
    pub, sub = pair
    pub.max_msg_size = 10
    assert "send" in pub.__dict__
    pub.send(b"begun", mcast.SNDMORE)
    assert "send" not in pub.__dict__
    with pytest.raises(mcast.MessageTooLongError):
        pub.send(b"too long for it")
    assert "send" in pub.__dict__
    pub.send(b"whole")
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"whole"]


def test_rcvhwm_set_before_connect_holds(ctx: mcast.Context, url: str) -> None:
    sub, pub = ctx.socket(mcast.SUB), ctx.socket(mcast.PUB)
    sub.set("rcvhwm", 10)
    sub.subscribe()
    sub.connect(url)
    pub.connect(url)
    pub.send_many([b"x"] * 100)
    event = next(event for event in sub.events(LIMIT_S) if isinstance(event, mcast.Lost))
    assert event.reason == "app_hwm"
    assert len(collect(sub.recv_many, 10)) == 10


def test_the_type_and_the_last_endpoint_can_be_asked(ctx: mcast.Context, url: str) -> None:
    pub, sub = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
    assert (pub.get("type"), sub.get("type")) == (1, 2)
    assert pub.last_endpoint == ""
    pub.bind(url)
    assert pub.last_endpoint == pub.get("last_endpoint") == url
    assert pub.endpoints == [url]
    assert url in repr(pub)
    assert "not connected" in repr(sub)


# Counters.


def test_counters_are_complete_from_the_start(ctx: mcast.Context, url: str) -> None:
    pub, sub = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
    before = {**sub.stats()}
    assert {name: value for name, value in before.items() if value} == {}
    sub.connect(url)
    sub.subscribe()
    pub.connect(url)
    pub.send(b"x")
    sub.recv(timeout=LIMIT_S)
    assert list(sub.stats()) == list(before)
    assert set(pub.stats()) == set(before) - {"queued", "queue_refused", "events_dropped"}


def test_counters_outlive_the_endpoints_that_counted(pair: Pair) -> None:
    pub, sub = pair
    pub.send(b"x")
    sub.recv(timeout=LIMIT_S)
    for socket in pair:
        socket.disconnect(socket.last_endpoint)
        for link in socket.links:
            assert link.closed.wait(LIMIT_S)
        socket.connect("epgm://lo;239.192.250.1:7")  # forgets the one that was left
    assert pub.stats()["messages_sent"] == 1
    assert sub.stats()["messages_received"] == 1
    assert sub.stats()["peers"] == 0
