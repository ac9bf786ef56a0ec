"""One multicast endpoint at work: an engine, its sockets, and the lock between its threads.

A publisher's link is a monitor: the caller's thread packs and sends under the lock, the loop
thread paces, repairs and lets go of what lingers. A subscriber's link belongs to the loop thread;
the application meets it only at the ``ReceiveQueue``.

Invariants: what the system does not take now is kept and goes first next time, so packets leave
in the engine's order; nothing blocks while the lock is held; a closing publisher stays until its
data has left, its end was announced and repairs have been quiet, or its linger is over.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto
from math import log
from random import Random
from threading import Event as Flag
from threading import Lock, current_thread, main_thread
from time import monotonic_ns
from traceback import walk_tb
from typing import Final

from mcast.endpoint import MulticastEndpoint
from mcast.errors import Again, ClosedError, OptionError, TransportError
from mcast.kernel import (
    Buffer,
    Intake,
    Leftover,
    Message,
    SendGate,
    TopicFilter,
    UdpReader,
    UdpWriter,
)
from mcast.net.interfaces import Interface, resolve_interface
from mcast.net.multicast import MulticastSockets
from mcast.net.udp import packed_address, packed_sockaddr
from mcast.options import DEFAULT_MAXTPDU_BYTES, SocketOptions
from mcast.pgm import Messages, PgmEngine, Transmit
from mcast.pgm.events import GROUP
from mcast.runtime.loop import Loop
from mcast.runtime.queues import ReceiveQueue, Waiters
from mcast.stats import Snapshot

__all__ = ["MulticastLink"]

_log = logging.getLogger("mcast")

_NEVER: Final = 1 << 62
_READS_PER_TURN: Final = 16
"""Batches of a socket read before others get their turn, if each is small."""
_BYTES_PER_TURN: Final = 1 << 18
"""Bytes after which it is the application's turn: what it is given should still be in the cache."""
_CONTENDED_NS: Final = 1_000_000
"""Who waited so long for the interpreter lock makes use of it: the next time is as far away."""
_CONTENDED_FACTOR: Final = 32
"""Then a turn may be so many times as long: 8 MiB, a switch interval's worth at 13 Gbit/s."""
_ODD_PER_TURN: Final = 64
"""But not with more runs than these that the engine has to look at: some milliseconds of work."""
_QUIET_NS: Final = 250_000_000
"""A closing publisher leaves when nobody has asked for a repair for so long: a lost final SPM is
made up for by heartbeats within 100 ms, and a lost NAK is repeated within 50 ms, or 200 ms by
libzmq."""
_LEAST_ROOM: Final = 1024
"""Messages for which the queue has room before the engine releases more: a packet may bring 714."""
_ADDRESS_LIMIT: Final = 4096
_BACKLOG_LIMIT: Final = 4096
"""Runs and control packets kept while the system takes nothing; data stops long before (half a
window), so what is dropped beyond it are answers that will be asked for again."""
_BATCH_WEIGHT_BYTES: Final = 1 << 16
"""What a batch sent counts for, when it comes to letting the loop thread in."""
_HEAD_BYTES: Final = 10
"""Longest head of a frame."""
_TRANSIENT: Final = (errno.EAGAIN, errno.ENOBUFS)


class _Stage(Enum):
    OPEN = auto()
    DRAINING = auto()
    """No more is accepted; data still waits to leave."""
    FINISHING = auto()
    """The end was announced; repairs are still served."""
    CLOSED = auto()


