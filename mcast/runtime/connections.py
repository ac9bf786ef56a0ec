"""Connections by TCP and Unix sockets: the ZMTP engine of each, its bytes in and out, its life.

Owns the sockets. Invariants: all of it happens under the switchboard's lock; what the system does
not take now is kept and goes first next time; a connection whose socket the pattern does not want
to read from is not read, so that the peer is held up by TCP; one that breaks is over at once, and
its dialer tries again.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mcast.kernel import FrameError, FrameScanner, Stop, StreamIntake, StreamWriter
from mcast.monitor import MonitorKind
from mcast.net.stream import (
    Address,
    StreamListener,
    StreamSocket,
    finish_connect,
    open_stream,
    peer_name,
    say_goodbye,
    tune,
)
from mcast.patterns import PeerInfo
from mcast.runtime.pipes import NEVER
from mcast.unicast import IpcEndpoint, TcpEndpoint
from mcast.zmtp import (
    AuthNeeded,
    Cancelled,
    Failed,
    FailureReason,
    Messages,
    Ready,
    Subscribed,
    ZmtpEngine,
)

if TYPE_CHECKING:
    from threading import Lock

    from mcast.kernel import Baton, Inbox, TopicFilter
    from mcast.runtime.loop import LoopDriver
    from mcast.runtime.peers import Peers

__all__ = ["Connection", "Dialer", "Door"]

_BYTES_PER_TURN: Final = 1 << 20
"""Bytes of one connection after which others get their turn."""
_MESSAGES_PER_WRITE: Final = 256
_ACCEPTS_PER_TURN: Final = 64
_REST_NS: Final = 100_000_000
"""How long a listener rests when a connection could not be accepted."""
_SLOW_RETRY_NS: Final = 1_000_000_000
"""Least wait after a peer broke the protocol: it will most likely do so again."""
_GOODBYE_NS: Final = 250_000_000
"""After the last byte, how long a closing connection waits for the peer to close, too. To close
with unread data in the buffer would make the system throw away what is still on its way."""
_FOR_GOOD: Final = frozenset({FailureReason.REFUSED_BY_PEER})
"""After these a dialer does not come back (RFC 37, ERROR)."""
_PASSING: Final = frozenset(
    {
        FailureReason.PEER_CLOSED,
        FailureReason.HANDSHAKE_TIMEOUT,
        FailureReason.HEARTBEAT_TIMEOUT,
        FailureReason.TTL_EXPIRED,
    }
)
"""After these it comes back as soon as it may."""


class Connection:
    """One connection that stands, from its greeting to its end."""

    def __init__(
        self,
        peers: Peers,
        opened: StreamSocket,
        number: int,
        endpoint: str,
        *,
        ended: Callable[[Connection, Failed, int], None],
        now_ns: int,
    ) -> None:
        self.number = number
        self.endpoint = endpoint
        self.address = peer_name(opened)
        self.armed_ns = NEVER
        self._peers = peers
        self._ended = ended
        self._socket = opened
        self._fd = opened.fileno()
        self.writer = StreamWriter(self._fd)
        """What is on its way."""
        self.intake: StreamIntake | None = None
        """Who reads instead of the engine, while the pattern has nothing to do with messages."""
        self.topics_version = 0
        """Changes when the peer's subscriptions have."""
        self._scanner: FrameScanner | None = None  # that the intake uses
        self._noted_bytes = self._noted_messages = 0  # of it, the engine has heard of
        self._filtered_count = 0  # of it, before
        self._mask = 0
        self.is_paused = False
        """The application has enough for now."""
        self._is_leaving = False
        self._leave_ns = NEVER
        self.is_attached = False
        """The pattern knows it."""
        self.is_over = False
        """It was given back."""
        self.engine = ZmtpEngine(
            peers.zmtp_options, dice=os.urandom, now_ns=now_ns, address=self.address
        )
        self._watch()
        self.flush(now_ns)
        peers.arm(self)

    # Timers.

    @property
    def next_timeout_ns(self) -> int:
        """When ``handle_timeout`` has something to do."""
        return NEVER if self.is_over else min(self.engine.next_timeout_ns, self._leave_ns)

    def handle_timeout(self, now_ns: int) -> None:
        """Heartbeats, an overdue handshake, the end of a goodbye."""
        if now_ns >= self._leave_ns:
            self.hang_up()
            return
        self.note_received(now_ns)
        if self.is_paused and self.engine.is_ready:
            self._read(now_ns, 1)  # whoever is not read from must not count as silent
        if not self.is_over:
            self.engine.handle_timeout(now_ns)
            self._take_events(now_ns)
        if not self.is_over:
            self.flush(now_ns)

    # Bytes.

    def handle_ready(self, now_ns: int, mask: int) -> None:
        """The socket can be read or written. Loop thread."""
        if self.is_over:
            return
        if mask & select.EPOLLOUT:
            self.flush(now_ns)
        if mask & ~select.EPOLLOUT and not self.is_over:
            self._read(now_ns, _BYTES_PER_TURN)

    def _read(self, now_ns: int, budget: int) -> None:
        if self.intake is not None:
            self._read_short(self.intake, now_ns, budget)
            return
        reader = self._peers.reader
        while budget > 0 and not self.is_over:
            size = reader.read(self._fd)
            if size == -errno.EAGAIN or size == -errno.EINTR:
                break
            if size < 0:
                self._fail(f"the connection broke: {os.strerror(-size)}", now_ns)
                return
            if not size:
                if self._is_leaving:
                    self.hang_up()
                    return
                self.engine.handle_eof()
                self._take_events(now_ns)
                return
            if not self._is_leaving:
                self.engine.handle_bytes(reader.data[:size], now_ns)
                self._take_events(now_ns)
            budget -= size
            if self.is_paused or size < len(reader.data):
                break
        if not self.is_over:
            self.flush(now_ns)
            self._peers.arm(self)

    def _read_short(self, intake: StreamIntake, now_ns: int, budget: int) -> None:
        """Into the inbox; the loop does what a waiting thread does by the intake."""
        inbox = self._peers.inbox
        assert inbox is not None
        while budget > 0 and not self.is_over and self.intake is intake:
            if len(inbox) >= inbox.limit and budget > 1:
                self.is_paused = True
                self._mask = -1  # whoever waited may have changed what is watched for
                break
            self.is_paused = False
            stop = intake.read()
            if stop is not None:
                self.handle_stop(now_ns, stop)
            elif not intake.size_bytes:
                break
            budget -= intake.size_bytes or 1
        self._peers.mark()
        if not self.is_over:
            self.flush(now_ns)
            self._peers.arm(self)

    def handle_stop(self, now_ns: int, stop: Stop) -> None:
        """What an intake came upon that is no message. Under the lock."""
        self.note_received(now_ns)
        if isinstance(stop, bytes | FrameError):
            self.engine.handle_stop(stop, now_ns)
        elif stop == 0:
            if self._is_leaving:
                self.hang_up()
                return
            self.engine.handle_eof()
        elif stop is not None and stop != -errno.EINTR:
            self._fail(f"the connection broke: {os.strerror(-stop)}", now_ns)
            return
        self._peers.mark()
        self._take_events(now_ns)
        if not self.is_over:
            self.flush(now_ns)

    def flush(self, now_ns: int) -> None:
        """Write what the engine and the pattern have, as far as the system takes it."""
        peers, engine, writer = self._peers, self.engine, self.writer
        while not self.is_over:
            if writer.size_bytes:
                if not self._write(now_ns):
                    break
                continue
            transmits = engine.take_transmits()
            if transmits:
                writer.put(transmits)
                continue
            if not self.is_attached or self._is_leaving:
                break
            changes = peers.pattern.take_subscriptions(self.number)
            for wanted, topic in changes:
                (engine.subscribe if wanted else engine.cancel)(topic)
            batch = peers.pattern.take_outgoing(self.number, _MESSAGES_PER_WRITE)
            if batch:
                engine.send(batch)
            elif not changes:
                break
        gate = peers.gate_of(self)
        if gate is not None and not gate.is_open:
            peers.mark()  # it may be opened now
        self._watch()

    def _write(self, now_ns: int) -> bool:
        """True if the system took everything."""
        gate = self._peers.gate_of(self)
        code = self.writer.write() if gate is None else gate.flush()
        if code and code not in (errno.EAGAIN, errno.ENOBUFS, errno.EINTR):
            self.writer.clear()
            self._read_last(now_ns)
            if not self.is_over:
                self._fail(f"the connection broke: {os.strerror(code)}", now_ns)
        return not code

    def _read_last(self, now_ns: int) -> None:
        """What the peer said before it left."""
        if self.intake is not None:
            self._read_short(self.intake, now_ns, _BYTES_PER_TURN)
            return
        reader = self._peers.reader
        for _ in range(_BYTES_PER_TURN // len(reader.data)):
            size = reader.read(self._fd)
            if size <= 0 or self.is_over:
                return
            self.engine.handle_bytes(reader.data[:size], now_ns)
            self._take_events(now_ns)

    def _watch(self) -> None:
        if self.is_over:
            return
        mask = 0 if self.is_paused and not self._is_leaving else select.EPOLLIN
        if self.writer.size_bytes:
            mask |= select.EPOLLOUT
        if mask != self._mask:
            self._mask = mask
            if self.intake is None or not self.intake.watch(mask):
                self._peers.watch(self._fd, mask, self.handle_ready)

    # What the engine says.

    def _take_events(self, now_ns: int) -> None:
        peers, pattern = self._peers, self._peers.pattern
        for event in self.engine.take_events():
            if isinstance(event, Messages):
                pattern.handle_messages(self.number, event.messages)
                peers.mark()
            elif isinstance(event, Subscribed):
                self.topics_version += 1
                pattern.handle_subscriptions(self.number, [(True, t) for t in event.topics])
                peers.mark()
            elif isinstance(event, Cancelled):
                self.topics_version += 1
                pattern.handle_subscriptions(self.number, [(False, t) for t in event.topics])
                peers.mark()
            elif isinstance(event, AuthNeeded):
                peers.answer(self.engine, event, now_ns)
                self._take_events(now_ns)
            elif isinstance(event, Ready):
                self._greet(event)
            else:
                self._end(event, now_ns)
            if self.is_over:
                return
        if (
            self.is_attached
            and not self.is_paused
            and self.intake is None
            and not pattern.room_for(self.number)
        ):
            self.is_paused = True
            self._watch()

    # The short ways.

    @property
    def is_clear(self) -> bool:
        """True if a frame may follow what is in the writer, and nothing has to come before it."""
        return (
            self.is_attached
            and not self._is_leaving
            and self.engine.is_plain
            and not self.engine.has_transmits
        )

    def open_intake(
        self,
        scanner: FrameScanner,
        inbox: Inbox,
        baton: Baton,
        settled: Callable[[], int],
        share: Callable[[], None],
        lock: Lock,
        driver: LoopDriver | None,
    ) -> bool:
        """Have messages go straight to the inbox; False if there is no way to. Under the lock."""
        intake = StreamIntake(
            self._fd,
            scanner,
            inbox,
            lock=lock,
            baton=baton,
            rest=self.handle_stop,
            settled=settled,
            share=share,
            driver=driver,
        )
        # The loop thread looks at every event; which there are the intake says.
        self._peers.watch(self._fd, select.EPOLLIN | select.EPOLLOUT, self.handle_ready)
        if not intake.watch(max(self._mask, 0)):
            self._peers.watch(self._fd, self._mask, self.handle_ready)
            intake.close()
            return False
        self.intake, self._scanner = intake, scanner
        self._noted_bytes, self._noted_messages = 0, scanner.message_count
        self._filtered_count = scanner.filtered_count
        return True

    def filter_arrivals(self, topic_filter: TopicFilter | None) -> None:
        """Only what passes is for the application."""
        assert self._scanner is not None
        if self._scanner.topic_filter is not topic_filter:
            self._scanner.topic_filter = topic_filter

    def close_intake(self, now_ns: int) -> None:
        """Have the engine read again."""
        intake, scanner = self.intake, self._scanner
        assert intake is not None
        assert scanner is not None
        intake.settle()
        self.note_received(now_ns)
        intake.close()
        self.intake = self._scanner = None
        scanner.topic_filter = None
        if not self.is_over:
            self.is_paused = False
            self._mask = -1
            self._watch()

    def note_received(self, now_ns: int) -> None:
        """Tell the engine, and the counters, what came by the intake."""
        intake, scanner = self.intake, self._scanner
        if intake is None or scanner is None:
            return
        filtered = scanner.filtered_count - self._filtered_count
        arrived = scanner.message_count - self._noted_messages + filtered
        self.engine.handle_received(intake.received_bytes - self._noted_bytes, arrived, now_ns)
        self._noted_bytes = intake.received_bytes
        self._noted_messages = scanner.message_count
        self._filtered_count = scanner.filtered_count
        self._peers.pattern.counters.messages_received += arrived
        self._peers.pattern.counters.filtered += filtered

    def _greet(self, ready: Ready) -> None:
        peers = self._peers
        peers.report(MonitorKind.HANDSHAKE_SUCCEEDED, self.endpoint, self.address, ready.user_id)
        self.is_attached = True
        peers.attached(self)
        peers.pattern.attach(
            self.number,
            PeerInfo(ready.socket_type, ready.identity),
            routing_id=peers.name_for(self.number),
        )
        peers.mark()

    # The pattern's side.

    def resume(self, now_ns: int) -> None:  # noqa: ARG002
        """Read again."""
        if self.is_paused and not self.is_over:
            self.is_paused = False
            self._watch()  # what has come meanwhile makes it readable at once

    def refuse(self, text: str, now_ns: int) -> None:
        """The pattern will not deal with this peer."""
        self.is_attached = False  # it has detached the pipe itself
        self._end(Failed(FailureReason.UNEXPECTED, text), now_ns)

    @property
    def is_drained(self) -> bool:
        """True if nothing that was sent is left on this side."""
        return self.is_over or not (
            self.writer.size_bytes
            or (self.is_attached and self._peers.pattern.queued_for(self.number))
        )

    def leave(self, now_ns: int) -> None:
        """Everything is written: say goodbye, and go when the peer has, too."""
        if self._is_leaving or self.is_over:
            return
        if not self.is_attached:
            self.hang_up()
            return
        self._is_leaving = True
        if not say_goodbye(self._socket):
            self.hang_up()
            return
        self._leave_ns = now_ns + _GOODBYE_NS
        self._watch()
        self._peers.arm(self)

    # The end.

    def _fail(self, text: str, now_ns: int) -> None:
        self._end(Failed(FailureReason.PEER_CLOSED, text), now_ns)

    def _end(self, failed: Failed, now_ns: int) -> None:
        if self.is_over:
            return
        last_words = self.engine.take_transmits()
        if last_words:
            self.writer.put(last_words)
            self.writer.write()
        was_ready = self.is_attached or self.engine.is_ready
        self.hang_up()
        kind = MonitorKind.DISCONNECTED if was_ready else MonitorKind.HANDSHAKE_FAILED
        if not was_ready:
            self._peers.handshakes_failed += 1
        self._peers.report(kind, self.endpoint, self.address, failed.text, failed.status)
        self._ended(self, failed, now_ns)

    def hang_up(self) -> None:
        """Give the socket back, at once and without a word."""
        if self.is_over:
            return
        self.is_over = True
        self._peers.close_ways(self)
        self.engine.close()
        self._peers.unwatch(self._fd)
        self._peers.over(self)
        self.writer.clear()
        self._socket.close()

    def forget(self) -> None:
        """In a forked child: close the descriptor only."""
        self.is_over = True
        self._socket.close()


class Door:
    """A listener: whoever comes in gets a connection."""

    def __init__(self, peers: Peers, endpoint: TcpEndpoint | IpcEndpoint) -> None:
        """Raises TransportError or EndpointError."""
        self._peers = peers
        self._listener = StreamListener(endpoint, peers.options)
        self.endpoint = str(self._listener.endpoint)
        """Where it really listens."""
        self._inside: dict[int, Connection] = {}
        self._wake_ns = NEVER
        self.armed_ns = NEVER
        self.is_over = False
        """It is closed."""
        peers.watch(self._listener.fileno(), select.EPOLLIN, self.handle_ready)
        peers.report(MonitorKind.LISTENING, self.endpoint)

    @property
    def next_timeout_ns(self) -> int:
        """When to listen again."""
        return NEVER if self.is_over else self._wake_ns

    def handle_timeout(self, now_ns: int) -> None:  # noqa: ARG002
        """Listen again."""
        self._wake_ns = NEVER
        if not self.is_over:
            self._peers.watch(self._listener.fileno(), select.EPOLLIN, self.handle_ready)

    def handle_ready(self, now_ns: int, mask: int) -> None:  # noqa: ARG002
        """Somebody wants in. Loop thread."""
        peers = self._peers
        for _ in range(_ACCEPTS_PER_TURN):
            if self.is_over:
                return
            try:
                accepted = self._listener.accept()
            except OSError as error:
                peers.accepts_failed += 1
                peers.report(MonitorKind.ACCEPT_FAILED, self.endpoint, text=error.strerror or "")
                # Most likely out of descriptors: to look again at once would be a busy loop.
                self._wake_ns = now_ns + _REST_NS
                peers.watch(self._listener.fileno(), 0, self.handle_ready)
                peers.arm(self)
                return
            if accepted is None:
                return
            if len(self._inside) >= peers.options.max_connections:
                accepted.close()
                peers.accepts_failed += 1
                peers.report(MonitorKind.ACCEPT_FAILED, self.endpoint, text="max_connections")
                continue
            try:
                tune(accepted, peers.options)
            except OSError:
                accepted.close()  # it has gone again
                continue
            peers.accepted_count += 1
            peers.report(MonitorKind.ACCEPTED, self.endpoint, peer_name(accepted))
            number = peers.next_number()
            self._inside[number] = Connection(
                peers, accepted, number, self.endpoint, ended=self._ended, now_ns=now_ns
            )
            peers.came(self._inside[number])

    def _ended(self, connection: Connection, failed: Failed, now_ns: int) -> None:  # noqa: ARG002
        self._inside.pop(connection.number, None)
        self._peers.gone(connection.number)

    def close(self) -> None:
        """Let nobody in any more. Those who are in stay."""
        if not self.is_over:
            self.is_over = True
            self._peers.unwatch(self._listener.fileno())
            self._listener.close()
            self._peers.report(MonitorKind.CLOSED, self.endpoint)

    def forget(self) -> None:
        """In a forked child: close the descriptor only."""
        self.is_over = True
        self._listener.forget()

    @property
    def connections(self) -> list[Connection]:
        """Those who are in."""
        return list(self._inside.values())


class Dialer:
    """Makes one connection, and makes it again when it breaks; the pattern's pipe stays."""

    def __init__(
        self,
        peers: Peers,
        endpoint: TcpEndpoint | IpcEndpoint,
        addresses: list[Address],
        number: int,
        now_ns: int,
    ) -> None:
        self.endpoint = str(endpoint)
        self.number = number
        self.armed_ns = NEVER
        self.is_over = False
        """It does not try any more."""
        self._peers = peers
        self._where = endpoint
        self._addresses = addresses
        self._next_address = 0
        self._attempt: StreamSocket | None = None
        self._due_ns = now_ns
        self._ivl_ns = _first_ivl_ns(peers)
        self.connection: Connection | None = None
        """The one that stands."""
        self._try(now_ns)

    # Trying.

    @property
    def next_timeout_ns(self) -> int:
        """When to try again, or to give an attempt up."""
        return NEVER if self.is_over else self._due_ns

    def handle_timeout(self, now_ns: int) -> None:
        """Try, or give the attempt up."""
        if self._attempt is not None:
            self._give_up("no answer within connect_timeout", now_ns)
        elif self.connection is None and not self.is_over:
            self._try(now_ns)

    def _try(self, now_ns: int) -> None:
        peers = self._peers
        address = self._addresses[self._next_address % len(self._addresses)]
        self._next_address += 1
        timeout_ns = round(peers.options.connect_timeout * 1e9)
        self._due_ns = now_ns + timeout_ns if timeout_ns else NEVER
        try:
            self._attempt = open_stream(self._where, address, peers.options)
        except OSError as error:
            self._give_up(error.strerror or str(error), now_ns)
            return
        peers.report(MonitorKind.CONNECT_DELAYED, self.endpoint)
        peers.watch(self._attempt.fileno(), select.EPOLLOUT, self._handle_ready)
        peers.arm(self)

    def _handle_ready(self, now_ns: int, mask: int) -> None:  # noqa: ARG002
        opened, peers = self._attempt, self._peers
        if opened is None:
            return
        try:
            finish_connect(opened)
        except OSError as error:
            self._give_up(error.strerror or str(error), now_ns)
            return
        self._attempt = None
        self._due_ns = NEVER
        peers.unwatch(opened.fileno())
        peers.connected_count += 1
        peers.report(MonitorKind.CONNECTED, self.endpoint, peer_name(opened))
        self.connection = Connection(
            peers, opened, self.number, self.endpoint, ended=self._ended, now_ns=now_ns
        )
        if self.connection.is_over:
            self.connection = None
        else:
            peers.came(self.connection)

    def _give_up(self, text: str, now_ns: int) -> None:
        self._drop_attempt()
        self._peers.report(MonitorKind.CLOSED, self.endpoint, text=text)
        self._retry(now_ns, 0)

    def _drop_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._peers.unwatch(attempt.fileno())
            attempt.close()

    def _ended(self, connection: Connection, failed: Failed, now_ns: int) -> None:
        self.connection = None
        peers = self._peers
        was_up = connection.is_attached
        if was_up:
            self._ivl_ns = _first_ivl_ns(peers)
        if failed.reason in _FOR_GOOD or peers.is_closing:
            if failed.reason in _FOR_GOOD:
                peers.warn(f"{self.endpoint} will not be tried again: {failed.text}")
            self.is_over = True
            peers.gone(self.number)
            return
        peers.suspended(self)
        self._retry(now_ns, 0 if failed.reason in _PASSING else _SLOW_RETRY_NS)

    def _retry(self, now_ns: int, least_ns: int) -> None:
        peers, options = self._peers, self._peers.options
        if options.reconnect_ivl is None:
            self.is_over = True
            peers.gone(self.number)
            return
        wait_ns = max(self._ivl_ns + int(peers.dice.random() * self._ivl_ns), least_ns)
        longest_ns = round(options.reconnect_ivl_max * 1e9)
        if longest_ns > self._ivl_ns:
            self._ivl_ns = min(2 * self._ivl_ns, longest_ns)
        self._due_ns = now_ns + wait_ns
        peers.report(MonitorKind.CONNECT_RETRIED, self.endpoint, value=wait_ns // 1_000_000)
        peers.arm(self)

    # As a pipe, while there is no connection.

    def flush(self, now_ns: int) -> None:
        """Nothing can leave."""

    def resume(self, now_ns: int) -> None:
        """Nothing comes."""

    def refuse(self, text: str, now_ns: int) -> None:  # noqa: ARG002
        """The pattern has no place for this connection, not even one to come."""
        self._peers.warn(f"{self.endpoint} is not connected: {text}")
        self.hang_up()

    @property
    def is_drained(self) -> bool:
        """True if nothing waits for the connection to come."""
        return self.is_over or not self._peers.pattern.queued_for(self.number)

    def hang_up(self) -> None:
        """Stop trying, and end what stands."""
        self.is_over = True
        self._drop_attempt()
        if self.connection is not None:
            self.connection.hang_up()
            self.connection = None

    def forget(self) -> None:
        """In a forked child: close the descriptors only."""
        self.is_over = True
        if self._attempt is not None:
            self._attempt.close()
        if self.connection is not None:
            self.connection.forget()


def _first_ivl_ns(peers: Peers) -> int:
    return round((peers.options.reconnect_ivl or 0) * 1e9)
