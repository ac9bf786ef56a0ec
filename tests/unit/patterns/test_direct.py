"""Two patterns joined in memory: nothing lost, nothing twice, and both marks together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.kernel import Message
from mcast.patterns import (
    Dealer,
    Dish,
    Pair,
    Pattern,
    Pub,
    Pull,
    Push,
    Radio,
    Refusal,
    Router,
    SendResult,
    Sub,
    Xpub,
    Xsub,
)
from mcast.patterns.direct import exchange, join
from tests.unit.patterns.ends import made, numbered, received, refusals


def test_messages_go_both_ways() -> None:
    left, right = made(Pair), made(Pair)
    join(left, 3, right, 7)
    left.send(b"there")
    right.send((b"and", b"back"))
    assert exchange(left, 3, right, 7)
    assert not exchange(left, 3, right, 7)
    assert received(right) == [b"there"]
    assert received(left) == [(b"and", b"back")]


@pytest.mark.parametrize(("sndhwm", "rcvhwm"), [(1, 1), (2, 3), (5, 1)])
def test_together_they_hold_both_marks(sndhwm: int, rcvhwm: int) -> None:
    push, pull = made(Push, sndhwm=sndhwm), made(Pull, rcvhwm=rcvhwm)
    join(push, 0, pull, 0)
    sent = 0
    while push.send(b"%d" % sent) is SendResult.SENT:
        sent += 1
        exchange(push, 0, pull, 0)
    assert sent == sndhwm + rcvhwm


@pytest.mark.parametrize(("sndhwm", "rcvhwm"), [(0, 1), (1, 0)])
def test_together_they_have_no_mark_if_one_has_none(sndhwm: int, rcvhwm: int) -> None:
    push, pull = made(Push, sndhwm=sndhwm), made(Pull, rcvhwm=rcvhwm)
    join(push, 0, pull, 0)
    for message in numbered(100):
        assert push.send(message) is SendResult.SENT
        exchange(push, 0, pull, 0)


def test_types_that_do_not_talk_refuse_each_other() -> None:
    pub, pull = made(Pub), made(Pull)
    join(pub, 0, pull, 0)
    assert refusals(pub) == refusals(pull) == [(0, Refusal.INCOMPATIBLE)]


def test_subscriptions_arrive_before_messages_do() -> None:
    pub, sub = made(Pub), made(Sub)
    sub.subscribe(b"A")
    join(pub, 0, sub, 0)
    assert exchange(pub, 0, sub, 0)
    pub.send_many([b"A", b"B"])
    exchange(pub, 0, sub, 0)
    assert received(sub) == [b"A"]
    assert sub.counters.messages_received == 1


def test_a_router_and_a_dealer_find_each_other_by_identity() -> None:
    router, dealer = made(Router, routing_id=b"R"), made(Dealer, routing_id=b"D")
    join(router, 0, dealer, 0)
    router.send((b"D", b"hello"))
    dealer.send(b"hi")
    exchange(router, 0, dealer, 0)
    assert received(dealer) == [b"hello"]
    assert received(router) == [(b"D", b"hi")]


def test_a_proxy_of_xsub_and_xpub_passes_subscriptions_up_and_messages_down() -> None:
    pub, xsub, xpub, sub = made(Pub), made(Xsub), made(Xpub), made(Sub)
    join(pub, 0, xsub, 0)
    join(xpub, 0, sub, 0)
    sub.subscribe(b"A")
    exchange(xpub, 0, sub, 0)
    xsub.send_many(received(xpub))
    exchange(pub, 0, xsub, 0)
    pub.send_many([b"A1", b"B1"])
    exchange(pub, 0, xsub, 0)
    xpub.send_many(received(xsub))
    exchange(xpub, 0, sub, 0)
    assert received(sub) == [b"A1"]
    sub.unsubscribe(b"A")
    exchange(xpub, 0, sub, 0)
    xsub.send_many(received(xpub))
    exchange(pub, 0, xsub, 0)
    assert pub.topic_count == 0


def test_a_dish_hears_the_radio_it_is_joined_to() -> None:
    radio, dish = made(Radio), made(Dish)
    join(radio, 0, dish, 0)
    dish.join(b"TV")
    exchange(radio, 0, dish, 0)
    radio.send_many([(b"TV", b"1"), (b"Movies", b"2")])
    exchange(radio, 0, dish, 0)
    assert received(dish) == [(b"TV", b"1")]
    assert dish.counters.messages_received == 1


topics = st.text("ab", max_size=3).map(str.encode)


@given(
    steps=st.lists(st.tuples(st.booleans(), st.booleans(), topics)),
    breaks=st.sets(st.integers(0, 20)),
)
def test_a_publisher_knows_what_its_subscriber_wants(
    steps: list[tuple[bool, bool, bytes]], breaks: set[int]
) -> None:
    xpub, sub = made(Xpub), made(Sub)
    join(xpub, 0, sub, 0)
    wanted: list[bytes] = []
    told: set[bytes] = set()
    for place, (subscribes, moves, topic) in enumerate(steps):
        if place in breaks:
            xpub.detach(0)
            sub.detach(0)
            join(xpub, 0, sub, 0)
        if subscribes:
            sub.subscribe(topic)
            wanted.append(topic)
        else:
            sub.unsubscribe(topic)
            if topic in wanted:
                wanted.remove(topic)
        if moves:
            exchange(xpub, 0, sub, 0)
            assert xpub.topic_count == len(set(wanted))
    exchange(xpub, 0, sub, 0)
    for message in received(xpub):
        assert isinstance(message, bytes)
        (told.add if message[0] else told.remove)(message[1:])
    assert told == set(wanted)


@given(
    senders=st.integers(1, 3),
    receivers=st.integers(1, 3),
    sndhwm=st.integers(1, 4),
    rcvhwm=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["send", "move", "recv"]), st.integers(0, 8))),
)
def test_nothing_is_lost_doubled_cut_or_reordered(
    senders: int, receivers: int, sndhwm: int, rcvhwm: int, steps: list[tuple[str, int]]
) -> None:
    pushes: list[Pattern] = [made(Push, sndhwm=sndhwm) for _ in range(senders)]
    pulls: list[Pattern] = [made(Pull, rcvhwm=rcvhwm) for _ in range(receivers)]
    for number, push in enumerate(pushes):
        for other, pull in enumerate(pulls):
            join(push, other, pull, number)
    sent: list[list[Message]] = [[] for _ in pushes]
    arrived: list[list[Message]] = [[] for _ in pulls]

    def move_all() -> None:
        for number, push in enumerate(pushes):
            for other, pull in enumerate(pulls):
                exchange(push, other, pull, number)

    for what, count in steps:
        sender, receiver = count % senders, count % receivers
        if what == "send":
            first = len(sent[sender])
            batch: list[Message] = [
                (b"%d" % sender, b"%d" % n, b"x" * (n % 3)) for n in range(first, first + count)
            ]
            sent[sender] += batch[: pushes[sender].send_many(batch)]
        elif what == "move":
            exchange(pushes[sender], receiver, pulls[receiver], sender)
        else:
            arrived[receiver] += pulls[receiver].recv_many(count)
    while any(push.has_outgoing(n) for push in pushes for n in range(receivers)) or any(
        pull.is_readable for pull in pulls
    ):
        move_all()
        for other, pull in enumerate(pulls):
            arrived[other] += pull.recv_many(3)
    everything = [message for taken in arrived for message in taken]
    assert sorted(everything) == sorted(message for batch in sent for message in batch)
    for taken in arrived:
        for sender in range(senders):
            numbers = [int(m[1]) for m in taken if m[0] == b"%d" % sender]
            assert numbers == sorted(numbers)
