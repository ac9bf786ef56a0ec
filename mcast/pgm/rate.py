"""Token buckets in nanoseconds: the publisher's pace, and the share of it that repairs may take.

A bucket keeps one number, the time at which it would be full; no timer ticks (RFC 3208 section
5.1.2). Invariant: over any time t no more than ``burst_bytes`` + rate x t is spent, except for the
last run, which may overdraw and is paid back by waiting.
"""

from __future__ import annotations

from math import inf

__all__ = ["TokenBucket"]


class TokenBucket:
    """Bytes that may be spent now, refilled at a steady rate. Not thread-safe."""

    __slots__ = ("_burst_ns", "_full_at_ns", "_ns_per_byte")

    def __init__(self, bits_per_s: float, burst_bytes: int) -> None:
        self._ns_per_byte = 0.0 if bits_per_s == inf else 8e9 / bits_per_s
        self._burst_ns = burst_bytes * self._ns_per_byte
        self._full_at_ns = 0.0

    def available_bytes(self, now_ns: int) -> float:
        """Bytes that may be spent at ``now_ns``; negative after an overdraft, inf if unlimited."""
        if not self._ns_per_byte:
            return inf
        debt_ns = max(0.0, self._full_at_ns - now_ns)
        return (self._burst_ns - debt_ns) / self._ns_per_byte

    def spend(self, now_ns: int, size_bytes: int) -> None:
        """Take ``size_bytes`` out, into debt if need be."""
        self._full_at_ns = max(self._full_at_ns, float(now_ns)) + size_bytes * self._ns_per_byte

    def ready_at_ns(self, size_bytes: int) -> int:
        """When ``size_bytes``, capped at the burst, may be spent."""
        wanted_ns = min(size_bytes * self._ns_per_byte, self._burst_ns)
        return int(self._full_at_ns - self._burst_ns + wanted_ns) + 1
