"""The records of a capture file that need no thought, walked through: the reference.

Owns the way from a record of pcap or pcapng to plain ODATA of a stream that somebody follows. Part
of ``mcast.kernel.reference``, which says what the kernel contract is. Invariant: it stops in front
of whatever is not just that, so that the caller sees all else, in the file's order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcast.kernel.reference_frames import Buffer, Message

if TYPE_CHECKING:
    from mcast.kernel.reference_receive import ReceiveSlots

__all__ = ["CAPTURE_FIELDS", "CaptureFlow", "CaptureWalk"]

CAPTURE_FIELDS = (
    "frame",
    "time_ns",
    "seconds",
    "nanoseconds",
    "source_port",
    "hops",
    "checksum",
    "tsdu_length",
    "sqn",
    "trail",
)
"""What differs between the plain ODATA of a flow, and ``CaptureFlow.pattern`` has the places of.
``seconds`` and ``nanoseconds``, the latter in nine digits, are the parts of ``time_ns``; and
``source_port`` is UDP's."""

_SQN_MASK = 0xFFFF_FFFF
_ODATA = 0x04
_DATA_HEADER_BYTES = 24
_UDP = 17
_ENHANCED_PACKET = 6  # the block of pcapng that holds a packet
_VLAN_TAGS = (b"\x81\x00", b"\x88\xa8")
_IP_TYPES = (b"\x08\x00", b"\x86\xdd")
_VLAN_LIMIT = 2
_PEAK_IVL_NS = 100_000_000  # the shortest time over which a rate is given
_RAW_LINKS = (12, 14, 101, 228, 229)


class CaptureFlow:
    """One stream in a capture: its receive window, and what its packets add up to."""

    __slots__ = (
        "_bucket",
        "_bucket_bytes",
        "byte_count",
        "first_ns",
        "last_ns",
        "packet_count",
        "pattern",
        "peak_bytes",
        "slots",
    )

    def __init__(self, slots: ReceiveSlots) -> None:
        self.slots = slots
        """The window; the caller changes it as a receiver would."""
        self.pattern: tuple[tuple[bytes, int], ...] = ()
        """A line about a packet: bytes, and the place in ``CAPTURE_FIELDS`` of the number behind
        them, or -1."""
        self.packet_count = 0
        """Packets that ``heard`` was told of, those that ``CaptureWalk`` took among them."""
        self.byte_count = 0
        """Their bytes on the wire."""
        self.first_ns = 0
        """When the first was captured, since 1970."""
        self.last_ns = 0
        """When the last was captured."""
        self.peak_bytes = 0
        """The most bytes within one tenth of a second."""
        self._bucket = -1
        self._bucket_bytes = 0

    def heard(self, time_ns: int, size_bytes: int) -> None:
        """Count a packet of this stream."""
        if not self.packet_count:
            self.first_ns = time_ns
        self.last_ns = time_ns
        self.packet_count += 1
        self.byte_count += size_bytes
        if time_ns // _PEAK_IVL_NS != self._bucket:
            self._bucket = time_ns // _PEAK_IVL_NS
            self._bucket_bytes = 0
        self._bucket_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self._bucket_bytes)


