"""PUB and SUB with an envelope: the first part is the topic, the rest is nobody's filter.

python docs/examples/envelopes.py
"""

from __future__ import annotations

import mcast


def main() -> None:
    with mcast.Context() as ctx:
        pub = ctx.socket(mcast.XPUB)  # a PUB that also tells who subscribes
        pub.bind("tcp://127.0.0.1:*")
        sub = ctx.socket(mcast.SUB)
        sub.subscribe("weather")
        sub.connect(pub.last_endpoint)
        pub.recv(timeout=5)  # the subscription has arrived: nothing sent from now on is missed

        for _ in range(3):
            pub.send_multipart([b"sports", b"weather is bad for football"])
            pub.send_multipart([b"weather", b"sunny"])

        for _ in range(3):
            topic, text = sub.recv_multipart(timeout=5)
            print(f"{topic.decode()}: {text.decode()}")


if __name__ == "__main__":
    main()
