"""One publisher, one subscriber, one message: the smallest program that does something.

python docs/examples/hello.py [URL]
"""

from __future__ import annotations

import sys

import mcast


def main(url: str = "epgm://lo;239.192.1.1:5555") -> None:
    with mcast.Context() as ctx:
        sub = ctx.socket(mcast.SUB)
        sub.connect(url)
        sub.subscribe(b"")  # everything; without a subscription nothing arrives

        pub = ctx.socket(mcast.PUB)
        pub.connect(url)
        pub.send(b"hello")

        print(sub.recv(timeout=2.0).decode())
        for event in sub.events():
            print(type(event).__name__)


if __name__ == "__main__":
    main(*sys.argv[1:])
