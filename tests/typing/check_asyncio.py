"""A user's asyncio program as the type checker sees it: checked by ``mypy --strict``, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

import mcast
import mcast.asyncio


async def make() -> None:
    async with mcast.asyncio.Context(linger=0.5) as ctx:
        assert_type(ctx, mcast.asyncio.Context)
        assert_type(ctx.socket(mcast.PUB), mcast.asyncio.Pub)
        assert_type(ctx.socket(mcast.SUB, rcvhwm=10), mcast.asyncio.Sub)
        kind: mcast.SocketType = mcast.SocketType(1)
        assert_type(
            ctx.socket(kind), mcast.asyncio.Pub | mcast.asyncio.Sub | mcast.asyncio.PatternSocket
        )
        assert_type(ctx.socket(mcast.DEALER), mcast.asyncio.PatternSocket)
        ctx.socket(mcast.PUB, rate=[1])  # type: ignore[call-overload]
        await ctx.term(0.1)
    with mcast.asyncio.Context() as wrong:  # type: ignore[attr-defined]
        print(wrong)


async def publish(pub: mcast.asyncio.Pub) -> None:
    pub.connect("epgm://lo;239.192.1.1:5555")
    assert_type(await pub.send(b"x", timeout=0.5), None)
    await pub.send(bytearray(b"x"), mcast.SNDMORE)
    await pub.send("text")  # type: ignore[arg-type]
    await pub.send_multipart([b"a", memoryview(b"b")])
    assert_type(await pub.send_many([b"a"]), int)
    pub.send(b"never sent")  # type: ignore[unused-coroutine]
    assert_type(pub.sync, mcast.Pub)
    pub.close(0.5)
    await pub.recv()  # type: ignore[attr-defined]


async def subscribe(sub: mcast.asyncio.Sub) -> None:
    sub.subscribe("AAPL")
    assert_type(await sub.recv(), bytes)
    assert_type(await sub.recv_multipart(timeout=1.0), list[bytes])
    assert_type(await sub.recv_many(10), list[bytes])
    assert_type(await sub.recv_many_multipart(10), list[list[bytes]])
    assert_type(await sub.poll(1.0), int)
    assert_type(sub.stats(), dict[str, int | float])
    assert_type(sub.events(), AsyncIterator[mcast.Event])
    async for parts in sub:
        assert_type(parts, list[bytes])
    async for event in sub.events():
        assert_type(event, mcast.Event)
    with sub:
        topic, price = await sub.recv_multipart()
        assert_type(topic, bytes)
        assert_type(price, bytes)
    await sub.send(b"x")  # type: ignore[attr-defined]
    sub.recv().upper()  # type: ignore[attr-defined]
