"""Loss is never silent: what was lost, why and where; and who waits when it is full."""

from __future__ import annotations

import threading
import time

import pytest

import mcast

LIMIT_S = 10.0
Pair = tuple[mcast.Pub, mcast.Sub]


def lossy_pair(ctx: mcast.Context, url: str, **options: str) -> Pair:
    """A window so short, and arrivals so bad, that repairs come too late."""
    sub = ctx.socket(mcast.SUB, drop_rate=0.3, drop_seed=7, **options)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB, txw_bytes=1 << 16, rate=100e6, multicast_maxtpdu=576)
    pub.connect(url)
    return pub, sub


def publish(pub: mcast.Pub, count: int) -> None:
    for number in range(count):
        pub.send(b"%08d" % number + bytes(400))


def number_of(message: bytes) -> int:
    return int(message[:8])


def test_losses_are_events_by_default_and_cover_every_gap(ctx: mcast.Context, url: str) -> None:
    count = 3000
    pub, sub = lossy_pair(ctx, url)
    publish(pub, count)
    pub.close(linger=1.0)
    numbers = []
    events: list[mcast.Event] = []
    while not any(isinstance(event, mcast.PeerLeft) for event in events):
        events += sub.events()
        try:
            numbers += [number_of(message) for message in sub.recv_many(1000, timeout=0.05)]
        except mcast.Again:
            continue
    lost = [event for event in events if isinstance(event, mcast.Lost)]
    assert lost
    assert numbers == sorted(set(numbers))
    assert len(numbers) < count
    stats = sub.stats()
    assert sum(event.count for event in lost) == stats["lost"]
    assert all(event.last - event.first + 1 == event.count for event in lost)
    joined = next(event for event in events if isinstance(event, mcast.PeerJoined))
    left = next(event for event in events if isinstance(event, mcast.PeerLeft))
    # The ledger: each packet from the first to the last was taken or is in a Lost event.
    taken = stats["data_received"] + stats["rdata_received"] - stats["duplicates"]
    assert left.last - joined.first + 1 == taken + stats["lost"]
    assert left.reason == "finished"


def test_with_raise_the_loss_comes_where_it_happened(ctx: mcast.Context, url: str) -> None:
    pub, sub = lossy_pair(ctx, url, on_loss="raise")
    thread = threading.Thread(target=publish, args=(pub, 3000))
    thread.start()
    errors, gaps, last = [], 0, -1
    after_loss = False
    while True:
        try:
            number = number_of(sub.recv(timeout=1.0))
        except mcast.LossError as error:
            errors.append(error)
            after_loss = True
            continue
        except mcast.Again:
            break
        if number != last + 1:
            gaps += 1
            assert after_loss, "a gap without an error before it"
        last, after_loss = number, False
    thread.join()
    assert gaps
    assert all(error.last - error.first + 1 == error.count for error in errors)
    firsts = [error.first for error in errors]
    assert firsts == sorted(firsts)
    lost = [event for event in sub.events() if isinstance(event, mcast.Lost)]
    assert [(event.first, event.last) for event in lost] == [
        (error.first, error.last) for error in errors
    ]


def test_with_raise_a_batch_ends_before_the_loss(ctx: mcast.Context, url: str) -> None:
    pub, sub = lossy_pair(ctx, url, on_loss="raise")
    thread = threading.Thread(target=publish, args=(pub, 3000))
    thread.start()
    last, losses, after_loss = -1, 0, False
    while True:
        try:
            batch = [number_of(message) for message in sub.recv_many(1000, timeout=1.0)]
        except mcast.LossError:
            losses += 1
            after_loss = True
            continue
        except mcast.Again:
            break
        assert batch == list(range(batch[0], batch[0] + len(batch)))
        assert after_loss or batch[0] == last + 1
        last, after_loss = batch[-1], False
    thread.join()
    assert losses


# The application is too slow: the receive queue is full.


@pytest.mark.parametrize("count", [101, 1000, 5000])
def test_a_full_queue_is_reported_with_the_exact_number(
    ctx: mcast.Context, url: str, count: int
) -> None:
    sub, pub = ctx.socket(mcast.SUB, rcvhwm=100), ctx.socket(mcast.PUB)
    sub.connect(url)
    sub.subscribe()
    pub.connect(url)
    pub.send_many([b"%d" % number for number in range(count)])
    wait_until(lambda: sub.stats()["messages_received"] == count)
    received = take_all(sub)
    lost = [event for event in sub.events() if isinstance(event, mcast.Lost)]
    assert received == list(range(100))
    assert [event.reason for event in lost] == ["app_hwm"]
    assert lost[0].count == count - 100 == sub.stats()["queue_refused"]
    pub.send(b"%d" % count)
    assert int(sub.recv(timeout=LIMIT_S)) == count  # live again


def test_a_full_queue_raises_in_stream_order_with_counts_that_add_up(
    ctx: mcast.Context, url: str
) -> None:
    sub = ctx.socket(mcast.SUB, rcvhwm=50, on_loss="raise")
    pub = ctx.socket(mcast.PUB, rate=50e6)
    sub.connect(url)
    sub.subscribe()
    pub.connect(url)
    count = 20_000

    def run() -> None:
        for start in range(0, count, 20):
            pub.send_many([b"%d" % number for number in range(start, start + 20)])
            if start % 1000 == 0:
                time.sleep(0.001)

    thread = threading.Thread(target=run)
    thread.start()
    received, refused, last = 0, 0, -1
    reasons = set()
    while True:
        try:
            number = int(sub.recv(timeout=0.5))
        except mcast.LossError as error:
            reasons.add(error.reason)
            refused += error.count
            last += error.count
            continue
        except mcast.Again:
            break
        received += 1
        assert number == last + 1  # the error said exactly how many are missing here
        last = number
        if received % 500 == 0:
            time.sleep(0.03)  # twice as long as the loop leaves the socket to a reader
    thread.join()
    assert received + refused == count
    assert reasons == {"app_hwm"}
    assert sub.stats()["queue_refused"] == refused
    assert refused


