"""Which of a stream's consecutive numbers came: new, out of order, again, or not. Pure.

Invariant: every number from the first one seen to the highest is received, lost, or came late
beyond the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["Numbers"]

_MEMORY_COUNT: Final = 8192
"""How far back a number is told to be a duplicate or late: 5 ms of 1472-byte datagrams at
20 Gbit/s, which is more than a network reorders by."""
_MEMORY_MASK: Final = (1 << _MEMORY_COUNT) - 1


@dataclass(slots=True)
class Numbers:
    """The account of the numbers of one stream, heard from any number on."""

    first: int
    """The first number seen."""
    highest: int
    """The highest number seen."""
    received_count: int = 0
    """Numbers that came, each counted once."""
    lost_count: int = 0
    """Numbers passed over that did not come since."""
    gap_count: int = 0
    """Times that numbers were passed over."""
    duplicate_count: int = 0
    """Arrivals of a number that had come."""
    reordered_count: int = 0
    """Arrivals after a higher number."""
    late_count: int = 0
    """Arrivals too far behind to tell; their numbers still count as lost."""
    _seen: int = field(default=1, repr=False)

    def is_new(self, number: int) -> bool:
        """Account for an arrival; True if its number had not come before."""
        if self.received_count and not self._is_new(number):
            return False
        self.received_count += 1
        return True

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
