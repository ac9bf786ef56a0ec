"""A request-reply broker: clients and services find each other at one address each.

python docs/examples/broker.py
"""

from __future__ import annotations

import threading

import mcast


def serve(ctx: mcast.Context, url: str) -> None:
    rep = ctx.socket(mcast.REP)
    rep.connect(url)
    try:
        while True:
            rep.send(rep.recv().upper())
    except mcast.ClosedError:
        return


def main() -> None:
    with mcast.Context() as ctx:
        clients, services = ctx.socket(mcast.ROUTER), ctx.socket(mcast.DEALER)
        clients.bind("tcp://127.0.0.1:*")
        services.bind("tcp://127.0.0.1:*")
        threading.Thread(target=mcast.proxy, args=(clients, services)).start()
        for _ in range(2):
            threading.Thread(target=serve, args=(ctx, services.last_endpoint)).start()

        req = ctx.socket(mcast.REQ)
        req.connect(clients.last_endpoint)
        for word in (b"hello", b"world"):
            req.send(word)
            print(f"{word.decode()} -> {req.recv(timeout=5).decode()}")


if __name__ == "__main__":
    main()
