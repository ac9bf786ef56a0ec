"""What a capture shows of one PGM stream: window, gaps, repairs, duplicates, losses, rates.

Owns the account of one source as the capturing host heard it: it takes the place of a receiver
that never asks, and waits for a missing number as long as the source's window holds it. Invariants:
every number between the first heard and the last is taken, missing or lost; lists are cut at
``LIST_LIMIT`` entries, counts go on.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter, OrderedDict
from typing import Final, NamedTuple

from mcast.capture.room import Room
from mcast.kernel import CaptureFlow, FrameDecoder, Message, ReceiveSlots, TopicFilter
from mcast.pgm.packet import NCF, RDATA, Data, Nak, Packet, Spm, tsi_text
from mcast.pgm.sqn import extend

__all__ = ["LIST_LIMIT", "Gap", "PgmStream", "Repair"]

LIST_LIMIT: Final = 10_000
"""Gaps, repairs and lost ranges listed for each stream; all are counted."""
_HOLE_LIMIT: Final = 4096
"""Missing ranges waited for at once, as in a receiver; the oldest is given up."""
_HOLE_BYTES: Final = 256
_ASKED_BYTES: Final = 400
"""What a missing range, and a number asked for, count as beside the packets held."""
_PENDING_LIMIT: Final = 65_536
"""Numbers asked for and not repaired that are kept."""
_JUMP_LIMIT: Final = 1 << 20
"""A number further ahead is no gap but another stream under the same name (1.5 GB of packets)."""
_SPAN_LIMIT: Final = 1 << 20
"""Packets behind the first missing one that a window keeps places for (``ReceiveSlots``)."""
_NO_LIMIT_BYTES: Final = 1 << 62  # of one window; the decoder looks at all of them together
_MESSAGE_LIMIT_BYTES: Final = 32 << 20
_PART_LIMIT: Final = 65_536
_EVERYTHING: Final = TopicFilter((b"",))
_NOTHING: Final = TopicFilter()


class Gap(NamedTuple):
    """Numbers that did not come in their turn."""

    first: int
    last: int
    time_ns: int
    """When the packet came that showed it."""


class Repair(NamedTuple):
    """One number that was asked for and came again."""

    sqn: int
    nak_ns: int | None
    """When the first NAK for it was captured, or None if none was."""
    ncf_ns: int | None
    rdata_ns: int


class PgmStream:
    """One TSI from one address."""

    def __init__(
        self,
        tsi: bytes,
        source: bytes,
        destination: bytes,
        port: int,
        dport: int,
        *,
        keep_messages: bool,
        room: Room,
    ) -> None:
        """``port`` is UDP's (0: PGM over IP), ``dport`` the data-destination port."""
        self._room = room
        self.tsi = tsi
        self.source = source
        self.destination = destination
        self.port = port
        self.dport = dport
        wanted = _EVERYTHING if keep_messages else _NOTHING
        self._decoder = FrameDecoder(wanted, _MESSAGE_LIMIT_BYTES, _PART_LIMIT)
        self.flow: CaptureFlow | None = None
        """The window; None until data was heard."""
        self.counts: Counter[str] = Counter()
        """Packets by type, but ODATA that the kernel took: see ``odata_count``."""
        self._slow_odata_count = 0
        self.refused: Counter[str] = Counter()
        """Packets that an end system drops, by reason."""
        self.first_sqn = 0
        self.trail: int | None = None
        self.spm_lead: int | None = None
        self.holes: list[list[int]] = []
        """Missing numbers still waited for, as first and last, in order."""
        self.gaps: list[Gap] = []
        self.gap_count = 0
        self.missing_count = 0
        """Numbers that were in gaps."""
        self.reordered_count = 0
        """Gaps' numbers that came as ODATA after all."""
        self.repaired_count = 0
        """Gaps' numbers that came as RDATA."""
        self.repairs: list[Repair] = []
        self.repair_count = 0
        """RDATA that answered a NAK or NCF in the capture."""
        self.lost: list[Gap] = []
        self.lost_count = 0
        self.duplicate_count = 0
        self.late_count = 0
        """Numbers that came after they had been given up, or before the first heard."""
        self.restart_count = 0
        self.fragment_count = 0
        self.is_finished = False
        """The source said FIN."""
        self._pending: OrderedDict[int, list[int | None]] = OrderedDict()
        self._finished = (0, 0)

    @property
    def name(self) -> str:
        """The TSI as people read it."""
        return tsi_text(self.tsi)

    @property
    def key(self) -> bytes:
        """What ``CaptureWalk`` knows it by."""
        ports = self.port.to_bytes(2, "big") + self.tsi[6:]
        return self.source + self.destination + ports + self.tsi[:6]

    @property
    def slots(self) -> ReceiveSlots | None:
        """The receive window, None until data was heard."""
        return self.flow.slots if self.flow else None

    @property
    def last_sqn(self) -> int:
        """The highest number heard; below ``first_sqn`` if there was none."""
        return self.slots.lead if self.slots else self.first_sqn - 1

    @property
    def odata_count(self) -> int:
        """ODATA packets that an end system would take."""
        others = self.counts["RDATA"] + self._slow_odata_count
        taken = self.flow.packet_count - others if self.flow else 0
        return self._slow_odata_count + taken

    @property
    def message_count(self) -> int:
        """Messages that came whole."""
        return self._decoder.message_count + self._decoder.filtered_count

    @property
    def malformed_count(self) -> int:
        """Places where the payload is not libzmq's framing."""
        return self._decoder.malformed_count

    @property
    def unanswered(self) -> list[int]:
        """Numbers asked for and never repaired in the capture."""
        return sorted(self._pending)

    def handle(
        self, packet: Packet, raw: bytes, time_ns: int, size_bytes: int, out: list[Message]
    ) -> None:
        """Account for a packet of or to this source; messages it completes go to ``out``."""
        kind = packet.header.type
        if packet.options.fin:
            self.is_finished = True
        body = packet.body
        if isinstance(body, Data):
            self._handle_data(packet, body, raw, time_ns, size_bytes, out)
            return
        if isinstance(body, Spm):
            self._handle_spm(body, out)
        elif isinstance(body, Nak):
            for sqn in (body.sqn, *packet.options.nak_list):
                self._ask(self._extended(sqn), time_ns, is_ncf=kind == NCF)

    def finish(self, out: list[Message]) -> None:
        """The capture is over: what is missing now is lost as far as it can tell."""
        if self.slots is not None:
            self._give_up(self.slots.lead + 1, out)

    @property
    def held_bytes(self) -> int:
        """What early packets, holes and requests take, about."""
        stored_bytes = self.slots.stored_bytes if self.slots else 0
        return stored_bytes + _HOLE_BYTES * len(self.holes) + _ASKED_BYTES * len(self._pending)

    def relieve(self, limit_bytes: int, out: list[Message]) -> None:
        """Give up the oldest requests, then the oldest holes, until ``held_bytes`` is within it."""
        while self.held_bytes > limit_bytes and self._pending:
            self._pending.popitem(last=False)
        while self.held_bytes > limit_bytes and self.holes:
            self._give_up(self.holes[0][1] + 1, out)

    def unfinished_bytes(self) -> int:
        """What the message under way may hold: all that came since one was whole, when this was
        asked last."""
        now = self._progress()
        if now[0] != self._finished[0] or not self._decoder.is_partial:
            self._finished = now
        return now[1] - self._finished[1]

    def drop_unfinished(self) -> None:
        """Let go of the message under way; the next one is read again."""
        self._decoder.resync()
        self._finished = self._progress()

    def _progress(self) -> tuple[int, int]:
        """Messages that came whole, and bytes that came."""
        return self.message_count, self.slots.payload_bytes if self.slots else 0

    def _extended(self, sqn: int) -> int:
        return extend(sqn, self.slots.lead) if self.slots else sqn

    def _handle_spm(self, body: Spm, out: list[Message]) -> None:
        slots = self.slots
        if slots is None:
            self.trail, self.spm_lead = body.trail, body.lead
            return
        trail, lead = self._extended(body.trail), self._extended(body.lead)
        if trail - lead <= 1 and abs(lead - slots.lead) < _JUMP_LIMIT:
            self.spm_lead = lead
            self._handle_trail(trail, out)

    def _handle_trail(self, trail: int, out: list[Message]) -> None:
        self.trail = trail
        assert self.slots is not None
        if trail > self.slots.next:
            self._give_up(min(trail, self.slots.lead + 1), out)

    def _handle_data(
        self,
        packet: Packet,
        body: Data,
        raw: bytes,
        time_ns: int,
        size_bytes: int,
        out: list[Message],
    ) -> None:
        is_repair = packet.header.type == RDATA
        if self.flow is None:
            self._begin(body.sqn)
        assert self.flow is not None
        self.flow.heard(time_ns, size_bytes)
        slots = self.flow.slots
        sqn = self._extended(body.sqn)
        if sqn - slots.lead > _JUMP_LIMIT or slots.lead - sqn > _JUMP_LIMIT:
            self._give_up(slots.lead + 1, out)
            self.restart_count += 1
            self._begin(body.sqn)
            slots, sqn = self.flow.slots, body.sqn
        if not is_repair:
            self._slow_odata_count += 1
        else:
            self._repair(sqn, time_ns)
        self._handle_trail(extend(body.trail, sqn), out)
        if sqn < slots.next:
            if sqn < self.first_sqn or self._was_lost(sqn):
                self.late_count += 1
            else:
                self.duplicate_count += 1
            return
        if slots.holds(sqn):
            self.duplicate_count += 1
            return
        if sqn <= slots.lead:
            self._fill(sqn)
            if is_repair:
                self.repaired_count += 1
            else:
                self.reordered_count += 1
        elif sqn > slots.lead + 1:
            self._open_hole(slots.lead + 1, sqn - 1, time_ns, out)
        while sqn - slots.undecoded >= _SPAN_LIMIT and self.holes:
            self._give_up(self.holes[0][1] + 1, out)
        slots.store(sqn, raw)
        self._release(out)

    def _begin(self, sqn: int) -> None:
        port = self.dport or 1
        slots = ReceiveSlots(self.tsi, port, self._decoder, sqn, _NO_LIMIT_BYTES)
        if self.flow is None:
            self.flow = CaptureFlow(slots)
            self.first_sqn = sqn
        else:
            self.flow.slots = slots
            self._decoder.resync()

    def _open_hole(self, first: int, last: int, time_ns: int, out: list[Message]) -> None:
        self.gap_count += 1
        self.missing_count += last - first + 1
        self._room.add(self.gaps, Gap(first, last, time_ns), LIST_LIMIT)
        self.holes.append([first, last])
        if len(self.holes) > _HOLE_LIMIT:
            self._give_up(self.holes[0][1] + 1, out)

    def _fill(self, sqn: int) -> None:
        place = bisect_right(self.holes, sqn, key=lambda hole: hole[0]) - 1
        first, last = self.holes[place]
        rest = [[first, sqn - 1]] if first < sqn else []
        rest += [[sqn + 1, last]] if sqn < last else []
        self.holes[place : place + 1] = rest

    def _release(self, out: list[Message]) -> None:
        """Decode what is in sequence now, packets with options among it."""
        assert self.slots is not None
        while (packet := self.slots.release(out, sys.maxsize)) is not None:
            start = 24 + int.from_bytes(packet[26:28], "big")
            if any(packet[at] & 0x7F == 1 for at in _option_starts(packet)):
                self.fragment_count += 1  # an APDU of OpenPGM's, which libzmq's framing has not
                continue
            self._decoder.decode(memoryview(packet)[start:], out)

    def _give_up(self, until: int, out: list[Message]) -> None:
        """Numbers below ``until`` that are missing will not come any more."""
        assert self.flow is not None
        slots, time_ns = self.flow.slots, self.flow.last_ns
        while self.holes and self.holes[0][0] < until:
            first, last = self.holes[0]
            cut = min(last, until - 1)
            self.lost_count += cut - first + 1
            self._room.add(self.lost, Gap(first, cut, time_ns), LIST_LIMIT)
            slots.skip_to(cut + 1)
            if cut < last:
                self.holes[0][0] = cut + 1
            else:
                del self.holes[0]
                self._release(out)

    def _was_lost(self, sqn: int) -> bool:
        place = bisect_right(self.lost, sqn, key=lambda gap: gap.first) - 1
        return place >= 0 and sqn <= self.lost[place].last

    def _ask(self, sqn: int, time_ns: int, *, is_ncf: bool) -> None:
        pending = self._pending.get(sqn)
        if pending is None:
            if len(self._pending) == _PENDING_LIMIT:
                self._pending.popitem(last=False)
            pending = self._pending[sqn] = [None, None]
        if pending[is_ncf] is None:
            pending[is_ncf] = time_ns

    def _repair(self, sqn: int, time_ns: int) -> None:
        pending = self._pending.pop(sqn, None)
        if pending is None:
            return
        self.repair_count += 1
        self._room.add(self.repairs, Repair(sqn, pending[0], pending[1], time_ns), LIST_LIMIT)


def _option_starts(packet: bytes) -> list[int]:
    """Where the options behind OPT_LENGTH start; the packet was parsed before, so they are good."""
    starts = []
    at, end = 28, 24 + int.from_bytes(packet[26:28], "big")
    while at + 4 <= end:
        starts.append(at)
        at += packet[at + 1]
    return starts
