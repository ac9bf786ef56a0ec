"""The NAK state machine: each arrow of its table, its timers, its limits, and a model check."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcast.events import LossReason
from mcast.kernel import FrameDecoder, ReceiveSlots, TopicFilter
from mcast.options import PROFILES, Timers
from mcast.pgm.nak import GAP_LIMIT, REQUEST_LIMIT, Gap, GapList, GapState, NakBudget

MS = 1_000_000
LAN = PROFILES["lan"]
NEVER = 1 << 62
T0 = 5_000 * MS


class Gaps(GapList):
    """A gap list with a window of its own, whose packets come as the test says."""

    def __init__(self, timers: Timers, dice: Random) -> None:
        decoder = FrameDecoder(TopicFilter(), 1000, 1)
        self.window = ReceiveSlots(bytes(8), 5555, decoder, 0)
        super().__init__(self.window, timers, dice)

    def open(self, first: int, last: int, now_ns: int) -> None:
        for sqn in range(self.window.lead + 1, first):
            self.come(sqn)
        self.window.reach(last)
        super().open(first, last, now_ns)

    def come(self, sqn: int) -> None:
        """One packet, which may have been missing."""
        self.window.store(sqn, bytes(26))
        self.window.release([], 1)

    def fill(self, sqn: int) -> bool:
        """The same; whether it was missing."""
        was_missing = self.window.missing_count(sqn, sqn) > 0
        if was_missing:
            self.come(sqn)
        assert sum(count for _, count in self.settle(T0)) == was_missing
        return was_missing

    def numbers(self, gap: Gap) -> list[int]:
        return self.window.missing(gap.first, gap.last, 1 << 20)


def gap_list(timers: Timers = LAN, seed: int = 1) -> Gaps:
    return Gaps(timers, Random(seed))


def shape(gaps: Gaps) -> list[tuple[int, int, GapState]]:
    """What is missing in each, from and to, and its state."""
    return [(min(gaps.numbers(gap)), max(gaps.numbers(gap)), gap.state) for gap in gaps]


def in_state(state: GapState) -> tuple[Gaps, int]:
    """A list whose one gap, 10 to 12, has got to ``state``; and the time."""
    gaps = gap_list()
    gaps.open(10, 12, T0)
    now_ns = T0
    if state is not GapState.BACK_OFF:
        now_ns = gaps.next_timeout_ns
        assert gaps.take_due(now_ns) == ([10, 11, 12], False)
    if state is GapState.WAIT_DATA:
        gaps.confirm([10, 11, 12], now_ns)
    assert shape(gaps) == [(10, 12, state)]
    return gaps, now_ns


# The arrows.


def test_a_new_gap_backs_off_for_a_random_time_within_the_interval() -> None:
    gaps, _ = in_state(GapState.BACK_OFF)
    assert T0 < gaps.next_timeout_ns <= T0 + LAN.nak_bo_ivl_ns


def test_nothing_is_asked_for_before_the_back_off_is_over() -> None:
    gaps, _ = in_state(GapState.BACK_OFF)
    assert gaps.take_due(gaps.next_timeout_ns - 2 * MS) == ([], False)
    assert shape(gaps) == [(10, 12, GapState.BACK_OFF)]


def test_back_off_ends_with_a_nak_and_the_wait_for_its_ncf() -> None:
    gaps, now_ns = in_state(GapState.WAIT_NCF)
    assert gaps.next_timeout_ns == now_ns + LAN.nak_rpt_ivl_ns


def test_an_ncf_during_back_off_suppresses_the_nak() -> None:
    gaps, _ = in_state(GapState.BACK_OFF)
    gaps.confirm([10, 11, 12], T0 + 1)
    assert shape(gaps) == [(10, 12, GapState.WAIT_DATA)]
    assert gaps.take_due(T0 + LAN.nak_bo_ivl_ns) == ([], False)


def test_another_receivers_nak_during_back_off_does_for_ours() -> None:
    gaps, _ = in_state(GapState.BACK_OFF)
    gaps.suppress([10, 11, 12], T0 + 1)
    assert shape(gaps) == [(10, 12, GapState.WAIT_NCF)]
    assert gaps.take_due(T0 + LAN.nak_bo_ivl_ns) == ([], False)


def test_an_ncf_ends_the_wait_for_it() -> None:
    gaps, now_ns = in_state(GapState.WAIT_NCF)
    gaps.confirm([10, 11, 12], now_ns + 1)
    assert shape(gaps) == [(10, 12, GapState.WAIT_DATA)]
    gaps.take_due(now_ns + LAN.nak_rpt_ivl_ns)  # the old timer does nothing
    assert gaps.next_timeout_ns == now_ns + 1 + LAN.nak_rdata_ivl_ns


def test_without_an_ncf_the_nak_is_repeated_after_a_new_back_off() -> None:
    gaps, now_ns = in_state(GapState.WAIT_NCF)
    now_ns += LAN.nak_rpt_ivl_ns
    assert gaps.take_due(now_ns) == ([], False)
    assert shape(gaps) == [(10, 12, GapState.BACK_OFF)]
    assert now_ns < gaps.next_timeout_ns <= now_ns + LAN.nak_bo_ivl_ns
    assert gaps.take_due(gaps.next_timeout_ns) == ([10, 11, 12], True)


def test_without_data_the_nak_is_repeated_and_does_not_count_as_unanswered() -> None:
    gaps, now_ns = in_state(GapState.WAIT_DATA)
    gaps.take_due(now_ns + LAN.nak_rdata_ivl_ns)
    assert shape(gaps) == [(10, 12, GapState.BACK_OFF)]
    assert gaps.take_due(gaps.next_timeout_ns) == ([10, 11, 12], False)


@pytest.mark.parametrize("state", [GapState.BACK_OFF, GapState.WAIT_NCF, GapState.WAIT_DATA])
def test_data_ends_a_gap_in_any_state(state: GapState) -> None:
    gaps, _ = in_state(state)
    for sqn in (10, 11, 12):
        assert gaps.fill(sqn)
    assert shape(gaps) == []
    assert not gaps.fill(11)


@pytest.mark.parametrize("state", [GapState.BACK_OFF, GapState.WAIT_NCF, GapState.WAIT_DATA])
def test_the_trail_ends_a_gap_in_any_state(state: GapState) -> None:
    gaps, _ = in_state(state)
    assert gaps.take_lost() is None
    gaps.lose_below(13, LossReason.WINDOW_ADVANCED)
    assert shape(gaps) == [(10, 12, GapState.LOST)]
    assert gaps.take_lost() == (10, 12, LossReason.WINDOW_ADVANCED)
    assert shape(gaps) == []


def test_the_trail_takes_nothing_of_a_gap_whose_numbers_below_it_have_come() -> None:
    gaps = gap_list()
    gaps.open(10, 10, T0)
    gaps.open(12, 14, T0 + 50 * MS)
    gaps.come(12)
    gaps.lose_below(13, LossReason.WINDOW_ADVANCED)
    assert shape(gaps) == [(10, 10, GapState.LOST), (13, 14, GapState.BACK_OFF)]
    assert gaps.take_lost() == (10, 10, LossReason.WINDOW_ADVANCED)


def test_the_trail_takes_only_what_is_below_it() -> None:
    gaps, _ = in_state(GapState.BACK_OFF)
    gaps.lose_below(11, LossReason.WINDOW_ADVANCED)
    assert shape(gaps) == [(10, 10, GapState.LOST), (11, 12, GapState.BACK_OFF)]
    gaps.lose_below(11, LossReason.SOURCE_GONE)  # what is lost keeps its reason
    assert next(iter(gaps)).reason is LossReason.WINDOW_ADVANCED


@pytest.mark.parametrize("state", [GapState.BACK_OFF, GapState.WAIT_NCF, GapState.WAIT_DATA])
def test_the_deadline_ends_a_gap_in_any_state(state: GapState) -> None:
    gaps, _ = in_state(state)
    assert gaps.take_due(T0 + LAN.repair_deadline_ns) == ([], False)
    assert shape(gaps) == [(10, 12, GapState.LOST)]
    assert gaps.take_lost() == (10, 12, LossReason.REPAIR_DEADLINE)
    assert shape(gaps) == []


@pytest.mark.parametrize("answered", [False, True])
def test_a_gap_is_lost_when_the_retries_are_used_up(answered: bool) -> None:
    retries = 5
    gaps = gap_list(replace(LAN, nak_ncf_retries=retries, nak_data_retries=retries))
    gaps.open(10, 10, T0)
    nak_count = 0
    while gaps.next_timeout_ns < NEVER:
        now_ns = gaps.next_timeout_ns
        asked, _ = gaps.take_due(now_ns)
        nak_count += len(asked)
        if asked and answered:
            gaps.confirm(asked, now_ns)
    assert nak_count == retries + 1
    assert shape(gaps) == [(10, 10, GapState.LOST)]


def test_time_given_early_late_or_twice_does_no_harm() -> None:
    gaps, now_ns = in_state(GapState.WAIT_NCF)
    assert gaps.take_due(T0) == ([], False)
    assert gaps.take_due(now_ns) == ([], False)
    late_ns = now_ns + LAN.nak_rpt_ivl_ns * 3
    assert gaps.take_due(late_ns) == ([], False)
    assert gaps.take_due(late_ns) == ([], False)
    assert shape(gaps) == [(10, 12, GapState.BACK_OFF)]


# Parts of gaps.


def test_a_gap_keeps_its_timer_when_its_middle_comes() -> None:
    gaps, now_ns = in_state(GapState.WAIT_NCF)
    assert gaps.fill(11)
    assert shape(gaps) == [(10, 12, GapState.WAIT_NCF)]
    assert gaps.next_timeout_ns == now_ns + LAN.nak_rpt_ivl_ns
    now_ns += LAN.nak_rpt_ivl_ns
    gaps.take_due(now_ns)
    assert gaps.take_due(gaps.next_timeout_ns)[0] == [10, 12]


def test_an_ncf_that_names_all_that_is_missing_of_a_gap_does_not_split_it() -> None:
    gaps = gap_list()
    gaps.open(10, 10, T0)
    gaps.open(20, 21, T0)
    gaps.open(30, 30, T0)
    gaps.confirm([10, 20, 21, 30], T0)
    assert shape(gaps) == [(10, 30, GapState.WAIT_DATA)]


def test_an_ncf_for_a_part_leaves_the_rest_as_it_was() -> None:
    gaps = gap_list()
    gaps.open(10, 19, T0)
    gaps.confirm([9, 12, 13, 17, 25], T0)
    assert shape(gaps) == [
        (10, 11, GapState.BACK_OFF),
        (12, 13, GapState.WAIT_DATA),
        (14, 16, GapState.BACK_OFF),
        (17, 17, GapState.WAIT_DATA),
        (18, 19, GapState.BACK_OFF),
    ]
    now_ns = gaps.next_timeout_ns
    assert gaps.take_due(now_ns)[0] == [10, 11, 14, 15, 16, 18, 19]


def test_what_is_discovered_packet_by_packet_at_once_is_one_gap() -> None:
    gaps = gap_list()
    gaps.open(10, 10, T0)
    gaps.open(11, 14, T0 + 100)
    gaps.open(15, 15, T0 + 10 * MS)  # another discovery, with a back-off of its own
    assert shape(gaps) == [(10, 14, GapState.BACK_OFF), (15, 15, GapState.BACK_OFF)]


def test_what_is_missed_at_about_the_same_time_is_one_gap_whatever_came_between() -> None:
    gaps = gap_list()
    gaps.open(10, 12, T0)
    gaps.open(20, 21, T0 + 1000)
    assert shape(gaps) == [(10, 21, GapState.BACK_OFF)]
    assert gaps.take_due(T0 + 20 * MS)[0] == [10, 11, 12, 20, 21]


def test_what_has_come_is_told_by_when_it_was_missed() -> None:
    gaps = gap_list()
    gaps.open(10, 12, T0)
    gaps.open(20, 21, T0 + 10 * MS)
    for sqn in (10, 11, 20):
        gaps.come(sqn)
    assert gaps.settle(T0) == [(T0, 2), (T0 + 10 * MS, 1)]
    assert gaps.settle(T0) == []
    assert shape(gaps) == [(12, 12, GapState.BACK_OFF), (21, 21, GapState.BACK_OFF)]


def test_each_number_of_a_gap_is_known_by_when_it_was_missed_and_no_other() -> None:
    gaps = gap_list()
    gaps.open(10, 12, T0)
    gaps.open(20, 21, T0 + 10 * MS)
    times_ns = {10: T0, 11: T0, 12: T0, 20: T0 + 10 * MS, 21: T0 + 10 * MS}
    assert [gaps.missed_ns(sqn) for sqn in range(8, 24)] == [times_ns.get(n) for n in range(8, 24)]
    for sqn in times_ns:  # and when they are filled
        assert gaps.fill(sqn)
    assert len(gaps) == 0
    assert [gaps.missed_ns(sqn) for sqn in range(8, 24)] == [times_ns.get(n) for n in range(8, 24)]
    assert (gaps.window.mended_first, gaps.window.mended_last) == (10, 21)


def test_what_is_asked_again_is_told_whatever_is_asked_for_the_first_time_behind_it() -> None:
    gaps, now_ns = in_state(GapState.WAIT_NCF)
    for _ in range(3):
        gaps.take_due(now_ns + LAN.nak_rpt_ivl_ns)
        now_ns = gaps.next_timeout_ns
        assert gaps.take_due(now_ns) == ([10, 11, 12], True)
        assert not gaps.asked_unheard
    gaps.take_due(now_ns + LAN.nak_rpt_ivl_ns)
    now_ns = gaps.next_timeout_ns
    gaps.open(20, 20, now_ns)
    now_ns += LAN.nak_bo_ivl_ns
    assert gaps.take_due(now_ns) == ([10, 11, 12, 20], True)
    assert gaps.asked_unheard


def test_what_was_confirmed_and_not_sent_is_told_whatever_is_asked_for_behind_it() -> None:
    gaps, now_ns = in_state(GapState.WAIT_DATA)
    now_ns += LAN.nak_rdata_ivl_ns
    gaps.take_due(now_ns)
    gaps.open(20, 20, now_ns + 10)
    assert gaps.take_due(now_ns + LAN.nak_bo_ivl_ns + 10) == ([10, 11, 12, 20], False)
    assert gaps.asked_unserved


def test_one_hole_that_was_lost_piece_by_piece_is_one_loss() -> None:
    gaps = gap_list()
    gaps.open(10, 14, T0)
    gaps.open(15, 19, T0 + 10 * MS)
    gaps.open(25, 25, T0 + 20 * MS)
    gaps.lose_below(12, LossReason.WINDOW_ADVANCED)
    gaps.lose_below(30, LossReason.WINDOW_ADVANCED)
    assert gaps.take_lost() == (10, 19, LossReason.WINDOW_ADVANCED)
    gaps.window.skip_to(20)
    assert gaps.take_lost() == (25, 25, LossReason.WINDOW_ADVANCED)
    assert len(gaps) == 0


def test_timers_close_to_each_other_are_served_together() -> None:
    gaps = gap_list(seed=4)
    for number in range(40):  # some of their dice fall within a millisecond behind the first
        gaps.open(20 + 2 * number, 20 + 2 * number, T0 + number * (MS + 1))
    first_ns = gaps.next_timeout_ns
    due = [gap.expiry_ns for gap in gaps if gap.expiry_ns <= first_ns + MS]
    asked, _ = gaps.take_due(first_ns)
    assert len(asked) == len(due) > 1
    assert asked == sorted(asked)


def test_the_oldest_are_asked_for_first() -> None:
    gaps = gap_list()
    for first in range(0, 1000, 10):
        gaps.open(first, first + 4, T0)
    asked, _ = gaps.take_due(T0 + LAN.nak_bo_ivl_ns)
    assert asked == sorted(asked)
    assert len(asked) == 500


def test_no_request_leaves_before_the_hold_is_over() -> None:
    gaps, _ = in_state(GapState.BACK_OFF)
    gaps.hold(T0 + 100 * MS)
    assert gaps.take_due(T0 + 50 * MS) == ([], False)
    assert gaps.take_due(T0 + 100 * MS) == ([10, 11, 12], False)


# The back-off.


def back_offs_ms(timers: Timers, count: int = 20_000) -> list[float]:
    waits = []
    gaps = gap_list(timers, seed=42)
    for number in range(count):
        now_ns = number * 2 * MS
        gaps.open(2 * number, 2 * number, now_ns)
        gap = next(iter(gaps))
        waits.append((gap.expiry_ns - now_ns) / MS)
        gaps.fill(gap.first)
    return waits


def test_a_group_of_one_backs_off_uniformly() -> None:
    waits = back_offs_ms(PROFILES["libzmq"])
    assert 0 < min(waits) < max(waits) <= 50
    for percent in range(10, 100, 10):
        below = sum(wait <= percent / 100 * 50 for wait in waits) / len(waits)
        assert below == pytest.approx(percent / 100, abs=0.015)


@pytest.mark.parametrize("group_size", [2, 10, 1000])
def test_a_larger_group_backs_off_by_the_truncated_exponential(group_size: int) -> None:
    waits = back_offs_ms(replace(LAN, nak_group_size=group_size))
    assert 0 < min(waits) < max(waits) <= 10
    # RFC 5401: P(t <= x T) = (e^(x L) - 1) / (e^L - 1) with L = ln(G) + 1.
    shape_ = log(group_size) + 1
    for tenth in range(1, 10):
        below = sum(wait <= tenth for wait in waits) / len(waits)
        wanted = (exp(shape_ * tenth / 10) - 1) / (exp(shape_) - 1)
        assert below == pytest.approx(wanted, abs=0.015)


def test_the_shape_saves_naks_where_many_lose_the_same_packet() -> None:
    """The purpose of it: how many of 100 receivers ask before the first one's NCF is there."""

    def naks(group_size: int) -> float:
        timers = replace(LAN, nak_bo_ivl_ns=50 * MS, nak_group_size=group_size)
        waits = back_offs_ms(timers, 100 * 200)
        losses = [sorted(waits[start : start + 100]) for start in range(0, len(waits), 100)]
        return sum(sum(w <= loss[0] + 1 for w in loss) for loss in losses) / len(losses)

    assert naks(1000) < 1.5 < 2.5 < naks(1)


