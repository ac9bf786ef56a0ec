"""The head of a numbered datagram: which run it belongs to, its number, and when it was sent.

    magic "mcN1" (4)   run (4)   number (8)   sent, monotonic ns of the sender (8)

All in network order, then filling up to the datagram's size. The time means something against
another of the same run (jitter), and by itself only on the sender's host.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["HEAD_BYTES", "Stamp", "number_into", "stamp_of_untrusted"]

_MAGIC: Final = b"mcN1"
_HEAD: Final = struct.Struct("!4sIQQ")
HEAD_BYTES: Final = _HEAD.size
"""The least size of a numbered datagram: 24."""


class Stamp(NamedTuple):
    """What the head says."""

    run: int
    """Drawn anew by each run of a sender."""
    number: int
    """From 0, by one for each datagram of the run to its group."""
    sent_ns: int
    """The sender's monotonic clock."""


def number_into(buffer: bytearray, offset: int, run: int, number: int, sent_ns: int) -> None:
    """Write a head at ``offset``; the bytes behind it stay."""
    _HEAD.pack_into(buffer, offset, _MAGIC, run, number, sent_ns)


def stamp_of_untrusted(data: memoryview) -> Stamp | None:
    """The head of a datagram, or None when it has none. Raises nothing."""
    if len(data) < HEAD_BYTES or bytes(data[:4]) != _MAGIC:
        return None
    return Stamp(*_HEAD.unpack_from(data)[1:])
