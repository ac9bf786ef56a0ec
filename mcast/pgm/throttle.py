"""How fast receivers can follow, as their NAKs tell, for a publisher that is asked to care.

Owns nothing but a rate between ``min_rate`` and ``rate``. Invariant: it falls at most once for the
losses of one time, and only where more is asked for again than the tolerance, so that losses which
come by chance are repaired and do not slow the publisher down.

This is no congestion control that shares a network fairly (RFC 3208 leaves that to others); it
keeps a publisher on a network of its own from running away from its slowest receiver.
"""

from __future__ import annotations

from typing import Final

from mcast.kernel import TokenBucket

__all__ = ["Throttle"]

TICK_NS: Final = 10_000_000
_WINDOW_NS: Final = 50_000_000
"""Over which requests are compared with what was sent; longer than a back-off and a repetition."""
_TOLERANCE: Final = 0.02
_CUT: Final = 0.7
_GROWTH: Final = 1.02
"""A tick: from a cut to the old rate in 0.2 s, so a receiver at its limit loses little."""
_FAST_BITS_PER_S: Final = 1e11
"""Beyond this an unlimited rate is unlimited again."""
_BURST_S: Final = 0.001


class Throttle:
    """The pace of one source. Guarded by its owner's lock."""

    def __init__(self, bucket: TokenBucket, rate: float, min_rate: float, burst_bytes: int) -> None:
        """Rates in bits/s; ``burst_bytes`` is the bucket's at full rate."""
        self._bucket = bucket
        self._full_rate = rate
        self._full_burst_bytes = burst_bytes
        self._min_rate = min_rate
        self._began_ns = 0
        self._began_packets = self._began_bytes = 0
        self._before_packets = 0
        self._before_rate = 0.0
        self._asked = 0
        self._settled_ns = 0
        self.rate = rate
        """Bits per second allowed now."""
        self.cut_count = 0

    @property
    def is_full(self) -> bool:
        """True while nothing is held back."""
        return self.rate >= self._full_rate

    def note(self, now_ns: int, asked: int, sent_packets: int, sent_bytes: int) -> None:
        """So many numbers were asked for anew; the totals are of what was ever sent."""
        self._asked += asked
        # Requests tell of what was sent a while ago, which may have been more than now.
        packets = max(self._before_packets, sent_packets - self._began_packets)
        if now_ns < self._settled_ns or self._asked <= _TOLERANCE * packets:
            return
        measured = max(self._before_rate, self._measured(now_ns, sent_bytes))
        self._set(max(self._min_rate, _CUT * min(self.rate, measured)))
        self.cut_count += 1
        self._settled_ns = now_ns + _WINDOW_NS
        self._asked = 0

    def tick(self, now_ns: int, sent_packets: int, sent_bytes: int) -> None:
        """Call it every ``TICK_NS`` while data leaves or the rate is not full."""
        if now_ns - self._began_ns >= _WINDOW_NS:
            self._before_packets = sent_packets - self._began_packets
            self._before_rate = self._measured(now_ns, sent_bytes)
            self._began_ns = now_ns
            self._began_packets, self._began_bytes = sent_packets, sent_bytes
            self._asked = 0
        if not self.is_full and now_ns >= self._settled_ns:
            self._set(self.rate * _GROWTH)

    def _measured(self, now_ns: int, sent_bytes: int) -> float:
        # A window that has just begun tells little; an old one belongs to another time.
        seconds = max(now_ns - self._began_ns, TICK_NS) / 1e9
        return (sent_bytes - self._began_bytes) * 8 / seconds

    def _set(self, rate: float) -> None:
        self.rate = rate if rate < min(self._full_rate, _FAST_BITS_PER_S) else self._full_rate
        burst_bytes = self._full_burst_bytes
        if not self.is_full:
            burst_bytes = max(3000, round(self.rate / 8 * _BURST_S))
        self._bucket.set_rate(self.rate, burst_bytes)
