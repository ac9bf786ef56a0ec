"""What all socket types share: the table of pipes, their queues, and the calls in their order.

A pipe is one connection as its pattern sees it. The pattern owns the pipes; the shell knows them by
number. Invariants: a message is in at most one queue, whole, and the messages of one pipe and
direction keep their order; what leaves a queue is handed over or counted as dropped; ``is_open``
holds exactly while a pipe may be given another message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import repeat
from random import Random
from sys import maxsize
from typing import ClassVar

from mcast.errors import Error, OptionError, PatternError
from mcast.kernel import Message, TopicFilter
from mcast.patterns.events import PatternCounters, Refusal, Refused, SendResult
from mcast.patterns.kinds import PeerInfo, SocketKind, is_compatible
from mcast.patterns.options import QueueOptions

__all__ = ["Change", "Pattern", "Pipe", "take"]

Change = tuple[bool, bytes]
"""A topic or group, and whether it is wanted (SUBSCRIBE, JOIN) or not any more (CANCEL, LEAVE)."""


class Pipe:
    """One connection: its two queues, and where it stands. Belongs to one pattern."""

    __slots__ = (
        "changes",
        "inbox",
        "is_connected",
        "is_loaded",
        "is_open",
        "is_paused",
        "is_usable",
        "number",
        "outbox",
        "routing_id",
    )

    def __init__(self, number: int, *, conflates: bool) -> None:
        bound = 1 if conflates else None
        self.number = number
        self.inbox: deque[Message] = deque(maxlen=bound)
        self.outbox: deque[Message] = deque(maxlen=bound)
        self.changes: list[Change] = []
        """Subscriptions or groups that the peer has yet to be told of."""
        self.routing_id = b""
        """A ROUTER's name for the peer; empty until it has one."""
        self.is_connected = False
        self.is_usable = False
        """Connected, or worth queueing for until it is."""
        self.is_open = False
        """Usable, and its outbox is not full."""
        self.is_loaded = False
        """There is something to take; the shell was told, or will be once it is connected."""
        self.is_paused = False
        """The inbox got full and has not been drained to the low-water mark."""


