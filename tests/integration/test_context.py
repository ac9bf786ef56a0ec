"""The life of a context: its end, with and without ``with``, and the interpreter's."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mcast

LIMIT_S = 5.0


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def loop_threads() -> int:
    return sum(thread.name == "mcast-loop" for thread in threading.enumerate())


def test_leaving_the_with_block_gives_everything_back(url: str) -> None:
    before, threads = descriptors(), loop_threads()
    with mcast.Context() as ctx:
        pub, sub = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
        pub.connect(url)
        sub.connect(url)
        sub.subscribe()
        pub.fileno()
        sub.fileno()
        pub.send(b"x")
        assert sub.recv(timeout=LIMIT_S) == b"x"
        assert loop_threads() == threads + 1
    assert descriptors() == before
    assert loop_threads() == threads
    assert pub.closed
    assert sub.closed


def test_a_context_without_sockets_has_no_thread() -> None:
    before = loop_threads()
    with mcast.Context() as ctx:
        assert loop_threads() == before
        assert ctx.stats()["sockets"] == []


def test_a_hundred_contexts_leave_nothing(url: str) -> None:
    before, threads = descriptors(), loop_threads()
    for _ in range(100):
        with mcast.Context(linger=0) as ctx:
            ctx.socket(mcast.SUB).connect(url)
            ctx.socket(mcast.PUB).connect(url)
    assert descriptors() == before
    assert loop_threads() == threads


def test_with_closes_a_socket(ctx: mcast.Context, url: str) -> None:
    with ctx.socket(mcast.SUB) as sub:
        sub.connect(url)
    assert sub.closed
    with pytest.raises(KeyError), ctx.socket(mcast.PUB) as pub:
        raise KeyError
    assert pub.closed
    assert not ctx.closed


def test_closing_waits_for_what_was_sent(url: str) -> None:
    with mcast.Context() as other:
        sub = other.socket(mcast.SUB)
        sub.connect(url)
        sub.subscribe()
        with mcast.Context(linger=5.0) as ctx:
            pub = ctx.socket(mcast.PUB, rate=20e6)
            pub.connect(url)
            pub.send_many([bytes(1000)] * 1000)  # 0.4 s at this rate
            started = time.monotonic()
        assert 0.2 < time.monotonic() - started < 3.0
        received = 0
        while received < 1000:
            received += len(sub.recv_many(1000, timeout=LIMIT_S))
        assert any(isinstance(event, mcast.PeerLeft) for event in sub.events(LIMIT_S))


@pytest.mark.parametrize("linger", [0.0, 0.3])
@pytest.mark.parametrize("way", ["option", "close", "term"])
def test_closing_takes_no_longer_than_the_linger(
    url: str, linger: float, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    ctx = mcast.Context(linger=linger if way == "option" else 60.0)
    pubs = [ctx.socket(mcast.PUB, rate=1e5) for _ in range(4)]
    for pub in pubs:
        pub.connect(url)
        pub.send_many([bytes(1000)] * 1000)  # 90 s at this rate
    started = time.monotonic()
    if way == "close":
        for pub in pubs:
            pub.close(linger)
    assert time.monotonic() - started < 0.1, "close does not wait"
    ctx.term(linger if way == "term" else None)
    assert linger <= time.monotonic() - started < linger + 0.5
    assert "unsent" in caplog.text  # lost, but not in silence


def test_term_while_another_thread_makes_sockets_leaves_nothing(url: str) -> None:
    before, threads = descriptors(), loop_threads()
    for _ in range(20):
        ctx = mcast.Context(linger=0)

        def make(ctx: mcast.Context = ctx) -> None:
            try:
                while True:
                    ctx.socket(mcast.SUB).connect(url)
            except mcast.ClosedError:
                return

        thread = threading.Thread(target=make)
        thread.start()
        time.sleep(0.003)
        ctx.term()
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert descriptors() == before
    assert loop_threads() == threads


def test_the_context_s_stats_hold_those_of_its_open_sockets(ctx: mcast.Context, url: str) -> None:
    first, second = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
    first.connect(url)
    second.close()
    stats = ctx.stats()
    assert stats["kernel"] in ("reference", "native")
    assert isinstance(stats["loop_turns"], int)
    assert isinstance(stats["sockets"], list)
    assert [set(socket) for socket in stats["sockets"]] == [set(first.stats())]


# Nobody closes anything.


def settle(holds: Callable[[], bool]) -> bool:
    ends_at = time.monotonic() + LIMIT_S
    while not holds() and time.monotonic() < ends_at:
        gc.collect()
        time.sleep(0.01)
    return holds()


def test_a_socket_keeps_its_context_alive(url: str) -> None:
    sub = mcast.Context(linger=0).socket(mcast.SUB)
    gc.collect()
    sub.connect(url)
    assert not sub.closed
    with pytest.raises(mcast.Again):
        sub.recv(timeout=0.01)


def test_what_is_collected_is_closed_and_gives_everything_back(url: str) -> None:
    assert settle(lambda: loop_threads() == 0)  # of what the tests before this one forgot
    before = descriptors()

    def forget() -> None:
        ctx = mcast.Context()
        pub, sub = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
        pub.connect(url)
        sub.connect(url)
        sub.subscribe()
        pub.fileno()
        sub.fileno()
        pub.send(b"x")
        sub.recv(timeout=LIMIT_S)

    forget()
    assert settle(lambda: loop_threads() == 0)
    assert settle(lambda: descriptors() == before)


def test_a_collected_publisher_still_delivers(ctx: mcast.Context, url: str) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe()

    def publish() -> None:
        pub = mcast.Context(linger=5.0).socket(mcast.PUB, rate=20e6)
        pub.connect(url)
        pub.send_many([bytes(1000)] * 500)

    publish()
    gc.collect()
    received = 0
    while received < 500:
        received += len(sub.recv_many(1000, timeout=LIMIT_S))


def test_a_socket_collected_in_a_living_context_leaves_its_group(
    ctx: mcast.Context, url: str
) -> None:
    ctx.socket(mcast.SUB)
    gc.collect()  # what tests before this one left
    before = set(descriptors())
    for _ in range(10):
        ctx.socket(mcast.SUB).connect(url)
    assert settle(lambda: set(descriptors()) <= before), set(descriptors()) - before


# The interpreter's end. Each program runs in a process of its own.


def run(program: str, url: str, *, timeout_s: float = 20.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PREFACE.format(url=url) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=Path(__file__).parents[2],
    )


PREFACE = """
import mcast, sys, threading, time, os
URL = {url!r}
ctx = mcast.Context()
def pub(**options):
    made = ctx.socket(mcast.PUB, **options)
    made.connect(URL)
    return made
