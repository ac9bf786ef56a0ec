"""A context without a thread: whoever waits does the loop's work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import mcast

LIMIT_S = 30.0


@pytest.fixture(params=[False, True], ids=["sleeping", "busy"])
def ctx(request: pytest.FixtureRequest) -> Iterator[mcast.Context]:
    with mcast.Context(loop="caller", busy_poll=request.param) as made:
        yield made


def pair(ctx: mcast.Context, url: str) -> tuple[mcast.Pub, mcast.Sub]:
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB)
    pub.connect(url)
    return pub, sub


def test_no_thread_is_made(ctx: mcast.Context, url: str) -> None:
    before = threading.active_count()
    pair(ctx, url)
    assert threading.active_count() == before


def test_what_is_sent_is_received(ctx: mcast.Context, url: str) -> None:
    pub, sub = pair(ctx, url)
    for number in range(1000):
        pub.send(b"%d" % number)
    assert [sub.recv(timeout=LIMIT_S) for _ in range(1000)] == [b"%d" % n for n in range(1000)]


def test_a_timeout_runs_out_on_time(ctx: mcast.Context, url: str) -> None:
    _, sub = pair(ctx, url)
    started = time.monotonic()
    with pytest.raises(mcast.Again):
        sub.recv(timeout=0.1)
    assert 0.1 <= time.monotonic() - started < 0.5
    with pytest.raises(mcast.Again):
        sub.recv(mcast.DONTWAIT)


def test_dontwait_sees_what_has_arrived(ctx: mcast.Context, url: str) -> None:
    pub, sub = pair(ctx, url)
    assert sub.poll(0) == 0
    pub.send(b"here")
    assert sub.poll(LIMIT_S) == mcast.POLLIN
    assert sub.recv(mcast.DONTWAIT) == b"here"


def test_losses_are_repaired_while_somebody_waits(ctx: mcast.Context, url: str) -> None:
    sub = ctx.socket(mcast.SUB, drop_rate=0.1, drop_seed=7)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB)
    pub.connect(url)
    sent = [b"%06d" % number + bytes(1000) for number in range(2000)]
    assert pub.send_many(sent, timeout=LIMIT_S) == 2000
    received: list[bytes] = []
    while len(received) < len(sent):
        received += sub.recv_many(1000, timeout=LIMIT_S)
    first = sent.index(received[0])  # the first packets may be among the dropped: a late join
    assert received == sent[first:]
    assert sub.stats()["repaired"] > 0


def test_another_thread_may_wait_too(ctx: mcast.Context, url: str) -> None:
    pub, sub = pair(ctx, url)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(sub.recv(timeout=LIMIT_S)))
    thread.start()
    other = ctx.socket(mcast.SUB)
    other.connect(url)
    other.subscribe()
    pub.send(b"for both")
    assert other.recv(timeout=LIMIT_S) == b"for both"
    thread.join(LIMIT_S)
    assert got == [b"for both"], sub.stats()


def test_leaving_the_context_repairs_and_ends(url: str) -> None:
    started = time.monotonic()
    with mcast.Context(loop="caller") as ctx:
        pub, _ = pair(ctx, url)
        pub.send(b"last words")
    assert time.monotonic() - started < 2.0
    with pytest.raises(mcast.ClosedError):
        pub.send(b"too late")


@pytest.mark.parametrize(
    ("options", "hint"),
    [({"loop": "green"}, "caller"), ({"busy_poll": True}, 'loop="caller"')],
)
def test_a_loop_that_cannot_be_is_refused(options: dict[str, str | bool], hint: str) -> None:
    with pytest.raises(mcast.OptionError, match=hint):
        mcast.Context(**options)  # type: ignore[arg-type]


def test_a_descriptor_that_nobody_would_serve_is_refused(ctx: mcast.Context, url: str) -> None:
    for socket in pair(ctx, url):
        with pytest.raises(mcast.PatternError, match='loop="thread"'):
            socket.fileno()
        with pytest.raises(mcast.PatternError, match='loop="thread"'):
            mcast.Poller().register(socket)
