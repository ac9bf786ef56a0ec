"""From the loop thread to the application: messages in order, losses where they happened, events.

One ``ReceiveQueue`` for each SUB socket. Written by the loop thread; read by any thread. Invariant:
what is put in is handed out once, in order, or, when the queue is full, counted in a ``Lost``
event with the number of messages refused.

Messages cross in the kernel's ``Inbox``, which compiled needs no lock; the mutex here guards only
the list of those who wait. Whoever waits registers first and looks again, and whoever puts looks
for waiters last, so that no wake-up is missed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from threading import TIMEOUT_MAX, Lock, RLock
from weakref import WeakMethod

from mcast.errors import Again, ClosedError, LossError, TransportError
from mcast.events import Event, LossReason, Lost
from mcast.kernel import Inbox, Message
from mcast.pgm import Messages
from mcast.pgm.events import EngineEvent
from mcast.runtime.deadline import Deadline

__all__ = ["EVENT_LIMIT", "Drive", "ReceiveQueue", "Waiters", "wait_any", "wait_at"]

Drive = Callable[[Callable[[], bool], float | None], bool]
"""Work until a condition holds; False if the timeout in seconds runs out first."""

EVENT_LIMIT = 10_000
"""Most events kept for an application that does not ask for them; the oldest go first."""


class Waiters:
    """Those who want to know when something may have changed: threads, tasks, file descriptors."""

    def __init__(self, drive: Drive | None = None) -> None:
        """``drive`` is for a context without a thread: whoever waits does the loop's work."""
        self._drive = drive
        self._mutex = RLock()  # a signal handler may call in here from within
        self._callbacks: list[Callable[[], None]] = []
        self._fd = -1
        self._is_fd_ready: WeakMethod[Callable[[], bool]] | None = None
        self._is_closed = False
        self.bell: Callable[[], None] | None = None
        """Rung with each wake-up, for a thread that waits in another way."""
        self.joined: Callable[[], None] | None = None
        """Called with whoever begins to wait."""

    def wake(self) -> None:
        """Call everybody who waits, once."""
        if self.bell is not None:
            self.bell()
        if self._fd >= 0:
            self.refresh()
        if self._callbacks:
            with self._mutex:
                callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()

    @property
    def has_waiters(self) -> bool:
        """True if a wake-up would reach anybody."""
        return bool(self._callbacks)

    def add(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called at the next wake-up, in the waking thread; it must not block."""
        with self._mutex:
            self._callbacks.append(callback)
        if self.joined is not None:
            self.joined()

    def discard(self, callback: Callable[[], None]) -> None:
        """Forget ``callback`` if it was not called yet."""
        with self._mutex:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def wait(self, is_ready: Callable[[], bool], timeout: float | None) -> bool:
        """Block until ``is_ready()``; False if ``timeout`` seconds run out first."""
        if self._drive is not None:
            return self._drive(is_ready, timeout)
        deadline = Deadline(timeout)
        while not is_ready():
            signal = Lock()
            signal.acquire()
            self.add(signal.release)
            try:
                if is_ready():
                    return True
                left = deadline.left
                if left == 0 or not signal.acquire(
                    timeout=-1 if left is None else min(left, TIMEOUT_MAX)
                ):
                    return is_ready()
            finally:
                self.discard(signal.release)
        return True

    @property
    def has_descriptor(self) -> bool:
        """True if somebody asked for ``fileno``: call ``refresh`` where readiness may change."""
        return self._fd >= 0

    def fileno(self, is_ready: Callable[[], bool]) -> int:
        """A descriptor that polls readable while ``is_ready()``, a method; made at the first call.

        Raises ``ClosedError``.
        """
        with self._mutex:
            if self._is_closed:
                raise ClosedError("the socket was closed")
            if self._fd < 0:
                # Weak, since the loop's side must not keep alive the socket that asks.
                self._is_fd_ready = WeakMethod(is_ready)
                self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.refresh()
        return self._fd

    def refresh(self) -> None:
        """Make the descriptor readable or not, as things stand.

        Whoever changes that calls this afterwards. The mutex makes the last of them see the latest
        state, so that the descriptor is neither left unreadable nor readable for nothing.
        """
        with self._mutex:
            is_ready = self._is_fd_ready() if self._is_fd_ready is not None else None
            if self._fd < 0 or is_ready is None:
                return
            if is_ready():
                os.eventfd_write(self._fd, 1)
                return
            try:
                os.eventfd_read(self._fd)
            except BlockingIOError:
                return

    def close(self) -> None:
        """Wake everybody and give the descriptor back."""
        self.wake()
        with self._mutex:
            self._is_closed = True
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)  # wakes whoever is in a poll of it right now
                os.close(self._fd)
                self._fd = -1

    def abandon(self) -> None:
        """Give the descriptor back in a forked child, where no lock may be taken."""
        self._is_closed = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def wait_any(
    several: Sequence[Waiters], is_ready: Callable[[], bool], timeout: float | None
) -> bool:
    """As ``Waiters.wait``, but woken by each of ``several``."""
    first, *others = several

    def wake() -> None:
        first.wake()

    deadline = Deadline(timeout)
    while not is_ready():
        for each in others:
            each.add(wake)
        try:
            if not first.wait(is_ready, deadline.left):
                return False
        finally:
            for each in others:
                each.discard(wake)
    return True


def wait_at(
    inbox: Inbox, waiters: Waiters, is_ready: Callable[[], bool], left_s: float | None
) -> bool:
    """Wait where the messages of ``inbox`` come in, or as ``Waiters.wait`` does."""
    intake = inbox.intake
    if intake is not None and left_s != 0:
        came = intake.wait(-1 if left_s is None else int(min(left_s, TIMEOUT_MAX) * 1e9))
        if came is not None:
            return came or is_ready()
    return waiters.wait(is_ready, left_s)


class ReceiveQueue:
    """Messages and events of one SUB socket on their way to the application."""

    def __init__(self, hwm: int, *, raise_on_loss: bool, drive: Drive | None = None) -> None:
        self.raises_on_loss = raise_on_loss
        """A loss is also raised where it happened."""
        self.inbox = Inbox()
        self.inbox.limit = hwm
        """The messages; whoever reads it directly gets what ``get`` would give."""
        self._mutex = RLock()  # of the events, and of the loss that is still growing
        self._events: deque[Event] = deque()
        self._overruns: dict[str, Lost] = {}
        self._growing: LossError | None = None
        self._growing_at = 0
        self.waiters = Waiters(drive)
        """Whoever waits for messages."""
        self.event_waiters = Waiters(drive)
        """Whoever waits for events."""
        self.refused_count = 0
        """Messages dropped because the queue was full."""
        self.events_dropped = 0
        """Events dropped because nobody took them."""
        self.is_closed = False
        self.error: TransportError | None = None
        """Why an endpoint died, if one did."""

    def __len__(self) -> int:
        return len(self.inbox)

    # The loop thread's side.

    def put(self, happenings: list[EngineEvent]) -> None:
        """Take what an engine reported, in order. Never blocks."""
        for event in happenings:
            if isinstance(event, Messages):
                self._put_messages(event)
            elif isinstance(event, Lost):
                self._put_loss(event)
            else:
                self._put_event(event)
        self.waiters.wake()

    @property
    def hwm(self) -> int:
        """Most messages that may wait."""
        return self.inbox.limit

    @hwm.setter
    def hwm(self, hwm: int) -> None:
        self.inbox.limit = hwm

    def _put_messages(self, batch: Messages) -> None:
        messages = batch.messages
        room = max(0, self.hwm - len(self.inbox))
        refused = len(messages) - room
        if refused > 0:
            del messages[room:]
        if messages:
            self.inbox.put(messages)
        if refused > 0:
            self.refuse(batch.tsi, batch.first, batch.last, refused)

    def refuse(self, tsi: str, first: int, last: int, count: int) -> None:
        """Report that so many messages in these packets found no room."""
        self.refused_count += count
        self._put_loss(Lost(tsi, first, last, count, LossReason.APP_HWM))

    def _put_loss(self, lost: Lost) -> None:
        if self.raises_on_loss:
            self._put_error(lost)
        if lost.reason is LossReason.APP_HWM:
            # An overrun goes on batch after batch; for each source it is one loss until somebody
            # looks, so that it does not push other events out.
            with self._mutex:
                overrun = self._overruns.get(lost.tsi)
                if overrun is not None:
                    overrun.last = lost.last
                    overrun.count += lost.count
                    return
                self._overruns[lost.tsi] = lost
        self._put_event(lost)

    def _put_error(self, lost: Lost) -> None:
        with self._mutex:
            growing = self._growing
            if (
                growing is not None
                and self._growing_at == self.inbox.put_count  # no message came after it
                and growing.tsi == lost.tsi
                and lost.reason is LossReason.APP_HWM
            ):
                growing.last = lost.last
                growing.count += lost.count
                return
            if len(self.inbox) >= self.hwm + EVENT_LIMIT:
                self.events_dropped += 1  # the events tell of it all the same
                return
            error = _loss_error(lost)
            self._growing = error if lost.reason is LossReason.APP_HWM else None
            self._growing_at = self.inbox.put_count
            self.inbox.put_error(error)

    def _put_event(self, event: Event) -> None:
        with self._mutex:
            if len(self._events) >= EVENT_LIMIT:
                self._pop_event()
                self.events_dropped += 1
            self._events.append(event)
        self.event_waiters.wake()

    # The application's side.

    def get_many(self, limit: int, timeout: float | None) -> list[Message]:
        """One to ``limit`` messages, without waiting for more than the first.

        Raises ``Again`` when ``timeout`` seconds run out or the queue is closed, ``LossError``
        when a loss comes first, ``TransportError`` when it would wait and an endpoint is dead.
        """
        deadline = Deadline(timeout)
        try:
            while not (taken := self.inbox.get_many(limit)):
                if self.error is not None:
                    raise TransportError(*self.error.args)
                if self.is_closed or not self._wait(deadline.left):
                    raise Again(f"no message within {timeout} s")
        except LossError as error:
            with self._mutex:
                if self._growing is error:
                    self._growing = None
            raise _loss_error(error) from None
        finally:
            if self.waiters.has_descriptor:
                self.waiters.refresh()
        return taken

    def _wait(self, left_s: float | None) -> bool:
        """Wait until there may be something; False if ``left_s`` seconds ran out first."""
        return wait_at(self.inbox, self.waiters, self.is_ready, left_s)

    def is_ready(self) -> bool:
        """True if ``get`` would not block."""
        return len(self.inbox) > 0 or self.is_closed or self.error is not None

    def fail(self, error: TransportError) -> None:
        """An endpoint is dead: whoever would wait for messages gets ``error`` instead."""
        self.error = error
        self.waiters.wake()
        self.event_waiters.wake()

    def take_event(self) -> Event | None:
        """The oldest event that was not taken, or None."""
        with self._mutex:
            return self._pop_event() if self._events else None

    def _pop_event(self) -> Event:
        event = self._events.popleft()
        if isinstance(event, Lost) and self._overruns.get(event.tsi) is event:
            del self._overruns[event.tsi]
        return event

    def has_events(self) -> bool:
        """True if ``take_event`` would return one, or never will again."""
        return bool(self._events) or self.is_closed or self.error is not None

    def close(self) -> None:
        """Wake everybody; nothing more comes, and what waits is thrown away."""
        self.is_closed = self.inbox.hold = True
        self.inbox.clear()
        self.waiters.close()
        self.event_waiters.close()


def _loss_error(lost: Lost | LossError) -> LossError:
    return LossError(lost.tsi, lost.first, lost.last, lost.count, str(lost.reason))
