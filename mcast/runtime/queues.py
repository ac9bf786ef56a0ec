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
from collections.abc import Callable
from threading import Lock

from mcast.errors import Again, LossError
from mcast.events import Event, LossReason, Lost
from mcast.kernel import Inbox, Message
from mcast.pgm import Messages
from mcast.pgm.events import EngineEvent
from mcast.runtime.deadline import Deadline

__all__ = ["EVENT_LIMIT", "ReceiveQueue", "Waiters"]

EVENT_LIMIT = 10_000
"""Most events kept for an application that does not ask for them; the oldest go first."""


class Waiters:
    """Those who want to know when something may have changed: threads, tasks, file descriptors."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._fd = -1

    def wake(self) -> None:
        """Call everybody who waits, once."""
        if self._fd >= 0:
            os.eventfd_write(self._fd, 1)
        if self._callbacks:
            with self._mutex:
                callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()

    def add(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called at the next wake-up, in the waking thread; it must not block."""
        with self._mutex:
            self._callbacks.append(callback)

    def discard(self, callback: Callable[[], None]) -> None:
        """Forget ``callback`` if it was not called yet."""
        with self._mutex:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def wait(self, is_ready: Callable[[], bool], timeout: float | None) -> bool:
        """Block until ``is_ready()``; False if ``timeout`` seconds run out first."""
        deadline = Deadline(timeout)
        while not is_ready():
            signal = Lock()
            signal.acquire()
            self.add(signal.release)
            try:
                if is_ready():
                    return True
                left = deadline.left
                if left == 0 or not signal.acquire(timeout=-1 if left is None else left):
                    return is_ready()
            finally:
                self.discard(signal.release)
        return True

    def fileno(self, is_ready: Callable[[], bool]) -> int:
        """A descriptor that polls readable while ``is_ready()`` may hold; made at first use."""
        with self._mutex:
            if self._fd < 0:
                self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        if is_ready():
            os.eventfd_write(self._fd, 1)
        return self._fd

    def clear(self, is_ready: Callable[[], bool]) -> None:
        """Make the descriptor unreadable unless ``is_ready()`` still holds."""
        if self._fd < 0:
            return
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return
        if is_ready():
            os.eventfd_write(self._fd, 1)

    def close(self) -> None:
        """Wake everybody and give the descriptor back."""
        self.wake()
        with self._mutex:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def abandon(self) -> None:
        """Give the descriptor back in a forked child, where no lock may be taken."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class ReceiveQueue:
    """Messages and events of one SUB socket on their way to the application."""

    def __init__(self, hwm: int, *, raise_on_loss: bool, recv: Callable[..., bytes]) -> None:
        """``recv`` is what the inbox's own ``recv`` falls back to."""
        self._hwm = hwm
        self._raise_on_loss = raise_on_loss
        self.inbox = Inbox(recv)
        """The messages; whoever reads it directly gets what ``get`` would give."""
        self._events: deque[Event] = deque()
        self.waiters = Waiters()
        """Whoever waits for messages."""
        self.event_waiters = Waiters()
        """Whoever waits for events."""
        self.refused_count = 0
        """Messages dropped because the queue was full."""
        self.events_dropped = 0
        """Events dropped because nobody took them."""
        self.is_closed = False

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

    def _put_messages(self, batch: Messages) -> None:
        messages = batch.messages
        room = self._hwm - len(self.inbox)
        if len(messages) <= room:
            self.inbox.put(messages)
            return
        room = max(0, room)
        self.inbox.put(messages[:room])
        refused = len(messages) - room
        self.refused_count += refused
        self._put_loss(Lost(batch.tsi, batch.first, batch.last, refused, LossReason.APP_HWM))

    def _put_loss(self, lost: Lost) -> None:
        last = self._events[-1] if self._events else None
        # An overrun goes on batch after batch; it is one loss until somebody looks.
        goes_on = (
            isinstance(last, Lost)
            and last.reason is LossReason.APP_HWM is lost.reason
            and last.tsi == lost.tsi
        )
        if goes_on and isinstance(last, Lost):
            self._events.pop()
            lost = Lost(lost.tsi, last.first, lost.last, last.count + lost.count, lost.reason)
        self._put_event(lost)
        if self._raise_on_loss:
            error = LossError(lost.tsi, lost.first, lost.last, lost.count, lost.reason.value)
            self.inbox.put_error(error, goes_on)

    def _put_event(self, event: Event) -> None:
        if len(self._events) >= EVENT_LIMIT:
            self._events.popleft()
            self.events_dropped += 1
        self._events.append(event)
        self.event_waiters.wake()

    # The application's side.

    def get_many(self, limit: int, timeout: float | None) -> list[Message]:
        """One to ``limit`` messages, without waiting for more than the first.

        Raises ``Again`` when ``timeout`` seconds run out or the queue is closed, ``LossError``
        when a loss comes first.
        """
        deadline = Deadline(timeout)
        while not (taken := self.inbox.get_many(limit)):
            self.waiters.clear(self.is_ready)
            if self.is_closed or not self.waiters.wait(self.is_ready, deadline.left):
                raise Again(f"no message within {timeout} s")
        if not len(self.inbox):
            self.waiters.clear(self.is_ready)
        return taken

    def is_ready(self) -> bool:
        """True if ``get`` would not block."""
        return len(self.inbox) > 0 or self.is_closed

    def take_event(self) -> Event | None:
        """The oldest event that was not taken, or None."""
        try:
            return self._events.popleft()
        except IndexError:
            return None

    def has_events(self) -> bool:
        """True if ``take_event`` would return one, or never will again."""
        return bool(self._events) or self.is_closed

    def close(self) -> None:
        """Wake everybody; nothing more comes, and what waits is thrown away."""
        self.is_closed = True
        self.inbox.clear()
        self.waiters.close()
        self.event_waiters.close()
