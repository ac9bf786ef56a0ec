"""Capture files written: pcapng with nanoseconds, and the IP and UDP headers around a datagram.

Owns the layout of what ``mcast record`` writes: one section, one interface of bare IP. A socket
does not hand out headers, so they are made up from what it does tell: addresses, ports, hop limit.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from mcast.kernel import checksum

__all__ = ["LINK_RAW", "PcapngWriter", "datagram_packet"]

LINK_RAW: Final = 101
"""The link type of packets that begin with IP, version 4 or 6."""

_SECTION: Final = Struct("<IIIHHq")
_BLOCK: Final = Struct("<II")
_INTERFACE: Final = Struct("<HHI")
_PACKET: Final = Struct("<IIIIIII")
_STATISTICS: Final = Struct("<III")
_U64: Final = Struct("<Q")
_OPTION: Final = Struct("<HH")
_IPV4: Final = Struct("!BBHHHBBH4s4s")
_IPV6: Final = Struct("!IHBB16s16s")
_UDP: Final = Struct("!HHHH")
_UDP_PROTOCOL: Final = 17
_DONT_FRAGMENT: Final = 0x4000
_ENHANCED_PACKET: Final = 6


class PcapngWriter:
    """Writes one section to ``write``; the header at once."""

    def __init__(
        self, write: Callable[[bytes], object], *, interface: str = "", link_type: int = LINK_RAW
    ) -> None:
        self._write = write
        self.written_bytes = 0
        """Bytes of the file so far."""
        head = _SECTION.pack(0x0A0D0D0A, 0, 0x1A2B3C4D, 1, 0, -1)[8:]
        self._put(0x0A0D0D0A, head + _option(4, b"mcast record") + _option(0, b""))
        options = _option(2, interface.encode()) if interface else b""
        options += _option(9, b"\x09") + _option(0, b"")  # times in nanoseconds
        self._put(1, _INTERFACE.pack(link_type, 0, 0) + options)

    def packet(self, time_ns: int, data: bytes) -> None:
        """Add a packet. ``time_ns`` counts from 1970."""
        size = len(data)
        padding = -size % 4
        total = 32 + size + padding
        head = _PACKET.pack(
            _ENHANCED_PACKET, total, 0, time_ns >> 32, time_ns & 0xFFFF_FFFF, size, size
        )
        self._write(head + data + bytes(padding) + total.to_bytes(4, "little"))
        self.written_bytes += total

    def statistics(self, time_ns: int, received_count: int, dropped_count: int) -> None:
        """Say how many packets came, and how many the socket's buffer had no room for."""
        options = _option(4, _U64.pack(received_count)) + _option(5, _U64.pack(dropped_count))
        head = _STATISTICS.pack(0, time_ns >> 32, time_ns & 0xFFFF_FFFF)
        self._put(5, head + options + _option(0, b""))

    def _put(self, kind: int, body: bytes) -> None:
        total = 12 + len(body)
        self._write(_BLOCK.pack(kind, total) + body + total.to_bytes(4, "little"))
        self.written_bytes += total


def datagram_packet(
    source: bytes,
    destination: bytes,
    source_port: int,
    destination_port: int,
    payload: bytes,
    hops: int,
) -> bytes:
    """The IP packet of a UDP datagram; addresses of 4 or of 16 bytes.

    UDP's checksum is left out over IPv4, where it may be, and computed over IPv6.
    """
    size = _UDP.size + len(payload)
    udp = _UDP.pack(source_port, destination_port, size, 0) + payload
    if len(source) == 4:
        total = _IPV4.size + size
        fields = (0x45, 0, total, 0, _DONT_FRAGMENT, hops, _UDP_PROTOCOL, 0, source, destination)
        head = _IPV4.pack(*fields)
        return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + udp
    pseudo = source + destination + size.to_bytes(4, "big") + bytes((0, 0, 0, _UDP_PROTOCOL))
    udp = udp[:6] + checksum(pseudo + udp).to_bytes(2, "big") + udp[8:]
    return _IPV6.pack(6 << 28, size, _UDP_PROTOCOL, hops, source, destination) + udp


def _option(code: int, value: bytes) -> bytes:
    return _OPTION.pack(code, len(value)) + value + bytes(-len(value) % 4)
