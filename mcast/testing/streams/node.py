"""A simulated socket: a real ``Pattern``, its connections, and an application that uses it.

Owns the table of connections and who is dialled again. Invariant: after anything happened the
pattern's news were seen to, as by the shell, before time goes on.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Final

from mcast.kernel import Message
from mcast.patterns import Refusal, Refused, SocketKind, create
from mcast.patterns.options import QueueOptions
from mcast.testing.laws import Law, Violation
from mcast.testing.streams.application import Application
from mcast.testing.streams.truth import Arrivals, token_of
from mcast.zmtp import ZmtpOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcast.testing.streams.connection import Connection
    from mcast.testing.streams.world import World

__all__ = ["PUBLISHERS", "Node"]

_REDIAL_NS: Final = 100_000_000
_FAIR: Final = (Refusal.SECOND_PEER, Refusal.HANDED_OVER, Refusal.DUPLICATE_ROUTING_ID)
PUBLISHERS: Final = (SocketKind.PUB, SocketKind.XPUB, SocketKind.RADIO)


class Node:
    """One socket. ``application`` is set by whoever makes it."""

    def __init__(
        self, world: World, name: str, kind: SocketKind, queue: QueueOptions, zmtp: ZmtpOptions
    ) -> None:
        self.world = world
        self.name = name
        self.kind = kind
        self.zmtp_options = zmtp
        self.is_honest = True
        self.is_sealed = zmtp.security.mechanism == b"CURVE"
        self.reads_itself = False
        """Where it can it reads in place of the engine, out of its scanner."""
        self.is_up = True
        self.connections: dict[int, Connection] = {}
        self.dialled: dict[int, Node] = {}
        """Pipes that are dialled again when they break, and whom."""
        self.dice = Random(world.dice.getrandbits(64))
        self._queue_options = queue
        self._is_settling = False
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        self.pattern = create(self.kind, Random(self.dice.getrandbits(64)), self._queue_options)
        self.arrivals = Arrivals()
        self.taken_count = 0
        """Messages that left the pattern."""
        self.expected: dict[int, deque[int]] = {}
        """Of a publisher: what each pipe was to get, and has not taken."""
        self.expected_count = 0
        self.topics: dict[int, set[bytes]] = {}
        """Of a publisher: what the peer of each pipe wants."""
        self.application = Application(self)

    # Connections.

    def next_number(self) -> int:
        """A number that no pipe has had."""
        self._number += 1
        return self._number

    def dial(self, listener: Node) -> None:
        """Connect, and go on connecting."""
        number = self.next_number()
        self.dialled[number] = listener
        self.pattern.attach(number)
        self._dial(number)

    def _dial(self, number: int) -> None:
        listener = self.dialled.get(number)
        if listener is None or not self.is_up:
            return
        if not self.pattern.has_pipe(number):
            self.pattern.attach(number)
        if not listener.is_up:
            self._dial_later(number)
            return
        mine = self.connections[number] = self.world.connect(self, number, listener)
        self.world.note(f"{mine} dials {mine.other}")
        mine.start()
        mine.other.start()
        self.settle()

    def _dial_later(self, number: int) -> None:
        self.world.at(self.world.now_ns + _REDIAL_NS, lambda: self._dial(number))

    def lost(self, connection: Connection) -> None:
        """A connection is over."""
        number = connection.number
        if self.connections.pop(number, None) is not connection:
            return
        if number in self.dialled:
            self.pattern.suspend(number)
            self._dial_later(number)
        else:
            self.pattern.detach(number)
            self._forget(number)

    def crash(self) -> None:
        """The process is gone, and all it had."""
        self.check_accounts()
        self.is_up = False
        for connection in list(self.connections.values()):
            connection.cable.snap(reset=True)
            connection.is_over = True
        self.connections.clear()

    def restart(self) -> None:
        """A new process does what the old one did."""
        listeners = list(self.dialled.values())
        self.dialled.clear()
        topics = self.application.topics
        self._begin()
        self.is_up = True
        for topic in sorted(topics):
            self.application.subscribe(topic)
        for listener in listeners:
            self.dial(listener)

    # The pattern's news.

    def settle(self) -> None:
        """See to what the pattern has to say, until it has no more."""
        if self._is_settling or not self.is_up:
            return
        self._is_settling = True
        pattern = self.pattern
        try:
            while True:
                for refused in pattern.take_events():
                    self._refused(refused)
                for number in pattern.take_resumed():
                    if number in self.connections:
                        self.connections[number].resume()
                for number in pattern.take_loaded():
                    if number in self.connections:
                        self.connections[number].flush()
                self.application.work()
                if not pattern.has_news:
                    break
        finally:
            self._is_settling = False

    def _refused(self, refused: Refused) -> None:
        connection = self.connections.get(refused.pipe)
        self.world.note(f"{self.name} refuses pipe {refused.pipe}: {refused.reason}")
        if connection is None:
            return
        if refused.reason not in _FAIR and not connection.cable.is_tainted:
            raise Violation(Law.HONEST, f"{connection} is refused: {refused.reason}")
        if refused.reason.closes:
            self._forget(refused.pipe)
            connection.is_attached = False
            connection.end()

    def _forget(self, number: int) -> None:
        self.expected.pop(number, None)
        self.topics.pop(number, None)

    # The ledger's side.

    def came(self, connection: Connection, place: int, message: Message) -> None:
        """A message is about to be given to the pattern."""
        wanted = self.application.wants(message)
        self.arrivals.add(connection.other.lane, place, message, wanted=wanted)

    def offered(self, message: Message) -> None:
        """Of a publisher: who is to get this message."""
        topic = message if isinstance(message, bytes) else message[0]
        exact = self.kind is SocketKind.RADIO
        for number, topics in self.topics.items():
            if (topic in topics) if exact else any(map(topic.startswith, topics)):
                self.expected.setdefault(number, deque()).append(token_of(message))
                self.expected_count += 1

    def took(self, connection: Connection, batch: Sequence[Message]) -> None:
        """The pattern gave messages for a connection."""
        self.taken_count += len(batch)
        truth = self.world.truth
        for message in batch:
            token = token_of(message)
            if self.kind in PUBLISHERS:
                expected = self.expected.get(connection.number, deque())
                while expected and expected[0] != token:
                    expected.popleft()  # dropped, which ``check_accounts`` counts
                if not expected:
                    raise Violation(Law.FILTER, f"{connection} gets {token}, unasked or again")
                expected.popleft()
            elif token >= 0 and truth.lane.get(token) is not None:
                raise Violation(Law.ONCE, f"{self.name} sends {token} again")
            truth.lane[token] = connection.lane

    def check_accounts(self) -> None:
        """Of each message its counters can tell where it went. Raises ``Violation``."""
        counters = self.pattern.counters
        queued = sum(map(self.pattern.queued_for, {*self.connections, *self.dialled}))
        gone = counters.dropped_at_hwm + counters.dropped_unroutable + counters.dropped_undelivered
        sent = self.expected_count if self.kind in PUBLISHERS else self.application.sent_count
        if sent != self.taken_count + queued + gone:
            raise Violation(
                Law.LEDGER,
                f"{self.name} sent {sent}: {self.taken_count} left, {queued} wait,"
                f" {gone} were dropped",
            )
        if counters.messages_taken != self.taken_count:
            raise Violation(Law.LEDGER, f"{self.name} counts {counters.messages_taken} taken")
        if self.kind not in PUBLISHERS and counters.messages_received != self.arrivals.count:
            raise Violation(
                Law.LEDGER,
                f"{self.name} counts {counters.messages_received} received of"
                f" {self.arrivals.count}",
            )

    def check_received(self) -> None:
        """Nothing that came is left behind, but what was rightly dropped. Raises ``Violation``."""
        counters = self.pattern.counters
        left = len(self.arrivals)
        dropped = counters.dropped_unexpected + counters.dropped_malformed
        if left != dropped or (dropped and self.kind is not SocketKind.REQ):
            raise Violation(Law.LEDGER, f"{self.name}: {left} messages came and were not received")
        if counters.filtered != self.arrivals.unwanted_count:
            raise Violation(
                Law.FILTER,
                f"{self.name} filtered {counters.filtered}, not {self.arrivals.unwanted_count}",
            )
