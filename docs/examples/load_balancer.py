"""Load balancing: a task goes to whichever worker says it is free, so a slow one gets fewer.

python docs/examples/load_balancer.py
"""

from __future__ import annotations

import threading
import time
from collections import deque

import mcast

TASKS = 60
PAUSES_S = {b"fast": 0.001, b"slow": 0.02}


def work(ctx: mcast.Context, url: str, name: bytes) -> None:
    dealer = ctx.socket(mcast.DEALER, routing_id=name)
    dealer.connect(url)
    dealer.send_multipart([b"ready"])
    try:
        while True:
            client, task = dealer.recv_multipart()
            time.sleep(PAUSES_S[name])
            dealer.send_multipart([b"done", client, task])
    except mcast.ClosedError:
        return


def balance(clients: mcast.Socket, workers: mcast.Socket) -> None:
    free: deque[bytes] = deque()
    poller = mcast.Poller()
    poller.register(workers, mcast.POLLIN)
    try:
        while True:
            # Without a free worker clients wait; TCP holds them up.
            poller.register(clients, mcast.POLLIN if free else 0)
            for socket, _flags in poller.poll():
                if socket is workers:
                    name, verb, *rest = workers.recv_multipart()
                    free.append(name)
                    if verb == b"done":
                        client, task = rest
                        clients.send_multipart([client, name, task])
                elif free:
                    client, task = clients.recv_multipart()
                    workers.send_multipart([free.popleft(), client, task])
    except mcast.ClosedError:
        return


def main() -> None:
    with mcast.Context() as ctx:
        frontend, backend = ctx.socket(mcast.ROUTER), ctx.socket(mcast.ROUTER)
        frontend.bind("tcp://127.0.0.1:*")
        backend.bind("inproc://workers")
        threading.Thread(target=balance, args=(frontend, backend)).start()
        for name in PAUSES_S:
            threading.Thread(target=work, args=(ctx, "inproc://workers", name)).start()

        client = ctx.socket(mcast.DEALER)
        client.connect(frontend.last_endpoint)
        client.send_many([b"%d" % number for number in range(TASKS)])
        shares = dict.fromkeys(PAUSES_S, 0)
        for _ in range(TASKS):
            name, _task = client.recv_multipart(timeout=10)
            shares[name] += 1
        print(f"{sum(shares.values())} tasks done")
        print(f"the fast worker did more: {shares[b'fast'] > 2 * shares[b'slow']}")


if __name__ == "__main__":
    main()
