"""The context: owns the event-loop thread and every socket made from it.

Invariants: sockets close before the loop stops; closing takes no longer than the longest linger;
a forked child can use nothing of its parent's and says so; what nobody closes is closed when it is
collected, or as the interpreter exits, and its linger is kept.
"""

from __future__ import annotations

import atexit
import os
from threading import RLock
from types import TracebackType
from typing import Final, Literal, overload
from weakref import WeakSet

from mcast import kernel
from mcast.errors import ClosedError, ForkedError, OptionError
from mcast.options import OptionValue, SocketOptions, environment_options
from mcast.runtime.deadline import Deadline
from mcast.runtime.loop import Loop
from mcast.runtime.metrics import Metrics
from mcast.runtime.status import open_status, status_setting
from mcast.sockets import (
    PUB,
    SUB,
    Dealer,
    Dish,
    Pair,
    Pub,
    Pull,
    Push,
    Radio,
    Rep,
    Req,
    Router,
    Socket,
    SocketType,
    Sub,
    Xpub,
    Xsub,
)
from mcast.sockets.base import check_kind
from mcast.sockets.roll import Roll

__all__ = ["GRACE_S", "Context"]

GRACE_S: Final = 0.5
"""What closing may take beyond the linger: the loop has other links to serve."""

_CLASSES: Final[dict[SocketType, type[Socket]]] = {
    made.kind: made
    for made in (
        Pub,
        Sub,
        Pair,
        Req,
        Rep,
        Dealer,
        Router,
        Pull,
        Push,
        Xpub,
        Xsub,
        Radio,
        Dish,
    )
}
_UNICAST_DEFAULTS: Final[dict[str, OptionValue]] = {"sndhwm": 1000, "rcvhwm": 1000}
"""As libzmq: each peer has queues of its own, where a group has one."""

_contexts: WeakSet[Context] = WeakSet()
_contexts_lock = RLock()
"""For whoever adds to them or walks through them, which breaks off when the set grows meanwhile."""
_loops: set[Loop] = set()
"""Those at work, also for sockets whose context was collected."""


