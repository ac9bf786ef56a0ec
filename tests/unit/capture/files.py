"""Capture files made of bytes, for the tests of what reads them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable

from mcast.capture.files import CaptureFile
from mcast.capture.write import datagram_packet

SOURCE = bytes((10, 0, 0, 1))
GROUP = bytes((239, 192, 1, 1))
START_NS = 1_700_000_000_000_000_000

Packets = Iterable[tuple[int, bytes]]


def pcap(packets: Packets, *, link: int = 101, order: str = "<", nano: bool = True) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    data = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    for time_ns, packet in packets:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        fraction = rest if nano else rest // 1000
        data += struct.pack(f"{order}IIII", seconds, fraction, len(packet), len(packet)) + packet
    return data


def pcapng(
    packets: Packets, *, link: int = 101, order: str = "<", tsresol: int | None = 9
) -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        total = 12 + len(body)
        return struct.pack(f"{order}II", kind, total) + body + struct.pack(f"{order}I", total)

    options = b""
    per_s = 10**6
    if tsresol is not None:
        options = struct.pack(f"{order}HHBxxxHH", 9, 1, tsresol, 0, 0)
        per_s = 2 ** (tsresol & 0x7F) if tsresol & 0x80 else 10**tsresol
    data = block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += block(1, struct.pack(f"{order}HHI", link, 0, 0) + options)
    for time_ns, packet in packets:
        ticks = time_ns * per_s // 1_000_000_000
        head = struct.pack(
            f"{order}IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(packet), len(packet)
        )
        data += block(6, head + packet + bytes(-len(packet) % 4))
    return data


def udp(payload: bytes, *, source: bytes = SOURCE, group: bytes = GROUP, port: int = 5555) -> bytes:
    return datagram_packet(source, group, 40000, port, payload, 1)


def opened(data: bytes) -> CaptureFile:
    return CaptureFile(io.BytesIO(data).read)
