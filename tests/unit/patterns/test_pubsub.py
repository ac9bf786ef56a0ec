"""PUB, SUB, XPUB and XSUB: what is sent to whom, who hears of subscriptions, and the limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.errors import PatternError
from mcast.kernel import Message
from mcast.patterns import Dish, Pub, Refusal, SendResult, Sub, Xpub, Xsub
from mcast.patterns import publishers as publishers_module
from mcast.patterns import subscribers as subscribers_module
from mcast.patterns.options import PubOptions, SubOptions, XpubOptions
from tests.unit.patterns.ends import (
    ANYBODY,
    cancels,
    dropped,
    made,
    numbered,
    out,
    received,
    refusals,
    wants,
)

publishers = pytest.mark.parametrize("publisher", [Pub, Xpub])
subscribers = pytest.mark.parametrize("subscriber", [Sub, Xsub])


def subscribe(subscriber: Sub | Xsub, topic: bytes) -> None:
    if isinstance(subscriber, Sub):
        subscriber.subscribe(topic)
    else:
        assert subscriber.send(b"\1" + topic) is SendResult.SENT


def unsubscribe(subscriber: Sub | Xsub, topic: bytes) -> None:
    if isinstance(subscriber, Sub):
        subscriber.unsubscribe(topic)
    else:
        assert subscriber.send(b"\0" + topic) is SendResult.SENT


# Sending.


@publishers
def test_messages_go_to_those_who_subscribed_to_a_prefix_of_the_first_part(
    publisher: type[Pub],
) -> None:
    pub = made(publisher, 4)
    for number, topic in enumerate([b"", b"A", b"AB", b"B"]):
        pub.handle_subscriptions(number, wants(topic))
    batch: list[Message] = [b"AB", (b"A", b"BBB"), (b"B", b"A"), b""]
    for message in batch:
        assert pub.send(message) is SendResult.SENT
    assert out(pub, 0) == batch
    assert out(pub, 1) == batch[:2]
    assert out(pub, 2) == batch[:1]
    assert out(pub, 3) == batch[2:3]
    assert pub.send_many(batch) == 4
    assert out(pub, 1) == batch[:2]


@publishers
def test_without_subscriptions_messages_are_discarded_at_once(publisher: type[Pub]) -> None:
    pub = made(publisher, 1)
    assert pub.is_writable
    assert pub.send(b"x") is SendResult.SENT
    assert pub.send_many(numbered(3)) == 3
    assert out(pub) == []
    assert dropped(pub) == {}


@publishers
def test_a_full_queue_drops_for_that_peer_only_until_half_of_it_was_taken(
    publisher: type[Pub],
) -> None:
    pub = made(publisher, 2, sndhwm=4)
    for number in range(2):
        pub.handle_subscriptions(number, wants(b""))
    for message in numbered(3):
        pub.send(message)
    assert out(pub, 1) == numbered(3)
    assert pub.send_many(numbered(3, first=3)) == 3
    assert dropped(pub) == {"dropped_at_hwm": 2}
    assert pub.take_outgoing(0, 1) == numbered(1)
    assert out(pub, 1) == numbered(3, first=3)
    pub.send(b"full still")
    assert pub.send_many([b"full still"]) == 1
    assert dropped(pub) == {"dropped_at_hwm": 4}
    pub.take_outgoing(0, 1)
    pub.send(b"room")
    assert out(pub, 0) == [*numbered(2, first=2), b"room"]
    assert out(pub, 1) == [b"full still", b"full still", b"room"]


def test_a_multipart_message_is_queued_whole_or_not_at_all() -> None:
    pub = made(Pub, 1, sndhwm=1)
    pub.handle_subscriptions(0, wants(b""))
    pub.send_many([(b"a", b"1", b"2"), (b"b", b"3", b"4")])
    assert out(pub) == [(b"a", b"1", b"2")]


@publishers
def test_with_nodrop_a_full_matching_peer_blocks(publisher: type[Pub]) -> None:
    pub = made(publisher, 2, sndhwm=1, xpub_nodrop=True)
    pub.handle_subscriptions(0, wants(b"A"))
    pub.handle_subscriptions(1, wants(b"A", b"B"))
    assert pub.send_many([b"B", b"A", b"B"]) == 1
    assert not pub.is_writable
    assert pub.send(b"A") is SendResult.WOULD_BLOCK
    assert out(pub, 0) == []
    assert out(pub, 1) == [b"B"]
    assert pub.is_writable
    assert pub.send(b"A") is SendResult.SENT
    assert dropped(pub) == {}


def test_nodrop_does_not_wait_for_a_peer_that_does_not_count() -> None:
    pub = made(Pub, 1, xpub_nodrop=True, immediate=True)
    pub.handle_subscriptions(0, wants(b""))
    pub.suspend(0)
    assert pub.is_writable
    assert pub.send(b"x") is SendResult.SENT
    pub.configure(PubOptions(xpub_nodrop=True))
    assert pub.send(b"x") is SendResult.SENT


@publishers
def test_a_peer_that_reconnects_gets_what_was_sent_meanwhile(publisher: type[Pub]) -> None:
    pub = made(publisher, 1)
    pub.handle_subscriptions(0, wants(b"A"))
    pub.send(b"A1")
    pub.suspend(0)
    pub.send(b"A2")
    pub.attach(0, ANYBODY)
    assert out(pub) == [b"A1", b"A2"]


def test_with_immediate_a_peer_gets_nothing_of_what_was_sent_meanwhile() -> None:
    pub = made(Pub, 1, immediate=True)
    pub.handle_subscriptions(0, wants(b"A"))
    pub.send(b"A1")
    pub.suspend(0)
    pub.send(b"A2")
    pub.attach(0, ANYBODY)
    pub.send(b"A3")
    assert out(pub) == [b"A3"]
    assert dropped(pub) == {"dropped_undelivered": 1}


@publishers
def test_inverted_matching_sends_to_those_who_did_not_subscribe(publisher: type[Pub]) -> None:
    pub = made(publisher, 3, invert_matching=True)
    pub.handle_subscriptions(0, wants(b"A"))
    pub.handle_subscriptions(1, wants(b"B"))
    pub.send(b"A")
    assert [out(pub, number) for number in range(3)] == [[], [b"A"], [b"A"]]


def test_a_conflating_publisher_keeps_the_newest_matching_message() -> None:
    pub = made(Pub, 1, conflate=True, sndhwm=1)
    pub.handle_subscriptions(0, wants(b"A"))
    for message in (b"A1", b"A2", b"B"):
        pub.send(message)
    assert out(pub) == [b"A2"]
    pub.send_many([b"A1", b"A2", b"A3", b"B"])
    assert out(pub) == [b"A3"]
    assert dropped(pub) == {"conflated": 3}


def test_matches_are_remembered_only_as_long_as_they_hold() -> None:
    pub = made(Pub, 2)
    pub.handle_subscriptions(0, wants(b"A"))
    pub.send(b"A")
    pub.handle_subscriptions(1, wants(b"A"))
    pub.send(b"A")
    pub.handle_subscriptions(0, cancels(b"A"))
    pub.send(b"A")
    pub.detach(1)
    pub.send(b"A")
    pub.attach(1, ANYBODY)
    pub.handle_subscriptions(1, wants(b""))
    pub.send(b"A")
    pub.configure(PubOptions(invert_matching=True))
    pub.send(b"A")
    assert (out(pub, 0), out(pub, 1)) == ([b"A"] * 3, [b"A"])


def test_no_more_matches_are_remembered_than_the_limit() -> None:
    pub = made(Pub, 1)
    pub.handle_subscriptions(0, wants(b"A", b"long prefix"))
    limit = publishers_module._MATCH_LIMIT
    batch: list[Message] = [b"A%d" % n for n in range(2 * limit + 1)]
    for message in batch[: limit + 1]:
        pub.send(message)
        assert len(pub._matches) <= limit
    pub.send_many(batch[limit + 1 :])
    assert len(pub._matches) <= limit
    assert pub.counters.dropped_at_hwm == len(batch) - 1000
    assert out(pub) == batch[:1000]


def test_nothing_is_remembered_of_a_peer_that_left() -> None:
    pub = made(Pub, 1)
    pub.handle_subscriptions(0, wants(b"A"))
    pub.send(b"A")
    pub.detach(0)
    assert pub._matches == pub._same == {}
    assert pub.topic_count == 0


topics = st.text("ab", max_size=3).map(str.encode)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.booleans(), topics, st.integers(0, 2)),
            st.lists(topics, max_size=6),
        )
    ),
    inverted=st.booleans(),
)
def test_messages_go_to_whom_a_plain_table_says(
    steps: list[tuple[bool, bytes, int] | list[bytes]], inverted: bool
) -> None:
    pub, one = (made(Pub, 3, sndhwm=0, invert_matching=inverted) for _ in range(2))
    table: list[set[bytes]] = [set(), set(), set()]
    wanted: list[list[Message]] = [[], [], []]
    for step in steps:
        if isinstance(step, tuple):
            is_wanted, topic, peer = step
            for publisher in (pub, one):
                publisher.handle_subscriptions(peer, [(is_wanted, topic)])
            (table[peer].add if is_wanted else table[peer].discard)(topic)
            continue
        batch: list[Message] = [
            (topic, b"%d" % n) if n % 2 else topic for n, topic in enumerate(step)
        ]
        pub.send_many(batch)
        for message, topic in zip(batch, step, strict=True):
            one.send(message)
            for peer in range(3):
                if any(topic.startswith(prefix) for prefix in table[peer]) != inverted:
                    wanted[peer].append(message)
    assert pub.topic_count == len(set().union(*table))
    assert [out(pub, peer) for peer in range(3)] == wanted
    assert [out(one, peer) for peer in range(3)] == wanted


# Subscriptions at the publisher.


@publishers
def test_a_peer_counts_once_for_a_topic_however_often_it_subscribes(publisher: type[Pub]) -> None:
    pub = made(publisher, 1)
    pub.handle_subscriptions(0, wants(b"A", b"A"))
    pub.handle_subscriptions(0, cancels(b"A"))
    pub.send(b"A")
    assert out(pub) == []
    assert pub.topic_count == 0


@publishers
def test_subscriptions_as_messages_of_zmtp_3_0_count_as_well(publisher: type[Pub]) -> None:
    pub = made(publisher, 1)
    pub.handle_messages(0, [b"\1A", (b"\1B", b"\1C"), b"\0A"])
    pub.send_many([b"A", b"B", b"C"])
    assert out(pub) == [b"B", b"C"]


def test_a_pub_ignores_what_else_a_subscriber_sends() -> None:
    pub = made(Pub, 1)
    pub.handle_messages(0, [b"hello", b"", (b"\1A", b"x")])
    assert dropped(pub) == {"dropped_unexpected": 3}
    assert pub.can_receive(0)


def test_cancelling_what_was_not_subscribed_to_is_counted_and_not_told() -> None:
    for publisher in (made(Pub, 1), made(Xpub, 1)):
        publisher.handle_subscriptions(0, cancels(b"A"))
        assert dropped(publisher) == {"cancels_ignored": 1}
        assert not publisher.is_readable


@publishers
@pytest.mark.parametrize(
    ("limits", "topics"),
    [
        ({"max_topic_bytes": 3}, [b"1234"]),
        ({"max_subscription_count": 2}, [b"1", b"2", b"3"]),
        ({"max_subscription_bytes": 5}, [b"123", b"456"]),
    ],
)
def test_a_peer_that_subscribes_beyond_a_limit_is_refused(
    publisher: type[Pub], limits: dict[str, int], topics: list[bytes]
) -> None:
    pub = made(publisher, 2, **limits)
    pub.handle_subscriptions(1, wants(topics[0][:3]))
    pub.handle_subscriptions(0, wants(*topics[:-1], *topics[:-1]))
    assert refusals(pub) == []
    pub.handle_subscriptions(0, wants(topics[-1], b"never looked at"))
    assert refusals(pub) == [(0, Refusal.TOO_MANY_SUBSCRIPTIONS)]
    assert pub.topic_count == 1
    pub.handle_messages(0, [b"\1A"])
    assert dropped(pub) == {"dropped_unexpected": 1}
    pub.send(topics[0])
    assert out(pub, 1) == [topics[0]]


def test_a_peer_refused_in_the_middle_of_a_batch_is_not_heard_further() -> None:
    xpub = made(Xpub, 1, max_subscription_count=1)
    xpub.handle_messages(0, [b"\1A", b"\1B", b"\1C", b"hello"])
    assert refusals(xpub) == [(0, Refusal.TOO_MANY_SUBSCRIPTIONS)]
    assert received(xpub) == [b"\1A", b"\0A"]


# XPUB.


def test_an_xpub_hands_out_the_first_and_the_last_subscription_to_a_topic() -> None:
    xpub = made(Xpub, 2)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.handle_subscriptions(1, wants(b"A"))
    xpub.handle_subscriptions(0, cancels(b"A"))
    assert received(xpub) == [b"\1A"]
    xpub.handle_subscriptions(1, cancels(b"A"))
    assert received(xpub) == [b"\0A"]


def test_a_verbose_xpub_hands_out_every_subscription() -> None:
    xpub = made(Xpub, 2, xpub_verbose=True)
    xpub.handle_subscriptions(0, wants(b"A", b"A"))
    xpub.handle_subscriptions(1, wants(b"A"))
    xpub.handle_subscriptions(0, cancels(b"A"))
    xpub.handle_subscriptions(1, cancels(b"A"))
    assert received(xpub) == [b"\1A", b"\1A", b"\1A", b"\0A"]


def test_a_verboser_xpub_hands_out_every_cancellation_too() -> None:
    xpub = made(Xpub, 2, xpub_verboser=True)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.handle_subscriptions(1, wants(b"A"))
    xpub.handle_subscriptions(0, cancels(b"A"))
    xpub.detach(1)
    assert received(xpub) == [b"\1A", b"\1A", b"\0A", b"\0A"]


def test_peers_that_leave_cancel_what_nobody_else_wants() -> None:
    xpub = made(Xpub, 2)
    xpub.handle_subscriptions(0, wants(b"A", b"B"))
    xpub.handle_subscriptions(1, wants(b"A"))
    received(xpub)
    xpub.detach(0)
    assert received(xpub) == [b"\0B"]


def test_a_verboser_xpub_hands_out_all_that_a_leaving_peer_had() -> None:
    xpub = made(Xpub, 2, xpub_verboser=True)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.handle_subscriptions(1, wants(b"A"))
    received(xpub)
    xpub.detach(0)
    assert received(xpub) == [b"\0A"]


def test_an_xpub_hands_out_other_messages_in_the_order_of_arrival() -> None:
    xpub = made(Xpub, 2)
    xpub.handle_messages(1, [b"hello"])
    xpub.handle_messages(0, [(b"\1A", b"x", b"y"), b"\1B"])
    assert xpub.recv_many(3) == [b"hello", b"\1A", (b"x", b"y")]
    assert xpub.is_readable
    assert xpub.recv_many(3) == [b"\1B"]


def test_an_xpub_that_heard_nothing_has_nothing() -> None:
    xpub = made(Xpub, 1)
    assert xpub.recv() is None
    assert xpub.recv_many(5) == []


def test_an_xpub_looks_at_the_first_part_only_if_told() -> None:
    xpub = made(Xpub, 1, only_first_subscribe=True)
    xpub.handle_messages(0, [(b"x", b"\1A")])
    assert received(xpub) == [(b"x", b"\1A")]
    assert xpub.topic_count == 0


def test_subscriptions_that_nobody_receives_push_back_and_are_not_dropped() -> None:
    xpub = made(Xpub, 2, rcvhwm=4)
    xpub.handle_subscriptions(0, wants(b"1", b"2", b"3"))
    assert xpub.can_receive(1)
    xpub.handle_subscriptions(1, wants(b"4", b"5"))
    assert not xpub.can_receive(0)
    assert not xpub.can_receive(1)
    assert xpub.recv_many(2) == [b"\1" + b"1", b"\1" + b"2"]
    assert not xpub.can_receive(0)
    assert xpub.take_resumed() == []
    assert xpub.recv_many(1) == [b"\1" + b"3"]
    assert xpub.take_resumed() == [0, 1]
    assert xpub.can_receive(0)
    assert received(xpub) == [b"\1" + b"4", b"\1" + b"5"]


def test_a_welcome_message_comes_first_whatever_is_subscribed_to() -> None:
    xpub = made(Xpub, 1, xpub_welcome_msg=b"W")
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.send(b"A")
    assert out(xpub) == [b"W", b"A"]
    xpub.suspend(0)
    xpub.send(b"A2")
    xpub.attach(0, ANYBODY)
    assert out(xpub) == [b"W", b"A2"]


# XPUB, manual.


def test_a_manual_xpub_subscribes_whom_the_application_says_to_what_it_says() -> None:
    xpub = made(Xpub, 2, xpub_manual=True)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.handle_subscriptions(1, wants(b"A"))
    xpub.send(b"A")
    assert out(xpub, 0) == []
    assert xpub.recv() == b"\1A"
    xpub.subscribe(b"X")
    xpub.subscribe(b"Y")
    xpub.send_many([b"A", b"X", b"Y"])
    assert out(xpub, 0) == [b"X", b"Y"]
    xpub.unsubscribe(b"X")
    xpub.unsubscribe(b"never")
    xpub.send_many([b"X", b"Y"])
    assert out(xpub, 0) == [b"Y"]
    assert xpub.recv() == b"\1A"
    xpub.subscribe(b"A")
    xpub.send(b"A")
    assert (out(xpub, 0), out(xpub, 1)) == ([], [b"A"])


def test_a_manual_xpub_hands_out_every_wish() -> None:
    xpub = made(Xpub, 1, xpub_manual=True)
    xpub.handle_subscriptions(0, [*wants(b"A", b"A"), *cancels(b"A", b"B")])
    assert received(xpub) == [b"\1A", b"\1A", b"\0A", b"\0B"]


def test_a_manual_xpub_hands_out_what_a_leaving_peer_had_asked_for() -> None:
    xpub = made(Xpub, 2, xpub_manual=True)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.handle_subscriptions(1, wants(b"A"))
    xpub.recv()
    xpub.subscribe(b"X")
    xpub.detach(0)
    assert received(xpub) == [b"\1A", b"\0A"]
    assert xpub.topic_count == 0


def test_a_peer_that_left_is_not_subscribed_any_more() -> None:
    xpub = made(Xpub, 2, xpub_manual=True)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.handle_subscriptions(1, wants(b"B"))
    assert xpub.recv() == b"\1A"
    xpub.detach(0)
    xpub.subscribe(b"A")
    xpub.detach(1)
    assert xpub.recv() == b"\1B"
    xpub.subscribe(b"B")
    xpub.unsubscribe(b"B")
    assert xpub.topic_count == 0


def test_only_a_manual_xpub_subscribes_peers() -> None:
    xpub = made(Xpub, 1)
    for call in (xpub.subscribe, xpub.unsubscribe):
        with pytest.raises(PatternError, match="only with xpub_manual"):
            call(b"A")


def test_a_manual_subscription_beyond_the_limits_raises() -> None:
    xpub = made(Xpub, 1, xpub_manual=True, max_topic_bytes=3)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.recv()
    with pytest.raises(PatternError, match="more subscriptions than the options allow"):
        xpub.subscribe(b"1234")


def test_the_last_value_goes_only_to_whom_the_last_subscription_came_from() -> None:
    xpub = made(Xpub, 2, xpub_manual_last_value=True)
    for number in range(2):
        xpub.handle_subscriptions(number, wants(b"A"))
        xpub.recv()
        xpub.subscribe(b"A")
    assert xpub.send(b"A last") is SendResult.SENT
    assert xpub.send(b"A new") is SendResult.SENT
    assert out(xpub, 0) == [b"A new"]
    assert out(xpub, 1) == [b"A last", b"A new"]


def test_a_batch_sends_its_first_as_the_last_value() -> None:
    xpub = made(Xpub, 2, xpub_manual_last_value=True)
    for number in range(2):
        xpub.handle_subscriptions(number, wants(b"A"))
        xpub.recv()
        xpub.subscribe(b"A")
    assert xpub.send_many([b"A1", b"A2", b"A3"]) == 3
    assert (out(xpub, 0), out(xpub, 1)) == ([b"A2", b"A3"], [b"A1", b"A2", b"A3"])


def test_a_last_value_that_the_peer_is_not_subscribed_to_goes_to_nobody() -> None:
    xpub = made(Xpub, 1, xpub_manual_last_value=True)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.recv()
    xpub.send((b"A", b"last"))
    assert out(xpub) == []


def test_with_nodrop_a_last_value_waits_for_its_peer() -> None:
    xpub = made(Xpub, 1, xpub_manual_last_value=True, xpub_nodrop=True, sndhwm=1)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.recv()
    xpub.subscribe(b"A")
    assert xpub.send_many([b"A1", b"A2"]) == 1
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.recv()
    assert xpub.send(b"A2") is SendResult.WOULD_BLOCK
    assert xpub.send_many([b"A2"]) == 0
    out(xpub)
    assert xpub.send(b"A2") is SendResult.SENT


def test_what_was_decided_is_forgotten_with_the_peer_also_after_the_mode_changed() -> None:
    xpub = made(Xpub, 1, xpub_manual=True)
    xpub.handle_subscriptions(0, wants(b"A"))
    xpub.recv()
    xpub.subscribe(b"X")
    xpub.configure(XpubOptions())
    xpub.detach(0)
    assert received(xpub) == [b"\0X"]
    assert xpub.topic_count == 0


# Subscribing.


@subscribers
def test_peers_are_told_of_every_subscription_but_only_of_the_last_cancellation(
    subscriber: type[Sub],
) -> None:
    sub = made(subscriber, 1)
    for _ in range(3):
        subscribe(sub, b"A")
    assert sub.take_loaded() == [0]
    assert sub.take_subscriptions(0) == wants(b"A", b"A", b"A")
    unsubscribe(sub, b"A")
    unsubscribe(sub, b"A")
    assert not sub.has_outgoing(0)
    unsubscribe(sub, b"A")
    assert sub.has_outgoing(0)
    assert sub.take_subscriptions(0) == cancels(b"A")
    assert sub.take_subscriptions(0) == []
    unsubscribe(sub, b"A")
    assert not sub.has_outgoing(0)
    assert sub.topic_count == 0


@subscribers
def test_a_new_connection_is_told_each_topic_once_in_byte_order(subscriber: type[Sub]) -> None:
    sub = made(subscriber)
    for topic in (b"b", b"a", b"a", b"\xff"):
        subscribe(sub, topic)
    sub.attach(0)
    subscribe(sub, b"c")
    assert sub.take_subscriptions(0) == []
    sub.attach(0, ANYBODY)
    assert sub.take_loaded() == [0]
    assert sub.take_subscriptions(0) == wants(b"a", b"b", b"c", b"\xff")
    subscribe(sub, b"a")
    assert sub.take_subscriptions(0) == wants(b"a")
    assert sub.topic_count == 4


@subscribers
def test_a_connection_that_comes_back_is_told_everything_again(subscriber: type[Sub]) -> None:
    sub = made(subscriber, 1)
    subscribe(sub, b"a")
    sub.suspend(0)
    subscribe(sub, b"b")
    unsubscribe(sub, b"a")
    sub.attach(0, ANYBODY)
    assert sub.take_subscriptions(0) == wants(b"b")


@subscribers
def test_a_peer_that_takes_no_changes_is_refused_in_the_end(
    subscriber: type[Sub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers_module, "_UNREAD_LIMIT", 10)
    sub = made(subscriber, 2)
    for _ in range(5):
        subscribe(sub, b"A")
        unsubscribe(sub, b"A")
    sub.take_subscriptions(1)
    assert refusals(sub) == []
    subscribe(sub, b"A")
    assert refusals(sub) == []
    subscribe(sub, b"A")
    assert refusals(sub) == [(0, Refusal.UNREAD_CHANGES)]
    assert sub.take_subscriptions(1) == wants(b"A", b"A")


def test_a_sub_lets_through_what_it_is_subscribed_to() -> None:
    sub = made(Sub, 1)
    sub.handle_messages(0, [b"A"])
    assert not sub.is_readable
    sub.subscribe(b"A")
    sub.handle_messages(0, [b"A1", b"B", (b"A", b"2"), (b"B", b"A")])
    assert received(sub) == [b"A1", (b"A", b"2")]
    sub.subscribe(b"B")
    sub.unsubscribe(b"A")
    sub.handle_messages(0, [b"A", b"B"])
    assert received(sub) == [b"B"]
    sub.handle_messages(0, [b"A", b"B2"])
    assert received(sub) == [b"B2"]
    sub.subscribe(b"")
    sub.handle_messages(0, [b"A", b"B"])
    assert received(sub) == [b"A", b"B"]
    assert dropped(sub) == {"filtered": 5}


def test_a_subscription_holds_until_it_was_cancelled_as_often_as_made() -> None:
    sub = made(Sub, 1)
    sub.subscribe(b"A")
    sub.subscribe(b"A")
    sub.unsubscribe(b"A")
    sub.handle_messages(0, [b"A"])
    assert received(sub) == [b"A"]
    sub.unsubscribe(b"A")
    sub.handle_messages(0, [b"A"])
    assert received(sub) == []


def test_an_inverted_sub_lets_through_the_rest() -> None:
    sub = made(Sub, 1, invert_matching=True)
    sub.subscribe(b"A")
    sub.handle_messages(0, [b"A", b"B"])
    assert received(sub) == [b"B"]
    sub.subscribe(b"")
    sub.handle_messages(0, [b"A", b"B"])
    assert received(sub) == []
    sub.configure(SubOptions())
    sub.handle_messages(0, [b"A", b"B"])
    assert received(sub) == [b"A", b"B"]


def test_a_conflating_sub_keeps_the_newest_it_is_subscribed_to() -> None:
    sub = made(Sub, 1, conflate=True)
    sub.subscribe(b"A")
    sub.handle_messages(0, [b"A1", b"A2", b"B"])
    assert received(sub) == [b"A2"]


def test_an_xsub_filters_nothing() -> None:
    xsub = made(Xsub, 1)
    xsub.handle_messages(0, [b"anything"])
    assert received(xsub) == [b"anything"]


def test_an_xsub_passes_every_cancellation_on_if_told() -> None:
    xsub = made(Xsub, 1, xsub_verbose_unsubscribe=True)
    for message in (b"\1A", b"\1A", b"\0A", b"\0A", b"\0B"):
        xsub.send(message)
    assert xsub.take_subscriptions(0) == [*wants(b"A", b"A"), *cancels(b"A", b"A", b"B")]


def test_an_xsub_sends_other_messages_to_all_that_have_room() -> None:
    xsub = made(Xsub, 3, sndhwm=1, immediate=True)
    xsub.suspend(2)
    assert xsub.send(b"hello") is SendResult.SENT
    assert out(xsub, 0) == [b"hello"]
    assert xsub.send((b"\1A", b"x", b"y")) is SendResult.SENT
    assert out(xsub, 0) == [(b"x", b"y")]
    assert out(xsub, 1) == [b"hello"]
    assert xsub.take_subscriptions(1) == wants(b"A")
    assert xsub.is_writable
    assert dropped(xsub) == {"dropped_at_hwm": 1}


def test_an_xsub_looks_at_the_first_part_only_if_told() -> None:
    xsub = made(Xsub, 1, only_first_subscribe=True)
    xsub.send((b"x", b"\1A"))
    assert out(xsub) == [(b"x", b"\1A")]
    assert xsub.topic_count == 0


@pytest.mark.parametrize("subscriber", [Sub, Xsub, Dish])
def test_a_pipe_with_changes_and_messages_is_loaded_until_both_are_taken(
    subscriber: type[Sub],
) -> None:
    sub = made(subscriber, 1)
    if isinstance(sub, Dish):
        sub.join(b"A")
    else:
        subscribe(sub, b"A")
    assert sub.take_loaded() == [0]
    assert out(sub) == []
    assert sub.has_outgoing(0)
    if isinstance(sub, Xsub):
        sub.send(b"hello")
        assert sub.take_subscriptions(0) == wants(b"A")
        assert sub.has_outgoing(0)
        assert out(sub) == [b"hello"]
    else:
        assert sub.take_subscriptions(0) == wants(b"A")
    assert sub.take_loaded() == []
    assert not sub.has_outgoing(0)