class Context:
    """Makes sockets, and runs the one thread that serves them all.

    Use it in a ``with`` block: leaving it closes the sockets, waits for what they still have to
    send or repair (at most the longest ``linger``) and stops the thread. Keyword arguments are
    defaults for the options of its sockets. Thread-safe. A forked child needs a Context of its own.
    Without ``with`` or ``term`` the same happens in the background when the context and all its
    sockets are collected, and as the interpreter exits.

    Raises: OptionError for an unknown option or a value out of range.
    """

    def __init__(
        self,
        *,
        loop: str = "thread",
        busy_poll: bool = False,
        status: bool | None = None,
        metrics: str | None = None,
        **defaults: OptionValue,
    ) -> None:
        """``loop="caller"`` makes no thread: a call that waits (``recv``, ``poll``, a ``send`` that
        blocks) does the protocol's work meanwhile, and ``send`` a little of it in passing. Lower
        latency, but a publisher repairs, and announces itself, only while it is in such a call:
        ``poll`` regularly. Messages then leave at once (``coalesce`` is 0 unless you set it). With
        ``busy_poll=True`` it spins instead of sleeping: the lowest latency, at the cost of a core.

        ``status`` opens a socket in a directory of yours alone where ``mcast stat`` reads the
        counters; None: unless ``MCAST_STATUS=off``, and if it can be had. ``metrics=":9404"``
        serves them to Prometheus by HTTP, on 127.0.0.1 where no address is named; it needs the
        extra ``metrics``. Raises: TransportError if one that is asked for cannot be opened.
        """
        self._error: ClosedError | None = ClosedError("the context was not made")
        if loop not in ("thread", "caller"):
            raise OptionError(f'loop is "thread" or "caller", not {loop!r}')
        if busy_poll and loop == "thread":
            raise OptionError('busy_poll spins in the caller\'s thread: it needs loop="caller"')
        self._threaded = loop == "thread"
        self._busy_poll = busy_poll
        if not self._threaded:
            defaults.setdefault("coalesce", 0.0)
        self._defaults = SocketOptions().with_changes(environment_options() | defaults)
        self._given = defaults
        self._status = status_setting(status)
        self._lock = RLock()  # a signal handler may end the context from within
        self._sockets: WeakSet[Socket] = WeakSet()  # they keep the context alive, not it them
        self._loop: Loop | None = None
        self._roll = Roll()
        self._metrics = None if metrics is None else Metrics(metrics, self._roll.describe)
        self._error = None
        with _contexts_lock:
            _contexts.add(self)

    @overload
    def socket(self, kind: Literal[SocketType.PUB], **options: OptionValue) -> Pub: ...
    @overload
    def socket(self, kind: Literal[SocketType.SUB], **options: OptionValue) -> Sub: ...
    @overload
    def socket(self, kind: Literal[SocketType.PAIR], **options: OptionValue) -> Pair: ...
    @overload
    def socket(self, kind: Literal[SocketType.REQ], **options: OptionValue) -> Req: ...
    @overload
    def socket(self, kind: Literal[SocketType.REP], **options: OptionValue) -> Rep: ...
    @overload
    def socket(self, kind: Literal[SocketType.DEALER], **options: OptionValue) -> Dealer: ...
    @overload
    def socket(self, kind: Literal[SocketType.ROUTER], **options: OptionValue) -> Router: ...
    @overload
    def socket(self, kind: Literal[SocketType.PULL], **options: OptionValue) -> Pull: ...
    @overload
    def socket(self, kind: Literal[SocketType.PUSH], **options: OptionValue) -> Push: ...
    @overload
    def socket(self, kind: Literal[SocketType.XPUB], **options: OptionValue) -> Xpub: ...
    @overload
    def socket(self, kind: Literal[SocketType.XSUB], **options: OptionValue) -> Xsub: ...
    @overload
    def socket(self, kind: Literal[SocketType.RADIO], **options: OptionValue) -> Radio: ...
    @overload
    def socket(self, kind: Literal[SocketType.DISH], **options: OptionValue) -> Dish: ...
    @overload
    def socket(self, kind: SocketType, **options: OptionValue) -> Socket: ...
    def socket(self, kind: SocketType, **options: OptionValue) -> Socket:
        """A new socket of this kind, such as ``mcast.PUB``, with options by keyword.

        ``sndhwm`` and ``rcvhwm`` are 1,000 unless set, as in libzmq, but for PUB and SUB.

        Raises: OptionError for an unknown kind, option or value; ClosedError after ``term``.
        """
        self._check()
        make = _CLASSES.get(kind)
        if make is None:
            known = ", ".join(f"mcast.{each.name}" for each in _CLASSES)
            raise OptionError(f"kind is one of {known}, not {kind!r}")
        check_kind(kind, options)
        if kind not in (PUB, SUB):
            options = {**_UNICAST_DEFAULTS, **self._given, **options}
        checked = self._defaults.with_changes(options)
        with self._lock:
            self._check()
            if self._loop is None:
                loop = Loop(threaded=self._threaded, busy_poll=self._busy_poll)
                open_status(loop, self._status, self._roll.describe)
                self._loop = loop
                _loops.add(loop)
                loop.ended.add(lambda: _loops.discard(loop))
                loop.start()
            made = make(self._loop, checked, owner=self)
            self._sockets.add(made)
            self._roll.add(made)
            if self._error is not None:  # a signal handler ended the context meanwhile
                made.close()
                self._loop.finish()
                self._check()
        return made

    @property
    def closed(self) -> bool:
        """True after ``term``, and in a forked child."""
        return self._error is not None

    def stats(self) -> dict[str, object]:
        """The kernel in use, turns of the loop, and the counters of every open socket."""
        self._check()
        with self._lock:
            sockets, loop = list(self._sockets), self._loop
        counts = []
        for socket in sockets:
            try:
                counts.append(socket.stats())
            except ClosedError:  # it may be closed at any moment
                continue
        return {
            "kernel": kernel.NAME,
            "loop_turns": loop.turn_count if loop is not None else 0,
            "sockets": counts,
        }

    @property
    def metrics_address(self) -> str | None:
        """Where Prometheus finds the counters, as ``host:port``; None without ``metrics``."""
        return None if self._metrics is None else self._metrics.address

    def term(self, linger: float | None = None) -> None:
        """Close every socket and stop the thread; a second call does nothing.

        Blocks until what was sent has left and repairs have been quiet for a quarter of a second,
        or the linger (``linger`` seconds, None: each socket's own) is over.

        Raises: OptionError for a linger out of range; nothing is closed then.
        """
        closing = self._begin_term(linger)
        if closing is not None:
            loop, longest_s = closing
            loop.join(longest_s + GRACE_S)
        if self._metrics is not None:
            self._metrics.join(GRACE_S)

    destroy = term

    def _begin_term(self, linger: float | None) -> tuple[Loop, float] | None:
        """Close everything without waiting: the loop that ends, and the longest linger."""
        if linger is not None:
            self._defaults.with_changes({"linger": linger})
        with self._lock:
            if self._error is not None:
                return None
            self._error = ClosedError("the context was closed; make a new one")
            sockets = list(self._sockets)
            loop, self._loop = self._loop, None
        if self._metrics is not None:
            self._metrics.close()
        for socket in sockets:
            socket.close(linger)
        if loop is None:
            return None
        loop.finish()
        # Links that were left before, or whose socket was collected, have lingers of their own.
        lingers = [socket.linger for socket in sockets]
        return loop, max(loop.ends_within_s, *lingers, 0.0)

    def __enter__(self) -> Context:
        self._check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.term()

    def __del__(self) -> None:
        # Any thread may get here, within any call: nothing that blocks or takes a lock. The
        # sockets are being collected, too, and tell their links to close.
        if self._error is None and self._loop is not None:
            self._loop.finish()
        if self._error is None and self._metrics is not None:
            self._metrics.close()

    def _check(self) -> None:
        if self._error is not None:
            raise type(self._error)(*self._error.args)

    def _abandon(self) -> None:
        """In a forked child: nothing of this works here any more, and no lock may be taken."""
        self._lock = RLock()  # whoever held the old one exists in the parent only
        self._error = ForkedError("the context belongs to the parent process; make a new one here")
        if self._metrics is not None:
            self._metrics.abandon()
        for socket in list(self._sockets):
            socket._abandon()


def _after_fork_in_child() -> None:
    global _contexts_lock
    _contexts_lock = RLock()
    for context in list(_contexts):
        context._abandon()
    for loop in list(_loops):
        loop.abandon()
    _contexts.clear()
    _loops.clear()


def _at_exit() -> None:
    """Let publishers finish. Nobody who still waits is woken: daemon threads end where they are."""
    longest_s = SocketOptions().linger  # of sockets that were collected just now
    with _contexts_lock:
        contexts = list(_contexts)
    for context in contexts:
        if context._error is None:
            with context._lock:
                sockets = list(context._sockets)
            for socket in sockets:
                longest_s = max(longest_s, socket._leave_at_exit())
    loops = list(_loops)
    for loop in loops:
        loop.finish()
        longest_s = max(longest_s, loop.ends_within_s)
    deadline = Deadline(longest_s + GRACE_S)
    for loop in loops:
        loop.join(deadline.left)


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
