"""What applications sent and received: the ledger of whole sockets, beside that of connections.

Owns the number in each message. Invariants, each a law: what an application receives has come to
its socket by a connection, just so, and once; the messages of one connection come in order; a REQ
gets the reply to its last request; a SUB or DISH gets what it wants, all of it and nothing else;
and of each message that a socket took, its counters can tell where it went.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mcast.kernel import Message
from mcast.patterns import SocketKind
from mcast.testing.laws import Law, Violation

if TYPE_CHECKING:
    from mcast.testing.streams.lanes import Lane
    from mcast.testing.streams.node import Node
    from mcast.testing.streams.world import World

__all__ = ["Arrivals", "Truth", "parts_of", "token_of"]

_DIGITS: Final = 10
_FILLER: Final = bytes(range(33, 127)) * 1100


def parts_of(message: Message) -> tuple[bytes, ...]:
    """All parts of a message."""
    return (message,) if isinstance(message, bytes) else message


def token_of(message: Message) -> int:
    """The number at the end of a message, or -1."""
    tail = parts_of(message)[-1][-_DIGITS:]
    return int(tail) if len(tail) == _DIGITS and tail.isdigit() else -1


class Truth:
    """What was sent, and what of it was delivered to whom."""

    def __init__(self, world: World) -> None:
        self.sent: dict[int, tuple[bytes, ...]] = {}
        """Each message by its number, as its sender has it."""
        self.reply_to: dict[int, int] = {}
        """Which request a reply answers."""
        self.sender: dict[int, Node] = {}
        self.lane: dict[int, Lane] = {}
        """By which connection a message left last."""
        self.delivered: set[tuple[str, int]] = set()
        """Who received which."""
        self._world = world

    def make(self, sender: Node, topic: bytes, sizes: tuple[int, ...]) -> Message:
        """A new message: the first part begins with the topic, the last ends with its number."""
        token = len(self.sent)
        parts = [_FILLER[token % 94 : token % 94 + size] for size in sizes]
        parts[0] = topic + parts[0]
        parts[-1] += b"%010d" % token
        self.sent[token] = tuple(parts)
        self.sender[token] = sender
        return parts[0] if len(parts) == 1 else tuple(parts)

    def answer(self, sender: Node, request: Message, sizes: tuple[int, ...]) -> Message:
        """A new message that answers one."""
        reply = self.make(sender, b"", sizes)
        self.reply_to[token_of(reply)] = token_of(request)
        return reply

    def deliver(self, node: Node, message: Message) -> int:
        """An application received this; its number, or -1 if it is no message of anybody."""
        parts = parts_of(message)
        if node.kind is SocketKind.ROUTER:
            parts = parts[1:]
        token = token_of(parts)
        if self.sent.get(token) != parts:
            self.forgive(Law.INTEGRITY, f"{node.name} received {message!r:.60}")
            return -1
        if not node.arrivals.take(token):
            self.forgive(Law.ONCE, f"{node.name} received {token}, which had not come (again)")
        self.delivered.add((node.name, token))
        self._world.note(f"{node.name} received {token}")
        return token

    def forgive(self, law: Law, what: str) -> None:
        """Raise ``Violation``, unless a byte was changed where nothing guards it."""
        if not self._world.is_tainted:
            raise Violation(law, what)


class Arrivals:
    """What came to one socket and its application has not received yet."""

    def __init__(self) -> None:
        self.count = 0
        """All that came."""
        self.unwanted_count = 0
        """Those that the socket is to filter out."""
        self._places: dict[int, tuple[Lane, int]] = {}
        self._last: dict[Lane, int] = {}

    def __len__(self) -> int:
        """How many are still to be received."""
        return len(self._places)

    def add(self, lane: Lane, place: int, message: Message, *, wanted: bool) -> None:
        """A message came as the ``place``-th of its connection."""
        self.count += 1
        if wanted:
            self._places[token_of(message)] = lane, place
        else:
            self.unwanted_count += 1

    def take(self, token: int) -> bool:
        """The application received it; False if it had not come. Raises ``Violation``."""
        lane, place = self._places.pop(token, (None, 0))
        if lane is None:
            return False
        if place < self._last.get(lane, 0):
            raise Violation(Law.ORDER, f"{lane}: message {token} was received behind a later one")
        self._last[lane] = place
        return True
