"""A forked child can use nothing of its parent's and is told so; the parent notices nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mcast
from tests.support.figures import figure, times

Pair = tuple[mcast.Pub, mcast.Sub]
LIMIT_S = 10.0
FORKS = times(100, 1000)


@pytest.fixture(autouse=True)
def _threads_may_fork() -> Iterator[None]:
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork of a process with threads, which is what is tested here.
        warnings.filterwarnings(
            "ignore", message=".*multi-threaded.*fork", category=DeprecationWarning
        )
        yield


def in_child(work: Callable[[], object]) -> str:
    """Run ``work`` in a forked child: "" if it went well, else the child's traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # no pytest in here: whatever happens, only the pipe tells
        code = 1
        try:
            signal.alarm(10)
            os.close(reader)
            work()
            code = 0
        except BaseException:
            with contextlib.suppress(OSError):
                os.write(writer, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        text = said.read().decode()
    _, status = os.waitpid(pid, 0)
    return text or ("" if status == 0 else f"status {status}")


def raises_forked(call: Callable[[], object]) -> None:
    try:
        call()
    except mcast.ForkedError:
        return
    raise AssertionError("no ForkedError")


def every_call(socket: Any) -> list[Callable[[], object]]:
    return [
        lambda: socket.connect("epgm://lo;239.192.1.1:5555"),
        lambda: socket.disconnect("epgm://lo;239.192.1.1:5555"),
        lambda: socket.set("linger", 1.0),
        lambda: socket.get("linger"),
        lambda: socket.send(b"x"),
        lambda: socket.send(b"x", mcast.SNDMORE),
        lambda: socket.send_multipart([b"x"]),
        lambda: socket.send_many([b"x"]),
        lambda: socket.recv(),
        lambda: socket.recv(mcast.DONTWAIT),
        lambda: socket.recv_multipart(),
        lambda: socket.recv_many(1),
        lambda: socket.subscribe(b""),
        lambda: socket.poll(0),
        lambda: socket.fileno(),
        lambda: socket.stats(),
        lambda: list(socket.events()),
    ]


def test_every_use_in_the_child_is_an_error(ctx: mcast.Context, pair: Pair) -> None:
    pub, sub = pair
    pub.send_many([b"x"] * 100)
    assert sub.poll(LIMIT_S)

    def child() -> None:
        for socket in pair:
            for call in every_call(socket):
                raises_forked(call)
            socket.close()
            assert socket.closed
        raises_forked(lambda: ctx.socket(mcast.PUB))
        raises_forked(ctx.stats)
        raises_forked(ctx.__enter__)
        ctx.term()

    assert in_child(child) == ""


def test_the_child_is_told_although_a_thread_was_inside_a_call_at_the_fork(
    ctx: mcast.Context, pair: Pair
) -> None:
    pub, sub = pair
    locks = [ctx._lock, pub._lock, pub._turn, sub._lock]
    inside, over = threading.Event(), threading.Event()

    def stay() -> None:
        with contextlib.ExitStack() as held:
            for lock in locks:
                held.enter_context(lock)
            inside.set()
            over.wait(LIMIT_S)

    def child() -> None:
        for socket in pair:
            for call in every_call(socket):
                raises_forked(call)
            socket.close()
        raises_forked(lambda: ctx.socket(mcast.PUB))
        ctx.term()

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(LIMIT_S)
    try:
        assert in_child(child) == ""
    finally:
        over.set()
        thread.join(LIMIT_S)


def test_nothing_of_the_parent_s_is_open_in_the_child(url: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with mcast.Context(linger=0) as ctx:
        pub, sub = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
        for socket in (pub, sub):
            socket.connect(url)
            socket.fileno()
        sub.disconnect(url)
        sub.connect(url)
        ours = {
            name: os.readlink(f"/proc/self/fd/{name}")
            for name in set(os.listdir("/proc/self/fd")) - before
            if os.path.lexists(f"/proc/self/fd/{name}")
        }
        assert len(ours) >= 8  # 5 sockets, 3 for events, epoll; one number may have been listed

        def child() -> None:
            for name, target in ours.items():
                path = f"/proc/self/fd/{name}"
                assert not os.path.lexists(path) or os.readlink(path) != target, (name, target)

        assert in_child(child) == ""
        pub.close()  # and all of it still works here
        sub.close()


def test_the_parent_loses_nothing_in_many_forks(pair: Pair) -> None:
    pub, sub = pair
    count = 50_000
    sender = threading.Thread(target=lambda: [pub.send(b"%d" % number) for number in range(count)])
    numbers: list[int] = []

    def receive() -> None:
        while len(numbers) < count:
            numbers.extend(map(int, sub.recv_many(1000, timeout=LIMIT_S)))

    receiver = threading.Thread(target=receive)
    receiver.start()
    sender.start()
    for _ in range(FORKS):
        assert in_child(lambda: raises_forked(lambda: sub.recv())) == ""
    sender.join(LIMIT_S)
    receiver.join(LIMIT_S)
    assert numbers == list(range(count))
    assert [event for event in sub.events() if isinstance(event, mcast.Lost)] == []
    figure("41", f"epgm://: {FORKS} forks, every child's recv raised, the parent lost 0 of {count}")


def test_forks_in_the_middle_of_everything_hang_nobody(ctx: mcast.Context, url: str) -> None:
    """Locks are held by other threads in most of these children; none may wait for one."""
    sub, pub = ctx.socket(mcast.SUB), ctx.socket(mcast.PUB, rate=1e9)
    sub.connect(url)
    sub.subscribe()
    pub.connect(url)
    stop = threading.Event()

    def run(work: Callable[[], object]) -> None:
        while not stop.is_set():
            with contextlib.suppress(mcast.Again):
                work()

    def come_and_go() -> None:
        made = ctx.socket(mcast.SUB)
        made.connect(url)
        made.close()

    works: list[Callable[[], object]] = [
        lambda: pub.send(b"x" * 100),
        lambda: sub.recv_many(100, timeout=0.01),
        lambda: (pub.stats(), sub.stats(), list(sub.events())),
        come_and_go,
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()

    def child() -> None:
        for call in (*every_call(pub), *every_call(sub)):
            raises_forked(call)

    try:
        for _ in range(100):
            assert in_child(child) == ""
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT_S)


def test_a_child_may_have_a_context_of_its_own(pair: Pair, url: str) -> None:
    pub, sub = pair

    def child() -> None:
        with mcast.Context() as own:
            mine = own.socket(mcast.PUB)
            mine.connect(url)
            mine.send(b"from the child")

    assert in_child(child) == ""
    assert sub.recv(timeout=LIMIT_S) == b"from the child"
    pub.send(b"from the parent")
    assert sub.recv(timeout=LIMIT_S) == b"from the parent"


def test_a_child_that_ends_by_itself_says_goodbye_for_nobody(pair: Pair) -> None:
    pub, sub = pair
    pub.send(b"x")
    assert sub.recv(timeout=LIMIT_S) == b"x"
    pid = os.fork()
    if pid == 0:
        import atexit

        atexit._run_exitfuncs()
        os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(0.1)
    assert [event for event in sub.events() if isinstance(event, mcast.PeerLeft)] == []
    pub.send(b"y")
    assert sub.recv(timeout=LIMIT_S) == b"y"


def test_a_grandchild_is_told_as_well(pair: Pair) -> None:
    _, sub = pair
    assert in_child(lambda: _assert_empty(in_child(lambda: raises_forked(sub.recv)))) == ""


def _assert_empty(text: str) -> None:
    assert text == ""


def test_subprocesses_inherit_no_descriptor(pair: Pair) -> None:
    import subprocess
    import sys

    program = """
import os
targets = [os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry)]
print(sum("socket" in target or "event" in target for target in targets))
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        close_fds=False,
        stdin=subprocess.DEVNULL,
    )
    assert int(found.stdout) == 0
