"""The same sockets in asyncio: a task that publishes, one that reads, one that watches events.

python docs/examples/asyncio_ticker.py [URL]
"""

from __future__ import annotations

import asyncio
import sys

import mcast
import mcast.asyncio

COUNT = 1000


async def publish(pub: mcast.asyncio.Pub) -> None:
    for number in range(COUNT):
        await pub.send(b"%d" % number)


async def read(sub: mcast.asyncio.Sub) -> int:
    count = 0
    async for parts in sub:
        assert int(parts[0]) == count
        count += 1
        if count == COUNT:
            break
    return count


async def watch(sub: mcast.asyncio.Sub) -> None:
    async for event in sub.events():
        print(type(event).__name__)


async def run(url: str) -> None:
    async with mcast.asyncio.Context() as ctx:
        sub = ctx.socket(mcast.SUB)
        sub.connect(url)
        sub.subscribe()
        pub = ctx.socket(mcast.PUB)
        pub.connect(url)

        watcher = asyncio.create_task(watch(sub))
        async with asyncio.timeout(10):
            _, count = await asyncio.gather(publish(pub), read(sub))
        print(f"{count} messages in order")
        watcher.cancel()


def main(url: str = "epgm://lo;239.192.1.1:5555") -> None:
    asyncio.run(run(url))


if __name__ == "__main__":
    main(*sys.argv[1:])
