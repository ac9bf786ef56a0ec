"""How late the packets of one source come that were overtaken, not lost.

Owns the last outcomes of what was missing: it came by itself, so much later than it was missed, or
it had to be repaired. What follows from them is one number, how long to wait before the back-off of
a first NAK begins. Invariant: the wait is 0 in a network that does not reorder, ``LIMIT_NS`` at
most whatever comes, and 0 again ``_FORGOTTEN_NS`` after the last packet that came late.

Why and how much: docs/decisions/0016-waiting-for-what-is-late.md.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["LIMIT_NS", "Lateness"]

LIMIT_NS: Final = 200_000_000
"""Longest wait: a third of what the default window holds at the default rate, 0.6 s."""
_OUTCOMES: Final = 64
"""Outcomes kept; the network of a thousand packets ago is of no interest."""
_LEAST_LATE: Final = 3
"""Late packets before anything waits for others: one or two are chance."""
_LATE_SHARE: Final = 4
"""One in so many outcomes must be late: where most is lost, waiting costs more than it saves."""
_SPARED: Final = 32
"""Of so many late packets the latest does not count."""
_FORGOTTEN_NS: Final = 10_000_000_000


class Lateness:
    """Of one source, learned from what was missing; see ``GapList``."""

    __slots__ = ("_late_ns", "_limit_ns", "_outcomes", "_wait_ns")

    def __init__(self, limit_ns: int = LIMIT_NS) -> None:
        self._limit_ns = min(limit_ns, LIMIT_NS)
        self._outcomes: deque[int] = deque(maxlen=_OUTCOMES)  # how late, or -1: repaired
        self._wait_ns = 0
        self._late_ns = 0

    def note_late(self, now_ns: int, late_ns: int) -> None:
        """A packet came by itself ``late_ns`` after it was missed, repaired meanwhile or not."""
        self._forget(now_ns)
        self._late_ns = now_ns
        self._outcomes.append(min(late_ns, self._limit_ns))
        self._learn()

    def note_repaired(self) -> None:
        """What was missing came as a repair."""
        self._outcomes.append(-1)
        if self._wait_ns:
            self._learn()

    def wait_ns(self, now_ns: int) -> int:
        """How long what is missed now may yet come by itself."""
        if self._wait_ns:
            self._forget(now_ns)
        return self._wait_ns

    def _forget(self, now_ns: int) -> None:
        if now_ns - self._late_ns > _FORGOTTEN_NS:
            repaired = [outcome for outcome in self._outcomes if outcome < 0]
            self._outcomes = deque(repaired, _OUTCOMES)
            self._wait_ns = 0

    def _learn(self) -> None:
        late = sorted(outcome for outcome in self._outcomes if outcome >= 0)
        self._wait_ns = 0
        if len(late) >= _LEAST_LATE and len(late) * _LATE_SHARE >= len(self._outcomes):
            usual_ns = late[-1 - len(late) // _SPARED]
            self._wait_ns = min(usual_ns + usual_ns // 4, self._limit_ns)
