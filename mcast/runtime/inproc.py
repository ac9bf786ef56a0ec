"""Connections within one context: two patterns joined in memory, by name.

Owns the ends of these connections. Invariant: both ends are in their sockets' tables, or neither
is; a name may be connected to before anybody has bound it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcast.patterns.direct import exchange, join
from mcast.runtime.pipes import NEVER

if TYPE_CHECKING:
    from mcast.runtime.peers import Peers

__all__ = ["InprocEnd"]


class InprocEnd:
    """One end; a ``Pipe``."""

    def __init__(self, peers: Peers, number: int, url: str = "") -> None:
        self.number = number
        self.url = url
        """What was connected to; empty at the end that was bound."""
        self.armed_ns = NEVER
        self.peers = peers
        self.other: InprocEnd | None = None
        """The other end, if there is one yet."""
        self.waits_for = ""
        """The name that nobody has bound yet."""

    def meet(self, bound: Peers) -> None:
        """Somebody has bound the name."""
        self.waits_for = ""
        other = self.other = InprocEnd(bound, bound.next_number())
        other.other = self
        bound.adopt(other)
        join(self.peers.pattern, self.number, bound.pattern, other.number)
        self.peers.mark()
        bound.mark()

    def flush(self, now_ns: int) -> None:  # noqa: ARG002
        """Move what both have to say to each other."""
        other = self.other
        if other is not None and exchange(
            self.peers.pattern, self.number, other.peers.pattern, other.number
        ):
            other.peers.mark()
            self.peers.mark()

    def resume(self, now_ns: int) -> None:
        """There is room for what the other has to say."""
        self.flush(now_ns)

    def refuse(self, text: str, now_ns: int) -> None:  # noqa: ARG002
        """One of the two will not deal with the other."""
        self.peers.warn(f"an inproc:// connection was ended: {text}")
        self.hang_up()

    @property
    def is_drained(self) -> bool:
        """True if the other has everything."""
        return not self.peers.pattern.queued_for(self.number)

    def hang_up(self) -> None:
        """End it, for both."""
        self.peers.ways.part()
        other, self.other = self.other, None
        if self.waits_for:
            waiting = self.peers.switchboard.waiting
            waiting[self.waits_for].remove(self)
            if not waiting[self.waits_for]:
                del waiting[self.waits_for]
            self.waits_for = ""
        self.peers.left(self)
        if other is not None:
            other.other = None
            other.peers.left(other)
