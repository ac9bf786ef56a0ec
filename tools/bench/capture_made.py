"""A capture as large as one likes: PGM streams with losses, NAKs and repairs, as tcpdump sees them.

Owns what is in the file. Invariant: the same arguments make the same bytes, and ``Made`` says what
a reader must find in them.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final

from mcast.capture import datagram_packet
from mcast.kernel import TransmitSlots
from mcast.pgm.packet import build_nak, build_ncf, build_spm

__all__ = ["PORT", "Made", "make_capture"]

PORT: Final = 5555
STREAMS: Final = ((1000, 1424), (200, 1424), (64, 100), (300, 400))
"""Message and TSDU bytes of each: two backlogged publishers, two that send a packet a message."""
BURST_SHARE: Final = 0.0005
"""Data packets with which a loss in front of the capturing host begins."""
BURST_LIMIT: Final = 8
"""Most packets of a stream that are lost in a row."""
UNREPAIRED_SHARE: Final = 0.02
"""Bursts that are asked for in vain."""
ANSWER_AFTER: Final = 12
"""Packets, of all streams, between a loss and its NAK, and again to the confirmation and repair."""
SPM_EVERY: Final = 200
SLOTS: Final = 4096
BATCH: Final = 64
STEP_US: Final = 7
"""Between two packets, which is some 1 Gbit/s."""
START_S: Final = 1_700_000_000
SEED: Final = 1

_GROUP: Final = bytes((239, 192, 1, 1))
_RECEIVER: Final = bytes((10, 0, 0, 99))
_ETHERNET: Final = bytes.fromhex("01005e400101 020000000001 0800")
_RECORD: Final = Struct("<IIII")
_PCAP: Final = Struct("<IHHiIII").pack(0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)


@dataclass
class Made:
    """What a capture holds."""

    byte_count: int = 0
    packet_count: int = 0
    types: Counter[str] = field(default_factory=Counter)
    """PGM packets by type."""
    lost_count: int = 0
    """Data packets that are in the capture neither the first time nor repaired."""


class _Publisher:
    """One stream without end; the network in front of the capture loses some of it."""

    def __init__(self, place: int, message_bytes: int, tsdu_bytes: int) -> None:
        self.source = bytes((10, 0, 0, 1 + place))
        self.tsi = bytes((7, 7, 7, 7, 7, place)) + (9000 + place).to_bytes(2, "big")
        self._slots = TransmitSlots(self.tsi, PORT, tsdu_bytes, SLOTS)
        self._message = bytes((65 + place,)) * message_bytes
        self._fills = 2 * message_bytes > tsdu_bytes or message_bytes < tsdu_bytes // 4
        self._ready: deque[bytes] = deque()
        self._spm_count = 0

    def odata(self) -> bytes:
        """The next data packet."""
        while not self._ready:
            for _ in range(BATCH):
                self._slots.append((self._message,))
                if not self._fills:
                    self._slots.seal()
            while (run := self._slots.take_run(BATCH)) is not None:
                view, size = run
                self._ready.extend(bytes(view[at : at + size]) for at in range(0, len(view), size))
        return self._ready.popleft()

    def lose(self) -> int:
        """The next data packet is lost; its number."""
        return int.from_bytes(self.odata()[16:20], "big")

    def rdata(self, sqn: int) -> bytes:
        """A packet again; it is among the last few thousand."""
        run = self._slots.repair_run([sqn])
        assert run is not None
        return run[0]

    def spm(self) -> bytes:
        """The next heartbeat."""
        self._spm_count += 1
        lead = self._slots.unsent - len(self._ready) - 1
        return build_spm(self.tsi, PORT, self._spm_count, self._slots.trail, lead, self.source)


def make_capture(path: Path, size_bytes: int, *, step_us: int = STEP_US) -> Made:
    """Write a pcap of at least ``size_bytes``, a packet every ``step_us``; what is in it."""
    with path.open("wb", buffering=1 << 20) as file:
        return _Capture(file, step_us).make(size_bytes)


class _Capture:
    """The file under way."""

    def __init__(self, file: BinaryIO, step_us: int) -> None:
        self._file = file
        self._step_us = step_us
        self._dice = random.Random(SEED)
        self._made = Made(byte_count=file.write(_PCAP))
        # At which packet, of whom, which numbers.
        self._asked: deque[tuple[int, _Publisher, list[int]]] = deque()
        self._answered: deque[tuple[int, _Publisher, list[int]]] = deque()

    def make(self, size_bytes: int) -> Made:
        """All of it."""
        made, dice = self._made, self._dice
        publishers = [_Publisher(place, *sizes) for place, sizes in enumerate(STREAMS)]
        for publisher in publishers:  # the first packets came: nothing is missed before them
            self._put("ODATA", publisher.source, _GROUP, publisher.odata())
        while made.byte_count < size_bytes:
            publisher = publishers[dice.randrange(len(publishers))]
            if dice.random() < BURST_SHARE:
                numbers = [publisher.lose() for _ in range(dice.randint(1, BURST_LIMIT))]
                self._asked.append((made.packet_count + ANSWER_AFTER, publisher, numbers))
            self._put("ODATA", publisher.source, _GROUP, publisher.odata())
            if made.packet_count % SPM_EVERY == 0:
                self._put("SPM", publisher.source, _GROUP, publisher.spm())
            self._answer(made.packet_count)
        self._answer(made.packet_count + ANSWER_AFTER)  # what is asked for at last,
        self._answer(made.packet_count + ANSWER_AFTER)  # and its repairs
        return made

    def _answer(self, until: int) -> None:
        """NAKs that are due, confirmations and repairs."""
        while self._asked and self._asked[0][0] <= until:
            _, whom, numbers = self._asked.popleft()
            nak = build_nak(whom.tsi, PORT, numbers, whom.source, _GROUP)
            self._put("NAK", _RECEIVER, whom.source, nak)
            self._answered.append((self._made.packet_count + ANSWER_AFTER, whom, numbers))
        while self._answered and self._answered[0][0] <= until:
            _, whom, numbers = self._answered.popleft()
            ncf = build_ncf(whom.tsi, PORT, numbers, whom.source, _GROUP)
            self._put("NCF", whom.source, _GROUP, ncf)
            if self._dice.random() < UNREPAIRED_SHARE:
                self._made.lost_count += len(numbers)
                continue
            for sqn in numbers:
                self._put("RDATA", whom.source, _GROUP, whom.rdata(sqn))

    def _put(self, kind: str, source: bytes, destination: bytes, pgm: bytes) -> None:
        made = self._made
        frame = _ETHERNET + datagram_packet(source, destination, 40_000, PORT, pgm, 1)
        seconds, rest = divmod(made.packet_count * self._step_us, 1_000_000)
        head = _RECORD.pack(START_S + seconds, rest, len(frame), len(frame))
        made.byte_count += self._file.write(head + frame)
        made.types[kind] += 1
        made.packet_count += 1
