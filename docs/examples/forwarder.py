"""A PUB-SUB proxy: publishers and subscribers know one address each, subscriptions go upstream.

python docs/examples/forwarder.py
"""

from __future__ import annotations

import threading

import mcast


def main() -> None:
    with mcast.Context() as ctx:
        inward, outward = ctx.socket(mcast.XSUB), ctx.socket(mcast.XPUB)
        inward.bind("tcp://127.0.0.1:*")
        outward.bind("tcp://127.0.0.1:*")
        proxy = mcast.Proxy(inward, outward)
        threading.Thread(target=proxy.run).start()

        publishers = []
        for _ in range(2):
            pub = ctx.socket(mcast.XPUB)
            pub.connect(inward.last_endpoint)
            publishers.append(pub)
        sub = ctx.socket(mcast.SUB)
        sub.subscribe("A")
        sub.connect(outward.last_endpoint)
        for pub in publishers:
            print(f"a publisher hears of the subscription: {pub.recv(timeout=5)!r}")

        for index, pub in enumerate(publishers):
            pub.send_multipart([b"B", b"filtered at its publisher"])
            pub.send_multipart([b"A", b"from publisher %d" % index])
        for text in sorted(sub.recv_multipart(timeout=5)[1] for _ in publishers):
            print(text.decode())
        print(f"messages through the proxy: {proxy.stats()['frontend_messages']}")


if __name__ == "__main__":
    main()
