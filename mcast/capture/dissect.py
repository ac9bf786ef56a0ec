"""From a captured packet to the UDP datagram or TCP segment in it: links, VLANs, IP, fragments.

Owns those layouts, and the fragments that wait for others. Invariants: bytes raise nothing, what
cannot be read is a reason in a counter; fragments kept are limited in number and bytes.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from mcast.capture.files import Record

__all__ = ["PGM_PROTOCOL", "TCP", "UDP", "Dissector", "Transport"]

TCP: Final = 6
UDP: Final = 17
PGM_PROTOCOL: Final = 113

_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLANS: Final = (0x8100, 0x88A8)
_VLAN_LIMIT: Final = 2
_LINK_RAW: Final = (12, 14, 101, 228, 229)
_LINK_NULL: Final = (0, 108)
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_EXTENSION_LIMIT: Final = 8
_OPEN_LIMIT: Final = 256
"""Datagrams under reassembly, each of 64 KiB at most; the oldest makes room."""
_DATAGRAM_LIMIT: Final = 65535
_PIECE_LIMIT: Final = 64
_DONE: Final = -1


class Transport(NamedTuple):
    """What IP carried: a UDP datagram, a TCP segment, or PGM over IP itself (ports 0)."""

    frame: int
    time_ns: int
    protocol: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    payload: bytes | memoryview
    hops: int
    """Time to live, or hop limit."""
    wire_bytes: int
    """Of the record."""
    sqn: int = 0
    """TCP's sequence number."""
    flags: int = 0
    """TCP's flags."""
    missing_bytes: int = 0
    """Of the end of the payload, not captured (the snapshot length)."""


class _Pieces:
    __slots__ = ("data", "size_bytes", "total")

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}
        self.size_bytes = 0
        self.total = _DONE


