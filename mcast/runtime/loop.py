"""The event loop: one thread, one clock read a turn, every link's descriptors and timers.

Owns the epoll set, the thread and the shared receive buffers. Links are touched by this thread,
or by others under the link's own lock. Invariant: a link's timer is served on time although other
threads move it: before it sleeps the loop first declares that it sleeps for ever, then looks at
the timers, then says until when; whoever moves a timer looks at that declaration afterwards.
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

from mcast.kernel import UdpReader

__all__ = ["Link", "Loop"]

_log = logging.getLogger("mcast")

_NEVER: Final = 1 << 62
_AWAKE: Final = 0
_PRECISE_NS: Final = 20_000_000
"""Sleeps shorter than this are measured in microseconds; epoll counts milliseconds."""
_LONGEST_SLEEP_S: Final = 60.0


class Link(Protocol):
    """What the loop drives."""

    @property
    def next_timeout_ns(self) -> int:
        """When to call ``handle_timeout``."""

    def handle_timeout(self, now_ns: int) -> None:
        """Do what is due."""

    def handle_readable(self, now_ns: int, fd: int, reader: UdpReader) -> None:
        """Read what has arrived at ``fd``."""

    def handle_writable(self) -> None:
        """Go on sending."""

    def fail(self) -> None:
        """A bug: this link is over, the others live on."""


class Loop:
    """The thread of one context. ``start`` and ``stop`` once each; the rest from any thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._links: list[Link] = []
        self._by_fd: dict[int, Link] = {}
        self._mailbox: deque[Callable[[], None]] = deque()
        self._sleeps_until_ns = _AWAKE
        self._running = True
        self._reader = UdpReader()
        self._thread = threading.Thread(target=self._run, name="mcast-loop", daemon=True)
        self.turn_count = 0
        """Times round the loop."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and give back its descriptors; blocks until it has ended."""

        def end() -> None:
            self._running = False

        self.call(end)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def abandon(self) -> None:
        """In a forked child: close the descriptors; the thread exists in the parent only."""
        self._epoll.close()
        os.close(self._wake_fd)

    def call(self, function: Callable[[], None]) -> None:
        """Have the loop thread call ``function`` soon."""
        self._mailbox.append(function)
        self._wake()

    def wake_before(self, deadline_ns: int) -> None:
        """Make sure that the loop is awake at ``deadline_ns``, for a timer that just moved."""
        if deadline_ns < self._sleeps_until_ns:
            self._sleeps_until_ns = _AWAKE  # one wake-up is enough
            self._wake()

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
            self._epoll.unregister(fd)
            self._reader.forget(fd)

    def watch_writable(self, link: Link, fd: int, wanted: bool) -> None:
        """Call ``handle_writable`` when ``fd`` takes data again, or stop doing so."""
        if wanted and fd not in self._by_fd:
            self._by_fd[fd] = link
            self._epoll.register(fd, select.EPOLLOUT)
        elif not wanted and self._by_fd.get(fd) is link:
            del self._by_fd[fd]
            self._epoll.unregister(fd)

    # The thread.

    def _wake(self) -> None:
        try:
            os.eventfd_write(self._wake_fd, 1)
        except OSError:  # the loop has ended; nobody needs waking
            return

    def _run(self) -> None:
        try:
            while self._running:
                ready = self._sleep()
                self.turn_count += 1
                now_ns = monotonic_ns()
                for fd, mask in ready:
                    self._serve(fd, mask, now_ns)
                while self._mailbox:
                    self._mailbox.popleft()()
                for link in self._links[:]:
                    if link.next_timeout_ns <= now_ns:
                        self._guard(link, partial(link.handle_timeout, now_ns))
        finally:
            self._epoll.close()
            os.close(self._wake_fd)
            self._wake_fd = -1

    def _sleep(self) -> list[tuple[int, int]]:
        """Wait for the next timer or descriptor; what is ready."""
        self._sleeps_until_ns = _NEVER
        due_ns = min((link.next_timeout_ns for link in self._links), default=_NEVER)
        if self._mailbox:
            due_ns = 0
        if self._sleeps_until_ns == _AWAKE:
            due_ns = 0  # somebody moved a timer meanwhile
        self._sleeps_until_ns = due_ns
        left_ns = due_ns - monotonic_ns()
        if 0 < left_ns < _PRECISE_NS and self._epoll.fileno() < 1024:
            select.select((self._epoll,), (), (), left_ns / 1e9)
            left_ns = 0
        ready = self._epoll.poll(min(max(0.0, left_ns / 1e9), _LONGEST_SLEEP_S))
        self._sleeps_until_ns = _AWAKE
        return ready

    def _serve(self, fd: int, mask: int, now_ns: int) -> None:
        if fd == self._wake_fd:
            os.eventfd_read(fd)
            return
        link = self._by_fd.get(fd)
        if link is None:
            return
        if mask & select.EPOLLOUT:
            self._guard(link, link.handle_writable)
        if mask & ~select.EPOLLOUT:
            self._guard(link, partial(link.handle_readable, now_ns, fd, self._reader))

    def _guard(self, link: Link, method: Callable[[], None]) -> None:
        """A bug in one link ends that link, not the loop."""
        try:
            method()
        except Exception:
            _log.exception("an endpoint failed; the others go on")
            self.remove(link)
            link.fail()
