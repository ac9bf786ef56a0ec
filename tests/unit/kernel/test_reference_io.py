"""The reference's system calls where the system refuses: what no honest kernel does on demand.

The calls themselves are replaced; ``test_udp.py`` and ``test_baton.py`` have the real ones.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import sys
from collections.abc import Callable, Iterator
from threading import Lock
from types import SimpleNamespace
from typing import Any

import pytest

from mcast.kernel import reference, reference_io

pytestmark = pytest.mark.kernel_independent

SOCKADDR = b"\x02\0\x15\xb3\x7f\0\0\1" + bytes(8)
RUN = bytes(250)  # of two and a half segments
SEGMENT = 100


class Call:
    """A system call that answers as it is told: an errno each, 0 for all that it was asked."""

    def __init__(self, *codes: int, done: int = 1) -> None:
        self.codes = list(codes)
        self.done = done
        self.count = 0

    def __call__(self, *arguments: Any) -> int:
        self.count += 1
        code = self.codes.pop(0) if self.codes else 0
        if code:
            ctypes.set_errno(code)
            return -1
        return self.done


def writer(**calls: Call) -> Any:
    made: Any = reference_io.UdpWriter()
    for name, call in calls.items():
        setattr(made, f"_{name}", call)
    return made


def test_a_refused_gso_run_leaves_by_one_call_a_batch_and_gso_is_not_tried_again() -> None:
    sending = writer(sendmsg=Call(errno.EIO), sendmmsg=Call(done=3))
    assert sending.send(1, SOCKADDR, RUN, SEGMENT) == len(RUN)
    assert not sending.gso
    assert sending.send(1, SOCKADDR, RUN, SEGMENT) == len(RUN)
    assert (sending._sendmsg.count, sending._sendmmsg.count) == (1, 2)


def test_gso_is_not_given_up_where_the_plain_send_fails_as_well() -> None:
    sending = writer(sendmsg=Call(errno.EINVAL), sendmmsg=Call(errno.EMSGSIZE))
    with pytest.raises(OSError, match="long"):
        sending.send(1, SOCKADDR, RUN, SEGMENT)
    assert sending.gso
    sending = writer(sendmsg=Call(errno.EINVAL), sendmmsg=Call(errno.EAGAIN))
    assert sending.send(1, SOCKADDR, RUN, SEGMENT) == 0
    assert sending.gso


def test_no_room_for_a_gso_run_is_no_error() -> None:
    sending = writer(sendmsg=Call(errno.EAGAIN))
    assert sending.send(1, SOCKADDR, RUN, SEGMENT) == 0


def test_a_batch_that_is_taken_in_part_is_told_so() -> None:
    sending = writer(sendmmsg=Call(done=2))
    sending.gso = False
    assert sending.send(1, SOCKADDR, RUN, SEGMENT) == 2 * SEGMENT


def test_without_sendmmsg_each_datagram_has_a_call_of_its_own() -> None:
    sending = writer(sendmmsg=Call(errno.ENOSYS), sendto=Call(0, 0, errno.EPERM))
    sending.gso = False
    assert sending.send(1, SOCKADDR, RUN, SEGMENT) == 2 * SEGMENT  # the error comes next time
    assert not sending.mmsg
    assert sending.send(1, SOCKADDR, RUN, SEGMENT) == len(RUN)
    assert sending._sendmmsg.count == 1


def test_the_first_datagrams_error_is_raised_and_no_room_is_none() -> None:
    sending = writer(sendto=Call(errno.EPERM, errno.EAGAIN))
    with pytest.raises(PermissionError):
        sending.send(1, SOCKADDR, RUN[:50], SEGMENT)
    assert sending.send(1, SOCKADDR, RUN[:50], SEGMENT) == 0


def control(*entries: tuple[int, int, int]) -> bytes:
    """Control messages as the kernel lays them out: size, level, kind."""
    header = reference_io._CMSG_HEADER
    return b"".join(header.pack(*entry) + bytes(8) for entry in entries)


@pytest.mark.parametrize(
    "entries",
    [
        [(0, 17, 104)],  # shorter than its own head: the walk must end
        [(reference_io._CMSG_HEADER.size + 4, 1, 2)],  # somebody else's
    ],
)
def test_control_messages_that_say_nothing_are_passed_over(
    entries: list[tuple[int, int, int]],
) -> None:
    reader: Any = reference_io.UdpReader(1)
    raw = control(*entries)
    reader._control[: len(raw)] = raw
    assert reader._read_control(7, 0, len(raw)) == 0
    assert reader.overflows == {}


def test_a_wait_that_a_signal_ends_found_nothing() -> None:
    with select.epoll() as epoll:
        baton: Any = reference_io.Baton(epoll.fileno())
        baton._is_precise = False
        baton._libc = SimpleNamespace(epoll_wait=Call(errno.EINTR, errno.EBADF))
        assert baton.poll(0) == []
        with pytest.raises(OSError, match="descriptor"):
            baton.poll(0)


def test_elsewhere_than_on_linux_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotImplementedError, match="Linux"):
        reference_io.Baton(0)
    with pytest.raises(NotImplementedError, match="darwin"):
        reference_io.libc()


# What the reference leaves to the long way.


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        yield here, there


def nothing(*_: object) -> Any:
    return None


def asked(calls: list[object]) -> Callable[..., Any]:
    return lambda *arguments, **options: calls.append((arguments, options))


def test_the_reference_attends_to_nothing_and_waits_for_nobody(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, _ = pair
    more: dict[str, Any] = {"lock": Lock(), "rest": nothing, "settled": nothing, "share": nothing}
    with select.epoll() as epoll:
        baton = reference.Baton(epoll.fileno())
        schedule: Any = None
        assert baton.attend(schedule) is False
        inbox = reference.Inbox()
        scanner = reference.FrameScanner(100, 1, 100)
        stream = reference.StreamIntake(here.fileno(), scanner, inbox, baton=baton, **more)
        datagrams = reference.Intake(here.fileno(), inbox, {}, baton=baton, overrun=nothing, **more)
        assert stream.watch(select.EPOLLIN) is False
        assert datagrams.overflow_count == 0
        for intake in (stream, datagrams):
            assert intake.wait(-1) is None
            assert intake.is_open
            intake.settle()
            intake.close()
            assert not intake.is_open
        datagrams.hold = True
        datagrams.resume()
        assert not datagrams.hold


def test_the_references_stream_gate_sends_everything_the_long_way(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    calls: list[object] = []
    with select.epoll() as epoll:
        gate = reference.StreamGate(
            max_message_bytes=100,
            message_limit=10,
            coalesce_ns=0,
            blocks=True,
            drops=False,
            baton=reference.Baton(epoll.fileno()),
            attended=False,
            failed=lambda: None,
            slow=asked(calls),
            slow_many=asked(calls),
        )
    assert gate.flush() == 0  # it leads nowhere yet
    writer_of_peer = reference.StreamWriter(here.fileno())
    gate.lead_to(writer_of_peer)
    assert not gate.is_open
    gate.is_open = True
    gate.send(b"one", 2, timeout=0.5)
    gate.send_many([b"two"], timeout=0.25)
    assert calls == [((b"one", 2), {"timeout": 0.5}), (([b"two"],), {"timeout": 0.25})]
    assert not gate.is_attended
    writer_of_peer.put([b"frame", b""], 1)  # nothing is no buffer
    assert gate.flush() == 0
    assert there.recv(10) == b"frame"
    gate.lead_into(reference.Inbox(), 10, lambda: None)
    assert not gate.is_open
    assert gate.writer is None
    gate.is_open = True
    gate.send(b"three")
    assert calls[2:] == [((b"three", 0), {"timeout": None})]
    gate.leave()
    assert not gate.is_open


# What goes with messages of several parts.


def test_the_longest_of_messages_is_counted_in_bytes() -> None:
    assert reference.longest_bytes([]) == 0
    words = memoryview(bytes(24)).cast("Q")
    assert reference.longest_bytes([b"abc", bytearray(5), words]) == 24
    with pytest.raises(TypeError):
        reference.longest_bytes([b"abc", "text"])
    with pytest.raises(TypeError, match="one piece"):
        reference.longest_bytes([memoryview(bytes(8))[::2]])


def test_parts_are_strung_together_in_order() -> None:
    assert reference.parts_of([b"a", (b"b", b"c"), b"d"]) == [b"a", b"b", b"c", b"d"]
    assert reference.parts_of([]) == []
