"""The sockets: PUB publishes to groups, SUB hears them; names are pyzmq's where it has one.

A socket may be used from any thread. It owns its links and, if it receives, its queue. Invariant:
after ``close`` or a fork every call raises, and says why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, NoReturn, Self, TypeAlias, TypeVar, cast

from mcast.endpoint import parse_endpoint
from mcast.errors import (
    Again,
    ClosedError,
    EndpointError,
    ForkedError,
    MessageTooLongError,
    OptionError,
    PatternError,
)
from mcast.events import Event
from mcast.kernel import Buffer, Message, ReceiveGate, TopicFilter, longest_bytes, parts_of
from mcast.options import OptionValue, SocketOptions
from mcast.runtime import counters
from mcast.runtime.deadline import Deadline
from mcast.runtime.links import MulticastLink
from mcast.runtime.loop import Loop
from mcast.runtime.queues import ReceiveQueue, Waiters
from mcast.stats import Snapshot

if TYPE_CHECKING:
    from typing_extensions import Buffer as AnyBuffer  # part of the type checker, not installed

    BytesLike: TypeAlias = AnyBuffer
    """What may be sent: bytes, bytearray, memoryview, array.array, and what else is a buffer."""
else:
    BytesLike = bytes | bytearray | memoryview

__all__ = [
    "DONTWAIT",
    "NOBLOCK",
    "POLLIN",
    "POLLOUT",
    "PUB",
    "SNDMORE",
    "SUB",
    "BytesLike",
    "Pub",
    "Socket",
    "SocketType",
    "Sub",
]


class SocketType(IntEnum):
    """What a socket is for; the numbers are libzmq's."""

    PUB = 1
    SUB = 2


PUB: Final = SocketType.PUB
SUB: Final = SocketType.SUB
DONTWAIT: Final = 1
NOBLOCK: Final = DONTWAIT
SNDMORE: Final = 2
POLLIN: Final = 1
POLLOUT: Final = 2

_FRAME_HEAD_BYTES: Final = 10


_Value = TypeVar("_Value", int, float, int | None)


class _Option(Generic[_Value]):
    """An option as an attribute: ``socket.rate = 1e9`` is ``socket.set("rate", 1e9)``."""

    def __set_name__(self, owner: type[Socket], name: str) -> None:
        self._name = name

    def __get__(self, socket: Socket, owner: type[Socket]) -> _Value:
        value: _Value = getattr(socket._options, self._name)
        return value

    def __set__(self, socket: Socket, value: _Value) -> None:
        socket.set(self._name, value)


