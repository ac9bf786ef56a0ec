"""What is missing and what is being done about it: the NAK state machine of RFC 3208 section 6.3.

Owns the gaps of one receive window: stretches of numbers, some of which are missing, noticed at one
time. Which ones those are the window knows (``ReceiveSlots.missing``), so that a packet which fills
a hole costs nothing here. Invariants: the gaps are disjoint and in order; every number that is
missing up to the last that was looked at lies in one; what is missing in a gap shares its state,
timer and history.

    BACK_OFF   --timer, NAK sent-->           WAIT_NCF
    BACK_OFF   --NCF-->                       WAIT_DATA
    BACK_OFF   --another receiver's NAK-->    WAIT_NCF
    WAIT_NCF   --NCF-->                       WAIT_DATA
    WAIT_NCF   --timer, retry left-->         BACK_OFF
    WAIT_DATA  --timer, retry left-->         BACK_OFF
    any        --data-->                      gone
    any        --trail, deadline, retries-->  LOST, reported in sequence
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from math import exp, log, log1p
from random import Random
from typing import Final

from mcast.events import LossReason
from mcast.kernel import ReceiveSlots, TokenBucket
from mcast.options import Timers
from mcast.pgm.lateness import Lateness

__all__ = ["GAP_LIMIT", "REQUEST_LIMIT", "Gap", "GapList", "GapState", "NakBudget"]

GAP_LIMIT: Final = 4096
"""Most gaps of one window; the loss of 10 % of 1 Gbit/s during a repair makes about 700."""
REQUEST_LIMIT: Final = 1024
"""Most numbers asked for and not yet repaired: 17 NAKs, 1.5 MB of repairs on their way."""
_DATA_HEADER_BYTES: Final = 24
_SLACK_NS: Final = 1_000_000
"""Timers this close are served together, so that one NAK can name several gaps."""
_PROVEN_NAKS_PER_S: Final = 8 * 10_000  # in the bucket's bits; 10 % loss at 1 Gbit/s makes 8,600
_NAK_BURST: Final = 2_000
_UNPROVEN_NAKS_PER_S: Final = 8 * 100
_UNPROVEN_BURST: Final = 20
_PUT_OFF_LIMIT: Final = 2
"""Rounds without data after which others' NAKs and unasked NCFs no longer keep ours back."""
_UNHEARD_NAKS: Final = 4
"""NAKs without an NCF after which it is not chance: at 10 % loss each way, 1 in 700."""
_MENDED_LIMIT: Final = 256
"""Gaps remembered after they are filled, to know by what comes then that it was only late."""
_SERVICES: Final = 16
"""Repairs of which the quickest tells how far behind its requests the source is."""
_SLOW_NS: Final = 50_000_000
"""Repairs that are quicker are not worth a word, however quick a profile would have them."""
_SLOW_REQUESTS: Final = 16
"""Requests one after the other without a quick repair among them, so long apart, that are."""
_SLOW_PAUSE_NS: Final = 5_000_000_000
"""What was slow so long ago says nothing of now."""
_SERVICE_LIMIT_NS: Final = 1_000_000_000
"""Longest wait for a repair because of that."""
_NEVER: Final = 1 << 62


class NakBudget:
    """How many NAKs one endpoint may send, all its peers together.

    Two forged packets make a gap of thousands, at whatever address they claim to come from: asking
    for it must not become the attack. A peer is proven once it sent an SPM or an NCF; the others
    share a small part.
    """

    def __init__(self) -> None:
        self._proven = TokenBucket(_PROVEN_NAKS_PER_S, _NAK_BURST)
        self._unproven = TokenBucket(_UNPROVEN_NAKS_PER_S, _UNPROVEN_BURST)

    def allows(self, now_ns: int, *, proven: bool) -> bool:
        """True, and one NAK is taken off, if the budget has one left."""
        bucket = self._proven if proven else self._unproven
        if bucket.available_bytes(now_ns) < 1:
            return False
        bucket.spend(now_ns, 1)
        return True


