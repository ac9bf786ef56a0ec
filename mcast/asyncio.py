"""The same names awaitable: ``async with mcast.asyncio.Context() as ctx``, ``await sub.recv()``.

A shell round the blocking sockets, on the same thread and queues, with no thread per call: a call
first tries without waiting, and only if that is not enough registers a callback that wakes its
task. Invariant: a message is taken in the same step in which it is returned, so a cancelled or
timed-out call has taken nothing.

What does not wait (``connect``, ``subscribe``, ``set``, ``stats``, ``close``...) is not awaitable.
Several tasks may share a socket, and threads may use ``socket.sync`` at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Generic, Literal, Self, TypeVar, overload

from mcast import context as blocking
from mcast.auth import Authenticator
from mcast.errors import Again, ClosedError, ForkedError, OptionError
from mcast.events import Event
from mcast.monitor import MonitorEvent
from mcast.options import OptionValue, SocketOptions
from mcast.runtime.deadline import Deadline
from mcast.runtime.loop import Loop
from mcast.runtime.monitor import Monitor
from mcast.runtime.queues import Waiters
from mcast.sockets import DONTWAIT, POLLIN, POLLOUT, BytesLike, SocketType
from mcast.sockets import Pub as BlockingPub
from mcast.sockets import Socket as BlockingSocket
from mcast.sockets import Sub as BlockingSub
from mcast.sockets.attributes import OptionAttributes
from mcast.sockets.buffers import topic_bytes
from mcast.sockets.patterns import PatternSocket as BlockingPatternSocket
from mcast.stats import Snapshot

__all__ = ["Context", "PatternSocket", "Pub", "Socket", "Sub"]

_Result = TypeVar("_Result")
_Sync = TypeVar("_Sync", bound=BlockingSocket)

_PatternType = Literal[
    SocketType.PAIR,
    SocketType.REQ,
    SocketType.REP,
    SocketType.DEALER,
    SocketType.ROUTER,
    SocketType.PULL,
    SocketType.PUSH,
    SocketType.XPUB,
    SocketType.XSUB,
    SocketType.RADIO,
    SocketType.DISH,
]

_STREAK_LIMIT: Final = 256
"""Calls in a row that need not wait, after which other tasks get a turn: a flood of messages must
not stop the rest of the program. A turn costs 10 us (measured), so 0.04 us a call."""


class Context:
    """Makes awaitable sockets; ``async with`` closes them and waits for their linger.

    Options as ``mcast.Context``, and the same one thread. Belongs to no event loop in particular.
    """

    def __init__(self, **defaults: OptionValue) -> None:
        if "loop" in defaults or "busy_poll" in defaults:
            raise OptionError(
                "asyncio sockets need the context's own thread: no loop, no busy_poll"
            )
        self._context = blocking.Context(**defaults)  # type: ignore[arg-type]  # options only

    @overload
    def socket(self, kind: Literal[SocketType.PUB], **options: OptionValue) -> Pub: ...
    @overload
    def socket(self, kind: Literal[SocketType.SUB], **options: OptionValue) -> Sub: ...
    @overload
    def socket(self, kind: _PatternType, **options: OptionValue) -> PatternSocket: ...
    @overload
    def socket(self, kind: SocketType, **options: OptionValue) -> Pub | Sub | PatternSocket: ...
    def socket(self, kind: SocketType, **options: OptionValue) -> Pub | Sub | PatternSocket:
        """A new awaitable socket; see ``mcast.Context.socket``."""
        made = self._context.socket(kind, **options)
        if isinstance(made, BlockingPub):
            return Pub(made)
        if isinstance(made, BlockingSub):
            return Sub(made)
        assert isinstance(made, BlockingPatternSocket)
        return PatternSocket(made)

    @property
    def closed(self) -> bool:
        """True after ``term``, and in a forked child."""
        return self._context.closed

    def stats(self) -> dict[str, object]:
        """See ``mcast.Context.stats``."""
        return self._context.stats()

    async def term(self, linger: float | None = None) -> None:
        """Close every socket and wait, as ``mcast.Context.term``, while other tasks run.

        Cancelling the wait does not undo the closing, which goes on in the background.
        """
        closing = self._context._begin_term(linger)
        if closing is not None:
            loop, longest_s = closing
            await _ended(loop, longest_s + blocking.GRACE_S)

    async def __aenter__(self) -> Self:
        self._context.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.term()


class Socket(OptionAttributes, Generic[_Sync]):
    """What both kinds share, the options as attributes. ``with`` closes it, without waiting."""

    def __init__(self, sync: _Sync) -> None:
        self._sync: Final = sync
        self._streak = 0

    @property
    def sync(self) -> _Sync:
        """The blocking socket underneath, for other threads."""
        return self._sync

    def _held_options(self) -> SocketOptions:
        return self.sync._options

    def connect(self, url: str) -> None:
        """See ``mcast.Socket.connect``. A host name is looked up here, and blocks meanwhile."""
        self.sync.connect(url)

    def bind(self, url: str) -> None:
        """See ``mcast.Socket.bind``."""
        self.sync.bind(url)

    def disconnect(self, url: str) -> None:
        """See ``mcast.Socket.disconnect``; ``unbind`` is the same."""
        self.sync.disconnect(url)

    unbind = disconnect

    def authenticate(self, authenticator: Authenticator | None) -> None:
        """See ``mcast.Socket.authenticate``."""
        self.sync.authenticate(authenticator)

    def monitor(self) -> AsyncIterator[MonitorEvent]:
        """What happens to the connections from now on; see ``mcast.Socket.monitor``."""
        return self._watch(self.sync.monitor())

    async def _watch(self, monitor: Monitor) -> AsyncIterator[MonitorEvent]:
        while True:
            try:
                event = await self._until(lambda: monitor.recv(0), monitor.waiters, None)
            except ClosedError:
                return
            yield event

    @property
    def last_endpoint(self) -> str:
        """The endpoint bound or connected last, in canonical spelling; empty before the first."""
        return self.sync.last_endpoint

    @property
    def endpoints(self) -> list[str]:
        """All endpoints, bound or connected."""
        return self.sync.endpoints

    def set(self, name: str, value: OptionValue) -> None:
        """See ``mcast.Socket.set``."""
        self.sync.set(name, value)

    setsockopt = set  # noqa: A003 - the method is meant

    def get(self, name: str) -> OptionValue:
        """See ``mcast.Socket.get``."""
        return self.sync.get(name)

    getsockopt = get

    async def poll(self, timeout: float | None = None, flags: int = POLLIN) -> int:
        """Which of ``flags`` hold, waiting up to ``timeout`` seconds for one; 0 if none does."""

        def attempt() -> int:
            if not flags & self.sync._pollable:
                self.sync._check()
                return 0
            held = self.sync.poll(0, flags)
            if not held:
                raise Again("not ready")
            return held

        try:
            waiters = [self.sync._waiters_for(flag) for flag in (POLLIN, POLLOUT) if flag & flags]
            return await self._until(attempt, _Either(waiters), timeout)
        except Again:
            return 0

    def fileno(self) -> int:
        """See ``mcast.Socket.fileno``."""
        return self.sync.fileno()

    @property
    def closed(self) -> bool:
        """True after ``close``, and in a forked child."""
        return self.sync.closed

    def close(self, linger: float | None = None) -> None:
        """Stop using the socket, at once; tasks that wait in it get ClosedError. Does not wait."""
        self.sync.close(linger)

    def stats(self) -> Snapshot:
        """See ``mcast.Socket.stats``."""
        return self.sync.stats()

    def __enter__(self) -> Self:
        self.sync.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<mcast.asyncio of {self.sync!r}>"

    async def _until(
        self, attempt: Callable[[], _Result], waiters: Waiters | _Either, timeout: float | None
    ) -> _Result:
        """What ``attempt`` returns as soon as it does not raise Again."""
        self._streak += 1
        if self._streak >= _STREAK_LIMIT:
            self._streak = 0
            await asyncio.sleep(0)
        try:
            return attempt()
        except Again:
            Deadline(timeout)  # refuses a negative one
            if timeout == 0:
                raise
        self._streak = 0
        loop = asyncio.get_running_loop()
        ends_at = None if timeout is None else loop.time() + timeout
        while True:
            woken: asyncio.Future[None] = loop.create_future()
            notify = _Notify(loop, woken)
            waiters.add(notify)
            timer = None if ends_at is None else loop.call_at(ends_at, _resolve, woken)
            try:
                # Registered first and looked again afterwards, so that no wake-up is missed.
                try:
                    return attempt()
                except Again:
                    if ends_at is not None and loop.time() >= ends_at:
                        raise
                await woken
            finally:
                waiters.discard(notify)
                if timer is not None:
                    timer.cancel()


class Pub(Socket[BlockingPub]):
    """Publishes; see ``mcast.Pub``. While the rate holds it up, ``send`` lets other tasks run."""

    async def send(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        """See ``mcast.Pub.send``."""
        await self._until(
            lambda: self.sync.send(data, flags | DONTWAIT),
            self.sync._waiters,
            0 if flags & DONTWAIT else timeout,
        )

    async def send_multipart(
        self, parts: Sequence[BytesLike], flags: int = 0, *, timeout: float | None = None
    ) -> None:
        """See ``mcast.Pub.send_multipart``."""
        await self._until(
            lambda: self.sync.send_multipart(parts, flags | DONTWAIT),
            self.sync._waiters,
            0 if flags & DONTWAIT else timeout,
        )

    async def send_many(
        self, messages: Iterable[BytesLike], *, timeout: float | None = None
    ) -> int:
        """See ``mcast.Pub.send_many``. What was taken before a cancellation stays taken."""
        batch = list(messages)
        taken = 0

        def attempt() -> int:
            nonlocal taken
            taken += self.sync.send_many(batch[taken:] if taken else batch, timeout=0)
            if taken < len(batch):
                raise Again("the publisher's queue is full")
            return taken

        try:
            return await self._until(attempt, self.sync._waiters, timeout)
        except Again:
            return taken


class Sub(Socket[BlockingSub]):
    """Receives; see ``mcast.Sub``. ``async for parts in sub`` gives message after message."""

    def subscribe(self, topic: BytesLike | str = b"") -> None:
        """See ``mcast.Sub.subscribe``."""
        self.sync.subscribe(topic)

    def unsubscribe(self, topic: BytesLike | str = b"") -> None:
        """See ``mcast.Sub.unsubscribe``."""
        self.sync.unsubscribe(topic)

    async def recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        """See ``mcast.Sub.recv``."""
        return await self._until(
            lambda: self.sync.recv(DONTWAIT),
            self.sync._waiters,
            0 if flags & DONTWAIT else timeout,
        )

    async def recv_multipart(self, flags: int = 0, *, timeout: float | None = None) -> list[bytes]:
        """See ``mcast.Sub.recv_multipart``."""
        return await self._until(
            lambda: self.sync.recv_multipart(DONTWAIT),
            self.sync._waiters,
            0 if flags & DONTWAIT else timeout,
        )

    async def recv_many(self, count: int, *, timeout: float | None = None) -> list[bytes]:
        """See ``mcast.Sub.recv_many``."""
        return await self._until(
            lambda: self.sync.recv_many(count, timeout=0), self.sync._waiters, timeout
        )

    async def recv_many_multipart(
        self, count: int, *, timeout: float | None = None
    ) -> list[list[bytes]]:
        """See ``mcast.Sub.recv_many_multipart``."""
        return await self._until(
            lambda: self.sync.recv_many_multipart(count, timeout=0), self.sync._waiters, timeout
        )

    @property
    def rcvmore(self) -> bool:
        """True if the message that ``recv`` began has more parts."""
        return self.sync.rcvmore

    def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Each message as the list of its parts; ends when the socket closes.

        Raises: LossError with ``on_loss="raise"``; start again to go on behind the gap.
        """
        return self._messages()

    async def _messages(self) -> AsyncIterator[list[bytes]]:
        while True:
            try:
                message = await self.recv_multipart()
            except ForkedError:
                raise
            except ClosedError:
                return
            yield message

    async def events(self, timeout: float | None = None) -> AsyncIterator[Event]:
        """The events, oldest first; ends when none came for ``timeout`` seconds, or at ``close``.

        Unlike the blocking one it waits for more by default.
        """
        queue = self.sync._queue
        self.sync._check()

        def attempt() -> Event | None:
            event = queue.take_event()
            if event is None and not queue.has_events():
                raise Again("no event waits")
            return event

        while True:
            try:
                event = await self._until(attempt, queue.event_waiters, timeout)
            except Again:
                return
            if event is None:  # and none will come
                return
            yield event


