"""The open sockets of a context, numbered, for those who show its counters.

Owns the numbers; keeps no socket alive. Any thread. Invariant: the lock is held for no longer than
it takes to copy the list, so the loop may take it.
"""

from __future__ import annotations

from threading import RLock
from weakref import WeakKeyDictionary

from mcast.errors import ClosedError
from mcast.runtime.status import Description
from mcast.sockets.base import Socket

__all__ = ["Roll"]


class Roll:
    """Who is there."""

    def __init__(self) -> None:
        self._numbers: WeakKeyDictionary[Socket, int] = WeakKeyDictionary()
        self._last = 0
        self._lock = RLock()  # a signal handler may make a socket within

    def add(self, socket: Socket) -> None:
        """Give it the next number."""
        with self._lock:
            self._last += 1
            self._numbers[socket] = self._last

    def describe(self) -> Description:
        """Number, type, endpoints and counters of each that is open, the oldest first."""
        with self._lock:
            listed = sorted(self._numbers.items(), key=lambda entry: entry[1])
        described: Description = []
        for socket, number in listed:
            try:
                counters = socket.stats()
            except ClosedError:  # it may be closed at any moment
                continue
            described.append(
                {
                    "number": number,
                    "type": socket.kind.name,
                    "endpoints": socket.endpoints,
                    "counters": counters,
                }
            )
        return described