def test_a_full_queue_counted_in_events_adds_up_while_they_are_taken(
    ctx: mcast.Context, url: str
) -> None:
    sub, pub = ctx.socket(mcast.SUB, rcvhwm=50), ctx.socket(mcast.PUB)
    sub.connect(url)
    sub.subscribe()
    pub.connect(url)
    count, seen = 30_000, 0
    thread = threading.Thread(target=lambda: pub.send_many([b"x"] * count))
    thread.start()
    while thread.is_alive() or sub.stats()["messages_received"] < count:
        seen += sum(event.count for event in sub.events() if isinstance(event, mcast.Lost))
    thread.join()
    seen += sum(event.count for event in sub.events() if isinstance(event, mcast.Lost))
    assert seen == sub.stats()["queue_refused"] == count - 50


def take_all(sub: mcast.Sub) -> list[int]:
    received = []
    while True:
        try:
            received += [int(message) for message in sub.recv_many(1000, timeout=0)]
        except mcast.Again:
            return received


def wait_until(holds: object, limit_s: float = LIMIT_S) -> None:
    assert callable(holds)
    ends_at = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.002)


# The rate is too low: the send queue is full.


def slow_pub(ctx: mcast.Context, url: str, **options: float) -> mcast.Pub:
    pub = ctx.socket(mcast.PUB, rate=1e6, **options)
    pub.connect(url)
    return pub


def test_sndhwm_makes_send_raise_again_at_once_or_after_the_timeout(
    ctx: mcast.Context, url: str
) -> None:
    pub = slow_pub(ctx, url, sndhwm=50)
    taken = 0
    with pytest.raises(mcast.Again):  # noqa: PT012
        while True:
            pub.send(bytes(1000), mcast.DONTWAIT)
            taken += 1
    assert 50 <= taken < 120
    started = time.monotonic()
    with pytest.raises(mcast.Again):  # noqa: PT012
        for _ in range(100):
            pub.send(bytes(1000), timeout=0.005)
    assert 0.005 <= time.monotonic() - started < 2.0


def test_send_blocks_until_the_rate_has_made_room(ctx: mcast.Context, url: str) -> None:
    pub = slow_pub(ctx, url, sndhwm=50)
    started = time.monotonic()
    for _ in range(100):
        pub.send(bytes(1000), timeout=LIMIT_S)
    elapsed_s = time.monotonic() - started
    # 50 messages of 1.1 kB had to leave first, at 125 kB/s.
    assert 0.3 < elapsed_s < 1.5


def test_send_many_returns_how_many_were_taken(ctx: mcast.Context, url: str) -> None:
    pub = slow_pub(ctx, url, sndhwm=50)
    taken = pub.send_many([bytes(1000)] * 500, timeout=0)
    assert 50 <= taken < 120
    more = pub.send_many([bytes(1000)] * 500, timeout=0.1)
    assert 5 <= more < 60
    assert pub.stats()["messages_sent"] == taken + more


def test_a_last_part_that_finds_no_room_may_be_sent_again(ctx: mcast.Context, url: str) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe(b"head")
    pub = slow_pub(ctx, url, sndhwm=50)
    pub.send(b"head", mcast.SNDMORE)
    pub.links[0].send_many([bytes(1000)] * 500, 0)
    with pytest.raises(mcast.Again):
        pub.send(b"tail", mcast.DONTWAIT)
    pub.send(b"tail", timeout=LIMIT_S)
    assert sub.recv_multipart(timeout=LIMIT_S) == [b"head", b"tail"]


def test_a_large_message_that_waits_for_room_does_not_spin(ctx: mcast.Context, url: str) -> None:
    pub = ctx.socket(mcast.PUB, rate=20e6, txw_bytes=1 << 20)
    pub.connect(url)
    large = bytes(300_000)
    pub.send(large)
    before = time.thread_time()
    for _ in range(5):
        pub.send(large, timeout=LIMIT_S)
    assert time.thread_time() - before < 0.25  # it took 0.6 s of waiting


def test_what_the_system_does_not_take_holds_up_the_sender(
    ctx: mcast.Context, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB, rate=float("inf"), txw_bytes=1 << 17)
    pub.connect(url)
    link = pub.links[0]

    class Stuck:
        gso = True

        def send(self, *_: object) -> int:
            return 0

    real = link._writer
    monkeypatch.setattr(link, "_writer", Stuck())
    messages = [b"%04d" % number + bytes(1000) for number in range(1000)]
    taken = pub.send_many(messages, timeout=0.05)
    assert taken < 130, "the window has gone round under packets that still wait"
    assert pub.poll(0, mcast.POLLOUT) == 0
    monkeypatch.setattr(link, "_writer", real)
    pub.send_many(messages[taken:], timeout=LIMIT_S)
    received: list[bytes] = []
    while len(received) < 1000:
        received += sub.recv_many(1000, timeout=LIMIT_S)
    assert received == messages
