"""The queue of ``Socket.monitor``: what happened to connections, for whoever asks.

Invariant: at most ``MONITOR_LIMIT`` events wait; the oldest go first, and are counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from mcast.errors import Again, ClosedError
from mcast.monitor import MonitorEvent
from mcast.runtime.deadline import Deadline
from mcast.runtime.queues import Drive, Waiters

__all__ = ["MONITOR_LIMIT", "Monitor"]

MONITOR_LIMIT: Final = 10_000
"""Most events that wait for somebody to take them."""


class Monitor:
    """Events of one socket's connections since ``Socket.monitor``. Any thread may use it."""

    def __init__(self, drive: Drive | None) -> None:
        self._events: deque[MonitorEvent] = deque(maxlen=MONITOR_LIMIT)
        self.waiters = Waiters(drive)
        """Whoever waits for events."""
        self.dropped_count = 0
        """Events that nobody took in time."""
        self.is_closed = False
        """The socket is gone; what waits may still be taken."""

    def recv(self, timeout: float | None = None) -> MonitorEvent:
        """The oldest event not taken, waiting up to ``timeout`` seconds.

        Raises: Again; ClosedError when the socket is gone and all was taken.
        """
        deadline = Deadline(timeout)
        while True:
            try:
                return self._events.popleft()
            except IndexError:
                if self.is_closed:
                    raise ClosedError("the socket was closed") from None
                if not self.waiters.wait(self._is_ready, deadline.left):
                    raise Again("nothing happened to the connections") from None

    def __iter__(self) -> Iterator[MonitorEvent]:
        """Each event; ends when the socket is closed."""
        while True:
            try:
                yield self.recv()
            except ClosedError:
                return

    def put(self, event: MonitorEvent) -> None:
        """Add an event."""
        if len(self._events) == MONITOR_LIMIT:
            self.dropped_count += 1
        self._events.append(event)
        self.waiters.wake()

    def close(self) -> None:
        """No more will come."""
        self.is_closed = True
        self.waiters.wake()

    def _is_ready(self) -> bool:
        return bool(self._events) or self.is_closed
