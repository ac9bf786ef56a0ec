"""How fast counters grow: the difference of two looks at the same socket, per second.

Pure. Invariant: a counter that is smaller than before is taken as begun anew, so no rate is ever
negative; gauges have no rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mcast.observe.processes import ContextStatus, SocketStatus
from mcast.runtime.counters import is_gauge
from mcast.stats import Snapshot

__all__ = ["Rate", "rates"]


@dataclass(frozen=True, slots=True)
class Rate:
    """One socket, and what it did since the look before."""

    context: ContextStatus
    """Whose it is."""
    socket: SocketStatus
    """What it told now."""
    elapsed_s: float
    """Seconds between the two looks; since its context began, if it was not there before."""
    grown: Snapshot
    """What each counter grew by; gauges are left out."""

    def per_second(self, name: str) -> float:
        """Growth of a counter per second; 0 if there is no such counter."""
        return self.grown.get(name, 0) / self.elapsed_s if self.elapsed_s > 0 else 0.0


def rates(before: Iterable[ContextStatus], now: Iterable[ContextStatus]) -> list[Rate]:
    """For each socket of ``now``, the change since ``before``, in the order of ``now``."""
    known = {
        (context.path, socket.number): (context.monotonic_ns, socket.counters)
        for context in before
        for socket in context.sockets
    }
    found = []
    for context in now:
        began_ns = context.monotonic_ns - round(context.uptime_s * 1e9)
        for socket in context.sockets:
            since_ns, counters = known.get((context.path, socket.number), (began_ns, {}))
            elapsed_s = max(0, context.monotonic_ns - since_ns) / 1e9
            found.append(Rate(context, socket, elapsed_s, _grown(counters, socket.counters)))
    return found


def _grown(before: Snapshot, now: Snapshot) -> Snapshot:
    return {
        name: count - before.get(name, 0) if count >= before.get(name, 0) else count
        for name, count in now.items()
        if not is_gauge(name)
    }
