"""Between a subcommand and its terminal: words on stderr, data on stdout, signals, elapsed time.

Invariants: nothing written here raises because a reader has gone; the first SIGINT, SIGTERM or
SIGHUP asks the command to end in order, the second ends it at once.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from types import FrameType, TracebackType
from typing import Final, Self

from mcast.runtime.deadline import Deadline

__all__ = [
    "EXIT_ARGUMENTS",
    "EXIT_FAILURE",
    "EXIT_OK",
    "EXIT_UNMET",
    "TURN_S",
    "Output",
    "Progress",
    "Stop",
    "Stopwatch",
    "counted",
    "say",
]

EXIT_OK: Final = 0
"""Done."""
EXIT_UNMET: Final = 1
"""Something was lost, or a criterion was not met."""
EXIT_FAILURE: Final = 2
"""It could not be done."""
EXIT_ARGUMENTS: Final = 3
"""Bad arguments."""

TURN_S: Final = 0.1
"""Longest that a command waits for anything before it looks for a signal; Python resumes an
interrupted system call by itself, so a signal does not end the wait."""

_HORIZON_S: Final = 1e9
_PROGRESS_TERMINAL_S: Final = 1.0
_PROGRESS_FILE_S: Final = 10.0


def say(text: str) -> None:
    """Write a line to stderr; a stderr that nobody reads any more is no reason to stop."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        return


def counted(count: int, noun: str) -> str:
    """``1 message``, ``2,000 messages``."""
    return f"{count:,} {noun}" + "s" * (count != 1)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._end = Deadline(_HORIZON_S)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, never going back."""
        return _HORIZON_S - (self._end.left or 0.0)


class Progress:
    """A line on stderr now and then: every second on a terminal, every 10 s elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        interval_s = _PROGRESS_TERMINAL_S if sys.stderr.isatty() else _PROGRESS_FILE_S
        self._interval_s = None if quiet else interval_s
        self._next = Deadline(self._interval_s)
        self._shown_count = 0

    def is_due(self, count: int) -> bool:
        """True once an interval, if ``count`` has changed since it last was."""
        if not self._next.has_passed or count == self._shown_count:
            return False
        self._next = Deadline(self._interval_s)
        self._shown_count = count
        return True


class Output:
    """Bytes to stdout; remembers that the reader has gone instead of raising."""

    def __init__(self) -> None:
        self.is_closed = False
        """True when nobody reads stdout any more."""

    def write(self, data: bytes) -> None:
        """Write all of it and flush. Blocks while the reader is slow."""
        if self.is_closed:
            return
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            self.is_closed = True
            # The interpreter flushes stdout once more when it ends; let that go nowhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


class Stop:
    """In a ``with`` block: whether a signal has asked the command to end. Main thread only."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.is_asked = False
        """True once a signal has come."""

    def wait(self, timeout: float) -> bool:
        """Sleep for ``timeout`` seconds or until a signal comes; True if one has come."""
        deadline = Deadline(timeout)
        while not self.is_asked and not deadline.has_passed:
            select.select((), (), (), min(TURN_S, deadline.left or 0.0))
        return self.is_asked

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.is_asked = True
        signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> Self:
        for number in self._SIGNALS:
            # What the caller ignores, as nohup does, stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in self._SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                default = number is signal.SIGINT
                signal.signal(number, signal.default_int_handler if default else signal.SIG_DFL)
