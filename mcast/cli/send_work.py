"""What ``mcast send`` sends: the same content again and again, numbered, or line by line.

Owns the buffer that datagrams are built in and the counts of what left. Invariant: the numbers of a
group go up by one with every datagram that the kernel took, and by one for none that it did not.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from typing import Final

from mcast.cli.lines import split_lines
from mcast.cli.terminal import TURN_S, Stop
from mcast.errors import MessageTooLongError
from mcast.raw import Pace, Sender, number_into
from mcast.runtime.clock import monotonic_ns
from mcast.runtime.deadline import Deadline

__all__ = ["MOST_SIZE_BYTES", "Work"]

MOST_SIZE_BYTES: Final = 65_487
"""65,535 less the IPv6 and UDP headers. Above the MTU the kernel refuses, which is told."""

_BATCH_COUNT: Final = 44
"""Datagrams of one system call: 1472 bytes of them fill the 64 KiB of a GSO run."""
_SHORTEST_WAIT_S: Final = 100e-6
"""Sleeping for less takes about as long; at higher rates several datagrams leave together."""
_READ_BYTES: Final = 1 << 16


class Work:
    """The datagrams of one run to ``group_count`` groups. One thread."""

    def __init__(
        self, sender: Sender, group_count: int, pace: Pace, stop: Stop, duration_s: float | None
    ) -> None:
        self.sent_count = 0
        """Datagrams that the kernel took, of all groups."""
        self.byte_count = 0
        """Their payload."""
        self.is_complete = True
        """False once a signal, or the end of the duration, came before all was sent."""
        self._sender = sender
        self._group_count = group_count
        self._pace = pace
        self._stop = stop
        self._deadline = Deadline(duration_s)
        self._run = monotonic_ns() & 0xFFFFFFFF  # only told apart from other runs

    def repeat(
        self, fixed: bytes | None, size_bytes: int, count: int | None, burst_count: int
    ) -> Iterator[None]:
        """Send ``count`` datagrams to each group, ``fixed`` or numbered; yields now and then."""
        content = bytearray(b"." * size_bytes) if fixed is None else bytearray(fixed)
        buffer = content * _BATCH_COUNT
        view = memoryview(buffer)
        size_bytes = len(content)
        number = 0  # the next one of every group
        while number != count:
            if self._is_over():
                self.is_complete = count is None
                return
            most = max(_BATCH_COUNT, burst_count)
            most = most if count is None else min(most, count - number)
            due = self._due(most)
            for start in range(0, due, _BATCH_COUNT):
                some = min(_BATCH_COUNT, due - start)
                for place in range(self._group_count):
                    if fixed is None:
                        now_ns = monotonic_ns()
                        for i in range(some):
                            number_into(buffer, i * size_bytes, self._run, number + i, now_ns)
                    if not self._push(place, view[: some * size_bytes], size_bytes):
                        self.is_complete = count is None
                        return
                number += some
            yield

    def lines(self) -> Iterator[None]:
        """Send each line of stdin to every group, at the pace; yields now and then."""
        stdin = sys.stdin.fileno()
        rest = b""
        at_end = False
        while not at_end:
            if self._is_over():
                return
            yield
            if not select.select((stdin,), (), (), TURN_S)[0]:
                continue
            chunk = os.read(stdin, _READ_BYTES)
            at_end = not chunk
            lines, rest = split_lines(rest, chunk) if chunk else ([rest] if rest else [], b"")
            if len(rest) > MOST_SIZE_BYTES:
                raise MessageTooLongError(f"a line of over {MOST_SIZE_BYTES} bytes")
            for line in filter(None, lines):  # an empty line would be an empty datagram
                while not self._due(1):
                    if self._is_over():
                        self.is_complete = False
                        return
                for place in range(self._group_count):
                    self._push(place, memoryview(line), len(line))

    def _is_over(self) -> bool:
        return self._stop.is_asked or self._deadline.has_passed

    def _due(self, most: int) -> int:
        """How many may leave; 0 after a sleep until some may, or until it is time to look round."""
        now_ns = monotonic_ns()
        due = self._pace.due(now_ns, most)
        if not due:
            wait_s = max(self._pace.wait_s(now_ns), _SHORTEST_WAIT_S)
            left_s = self._deadline.left
            wait_s = min(wait_s, TURN_S, TURN_S if left_s is None else left_s)
            select.select((), (), (), wait_s)
        return due

    def _push(self, place: int, data: memoryview, size_bytes: int) -> bool:
        """Send all of ``data``, waiting for room; False when it is over before."""
        while data:
            taken = self._sender.send(place, data, size_bytes)
            self.sent_count += -(-taken // size_bytes)
            self.byte_count += taken
            data = data[taken:]
            if data:
                if self._is_over():
                    return False
                self._sender.wait(TURN_S)
        return True
