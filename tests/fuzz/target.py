"""What a fuzz target is, and what targets share: reading dice out of bytes, checksums, corpora.

A target is a function of bytes that raises where something does not hold. What it raises is the
finding: an exception that the code under test let out, or an ``AssertionError`` about the state
that it left behind. It says nothing about bytes that are merely refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["CORPUS", "ByteDice", "Cut", "Target", "corpus", "must", "sealed"]

CORPUS = Path(__file__).parent / "corpus"


class Target(NamedTuple):
    """One way to give bytes to the code under test, and what must hold then."""

    run: Callable[[bytes], object]
    """Raises if something does not hold."""
    seeds: Callable[[], Iterable[bytes]]
    """Inputs to begin with, from captures where there are some."""
    plants: Mapping[str, Callable[[], None]]
    """Mistakes by name that the target must find; each call makes one for good."""
    max_bytes: int = 512
    """Longest input that is tried."""


def corpus(name: str) -> list[Path]:
    """The committed inputs of a target, in order of their names."""
    folder = CORPUS / name
    return sorted(folder.iterdir()) if folder.is_dir() else []


def must(holds: object, what: str, *values: object) -> None:
    """Raise AssertionError with ``what`` and the values unless it holds, also under ``-O``."""
    if not holds:
        raise AssertionError(f"{what}: {', '.join(map(repr, values))}")


def sealed(packet: bytes | bytearray) -> bytes:
    """A PGM packet with its checksum put right (RFC 3208 section 8), if it has room for one."""
    if len(packet) < 8:
        return bytes(packet)
    raw = bytearray(packet)
    raw[6:8] = b"\0\0"
    number = int.from_bytes(raw, "big") << (8 * (len(raw) & 1))
    total = (number % 0xFFFF or 0xFFFF) if number else 0
    raw[6:8] = (0xFFFF - total or 0xFFFF).to_bytes(2, "big")
    return bytes(raw)


class Cut:
    """An input, taken from the front; zeros behind its end, so that every input means something."""

    __slots__ = ("_data", "position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def __bool__(self) -> bool:
        return self.position < len(self._data)

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, or what is left of them."""
        start = self.position
        self.position = start + count
        return self._data[start : start + count]

    def octet(self) -> int:
        """0 to 255."""
        self.position += 1
        return self._data[self.position - 1] if self.position <= len(self._data) else 0

    def signed(self) -> int:
        """-128 to 127."""
        value = self.octet()
        return value - 256 if value > 127 else value

    def number(self, size: int) -> int:
        """An unsigned number of ``size`` bytes, the first the highest."""
        return int.from_bytes(self.take(size), "big")

    def rest(self) -> bytes:
        """All that is left."""
        start = self.position
        self.position = len(self._data)
        return self._data[start:]


class ByteDice(random.Random):
    """Dice that an input decides: whatever draws programs from dice can so be guided by coverage.

    Behind the input's end every throw is a zero.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._octets: Iterator[int] = iter(data)

    def getrandbits(self, k: int, /) -> int:
        """A number of ``k`` bits, from as few bytes as hold them."""
        number = 0
        for _ in range((k + 7) // 8):
            number = number << 8 | next(self._octets, 0)
        return number & ((1 << k) - 1)

    def random(self) -> float:
        """0 to 1 less a bit, in steps of 1/65536."""
        return self.getrandbits(16) / 65536

    def randbytes(self, n: int) -> bytes:
        """``n`` bytes of the input, zeros behind its end."""
        return bytes(next(self._octets, 0) for _ in range(n))
