"""The awaitable sockets: the same behaviour, other tasks run meanwhile, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import mcast
import mcast.asyncio

LIMIT_S = 10.0
Pair = tuple[mcast.asyncio.Pub, mcast.asyncio.Sub]


def run(main: Callable[[Pair], Coroutine[Any, Any, None]], url: str, **options: float) -> None:
    """Run ``main`` with a publisher (with ``options``) and a subscriber to everything."""

    async def whole() -> None:
        async with mcast.asyncio.Context(linger=0) as ctx:
            sub = ctx.socket(mcast.SUB)
            sub.connect(url)
            sub.subscribe()
            pub = ctx.socket(mcast.PUB, **options)
            pub.connect(url)
            async with asyncio.timeout(LIMIT_S * 3):
                await main((pub, sub))

    asyncio.run(whole())


def test_all_names_await(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair
        assert await sub.poll(0) == 0
        assert await sub.poll(0.01) == 0
        await pub.send(b"1")
        assert await sub.poll(LIMIT_S) == mcast.POLLIN
        assert await pub.poll(0, mcast.POLLOUT) == mcast.POLLOUT
        assert await pub.poll() == 0
        await pub.send(b"2", mcast.SNDMORE)
        await pub.send(b"3")
        await pub.send_multipart([b"4", b"5"])
        assert await pub.send_many([b"6", b"7"]) == 2
        assert await sub.recv() == b"1"
        assert await sub.recv(timeout=LIMIT_S) == b"2"
        assert sub.rcvmore
        assert await sub.recv_multipart() == [b"3"]
        assert await sub.recv_multipart(timeout=LIMIT_S) == [b"4", b"5"]
        got = []
        while len(got) < 2:
            got += await sub.recv_many(10, timeout=LIMIT_S)
        assert got == [b"6", b"7"]
        await pub.send_multipart([b"8", b"9"])
        assert await sub.recv_many_multipart(10) == [[b"8", b"9"]]
        assert sub.stats()["messages_received"] == 6
        assert sub.get("linger") == 0
        sub.set("linger", 0.5)
        assert sub.getsockopt("linger") == 0.5
        assert sub.endpoints == [sub.last_endpoint] == [url]
        assert isinstance(sub.fileno(), int)
        assert url in repr(sub)
        sub.unsubscribe()
        sub.disconnect(url)
        assert sub.endpoints == []

    run(main, url)


def test_running_out_of_time_raises_again_which_is_a_timeout_error(url: str) -> None:
    async def main(pair: Pair) -> None:
        _, sub = pair
        calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: sub.recv(mcast.DONTWAIT),
            lambda: sub.recv(timeout=0),
            lambda: sub.recv(timeout=0.01),
            lambda: sub.recv_multipart(timeout=0.01),
            lambda: sub.recv_many(5, timeout=0.01),
            lambda: sub.recv_many_multipart(5, timeout=0.01),
        ]
        for call in calls:
            with pytest.raises(mcast.Again) as caught:
                await call()
            assert isinstance(caught.value, TimeoutError)
        started = time.monotonic()
        with pytest.raises(mcast.Again):
            await sub.recv(timeout=0.05)
        assert 0.05 <= time.monotonic() - started < 1.0

    run(main, url)


def test_other_tasks_run_while_one_waits(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair
        waiting = asyncio.create_task(sub.recv())
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not waiting.done()
        await pub.send(b"x")
        assert await waiting == b"x"

    run(main, url)


def test_a_flood_leaves_other_tasks_their_turn(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair
        await pub.send_many([b"x"] * 20_000)
        while sub.stats()["queued"] != 20_000:
            await asyncio.sleep(0.001)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.create_task(other())
        for _ in range(20_000):
            await sub.recv()  # always there, so this alone would never let go
        task.cancel()
        assert turns >= 50

    run(main, url)


def test_no_thread_is_made_for_a_call(url: str) -> None:
    async def main(pair: Pair) -> None:
        before = threading.active_count()
        tasks = [asyncio.create_task(pair[1].recv()) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert threading.active_count() == before
        await pair[0].send_many([b"x"] * 20)
        await asyncio.gather(*tasks)

    run(main, url)


def test_several_tasks_share_a_socket(url: str) -> None:
    count = 20_000

    async def main(pair: Pair) -> None:
        pub, sub = pair
        got: list[int] = []

        async def read(batched: bool) -> None:
            with contextlib.suppress(mcast.Again):
                while True:
                    if batched:
                        got.extend(map(int, await sub.recv_many(50, timeout=0.5)))
                    else:
                        got.append(int(await sub.recv(timeout=0.5)))

        async def write(start: int) -> None:
            for number in range(start, start + count // 4):
                await pub.send(b"%d" % number)

        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(read(number % 2 == 0))
                tasks.create_task(write(number * count // 4))
        assert sorted(got) == list(range(count))

    run(main, url)


def test_a_cancelled_recv_loses_nothing(url: str) -> None:
    count = 5000
    dice = random.Random(1)

    async def main(pair: Pair) -> None:
        pub, sub = pair
        got: list[int] = []

        async def write() -> None:
            for number in range(count):
                await pub.send(b"%d" % number)
                if number % 10 == 0:
                    await asyncio.sleep(dice.random() * 0.0005)

        writer = asyncio.create_task(write())
        cancelled = 0
        while len(got) < count:
            reader = asyncio.create_task(sub.recv())
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            reader.cancel()
            try:
                got.append(int(await reader))
            except asyncio.CancelledError:
                cancelled += 1
        await writer
        assert got == list(range(count))
        assert cancelled > 100

    run(main, url)


def test_asyncio_s_own_timeouts_lose_nothing(url: str) -> None:
    count = 2000

    async def main(pair: Pair) -> None:
        pub, sub = pair
        got: list[int] = []

        async def write() -> None:
            for number in range(count):
                await pub.send(b"%d" % number)
                if number % 5 == 0:
                    await asyncio.sleep(0.0005)

        writer = asyncio.create_task(write())
        while len(got) < count:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0004):
                    while True:
                        got.append(int(await sub.recv()))
        await writer
        assert got == list(range(count))

    run(main, url)


def test_iterating_gives_whole_messages_until_the_socket_closes(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair
        await pub.send(b"a")
        await pub.send_multipart([b"b", b"c"])
        seen = []
        async for parts in sub:
            seen.append(parts)
            if len(seen) == 2:
                asyncio.get_running_loop().call_later(0.02, sub.close)
        assert seen == [[b"a"], [b"b", b"c"]]

    run(main, url)


def test_events_arrive_as_they_happen_until_the_socket_closes(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair
        seen: list[mcast.Event] = []

        async def watch() -> None:
            async for event in sub.events():
                seen.append(event)  # noqa: PERF401 - one by one, as they come

        task = asyncio.create_task(watch())
        await pub.send(b"x")
        await sub.recv()
        pub.close(0)
        while len(seen) < 2:
            await asyncio.sleep(0.001)
        assert [type(event) for event in seen] == [mcast.PeerJoined, mcast.PeerLeft]
        sub.close()
        await task
        with pytest.raises(mcast.ClosedError):
            async for _ in sub.events():
                pass

    run(main, url)


def test_events_end_after_a_quiet_time_if_asked(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair
        await pub.send(b"x")
        await sub.recv()
        assert [type(event) async for event in sub.events(0.01)] == [mcast.PeerJoined]
        assert [event async for event in sub.events(0)] == []

    run(main, url)


def test_losses_raise_in_stream_order_if_asked(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair
        sub.set("on_loss", "raise")
        sub.set("rcvhwm", 10)
        await pub.send_many([b"%d" % number for number in range(100)])
        while sub.stats()["messages_received"] != 100:
            await asyncio.sleep(0.001)
        assert [int(await sub.recv()) for _ in range(10)] == list(range(10))
        with pytest.raises(mcast.LossError) as caught:
            await sub.recv()
        assert caught.value.count == 90

    run(main, url)


def test_a_full_publisher_lets_other_tasks_run_and_honours_timeouts(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, _ = pair
        taken = await pub.send_many([bytes(1000)] * 1000, timeout=0.02)
        assert 20 <= taken < 200
        with pytest.raises(mcast.Again):  # noqa: PT012
            while True:
                await pub.send(bytes(1000), mcast.DONTWAIT)
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        task = asyncio.create_task(other())
        for _ in range(20):
            await pub.send(bytes(1000), timeout=LIMIT_S)
        task.cancel()
        assert turns > 10
        assert await pub.poll(LIMIT_S, mcast.POLLOUT) == mcast.POLLOUT

    run(main, url, rate=2e6, sndhwm=20)


@pytest.mark.parametrize("call", ["recv", "poll", "send", "send_many"])
def test_closing_ends_every_wait_with_closed_error(url: str, call: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair

        async def wait() -> None:
            if call == "recv":
                await sub.recv()
            elif call == "poll":
                await sub.poll()
            elif call == "send":
                while True:
                    await pub.send(bytes(1000))
            else:
                await pub.send_many([bytes(1000)] * 1000)

        tasks = [asyncio.create_task(wait()) for _ in range(3)]
        await asyncio.sleep(0.02)
        pub.close()
        sub.close()
        started = time.monotonic()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [mcast.ClosedError] * 3
        assert time.monotonic() - started < 1.0
        with pytest.raises(mcast.ClosedError):
            await sub.recv()
        with pytest.raises(mcast.ClosedError):
            await pub.send(b"x")

    run(main, url, rate=1e5, sndhwm=5)


def test_term_waits_for_the_linger_while_other_tasks_run(url: str) -> None:
    async def main() -> None:
        ctx = mcast.asyncio.Context(linger=5.0)
        pub = ctx.socket(mcast.PUB, rate=20e6)
        pub.connect(url)
        await pub.send_many([bytes(1000)] * 500)  # 0.2 s at this rate, and 0.25 s for repairs
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        task = asyncio.create_task(other())
        started = time.monotonic()
        await ctx.term()
        elapsed_s = time.monotonic() - started
        task.cancel()
        assert 0.2 < elapsed_s < 2.0
        assert turns > 50
        assert ctx.closed
        await ctx.term()
        with pytest.raises(mcast.ClosedError):
            ctx.socket(mcast.PUB)
        with pytest.raises(mcast.ClosedError):
            await ctx.__aenter__()

    asyncio.run(main())


def test_nothing_stays_open(url: str) -> None:
    async def main() -> None:
        async with mcast.asyncio.Context(linger=0) as ctx:
            with ctx.socket(mcast.PUB) as pub, ctx.socket(mcast.SUB) as sub:
                pub.connect(url)
                sub.connect(url)
                sub.subscribe()
                await pub.send(b"x")
                await sub.recv()
            assert pub.closed
            assert ctx.stats()["sockets"] == []

    asyncio.run(main())  # the first makes what asyncio itself keeps
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    asyncio.run(main())
    assert sorted(os.listdir("/proc/self/fd")) == before
    # Contexts of other tests may be about to end.
    ends_at = time.monotonic() + 10
    while any(thread.name == "mcast-loop" for thread in threading.enumerate()):
        assert time.monotonic() < ends_at, "a loop thread goes on"
        gc.collect()
        time.sleep(0.01)


def test_an_event_loop_that_is_gone_disturbs_nobody(url: str) -> None:
    ctx = mcast.asyncio.Context(linger=0)
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB)
    pub.connect(url)

    async def abandon() -> asyncio.Task[bytes]:
        task = asyncio.create_task(sub.recv())
        await asyncio.sleep(0.01)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(abandon())
    loop.close()

    async def main() -> None:
        await pub.send(b"x")
        assert await sub.recv(timeout=LIMIT_S) == b"x"
        await ctx.term()

    asyncio.run(main())
    assert not task.done()
    with contextlib.suppress(RuntimeError):
        task.get_coro().close()  # type: ignore[union-attr]
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_blocking_threads_and_tasks_may_share_a_socket(url: str) -> None:
    async def main(pair: Pair) -> None:
        pub, sub = pair
        count = 5000
        thread = threading.Thread(
            target=lambda: [pub.sync.send(b"%d" % number) for number in range(count)]
        )
        thread.start()
        for number in range(count):
            assert int(await sub.recv(timeout=LIMIT_S)) == number
        thread.join()

    run(main, url)


def test_options_are_attributes_and_nothing_else_can_be_set(url: str) -> None:
    async def main() -> None:
        async with mcast.asyncio.Context(linger=0) as ctx:
            sub = ctx.socket(mcast.SUB)
            sub.on_loss = "raise"
            assert sub.on_loss == sub.sync.on_loss == "raise"
            for name in ("on_los", "sync", "recv"):
                with pytest.raises(AttributeError, match="no option"):
                    setattr(sub, name, "raise")

    asyncio.run(main())


def test_a_negative_timeout_is_refused(url: str) -> None:
    async def main() -> None:
        async with mcast.asyncio.Context(linger=0) as ctx:
            sub = ctx.socket(mcast.SUB)
            sub.connect(url)
            for call in (sub.recv(timeout=-1), sub.recv_many(1, timeout=-1), sub.poll(-1)):
                with pytest.raises(mcast.OptionError, match="None to wait for ever"):
                    await call

    asyncio.run(main())
