"""The short way of inproc: what one socket sends goes straight into the inbox of the other.

Owns when a sender's gate leads into another socket's inbox. Invariants: either end has no other
peer; the patterns of both have nothing for this direction once the lock is free, so that nothing
overtakes; the inbox holds no more than both high-water marks and one batch (libzmq: their sum).
Everything but ``has_room`` happens under the switchboard's lock.
"""

from __future__ import annotations

from sys import maxsize
from typing import TYPE_CHECKING, Final
from weakref import ref

from mcast.kernel import Inbox, StreamGate
from mcast.patterns import SocketKind

if TYPE_CHECKING:
    from mcast.runtime.peers import Peers

__all__ = ["Bridge", "can_bridge"]

_SOURCES: Final = frozenset({SocketKind.PUSH, SocketKind.PAIR, SocketKind.DEALER})
_SINKS: Final = frozenset({SocketKind.PULL, SocketKind.PAIR, SocketKind.DEALER})
_FETCH: Final = 10_000


class Bridge:
    """One direction between two sockets, while it is up."""

    def __init__(self, source: Peers, sink: Peers, gate: StreamGate, inbox: Inbox) -> None:
        self.source = source
        self.sink = sink
        self._gate = ref(gate)
        self._inbox = inbox
        self._limit = 0
        self.is_blocked = False
        """The inbox was full when somebody came, and is not half empty yet."""
        self._known_count = gate.sent_count

    def settle(self) -> None:
        """What came by the patterns goes the same way; open the gate if there is room."""
        while fetched := self.sink.pattern.recv_many(_FETCH):
            self._inbox.put(fetched)
        limit = _limit(self.source, self.sink)
        gate = self._gate()
        if gate is None:
            return
        if limit != self._limit:
            self._limit = limit
            gate.lead_into(self._inbox, limit, self.sink.notify)
        self.is_blocked = not self.has_room
        gate.is_open = not self.is_blocked

    @property
    def has_room(self) -> bool:
        """True if a message may be sent."""
        waiting = len(self._inbox)
        return 2 * waiting <= self._limit if self.is_blocked else waiting < self._limit

    @property
    def has_arrivals(self) -> bool:
        """True if something waits for the sink's application."""
        return len(self._inbox) > 0

    @property
    def room(self) -> int:
        """How many messages may be sent by whoever asks; 0 blocks it until half of them went."""
        self.is_blocked = not self.has_room
        return 0 if self.is_blocked else self._limit - len(self._inbox)

    @property
    def passed_count(self) -> int:
        """Messages that no pattern has seen."""
        gate = self._gate()
        return 0 if gate is None else gate.sent_count - self._known_count

    def close(self) -> None:
        """From now on everything goes by the patterns."""
        self.sink.pattern.counters.messages_received += self.passed_count
        if (gate := self._gate()) is not None:
            gate.lead_to(None)
        self.source.ways.out = self.sink.ways.into = None


def can_bridge(source: Peers, sink: Peers) -> bool:
    """Whether all that one sends is for the other, and goes there as it is."""
    return (
        source.kind in _SOURCES
        and sink.kind in _SINKS
        and source.pattern.is_passing_on
        and sink.pattern.is_passing_on
        and not source.is_closing
        and not sink.is_closing
    )


def _limit(source: Peers, sink: Peers) -> int:
    marks = source.options.sndhwm, sink.options.rcvhwm
    return sum(marks) if all(marks) else maxsize
