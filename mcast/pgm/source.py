"""The sending end of one publisher: RFC 3208 sections 5, 9.7 and 13.4, and libzmq's habits.

Owns the transmit window (kernel ``TransmitSlots``), the pace, the SPM schedule and the repairs.
Invariants: packets leave in sequence and within the rate; NCFs go before SPMs and SPMs before
data; a packet stays repairable until ``recovery_ivl`` has passed or ``txw_bytes`` need its place.

When does a message leave? At once if nothing waits and the last packet left a quarter of
``coalesce`` ago or longer; else with the next full run, or when ``coalesce`` is over. So a lone
message never waits, and a burst travels in runs that one system call carries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from mcast.kernel import Baton, Buffer, SendSchedule, TokenBucket, TransmitSlots
from mcast.options import DEFAULT_MAXTPDU_BYTES, SocketOptions, Timers
from mcast.pgm.events import GROUP, Transmit
from mcast.pgm.packet import NAK_LIST_LIMIT, Nak, Packet, build_ncf, build_spm
from mcast.pgm.repair import REPAIR_BURST_BYTES, RepairQueue
from mcast.pgm.sqn import extend
from mcast.pgm.throttle import TICK_NS, Throttle
from mcast.stats import PgmCounters

__all__ = ["Source", "tsdu_bytes"]

_DATA_HEADER_BYTES: Final = 24
_UDP_IP_BYTES: Final = 28  # what libzmq, too, adds to a packet's cost
_RUN_BYTES_LIMIT: Final = 65_000  # one UDP GSO send, with room for IP options
_RUN_PACKET_LIMIT: Final = 44
_REPAIR_RUNS_PER_TURN: Final = 16  # of 64 KiB at most; then it is the data's turn
_FAST: Final = 1e12
_BURST_S: Final = 0.001
"""Data that may leave at once after a quiet time: more would overflow receivers' buffers."""
_SLOW_BURST_S: Final = 0.01
_SLOW_BURST_BYTES: Final = 32 * 1024
"""At lower rates it may be more, as long as it is so little: a wake-up that comes some milliseconds
late then costs nothing of the rate (at 15 Mbit/s on a busy machine it was a fifth, measured)."""
_REPAIR_BURST_S: Final = 0.05
_MARKS_PER_WINDOW: Final = 32
_START_SPMS: Final = 3
_FINAL_SPMS: Final = 3
_DENIAL_IVL_NS: Final = 100_000_000
"""A NAK for what is not in the window is answered by an SPM, ten times a second at most."""
_SPMR_ANSWER_IVL_NS: Final = 10_000_000
"""SPMRs are answered a hundred times a second at most."""
_NEVER: Final = 1 << 62


def tsdu_bytes(maxtpdu_bytes: int, nla: bytes) -> int:
    """The largest TSDU: the IP packet less IP, UDP, PGM and OPT_FRAGMENT headers (as OpenPGM)."""
    return maxtpdu_bytes - (20 if len(nla) == 4 else 40) - 8 - _DATA_HEADER_BYTES - 20


class _Timer(IntEnum):
    """Indices of ``Source._due``."""

    AMBIENT = 0
    """The regular SPM, data or no data (section 5.1.4)."""
    HEARTBEAT = 1
    """The next SPM of the series that follows the last data (section 5.1.5)."""
    COALESCE = 2
    """The open packet has waited long enough."""
    PACE = 3
    """The rate allows the next run of data."""
    REPAIR = 4
    """The repairs' share allows the next one."""
    ADVANCE = 5
    """The oldest packets have been kept for ``recovery_ivl``."""
    THROTTLE = 6
    """The rate may grow again, or what was sent is to be noted."""


