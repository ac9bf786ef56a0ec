"""What all sockets share: endpoints, options, waiting, closing.

A socket may be used from any thread. It owns its links. Invariant: after ``close`` or a fork every
call raises, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from threading import RLock
from types import TracebackType
from typing import Final, NoReturn, Self

from mcast.endpoint import parse_endpoint
from mcast.errors import ClosedError, EndpointError, ForkedError, PatternError
from mcast.events import Event
from mcast.options import OptionValue, SocketOptions
from mcast.runtime import counters
from mcast.runtime.deadline import Deadline
from mcast.runtime.links import MulticastLink
from mcast.runtime.loop import Loop
from mcast.runtime.queues import Waiters
from mcast.sockets.attributes import OptionAttributes
from mcast.sockets.buffers import BytesLike
from mcast.stats import Snapshot

__all__ = [
    "DONTWAIT",
    "NOBLOCK",
    "POLLIN",
    "POLLOUT",
    "PUB",
    "SNDMORE",
    "SUB",
    "Socket",
    "SocketType",
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


class Socket(OptionAttributes):
    """What all kinds share: endpoints, options, waiting, closing.

    The options are attributes, too: ``socket.rate = 1e9`` is ``socket.set("rate", 1e9)``.
    """

    kind: SocketType

    def __init__(self, loop: Loop, options: SocketOptions, *, owner: object = None) -> None:
        self._error: ClosedError | None = None
        self._loop = loop
        self._options = options
        self._owner = owner  # the context must live as long as a socket of it
        self._links: dict[str, MulticastLink] = {}
        self._leaving: list[MulticastLink] = []
        self._last_endpoint = ""
        self._lock = RLock()  # a signal handler may close the socket from within
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
            link = self._open(key)
            if self._error is not None:  # a signal handler closed the socket meanwhile
                link.close(0.0)
                self._check()
            self._links[key] = link
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

    def _held_options(self) -> SocketOptions:
        return self._options

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
        """Which of ``flags`` hold, waiting up to ``timeout`` seconds for one; 0 if none does.

        Raises: ClosedError; OptionError for a negative timeout, as every call that waits.
        """
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

        Raises: PatternError in a context with ``loop="caller"``; ClosedError.
        """
        self._check_descriptor()
        return self._waiters.fileno(self._is_ready)

    def _check_descriptor(self) -> None:
        """Raise if there is none: while the caller waits for it, nobody would receive or send."""
        self._check()
        if self._loop.drive is not None:
            raise PatternError(
                'a context with loop="caller" has no thread that would make a descriptor readable:'
                ' wait with poll, recv or send, or use loop="thread"'
            )

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
        for link in list(self._links.values()):
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
        """In a forked child. Whoever held the lock exists in the parent only."""
        self._lock = RLock()
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
        joined = list(self._links.values())
        for link in joined:
            counters.add_up(totals, link.stats())
        for link in list(self._leaving):
            counters.add_up(totals, link.stats(), leave_out=counters.GAUGES)
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
