"""Waiting for several sockets at once, mcast's and the system's."""

from __future__ import annotations

import select
from typing import Final

from mcast.runtime.deadline import Deadline
from mcast.sockets import POLLIN, POLLOUT, Socket

__all__ = ["Poller"]

_LONGEST_MS: Final = 1e9


class Poller:
    """Which of several sockets or file descriptors are ready. One thread at a time."""

    def __init__(self) -> None:
        self._flags: dict[Socket | int, int] = {}

    def register(self, socket: Socket | int, flags: int = POLLIN | POLLOUT) -> None:
        """Watch a socket, or a file descriptor; again: replace its flags; 0: stop.

        Raises: PatternError for a socket of a context with ``loop="caller"``; ClosedError.
        """
        if flags and isinstance(socket, Socket):
            socket._check_descriptor()
        if flags:
            self._flags[socket] = flags
        else:
            self._flags.pop(socket, None)

    modify = register

    def unregister(self, socket: Socket | int) -> None:
        """Stop watching it. Raises KeyError if it is not watched."""
        del self._flags[socket]

    def poll(self, timeout: float | None = None) -> list[tuple[Socket | int, int]]:
        """The pairs (socket, flags that hold), waiting up to ``timeout`` seconds for the first.

        None waits for ever. An empty list means that time ran out.

        Raises: ClosedError if a watched socket was closed.
        """
        deadline = Deadline(timeout)
        watched = select.poll()
        for socket, flags in self._flags.items():
            if isinstance(socket, Socket):
                socket._check_descriptor()
                for fd in socket._descriptors(flags):
                    watched.register(fd, select.POLLIN)
            else:
                mask = (select.POLLIN if flags & POLLIN else 0) | (
                    select.POLLOUT if flags & POLLOUT else 0
                )
                watched.register(socket, mask)
        while True:
            ready = self._ready_sockets()
            left = 0.0 if ready else deadline.left
            # The system counts milliseconds in an int.
            system = dict(watched.poll(None if left is None else min(left * 1e3, _LONGEST_MS)))
            ready = ready or self._ready_sockets()
            for socket in self._flags:
                if isinstance(socket, int) and (mask := system.get(socket, 0)):
                    readable = POLLIN if mask & ~select.POLLOUT else 0
                    ready.append((socket, readable | (POLLOUT if mask & select.POLLOUT else 0)))
            if ready or deadline.has_passed:
                return ready

    def _ready_sockets(self) -> list[tuple[Socket | int, int]]:
        found: list[tuple[Socket | int, int]] = []
        for socket, flags in self._flags.items():
            if isinstance(socket, Socket) and (held := socket.poll(0, flags)):
                found.append((socket, held))
        return found
