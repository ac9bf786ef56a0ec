"""SUB and XSUB: who is told what is wanted, and what of the rest is let through.

Owns the application's subscriptions, counted. Invariant: a peer that has taken all its changes was
told of what is wanted now, and of everything it was told of and that is wanted no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final

from mcast.kernel import Message, TopicFilter
from mcast.patterns.balance import Distributing, FairQueued
from mcast.patterns.base import Pattern, Pipe
from mcast.patterns.events import Refusal, SendResult
from mcast.patterns.kinds import PeerInfo, SocketKind
from mcast.patterns.options import QueueOptions, SubOptions, XsubOptions
from mcast.patterns.subscriptions import split_subscriptions

__all__ = ["Sub", "Telling", "Xsub"]

_UNREAD_LIMIT: Final = 100_000
"""Changes that may wait for a peer beyond one for each topic: about 10 MiB. It is refused then.

libzmq drops subscriptions in silence when the pipe's SNDHWM is reached. Guessed.
"""


class Telling(Pattern):
    """Tells each peer what this socket wants, and everything again when it comes back."""

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._wanted: Counter[bytes] = Counter()
        super().__init__(options, dice)

    @property
    def topic_count(self) -> int:
        """How many different topics this socket is subscribed to, or groups it has joined."""
        return len(self._wanted)

    def _want(self, topic: bytes) -> None:
        """One subscription more. Peers hear of each, as in libzmq, so that XPUB_VERBOSE can."""
        self._wanted[topic] += 1
        self._tell(True, topic)

    def _drop(self, topic: bytes) -> bool:
        """One subscription less; True if it was the last, and peers are to be told."""
        if topic not in self._wanted:
            return False
        self._wanted[topic] -= 1
        if self._wanted[topic]:
            return False
        del self._wanted[topic]
        return True

    def _tell(self, is_wanted: bool, topic: bytes) -> None:
        limit = _UNREAD_LIMIT + len(self._wanted)
        for pipe in list(self._pipes.values()):
            if not pipe.is_connected:
                continue  # it is told everything when it is
            if len(pipe.changes) >= limit:
                self._refuse(pipe.number, Refusal.UNREAD_CHANGES)
                continue
            pipe.changes.append((is_wanted, topic))
            if not pipe.is_loaded:
                self._load(pipe)

    def _connected(self, pipe: Pipe, peer: PeerInfo) -> None:
        super()._connected(pipe, peer)
        # Each once, in the order of their bytes: so does libzmq, whose trie has no other.
        pipe.changes = [(True, topic) for topic in sorted(self._wanted)]


class Sub(Telling, FairQueued):
    """SUB: receives what begins with a topic subscribed to, from each publisher in turn."""

    kind = SocketKind.SUB
    passes_on = True
    options_type = SubOptions
    options: SubOptions

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._filter: TopicFilter | None = None
        super().__init__(options, dice)

    def subscribe(self, topic: bytes) -> None:
        """Receive messages that begin with ``topic``; as often as this is called, so often
        ``unsubscribe`` is needed to end it."""
        self._want(topic)
        self._filter = None

    def unsubscribe(self, topic: bytes) -> None:
        """Take back one ``subscribe``; without one, nothing, as in libzmq."""
        if self._drop(topic):
            self._tell(False, topic)
            self._filter = None

    @property
    def is_passing_on(self) -> bool:
        """False, too, with ``invert_matching``."""
        return super().is_passing_on and not self.options.invert_matching

    @property
    def arrival_filter(self) -> TopicFilter | None:
        """The subscriptions."""
        if self._filter is None:
            self._filter = TopicFilter(self._wanted)
        return self._filter

    def _receive(self, pipe: Pipe, batch: Sequence[Message]) -> None:
        # Again after the publisher did: it may not have heard of the last changes yet, and what
        # it sent before them is not wanted any more.
        if b"" not in self._wanted or self.options.invert_matching:
            if self._filter is None:
                self._filter = TopicFilter(self._wanted)
            match, inverts = self._filter.match, self.options.invert_matching
            passed = [
                message
                for message in batch
                if match(message if isinstance(message, bytes) else message[0]) != inverts
            ]
            self.counters.filtered += len(batch) - len(passed)
            batch = passed
        if batch:
            super()._receive(pipe, batch)


class Xsub(Telling, FairQueued, Distributing):
    """XSUB: subscribes by sending 1 and the topic, cancels by 0 and the topic; filters nothing.

    Other messages go to every publisher that has room.
    """

    kind = SocketKind.XSUB
    options_type = XsubOptions
    options: XsubOptions

    def send(self, message: Message) -> SendResult:
        """Subscribe, cancel, or pass a message on to all; always SENT.

        In a multipart message each part may be a subscription, unless ``only_first_subscribe``;
        the others make one message.
        """
        changes, rest = split_subscriptions(message, only_first=self.options.only_first_subscribe)
        for is_wanted, topic in changes:
            if is_wanted:
                self._want(topic)
            elif self._drop(topic) or self.options.xsub_verbose_unsubscribe:
                self._tell(False, topic)
        if rest is not None:
            self._give([pipe for pipe in self._pipes.values() if pipe.is_usable], rest)
        return SendResult.SENT