class CaptureWalk:
    """Goes through records and takes plain ODATA that comes next in a flow, or early behind a hole.

    ``flows`` maps source address, destination address, UDP destination port, data-source port and
    GSI, as they stand in the packet, to the flow. Taken are whole, unfragmented UDP datagrams over
    Ethernet (two VLAN tags at most), Linux cooked, loopback or nothing, over IPv4 or plain IPv6.
    """

    __slots__ = (
        "_interfaces",
        "_is_little",
        "_is_ng",
        "arrivals",
        "flows",
        "frame_count",
        "lines",
        "stored_bytes_limit",
    )

    def __init__(self, is_ng: bool, is_little: bool, stored_bytes_limit: int) -> None:
        self._is_ng = is_ng
        self._is_little = is_little
        self._interfaces: list[tuple[int, int]] = []
        self.flows: dict[bytes, CaptureFlow] = {}
        self.arrivals: list[tuple[CaptureFlow, int, int, int, list[Message]]] | None = None
        """Flow, time, frame, sequence number and messages of packets that completed any; or
        None: nobody wants them."""
        self.lines: bytearray | None = None
        """A line for each packet taken, by its flow's pattern; or None: nobody wants them."""
        self.frame_count = 0
        """Records taken; the caller adds those that it takes itself."""
        self.stored_bytes_limit = stored_bytes_limit

    def add_interface(self, link_type: int, tick_ns: int) -> None:
        """The next interface; ``tick_ns`` is what a fraction counts in, 0 for none in whole ns."""
        self._interfaces.append((link_type, tick_ns))

    def walk(self, data: Buffer, start: int) -> int:
        """Take records of ``data`` from ``start`` on; where the first stands that it leaves."""
        view = memoryview(data)
        while True:
            found = self._record(view, start)
            if found is None:
                return start
            end, time_ns, link_type, packet = found
            where = self._datagram(link_type, packet)
            if where is None or not self._take(time_ns, packet, *where):
                return start
            start = end

    def _word(self, view: memoryview, at: int) -> int:
        return int.from_bytes(view[at : at + 4], "little" if self._is_little else "big")

    def _record(self, view: memoryview, start: int) -> tuple[int, int, int, memoryview] | None:
        """End of the record, its time, link type and packet, if all is there and captured whole."""
        left = len(view) - start
        if self._is_ng:
            if left < 28 or self._word(view, start) != _ENHANCED_PACKET:
                return None
            size = self._word(view, start + 4)
            index = self._word(view, start + 8)
            captured = self._word(view, start + 20)
            if size % 4 or size > left or index >= len(self._interfaces) or captured > size - 32:
                return None
            if size < 32 or captured != self._word(view, start + 24):
                return None
            link_type, tick_ns = self._interfaces[index]
            ticks = self._word(view, start + 12) << 32 | self._word(view, start + 16)
            if not tick_ns or ticks >= (1 << 62) // tick_ns:
                return None
            packet = view[start + 28 : start + 28 + captured]
            return start + size, ticks * tick_ns, link_type, packet
        if left < 16 or not self._interfaces:
            return None
        captured = self._word(view, start + 8)
        if captured > left - 16 or captured != self._word(view, start + 12):
            return None
        link_type, tick_ns = self._interfaces[0]
        time_ns = self._word(view, start) * 1_000_000_000 + self._word(view, start + 4) * tick_ns
        return start + 16 + captured, time_ns, link_type, view[start + 16 : start + 16 + captured]

    @staticmethod
    def _datagram(link_type: int, packet: memoryview) -> tuple[int, int, int, int] | None:
        """Where the addresses begin, their size, where UDP begins and ends; None: not so simple."""
        if link_type == 1:
            at = 12
            for _ in range(_VLAN_LIMIT):
                if bytes(packet[at : at + 2]) in _VLAN_TAGS:
                    at += 4
            if bytes(packet[at : at + 2]) not in _IP_TYPES:
                return None
            at += 2
        elif link_type in _RAW_LINKS:
            at = 0
        elif link_type in (0, 108):
            at = 4
        elif link_type == 113:
            at = 16
            if bytes(packet[14:16]) not in _IP_TYPES:
                return None
        elif link_type == 276:
            at = 20
            if bytes(packet[0:2]) not in _IP_TYPES:
                return None
        else:
            return None
        left = len(packet) - at
        if left < 28:
            return None
        version = packet[at] >> 4
        if version == 4:
            head = 4 * (packet[at] & 0x0F)
            total = int.from_bytes(packet[at + 2 : at + 4], "big")
            fragment = int.from_bytes(packet[at + 6 : at + 8], "big") & 0x3FFF
            if head < 20 or total > left or total < head + 8 or fragment or packet[at + 9] != _UDP:
                return None
            addresses, size, udp, end = at + 12, 8, at + head, at + total
        elif version == 6 and left >= 48 and packet[at + 6] == _UDP:
            total = 40 + int.from_bytes(packet[at + 4 : at + 6], "big")
            if total > left or total < 48:
                return None
            addresses, size, udp, end = at + 8, 32, at + 40, at + total
        else:
            return None
        length = int.from_bytes(packet[udp + 4 : udp + 6], "big")
        if length < 8 + _DATA_HEADER_BYTES or udp + length > end:
            return None
        return addresses, size, udp, udp + length

    def _take(
        self, time_ns: int, packet: memoryview, addresses: int, size: int, udp: int, end: int
    ) -> bool:
        pgm = udp + 8
        key = (
            bytes(packet[addresses : addresses + size])
            + bytes(packet[udp + 2 : udp + 4])
            + bytes(packet[pgm : pgm + 2])
            + bytes(packet[pgm + 8 : pgm + 14])
        )
        flow = self.flows.get(key)
        if flow is None or packet[pgm + 4] != _ODATA:
            return False
        slots = flow.slots
        payload = packet[pgm:end]
        sqn = int.from_bytes(payload[16:20], "big")
        if sqn != (slots.lead + 1) & _SQN_MASK:
            return False
        if slots.hole_count:
            trail = int.from_bytes(payload[20:24], "big")
            is_too_much = slots.stored_bytes + len(payload) > self.stored_bytes_limit
            if is_too_much or slots.lead + 1 - ((sqn - trail) & _SQN_MASK) > slots.next:
                return False
        messages: list[Message] = []
        if slots.absorb(payload, 0, len(payload), messages) == 0:
            return False
        if messages and self.arrivals is not None:
            self.arrivals.append((flow, time_ns, self.frame_count + 1, sqn, messages))
        self.frame_count += 1
        flow.heard(time_ns, len(packet))
        if self.lines is not None:
            self._print(flow, time_ns, packet, addresses, size, udp)
        return True

    def _print(
        self,
        flow: CaptureFlow,
        time_ns: int,
        packet: memoryview,
        addresses: int,
        size: int,
        udp: int,
    ) -> None:
        assert self.lines is not None
        pgm = packet[udp + 8 :]
        hops = packet[addresses - 4] if size == 8 else packet[addresses - 1]
        values = (
            b"%d" % self.frame_count,
            b"%d" % time_ns,
            b"%d" % (time_ns // 1_000_000_000),
            b"%09d" % (time_ns % 1_000_000_000),
            b"%d" % int.from_bytes(packet[udp : udp + 2], "big"),
            b"%d" % hops,
            b"%d" % int.from_bytes(pgm[6:8], "big"),
            b"%d" % int.from_bytes(pgm[14:16], "big"),
            b"%d" % int.from_bytes(pgm[16:20], "big"),
            b"%d" % int.from_bytes(pgm[20:24], "big"),
        )
        for literal, place in flow.pattern:
            self.lines += literal
            if place >= 0:
                self.lines += values[place]
