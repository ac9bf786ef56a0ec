"""The short ways of a socket with one connection: who may send and read without the pattern.

Owns when they are open. Invariants: while a gate is open nothing waits for the peer but what is in
its writer, so nothing overtakes; while an intake reads, the pattern has nothing, and what the inbox
has came before all that the pattern will have; both are closed before the descriptor is. All of it
happens under the switchboard's lock, but for what the compiled kernel does in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import ref

from mcast.kernel import NAME, Inbox, StreamGate, TopicFilter
from mcast.patterns import SocketKind
from mcast.runtime.bridges import Bridge, can_bridge
from mcast.runtime.pipes import NEVER

if TYPE_CHECKING:
    from mcast.runtime.connections import Connection
    from mcast.runtime.loop import Loop
    from mcast.runtime.peers import Peers

__all__ = ["ShortWays"]

_TOPIC_LIMIT: Final = 1000
"""Subscriptions of a peer up to which its filter is made anew with each change."""
_FETCH: Final = 10_000


class ShortWays:
    """Of one socket. The socket keeps the gate, so that nothing in the loop keeps the socket."""

    def __init__(self, peers: Peers, loop: Loop) -> None:
        self._peers = peers
        self._loop = loop
        self._gate: ref[StreamGate] | None = None
        self._inbox: Inbox | None = None
        self.connection: Connection | None = None
        """The only one, if it may have short ways."""
        self._sees_topics = -1
        self.out: Bridge | None = None
        """Where what is sent goes, if that is another socket of this context."""
        self.into: Bridge | None = None
        """Where what arrives comes from, if that is another socket of this context."""
        self.may_read = True
        """Nothing else puts messages into the inbox."""

    def use(self, gate: StreamGate | None, inbox: Inbox | None) -> None:
        """The application's ends, if the socket sends, and if it receives by an inbox."""
        self._gate = None if gate is None else ref(gate)
        self._inbox = inbox

    @property
    def gate(self) -> StreamGate | None:
        """The gate, as long as somebody has it."""
        return None if self._gate is None else self._gate()

    @property
    def inbox(self) -> Inbox | None:
        """Where messages go without the pattern; None while they do not."""
        connection = self.connection
        return None if connection is None or connection.intake is None else self._inbox

    def settle(self, now_ns: int) -> None:
        """Open and close them as things stand now."""
        if NAME == "reference":
            return  # its short ways are the long ones
        self._settle_bridges(now_ns)
        lone = self._lone()
        if lone is not self.connection:
            self.leave(now_ns)
            if lone is not None:
                self._enter(lone)
        connection = self.connection
        if connection is None:
            return
        if connection.intake is not None:
            if self.may_read:
                self._go_on_reading(connection, now_ns)
            else:
                self._end_reading(connection, now_ns)
        gate = self.gate
        if gate is not None and gate.writer is connection.writer and not gate.error:
            gate.is_open = self._may_send(connection, gate)

    def _settle_bridges(self, now_ns: int) -> None:
        peers = self._peers
        end = peers.lone_end
        other = None if end is None or end.other is None else end.other.peers
        if other is None or other.lone_end is not (end and end.other):
            self.part()
            return
        for source, sink in ((peers, other), (other, peers)):
            bridge, gate, inbox = source.ways.out, source.ways.gate, sink.ways._inbox
            if not can_bridge(source, sink) or gate is None or inbox is None:
                if bridge is not None:
                    bridge.close()
                continue
            if bridge is None:
                bridge = source.ways.out = sink.ways.into = Bridge(source, sink, gate, inbox)
            bridge.settle()
            if bridge.is_blocked:
                source.look_again(now_ns)  # whoever takes messages tells nobody

    def part(self) -> None:
        """Nothing goes straight to or from another socket any more."""
        for bridge in (self.out, self.into):
            if bridge is not None:
                bridge.close()

    def _go_on_reading(self, connection: Connection, now_ns: int) -> None:
        inbox = self._inbox
        assert inbox is not None
        connection.filter_arrivals(self._peers.pattern.arrival_filter)
        if connection.is_paused and not connection.go_on(now_ns):
            self._peers.look_again(now_ns)  # whoever takes messages tells nobody

    def _may_send(self, connection: Connection, gate: StreamGate) -> bool:
        if self._peers.kind is SocketKind.PUB:
            if self._sees_topics != connection.topics_version:
                self._sees_topics = connection.topics_version
                gate.close()
                gate.topic_filter = _filter_of(connection)
            if gate.topic_filter is None:
                return False
        return not self._peers.pattern.has_outgoing(connection.number) and connection.is_clear

    def _lone(self) -> Connection | None:
        peers = self._peers
        if not peers.pattern.is_passing_on or peers.is_closing:
            return None
        return peers.lone_connection

    def _enter(self, connection: Connection) -> None:
        peers, gate, inbox = self._peers, self.gate, self._inbox
        self.connection = connection
        self._sees_topics = -1
        if gate is not None and connection.engine.is_plain:
            gate.topic_filter = None
            gate.lead_to(connection.writer)
        scanner = connection.engine.plain_scanner
        if inbox is None or scanner is None or not self.may_read:
            return
        while fetched := peers.pattern.recv_many(_FETCH):
            inbox.put(fetched)
        connection.open_intake(
            scanner,
            inbox,
            self._loop.baton,
            peers.settled,
            peers.notify,
            self._loop.switchboard.lock,
            self._loop.driver,
        )
        if (intake := connection.intake) is not None:
            inbox.intake = intake
            peers.readable.bell = intake.ring
            peers.readable.joined = intake.hand_back

    def leave(self, now_ns: int) -> None:
        """Close them; what is under way goes on the long way."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        gate = self.gate
        if gate is not None:
            gate.lead_to(None)
        self._end_reading(connection, now_ns)
        if not connection.is_over:
            connection.flush(now_ns)

    def _end_reading(self, connection: Connection, now_ns: int) -> None:
        if connection.intake is None:
            return
        connection.close_intake(now_ns)
        if self._inbox is not None:
            self._inbox.intake = None
        self._peers.readable.bell = self._peers.readable.joined = None

    @property
    def due_ns(self) -> int:
        """When the gate wants what it left behind to be written."""
        gate = self.gate
        return NEVER if gate is None else gate.due_ns

    @property
    def alarm_ns(self) -> int:
        """The same, but for what the baton attends to."""
        gate = self.gate
        return NEVER if gate is None or gate.is_attended else gate.due_ns

    def write(self, now_ns: int) -> None:
        """Write what the gate left behind."""
        if self.connection is not None and not self.connection.is_over:
            self.connection.flush(now_ns)


def _filter_of(connection: Connection) -> TopicFilter | None:
    topics = connection.engine.peer_topics
    return TopicFilter(topics) if len(topics) <= _TOPIC_LIMIT else None
