"""Whether numbered datagrams came once, in order and in time. Pure: the time is an argument.

Owns the account of each stream (a source's run to a group). Invariant of each stream: every
number from the first one seen to the highest is received, lost, or came late beyond the memory; a
datagram is new, out of order, a duplicate, or late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mcast.capture.numbers import Numbers
from mcast.raw.numbered import Stamp

__all__ = ["Stream", "Verifier"]

_MOST_STREAMS: Final = 1024
_JITTER_SHARE: Final = 16
"""RFC 3550 s6.4.1: each deviation moves the jitter by a sixteenth."""


@dataclass(slots=True)
class Stream(Numbers):
    """The account of one run of one sender to one group."""

    byte_count: int = 0
    """Payload of the datagrams that were new."""
    jitter_ns: float = 0.0
    """Mean deviation of the transit time (RFC 3550)."""
    first_ns: int = 0
    """When the first one came."""
    last_ns: int = 0
    """When the latest one came."""
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
        if not self.is_new(stamp.number):
            return
        self.byte_count += size_bytes
        self.last_ns = now_ns
        transit_ns = now_ns - stamp.sent_ns
        deviation_ns = abs(transit_ns - self._transit_ns)
        self._transit_ns = transit_ns
        self.jitter_ns += (deviation_ns - self.jitter_ns) / _JITTER_SHARE


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
