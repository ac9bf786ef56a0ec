"""Packets that are overtaken are waited for as long as others took; those that are lost are not."""

from __future__ import annotations

import pytest

from mcast.pgm.lateness import LIMIT_NS, Lateness
from mcast.pgm.packet import NAK
from tests.unit.pgm.ends import MS, T0, End, subscriber
from tests.unit.pgm.packets import odata, rdata, spm

SECOND = 1000 * MS


def learned(*late_ms: float, repaired: int = 0) -> Lateness:
    lateness = Lateness()
    for _ in range(repaired):
        lateness.note_repaired()
    for late in late_ms:
        lateness.note_late(T0, int(late * MS))
    return lateness


def test_nothing_is_waited_for_where_nothing_is_late() -> None:
    assert learned(repaired=100).wait_ns(T0) == 0


def test_two_late_packets_are_chance_and_three_are_not() -> None:
    assert learned(20, 20).wait_ns(T0) == 0
    assert learned(20, 20, 20).wait_ns(T0) == 25 * MS


def test_the_wait_is_a_quarter_more_than_the_latest() -> None:
    assert learned(4, 40, 8).wait_ns(T0) == 50 * MS


def test_one_in_thirty_two_may_be_later_than_what_is_waited_for() -> None:
    assert learned(*[4] * 31, 100).wait_ns(T0) == 5 * MS
    assert learned(*[4] * 30, 100).wait_ns(T0) == 125 * MS


def test_where_three_of_four_are_lost_nothing_is_waited_for() -> None:
    assert learned(*[20] * 10, repaired=31).wait_ns(T0) == 0
    assert learned(*[20] * 10, repaired=30).wait_ns(T0) == 25 * MS


def test_losses_that_follow_end_the_wait() -> None:
    lateness = learned(20, 20, 20)
    for _ in range(10):
        lateness.note_repaired()
    assert lateness.wait_ns(T0) == 0


@pytest.mark.parametrize("late_ns", [LIMIT_NS, 1 << 60])
def test_however_late_a_packet_claims_to_be_the_wait_has_a_limit(late_ns: int) -> None:
    lateness = Lateness()
    for _ in range(1_000):
        lateness.note_late(T0, late_ns)
    assert lateness.wait_ns(T0) == LIMIT_NS


def test_a_short_deadline_makes_the_limit_less() -> None:
    lateness = Lateness(30 * MS)
    for _ in range(3):
        lateness.note_late(T0, SECOND)
    assert lateness.wait_ns(T0) == 30 * MS


def test_ten_seconds_later_it_is_forgotten() -> None:
    lateness = learned(20, 20, 20)
    assert lateness.wait_ns(T0 + 10 * SECOND) == 25 * MS
    assert lateness.wait_ns(T0 + 10 * SECOND + 1) == 0
    lateness.note_late(T0 + 11 * SECOND, 20 * MS)
    assert lateness.wait_ns(T0 + 11 * SECOND) == 0


def test_what_was_forgotten_unasked_does_not_count_either() -> None:
    lateness = learned(20, 20, 20)
    lateness.note_late(T0 + 11 * SECOND, 40 * MS)
    assert lateness.wait_ns(T0 + 11 * SECOND) == 0


# Through an engine.


def joined() -> End:
    sub = subscriber()
    sub.hear(spm(0, 0, -1))
    return sub


def overtake(sub: End, first: int, late_s: float, *, repaired_s: float | None = None) -> int:
    """Packet ``first`` comes late, and others meanwhile; the next number."""
    sub.hear(odata(first + 1, "b", trail=0))
    if repaired_s is not None:
        sub.run(repaired_s)
        sub.hear(rdata(first, "a", trail=0))
        late_s -= repaired_s
    sub.run(late_s)
    sub.hear(odata(first, "a", trail=0))
    return first + 2


def asked_after_s(sub: End, sqn: int) -> float:
    """How long after the loss of ``sqn`` it is asked for."""
    sub.forget()
    sub.hear(odata(sqn + 1, "b", trail=0))
    missed_ns = sub.now_ns - T0
    sub.run(0.5)
    return (sub.sent(NAK)[0][0] - missed_ns) / 1e9


def test_a_loss_among_late_packets_is_asked_for_when_those_would_have_come() -> None:
    sub = joined()
    sqn = 0
    for _ in range(4):
        sqn = overtake(sub, sqn, 0.06)
    assert 0.075 <= asked_after_s(sub, sqn) <= 0.085 + 0.001


def test_data_that_comes_behind_its_own_repair_was_late_as_well() -> None:
    sub = joined()
    sqn = 0
    for _ in range(4):
        sqn = overtake(sub, sqn, 0.06, repaired_s=0.03)
    assert sub.stats["duplicates"] == 4
    assert 0.075 <= asked_after_s(sub, sqn) <= 0.085 + 0.001


def test_repairs_and_copies_are_not_late() -> None:
    sub = joined()
    for sqn in range(0, 16, 2):
        sub.hear(*[odata(sqn + 1, "b", trail=0)] * 2)
        sub.run(0.03)
        sub.hear(*[rdata(sqn, "a", trail=0)] * 2)
        sub.run(0.03)
        sub.hear(rdata(sqn, "a", trail=0))
    assert asked_after_s(sub, 16) <= 0.011


def test_late_packets_cost_no_nak_once_it_is_known_how_late_they_are() -> None:
    sub = joined()
    sqn = 0
    for _ in range(6):
        sqn = overtake(sub, sqn, 0.06)
    sub.forget()
    for _ in range(50):
        sqn = overtake(sub, sqn, 0.06)
    assert sub.sent(NAK) == []
