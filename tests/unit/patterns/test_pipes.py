"""What holds for the pipes of every socket type: coming and going, queues, marks, misuse.

PUSH stands for those that send and PULL for those that receive, unless a rule names the type.
"""

from __future__ import annotations

from random import Random

import pytest

from mcast.errors import OptionError, PatternError
from mcast.kernel import Message
from mcast.patterns import (
    Dealer,
    Pair,
    Pattern,
    PeerInfo,
    Pub,
    Pull,
    Push,
    Radio,
    Refusal,
    Rep,
    Req,
    Router,
    SendResult,
    SocketKind,
    Xpub,
    Xsub,
    create,
    options_type,
)
from mcast.patterns.options import ConflatingOptions
from tests.unit.patterns.ends import (
    ALL,
    ANYBODY,
    dropped,
    made,
    numbered,
    out,
    received,
    refusals,
    wants,
)

pytestmark = pytest.mark.kernel_independent

every_kind = pytest.mark.parametrize("kind", SocketKind)

CANNOT_SEND = {SocketKind.SUB, SocketKind.PULL, SocketKind.DISH}
CANNOT_RECEIVE = {SocketKind.PUB, SocketKind.PUSH, SocketKind.RADIO}


# Coming and going.


def test_messages_queue_for_a_connection_that_is_yet_to_come() -> None:
    push = made(Push)
    push.attach(7)
    assert push.send_many([b"1", b"2"]) == 2
    assert push.take_loaded() == []
    assert not push.has_outgoing(7)
    assert out(push, 7) == []
    push.attach(7, ANYBODY)
    assert push.take_loaded() == [7]
    assert out(push, 7) == [b"1", b"2"]


def test_a_broken_connection_keeps_its_queue_until_it_is_back() -> None:
    push = made(Push, 1)
    push.send(b"1")
    push.suspend(0)
    push.send(b"2")
    assert out(push) == []
    push.attach(0, ANYBODY)
    assert push.take_loaded()[-1:] == [0]
    assert out(push) == [b"1", b"2"]


def test_with_immediate_only_a_live_connection_counts() -> None:
    push = made(Push, immediate=True)
    push.attach(0)
    assert push.send(b"1") is SendResult.WOULD_BLOCK
    push.attach(0, ANYBODY)
    assert push.send(b"1") is SendResult.SENT
    push.suspend(0)
    assert not push.is_writable
    push.attach(0, ANYBODY)
    assert out(push) == []
    assert dropped(push) == {"dropped_undelivered": 1}
    assert push.send(b"2") is SendResult.SENT


def test_with_immediate_a_full_connection_that_breaks_is_empty_when_it_is_back() -> None:
    push = made(Push, 1, immediate=True, sndhwm=1)
    push.send(b"1")
    push.suspend(0)
    push.attach(0, ANYBODY)
    assert push.send(b"2") is SendResult.SENT
    assert out(push) == [b"2"]


def test_what_a_peer_sent_is_received_after_it_left() -> None:
    pull = made(Pull, 2)
    pull.handle_messages(0, [b"1", b"2"])
    pull.handle_messages(1, [b"3"])
    pull.detach(0)
    assert received(pull) == [b"1", b"3", b"2"]


def test_what_a_peer_was_to_get_is_dropped_when_it_leaves() -> None:
    push = made(Push, 1)
    push.send_many([b"1", b"2"])
    push.detach(0)
    assert dropped(push) == {"dropped_undelivered": 2}
    assert not push.is_writable
    assert out(push) == []


def test_a_number_is_free_when_its_pipe_is_detached() -> None:
    pull = made(Pull, 1)
    pull.handle_messages(0, [b"old"])
    pull.detach(0)
    pull.attach(0, ANYBODY)
    pull.handle_messages(0, [b"new"])
    assert received(pull) == [b"old", b"new"]


def test_a_connected_pipe_cannot_be_attached_again() -> None:
    push = made(Push, 1)
    with pytest.raises(PatternError, match="pipe 0 is attached already; detach it first"):
        push.attach(0, ANYBODY)
    push.attach(1)
    with pytest.raises(PatternError, match="pipe 1 is attached already"):
        push.attach(1)