class Dissector:
    """Turns records into transports; keeps fragments until they are whole."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        """Why packets were passed by: ``link_type``, ``not_ip``, ``protocol``, ``malformed``,
        ``cut_short``, ``fragment`` (of one that is not whole yet)."""
        self._open: dict[tuple[bytes, bytes, int, int], _Pieces] = {}

    @property
    def unfinished_count(self) -> int:
        """Datagrams of which fragments are missing."""
        return len(self._open)

    def dissect_untrusted(self, record: Record) -> Transport | None:
        """The transport in a record, or None, counted in ``skipped``."""
        found = self._ip(record)
        if isinstance(found, str):
            self.skipped[found] += 1
            return None
        return found

    def _ip(self, record: Record) -> Transport | str:
        data, link = record.data, record.link_type
        at = 0
        kind = 0
        if link == 1:
            kind, at = _word(data, 12), 14
            for _ in range(_VLAN_LIMIT):
                if kind in _VLANS:
                    kind, at = _word(data, at + 2), at + 4
        elif link == 113:
            kind, at = _word(data, 14), 16
        elif link == 276:
            kind, at = _word(data, 0), 20
        elif link in _LINK_NULL:
            at = 4
        elif link not in _LINK_RAW:
            return "link_type"
        if kind not in (0, _IPV4, _IPV6):
            return "not_ip"
        packet = data[at:]
        version = packet[0] >> 4 if packet else 0
        if version == 4:
            return self._ipv4(record, packet)
        if version == 6:
            return self._ipv6(record, packet)
        return "cut_short" if not packet else "not_ip"

    def _ipv4(self, record: Record, packet: memoryview) -> Transport | str:
        head = 4 * (packet[0] & 0x0F)
        if head < 20:
            return "malformed"
        if len(packet) < head:
            return "cut_short"
        total = _word(packet, 2)
        if total == 0:  # the card was to fill it in (segmentation offload)
            total = len(packet)
        if total < head:
            return "malformed"
        source, destination = bytes(packet[12:16]), bytes(packet[16:20])
        place = _word(packet, 6)
        payload: bytes | memoryview = packet[head:total]
        missing = total - head - len(payload)
        if place & 0x3FFF:
            if missing:
                return "cut_short"
            key = (source, destination, packet[9], _word(packet, 4))
            whole = self._join(key, 8 * (place & 0x1FFF), bytes(payload), bool(place & 0x2000))
            if isinstance(whole, str):
                return whole
            payload = whole
        return _transport(record, packet[9], source, destination, payload, packet[8], missing)

    def _ipv6(self, record: Record, packet: memoryview) -> Transport | str:
        if len(packet) < 40:
            return "cut_short"
        total = 40 + _word(packet, 4)
        source, destination = bytes(packet[8:24]), bytes(packet[24:40])
        kind, at = packet[6], 40
        payload: bytes | memoryview = packet[:total]
        missing = total - len(payload)
        for _ in range(_EXTENSION_LIMIT):
            if kind in (_HOP_BY_HOP, _ROUTING, _DESTINATION):
                if len(payload) < at + 8:
                    return "cut_short"
                kind, at = payload[at], at + 8 * (payload[at + 1] + 1)
            elif kind == _FRAGMENT:
                if len(payload) < at + 8 or missing:
                    return "cut_short"
                place = _word(payload, at + 2)
                number = int.from_bytes(payload[at + 4 : at + 8], "big")
                key = (source, destination, payload[at], number)
                piece = bytes(payload[at + 8 :])
                whole = self._join(key, place & 0xFFF8, piece, bool(place & 1))
                if isinstance(whole, str):
                    return whole
                kind, payload, at = payload[at], whole, 0
            else:
                break
        return _transport(record, kind, source, destination, payload[at:], packet[7], missing)

    def _join(
        self, key: tuple[bytes, bytes, int, int], offset: int, piece: bytes, more: bool
    ) -> bytes | str:
        pieces = self._open.get(key)
        if pieces is None:
            if len(self._open) == _OPEN_LIMIT:
                del self._open[next(iter(self._open))]
                self.skipped["fragments_given_up"] += 1
            pieces = self._open[key] = _Pieces()
        pieces.size_bytes += 0 if offset in pieces.data else len(piece)
        if max(offset + len(piece), pieces.size_bytes) > _DATAGRAM_LIMIT or (
            len(pieces.data) == _PIECE_LIMIT
        ):
            del self._open[key]
            return "malformed"
        pieces.data.setdefault(offset, piece)
        if not more:
            pieces.total = offset + len(piece)
        whole = bytearray()
        while (part := pieces.data.get(len(whole))) and len(whole) != pieces.total:
            whole += part
        if len(whole) != pieces.total:
            return "fragment"
        del self._open[key]
        return bytes(whole)


def _word(data: bytes | memoryview, at: int) -> int:
    """Two bytes; 0xFFFF, which is no type of interest, where there are none."""
    return int.from_bytes(data[at : at + 2], "big") if len(data) >= at + 2 else 0xFFFF


def _transport(
    record: Record,
    protocol: int,
    source: bytes,
    destination: bytes,
    payload: bytes | memoryview,
    hops: int,
    missing_bytes: int,
) -> Transport | str:
    common = (record.frame, record.time_ns, protocol, source, destination)
    if protocol == UDP:
        if len(payload) < 8:
            return "cut_short"
        size = _word(payload, 4)
        if size < 8:
            return "malformed"
        data = payload[8:size]
        missing = size - 8 - len(data)
        ports = (_word(payload, 0), _word(payload, 2))
        return Transport(*common, *ports, data, hops, record.original_bytes, 0, 0, missing)
    if protocol == TCP:
        head = 4 * (payload[12] >> 4) if len(payload) > 13 else 0
        if len(payload) < max(head, 20):
            return "cut_short"
        if head < 20:
            return "malformed"
        ports = (_word(payload, 0), _word(payload, 2))
        sqn, flags = int.from_bytes(payload[4:8], "big"), payload[13]
        return Transport(
            *common, *ports, payload[head:], hops, record.original_bytes, sqn, flags, missing_bytes
        )
    if protocol == PGM_PROTOCOL:
        return Transport(*common, 0, 0, payload, hops, record.original_bytes, 0, 0, missing_bytes)
    return "protocol"