class MulticastLink:
    """A publisher's or subscriber's endpoint. Public methods are for any thread unless said."""

    def __init__(
        self,
        endpoint: MulticastEndpoint,
        options: SocketOptions,
        loop: Loop,
        *,
        queue: ReceiveQueue | None = None,
        topic_filter: TopicFilter | None = None,
        room: Waiters | None = None,
    ) -> None:
        """With a ``queue`` it subscribes, without it publishes; then ``room`` hears of room.

        Raises ``InterfaceError``, ``TransportError`` or ``OptionError``; nothing stays open then.
        """
        interface = resolve_interface(endpoint.interface, endpoint.version)
        maxtpdu = options.multicast_maxtpdu
        if maxtpdu is None:
            maxtpdu = min(DEFAULT_MAXTPDU_BYTES, interface.mtu_bytes)
            options = replace(options, multicast_maxtpdu=maxtpdu)
        if maxtpdu > interface.mtu_bytes:
            raise OptionError(
                f"multicast_maxtpdu={maxtpdu} exceeds the MTU"
                f" {interface.mtu_bytes} of {interface.name}; choose {interface.mtu_bytes} or less"
            )
        self.endpoint = endpoint
        self._options = options
        self._loop = loop
        self._queue = queue
        self._lock = Lock()
        self._backlog: deque[Transmit] = deque()
        self._addresses: dict[bytes, bytes] = {}
        self._port = endpoint.port
        self.intake: Intake | None = None
        """A subscriber's way in; for a socket with one endpoint only to wait at."""
        self._stage = _Stage.OPEN
        self._give_up_ns = _NEVER
        self._finished_ns = _NEVER
        self._error: ClosedError | TransportError = ClosedError("the socket was closed")
        self._is_quiet = False
        self._overflow_count: int | None = None
        self._make_filter: Callable[[], TopicFilter] = TopicFilter
        self._filter_wanted = self._filter_used = 0
        self.send_errors: Counter[str] = Counter()
        """Datagrams that the system refused, by errno name."""
        self.room = room if room is not None else Waiters()
        """Publishers that wait for room, here or at another endpoint of the same socket."""
        self.closed = Flag()
        """Set when the link has left the loop."""
        self._sockets = MulticastSockets.open(
            endpoint,
            interface,
            publisher=queue is None,
            ttl=options.multicast_hops,
            loop=options.multicast_loop,
            dscp=options.dscp,
            rcvbuf_bytes=(options.rcvbuf or None) if queue is not None else None,
            sndbuf_bytes=options.sndbuf or None,
        )
        try:
            self._writer = UdpWriter()
            self._sender_fd = self._sockets.sender.fileno()
            self._group_fd = self._sockets.group.fileno()
            self._engine = PgmEngine(
                address=interface.packed_address,
                group=packed_address(endpoint.group),
                port=endpoint.port,
                options=options,
                dice=Random(os.urandom(16)),
                now_ns=monotonic_ns(),
                source_tsi=_new_tsi(endpoint.port) if queue is None else None,
                topic_filter=topic_filter,
            )
        except BaseException:  # such as MemoryError: the transmit window may take gigabytes
            self._sockets.close()
            raise
        if queue is not None:
            self.intake = Intake(
                self._group_fd,
                queue.inbox,
                self._engine.streams,
                lock=self._lock,
                baton=loop.baton,
                rest=self._take_rest_beside_loop,
                overrun=self._overrun,
                settled=self._settled,
                share=queue.waiters.wake,
                driver=loop.driver,
                spare=_dice_of_loss(options) if options.drop_rate else None,
            )
        with self._lock:
            self._transmit()
        fds = [self._group_fd]
        if self._sockets.repair is not None:
            fds.append(self._sockets.repair.fileno())
        loop.call(lambda: loop.add(self, fds), self)
        loop.attend()

    # The application's side.

    def send(self, parts: Sequence[Buffer], timeout: float | None) -> None:
        """Publish one message; blocks while too much waits for the pace.

        Raises ``Again`` when ``timeout`` seconds run out, ``ValueError`` if it can never fit.
        """
        # The attempt itself is what is waited for: room for a packet need not do for a message.
        if not self._try_send(parts) and (
            timeout == 0 or not self.room.wait(lambda: self._try_send(parts), timeout)
        ):
            raise Again("the publisher's queue is full; it drains at its rate")

    def send_many(self, messages: Sequence[Buffer], timeout: float | None) -> int:
        """Publish messages of one part; how many were taken, all of them unless time ran out."""
        taken = self._try_send_many(messages, 0)
        if taken < len(messages) and timeout != 0:

            def go_on() -> bool:
                nonlocal taken
                taken = self._try_send_many(messages, taken)
                return taken == len(messages)

            self.room.wait(go_on, timeout)
        return taken

    def open_gate(
        self,
        slow: Callable[..., None],
        slow_many: Callable[..., int],
        max_message_bytes: int,
    ) -> SendGate:
        """A short way for plain messages; else it calls ``slow`` or ``slow_many``."""
        source = self._engine.source
        assert source is not None
        with self._lock:
            threaded = self._loop.drive is None
            slots, schedule = source.open_gate(
                self._loop.baton if threaded else None, self._loop.attend_ivl_ns
            )
            return SendGate(
                slots,
                schedule,
                max_message_bytes=min(max_message_bytes, source.max_stream_bytes - _HEAD_BYTES),
                message_limit=self._options.sndhwm,
                lock=self._lock,
                writer=self._writer,
                fd=self._sender_fd,
                sockaddr=self._sockets.group_sockaddr,
                baton=self._loop.baton,
                tend=self._tend,
                slow=slow,
                slow_many=slow_many,
            )

    def close_gate(self) -> None:
        """From now on every message goes the long way. Takes no lock."""
        if self._engine.source is not None:
            self._engine.source.close_gate()

    def has_room(self) -> bool:
        """True if ``send`` of a small message would not block."""
        source = self._engine.source
        if source is None or self._stage is not _Stage.OPEN:
            return True
        if self._backlog:
            return False
        return source.unsent_message_count < self._options.sndhwm and source.has_slots

    def has_room_for(self, stream_bytes: int) -> bool:
        """True if ``send`` of a message of so many bytes, heads included, would not block."""
        source = self._engine.source
        if source is None or self._stage is not _Stage.OPEN:
            return True
        with self._lock:
            if not self.has_room():
                return False
            return source.has_slots_for(stream_bytes)

    @property
    def max_stream_bytes(self) -> int:
        """Longest message the transmit window takes, frame heads included."""
        source = self._engine.source
        return source.max_stream_bytes if source is not None else 0

    def set_filter_later(self, make: Callable[[], TopicFilter]) -> None:
        """Use the subscriptions that ``make`` returns, from the next packet on.

        Called when a packet is there, so that many subscriptions in a row are compiled once. Not
        for two threads at once. Takes no lock.
        """
        self._make_filter = make
        self._filter_wanted += 1
        if self.intake is not None:
            self.intake.is_stale = True

    def _update_filter(self) -> None:
        if self.intake is not None:
            self.intake.is_stale = False
        if self._filter_used != self._filter_wanted:
            self._filter_used = self._filter_wanted  # first: what changes meanwhile is for later
            if self.intake is not None:
                self.intake.settle()  # what came before is not for the new one
            self._engine.set_filter(self._make_filter())

    def close(self, linger: float, *, quietly: bool = False) -> None:
        """Stop accepting; the loop ends the link when its data is out, or after ``linger`` s.

        ``quietly``, as the interpreter exits: daemon threads that go on sending stop there instead
        of dying with an error that nobody wants to see.

        Never waits for the lock: a signal handler or a finalizer may call this in the very thread
        that holds it. The loop does it then.
        """
        give_up_ns = monotonic_ns() + round(linger * 1e9)
        if self._lock.acquire(blocking=False):
            try:
                self._begin_closing(give_up_ns, quietly)
            finally:
                self._lock.release()
        else:

            def begin_closing() -> None:
                with self._lock:
                    self._begin_closing(give_up_ns, quietly)

            self._loop.call(begin_closing, self)
        self.room.wake()
        self._loop.call(lambda: self._proceed(monotonic_ns()), self)

    def _begin_closing(self, give_up_ns: int, quietly: bool) -> None:
        if self._stage is _Stage.OPEN:
            self._is_quiet = quietly
            self._stage = _Stage.DRAINING
            if self.intake is not None:
                self.intake.is_open = False
            self.close_gate()
            self._give_up_ns = give_up_ns
            self._engine.flush(monotonic_ns())
            self._transmit()

    def abandon(self) -> None:
        """In a forked child: close the descriptors, send nothing, take no lock."""
        self._stage = _Stage.CLOSED
        self.close_gate()
        if self.intake is not None:
            self.intake.is_open = False
        self._sockets.close()

    def stats(self) -> Snapshot:
        """All counters of this endpoint, as a flat dict."""
        with self._lock:
            snapshot = self._engine.stats()
        overflow_count = self._overflow_count
        if overflow_count is None:
            overflow_count = self._count_overflows()
        snapshot["rcvbuf_overflows"] = overflow_count
        snapshot["send_backlog"] = len(self._backlog)
        snapshot["gso"] = int(self._writer.gso)
        snapshot["sendmmsg"] = int(self._writer.mmsg)
        snapshot["gro"] = int(self._sockets.gro)
        snapshot["rcvbuf_bytes"] = self._sockets.rcvbuf_bytes
        for name, count in sorted(self.send_errors.items()):
            snapshot[f"send_error_{name}"] = count
        if self.intake is not None and self._options.drop_rate:
            snapshot["dropped_for_test"] = self.intake.dropped_count
        return snapshot

    def _count_overflows(self) -> int:
        if self.intake is not None:
            return self.intake.overflow_count
        return self._loop.overflow_count(self._group_fd)

    def _try_send(self, parts: Sequence[Buffer]) -> bool:
        with self._lock:
            self._check_open()
            taken = not self._is_held_up() and self._engine.send(monotonic_ns(), parts)
            self._transmit()
            due_ns = self._engine.next_timeout_ns
        self._leave(due_ns)
        if taken and self.room.has_waiters:
            self._wake_senders()  # this call may have let the queue out, not the loop
        return taken

    def _try_send_many(self, messages: Sequence[Buffer], start: int) -> int:
        with self._lock:
            self._check_open()
            begun = start
            reached = -1
            while not self._is_held_up() and reached < start < len(messages):
                reached, start = start, self._engine.send_many(monotonic_ns(), messages, start)
                self._transmit()
            due_ns = self._engine.next_timeout_ns
        self._leave(due_ns)
        self._loop.baton.spend(_BATCH_WEIGHT_BYTES)
        if start > begun and self.room.has_waiters:
            self._wake_senders()
        return start

    def _tend(self) -> None:
        """See to what the gate left behind. In the thread that sent."""
        with self._lock:
            source = self._engine.source
            if self._stage is _Stage.OPEN and source is not None and not self._is_held_up():
                source.tend(monotonic_ns())
                self._transmit()
            due_ns = self._engine.next_timeout_ns
        self._leave(due_ns)

    def _is_held_up(self) -> bool:
        """True while the system takes nothing: its backlog is made of views of the window, so the
        window must not move on and fill their slots anew."""
        if self._backlog:
            self._transmit()
        return bool(self._backlog)

    def _leave(self, due_ns: int) -> None:
        self._loop.wake_before(due_ns)
        self._loop.attend()
        if self.room.has_descriptor:
            self.room.refresh()  # it may have become unready

    def _check_open(self) -> None:
        if self._stage is not _Stage.OPEN:
            if self._is_quiet and current_thread().daemon:
                self._lock.release()
                Flag().wait()
            raise type(self._error)(*self._error.args)

    # The loop's side.

    @property
    def next_timeout_ns(self) -> int:
        """When ``handle_timeout`` has something to do."""
        return self._earlier(self._engine.next_timeout_ns)

    @property
    def next_alarm_ns(self) -> int:
        """``next_timeout_ns``, but for what the baton attends to, or a thread that reads."""
        due_ns = self._earlier(self._engine.next_alarm_ns)
        if self.intake is not None and self.intake.entrust(due_ns):
            return min(self._finished_ns, self._give_up_ns)
        return due_ns

    def _earlier(self, due_ns: int) -> int:
        if self._backlog:
            due_ns = _NEVER  # nothing can leave; the descriptor tells when
        if self.intake is not None:
            due_ns = min(due_ns, self.intake.due_ns)
        return min(due_ns, self._finished_ns, self._give_up_ns)

    @property
    def gives_up_ns(self) -> int:
        """When a closing link is over at the latest; 2^62 while it is open."""
        return self._give_up_ns

    def handle_timeout(self, now_ns: int) -> None:
        """Serve the engine's timers, and the steps of closing. Loop thread."""
        with self._lock:
            if self._stage is _Stage.CLOSED:
                return
            self._update_filter()
            self._take_over()
            self._engine.handle_timeout(now_ns)
            self._engine.catch_up(now_ns)
            self._drain()
        if self._queue is not None:
            self._queue.waiters.wake()
        self._wake_senders()
        if self._stage is not _Stage.OPEN:
            self._proceed(now_ns)

    def handle_readable(self, now_ns: int, fd: int, reader: UdpReader) -> None:
        """Read batches until nothing waits, or others want their turn. Loop thread."""
        if self.intake is not None:
            self._read_intake(now_ns, self.intake)
            return
        to_group = fd == self._group_fd
        engine = self._engine
        size_bytes = 0
        for _ in range(_READS_PER_TURN):
            try:
                batch = reader.read(fd)
            except OSError as error:  # such as ECONNREFUSED from an earlier unicast NAK
                self._count_error(error)
                continue
            if not batch:
                break
            with self._lock:
                if self._stage is _Stage.CLOSED:
                    return
                for address, data, segment_bytes in batch:
                    engine.handle_datagrams(now_ns, address, data, segment_bytes, to_group)
                self._transmit()
            size_bytes += sum(len(data) for _, data, _ in batch)
            if size_bytes >= _BYTES_PER_TURN:
                break

    def _read_intake(self, now_ns: int, intake: Intake) -> None:
        assert self._queue is not None
        size_bytes = odd_count = 0
        factor = _CONTENDED_FACTOR if self._loop.baton.waited_ns >= _CONTENDED_NS else 1
        for count in range(1, _READS_PER_TURN * _CONTENDED_FACTOR + 1):
            with self._lock:
                if self._stage is not _Stage.OPEN:
                    return  # who joins again at once must hear nothing twice
                self._update_filter()
                try:
                    rest = intake.read(now_ns)
                except OSError as error:
                    self._count_error(error)
                    continue
                if rest or now_ns >= intake.due_ns:
                    self._take_rest(now_ns, rest)
            self._queue.waiters.wake()
            size_bytes += intake.size_bytes
            odd_count += len(rest)
            if odd_count >= _ODD_PER_TURN:
                factor = 1  # they are slow, and whoever sends may make it so
            is_over = count >= _READS_PER_TURN * factor or size_bytes >= _BYTES_PER_TURN * factor
            if is_over or not intake.size_bytes:
                break

    def _take_rest(self, now_ns: int, rest: list[Leftover]) -> None:
        """What came and is not plain. Under the lock, by whoever reads."""
        engine = self._engine
        self._update_filter()
        self._take_over()
        if now_ns >= engine.next_timeout_ns:
            engine.handle_timeout(now_ns)
        for address, data, segment_bytes, start in rest:
            engine.handle_datagrams(now_ns, address, data, segment_bytes, True, start)
        engine.catch_up(now_ns)
        self._drain()

    def _take_over(self) -> None:
        """From here to ``_drain`` the engine alone decodes what came. Under the lock."""
        intake, queue = self.intake, self._queue
        if intake is None or queue is None:
            return
        intake.hold = True
        intake.settle()
        intake.due_ns = _NEVER
        free = queue.hwm - len(queue)
        room = self._engine.room
        room.message_count = free if free >= min(_LEAST_ROOM, queue.hwm) else 0
        room.is_pulled = intake.pulls and queue.inbox.intake is intake

    def _take_rest_beside_loop(self, now_ns: int, rest: list[Leftover]) -> None:
        """``_take_rest`` in a thread of the application, whom a bug in here must not reach.

        Whatever a signal handler raises, such as Ctrl-C, goes on to the application. But nobody
        knows what it left undone here, so that ends the endpoint, too.
        """
        try:
            self._take_rest(now_ns, rest)
        except BaseException as error:
            assert self.intake is not None
            self.intake.is_open = False
            found = error
            is_bug = isinstance(error, Exception) and not _comes_from_signal_handler(error)

            def fail() -> None:
                if is_bug:
                    raise found
                self._loop.remove(self)
                self.fail(InterruptedError(f"interrupted by {found!r}"))

            self._loop.call(fail, self)
            if not is_bug:
                raise

    def _overrun(
        self, key: bytes, messages: list[Message], refused_count: int, first: int, last: int
    ) -> None:
        """Messages that do not all fit the queue, and some that were not even made. Under the
        lock, by whoever reads."""
        assert self._queue is not None
        name = self._engine.name_of(key)
        self._queue.put([Messages(name, messages, first, last)])
        if refused_count:
            self._queue.refuse(name, first, last, refused_count)

    def _settled(self) -> int:
        """A thread of the application has read, and the engine's timers may have moved.

        The loop thread is not woken for them: the reader serves them, and where it stays away, the
        loop thread looks within a millisecond, since it has lent the descriptor.
        """
        due_ns = self._engine.next_timeout_ns
        if self._loop.drive is not None:
            self._loop.wake_before(due_ns)
        return due_ns

    def handle_writable(self) -> None:
        """The system takes data again. Loop thread."""
        with self._lock:
            self._transmit()
        self._wake_senders()

    def _wake_senders(self) -> None:
        """Let those go on who wait for room, once there is enough of it to be worth a switch."""
        source = self._engine.source
        if source is not None and source.has_slack:
            self.room.wake()

    def fail(self, error: Exception) -> None:
        """A bug in this link: end it, and let nobody wait for it. Loop thread."""
        if self._stage is _Stage.CLOSED:
            return  # it has ended meanwhile
        self._error = TransportError(f"{self.endpoint} failed: {error!r}; make a new socket")
        self._stage = _Stage.CLOSED
        self.close_gate()
        if self._queue is not None:
            self._queue.fail(self._error)
        self._finish()

    def _proceed(self, now_ns: int) -> None:
        """One step towards the end. Loop thread."""
        with self._lock:
            source = self._engine.source
            is_drained = source is None or not (source.has_unsent or self._backlog)
            if self._stage is _Stage.DRAINING and is_drained:
                self._engine.close(now_ns)
                self._transmit()
                self._stage = _Stage.FINISHING
                asked_anything = source is not None and source.message_count > 0
                self._finished_ns = now_ns + (_QUIET_NS if asked_anything else 0)
            elif self._stage is _Stage.FINISHING and source is not None and source.message_count:
                self._finished_ns = max(self._finished_ns, source.asked_ns + _QUIET_NS)
            over = now_ns >= min(self._finished_ns, self._give_up_ns)
            if not over or self._stage is _Stage.CLOSED:
                return
            if source is not None and source.has_unsent:
                _log.warning(
                    "closed %s with %d messages unsent: its linger ran out",
                    self.endpoint,
                    source.unsent_message_count,
                )
                self._engine.close(now_ns)
                self._transmit()
            self._stage = _Stage.CLOSED
        self._finish()

    def _finish(self) -> None:
        self._overflow_count = self._count_overflows()
        self.close_gate()
        if self.intake is not None:
            self.intake.close()
        self._loop.remove(self)
        self._sockets.close()
        self.room.wake()
        self.closed.set()

    # Output, under the lock.

    def _drain(self) -> None:
        self._transmit()
        if self._queue is not None:
            events = self._engine.take_events()
            if events:
                self._queue.put(events)
            if self.intake is not None:
                self.intake.resume()

    def _transmit(self) -> None:
        """Send what the engine has to say, as far as the system takes it."""
        transmits = self._engine.take_transmits()
        if self._backlog:
            room = max(0, _BACKLOG_LIMIT - len(self._backlog))
            self.send_errors["backlog"] += max(0, len(transmits) - room)
            self._backlog.extend(transmits[:room])
            transmits = list(self._backlog)
            self._backlog.clear()
        for index, transmit in enumerate(transmits):
            rest = self._send_one(transmit)
            if rest is not None:
                self._backlog.append(rest)
                self._backlog.extend(transmits[index + 1 :])
                if self._engine.source is not None:
                    self._engine.source.disarm()  # see _is_held_up
                break
        if self._engine.source is not None:
            self._engine.source.is_held_up = bool(self._backlog)
        self._watch_writable(bool(self._backlog))

    _watching = False

    def _watch_writable(self, wanted: bool) -> None:
        if wanted != self._watching:
            self._watching = wanted
            self._loop.call(
                lambda: self._loop.watch_writable(
                    self, self._sender_fd, bool(self._backlog) and self._stage is not _Stage.CLOSED
                ),
                self,
            )

    def _send_one(self, transmit: Transmit) -> Transmit | None:
        """Send one run; what the system did not take, or None. Refused data counts as lost."""
        destination, data, segment_bytes, hops = transmit
        if destination == GROUP:
            sockaddr = self._sockets.group_sockaddr
        else:
            sockaddr = self._sockaddr(destination)
        changes_hops = hops >= 0 and hops != self._options.multicast_hops
        try:
            if changes_hops:
                self._sockets.set_hops(hops)
            sent = self._writer.send(self._sender_fd, sockaddr, data, segment_bytes)
        except OSError as error:
            # Repairs make up for it if it passes; if not, the counter says why nothing arrives.
            self._count_error(error)
            return None
        finally:
            if changes_hops:
                self._sockets.set_hops(self._options.multicast_hops)
        if sent == len(data):
            return None
        return transmit._replace(data=memoryview(data)[sent:])

    def _sockaddr(self, address: bytes) -> bytes:
        known = self._addresses.get(address)
        if known is None:
            if len(self._addresses) >= _ADDRESS_LIMIT:
                self._addresses.clear()
            interface: Interface = self._sockets.interface
            known = packed_sockaddr(address, self._port, interface.scope_id)
            self._addresses[address] = known
        return known

    def _count_error(self, error: OSError) -> None:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        self.send_errors[name] += 1
        if self.send_errors[name] == 1 and error.errno not in (errno.ECONNREFUSED, *_TRANSIENT):
            _log.warning("%s: %s", self.endpoint, error)


def _dice_of_loss(options: SocketOptions) -> Callable[[], int]:
    """Seeded loss, for tests and demonstrations: each packet is lost with the same chance; how many
    come through until the next one is."""
    dice = Random(options.drop_seed)
    rate = options.drop_rate

    def spare() -> int:
        if rate >= 1:
            return 0
        return int(log(1 - dice.random()) / log(1 - rate))

    return spare


def _comes_from_signal_handler(error: BaseException) -> bool:
    """True if it came by way of code outside the library, in the thread that runs such handlers."""
    modules = [
        str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)
    ]
    is_outside = any(
        f"{module}.".startswith("mcast.cli.") or module.partition(".")[0] != "mcast"
        for module in modules
    )
    return is_outside and current_thread() is main_thread()


def _new_tsi(dport: int) -> bytes:
    """A random identity: libzmq's GSI is the same in every process, ours never."""
    sport = dport
    while sport in (dport, 0):
        sport = int.from_bytes(os.urandom(2), "big")
    return os.urandom(6) + sport.to_bytes(2, "big")
