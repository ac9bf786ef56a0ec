"""Numbered messages that any process can make again from a seed, and the ledger that checks them.

Owns the test payloads and nothing else: it needs only the standard library, so that a libzmq peer
(which has no mcast) and an mcast peer run the very same code. Both scripts in this directory import
it as a sibling; tests import it as ``support.workload``.

A message is known by (incarnation, stream, counter). Whatever is long enough begins with a header
that says so, with a length and a CRC-32, so that a splice is seen even without the generator:

    incarnation u64 | stream u32 | counter u64 | length u32 | crc32 u32 | filler

Shorter messages (down to 1 byte) carry filler only; the ledger places them by their neighbours.

Invariant: ``received + missing`` covers every counter up to the last one seen, exactly.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections import deque
from dataclasses import dataclass, field

__all__ = ["HEADER", "SHAPES", "Ledger", "Workload", "identify"]

HEADER = struct.Struct("!QIQII")
"""incarnation, stream, counter, bytes of all parts together, CRC-32 of everything but itself."""

SHAPES = "mixed, headed, single, or fixed:BYTES"

_CRC = struct.Struct("!I")
_CRC_OFFSET = HEADER.size - _CRC.size
_LARGEST_BYTES = 100 * 1024
_FILLER_BYTES = 1 << 18
_HELD_TINY_COUNT = 4096  # more than any gap that a test repairs; then the oldest count as corrupt
_EXAMPLE_COUNT = 5


class Workload:
    """The messages of one publisher: ``message(i)`` is the same bytes in every process.

    ``shape`` is ``mixed`` (1 B to 100 KiB, 1 to 5 parts, about 1.3 KiB on average), ``headed`` (the
    same with a header in every first part, for several streams in one ledger), ``single`` (the same
    sizes from 32 B up, always one part, safe with several publishers in one group, where a libzmq
    SUB may join parts of different sources) or ``fixed:BYTES`` (one part of that size).
    """

    def __init__(
        self, seed: int, *, shape: str = "mixed", stream: int = 0, incarnation: int = 0
    ) -> None:
        self.seed = seed
        self.shape = shape
        self.stream = stream
        self.incarnation = incarnation
        kind, _, size = shape.partition(":")
        if kind not in ("mixed", "headed", "single", "fixed"):
            raise ValueError(f"shape {shape!r} is unknown: use {SHAPES}")
        self._fixed_bytes = max(int(size), HEADER.size) if kind == "fixed" else 0
        self._single = kind == "single"
        self._headed = kind == "headed"
        self._salt = (seed << 20) ^ (stream << 10) ^ incarnation
        self._filler = random.Random(self._salt).randbytes(_FILLER_BYTES)

    def message(self, counter: int) -> list[bytes]:
        """Return the parts of message ``counter``."""
        if self._fixed_bytes:
            sizes = [self._fixed_bytes]
        else:
            dice = random.Random((self._salt << 32) + counter)
            total = _total_bytes(counter, dice)
            # The last of each hundred always has a header, so that a run's end is never in doubt.
            if self._single or counter % 100 == 99:
                sizes = [max(total, HEADER.size)]
            else:
                sizes = _part_sizes(total, dice)
            if self._headed:
                sizes[0] = max(sizes[0], HEADER.size)
        start = (counter * 7919) % (_FILLER_BYTES - _LARGEST_BYTES - 8)
        parts = []
        for size in sizes:
            parts.append(self._filler[start : start + size])
            start = (start + size + 13) % (_FILLER_BYTES - _LARGEST_BYTES - 8)
        if len(parts[0]) >= HEADER.size:
            parts[0] = self._stamped(counter, parts)
        return parts

    def _stamped(self, counter: int, parts: list[bytes]) -> bytes:
        length = sum(map(len, parts))
        head = HEADER.pack(self.incarnation, self.stream, counter, length, 0)[:_CRC_OFFSET]
        filler = parts[0][HEADER.size :]
        return head + _CRC.pack(_crc(head, filler, parts[1:])) + filler


def identify(parts: list[bytes]) -> tuple[int, int, int] | None:
    """Return (incarnation, stream, counter) of a whole message with a header, else None."""
    if not parts or len(parts[0]) < HEADER.size:
        return None
    incarnation, stream, counter, length, crc = HEADER.unpack_from(parts[0])
    if length != sum(map(len, parts)):
        return None
    if crc != _crc(parts[0][:_CRC_OFFSET], parts[0][HEADER.size :], parts[1:]):
        return None
    return incarnation, stream, counter


@dataclass
class _Stream:
    """What one subscriber knows of one (incarnation, stream)."""

    workload: Workload
    first: int | None = None
    next: int = 0
    received: int = 0
    duplicates: int = 0
    reordered: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    tiny: deque[list[bytes]] = field(default_factory=deque)


class Ledger:
    """Checks every message a subscriber delivers: whole, in order, once; the rest is listed.

    ``expected`` is the publisher to expect; streams with other names of the same seed and shape
    are opened when their first headed message arrives. Single-threaded.
    """

    def __init__(self, expected: Workload) -> None:
        self._expected = expected
        self._streams: dict[tuple[int, int], _Stream] = {}
        self._digest = hashlib.blake2b(digest_size=16)
        self.corrupt = 0
        self.examples: list[str] = []

    def deliver(self, parts: list[bytes]) -> int | None:
        """Enter one message; return its counter, or None when it is corrupt or not placed yet."""
        add_to_digest(self._digest, parts)
        if len(parts[0]) < HEADER.size:
            return self._deliver_tiny(parts)
        name = identify(parts)
        if name is None:
            self._reject(parts, "no valid header")
            return None
        stream = self._stream(*name[:2])
        counter = name[2]
        if parts != stream.workload.message(counter):
            self._reject(parts, f"differs from message {counter}")
            return None
        if counter >= stream.next:
            self._place_tiny(stream, counter)
        self._enter(stream, counter)
        return counter

    def received(self, incarnation: int | None = None, stream: int | None = None) -> int:
        """Return how many distinct messages of that stream have arrived (default: the expected)."""
        key = (
            self._expected.incarnation if incarnation is None else incarnation,
            self._expected.stream if stream is None else stream,
        )
        known = self._streams.get(key)
        return known.received if known else 0

    def next_counter(self, incarnation: int | None = None, stream: int | None = None) -> int:
        """Return the counter that should come next in that stream (default: the expected one)."""
        key = (
            self._expected.incarnation if incarnation is None else incarnation,
            self._expected.stream if stream is None else stream,
        )
        known = self._streams.get(key)
        return known.next if known else 0

    def summary(self, count: int | None = None) -> dict[str, object]:
        """Return the account in plain types; with ``count``, what never came is missing, too."""
        streams = {}
        for (incarnation, number), stream in sorted(self._streams.items()):
            self._place_tiny(stream, stream.next)
            gaps = list(stream.gaps)
            if count is not None and stream.next < count:
                gaps.append((stream.next, count - 1))
            streams[f"{incarnation}.{number}"] = {
                "received": stream.received,
                "first": stream.first,
                "last": stream.next - 1,
                "duplicates": stream.duplicates,
                "reordered": stream.reordered,
                "missing": sum(last - first + 1 for first, last in gaps),
                "gaps": [list(gap) for gap in gaps[:20]],
                "gap_count": len(gaps),
            }
        return {
            "streams": streams,
            "received": sum(stream.received for stream in self._streams.values()),
            "duplicates": sum(stream.duplicates for stream in self._streams.values()),
            "reordered": sum(stream.reordered for stream in self._streams.values()),
            "missing": sum(int(str(each["missing"])) for each in streams.values()),
            "corrupt": self.corrupt,
            "examples": self.examples,
            "digest": self._digest.hexdigest(),
        }

    def _stream(self, incarnation: int, number: int) -> _Stream:
        key = (incarnation, number)
        stream = self._streams.get(key)
        if stream is None:
            expected = self._expected
            same = key == (expected.incarnation, expected.stream)
            workload = (
                expected
                if same
                else Workload(
                    expected.seed, shape=expected.shape, stream=number, incarnation=incarnation
                )
            )
            stream = self._streams[key] = _Stream(workload)
        return stream

    def _deliver_tiny(self, parts: list[bytes]) -> int | None:
        stream = self._stream(self._expected.incarnation, self._expected.stream)
        if not stream.tiny and parts == stream.workload.message(stream.next):
            counter = stream.next
            self._enter(stream, counter)
            return counter
        stream.tiny.append(parts)
        if len(stream.tiny) > _HELD_TINY_COUNT:
            self._reject(stream.tiny.popleft(), "has no place in the stream")
        return None

    def _place_tiny(self, stream: _Stream, before: int) -> None:
        """Match the messages held against those the gap should contain, in order."""
        counter = stream.next
        while stream.tiny:
            parts = stream.tiny.popleft()
            candidate = counter
            while candidate < before and parts != stream.workload.message(candidate):
                candidate += 1
            if candidate < before:
                self._enter(stream, candidate)
                counter = candidate + 1
            else:
                self._reject(parts, f"is none of messages {counter} to {before - 1}")

    def _enter(self, stream: _Stream, counter: int) -> None:
        if stream.first is None:
            stream.first = counter
        if counter == stream.next:
            stream.next += 1
        elif counter > stream.next:
            stream.gaps.append((stream.next, counter - 1))
            stream.next = counter + 1
        elif not _take_from_gaps(stream.gaps, counter):
            stream.duplicates += 1
            return
        else:
            stream.reordered += 1
        stream.received += 1

    def _reject(self, parts: list[bytes], why: str) -> None:
        self.corrupt += 1
        if len(self.examples) < _EXAMPLE_COUNT:
            self.examples.append(f"message of {[len(part) for part in parts]} bytes {why}")


def add_to_digest(digest: hashlib.blake2b, parts: list[bytes]) -> None:
    """Add one message with its part boundaries to a running digest."""
    digest.update(struct.pack("!I", len(parts)))
    for part in parts:
        digest.update(struct.pack("!I", len(part)))
        digest.update(part)


def _total_bytes(counter: int, dice: random.Random) -> int:
    # The extremes come at fixed places, so that even a short run has them.
    if counter % 1000 in (7, 501):
        return _LARGEST_BYTES
    if counter % 100 == 8:
        return 1
    chance = dice.random()
    if chance < 0.60:
        return dice.randint(1, 200)
    if chance < 0.90:
        return dice.randint(200, 2_000)
    if chance < 0.99:
        return dice.randint(2_000, 8_000)
    return dice.randint(8_000, _LARGEST_BYTES)


def _part_sizes(total: int, dice: random.Random) -> list[int]:
    part_count = 1 if dice.random() < 0.6 else dice.randint(2, 5)
    # Two equal cuts make an empty part in the middle; an empty first part is left out because a
    # message must not be shorter than 1 byte where subscriptions look.
    cuts = sorted(dice.randint(1, total) for _ in range(part_count - 1))
    return [last - first for first, last in zip([0, *cuts], [*cuts, total], strict=True)]


def _crc(head: bytes, filler: bytes, rest: list[bytes]) -> int:
    crc = zlib.crc32(filler, zlib.crc32(head))
    for part in rest:
        crc = zlib.crc32(part, crc)
    return crc


def _take_from_gaps(gaps: list[tuple[int, int]], counter: int) -> bool:
    for index, (first, last) in enumerate(gaps):
        if first <= counter <= last:
            gaps[index : index + 1] = [
                gap for gap in ((first, counter - 1), (counter + 1, last)) if gap[0] <= gap[1]
            ]
            return True
    return False
