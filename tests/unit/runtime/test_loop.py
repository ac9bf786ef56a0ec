"""The loop thread: it serves, it survives its links' bugs, and it ends when the last has gone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from mcast.kernel import UdpReader
from mcast.runtime.loop import Loop

NEVER = 1 << 62
LIMIT_S = 5.0


class FakeLink:
    """A link that notes what happens to it."""

    def __init__(self, due_ns: int = NEVER) -> None:
        self.due_ns = due_ns
        self.called = threading.Event()
        self.failed: list[Exception] = []
        self.abandoned = False
        self.bug: Exception | None = None

    @property
    def next_alarm_ns(self) -> int:
        return self.next_timeout_ns

    @property
    def next_timeout_ns(self) -> int:
        return self.due_ns

    @property
    def gives_up_ns(self) -> int:
        return NEVER

    def handle_timeout(self, now_ns: int) -> None:
        assert now_ns >= self.due_ns
        self._note()
        self.due_ns = NEVER

    def handle_readable(self, now_ns: int, fd: int, reader: UdpReader) -> None:
        os.read(fd, 8)
        self._note()

    def handle_writable(self) -> None:
        self._note()

    def fail(self, error: Exception) -> None:
        self.failed.append(error)
        self.called.set()

    def abandon(self) -> None:
        self.abandoned = True

    def _note(self) -> None:
        if self.bug is not None:
            raise self.bug
        self.called.set()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    made.start()
    yield made
    for link in made._links[:]:
        made.call(lambda link=link: made.remove(link))  # type: ignore[misc]
    made.finish()
    assert made.join(LIMIT_S)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_call_is_made_in_the_loop_s_thread(loop: Loop) -> None:
    seen: list[threading.Thread] = []
    done = threading.Event()
    loop.call(lambda: (seen.append(threading.current_thread()), done.set())[1])
    assert done.wait(LIMIT_S)
    assert seen[0] is not threading.current_thread()


def test_a_readable_descriptor_is_served(loop: Loop, pipe: tuple[int, int]) -> None:
    link = FakeLink()
    loop.call(lambda: loop.add(link, [pipe[0]]))
    os.write(pipe[1], b"x")
    assert link.called.wait(LIMIT_S)


def test_a_timer_that_moves_while_the_loop_sleeps_is_served_on_time(loop: Loop) -> None:
    link = FakeLink()
    added = threading.Event()
    loop.call(lambda: (loop.add(link, []), added.set())[1])
    assert added.wait(LIMIT_S)
    link.due_ns = 1
    loop.wake_before(1)
    assert link.called.wait(LIMIT_S)


def test_a_descriptor_that_takes_data_again_is_served(loop: Loop, pipe: tuple[int, int]) -> None:
    link = FakeLink()
    loop.call(lambda: loop.watch_writable(link, pipe[1], True))
    assert link.called.wait(LIMIT_S)
    loop.call(lambda: loop.watch_writable(link, pipe[1], False))


@pytest.mark.parametrize("where", ["readable", "timeout", "writable", "mailbox"])
def test_a_bug_ends_its_link_and_spares_the_others(
    loop: Loop, pipe: tuple[int, int], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = FakeLink(), FakeLink()
    bad.bug = ZeroDivisionError("planted")
    if where == "mailbox":
        loop.call(bad._note, bad)
    elif where == "timeout":
        bad.due_ns = 1
        loop.call(lambda: loop.add(bad, []))
    elif where == "writable":
        loop.call(lambda: loop.watch_writable(bad, pipe[1], True))
    else:
        loop.call(lambda: loop.add(bad, [pipe[0]]))
        os.write(pipe[1], b"x")
    assert bad.called.wait(LIMIT_S)
    assert bad.failed == [bad.bug]
    assert "planted" in caplog.text
    good.due_ns = 1
    loop.call(lambda: loop.add(good, []))
    assert good.called.wait(LIMIT_S)


def test_a_bug_of_the_loop_itself_leaves_nobody_waiting(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FakeLink):
        @property
        def next_timeout_ns(self) -> int:
            raise ZeroDivisionError("planted")

    bad, bystander = Broken(), FakeLink()
    loop.call(lambda: (loop.add(bystander, []), loop.add(bad, []))[0])
    assert bystander.called.wait(LIMIT_S)
    assert bad.called.wait(LIMIT_S)
    assert loop.join(LIMIT_S)
    assert loop.has_ended
    assert "event loop failed" in caplog.text


def test_the_loop_ends_after_its_last_link(loop: Loop) -> None:
    link = FakeLink()
    loop.call(lambda: loop.add(link, []))
    ended = threading.Event()
    loop.ended.add(ended.set)
    loop.finish()
    assert not loop.join(0.05)
    loop.call(lambda: loop.remove(link))
    assert ended.wait(LIMIT_S)
    assert loop.join(LIMIT_S)


def test_calls_after_the_end_are_harmless(loop: Loop) -> None:
    loop.finish()
    assert loop.join(LIMIT_S)
    assert loop.has_ended
    loop.call(lambda: None)
    loop.wake_before(0)
    loop.finish()


def test_the_loop_does_not_wait_for_itself(loop: Loop) -> None:
    answers: list[bool] = []
    done = threading.Event()
    loop.call(lambda: (answers.append(loop.join(LIMIT_S)), done.set())[1])
    assert done.wait(LIMIT_S)
    assert answers == [False]


def test_abandoning_gives_descriptors_back_and_takes_no_lock() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    loop = Loop()  # never started: in a forked child there is no thread, either
    link = FakeLink()
    loop.add(link, [])
    with loop._wake_lock:
        loop.abandon()
    loop.abandon()
    assert link.abandoned
    assert sorted(os.listdir("/proc/self/fd")) == before
