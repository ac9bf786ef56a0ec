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

from mcast.auth import Authenticator
from mcast.endpoint import MulticastEndpoint, parse_endpoint
from mcast.errors import ClosedError, EndpointError, ForkedError, OptionError, PatternError
from mcast.events import Event
from mcast.options import OPTION_NAMES, OptionValue, SocketOptions
from mcast.runtime import counters
from mcast.runtime.deadline import Deadline
from mcast.runtime.links import MulticastLink
from mcast.runtime.loop import Loop
from mcast.runtime.monitor import Monitor
from mcast.runtime.peers import Peers
from mcast.runtime.queues import Waiters, wait_any
from mcast.sockets.attributes import OptionAttributes
from mcast.sockets.buffers import BytesLike
from mcast.stats import Snapshot
from mcast.unicast_options import KINDS, NOT_MULTICAST

__all__ = [
    "DEALER",
    "DISH",
    "DONTWAIT",
    "NOBLOCK",
    "PAIR",
    "POLLIN",
    "POLLOUT",
    "PUB",
    "PULL",
    "PUSH",
    "RADIO",
    "REP",
    "REQ",
    "ROUTER",
    "SNDMORE",
    "SUB",
    "XPUB",
    "XSUB",
    "Socket",
    "SocketType",
    "check_kind",
]


class SocketType(IntEnum):
    """What a socket is for; the numbers are libzmq's."""

    PAIR = 0
    PUB = 1
    SUB = 2
    REQ = 3
    REP = 4
    DEALER = 5
    ROUTER = 6
    PULL = 7
    PUSH = 8
    XPUB = 9
    XSUB = 10
    RADIO = 14
    DISH = 15


PAIR: Final = SocketType.PAIR
PUB: Final = SocketType.PUB
SUB: Final = SocketType.SUB
REQ: Final = SocketType.REQ
REP: Final = SocketType.REP
DEALER: Final = SocketType.DEALER
ROUTER: Final = SocketType.ROUTER
PULL: Final = SocketType.PULL
PUSH: Final = SocketType.PUSH
XPUB: Final = SocketType.XPUB
XSUB: Final = SocketType.XSUB
RADIO: Final = SocketType.RADIO
DISH: Final = SocketType.DISH


DONTWAIT: Final = 1
NOBLOCK: Final = DONTWAIT
SNDMORE: Final = 2
POLLIN: Final = 1
POLLOUT: Final = 2


