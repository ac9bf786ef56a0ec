"""A capture file: pcap or pcapng of several links; in it PGM, fragments, TCP with ZMTP, and noise.

A program of records makes the file, so that checksums, lengths and links mostly fit and the search
gets behind them; a record may be raw bytes, too, and the file may be cut or overwritten anywhere.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from typing import Any

from mcast.capture import streams
from mcast.capture.write import datagram_packet
from tests.fuzz.stacks import Stack, both
from tests.fuzz.target import Cut, Target, must, sealed

PORT = 5555
GROUP = bytes((239, 192, 1, 1))
GROUP6 = b"\xff\x08" + bytes(13) + b"\x01"
NLA = b"\0\1\0\0"
HEADS = {
    101: b"",
    1: bytes(12) + b"\x08\0",
    113: bytes(14) + b"\x08\0",
    276: b"\x08\0" + bytes(18),
    0: b"\2\0\0\0",
    147: b"",
}
"""What stands in front of IP, by link type; the last is unknown."""
LINKS = tuple(HEADS)
GREETING = b"\xff" + bytes(8) + b"\x7f\3\1NULL" + bytes(48)
RECORD_LIMIT = 24
TAGS = (b"\x81\0\0\5", b"\x88\xa8\0\5\x81\0\0\6")


def _pgm(cut: Cut) -> bytes:
    """One packet of four streams, numbers near their beginnings or near the wrap."""
    kind = (4, 4, 4, 5, 0, 8, 10, 12, 13, 1)[cut.octet() % 10]
    choice = cut.octet()
    gsi = bytes((0, 0, 0, 0, 0, choice & 3))
    base = 0xFFFF_FFF8 if choice & 4 else 0
    sqn = (base + cut.octet() + (1 << 30 if choice & 8 and choice & 16 else 0)) & 0xFFFF_FFFF
    trail = (base + (cut.octet() if choice & 32 else 0)) & 0xFFFF_FFFF
    options = b""
    if choice & 64:
        options = cut.take(cut.octet() & 31)
    ports = struct.pack("!HH", 9000, PORT)
    if kind in (8, 12, 13):  # towards the source
        ports = ports[2:] + ports[:2]
    flags = 1 if options else 0
    tsdu = cut.take(cut.octet() & 63) if kind in (4, 5) else b""
    middle = {
        0: struct.pack("!III", sqn, trail, sqn) + NLA + bytes((10, 0, 0, 1)),
        8: struct.pack("!I", sqn) + NLA + bytes((10, 0, 0, 1)) + NLA + GROUP,
    }
    middle[10] = middle[8]
    body = middle.get(kind, struct.pack("!II", sqn, trail)) + options + tsdu
    head = ports + bytes((kind, flags, 0, 0)) + gsi + struct.pack("!H", len(tsdu))
    packet = sealed(head + body)
    return packet if not choice & 128 else packet[:-1] + bytes((cut.octet(),))


def _ip(cut: Cut) -> bytes:
    """A datagram or segment, whole or a fragment of one, over IPv4 or IPv6."""
    what = cut.octet()
    if what & 3 == 3:
        place = cut.octet()
        ends = struct.pack("!HH", 40_000 + (place & 1), 5555)
        payload = GREETING if place & 2 else b""
        payload += cut.take(cut.octet() & 127)
        sqn = 1000 + 16 * (place >> 2 & 7)
        flags = (0x10, 0x02, 0x12, 0x11, 0x14)[cut.octet() % 5]
        if place & 32:
            ends = ends[2:] + ends[:2]
        segment = struct.pack("!4sIIBBHHH", ends, sqn, 0, 0x50, flags, 0, 0, 0) + payload
        hosts = bytes((10, 0, 0, 1, 10, 0, 0, 2))
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 1, 6, 0)
        return head + (hosts[4:] + hosts[:4] if place & 32 else hosts) + segment
    payload = _pgm(cut) if what & 3 else cut.take(cut.octet() & 63)
    if what & 4:
        return datagram_packet(bytes(15) + b"\1", GROUP6, 40_000, PORT, payload, 1)
    packet = datagram_packet(bytes((10, 0, 0, 1)), GROUP, 40_000, PORT, payload, 1)
    if what & 8:  # a fragment of it
        choice = cut.octet()
        first = min(len(packet), 20 + 8 * (choice & 3))
        last = min(len(packet), first + 8 * (choice >> 2 & 15))
        place = (first - 20) // 8 | (0x2000 if last < len(packet) else 0)
        piece = packet[first:last]
        packet = packet[:2] + struct.pack("!HHH", 20 + len(piece), choice >> 6, place)
        packet += struct.pack("!BBH", 1, 17, 0) + bytes((10, 0, 0, 1)) + GROUP + piece
        packet = b"\x45\0" + packet[2:]
    return packet


def _records(cut: Cut, link: int) -> Iterator[tuple[int, bytes, int]]:
    """Times, packets as captured, and what they lack."""
    time_ns = 0
    for _ in range(RECORD_LIMIT):
        if not cut:
            return
        choice = cut.octet()
        if choice & 15 == 15:
            packet = cut.take(cut.octet() & 63)
        else:
            packet = HEADS[link] + _ip(cut)
            if link in (1, 113, 276) and packet[len(HEADS[link]) :][:1] >= b"\x60":
                packet = packet.replace(b"\x08\0", b"\x86\xdd", 1)
            if link == 1 and choice & 16:
                packet = packet[:12] + TAGS[choice >> 5 & 1] + packet[12:]
        missing = cut.octet() & 31 if choice & 64 else 0
        time_ns += 1000 * cut.octet() if choice & 128 else 1000
        yield time_ns, packet[: len(packet) - missing], missing


def made(cut: Cut) -> bytes:
    """The file."""
    choice = cut.octet()
    link = LINKS[cut.octet() % len(LINKS)]
    order = ">" if choice & 2 else "<"
    if choice & 1:
        whole = _section(order, link, cut.octet() if choice & 4 else 9)
        for time_ns, packet, missing in _records(cut, link):
            size = len(packet)
            head = struct.pack(f"{order}IIIII", 0, 0, time_ns, size, size + missing)
            whole += _block(order, 6, head + packet + bytes(-size % 4))
            if time_ns & 0x1F000 == 0x1F000:
                whole += _section(order, link, 9)
    else:
        whole = struct.pack(f"{order}IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, link)
        for time_ns, packet, missing in _records(cut, link):
            size = len(packet)
            whole += struct.pack(f"{order}IIII", 1, time_ns, size, size + missing) + packet
    if choice & 8:
        at = int.from_bytes(bytes((choice >> 4, len(whole) & 0xFF))) % max(1, len(whole))
        whole = whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :]
    return whole if not choice & 16 else whole[: len(whole) - (choice >> 5)]


def _section(order: str, link: int, resolution: int) -> bytes:
    options = struct.pack(f"{order}HHBxxxHH", 9, 1, resolution, 0, 0)
    head = struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)
    interface = struct.pack(f"{order}HHI", link, 0, 0) + options
    return _block(order, 0x0A0D0D0A, head) + _block(order, 1, interface)


def _block(order: str, kind: int, body: bytes) -> bytes:
    total = 12 + len(body)
    return struct.pack(f"{order}II", kind, total) + body + struct.pack(f"{order}I", total)


def read(stack: Stack, data: bytes, *, slowly: bool, packets: bool) -> Any:
    """All that a decoder says of a file; ``slowly`` a few bytes at a time."""
    source = io.BytesIO(data)

    def portion(size: int) -> bytes:
        return source.read(min(size, 37) if slowly else size)

    try:
        decoder = stack.Decoder(stack.CaptureFile(portion), messages=True, packets=packets)
    except stack.CaptureError as error:
        return str(error)
    heard = [
        (step.frame, step.time_ns, step.message)
        for step in decoder.steps()
        if isinstance(step, stack.Heard)
    ]
    for stream in decoder.streams.values():
        _account(stream)
    reports = [stack.stream_fields(stream) for stream in decoder.streams.values()]
    for fields in reports:
        del fields["trail"]  # the kernel does not look at it while nothing is missing
    reports += [stack.session_fields(session) for session in decoder.sessions.sessions]
    reports.append(stack.summary_fields(decoder))
    return json.dumps(reports), sorted(heard, key=lambda row: row[:2])


def _account(stream: Any) -> None:
    """Every number from the first to the last is taken or lost, and every missing one accounted."""
    if stream.slots is None:
        return
    must(not stream.holes, "holes are left", stream.holes)
    must(stream.slots.stored_bytes == 0, "packets are left", stream.slots.stored_bytes)
    came = stream.reordered_count + stream.repaired_count + stream.lost_count
    must(stream.missing_count == came, "missing", stream.missing_count, came)
    if not stream.restart_count:
        span = stream.last_sqn - stream.first_sqn + 1
        taken = stream.slots.packet_count
        must(span == taken + stream.lost_count, "numbers", span, taken, stream.lost_count)


def run(data: bytes) -> None:
    """The file read at once and in small pieces, packet by packet and by the kernel's walk."""
    whole = made(Cut(data))
    reference, native = both()
    found = read(reference, whole, slowly=False, packets=False)
    again = read(native, whole, slowly=True, packets=False)
    must(again == found, "another account of the walk in small pieces", found, again)
    again = read(native, whole, slowly=False, packets=True)
    must(again == found, "another account without the walk", found, again)


