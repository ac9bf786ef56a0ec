"""The demonstration's bookkeeping: what a payload holds, and whether a stream was accounted for.

A payload is ``incarnation u64 | stream u32 | counter u64 | length u32 | crc32 u32 | filler``. A
``Ledger`` hears, in stream order, of each message delivered and each loss reported. Invariant: it
closes only if every counter from 0 to ``total`` - 1 was either delivered, once, in order and
intact, or lies in a gap that was reported at that very place of the stream.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Final
from zlib import crc32

__all__ = ["HEAD_BYTES", "Fault", "Ledger", "Plant", "payload", "planted"]

_HEAD: Final = struct.Struct(">QIQI")
_CRC: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size
"""Bytes of a payload before its filler; the smallest payload."""

_FILLER: Final = bytes(range(256))


def payload(incarnation: int, stream: int, counter: int, size_bytes: int) -> bytes:
    """One payload of ``size_bytes``, at least ``HEAD_BYTES``; its filler depends on the counter."""
    head = _HEAD.pack(incarnation, stream, counter, size_bytes)
    first = counter & 0xFF
    left = size_bytes - HEAD_BYTES
    filler = (_FILLER[first:] + _FILLER * (left // 256 + 1))[:left]
    return head + _CRC.pack(crc32(filler, crc32(head))) + filler


class Fault(StrEnum):
    """Why a ledger stays open."""

    CORRUPT = "corrupt"
    """Too short, of another length than it says, or its checksum is wrong."""
    FOREIGN = "of another publisher"
    """Another incarnation or stream: two streams were spliced, or somebody else sends here."""
    BEYOND = "beyond the end"
    """A counter that was never sent."""
    TWICE = "delivered twice"
    """A counter that was delivered before."""
    ORDER = "out of order"
    """A counter that was passed over in silence comes after all."""
    BOTH = "delivered although reported lost"
    """A counter inside a gap that was reported."""
    SILENT = "missing without a word"
    """A gap, or an end, that nobody reported."""
    FALSE_ALARM = "reported lost, with nothing missing"
    """A loss was reported where no counter is missing."""


class Ledger:
    """One subscriber's account of one stream of ``total`` messages. Not thread-safe."""

    def __init__(self, incarnation: int, stream: int, total: int) -> None:
        self._key = (incarnation, stream)
        self._total = total
        self._next = 0
        self._loss_is_reported = False
        self._gaps: list[tuple[int, int, bool]] = []
        self.delivered = 0
        """Messages that came in order, once and intact."""
        self.lost = 0
        """Messages that are missing, and reported."""
        self.faults: Counter[Fault] = Counter()
        """What is wrong, by kind, in messages or reports."""

    @property
    def is_complete(self) -> bool:
        """True once the last message has come: nothing more is owed."""
        return self._next >= self._total

    @property
    def is_closed(self) -> bool:
        """True if, after ``close``, everything is accounted for."""
        return not self.faults and self.delivered + self.lost == self._total == self._next

    def deliver(self, data: bytes) -> None:
        """Enter one message."""
        if len(data) < HEAD_BYTES:
            self.faults[Fault.CORRUPT] += 1
            return
        incarnation, stream, counter, length = _HEAD.unpack_from(data)
        (crc,) = _CRC.unpack_from(data, _HEAD.size)
        view = memoryview(data)
        if length != len(data) or crc != crc32(view[HEAD_BYTES:], crc32(view[: _HEAD.size])):
            self.faults[Fault.CORRUPT] += 1
        elif (incarnation, stream) != self._key:
            self.faults[Fault.FOREIGN] += 1
        elif counter >= self._total:
            self.faults[Fault.BEYOND] += 1
        elif counter < self._next:
            self.faults[self._why_late(counter)] += 1
        else:
            self._settle(counter)
            self.delivered += 1
            self._next = counter + 1

    def report_loss(self) -> None:
        """Enter that the stream has a gap here, whatever its size in packets."""
        self._loss_is_reported = True

    def close(self) -> None:
        """Enter the end of the stream: what is still owed counts as missing."""
        self._settle(self._total)
        self._next = self._total

    def _settle(self, counter: int) -> None:
        """Account for everything between the last message and ``counter``."""
        missing = counter - self._next
        if missing:
            self._gaps.append((self._next, counter, self._loss_is_reported))
            if self._loss_is_reported:
                self.lost += missing
            else:
                self.faults[Fault.SILENT] += missing
        elif self._loss_is_reported:
            self.faults[Fault.FALSE_ALARM] += 1
        self._loss_is_reported = False

    def _why_late(self, counter: int) -> Fault:
        for first, end, is_reported in self._gaps:
            if first <= counter < end:
                return Fault.BOTH if is_reported else Fault.ORDER
        return Fault.TWICE


class Plant(StrEnum):
    """A fault put between the library and the ledger, to see that the ledger finds it."""

    SKIP = "skip"
    """One message vanishes."""
    REPEAT = "repeat"
    """One message comes twice."""
    SWAP = "swap"
    """One message comes after the one behind it."""
    CORRUPT = "corrupt"
    """One bit of one message is flipped."""
    COUNTER = "counter"
    """One message carries the number of another, with a checksum that fits."""


def planted(messages: Iterable[bytes], plant: Plant, at: int) -> Iterator[bytes]:
    """``messages`` with one fault at the message that carries the counter ``at``."""
    held: bytes | None = None
    for message in messages:
        incarnation, stream, counter, length = _HEAD.unpack_from(message)
        if counter != at:
            yield message
            if held is not None:
                yield held
                held = None
        elif plant is Plant.REPEAT:
            yield message
            yield message
        elif plant is Plant.SWAP:
            held = message
        elif plant is Plant.CORRUPT:
            yield message[:-1] + bytes([message[-1] ^ 1])
        elif plant is Plant.COUNTER:
            yield payload(incarnation, stream, counter + 1, length)
    if held is not None:
        yield held
