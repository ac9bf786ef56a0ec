"""What the application behind a simulated socket does: it sends what is planned, receives, replies.

Owns its wishes: what is still to be sent, and what it is subscribed to.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from mcast.kernel import Message
from mcast.patterns import Dish, Req, SendResult, SocketKind, Sub, Xsub
from mcast.testing.laws import Law, Violation
from mcast.testing.streams.truth import parts_of, token_of

if TYPE_CHECKING:
    from mcast.testing.streams.node import Node

__all__ = ["Application"]

_BATCH: Final = 8
_PATIENCE_NS: Final = 100_000_000
"""After it a REQ with ``req_relaxed`` asks again."""
_DEAF: Final = (SocketKind.PUSH, SocketKind.PUB, SocketKind.RADIO)
_MUTE: Final = (SocketKind.PULL, SocketKind.SUB, SocketKind.DISH, SocketKind.XSUB)


class Application:
    """One application in one life."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.is_slow = False
        """It receives nothing for now."""
        self.backlog: deque[Message] = deque()
        self.sent_count = 0
        """What the socket took."""
        self.topics: Counter[bytes] = Counter()
        self.asked = -1
        """Of a REQ: the request without a reply."""
        self.noticed: set[bytes] = set()
        """Of an XPUB: the topics that it has been told of."""
        self._asked_ns = 0

    # Wishes.

    def submit(self, topic: bytes, sizes: tuple[int, ...]) -> int:
        """Have a new message sent; its number."""
        message = self.node.world.truth.make(self.node, topic, sizes)
        if self.node.kind is SocketKind.RADIO:
            parts = parts_of(message)
            message = (topic, parts[-1])
            self.node.world.truth.sent[token_of(message)] = message
        self.backlog.append(message)
        return token_of(message)

    def subscribe(self, topic: bytes) -> None:
        """Want what begins with a topic, or a group."""
        pattern = self.node.pattern
        if isinstance(pattern, Dish):
            if topic in self.topics:
                return
            pattern.join(topic)
        elif isinstance(pattern, Xsub):
            pattern.send(b"\1" + topic)
        elif isinstance(pattern, Sub):
            pattern.subscribe(topic)
        self.topics[topic] += 1
        self.node.settle()

    def unsubscribe(self, topic: bytes) -> None:
        """Take back one ``subscribe``."""
        pattern = self.node.pattern
        if not self.topics[topic]:
            return
        if isinstance(pattern, Dish):
            pattern.leave(topic)
        elif isinstance(pattern, Xsub):
            pattern.send(b"\0" + topic)
        elif isinstance(pattern, Sub):
            pattern.unsubscribe(topic)
        self.topics -= Counter([topic])
        self.node.settle()

    def wants(self, message: Message) -> bool:
        """True if a message that comes now is to be received."""
        first = parts_of(message)[0]
        if self.node.kind is SocketKind.SUB:
            return any(map(first.startswith, self.topics))
        if self.node.kind is SocketKind.DISH:
            return first in self.topics
        return True

    # Work.

    def work(self) -> None:
        """Receive and send whatever can be."""
        while self._receive() or self._send():
            pass

    def _receive(self) -> bool:
        node = self.node
        if self.is_slow or node.kind in _DEAF or not node.pattern.is_readable:
            return False
        if node.dice.random() < 0.5:
            message = node.pattern.recv()
            batch = [] if message is None else [message]
        else:
            batch = node.pattern.recv_many(1 + node.dice.randrange(_BATCH))
        if not batch:
            raise Violation(Law.LIVENESS, f"{node.name} is readable and gives nothing")
        for message in batch:
            self._got(message)
        return True

    def _got(self, message: Message) -> None:
        node, truth = self.node, self.node.world.truth
        if node.kind is SocketKind.XPUB:
            self._notice(message)
            return
        token = truth.deliver(node, message)
        if node.kind is SocketKind.REQ:
            if token >= 0 and truth.reply_to.get(token) != self.asked:
                truth.forgive(
                    Law.TURN, f"{node.name} asked {self.asked} and got {token} for a reply"
                )
            self.asked = -1
        elif node.kind is SocketKind.REP:
            self._reply(truth.answer(node, message, self._sizes()))
        elif node.kind is SocketKind.ROUTER:
            reply = truth.answer(node, message, self._sizes())
            self._reply((parts_of(message)[0], *parts_of(reply)))
        elif node.kind is SocketKind.DEALER and token in truth.reply_to:
            asker = truth.sender.get(truth.reply_to[token])
            if asker is not node and asker is not None:
                raise Violation(Law.INTEGRITY, f"{node.name} got a reply that is {asker.name}'s")

    def _sizes(self) -> tuple[int, ...]:
        dice = self.node.dice
        return tuple(dice.randrange(40) for _ in range(dice.choice((1, 1, 2))))

    def _reply(self, reply: Message) -> None:
        if self.node.pattern.send(reply) is not SendResult.SENT:
            raise Violation(Law.LIVENESS, f"{self.node.name} cannot reply")
        self.sent_count += 1

    def _notice(self, message: Message) -> None:
        change = parts_of(message)[0]
        topic = change[1:]
        if change[0] == (topic in self.noticed):
            self.node.world.truth.forgive(
                Law.FILTER, f"{self.node.name} is told {change!r:.40} a second time"
            )
        (self.noticed.add if change[0] else self.noticed.discard)(topic)

    def _send(self) -> bool:
        node, pattern = self.node, self.node.pattern
        if not self.backlog or node.kind in _MUTE or not self._may_ask():
            return False
        batch = [self.backlog[place] for place in range(min(len(self.backlog), _BATCH))]
        if isinstance(pattern, Req):
            del batch[1:]
        # Before, for who gets it depends on what is subscribed to now.
        if node.dice.random() < 0.5:
            taken = int(pattern.send(batch[0]) is SendResult.SENT)
        else:
            taken = pattern.send_many(batch)
        for message in batch[:taken]:
            node.offered(message)
            self.backlog.popleft()
        self.sent_count += taken
        if taken and isinstance(pattern, Req):
            self.asked, self._asked_ns = token_of(batch[0]), node.world.now_ns
            if pattern.options.req_relaxed:
                node.world.at(node.world.now_ns + _PATIENCE_NS, node.settle)
        return taken > 0

    def _may_ask(self) -> bool:
        pattern = self.node.pattern
        if not isinstance(pattern, Req) or self.asked < 0:
            return True
        late = self.node.world.now_ns - self._asked_ns >= _PATIENCE_NS
        return pattern.options.req_relaxed and late