def seeds() -> Iterator[bytes]:
    """Each container and link with a gap and its repair, a connection, fragments, and noise."""

    def odata(sqn: int, kind: int = 0) -> bytes:
        return bytes((0, 1, kind, 0, sqn, 6)) + b"\0\0\2\0hi"

    program = odata(0) + odata(2) + bytes((0, 1, 5, 0, 1)) + odata(1, 3) + odata(3)
    hello = bytes((0, 3, 2, 0, 2)) + bytes((0, 3, 38, 5, 0)) + b"\0\3abc"
    pieces = bytes((0, 9, 0, 0, 7, 6)) + b"\0\0\2\0hi" + bytes((4,))
    for link in range(len(LINKS)):
        for container in (0, 1, 2, 3):
            yield bytes((container, link)) + program + hello + pieces
    yield bytes((8, 0)) + program
    yield bytes((5, 0, 0)) + program
    yield bytes((0, 0)) + bytes((15, 5)) + b"noise"


def _forgotten_hole() -> None:
    """The middle of a hole is filled, and what was behind it forgotten."""
    whole = streams.PgmStream._fill

    def fill(self: streams.PgmStream, sqn: int) -> None:
        before = len(self.holes)
        whole(self, sqn)
        if len(self.holes) > before:
            del self.holes[-1]

    streams.PgmStream._fill = fill  # type: ignore[method-assign]


PLANTS = {"forgotten-hole": _forgotten_hole}
TARGET = Target(run, seeds, PLANTS, max_bytes=400)