@every_kind
def test_pipes_that_are_not_attached_are_no_error(kind: SocketKind) -> None:
    pattern = create(kind, Random(1))
    pattern.detach(5)
    pattern.suspend(5)
    assert pattern.take_outgoing(5, ALL) == []
    assert pattern.take_subscriptions(5) == []
    assert not pattern.has_outgoing(5)
    assert not pattern.can_receive(5)
    pattern.handle_messages(5, [b"x", (b"", b"x")])
    pattern.handle_subscriptions(5, wants(b"x"))
    assert not pattern.is_readable
    assert pattern.counters.dropped_unexpected >= 2
    assert refusals(pattern) == []


@every_kind
def test_a_pipe_waiting_for_its_connection_is_not_read_from(kind: SocketKind) -> None:
    pattern = create(kind, Random(1))
    pattern.attach(0)
    pattern.suspend(0)
    assert pattern.room_for(0) == 0
    pattern.attach(0, ANYBODY)
    assert pattern.room_for(0) > 0
    pattern.suspend(0)
    assert pattern.room_for(0) == 0


# Who can do what.


@every_kind
def test_only_those_send_that_can(kind: SocketKind) -> None:
    pattern = create(kind, Random(1))
    if kind in CANNOT_SEND:
        with pytest.raises(PatternError, match=f"a {kind} socket cannot send"):
            pattern.send(b"x")
        with pytest.raises(PatternError):
            pattern.send_many([b"x"])
        assert not pattern.is_writable
    assert pattern.send_many([]) == 0


@every_kind
def test_only_those_receive_that_can(kind: SocketKind) -> None:
    pattern = create(kind, Random(1))
    if kind in CANNOT_RECEIVE:
        with pytest.raises(PatternError, match=f"a {kind} socket cannot receive"):
            pattern.recv()
        with pytest.raises(PatternError):
            pattern.recv_many(1)
    assert not pattern.is_readable
    assert pattern.recv_many(0) == []


@pytest.mark.parametrize("pattern", [Pub, Push, Radio])
def test_messages_for_those_that_take_none_are_dropped_and_counted(pattern: type[Push]) -> None:
    one = made(pattern, 1)
    one.handle_messages(0, [b"x", (b"y", b"z")])
    assert dropped(one) == {"dropped_unexpected": 2}
    assert one.counters.messages_received == 2
    assert one.can_receive(0)


def test_subscriptions_for_those_that_know_none_are_counted() -> None:
    pull = made(Pull, 1)
    pull.handle_subscriptions(0, wants(b"x", b"y"))
    assert dropped(pull) == {"dropped_unexpected": 2}


# What is to be written.


def test_a_pipe_is_loaded_once_until_it_is_empty() -> None:
    push = made(Push, 1)
    push.send(b"1")
    push.send(b"2")
    assert push.take_loaded() == [0]
    assert push.take_outgoing(0, 1) == [b"1"]
    push.send(b"3")
    assert push.take_loaded() == []
    assert push.has_outgoing(0)
    assert out(push) == [b"2", b"3"]
    assert not push.has_outgoing(0)
    push.send(b"4")
    assert push.take_loaded() == [0]


@pytest.mark.parametrize("pattern", [Dealer, Pair, Pub, Push, Radio, Rep, Req, Router, Xpub, Xsub])
@pytest.mark.parametrize("many", [False, True])
def test_whatever_sends_loads_its_pipe(pattern: type[Pattern], many: bool) -> None:
    one = made(pattern)
    one.attach(3, PeerInfo(routing_id=b"A"))
    message: Message = (b"A", b"x") if pattern in (Radio, Router) else b"x"
    one.handle_subscriptions(3, wants(b"A" if pattern is Radio else b""))
    if pattern is Rep:
        one.handle_messages(3, [(b"", b"request")])
        one.recv()
    assert one.take_loaded() == []
    if many:
        assert one.send_many([message]) == 1
    else:
        assert one.send(message) is SendResult.SENT
    assert one.take_loaded() == [3]
    assert len(one.take_outgoing(3, 5)) == 1


