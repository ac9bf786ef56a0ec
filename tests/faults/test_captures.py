"""What hostile capture files cost: row S21 of the fault matrix."""

from __future__ import annotations

import gc
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mcast.capture import CaptureError, Decoder
from mcast.capture.fields import session_fields, stream_fields, summary_fields
from mcast.capture.files import CaptureFile
from mcast.kernel import checksum
from mcast.pgm.packet import build_nak
from tests.support.figures import figure
from tests.unit.capture.files import GROUP, SOURCE, START_NS, opened, pcap, pcapng, udp
from tests.unit.kernel.packets import data_packet

PORT = 5555
PACKET_COUNT = 40_000
LIMIT_BYTES = 150_000_000
CLAIM_LIMIT_BYTES = 1 << 20
BODY = b"\0\0" + b"\xff" + (1 << 24).to_bytes(8, "big") + b"\0"
"""The beginning of a message that claims 16 MiB."""
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)


def tsi(number: int) -> bytes:
    return number.to_bytes(6, "big") + (9029).to_bytes(2, "big")


def data(stream: int, sqn: int, body: bytes) -> bytes:
    packet = data_packet(sqn, body, tsi=tsi(stream), dport=PORT, checksum=0)
    return udp(packet[:6] + checksum(packet).to_bytes(2, "big") + packet[8:])


def streams() -> Iterator[bytes]:
    """A stream of its own for each packet."""
    for number in range(PACKET_COUNT):
        yield data(number, 0, BODY)


def holes() -> Iterator[bytes]:
    """Every other packet of 500 streams."""
    for number in range(PACKET_COUNT):
        yield data(number % 500, 2 * (number // 500), BODY)


def requests() -> Iterator[bytes]:
    """NAKs, 63 numbers each, for 500 streams."""
    for number in range(PACKET_COUNT):
        first = 63 * (number // 500)
        nak = build_nak(tsi(number % 500), PORT, range(first, first + 63), SOURCE, GROUP)
        yield udp(nak)


def long_messages() -> Iterator[bytes]:
    """Messages of 16 MiB, never whole, in 500 streams."""
    for number in range(PACKET_COUNT):
        body = BODY + bytes(1400) if number < 500 else b"\xff\xff" + bytes(1400)
        yield data(number % 500, number // 500, body)


def fragments() -> Iterator[bytes]:
    """Fragments of datagrams that never end, 64 of each, overlapping."""
    for number in range(PACKET_COUNT):
        place = 0x2000 | (1 + number % 64)
        head = struct.pack("!BBHHHBBH", 0x45, 0, 1400, number // 64 % 65536, place, 1, 17, 0)
        yield head + SOURCE + GROUP + bytes(1380)


def connections() -> Iterator[bytes]:
    """Greetings, and behind each a hole and what came early, in many connections."""
    for number in range(PACKET_COUNT):
        port, place = number // 5 % 60_000, number % 5
        payload = GREETING if place == 0 else bytes(1300)
        sqn = 0 if place == 0 else 1000 + 1300 * place
        head = struct.pack("!HHIIBBHHH", 1 + port, 5555, sqn, 0, 0x50, 0x10, 0, 0, 0)
        total = 40 + len(payload)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, total, 0, 0, 1, 6, 0) + SOURCE + GROUP
        yield ip + head + payload


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Endless:
    """A file made while it is read."""

    def __init__(self, packets: Iterator[bytes]) -> None:
        self._packets = packets
        self._rest = pcap([])
        self.size_bytes = 0

    def read(self, size: int) -> bytes:
        pieces = [self._rest]
        held = len(self._rest)
        while held < size and (packet := next(self._packets, None)) is not None:
            pieces.append(pcap([(START_NS, packet)])[24:])
            held += len(pieces[-1])
        whole = b"".join(pieces)
        self._rest = whole[size:]
        self.size_bytes += min(held, size)
        return whole[:size]


@pytest.mark.slow
@pytest.mark.parametrize(
    "packets", [streams, holes, requests, long_messages, fragments, connections]
)
def test_a_hostile_capture_costs_little_memory(packets: Callable[[], Iterator[bytes]]) -> None:
    file = Endless(packets())
    gc.collect()
    before = most = rss_bytes()
    decoder = Decoder(CaptureFile(file.read), messages=True)
    for step in decoder.steps():
        if step is None:
            most = max(most, rss_bytes())
    report = [stream_fields(stream) for stream in decoder.streams.values()]
    report += [session_fields(session) for session in decoder.sessions.sessions]
    most = max(most, rss_bytes())
    assert summary_fields(decoder)["frames"] == PACKET_COUNT
    grown = most - before
    figure(
        "S21",
        f"{packets.__name__.replace('_', ' ')}, {file.size_bytes / 1e6:.0f} MB: "
        f"{grown / 1e6:.0f} MB of memory",
        met=grown < LIMIT_BYTES,
    )
    assert grown < LIMIT_BYTES


def test_a_length_that_is_a_lie_allocates_nothing() -> None:
    """Each four bytes of small files of both kinds in turn, made a length that is believed."""
    dice = random.Random(5)
    packets = [(START_NS, data(1, sqn, BODY)) for sqn in range(3)]
    most = tried = 0
    for whole in (pcap(packets), pcapng(packets)):
        for at in range(0, len(whole) - 4, 2):
            claim = dice.choice((0x00FF_FFF0, 0x00F0_0000, 0x7FFF_FFFC, 0xFFFF_FFFC, 0x10_0000))
            lie = whole[:at] + struct.pack("<I", claim) + whole[at + 4 :]
            tracemalloc.start()
            try:
                decoder = Decoder(opened(lie), messages=True)
                for _ in decoder.steps():
                    pass
            except CaptureError:
                pass
            most = max(most, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            tried += 1
    met = most < CLAIM_LIMIT_BYTES
    figure("S21", f"{tried} lies about a length: {most / 1e3:.0f} kB at most", met=met)
    assert met
