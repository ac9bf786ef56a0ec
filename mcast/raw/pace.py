"""When the next datagram may leave: a steady rate, or bursts of it. Pure: the time is an argument.

Invariant: in any span no more became due than the rate allows, plus one burst and what a delay of
``_MOST_LAG_NS`` had held up.
"""

from __future__ import annotations

from math import inf
from typing import Final

__all__ = ["Pace"]

_MOST_LAG_NS: Final = 100_000_000
"""A sender that was held up for longer does not make up for it: 100 ms at the rate are a burst that
nobody asked for."""


class Pace:
    """``per_second`` datagrams a second, ``burst_count`` at a time; inf is no pace. One thread."""

    def __init__(self, per_second: float, burst_count: int = 1) -> None:
        if not per_second > 0 or burst_count < 1:
            raise ValueError(f"{per_second} a second, {burst_count} at a time; both must be > 0")
        self._interval_ns = 0.0 if per_second == inf else 1e9 * burst_count / per_second
        self._burst_count = burst_count
        self._next_ns: float | None = None

    def due(self, now_ns: int, most: int) -> int:
        """How many may leave now, 0 to ``most``, whole bursts but for the limit; taken as left."""
        if not self._interval_ns:
            return most
        if self._next_ns is None:
            self._next_ns = now_ns
        if now_ns < self._next_ns:
            return 0
        self._next_ns = max(self._next_ns, now_ns - _MOST_LAG_NS)
        bursts = 1 + int((now_ns - self._next_ns) / self._interval_ns)
        bursts = min(bursts, -(-most // self._burst_count))
        self._next_ns += bursts * self._interval_ns
        return min(most, bursts * self._burst_count)

    def wait_s(self, now_ns: int) -> float:
        """Seconds until the next may leave."""
        return 0.0 if self._next_ns is None else max(0.0, (self._next_ns - now_ns) / 1e9)
