"""PUB and XPUB: each message to those who subscribed to its topic, the first part of it.

Owns what the peers subscribed to. Invariants: a topic is counted once for each peer, however often
it subscribed (the wire's view; RFC 29 and libzmq); a message is queued whole for a peer or not at
all; the memory of matches answers as the trie would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

from mcast.errors import PatternError
from mcast.kernel import Message
from mcast.patterns.balance import Distributing
from mcast.patterns.base import Change, Pipe
from mcast.patterns.events import Refusal, SendResult
from mcast.patterns.kinds import PeerInfo, SocketKind
from mcast.patterns.options import PublisherOptions, PubOptions, QueueOptions, XpubOptions
from mcast.patterns.subscriptions import Found, SubscriptionTrie, split_subscriptions

__all__ = ["Pub", "Publisher", "Xpub"]

_MATCH_LIMIT: Final = 1024
"""Topics whose peers are remembered; beyond it all are forgotten. What is kept of each is as long
as the longest subscription: 1 MiB at the default limits, and 8 KiB for each peer. Guessed."""

_SENT: Final = SendResult.SENT
_WOULD_BLOCK: Final = SendResult.WOULD_BLOCK


class Publisher(Distributing):
    """What PUB and XPUB have in common: matching, fan-out, and the limits of subscriptions."""

    options: PublisherOptions

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._trie: SubscriptionTrie[Pipe] = SubscriptionTrie()
        # What ``_match`` found, by as much of the topic as may matter; equal ones are one object.
        self._matches: dict[bytes, Found[Pipe]] = {}
        self._same: dict[Found[Pipe], Found[Pipe]] = {}
        self._has_odd_topics = False
        super().__init__(options, dice)

    def configure(self, options: QueueOptions) -> None:
        """Use these options from now on."""
        super().configure(options)
        self._forget_matches()

    @property
    def topic_count(self) -> int:
        """How many different topics peers are subscribed to."""
        return len(self._trie)

    # Sending.

    def send(self, message: Message) -> SendResult:
        """Queue the message for each matching peer; a full queue drops it for that one.

        WOULD_BLOCK only with ``xpub_nodrop``, if one of these queues is full: then none has it.
        """
        topic = message if isinstance(message, bytes) else message[0]
        pipes = self._matches.get(topic[: self._trie.longest_bytes])
        if pipes is None:
            pipes = self._match(topic)
        if self.options.xpub_nodrop and not all(pipe.is_open for pipe in pipes):
            return _WOULD_BLOCK
        self._give(pipes, message)
        return _SENT

    def send_many(self, batch: Sequence[Message]) -> int:
        """How many of ``batch`` were sent, as by so many calls of ``send``."""
        if self.options.xpub_nodrop:
            return super().send_many(batch)
        longest = self._trie.longest_bytes
        matches = self._matches
        first = 0
        last_pipes: Found[Pipe] = ()
        for place, message in enumerate(batch):
            topic = message if isinstance(message, bytes) else message[0]
            pipes = matches.get(topic[:longest])
            if pipes is None:
                pipes = self._match(topic)
            if pipes is not last_pipes:
                self._give_many(last_pipes, batch[first:place])
                first, last_pipes = place, pipes
        if batch:
            self._give_many(last_pipes, batch[first:])
        return len(batch)

    @property
    def is_passing_on(self) -> bool:
        """False, too, with ``invert_matching`` or ``xpub_nodrop``."""
        options = self.options
        return super().is_passing_on and not (
            options.invert_matching or options.xpub_nodrop or self._has_odd_topics
        )

    @property
    def is_writable(self) -> bool:
        """True; with ``xpub_nodrop`` while no queue is full."""
        return not self.options.xpub_nodrop or self._has_room_everywhere

    def _match(self, topic: bytes) -> Found[Pipe]:
        topic = topic[: self._trie.longest_bytes]
        pipes = self._trie.match(topic)
        if self.options.invert_matching:
            wanted = set(pipes)
            pipes = tuple([pipe for pipe in self._pipes.values() if pipe not in wanted])
        pipes = tuple([pipe for pipe in pipes if pipe.is_usable])
        if len(self._matches) >= _MATCH_LIMIT:
            self._forget_matches()
        pipes = self._same.setdefault(pipes, pipes)
        self._matches[topic] = pipes
        return pipes

    def _forget_matches(self) -> None:
        self._matches.clear()
        self._same.clear()

    # Peers come and go.

    def _added(self, pipe: Pipe, routing_id: bytes) -> None:
        super()._added(pipe, routing_id)
        self._forget_matches()

    def _connected(self, pipe: Pipe, peer: PeerInfo) -> None:
        super()._connected(pipe, peer)
        self._forget_matches()

    def _make_unusable(self, pipe: Pipe) -> None:
        super()._make_unusable(pipe)
        self._forget_matches()

    # Subscribing.

    def handle_messages(self, number: int, batch: Sequence[Message]) -> None:
        """Take messages of a peer: those of ZMTP 3.0 that subscribe, and others."""
        self.counters.messages_received += len(batch)
        for message in batch:
            pipe = self._pipes.get(number)
            if pipe is None:
                self.counters.dropped_unexpected += 1
                continue
            changes, rest = split_subscriptions(message, only_first=self._looks_at_first_only)
            if changes and not isinstance(message, bytes):
                self._has_odd_topics = True  # the connection knows nothing of them
            self._apply(pipe, changes)
            if rest is not None:
                self._hear(pipe, rest)

    def handle_subscriptions(self, number: int, changes: Iterable[Change]) -> None:
        """Take what the peer subscribed to and cancelled; too much of it ends in ``Refused``."""
        pipe = self._pipes.get(number)
        if pipe is not None:
            self._apply(pipe, changes)

    def _apply(self, pipe: Pipe, changes: Iterable[Change]) -> None:
        for is_subscription, topic in changes:
            if not is_subscription:
                self._cancelled(pipe, topic)
            elif self._may_add(self._asked, pipe, topic):
                self._subscribed(pipe, topic)
            else:
                self._refuse(pipe.number, Refusal.TOO_MANY_SUBSCRIPTIONS)
                return

    @property
    def _asked(self) -> SubscriptionTrie[Pipe]:
        """What the peers asked for, where the limits are."""
        return self._trie

    def _may_add(self, trie: SubscriptionTrie[Pipe], pipe: Pipe, topic: bytes) -> bool:
        options = self.options
        if len(topic) > options.max_topic_bytes:
            return False
        return (
            trie.count_of(pipe) < options.max_subscription_count
            and trie.bytes_of(pipe) + len(topic) <= options.max_subscription_bytes
        ) or trie.has(topic, pipe)

    def _subscribe(self, pipe: Pipe, topic: bytes) -> bool | None:
        is_first = self._trie.add(topic, pipe)
        if is_first is not None:
            self._forget_matches()
        return is_first

    def _cancel(self, pipe: Pipe, topic: bytes) -> bool | None:
        is_last = self._trie.remove(topic, pipe)
        if is_last is not None:
            self._forget_matches()
        return is_last

    def _subscribed(self, pipe: Pipe, topic: bytes) -> None:
        self._subscribe(pipe, topic)

    def _cancelled(self, pipe: Pipe, topic: bytes) -> None:
        if self._cancel(pipe, topic) is None:
            self.counters.cancels_ignored += 1

    def _removed(self, pipe: Pipe) -> None:
        super()._removed(pipe)
        self._trie.remove_member(pipe)

    @property
    def _looks_at_first_only(self) -> bool:
        return False

    def _hear(self, pipe: Pipe, message: Message) -> None:  # noqa: ARG002
        """A message of a peer that is no subscription."""
        self.counters.dropped_unexpected += 1


class Pub(Publisher):
    """PUB: sends only; a peer's queue that is full loses what comes."""

    kind = SocketKind.PUB
    passes_on = True
    options_type = PubOptions
    options: PubOptions


