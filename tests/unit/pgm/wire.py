"""Engines joined by a wire of this process: virtual time, seeded loss, no sockets.

``Wire`` carries every transmit of each node to all others after ``delay_ns``, unless ``lose`` says
no; ``faults`` sets seeded duplicates, unequal delays and flipped bits. Time jumps to the next thing
that is due, so a test of ten seconds takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from mcast.events import Event
from mcast.kernel import Message, TopicFilter
from mcast.options import SocketOptions
from mcast.pgm import Messages, PgmEngine
from mcast.pgm.events import GROUP

MS = 1_000_000
GROUP_ADDRESS = bytes((239, 192, 1, 1))
PORT = 5555

Lose = Callable[["Node", "Node", bytes], bool]


@dataclass(eq=False)
class Node:
    """One engine with its address, and all that came out of it."""

    name: str
    address: bytes
    engine: PgmEngine
    messages: list[Message] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    stream: list[Messages | Event] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)


@dataclass
class Faults:
    """Probabilities for each packet and receiver."""

    duplicate: float = 0.0
    """It comes twice, the second one delayed like a reordered one."""
    reorder: float = 0.0
    """It is delayed by up to ``reorder_ns`` more than the others."""
    reorder_ns: int = 5 * MS
    corrupt: float = 0.0
    """Up to 15 bits in a row are flipped: the checksum sees every such burst."""


def never_lost(sender: Node, receiver: Node, packet: bytes) -> bool:
    return False


def loss(wire: Wire, *percents: float) -> Lose:
    """Each subscriber loses its percentage of what it gets and of what it sends.

    The first node is the publisher, ``percents`` are the subscribers' in order.
    """

    def lose(sender: Node, receiver: Node, packet: bytes) -> bool:
        subscriber = receiver if sender is wire.nodes[0] else sender
        if subscriber is wire.nodes[0]:
            return False
        return wire.dice.random() * 100 < percents[wire.nodes.index(subscriber) - 1]

    return lose


class Wire:
    """A LAN segment of engines under one virtual clock."""

    def __init__(self, seed: int = 1, delay_ns: int = 100_000) -> None:
        self.now_ns = 1_000 * MS
        self.dice = Random(seed)
        self.delay_ns = delay_ns
        self.lose: Lose = never_lost
        self.faults = Faults()
        self.nodes: list[Node] = []
        self._flying: list[tuple[int, int, Node, bytes, bytes, bool]] = []
        self._count = 0

    def publisher(self, **options: object) -> Node:
        options.setdefault("txw_bytes", 8 << 20)  # the default is 64 MiB, and Python clears them
        return self._node(options, publishes=True)

    def subscriber(self, *topics: bytes, **options: object) -> Node:
        return self._node(options, topic_filter=TopicFilter(topics or (b"",)))

    def _node(
        self,
        options: dict[str, object],
        publishes: bool = False,
        topic_filter: TopicFilter | None = None,
    ) -> Node:
        address = bytes((10, 77, 0, len(self.nodes) + 1))
        tsi = self.dice.randbytes(6) + self.dice.randrange(1, 5000).to_bytes(2, "big")
        engine = PgmEngine(
            address=address,
            group=GROUP_ADDRESS,
            port=PORT,
            options=SocketOptions(**options),  # type: ignore[arg-type]
            dice=Random(self.dice.random()),
            now_ns=self.now_ns,
            source_tsi=tsi if publishes else None,
            topic_filter=topic_filter,
        )
        node = Node(f"n{len(self.nodes)}", address, engine)
        self.nodes.append(node)
        return node

    def send(self, node: Node, *messages: bytes | tuple[bytes, ...]) -> None:
        for message in messages:
            parts = message if isinstance(message, tuple) else (message,)
            assert node.engine.send(self.now_ns, parts), "the publisher is full"
            self.drain(node)

    def drain(self, node: Node) -> None:
        """What the shell does after every call."""
        for transmit in node.engine.take_transmits():
            data = bytes(transmit.data)
            for start in range(0, len(data), transmit.segment_bytes):
                packet = data[start : start + transmit.segment_bytes]
                node.sent.append(packet)
                to_group = transmit.destination == GROUP
                for other in self.nodes:
                    wanted = (
                        other is not node if to_group else other.address == transmit.destination
                    )
                    if wanted and not self.lose(node, other, packet):
                        self._carry(node, other, packet, to_group)
        for event in node.engine.take_events():
            node.stream.append(event)
            if isinstance(event, Messages):
                node.messages.extend(event.messages)
            else:
                node.events.append(event)

    def _carry(self, node: Node, other: Node, packet: bytes, to_group: bool) -> None:
        faults, dice = self.faults, self.dice
        copies = 1 + (dice.random() < faults.duplicate)
        for copy in range(copies):
            due = self.now_ns + self.delay_ns
            if copy or dice.random() < faults.reorder:
                due += dice.randrange(faults.reorder_ns)
            arriving = packet
            if dice.random() < faults.corrupt:
                burst = dice.randrange(1, 1 << 15) << dice.randrange(8 * len(packet) - 14)
                arriving = (int.from_bytes(packet, "big") ^ burst).to_bytes(len(packet), "big")
            self._count += 1
            heappush(self._flying, (due, self._count, other, node.address, arriving, to_group))

    def deliver(self, node: Node, address: bytes, packet: bytes, to_group: bool = True) -> None:
        """Hand one packet to an engine now."""
        node.engine.handle_datagrams(
            self.now_ns, address, memoryview(packet), max(1, len(packet)), to_group
        )
        self.drain(node)

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.now_ns + round(seconds * 1e9)
        for node in self.nodes:
            self.drain(node)
        while True:
            due = min((node.engine.next_timeout_ns for node in self.nodes), default=end)
            if self._flying:
                due = min(due, self._flying[0][0])
            if due > end:
                break
            self.now_ns = max(self.now_ns, due)
            while self._flying and self._flying[0][0] <= self.now_ns:
                _, _, node, address, packet, to_group = heappop(self._flying)
                self.deliver(node, address, packet, to_group)
            for node in self.nodes:
                if node.engine.next_timeout_ns <= self.now_ns:
                    node.engine.handle_timeout(self.now_ns)
                    self.drain(node)
        self.now_ns = end
