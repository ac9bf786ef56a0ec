"""UDP datagrams and TCP streams out of classic pcap files, for tests that replay captured peers.

Knows what the captures here hold and no more: little-endian pcap with microseconds, Ethernet or
bare IP, IPv4 with or without options, IPv6 without extension headers. Other packets are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from struct import unpack, unpack_from
from typing import NamedTuple

CAPTURES = Path(__file__).parent / "captures"

_MAGIC_US = 0xA1B2C3D4
_LINK_HEADER_BYTES = {1: 14, 101: 0}  # Ethernet, bare IP
_TCP = 6
_UDP = 17
_SYN, _ACK = 0x02, 0x10


class Datagram(NamedTuple):
    """One captured UDP datagram. ``frame`` counts from 1, as capture tools do."""

    frame: int
    time_ns: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    payload: bytes

    @property
    def to_group(self) -> bool:
        return ip_address(self.destination).is_multicast


class Segment(NamedTuple):
    """What one captured TCP segment added to its stream. ``frame`` counts from 1."""

    frame: int
    time_ns: int
    from_connecter: bool
    """Sent by the side that connected, not by the one that was bound."""
    data: bytes


def read_capture(name: str) -> list[Datagram]:
    """All UDP datagrams of ``captures/NAME.pcap``, in file order."""
    return list(_datagrams((CAPTURES / f"{name}.pcap").read_bytes()))


def read_connection(name: str) -> list[Segment]:
    """The two streams of the only TCP connection in ``captures/NAME.pcap``, in file order.

    Raises ``ValueError`` for a second connection, or for segments that are not in sequence: the
    captures here have neither.
    """
    segments: list[Segment] = []
    connecter = 0
    next_sqn: dict[int, int] = {}
    for frame, time_ns, packet in _packets((CAPTURES / f"{name}.pcap").read_bytes()):
        found = _tcp(packet)
        if found is None:
            continue
        port, sqn, flags, data = found
        if flags & _SYN:
            if port in next_sqn:
                raise ValueError(f"frame {frame} begins a second connection")
            next_sqn[port] = (sqn + 1) & 0xFFFFFFFF
            if not flags & _ACK:
                connecter = port
        elif data:
            if sqn != next_sqn[port]:
                raise ValueError(f"frame {frame} is not in sequence")
            next_sqn[port] = (sqn + len(data)) & 0xFFFFFFFF
            segments.append(Segment(frame, time_ns, port == connecter, data))
    return segments


def _datagrams(data: bytes) -> Iterator[Datagram]:
    for frame, time_ns, packet in _packets(data):
        found = _udp(packet)
        if found is not None:
            yield Datagram(frame, time_ns, *found)


def _packets(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    magic, _, _, _, _, _, link = unpack("<IHHiIII", data[:24])
    if magic != _MAGIC_US or link not in _LINK_HEADER_BYTES:
        raise ValueError(f"not a pcap in microseconds of Ethernet or IP: {magic:#x}, {link}")
    position, frame = 24, 0
    while position < len(data):
        seconds, microseconds, size, _ = unpack_from("<IIII", data, position)
        position += 16
        frame += 1
        time_ns = seconds * 1_000_000_000 + microseconds * 1_000
        yield frame, time_ns, data[position + _LINK_HEADER_BYTES[link] : position + size]
        position += size


def _tcp(packet: bytes) -> tuple[int, int, int, bytes] | None:
    """Source port, sequence number, flags and data of an IPv4 TCP segment."""
    if packet[0] >> 4 != 4 or packet[9] != _TCP:
        return None
    start = 4 * (packet[0] & 0x0F)
    end = unpack_from("!H", packet, 2)[0]
    port, _, sqn, _, offset, flags = unpack_from("!HHIIBB", packet, start)
    return port, sqn, flags, packet[start + 4 * (offset >> 4) : end]


def _udp(packet: bytes) -> tuple[bytes, bytes, int, int, bytes] | None:
    if packet[0] >> 4 == 4 and packet[9] == _UDP:
        start = 4 * (packet[0] & 0x0F)
        source, destination = packet[12:16], packet[16:20]
    elif packet[0] >> 4 == 6 and packet[6] == _UDP:
        start = 40
        source, destination = packet[8:24], packet[24:40]
    else:
        return None
    sport, dport, length = unpack_from("!HHH", packet, start)
    return source, destination, sport, dport, packet[start + 8 : start + length]
