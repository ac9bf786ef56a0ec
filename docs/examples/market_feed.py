"""A market-data feed: quotes by multicast, the whole book by TCP for who came late or lost some.

Three followers hold a copy of the book. Each throws 20 % of the packets away, and the feed keeps
almost nothing for repairs, so that losses really happen. A follower that hears of one fetches the
book and goes on; at the end its copy is the feed's.

python docs/examples/market_feed.py [URL]
"""

from __future__ import annotations

import struct
import sys
import threading
import time

import mcast

QUOTE = struct.Struct("!Qdd")  # number, bid, ask
SYMBOLS = [b"AAPL", b"MSFT", b"NVDA", b"TSLA"]
COUNT = 8000
TINY_WINDOW: dict[str, float] = {"txw_bytes": 1 << 16, "recovery_ivl": 0.01}

Book = dict[bytes, bytes]


class Feed:
    """Owns the book. One thread quotes, another hands out the book; the lock keeps them apart."""

    def __init__(self, ctx: mcast.Context, url: str) -> None:
        self.book: Book = {}
        self._number = 0
        self._lock = threading.Lock()
        self._pub = ctx.socket(mcast.PUB, rate=20e6, **TINY_WINDOW)
        self._pub.connect(url)
        self._books = ctx.socket(mcast.REP)
        self._books.bind("tcp://127.0.0.1:*")
        self.book_url = self._books.last_endpoint
        threading.Thread(target=self._hand_out).start()

    def quote(self, symbol: bytes, bid: float, ask: float) -> None:
        with self._lock:
            self._number += 1
            self.book[symbol] = QUOTE.pack(self._number, bid, ask)
            self._pub.send_multipart([symbol, self.book[symbol]])

    def _hand_out(self) -> None:
        try:
            while True:
                self._books.recv()
                with self._lock:  # the number says which quotes the book holds already
                    items = [part for item in self.book.items() for part in item]
                    number = self._number
                self._books.send_multipart([b"%d" % number, *items])
        except mcast.ClosedError:
            return


class Follower:
    """A copy of the book."""

    def __init__(self, ctx: mcast.Context, url: str, book_url: str, seed: int) -> None:
        self.book: Book = {}
        self.number = 0
        self.fetches = 0
        self._sub = ctx.socket(mcast.SUB, on_loss="raise", drop_rate=0.2, drop_seed=seed)
        self._sub.connect(url)
        self._sub.subscribe()
        self._books = ctx.socket(mcast.REQ)
        self._books.connect(book_url)

    def run(self) -> None:
        self._fetch()  # the SUB listens already, so nothing falls between the book and the quotes
        while self.number < COUNT:
            try:
                symbol, quote = self._sub.recv_multipart(timeout=1.0)
            except (mcast.LossError, mcast.Again):  # silence may be a loss, too
                self._fetch()
                continue
            number = QUOTE.unpack(quote)[0]
            if number > self.number:  # else the book we fetched was newer
                self.number = number
                self.book[symbol] = quote

    def _fetch(self) -> None:
        self._books.send(b"book")
        number, *items = self._books.recv_multipart(timeout=5.0)
        self.fetches += 1
        if int(number) > self.number:
            self.number = int(number)
            self.book = dict(zip(items[::2], items[1::2], strict=True))


def main(url: str = "epgm://lo;239.192.1.1:5555") -> None:
    with mcast.Context() as ctx:
        feed = Feed(ctx, url)
        followers = [Follower(ctx, url, feed.book_url, seed) for seed in (1, 2, 3)]
        threads = [threading.Thread(target=follower.run) for follower in followers]
        for thread in threads:
            thread.start()
        for number in range(COUNT):
            mid = 100 + number / 100
            feed.quote(SYMBOLS[number * 7 % len(SYMBOLS)], mid - 0.01, mid + 0.01)
            if number % 20 == 0:
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        for follower in followers:
            same = follower.book == feed.book
            print(f"losses made up for: {follower.fetches > 1}, the same book: {same}")


if __name__ == "__main__":
    main(*sys.argv[1:])
