"""What a lost packet looks like: repaired, reported as an event, or raised where it happened.

``drop_rate`` throws arriving packets away before the protocol sees them; the dice are seeded.

python docs/examples/losses.py [URL]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import mcast

COUNT = 5000
TINY_WINDOW: dict[str, float] = {"txw_bytes": 1 << 16, "recovery_ivl": 0.01}
"""45 packets, kept for 10 ms: a repair takes about as long, so some come too late."""


def until_it_leaves(sub: mcast.Sub, events: list[mcast.Event]) -> Iterator[int]:
    """The numbers that arrive until the publisher has left; ``events`` collects the events."""
    has_left = False
    while True:
        try:
            yield from map(int, sub.recv_many(1000, timeout=0 if has_left else 0.1))
        except mcast.Again:
            if has_left:
                return  # its last messages were put into the queue before the event was
            events += sub.events()
            has_left = any(isinstance(event, mcast.PeerLeft) for event in events)


def publish(ctx: mcast.Context, url: str, **options: float) -> None:
    with ctx.socket(mcast.PUB, rate=20e6, **options) as pub:
        pub.connect(url)
        for number in range(COUNT):
            pub.send(b"%0100d" % number)  # 100 bytes, so that there are packets to lose
    # Closing does not block: the loop thread sends and repairs what is left, up to ``linger``.


def repaired(url: str) -> None:
    with mcast.Context() as ctx:
        sub = ctx.socket(mcast.SUB, drop_rate=0.1, drop_seed=1)
        sub.connect(url)
        sub.subscribe()
        publish(ctx, url)
        received = list(until_it_leaves(sub, []))
        complete = received == list(range(COUNT))
        stats = sub.stats()
        print(f"dropped {stats['dropped_for_test']} packets, repaired {stats['repaired']}")
        print(f"received {len(received)} of {COUNT}, complete and in order: {complete}")


def reported(url: str) -> None:
    with mcast.Context() as ctx:
        sub = ctx.socket(mcast.SUB, drop_rate=0.2, drop_seed=1)
        sub.connect(url)
        sub.subscribe()
        publish(ctx, url, **TINY_WINDOW)
        events: list[mcast.Event] = []
        received = list(until_it_leaves(sub, events))
        losses = [event for event in events if isinstance(event, mcast.Lost)]
        rising = received == sorted(set(received))
        packets = sum(lost.count for lost in losses)
        print(f"received {len(received)} of {COUNT}, rising: {rising}")
        print(f"{len(losses)} Lost events tell of {packets} packets, the first: {losses[0]}")


def raised(url: str) -> None:
    with mcast.Context() as ctx:
        sub = ctx.socket(mcast.SUB, on_loss="raise", drop_rate=0.2, drop_seed=1)
        sub.connect(url)
        sub.subscribe()
        publish(ctx, url, **TINY_WINDOW)
        gaps = 0
        last = -1
        has_left = False
        while not has_left:
            try:
                last = int(sub.recv(timeout=0.1))
            except mcast.LossError as error:
                gaps += 1
                if gaps == 1:
                    print(f"after number {last}: {error.count} packets lost ({error.reason})")
            except mcast.Again:
                has_left = any(isinstance(event, mcast.PeerLeft) for event in sub.events())
        print(f"{gaps} gaps raised, each in its place")


def main(url: str = "epgm://lo;239.192.1.1:5555") -> None:
    repaired(url)
    reported(url)
    raised(url)


if __name__ == "__main__":
    main(*sys.argv[1:])
