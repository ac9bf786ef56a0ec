"""The baton waits for descriptors, and lets the one who waited go on."""

from __future__ import annotations

import os
import select
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