def test_messages_sent_and_received_are_counted() -> None:
    pair = made(Pair, 1)
    pair.send_many(numbered(5))
    out(pair)
    pair.handle_messages(0, numbered(3))
    assert pair.counters.messages_taken == 5
    assert pair.counters.messages_received == 3


# High-water marks.


@pytest.mark.parametrize(("hwm", "taken_until_woken"), [(1, 1), (2, 1), (3, 2), (10, 5), (11, 6)])
def test_a_full_queue_takes_more_when_half_of_it_was_taken(
    hwm: int, taken_until_woken: int
) -> None:
    push = made(Push, 1, sndhwm=hwm)
    assert push.send_many(numbered(hwm + 1)) == hwm
    assert push.send(b"x") is SendResult.WOULD_BLOCK
    for taken in range(1, taken_until_woken + 1):
        assert not push.is_writable
        push.take_outgoing(0, 1)
        assert push.is_writable is (taken == taken_until_woken)
    assert push.send_many(numbered(hwm)) == taken_until_woken


@pytest.mark.parametrize(("hwm", "taken_until_woken"), [(1, 1), (2, 1), (3, 2), (10, 5), (11, 6)])
def test_a_full_inbox_is_read_into_when_half_of_it_was_taken(
    hwm: int, taken_until_woken: int
) -> None:
    pull = made(Pull, 1, rcvhwm=hwm)
    assert pull.room_for(0) == hwm
    pull.handle_messages(0, numbered(hwm))
    assert not pull.can_receive(0)
    for taken in range(1, taken_until_woken + 1):
        assert pull.take_resumed() == []
        pull.recv()
        assert pull.can_receive(0) is (taken == taken_until_woken)
    assert pull.take_resumed() == [0]
    assert pull.take_resumed() == []


def test_a_batch_beyond_the_mark_is_kept() -> None:
    pull = made(Pull, 1, rcvhwm=2)
    pull.handle_messages(0, numbered(5))
    assert not pull.can_receive(0)
    assert pull.recv_many(3) == numbered(3)
    assert not pull.can_receive(0)
    assert pull.recv_many(1) == numbered(1, first=3)
    assert pull.take_resumed() == [0]
    assert pull.recv_many(ALL) == numbered(1, first=4)


def test_zero_means_no_mark() -> None:
    push = made(Push, 1, sndhwm=0)
    assert push.send_many(numbered(5000)) == 5000
    assert push.is_writable
    pull = made(Pull, 1, rcvhwm=0)
    pull.handle_messages(0, numbered(5000))
    assert pull.can_receive(0)


def test_marks_count_for_each_pipe() -> None:
    push = made(Push, 3, sndhwm=2)
    assert push.send_many(numbered(10)) == 6
    assert [len(out(push, number)) for number in range(3)] == [2, 2, 2]
    pull = made(Pull, 2, rcvhwm=2)
    pull.handle_messages(0, numbered(2))
    assert not pull.can_receive(0)
    assert pull.can_receive(1)


def test_a_mark_that_is_changed_counts_for_the_pipes_there_are() -> None:
    push = made(Push, 2, sndhwm=2)
    push.send_many(numbered(4))
    push.configure(ConflatingOptions(sndhwm=3))
    assert push.send_many(numbered(4)) == 2
    push.take_outgoing(0, 2)
    push.configure(ConflatingOptions(sndhwm=1))
    assert not push.is_writable
    push.take_outgoing(0, 1)
    assert push.is_writable
    push.configure(ConflatingOptions(sndhwm=1))
    assert push.send_many(numbered(4)) == 1


