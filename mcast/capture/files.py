"""Capture files, read block by block: pcap, with micro- or nanoseconds, and pcapng.

Owns the layout of both and a window of the file, never the file: memory is one chunk and one
record. Invariant: what is not a whole record ends the reading with ``CaptureError``, after all in
front of it has come out; nothing is allocated for a size that a file only claims.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, Literal, NamedTuple

from mcast.kernel import CaptureWalk

__all__ = ["CHUNK_BYTES", "STDIN", "CaptureError", "CaptureFile", "Record", "open_capture"]

STDIN: Final = Path("-")
CHUNK_BYTES: Final = 1 << 20
"""How much of a file is read at once."""
_RECORD_LIMIT_BYTES: Final = 1 << 24
"""Longest record believed in: 64 times what libpcap captures of a packet (262144)."""
_INTERFACE_LIMIT: Final = 4096
_EARLY_LIMIT_BYTES: Final = 16 << 20
"""Most early packets kept for one stream while a hole may still be filled."""
_TIME_LIMIT_NS: Final = 1 << 62
"""The year 2116, and as far back: what a file says beyond it fits no 64 bits, or barely."""

_PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": (True, 1000),
    b"\xa1\xb2\xc3\xd4": (False, 1000),
    b"\x4d\x3c\xb2\xa1": (True, 1),
    b"\xa1\xb2\x3c\x4d": (False, 1),
}
"""The first bytes: is it little-endian, and the nanoseconds of its fraction."""
_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_SIMPLE_PACKET: Final = 3
_OLD_PACKET: Final = 2
_ENHANCED_PACKET: Final = 6
_STATISTICS: Final = 5
_OPTION_END: Final = 0
_OPTION_TSRESOL: Final = 9
_OPTION_TSOFFSET: Final = 14
_OPTION_DROPPED: Final = 5
_SECOND_NS: Final = 1_000_000_000


class CaptureError(Exception):
    """The file is no capture, or stops being one; what came before was read."""


class Record(NamedTuple):
    """One captured packet as it stands in the file."""

    frame: int
    """Its number, from 1, as capture tools count."""
    time_ns: int
    """Nanoseconds since 1970."""
    link_type: int
    data: memoryview
    """What was captured of it, from the link's header on."""
    original_bytes: int
    """How long it was on the wire."""


class _Interface(NamedTuple):
    link_type: int
    ticks_per_s: int
    offset_ns: int


