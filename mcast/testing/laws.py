"""What a simulated run must keep, and the exception that says what broke.

Owns the names of the laws. Delivery: L1 to L6; the rest of the node: L7, L8; the wire: W. Sockets
over streams keep the same, as far as they can: what a broken connection held is lost; and F, T.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Law", "Violation"]


class Law(StrEnum):
    """One promise each; a ``Violation`` names the one that was broken."""

    ORDER = "L1"
    """Messages of one publisher come in the order in which they were sent."""
    ONCE = "L2"
    """No message comes twice."""
    INTEGRITY = "L3"
    """A message comes as it was sent, byte for byte, whole, and in the numbers it was sent in."""
    LEDGER = "L4"
    """From the join on every message was delivered or lies in a reported loss, never both."""
    HONEST = "L5"
    """Nothing is reported lost that could still be repaired, and no source gone that is there."""
    LIVENESS = "L6"
    """When the faults are over, everything sent arrives, in bounded time."""
    RESOURCES = "L7"
    """Memory stays in its limits, timers move on, and what was open is closed in the end."""
    CRASH = "L8"
    """Nothing that arrives raises."""
    WIRE = "W"
    """What is sent follows RFC 3208 and the limits of rate, repairs and window, or ZMTP."""
    FILTER = "F"
    """A publisher knows of each subscription, and a subscriber gets what it wants, just that."""
    TURN = "T"
    """A REQ gets one reply to each request, and it is the reply to that."""


class Violation(Exception):
    """A law was broken; the run is over."""

    def __init__(self, law: Law, what: str) -> None:
        super().__init__(f"{law}: {what}")
        self.law = law
        """Which."""
        self.what = what
        """By whom, how, in numbers."""

    def __reduce__(self) -> tuple[type[Violation], tuple[Law, str]]:
        return Violation, (self.law, self.what)
