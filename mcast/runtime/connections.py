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

from mcast.errors import PatternError
from mcast.kernel import FrameError, FrameScanner, Stop, StreamIntake, StreamWriter
from mcast.monitor import MonitorKind
from mcast.net.stream import (
    StreamSocket,
    has_unread,
    peer_name,
    say_goodbye,
    unsent_bytes,
)
from mcast.patterns import PeerInfo
from mcast.runtime.pipes import NEVER
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

__all__ = ["Connection"]

_BYTES_PER_TURN: Final = 1 << 20
"""Bytes of one connection after which others get their turn."""
_MESSAGES_PER_WRITE: Final = 256
_IDLE_NS: Final = 900_000
"""A reader that took nothing for so long, a little less than until the next look, is elsewhere."""
_READ_AHEAD: Final = 8_192
"""Messages for a reader that is at it: measured, more of them leave the processor's cache."""
_GOODBYE_NS: Final = 250_000_000
"""After the last byte, how long a closing connection waits for the peer to close, too. To close
with unread data in the buffer would make the system throw away what is still on its way."""


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
        self._read_until = _READ_AHEAD
        self._waiting = 0  # messages in the inbox when it was last looked at
        self._looked_ns = 0
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
            if unsent_bytes(self._socket) and now_ns < self._peers.gives_up_ns:
                self._leave_ns = now_ns + _GOODBYE_NS  # the peer takes it slowly
            else:
                self.hang_up()
            return
        self.note_received(now_ns)
        if self.is_paused and has_unread(self._socket):
            self.engine.handle_presence(now_ns)  # who is not read from must not count as silent
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
            self._peers.mark()  # a queue may have room again that somebody waits for
        if mask & ~select.EPOLLOUT and not self.is_over:
            self._read(now_ns, _BYTES_PER_TURN)

    def read_some(self, now_ns: int) -> None:
        """Read for who asks now."""
        intake = self.intake
        if intake is None or self._has_unscanned:
            self.handle_ready(now_ns, select.EPOLLIN)
        elif not self.is_over:
            stop = intake.read(True)
            if stop is not None:
                self.handle_stop(now_ns, stop)
            self._peers.mark()  # others may wait for what is left over

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
        # Behind a command something may be left to scan, of which epoll says nothing.
        while (budget > 0 or self._has_unscanned) and not self.is_over and self.intake is intake:
            if budget > 1 and len(inbox) >= min(inbox.limit, self._read_until):
                self._waiting, self._looked_ns = len(inbox), now_ns
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

    def go_on(self, now_ns: int) -> bool:
        """Read again if the application has taken enough, or nothing for a while; else False."""
        inbox = self._peers.inbox
        assert inbox is not None
        waiting = len(inbox)
        if 2 * waiting <= min(inbox.limit, _READ_AHEAD):
            self._read_until = _READ_AHEAD
        elif now_ns - self._looked_ns < _IDLE_NS:
            return False
        elif waiting < self._waiting or waiting >= inbox.limit:
            self._waiting, self._looked_ns = waiting, now_ns
            return False
        else:
            self._read_until = waiting + _READ_AHEAD
        self.resume(now_ns)
        return True

    @property
    def _has_unscanned(self) -> bool:
        scanner = self.engine.plain_scanner
        return scanner is not None and scanner.has_unscanned

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
                peers.ask(self, event)
            elif isinstance(event, Ready):
                self._greet(event, now_ns)
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

    def _greet(self, ready: Ready, now_ns: int) -> None:
        peers = self._peers
        peers.report(MonitorKind.HANDSHAKE_SUCCEEDED, self.endpoint, self.address, ready.user_id)
        self.is_attached = True
        peers.attached(self)
        try:
            peers.pattern.attach(
                self.number,
                PeerInfo(ready.socket_type, ready.identity),
                routing_id=peers.name_for(self.number),
            )
        except PatternError as error:  # somebody took our name for this peer meanwhile
            self._end(Failed(FailureReason.UNEXPECTED, str(error)), now_ns)
        peers.mark()

    def handle_verdict(self, tell: Callable[[ZmtpEngine], None], now_ns: int) -> None:
        """The authenticator has spoken."""
        if not self.is_over:
            tell(self.engine)
            self._take_events(now_ns)
        if not self.is_over:
            self.flush(now_ns)
            self._peers.arm(self)

    # The pattern's side.

    def resume(self, now_ns: int) -> None:
        """Read again."""
        if self.is_paused and not self.is_over:
            self.is_paused = False
            self._watch()  # what has come meanwhile makes it readable at once
            if self.intake is not None and self._has_unscanned:
                self._read_short(self.intake, now_ns, 1)

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
        self._peers.pattern.counters.dropped_undelivered += self.writer.message_count
        self.writer.clear()
        self._peers.disarm(self)
        self._socket.close()

    def forget(self) -> None:
        """In a forked child: close the descriptor only."""
        self.is_over = True
        self._socket.close()
