"""The receiving end of one source's stream: RFC 3208 sections 6, 9 and 13, for one TSI.

Owns the receive window (kernel ``ReceiveSlots``), its gaps, and what is known of the source.
Invariant: every packet number from the join on is decoded in sequence or reported in one ``Lost``
event, in sequence with the messages around it; a message is delivered whole or not at all.

Data packets come in runs and stay in the kernel while they are in sequence; only what is out of
the ordinary (a gap, a repair, options, a control packet) is looked at here, one by one.
"""

from __future__ import annotations

from ipaddress import ip_address
from random import Random
from typing import Final

from mcast.events import LossReason, Lost, PeerJoined, PeerLeft, PeerRestarted
from mcast.kernel import FrameDecoder, Message, ReceiveSlots, TopicFilter
from mcast.options import SocketOptions, Timers
from mcast.pgm.events import GROUP, EngineEvent, Messages, Transmit
from mcast.pgm.fragments import FragmentAssembler
from mcast.pgm.nak import Gap, GapList, GapState, NakBudget
from mcast.pgm.packet import (
    NAK_LIST_LIMIT,
    Data,
    Nak,
    Packet,
    PacketError,
    Spm,
    build_nak,
    build_spmr,
    parse_untrusted,
    tsi_text,
)
from mcast.pgm.sqn import SQN_MASK, extend
from mcast.stats import Histogram, PgmCounters, Snapshot

__all__ = ["Receiver"]

