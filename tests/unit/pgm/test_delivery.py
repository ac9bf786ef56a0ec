"""Whole deliveries over a seeded wire: loss, duplicates, reordering, corruption, restarts, floods.

The rule that every run is judged by: each message comes once, in order and whole, or lies in a
``Lost`` range; the ranges and the packets decoded together cover the stream from the join on.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from mcast.events import (
    Event,
    LossReason,
    Lost,
    PeerHeard,
    PeerJoined,
    PeerLeft,
    PeerQuiet,
    PeerRestarted,
    RepairsLimited,
)
from mcast.pgm import Messages
from mcast.pgm.packet import parse_untrusted
from mcast.pgm.receiver import Receiver
from mcast.pgm.sqn import extend
from tests.unit.pgm.packets import MASK, seal
from tests.unit.pgm.wire import MS, Faults, Node, Wire, loss

WRAP = 1 << 32


def numbered(count: int, size: int = 0) -> list[bytes]:
    return [b"%07d" % n + b"." * size for n in range(count)]


def publish(wire: Wire, node: Node, messages: Sequence[bytes], pause_s: float = 0.0002) -> None:
    for message in messages:
        wire.send(node, message)
        wire.run(pause_s)


def check_ledger(node: Node, first: int | None = None, *, spanning: bool = False) -> None:
    """Packets decoded and packets lost cover the stream in order, without overlap.

    And without a hole, unless messages span packets: one with a message's beginning alone does not
    show in the stream.
    """
    expected = first
    for item in node.stream:
        if isinstance(item, PeerJoined | PeerRestarted):
            expected = item.first
        elif isinstance(item, PeerQuiet | PeerHeard | RepairsLimited):
            continue
        elif isinstance(item, PeerLeft):
            assert item.last + 1 == expected or item.tail_unknown or spanning
        else:
            assert expected is not None
            close = item.first >= expected if spanning else item.first == expected
            assert close, f"{item} follows {expected}"
            assert item.last >= item.first
            expected = item.last + 1
            if isinstance(item, Lost):
                assert item.count == item.last + 1 - item.first


def check_order(node: Node, sent: Sequence[bytes]) -> None:
    """Every message that came was sent, whole, and comes once and in order."""
    places = {message: place for place, message in enumerate(sent)}
    found = [places[message] for message in node.messages]  # type: ignore[index]
    assert found == sorted(set(found))


def losses(node: Node) -> list[Lost]:
    return [event for event in node.events if isinstance(event, Lost)]


def receiver_of(node: Node) -> Receiver:
    return next(iter(node.engine._peers.values()))


# Everything arrives.


@pytest.mark.parametrize("percent", [0, 1, 5, 10, 30])
@pytest.mark.parametrize("size", [0, 3000], ids=["small", "spanning"])
def test_three_subscribers_get_everything_once_and_in_order(percent: int, size: int) -> None:
    """From before the wrap of the numbers to behind it."""
    count = 2_000 if not size else 400
    wire = Wire(seed=percent * 10 + size)
    pub = wire.publisher(initial_sqn=WRAP - 500)
    subs = [wire.subscriber() for _ in range(3)]
    wire.lose = loss(wire, percent, percent, percent)
    wire.run(1.5)
    sent = numbered(count, size)
    publish(wire, pub, sent)
    wire.run(6)
    for sub in subs:
        assert sub.messages == sent
        assert losses(sub) == []
        check_ledger(sub, spanning=size > 0)
        assert receiver_of(sub)._slots.stored_count == 0
        assert len(receiver_of(sub)._gaps) == 0
    if percent:
        stats = pub.engine.stats()
        # One repair serves all; what is repaired again was lost again.
        assert stats["rdata_sent"] <= 1.5 * sum(sub.engine.counters.repaired for sub in subs)


def test_unequal_losers_do_not_harm_each_other() -> None:
    wire = Wire(seed=5)
    pub = wire.publisher()
    subs = [wire.subscriber() for _ in range(3)]
    wire.lose = loss(wire, 0, 1, 30)
    wire.run(1.5)
    sent = numbered(1_500)
    publish(wire, pub, sent)
    assert subs[0].messages[-1] == sent[-1]  # at once
    wire.run(6)
    assert [sub.messages == sent for sub in subs] == [True] * 3


def test_repairs_at_ten_percent_loss_are_quick() -> None:
    wire = Wire(seed=6)
    pub = wire.publisher()
    sub = wire.subscriber()
    wire.lose = loss(wire, 10)
    wire.run(1.5)
    publish(wire, pub, numbered(5_000), pause_s=0.0005)
    wire.run(3)
    stats = sub.engine.stats()
    assert stats["repaired"] > 400
    assert stats["repair_p50_s"] <= 0.015
    assert stats["repair_p99_s"] <= 0.200


def test_a_lost_tail_is_repaired_by_the_first_heartbeats() -> None:
    wire = Wire(seed=7)
    pub, sub = wire.publisher(), wire.subscriber()
    wire.run(0.1)
    wire.lose = lambda sender, receiver, packet: packet[4] == 0x04
    wire.send(pub, b"last")
    wire.run(0.04)
    assert sub.messages == [b"last"]


def test_multipart_messages_are_never_torn() -> None:
    wire = Wire(seed=8)
    pub = wire.publisher(txw_bytes=1 << 16)
    sub = wire.subscriber(repair_deadline=0.05)
    wire.lose = loss(wire, 30)
    wire.run(1.5)
    sent = [(b"%05d" % n, b"a" * (n % 2000), b"%05d" % n) for n in range(1_500)]
    for message in sent:
        wire.send(pub, message)
        wire.run(0.0003)
    wire.run(3)
    assert len(losses(sub)) > 20
    assert set(sub.messages) <= set(sent)
    order = [message[0] for message in sub.messages]
    assert order == sorted(set(order))
    check_ledger(sub, spanning=True)


# Not everything arrives.


def test_what_the_window_no_longer_holds_is_reported_exactly() -> None:
    wire = Wire(seed=9)
    pub = wire.publisher(txw_bytes=1 << 16, initial_sqn=WRAP - 100)
    subs = [wire.subscriber() for _ in range(3)]
    wire.lose = loss(wire, 5, 10, 30)
    wire.run(1.5)
    sent = numbered(6_000)
    publish(wire, pub, sent, pause_s=0.0001)
    wire.run(6)
    for sub in subs:
        check_ledger(sub)
        check_order(sub, sent)
        lost = sum(event.count for event in losses(sub))
        # One message a packet, so the sum must come out.
        assert len(sub.messages) + lost == len(sent)
        assert sub.engine.counters.lost == lost
    assert sum(event.count for event in losses(subs[2])) > 0
    assert {event.reason for sub in subs for event in losses(sub)} == {LossReason.WINDOW_ADVANCED}


def test_a_blackout_longer_than_the_window_is_one_exact_loss_and_soon_over() -> None:
    wire = Wire(seed=10)
    pub = wire.publisher(recovery_ivl=1.0)
    sub = wire.subscriber()
    wire.run(0.1)
    publish(wire, pub, numbered(100), pause_s=0.001)
    wire.lose = lambda sender, receiver, packet: True
    sent = numbered(15_000)
    publish(wire, pub, sent, pause_s=0.001)
    wire.lose = lambda sender, receiver, packet: False
    ended_ns = wire.now_ns
    sub.stream.clear()
    sub.messages.clear()
    wire.send(pub, b"again")
    wire.run(0.001)
    # The loss is reported by the first packet that tells of it.
    (event,) = losses(sub)
    assert event.first == 100
    assert event.reason is LossReason.WINDOW_ADVANCED
    trail = pub.engine.source.window[0]  # type: ignore[union-attr]
    assert event.last == trail - 1
    while sub.messages[-1:] != [b"again"]:
        wire.run(0.001)
        assert wire.now_ns - ended_ns < 200 * MS
    assert sub.messages[:-1] == sent[event.last + 1 - 100 :]
    check_ledger(sub, event.first)


def test_a_source_that_never_answers_costs_the_deadline_and_no_more() -> None:
    wire = Wire(seed=11)
    pub = wire.publisher()
    sub = wire.subscriber(repair_deadline=0.3)
    wire.run(0.1)
    dropped = {n for n in range(500) if n % 50 == 7}

    def lose(sender: Node, receiver: Node, packet: bytes) -> bool:
        is_gone = packet[4] == 0x05 or int.from_bytes(packet[16:20], "big") in dropped
        return packet[4] in (0x04, 0x05) and is_gone

    wire.lose = lose
    sent = numbered(500)
    publish(wire, pub, sent, pause_s=0.001)
    wire.run(1)
    assert sub.messages == [message for n, message in enumerate(sent) if n not in dropped]
    assert [event.first for event in losses(sub)] == sorted(dropped)
    check_ledger(sub)


# Other faults.


@pytest.mark.parametrize(
    "faults",
    [
        Faults(duplicate=0.3),
        Faults(reorder=0.3),
        Faults(reorder=1.0, reorder_ns=20 * MS),
        Faults(duplicate=0.2, reorder=0.2, corrupt=0.05),
    ],
    ids=["duplicates", "reordering", "jitter", "everything"],
)
@pytest.mark.parametrize("percent", [0, 10])
def test_duplicates_and_reordering_change_nothing(faults: Faults, percent: float) -> None:
    wire = Wire(seed=12)
    wire.faults = faults
    pub = wire.publisher(initial_sqn=MASK - 300)
    subs = [wire.subscriber() for _ in range(2)]
    wire.lose = loss(wire, percent, percent)
    wire.run(1.5)
    sent = numbered(1_500)
    publish(wire, pub, sent)
    wire.run(5)
    for sub in subs:
        assert sub.messages == sent
        assert [type(event) for event in sub.events] == [PeerJoined]
        check_ledger(sub)


def test_slow_ambient_spms_among_fast_data_are_no_restart() -> None:
    wire = Wire(seed=13)
    wire.faults = Faults(reorder=1.0, reorder_ns=30 * MS)
    pub, sub = wire.publisher(), wire.subscriber()
    wire.run(0.1)
    sent = numbered(6_000)
    publish(wire, pub, sent, pause_s=0.001)
    wire.run(1)
    assert [type(event) for event in sub.events] == [PeerJoined]
    assert sub.messages == sent


def test_corrupted_packets_are_never_delivered() -> None:
    wire = Wire(seed=14)
    pub, sub = wire.publisher(), wire.subscriber()
    wire.run(0.1)
    wire.faults = Faults(corrupt=0.3)
    sent = numbered(1_500)
    publish(wire, pub, sent)
    wire.run(5)
    stats = sub.engine.stats()
    assert sub.messages == sent
    assert stats["malformed_checksum"] > 300


# The source comes and goes.


def test_a_source_killed_and_started_again_twenty_times_is_never_spliced() -> None:
    """Each life has an identity of its own, as the sockets give it."""
    wire = Wire(seed=15)
    sub = wire.subscriber(peer_expiry=0.5)
    wire.lose = lambda sender, receiver, packet: wire.dice.random() < 0.02
    everything = []
    for life in range(20):
        pub = wire.publisher()
        pub.address = pub.engine.source._address = bytes((10, 77, 1, 1))  # type: ignore[union-attr]
        wire.run(0.05)
        sent = [b"%d/%d" % (life, n) for n in range(100)]
        publish(wire, pub, sent, pause_s=0.0005)
        everything += sent
        wire.run(0.1)
        wire.nodes.remove(pub)  # no FIN
        wire.run(0.2)
    wire.run(2)
    assert sub.messages == everything
    assert sum(isinstance(event, PeerJoined) for event in sub.events) == 20
    assert sum(isinstance(event, PeerLeft) for event in sub.events) == 20


def test_a_source_started_again_with_the_same_identity_is_never_spliced() -> None:
    wire = Wire(seed=16)
    sub = wire.subscriber()
    places: dict[bytes, tuple[int, int]] = {}
    for life in range(20):
        wire.dice.seed(1)  # the same TSI
        pub = wire.publisher()
        pub.address = pub.engine.source._address = bytes((10, 77, 1, 1))  # type: ignore[union-attr]
        wire.run(0.05)
        for n in range(50 + 7 * life % 31):
            message = b"%d/%d" % (life, n)
            places[message] = life, n
            wire.send(pub, message)
            wire.run(0.001)
        wire.run(0.05)
        wire.nodes.remove(pub)
        wire.run(0.3)
    assert sum(isinstance(event, PeerRestarted) for event in sub.events) == 19
    assert losses(sub) == []
    assert [places[message] for message in sub.messages] == sorted(places.values())  # type: ignore[index]


def test_a_clean_end_is_reported_after_the_last_message() -> None:
    wire = Wire(seed=17)
    pub, sub = wire.publisher(), wire.subscriber()
    wire.lose = loss(wire, 20)
    wire.run(1.5)
    sent = numbered(300)
    publish(wire, pub, sent)
    pub.engine.close(wire.now_ns)
    wire.run(4)
    assert sub.messages == sent
    assert isinstance(sub.stream[-1], PeerLeft)
    assert sub.stream[-1].reason == "finished"
    check_ledger(sub)


def test_a_late_joiner_gets_everything_from_its_first_packet_on() -> None:
    wire = Wire(seed=18)
    pub = wire.publisher()
    sent = numbered(1_000)
    publish(wire, pub, sent[:500])
    sub = wire.subscriber()
    publish(wire, pub, sent[500:])
    wire.run(1)
    assert sub.messages == sent[500:]
    assert losses(sub) == []


# Hostile packets beside an honest stream.


def mutated(packet: bytes, dice: Random) -> bytes:
    raw = bytearray(packet)
    for _ in range(dice.randint(1, 6)):
        raw[dice.randrange(len(raw))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    if dice.random() < 0.2:
        del raw[dice.randrange(len(raw)) :]
    if dice.random() < 0.2:
        raw += dice.randbytes(dice.randrange(40))
    return seal(bytes(raw)) if len(raw) > 8 and dice.random() < 0.9 else bytes(raw)


@pytest.mark.parametrize("seed", range(4))
def test_a_flood_of_mutated_packets_harms_neither_memory_nor_the_honest_stream(seed: int) -> None:
    """Mutations of another source's packets with good checksums, from a stranger's address."""
    wire = Wire(seed=seed)
    pub = wire.publisher()
    sub = wire.subscriber(max_peers=50, rxw_bytes=1 << 20)
    other = wire.publisher()
    dice = Random(seed)
    corpus = list(other.sent)
    wire.run(0.5)
    sent = numbered(300)
    stranger = bytes((10, 77, 0, 99))
    for message in sent:
        wire.send(pub, message)
        wire.send(other, b"other" + message)
        wire.run(0.0005)
        corpus = (corpus + other.sent[-3:] + sub.sent[-3:])[-200:]
        for _ in range(10):
            packet = mutated(dice.choice(corpus), dice)
            for node in (sub, pub, other):
                wire.deliver(node, stranger, packet, dice.random() < 0.5)
    wire.run(3)
    assert [m for m in sub.messages if m in set(sent)] == sent
    honest = receiver_of(sub)
    assert honest.address == pub.address
    assert sub.engine.stats()["peers"] <= 50
    for receiver in sub.engine._peers.values():
        assert receiver._slots.stored_bytes <= 1.25 * (1 << 20) + 2_000
        assert len(receiver._gaps) <= 4_096
    assert sub.engine.counters.malformed.total() > 100


@pytest.mark.parametrize("seed", range(4))
def test_a_flood_from_the_sources_own_address_ends_and_the_stream_goes_on(seed: int) -> None:
    """A forger who spoofs the source can break the stream; it must not crash, nor stay broken."""
    wire = Wire(seed=seed)
    pub, sub = wire.publisher(), wire.subscriber(rxw_bytes=1 << 20)
    dice = Random(seed)
    wire.run(0.5)
    for message in numbered(300):
        wire.send(pub, message)
        wire.run(0.001)
        for _ in range(5):
            wire.deliver(sub, pub.address, mutated(dice.choice(pub.sent[-100:]), dice))
        for receiver in sub.engine._peers.values():
            assert receiver._slots.stored_bytes <= 1.25 * (1 << 20) + 2_000
            assert len(receiver._gaps) <= 4_096
    wire.run(8)
    sub.messages.clear()
    sent = [b"after %d" % n for n in range(2_000)]
    publish(wire, pub, sent, pause_s=0.002)
    wire.run(6)
    assert sub.messages[-1:] == sent[-1:]
    tail = [message for message in sub.messages if message in set(sent)]
    assert tail[-500:] == sent[-500:]


def test_random_bytes_are_dropped_and_counted() -> None:
    wire = Wire(seed=19)
    pub, sub = wire.publisher(), wire.subscriber()
    dice = Random(19)
    for _ in range(2_000):
        packet = dice.randbytes(dice.randrange(120))
        for node in (pub, sub):
            wire.deliver(node, bytes((10, 77, 0, 99)), packet)
    for node in (pub, sub):
        assert node.engine.counters.malformed.total() == 2_000
    assert sub.stream == []


def forge(template: bytes, number: int) -> bytes:
    """The same packet of another source."""
    return seal(number.to_bytes(2, "big") + template[2:])


@pytest.mark.parametrize("times", [1, 2])
def test_a_thousand_forged_sources_stay_within_max_peers(times: int) -> None:
    wire = Wire(seed=20)
    pub, sub = wire.publisher(), wire.subscriber(max_peers=100)
    wire.run(0.1)
    wire.send(pub, b"honest")
    wire.run(0.1)
    template = next(packet for packet in pub.sent if packet[4] == 0x04)
    for n in range(1_000):
        for _ in range(times):
            wire.deliver(sub, bytes((10, 77, 0, 99)), forge(template, n))
    # Once each: a quarter of the table for those, and no more of them is followed.
    assert len(sub.engine._peers) == (26, 100)[times - 1]
    wire.send(pub, b"still here")
    wire.run(0.1)
    assert sub.messages[0] == b"honest"
    assert sub.messages[-1] == b"still here"
    counters = sub.engine.counters
    assert counters.peers_refused == (975, 1802)[times - 1]
    assert counters.peers_expelled == 0


def test_an_honest_source_finds_a_place_among_forged_ones() -> None:
    wire = Wire(seed=22)
    sub = wire.subscriber(max_peers=100)
    pub = wire.publisher()
    wire.send(pub, b"before")
    wire.run(0.5)
    template = next(packet for packet in pub.sent if packet[4] == 0x04)
    stranger = bytes((10, 77, 0, 99))
    # Heard once each, however many: they hold no place.
    for n in range(2_000):
        wire.deliver(sub, stranger, forge(template, n))
    second = wire.publisher()
    wire.run(0.2)
    wire.send(second, b"a newcomer")
    wire.run(0.2)
    assert sub.messages[-1] == b"a newcomer"
    # Heard twice each, they fill the table; once they have been silent for long they give way.
    for n in range(200):
        wire.deliver(sub, stranger, forge(template, n))
        wire.deliver(sub, stranger, forge(template, n))
    third = wire.publisher()
    wire.run(0.2)
    wire.send(third, b"too many")
    wire.run(0.2)
    assert b"too many" not in sub.messages
    wire.run(8.0)
    wire.send(third, b"a place at last")
    wire.send(pub, b"never expelled")
    wire.run(0.2)
    assert sub.messages[-2:] == [b"a place at last", b"never expelled"]
    left = {event.tsi for event in sub.events if isinstance(event, PeerLeft)}
    assert not left & {sub.engine.name_of(node.engine.source.tsi) for node in (pub, second)}  # type: ignore[union-attr]
    assert sub.engine.counters.peers_expelled > 0


def test_a_source_that_was_expelled_says_so_and_may_come_back() -> None:
    wire = Wire(seed=23)
    pub, sub = wire.publisher(), wire.subscriber(max_peers=4)
    wire.send(pub, b"template")
    template = next(packet for packet in pub.sent if packet[4] == 0x04)
    wire.nodes.remove(pub)
    stranger = bytes((10, 77, 0, 99))
    # The first is heard once, the others twice, until there is no place left.
    for n in (0, 1, 1, 2, 2, 3, 3, 4):
        wire.deliver(sub, stranger, forge(template, n))
    assert not any(isinstance(event, PeerLeft) for event in sub.events)
    wire.deliver(sub, stranger, forge(template, 4))
    ends = [event for event in sub.events if isinstance(event, PeerLeft)]
    assert [(each.reason, each.tail_unknown) for each in ends] == [("expired", True)]
    assert sub.engine.counters.peers_expelled == 1


def test_what_is_remembered_of_sources_heard_once_is_limited() -> None:
    wire = Wire(seed=24)
    pub, sub = wire.publisher(), wire.subscriber()
    wire.send(pub, b"template")
    template = next(packet for packet in pub.sent if packet[4] == 0x04)
    stranger = bytes((10, 77, 0, 99))
    for n in range(6_000):
        wire.deliver(sub, stranger, forge(template, n))
    assert len(sub.engine._glimpsed) == 4_096
    assert len(sub.engine._peers) <= 257


def test_the_ledger_check_finds_a_planted_hole() -> None:
    wire = Wire(seed=21)
    pub, sub = wire.publisher(), wire.subscriber()
    wire.run(0.1)
    publish(wire, pub, numbered(20), pause_s=0.001)
    check_ledger(sub)
    at = next(n for n, item in enumerate(sub.stream) if isinstance(item, Messages))
    hole: list[Messages | Event] = sub.stream[: at + 1] + sub.stream[at + 2 :]
    sub.stream[:] = hole
    with pytest.raises(AssertionError):
        check_ledger(sub)


def test_what_is_sent_is_always_well_formed() -> None:
    wire = Wire(seed=22)
    pub = wire.publisher()
    subs = [wire.subscriber() for _ in range(2)]
    wire.lose = loss(wire, 10, 10)
    wire.run(1)
    publish(wire, pub, numbered(500, 100))
    pub.engine.close(wire.now_ns)
    wire.run(3)
    numbers = []
    for packet in pub.sent + [packet for sub in subs for packet in sub.sent]:
        parsed = parse_untrusted(packet)
        if parsed.header.type == 0x04:
            numbers.append(extend(parsed.body.sqn, 0))  # type: ignore[union-attr]
    assert numbers == list(range(len(numbers)))