def check_kind(kind: SocketType, names: Iterable[str]) -> None:
    """Raise OptionError if one of these options belongs to other socket types only."""
    for name in names:
        kinds = KINDS.get(name)
        if kinds is not None and kind.name not in kinds:
            raise OptionError(f"{name} is an option of {', '.join(sorted(kinds))}, not {kind.name}")


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
        self._peers: Peers | None = None  # the unicast side, if there is one
        self._leaving: list[MulticastLink] = []
        self._last_endpoint = ""
        self._lock = RLock()  # a signal handler may close the socket from within
        self._retired: Snapshot = {}

    # Endpoints.

    def connect(self, url: str) -> None:
        """Connect to the endpoint, such as ``epgm://eth0;239.192.1.1:5555`` or
        ``tcp://10.0.0.5:5555``.

        A group is joined when this returns; nobody need be there. Other connections are made, and
        made again when they break, in the background. A host name is looked up here, and may block.

        Raises: EndpointError, InterfaceError, TransportError, OptionError, ClosedError.
        """
        self._add(url, binds=False)

    def bind(self, url: str) -> None:
        """Let others connect to the endpoint; ``last_endpoint`` tells which one it became.

        For ``epgm://`` the same as ``connect``. ``tcp://127.0.0.1:*`` takes a free port.

        Raises: as ``connect``; TransportError if it is in use.
        """
        self._add(url, binds=True)

    def _add(self, url: str, *, binds: bool) -> None:
        endpoint = parse_endpoint(url)
        with self._lock:
            self._check()
            if isinstance(endpoint, MulticastEndpoint):
                self._last_endpoint = self._join(endpoint)
            else:
                peers = self._unicast()
                self._last_endpoint = (peers.bind if binds else peers.connect)(endpoint)
                if not binds and self._options.connect_routing_id:  # it is used up
                    self._options = self._options.with_changes({"connect_routing_id": b""})
            self._find_short_way()

    def _join(self, endpoint: MulticastEndpoint) -> str:
        key = str(endpoint)
        if key in self._links:
            raise EndpointError(f"already connected to {key}")
        self._check_multicast(key)
        self._forget_left()
        link = self._open(endpoint)
        if self._error is not None:  # a signal handler closed the socket meanwhile
            link.close(0.0)
            self._check()
        self._links[key] = link
        return key

    def _check_multicast(self, key: str) -> None:
        defaults = SocketOptions()
        for name in NOT_MULTICAST:
            if getattr(self._options, name) != getattr(defaults, name):
                raise OptionError(
                    f"{key}: reliable multicast cannot honour {name}; take the option back, or use"
                    " tcp://, which can"
                )

    def disconnect(self, url: str) -> None:
        """Leave the endpoint; what was sent to a group still leaves, within ``linger``.

        What waits for another connection is dropped and counted.

        Raises: EndpointError if the socket is not connected to it.
        """
        endpoint = parse_endpoint(url)
        key = str(endpoint)
        with self._lock:
            self._check()
            link = self._links.pop(key, None)
            if link is None:
                if isinstance(endpoint, MulticastEndpoint) or self._peers is None:
                    joined = ", ".join(self.endpoints) or "nothing"
                    raise EndpointError(f"not connected to {key}, but to {joined}")
                self._peers.release(key)
            else:
                self._leaving.append(link)
            self._find_short_way()
        if link is not None:
            link.close(self._options.linger)

    unbind = disconnect

    def authenticate(self, authenticator: Authenticator | None) -> None:
        """Ask ``authenticator`` about each connection over tcp:// and ipc:// from now on.

        ``mcast.allow`` makes one from lists. It is called in the context's thread and must not
        block. A PLAIN server needs one; a CURVE server without one admits every key. ``None``:
        nobody is asked any more. Both sides of a NULL connection ask, if they have one.

        Raises: ClosedError.
        """
        with self._lock:
            self._check()
            self._unicast().authenticate(authenticator)

    def monitor(self) -> Monitor:
        """What happens to the connections over tcp:// and ipc:// from now on, as ``MonitorEvent``.

        The same object at each call. Raises: ClosedError.
        """
        with self._lock:
            self._check()
            return self._unicast().watch_connections()

    def _unicast(self) -> Peers:
        """The unicast side, made when it is needed first. Under the lock."""
        if self._peers is None:
            self._peers = self._make_peers()
        return self._peers

    def _make_peers(self) -> Peers:
        raise NotImplementedError

    def _forget_left(self) -> None:
        """Let go of endpoints that were left, and keep what they counted."""
        for link in [link for link in self._leaving if link.closed.is_set()]:
            self._leaving.remove(link)
            counters.add_up(self._retired, link.stats(), leave_out=counters.GAUGES)

    @property
    def last_endpoint(self) -> str:
        """The endpoint bound or connected last, in canonical spelling; empty before the first."""
        return self._last_endpoint

    @property
    def endpoints(self) -> list[str]:
        """All endpoints, bound or connected."""
        peers = self._peers
        return [*self._links, *(peers.endpoints if peers is not None else ())]

    def _open(self, endpoint: MulticastEndpoint) -> MulticastLink:
        raise EndpointError(f"{endpoint}: reliable multicast carries PUB and SUB only")

    # Options.

    def set(self, name: str, value: OptionValue) -> None:
        """Change an option for endpoints joined from now on (as libzmq); ``linger``,
        ``max_msg_size`` and ``max_parts`` of what is sent, ``rcvhwm``, ``on_loss`` and the options
        of the socket type at once.

        Raises: OptionError for an unknown name, a value out of range, or an option of another
        socket type.
        """
        with self._lock:
            self._check()
            options = self._options.with_changes({name: value})
            check_kind(self.kind, [name])
            if self._peers is not None:
                self._peers.configure(options)
            self._options = options
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
        self._options.with_changes({name: None} if name not in OPTION_NAMES else {})
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
        wait_any(
            [self._waiters_for(flag) for flag in (POLLIN, POLLOUT) if flag & wanted],
            lambda: bool(self._events_now() & wanted) or self.closed,
            deadline.left,
        )
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

    def _descriptors(self, flags: int) -> list[int]:
        """For a Poller: each is readable while one of ``flags`` holds."""
        return [self.fileno()] if self.can_poll(flags) else []

    def _waiters_for(self, flag: int) -> Waiters:  # noqa: ARG002
        """Who waits for POLLIN or POLLOUT."""
        # Most kinds have one of the two only.
        return self._waiters

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
        other = {SocketType.PUB: "; use a SUB socket", SocketType.SUB: "; use a PUB socket"}
        raise PatternError(f"a {self.kind.name} socket cannot {what}{other.get(self.kind, '')}")

    # The end.

    @property
    def closed(self) -> bool:
        """True after ``close``, and in a forked child."""
        return self._error is not None

    @property
    def finished(self) -> bool:
        """True when nothing of a closed socket is left in the loop."""
        if self._peers is not None and not self._peers.closed.is_set():
            return False
        return self.closed and all(link.closed.is_set() for link in self.links)

    @property
    def links(self) -> list[MulticastLink]:
        """The endpoints at work, and those that are leaving."""
        return [*self._links.values(), *self._leaving]

    @property
    def unsent_count(self) -> int:
        """Messages that were given up because the linger ran out; known once ``finished``."""
        unsent = sum(int(link.stats()["messages_unsent"]) for link in self.links)
        return unsent + (0 if self._peers is None else self._peers.unsent_count)

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
        if self._peers is not None:
            self._peers.close(self._options.linger)
        self._closed()

    def __del__(self) -> None:
        # Any thread may get here, within any call, even the loop's while it holds a link's lock:
        # leave everything to the loop, and give it nothing that leads back to this socket.
        if self._error is None and hasattr(self, "_retired"):
            links, linger, waiters = [*self._links.values()], self._options.linger, self._waiters
            peers = self._peers

            def close() -> None:
                for link in links:
                    link.close(linger)
                if peers is not None:
                    peers.close(linger)
                waiters.close()

            self._loop.call(close)

    def _leave_at_exit(self) -> float:
        """As the interpreter exits: close the links, wake nobody. Returns the linger."""
        for link in list(self._links.values()):
            link.close(self._options.linger, quietly=True)
        if self._peers is not None:
            self._peers.close(self._options.linger, quietly=True)
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
        if self._peers is not None:
            self._peers.abandon()

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
        if self._peers is not None:
            counters.add_up(totals, self._peers.stats())
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
        state = "closed" if self.closed else ", ".join(self.endpoints) or "not connected"
        return f"<mcast.{self.kind.name} {state}>"