_HALF_SPACE: Final = 1 << 31
_JUMP_LIMIT: Final = 1 << 16
"""A lead that jumps further must be borne out by two more packets (as RTP's MAX_DROPOUT)."""
_SPAN_LIMIT: Final = 1 << 20
"""Early packets this far ahead of ``next`` are not kept, whatever their size."""
_SPMR_TRIES: Final = 3
_TRIAL_EVERY: Final = 8
"""Every so many requests, one goes by unicast alone to see whether that works by now."""
_RESTART_EVIDENCE: Final = 3
"""SPMs that contradict what is known, each newer than the one before: the source began again."""
_OVERTAKING_NS: Final = 100_000_000
"""An SPM that newer data overtook arrives within this time; one that is later is no accident."""
_SPREAD_NAKS: Final = 16
"""NAKs over which a request is spread when the source confirms more than it repairs."""
_NO_WINDOW: Final = (0, 0x8000_0000)  # trail and lead of an SPM that says nothing (section 8.1)
_NEVER: Final = 1 << 62


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
        self._events = events
        self._transmits = transmits
        self._decoder = FrameDecoder(topic_filter, options.max_msg_size, options.max_parts)
        self._slots = ReceiveSlots(tsi, dport, self._decoder, first_sqn)
        self._retired: Snapshot = {}
        self._gaps = GapList(timers, dice)
        self._fragments = FragmentAssembler(options.max_msg_size)
        self._apdu_drops = 0
        """APDUs dropped on this stream, but for those that a reported loss or the join cut."""
        self._apdus_settled = first_sqn - 1
        """Of an APDU that began here or before, no more pieces are expected or reported."""
        self._malformed_told = self._too_long_told = 0
        self._out: list[Message] = []
        self._out_first = first_sqn
        self._spm_sqn: int | None = None
        self._spm_ns = now_ns
        self._restart_evidence = 0
        self._evidence_sqn: int | None = None
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
        return min(expiry_ns, self._spmr_at_ns, self._gaps.next_timeout_ns)

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
        """True while packets in sequence need nothing but decoding; ask after ``flush``."""
        return not (
            self._gaps
            or self._slots.stored_count
            or self._final_sqn is not None
            or self.is_over
            or self._slots.lead >= self._slots.next
        )

    def resume(self) -> None:
        """Go on where an ``Intake`` has left the window."""
        if not self._out:
            odd_from = self._slots.odd_from
            self._out_first = self._slots.next if odd_from < 0 else odd_from
            self._slots.odd_from = -1

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
        while start < size:
            before = start
            start = slots.take_in_order(data, start, segment_bytes, self._out)
            if self._gaps or slots.stored_count:
                self._settle(now_ns)
            if start < size and slots.lead >= slots.next:
                start = slots.store_run(data, start, segment_bytes, self._options.rxw_bytes)
            if start == before:
                start = self._take_out_of_sequence(now_ns, data, start, segment_bytes)
                if start == before:
                    break
        return start

    def _take_out_of_sequence(
        self, now_ns: int, data: memoryview, start: int, segment_bytes: int
    ) -> int:
        """A plain packet that opens a gap, fills one, came before, moves the trail or has no room;
        where the next to be looked at starts, ``start`` itself if this one is extraordinary."""
        slots, gaps = self._slots, self._gaps
        numbers = slots.numbers_of(data, start, segment_bytes)
        if numbers is None or numbers[0] - slots.lead > _JUMP_LIMIT or gaps.is_full:
            return start
        sqn, trail = numbers
        if trail > slots.next:
            if sqn > slots.lead + 1:
                self._open_gap(now_ns, sqn - 1)
            self._follow_trail(now_ns, data, start, segment_bytes, trail)
        end = min(start + segment_bytes, len(data))
        if sqn < slots.next or slots.holds(sqn):
            slots.duplicate_count += 1
        elif not self._has_room(sqn, end - start):
            # As if the rest of the run had not come: it is missed with the next that does.
            self._counters.rxw_full += -(-(len(data) - start) // segment_bytes)
            return len(data)
        elif sqn > slots.lead:
            if sqn > slots.lead + 1:
                self._open_gap(now_ns, sqn - 1)
            slots.store(sqn, data[start:end])
        else:
            self._note_repair(now_ns, gaps.fill(sqn), 1)
            slots.store(sqn, data[start:end])
        self._settle(now_ns)
        return end

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
        if sqn > slots.lead and not self._reach(now_ns, sqn - 1, sqn):
            return
        if packet.options.fin:
            self._final_sqn = sqn
        if sqn - trail_distance > slots.next:
            self._advance_trail(sqn - trail_distance)
            self._settle(now_ns)  # first, because it makes room
        if sqn < slots.next or slots.holds(sqn):
            slots.store(sqn, raw)  # counts a duplicate
        elif not self._has_room(sqn, len(raw)):
            self._counters.rxw_full += 1
            if sqn > slots.lead and not self._gaps.is_full:
                self._open_gap(now_ns, sqn)
        elif sqn > slots.lead or sqn == slots.next or not self._gaps.is_full:
            self._note_repair(now_ns, self._gaps.fill(sqn), 1)
            slots.store(sqn, raw)
        else:
            self._counters.rxw_full += 1
        self._settle(now_ns)

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
                self._restart_evidence = self._restart_evidence + 1 if rises else 1
                self._evidence_sqn = spm_sqn
            if self._restart_evidence >= _RESTART_EVIDENCE:
                self._restart(now_ns, body)
                return
        elif spm_sqn > self._spm_sqn:
            self._restart_evidence = 0
            self._evidence_sqn = None
            self._spm_ns = now_ns
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
            self._reach(now_ns, furthest, furthest)
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
        if now_ns >= self._slots.heard_ns + self._timers.peer_expiry_ns:
            self.expire(now_ns)
            return
        if self.is_over:
            return
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
        first, last = self._out_first, self._slots.next - 1
        if self._out:
            self._events.append(Messages(self.name, self._out, first, last))
            self._out = []
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
        if lead > self._slots.lead and not self._reach(now_ns, lead, lead):
            return
        if lead + 1 >= self._slots.next:
            self._advance_trail(lead + 1 - size)
        self._settle(now_ns)

    def _reach(self, now_ns: int, last_missing: int, evidence: int) -> bool:
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
            self._open_gap(now_ns, last_missing)
        return True

    def _open_gap(self, now_ns: int, last: int) -> None:
        self._gaps.open(self._slots.lead + 1, last, now_ns)
        self._slots.lead = last
        if self._spm_sqn is None:
            # Whom to ask is only certain once an SPM was heard (section 6.2). Without routers
            # between, the address the data comes from is right; prefer the SPM for a while.
            self._gaps.hold(self._joined_ns + 4 * self._timers.spmr_ivl_ns)

    def _has_room(self, sqn: int, size_bytes: int) -> bool:
        slots = self._slots
        if sqn == slots.next:
            return True
        limit_bytes = self._options.rxw_bytes
        if sqn <= slots.lead:
            limit_bytes += limit_bytes // 4  # a repair was asked for, and is nearer to the front
        fits = slots.stored_bytes + size_bytes <= limit_bytes
        return fits and sqn - slots.next < _SPAN_LIMIT

    def _advance_trail(self, trail: int) -> None:
        """The source can no longer repair below ``trail`` (section 6.3: such packets are lost)."""
        if trail > self._slots.next:
            self._gaps.lose_below(trail, LossReason.WINDOW_ADVANCED)

    def _settle(self, now_ns: int) -> None:
        """Deliver and report whatever has come to the front of the window."""
        slots = self._slots
        front = self._gaps.front
        if front is not None and front.first == slots.next and front.state is not GapState.LOST:
            return  # nothing has
        while True:
            flagged = slots.release(self._out)
            if flagged is not None:
                self._decode_flagged(flagged, slots.next - 1)
                continue
            for gap in self._gaps.drop_below(slots.next):
                self._note_repair(now_ns, gap, gap.count)
            front = self._gaps.front
            if front is None or front.state is not GapState.LOST or front.first != slots.next:
                break
            self._report_lost(self._gaps.pop_front())
        if self._final_sqn is not None and slots.next > self._final_sqn:
            self._end(now_ns, "finished", tail_unknown=False)

    def _decode_flagged(self, raw: bytes, sqn: int) -> None:
        """A packet with options, in sequence: part of a foreign APDU, or data like any other."""
        try:
            packet = parse_untrusted(raw)
        except PacketError:  # cannot be: it was parsed before it was stored
            self._decoder.resync()
            return
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

    def _report_lost(self, gap: Gap) -> None:
        last, gaps = gap.last, self._gaps
        # What was asked for piece by piece and lost together is one loss.
        while (
            (front := gaps.front) is not None
            and front.state is GapState.LOST
            and front.first == last + 1
            and front.reason is gap.reason
        ):
            last = gaps.pop_front().last
        count = last + 1 - gap.first
        self.flush()
        self._counters.lost += count
        self._events.append(Lost(self.name, gap.first, last, count, gap.reason))
        self._fragments.reset()
        self._apdus_settled = last
        self._slots.skip_to(last + 1)
        self._out_first = last + 1

    def _note_repair(self, now_ns: int, gap: Gap | None, count: int) -> None:
        if gap is not None:
            self._counters.repaired += count
            for _ in range(min(count, 64)):  # one number's worth of percentiles is enough
                self._repair_times.add(now_ns - gap.detected_ns)

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
        if self._gaps.asked_unserved:
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

    def _end(self, now_ns: int, reason: str, *, tail_unknown: bool) -> None:
        if self.is_over:
            return  # the same SPM's trail has passed the last that was missing
        self._final_sqn = None
        self._gaps.lose_below(self._slots.lead + 1, LossReason.SOURCE_GONE)
        self._settle(now_ns)
        self.flush()
        self._events.append(PeerLeft(self.name, reason, self._slots.lead, tail_unknown))
        self.is_over = True

    def _restart(self, now_ns: int, body: Spm) -> None:
        """The source began again under the same TSI: end the old stream, start the new one."""
        if not self.is_over:
            self._gaps.lose_below(self._slots.lead + 1, LossReason.DISCONTINUITY)
            self._settle(now_ns)
            self.flush()
        # The new numbers continue above the old ones, so that they only ever grow.
        first = extend((body.lead + 1) & SQN_MASK, self._slots.lead + 1 + _HALF_SPACE)
        self._retired = self.counts()
        self._decoder = FrameDecoder(
            self._decoder.topic_filter, self._options.max_msg_size, self._options.max_parts
        )
        self._slots = ReceiveSlots(self.tsi, self._dport, self._decoder, first)
        self._slots.heard_ns = now_ns
        self._gaps = GapList(self._timers, self._dice)
        self._fragments.reset()
        self._apdu_drops = self._malformed_told = self._too_long_told = 0
        self._apdus_settled = first - 1
        self._out_first = first
        self._spm_sqn = body.sqn
        self._restart_evidence = 0
        self._evidence_sqn = None
        self._settled_lead = self._marked_lead = first - 1
        self._suspect_sqn = None
        self._final_sqn = None
        self.is_over = False
        self._events.append(PeerRestarted(self.name, first))
