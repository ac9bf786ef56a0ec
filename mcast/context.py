"""The context: owns the event-loop thread and every socket made from it.

Invariants: sockets close before the loop stops; closing takes no longer than the longest linger;
a forked child can use nothing of its parent's and says so.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable
from threading import Lock
from types import TracebackType
from typing import Literal, overload
from weakref import WeakSet

from mcast import kernel
from mcast.errors import ClosedError, ForkedError, OptionError
from mcast.options import OptionValue, SocketOptions
from mcast.runtime.deadline import Deadline
from mcast.runtime.loop import Loop
from mcast.sockets import PUB, SUB, Pub, Socket, SocketType, Sub

__all__ = ["Context"]

_contexts: WeakSet[Context] = WeakSet()


class Context:
    """Makes sockets, and runs the one thread that serves them all.

    Use it in a ``with`` block: leaving it closes the sockets, waits for what they still have to
    send or repair (at most the longest ``linger``) and stops the thread. Keyword arguments are
    defaults for the options of its sockets. Thread-safe. A forked child needs a Context of its own.

    Raises: OptionError for an unknown option or a value out of range.
    """

    def __init__(self, **defaults: OptionValue) -> None:
        self._defaults = SocketOptions().with_changes(defaults)
        self._lock = Lock()
        self._sockets: list[Socket] = []
        self._loop: Loop | None = None
        self._error: ClosedError | None = None
        _contexts.add(self)

    @overload
    def socket(self, kind: Literal[SocketType.PUB], **options: OptionValue) -> Pub: ...
    @overload
    def socket(self, kind: Literal[SocketType.SUB], **options: OptionValue) -> Sub: ...
    @overload
    def socket(self, kind: SocketType, **options: OptionValue) -> Socket: ...
    def socket(self, kind: SocketType, **options: OptionValue) -> Socket:
        """A new socket of this kind, ``mcast.PUB`` or ``mcast.SUB``, with options by keyword.

        Raises: OptionError for an unknown kind, option or value; ClosedError after ``term``.
        """
        if self._error is not None:
            raise self._error
        made: Socket
        checked = self._defaults.with_changes(options)
        with self._lock:
            if self._loop is None:
                self._loop = Loop()
                self._loop.start()
            if kind == PUB:
                made = Pub(self._loop, checked)
            elif kind == SUB:
                made = Sub(self._loop, checked)
            else:
                raise OptionError(f"kind is mcast.PUB or mcast.SUB, not {kind!r}")
            self._sockets = [socket for socket in self._sockets if not socket.finished]
            self._sockets.append(made)
        return made

    @property
    def closed(self) -> bool:
        """True after ``term``, and in a forked child."""
        return self._error is not None

    def stats(self) -> dict[str, object]:
        """The kernel in use, turns of the loop, and the counters of every open socket."""
        if self._error is not None:
            raise self._error
        sockets = [socket for socket in self._sockets if not socket.closed]
        return {
            "kernel": kernel.NAME,
            "loop_turns": self._loop.turn_count if self._loop is not None else 0,
            "sockets": [socket.stats() for socket in sockets],
        }

    def term(self, linger: float | None = None) -> None:
        """Close every socket and stop the thread; a second call does nothing.

        Blocks until what was sent has left and repairs have been quiet for a quarter of a second,
        or the linger (``linger`` seconds, None: each socket's own) is over.
        """
        with self._lock:
            if self._error is not None:
                return
            self._error = ClosedError("the context was closed; make a new one")
            sockets, self._sockets = self._sockets, []
            loop, self._loop = self._loop, None
        for socket in sockets:
            socket.close(linger)
        _wait_for(sockets)
        if loop is not None:
            loop.stop()

    destroy = term

    def __enter__(self) -> Context:
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.term()

    def __del__(self) -> None:
        if self._error is None and not sys.is_finalizing():
            self.term()

    def _abandon(self) -> None:
        """In a forked child: nothing of this works here any more, and no lock may be taken."""
        self._error = ForkedError("the context belongs to the parent process; make a new one here")
        for socket in self._sockets:
            socket._abandon()
        if self._loop is not None:
            self._loop.abandon()


def _wait_for(sockets: Iterable[Socket]) -> None:
    """Until all have finished; each knows its own linger, half a second on top is for the loop."""
    for socket in sockets:
        deadline = Deadline(socket.linger + 0.5)
        for link in socket.links:
            link.closed.wait(deadline.left)


def _after_fork_in_child() -> None:
    for context in list(_contexts):
        context._abandon()
    _contexts.clear()


def _at_exit() -> None:
    for context in list(_contexts):
        context.term()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
