"""The receiving end of one source's stream: RFC 3208 sections 6, 9 and 13, for one TSI.

Owns the receive window (kernel ``ReceiveSlots``), its gaps, and what is known of the source.
Invariant: every packet number from the join on is decoded in sequence or reported in one ``Lost``
event, in sequence with the messages around it; a message is delivered whole or not at all.

Data packets come in runs and stay in the kernel, in sequence or not; only what is out of the
ordinary (options, a control packet, no room) is looked at here one by one, and what is missing once
per batch (``catch_up``).
"""

from __future__ import annotations

from ipaddress import ip_address
from random import Random
from typing import Final

from mcast.events import (
    LossReason,
    Lost,
    PeerHeard,
    PeerJoined,
    PeerLeft,
    PeerQuiet,
    PeerRestarted,
    RepairsLimited,
)
from mcast.kernel import FrameDecoder, Message, ReceiveSlots, TopicFilter
from mcast.options import SocketOptions, Timers
from mcast.pgm.events import GROUP, EngineEvent, Messages, Transmit
from mcast.pgm.fragments import FragmentAssembler
from mcast.pgm.nak import GapList, NakBudget
from mcast.pgm.packet import (
    NAK_LIST_LIMIT,
    Data,
    Nak,
    Packet,
    Spm,
    build_nak,
    build_spmr,
    parse_untrusted,
    tsi_text,
)
from mcast.pgm.sqn import SQN_MASK, extend
from mcast.stats import Histogram, PgmCounters, Snapshot

__all__ = ["Receiver", "Room"]

_HALF_SPACE: Final = 1 << 31
_JUMP_LIMIT: Final = 1 << 16
"""A lead that jumps further must be borne out by two more packets (as RTP's MAX_DROPOUT)."""
_RELEASE_IVL_NS: Final = 1_000_000
"""How often somebody looks whether there is room for what is ready."""
_SPMR_TRIES: Final = 3
_TRIAL_EVERY: Final = 8
"""Every so many requests, one goes by unicast alone to see whether that works by now."""
_RESTART_EVIDENCE: Final = 3
"""SPMs that contradict what is known, each newer than the one before: the source began again."""
_OVERTAKING_NS: Final = 100_000_000
"""An SPM that newer data overtook arrives within this time; one that is later is no accident."""
_PAUSES_MISSED: Final = 3
"""A source is quiet after so many of its longest pauses between SPMs."""
_LONGEST_PAUSE_NS: Final = 30_000_000_000
"""What a source makes between two SPMs is not believed to be longer (libzmq's is 30 s)."""
_EVIDENCE_NS: Final = 10_000_000
"""Evidence that may have been held up on the way is spread over so long: that comes all at once,
and a source that begins sends another SPM after 20 ms (libzmq: 100 ms)."""
_SPM_MEMORY: Final = 64
_SPMS_KNOWN: Final = (1 << _SPM_MEMORY) - 1
"""All of the last ``_SPM_MEMORY`` SPMs came."""
_SPREAD_NAKS: Final = 16
"""NAKs over which a request is spread when the source confirms more than it repairs."""
_LIMITED_IVL_NS: Final = 10_000_000_000
"""How often it is told that repairs come late."""
_NO_WINDOW: Final = (0, 0x8000_0000)  # trail and lead of an SPM that says nothing (section 8.1)
_NEVER: Final = 1 << 62


class Room:
    """How many messages may be released. Of one endpoint; its shell sets it before each input."""

    __slots__ = ("is_pulled", "message_count")

    def __init__(self) -> None:
        self.message_count = 1 << 62
        self.is_pulled = False
        """Whoever takes messages takes what is ready in the plain streams' windows by itself."""