def test_a_receive_mark_that_is_changed_counts_for_the_pipes_there_are() -> None:
    pull = made(Pull, 1, rcvhwm=2)
    pull.handle_messages(0, numbered(2))
    pull.configure(ConflatingOptions(rcvhwm=4))
    assert pull.take_resumed() == [0]
    assert pull.room_for(0) == 2
    pull.configure(ConflatingOptions(rcvhwm=1))
    assert pull.room_for(0) == 0
    assert len(received(pull)) == 2
    assert pull.take_resumed() == [0]


def test_a_pipe_that_is_read_again_while_it_has_no_connection_is_not_named() -> None:
    pull = made(Pull, 1, rcvhwm=2)
    pull.handle_messages(0, numbered(2))
    pull.suspend(0)
    received(pull)
    assert pull.take_resumed() == []
    pull.attach(0, ANYBODY)
    assert pull.can_receive(0)


def test_reconnecting_does_not_get_round_a_full_inbox() -> None:
    pull = made(Pull, 1, rcvhwm=2)
    pull.handle_messages(0, numbered(2))
    pull.suspend(0)
    pull.attach(0, ANYBODY)
    assert not pull.can_receive(0)
    received(pull)
    assert pull.take_resumed() == [0]


def test_peers_that_send_and_leave_for_ever_stop_being_read_from() -> None:
    pull = made(Pull, rcvhwm=10)
    pull.attach(1000, ANYBODY)
    rounds = 0
    while pull.can_receive(1000):
        pull.attach(rounds, ANYBODY)
        pull.handle_messages(rounds, numbered(10, first=10 * rounds))
        pull.detach(rounds)
        rounds += 1
    assert rounds == 16
    pull.attach(rounds, ANYBODY)
    assert not pull.can_receive(rounds)
    for _ in range(9):
        pull.recv_many(16)
        assert pull.take_resumed() == []
    assert len(pull.recv_many(16)) == 16
    assert pull.take_resumed() == [1000, 16]
    assert pull.can_receive(rounds)
    assert pull.counters.messages_received == 160


# Conflating.


def test_a_conflating_sender_keeps_the_newest_message_only() -> None:
    push = made(Push, 1, conflate=True, sndhwm=1)
    for message in numbered(5):
        assert push.send(message) is SendResult.SENT
    assert out(push) == [b"4"]
    assert push.send_many(numbered(6)) == 6
    assert push.send_many(numbered(4)) == 4
    assert out(push) == [(b"3", b"part")]
    assert dropped(push) == {"conflated": 13}


def test_a_conflating_receiver_keeps_the_newest_message_only() -> None:
    pull = made(Pull, 1, conflate=True, rcvhwm=1)
    pull.handle_messages(0, numbered(3))
    pull.handle_messages(0, numbered(4))
    assert pull.can_receive(0)
    assert received(pull) == [(b"3", b"part")]
    assert dropped(pull) == {"conflated": 6}


def test_a_conflating_dealer_takes_turns_and_keeps_what_is_newest_for_each() -> None:
    dealer = made(Dealer, 2, conflate=True)
    dealer.send_many([b"1", b"2", b"3", b"4", b"5"])
    assert (out(dealer, 0), out(dealer, 1)) == ([b"5"], [b"4"])


def test_conflating_begins_and_ends_only_without_connections() -> None:
    push = made(Push, 1)
    with pytest.raises(OptionError, match="conflate cannot be changed"):
        push.configure(ConflatingOptions(conflate=True))
    push.detach(0)
    push.configure(ConflatingOptions(conflate=True))
    push.attach(0, ANYBODY)
    push.send_many(numbered(3))
    assert len(out(push)) == 1


# PAIR.


def test_a_pair_refuses_a_second_peer_and_keeps_the_first() -> None:
    pair = made(Pair, 1)
    pair.attach(1, PeerInfo("PAIR"))
    assert refusals(pair) == [(1, Refusal.SECOND_PEER)]
    pair.handle_messages(1, [b"from a stranger"])
    assert received(pair) == []
    pair.send(b"x")
    assert out(pair, 0) == [b"x"]


