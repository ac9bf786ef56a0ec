"""A stock keeper and a customer, ported from pyzmq; docs/howto/from-pyzmq.md has the original.

The keeper answers requests over REP and publishes what is left over XPUB; the customer asks, and
watches. The wire is ZeroMQ's: each half works with the other half of the original, too.

python docs/examples/stock.py                              both halves
python docs/examples/stock.py keeper ORDERS_URL NEWS_URL   one of them
python docs/examples/stock.py customer ORDERS_URL NEWS_URL
"""

from __future__ import annotations

import json
import os
import sys
import threading

import mcast

STOCK = {"bolts": 3, "nuts": 2}


def keeper(orders_url: str, news_url: str) -> None:
    stock = dict(STOCK)
    with mcast.Context() as ctx:
        orders = ctx.socket(mcast.REP)
        orders.bind(orders_url)
        news = ctx.socket(mcast.XPUB)
        news.bind(news_url)
        news.recv(timeout=10.0)  # somebody has subscribed; a PUB would not know
        while sum(stock.values()):
            item = orders.recv(timeout=10.0).decode()
            stock[item] = max(stock[item] - 1, 0)
            orders.send(json.dumps({"item": item, "left": stock[item]}).encode())
            news.send_multipart([item.encode(), b"%d" % stock[item]])


def customer(orders_url: str, news_url: str) -> None:
    with mcast.Context() as ctx:
        orders = ctx.socket(mcast.REQ)
        orders.connect(orders_url)
        news = ctx.socket(mcast.SUB)
        news.subscribe("")
        news.connect(news_url)
        poller = mcast.Poller()
        poller.register(news, mcast.POLLIN)
        for item, count in STOCK.items():
            for _ in range(count):
                orders.send(item.encode())
                print("ordered:", json.loads(orders.recv(timeout=10.0)))
        sold_out = set()
        while len(sold_out) < len(STOCK) and poller.poll(2.0):
            item, left = (part.decode() for part in news.recv_multipart())
            if left == "0":
                sold_out.add(item)
        print("sold out:", sorted(sold_out))


def main() -> None:
    urls = (f"ipc://@orders-{os.getpid()}", f"ipc://@news-{os.getpid()}")
    keeps = threading.Thread(target=keeper, args=urls)
    keeps.start()
    customer(*urls)
    keeps.join()


if __name__ == "__main__":
    if len(sys.argv) == 4:
        {"keeper": keeper, "customer": customer}[sys.argv[1]](*sys.argv[2:])
    else:
        main()
