"""PUSH, PULL, PAIR and DEALER: in turn to those with room, in turn from those that sent.

Owns nothing beside what ``balance`` does. Invariant: what is sent is in exactly one peer's queue.
"""

from __future__ import annotations

from mcast.patterns.balance import Balanced, FairQueued
from mcast.patterns.base import Pipe
from mcast.patterns.kinds import PeerInfo, SocketKind
from mcast.patterns.options import ConflatingOptions, DealerOptions, QueueOptions

__all__ = ["Dealer", "Pair", "Pull", "Push"]


class Push(Balanced):
    """PUSH: sends each message to the next PULL with room, else would block (RFC 30)."""

    kind = SocketKind.PUSH
    passes_on = True
    options_type = ConflatingOptions
    options: ConflatingOptions


class Pull(FairQueued):
    """PULL: receives from each PUSH in turn (RFC 30)."""

    kind = SocketKind.PULL
    passes_on = True
    options_type = ConflatingOptions
    options: ConflatingOptions


class Pair(Balanced, FairQueued):
    """PAIR: sends to and receives from its one peer; others are refused while there is one."""

    kind = SocketKind.PAIR
    passes_on = True
    options_type = QueueOptions

    def _has_room_for_pipe(self) -> bool:
        return not self._pipes


class Dealer(Balanced, FairQueued):
    """DEALER: sends to each peer with room in turn, receives from each in turn (RFC 28).

    Talking to a REP it sends an empty part in front itself, and finds one in front of replies.
    """

    kind = SocketKind.DEALER
    passes_on = True
    options_type = DealerOptions
    options: DealerOptions

    def _connected(self, pipe: Pipe, peer: PeerInfo) -> None:
        super()._connected(pipe, peer)
        if self.options.probe_router:
            self._greet(pipe, b"")
