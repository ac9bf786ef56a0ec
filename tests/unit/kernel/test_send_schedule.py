"""The schedule of a transmit window: when what was packed leaves, and until when more may come."""

from __future__ import annotations

from math import inf

import pytest

from mcast.kernel import SendSchedule, TokenBucket, TransmitSlots

MS = 1_000_000
NEVER = 1 << 62
TSDU_BYTES = 100
COST_BYTES = 24 + TSDU_BYTES + 28  # of a full packet, with UDP and IP


def made(rate: float = inf) -> tuple[TransmitSlots, SendSchedule]:
    slots = TransmitSlots(b"12345678", 5555, TSDU_BYTES, 64)
    bucket = TokenBucket(rate, 4 * COST_BYTES)
    schedule = SendSchedule(
        slots, bucket, coalesce_ns=10 * MS, quantum_bytes=2 * COST_BYTES, run_packets=4
    )
    return slots, schedule


def fill(slots: TransmitSlots, packet_count: int) -> None:
    for _ in range(packet_count):
        assert slots.append((bytes(TSDU_BYTES - 4),))


def test_nothing_is_due_while_nothing_waits() -> None:
    _, schedule = made()
    assert schedule.take_run(MS) is None
    schedule.wait(armed=True)
    assert (schedule.due_ns, schedule.armed_until_ns) == (NEVER, 0)


@pytest.mark.parametrize("armed", [False, True])
def test_what_waits_is_due_when_the_time_for_others_to_join_is_over(armed: bool) -> None:
    slots, schedule = made()
    fill(slots, 1)
    assert schedule.take_run(MS) is not None
    assert slots.append((b"more",))
    schedule.wait(armed=armed)
    assert schedule.due_ns == 11 * MS
    assert schedule.armed_until_ns == (11 * MS if armed else 0)
    if armed:
        assert schedule.armed_below == slots.unsent + schedule.run_packets


def test_what_the_rate_holds_up_is_due_when_it_allows_and_may_fill_half_the_window() -> None:
    slots, schedule = made(rate=8 * COST_BYTES * 10)  # ten packets a second
    fill(slots, 8)
    sent = 0
    while schedule.take_run(MS) is not None:
        sent = slots.unsent
    assert 4 <= sent < 8
    schedule.wait(armed=True)
    assert schedule.due_ns == schedule.bucket.ready_at_ns(schedule.quantum_bytes) > 100 * MS
    assert schedule.armed_until_ns == schedule.due_ns
    assert schedule.armed_below == slots.unsent + slots.unsent_limit
    assert schedule.take_run(schedule.due_ns) is not None
