"""How much all streams and connections of a capture may keep together.

Owns two amounts that they draw on, so that a hostile file with thousands of each, all at their own
limits, does not add up. Invariant: neither goes below 0.
"""

from __future__ import annotations

from typing import Final, TypeVar

__all__ = ["ENTRY_LIMIT", "UNFINISHED_LIMIT_BYTES", "Room"]

ENTRY_LIMIT: Final = 100_000
"""Entries of reports' lists and tables, some 200 bytes each: gaps, repairs, properties, topics."""
UNFINISHED_LIMIT_BYTES: Final = 32 << 20
"""Bytes of messages that are not whole yet, and of segments behind a missing one."""


Entry = TypeVar("Entry")


class Room:
    """What is left."""

    def __init__(self) -> None:
        self.entry_count = ENTRY_LIMIT
        self.unfinished_bytes = UNFINISHED_LIMIT_BYTES

    def add(self, entries: list[Entry], entry: Entry, limit: int) -> None:
        """Append to a list unless that has ``limit`` entries, or all lists have too many."""
        if len(entries) < limit and self.take_entry():
            entries.append(entry)

    def take_entry(self) -> bool:
        """True, and one less is left; or False: there is none."""
        if not self.entry_count:
            return False
        self.entry_count -= 1
        return True

    def hold(self, before_bytes: int, after_bytes: int) -> bool:
        """True, and what somebody holds has changed; or False: it may not grow by so much."""
        more = after_bytes - before_bytes
        if more > self.unfinished_bytes:
            return False
        self.unfinished_bytes -= more
        return True