def sub(**options):
    made = ctx.socket(mcast.SUB, **options)
    made.connect(URL)
    made.subscribe()
    return made
"""

QUIET_ENDS = {
    "nothing is closed": ("pub().send(b'x')", 0),
    "sys.exit": ("p = pub(); s = sub(); p.send(b'x'); sys.exit(7)", 7),
    "a closed context": ("p = pub(); p.send(b'x'); ctx.term()", 0),
    "a daemon thread receives": (
        "s = sub(); threading.Thread(target=s.recv, daemon=True).start(); time.sleep(0.1)",
        0,
    ),
    "a daemon thread waits for events": (
        """
        s = sub()
        threading.Thread(target=lambda: list(s.events(None)), daemon=True).start()
        time.sleep(0.1)
        """,
        0,
    ),
    "a daemon thread sends": (
        """
        p = pub(rate=1e9)
        def run():
            while True:
                p.send(b"x" * 100)
        threading.Thread(target=run, daemon=True).start()
        time.sleep(0.1)
        """,
        0,
    ),
    "a thread ends before": (
        "s = sub(); p = pub(); threading.Thread(target=s.recv).start(); p.send(b'x')",
        0,
    ),
    "os._exit": ("p = pub(); p.send(b'x'); os._exit(5)", 5),
    "descriptors": ("p = pub(); s = sub(); p.fileno(); s.fileno(); p.send(b'x')", 0),
    "a closing socket": ("p = pub(); p.send(b'x'); p.close()", 0),
    "atexit": (
        """
        import atexit
        p = pub()
        def last():
            try:
                p.send(b"late")
            except mcast.ClosedError:
                pass
            ctx.term()
        atexit.register(last)
        p.send(b"x")
        """,
        0,
    ),
}


@pytest.mark.parametrize("name", QUIET_ENDS)
def test_the_interpreter_ends_quietly_with_the_right_code(url: str, name: str) -> None:
    program, code = QUIET_ENDS[name]
    ended = run(program, url)
    assert ended.stderr == ""
    assert ended.returncode == code


def test_an_unhandled_exception_prints_its_traceback_and_nothing_else(url: str) -> None:
    ended = run("p = pub(); p.send(b'x'); s = sub(); 1 / 0", url)
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback") == 1
    assert ended.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_the_interpreter_s_end_delivers_what_was_sent(ctx: mcast.Context, url: str) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe()
    ended = run("pub(rate=20e6).send_many([bytes(1000)] * 1000)", url)
    assert ended.stderr == ""
    received = 0
    while received < 1000:
        received += len(sub.recv_many(1000, timeout=LIMIT_S))


def test_the_interpreter_s_end_takes_no_longer_than_the_linger(url: str) -> None:
    program = """
        p = pub(rate=1e5, linger=0.5)
        p.send_many([bytes(1000)] * 1000)
        print(time.monotonic(), flush=True)
        """
    ended = run(program, url)
    elapsed_s = time.monotonic() - float(ended.stdout)
    assert ended.returncode == 0
    assert 0.5 <= elapsed_s < 1.0 + 0.3  # and the interpreter's own end
    assert "messages unsent" in ended.stderr


@pytest.mark.parametrize(
    "wait", ["sub().recv()", "sub().poll()", "list(sub().events(None))", "slow()"]
)
def test_ctrl_c_ends_a_wait_at_once(url: str, wait: str) -> None:
    program = f"""
