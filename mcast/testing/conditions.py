"""What may happen to a packet on one side of the simulated network: the shapes of faults.

Owns probabilities and the state of a burst; rolls only the dice it is given. ``Conditions`` stand
between a host and the network, one for each direction. Invariant: without a fault a packet arrives
once, unchanged, after ``delay_ns``, and in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

__all__ = ["Arrival", "Conditions"]

Arrival = tuple[int, bytes, bool]
"""Delay in ns, the packet, and whether it is what was sent."""

_CHECKSUM = slice(6, 8)


@dataclass(slots=True)
class Conditions:
    """One direction of one host's link. Probabilities are for each packet, 0 to 1."""

    delay_ns: int = 0
    """Every packet takes this long."""
    jitter_ns: int = 0
    """And up to this much longer, each for itself: packets overtake each other."""
    loss: float = 0.0
    """It vanishes."""
    loss_by_type: dict[int, float] = field(default_factory=dict)
    """It vanishes if it is of this PGM type, e.g. ``{packet.NAK: 1.0}``."""
    burst: float = 0.0
    """A burst of losses begins with it (Gilbert-Elliott)."""
    burst_packets: int = 10
    """Mean length of a burst."""
    duplicate: float = 0.0
    """It comes twice, the second time up to ``reorder_ns`` later."""
    reorder: float = 0.0
    """It comes up to ``reorder_ns`` later than the others."""
    reorder_ns: int = 5_000_000
    """How much later a reordered or second packet comes at most."""
    corrupt: float = 0.0
    """Up to 15 bits in a row are flipped, anywhere: the 16-bit checksum sees every such burst."""
    truncate: float = 0.0
    """Its end is missing."""
    mtu_bytes: int = 0
    """Longer ones vanish; 0: none do."""
    clogged_until_ns: int = 0
    """Until then (network time) everything waits, and then comes at once."""
    _in_burst: bool = False

    @property
    def is_clear(self) -> bool:
        """True if nothing but ``delay_ns`` happens to a packet."""
        return not (
            self.loss
            or self.jitter_ns
            or self.loss_by_type
            or self.burst
            or self._in_burst
            or self.duplicate
            or self.reorder
            or self.corrupt
            or self.truncate
            or self.mtu_bytes
            or self.clogged_until_ns
        )

    def carry(self, dice: Random, now_ns: int, packet: bytes) -> list[Arrival]:
        """What comes of a packet: nothing, the packet, or two of it."""
        roll = dice.random
        if (self.mtu_bytes and len(packet) > self.mtu_bytes) or self._is_lost(roll(), dice, packet):
            return []
        delay_ns = self.delay_ns
        if self.jitter_ns:
            delay_ns += dice.randrange(self.jitter_ns)
        if now_ns < self.clogged_until_ns:
            delay_ns += self.clogged_until_ns - now_ns
        second = self.duplicate and roll() < self.duplicate
        arrivals = [(delay_ns + dice.randrange(self.reorder_ns), packet, True)] if second else []
        if self.reorder and roll() < self.reorder:
            delay_ns += dice.randrange(self.reorder_ns)
        intact = packet
        if self.corrupt and len(packet) >= _CHECKSUM.stop and roll() < self.corrupt:
            packet = _corrupted(packet, dice)
        if self.truncate and packet and roll() < self.truncate:
            packet = packet[: dice.randrange(len(packet))]
        arrivals.append((delay_ns, packet, packet is intact))
        return arrivals

    def _is_lost(self, rolled: float, dice: Random, packet: bytes) -> bool:
        if self.burst or self._in_burst:
            chance = 1.0 / self.burst_packets if self._in_burst else self.burst
            if dice.random() < chance:
                self._in_burst = not self._in_burst and bool(self.burst)
            if self._in_burst:
                return True
        if rolled < self.loss:
            return True
        by_type = self.loss_by_type
        if not by_type or len(packet) < 5:  # cut so short that it has no type
            return False
        return dice.random() < by_type.get(packet[4] & 0x0F, 0.0)


def _corrupted(packet: bytes, dice: Random) -> bytes:
    size = len(packet)
    burst = dice.randrange(1, 1 << 15) << dice.randrange(8 * size - 14)
    flipped = (int.from_bytes(packet, "big") ^ burst).to_bytes(size, "big")
    # A checksum of 0 says that none was computed: that packet would be believed.
    return flipped if any(flipped[_CHECKSUM]) else packet[:-1] + bytes((packet[-1] ^ 1,))
