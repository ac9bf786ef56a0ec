"""Runs that come early stay in the memory they were read into: nothing may be written over them."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice, pairwise

import pytest

from mcast.kernel import (
    Baton,
    FrameDecoder,
    Inbox,
    Intake,
    Message,
    ReceiveSlots,
    TopicFilter,
    TransmitSlots,
    UdpWriter,
)
from mcast.net.udp import packed_sockaddr

TSI = b"\x01\x02\x03\x04\x05\x06\x11\x11"
PORT = 5555
LOOPBACK = b"\x7f\0\0\1"
NEVER = 1 << 62
_SOL_UDP, _UDP_GRO = 17, 104

Run = tuple[bytes, int]


class Path:
    """Packed messages on one side, what the inbox has of them on the other."""

    def __init__(self, receiver: socket.socket, sender: socket.socket, epoll: select.epoll) -> None:
        self.sent: list[bytes] = []
        self.window = TransmitSlots(TSI, PORT, 1400, 16_384)
        self.slots = ReceiveSlots(TSI, PORT, FrameDecoder(TopicFilter([b""]), 1 << 20, 4), 0)
        self.inbox = Inbox()
        self.inbox.limit = 1 << 20
        self.refused_count = 0
        self.interrupt: Callable[[], None] | None = None
        self.intake = Intake(
            receiver.fileno(),
            self.inbox,
            {LOOPBACK + TSI: self.slots},
            lock=threading.Lock(),
            baton=Baton(epoll.fileno()),
            rest=lambda *_: None,
            overrun=self._overrun,
            settled=lambda: NEVER,
            share=lambda: None,
        )
        self._to = packed_sockaddr(LOOPBACK, receiver.getsockname()[1], 0)
        self._fd = sender.fileno()
        self._writer = UdpWriter()

    def _overrun(
        self, _: bytes, messages: list[Message], refused_count: int, first: int, last: int
    ) -> None:
        del first, last
        len(self.inbox)  # as the queue asks: what is younger must not get in by that
        if self.interrupt is not None:
            self.interrupt()
        self.refused_count += refused_count
        self.inbox.put(messages)

    def runs(self) -> Iterator[Run]:
        """Runs of 40 full packets, one after the other."""
        while True:
            while self.window.next - self.window.unsent < 40:
                message = b"%08d" % len(self.sent) * 90
                self.sent.append(message)
                assert self.window.append([message])
            run = self.window.take_run(40)
            assert run is not None
            yield bytes(run[0]), run[1]

    def deliver(self, run: Run) -> None:
        assert self._writer.send(self._fd, self._to, *run) == len(run[0])
        assert self.intake.read(1) == []


@pytest.fixture
def path() -> Iterator[Path]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        closing(select.epoll()) as epoll,
    ):
        receiver.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        receiver.bind(("127.0.0.1", 0))
        yield Path(receiver, sender, epoll)


def taken(path: Path) -> list[object]:
    """All that is there, in order."""
    got: list[object] = [*path.inbox.get_many(1 << 20)]
    path.slots.release(got, 1 << 20)  # type: ignore[arg-type]
    return got


def test_early_runs_are_whole_when_what_was_missing_comes(path: Path) -> None:
    got: list[object] = []
    runs = path.runs()
    for early_count in (1, 3, 150, 5, 40):
        missing, *early = islice(runs, 1 + early_count)
        for run in early:
            path.deliver(run)
        assert path.slots.stored_count == 40 * early_count
        path.deliver(missing)
        got += taken(path)
    assert got == path.sent[: len(got)]
    assert len(path.sent) - len(got) <= 1  # the last may end in a packet that was not sent
    assert path.slots.stored_count == path.slots.stored_bytes == 0


def test_a_run_is_whole_that_comes_in_two_parts_among_others(path: Path) -> None:
    runs = path.runs()
    data, size = next(runs)
    for run, _ in islice(runs, 30):
        path.deliver((run[size:], size))
        path.deliver((run[:size], size))
    path.deliver((data, size))
    got = taken(path)
    assert got == path.sent[: len(got)]
    assert len(path.sent) - len(got) <= 1


def test_nothing_is_released_while_the_owner_is_at_it(path: Path) -> None:
    runs = path.runs()
    missing, early = islice(runs, 2)
    path.deliver(early)
    path.intake.hold = True
    path.deliver(missing)
    assert path.slots.ready_count == 40  # what was missing needs no place
    path.intake.settle()
    path.intake.resume()
    got = taken(path)
    assert got == path.sent[: len(got)]
    assert len(path.sent) - len(got) <= 1


def test_an_exception_on_the_way_leaves_what_is_kept_alone(
    path: Path,
) -> None:
    """As from a signal handler, where a full inbox is reported."""
    runs = path.runs()
    (data, size), later = islice(runs, 2)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path.interrupt = interrupt
    path.inbox.limit = 0
    with pytest.raises(KeyboardInterrupt):
        path.deliver((data[:size] + data[3 * size :], size))
    path.interrupt = None
    path.inbox.limit = 1 << 20
    path.deliver(later)
    path.deliver((data[size : 3 * size], size))
    got = taken(path)
    assert got == [message for message in path.sent if message in got]
    assert len(got) >= len(path.sent) - 4


def test_a_full_inbox_refuses_messages_without_making_them(path: Path) -> None:
    path.inbox.limit = 0
    for run in islice(path.runs(), 3):
        path.deliver(run)
    assert path.inbox.put_count == 0
    assert len(path.sent) - 1 <= path.refused_count <= len(path.sent)
    assert path.slots.ready_count == 0


def test_what_is_ready_beyond_half_of_the_window_is_refused_oldest_first(path: Path) -> None:
    missing, *early = islice(path.runs(), 6)
    path.inbox.intake = path.intake  # compiled, what is ready stays in the window until it is asked
    for run in early:
        path.deliver(run)
    path.slots.limit_bytes = path.slots.stored_bytes
    path.inbox.limit = 10
    path.deliver(missing)
    assert 0 < path.refused_count < len(path.sent) // 2
    assert path.slots.stored_bytes <= path.slots.limit_bytes // 2
    got = taken(path)
    places = [path.sent.index(message) for message in got]  # type: ignore[arg-type]
    jumps = [there - here - 1 for here, there in pairwise(places) if there != here + 1]
    assert jumps == [path.refused_count]
    assert len(path.sent) - 1 <= len(got) + path.refused_count <= len(path.sent)
