"""What passes from one end's pattern to the other's, checked as it comes.

Owns both ends' view of one direction. Invariants, each a law: what arrives is a prefix of what was
sent, whole messages in order, and nothing else; what is heard of subscriptions is what was told.
On a direction without CURVE in which a byte was changed nothing of this can hold, and nothing is
asked but that nobody crashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mcast.kernel import Message
from mcast.testing.laws import Law, Violation

if TYPE_CHECKING:
    from mcast.testing.streams.connection import Connection

__all__ = ["Lane"]


class Lane:
    """One direction of one connection, from the pattern that sends to the one that receives."""

    def __init__(self, sender: Connection) -> None:
        self.sent: list[Message] = []
        """What the sender's pattern gave to its engine."""
        self.arrived_count = 0
        """How many of them the receiver's engine has handed out."""
        self.sender = sender
        """The end that sends."""
        self._changes: list[tuple[bool, bytes]] = []
        self._heard_count = 0
        self._believed: set[bytes] = set()

    def __repr__(self) -> str:
        return f"{self.sender} to {self.sender.other}"

    @property
    def is_trusted(self) -> bool:
        """True if what arrives must be what was sent: no byte was changed, or CURVE would show."""
        node = self.sender.node
        if not node.is_honest:
            return False
        return node.is_sealed or not self.sender.cable.is_tainted

    @property
    def is_whole(self) -> bool:
        """True if everything sent has arrived."""
        self._skip_unknown()
        return self.arrived_count == len(self.sent) and self._heard_count == len(self._changes)

    def send(self, batch: Sequence[Message]) -> None:
        """The pattern gives the engine a batch."""
        self.sent += batch
        self.sender.node.took(self.sender, batch)

    def change(self, wanted: bool, topic: bytes) -> None:
        """The pattern tells the peer that it wants a topic, or no longer."""
        self._changes.append((wanted, topic))

    def arrive(self, batch: Iterable[Message]) -> None:
        """The other end's engine hands out messages."""
        for message in batch:
            place, self.arrived_count = self.arrived_count, self.arrived_count + 1
            self.sender.other.node.came(self.sender.other, place, message)
            if not self.is_trusted:
                continue
            if place >= len(self.sent):
                raise Violation(
                    Law.INTEGRITY, f"{self}: a message that nobody sent: {message!r:.60}"
                )
            wanted = self.sent[place]
            if message != wanted:
                law = Law.ORDER if message in self.sent else Law.INTEGRITY
                raise Violation(law, f"{self}: {message!r:.60} came instead of {wanted!r:.60}")

    def heard(self, wanted: bool, topics: Iterable[bytes]) -> None:
        """The other end's engine hands out changes of subscriptions."""
        for topic in topics:
            if not self.is_trusted:
                continue
            self._skip_unknown()
            if self._heard_count >= len(self._changes):
                raise Violation(Law.FILTER, f"{self}: heard of {topic!r}, which was not told")
            told = self._changes[self._heard_count]
            if told != (wanted, topic):
                raise Violation(Law.FILTER, f"{self}: heard {wanted, topic} instead of {told}")
            self._heard_count += 1
            (self._believed.add if wanted else self._believed.discard)(topic)

    def _skip_unknown(self) -> None:
        """An engine says nothing of cancelled topics that the peer does not have."""
        while self._heard_count < len(self._changes):
            wanted, topic = self._changes[self._heard_count]
            if wanted or topic in self._believed:
                return
            self._heard_count += 1
