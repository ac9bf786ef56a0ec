"""A source whose data may leave by a ``SendGate``: who sends what is left behind, and when."""

from __future__ import annotations

from typing import Any

import pytest

from mcast.kernel import SendSchedule, TransmitSlots
from mcast.options import PROFILES
from mcast.pgm.packet import ODATA, RDATA
from mcast.pgm.source import Source
from tests.unit.pgm.ends import MS, Publisher, publisher, subscriber

NEVER = 1 << 62
COALESCE_NS = 50_000
HEARTBEAT_NS = PROFILES["lan"].spm_heartbeat_ivls_ns[0]


class Baton:
    """Attends to a schedule or not, as a loop thread would; ``then`` happens meanwhile."""

    def __init__(self, attends: bool = True) -> None:
        self.attends = attends
        self.asked_count = 0
        self.then = lambda: None

    def attend(self, schedule: SendSchedule) -> bool:
        self.asked_count += 1
        self.then()
        return self.attends


def with_gate(
    baton: Baton | None = None, attend_ivl_ns: int | None = None, **options: object
) -> tuple[Publisher, Source, TransmitSlots, SendSchedule]:
    pub = publisher(**options)
    source = pub.engine.source
    assert source is not None
    as_baton: Any = baton
    slots, schedule = source.open_gate(as_baton, attend_ivl_ns)
    return pub, source, slots, schedule


def sent_count(pub: Publisher) -> int:
    return len(pub.sent(ODATA))


def test_what_the_gate_leaves_behind_is_sent_when_its_time_has_come() -> None:
    pub, source, slots, _ = with_gate()
    pub.send(b"first")  # lone, so at once
    slots.append((b"second",))  # by the gate
    source.tend(pub.now_ns)
    pub.drain()
    assert sent_count(pub) == 1
    assert pub.engine.next_timeout_ns == pub.engine.next_alarm_ns == pub.now_ns + COALESCE_NS
    pub.run(COALESCE_NS / 1e9)
    assert sent_count(pub) == 2


def test_a_full_run_that_the_gate_left_behind_leaves_at_once() -> None:
    pub, source, slots, _ = with_gate()
    pub.send(b"first")
    for _ in range(44):
        slots.append((bytes(1400),))
        slots.seal()
    source.tend(pub.now_ns)
    pub.drain()
    assert sent_count(pub) == 45


def test_a_baton_that_attends_spares_the_loop_the_alarm() -> None:
    baton = Baton()
    pub, source, slots, schedule = with_gate(baton)
    pub.send(b"first")
    slots.append((b"second",))
    source.tend(pub.now_ns)
    assert baton.asked_count == 1
    assert pub.engine.next_timeout_ns == pub.now_ns + COALESCE_NS
    assert pub.engine.next_alarm_ns == pub.now_ns + HEARTBEAT_NS
    source.close_gate()
    assert pub.engine.next_alarm_ns <= pub.now_ns + COALESCE_NS
    assert schedule.open_until_ns <= pub.now_ns


def test_a_baton_that_does_not_attend_is_asked_again_and_the_alarm_stays() -> None:
    baton = Baton(attends=False)
    pub, source, slots, schedule = with_gate(baton)
    pub.send(b"first")
    slots.append((b"second",))
    source.tend(pub.now_ns)
    assert baton.asked_count == 2
    assert pub.engine.next_alarm_ns == pub.now_ns + COALESCE_NS
    assert schedule.is_watched


def test_the_gate_is_open_until_the_next_heartbeat_or_the_loop_wants_a_look() -> None:
    pub, _, _, schedule = with_gate(Baton())
    pub.send(b"first")
    assert schedule.open_until_ns == pub.now_ns + HEARTBEAT_NS
    pub, _, _, schedule = with_gate(Baton(), attend_ivl_ns=5 * MS)
    pub.send(b"first")
    assert schedule.open_until_ns == pub.now_ns + 5 * MS


def test_a_gate_that_is_closed_while_it_is_opened_stays_closed() -> None:
    baton = Baton()
    pub, source, _, schedule = with_gate(baton)
    baton.then = source.close_gate
    pub.send(b"first")
    assert schedule.open_until_ns <= pub.now_ns
    assert not source._is_attended


def test_an_alarm_for_what_the_gate_has_sent_since_sends_nothing() -> None:
    pub, source, slots, schedule = with_gate()
    pub.send(b"first")
    slots.append((b"second",))
    source.tend(pub.now_ns)
    slots.seal()  # the gate had more, and sent it all
    assert schedule.take_run(pub.now_ns) is not None
    schedule.wait(armed=True)
    pub.now_ns += COALESCE_NS
    pub.engine.handle_timeout(pub.now_ns)
    pub.drain()
    assert sent_count(pub) == 1
    assert pub.engine.next_timeout_ns > pub.now_ns + COALESCE_NS
    assert pub.stats["odata_sent"] == 2


def test_room_is_told_for_packets_and_for_messages_of_a_size() -> None:
    pub = publisher(rate=1e4, txw_bytes=1 << 16)
    source = pub.engine.source
    assert source is not None
    assert source.has_slots
    assert source.has_slack
    assert source.has_slots_for(source.max_stream_bytes)
    while source.has_slots_for(1426):
        assert source.has_slots
        pub.send(bytes(1416))  # a full packet, with its head
    assert source.has_slots_for(0)
    assert not source.has_slots
    assert not source.has_slack


def test_a_burst_that_has_grown_meanwhile_lets_data_leave_before_the_portion_was_due() -> None:
    pub = publisher(rate=8e6)
    source = pub.engine.source
    assert source is not None
    for _ in range(100):
        pub.send(bytes(1400))
    waiting, before = source.unsent_message_count, sent_count(pub)
    assert waiting
    source._bucket.set_rate(8e6, 1 << 20)
    pub.now_ns += 1000
    pub.send(bytes(1400))
    source.flush(pub.now_ns)
    pub.drain()
    assert sent_count(pub) > before
    assert source.unsent_message_count == 0


def test_many_single_repairs_are_sent_over_several_turns() -> None:
    pub = publisher(rate=1e12, multicast_maxtpdu=128)
    for _ in range(2400):
        pub.send_apart(b"m")
    pub.forget()
    source = pub.engine.source
    assert source is not None
    for first in range(0, 2400, 126):
        sqns = range(first, min(first + 126, 2400), 2)  # no two in a row
        source._repairs.ask(sqns, pub.now_ns)
    source._emit_repairs(pub.now_ns)
    pub.drain()
    assert len(pub.sent(RDATA)) == 16 * 44
    pub.run(0.001)
    assert len(pub.sent(RDATA)) == 1200


@pytest.mark.parametrize("size", [0, 1])
def test_an_engine_without_a_source_has_nothing_to_flush_or_close(size: int) -> None:
    sub = subscriber()
    sub.engine.flush(sub.now_ns)
    sub.engine.close(sub.now_ns)
    assert sub.engine.take_transmits() == []
    assert sub.engine.next_alarm_ns == sub.engine.next_timeout_ns == NEVER
    sub.hear(bytes(size))
    assert sub.stats["malformed_truncated"] == 1