def test_a_source_may_ask_for_another_back_off() -> None:
    gaps = gap_list()
    gaps.backoff_ivl_ns = 200 * MS
    gaps.open(1, 1, T0)
    gaps.open(3, 3, T0 + 2 * MS)
    gaps.open(5, 5, T0 + 4 * MS)
    assert max(gap.expiry_ns for gap in gaps) > T0 + LAN.nak_bo_ivl_ns


# Forgery.


def test_forged_confirmations_delay_a_request_but_do_not_prevent_it() -> None:
    gaps = gap_list()
    gaps.open(10, 10, T0)
    now_ns = T0
    asked_ns = None
    while asked_ns is None and now_ns < T0 + 1_000 * MS:
        now_ns += MS
        gaps.confirm([10], now_ns)
        gaps.suppress([10], now_ns)
        if gaps.take_due(now_ns)[0]:
            asked_ns = now_ns
    assert asked_ns is not None
    assert asked_ns - T0 <= 2 * (LAN.nak_rdata_ivl_ns + LAN.nak_bo_ivl_ns) + 12 * MS


def test_forged_naks_delay_a_request_but_do_not_prevent_it() -> None:
    gaps = gap_list()
    gaps.open(10, 10, T0)
    now_ns = T0
    while now_ns < T0 + 150 * MS:
        now_ns += MS
        gaps.suppress([10], now_ns)
        if gaps.take_due(now_ns)[0]:
            return
    pytest.fail("never asked")


