"""Waiters: nobody misses a wake-up, and nothing is left behind."""

from __future__ import annotations

import select
import threading

import pytest

import mcast
from mcast.runtime.deadline import Deadline
from mcast.runtime.queues import Waiters

pytestmark = pytest.mark.kernel_independent


class Lamp:
    """Something that is ready or not."""

    def __init__(self) -> None:
        self.is_on = False

    def is_ready(self) -> bool:
        return self.is_on


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_wait_returns_at_once_when_it_is_ready() -> None:
    assert Waiters().wait(lambda: True, None)


def test_wait_gives_up_when_the_time_is_over() -> None:
    assert not Waiters().wait(lambda: False, 0)
    assert not Waiters().wait(lambda: False, 0.001)


def test_wait_looks_again_after_it_has_registered() -> None:
    """The state may change between the first look and the registration."""
    answers = iter([False, True])
    assert Waiters().wait(lambda: next(answers), None)


def test_wait_goes_on_when_it_was_woken_for_nothing() -> None:
    waiters = Waiters()
    looks = 0

    def third_time() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            waiters.wake()  # while it is registered, and not ready
        return looks > 3

    assert waiters.wait(third_time, 5.0)


def test_wait_leaves_no_callback_behind_even_if_the_condition_raises() -> None:
    waiters = Waiters()
    answers = iter([False])
    with pytest.raises(StopIteration):
        waiters.wait(lambda: next(answers), None)
    waiters.wait(lambda: False, 0.001)
    assert waiters._callbacks == []


def test_every_waiting_thread_is_woken() -> None:
    waiters, lamp = Waiters(), Lamp()
    woken: list[bool] = []
    threads = [
        threading.Thread(target=lambda: woken.append(waiters.wait(lamp.is_ready, 5.0)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    lamp.is_on = True
    waiters.wake()
    for thread in threads:
        thread.join(5)
    assert woken == [True] * 8


def test_a_callback_is_called_once_and_not_after_it_was_discarded() -> None:
    waiters = Waiters()
    calls: list[str] = []
    first, second = (lambda: calls.append("first")), (lambda: calls.append("second"))
    waiters.add(first)
    waiters.add(second)
    waiters.discard(second)
    waiters.discard(second)
    waiters.wake()
    waiters.wake()
    assert calls == ["first"]


def test_a_callback_may_register_again_while_it_is_called() -> None:
    waiters = Waiters()
    calls: list[int] = []

    def again() -> None:
        calls.append(len(calls))
        waiters.add(again)

    waiters.add(again)
    waiters.wake()
    waiters.wake()
    assert calls == [0, 1]


def test_the_descriptor_follows_readiness() -> None:
    waiters, lamp = Waiters(), Lamp()
    assert not waiters.has_descriptor
    fd = waiters.fileno(lamp.is_ready)
    assert waiters.has_descriptor
    assert waiters.fileno(lamp.is_ready) == fd
    assert not is_readable(fd)
    for _ in range(3):
        lamp.is_on = True
        waiters.wake()
        waiters.wake()
        assert is_readable(fd)
        lamp.is_on = False
        waiters.refresh()
        assert not is_readable(fd)
        waiters.wake()
        assert not is_readable(fd), "a wake-up that comes late changes nothing"
    waiters.close()


def test_a_descriptor_asked_for_while_ready_is_readable() -> None:
    waiters, lamp = Waiters(), Lamp()
    lamp.is_on = True
    assert is_readable(waiters.fileno(lamp.is_ready))
    waiters.close()


def test_the_descriptor_does_not_keep_its_owner_alive() -> None:
    waiters, lamp = Waiters(), Lamp()
    waiters.fileno(lamp.is_ready)
    del lamp
    waiters.wake()
    waiters.refresh()
    waiters.close()


def test_closing_wakes_and_makes_the_descriptor_unavailable() -> None:
    waiters, lamp = Waiters(), Lamp()
    waiters.fileno(lamp.is_ready)
    calls: list[int] = []
    waiters.add(lambda: calls.append(1))
    waiters.close()
    assert calls == [1]
    assert not waiters.has_descriptor
    with pytest.raises(mcast.ClosedError):
        waiters.fileno(lamp.is_ready)
    waiters.close()
    waiters.wake()


def test_abandoning_takes_no_lock() -> None:
    waiters, lamp = Waiters(), Lamp()
    waiters.fileno(lamp.is_ready)
    with waiters._mutex:  # as if another thread had held it when the process forked
        waiters.abandon()
    assert not waiters.has_descriptor


@pytest.mark.parametrize("timeout", [-1, -0.001, float("-inf"), float("nan")])
def test_a_deadline_in_the_past_is_refused_and_says_the_unit(timeout: float) -> None:
    with pytest.raises(mcast.OptionError, match=r"seconds.*None to wait for ever"):
        Deadline(timeout)


@pytest.mark.parametrize(("timeout", "left"), [(None, None), (0.0, 0.0)])
def test_a_deadline_tells_what_is_left(timeout: float | None, left: float | None) -> None:
    deadline = Deadline(timeout)
    assert deadline.left == left
    assert deadline.has_passed is (timeout is not None)


def test_a_deadline_far_away_has_not_passed() -> None:
    deadline = Deadline(1000.0)
    assert deadline.left is not None
    assert 990 < deadline.left <= 1000
    assert not deadline.has_passed