class Pattern:
    """The rules of one socket type, without I/O: give it peers and messages, take what it says.

    As in every engine here, ``handle_*`` takes input, a plain verb is a command, ``take_*`` drains
    output, and the rest looks and changes nothing:

    - ``attach`` when a connection is ready, or, with no peer, when one is to come: ``send`` queues
      for it already, unless ``immediate``. ``suspend`` when it broke and will be tried again: it
      keeps its outgoing queue, unless ``immediate``. ``detach`` when it is over: what it had sent
      is still received. The shell chooses the numbers.
    - ``handle_messages`` and ``handle_subscriptions`` with what came from a connected peer, while
      ``room_for`` it is not 0.
    - After any call ``take_loaded`` names the connected pipes that began to have something to
      write: call ``take_subscriptions`` and then ``take_outgoing`` for each until it has no more
      (``has_outgoing``). ``take_resumed`` names the pipes to read from again. ``take_events``
      gives the refusals. Whoever waits to send or receive looks at ``is_writable`` and
      ``is_readable``.

    Messages are ``mcast.kernel.Message``: ``bytes``, or a tuple of two or more; whoever calls
    ``send`` has made sure of it. Pipes that are not attached are no error: what comes from one is
    dropped and counted. Queues hold at most their high-water mark and one batch of
    ``handle_messages``. Not thread-safe: the shell has one lock or thread.
    """

    kind: ClassVar[SocketKind]
    """The socket type."""
    options_type: ClassVar[type[QueueOptions]]
    """The class of its options."""
    options: QueueOptions
    """The options in force."""
    passes_on: ClassVar[bool] = False
    """A lone peer gets what is sent as it is, and the application what the peer sent; but for what
    is asked for by topics, nothing is done to it."""

    def __init__(self, options: QueueOptions, dice: Random) -> None:  # noqa: ARG002
        """``dice`` choose the first request number of a REQ and generated ids of a ROUTER.

        Raises: OptionError for options of another socket type.
        """
        self.counters = PatternCounters()
        """What happened so far."""
        self._pipes: dict[int, Pipe] = {}
        self._loaded: list[int] = []
        self._resumed: list[int] = []
        self._events: list[Refused] = []
        self.configure(options)

    def configure(self, options: QueueOptions) -> None:
        """Use these options from now on, for the pipes there are, too.

        Raises: OptionError for options of another socket type, or another ``conflate`` while there
        are pipes.
        """
        if type(options) is not self.options_type:
            raise OptionError(
                f"{self.kind} takes {self.options_type.__name__}, not {type(options).__name__}"
            )
        unlimited = options.conflates
        if self._pipes and unlimited is not self.options.conflates:
            raise OptionError("conflate cannot be changed while the socket has connections")
        self.options = options
        self._sndhwm = maxsize if unlimited or not options.sndhwm else options.sndhwm
        self._rcvhwm = maxsize if unlimited or not options.rcvhwm else options.rcvhwm
        # As libzmq: who waits goes on when (HWM + 1) / 2 messages were taken.
        self._sndlow = self._sndhwm // 2
        self._rcvlow = self._rcvhwm // 2
        for pipe in list(self._pipes.values()):
            if pipe.is_open and len(pipe.outbox) >= self._sndhwm:
                self._shut(pipe)
            elif pipe.is_usable and not pipe.is_open and len(pipe.outbox) < self._sndhwm:
                self._open(pipe)
            if len(pipe.inbox) >= self._rcvhwm:
                pipe.is_paused = True
            elif pipe.is_paused:
                self._resume(pipe)

    @property
    def info(self) -> PeerInfo:
        """What a peer is to be told about this socket."""
        return PeerInfo(self.kind, self.options.own_routing_id)

    # Pipes.

    def attach(self, number: int, peer: PeerInfo | None = None, *, routing_id: bytes = b"") -> None:
        """Add the pipe ``number``, or tell that a known one is connected, to ``peer``.

        ``peer`` None: the connection is yet to come. ``routing_id`` is this ROUTER's own name for
        it (CONNECT_ROUTING_ID); other types ignore it. May end in a ``Refused`` event.

        Raises: PatternError if the pipe is connected already, or ``routing_id`` is not valid or
        taken.
        """
        pipe = self._pipes.get(number)
        if pipe is not None and (pipe.is_connected or peer is None):
            raise PatternError(f"pipe {number} is attached already; detach it first")
        if pipe is None:
            self._check_name(routing_id)
        theirs = peer.socket_type if peer is not None else ""
        if theirs and not is_compatible(self.kind, theirs):
            self._refuse(number, Refusal.INCOMPATIBLE)
            return
        if pipe is None:
            if not self._has_room_for_pipe():
                self._refuse(number, Refusal.SECOND_PEER)
                return
            pipe = self._pipes[number] = Pipe(number, conflates=self.options.conflates)
            self._added(pipe, routing_id)
        if not pipe.is_usable and (peer is not None or not self.options.immediate):
            pipe.is_usable = True
            self._open(pipe)
        if peer is not None:
            pipe.is_connected = True
            pipe.is_loaded = False
            self._connected(pipe, peer)
            if pipe.outbox or pipe.changes:
                self._load(pipe)

    def suspend(self, number: int) -> None:
        """The connection broke and is to come back by another ``attach``; for one not connected,
        nothing."""
        pipe = self._pipes.get(number)
        if pipe is None or not pipe.is_connected:
            return
        self._disconnect(pipe)
        if self.options.immediate:
            self._make_unusable(pipe)

    def detach(self, number: int) -> None:
        """The connection is over and its number is free; for an unknown one, nothing.

        What it had sent can still be received; what it was to get is dropped and counted.
        """
        pipe = self._pipes.pop(number, None)
        if pipe is not None:
            if pipe.is_connected:
                self._disconnect(pipe)
            self._make_unusable(pipe)
            self._removed(pipe)

    # Input.

    def handle_messages(self, number: int, batch: Sequence[Message]) -> None:  # noqa: ARG002
        """Take whole messages that came by this pipe, in order. Keeps no reference to the list."""
        # This socket type takes none.
        self.counters.messages_received += len(batch)
        self.counters.dropped_unexpected += len(batch)

    def handle_subscriptions(self, number: int, changes: Iterable[Change]) -> None:  # noqa: ARG002
        """Take what the peer subscribed to and cancelled, or joined and left, in order."""
        for _ in changes:
            self.counters.dropped_unexpected += 1  # this socket type knows no such thing

    # Commands of the application.

    def send(self, message: Message) -> SendResult:  # noqa: ARG002
        """Queue one message for the peers that the socket type chooses.

        Raises: PatternError if the type cannot send, not now, or not such a message.
        """
        raise PatternError(f"a {self.kind} socket cannot send")

    def send_many(self, batch: Sequence[Message]) -> int:
        """How many of ``batch`` were sent, from the first on, as by so many calls of ``send``.

        Stops at the first that is not SENT; ``send`` tells why. What it would raise is raised only
        if it is the first.
        """
        for sent, message in enumerate(batch):
            try:
                result = self.send(message)
            except Error:
                if not sent:
                    raise
                return sent
            if result is not SendResult.SENT:
                return sent
        return len(batch)

    def recv(self) -> Message | None:
        """The next message, or None if there is none now.

        Raises: PatternError if the type cannot receive, or not now.
        """
        raise PatternError(f"a {self.kind} socket cannot receive")

    def recv_many(self, limit: int) -> list[Message]:
        """Up to ``limit`` messages, as by so many calls of ``recv``; none if there are none now.

        Raises: PatternError as ``recv``.
        """
        taken: list[Message] = []
        while len(taken) < limit and (not taken or self.is_readable):
            message = self.recv()
            if message is None:
                break
            taken.append(message)
        return taken

    # Output.

    def take_loaded(self) -> list[int]:
        """Connected pipes that had nothing to write and now have; each once until it is empty."""
        loaded, self._loaded = self._loaded, []
        return loaded

    def put_back(self, loaded: list[int]) -> None:
        """Some of what ``take_loaded`` gave was not seen to: it gives them again."""
        self._loaded += loaded

    def reload(self) -> None:
        """``take_loaded`` gives all connected pipes that have something to write, again.

        For whoever is about to wait: an exception in the middle of a step, such as a signal
        handler's, may have left a pipe that nobody comes by any more.
        """
        self._loaded = [number for number in self._pipes if self.has_outgoing(number)]

    def take_outgoing(self, number: int, limit: int) -> list[Message]:
        """Up to ``limit`` messages for this peer, in order; none while it is not connected."""
        pipe = self._pipes.get(number)
        if pipe is None or not pipe.is_connected:
            return []
        outbox = pipe.outbox
        batch = take(outbox, limit)
        if not outbox:
            pipe.is_loaded = bool(pipe.changes)
        if not pipe.is_open and len(outbox) <= self._sndlow:
            self._open(pipe)
        self.counters.messages_taken += len(batch)
        return batch

    def take_subscriptions(self, number: int) -> list[Change]:
        """What this peer is to be told of subscriptions or groups, before any message."""
        pipe = self._pipes.get(number)
        if pipe is None or not pipe.changes:
            return []
        changes, pipe.changes = pipe.changes, []
        pipe.is_loaded = bool(pipe.outbox)
        return changes

    def take_resumed(self) -> list[int]:
        """Pipes that were not to be read from and now are."""
        resumed, self._resumed = self._resumed, []
        return resumed

    def take_events(self) -> list[Refused]:
        """Connections that the pattern will not deal with, in order."""
        events, self._events = self._events, []
        return events

    # Looks.

    @property
    def has_news(self) -> bool:
        """True if ``take_loaded``, ``take_resumed`` or ``take_events`` would give something."""
        return bool(self._loaded or self._resumed or self._events)

    @property
    def is_passing_on(self) -> bool:
        """True if, while there is one peer, whole messages need not come by here."""
        return self.passes_on and not self.options.conflates

    @property
    def arrival_filter(self) -> TopicFilter | None:
        """What the application wants of what arrives; None: everything."""
        return None

    def has_outgoing(self, number: int) -> bool:
        """True if this pipe is connected and has something to write."""
        pipe = self._pipes.get(number)
        return pipe is not None and pipe.is_connected and bool(pipe.outbox or pipe.changes)

    def has_pipe(self, number: int) -> bool:
        """True if this pipe is attached, connected or yet to come."""
        return number in self._pipes

    def queued_for(self, number: int) -> int:
        """Messages that wait for this peer, connected or not."""
        pipe = self._pipes.get(number)
        return 0 if pipe is None else len(pipe.outbox)

    def room_for(self, number: int) -> int:
        """How many messages of this peer have room now; 0: do not read from it, or from nobody."""
        pipe = self._pipes.get(number)
        return maxsize if pipe is not None and pipe.is_connected else 0

    def can_receive(self, number: int) -> bool:
        """True if this pipe is to be read from."""
        return self.room_for(number) > 0

    @property
    def is_readable(self) -> bool:
        """True if ``recv`` would give a message."""
        return False

    @property
    def is_writable(self) -> bool:
        """True if ``send`` would take a message now."""
        return False

    # What the socket types do about their pipes; each is called by the methods above.

    def _check_name(self, routing_id: bytes) -> None:
        """Raise PatternError if no new pipe may have this name."""

    def _has_room_for_pipe(self) -> bool:
        return True

    def _added(self, pipe: Pipe, routing_id: bytes) -> None:
        """The pipe is in the table, and neither usable nor connected."""

    def _connected(self, pipe: Pipe, peer: PeerInfo) -> None:
        """The pipe, new or known, is connected and usable."""

    def _disconnected(self, pipe: Pipe) -> None:
        """The pipe is not connected any more; it may stay, or ``_removed`` follows."""

    def _removed(self, pipe: Pipe) -> None:
        """The pipe is out of the table; its inbox may still hold messages."""

    def _open(self, pipe: Pipe) -> None:
        """It may be given messages again, or for the first time."""
        pipe.is_open = True

    def _shut(self, pipe: Pipe) -> None:
        """It may not be given any."""
        pipe.is_open = False

    # For the socket types.

    def _load(self, pipe: Pipe) -> None:
        """There is something to take, and there was not."""
        pipe.is_loaded = True
        if pipe.is_connected:
            self._loaded.append(pipe.number)

    def _greet(self, pipe: Pipe, message: Message) -> None:
        """Put a message in front of all others for a new connection."""
        outbox = pipe.outbox
        # Connections that come and go must not pile them up, nor push out what is waiting.
        if not outbox or (outbox[0] != message and outbox.maxlen is None):
            outbox.appendleft(message)
            if pipe.is_open and len(outbox) >= self._sndhwm:
                self._shut(pipe)

    def _refuse(self, number: int, reason: Refusal) -> None:
        self._events.append(Refused(number, reason))
        self.detach(number)

    def _resume(self, pipe: Pipe) -> None:
        pipe.is_paused = False
        if pipe.is_connected:
            self._resumed.append(pipe.number)

    def _disconnect(self, pipe: Pipe) -> None:
        pipe.is_connected = False
        pipe.changes = []  # a new connection is told everything
        self._disconnected(pipe)

    def _make_unusable(self, pipe: Pipe) -> None:
        self.counters.dropped_undelivered += len(pipe.outbox)
        pipe.outbox.clear()
        pipe.is_usable = False
        if pipe.is_open:
            self._shut(pipe)


def take(queue: deque[Message], limit: int) -> list[Message]:
    """Up to ``limit`` messages out of ``queue``."""
    if len(queue) <= limit:
        batch = list(queue)
        queue.clear()
        return batch
    return [queue.popleft() for _ in repeat(None, limit)]
