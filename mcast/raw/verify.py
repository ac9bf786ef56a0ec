"""Whether numbered datagrams came once, in order and in time. Pure: the time is an argument.

Owns the account of each stream (a source's run to a group). Invariant of each stream: every
number from the first one seen to the highest is received, lost, or came late beyond the memory; a
datagram is new, out of order, a duplicate, or late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mcast.raw.numbered import Stamp

__all__ = ["Stream", "Verifier"]

_MEMORY_COUNT: Final = 8192
"""How far back a number is told to be a duplicate or late: 5 ms of 1472-byte datagrams at
20 Gbit/s, which is more than a network reorders by."""
_MEMORY_MASK: Final = (1 << _MEMORY_COUNT) - 1
_MOST_STREAMS: Final = 1024
_JITTER_SHARE: Final = 16
"""RFC 3550 s6.4.1: each deviation moves the jitter by a sixteenth."""


@dataclass(slots=True)
class Stream:
    """The account of one run of one sender to one group."""

    first: int
    """The first number seen."""
    highest: int
    """The highest number seen."""
    received_count: int = 0
    """Datagrams with a number not seen before."""
    byte_count: int = 0
    """Their payload."""
    lost_count: int = 0
    """Numbers passed over that did not come since."""
    gap_count: int = 0
    """Times that numbers were passed over."""
    duplicate_count: int = 0
    """Datagrams whose number had come."""
    reordered_count: int = 0
    """Datagrams that came after a higher number."""
    late_count: int = 0
    """Datagrams too far behind to tell; they still count as lost."""
    jitter_ns: float = 0.0
    """Mean deviation of the transit time (RFC 3550)."""
    first_ns: int = 0
    """When the first one came."""
    last_ns: int = 0
    """When the latest one came."""
    _seen: int = field(default=1, repr=False)
    _transit_ns: int = field(default=0, repr=False)

    @property
    def per_second(self) -> float:
        """Datagrams per second from the first to the latest; 0 with less than two."""
        span_ns = self.last_ns - self.first_ns
        return (self.received_count - 1) * 1e9 / span_ns if span_ns else 0.0

    def take(self, stamp: Stamp, size_bytes: int, now_ns: int) -> None:
        """Account for a datagram."""
        if not self.received_count:
            self.first_ns = now_ns
            self._transit_ns = now_ns - stamp.sent_ns
        elif not self._is_new(stamp.number):
            return
        self.received_count += 1
        self.byte_count += size_bytes
        self.last_ns = now_ns
        transit_ns = now_ns - stamp.sent_ns
        deviation_ns = abs(transit_ns - self._transit_ns)
        self._transit_ns = transit_ns
        self.jitter_ns += (deviation_ns - self.jitter_ns) / _JITTER_SHARE

    def _is_new(self, number: int) -> bool:
        ahead = number - self.highest
        if ahead > 0:
            self.highest = number
            # A number far ahead would shift by as much: nothing of the memory would be left.
            shifted = self._seen << ahead if ahead < _MEMORY_COUNT else 0
            self._seen = (shifted | 1) & _MEMORY_MASK
            if ahead > 1:
                self.gap_count += 1
                self.lost_count += ahead - 1
            return True
        if -ahead >= _MEMORY_COUNT:
            self.late_count += 1
            return False
        bit = 1 << -ahead
        if self._seen & bit:
            self.duplicate_count += 1
            return False
        self._seen |= bit
        self.reordered_count += 1
        if number > self.first:  # below it nothing was counted as lost
            self.lost_count -= 1
        return True


class Verifier:
    """The accounts of all streams that are heard."""

    def __init__(self) -> None:
        self.streams: dict[tuple[int, str, int], Stream] = {}
        """By (place of the group, source address, run)."""
        self.plain_count = 0
        """Datagrams without a number."""
        self.refused_count = 0
        """Numbered datagrams of more streams than are followed (1024)."""

    def take(
        self, place: int, source: str, stamp: Stamp | None, size_bytes: int, now_ns: int
    ) -> None:
        """Account for a datagram of ``size_bytes`` of payload."""
        if stamp is None:
            self.plain_count += 1
            return
        key = (place, source, stamp.run)
        stream = self.streams.get(key)
        if stream is None:
            if len(self.streams) >= _MOST_STREAMS:
                self.refused_count += 1
                return
            stream = self.streams[key] = Stream(stamp.number, stamp.number)
        stream.take(stamp, size_bytes, now_ns)

    @property
    def lost_count(self) -> int:
        """Numbers that did not come, over all streams."""
        return sum(stream.lost_count for stream in self.streams.values())