class GapState(Enum):
    """Where a gap stands; see the table on top."""

    BACK_OFF = auto()
    WAIT_NCF = auto()
    WAIT_DATA = auto()
    LOST = auto()


_REQUESTED: Final = (GapState.WAIT_NCF, GapState.WAIT_DATA)


@dataclass(slots=True)
class Gap:
    """Missing numbers with one history."""

    first: int
    last: int
    count: int
    """How many numbers from ``first`` to ``last`` were missing when that was last looked at."""
    state: GapState
    expiry_ns: int
    detected_ns: int
    asked_ns: int = 0
    """When it was asked for first, or 0."""
    ncf_retry_count: int = 0
    data_retry_count: int = 0
    reason: LossReason = LossReason.REPAIR_DEADLINE


class GapList:
    """The gaps of one receive window. Owned by its ``Receiver``."""

    def __init__(self, window: ReceiveSlots, timers: Timers, dice: Random) -> None:
        self._window = window
        self._timers = timers
        self._dice = dice
        self._gaps: list[Gap] = []
        self._mended: deque[tuple[int, int, int]] = deque(maxlen=_MENDED_LIMIT)
        self._services_ns: deque[int] = deque(maxlen=_SERVICES)
        self._slow_count = self._slow_best_ns = self._slow_asked_ns = self._slow_noted_ns = 0
        self.lateness = Lateness(timers.repair_deadline_ns // 4)
        self._is_blocked = False
        self._next_ns = _NEVER
        self.backoff_ivl_ns = timers.nak_bo_ivl_ns
        """Longest back-off; a source may advertise another by OPT_NAK_BO_IVL."""
        self.asked_unheard = False
        """Whether ``take_due`` asked for something whose NAKs do not seem to reach the source."""
        self.asked_unserved = False
        """The last ``take_due`` asked for numbers that the source had confirmed and not sent."""

    def __len__(self) -> int:
        return len(self._gaps)

    def __iter__(self) -> Iterator[Gap]:
        return iter(self._gaps)

    @property
    def is_full(self) -> bool:
        """True when another gap would exceed ``GAP_LIMIT``."""
        # A number in the middle of a gap splits it in three, so two places are kept for that.
        return len(self._gaps) >= GAP_LIMIT - 2 or self._window.is_full

    @property
    def next_timeout_ns(self) -> int:
        """When ``take_due`` may have something to do; early is possible, late is not."""
        return self._next_ns

    def open(self, first: int, last: int, now_ns: int) -> None:
        """What is missing behind all other gaps was noticed: wait, then ask (section 6.3)."""
        count = self._window.missing_count(first, last)
        if not count:
            return
        tail = self._gaps[-1] if self._gaps else None
        if tail and tail.state is GapState.BACK_OFF and now_ns - tail.detected_ns <= _SLACK_NS:
            tail.last = last  # the same discovery, seen packet by packet
            tail.count += count
            return
        # What was only overtaken comes by itself, if it is given as long as others took.
        expiry_ns = now_ns + self.lateness.wait_ns(now_ns) + self._back_off_ns()
        self._gaps.append(Gap(first, last, count, GapState.BACK_OFF, expiry_ns, now_ns))
        self._next_ns = min(self._next_ns, expiry_ns)

    @property
    def source_is_behind(self) -> bool:
        """True if even the quickest of late took longer than the wait for RDATA: its share of the
        rate is used up, and asking again would only cost it time."""
        return self._service_ns > self._timers.nak_rdata_ivl_ns

    def _note_service(self, now_ns: int, asked_ns: int) -> None:
        """What was asked for then is all here now."""
        service_ns = now_ns - asked_ns
        self._services_ns.append(service_ns)
        if service_ns < max(_SLOW_NS, self._timers.nak_rdata_ivl_ns):
            self._slow_count = 0
            return
        if now_ns - self._slow_noted_ns > _SLOW_PAUSE_NS:
            self._slow_count = 0
        self._slow_noted_ns = now_ns
        if self._slow_count == 0:
            self._slow_best_ns = service_ns
        elif asked_ns < self._slow_asked_ns + _SLOW_NS:
            return  # the same incident, such as a pause of this process
        self._slow_count += 1
        self._slow_asked_ns = asked_ns
        self._slow_best_ns = min(self._slow_best_ns, service_ns)

    def take_slow(self, now_ns: int) -> int:
        """0, or how long even the quickest of sixteen repairs took; then they are counted anew."""
        if now_ns - self._slow_noted_ns > _SLOW_PAUSE_NS:
            self._slow_count = 0
        if self._slow_count < _SLOW_REQUESTS:
            return 0
        self._slow_count = 0
        return self._slow_best_ns

    @property
    def _service_ns(self) -> int:
        return min(self._services_ns, default=0)

    def settle(self, now_ns: int) -> list[tuple[int, int]]:
        """Forget what has come since the last look; when that was missed first, and how many."""
        filled: list[tuple[int, int]] = []
        is_emptied = False
        for gap in self._gaps:
            count = self._window.missing_count(gap.first, gap.last)
            if count < gap.count:
                filled.append((gap.detected_ns, gap.count - count))
                gap.count = count
                if not count:
                    is_emptied = True
                    if gap.asked_ns:
                        self._note_service(now_ns, gap.asked_ns)
                    self._mended.append((gap.first, gap.last, gap.detected_ns))
                    self._window.mended_last = max(self._window.mended_last, gap.last)
        if is_emptied:
            self._gaps = [gap for gap in self._gaps if gap.count]
            self._window.mended_first = self._mended[0][0]
        if self._is_blocked and filled and self._requested_count <= self._request_limit // 2:
            self._reschedule()  # there may be more to ask for, and now there is room
        return filled

    def missed_ns(self, sqn: int) -> int | None:
        """When ``sqn`` was noticed to be missing, if it is or was not long ago."""
        index = bisect_right(self._gaps, sqn, key=_first) - 1
        if index >= 0 and sqn <= self._gaps[index].last:
            return self._gaps[index].detected_ns
        for first, last, detected_ns in self._mended:
            if first <= sqn <= last:
                return detected_ns
        return None

    def lose_below(self, sqn: int, reason: LossReason) -> None:
        """All missing numbers below ``sqn`` are beyond repair."""
        index = 0
        while index < len(self._gaps) and self._gaps[index].first < sqn:
            gap = self._gaps[index]
            if gap.state is not GapState.LOST:
                place = self._isolate(index, gap.first, min(gap.last, sqn - 1))
                if place >= 0:
                    self._lose(self._gaps[place], reason)
            index += 1

    @property
    def has_lost_front(self) -> bool:
        """True if the first missing number is given up."""
        return bool(self._gaps) and self._gaps[0].state is GapState.LOST

    def take_lost(self) -> tuple[int, int, LossReason] | None:
        """The first hole, as far as it is given up for one reason; it is to be skipped."""
        if not self.has_lost_front:
            return None
        first, hole_last = self._window.next, self._window.hole_last
        reason = self._gaps[0].reason
        last = first - 1
        # What was asked for piece by piece and lost together is one loss.
        while (
            self._gaps
            and (front := self._gaps[0]).state is GapState.LOST
            and front.reason is reason
            and last < hole_last
        ):
            last = min(front.last, hole_last)
            front.first = last + 1
            front.count = self._window.missing_count(front.first, front.last)
            if front.count:
                break
            del self._gaps[0]
        return first, last, reason

    def confirm(self, sqns: Iterable[int], now_ns: int) -> None:
        """The source has heard a request for these and will repair them (NCF, section 6.3)."""
        # Among sixteen repairs one came at the first try, whatever is lost: its time is the time
        # that the source takes.
        behind_ns = min(self._service_ns * 3 // 2, _SERVICE_LIMIT_NS)
        wait_ns = max(self._timers.nak_rdata_ivl_ns, behind_ns)
        self._move(sqns, GapState.WAIT_DATA, now_ns + wait_ns)

    def suppress(self, sqns: Iterable[int], now_ns: int) -> None:
        """Another receiver asked for these: its NAK does for ours (section 6.3)."""
        self._move(sqns, GapState.WAIT_NCF, now_ns + self._timers.nak_rpt_ivl_ns)

    def hold(self, expiry_ns: int) -> None:
        """No request leaves before ``expiry_ns``: nobody to ask is known yet."""
        for gap in self._gaps:
            if gap.state is GapState.BACK_OFF:
                gap.expiry_ns = max(gap.expiry_ns, expiry_ns)
        self._reschedule()

    def take_due(self, now_ns: int) -> tuple[list[int], bool]:
        """Move every expired gap on; the numbers to ask for now, oldest first, and whether any of
        them was asked for before without an NCF."""
        horizon_ns = now_ns + _SLACK_NS
        for gap in self._gaps:
            if gap.state is GapState.LOST or gap.expiry_ns > horizon_ns:
                continue
            if now_ns - gap.detected_ns >= self._timers.repair_deadline_ns:
                self._lose(gap, LossReason.REPAIR_DEADLINE)
            elif gap.state is not GapState.BACK_OFF:
                self._retry(gap, now_ns)
        asked, is_repeat = self._ask(now_ns, horizon_ns)
        self._reschedule()
        return asked, is_repeat

    def _ask(self, now_ns: int, horizon_ns: int) -> tuple[list[int], bool]:
        asked: list[int] = []
        is_repeat = False
        self.asked_unserved = self.asked_unheard = False
        room = self._request_limit - self._requested_count
        index = 0
        # Oldest first, also where the older ones still back off: they hold up delivery.
        while room > 0 and index < len(self._gaps):
            gap = self._gaps[index]
            if gap.state is GapState.BACK_OFF:
                if gap.expiry_ns <= horizon_ns:
                    sqns = self._window.missing(gap.first, gap.last, room)
                    if gap.count > room and sqns and not self.is_full:
                        self._isolate(index, gap.first, sqns[-1])
                        gap = self._gaps[index]
                    asked.extend(sqns)
                    is_repeat |= gap.ncf_retry_count > 0
                    self.asked_unserved |= gap.data_retry_count > 0
                    self.asked_unheard |= gap.ncf_retry_count >= _UNHEARD_NAKS
                    gap.asked_ns = gap.asked_ns or now_ns
                    self._set(gap, GapState.WAIT_NCF, now_ns + self._timers.nak_rpt_ivl_ns)
                room -= gap.count
            index += 1
        return asked, is_repeat

    def _retry(self, gap: Gap, now_ns: int) -> None:
        if gap.state is GapState.WAIT_NCF:
            gap.ncf_retry_count += 1
        else:
            gap.data_retry_count += 1
        if (
            gap.ncf_retry_count > self._timers.nak_ncf_retries
            or gap.data_retry_count > self._timers.nak_data_retries
        ):
            self._lose(gap, LossReason.REPAIR_DEADLINE)
        else:
            self._set(gap, GapState.BACK_OFF, now_ns + self._back_off_ns())

    def _back_off_ns(self) -> int:
        """A random wait, 1 to the interval: mostly late, so that a few early ones speak for all."""
        dice = self._dice.random()
        group = self._timers.nak_group_size
        if group > 1:
            # Truncated exponential, RFC 5401 section 3.2.2.3: density grows e^(x L / T).
            shape = log(group) + 1.0
            dice = log1p(dice * (exp(shape) - 1.0)) / shape
        return 1 + int(dice * (self.backoff_ivl_ns - 1))

    def _move(self, sqns: Iterable[int], state: GapState, expiry_ns: int) -> None:
        """Put the missing ones among ``sqns`` into a requested state, run by run."""
        for first, last in self._runs(sqns):
            index = bisect_right(self._gaps, last, key=_first) - 1
            while index >= 0 and self._gaps[index].last >= first:
                gap = self._gaps[index]
                # Anybody may send such packets: at the limit they split no further.
                splits = self._missing(gap.first, first - 1) or self._missing(last + 1, gap.last)
                if _may_move(gap, state) and not (splits and self.is_full):
                    index = self._isolate(index, max(first, gap.first), min(last, gap.last))
                    if index >= 0:
                        self._set(self._gaps[index], state, expiry_ns)
                index -= 1

    def _missing(self, first: int, last: int) -> int:
        return self._window.missing_count(first, last) if first <= last else 0

    def _runs(self, sqns: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Stretches of ``sqns``, of which there is one, between which nothing else is missing, as
        (first, last)."""
        first, *others = sorted(sqns)
        last = first
        for sqn in others:
            if self._missing(last + 1, sqn - 1):
                yield first, last
                first = sqn
            last = sqn
        yield first, last

    def _isolate(self, index: int, first: int, last: int) -> int:
        """Split the gap at ``index`` so that what it lacks from ``first`` to ``last`` is by itself;
        where that is now, or -1 if it lacks nothing there."""
        gap = self._gaps[index]
        count = self._missing(first, last)
        if not count:
            return -1
        before = self._missing(gap.first, first - 1)
        behind = self._missing(last + 1, gap.last)
        if before:
            self._gaps.insert(index, _copy(gap, gap.first, first - 1, before))
            gap.first = first
            index += 1
        if behind:
            self._gaps.insert(index + 1, _copy(gap, last + 1, gap.last, behind))
            gap.last = last
        # What has come meanwhile stays to be counted by ``settle``.
        gap.count -= before + behind
        return index

    @property
    def _request_limit(self) -> int:
        """Most numbers to be asked for and not yet repaired: what comes must find a place, or it
        is asked for again and again, and the source seems slow."""
        window = self._window
        mean_bytes = window.payload_bytes // max(1, window.packet_count) + _DATA_HEADER_BYTES
        room_bytes = window.limit_bytes * 5 // 4 - window.stored_bytes
        return max(1, min(REQUEST_LIMIT, room_bytes // mean_bytes))

    @property
    def _requested_count(self) -> int:
        return sum(gap.count for gap in self._gaps if gap.state in _REQUESTED)

    def _set(self, gap: Gap, state: GapState, expiry_ns: int) -> None:
        gap.state = state
        gap.expiry_ns = expiry_ns
        self._next_ns = min(self._next_ns, expiry_ns)

    def _lose(self, gap: Gap, reason: LossReason) -> None:
        self._set(gap, GapState.LOST, _NEVER)
        gap.reason = reason

    def _reschedule(self) -> None:
        """The earliest timer of those that can do something: see ``_ask`` for who is held back."""
        room = self._request_limit - self._requested_count
        self._is_blocked = False
        next_ns = _NEVER
        for gap in self._gaps:
            if gap.state is GapState.BACK_OFF:
                if room <= 0:
                    self._is_blocked = True
                    continue
                room -= gap.count
            next_ns = min(next_ns, gap.expiry_ns)
        self._next_ns = next_ns


def _may_move(gap: Gap, state: GapState) -> bool:
    """Forged confirmations may delay a request, not prevent it: timers that run are not restarted,
    and what was put off twice is asked for whatever others say."""
    if gap.state is GapState.BACK_OFF:
        return gap.ncf_retry_count + gap.data_retry_count < _PUT_OFF_LIMIT
    return gap.state is GapState.WAIT_NCF and state is GapState.WAIT_DATA


def _first(gap: Gap) -> int:
    return gap.first


def _copy(gap: Gap, first: int, last: int, count: int) -> Gap:
    return Gap(
        first,
        last,
        count,
        gap.state,
        gap.expiry_ns,
        gap.detected_ns,
        gap.asked_ns,
        gap.ncf_retry_count,
        gap.data_retry_count,
        gap.reason,
    )
