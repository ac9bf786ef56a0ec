"""Whoever waits for messages reads the socket itself: leases, signals, neighbours, the end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest

import mcast
from mcast import kernel

LIMIT_S = 20.0

only_native = pytest.mark.skipif(kernel.NAME != "native", reason="the reference waits elsewhere")


def turns(ctx: mcast.Context) -> int:
    count = ctx.stats()["loop_turns"]
    assert isinstance(count, int)
    return count


@only_native
def test_a_reader_that_waits_needs_no_loop_thread(
    ctx: mcast.Context, pair: tuple[mcast.Pub, mcast.Sub]
) -> None:
    pub, sub = pair
    with mcast.Context() as other:
        sender = other.socket(mcast.PUB)
        sender.connect(pub.last_endpoint)
        sender.send(b"hello")
        while sub.recv(timeout=LIMIT_S) != b"hello":
            pass
        before = turns(ctx)
        for number in range(200):
            sender.send(b"%d" % number)
            assert sub.recv(timeout=LIMIT_S) == b"%d" % number
        # Its heartbeats and a lease that lapses may wake it, a message does not.
        assert turns(ctx) - before < 100


def test_who_polls_after_a_recv_need_not_wait_until_the_socket_is_taken_back(
    pair: tuple[mcast.Pub, mcast.Sub],
) -> None:
    pub, sub = pair
    rounds, slow = 40, 0
    for _ in range(rounds):
        pub.send(b"for recv")
        assert sub.recv(timeout=LIMIT_S) == b"for recv"
        sent_at: list[float] = []

        def send(sent_at: list[float] = sent_at) -> None:
            sent_at.append(time.monotonic())
            pub.send(b"for poll")

        timer = threading.Timer(0.002, send)
        timer.start()
        assert sub.poll(LIMIT_S) == mcast.POLLIN
        slow += time.monotonic() - sent_at[0] > 0.008
        assert sub.recv(timeout=LIMIT_S) == b"for poll"
        timer.join()
    assert slow < rounds // 2


def test_a_reader_that_stays_away_finds_everything_in_the_inbox(
    pair: tuple[mcast.Pub, mcast.Sub],
) -> None:
    pub, sub = pair
    pub.send(b"first")
    assert sub.recv(timeout=LIMIT_S) == b"first"
    for number in range(1000):
        pub.send(b"%d" % number)
    deadline = time.monotonic() + LIMIT_S
    while sub.stats()["queued"] < 1000 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sub.recv_many(1000) == [b"%d" % number for number in range(1000)]


def test_a_signal_handler_runs_while_a_reader_waits_and_may_send_what_it_waits_for(
    pair: tuple[mcast.Pub, mcast.Sub],
) -> None:
    pub, sub = pair

    def handler(_number: int, _frame: FrameType | None) -> None:
        pub.send(b"from the handler")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.035)  # between two SPMs
    try:
        assert sub.recv(timeout=LIMIT_S) == b"from the handler"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_exception_of_a_signal_handler_leaves_a_waiting_reader(
    pair: tuple[mcast.Pub, mcast.Sub],
) -> None:
    pub, sub = pair

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise ZeroDivisionError("from the handler")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.035)  # between two SPMs
    try:
        with pytest.raises(ZeroDivisionError):
            sub.recv(timeout=LIMIT_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    pub.send(b"after it")
    assert sub.recv(timeout=LIMIT_S) == b"after it"


def test_several_readers_share_what_comes_and_nobody_is_forgotten(
    pair: tuple[mcast.Pub, mcast.Sub],
) -> None:
    pub, sub = pair
    taken: list[bytes] = []

    def read() -> None:
        while (message := sub.recv(timeout=LIMIT_S)) != b"end":
            taken.append(message)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(2000):
        pub.send(b"%d" % number)
        if number % 100 == 0:
            time.sleep(0.002)
    for _ in readers:
        pub.send(b"end")
    for reader in readers:
        reader.join(LIMIT_S)
        assert not reader.is_alive()
    assert sorted(taken, key=int) == [b"%d" % number for number in range(2000)]


def test_a_message_that_the_loop_thread_finds_wakes_a_reader(
    ctx: mcast.Context, pair: tuple[mcast.Pub, mcast.Sub], make_url: Callable[[], str]
) -> None:
    """A second endpoint in mid-wait ends the short way of the first."""
    _, sub = pair
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(sub.recv(timeout=LIMIT_S)))
    reader.start()
    time.sleep(0.05)
    url = make_url()
    sub.connect(url)
    other = ctx.socket(mcast.PUB)
    other.connect(url)
    other.send(b"by the other endpoint")
    reader.join(LIMIT_S)
    assert got == [b"by the other endpoint"]


@pytest.mark.parametrize(
    "end", [lambda sub: sub.close(), lambda sub: sub.disconnect(sub.endpoints[0])]
)
def test_the_end_of_an_endpoint_reaches_a_reader_that_sleeps(
    pair: tuple[mcast.Pub, mcast.Sub], end: Callable[[mcast.Sub], None]
) -> None:
    _, sub = pair
    caught: list[BaseException] = []

    def read() -> None:
        try:
            sub.recv(timeout=0.5)
        except mcast.Error as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    end(sub)
    reader.join(LIMIT_S)
    assert len(caught) == 1


def test_a_new_subscription_holds_for_a_reader_that_sleeps(
    pair: tuple[mcast.Pub, mcast.Sub],
) -> None:
    pub, sub = pair
    sub.unsubscribe(b"")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(sub.recv(timeout=LIMIT_S)))
    reader.start()
    pub.send(b"unwanted")
    time.sleep(0.05)
    sub.subscribe(b"wanted")
    pub.send(b"unwanted")
    pub.send(b"wanted")
    reader.join(LIMIT_S)
    assert got == [b"wanted"]


def test_losses_are_repaired_while_only_the_reader_reads(ctx: mcast.Context, url: str) -> None:
    sub = ctx.socket(mcast.SUB, drop_rate=0.05, drop_seed=3)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB)
    pub.connect(url)
    pub.send(b"0")  # who joins later hears what comes from then on
    while sub.stats()["messages_received"] == 0:
        pub.send(b"0")
        time.sleep(0.01)
    for number in range(1, 2000):
        pub.send(b"%d" % number)
        if number % 50 == 0:
            time.sleep(0.001)
    got = [sub.recv(timeout=LIMIT_S)]
    while got[-1] != b"1999":
        got.append(sub.recv(timeout=LIMIT_S))
    assert [one for one in got if one != b"0"] == [b"%d" % number for number in range(1, 2000)]
    assert sub.stats()["dropped_for_test"] > 0


@pytest.mark.parametrize("batch", [1, 7])
def test_a_reader_that_lacks_the_interpreter_lock_gets_everything_in_order(
    ctx: mcast.Context, url: str, batch: int
) -> None:
    """Then it reads the socket also between what it takes from the window behind a repair."""
    sub = ctx.socket(mcast.SUB, drop_rate=0.02, drop_seed=5, rcvhwm=100_000)
    sub.connect(url)
    sub.subscribe()
    count = 40_000
    is_over = threading.Event()

    def compute() -> None:
        while not is_over.is_set():
            sum(range(1000))

    def publish() -> None:
        with mcast.Context() as other:
            pub = other.socket(mcast.PUB)
            pub.connect(url)
            while sub.stats()["messages_received"] == 0 and not is_over.is_set():
                pub.send(b"0")
                time.sleep(0.01)
            for first in range(1, count, 1000):
                pub.send_many([b"%0200d" % number for number in range(first, first + 1000)])
            is_over.wait(LIMIT_S)

    threads = [threading.Thread(target=target, daemon=True) for target in (compute, publish)]
    for thread in threads:
        thread.start()
    got: list[bytes] = []
    try:
        while len(got) < count:
            taken = (
                [sub.recv(timeout=LIMIT_S)] if batch == 1 else sub.recv_many(batch, timeout=LIMIT_S)
            )
            got += [one for one in taken if one != b"0"]
    finally:
        is_over.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert list(map(int, got)) == list(range(1, count + 1))
    assert sub.stats()["repaired"] > 0


@only_native
def test_an_interrupt_in_the_middle_of_a_packet_is_raised_and_ends_the_endpoint(
    pair: tuple[mcast.Pub, mcast.Sub], monkeypatch: pytest.MonkeyPatch
) -> None:
    pub, sub = pair
    pub.send(b"first")
    assert sub.recv(timeout=LIMIT_S) == b"first"
    engine = sub.links[0]._engine

    def interrupted(*_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "handle_datagrams", interrupted)
    engine.streams.clear()  # what is plain does not get there
    timer = threading.Timer(0.02, pub.send, [b"second"])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sub.recv(timeout=LIMIT_S)
    timer.join()
    with pytest.raises(mcast.TransportError, match="interrupted by KeyboardInterrupt"):
        sub.recv(timeout=LIMIT_S)


def test_without_a_loop_thread_who_lacks_the_interpreter_lock_may_poll_and_receive_by_turns(
    url: str,
) -> None:
    """Nobody lends the socket there, for nobody would take it back."""
    is_over = threading.Event()

    def compute() -> None:
        while not is_over.is_set():
            sum(range(1000))

    with mcast.Context(loop="caller", linger=0) as ctx, mcast.Context() as other:
        sub = ctx.socket(mcast.SUB)
        sub.connect(url)
        sub.subscribe()
        pub = other.socket(mcast.PUB)
        pub.connect(url)

        def publish() -> None:
            while not is_over.wait(0.008):
                pub.send(b"%d" % time.monotonic_ns())

        threads = [threading.Thread(target=target, daemon=True) for target in (compute, publish)]
        for thread in threads:
            thread.start()
        late_s: list[float] = []
        try:
            for number in range(100):
                if number % 2:
                    assert sub.poll(LIMIT_S) == mcast.POLLIN
                late_s.append((time.monotonic_ns() - int(sub.recv(timeout=LIMIT_S))) / 1e9)
        finally:
            is_over.set()
            for thread in threads:
                thread.join(LIMIT_S)
    assert sorted(late_s)[len(late_s) // 2] < 0.2