class Xpub(Publisher):
    """XPUB: as PUB, and ``recv`` gives the subscriptions, and messages of XSUB peers.

    A subscription is 1 and the topic, a cancellation 0 and the topic, in the order of arrival;
    peers that leave cancel theirs. When ``rcvhwm`` of all that wait, nobody is read from.
    """

    kind = SocketKind.XPUB
    options_type = XpubOptions
    options: XpubOptions

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._waiting: deque[Message] = deque()
        self._waiting_pipes: deque[Pipe] = deque()  # whom each of them came from
        self._is_paused = False
        self._last_pipe: Pipe | None = None
        # In manual mode: what peers asked for. ``_trie`` has what the application decided.
        self._wishes: SubscriptionTrie[Pipe] = SubscriptionTrie()
        super().__init__(options, dice)

    # The application's side.

    def send(self, message: Message) -> SendResult:
        """As PUB; with ``xpub_manual_last_value``, after a ``recv``, only to its sender, once."""
        last = self._last_pipe
        if last is None or not self.options.xpub_manual_last_value:
            return super().send(message)
        if last in self._match(message if isinstance(message, bytes) else message[0]):
            if self.options.xpub_nodrop and not last.is_open:
                return _WOULD_BLOCK
            self._give((last,), message)
        self._last_pipe = None
        return _SENT

    def send_many(self, batch: Sequence[Message]) -> int:
        """How many of ``batch`` were sent, as by so many calls of ``send``."""
        if not batch or self._last_pipe is None or not self.options.xpub_manual_last_value:
            return super().send_many(batch)
        if self.send(batch[0]) is not _SENT:
            return 0
        return 1 + super().send_many(batch[1:])

    def recv(self) -> Message | None:
        """The next subscription, cancellation or message, or None if there is none now."""
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        pipe = self._waiting_pipes.popleft()
        self._last_pipe = pipe if self._pipes.get(pipe.number) is pipe else None
        self._relieve()
        return message

    @property
    def is_readable(self) -> bool:
        """True if ``recv`` would give something."""
        return bool(self._waiting)

    def subscribe(self, topic: bytes) -> None:
        """Subscribe the peer that the last ``recv`` came from; if it has left, nothing.

        Raises: PatternError without ``xpub_manual``, or over a limit of what one peer may have.
        """
        pipe = self._manual_pipe()
        if pipe is None:
            return
        if not self._may_add(self._trie, pipe, topic):
            raise PatternError("the peer would have more subscriptions than the options allow")
        self._subscribe(pipe, topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Cancel a subscription of the peer that the last ``recv`` came from, if it has it.

        Raises: PatternError without ``xpub_manual``.
        """
        pipe = self._manual_pipe()
        if pipe is not None:
            self._cancel(pipe, topic)

    def _manual_pipe(self) -> Pipe | None:
        if not self.options.is_manual:
            raise PatternError("an XPUB socket subscribes peers only with xpub_manual")
        return self._last_pipe

    # The peers' side.

    def room_for(self, number: int) -> int:
        """How much room there is for what peers send."""
        return 0 if self._is_paused else super().room_for(number)

    def _connected(self, pipe: Pipe, peer: PeerInfo) -> None:
        super()._connected(pipe, peer)
        if self.options.xpub_welcome_msg:
            self._greet(pipe, self.options.xpub_welcome_msg)

    @property
    def _asked(self) -> SubscriptionTrie[Pipe]:
        return self._wishes if self.options.is_manual else self._trie

    def _subscribed(self, pipe: Pipe, topic: bytes) -> None:
        if self.options.is_manual:
            self._wishes.add(topic, pipe)
            self._tell(pipe, b"\1" + topic)
        elif self._subscribe(pipe, topic) or self._is_verbose:
            self._tell(pipe, b"\1" + topic)

    def _cancelled(self, pipe: Pipe, topic: bytes) -> None:
        if self.options.is_manual:
            self._wishes.remove(topic, pipe)
            self._tell(pipe, b"\0" + topic)
            return
        is_last = self._cancel(pipe, topic)
        if is_last is None:
            self.counters.cancels_ignored += 1
        elif is_last or self.options.xpub_verboser:
            self._tell(pipe, b"\0" + topic)

    def _removed(self, pipe: Pipe) -> None:
        if self._last_pipe is pipe:
            self._last_pipe = None
        # Also of a mode that is not in force any more.
        decided = self._trie.remove_member(pipe)
        told = self._wishes.remove_member(pipe)
        if self.options.is_manual:
            decided = [(topic, True) for topic, _ in told]
        for topic, is_last in decided:
            if is_last or self.options.xpub_verboser:
                self._tell(pipe, b"\0" + topic)
        super()._removed(pipe)

    @property
    def _is_verbose(self) -> bool:
        return self.options.xpub_verbose or self.options.xpub_verboser

    @property
    def _looks_at_first_only(self) -> bool:
        return self.options.only_first_subscribe

    def _hear(self, pipe: Pipe, message: Message) -> None:
        self._tell(pipe, message)

    def _tell(self, pipe: Pipe, message: Message) -> None:
        self._waiting.append(message)
        self._waiting_pipes.append(pipe)
        if len(self._waiting) >= self._rcvhwm:
            self._is_paused = True

    def _relieve(self) -> None:
        if self._is_paused and len(self._waiting) <= self._rcvlow:
            self._is_paused = False
            self._resumed += [pipe.number for pipe in self._pipes.values() if pipe.is_connected]
