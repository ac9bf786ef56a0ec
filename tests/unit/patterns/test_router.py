"""ROUTER: names of peers, where messages go, what happens when a name is taken."""

from __future__ import annotations

from random import Random

import pytest

from mcast.errors import PatternError
from mcast.patterns import PeerInfo, Refusal, Router, SendResult
from mcast.patterns.options import NOTIFY_CONNECT, NOTIFY_DISCONNECT, RouterOptions
from tests.unit.patterns.ends import ANYBODY, dropped, made, numbered, out, received, refusals

pytestmark = pytest.mark.kernel_independent

A = PeerInfo("DEALER", b"A")
B = PeerInfo("REQ", b"B")


def router(*peers: PeerInfo, **options: object) -> Router:
    one = made(Router, **options)
    for number, peer in enumerate(peers):
        one.attach(number, peer)
    return one


# Receiving and sending.


def test_messages_have_the_peers_identity_in_front() -> None:
    one = router(A, B)
    one.handle_messages(0, [b"1", (b"2", b"3"), b""])
    one.handle_messages(1, [(b"", b"4")])
    assert received(one) == [
        (b"A", b"1"),
        (b"B", b"", b"4"),
        (b"A", b"2", b"3"),
        (b"A", b""),
    ]


def test_the_first_part_says_where_to_and_is_taken_off() -> None:
    one = router(A, B)
    assert one.send((b"B", b"1")) is SendResult.SENT
    assert one.send_many([(b"A", b"2"), (b"B", b"", b"3")]) == 2
    assert out(one, 0) == [b"2"]
    assert out(one, 1) == [b"1", (b"", b"3")]


def test_messages_to_nobody_known_are_dropped() -> None:
    one = router(A)
    assert one.send((b"X", b"1")) is SendResult.SENT
    assert one.send(b"A") is SendResult.SENT
    assert dropped(one) == {"dropped_unroutable": 2}
    assert one.is_writable


def test_messages_for_a_full_queue_are_dropped() -> None:
    one = router(A, sndhwm=1)
    assert one.send_many([(b"A", b"1"), (b"A", b"2")]) == 2
    assert out(one) == [b"1"]
    assert dropped(one) == {"dropped_at_hwm": 1}


def test_a_mandatory_router_says_that_a_peer_is_unknown() -> None:
    one = router(A, router_mandatory=True)
    assert one.send((b"X", b"1")) is SendResult.UNROUTABLE
    assert one.send_many([(b"A", b"1"), (b"X", b"2"), (b"A", b"3")]) == 1
    assert dropped(one) == {}


def test_a_mandatory_router_says_that_a_queue_is_full() -> None:
    one = router(A, B, router_mandatory=True, sndhwm=1)
    assert one.send((b"A", b"1")) is SendResult.SENT
    assert one.is_writable
    assert one.send((b"A", b"2")) is SendResult.WOULD_BLOCK
    one.send((b"B", b"1"))
    assert not one.is_writable
    assert out(one, 0) == [b"1"]
    assert one.is_writable
    assert one.send((b"A", b"2")) is SendResult.SENT


def test_a_mandatory_router_takes_no_message_without_a_body() -> None:
    one = router(A, router_mandatory=True)
    with pytest.raises(PatternError, match="has a routing id and a body"):
        one.send(b"A")
    assert one.send_many([(b"A", b"1"), b"A"]) == 1
    with pytest.raises(PatternError):
        one.send_many([b"A"])


def test_a_peer_that_left_is_unknown() -> None:
    one = router(A, router_mandatory=True)
    one.detach(0)
    assert one.send((b"A", b"1")) is SendResult.UNROUTABLE
    assert not one.is_writable


def test_messages_of_a_peer_that_left_keep_its_name() -> None:
    one = router(A)
    one.handle_messages(0, numbered(2))
    one.detach(0)
    one.attach(0, B)
    one.handle_messages(0, [b"x"])
    assert received(one) == [(b"A", b"0", b"part"), (b"B", b"x"), (b"A", b"1")]


# Names.


def test_peers_without_an_identity_get_five_bytes_that_count_up() -> None:
    one = router(ANYBODY, ANYBODY)
    for number in range(2):
        one.handle_messages(number, [b"x"])
    names = [message[0] for message in received(one)]
    first, second = (int.from_bytes(name[1:], "big") for name in names)
    assert [name[:1] for name in names] == [b"\0", b"\0"]
    assert [len(name) for name in names] == [5, 5]
    assert second == (first + 1) % (1 << 32)
    assert one.send((names[1], b"y")) is SendResult.SENT
    assert out(one, 1) == [b"y"]


def test_two_routers_start_counting_elsewhere() -> None:
    starts = set()
    for seed in range(5):
        one = Router(RouterOptions(), Random(seed))
        one.attach(0, ANYBODY)
        one.handle_messages(0, [b"x"])
        starts.add(received(one)[0][0])
    assert len(starts) == 5


def test_a_generated_name_in_use_is_passed_by_when_the_count_comes_round() -> None:
    one = router()
    one._next_id = (1 << 32) - 1
    one.attach(0, ANYBODY)
    one.attach(1, ANYBODY)
    one._next_id = (1 << 32) - 1
    one.attach(2, ANYBODY)
    for number in range(3):
        one.handle_messages(number, [b"x"])
    assert [message[0] for message in received(one)] == [
        b"\0\xff\xff\xff\xff",
        b"\0\0\0\0\0",
        b"\0\0\0\0\1",
    ]