def test_a_pair_takes_another_peer_when_the_first_has_left() -> None:
    pair = made(Pair, 1)
    pair.handle_messages(0, [b"last words"])
    pair.detach(0)
    assert pair.send(b"x") is SendResult.WOULD_BLOCK
    pair.attach(1, ANYBODY)
    assert refusals(pair) == []
    assert pair.send(b"x") is SendResult.SENT
    assert received(pair) == [b"last words"]


def test_a_pair_that_waits_for_its_connection_has_its_peer_already() -> None:
    pair = made(Pair)
    pair.attach(0)
    pair.attach(1, ANYBODY)
    assert refusals(pair) == [(1, Refusal.SECOND_PEER)]


# Probes.


def test_a_dealer_probes_each_new_connection_before_anything_else() -> None:
    dealer = made(Dealer, probe_router=True)
    dealer.attach(0)
    dealer.send(b"queued")
    dealer.attach(0, ANYBODY)
    assert out(dealer) == [b"", b"queued"]
    dealer.suspend(0)
    dealer.send(b"more")
    dealer.attach(0, ANYBODY)
    assert out(dealer) == [b"", b"more"]


def test_probes_do_not_pile_up() -> None:
    dealer = made(Dealer, 1, probe_router=True)
    for _ in range(3):
        dealer.suspend(0)
        dealer.attach(0, ANYBODY)
    assert out(dealer) == [b""]


def test_a_probe_counts_for_the_mark() -> None:
    dealer = made(Dealer, 1, probe_router=True, sndhwm=1)
    assert dealer.send(b"x") is SendResult.WOULD_BLOCK
    assert out(dealer) == [b""]
    assert dealer.send(b"x") is SendResult.SENT


def test_a_probe_in_a_full_queue_leaves_it_full() -> None:
    dealer = made(Dealer, probe_router=True, sndhwm=1)
    dealer.attach(0)
    dealer.send(b"x")
    dealer.attach(0, ANYBODY)
    assert not dealer.is_writable
    assert out(dealer) == [b"", b"x"]


def test_a_probe_does_not_push_out_the_message_of_a_conflating_dealer() -> None:
    dealer = made(Dealer, probe_router=True, conflate=True)
    dealer.attach(0)
    dealer.send(b"x")
    dealer.attach(0, ANYBODY)
    assert out(dealer) == [b"x"]


@pytest.mark.parametrize("kind", SocketKind)
def test_each_type_has_options_of_its_own_class(kind: SocketKind) -> None:
    assert type(create(kind, Random(1)).options) is options_type(kind)


def test_news_and_what_waits_are_told_until_they_are_taken() -> None:
    push = made(Push, peers=1)
    while push.has_news:
        push.take_loaded()
        push.take_resumed()
        push.take_events()
    assert (push.queued_for(0), push.queued_for(7)) == (0, 0)
    push.send(b"m")
    assert push.has_news
    assert push.queued_for(0) == 1
    push.take_loaded()
    assert not push.has_news
    assert out(push) == [b"m"]
    assert push.queued_for(0) == 0


def test_pipe_is_known_from_the_time_it_is_expected_until_it_is_detached() -> None:
    push = made(Push)
    assert not push.has_pipe(0)
    push.attach(0)
    assert push.has_pipe(0)
    push.attach(0, ANYBODY)
    push.suspend(0)
    assert push.has_pipe(0)
    push.detach(0)
    assert not push.has_pipe(0)


def test_loaded_pipes_that_were_not_seen_to_are_named_again() -> None:
    push = made(Push, peers=2)
    push.send_many([b"a", b"b"])
    loaded = push.take_loaded()
    assert sorted(loaded) == [0, 1]
    assert out(push, loaded.pop()) == [b"b"]
    push.put_back(loaded)
    assert push.has_news
    assert push.take_loaded() == [0]


def test_reload_names_whatever_has_something_to_write_and_is_connected() -> None:
    push = made(Push, peers=3)
    push.attach(3)
    push.send_many([b"a", b"b", b"c", b"d"])
    push.take_loaded()
    out(push, 1)
    push.reload()
    assert push.take_loaded() == [0, 2]
