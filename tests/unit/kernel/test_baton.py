"""The baton waits for descriptors, and lets the one who waited go on."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from mcast import kernel

MS = 1_000_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def epoll(pipe: tuple[int, int]) -> Iterator[select.epoll]:
    with select.epoll() as made:
        made.register(pipe[0], select.EPOLLIN)
        yield made


def test_what_is_ready_is_returned_with_its_mask(
    pipe: tuple[int, int], epoll: select.epoll
) -> None:
    baton = kernel.Baton(epoll.fileno())
    os.write(pipe[1], b"x")
    assert baton.poll(0) == [(pipe[0], select.EPOLLIN)]
    assert baton.poll(60_000 * MS) == [(pipe[0], select.EPOLLIN)]


def test_nothing_ready_returns_at_once_or_when_the_time_is_over(epoll: select.epoll) -> None:
    baton = kernel.Baton(epoll.fileno())
    assert baton.poll(0) == baton.poll(-5) == []
    started = time.monotonic_ns()
    assert baton.poll(3 * MS) == []
    assert 3 * MS <= time.monotonic_ns() - started < 500 * MS


def test_a_wait_is_shorter_than_a_millisecond_where_it_is_asked_to_be(epoll: select.epoll) -> None:
    baton = kernel.Baton(epoll.fileno())

    def wait_ns() -> int:
        started = time.monotonic_ns()
        baton.poll(MS // 10)
        return time.monotonic_ns() - started

    assert min(wait_ns() for _ in range(20)) < MS


def test_a_closed_descriptor_is_an_error() -> None:
    with select.epoll() as made:
        baton = kernel.Baton(made.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        baton.poll(0)


def test_a_descriptor_that_is_no_epoll_is_an_error_each_time(pipe: tuple[int, int]) -> None:
    baton = kernel.Baton(pipe[0])
    for _ in range(2):
        with pytest.raises(OSError, match="Invalid argument"):
            baton.poll(0)


REFUSING = """
import ctypes, os, select, struct, sys, time
from mcast import kernel

# A seccomp filter: number 441 (epoll_pwait2) fails with the error given, all others go on.
error = int(sys.argv[1])
code = b"".join(
    struct.pack("=HBBI", *one)
    for one in (
        (0x20, 0, 0, 0),
        (0x15, 0, 1, 441),
        (6, 0, 0, 0x50000 | error),
        (6, 0, 0, 0x7FFF0000),
    )
)
libc = ctypes.CDLL(None, use_errno=True)
block = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", 4, ctypes.addressof(block))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    print("no seccomp")
    sys.exit()
reading, writing = os.pipe()
epoll = select.epoll()
epoll.register(reading, select.EPOLLIN)
baton = kernel.Baton(epoll.fileno())
started = time.monotonic_ns()
assert baton.poll(2_000_000) == []
assert time.monotonic_ns() - started >= 2_000_000
os.write(writing, b"x")
assert baton.poll(0) == baton.poll(10**10) == [(reading, select.EPOLLIN)]
print("polled")
"""


@pytest.mark.parametrize(
    "error", [errno.ENOSYS, errno.EPERM, errno.EINVAL], ids=errno.errorcode.get
)
def test_where_the_precise_wait_is_not_to_be_had_the_old_one_serves(error: int) -> None:
    run = [sys.executable, "-c", REFUSING, str(error)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    if done.stdout == "no seccomp\n":
        pytest.skip("this system lets nobody install a filter")
    assert done.stdout == "polled\n"


def test_spending_without_anybody_waiting_costs_nothing_much(epoll: select.epoll) -> None:
    baton = kernel.Baton(epoll.fileno())
    started = time.monotonic()
    for _ in range(10_000):
        baton.spend(1 << 20)
    assert time.monotonic() - started < 0.5


@pytest.mark.skipif(kernel.NAME == "reference", reason="only the compiled baton knows who waits")
def test_who_has_woken_gets_the_lock_long_before_the_switch_interval(
    pipe: tuple[int, int], epoll: select.epoll
) -> None:
    baton = kernel.Baton(epoll.fileno())
    woken = threading.Event()

    def loop() -> None:
        baton.poll(10_000 * MS)
        woken.set()

    thread = threading.Thread(target=loop)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5.0)
    try:
        os.write(pipe[1], b"x")
        started = time.monotonic()
        while not woken.is_set() and time.monotonic() - started < 3.0:
            baton.spend(1 << 20)  # as moving messages does
        assert time.monotonic() - started < 1.0
    finally:
        sys.setswitchinterval(interval)
        thread.join()