class Source:
    """One local publisher. Owned by its ``PgmEngine``; guarded by the shell's lock."""

    def __init__(
        self,
        *,
        tsi: bytes,
        address: bytes,
        group_nla: bytes,
        dport: int,
        options: SocketOptions,
        timers: Timers,
        counters: PgmCounters,
        transmits: list[Transmit],
    ) -> None:
        self.tsi = tsi
        self._address = address
        self._group_nla = group_nla
        self._dport = dport
        self._timers = timers
        self._counters = counters
        self._transmits = transmits
        tsdu = tsdu_bytes(options.multicast_maxtpdu or DEFAULT_MAXTPDU_BYTES, address)
        slot_bytes = tsdu + _DATA_HEADER_BYTES
        slot_count = max(8, options.txw_bytes // slot_bytes)
        self._slots = TransmitSlots(tsi, dport, tsdu, slot_count, options.initial_sqn)
        self._run_packets = min(_RUN_PACKET_LIMIT, max(1, _RUN_BYTES_LIMIT // slot_bytes))
        self._packet_cost_bytes = slot_bytes + _UDP_IP_BYTES
        least_bytes = 2 * self._packet_cost_bytes
        coalesce_ns = round(options.coalesce * 1e9)
        bytes_per_s = min(options.rate, _FAST) / 8
        portion_bytes = max(least_bytes, round(bytes_per_s * _BURST_S))
        slow_burst_bytes = min(round(bytes_per_s * _SLOW_BURST_S), _SLOW_BURST_BYTES)
        burst_bytes = max(portion_bytes, slow_burst_bytes)
        self._bucket = TokenBucket(options.rate, burst_bytes)
        # Paced, data leaves in portions of this size: few wake-ups, and still some burst to spare
        # for a wake-up that comes late.
        self._quantum_bytes = portion_bytes // 2
        self._throttle: Throttle | None = None
        if options.min_rate is not None and options.min_rate < options.rate:
            self._throttle = Throttle(self._bucket, options.rate, options.min_rate, burst_bytes)
        self._schedule = SendSchedule(
            self._slots,
            self._bucket,
            coalesce_ns=coalesce_ns,
            quantum_bytes=self._quantum_bytes,
            run_packets=self._run_packets,
        )
        repair_rate = options.rate * options.repair_share
        repair_burst_bytes = max(least_bytes, round(min(repair_rate, _FAST) / 8 * _REPAIR_BURST_S))
        self._repairs = RepairQueue(
            repair_rate, min(repair_burst_bytes, REPAIR_BURST_BYTES), timers.repair_holdoff_ns
        )
        self._hwm = options.sndhwm
        self._rate = options.rate
        self._recovery_ns = round(options.recovery_ivl * 1e9)
        self._marks: deque[tuple[int, int]] = deque()
        self._spm_sqn = 0
        self._heartbeat = 0
        self._denied_ns = self._spmr_answered_ns = -_DENIAL_IVL_NS
        self._due = [_NEVER] * len(_Timer)
        self._closing = False
        self._has_gate = False
        self._baton: Baton | None = None
        self._is_attended = False
        self._attend_ivl_ns = _NEVER
        self._spm_trail = options.initial_sqn
        self.is_held_up = False
        """The system takes nothing: no repair is made until it does."""
        self.asked_ns = 0
        """When a NAK last asked for something; closing waits for some quiet after it."""

    @property
    def max_stream_bytes(self) -> int:
        """Longest message the window takes, frame heads included."""
        return self._slots.max_stream_bytes

    @property
    def next_timeout_ns(self) -> int:
        """When ``handle_timeout`` has something to do."""
        return min(*self._due, self._schedule.due_ns)

    @property
    def next_alarm_ns(self) -> int:
        """``next_timeout_ns``, but for what the baton attends to."""
        return min(self._due) if self._is_attended else self.next_timeout_ns

    @property
    def window(self) -> tuple[int, int]:
        """Trail and lead."""
        return self._slots.trail, self._slots.next - 1

    @property
    def message_count(self) -> int:
        """Messages accepted so far."""
        return self._slots.message_count

    @property
    def unsent_message_count(self) -> int:
        """Messages that wait for the pace."""
        return self._slots.unsent_message_count

    @property
    def waiting_repair_count(self) -> int:
        """Packets asked for and not sent again yet."""
        return len(self._repairs)

    @property
    def rate(self) -> float:
        """Bits per second that data may leave at now."""
        return self._rate if self._throttle is None else self._throttle.rate

    @property
    def has_slots(self) -> bool:
        """True while the window has room for another packet."""
        return self._slots.next - self._slots.unsent < self._slots.unsent_limit

    def has_slots_for(self, stream_bytes: int) -> bool:
        """True while the window has room for a message of so many bytes, heads included."""
        slots = self._slots
        packet_bytes = slots.max_stream_bytes // (slots.unsent_limit - 1)
        packet_count = -(-(slots.open_bytes + stream_bytes) // packet_bytes)
        return slots.next - slots.unsent + packet_count <= slots.unsent_limit

    @property
    def has_slack(self) -> bool:
        """True when a quarter of what may wait is free: worth waking those who wait for room."""
        slots = self._slots
        return (
            4 * slots.unsent_message_count <= 3 * self._hwm
            and 4 * (slots.next - slots.unsent) <= 3 * slots.unsent_limit
        )

    @property
    def has_unsent(self) -> bool:
        """True while data waits to leave for the first time."""
        return self._schedule.has_pending

    # Commands.

    def open_gate(
        self, baton: Baton | None, attend_ivl_ns: int | None
    ) -> tuple[TransmitSlots, SendSchedule]:
        """What a ``SendGate`` needs; from now on it may send by itself, where ``schedule`` says so.

        ``baton`` wakes the loop thread for what the gate leaves behind, if there is one; at least
        every ``attend_ivl_ns``, if given, a message goes the long way.
        """
        self._has_gate = True
        self._baton = baton
        self._attend_ivl_ns = _NEVER if attend_ivl_ns is None else attend_ivl_ns
        return self._slots, self._schedule

    def close_gate(self) -> None:
        """From now on everything goes the long way. Safe from any thread, without a lock."""
        self._has_gate = False
        self.disarm()

    def disarm(self) -> None:
        """What comes next goes the long way, and no baton wakes anybody for what waits."""
        self._schedule.close()
        self._schedule.leave()
        self._is_attended = False

    def catch_up(self) -> None:
        """Take note of the data that has left, by the gate or from here."""
        schedule = self._schedule
        if schedule.sent_packets != self._counters.odata_sent:
            self._counters.odata_sent = schedule.sent_packets
            self._counters.odata_bytes_sent = schedule.sent_bytes
            self._heartbeat = 0
            if self._throttle is not None and self._due[_Timer.THROTTLE] == _NEVER:
                self._due[_Timer.THROTTLE] = schedule.data_sent_ns  # to note where it began
            self._schedule_heartbeat(schedule.data_sent_ns)
            self._mark(schedule.data_sent_ns)

    def tend(self, now_ns: int) -> None:
        """See to what the gate left behind: send it if it is time to, else have a timer do so."""
        self.catch_up()
        self._leave_or_wait(now_ns, alone=False)

    def start(self, now_ns: int) -> None:
        """Announce the source: three SPMs back to back, as libzmq, so that one may be lost."""
        for _ in range(_START_SPMS):
            self._send_spm()
        self._due[_Timer.AMBIENT] = now_ns + self._timers.spm_ambient_ivl_ns
        self._heartbeat = 0
        self._schedule_heartbeat(now_ns)

    def send(self, now_ns: int, parts: Sequence[Buffer]) -> bool:
        """Take one message; False if too much waits already. Raises ValueError as the kernel."""
        slots = self._slots
        alone = not self.has_unsent
        if slots.unsent_message_count >= self._hwm or not slots.append(parts):
            self._emit_data(now_ns)
            if slots.unsent_message_count >= self._hwm or not slots.append(parts):
                return False
        self._leave_or_wait(now_ns, alone=alone)
        return True

    def send_many(self, now_ns: int, messages: Sequence[Buffer], start: int) -> int:
        """Take messages of one part each from index ``start`` on; the index reached.

        Call again after ``take_transmits`` until nothing more is taken.
        """
        slots = self._slots
        alone = not self.has_unsent
        first = slots.unsent
        # What is handed out here is sent only when this returns: the window must not come round.
        while start < len(messages) and slots.unsent - first < slots.unsent_limit:
            end = min(len(messages), start + self._hwm - slots.unsent_message_count)
            reached = slots.append_many(messages, start, max(start, end))
            is_stuck = reached == start
            start = reached
            if slots.next - slots.unsent >= self._run_packets or reached < len(messages):
                unsent = slots.unsent
                self._emit_data(now_ns)
                is_stuck = is_stuck and slots.unsent == unsent
            if is_stuck:
                break
        self._leave_or_wait(now_ns, alone=alone)
        return start

    def flush(self, now_ns: int) -> None:
        """Let go of the open packet as soon as the rate allows."""
        self._schedule.close()
        if self._bucket.available_bytes(now_ns) > 0:
            self._slots.seal()
        self._emit_data(now_ns)

    def close(self, now_ns: int) -> None:
        """Say that no more comes: OPT_FIN in three SPMs now and in all later ones (section 9.7)."""
        self._closing = True
        self.close_gate()
        self.flush(now_ns)
        for _ in range(_FINAL_SPMS):
            self._send_spm()
        self._heartbeat = 0
        self._schedule_heartbeat(now_ns)

    # Input.

    def handle_nak(self, now_ns: int, packet: Packet) -> None:
        """Confirm what is asked for and can be repaired, then repair it (sections 5.2, 5.3)."""
        body = packet.body
        assert isinstance(body, Nak)
        if body.source_nla != self._address or body.group_nla != self._group_nla:
            self._counters.malformed["nak_address"] += 1
            return
        slots = self._slots
        sqns = sorted({extend(sqn, slots.unsent) for sqn in (body.sqn, *packet.options.nak_list)})
        self._counters.naks_received += 1
        self._counters.nak_sqns_received += len(sqns)
        held = [sqn for sqn in sqns if slots.trail <= sqn < slots.unsent]
        if len(held) < len(sqns):
            self._counters.naks_outside_window += len(sqns) - len(held)
            if now_ns - self._denied_ns >= _DENIAL_IVL_NS:
                self._denied_ns = now_ns
                self._send_spm()  # tells the trail, so that the asker gives up at once
        accepted = self._repairs.ask(held, now_ns)
        if self._throttle is not None:
            schedule = self._schedule
            # What the window has passed was lost for the same reason.
            missing = len(accepted) + sum(sqn < slots.trail for sqn in sqns)
            self._throttle.note(now_ns, missing, schedule.sent_packets, schedule.sent_bytes)
            self._due[_Timer.THROTTLE] = min(self._due[_Timer.THROTTLE], now_ns + TICK_NS)
        self._counters.naks_ignored += len(held) - len(accepted)
        if not accepted:
            return
        self.asked_ns = now_ns
        for index in range(0, len(accepted), NAK_LIST_LIMIT):
            chunk = accepted[index : index + NAK_LIST_LIMIT]
            ncf = build_ncf(self.tsi, self._dport, chunk, self._address, self._group_nla)
            self._transmits.append(Transmit(GROUP, ncf, len(ncf)))
            self._counters.ncfs_sent += 1
        self._emit_repairs(now_ns)

    def handle_spmr(self, now_ns: int) -> None:
        """Somebody wants an SPM (section 13.4)."""
        self._counters.spmrs_received += 1
        if now_ns - self._spmr_answered_ns >= _SPMR_ANSWER_IVL_NS:
            self._spmr_answered_ns = now_ns
            self._send_spm()

    def handle_timeout(self, now_ns: int) -> None:
        """Whatever is due. Safe early, late and twice."""
        due = self._due
        self.catch_up()
        if now_ns >= due[_Timer.AMBIENT]:
            self._send_spm()
            due[_Timer.AMBIENT] = now_ns + self._timers.spm_ambient_ivl_ns
        if now_ns >= due[_Timer.HEARTBEAT]:
            self._send_spm()
            self._schedule_heartbeat(now_ns)
        if now_ns >= due[_Timer.ADVANCE]:
            self._advance_by_time(now_ns)
        if now_ns >= due[_Timer.THROTTLE]:
            self._regain(now_ns)
        if now_ns >= due[_Timer.REPAIR]:
            self._emit_repairs(now_ns)
        if now_ns >= self._schedule.due_ns:
            self.flush(now_ns)
        elif now_ns >= due[_Timer.COALESCE]:
            self._watch()  # the gate has sent since, and perhaps all there was
        if now_ns >= due[_Timer.PACE]:
            self._emit_data(now_ns)

    # Output.

    def _leave_or_wait(self, now_ns: int, *, alone: bool) -> None:
        slots = self._slots
        if slots.next - slots.unsent >= self._run_packets:
            self._emit_data(now_ns)
        if self._schedule.is_due(now_ns, alone=alone):
            self.flush(now_ns)
        else:
            self._await_company(now_ns)

    def _await_company(self, now_ns: int) -> None:
        """See to it that the open packet leaves in time; until then more may be added to it."""
        schedule = self._schedule
        has_gate = self._has_gate
        schedule.wait(armed=has_gate)
        if has_gate and not self._is_attended and self._baton is not None:
            self._is_attended = self._baton.attend(schedule)
            self._due[_Timer.COALESCE] = _NEVER
        self._watch()
        if has_gate and self._heartbeat == 1:
            # Data that leaves by the gate begins the heartbeats anew: not in the middle of a long
            # pause between two of them, since nothing wakes the loop before it is over.
            schedule.open_until_ns = min(self._due[_Timer.HEARTBEAT], now_ns + self._attend_ivl_ns)
        if has_gate and not self._has_gate:  # closed meanwhile, by a thread without the lock
            self.disarm()
            self._watch()

    def _watch(self) -> None:
        if self._is_attended:
            return
        self._due[_Timer.COALESCE] = self._schedule.due_ns
        self._schedule.is_watched = self._schedule.due_ns < _NEVER

    def _emit_data(self, now_ns: int) -> None:
        """Hand out sealed packets as far as the rate allows, in runs."""
        slots, schedule = self._slots, self._schedule
        if now_ns < self._due[_Timer.PACE] < _NEVER:
            self._due[_Timer.PACE] = self._portion_due_ns()  # the rate may have changed
            if now_ns < self._due[_Timer.PACE]:
                self._await_company(now_ns)
                return  # a portion is due then; until that, packets would leave one by one
        schedule.close()  # first of all
        while (run := schedule.take_run(now_ns)) is not None:
            view, segment_bytes = run
            self._transmits.append(Transmit(GROUP, view, segment_bytes))
        self._due[_Timer.PACE] = _NEVER
        if slots.unsent < slots.next:
            self._due[_Timer.PACE] = self._portion_due_ns()
        self.catch_up()
        self._await_company(now_ns)

    def _portion_due_ns(self) -> int:
        waiting_bytes = (self._slots.next - self._slots.unsent) * self._packet_cost_bytes
        return self._bucket.ready_at_ns(min(waiting_bytes, self._quantum_bytes))

    def _regain(self, now_ns: int) -> None:
        """Let the throttle grow; it rests when nothing is held back and nothing is sent."""
        schedule, throttle = self._schedule, self._throttle
        assert throttle is not None
        throttle.tick(now_ns, schedule.sent_packets, schedule.sent_bytes)
        is_quiet = now_ns - schedule.data_sent_ns > TICK_NS
        rests = throttle.is_full and is_quiet
        self._due[_Timer.THROTTLE] = _NEVER if rests else now_ns + TICK_NS

    def _emit_repairs(self, now_ns: int) -> None:
        self._repairs.forget_below(self._slots.trail)
        for _ in range(0 if self.is_held_up else _REPAIR_RUNS_PER_TURN):
            sqns = self._repairs.next_run(now_ns, self._run_packets)
            if not sqns:
                break
            run = self._slots.repair_run(sqns)
            if run is None:  # the gate, which may send without the lock, has moved the trail on
                self._repairs.forget_below(self._slots.trail)
                continue
            packets, segment_bytes = run
            sent_count = -(-len(packets) // segment_bytes)
            cost_bytes = len(packets) + sent_count * _UDP_IP_BYTES
            self._repairs.sent(sqns[:sent_count], cost_bytes, now_ns)
            self._transmits.append(Transmit(GROUP, packets, segment_bytes))
            self._counters.rdata_sent += sent_count
            self._counters.rdata_bytes_sent += len(packets)
        due_ns = self._repairs.next_timeout_ns()
        self._due[_Timer.REPAIR] = _NEVER if due_ns is None else due_ns

    def _send_spm(self) -> None:
        slots = self._slots
        spm = build_spm(
            self.tsi,
            self._dport,
            self._spm_sqn,
            slots.trail,
            slots.unsent - 1,  # what waits for the pace does not exist yet
            self._address,
            fin=self._closing and not self.has_unsent,
        )
        self._spm_sqn += 1
        self._spm_trail = slots.trail
        self._counters.spms_sent += 1
        self._transmits.append(Transmit(GROUP, spm, len(spm)))

    def _schedule_heartbeat(self, now_ns: int) -> None:
        ivls = self._timers.spm_heartbeat_ivls_ns
        if self._heartbeat < len(ivls):
            self._due[_Timer.HEARTBEAT] = now_ns + ivls[self._heartbeat]
            self._heartbeat += 1
        else:
            self._due[_Timer.HEARTBEAT] = _NEVER

    def _mark(self, now_ns: int) -> None:
        """Remember when packets up to here were sent, coarsely: for longer, never for shorter."""
        step_ns = self._recovery_ns // _MARKS_PER_WINDOW
        if self._marks and now_ns < self._marks[-1][0]:
            self._marks[-1] = (self._marks[-1][0], self._slots.unsent)
            return
        # Everything sent until the mark's step is over may go one recovery_ivl after that.
        self._marks.append((now_ns + step_ns, self._slots.unsent))
        if self._due[_Timer.ADVANCE] == _NEVER:
            self._due[_Timer.ADVANCE] = now_ns + step_ns + self._recovery_ns

    def _advance_by_time(self, now_ns: int) -> None:
        while self._marks and now_ns >= self._marks[0][0] + self._recovery_ns:
            self._slots.advance(self._marks.popleft()[1])
        self._due[_Timer.ADVANCE] = self._marks[0][0] + self._recovery_ns if self._marks else _NEVER
        idle = now_ns - self._schedule.data_sent_ns > self._recovery_ns // _MARKS_PER_WINDOW
        if idle and self._slots.trail > self._spm_trail:
            self._send_spm()  # no data carries the new trail
