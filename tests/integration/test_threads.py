"""One socket, many threads: nothing lost, nothing twice, nobody left waiting."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import mcast
from tests.support.figures import figure, times

Pair = tuple[mcast.Pub, mcast.Sub]

LIMIT_S = 20.0
HANG_S = 1.0
"""Nobody may go on waiting for longer than this after a socket was closed."""
THREADS = 8
MESSAGES = times(100_000, 500_000)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS * 2) as made:
        yield made


def test_eight_senders_and_eight_receivers_lose_nothing(
    pair: Pair, pool: ThreadPoolExecutor
) -> None:
    pub, sub = pair
    each = MESSAGES // THREADS
    ways: list[Callable[[], list[bytes]]] = [
        lambda: [sub.recv(timeout=HANG_S)],
        lambda: sub.recv_multipart(timeout=HANG_S),
        lambda: sub.recv_many(100, timeout=HANG_S),
        lambda: [part for parts in sub.recv_many_multipart(7, timeout=HANG_S) for part in parts],
    ]

    def send(sender: int) -> None:
        if sender % 2:
            for number in range(each):
                pub.send(b"%d %d" % (sender, number))
        else:
            for start in range(0, each, 50):
                end = min(each, start + 50)
                pub.send_many([b"%d %d" % (sender, number) for number in range(start, end)])

    def receive(receiver: int) -> list[bytes]:
        got: list[bytes] = []
        way = ways[receiver % len(ways)]
        try:
            while True:
                got += way()
        except mcast.Again:
            return got

    receivers = [pool.submit(receive, number) for number in range(THREADS)]
    senders = [pool.submit(send, number) for number in range(THREADS)]
    for sender in senders:
        sender.result(LIMIT_S)
    results = [receiver.result(LIMIT_S) for receiver in receivers]
    counts = Counter(itertools.chain.from_iterable(results))
    expected = {b"%d %d" % (s, n) for s in range(THREADS) for n in range(each)}
    assert set(counts) == expected
    assert max(counts.values()) == 1
    for got in results:  # each receiver sees each sender's messages in order
        for sender in range(THREADS):
            numbers = [int(m.split()[1]) for m in got if int(m.split()[0]) == sender]
            assert numbers == sorted(numbers)
    figure(
        "42", f"epgm://: {MESSAGES:,} messages by {THREADS} threads to {THREADS}, 0 lost, in order"
    )


def test_messages_of_several_parts_stay_whole_between_threads(
    pair: Pair, pool: ThreadPoolExecutor
) -> None:
    pub, sub = pair
    each = 2500

    def send(sender: int) -> None:
        for number in range(each):
            pub.send_multipart([b"%d" % sender, b"%d" % number, b"%d %d" % (sender, number)])

    def receive(_: int) -> list[list[bytes]]:
        got = []
        try:
            while True:
                got.append(sub.recv_multipart(timeout=HANG_S))
        except mcast.Again:
            return got

    receivers = [pool.submit(receive, number) for number in range(4)]
    for sender in [pool.submit(send, number) for number in range(4)]:
        sender.result(LIMIT_S)
    messages = [parts for receiver in receivers for parts in receiver.result(LIMIT_S)]
    assert len(messages) == 4 * each
    assert all(parts[2] == parts[0] + b" " + parts[1] for parts in messages)


def test_parts_taken_one_by_one_by_several_threads_are_taken_once(
    pair: Pair, pool: ThreadPoolExecutor
) -> None:
    pub, sub = pair
    count = 5000
    for number in range(count):
        pub.send_multipart([b"%d a" % number, b"%d b" % number, b"%d c" % number])

    def receive(_: int) -> list[bytes]:
        got = []
        try:
            while True:
                got.append(sub.recv(timeout=0.5))
        except mcast.Again:
            return got

    futures = [pool.submit(receive, number) for number in range(4)]
    parts = Counter(part for future in futures for part in future.result(LIMIT_S))
    assert len(parts) == 3 * count
    assert max(parts.values()) == 1


BLOCKED: dict[str, Callable[[mcast.Pub, mcast.Sub], object]] = {
    "recv": lambda pub, sub: sub.recv(),
    "recv_multipart": lambda pub, sub: sub.recv_multipart(),
    "recv_many": lambda pub, sub: sub.recv_many(10, timeout=60.0),
    "poll": lambda pub, sub: sub.poll(),
    "events": lambda pub, sub: (list(sub.events(None)), sub.recv()),
    "send": lambda pub, sub: send_for_ever(pub),
    "send_many": lambda pub, sub: pub.send_many([bytes(1000)] * 10_000),
    "poll for room": lambda pub, sub: (fill(pub), pub.poll(60.0, mcast.POLLOUT)),
}


def send_for_ever(pub: mcast.Pub) -> None:
    while True:
        pub.send(bytes(1000))


def fill(pub: mcast.Pub) -> None:
    try:
        while True:
            pub.send(bytes(1000), mcast.DONTWAIT)
    except mcast.Again:
        return


@pytest.mark.parametrize("how", ["socket", "context"])
@pytest.mark.parametrize("call", BLOCKED)
def test_closing_ends_every_wait_with_closed_error(url: str, call: str, how: str) -> None:
    with mcast.Context(linger=0) as ctx:
        sub = ctx.socket(mcast.SUB)
        sub.connect(url)
        pub = ctx.socket(mcast.PUB, rate=2e4, sndhwm=5)
        pub.connect(url)
        ended: list[BaseException | None] = []

        def wait() -> None:
            try:
                BLOCKED[call](pub, sub)
            except mcast.ClosedError as error:
                ended.append(error)

        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)  # most have begun to wait; the others find a closed socket
        started = time.monotonic()
        if how == "socket":
            sub.close()
            pub.close()
        else:
            ctx.term()
        for thread in threads:
            thread.join(HANG_S)
        assert len(ended) == 4
        assert time.monotonic() - started < HANG_S


@pytest.mark.parametrize("seed", range(20))
def test_sockets_may_be_closed_in_the_middle_of_traffic(url: str, seed: int) -> None:
    unexpected: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                while True:
                    work()
            except mcast.ClosedError:
                return
            except BaseException as error:
                unexpected.append(error)

        return run

    with mcast.Context(linger=0) as ctx:
        sub = ctx.socket(mcast.SUB)
        sub.connect(url)
        sub.subscribe()
        pub = ctx.socket(mcast.PUB, rate=200e6)
        pub.connect(url)
        works: list[Callable[[], object]] = [
            lambda: pub.send(b"x" * 100),
            lambda: pub.send_many([b"y"] * 100),
            sub.recv,
            lambda: sub.recv_many(50),
            lambda: (sub.poll(0.01), sub.fileno(), list(sub.events())),
            lambda: (pub.stats(), sub.stats()),
            lambda: (sub.subscribe(b"z"), sub.unsubscribe(b"z")),
            lambda: (pub.poll(0.01, mcast.POLLOUT), pub.fileno()),
        ]
        threads = [threading.Thread(target=guarded(work)) for work in works]
        for thread in threads:
            thread.start()
        time.sleep(0.005 + 0.001 * seed)
        started = time.monotonic()
        first, second = (pub, sub) if seed % 2 else (sub, pub)
        first.close()
        second.close()
        for thread in threads:
            thread.join(HANG_S)
        assert not any(thread.is_alive() for thread in threads)
        assert time.monotonic() - started < HANG_S
    assert unexpected == []


def test_endpoints_may_come_and_go_while_others_send_and_receive(
    ctx: mcast.Context, make_url: Callable[[], str], pair: Pair
) -> None:
    pub, sub = pair
    stop = threading.Event()
    faults: list[BaseException] = []

    def come_and_go() -> None:
        try:
            while not stop.is_set():
                other = make_url()
                sub.connect(other)
                extra = ctx.socket(mcast.PUB)
                extra.connect(other)
                extra.send(b"extra")
                sub.disconnect(other)
                extra.close()
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    expected = 0
    for number in range(20_000):
        pub.send(b"%d" % number)
    while expected < 20_000:
        message = sub.recv(timeout=LIMIT_S)
        if message != b"extra":
            assert int(message) == expected
            expected += 1
    stop.set()
    thread.join(LIMIT_S)
    assert faults == []


def test_leaving_and_joining_at_once_delivers_nothing_twice(
    ctx: mcast.Context, url: str, pair: Pair
) -> None:
    pub, sub = pair
    count = 20_000
    thread = threading.Thread(target=lambda: [pub.send(b"%d" % n) for n in range(count)])
    thread.start()
    numbers = []
    while thread.is_alive():
        sub.disconnect(url)
        sub.connect(url)
        try:
            numbers += [int(message) for message in sub.recv_many(10_000, timeout=0.01)]
        except mcast.Again:
            continue
    thread.join()
    try:
        while True:
            numbers += [int(message) for message in sub.recv_many(10_000, timeout=0.2)]
    except mcast.Again:
        pass
    assert numbers == sorted(set(numbers))
