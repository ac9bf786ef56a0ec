"""What a source has been asked to send again: RFC 3208 sections 5.2 and 5.3, with a budget.

Invariant: a number is confirmed and repaired at most once in ``holdoff_ns``, whoever asks and how
often, and repairs never take more than their share of the rate. So a storm of NAKs, honest or
forged, costs no more than the share.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

from mcast.kernel import TokenBucket

__all__ = ["REPAIR_BURST_BYTES", "RepairQueue"]

REPAIR_BURST_BYTES = 256 * 1024
"""Most repairs that may leave at once after a quiet time."""
_MEMORY_LIMIT = 1 << 16
"""Most numbers whose last repair is remembered."""


class RepairQueue:
    """Numbers to repair, oldest request first, and when each was last repaired."""

    def __init__(self, bits_per_s: float, burst_bytes: int, holdoff_ns: int) -> None:
        self._bucket = TokenBucket(bits_per_s, burst_bytes)
        self._holdoff_ns = holdoff_ns
        self._wanted: dict[int, None] = {}
        self._trail = self._swept_trail = 0
        self._accepted_ns: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._wanted)

    def ask(self, sqns: Iterable[int], now_ns: int) -> list[int]:
        """Queue those numbers that were not asked for within the hold-off; returns them."""
        accepted = []
        for sqn in sqns:
            last_ns = self._accepted_ns.get(sqn)
            if sqn in self._wanted or (last_ns is not None and now_ns - last_ns < self._holdoff_ns):
                continue
            self._accepted_ns[sqn] = now_ns
            self._accepted_ns.move_to_end(sqn)
            self._wanted[sqn] = None
            accepted.append(sqn)
        while len(self._accepted_ns) > _MEMORY_LIMIT:
            self._accepted_ns.popitem(last=False)
        return accepted

    def next_run(self, now_ns: int, max_packet_count: int) -> list[int]:
        """The next numbers to repair, those asked for first in front; empty if none may leave now.

        They stay queued until ``sent`` says which of them left.
        """
        wanted = self._wanted
        if self._bucket.available_bytes(now_ns) <= 0:
            return []
        while run := list(islice(wanted, max_packet_count)):
            gone = [sqn for sqn in run if sqn < self._trail]
            if not gone:
                break
            for sqn in gone:
                del wanted[sqn]
        return run

    def sent(self, sqns: Iterable[int], size_bytes: int, now_ns: int) -> None:
        """These left in packets of ``size_bytes`` altogether, headers included."""
        self._bucket.spend(now_ns, size_bytes)
        for sqn in sqns:
            self._wanted.pop(sqn, None)
            self._accepted_ns[sqn] = now_ns

    def forget_below(self, trail: int) -> None:
        """The window has moved on. Cheap, however often it does and however much is queued."""
        self._trail = trail
        # A sweep looks at everything, so it waits until the trail has moved by as much; until then
        # ``next_run`` passes over what is gone.
        if trail - self._swept_trail >= len(self._wanted) // 16:
            self._swept_trail = trail
            for sqn in [sqn for sqn in self._wanted if sqn < trail]:
                del self._wanted[sqn]

    def next_timeout_ns(self) -> int | None:
        """When ``next_run`` may return something, or None if nothing is queued."""
        return self._bucket.ready_at_ns(1) if self._wanted else None
