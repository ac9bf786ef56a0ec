"""Fair queueing and load balancing against models that take one message at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.kernel import Message
from mcast.patterns import Dealer, Pull, Push, SendResult
from tests.unit.patterns.ends import ALL, ANYBODY, made, numbered, out, received

pytestmark = pytest.mark.kernel_independent


def test_messages_go_to_each_peer_in_turn() -> None:
    push = made(Push, 3)
    for message in numbered(7):
        assert push.send(message) is SendResult.SENT
    first, second, third = (out(push, number) for number in range(3))
    assert first == [numbered(7)[n] for n in (0, 3, 6)]
    assert second == [numbered(7)[n] for n in (1, 4)]
    assert third == [numbered(7)[n] for n in (2, 5)]


def test_a_full_peer_is_passed_by_and_comes_last_when_it_has_room_again() -> None:
    push = made(Push, 2, sndhwm=1)
    push.attach(2, ANYBODY)
    assert push.send_many([b"0", b"1", b"2", b"3"]) == 3
    assert out(push, 1) == [b"1"]
    assert push.send_many([b"3", b"4"]) == 1
    assert out(push, 1) == [b"3"]
    assert (out(push, 0), out(push, 2)) == ([b"0"], [b"2"])


def test_messages_come_from_each_peer_in_turn() -> None:
    pull = made(Pull, 3)
    pull.handle_messages(0, [b"a1", b"a2", b"a3"])
    pull.handle_messages(1, [b"b1"])
    pull.handle_messages(2, [b"c1", b"c2"])
    assert received(pull) == [b"a1", b"b1", b"c1", b"a2", b"c2", b"a3"]


def test_a_flood_of_one_peer_does_not_hold_up_another() -> None:
    pull = made(Pull, 2)
    pull.handle_messages(0, [b"flood"] * 500)
    pull.handle_messages(1, [b"one"])
    assert b"one" in pull.recv_many(2)


def test_an_empty_batch_is_nothing() -> None:
    pull = made(Pull, 1)
    pull.handle_messages(0, [])
    assert not pull.is_readable
    assert pull.recv() is None


class OneByOne:
    """The model of sharing out: one message at a time, in the words of libzmq's manual."""

    def __init__(self, peers: int, hwm: int) -> None:
        self.hwm = hwm
        self.ring = list(range(peers))
        self.queues: list[deque[Message]] = [deque() for _ in range(peers)]
        self.taken: list[list[Message]] = [[] for _ in range(peers)]

    def send(self, message: Message) -> bool:
        if not self.ring:
            return False
        peer = self.ring.pop(0)
        self.queues[peer].append(message)
        if len(self.queues[peer]) < self.hwm:
            self.ring.append(peer)
        return True

    def take(self, peer: int, limit: int) -> list[Message]:
        queue = self.queues[peer]
        taken = [queue.popleft() for _ in range(min(limit, len(queue)))]
        if peer not in self.ring and len(queue) <= self.hwm // 2:
            self.ring.append(peer)
        return taken


@given(
    peers=st.integers(1, 4),
    hwm=st.integers(1, 5),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 12)),
            st.tuples(st.just("send one"), st.just(1)),
            st.tuples(st.integers(0, 3), st.integers(0, 6)),
        ),
        max_size=30,
    ),
)
def test_a_batch_is_shared_out_as_one_message_after_the_other(
    peers: int, hwm: int, steps: list[tuple[str | int, int]]
) -> None:
    push, model = made(Push, peers, sndhwm=hwm), OneByOne(peers, hwm)
    next_number = 0
    for what, count in steps:
        if isinstance(what, int):
            assert push.take_outgoing(what % peers, count) == model.take(what % peers, count)
            continue
        batch = numbered(count, first=next_number)
        if what == "send one":
            sent = int(push.send(batch[0]) is SendResult.SENT)
        else:
            sent = push.send_many(batch)
        assert sent == sum(model.send(message) for message in batch)
        assert push.is_writable is bool(model.ring)
        next_number += sent
    for peer in range(peers):
        assert out(push, peer) == model.take(peer, ALL)


@given(
    batches=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=20),
    limits=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    hwm=st.integers(0, 4),
)
def test_a_batch_is_taken_in_turn_as_one_message_after_the_other(
    batches: Sequence[tuple[int, int]], limits: list[int], hwm: int
) -> None:
    many, one = made(Pull, 4, rcvhwm=hwm), made(Pull, 4, rcvhwm=hwm)
    limit_of = iter(limits * 200)
    total = 0
    for peer, count in batches:
        batch = numbered(count, first=total)
        total += count
        for pull in (many, one):
            pull.handle_messages(peer, batch)
        limit = next(limit_of)
        singles = [message for _ in range(limit) if (message := one.recv()) is not None]
        assert many.recv_many(limit) == singles
        assert sorted(many.take_resumed()) == sorted(one.take_resumed())
    assert many.recv_many(ALL) == received(one)
    assert [many.room_for(n) for n in range(4)] == [one.room_for(n) for n in range(4)]


@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=6),
    limit=st.integers(1, 40),
)
def test_no_peer_waits_longer_than_a_round(counts: list[int], limit: int) -> None:
    pull = made(Pull, len(counts))
    for peer, count in enumerate(counts):
        pull.handle_messages(peer, [b"%d" % peer] * count)
    left = list(counts)
    since: dict[int, int] = dict.fromkeys(range(len(counts)), 0)
    while batch := pull.recv_many(limit):
        for message in batch:
            assert isinstance(message, bytes)
            came = int(message)
            left[came] -= 1
            since = {peer: since[peer] + 1 if left[peer] else 0 for peer in since} | {came: 0}
            assert max(since.values()) <= len(counts)
    assert left == [0] * len(counts)


@given(
    peers=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 7)), max_size=40),
)
def test_a_dealer_with_peers_that_come_and_go_loses_only_what_it_counts(
    peers: int, steps: list[tuple[int, bool, int]]
) -> None:
    dealer = made(Dealer, peers, sndhwm=4)
    gone: set[int] = set()
    sent, arrived = 0, []
    for number, comes_or_goes, count in steps:
        peer = number % peers
        if comes_or_goes and peer in gone:
            dealer.attach(peer, ANYBODY)
            gone.remove(peer)
        elif comes_or_goes:
            dealer.detach(peer)
            gone.add(peer)
        else:
            sent += dealer.send_many(numbered(count, first=sent))
            arrived += dealer.take_outgoing(peer, count)
    for peer in range(peers):
        arrived += out(dealer, peer)
    assert len(arrived) == len(set(arrived))
    assert set(arrived) <= set(numbered(sent))
    assert len(arrived) + dealer.counters.dropped_undelivered == sent
