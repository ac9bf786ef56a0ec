"""Faults of processes, threads and peers, over tcp: rows 19 and 41 to 46 of the fault matrix."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

import mcast
from tests.support.figures import figure, times

FORKS = times(100, 1000)
THREADS = 8
SENT_BY_EACH = times(5_000, 62_500)  # taken as often: a million operations
EXITS = times(10, 500)


@pytest.fixture
def ctx() -> Iterator[mcast.Context]:
    with mcast.Context(linger=0) as made:
        yield made


def until(holds: Callable[[], object], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def address_of(bound: mcast.Socket) -> tuple[str, int]:
    host, port = bound.last_endpoint.removeprefix("tcp://").split(":")
    return host, int(port)


# 19: a slow consumer


def test_a_slow_subscriber_loses_alone_and_every_message_is_accounted_for(
    ctx: mcast.Context,
) -> None:
    pub = ctx.socket(mcast.XPUB, sndhwm=200)
    pub.bind("tcp://127.0.0.1:*")
    fast = ctx.socket(mcast.SUB, rcvhwm=1_000_000)
    slow = ctx.socket(mcast.SUB, rcvhwm=200, tcp_rcvbuf=65_536)
    for sub in (fast, slow):
        sub.subscribe()
        sub.connect(pub.last_endpoint)
    assert pub.recv(timeout=5) == b"\1"
    until(lambda: pub.stats()["connections"] == 2)
    time.sleep(0.1)
    got: list[bytes] = []
    count, body = 20_000, bytes(2000)
    is_over = threading.Event()

    def drag() -> None:
        while not is_over.is_set():
            with contextlib.suppress(mcast.Again):
                got.append(slow.recv_many(10, timeout=0.05)[0])
            time.sleep(0.01)

    thread = threading.Thread(target=drag)
    thread.start()
    for number in range(count):
        pub.send(b"%08d" % number + body)
        if number % 50 == 0:
            time.sleep(0.001)
    for number in range(count):
        assert fast.recv(timeout=5)[:8] == b"%08d" % number
    is_over.set()
    thread.join()
    assert got == sorted(got)
    dropped = pub.stats()["dropped_at_hwm"]
    figure(
        "19",
        f"tcp://: the slow one: {dropped:.0f} of {count} dropped and counted, the fast one: none",
    )
    assert 0 < dropped < count


# 41: fork


def test_a_forked_child_can_use_nothing_and_its_parent_goes_on(ctx: mcast.Context) -> None:
    public, secret = mcast.curve_keypair()
    pull = ctx.socket(mcast.PULL, curve_server=True, curve_secretkey=secret)
    pull.bind("tcp://127.0.0.1:*")
    push = ctx.socket(mcast.PUSH, curve_serverkey=public, curve_secretkey=mcast.curve_keypair()[1])
    push.connect(pull.last_endpoint)
    for number in range(FORKS):
        push.send(b"%d" % number)
        child = os.fork()
        if not child:
            status = 1
            try:
                push.send(b"from the child")
            except mcast.ForkedError:
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    assert [pull.recv(timeout=5) for _ in range(FORKS)] == [b"%d" % n for n in range(FORKS)]
    with pytest.raises(mcast.Again):
        pull.recv(timeout=0.1)
    figure("41", f"tcp:// with CURVE: {FORKS} forks, the parent lost 0, the children sent 0")


# 42: threads


def test_sockets_shared_by_threads_neither_lose_nor_hang_and_end_when_closed(
    ctx: mcast.Context,
) -> None:
    pull, push = ctx.socket(mcast.PULL), ctx.socket(mcast.PUSH)
    pull.bind("tcp://127.0.0.1:*")
    push.connect(pull.last_endpoint)
    count = SENT_BY_EACH
    seen: list[list[bytes]] = [[] for _ in range(THREADS)]

    def send(index: int) -> None:
        for number in range(count):
            push.send(b"%d %d" % (index, number))

    def receive(index: int) -> None:
        try:
            while True:
                seen[index] += pull.recv_many(50)
        except mcast.ClosedError:
            return

    threads = [
        threading.Thread(target=each, args=(index,))
        for index in range(THREADS)
        for each in (send, receive)
    ]
    for thread in threads:
        thread.start()
    until(lambda: sum(map(len, seen)) == THREADS * count, timeout=100)
    pull.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert len({message for batch in seen for message in batch}) == THREADS * count
    figure(
        "42",
        f"tcp://: {THREADS} threads on either side, {2 * THREADS * count:,} operations, 0 lost, "
        "none hung when it was closed",
    )


# 43: exit


_EXITS = {
    "falls off the end": "",
    "sys.exit": "sys.exit(0)",
    "an exception": "raise RuntimeError('planted')",
    "with daemon threads": "threading.Thread(target=loop, daemon=True).start(); time.sleep(.05)",
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", _EXITS)
def test_what_was_sent_leaves_however_the_interpreter_exits(ctx: mcast.Context, how: str) -> None:
    pull = ctx.socket(mcast.PULL)
    pull.bind("tcp://127.0.0.1:*")
    code = (
        "import sys, threading, time, mcast\n"
        "ctx = mcast.Context(linger=5)\n"
        "push = ctx.socket(mcast.PUSH)\n"
        "other = ctx.socket(mcast.PULL)\n"
        "other.bind('inproc://x')\n"
        "def loop():\n"
        "    while True: other.recv()\n"
        f"push.connect({pull.last_endpoint!r})\n"
        "for number in range(500): push.send(b'%d' % number)\n"
        f"{_EXITS[how]}\n"
    )
    runs = EXITS if how == "sys.exit" else 2
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=20, check=False
        )
        if how == "an exception":
            assert done.returncode == 1
            assert done.stderr.count(b"Traceback") == 1
            assert done.stderr.endswith(b"RuntimeError: planted\n")
        else:
            assert (done.returncode, done.stderr) == (0, b"")
        assert [pull.recv(timeout=5) for _ in range(500)] == [b"%d" % n for n in range(500)]
    said = "exit 1, its traceback alone" if how == "an exception" else "exit 0, nothing"
    figure("43", f"{how}: {runs} runs, every message delivered, {said} on stderr")


def test_control_c_ends_a_receive_at_once() -> None:
    code = (
        "import mcast\n"
        "with mcast.Context() as ctx:\n"
        "    pull = ctx.socket(mcast.PULL)\n"
        "    pull.bind('tcp://127.0.0.1:*')\n"
        "    print('ready', flush=True)\n"
        "    try: pull.recv()\n"
        "    except KeyboardInterrupt: print('interrupted', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.1)
        begun = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == b"interrupted\n"
        assert child.wait(5) == 0
        took_s = time.monotonic() - begun
    figure(
        "43", f"Ctrl-C in recv: over after {took_s * 1e3:.0f} ms (bar: the linger of 1 s, 200 ms)"
    )
    assert took_s < 1.2


def test_an_authenticator_that_raises_refuses_and_the_loop_goes_on(
    ctx: mcast.Context, caplog: pytest.LogCaptureFixture
) -> None:
    pull = ctx.socket(mcast.PULL, plain_server=True)

    def judge(request: mcast.AuthRequest) -> bool:
        if request.username == "bad":
            raise RuntimeError("planted")
        return True

    pull.authenticate(judge)
    pull.bind("tcp://127.0.0.1:*")
    for name in ("bad", "good"):
        push = ctx.socket(mcast.PUSH, plain_username=name, plain_password="x")
        push.connect(pull.last_endpoint)
        with contextlib.suppress(mcast.Again):
            push.send(name.encode(), timeout=0.5)
    assert pull.recv(timeout=5) == b"good"
    until(lambda: "authenticator failed" in caplog.text)  # the other may call later


# 44: a bug in the loop


def test_a_bug_ends_its_socket_with_one_traceback_and_the_others_live(
    ctx: mcast.Context, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = []
    for _ in range(2):
        rep, req = ctx.socket(mcast.REP), ctx.socket(mcast.REQ)
        rep.bind("tcp://127.0.0.1:*")
        req.connect(rep.last_endpoint)
        pairs.append((rep, req))
    (bad, to_bad), (good, to_good) = pairs
    peers = bad._peers
    assert peers is not None

    def planted(*_: object) -> NoReturn:
        raise RuntimeError("planted")

    monkeypatch.setattr(peers.pattern, "handle_messages", planted)
    with caplog.at_level(logging.ERROR):
        to_bad.send(b"hello")
        with pytest.raises(mcast.TransportError, match="planted"):
            bad.recv(timeout=5)
        to_good.send(b"hello")
        assert good.recv(timeout=5) == b"hello"
    assert caplog.text.count("Traceback") == 1
    figure("44", "a bug in a socket: an error at its recv, 1 traceback, another socket goes on")


# 45: no descriptors left


def test_without_descriptors_a_listener_rests_and_goes_on_when_there_are_some(
    ctx: mcast.Context,
) -> None:
    pull = ctx.socket(mcast.PULL)
    pull.bind("tcp://127.0.0.1:*")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    clients = [socket.socket() for _ in range(3)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + len(clients), hard))
    try:
        for client in clients:
            client.connect(address_of(pull))
        until(lambda: pull.stats()["accepts_failed"] > 0)
        before = time.process_time()
        time.sleep(0.5)
        busy = (time.process_time() - before) / 0.5
        failed = pull.stats()["accepts_failed"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: pull.stats()["accepted"] == len(clients))
    figure(
        "45",
        f"{busy:.1%} of a core while starved (bar 10 %), {failed:.0f} attempts in 0.5 s; then all "
        "accepted",
        met=busy < 0.1,
    )
    assert busy < 0.1
    for client in clients:
        client.close()


# 46: peers that reset, drip, stall and storm


def test_who_drips_a_byte_now_and_then_is_out_when_the_handshake_is_over(
    ctx: mcast.Context,
) -> None:
    pull = ctx.socket(mcast.PULL, handshake_ivl=0.5)
    pull.bind("tcp://127.0.0.1:*")
    with socket.create_connection(address_of(pull)) as slow:
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"\xff" + bytes(63):
                slow.sendall(bytes((byte,)))
                time.sleep(0.1)
        took_s = time.monotonic() - begun
    until(lambda: pull.stats()["handshakes_failed"] == 1)
    figure("46", f"a byte each 0.1 s: out after {took_s:.1f} s, with 0.5 s for the handshake")
    assert took_s < 1.5


def test_a_storm_of_connections_that_reset_leaves_an_honest_peer_alone(
    ctx: mcast.Context,
) -> None:
    rep, req = ctx.socket(mcast.REP), ctx.socket(mcast.REQ)
    rep.bind("tcp://127.0.0.1:*")
    req.connect(rep.last_endpoint)
    is_over = threading.Event()

    def storm() -> None:
        while not is_over.is_set():
            with socket.create_connection(address_of(rep)) as peer:
                peer.sendall(b"\xff\0\0")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=storm)
    thread.start()
    for number in range(300):
        req.send(b"%d" % number)
        assert rep.recv(timeout=5) == b"%d" % number
        rep.send(b"ok")
        assert req.recv(timeout=5) == b"ok"
    until(lambda: rep.stats()["accepted"] > 200)
    is_over.set()
    thread.join()
    until(lambda: rep.stats()["connections"] == 1)
    stormed = rep.stats()["accepted"] - 1
    figure("46", f"a storm of resets: {stormed} connections, 300 honest requests answered")


def test_a_subscriber_that_never_reads_holds_nobody_up(ctx: mcast.Context) -> None:
    pub = ctx.socket(mcast.XPUB, sndhwm=100)
    pub.bind("tcp://127.0.0.1:*")
    sub = ctx.socket(mcast.SUB, rcvhwm=100_000)
    sub.subscribe()
    sub.connect(pub.last_endpoint)
    assert pub.recv(timeout=5) == b"\1"
    greeting = b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\4\x19\5READY\x0bSocket-Type\0\0\0\3SUB"
    with socket.create_connection(address_of(pub)) as deaf:
        deaf.sendall(greeting + ready[:1] + bytes((len(ready) - 2,)) + ready[2:])
        until(lambda: pub.stats()["connections"] == 2)
        deaf.sendall(b"\0\1\1")  # subscribes to everything, as a 3.0 peer
        time.sleep(0.2)
        for number in range(3000):
            pub.send(b"%08d" % number + bytes(10_000))
            if number % 20 == 0:
                time.sleep(0.001)
        for number in range(3000):
            assert sub.recv(timeout=5)[:8] == b"%08d" % number
        assert pub.stats()["dropped_at_hwm"] > 0
    figure("46", "a subscriber that never reads: another gets 3,000 of 3,000 messages of 10 kB")


def test_a_peer_that_hangs_up_at_once_is_tried_ten_times_a_second_at_most(
    ctx: mcast.Context,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        push = ctx.socket(mcast.PUSH)
        push.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        attempts = 0
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                listener.accept()[0].close()
                attempts += 1
    figure("46", f"a peer that hangs up: {attempts / 2:.1f} attempts a second (bar 10)")
    assert 4 <= attempts <= 21
