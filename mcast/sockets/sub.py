"""SUB: from its endpoints through one queue to ``recv``, and the events beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mcast.endpoint import MulticastEndpoint
from mcast.errors import Again, OptionError
from mcast.events import Event
from mcast.kernel import Message, ReceiveGate, TopicFilter, parts_of
from mcast.options import SocketOptions
from mcast.runtime.deadline import Deadline
from mcast.runtime.links import MulticastLink
from mcast.runtime.loop import Loop
from mcast.runtime.peers import Peers, SocketKind
from mcast.runtime.queues import ReceiveQueue, Waiters
from mcast.sockets.base import DONTWAIT, POLLIN, Socket, SocketType
from mcast.sockets.buffers import BytesLike, topic_bytes
from mcast.stats import Snapshot

__all__ = ["Sub"]


class Sub(Socket):
    """Receives what was subscribed to: each message whole, in order, once, or reported lost."""

    kind = SocketType.SUB
    _pollable = POLLIN

    def __init__(self, loop: Loop, options: SocketOptions, *, owner: object = None) -> None:
        super().__init__(loop, options, owner=owner)
        self._queue = ReceiveQueue(
            options.rcvhwm, raise_on_loss=options.on_loss == "raise", drive=loop.drive
        )
        self._queue.inbox.baton = loop.baton
        # One call of compiled code where a message waits; else it calls ``_recv``. The gate keeps
        # this socket alive, as a bound method would, and nothing in the loop keeps the gate.
        self.__dict__["recv"] = ReceiveGate(self._queue.inbox, self._recv).recv
        self._topics = _Topics()
        self._rest: deque[bytes] = deque()
        self._has_fd = False

    # Subscriptions.

    def subscribe(self, topic: BytesLike | str = b"") -> None:
        """Receive messages whose first part starts with ``topic``; empty: all. Counts repetitions.

        In force for messages that arrive after the call.
        """
        with self._lock:
            self._check()
            self._topics.add(topic_bytes(topic))
            self._apply_topics()
            if self._peers is not None:
                self._peers.subscribe(topic_bytes(topic), True)

    def unsubscribe(self, topic: BytesLike | str = b"") -> None:
        """Undo one ``subscribe`` of the same topic; a topic not subscribed to is ignored."""
        with self._lock:
            self._check()
            self._topics.discard(topic_bytes(topic))
            self._apply_topics()
            if self._peers is not None:
                self._peers.subscribe(topic_bytes(topic), False)

    def _apply_topics(self) -> None:
        for link in list(self._links.values()):
            link.set_filter_later(self._topics.compiled)

    # Receiving.

    def recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        """The next part: of the message under way, else the first of the next message.

        Blocks up to ``timeout`` seconds (None: for ever); ``flags=DONTWAIT`` is ``timeout=0``.
        ``rcvmore`` tells whether the message goes on. Threads that share the socket use
        ``recv_multipart`` where messages have parts: each would get some of them.

        Raises: Again, LossError with ``on_loss="raise"``, ClosedError.
        """
        return self._recv(flags, timeout=timeout)

    def _recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        self._check()
        while self._rest:
            try:
                part = self._rest.popleft()
            except IndexError:  # another thread was faster
                break
            self._hold()
            return part
        message = self._get(0 if flags & DONTWAIT else timeout)
        if isinstance(message, bytes):
            return message
        self._rest.extend(message[1:])
        self._hold()
        return message[0]

    def recv_multipart(self, flags: int = 0, *, timeout: float | None = None) -> list[bytes]:
        """The next message whole, as the list of its parts; after ``recv``, the parts left over.

        Raises: as ``recv``.
        """
        self._check()
        if self._rest and (rest := self._take_rest()):
            return rest
        message = self._get(0 if flags & DONTWAIT else timeout)
        return [message] if isinstance(message, bytes) else list(message)

    def recv_many(self, count: int, *, timeout: float | None = None) -> list[bytes]:
        """What many calls of ``recv`` would return: the parts of 1 to ``count`` messages, in order.

        Waits for the first message only. Use ``recv_many_multipart`` where messages have parts.

        Raises: as ``recv``.
        """
        return parts_of(self._get_many(count, timeout))

    def recv_many_multipart(self, count: int, *, timeout: float | None = None) -> list[list[bytes]]:
        """1 to ``count`` messages, each as the list of its parts. Waits for the first only.

        Raises: as ``recv``.
        """
        return [
            [message] if isinstance(message, bytes) else list(message)
            for message in self._get_many(count, timeout)
        ]

    @property
    def rcvmore(self) -> bool:
        """True if the message that ``recv`` began has more parts."""
        return bool(self._rest)

    def events(self, timeout: float | None = 0) -> Iterator[Event]:
        """The events not yet taken, oldest first; ends when none has come for ``timeout`` seconds.

        With the default only what is there already; with None it goes on until the socket closes.
        """
        self._check()
        Deadline(timeout)  # refuses a wrong one here, not at the first event
        return self._take_events(timeout)

    def _take_events(self, timeout: float | None) -> Iterator[Event]:
        queue = self._queue
        while True:
            event = queue.take_event()
            if event is not None:
                yield event
                continue
            if timeout == 0 or self.closed or queue.error is not None:
                return
            if not queue.event_waiters.wait(queue.has_events, timeout):
                return

    def _take_rest(self) -> list[bytes]:
        taken: list[bytes] = []
        while self._rest:
            try:
                taken.append(self._rest.popleft())
            except IndexError:  # another thread was faster
                break
        self._hold()
        return taken

    def _hold(self) -> None:
        """No short way while parts are left over, or a descriptor has to be kept right."""
        self._queue.inbox.hold = bool(self._rest) or self._has_fd
        if self._has_fd:
            self._queue.waiters.refresh()

    def _get(self, timeout: float | None) -> Message:
        return self._get_many(1, timeout)[0]

    def _get_many(self, count: int, timeout: float | None) -> list[Message]:
        self._check()
        if count < 1:
            raise OptionError(f"count is 1 or more, not {count}")
        if self._rest and (rest := self._take_rest()):
            return [tuple(rest)]
        try:
            return self._queue.get_many(count, timeout)
        except Again:
            self._check()
            raise

    def stats(self) -> Snapshot:
        """All counters, added up over the socket's endpoints, and those of its queue."""
        return {
            **super().stats(),
            "queued": len(self._queue),
            "queue_refused": self._queue.refused_count,
            "events_dropped": self._queue.events_dropped,
        }

    def _make_peers(self) -> Peers:
        peers = Peers(
            SocketKind.SUB,
            self._options,
            self._loop,
            readable=self._queue.waiters,
            writable=self._queue.event_waiters,
            sink=self._queue,
        )
        for topic in self._topics.repeated():
            peers.subscribe(topic, True)
        peers.ways.use(None, self._queue.inbox)
        return peers

    def _open(self, endpoint: MulticastEndpoint) -> MulticastLink:
        return MulticastLink(
            endpoint,
            self._options,
            self._loop,
            queue=self._queue,
            topic_filter=self._topics.compiled(),
        )

    def fileno(self) -> int:
        """As ``Socket.fileno``: readable while messages wait."""
        self._check_descriptor()
        self._has_fd = True
        self._hold()
        return super().fileno()

    @property
    def _waiters(self) -> Waiters:
        return self._queue.waiters

    def _find_short_way(self) -> None:
        """Where there is one endpoint only, whoever waits for messages reads its socket."""
        links = list(self._links.values())
        if self._peers is not None:
            self._peers.allow_reading(not links)
            if not links:
                return
        intake = links[0].intake if len(links) == 1 and self._peers is None else None
        before, self._queue.inbox.intake = self._queue.inbox.intake, intake
        self._queue.waiters.bell = intake.ring if intake is not None else None
        self._queue.waiters.joined = intake.hand_back if intake is not None else None
        if before is not None and before is not intake:
            before.ring()  # whoever waits there waits for all of them now

    def _options_changed(self) -> None:
        self._queue.hwm = self._options.rcvhwm
        self._queue.raises_on_loss = self._options.on_loss == "raise"

    def _is_ready(self) -> bool:
        return bool(self._rest) or self._queue.is_ready()

    def _closed(self) -> None:
        self._queue.close()

    def _abandon(self) -> None:
        super()._abandon()
        self._queue.is_closed = self._queue.inbox.hold = True
        self._queue.waiters.abandon()
        self._queue.event_waiters.abandon()


class _Topics:
    """What is subscribed to, how often; compiled when the loop needs it, once for all endpoints.

    Changed under the socket's lock. ``compiled`` is for any thread and takes none: whoever changes
    the topics raises the version last, so a filter that missed a change is not kept.
    """

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._version = 0
        self._built = (0, TopicFilter())

    def add(self, topic: bytes) -> None:
        """Once more."""
        self._counts[topic] = self._counts.get(topic, 0) + 1
        self._version += 1

    def discard(self, topic: bytes) -> None:
        """Once less, if at all."""
        count = self._counts.pop(topic, 0)
        if count > 1:
            self._counts[topic] = count - 1
        self._version += 1

    def repeated(self) -> Iterator[bytes]:
        """Each as often as it is subscribed to."""
        for topic, count in self._counts.items():
            for _ in range(count):
                yield topic

    def compiled(self) -> TopicFilter:
        """The filter for the topics of now."""
        version = self._version
        built_version, built = self._built
        if built_version != version:
            built = TopicFilter(list(self._counts))
            self._built = (version, built)
        return built
