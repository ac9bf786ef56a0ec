"""The receive window: the reference. Part of ``mcast.kernel.reference``.

Owns the packets of one stream from the socket to the decoder: which numbers have come, which are
missing (*holes*), and those packets that are held because a number before them is missing, or
because nobody has asked for their messages yet (*ready*). Owns no decision: whether a hole is asked
for or given up is the business of ``mcast.pgm``, which looks at the holes once per batch.

Invariants: ``next`` is the first number that has not come; the holes are disjoint, in order, lie
between ``next`` and ``lead``, and the first of them starts at ``next``; what lies between and is no
hole is held; packets are decoded in sequence, each once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from mcast.kernel.reference_frames import Buffer, FrameDecoder, Message
from mcast.kernel.reference_sum import checksum_ok

__all__ = ["ReceiveSlots"]

_SQN_MASK: Final = 0xFFFF_FFFF
_HALF_SPACE: Final = 1 << 31
_ODATA: Final = 0x04
_RDATA: Final = 0x05
_DATA_HEADER_BYTES: Final = 24  # common header 16, data_sqn 4, trail 4 (RFC 3208 section 8.2)
_LEAP_LIMIT: Final = 1 << 16
"""A packet further ahead than this is left to the caller (as RTP's MAX_DROPOUT)."""
_SPAN_LIMIT: Final = 1 << 20
"""Early packets this far ahead of what was decoded are not kept, whatever their size."""
_HOLE_LIMIT: Final = 4096
"""Most holes of one window; the loss of 10 % of 1 Gbit/s during a repair makes about 700."""
_LEAST_FRAME_BYTES: Final = 2
_DEFAULT_LIMIT_BYTES: Final = 1 << 26


class ReceiveSlots:
    """One receive window: packets in order go straight to the decoder, early ones are held.

    *Plain* means: ODATA or RDATA of this TSI and port, without options, of the right length, with a
    checksum that holds. What is not plain is left to the caller, who may ``store`` it; ``release``
    hands it back in sequence when it carries options.
    """

    __slots__ = (
        "_gsi",
        "_holes",
        "_ports",
        "_store",
        "decoder",
        "duplicate_count",
        "filled_count",
        "has_news",
        "heard_ns",
        "late_sqn",
        "lead",
        "limit_bytes",
        "mended_first",
        "mended_last",
        "next",
        "odd_from",
        "packet_count",
        "payload_bytes",
        "repair_count",
        "special_count",
        "stored_bytes",
        "trail",
        "undecoded",
    )

    def __init__(
        self,
        tsi: bytes,
        dport: int,
        decoder: FrameDecoder,
        first_sqn: int,
        limit_bytes: int = _DEFAULT_LIMIT_BYTES,
    ) -> None:
        """``limit_bytes``: most bytes of packets held; what fills a hole may exceed it by a
        quarter."""
        if len(tsi) != 8 or not 0 < dport < 65536:
            raise ValueError("a TSI has 8 bytes and a port is 1 to 65535")
        self._ports = tsi[6:8] + dport.to_bytes(2, "big")
        self._gsi = tsi[:6]
        self._store: dict[int, bytes] = {}
        self._holes: list[list[int]] = []  # first and last number of each
        self.undecoded = first_sqn
        """First packet that was not decoded; those from here to ``next`` are ready."""
        self.decoder = decoder
        self.limit_bytes = limit_bytes
        self.next = first_sqn
        """First number that has not come."""
        self.lead = first_sqn - 1
        """Highest number known to exist."""
        self.trail = 0
        """Highest trail that a packet told: what is below can no longer be repaired."""
        self.has_news = False
        """A hole was opened or filled, or may be beyond repair; set here, cleared by the owner."""
        self.late_sqn = -1
        """Lowest number that came as ODATA after it was missed, or -1; set back by the owner."""
        self.mended_first = 0
        self.mended_last = -1
        """Between these lies what was missed and has come; set by the owner, so that ODATA which
        comes behind its own repair is known to have been late."""
        self.heard_ns = 0
        """When the source was last heard, by whoever reads."""
        self.odd_from = -1
        """First packet of a run whose messages were not all good, or -1 (see ``Intake``)."""
        self.stored_bytes = 0
        """Bytes of the packets held."""
        self.special_count = 0
        """How many of the packets held carry options."""
        self.packet_count = 0
        """Data packets taken, in order or early."""
        self.repair_count = 0
        """How many of ``packet_count`` were RDATA."""
        self.filled_count = 0
        """How many of ``packet_count`` were missing before."""
        self.payload_bytes = 0
        """TSDU bytes of ``packet_count``."""
        self.duplicate_count = 0
        """Packets that had come before."""

    @property
    def stored_count(self) -> int:
        """Packets held."""
        return len(self._store)

    @property
    def ready_count(self) -> int:
        """Packets held that ``release`` would decode."""
        return self.next - self.undecoded

    @property
    def hole_count(self) -> int:
        """Stretches of numbers that are missing."""
        return len(self._holes)

    @property
    def hole_last(self) -> int:
        """Last number of the first hole; one less than ``next`` if there is none."""
        return self._holes[0][1] if self._holes else self.next - 1

    @property
    def is_full(self) -> bool:
        """True when another hole might exceed the limit of 4096."""
        return len(self._holes) >= _HOLE_LIMIT - 2

    def holds(self, sqn: int) -> bool:
        """True if the packet ``sqn`` is held."""
        return sqn in self._store

    def missing(self, first: int, last: int, limit: int) -> list[int]:
        """The missing numbers from ``first`` to ``last``, at most ``limit`` of them."""
        found: list[int] = []
        for low, high in self._between(first, last):
            found.extend(range(low, min(high, low + limit - len(found) - 1) + 1))
            if len(found) >= limit:
                break
        return found

    def missing_count(self, first: int, last: int) -> int:
        """How many numbers from ``first`` to ``last`` are missing."""
        return sum(high + 1 - low for low, high in self._between(first, last))

    def _between(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        index = max(0, bisect_right(self._holes, first, key=_first) - 1)
        while first <= last and index < len(self._holes) and self._holes[index][0] <= last:
            low, high = self._holes[index]
            if high >= first:
                yield max(low, first), min(high, last)
            index += 1

    def reach(self, last: int) -> None:
        """Numbers up to ``last`` exist, says an SPM or an NCF: those above ``lead`` are missing."""
        if last > self.lead:
            self._open(self.lead + 1, last)
            self.lead = last
            self._advance()

    def absorb(self, data: memoryview, start: int, segment_bytes: int, out: list[Message]) -> int:
        """Take the plain packets of a run, in order, early, late or known; where the first other
        starts.

        ``data`` holds datagrams of ``segment_bytes`` each, the last one may be shorter; ``start``
        is the byte to begin at. What comes in sequence while nothing is ready is decoded into
        ``out``, the rest is held until ``release``. Also stops where there is no room: in bytes, in
        holes, or because the packet lies too far ahead.
        """
        size = len(data)
        while start < size:
            packet = data[start : start + segment_bytes]
            if not self._is_plain(packet):
                break
            sqn = self._nearest(packet)
            if self._is_known(sqn):
                self.duplicate_count += 1
                if self.mended_first <= sqn <= self.mended_last:
                    self._note_late(sqn, packet[4])
            elif not self._has_room(sqn, len(packet)):
                break
            else:
                self._count(packet)
                if sqn == self.undecoded:
                    self.decoder.decode(packet[_DATA_HEADER_BYTES:], out)
                    self.undecoded += 1
                else:
                    self._keep(sqn, bytes(packet))
                self._arrive(sqn, packet[4])
            self._note_trail(sqn - self._trail_distance(packet))
            start += segment_bytes
        return min(start, size)

    def numbers_of(
        self, data: memoryview, start: int, segment_bytes: int
    ) -> tuple[int, int] | None:
        """Number and trail of the packet at ``start`` of a run if it is plain, else None."""
        packet = data[start : start + segment_bytes]
        if not self._is_plain(packet):
            return None
        sqn = self._nearest(packet)
        return sqn, sqn - self._trail_distance(packet)

    def has_room(self, sqn: int, size_bytes: int) -> bool:
        """True if a packet that has not come yet may be kept."""
        return self._has_room(sqn, size_bytes)

    def store(self, sqn: int, packet: Buffer) -> bool:
        """Keep one data packet that the caller has checked; False if it had come before.

        Raises ``ValueError`` if it is shorter than a data packet's header or too far ahead; else
        it looks at no limit.
        """
        if len(packet) < _DATA_HEADER_BYTES:
            raise ValueError(f"a data packet has at least {_DATA_HEADER_BYTES} bytes")
        if sqn - self.undecoded >= _SPAN_LIMIT:
            raise ValueError(f"{sqn} is too far ahead of {self.undecoded}")
        if self._is_known(sqn):
            self.duplicate_count += 1
            return False
        self._count(memoryview(packet))
        self._keep(sqn, bytes(packet))
        self._arrive(sqn, packet[4])
        return True

    def release(self, out: list[Message], message_limit: int) -> bytes | None:
        """Decode packets that are ready; one with options that is next in sequence, or None.

        A packet that might bring ``out`` beyond ``message_limit`` messages stays held, unless
        ``out`` is empty and the limit is not. A packet that is returned counts as decoded; the
        caller reads its options and calls again.
        """
        while self.undecoded < self.next and len(out) < message_limit:
            packet = self._store[self.undecoded]
            most = (len(packet) - _DATA_HEADER_BYTES) // _LEAST_FRAME_BYTES
            if out and len(out) + most > message_limit:
                break
            self._drop(self.undecoded)
            self.undecoded += 1
            if packet[5]:
                return packet
            self.decoder.decode(memoryview(packet)[_DATA_HEADER_BYTES:], out)
        return None

    def refuse(self, limit_bytes: int) -> int:
        """Count the messages of what is ready, oldest first, until no more than ``limit_bytes`` are
        held or one with options is next; how many messages are gone with it."""
        decoder = self.decoder
        before = decoder.refused_count
        decoder.refuses = True
        try:
            while self.stored_bytes > limit_bytes and self.undecoded < self.next:
                packet = self._store[self.undecoded]
                if packet[5]:
                    break
                self._drop(self.undecoded)
                self.undecoded += 1
                decoder.decode(memoryview(packet)[_DATA_HEADER_BYTES:], [])
        finally:
            decoder.refuses = False
        return decoder.refused_count - before

    def skip_to(self, sqn: int) -> None:
        """Give up what is missing below ``sqn``, and what is held there: the decoder is out of
        step, and goes on with ``sqn`` or what follows."""
        sqn = max(sqn, self.next)
        for number in [number for number in self._store if number < sqn]:
            self._drop(number)
        while self._holes and self._holes[0][1] < sqn:
            del self._holes[0]
        if self._holes:
            self._holes[0][0] = max(self._holes[0][0], sqn)
        self.lead = max(self.lead, sqn - 1)
        self.undecoded = sqn
        self._advance()
        self.decoder.resync()

    def _is_known(self, sqn: int) -> bool:
        return sqn < self.next or sqn in self._store

    def _has_room(self, sqn: int, size_bytes: int) -> bool:
        if sqn == self.undecoded:
            return True
        if sqn - self.undecoded >= _SPAN_LIMIT:
            return False
        limit_bytes = self.limit_bytes
        if sqn <= self.lead:
            limit_bytes += limit_bytes // 4  # a repair was asked for, and is nearer to the front
        elif sqn > self.lead + 1 and (self.is_full or sqn - self.lead > _LEAP_LIMIT):
            return False
        if self.stored_bytes + size_bytes > limit_bytes:
            return False
        if sqn < self.lead and self.is_full:
            low, high = self._holes[bisect_right(self._holes, sqn, key=_first) - 1]
            return not low < sqn < high  # another hole would come of it
        return True

    def _keep(self, sqn: int, packet: bytes) -> None:
        self._store[sqn] = packet
        self.stored_bytes += len(packet)
        self.special_count += packet[5] != 0

    def _drop(self, sqn: int) -> None:
        packet = self._store.pop(sqn)
        self.stored_bytes -= len(packet)
        self.special_count -= packet[5] != 0

    def _arrive(self, sqn: int, kind: int) -> None:
        """Note that a number has come which had not."""
        if sqn > self.lead:
            if sqn > self.lead + 1:
                self._open(self.lead + 1, sqn - 1)
            self.lead = sqn
        else:
            self._fill(sqn)
            self.filled_count += 1
            self._note_late(sqn, kind)
        self._advance()

    def _note_late(self, sqn: int, kind: int) -> None:
        if kind == _ODATA:
            self.late_sqn = min(sqn, self.late_sqn) if self.late_sqn >= 0 else sqn
            self.has_news = True

    def _note_trail(self, trail: int) -> None:
        if trail > self.trail:
            self.trail = trail
            self.has_news |= trail > self.next and bool(self._holes)

    def _open(self, first: int, last: int) -> None:
        self.has_news = True
        if self._holes and self._holes[-1][1] == first - 1:
            self._holes[-1][1] = last
        else:
            self._holes.append([first, last])

    def _fill(self, sqn: int) -> None:
        self.has_news = True
        index = bisect_right(self._holes, sqn, key=_first) - 1
        low, high = self._holes[index]
        if low == high:
            del self._holes[index]
        elif sqn == low:
            self._holes[index][0] = sqn + 1
        else:
            self._holes[index][1] = sqn - 1
            if sqn < high:
                self._holes.insert(index + 1, [sqn + 1, high])

    def _advance(self) -> None:
        self.next = self._holes[0][0] if self._holes else self.lead + 1

    def _is_plain(self, packet: memoryview) -> bool:
        return (
            len(packet) > _DATA_HEADER_BYTES
            and packet[4] in (_ODATA, _RDATA)
            and packet[5] == 0
            and packet[:4] == self._ports
            and packet[8:14] == self._gsi
            and int.from_bytes(packet[14:16], "big") == len(packet) - _DATA_HEADER_BYTES
            and any(packet[6:8])  # a checksum was computed
            and self._trail_distance(packet) < _HALF_SPACE
            and checksum_ok(packet)
        )

    def _nearest(self, packet: memoryview) -> int:
        """The packet's number, the nearest to the lead, as serial arithmetic has it."""
        ahead = (int.from_bytes(packet[16:20], "big") - self.lead + _HALF_SPACE) & _SQN_MASK
        return self.lead + ahead - _HALF_SPACE

    @staticmethod
    def _trail_distance(packet: memoryview) -> int:
        """How far the packet's trail lies behind its own number."""
        sqn = int.from_bytes(packet[16:20], "big")
        return (sqn - int.from_bytes(packet[20:24], "big")) & _SQN_MASK

    def _count(self, packet: memoryview) -> None:
        self.packet_count += 1
        self.repair_count += packet[4] == _RDATA
        self.payload_bytes += int.from_bytes(packet[14:16], "big")


def _first(hole: list[int]) -> int:
    return hole[0]