class Socket:
    """What all kinds share: endpoints, options, waiting, closing.

    The options whose names pyzmq's users know are attributes, too; ``set`` and ``get`` know all.
    """

    kind: SocketType

    rate = _Option[float]()
    recovery_ivl = _Option[float]()
    multicast_hops = _Option[int]()
    multicast_maxtpdu = _Option["int | None"]()
    sndhwm = _Option[int]()
    rcvhwm = _Option[int]()
    sndbuf = _Option[int]()
    rcvbuf = _Option[int]()
    linger = _Option[float]()

    def __init__(self, loop: Loop, options: SocketOptions, *, owner: object = None) -> None:
        self._error: ClosedError | None = None
        self._loop = loop
        self._options = options
        self._owner = owner  # the context must live as long as a socket of it
        self._links: dict[str, MulticastLink] = {}
        self._leaving: list[MulticastLink] = []
        self._last_endpoint = ""
        self._lock = Lock()
        self._retired: Snapshot = {}

    # Endpoints.

    def connect(self, url: str) -> None:
        """Join the multicast endpoint, such as ``epgm://eth0;239.192.1.1:5555``.

        ``bind`` is the same. Returns when the group is joined; nobody need be there.

        Raises: EndpointError, InterfaceError, TransportError, OptionError, ClosedError.
        """
        endpoint = parse_endpoint(url)
        key = str(endpoint)
        with self._lock:
            self._check()
            if key in self._links:
                raise EndpointError(f"already connected to {key}")
            self._forget_left()
            self._links[key] = self._open(key)
            self._last_endpoint = key
            self._find_short_way()

    bind = connect

    def disconnect(self, url: str) -> None:
        """Leave the endpoint; what was sent to it still leaves, within ``linger``.

        Raises: EndpointError if the socket is not connected to it.
        """
        key = str(parse_endpoint(url))
        with self._lock:
            self._check()
            link = self._links.pop(key, None)
            if link is None:
                joined = ", ".join(self._links) or "nothing"
                raise EndpointError(f"not connected to {key}, but to {joined}")
            self._leaving.append(link)
            self._find_short_way()
        link.close(self._options.linger)

    unbind = disconnect

    def _forget_left(self) -> None:
        """Let go of endpoints that were left, and keep what they counted."""
        for link in [link for link in self._leaving if link.closed.is_set()]:
            self._leaving.remove(link)
            counters.add_up(self._retired, link.stats(), leave_out=counters.GAUGES)

    @property
    def last_endpoint(self) -> str:
        """The endpoint joined last, in canonical spelling; empty before the first."""
        return self._last_endpoint

    @property
    def endpoints(self) -> list[str]:
        """All endpoints that are joined."""
        return list(self._links)

    def _open(self, url: str) -> MulticastLink:
        raise NotImplementedError

    # Options.

    def set(self, name: str, value: OptionValue) -> None:
        """Change an option for endpoints joined from now on (as libzmq); ``linger``,
        ``max_msg_size`` and ``max_parts`` of what is sent, ``rcvhwm`` and ``on_loss`` at once.

        Raises: OptionError for an unknown name or a value out of range.
        """
        with self._lock:
            self._check()
            self._options = self._options.with_changes({name: value})
            self._options_changed()

    def setsockopt(self, name: str, value: OptionValue) -> None:
        """As ``set``."""
        self.set(name, value)

    def _options_changed(self) -> None:
        """What a kind has to do at once."""

    def get(self, name: str) -> OptionValue:
        """The value of an option, or of ``type`` or ``last_endpoint``.

        Raises: OptionError for an unknown name.
        """
        self._check()
        if name == "type":
            return int(self.kind)
        if name == "last_endpoint":
            return self._last_endpoint
        self._options.with_changes({name: None} if name not in SocketOptions.__slots__ else {})
        value: OptionValue = getattr(self._options, name)
        return value

    getsockopt = get

    # Waiting.

    def poll(self, timeout: float | None = None, flags: int = POLLIN) -> int:
        """Which of ``flags`` hold, waiting up to ``timeout`` seconds for one; 0 if none does."""
        deadline = Deadline(timeout)
        self._check()
        wanted = flags & self._pollable
        if not wanted:
            return 0
        if held := self._events_now() & wanted:
            return held
        self._waiters.wait(self._is_ready, deadline.left)
        self._check()
        return self._events_now() & wanted

    def can_poll(self, flags: int) -> bool:
        """True if any of ``flags`` can ever hold for this kind of socket."""
        return bool(flags & self._pollable)

    def fileno(self) -> int:
        """A descriptor for select or poll: readable when a SUB has messages, or a PUB has room.

        Level-triggered, unlike libzmq's. Only wait for it; never read it.
        """
        self._check()
        return self._waiters.fileno(self._is_ready)

    _pollable: int = 0

    @property
    def _waiters(self) -> Waiters:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _events_now(self) -> int:
        return self._pollable if self._is_ready() else 0

    # What only some kinds can do.

    def send(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        """See ``Pub.send``. Raises: PatternError for a socket that only receives."""
        self._refuse("send", data, flags, timeout)

    def send_multipart(
        self, parts: Sequence[BytesLike], flags: int = 0, *, timeout: float | None = None
    ) -> None:
        """See ``Pub.send_multipart``. Raises: PatternError for a socket that only receives."""
        self._refuse("send", parts, flags, timeout)

    def send_many(self, messages: Iterable[BytesLike], *, timeout: float | None = None) -> int:
        """See ``Pub.send_many``. Raises: PatternError for a socket that only receives."""
        self._refuse("send", messages, timeout)

    def recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        """See ``Sub.recv``. Raises: PatternError for a socket that only sends."""
        self._refuse("receive", flags, timeout)

    def recv_multipart(self, flags: int = 0, *, timeout: float | None = None) -> list[bytes]:
        """See ``Sub.recv_multipart``. Raises: PatternError for a socket that only sends."""
        self._refuse("receive", flags, timeout)

    def recv_many(self, count: int, *, timeout: float | None = None) -> list[bytes]:
        """See ``Sub.recv_many``. Raises: PatternError for a socket that only sends."""
        self._refuse("receive", count, timeout)

    def recv_many_multipart(self, count: int, *, timeout: float | None = None) -> list[list[bytes]]:
        """See ``Sub.recv_many_multipart``. Raises: PatternError for a socket that only sends."""
        self._refuse("receive", count, timeout)

    def subscribe(self, topic: BytesLike | str = b"") -> None:
        """See ``Sub.subscribe``. Raises: PatternError for a socket that only sends."""
        self._refuse("subscribe", topic)

    def unsubscribe(self, topic: BytesLike | str = b"") -> None:
        """See ``Sub.unsubscribe``. Raises: PatternError for a socket that only sends."""
        self._refuse("subscribe", topic)

    def events(self, timeout: float | None = 0) -> Iterator[Event]:
        """See ``Sub.events``. Raises: PatternError for a socket that only sends."""
        self._refuse("have events", timeout)

    def _refuse(self, what: str, *_arguments: object) -> NoReturn:
        self._check()
        other = "SUB" if self.kind is SocketType.PUB else "PUB"
        raise PatternError(f"a {self.kind.name} socket cannot {what}; use a {other} socket")

    # The end.

    @property
    def closed(self) -> bool:
        """True after ``close``, and in a forked child."""
        return self._error is not None

    @property
    def finished(self) -> bool:
        """True when nothing of a closed socket is left in the loop."""
        return self.closed and all(link.closed.is_set() for link in self.links)

    @property
    def links(self) -> list[MulticastLink]:
        """The endpoints at work, and those that are leaving."""
        return [*self._links.values(), *self._leaving]

    def close(self, linger: float | None = None) -> None:
        """Stop using the socket, at once. What was sent leaves within ``linger`` seconds.

        Does not block: ``Context.term`` waits. A second call does nothing.
        """
        if linger is not None:
            self._options.with_changes({"linger": linger})  # nothing is closed if this raises
        with self._lock:
            if self._error is not None:
                return
            self._error = ClosedError("the socket was closed")
            if linger is not None:
                self._options = self._options.with_changes({"linger": linger})
        for link in self._links.values():
            link.close(self._options.linger)
        self._closed()

    def __del__(self) -> None:
        # Any thread may get here, within any call, even the loop's while it holds a link's lock:
        # leave everything to the loop, and give it nothing that leads back to this socket.
        if self._error is None and hasattr(self, "_retired"):
            links, linger, waiters = [*self._links.values()], self._options.linger, self._waiters

            def close() -> None:
                for link in links:
                    link.close(linger)
                waiters.close()

            self._loop.call(close)

    def _leave_at_exit(self) -> float:
        """As the interpreter exits: close the links, wake nobody. Returns the linger."""
        for link in list(self._links.values()):
            link.close(self._options.linger, quietly=True)
        return self._options.linger

    def _find_short_way(self) -> None:
        """What a kind has to do when its endpoints have changed."""

    def _closed(self) -> None:
        """What a kind has to do when it closes."""

    def _abandon(self) -> None:
        """In a forked child."""
        self._error = ForkedError("the socket belongs to the parent process; make a new Context")
        for link in self.links:
            link.abandon()

    def _check(self) -> None:
        if self._error is not None:
            # A new one each time: a shared one would gather every caller's traceback.
            raise type(self._error)(*self._error.args)

    def stats(self) -> Snapshot:
        """All counters, summed over the endpoints; ``docs/reference/counters.md`` has the list."""
        self._check()
        totals: Snapshot = dict.fromkeys(counters.ALL, 0)
        counters.add_up(totals, self._retired)
        for link in self.links:
            counters.add_up(
                totals,
                link.stats(),
                leave_out=() if link in self._links.values() else counters.GAUGES,
            )
        return totals

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else ", ".join(self._links) or "not connected"
        return f"<mcast.{self.kind.name} {state}>"


class Pub(Socket):
    """Publishes messages to everybody who hears its groups.

    When ``send`` returns, the message is in the transmit window of every endpoint, from where it
    is sent and repaired; nobody need have it. While the rate holds it up and ``sndhwm`` is reached,
    ``send`` blocks.
    """

    kind = SocketType.PUB
    _pollable = POLLOUT

    def __init__(self, loop: Loop, options: SocketOptions, *, owner: object = None) -> None:
        super().__init__(loop, options, owner=owner)
        self._parts: list[Buffer] = []
        self._room = Waiters(loop.drive)

    def send(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        """Publish one part. With ``flags=SNDMORE`` the message goes on with the next call.

        ``flags=DONTWAIT`` is ``timeout=0``. Blocks up to ``timeout`` seconds (None: for ever).
        When the last part's call raises Again, the parts before it are kept: repeat that call.
        Threads that share the socket use ``send_multipart`` instead of SNDMORE.

        Raises: Again, MessageTooLongError, PatternError before any ``connect``, ClosedError;
        TypeError for a str.
        """
        self._send_one(data, flags, timeout=timeout)

    def _send_one(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        if flags & SNDMORE:
            self._check()
            self._check_parts(len(self._parts) + 2)
            self._parts.append(bytes(_flat(data)))
            self._find_short_way()
            return
        self._send([data], 0 if flags & DONTWAIT else timeout)

    def send_multipart(
        self, parts: Sequence[BytesLike], flags: int = 0, *, timeout: float | None = None
    ) -> None:
        """Publish one message of several parts, delivered whole or not at all.

        Parts of earlier calls with SNDMORE come first, and with SNDMORE the message goes on.

        Raises: as ``send``; OptionError if there is no part, or more than ``max_parts``.
        """
        if isinstance(parts, bytes | bytearray | memoryview | str):
            raise TypeError(f"parts is a sequence of parts, not one {type(parts).__name__}")
        if flags & SNDMORE:
            self._check()
            self._check_parts(len(self._parts) + len(parts) + 1)
            self._parts += [bytes(_flat(part)) for part in parts]
            self._find_short_way()
            return
        self._send(parts, 0 if flags & DONTWAIT else timeout)

    def send_many(self, messages: Iterable[BytesLike], *, timeout: float | None = None) -> int:
        """Publish many messages of one part each, at the lowest cost per message.

        Returns how many were taken: all, unless ``timeout`` seconds ran out. Nothing is sent if
        one of them is too long.

        Raises: MessageTooLongError, PatternError before any ``connect``, ClosedError.
        """
        if self._parts:
            raise PatternError("a message is under way since send(..., SNDMORE); finish it first")
        if isinstance(messages, bytes | bytearray | memoryview | str):
            raise TypeError(f"messages is a series of messages, not one {type(messages).__name__}")
        # The kernel takes anything bytes-like; only its names for the types are fewer.
        batch = cast(Sequence[Buffer], messages if type(messages) is list else list(messages))
        links = self._open_links()
        try:
            longest = longest_bytes(batch)
        except TypeError:
            batch = [_flat(message) for message in batch]  # says what is wrong with which
            longest = longest_bytes(batch)
        self._check_size(longest, longest + _FRAME_HEAD_BYTES, links)
        if len(links) == 1:
            return links[0].send_many(batch, timeout)
        deadline = Deadline(timeout)
        for index, message in enumerate(batch):
            try:
                self._send([message], deadline.left)
            except Again:
                return index
        return len(batch)

    def _send(self, data: Sequence[BytesLike], timeout: float | None) -> None:
        links = self._open_links()
        parts = [_flat(part) for part in data]
        begun = self._parts
        if begun:
            parts = begun + parts
        self._check_parts(len(parts))
        size = sum(map(len, parts))
        if begun:
            self._parts = []
        self._check_size(size, size + _FRAME_HEAD_BYTES * len(parts), links)
        try:
            if len(links) == 1:
                links[0].send(parts, timeout)
            else:
                self._send_to_all(links, parts, timeout)
        except Again:
            self._parts = begun
            raise
        if begun:
            self._find_short_way()

    def _find_short_way(self) -> None:
        """Make ``send`` one call of compiled code if there is one way to go and no part waits."""
        links = list(self._links.values())
        for link in links:
            link.close_gate()
        self.__dict__.pop("send", None)
        if len(links) == 1 and not self._parts:
            gate = links[0].open_gate(self._send_one)
            self.send = gate.send  # type: ignore[method-assign,assignment]

    def _send_to_all(
        self, links: list[MulticastLink], parts: Sequence[Buffer], timeout: float | None
    ) -> None:
        # All or none: wait until every endpoint has room. One that another thread then fills up
        # is waited for, since the others have it by now.
        if not self._room.wait(lambda: all(link.has_room() for link in links), timeout):
            raise Again("an endpoint's queue is full; it drains at its rate")
        for link in links:
            link.send(parts, None)

    def _check_parts(self, count: int) -> None:
        if not 1 <= count <= self._options.max_parts:
            raise OptionError(f"a message has 1 to {self._options.max_parts} parts, not {count}")

    def _open_links(self) -> list[MulticastLink]:
        self._check()
        links = list(self._links.values())
        if not links:
            raise PatternError("nowhere to send: connect the socket first")
        return links

    def _check_size(self, size: int, stream_bytes: int, links: list[MulticastLink]) -> None:
        if size > self._options.max_msg_size:
            raise MessageTooLongError(
                f"message of {size} bytes; max_msg_size is {self._options.max_msg_size}"
            )
        window = min(link.max_stream_bytes for link in links)
        if stream_bytes > window:
            raise MessageTooLongError(
                f"message of {size} bytes; half the transmit window takes {window}: raise txw_bytes"
            )

    def _open(self, url: str) -> MulticastLink:
        return MulticastLink(parse_endpoint(url), self._options, self._loop, room=self._room)

    @property
    def _waiters(self) -> Waiters:
        return self._room

    def _is_ready(self) -> bool:
        return self.closed or all(link.has_room() for link in self._links.values())

    def _closed(self) -> None:
        self._room.close()

    def _abandon(self) -> None:
        super()._abandon()
        self._room.abandon()


class Sub(Socket):
    """Receives what was subscribed to: each message whole, in order, once, or reported lost."""

    kind = SocketType.SUB
    _pollable = POLLIN

    def __init__(self, loop: Loop, options: SocketOptions, *, owner: object = None) -> None:
        super().__init__(loop, options, owner=owner)
        self._queue = ReceiveQueue(
            options.rcvhwm, raise_on_loss=options.on_loss == "raise", drive=loop.drive
        )
        # One call of compiled code where a message waits; else it calls ``_recv``. The gate keeps
        # this socket alive, as a bound method would, and nothing in the loop keeps the gate.
        self.recv = ReceiveGate(self._queue.inbox, self._recv).recv  # type: ignore[method-assign]
        self._topics: dict[bytes, int] = {}
        self._filter = TopicFilter()
        self._rest: deque[bytes] = deque()
        self._has_fd = False

    # Subscriptions.

    def subscribe(self, topic: BytesLike | str = b"") -> None:
        """Receive messages whose first part starts with ``topic``; empty: all. Counts repetitions.

        In force for messages that arrive after the call.
        """
        with self._lock:
            self._check()
            key = _topic(topic)
            self._topics[key] = self._topics.get(key, 0) + 1
            self._apply_topics()

    def unsubscribe(self, topic: BytesLike | str = b"") -> None:
        """Undo one ``subscribe`` of the same topic; a topic not subscribed to is ignored."""
        with self._lock:
            self._check()
            key = _topic(topic)
            count = self._topics.pop(key, 0)
            if count > 1:
                self._topics[key] = count - 1
            self._apply_topics()

    def _apply_topics(self) -> None:
        self._filter = TopicFilter(self._topics)
        for link in self._links.values():
            link.set_filter(self._filter)

    # Receiving.

    def recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        """The next part: of the message under way, else the first of the next message.

        Blocks up to ``timeout`` seconds (None: for ever); ``flags=DONTWAIT`` is ``timeout=0``.
        ``rcvmore`` tells whether the message goes on.

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

    def _open(self, url: str) -> MulticastLink:
        return MulticastLink(
            parse_endpoint(url),
            self._options,
            self._loop,
            queue=self._queue,
            topic_filter=self._filter,
        )

    def fileno(self) -> int:
        """As ``Socket.fileno``: readable while messages wait."""
        self._has_fd = True
        self._hold()
        return super().fileno()

    @property
    def _waiters(self) -> Waiters:
        return self._queue.waiters

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


def _flat(data: BytesLike) -> Buffer:
    """The same bytes with ``len`` counting bytes. Raises TypeError for what is not bytes-like."""
    if isinstance(data, bytes | bytearray):
        return data
    view = _view(data)
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    return view.tobytes()


def _view(data: BytesLike) -> memoryview:
    try:
        return memoryview(data)
    except TypeError:
        hint = "; encode it first" if isinstance(data, str) else ""
        raise TypeError(f"a message is bytes-like, not {type(data).__name__}{hint}") from None


def _topic(topic: BytesLike | str) -> bytes:
    return topic.encode() if isinstance(topic, str) else _view(topic).tobytes()
