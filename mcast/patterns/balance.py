"""How messages are shared out: fair queueing, load balancing, and one copy for each of many.

Owns the three mixins that the socket types are put together from. Invariants: ``FairQueued`` takes
one message in turn from each pipe that has any; ``Balanced`` gives one in turn to each pipe that is
open, which are exactly those in ``_ready``. The batch calls do the same, by slices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from random import Random
from typing import Final

from mcast.kernel import Message
from mcast.patterns.base import Pattern, Pipe, take
from mcast.patterns.events import SendResult
from mcast.patterns.options import QueueOptions

__all__ = ["Balanced", "Distributing", "FairQueued"]

_DEPARTED_INBOXES: Final = 16
"""Full inboxes of peers that left, beyond which nobody is read from until some are taken.

Else a peer that sends, leaves and comes again could fill the memory. Guessed; libzmq has no limit.
"""

_SENT: Final = SendResult.SENT
_WOULD_BLOCK: Final = SendResult.WOULD_BLOCK


class FairQueued(Pattern):
    """Receives one message in turn from each peer that has sent any; full inboxes push back."""

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._active: deque[Pipe] = deque()  # those with messages; some may be detached already
        self._departed: dict[Pipe, int] = {}  # detached ones, and what each had in its inbox
        self._departed_count = 0
        super().__init__(options, dice)

    def handle_messages(self, number: int, batch: Sequence[Message]) -> None:
        """Queue what came by this pipe."""
        self.counters.messages_received += len(batch)
        pipe = self._pipes.get(number)
        if pipe is None:
            self.counters.dropped_unexpected += len(batch)
        elif batch:
            self._receive(pipe, batch)

    def _receive(self, pipe: Pipe, batch: Sequence[Message]) -> None:
        """Queue a batch that is not empty."""
        inbox = pipe.inbox
        if not inbox:
            self._active.append(pipe)
        if inbox.maxlen is not None:
            self.counters.conflated += len(inbox) + len(batch) - 1
        inbox.extend(batch)
        if len(inbox) >= self._rcvhwm:
            pipe.is_paused = True

    def recv(self) -> Message | None:
        """The next message, or None if there is none now."""
        active = self._active
        if not active:
            return None
        pipe = active[0]
        inbox = pipe.inbox
        message = inbox.popleft()
        if inbox:
            active.rotate(-1)
        else:
            active.popleft()
        if pipe.is_paused and len(inbox) <= self._rcvlow:
            self._relieve(pipe)
        return message

    def recv_many(self, limit: int) -> list[Message]:
        """Up to ``limit`` messages, as by so many calls of ``recv``."""
        taken: list[Message] = []
        active = self._active
        while active and len(taken) < limit:
            rounds = (limit - len(taken)) // len(active)
            if not rounds:
                message = self.recv()
                assert message is not None
                taken.append(message)
                continue
            rounds = min(rounds, min(len(pipe.inbox) for pipe in active))
            if len(active) == 1:
                taken += take(active[0].inbox, rounds)
            else:
                columns = [take(pipe.inbox, rounds) for pipe in active]
                taken.extend(chain.from_iterable(zip(*columns, strict=True)))
            for _ in repeat(None, len(active)):
                pipe = active[0]
                if pipe.inbox:
                    active.rotate(-1)
                else:
                    active.popleft()
                if pipe.is_paused and len(pipe.inbox) <= self._rcvlow:
                    self._relieve(pipe)
        return taken

    def room_for(self, number: int) -> int:
        """How many messages of this peer have room now."""
        pipe = self._pipes.get(number)
        if pipe is None or not pipe.is_connected or pipe.is_paused or self._is_backed_up:
            return 0
        return self._rcvhwm - len(pipe.inbox)

    @property
    def is_readable(self) -> bool:
        """True if ``recv`` would give a message."""
        return bool(self._active)

    @property
    def _is_backed_up(self) -> bool:
        return self._departed_count >= _DEPARTED_INBOXES * self._rcvhwm

    def _removed(self, pipe: Pipe) -> None:
        super()._removed(pipe)
        if pipe.inbox:
            pipe.is_paused = True  # so that ``recv`` comes by ``_relieve``
            self._departed[pipe] = len(pipe.inbox)
            self._departed_count += len(pipe.inbox)

    def _relieve(self, pipe: Pipe) -> None:
        """A paused pipe has been drained to the low-water mark."""
        if pipe not in self._departed:
            self._resume(pipe)
        elif not pipe.inbox:
            was_backed_up = self._is_backed_up
            self._departed_count -= self._departed.pop(pipe)
            if was_backed_up and not self._is_backed_up:
                self._resumed += [
                    other.number for other in self._pipes.values() if other.is_connected
                ]


class Balanced(Pattern):
    """Sends one message in turn to each peer with room; without any, sending would block."""

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._ready: deque[Pipe] = deque()
        super().__init__(options, dice)

    def _open(self, pipe: Pipe) -> None:
        super()._open(pipe)
        self._ready.append(pipe)

    def _shut(self, pipe: Pipe) -> None:
        super()._shut(pipe)
        self._ready.remove(pipe)

    def send(self, message: Message) -> SendResult:
        """Queue the message for the next peer in turn."""
        ready = self._ready
        if not ready:
            return _WOULD_BLOCK
        pipe = ready[0]
        outbox = pipe.outbox
        if outbox.maxlen is not None:
            self.counters.conflated += len(outbox)
        outbox.append(message)
        if not pipe.is_loaded:
            self._load(pipe)
        if len(outbox) >= self._sndhwm:
            self._shut(pipe)
        else:
            ready.rotate(-1)
        return _SENT

    def send_many(self, batch: Sequence[Message]) -> int:
        """How many of ``batch`` were sent, as by so many calls of ``send``."""
        sent, total = 0, len(batch)
        ready = self._ready
        while ready and sent < total:
            width = len(ready)
            if total - sent < width:  # not worth a look at every peer
                self.send(batch[sent])
                sent += 1
                continue
            rounds = min(self._sndhwm - len(pipe.outbox) for pipe in ready)
            end = min(total, sent + rounds * width)
            for place, pipe in enumerate(list(ready)):
                share = batch[sent + place : end : width]
                outbox = pipe.outbox
                if outbox.maxlen is not None:
                    self.counters.conflated += len(outbox) + len(share) - 1
                outbox.extend(share)
                if not pipe.is_loaded:
                    self._load(pipe)
            ready.rotate(-((end - sent) % width))
            for pipe in [pipe for pipe in ready if len(pipe.outbox) >= self._sndhwm]:
                self._shut(pipe)
            sent = end
        return sent

    @property
    def is_writable(self) -> bool:
        """True if some peer has room."""
        return bool(self._ready)


class Distributing(Pattern):
    """Gives each of several peers the same message, or drops it for one whose queue is full."""

    def _give(self, pipes: Iterable[Pipe], message: Message) -> None:
        for pipe in pipes:
            if not pipe.is_open:
                self.counters.dropped_at_hwm += 1
                continue
            outbox = pipe.outbox
            if outbox.maxlen is not None:
                self.counters.conflated += len(outbox)
            outbox.append(message)
            if not pipe.is_loaded:
                self._load(pipe)
            if len(outbox) >= self._sndhwm:
                self._shut(pipe)

    def _give_many(self, pipes: Iterable[Pipe], batch: Sequence[Message]) -> None:
        """``_give`` for each of a batch that is not empty."""
        for pipe in pipes:
            if not pipe.is_open:
                self.counters.dropped_at_hwm += len(batch)
                continue
            outbox = pipe.outbox
            if outbox.maxlen is not None:
                self.counters.conflated += len(outbox) + len(batch) - 1
            room = self._sndhwm - len(outbox)
            if len(batch) < room:
                outbox.extend(batch)
            else:
                self.counters.dropped_at_hwm += len(batch) - room
                outbox.extend(batch[:room])
                self._shut(pipe)
            if not pipe.is_loaded:
                self._load(pipe)

    @property
    def is_writable(self) -> bool:
        """True: what has no room is dropped."""
        return True

    @property
    def _has_room_everywhere(self) -> bool:
        return all(pipe.is_open or not pipe.is_usable for pipe in self._pipes.values())
