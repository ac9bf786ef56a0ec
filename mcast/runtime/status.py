"""The counters of this process for others to ask: when somebody connects, the loop answers.

Owns when there is a status socket and what it says. Invariants: nobody who does not ask costs
anything, no thread and no timer; nothing here keeps a context or a socket alive; a status socket
that cannot be had is no reason for a context to fail, unless it was asked for.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from mcast import kernel
from mcast.errors import OptionError, TransportError
from mcast.net.status import StatusListener, private_directory, status_directories
from mcast.runtime.loop import Loop
from mcast.stats import Snapshot

__all__ = ["FORMAT", "Description", "open_status", "status_setting"]

_log = logging.getLogger("mcast")

FORMAT: Final = 1
"""Of the answer; a reader refuses those that it does not know."""
_COMMAND_LIMIT: Final = 256
"""Characters of the command line that are told."""

Description = list[dict[str, object]]
"""Of each socket: ``number`` (its own in its context), ``type``, ``endpoints``, ``counters``."""


def status_setting(status: bool | None) -> tuple[bool, bool, str | None]:
    """Whether there is to be a socket, whether to insist on it, and the directory if one is given.

    ``MCAST_STATUS`` in the environment is ``on`` (the default), ``off``, or the absolute path of a
    directory; ``status`` of the context says on or off before it does.

    Raises: OptionError for anything else; TransportError if it is insisted on and there is none.
    """
    text = os.environ.get("MCAST_STATUS", "on")
    directory = text if os.path.isabs(text) else None
    if directory is None and text not in ("on", "off", ""):
        raise OptionError(f"MCAST_STATUS is on, off or the absolute path of a directory: {text!r}")
    if status is None:
        return text != "off", False, directory
    if status:
        private_directory(status_directories(directory))
    return bool(status), bool(status), directory


def open_status(loop: Loop, setting: tuple[bool, bool, str | None], describe: Describe) -> None:
    """Open the status socket as ``setting`` says; the loop, not yet started, serves and closes it.

    ``describe`` is called in the loop's thread. Raises: TransportError where it is insisted on;
    the loop has given everything back then.
    """
    is_wanted, is_insisted, directory = setting
    if not is_wanted:
        return
    try:
        _StatusPoint(loop, private_directory(status_directories(directory)), describe)
    except TransportError as error:
        if is_insisted:
            loop.abandon()
            raise
        _log.info("%s", error)


Describe = Callable[[], Description]


class _StatusPoint:
    """One context's. In the loop's thread."""

    def __init__(self, loop: Loop, directory: str, describe: Describe) -> None:
        self._loop = loop
        self._describe = describe
        self._started_ns = monotonic_ns()
        # A process id alone is not unique: containers may share the directory.
        name = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._listener = StatusListener(directory, name, self._answer)
        loop.host(self, self._listener.fd)
        self._hosted: set[int] = set()

    def handle_ready(self, fd: int, mask: int) -> None:
        """Somebody asks, or takes more of an answer."""
        del mask
        for waiting_fd in self._hosted:
            self._loop.dismiss(waiting_fd)  # before any of them is closed
        self._hosted = set()
        if fd == self._listener.fd:
            self._listener.handle_readable()
        else:
            self._listener.handle_writable()
        self._hosted = self._listener.waiting_fds
        for waiting_fd in self._hosted:
            self._loop.host(self, waiting_fd, select.EPOLLOUT)

    def close(self) -> None:
        """The loop ends."""
        self._listener.close()

    def abandon(self) -> None:
        """In a forked child."""
        self._listener.abandon()

    def _answer(self) -> bytes:
        now_ns = monotonic_ns()
        sockets = self._describe()
        for socket in sockets:
            counts = socket["counters"]
            assert isinstance(counts, dict)
            socket["counters"] = _finite(counts)
        return json.dumps(
            {
                "format": FORMAT,
                "pid": os.getpid(),
                "command": " ".join(sys.orig_argv)[:_COMMAND_LIMIT],
                "kernel": kernel.NAME,
                "loop": "thread" if self._loop.drive is None else "caller",
                "loop_turns": self._loop.turn_count,
                "monotonic_ns": now_ns,
                "uptime_s": (now_ns - self._started_ns) / 1e9,
                "sockets": sockets,
            },
            allow_nan=False,
        ).encode()


def _finite(counts: Snapshot) -> dict[str, int | float | None]:
    """JSON has no infinity; null stands for a rate without limit."""
    return {name: count if math.isfinite(count) else None for name, count in counts.items()}
