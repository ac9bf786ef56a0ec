"""What one connection did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ZmtpCounters"]


@dataclass(slots=True)
class ZmtpCounters:
    """One connection's counters. Owned by its engine; they only grow."""

    bytes_received: int = 0
    """All bytes that came, greeting and heads included."""
    messages_received: int = 0
    """Messages handed out."""
    messages_sent: int = 0
    """Messages taken by ``send``."""
    pings_sent: int = 0
    """PINGs sent."""
    pings_received: int = 0
    """PINGs that came."""
    pings_unanswered: int = 0
    """PINGs that got no PONG, because a hundred PONGs were waiting to be taken."""
    commands_ignored: int = 0
    """Commands of no meaning here, passed over as libzmq does."""
    cancels_ignored: int = 0
    """Cancelled topics that were not subscribed to."""
