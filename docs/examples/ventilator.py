"""Ventilator, workers, sink: tasks go out in turn, results come in together.

python docs/examples/ventilator.py
"""

from __future__ import annotations

import threading
import time

import mcast

TASKS = 300
WORKERS = 3


def work(ctx: mcast.Context, tasks_url: str, results_url: str) -> None:
    tasks, results = ctx.socket(mcast.PULL), ctx.socket(mcast.PUSH)
    tasks.connect(tasks_url)
    results.connect(results_url)
    name = threading.current_thread().name.encode()
    try:
        while True:
            number = int(tasks.recv())
            results.send_multipart([name, b"%d" % (number * number)])
    except mcast.ClosedError:
        return


def main() -> None:
    with mcast.Context() as ctx:
        ventilator, sink = ctx.socket(mcast.PUSH), ctx.socket(mcast.PULL)
        ventilator.bind("tcp://127.0.0.1:*")
        sink.bind("tcp://127.0.0.1:*")
        for index in range(WORKERS):
            threading.Thread(
                target=work,
                args=(ctx, ventilator.last_endpoint, sink.last_endpoint),
                name=f"worker-{index}",
            ).start()
        while ventilator.stats()["connections"] < WORKERS:
            time.sleep(0.01)  # else the first worker gets what the others should have

        ventilator.send_many([b"%d" % number for number in range(TASKS)])
        shares: dict[bytes, int] = {}
        total = 0
        for _ in range(TASKS):
            name, result = sink.recv_multipart(timeout=10)
            shares[name] = shares.get(name, 0) + 1
            total += int(result)
        for name, share in sorted(shares.items()):
            print(f"{name.decode()}: {share} tasks")
        print(f"sum of squares: {total}")


if __name__ == "__main__":
    main()
