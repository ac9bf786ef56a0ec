"""Lazy pirate: a client that asks again when no reply comes, and gives up at last.

The server answers the first request, sleeps over the second, and then is gone. ``req_relaxed``
lets the socket ask again, ``req_correlate`` keeps a late reply from being taken for another's.

python docs/examples/lazy_pirate.py
"""

from __future__ import annotations

import threading
import time

import mcast

PATIENCE_S = 0.3
RETRIES = 3


def serve(server: mcast.Socket) -> None:
    print(f"server: {server.recv().decode()}")
    server.send(b"first")
    server.recv()
    time.sleep(2 * PATIENCE_S)
    server.send(b"late")
    print(f"server: {server.recv().decode()}, which is asked again")
    server.send(b"second")
    time.sleep(PATIENCE_S / 2)
    server.close()


def ask(client: mcast.Socket, request: bytes) -> bytes | None:
    for attempt in range(RETRIES):
        client.send(request)
        try:
            return client.recv(timeout=PATIENCE_S * (attempt + 1))
        except mcast.Again:
            continue
    return None


def main() -> None:
    with mcast.Context(linger=0) as ctx:
        server = ctx.socket(mcast.REP)
        server.bind("tcp://127.0.0.1:*")
        client = ctx.socket(mcast.REQ, req_relaxed=True, req_correlate=True)
        client.connect(server.last_endpoint)
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        replies = [ask(client, b"one"), ask(client, b"two")]
        thread.join()
        replies.append(ask(client, b"three"))
        for reply in replies:
            print(f"client: {'no reply' if reply is None else reply.decode()}")


if __name__ == "__main__":
    main()