@pytest.mark.parametrize("identity", [b"\0abcd", b"x" * 256])
def test_an_identity_that_nobody_may_have_is_replaced(identity: bytes) -> None:
    one = router(PeerInfo("DEALER", identity))
    one.handle_messages(0, [b"x"])
    ((name, _),) = received(one)
    assert name != identity
    assert len(name) == 5
    assert dropped(one) == {"routing_ids_replaced": 1}


def test_our_own_name_for_a_connection_goes_before_the_peers() -> None:
    one = router()
    one.attach(0, A, routing_id=b"ours")
    one.handle_messages(0, [b"x"])
    assert received(one) == [(b"ours", b"x")]
    one.attach(1, A)
    assert refusals(one) == []


def test_a_connection_that_we_named_is_sent_to_before_it_is_ready() -> None:
    one = router(router_mandatory=True)
    one.attach(0, routing_id=b"ours")
    assert one.send((b"ours", b"1")) is SendResult.SENT
    one.attach(0, A)
    assert out(one) == [b"1"]


def test_a_connection_without_a_name_is_not_sent_to_before_it_is_ready() -> None:
    one = router(router_mandatory=True)
    one.attach(0)
    assert one.send((b"A", b"1")) is SendResult.UNROUTABLE
    one.attach(0, A)
    assert one.send((b"A", b"1")) is SendResult.SENT


def test_with_immediate_a_broken_connection_is_nobody() -> None:
    one = router(A, router_mandatory=True, immediate=True)
    one.suspend(0)
    assert one.send((b"A", b"1")) is SendResult.UNROUTABLE
    assert not one.is_writable


def test_a_connection_keeps_its_name_when_it_comes_back() -> None:
    one = router(A)
    one.suspend(0)
    assert one.send((b"A", b"1")) is SendResult.SENT
    one.attach(0, B)
    assert out(one) == [b"1"]
    one.handle_messages(0, [b"x"])
    assert received(one) == [(b"A", b"x")]


@pytest.mark.parametrize(
    ("routing_id", "why"),
    [
        (b"\0x", "does not begin with a zero byte"),
        (b"x" * 256, "1 to 255 bytes"),
        (b"A", "the routing id b'A' is another peer's"),
    ],
)
def test_a_name_of_ours_that_cannot_be_raises(routing_id: bytes, why: str) -> None:
    one = router(A)
    with pytest.raises(PatternError, match=why):
        one.attach(1, B, routing_id=routing_id)
    assert one.send((b"B", b"x")) is SendResult.SENT
    assert dropped(one) == {"dropped_unroutable": 1}


# Names taken.


def test_a_newcomer_with_a_name_in_use_is_not_heard_even_when_the_first_has_left() -> None:
    one = router(A, A)
    assert refusals(one) == [(1, Refusal.DUPLICATE_ROUTING_ID)]
    one.handle_messages(1, [b"x", b"y"])
    one.detach(0)
    one.handle_messages(1, [b"z"])
    assert received(one) == []
    assert dropped(one) == {"dropped_unexpected": 3}
    one.send((b"A", b"to nobody"))
    assert out(one, 1) == []
    assert one.can_receive(1)
    one.detach(1)
    one.attach(1, A)
    assert refusals(one) == []
    one.handle_messages(1, [b"heard"])
    assert received(one) == [(b"A", b"heard")]


def test_with_handover_the_newcomer_takes_the_name_over() -> None:
    one = router(A, router_handover=True)
    one.handle_messages(0, [b"old"])
    one.send((b"A", b"to the old"))
    one.attach(1, A)
    assert refusals(one) == [(0, Refusal.HANDED_OVER)]
    one.handle_messages(1, [b"new"])
    one.handle_messages(0, [b"too late"])
    assert received(one) == [(b"A", b"old"), (b"A", b"new")]
    one.send((b"A", b"to the new"))
    assert out(one, 1) == [b"to the new"]
    assert dropped(one) == {"dropped_undelivered": 1, "dropped_unexpected": 1}
    one.detach(0)
    one.send((b"A", b"still"))
    assert out(one, 1) == [b"still"]


# Probes and notifications.


def test_a_router_probes_each_new_connection() -> None:
    one = router(A, probe_router=True)
    assert out(one) == [b""]


def test_a_router_tells_who_connects_and_disconnects() -> None:
    one = router(A, router_notify=NOTIFY_CONNECT | NOTIFY_DISCONNECT)
    one.handle_messages(0, [b"x"])
    one.suspend(0)
    one.attach(0, A)
    one.detach(0)
    assert received(one) == [
        (b"A", b""),
        (b"A", b"x"),
        (b"A", b""),
        (b"A", b""),
        (b"A", b""),
    ]


@pytest.mark.parametrize("what", [0, NOTIFY_CONNECT, NOTIFY_DISCONNECT])
def test_a_router_tells_only_what_it_is_asked_to(what: int) -> None:
    one = router(A, router_notify=what)
    assert len(received(one)) == (what == NOTIFY_CONNECT)
    one.suspend(0)
    one.detach(0)
    assert len(received(one)) == (what == NOTIFY_DISCONNECT)


def test_nothing_is_told_of_a_newcomer_that_is_ignored() -> None:
    one = router(A, A, router_notify=3)
    one.detach(1)
    assert received(one) == [(b"A", b"")]


def test_notifications_nobody_receives_do_not_pile_up_for_ever() -> None:
    one = router(router_notify=3, rcvhwm=10)
    for _ in range(1000):
        one.attach(0, A)
        one.detach(0)
    told = len(received(one))
    assert 160 <= told <= 164
    assert dropped(one) == {"dropped_unexpected": 2000 - told}
    one.attach(0, A)
    assert received(one) == [(b"A", b"")]