class Receiver:
    """One remote source as this endpoint hears it. Owned by its ``PgmEngine``."""

    def __init__(
        self,
        *,
        tsi: bytes,
        address: bytes,
        group_nla: bytes,
        dport: int,
        first_sqn: int,
        now_ns: int,
        options: SocketOptions,
        timers: Timers,
        topic_filter: TopicFilter,
        dice: Random,
        counters: PgmCounters,
        repair_times: Histogram,
        nak_budget: NakBudget,
        room: Room,
        events: list[EngineEvent],
        transmits: list[Transmit],
    ) -> None:
        self.tsi = tsi
        self.name = tsi_text(tsi)
        self.address = address
        self._group_nla = group_nla
        self._dport = dport
        self._options = options
        self._timers = timers
        self._dice = dice
        self._counters = counters
        self._repair_times = repair_times
        self._nak_budget = nak_budget
        self._room = room
        self._events = events
        self._transmits = transmits
        self._decoder = FrameDecoder(topic_filter, options.max_msg_size, options.max_parts)
        self._slots = ReceiveSlots(tsi, dport, self._decoder, first_sqn, options.rxw_bytes)
        self._retired: Snapshot = {}
        self._gaps = GapList(self._slots, timers, dice)
        self._noted_sqn = first_sqn - 1
        """Up to here what is missing is in ``_gaps``."""
        self._filled_told = 0
        self._repairs_noted = 0
        self._limited_at_ns = now_ns
        """From then on it may be told again that repairs come late."""
        self._release_at_ns = _NEVER
        self._fragments = FragmentAssembler(options.max_msg_size)
        self._apdu_drops = 0
        """APDUs dropped on this stream, but for those that a reported loss or the join cut."""
        self._apdus_settled = first_sqn - 1
        """Of an APDU that began here or before, no more pieces are expected or reported."""
        self._malformed_told = self._too_long_told = 0
        self._out: list[Message] = []
        self._out_first = first_sqn
        self._odd_from = -1
        """Where a run began that an ``Intake`` took and whose messages were not all good, or -1."""
        self._spm_sqn: int | None = None
        self._spm_ns = now_ns
        self._quiet_ns = timers.peer_quiet_ns
        self.is_quiet = False
        """Reported quiet, and not heard since."""
        self._restart_evidence = 0
        self._evidence_sqn: int | None = None
        self._evidence_ns = now_ns
        self._spms_seen = _SPMS_KNOWN
        """Bit n: the SPM n before the newest came in its turn. Those before the first count as if
        they had."""
        self._settled_lead = self._marked_lead = first_sqn - 1
        self._marked_ns = now_ns
        self._suspect_sqn: int | None = None
        self._suspect_count = 0
        self._joined_ns = now_ns
        self._slots.heard_ns = now_ns
        self._spmr_at_ns = now_ns + timers.spmr_ivl_ns + self._dice.randrange(timers.spmr_ivl_ns)
        self._spmr_tries = 0
        self._unicast_works = False
        self._is_proven = False
        self._group_asked = False
        self._asked_group_last = False
        self._request_count = 0
        self._final_sqn: int | None = None
        self.is_over = False
        """The stream has ended; kept for a while so that its last packets do not start it anew."""
        address_text = str(ip_address(address))
        events.append(PeerJoined(self.name, address_text, first_sqn))

    # What the engine asks.

    @property
    def heard_ns(self) -> int:
        """When any packet of this source last came."""
        return self._slots.heard_ns

    @property
    def next_timeout_ns(self) -> int:
        """When ``handle_timeout`` has something to do; early is harmless."""
        expiry_ns = self._slots.heard_ns + self._timers.peer_expiry_ns
        if self.is_over:
            return expiry_ns
        if not self.is_quiet:
            expiry_ns = min(expiry_ns, self._slots.heard_ns + self._quiet_ns)
        return min(expiry_ns, self._spmr_at_ns, self._gaps.next_timeout_ns, self._release_at_ns)

    def counts(self) -> Snapshot:
        """What the kernel counted for this source."""
        slots, decoder = self._slots, self._decoder
        counts: Snapshot = {
            "data_received": slots.packet_count - slots.repair_count,
            "rdata_received": slots.repair_count,
            "bytes_received": slots.payload_bytes,
            "duplicates": slots.duplicate_count,
            "messages_received": decoder.message_count,
            "messages_filtered": decoder.filtered_count,
            "messages_too_long": decoder.too_long_count,
            "malformed_stream": decoder.malformed_count,
        }
        for name, count in self._retired.items():
            counts[name] += count
        return counts

    @property
    def slots(self) -> ReceiveSlots:
        """The window."""
        return self._slots

    @property
    def is_plain(self) -> bool:
        """True while data needs nothing but a place and decoding; ask after ``flush``."""
        return not (
            self._final_sqn is not None
            or self.is_over
            or self.is_quiet  # the next packet is news
            or self._slots.special_count
        )

    def resume(self) -> None:
        """Go on where an ``Intake`` has left the window, before anything else after ``flush``."""
        slots = self._slots
        self._out_first = slots.undecoded
        if slots.odd_from >= 0:
            self._odd_from, slots.odd_from = slots.odd_from, -1

    # Input.

    def set_filter(self, topic_filter: TopicFilter) -> None:
        """Use these subscriptions from the next message on."""
        self._decoder.topic_filter = topic_filter

    def handle_run(self, now_ns: int, data: memoryview, start: int, segment_bytes: int) -> int:
        """Take plain data packets of a run; where the first starts that needs a closer look."""
        self._hear(now_ns)
        if self.is_over:
            return start
        slots = self._slots
        size = len(data)
        while (start := slots.absorb(data, start, segment_bytes, self._out)) < size:
            numbers = slots.numbers_of(data, start, segment_bytes)
            if numbers is None or numbers[0] - slots.lead > _JUMP_LIMIT or self._gaps.is_full:
                break
            sqn, trail = numbers
            # There is no room, unless what is beyond repair is given up, or delivered, first.
            self.catch_up(now_ns)
            if trail > slots.next:
                self._follow_trail(now_ns, data, start, segment_bytes, trail)
            if self._has_ended():
                break  # what was given up was all that it waited for: this came after its end
            if not slots.has_room(sqn, min(segment_bytes, size - start)):
                # As if the rest of the run had not come: it is missed with the next that does.
                self._counters.rxw_full += -(-(size - start) // segment_bytes)
                start = size
        self.catch_up(now_ns)
        return start

    def _follow_trail(
        self, now_ns: int, data: memoryview, start: int, segment_bytes: int, trail: int
    ) -> None:
        """Give up what the run's trail has passed, once for the run: with a full window it moves
        with each packet, and what its last packet says holds when they all have come."""
        last = start + (len(data) - 1 - start) // segment_bytes * segment_bytes
        numbers = self._slots.numbers_of(data, last, segment_bytes)
        if numbers is not None:
            trail = max(trail, min(numbers[1], self._slots.lead + 1))
        self._advance_trail(trail)
        self._settle(now_ns)

    def catch_up(self, now_ns: int) -> None:
        """See to what has come, or has not, since the last look, and to what is ready."""
        slots = self._slots
        slots.has_news = False
        if self.is_over:
            return
        self._note_gaps(now_ns)
        if slots.trail > slots.next:
            self._advance_trail(slots.trail)
        self._settle(now_ns)

    def _note_gaps(self, now_ns: int) -> None:
        lead = self._slots.lead
        if lead > self._noted_sqn:
            self._gaps.open(self._noted_sqn + 1, lead, now_ns)
            self._noted_sqn = lead
            if self._spm_sqn is None:
                # Whom to ask is only certain once an SPM was heard (section 6.2). Without routers
                # between, the address the data comes from is right; prefer the SPM for a while.
                self._gaps.hold(self._joined_ns + 4 * self._timers.spmr_ivl_ns)

    def handle_data(self, now_ns: int, packet: Packet, raw: memoryview) -> None:
        """One ODATA or RDATA packet that the fast path left: early, late, or with options."""
        body = packet.body
        assert isinstance(body, Data)
        slots = self._slots
        trail_distance = (body.sqn - body.trail) & SQN_MASK
        if self.is_over:
            self._counters.after_end += 1
            return
        if trail_distance >= _HALF_SPACE:
            self._counters.malformed["window"] += 1
            return
        sqn = extend(body.sqn, slots.lead)
        if sqn > slots.lead and not self._reach(sqn - 1, sqn):
            return
        if packet.options.fin:
            self._final_sqn = sqn
        if sqn - trail_distance > slots.next:
            self._note_gaps(now_ns)
            self._advance_trail(sqn - trail_distance)
            self._settle(now_ns)  # first, because it makes room
            if self._has_ended():
                self._counters.after_end += 1
                return
        if sqn < slots.next or slots.holds(sqn):
            slots.duplicate_count += 1
        elif slots.has_room(sqn, len(raw)):
            slots.store(sqn, raw)
        else:
            self._counters.rxw_full += 1
            if sqn > slots.lead and not self._gaps.is_full:
                slots.reach(sqn)
        self.catch_up(now_ns)

    def handle_spm(self, now_ns: int, packet: Packet) -> None:
        """An SPM: where the source's window stands, and that it lives (section 6.2)."""
        body = packet.body
        assert isinstance(body, Spm)
        self._hear(now_ns)
        self._spmr_at_ns = _NEVER
        if self._spm_sqn is None:
            self._spm_sqn = body.sqn - 1
        spm_sqn = extend(body.sqn, self._spm_sqn)
        if self._contradicts(packet, body, spm_sqn):
            # Several that a newer one overtook, as when a path changes, come soon after that one.
            is_late = now_ns - self._spm_ns >= _OVERTAKING_NS
            if is_late and spm_sqn != self._evidence_sqn:
                # A chain that does not rise begins anew: reordered, or a forged one led it.
                rises = self._evidence_sqn is not None and spm_sqn > self._evidence_sqn
                if not rises:
                    self._restart_evidence, self._evidence_ns = 0, now_ns
                self._restart_evidence += 1
                self._evidence_sqn = spm_sqn
            age = self._spm_sqn - spm_sqn
            may_be_held_up = 0 <= age < _SPM_MEMORY and not self._spms_seen >> age & 1
            has_time = not may_be_held_up or now_ns - self._evidence_ns >= _EVIDENCE_NS
            if self._restart_evidence >= _RESTART_EVIDENCE and has_time:
                self._restart(now_ns, body)
                return
        elif spm_sqn > self._spm_sqn:
            self._restart_evidence = 0
            self._evidence_sqn = None
            if spm_sqn == self._spm_sqn + 1:
                pause_ns = min(now_ns - self._spm_ns, _LONGEST_PAUSE_NS)
                self._quiet_ns = max(self._quiet_ns, _PAUSES_MISSED * pause_ns)
            self._spm_ns = now_ns
            missed = min(spm_sqn - self._spm_sqn, _SPM_MEMORY)
            self._spms_seen = (self._spms_seen << missed | 1) & _SPMS_KNOWN
        if spm_sqn <= self._spm_sqn:
            self._counters.spms_stale += 1
            return
        self._spm_sqn = spm_sqn
        self._is_proven = True
        self._counters.spms_received += 1
        if body.path_nla != self.address:
            # NAKs go to the address the packets come from, whatever the packet says.
            self._counters.nla_mismatches += 1
        if self.is_over:
            return
        if packet.options.nak_bo_ivl_us is not None:
            wanted_ns = packet.options.nak_bo_ivl_us * 1000
            self._gaps.backoff_ivl_ns = min(max(wanted_ns, 1_000_000), 200_000_000)
        if not packet.options.unreachable:
            self._take_window(now_ns, body)
        if packet.options.reset:
            self._end(now_ns, "reset", tail_unknown=True)
        elif packet.options.fin:
            self._final_sqn = extend(body.lead, self._slots.lead)
            self._settle(now_ns)

    def handle_ncf(self, now_ns: int, packet: Packet) -> None:
        """The source confirms requests: wait for its repairs (section 6.3)."""
        body = packet.body
        assert isinstance(body, Nak)
        self._hear(now_ns)
        self._counters.ncfs_received += 1
        if self.is_over:
            return
        self._is_proven = True
        if not self._asked_group_last:
            self._unicast_works = True
        sqns = self._named(packet, body)
        furthest = max(sqns)
        if furthest > self._slots.lead:
            self._reach(furthest, furthest)
        self._note_gaps(now_ns)
        self._gaps.confirm(sqns, now_ns)

    def handle_peer_nak(self, now_ns: int, packet: Packet) -> None:
        """Another receiver asked the group for packets: ours need no NAK if it asked for them."""
        body = packet.body
        assert isinstance(body, Nak)
        if not self.is_over:
            self._counters.naks_suppressed += 1
            self._gaps.suppress(self._named(packet, body), now_ns)

    def handle_peer_spmr(self, now_ns: int) -> None:
        """Another receiver asked for an SPM: its answer will do (section 13.5)."""
        self._schedule_spmr(now_ns)

    def handle_timeout(self, now_ns: int) -> None:
        """Whatever is due: NAKs, SPMR, giving up, expiry. Safe early, late and twice."""
        self.catch_up(now_ns)
        if now_ns >= self._slots.heard_ns + self._timers.peer_expiry_ns:
            self.expire(now_ns)
            return
        if self.is_over:
            return
        silent_ns = now_ns - self._slots.heard_ns
        if silent_ns >= self._quiet_ns and not self.is_quiet:
            self.is_quiet = True
            self.flush()
            self._events.append(PeerQuiet(self.name, silent_ns / 1e9))
        if now_ns >= self._spmr_at_ns:
            self._request_spm(now_ns)
        if now_ns >= self._gaps.next_timeout_ns:
            self._request_repairs(now_ns)
            self._settle(now_ns)

    def expire(self, now_ns: int) -> None:
        """Nothing more is expected of it: report what is missing, and the end."""
        if not self.is_over:
            self._end(now_ns, "expired", tail_unknown=True)

    def flush(self) -> None:
        """Put the messages decoded so far into the event stream, then what could not be decoded."""
        first, last = self._out_first, self._slots.undecoded - 1
        if self._out:
            self._events.append(Messages(self.name, self._out, first, last))
            self._out = []
        if self._odd_from >= 0:
            first, self._odd_from = self._odd_from, -1
        decoder = self._decoder
        count = decoder.too_long_count - self._too_long_told
        if count:
            self._too_long_told += count
            self._events.append(Lost(self.name, first, last, count, LossReason.TOO_LONG))
        count = decoder.malformed_count + self._apdu_drops - self._malformed_told
        if count:
            self._malformed_told += count
            self._events.append(Lost(self.name, first, last, count, LossReason.MALFORMED))
        self._out_first = last + 1

    # The window.

    def _hear(self, now_ns: int) -> None:
        """Note the time, and which lead has been known for long enough not to be overtaken by."""
        if now_ns - self._marked_ns >= _OVERTAKING_NS:
            was_quiet = now_ns - self._slots.heard_ns >= _OVERTAKING_NS
            self._settled_lead = self._slots.lead if was_quiet else self._marked_lead
            self._marked_lead = self._slots.lead
            self._marked_ns = now_ns
        if self.is_quiet:
            self.is_quiet = False
            self._events.append(PeerHeard(self.name, (now_ns - self._slots.heard_ns) / 1e9))
        self._slots.heard_ns = now_ns

    def _contradicts(self, packet: Packet, body: Spm, spm_sqn: int) -> bool:
        """True if the SPM does not fit the stream as it is known: stale, forged, or a new one's."""
        assert self._spm_sqn is not None
        if spm_sqn < self._spm_sqn or extend(body.lead, self._slots.lead) < self._settled_lead:
            return True
        # After the end every SPM repeats it (section 9.7.2).
        is_end = packet.options.fin or packet.options.reset
        return self.is_over and spm_sqn > self._spm_sqn and not is_end

    def _take_window(self, now_ns: int, body: Spm) -> None:
        if (body.trail, body.lead) == _NO_WINDOW:
            return
        size = (body.lead + 1 - body.trail) & SQN_MASK
        if size >= _HALF_SPACE:
            self._counters.implausible += 1
            return
        lead = extend(body.lead, self._slots.lead)
        if lead > self._slots.lead and not self._reach(lead, lead):
            return
        self._note_gaps(now_ns)
        if lead + 1 >= self._slots.next:
            self._advance_trail(lead + 1 - size)
        self._settle(now_ns)

    def _reach(self, last_missing: int, evidence: int) -> bool:
        """Numbers up to ``last_missing`` exist; False if that is not believed, or not kept."""
        slots = self._slots
        if evidence - slots.lead > _JUMP_LIMIT:
            suspect = self._suspect_sqn
            agrees = suspect is not None and abs(evidence - suspect) <= _JUMP_LIMIT
            self._suspect_count = self._suspect_count + 1 if agrees else 0
            self._suspect_sqn = evidence
            if self._suspect_count < 2:
                self._counters.implausible += 1
                return False
        self._suspect_sqn = None
        if last_missing > slots.lead:
            if self._gaps.is_full:
                self._counters.rxw_full += 1
                return False
            slots.reach(last_missing)
        return True

    def _advance_trail(self, trail: int) -> None:
        """The source can no longer repair below ``trail`` (section 6.3: such packets are lost)."""
        if trail > self._slots.next:
            self._gaps.lose_below(trail, LossReason.WINDOW_ADVANCED)

    def _settle(self, now_ns: int) -> None:
        """Deliver and report whatever has come to the front of the window."""
        slots, gaps = self._slots, self._gaps
        if gaps:
            self._note_repairs(now_ns)
        elif slots.late_sqn >= 0:
            self._note_lateness(now_ns)
        self._release_at_ns = _NEVER
        while True:
            lost = gaps.has_lost_front
            if slots.undecoded < slots.next:
                if not (lost or self._is_for_us):
                    break
                self._release(self._room.message_count)
                if slots.undecoded < slots.next:
                    self._release_at_ns = now_ns + _RELEASE_IVL_NS
                    break
            if not lost:
                break
            self._report_lost()
        if (
            self._final_sqn is not None
            and slots.next > self._final_sqn
            and slots.undecoded == slots.next
        ):
            self._end(now_ns, "finished", tail_unknown=False)

    @property
    def _is_for_us(self) -> bool:
        """True if nobody else releases what is ready."""
        return not (self._room.is_pulled and self.is_plain)

    def _release(self, limit: int) -> None:
        """Decode what is ready, about as many messages as there is room for."""
        out = self._out
        before = len(out)
        while (flagged := self._slots.release(out, before + limit)) is not None:
            self._decode_flagged(flagged, self._slots.undecoded - 1)
        self._room.message_count -= len(out) - before

    def _decode_flagged(self, raw: bytes, sqn: int) -> None:
        """A packet with options, in sequence: part of a foreign APDU, or data like any other."""
        packet = parse_untrusted(raw)  # it was before it was stored, and raises nothing
        assert isinstance(packet.body, Data)
        fragment = packet.options.fragment
        if fragment is None:
            self._decoder.decode(packet.body.tsdu, self._out)
            return
        try:
            apdu = self._fragments.add(fragment, sqn & SQN_MASK, packet.body.tsdu)
        except ValueError:
            self._counters.fragments_dropped += 1
            # The other pieces of a dropped APDU, or of one that a loss cut, are no news.
            if extend(fragment.first_sqn, sqn) > self._apdus_settled:
                self._apdu_drops += 1
                self._apdus_settled = sqn
            self._decoder.resync()
            return
        if apdu is not None:
            self._decoder.decode(apdu, self._out)

    def _report_lost(self) -> None:
        taken = self._gaps.take_lost()
        assert taken is not None
        first, last, reason = taken
        count = last + 1 - first
        self.flush()
        self._counters.lost += count
        self._events.append(Lost(self.name, first, last, count, reason))
        self._fragments.reset()
        self._apdus_settled = last
        self._slots.skip_to(last + 1)
        self._out_first = last + 1

    def _note_repairs(self, now_ns: int) -> None:
        self._note_lateness(now_ns)
        for detected_ns, count in self._gaps.settle(now_ns):
            for _ in range(min(count, 64)):  # one gap's worth of percentiles is enough
                self._repair_times.add(now_ns - detected_ns)
        if now_ns >= self._limited_at_ns and (slow_ns := self._gaps.take_slow(now_ns)):
            self._limited_at_ns = now_ns + _LIMITED_IVL_NS
            self._events.append(RepairsLimited(self.name, slow_ns / 1e9))
        filled_count = self._slots.filled_count
        self._counters.repaired += filled_count - self._filled_told
        self._filled_told = filled_count

    def _note_lateness(self, now_ns: int) -> None:
        slots, gaps = self._slots, self._gaps
        if slots.repair_count > self._repairs_noted:
            self._repairs_noted = slots.repair_count
            gaps.lateness.note_repaired()
        if slots.late_sqn >= 0:
            missed_ns = gaps.missed_ns(slots.late_sqn)
            slots.late_sqn = -1
            if missed_ns is not None:
                gaps.lateness.note_late(now_ns, now_ns - missed_ns)

    # Requests.

    def _named(self, packet: Packet, body: Nak) -> list[int]:
        near = self._slots.next
        return [extend(sqn, near) for sqn in (body.sqn, *packet.options.nak_list)]

    def _request_repairs(self, now_ns: int) -> None:
        sqns, is_repeat = self._gaps.take_due(now_ns)
        if not sqns:
            return
        # A publisher on this host may share its port with others, and a unicast NAK reaches only
        # one of them. Until one was confirmed, repeats go to the group as well, and then what is
        # new, too (section 6.3; libzmq sources answer those); now and then unicast is tried alone
        # again, since the first may just have been lost. What looked like an answer may have been
        # to another receiver.
        self._request_count += 1
        to_group = self._gaps.asked_unheard
        if not self._unicast_works:
            self._group_asked |= is_repeat
            to_group |= is_repeat or (self._group_asked and self._request_count % _TRIAL_EVERY > 0)
        self._asked_group_last = to_group
        per_nak = NAK_LIST_LIMIT
        if self._gaps.asked_unserved and not self._gaps.source_is_behind:
            # A libzmq source repairs one packet for each NAK that arrives, however many the NAK
            # names, so behind long lists it falls back further and further (measured).
            per_nak = min(NAK_LIST_LIMIT, -(-len(sqns) // _SPREAD_NAKS))
        for index in range(0, len(sqns), per_nak):
            chunk = sqns[index : index + per_nak]
            if not self._nak_budget.allows(now_ns, proven=self._is_proven):
                self._counters.naks_withheld += 1  # asked again after NAK_RPT_IVL
                continue
            nak = build_nak(self.tsi, self._dport, chunk, self.address, self._group_nla)
            self._transmits.append(Transmit(self.address, nak, len(nak)))
            if to_group:
                self._transmits.append(Transmit(GROUP, nak, len(nak), hops=1))
            self._counters.naks_sent += 1
            self._counters.nak_sqns_sent += len(chunk)

    def _request_spm(self, now_ns: int) -> None:
        spmr = build_spmr(self.tsi, self._dport)
        self._transmits.append(Transmit(GROUP, spmr, len(spmr), hops=1))
        self._transmits.append(Transmit(self.address, spmr, len(spmr)))
        self._counters.spmrs_sent += 1
        self._spmr_tries += 1
        self._schedule_spmr(now_ns)

    def _schedule_spmr(self, after_ns: int) -> None:
        if self._spmr_at_ns == _NEVER:
            return
        if self._spmr_tries >= _SPMR_TRIES:
            self._spmr_at_ns = _NEVER
        else:
            ivl_ns = self._timers.spmr_ivl_ns << (2 * self._spmr_tries)
            self._spmr_at_ns = after_ns + ivl_ns + self._dice.randrange(ivl_ns)

    # The end, and a new beginning.

    def _has_ended(self) -> bool:
        """``is_over``, asked anew: what was done since may have ended the stream."""
        return self.is_over

    def _end(self, now_ns: int, reason: str, *, tail_unknown: bool) -> None:
        if self.is_over:
            return  # the same SPM's trail has passed the last that was missing
        self._final_sqn = None
        self._deliver_all(now_ns, LossReason.SOURCE_GONE)
        self._events.append(PeerLeft(self.name, reason, self._slots.lead, tail_unknown))
        self.is_over = True
        self.is_quiet = False

    def _deliver_all(self, now_ns: int, reason: LossReason) -> None:
        """What is there, room or not, and what is missing as lost."""
        self._note_gaps(now_ns)
        self._note_repairs(now_ns)
        self._gaps.lose_below(self._slots.lead + 1, reason)
        while self._slots.undecoded <= self._slots.lead:
            self._release(_NEVER)
            if self._gaps.has_lost_front:
                self._report_lost()
        self._release_at_ns = _NEVER
        self.flush()

    def _restart(self, now_ns: int, body: Spm) -> None:
        """The source began again under the same TSI: end the old stream, start the new one."""
        if not self.is_over:
            self._deliver_all(now_ns, LossReason.DISCONTINUITY)
        # The new numbers continue above the old ones, so that they only ever grow.
        first = extend((body.lead + 1) & SQN_MASK, self._slots.lead + 1 + _HALF_SPACE)
        self._retired = self.counts()
        self._decoder = FrameDecoder(
            self._decoder.topic_filter, self._options.max_msg_size, self._options.max_parts
        )
        self._slots = ReceiveSlots(
            self.tsi, self._dport, self._decoder, first, self._options.rxw_bytes
        )
        self._slots.heard_ns = now_ns
        self._gaps = GapList(self._slots, self._timers, self._dice)
        self._noted_sqn = first - 1
        self._filled_told = 0
        self._repairs_noted = 0
        self._fragments.reset()
        self._apdu_drops = self._malformed_told = self._too_long_told = 0
        self._apdus_settled = first - 1
        self._out_first = first
        self._spm_sqn = body.sqn
        self._spm_ns = now_ns
        self._spms_seen = _SPMS_KNOWN
        self._restart_evidence = 0
        self._evidence_sqn = None
        self._settled_lead = self._marked_lead = first - 1
        self._suspect_sqn = None
        self._final_sqn = None
        self.is_over = False
        self._events.append(PeerRestarted(self.name, first))
