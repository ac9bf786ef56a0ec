"""Three publisher processes and one subscriber on one host, one group and one port.

Each publisher is a stream of its own, with its own order and its own repairs; order between them
means nothing. The subscriber throws 5 % away, so the repairs have to find the right publisher.

python docs/examples/many_publishers.py [URL]
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict

import mcast

PUBLISHERS = 3
COUNT = 2000


def publish(url: str, name: str) -> None:
    with mcast.Context(linger=5.0) as ctx:
        pub = ctx.socket(mcast.PUB, rate=20e6)
        pub.connect(url)
        for number in range(COUNT):
            pub.send(f"{name} {number}".encode())


def main(url: str = "epgm://lo;239.192.1.1:5555") -> None:
    with mcast.Context() as ctx:
        sub = ctx.socket(mcast.SUB, drop_rate=0.05, drop_seed=7)
        sub.connect(url)
        sub.subscribe()

        publishers = [
            subprocess.Popen([sys.executable, __file__, url, f"publisher-{index}"])
            for index in range(PUBLISHERS)
        ]
        received = defaultdict(list)
        try:
            for _ in range(PUBLISHERS * COUNT):
                name, number = sub.recv(timeout=10.0).decode().split()
                received[name].append(int(number))
        except mcast.Again:
            print("nothing for 10 s")
        finally:
            for publisher in publishers:
                publisher.wait()

        for name, numbers in sorted(received.items()):
            complete = numbers == list(range(COUNT))
            print(f"{name}: {len(numbers)} messages, complete and in order: {complete}")
        print(f"streams heard: {sum(isinstance(e, mcast.PeerJoined) for e in sub.events())}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        publish(*sys.argv[1:])
    else:
        main(*sys.argv[1:])
