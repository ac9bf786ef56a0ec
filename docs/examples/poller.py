"""Two feeds and a timer in one thread: wait for whichever socket has something.

python docs/examples/poller.py [URL [URL]]
"""

from __future__ import annotations

import sys

import mcast


def main(
    quotes_url: str = "epgm://lo;239.192.1.1:5555", news_url: str = "epgm://lo;239.192.1.2:5555"
) -> None:
    with mcast.Context() as ctx:
        subs = {}
        for name, url in (("quotes", quotes_url), ("news", news_url)):
            sub = ctx.socket(mcast.SUB)
            sub.connect(url)
            sub.subscribe()
            subs[sub] = name

        poller = mcast.Poller()
        for sub in subs:
            poller.register(sub, mcast.POLLIN)

        quotes = ctx.socket(mcast.PUB)
        quotes.connect(quotes_url)
        news = ctx.socket(mcast.PUB)
        news.connect(news_url)
        quotes.send(b"AAPL 189.20")
        news.send(b"rates unchanged")

        waiting = set(subs.values())
        while waiting:
            ready = poller.poll(timeout=2.0)
            if not ready:
                print(f"nothing from {waiting} for 2 s")
                break
            for socket, _flags in ready:
                if isinstance(socket, mcast.Sub):
                    print(f"{subs[socket]}: {socket.recv(mcast.DONTWAIT).decode()}")
                    waiting.discard(subs[socket])


if __name__ == "__main__":
    main(*sys.argv[1:])