def test_running_timers_are_not_restarted_by_repeated_confirmations() -> None:
    gaps, now_ns = in_state(GapState.WAIT_DATA)
    due_ns = gaps.next_timeout_ns
    for step in range(1, 40):
        gaps.confirm([10, 11, 12], now_ns + step * MS)
        gaps.suppress([10, 11, 12], now_ns + step * MS)
    assert gaps.next_timeout_ns == due_ns


# Limits.


def test_no_more_is_asked_for_than_finds_a_place_in_the_window() -> None:
    gaps = gap_list()
    gaps.window.limit_bytes = 240  # and a quarter more for repairs
    gaps.open(0, 99, T0)
    for sqn in range(100, 105):
        gaps.come(sqn)
    now_ns = T0 + LAN.nak_bo_ivl_ns
    room = (300 - gaps.window.stored_bytes) // 24
    assert gaps.take_due(now_ns)[0] == list(range(room))
    assert gaps.take_due(now_ns)[0] == []
    assert gaps.next_timeout_ns > now_ns
    for sqn in range(room - room // 2):
        assert gaps.fill(sqn)
    assert gaps.next_timeout_ns <= now_ns
    assert gaps.take_due(now_ns)[0] == list(range(room, 2 * room - room // 2))


def test_the_first_is_asked_for_however_full_the_window_is() -> None:
    gaps = gap_list()
    gaps.open(0, 9, T0)
    for sqn in range(10, 20):
        gaps.come(sqn)
    gaps.window.limit_bytes = 1
    assert gaps.take_due(T0 + LAN.nak_bo_ivl_ns)[0] == [0]


def test_at_the_request_limit_the_rest_waits_for_room() -> None:
    gaps = gap_list()
    gaps.open(0, 1 << 30, T0)
    now_ns = gaps.next_timeout_ns
    asked, _ = gaps.take_due(now_ns)
    assert asked == list(range(REQUEST_LIMIT))
    assert len(gaps) == 2
    gaps.take_due(now_ns + 5 * MS)
    assert len(gaps) == 2
    # When half of it has come, more is asked for at once.
    for sqn in range(REQUEST_LIMIT // 2 + 1):
        gaps.come(sqn)
    gaps.settle(T0)
    assert gaps.next_timeout_ns <= now_ns + 10 * MS
    asked, _ = gaps.take_due(now_ns + 10 * MS)
    assert asked == list(range(REQUEST_LIMIT, REQUEST_LIMIT + REQUEST_LIMIT // 2 + 1))


def test_the_oldest_keep_their_turn_while_nothing_is_answered() -> None:
    gaps = gap_list()
    gaps.open(0, 1 << 30, T0)
    asked: set[int] = set()
    while gaps.next_timeout_ns < T0 + 1_000 * MS:
        asked.update(gaps.take_due(gaps.next_timeout_ns)[0])
    assert asked == set(range(REQUEST_LIMIT))


def test_at_both_limits_the_front_is_asked_for_still() -> None:
    gaps = gap_list()
    gaps.open(0, 5_000, T0)
    for sqn in range(20_000, 100_000, 2):
        if not gaps.is_full:
            gaps.open(sqn, sqn, T0 + sqn)
    assert gaps.is_full
    assert gaps.take_due(T0 + 20 * MS)[0] == list(range(REQUEST_LIMIT))


def test_a_blocked_gap_does_not_keep_the_timer_busy() -> None:
    gaps = gap_list()
    gaps.open(0, 10 * REQUEST_LIMIT, T0)
    now_ns = gaps.next_timeout_ns
    gaps.take_due(now_ns)
    assert gaps.next_timeout_ns >= now_ns + LAN.nak_rpt_ivl_ns - MS


def test_a_gap_of_a_thousand_million_numbers_is_one_entry_and_lost_as_one() -> None:
    gaps = gap_list()
    gaps.open(0, 1 << 30, T0)
    gaps.take_due(T0 + 20 * MS)
    gaps.lose_below((1 << 30) + 1, LossReason.WINDOW_ADVANCED)
    assert len(gaps) == 2  # what was asked for, and the rest
    assert {gap.state for gap in gaps} == {GapState.LOST}


def test_the_number_of_gaps_is_limited_whatever_others_confirm() -> None:
    gaps = gap_list()
    gaps.open(0, 100_000, T0)
    for sqn in range(0, 100_000, 2):
        gaps.confirm([sqn], T0)
        gaps.suppress([sqn + 1], T0)
    assert gaps.is_full
    assert len(gaps) <= GAP_LIMIT
    gaps.lose_below(50_001, LossReason.WINDOW_ADVANCED)
    assert gaps.fill(60_001)
    assert len(gaps) <= GAP_LIMIT


def test_a_gap_asked_for_waits_behind_one_that_is_held_back() -> None:
    gaps = gap_list()
    gaps.open(0, 2 * REQUEST_LIMIT, T0)
    now_ns = gaps.next_timeout_ns
    gaps.take_due(now_ns)
    gaps.open(3 * REQUEST_LIMIT, 3 * REQUEST_LIMIT, now_ns + 2 * MS)
    gaps.confirm([3 * REQUEST_LIMIT], now_ns + 2 * MS)
    gaps.confirm(range(REQUEST_LIMIT), now_ns + 20 * MS)
    gaps.hold(0)  # nothing moves, the timer is looked for anew
    assert gaps.next_timeout_ns == now_ns + 2 * MS + LAN.nak_rdata_ivl_ns


@pytest.mark.parametrize(("proven", "burst"), [(True, 2_000), (False, 20)])
def test_a_budget_allows_a_burst_and_then_its_rate(proven: bool, burst: int) -> None:
    budget = NakBudget()
    assert sum(budget.allows(T0, proven=proven) for _ in range(3_000)) == burst
    later_ns = T0 + 100 * MS
    rate_per_s = 10_000 if proven else 100
    assert sum(budget.allows(later_ns, proven=proven) for _ in range(3_000)) == rate_per_s // 10


def test_unproven_peers_take_nothing_from_the_proven() -> None:
    budget = NakBudget()
    while budget.allows(T0, proven=False):
        pass
    assert sum(budget.allows(T0, proven=True) for _ in range(3_000)) == 2_000


# A source that is behind.


def asked(gaps: Gaps, now_ns: int, sqn: int) -> int:
    """``sqn`` is lost, asked for and confirmed; the time then."""
    gaps.open(sqn, sqn, now_ns)
    now_ns = next(gap.expiry_ns for gap in gaps)
    assert gaps.take_due(now_ns)[0] == [sqn]
    gaps.confirm([sqn], now_ns)
    return now_ns


def served(gaps: Gaps, now_ns: int, sqn: int, service_ns: int) -> int:
    """``sqn`` is lost, asked for, confirmed and repaired after so long; the time then."""
    now_ns = asked(gaps, now_ns, sqn)
    gaps.come(sqn)
    gaps.settle(now_ns + service_ns)
    return now_ns + service_ns


def patience_ns(*service_ns: int) -> int:
    """How long after its confirmation a number is asked for again, at the soonest."""
    gaps = gap_list()
    now_ns, sqn = T0, 1
    for each_ns in service_ns:
        now_ns = served(gaps, now_ns, sqn, each_ns)
        sqn += 2
    now_ns = asked(gaps, now_ns, sqn)
    return next(gap.expiry_ns for gap in gaps) - now_ns


def test_a_source_that_takes_long_over_every_repair_is_given_half_as_long_again() -> None:
    assert patience_ns(*[80 * MS] * 16) == 120 * MS


def test_one_quick_repair_among_sixteen_shows_that_the_others_were_lost() -> None:
    assert patience_ns(*[80 * MS] * 8, 2 * MS, *[80 * MS] * 7) == LAN.nak_rdata_ivl_ns
    assert patience_ns(2 * MS, *[80 * MS] * 16) == 120 * MS


def test_no_source_is_waited_for_longer_than_a_second() -> None:
    assert patience_ns(*[1500 * MS] * 16) == 1000 * MS


def test_a_source_is_behind_when_even_its_quickest_repair_is_late() -> None:
    gaps = gap_list()
    assert not gaps.source_is_behind
    now_ns = served(gaps, T0, 1, 51 * MS)
    assert gaps.source_is_behind
    served(gaps, now_ns, 3, 1 * MS)
    assert not gaps.source_is_behind


def test_a_part_of_a_gap_keeps_the_time_it_was_asked_for() -> None:
    gaps, now_ns = in_state(GapState.WAIT_NCF)
    gaps.confirm([11], now_ns)  # which leaves 10 and 12 by themselves
    gaps.come(10)
    gaps.settle(now_ns + 80 * MS)
    assert gaps.source_is_behind


# A model: the same operations on a plain dict of single numbers.


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    kinds = st.sampled_from(["open", "fill", "confirm", "suppress", "below", "lose", "pop", "time"])
    return draw(
        st.lists(st.tuples(kinds, st.integers(0, 60), st.integers(0, 80)), min_size=1, max_size=60)
    )


@given(operations(), st.integers(0, 1000))
@settings(max_examples=300)
def test_gaps_agree_with_a_model_of_single_numbers(
    steps: list[tuple[str, int, int]], seed: int
) -> None:
    gaps = gap_list(seed=seed)
    missing: dict[int, bool] = {}  # number: lost
    lead, now_ns = -1, T0
    for kind, a, b in steps:
        if kind == "open":
            first = lead + 1 + a % 5
            lead = first + b % 7
            gaps.open(first, lead, now_ns)
            missing |= dict.fromkeys(range(first, lead + 1), False)
        elif kind == "fill":
            assert gaps.fill(a) == (a in missing)
            missing.pop(a, None)
        elif kind in ("confirm", "suppress"):
            getattr(gaps, kind)(range(min(a, b), max(a, b) + 1, 1 + a % 3), now_ns)
        elif kind == "below":
            for sqn in [sqn for sqn in missing if sqn < a]:
                gaps.come(sqn)
                del missing[sqn]
            gaps.settle(T0)
        elif kind == "lose":
            gaps.lose_below(a, LossReason.WINDOW_ADVANCED)
            missing = {sqn: lost or sqn < a for sqn, lost in missing.items()}
        elif kind == "pop" and missing:
            lost = gaps.take_lost()
            assert (lost is not None) == missing[min(missing)]
            if lost is not None:
                assert lost[0] == min(missing)
                for sqn in range(lost[0], lost[1] + 1):
                    assert missing.pop(sqn)
                gaps.window.skip_to(lost[1] + 1)
        elif kind == "time":
            now_ns += b * MS
            asked, _ = gaps.take_due(now_ns)
            assert asked == sorted(set(asked))
            assert all(missing[sqn] is False for sqn in asked)
            assert gaps.next_timeout_ns > now_ns or not missing
        assert [sqn for gap in gaps for sqn in gaps.numbers(gap)] == sorted(missing)
        assert all(
            missing[sqn] == (gap.state is GapState.LOST)
            for gap in gaps
            for sqn in gaps.numbers(gap)
        )
        assert [len(gaps.numbers(gap)) for gap in gaps] == [gap.count for gap in gaps]
        waiting = [gap.expiry_ns for gap in gaps if gap.state is not GapState.LOST]
        assert gaps.next_timeout_ns <= min(waiting, default=NEVER)
