"""What the connections of a socket have in common, and what they may ask of their socket.

Owns the two faces between ``mcast.runtime.peers`` and the transports (connections, inproc,
datagrams), so that neither has to know the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mcast.runtime.inproc import InprocEnd
    from mcast.runtime.peers import Peers

__all__ = ["NEVER", "Pipe", "Switchboard", "Timed"]

NEVER = 1 << 62


class Timed(Protocol):
    """What waits for a moment."""

    armed_ns: int
    """For when it stands in the heap of its socket; ``NEVER`` if it does not."""

    @property
    def next_timeout_ns(self) -> int:
        """When to call ``handle_timeout``."""

    def handle_timeout(self, now_ns: int) -> None:
        """Do what is due. Under the lock."""


class Pipe(Protocol):
    """One connection that the pattern knows, by any transport. All of it under the lock."""

    number: int
    """The pattern's name for it."""

    def flush(self, now_ns: int) -> None:
        """Take what the pattern has for this peer and send it, as far as the peer takes it."""

    def resume(self, now_ns: int) -> None:
        """The pattern has room again for what this peer sends."""

    def refuse(self, text: str, now_ns: int) -> None:
        """The pattern will not deal with this peer: end it."""

    @property
    def is_drained(self) -> bool:
        """True if nothing that was sent is left on this side."""

    def hang_up(self) -> None:
        """Give everything back, at once."""


class Switchboard:
    """What the sockets of one context share: the lock of all their patterns, and inproc names.

    One lock, so that two sockets can be joined in memory without an order of locks. It is held for
    batches of work and never while anything blocks.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.bound: dict[str, Peers] = {}
        """Who has bound which inproc name."""
        self.waiting: dict[str, list[InprocEnd]] = {}
        """Who has connected to a name that nobody has bound yet."""
        self._dirty: deque[Peers] = deque()
        self._touched: list[Peers] = []

    def mark(self, peers: Peers) -> None:
        """Something changed in the pattern of this socket. Under the lock."""
        if not peers.is_dirty:
            peers.is_dirty = True
            self._dirty.append(peers)

    def settle(self, now_ns: int) -> list[Callable[[], None]]:
        """Do what follows of all changes; what is to be called afterwards, without the lock."""
        while self._dirty:
            peers = self._dirty.popleft()
            peers.is_dirty = False
            peers.settle(now_ns)
            if peers not in self._touched:
                self._touched.append(peers)
        touched, self._touched = self._touched, []
        return [peers.notify for peers in touched]
