"""CURVE: requests and replies that nobody on the way can read or change, and only friends may ask.

Three clients: one whose key the server knows, one with a key of its own making, and one that speaks
in the clear. Only the first gets an answer.

python docs/examples/encrypted.py
"""

from __future__ import annotations

import threading

import mcast


def serve(rep: mcast.Rep) -> None:
    try:
        while True:
            rep.send(b"you said " + rep.recv())
    except mcast.ClosedError:
        return


def ask(ctx: mcast.Context, url: str, **options: str) -> str:
    with ctx.socket(mcast.REQ, **options) as req:
        req.connect(url)
        try:
            req.send(b"hello", timeout=1.0)
            return req.recv(timeout=1.0).decode()
        except mcast.Again:
            return "no answer"


def main() -> None:
    server_public, server_secret = mcast.curve_keypair()
    friend_public, friend_secret = mcast.curve_keypair()
    _stranger_public, stranger_secret = mcast.curve_keypair()
    with mcast.Context() as ctx:
        rep = ctx.socket(mcast.REP, curve_server=True, curve_secretkey=server_secret)
        rep.authenticate(mcast.allow(keys=[friend_public]))
        rep.bind("tcp://127.0.0.1:*")
        threading.Thread(target=serve, args=(rep,)).start()
        url = rep.last_endpoint

        known = {"curve_serverkey": server_public}
        print("friend:", ask(ctx, url, **known, curve_secretkey=friend_secret))
        print("stranger:", ask(ctx, url, **known, curve_secretkey=stranger_secret))
        print("in the clear:", ask(ctx, url))


if __name__ == "__main__":
    main()
