"""The unicast side of one socket: its pattern, its connections by every transport, and its end.

Owns the pattern, the timers of the connections, and when what was sent is written. Invariants:
everything happens under the switchboard's lock, by the application's thread or the loop's; after
each step what the pattern says is done (``settle``), and nobody is woken before the lock is free;
a closing socket stays until what was sent is written, or its linger is over.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Sequence
from enum import Enum, auto
from functools import partial
from itertools import count
from random import SystemRandom
from sys import maxsize
from threading import Event as Flag
from threading import current_thread
from time import monotonic_ns
from typing import Final

from mcast.auth import Authenticator
from mcast.errors import (
    Again,
    ClosedError,
    Error,
    MessageTooLongError,
    PatternError,
    TransportError,
    UnroutableError,
)
from mcast.kernel import Inbox, Message, StreamGate
from mcast.monitor import MonitorEvent, MonitorKind
from mcast.net.stream import Address, resolve
from mcast.options import SocketOptions
from mcast.patterns import Dish, Pattern, SendResult, SocketKind, Sub, Xpub, create
from mcast.patterns.events import Refusal
from mcast.runtime.admission import check_judge, check_security, verdict
from mcast.runtime.connections import Connection
from mcast.runtime.doors import Dialer
from mcast.runtime.inproc import InprocEnd
from mcast.runtime.loop import Loop
from mcast.runtime.monitor import Monitor
from mcast.runtime.pipes import NEVER, Pipe, Timed
from mcast.runtime.places import Places
from mcast.runtime.queues import ReceiveQueue, Waiters
from mcast.runtime.settings import pattern_options, zmtp_options
from mcast.runtime.shortways import ShortWays
from mcast.stats import Snapshot
from mcast.unicast import IpcEndpoint, TcpEndpoint, UnicastEndpoint
from mcast.zmtp import AuthNeeded

__all__ = ["Peers", "SocketKind"]

_log = logging.getLogger("mcast")

_STREAMING_NS: Final = 3_000
"""Who sends again so soon after the last call is in a loop: its messages wait for company."""
_AHEAD: Final = 64
"""Messages fetched at once for calls of ``recv``: the lock is taken once for them."""
_BATCH: Final = 256
"""Messages that wait at most."""
_DRAIN_IVL_NS: Final = 1_000_000
"""How often a full queue of a SUB is looked at for room; its readers tell nobody."""
_STALE_LIMIT: Final = 32
"""Timers of what is over that may stand in the heap, beside as many as half of it."""
_ADDRESS_WAIT_S: Final = 0.05
"""How long closing waits for the lock, which is held for a batch of messages at most."""
_LINGERS: Final = frozenset(SocketKind) - {
    SocketKind.SUB,
    SocketKind.XSUB,
    SocketKind.PULL,
    SocketKind.DISH,
}
"""Those with something to say when they close."""


class _Stage(Enum):
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


class Peers:
    """All connections of one socket, and the pattern between them and the application.

    Public methods are for any thread unless said. A link of the loop.
    """

    def __init__(
        self,
        kind: SocketKind,
        options: SocketOptions,
        loop: Loop,
        *,
        readable: Waiters,
        writable: Waiters,
        sink: ReceiveQueue | None = None,
    ) -> None:
        """With a ``sink``, what arrives goes there; else ``recv_many`` fetches it.

        Raises OptionError.
        """
        self.kind = kind
        self.options = options
        self.dice = SystemRandom()
        self.pattern: Pattern = create(kind, self.dice, pattern_options(kind, options))
        self.zmtp_options = zmtp_options(kind, options)
        self.authenticator: Authenticator | None = None
        """Who may connect; set before ``bind``."""
        self.monitor: Monitor | None = None
        self.is_dirty = False
        """The switchboard has it in its list."""
        self.bytes_sent = 0
        """By datagrams, and by connections that are over."""
        self.accepted_count = 0
        self.connected_count = 0
        self.handshakes_failed = 0
        self.accepts_failed = 0
        self.datagrams_lost = 0
        self.datagrams_malformed = 0
        self.unsent_count = 0
        """Messages that closing gave up; whole ones, or 1 for what a peer took half of."""
        self.closed = Flag()
        """Set when nothing of it is left in the loop."""
        self.error: TransportError | None = None
        """A bug ended it."""
        self.reader = loop.stream_reader
        self.readable = readable
        self.writable = writable
        self._loop = loop
        self.switchboard = loop.switchboard
        self._lock = loop.switchboard.lock
        self._sink = sink
        self._stage = _Stage.OPEN
        self._is_quiet = False
        self._give_up_ns = NEVER
        self._numbers = count(1)
        self._pipes: dict[int, Pipe] = {}
        self._connections: set[Connection] = set()
        self._names: dict[int, bytes] = {}
        self._places = Places(self)
        self.ways = ShortWays(self, loop)
        """Who sends and receives without the pattern, while there is one connection."""
        self._heap: list[tuple[int, int, Timed]] = []
        self._ticket = count()
        self._stale_count = 0
        self._due_ns = NEVER  # of what waits for company, or for room in the sink
        self._unwritten = 0
        self._sent_at_ns = 0
        self._bytes_received = 0  # by connections that are over
        self._coalesce_ns = (
            0 if kind in (SocketKind.REQ, SocketKind.REP) else round(options.coalesce * 1e9)
        )
        loop.call(lambda: loop.add(self, []), self)

    # Endpoints.

    def bind(self, endpoint: UnicastEndpoint) -> str:
        """Let others connect; the real URL. Raises EndpointError, OptionError, TransportError."""
        check_security(endpoint, self.options)
        return self._change(lambda _: self._places.bind(endpoint))

    def connect(self, endpoint: UnicastEndpoint) -> str:
        """Begin to connect; nobody need be there yet. Raises EndpointError, OptionError."""
        check_security(endpoint, self.options)
        check_judge(self.authenticator, self.options)
        addresses: list[Address] = []
        if isinstance(endpoint, TcpEndpoint | IpcEndpoint):
            addresses = resolve(endpoint, self.options)  # may ask a name server: without the lock
        return self._change(lambda now_ns: self._places.connect(endpoint, addresses, now_ns))

    def release(self, url: str) -> None:
        """``unbind`` and ``disconnect``. Raises EndpointError if there is no such endpoint."""
        self._change(lambda _: self._places.release(url))

    def _change(self, act: Callable[[int], str]) -> str:
        now_ns = monotonic_ns()
        with self._lock:
            self._check_open()
            url = act(now_ns)
            self.mark()
            after = self.switchboard.settle(now_ns)
        _call(after)
        self._loop.attend()
        return url

    @property
    def endpoints(self) -> list[str]:
        """What is bound and connected."""
        return self._places.urls

    # The application's side.

    def send(self, message: Message, timeout: float | None) -> None:
        """Queue one message. Raises Again, UnroutableError, PatternError, ClosedError."""
        if self._try_send(message):
            return
        self._reload()
        if not self._try_send(message) and (
            timeout == 0 or not self.writable.wait(lambda: self._try_send(message), timeout)
        ):
            raise Again("no peer takes a message now")

    def _reload(self) -> None:
        """Write all that can be, before anybody waits or is sent away."""
        with self._lock:
            self.pattern.reload()
            after = self._write_all(monotonic_ns())
        _call(after)

    def _try_send(self, message: Message) -> bool:
        now_ns = monotonic_ns()
        after: list[Callable[[], None]] = []
        try:
            with self._lock:
                self._check_open()
                if not self._room(now_ns):
                    return False
                result = self.pattern.send(message)
                if result is SendResult.WOULD_BLOCK and self._unwritten:
                    after = self._write_all(now_ns)
                    result = self.pattern.send(message)
                if result is SendResult.SENT:
                    after += self._sent(1, now_ns)
        finally:
            _call(after)
            self._loop.attend()
        if result is SendResult.UNROUTABLE:
            raise UnroutableError("no peer has that routing id")
        self._sent_at_ns = monotonic_ns()
        return result is SendResult.SENT

    def send_many(self, batch: Sequence[Message], timeout: float | None) -> int:
        """Queue messages; how many, all of them unless time ran out."""
        taken = self._try_send_many(batch, 0)
        if taken < len(batch):
            self._reload()
        if taken < len(batch) and timeout != 0:

            def go_on() -> bool:
                nonlocal taken
                try:
                    taken = self._try_send_many(batch, taken)
                except PatternError:  # the next is one that cannot be sent, or not now
                    if not taken:
                        raise
                    return True
                return taken == len(batch)

            self.writable.wait(go_on, timeout)
        return taken

    def _try_send_many(self, batch: Sequence[Message], start: int) -> int:
        now_ns = monotonic_ns()
        begun, result = start, SendResult.SENT
        with self._lock:
            self._check_open()
            after: list[Callable[[], None]] = []
            while start < len(batch):
                room = self._room(now_ns)
                if not room:
                    break
                end = min(len(batch), start + room)
                try:
                    sent = self.pattern.send_many(
                        batch if not start and end == len(batch) else batch[start:end]
                    )
                    if not sent:
                        result = self.pattern.send(batch[start])
                        sent = int(result is SendResult.SENT)
                except Error:
                    if start == begun:
                        raise
                    break  # what was sent before is what counts
                start += sent
                after += self._write_all(now_ns)
                if not sent:
                    break
        _call(after)
        self._loop.attend()
        if result is SendResult.UNROUTABLE and start == begun:
            raise UnroutableError("no peer has that routing id")
        return start

    def _room(self, now_ns: int) -> int:
        """How many messages may go to the pattern, as far as that is not for it to say."""
        if (out := self.ways.out) is None:
            return maxsize
        if not (room := out.room):
            self.look_again(now_ns)
        return room

    def _sent(self, number: int, now_ns: int) -> list[Callable[[], None]]:
        """Write at once, unless the application is in the middle of a stream of messages."""
        self._unwritten += number
        gate = self.ways.gate
        if (gate is not None and gate.writer is not None) or self.ways.out is not None:
            return self._write_all(now_ns)  # else what goes by the gate would overtake it
        if self._unwritten < _BATCH and now_ns - self._sent_at_ns < min(
            _STREAMING_NS, self._coalesce_ns
        ):
            if self._due_ns > now_ns + self._coalesce_ns:
                self._due_ns = now_ns + self._coalesce_ns
                self._loop.wake_before(self._due_ns)
            return []
        return self._write_all(now_ns)

    def _write_all(self, now_ns: int) -> list[Callable[[], None]]:
        self._unwritten = 0
        self._due_ns = NEVER
        self.mark()
        return self.switchboard.settle(now_ns)

    def recv_many(self, limit: int, ahead: Inbox, *, fetches_ahead: bool) -> list[Message]:
        """Up to ``limit`` messages that are there. What the inbox has comes first; with
        ``fetches_ahead`` some more are put into it. Raises PatternError, ClosedError."""
        with self._lock:
            self._check_open()
            after = []
            if (inbox := self.inbox) is not None:
                taken = self._read_now(inbox, limit)
            elif not (taken := ahead.get_many(limit)):
                taken = self.pattern.recv_many(max(limit, _AHEAD) if fetches_ahead else limit)
                ahead.put(taken[limit:])  # before anything else may come into it
                del taken[limit:]
            if self.pattern.has_news or self.is_dirty:
                self.mark()
                after = self.switchboard.settle(monotonic_ns())
            if (into := self.ways.into) is not None and into.is_blocked and into.has_room:
                into.source.mark()
                after += self.switchboard.settle(monotonic_ns())
        _call(after)
        return taken

    def _read_now(self, inbox: Inbox, limit: int) -> list[Message]:
        """What waits in the inbox, or else at the connection."""
        taken = inbox.get_many(limit)
        connection = self.lone_connection
        if not taken and connection is not None:
            connection.read_some(monotonic_ns())
            taken = inbox.get_many(limit)
        return taken

    def command(self, act: Callable[[Pattern], None]) -> None:
        """Have ``act`` do something to the pattern, such as subscribe, and do what follows."""
        with self._lock:
            self._check_open()
            act(self.pattern)
            self.mark()
            after = self.switchboard.settle(monotonic_ns())
        _call(after)
        self._loop.attend()

    def subscribe(self, topic: bytes, wanted: bool) -> None:
        """SUB, and XPUB in manual mode. Raises PatternError, MessageTooLongError."""
        if wanted and len(topic) > self.options.max_topic_bytes:
            raise MessageTooLongError(
                f"topic of {len(topic)} bytes; max_topic_bytes is {self.options.max_topic_bytes}"
            )

        def act(pattern: Pattern) -> None:
            assert isinstance(pattern, Sub | Xpub)
            (pattern.subscribe if wanted else pattern.unsubscribe)(topic)

        self.command(act)

    def join(self, group: bytes, wanted: bool) -> None:
        """DISH. Raises PatternError."""

        def act(pattern: Pattern) -> None:
            assert isinstance(pattern, Dish)
            (pattern.join if wanted else pattern.leave)(group)

        self.command(act)

    def configure(self, options: SocketOptions) -> None:
        """Use these options: of the pattern at once, the others for connections from now on."""
        pattern = pattern_options(self.kind, options)
        zmtp = zmtp_options(self.kind, options, is_judged=self.authenticator is not None)
        with self._lock:
            self.pattern.configure(pattern)
            self.options, self.zmtp_options = options, zmtp
            self.mark()
            after = self.switchboard.settle(monotonic_ns())
        _call(after)

    def authenticate(self, authenticator: Authenticator | None) -> None:
        """Have it asked about each connection from now on. Raises OptionError."""
        options = zmtp_options(self.kind, self.options, is_judged=authenticator is not None)
        with self._lock:
            self.authenticator, self.zmtp_options = authenticator, options

    def watch_connections(self) -> Monitor:
        """The monitor, made at the first call."""
        with self._lock:
            self._check_open()
            if self.monitor is None:
                self.monitor = Monitor(self._loop.drive)
            return self.monitor

    @property
    def is_readable(self) -> bool:
        """True if ``recv_many`` would give something."""
        inbox = self.inbox
        if inbox is not None and len(inbox):
            return True
        if (into := self.ways.into) is not None and into.has_arrivals:
            return True
        return self.pattern.is_readable or (self._stage is not _Stage.OPEN and not self._is_quiet)

    @property
    def is_writable(self) -> bool:
        """True if ``send`` would not block."""
        if self._stage is not _Stage.OPEN and not self._is_quiet:
            return True
        out = self.ways.out
        return self.pattern.is_writable and (out is None or out.has_room)

    def stats(self) -> Snapshot:
        """All counters, as a flat dict."""
        with self._lock:
            for connection in self._connections:
                connection.note_received(monotonic_ns())
            snapshot = dict(self.pattern.counters.snapshot())
            snapshot["connections"] = sum(each.is_attached for each in self._connections)
            snapshot["bytes_received"] = self._bytes_received + sum(
                each.engine.counters.bytes_received for each in self._connections
            )
            snapshot["bytes_sent"] = self.bytes_sent + sum(
                each.writer.written_bytes for each in self._connections
            )
        if (into := self.ways.into) is not None:
            snapshot["messages_received"] += into.passed_count
        if (gate := self.ways.gate) is not None:
            snapshot["messages_taken"] += gate.sent_count
            snapshot["dropped_at_hwm"] += gate.dropped_count
        snapshot["accepted"] = self.accepted_count
        snapshot["connected"] = self.connected_count
        snapshot["handshakes_failed"] = self.handshakes_failed
        snapshot["accepts_failed"] = self.accepts_failed
        snapshot["datagrams_lost"] = self.datagrams_lost
        snapshot["datagrams_malformed"] = self.datagrams_malformed
        return snapshot

    def _check_open(self) -> None:
        if self.error is not None:
            raise TransportError(*self.error.args)
        if self._stage is not _Stage.OPEN:
            if self._is_quiet and current_thread().daemon:
                self._lock.release()
                Flag().wait()
            raise ClosedError("the socket was closed")

    # For connections, doors and dialers; under the lock.

    def mark(self) -> None:
        """Something changed in the pattern."""
        self.switchboard.mark(self)

    def next_number(self) -> int:
        """A number that no pipe of this socket has had."""
        return next(self._numbers)

    def watch(self, fd: int, mask: int, handler: Callable[[int, int], None]) -> None:
        """Have ``handler(now_ns, mask)`` called, under the lock, when ``fd`` is ready."""
        self._loop.watch(self, fd, mask, partial(self._handle_ready, handler))

    def unwatch(self, fd: int) -> None:
        """Stop doing so."""
        self._loop.unwatch(fd)

    def arm(self, target: Timed) -> None:
        """Its timer may have moved."""
        due_ns = target.next_timeout_ns
        if due_ns < target.armed_ns:
            target.armed_ns = due_ns
            heapq.heappush(self._heap, (due_ns, next(self._ticket), target))
            self._loop.wake_before(due_ns)

    def disarm(self, target: Timed) -> None:
        """It is over. What is over must not be kept until its moment comes: a peer may set it."""
        if target.armed_ns == NEVER:
            return
        target.armed_ns = NEVER
        self._stale_count += 1
        if self._stale_count > _STALE_LIMIT + len(self._heap) // 2:
            self._stale_count = 0
            self._heap = [entry for entry in self._heap if entry[2].armed_ns == entry[0]]
            heapq.heapify(self._heap)

    def adopt(self, pipe: Pipe) -> None:
        """One more."""
        self._pipes[pipe.number] = pipe

    def reserve(self) -> int:
        """A number for a connection to come, known to the pattern."""
        number = self.next_number()
        name = self.options.connect_routing_id
        self.pattern.attach(number, None, routing_id=name)
        if not self.pattern.has_pipe(number):
            raise PatternError("a PAIR has one peer, and has it already")
        if name:
            self._names[number] = name
            self.options = self.options.with_changes({"connect_routing_id": b""})
        return number

    def came(self, connection: Connection) -> None:
        """A connection stands; its handshake begins."""
        if not connection.is_over:
            self._connections.add(connection)

    def attached(self, connection: Connection) -> None:
        """Its handshake is over."""
        self._pipes[connection.number] = connection

    def over(self, connection: Connection) -> None:
        """It was given back."""
        self._bytes_received += connection.engine.counters.bytes_received
        self.bytes_sent += connection.writer.written_bytes
        self._connections.discard(connection)

    @property
    def lone_end(self) -> InprocEnd | None:
        """The only pipe, if it leads to another socket of this context."""
        if len(self._pipes) != 1:
            return None
        pipe = next(iter(self._pipes.values()))
        return pipe if isinstance(pipe, InprocEnd) else None

    @property
    def lone_connection(self) -> Connection | None:
        """The connection of the only pipe, if it stands."""
        if len(self._pipes) != 1:
            return None
        for pipe in self._pipes.values():
            if isinstance(pipe, Connection) and pipe.is_attached and not pipe.is_over:
                return pipe
        return None

    @property
    def inbox(self) -> Inbox | None:
        """Where messages go without the pattern; None while they do not."""
        return self.ways.inbox

    def allow_reading(self, allowed: bool) -> None:
        """Whether messages may go to the inbox without the pattern, as nothing else puts any."""
        with self._lock:
            self.ways.may_read = allowed
            self.mark()
            after = self.switchboard.settle(monotonic_ns())
        _call(after)

    def make_gate(self, slow: Callable[..., None], slow_many: Callable[..., int]) -> StreamGate:
        """A short way for plain messages; else it calls ``slow`` or ``slow_many``."""
        options = self.options
        is_threaded = self._loop.drive is None
        is_pub = self.kind is SocketKind.PUB
        return StreamGate(
            max_message_bytes=options.max_msg_size,
            message_limit=options.sndhwm,
            coalesce_ns=self._coalesce_ns,
            blocks=is_threaded and not is_pub,
            drops=is_pub,
            baton=self._loop.baton,
            attended=is_threaded,
            failed=self.write_error,
            slow=slow,
            slow_many=slow_many,
        )

    def gate_of(self, connection: Connection) -> StreamGate | None:
        """The gate, if it leads to this peer."""
        gate = self.ways.gate
        return gate if gate is not None and gate.writer is connection.writer else None

    def close_ways(self, connection: Connection) -> None:
        """A connection is over; before its descriptor is."""
        if self.ways.connection is connection:
            self.ways.leave(monotonic_ns())

    def look_again(self, now_ns: int) -> None:
        """Settle in a while, since nobody tells when there is room."""
        self._due_ns = min(self._due_ns, now_ns + _DRAIN_IVL_NS)
        self._loop.wake_before(self._due_ns)

    def write_error(self) -> None:
        """The system refused what the gate wrote. Without the lock, by whoever sent."""
        self._loop.call(self._meet_error, self)

    def _meet_error(self) -> None:
        now_ns = monotonic_ns()
        with self._lock:
            connection = self.lone_connection
            if connection is not None:
                connection.flush(now_ns)
            self.mark()
            after = self.switchboard.settle(now_ns)
        _call(after)

    def settled(self) -> int:
        """Do what follows of what a waiting thread came upon. Without the lock."""
        with self._lock:
            after = self.switchboard.settle(monotonic_ns())
        _call(after)
        return NEVER  # the loop has the timers

    def gone(self, number: int) -> None:
        """A connection is over for good."""
        self._pipes.pop(number, None)
        self._names.pop(number, None)
        self.pattern.detach(number)
        self.mark()

    def left(self, end: InprocEnd) -> None:
        """A connection within the context is over."""
        self._places.drop(end)
        self.gone(end.number)

    def suspended(self, dialer: Dialer) -> None:
        """A connection broke, and is to come back."""
        self._pipes[dialer.number] = dialer
        self.pattern.suspend(dialer.number)
        self.mark()

    def name_for(self, number: int) -> bytes:
        """This ROUTER's own name for the peer, if it has one."""
        return self._names.get(number, b"")

    def report(
        self, kind: MonitorKind, endpoint: str, address: str = "", text: str = "", value: int = 0
    ) -> None:
        """Tell the monitor, if there is one."""
        if self.monitor is not None:
            self.monitor.put(MonitorEvent(kind, endpoint, address, text, value))

    def warn(self, text: str) -> None:
        """Tell the log."""
        # Not here, under the lock: a handler may publish what it logs.
        self._loop.call(lambda: _log.warning("%s %s", self.kind, text))

    def ask(self, connection: Connection, asked: AuthNeeded) -> None:
        """Have the authenticator asked about a connection, in the loop's thread, without the lock:
        it is the application's, and may use its sockets."""

        def judge() -> None:
            tell = verdict(self.authenticator, asked)
            now_ns = monotonic_ns()
            with self._lock:
                connection.handle_verdict(lambda engine: tell(engine, now_ns), now_ns)
                self.mark()
                after = self.switchboard.settle(now_ns)
            _call(after)

        self._loop.call(judge, self)

    @property
    def is_closing(self) -> bool:
        """True once the application has closed the socket."""
        return self._stage is not _Stage.OPEN

    # The pattern's will.

    def settle(self, now_ns: int) -> None:
        """Do what the pattern says, until it has nothing more to say. Under the lock."""
        pattern, pipes = self.pattern, self._pipes
        while True:
            if self._sink is not None:
                self._drain(now_ns)
            if not pattern.has_news:
                break
            for refused in pattern.take_events():
                pipe = pipes.get(refused.pipe)
                if pipe is not None and refused.reason.closes:
                    pipe.refuse(_REFUSALS[refused.reason], now_ns)
            for number in pattern.take_resumed():
                if number in pipes:
                    pipes[number].resume(now_ns)
            loaded = pattern.take_loaded()
            try:
                while loaded:
                    if loaded[-1] in pipes:
                        pipes[loaded[-1]].flush(now_ns)
                    loaded.pop()
            finally:
                if loaded:  # a signal handler raised: nobody else would come by
                    pattern.put_back(loaded)
        self.ways.settle(now_ns)

    def _drain(self, now_ns: int) -> None:
        """Hand a SUB's messages to its queue, as far as there is room."""
        sink = self._sink
        assert sink is not None
        if self.options.conflate and self.pattern.is_readable:
            newest = self.pattern.recv_many(1)
            sink.inbox.clear()
            sink.inbox.put(newest)
        room = sink.hwm - len(sink)
        if room > 0 and self.pattern.is_readable:
            sink.inbox.put(self.pattern.recv_many(room))
        if self.pattern.is_readable:
            self._due_ns = min(self._due_ns, now_ns + _DRAIN_IVL_NS)
            self._loop.wake_before(self._due_ns)

    def notify(self) -> None:
        """Wake whoever may go on. Without the lock."""
        if self._sink is not None:
            self._sink.waiters.wake()
        elif self.readable.has_waiters or self.readable.has_descriptor:
            if self.is_readable:
                self.readable.wake()
            else:
                self.readable.refresh()
        if self.writable.has_waiters or self.writable.has_descriptor:
            if self.is_writable:
                self.writable.wake()
            else:
                self.writable.refresh()

    # The loop's side.

    @property
    def next_timeout_ns(self) -> int:
        """When ``handle_timeout`` has something to do."""
        heap = self._heap
        try:
            due_ns = heap[0][0]
        except IndexError:
            due_ns = NEVER
        return min(due_ns, self._due_ns, self._give_up_ns, self.ways.due_ns)

    @property
    def next_alarm_ns(self) -> int:
        """The same, but for what the baton attends to."""
        due_ns = self._heap[0][0] if self._heap else NEVER
        return min(due_ns, self._due_ns, self._give_up_ns, self.ways.alarm_ns)

    @property
    def gives_up_ns(self) -> int:
        """When a closing socket is over at the latest; 2^62 while it is open."""
        return self._give_up_ns

    def handle_timeout(self, now_ns: int) -> None:
        """Serve what is due. Loop thread."""
        with self._lock:
            if self.ways.due_ns <= now_ns:
                self.ways.write(now_ns)
            if self._due_ns <= now_ns:
                self._due_ns = NEVER
                self._unwritten = 0
                self.mark()
            heap = self._heap
            while heap and heap[0][0] <= now_ns:
                due_ns, _, target = heapq.heappop(heap)
                if target.armed_ns != due_ns:
                    continue  # it was armed for an earlier moment since, and served
                target.armed_ns = NEVER
                if target.next_timeout_ns <= now_ns:
                    target.handle_timeout(now_ns)
                self.arm(target)
            after = self.switchboard.settle(now_ns)
            if self._stage is _Stage.CLOSING:
                self._proceed(now_ns)
                after += self.switchboard.settle(now_ns)
        _call(after)

    def _handle_ready(self, handler: Callable[[int, int], None], now_ns: int, mask: int) -> None:
        """A descriptor is ready. Loop thread."""
        with self._lock:
            if self._stage is _Stage.CLOSED:
                return
            handler(now_ns, mask)
            after = self.switchboard.settle(now_ns)
            if self._stage is _Stage.CLOSING:
                self._proceed(now_ns)
                after += self.switchboard.settle(now_ns)
        _call(after)

    def handle_readable(self, now_ns: int, fd: int, reader: object) -> None:
        """Never called: its descriptors have handlers of their own."""

    def handle_writable(self) -> None:
        """Never called."""

    # The end.

    def close(self, linger: float, *, quietly: bool = False) -> None:
        """Accept nothing more; the loop ends it when all is written, or after ``linger`` seconds.

        ``quietly``, as the interpreter exits: nobody is woken, and daemon threads stop where they
        are instead of dying with an error that nobody wants to see.

        Addresses are free for others at once, unless the lock is: a signal handler or a finalizer
        may call this in the thread that holds it. Then the loop frees them.
        """
        if self._lock.acquire(timeout=_ADDRESS_WAIT_S):
            try:
                self._places.stop_listening()
            finally:
                self._lock.release()
        give_up_ns = monotonic_ns() + (round(linger * 1e9) if self.kind in _LINGERS else 0)
        self._is_quiet = quietly
        self._loop.call(lambda: self._begin_closing(give_up_ns), self)

    def _begin_closing(self, give_up_ns: int) -> None:
        now_ns = monotonic_ns()
        with self._lock:
            if self._stage is not _Stage.OPEN:
                return
            self._stage = _Stage.CLOSING
            self._give_up_ns = give_up_ns
            self._places.shut()
            self.mark()
            after = self.switchboard.settle(now_ns)
            self._proceed(now_ns)
            after += self.switchboard.settle(now_ns)
        _call(after)
        self.readable.wake()
        self.writable.wake()

    def _proceed(self, now_ns: int) -> None:
        """One step towards the end. Loop thread, under the lock."""
        over = now_ns >= self._give_up_ns
        waits = False
        for pipe in list(self._pipes.values()):
            if over:
                continue
            if not pipe.is_drained:
                waits = True
            elif isinstance(pipe, Connection):
                pipe.leave(now_ns)
                waits = waits or not pipe.is_over
            else:
                pipe.hang_up()
        if not waits:
            left = [pipe for pipe in self._pipes.values() if not pipe.is_drained] if over else []
            if left:
                # What a writer has begun is no message of the pattern any more.
                queued = sum(self.pattern.queued_for(pipe.number) for pipe in left)
                self.unsent_count = max(1, queued)
                self.warn(f"closed with messages unsent: {self.unsent_count:,}; its linger ran out")
            self._finish()

    def _finish(self) -> None:
        """Give everything back. Loop thread, under the lock."""
        self._stage = _Stage.CLOSED
        for pipe in list(self._pipes.values()):
            pipe.hang_up()
        for connection in list(self._connections):
            connection.hang_up()
        self._places.hang_up()
        self._pipes.clear()
        self._heap.clear()
        self._loop.remove(self)
        if self.monitor is not None:
            self.monitor.close()
        self.closed.set()

    def fail(self, error: Exception) -> None:
        """A bug in here: end it, and let nobody wait for it. Loop thread."""
        self.error = TransportError(f"a {self.kind} socket failed: {error!r}; make a new one")
        with self._lock:
            self._finish()
        if self._sink is not None:
            self._sink.fail(self.error)
        self.readable.wake()
        self.writable.wake()

    def abandon(self) -> None:
        """In a forked child: close the descriptors, take no lock."""
        self._stage = _Stage.CLOSED
        self._places.forget()
        if self.monitor is not None:
            self.monitor.is_closed = True
        for connection in list(self._connections):
            connection.forget()


def _call(after: list[Callable[[], None]]) -> None:
    for notify in after:
        notify()


_REFUSALS: Final = {
    Refusal.INCOMPATIBLE: "the two socket types do not talk to each other",
    Refusal.SECOND_PEER: "a PAIR has one peer, and has it already",
    Refusal.MALFORMED: "it sent what its socket type never sends",
    Refusal.DUPLICATE_ROUTING_ID: "another peer has its routing id",
    Refusal.HANDED_OVER: "a newcomer took over its routing id",
    Refusal.TOO_MANY_SUBSCRIPTIONS: "it subscribed to more than one peer may",
    Refusal.UNREAD_CHANGES: "it does not read the subscriptions it is told of",
}
