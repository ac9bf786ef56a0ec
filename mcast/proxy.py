"""Proxies: two sockets joined, each getting what the other receives; a broker in one call.

Owns what was received and could not be sent on yet, at most one batch in each direction.
Invariant: it receives from one side only while the other took everything before, so that
back-pressure goes through it and nothing is dropped that the socket types do not drop, but for
what the other side can never take, which is counted.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from mcast.errors import (
    Again,
    ClosedError,
    ForkedError,
    MessageTooLongError,
    OptionError,
    PatternError,
    UnroutableError,
)
from mcast.runtime.queues import wait_any
from mcast.sockets import POLLIN, POLLOUT, Socket
from mcast.sockets.patterns import PatternSocket
from mcast.sockets.pub import Pub
from mcast.stats import Snapshot

__all__ = ["Proxy", "proxy", "proxy_steerable"]

_BATCH: Final = 1000


class _State(Enum):
    RUNNING = auto()
    PAUSED = auto()
    OVER = auto()


def proxy(frontend: Socket, backend: Socket, capture: Socket | None = None) -> None:
    """Hand on what ``frontend`` receives to ``backend``, and the other way round, until one closes.

    Runs in the calling thread, and returns when one of the sockets is closed. ``capture`` (PUB,
    PUSH, PAIR, DEALER) gets a copy of every message, as far as it takes it at once. Useful pairs:
    ROUTER and DEALER (a broker of requests), XSUB and XPUB (a forwarder), PULL and PUSH.

    Raises: PatternError if a socket is of a context with ``loop="caller"``.
    """
    Proxy(frontend, backend, capture).run()


def proxy_steerable(
    frontend: Socket,
    backend: Socket,
    capture: Socket | None = None,
    control: PatternSocket | None = None,
) -> None:
    """As ``proxy``, steered by what ``control`` (PAIR, REP, PULL or SUB) receives.

    ``PAUSE``, ``RESUME`` and ``TERMINATE``; ``STATISTICS`` is answered by a PAIR or REP with eight
    parts, as libzmq does: messages and bytes received and sent by the frontend, then the backend,
    each in text. A REP answers the other commands with an empty part.
    """
    Proxy(frontend, backend, capture, control).run()


class Proxy:
    """One proxy; ``run`` does its work. See ``proxy``."""

    def __init__(
        self,
        frontend: Socket,
        backend: Socket,
        capture: Socket | None = None,
        control: Socket | None = None,
    ) -> None:
        for each in (frontend, backend, control):
            if each is not None:
                each._check_descriptor()  # refuses a context without a thread
        if capture is not None and not capture.can_poll(POLLOUT):
            raise OptionError(f"capture is a socket that sends, not {capture.kind.name}")
        if control is not None and not control.can_poll(POLLIN):
            raise OptionError(f"control is a socket that receives, not {control.kind.name}")
        self._capture = capture
        self._control = control
        self._forth = _Lane(frontend, backend, capture)
        self._back = _Lane(backend, frontend, capture)
        self._lanes = (self._forth, self._back) if frontend is not backend else (self._forth,)
        self._state = _State.RUNNING

    def stats(self) -> Snapshot:
        """Messages and bytes handed on, by direction. Any thread."""
        return {
            "frontend_messages": self._forth.message_count,
            "frontend_bytes": self._forth.byte_count,
            "backend_messages": self._back.message_count,
            "backend_bytes": self._back.byte_count,
            "dropped": self._forth.dropped_count + self._back.dropped_count,
        }

    def run(self) -> None:
        """Hand on messages until TERMINATE, or until one of the sockets is closed."""
        waiters = [
            each._waiters_for(flag)
            for each in {lane.source for lane in self._lanes} | {lane.sink for lane in self._lanes}
            for flag in (POLLIN, POLLOUT)
            if each.can_poll(flag)
        ]
        if self._control is not None:
            waiters.append(self._control._waiters_for(POLLIN))
        try:
            while self._state is not _State.OVER:
                wait_any(waiters, self._is_ready, None)
                if self._control is not None:
                    self._obey(self._control)
                if self._state is _State.RUNNING:
                    for lane in self._lanes:
                        lane.move()
        except ForkedError:
            raise
        except ClosedError:
            return

    def _is_ready(self) -> bool:
        if self._control is not None and (self._control.closed or self._control.poll(0, POLLIN)):
            return True
        if any(lane.source.closed or lane.sink.closed for lane in self._lanes):
            return True
        return self._state is _State.RUNNING and any(lane.is_ready() for lane in self._lanes)

    def _obey(self, control: Socket) -> None:
        try:
            command = control.recv_multipart(timeout=0)
        except Again:
            return
        answer: list[bytes] = [b""]
        match command:
            case [b"PAUSE"]:
                self._state = _State.PAUSED
            case [b"RESUME"]:
                self._state = _State.RUNNING
            case [b"TERMINATE"]:
                self._state = _State.OVER
            case [b"STATISTICS"]:
                forth, back = self._forth, self._back
                counts = (
                    *(forth.message_count, forth.byte_count),
                    *(back.sent_count, back.sent_bytes),
                    *(back.message_count, back.byte_count),
                    *(forth.sent_count, forth.sent_bytes),
                )
                answer = [b"%d" % count for count in counts]
            case _:
                answer = [b"unknown command"]
        is_question = command == [b"STATISTICS"] and control.can_poll(POLLOUT)
        if is_question or control.kind.name == "REP":
            control.send_multipart(answer)


class _Lane:
    """One direction."""

    def __init__(self, source: Socket, sink: Socket, capture: Socket | None) -> None:
        self.source = source
        self.sink = sink
        self._capture = capture
        self._can_move = source.can_poll(POLLIN) and sink.can_poll(POLLOUT)
        self._pending: list[list[bytes]] = []
        self.message_count = self.byte_count = 0
        """Received."""
        self.sent_count = self.sent_bytes = 0
        """Sent on."""
        self.dropped_count = 0
        """What the other side never takes: too long, too many parts, for nobody it knows."""

    def is_ready(self) -> bool:
        """True if ``move`` would do something."""
        if not self._can_move or not self.sink.poll(0, POLLOUT):
            return False
        return bool(self._pending) or bool(self.source.poll(0, POLLIN))

    def move(self) -> None:
        """Hand on a batch, as far as the other side takes it."""
        if not self._can_move:
            return
        if not self._pending:
            if not self.sink.poll(0, POLLOUT):
                return
            try:
                self._pending = self.source.recv_many_multipart(_BATCH, timeout=0)
            except Again:
                return
            self.message_count += len(self._pending)
            self.byte_count += _size(self._pending)
            self._copy(self._pending)
        try:
            sent = _send_many(self.sink, self._pending)
        except (OptionError, MessageTooLongError, UnroutableError):
            sent = self._send_what_passes()
        self.sent_count += sent
        self.sent_bytes += _size(self._pending[:sent])
        del self._pending[:sent]

    def _send_what_passes(self) -> int:
        """Send up to the first that has to wait; drop and count what the sink never takes."""
        sent = 0
        while sent < len(self._pending):
            try:
                if not _send_many(self.sink, self._pending[sent : sent + 1]):
                    break
                sent += 1
            except (OptionError, MessageTooLongError, UnroutableError):
                del self._pending[sent]
                self.dropped_count += 1
        return sent

    def _copy(self, batch: list[list[bytes]]) -> None:
        if self._capture is not None:
            try:
                _send_many(self._capture, batch)
            except (OptionError, MessageTooLongError, UnroutableError):
                self.dropped_count += len(batch)


def _send_many(sink: Socket, batch: list[list[bytes]]) -> int:
    if isinstance(sink, PatternSocket):
        return sink.send_many_multipart(batch, timeout=0)
    if not isinstance(sink, Pub):
        raise PatternError(f"a {sink.kind.name} socket cannot send")
    for sent, parts in enumerate(batch):
        try:
            sink.send_multipart(parts, timeout=0)
        except Again:
            return sent
    return len(batch)


def _size(batch: list[list[bytes]]) -> int:
    return sum(sum(map(len, parts)) for parts in batch)
