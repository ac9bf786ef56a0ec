"""Clone: a table that every client holds a copy of, kept up to date by reliable multicast.

A client joins the group first, then asks for a snapshot over tcp, then applies the updates that are
newer. It may join late, and neither misses an update nor applies one twice; the number in each
update and in the snapshot says which is newer.

python docs/examples/clone.py [URL]
"""

from __future__ import annotations

import sys
import threading
import time

import mcast

UPDATES = 2000
KEYS = 50
JOINS = [0, 600, 1200]


class Server:
    """Owns the table. Publishes each change, and hands out the whole."""

    def __init__(self, ctx: mcast.Context, url: str) -> None:
        self._lock = threading.Lock()
        self._table: dict[bytes, bytes] = {}
        self._number = 0
        self._pub = ctx.socket(mcast.PUB)
        self._pub.connect(url)
        self._snapshots = ctx.socket(mcast.ROUTER)
        self._snapshots.bind("tcp://127.0.0.1:*")
        self.snapshot_url = self._snapshots.last_endpoint
        threading.Thread(target=self._hand_out).start()

    def change(self, key: bytes, value: bytes) -> None:
        with self._lock:
            self._number += 1
            self._table[key] = value
            self._pub.send_multipart([key, b"%d" % self._number, value])

    def _hand_out(self) -> None:
        try:
            while True:
                client, _question = self._snapshots.recv_multipart()
                with self._lock:
                    items = [part for item in self._table.items() for part in item]
                    number = self._number
                self._snapshots.send_multipart([client, b"%d" % number, *items])
        except mcast.ClosedError:
            return


def follow(ctx: mcast.Context, url: str, snapshot_url: str, last: int) -> dict[bytes, bytes]:
    """The table as of update number ``last``."""
    sub = ctx.socket(mcast.SUB, on_loss="raise")
    sub.connect(url)
    sub.subscribe()
    sub.recv_multipart(timeout=10)  # updates arrive: from here on none is missed

    dealer = ctx.socket(mcast.DEALER)
    dealer.connect(snapshot_url)
    dealer.send(b"snapshot")
    number, *items = dealer.recv_multipart(timeout=10)
    table = dict(zip(items[::2], items[1::2], strict=True))
    newest = int(number)
    while newest < last:
        key, number, value = sub.recv_multipart(timeout=10)
        if int(number) > newest:
            newest = int(number)
            table[key] = value
    return table


def main(url: str = "epgm://lo;239.192.1.1:5555") -> None:
    with mcast.Context() as ctx:
        server = Server(ctx, url)
        copies: list[dict[bytes, bytes]] = []
        arguments = (ctx, url, server.snapshot_url, UPDATES)
        clients = [
            threading.Thread(target=lambda: copies.append(follow(*arguments))) for _ in JOINS
        ]
        table: dict[bytes, bytes] = {}
        for number in range(UPDATES):
            if number in JOINS:  # they come late, one after another
                clients[JOINS.index(number)].start()
            key, value = b"key-%d" % (number * 7 % KEYS), b"%d" % number
            table[key] = value
            server.change(key, value)
            if number % 20 == 0:
                time.sleep(0.001)
        for client in clients:
            client.join()
        same = all(copy == table for copy in copies)
        print(f"{len(copies)} copies of {len(table)} keys, all the same as the table: {same}")


if __name__ == "__main__":
    main(*sys.argv[1:])