class CaptureFile:
    """The records of one file. ``read(size)`` gives its next bytes, at most so many; none: its end.

    ``walk``, when its flows are filled, takes packets of streams past ``next_record``; the two
    count frames together.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        """Reads the file's header. Raises ``CaptureError`` if there is none."""
        self._read = read
        self._data = b""
        self._at = 0
        self._is_ended = False
        self.read_bytes = 0
        """Bytes of the file that have been asked for, for a progress bar."""
        self.dropped_count = 0
        """Packets that the capturing program says it lost (pcapng)."""
        self.unknown_count = 0
        """Blocks passed by that hold no packet: names, comments, keys."""
        self._interfaces: list[_Interface] = []
        self._is_ng = False
        self._little = True
        magic = self._peek(4)
        if magic in _PCAP:
            self._little, tick_ns = _PCAP[magic]
            if not self._has(24):
                raise CaptureError("the file ends inside its header")
            link = int.from_bytes(self._data[20:24], self._order) & 0x0FFF_FFFF
            self._at = 24
            self.walk = CaptureWalk(False, self._little, _EARLY_LIMIT_BYTES)
            self._add_interface(_Interface(link, _SECOND_NS // tick_ns, 0))
        elif magic == b"\n\r\r\n":
            self._is_ng = True
            self.walk = CaptureWalk(True, True, _EARLY_LIMIT_BYTES)
            self._start_section()
        elif not magic:
            raise CaptureError("the file is empty")
        else:
            raise CaptureError(
                f"this is no pcap or pcapng file: it begins with {magic.hex(' ')}; compressed ones "
                "are to be unpacked first, unless by gzip"
            )

    @property
    def frame_count(self) -> int:
        """Packets that have come out so far, by either way."""
        return self.walk.frame_count

    def next_record(self) -> Record | None:
        """The next packet that ``walk`` does not take; None at the file's end.

        Raises ``CaptureError`` at a place where the file is cut off or makes no sense.
        """
        while True:
            if self.walk.flows:
                self._at = self.walk.walk(self._data, self._at)
            record = self._ng_record() if self._is_ng else self._pcap_record()
            if record is not None:
                return record
            if self._is_ended and self._at == len(self._data):
                return None

    @property
    def _order(self) -> Literal["little", "big"]:
        return "little" if self._little else "big"

    def _fill(self, wanted: int) -> None:
        """Have ``wanted`` bytes from here on, or the file's end."""
        pieces = [self._data[self._at :]]
        size = len(pieces[0])
        while size < wanted and not self._is_ended:
            piece = self._read(CHUNK_BYTES)
            self._is_ended = not piece
            pieces.append(piece)
            size += len(piece)
            self.read_bytes += len(piece)
        self._data = b"".join(pieces)
        self._at = 0

    def _has(self, wanted: int) -> bool:
        if len(self._data) - self._at < wanted:
            self._fill(wanted)
        return len(self._data) - self._at >= wanted

    def _peek(self, size: int) -> bytes:
        self._has(size)
        return self._data[self._at : self._at + size]

    def _word(self, at: int) -> int:
        start = self._at + at
        return int.from_bytes(self._data[start : start + 4], self._order)

    def _fail(self, why: str) -> CaptureError:
        self._at = len(self._data)
        self._is_ended = True
        return CaptureError(f"after frame {self.frame_count}: {why}")

    def _pcap_record(self) -> Record | None:
        if not self._has(16):
            if len(self._data) == self._at:
                return None
            raise self._fail("the file ends inside a packet's header")
        captured, original = self._word(8), self._word(12)
        if captured > _RECORD_LIMIT_BYTES:
            raise self._fail(f"a packet of {captured} bytes is none: the file is corrupt here")
        if not self._has(16 + captured):
            raise self._fail("the file ends inside a packet: it was cut off")
        tick_ns = _SECOND_NS // self._interfaces[0].ticks_per_s
        time_ns = self._word(0) * _SECOND_NS + self._word(4) * tick_ns
        start = self._at + 16
        self._at = start + captured
        return self._record(0, time_ns, start, captured, original)

    def _record(
        self, interface: int, time_ns: int, start: int, captured: int, original: int
    ) -> Record:
        self.walk.frame_count += 1
        data = memoryview(self._data)[start : start + captured]
        link_type = self._interfaces[interface].link_type
        return Record(self.frame_count, time_ns, link_type, data, original)

    def _ng_record(self) -> Record | None:
        if not self._has(12):
            if len(self._data) == self._at:
                return None
            raise self._fail("the file ends inside a block: it was cut off")
        kind, size = self._word(0), self._word(4)
        if kind == _SECTION:
            self._start_section()
            return None
        if size < 12 or size % 4 or size > _RECORD_LIMIT_BYTES:
            raise self._fail(f"a block of {size} bytes is none: the file is corrupt here")
        if not self._has(size):
            raise self._fail("the file ends inside a block: it was cut off")
        if self._word(size - 4) != size:
            raise self._fail("a block's two sizes differ: the file is corrupt here")
        start = self._at
        self._at += size
        if kind == _ENHANCED_PACKET:
            return self._enhanced(start, size)
        if kind == _SIMPLE_PACKET and size >= 16 and self._interfaces:
            original = int.from_bytes(self._data[start + 8 : start + 12], self._order)
            return self._record(0, 0, start + 12, min(original, size - 16), original)
        if kind == _INTERFACE and size >= 20:
            self._start_interface(self._data[start + 8 : start + size - 4])
        elif kind == _STATISTICS and size >= 24:
            for code, value in self._options(self._data[start + 20 : start + size - 4]):
                if code == _OPTION_DROPPED and len(value) == 8:
                    self.dropped_count += int.from_bytes(value, self._order)
        else:
            self.unknown_count += 1
        return None

    def _enhanced(self, start: int, size: int) -> Record:
        if size < 32:
            raise self._fail("a packet's block is too short: the file is corrupt here")
        head = Struct("<IIIII" if self._little else ">IIIII")
        index, high, low, captured, original = head.unpack_from(self._data, start + 8)
        if captured > size - 32 or index >= len(self._interfaces):
            raise self._fail("a packet's block contradicts itself: the file is corrupt here")
        found = self._interfaces[index]
        time_ns = (high << 32 | low) * _SECOND_NS // found.ticks_per_s + found.offset_ns
        time_ns = min(max(time_ns, -_TIME_LIMIT_NS), _TIME_LIMIT_NS)
        return self._record(index, time_ns, start + 28, captured, original)

    def _start_section(self) -> None:
        """A section header: a new byte order, and interfaces counted anew."""
        if not self._has(28):
            raise self._fail("the file ends inside a section's header")
        magic = self._data[self._at + 8 : self._at + 12]
        if magic not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
            raise self._fail("a section has no byte order: the file is corrupt here")
        self._little = magic == b"\x4d\x3c\x2b\x1a"
        size = self._word(4)
        if size < 28 or size % 4 or size > _RECORD_LIMIT_BYTES or not self._has(size):
            raise self._fail("a section's header is cut off or corrupt")
        self._at += size
        self._interfaces = []
        walk = CaptureWalk(True, self._little, _EARLY_LIMIT_BYTES)
        walk.flows, walk.arrivals = self.walk.flows, self.walk.arrivals
        walk.lines = self.walk.lines
        walk.frame_count = self.walk.frame_count
        self.walk = walk

    def _start_interface(self, body: bytes) -> None:
        ticks_per_s, offset_ns = 1_000_000, 0
        for code, value in self._options(body[8:]):
            if code == _OPTION_TSRESOL and value:
                exponent = value[0] & 0x7F
                if exponent <= 64:
                    ticks_per_s = (2 if value[0] & 0x80 else 10) ** exponent
            elif code == _OPTION_TSOFFSET and len(value) == 8:
                offset_ns = int.from_bytes(value, self._order, signed=True) * _SECOND_NS
        if len(self._interfaces) == _INTERFACE_LIMIT:
            raise self._fail(f"more than {_INTERFACE_LIMIT} interfaces: the file is corrupt here")
        link_type = int.from_bytes(body[:2], self._order)
        self._add_interface(_Interface(link_type, ticks_per_s, offset_ns))

    def _add_interface(self, found: _Interface) -> None:
        self._interfaces.append(found)
        tick_ns, rest = divmod(_SECOND_NS, found.ticks_per_s)
        is_whole = not rest and not found.offset_ns
        self.walk.add_interface(found.link_type, tick_ns if is_whole else 0)

    def _options(self, area: bytes) -> list[tuple[int, bytes]]:
        found = []
        at = 0
        while at + 4 <= len(area):
            code = int.from_bytes(area[at : at + 2], self._order)
            size = int.from_bytes(area[at + 2 : at + 4], self._order)
            if code == _OPTION_END:
                break
            found.append((code, area[at + 4 : at + 4 + size]))
            at += 4 + (size + 3) // 4 * 4
        return found


@contextmanager
def open_capture(path: Path) -> Iterator[CaptureFile]:
    """The capture at ``path``, gzip or not, to be used in a ``with`` block; ``-`` is stdin.

    Raises ``OSError`` if it cannot be opened or read, ``CaptureError`` if it is no capture.
    """
    if path == STDIN:
        if sys.stdin is None:
            raise CaptureError("standard input is closed")
        if sys.stdin.isatty():
            raise CaptureError("standard input is a terminal: give a file, or pipe one in")
        yield from _unpacked(sys.stdin.buffer)
        return
    with path.open("rb") as file:
        yield from _unpacked(file)


def _unpacked(file: BinaryIO) -> Iterator[CaptureFile]:
    assert isinstance(file, io.BufferedReader)
    if file.peek(2)[:2] != b"\x1f\x8b":
        yield CaptureFile(file.read1)
        return
    with gzip.GzipFile(fileobj=file) as unpacked:

        def read(size: int) -> bytes:
            try:
                return unpacked.read1(size)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise CaptureError(f"the gzip file is cut off or corrupt: {error}") from None

        yield CaptureFile(read)
