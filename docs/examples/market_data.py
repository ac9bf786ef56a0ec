"""Quotes by topic: one publisher, two subscribers that want different symbols.

The first part of a message is its topic. A subscription is a prefix of it, so ``AAPL.`` (with the
dot) takes ``AAPL.quote`` and ``AAPL.trade`` but not ``AAPLW.quote``. Filtering is done by the
subscriber: every packet reaches every host that joined the group.

python docs/examples/market_data.py [URL]
"""

from __future__ import annotations

import struct
import sys

import mcast

QUOTE = struct.Struct("!Qdd")  # number, bid, ask
SYMBOLS = ("AAPL", "AAPLW", "MSFT")


def publish(pub: mcast.Pub, count: int) -> None:
    for number in range(count):
        for symbol in SYMBOLS:
            topic = f"{symbol}.quote".encode()
            pub.send_multipart([topic, QUOTE.pack(number, 100.0 + number, 100.5 + number)])


def receive(sub: mcast.Sub, count: int) -> tuple[set[str], bool]:
    """The topics that came, and whether the numbers of each ran from 0 without a gap."""
    expected: dict[str, int] = {}
    in_order = True
    for _ in range(count):
        topic, body = sub.recv_multipart(timeout=5.0)
        number, _bid, _ask = QUOTE.unpack(body)
        symbol = topic.decode()
        in_order &= number == expected.get(symbol, 0)
        expected[symbol] = number + 1
    return set(expected), in_order


def main(url: str = "epgm://lo;239.192.1.1:5555") -> None:
    count = 500
    with mcast.Context() as ctx:
        apple = ctx.socket(mcast.SUB)
        apple.connect(url)
        apple.subscribe("AAPL.")

        both = ctx.socket(mcast.SUB)
        both.connect(url)
        both.subscribe("AAPL.")
        both.subscribe("MSFT.")

        pub = ctx.socket(mcast.PUB)
        pub.connect(url)
        publish(pub, count)

        for name, sub, symbol_count in (("apple", apple, 1), ("both", both, 2)):
            topics, in_order = receive(sub, symbol_count * count)
            order = "in order" if in_order else "OUT OF ORDER"
            print(f"{name}: {symbol_count * count} quotes of {', '.join(sorted(topics))}, {order}")


if __name__ == "__main__":
    main(*sys.argv[1:])
