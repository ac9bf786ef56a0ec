"""The event loop: one thread, one clock read a turn, every link's descriptors and timers.

Owns the epoll set, the thread and the shared receive buffers. Links are touched by this thread,
or by others under the link's own lock. Invariant: a link's timer is served on time although other
threads move it: before it sleeps the loop first declares that it sleeps for ever, then looks at
the timers, then says until when; whoever moves a timer looks at that declaration afterwards. The
thread ends by ``finish`` only, after its last link: an exception ends the link it came from.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Final, Protocol

from mcast.kernel import Baton, StreamReader, UdpReader
from mcast.runtime.deadline import Deadline
from mcast.runtime.pipes import Switchboard
from mcast.runtime.queues import Drive, Waiters

__all__ = ["Guest", "Link", "Loop", "LoopDriver"]

_log = logging.getLogger("mcast")

_NEVER: Final = 1 << 62
_AWAKE: Final = 0
_READ_COUNT: Final = 16
"""Datagrams, or runs of up to 64 KiB, read at once."""
_BUFFER_BYTES: Final = 1 << 18
"""What is read from a stream at once; two thirds of a core's cache of 512 KiB stay free."""
_LONGEST_SLEEP_NS: Final = 60_000_000_000
_PATIENCE_S: Final = 0.01
"""How long a thread waits for another that does the loop's work, before it looks for itself."""
_ATTEND_IVL_NS: Final = 1_000_000
"""Without a thread, sending looks for NAKs so often; they come 10 ms after a loss, or later."""
_TURNS_PER_LOOK: Final = 64
"""While it spins, guests wait for so many turns: what they do must cost the links nothing."""


class Link(Protocol):
    """What the loop drives."""

    @property
    def next_timeout_ns(self) -> int:
        """When to call ``handle_timeout``."""

    @property
    def next_alarm_ns(self) -> int:
        """The same, but for what the baton attends to."""

    @property
    def gives_up_ns(self) -> int:
        """When a closing link is over at the latest; 2^62 while it is open."""

    def handle_timeout(self, now_ns: int) -> None:
        """Do what is due."""

    def handle_readable(self, now_ns: int, fd: int, reader: UdpReader) -> None:
        """Read what has arrived at ``fd``."""

    def handle_writable(self) -> None:
        """Go on sending."""

    def fail(self, error: Exception) -> None:
        """A bug: this link is over, the others live on."""

    def abandon(self) -> None:
        """In a forked child: close the descriptors, take no lock."""


class Guest(Protocol):
    """What the loop serves beside its links, and does not wait for when it ends."""

    def handle_ready(self, fd: int, mask: int) -> None:
        """Something can be read from ``fd``, or written to it."""

    def close(self) -> None:
        """The loop ends."""

    def abandon(self) -> None:
        """In a forked child: close the descriptors, take no lock."""


