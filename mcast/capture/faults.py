"""Faults put into a replay: loss, bursts of it, copies, wrong order, delay; a seed says which.

Owns the shape of the damage; pure, the dice are an argument. Invariant: packets come out with times
that never go back, and the same seed damages the same packets.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final, NamedTuple

__all__ = ["Faults", "Planned"]

_REORDER_PLACES: Final = 3
"""How many packets overtake one that is put out of order."""
_HELD_LIMIT: Final = 100_000
"""Packets held back at once; beyond it the first leaves early."""


class Planned(NamedTuple):
    """A datagram to send."""

    at_ns: int
    """When, from the start of the replay."""
    group: bytes
    port: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, in shares from 0 to 1; the default is nothing."""

    loss: float = 0.0
    """Packets that are left out."""
    burst: float = 1.0
    """How many are lost in a row, on average."""
    reorder: float = 0.0
    """Packets that three others overtake."""
    dup: float = 0.0
    """Packets that are sent twice."""
    delay_ns: int = 0
    """The most that a packet is held back, evenly between 0 and this; order follows from it."""

    def shape(self, packets: Iterable[Planned], dice: Random) -> Iterator[Planned]:
        """``packets``, damaged, in the order they are to leave."""
        held: list[tuple[int, int, Planned]] = []  # by time
        overtaken: list[tuple[int, Planned]] = []  # by the place that lets them go
        losing = False
        order = count()  # of those due at the same time
        for place, packet in enumerate(packets):
            losing = self._is_lost(losing, dice)
            copies = 0 if losing else 1 + (dice.random() < self.dup)
            for _ in range(copies):
                late_ns = round(dice.random() * self.delay_ns)
                shifted = packet._replace(at_ns=packet.at_ns + late_ns)
                if dice.random() < self.reorder:
                    overtaken.append((place + _REORDER_PLACES, shifted))
                else:
                    heapq.heappush(held, (shifted.at_ns, next(order), shifted))
            while overtaken and overtaken[0][0] <= place:
                _, late = overtaken.pop(0)
                at_ns = max(late.at_ns, packet.at_ns)
                heapq.heappush(held, (at_ns, next(order), late._replace(at_ns=at_ns)))
            while held and (held[0][0] <= packet.at_ns or len(held) > _HELD_LIMIT):
                yield heapq.heappop(held)[2]
        for _, late in overtaken:
            heapq.heappush(held, (late.at_ns, next(order), late))
        while held:
            yield heapq.heappop(held)[2]

    def _is_lost(self, losing: bool, dice: Random) -> bool:
        """Gilbert's two states: a burst ends with 1 / burst, and begins so that loss comes out."""
        if not self.loss:
            return False
        if losing:
            return dice.random() >= 1 / self.burst
        return dice.random() < min(1.0, self.loss / (self.burst * (1 - self.loss)))