class PatternSocket(Socket[BlockingPatternSocket]):
    """Every other socket type; see ``mcast.sockets``. ``async for parts in socket`` receives."""

    async def send(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        """See ``mcast.sockets.patterns.PatternSocket.send``."""
        await self._until(
            lambda: self.sync.send(data, flags | DONTWAIT),
            self.sync._waiters_for(POLLOUT),
            0 if flags & DONTWAIT else timeout,
        )

    async def send_multipart(
        self, parts: Sequence[BytesLike], flags: int = 0, *, timeout: float | None = None
    ) -> None:
        """See ``mcast.sockets.patterns.PatternSocket.send_multipart``."""
        await self._until(
            lambda: self.sync.send_multipart(parts, flags | DONTWAIT),
            self.sync._waiters_for(POLLOUT),
            0 if flags & DONTWAIT else timeout,
        )

    async def send_many(
        self, messages: Iterable[BytesLike], *, timeout: float | None = None
    ) -> int:
        """As the blocking one. What was taken before a cancellation stays taken."""
        batch = list(messages)
        return await self._send_all(
            lambda start: self.sync.send_many(batch[start:] if start else batch, timeout=0),
            len(batch),
            timeout,
        )

    async def send_many_multipart(
        self, messages: Iterable[Sequence[BytesLike]], *, timeout: float | None = None
    ) -> int:
        """As ``send_many``, each message a sequence of parts."""
        batch = list(messages)
        return await self._send_all(
            lambda start: self.sync.send_many_multipart(
                batch[start:] if start else batch, timeout=0
            ),
            len(batch),
            timeout,
        )

    async def _send_all(
        self, send_from: Callable[[int], int], count: int, timeout: float | None
    ) -> int:
        taken = 0

        def attempt() -> int:
            nonlocal taken
            taken += send_from(taken)
            if taken < count:
                raise Again("no peer takes a message now")
            return taken

        try:
            return await self._until(attempt, self.sync._waiters_for(POLLOUT), timeout)
        except Again:
            return taken

    async def recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        """See ``mcast.sockets.patterns.PatternSocket.recv``."""
        return await self._receive(lambda: self.sync.recv(DONTWAIT), flags, timeout)

    async def recv_multipart(self, flags: int = 0, *, timeout: float | None = None) -> list[bytes]:
        """See ``mcast.sockets.patterns.PatternSocket.recv_multipart``."""
        return await self._receive(lambda: self.sync.recv_multipart(DONTWAIT), flags, timeout)

    async def recv_many(self, count: int, *, timeout: float | None = None) -> list[bytes]:
        """1 to ``count`` messages; one future for all of them, and none where they are there."""
        return await self._receive(lambda: self.sync.recv_many(count, timeout=0), 0, timeout)

    async def recv_many_multipart(
        self, count: int, *, timeout: float | None = None
    ) -> list[list[bytes]]:
        """As ``recv_many``, each message as the list of its parts."""
        return await self._receive(
            lambda: self.sync.recv_many_multipart(count, timeout=0), 0, timeout
        )

    async def _receive(
        self, attempt: Callable[[], _Result], flags: int, timeout: float | None
    ) -> _Result:
        return await self._until(
            attempt, self.sync._waiters_for(POLLIN), 0 if flags & DONTWAIT else timeout
        )

    @property
    def rcvmore(self) -> bool:
        """True if the message that ``recv`` began has more parts."""
        return self.sync.rcvmore

    def subscribe(self, topic: BytesLike | str = b"") -> None:
        """XSUB, and XPUB with ``xpub_manual``; see there."""
        self.sync.subscribe(topic)

    def unsubscribe(self, topic: BytesLike | str = b"") -> None:
        """XSUB, and XPUB with ``xpub_manual``; see there."""
        self.sync.unsubscribe(topic)

    def join(self, group: BytesLike | str) -> None:
        """DISH; see ``mcast.Dish.join``. Raises PatternError for others."""
        self.sync.join(group)

    def leave(self, group: BytesLike | str) -> None:
        """DISH; see ``mcast.Dish.leave``. Raises PatternError for others."""
        self.sync.leave(group)

    async def publish(self, group: BytesLike | str, body: BytesLike) -> None:
        """RADIO: ``send_multipart([group, body])``."""
        await self.send_multipart([topic_bytes(group), body])

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        """Each message as the list of its parts; ends when the socket closes."""
        while True:
            try:
                message = await self.recv_multipart()
            except ForkedError:
                raise
            except ClosedError:
                return
            yield message


class _Either:
    """Several lists of those who wait, as one."""

    def __init__(self, several: Sequence[Waiters]) -> None:
        self._several = several

    def add(self, callback: Callable[[], None]) -> None:
        """To each of them; it may be called more than once."""
        for waiters in self._several:
            waiters.add(callback)

    def discard(self, callback: Callable[[], None]) -> None:
        """From each of them."""
        for waiters in self._several:
            waiters.discard(callback)


class _Notify:
    """Called once in whichever thread wakes the waiters: have the event loop resolve a future."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        self._loop = loop
        self._future = future

    def __call__(self) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, self._future)
        except RuntimeError:  # the event loop was closed; nobody waits any more
            return


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _ended(loop: Loop, timeout_s: float) -> None:
    running = asyncio.get_running_loop()
    future: asyncio.Future[None] = running.create_future()
    notify = _Notify(running, future)
    timer = running.call_later(timeout_s, _resolve, future)
    loop.ended.add(notify)
    try:
        if not loop.has_ended:
            await future
    finally:
        timer.cancel()
        loop.ended.discard(notify)