class Loop:
    """The thread of one context. ``start`` once; the rest from any thread.

    Not ``threaded``, it has none: ``drive`` does its work in the thread that waits for something,
    and ``attend`` a little of it in passing. With ``busy_poll`` it looks at the descriptors again
    and again instead of sleeping.
    """

    def __init__(self, *, threaded: bool = True, busy_poll: bool = False) -> None:
        self.driver_lock = threading.Lock()
        """Of a loop without a thread: whoever has it does the loop's work."""
        self.busy_poll = busy_poll
        self._attend_at_ns = 0
        self.attend_ivl_ns: int | None = None if threaded else _ATTEND_IVL_NS
        """How often a sender has to call ``attend``; None: nothing comes of it."""
        self.drive: Drive | None = None if threaded else self._drive
        """How to wait in a context without a thread."""
        self._epoll = select.epoll()
        self.baton = Baton(self._epoll.fileno())
        """Gets the loop thread the interpreter lock while others are busy with messages."""
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Reentrant: collecting a socket may call in here from within.
        self._wake_lock = threading.RLock()
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self.baton.wake = self._wake
        self._links: list[Link] = []
        self._by_fd: dict[int, Link] = {}
        self._watched: dict[int, tuple[Link, int, Callable[[int, int], None]]] = {}
        self.switchboard = Switchboard()
        """What the unicast sides of the context's sockets share."""
        self.stream_reader = StreamReader(_BUFFER_BYTES)
        """For whoever has the switchboard's lock."""
        self._guests: dict[int, Guest] = {}
        self._writable: set[int] = set()
        self._mailbox: deque[tuple[Callable[[], None], Link | None]] = deque()
        self._finishing = False
        self._reader = UdpReader(_READ_COUNT)
        self._thread = threading.Thread(target=self._run, name="mcast-loop", daemon=True)
        self.turn_count = 0
        """Times round the loop."""
        self.has_ended = False
        """The thread has given everything back."""
        self.ended = Waiters()
        """Whoever waits for the thread to end."""

    def start(self) -> None:
        """Start the thread, if there is to be one."""
        if self.drive is None:
            self._thread.start()

    def finish(self) -> None:
        """End the thread as soon as every link has closed. Does not block and takes no lock."""
        self._finishing = True
        self._wake()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended; False if it has not within ``timeout`` seconds."""
        if self.drive is not None:
            return self.drive(lambda: self.has_ended, timeout)
        if self._thread is threading.current_thread():
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def ends_within_s(self) -> float:
        """Seconds that the links which are closing may take at most."""
        gives_up_ns = [link.gives_up_ns for link in self._links[:]]
        last_ns = max((at_ns for at_ns in gives_up_ns if at_ns < _NEVER), default=0)
        return max(0.0, (last_ns - monotonic_ns()) / 1e9)

    def abandon(self) -> None:
        """In a forked child: close the descriptors; the thread exists in the parent only."""
        for link in self._links:
            link.abandon()
        for guest in self._guests.values():
            guest.abandon()
        wake_fd, self._wake_fd = self._wake_fd, -1
        if wake_fd >= 0:
            self._epoll.close()
            os.close(wake_fd)

    def call(self, function: Callable[[], None], link: Link | None = None) -> None:
        """Have the loop thread call ``function`` soon; an exception in it ends ``link``."""
        self._mailbox.append((function, link))
        self.baton.due_ns = 0
        self._wake()

    def wake_before(self, deadline_ns: int) -> None:
        """Make sure that the loop is awake at ``deadline_ns``, for a timer that just moved."""
        baton = self.baton
        baton.due_ns = min(baton.due_ns, deadline_ns)
        if deadline_ns < baton.sleeps_until_ns:
            baton.sleeps_until_ns = _AWAKE  # one wake-up is enough
            self._wake()

    def attend(self) -> None:
        """Without a thread, do what waits, now and then; else nothing. Never blocks."""
        if self.drive is not None and self.driver_lock.acquire(blocking=False):
            try:
                now_ns = monotonic_ns()
                if self.has_ended:
                    return
                if self._mailbox or now_ns >= self._attend_at_ns:
                    self._attend_at_ns = now_ns + _ATTEND_IVL_NS
                    self._turn(0)
            finally:
                self.driver_lock.release()

    def _drive(self, is_ready: Callable[[], bool], timeout: float | None) -> bool:
        """Do the loop's work until ``is_ready()``; False if ``timeout`` seconds run out first.

        One thread at a time does; another that waits looks again every hundredth of a second.
        """
        deadline = Deadline(timeout)
        was_served = False
        while not is_ready():
            left = deadline.left
            if left == 0 and was_served:
                return False
            patience_s = _PATIENCE_S if left is None else min(left, _PATIENCE_S)
            if not self.driver_lock.acquire(timeout=patience_s):
                was_served = True  # by the other thread
                continue
            try:
                if not self.has_ended:
                    self._turn(_NEVER if left is None else monotonic_ns() + int(left * 1e9))
            finally:
                self.driver_lock.release()
            was_served = True
        return True

    @property
    def driver(self) -> LoopDriver | None:
        """For an ``Intake``, how to do the loop's work; None if a thread does."""
        return None if self.drive is None else LoopDriver(self)

    def turn(self) -> None:
        """Once round without sleeping, for whoever has the driver's lock."""
        if not self.has_ended:
            self._turn(0)

    def overflow_count(self, fd: int) -> int:
        """Datagrams that the system dropped because the buffer of ``fd`` was full."""
        return self._reader.overflows.get(fd, 0)

    # For links, in the loop thread.

    def add(self, link: Link, fds: list[int]) -> None:
        """Serve this link from now on."""
        self._links.append(link)
        for fd in fds:
            self._by_fd[fd] = link
            self._epoll.register(fd, select.EPOLLIN)

    def remove(self, link: Link) -> None:
        """Forget a link, before it closes its descriptors."""
        if link in self._links:
            self._links.remove(link)
        for fd in [fd for fd, owner in self._by_fd.items() if owner is link]:
            del self._by_fd[fd]
            self._writable.discard(fd)
            self._epoll.unregister(fd)
            self._reader.forget(fd)
        for fd in [fd for fd, (owner, _, _) in list(self._watched.items()) if owner is link]:
            self.unwatch(fd)

    def watch_writable(self, link: Link, fd: int, wanted: bool) -> None:
        """Call ``handle_writable`` when ``fd`` takes data again, or stop doing so."""
        if wanted and fd not in self._by_fd:
            self._by_fd[fd] = link
            self._writable.add(fd)
            self._epoll.register(fd, select.EPOLLOUT)
        elif not wanted and self._by_fd.get(fd) is link:
            del self._by_fd[fd]
            self._writable.discard(fd)
            self._epoll.unregister(fd)

    # For links, in any thread, under a lock of theirs.

    def watch(self, link: Link, fd: int, mask: int, handler: Callable[[int, int], None]) -> None:
        """Call ``handler(now_ns, mask)`` when ``fd`` is ready for ``mask``; a bug in it ends
        ``link``."""
        known = fd in self._watched
        self._watched[fd] = (link, mask, handler)
        if known:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        """Stop doing so, before ``fd`` is closed."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # For guests, before ``start`` or in the loop thread.

    def host(self, guest: Guest, fd: int, mask: int = select.EPOLLIN) -> None:
        """Call ``handle_ready`` of ``guest`` when ``fd`` is ready."""
        self._guests[fd] = guest
        self._epoll.register(fd, mask)

    def dismiss(self, fd: int) -> None:
        """Do so no more; before the guest closes it."""
        del self._guests[fd]
        self._epoll.unregister(fd)

    # The thread.

    def _wake(self) -> None:
        with self._wake_lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        try:
            while not self.has_ended:
                self._turn(_NEVER)
        except Exception as error:  # a bug in the loop itself; nobody may wait for it for ever
            _log.exception("the event loop failed, and with it every endpoint of the context")
            for link in self._links[:]:
                self.remove(link)
                link.fail(error)
        finally:
            self._give_back()

    def _turn(self, until_ns: int) -> None:
        """Once round: sleep, at most until ``until_ns``, then serve whatever is ready or due."""
        ready = self._look() if self.busy_poll else self._sleep(until_ns)
        self.turn_count += 1
        now_ns = monotonic_ns()
        for fd, mask in ready:
            self._serve(fd, mask, now_ns)
        while self._mailbox:
            function, owner = self._mailbox.popleft()
            self._guard(owner, function)
        for link in self._links[:]:
            if link.next_timeout_ns <= now_ns:
                self._guard(link, partial(link.handle_timeout, now_ns))
        if self._finishing and not (self._links or self._mailbox):
            self._give_back()
        elif self.drive is not None:
            # First, then look: what is moved meanwhile makes it less.
            self.baton.due_ns = _NEVER
            due_ns = min((link.next_timeout_ns for link in self._links), default=_NEVER)
            self.baton.due_ns = 0 if self._mailbox else min(self.baton.due_ns, due_ns)

    def _give_back(self) -> None:
        if self.has_ended:
            return
        for guest in set(self._guests.values()):
            self._guard(None, guest.close)
        self._guests.clear()
        with self._wake_lock:
            wake_fd, self._wake_fd = self._wake_fd, -1
            self._epoll.close()
            os.close(wake_fd)
        self.has_ended = True
        self.ended.wake()

    def _look(self) -> list[tuple[int, int]]:
        """All descriptors, ready or not: asking each for data costs less than asking epoll."""
        ready = [
            (fd, select.EPOLLOUT if fd in self._writable else select.EPOLLIN) for fd in self._by_fd
        ]
        # A connection that is being made says so only by epoll; guests can wait.
        if self._watched or (self._guests and self.turn_count % _TURNS_PER_LOOK == 0):
            ready += [entry for entry in self._epoll.poll(0) if entry[0] not in self._by_fd]
        return ready

    def _sleep(self, until_ns: int) -> list[tuple[int, int]]:
        """Wait for the next timer or descriptor; what is ready."""
        baton = self.baton
        baton.sleeps_until_ns = _NEVER
        due_ns = min((link.next_alarm_ns for link in self._links), default=_NEVER)
        due_ns = min(due_ns, until_ns)
        if self._mailbox or (self._finishing and not self._links):
            due_ns = 0
        if baton.sleeps_until_ns == _AWAKE:
            due_ns = 0  # somebody moved a timer meanwhile
        baton.sleeps_until_ns = due_ns
        left_ns = due_ns - monotonic_ns()
        ready = baton.poll(min(left_ns, _LONGEST_SLEEP_NS))
        baton.sleeps_until_ns = _AWAKE
        return ready

    def _serve(self, fd: int, mask: int, now_ns: int) -> None:
        if fd == self._wake_fd:
            os.eventfd_read(fd)
            return
        link = self._by_fd.get(fd)
        if link is None:
            watched = self._watched.get(fd)
            if watched is not None:
                link, wanted, handler = watched
                if wanted & mask or mask & ~(select.EPOLLIN | select.EPOLLOUT):
                    self._guard(link, partial(handler, now_ns, mask))
            elif fd in self._guests:
                self._guard(None, partial(self._guests[fd].handle_ready, fd, mask))
            return
        if mask & select.EPOLLOUT:
            self._guard(link, link.handle_writable)
        if mask & ~select.EPOLLOUT:
            self._guard(link, partial(link.handle_readable, now_ns, fd, self._reader))

    def _guard(self, link: Link | None, method: Callable[[], None]) -> None:
        """A bug in one link ends that link, not the loop."""
        try:
            method()
        except Exception as error:
            _log.exception("an endpoint failed; the others go on")
            if link is not None:
                self.remove(link)
                link.fail(error)


class LoopDriver:
    """How a thread that waits for messages does the work of a loop without a thread."""

    def __init__(self, loop: Loop) -> None:
        self.lock = loop.driver_lock
        self.spins = loop.busy_poll
        self.turn = loop.turn