def slow():
    p = pub(rate=1e5, sndhwm=5, linger=0)
    while True:
        p.send(bytes(1000))
try:
    print("ready", flush=True)
    {wait}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    ctx.term(0)
    sys.exit(130)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", PREFACE.format(url=url) + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - started < 1.0
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_stats_may_be_asked_while_sockets_come_and_go(ctx: mcast.Context) -> None:
    over = threading.Event()

    def make() -> None:
        while not over.is_set():
            ctx.socket(mcast.SUB).close()

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            ctx.stats()
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_what_a_signal_handler_closes_within_a_call_does_not_hang(url: str) -> None:
    ended = threading.Event()

    def work() -> None:
        ctx = mcast.Context(linger=0)
        pub, sub = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
        for socket in (pub, sub):
            with socket._lock:  # where a handler may find it
                socket.close()
        with ctx._lock:
            ctx.term()
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    assert ended.wait(5.0)


def test_a_socket_closed_by_a_handler_while_it_connects_leaves_no_endpoint(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with mcast.Context(linger=0) as ctx:
        sub = ctx.socket(mcast.SUB)
        really_open = sub._open

        def interrupted(key: str) -> object:
            link = really_open(key)
            sub.close()
            return link

        monkeypatch.setattr(sub, "_open", interrupted)
        with pytest.raises(mcast.ClosedError):
            sub.connect(url)
        assert sub.endpoints == []
    assert set(os.listdir("/proc/self/fd")) == before
