"""Proxies between real sockets: brokers, forwarders, and what steers them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import mcast


@pytest.fixture
def ctx() -> Iterator[mcast.Context]:
    with mcast.Context() as made:
        yield made


def test_a_broker_shares_requests_out_and_brings_the_replies_back(ctx: mcast.Context) -> None:
    frontend, backend = ctx.socket(mcast.ROUTER), ctx.socket(mcast.DEALER)
    frontend.bind("tcp://127.0.0.1:*")
    backend.bind("inproc://workers")
    thread = threading.Thread(target=mcast.proxy, args=(frontend, backend))
    thread.start()
    workers = [ctx.socket(mcast.REP) for _ in range(3)]
    for worker in workers:
        worker.connect("inproc://workers")

    def work(worker: mcast.Socket) -> None:
        try:
            while True:
                worker.send(b"done " + worker.recv())
        except mcast.ClosedError:
            return

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for each in threads:
        each.start()
    clients = [ctx.socket(mcast.REQ) for _ in range(4)]
    for client in clients:
        client.connect(frontend.last_endpoint)
    for number in range(50):
        for client in clients:
            client.send(b"%d" % number)
        for client in clients:
            assert client.recv(timeout=5) == b"done %d" % number
    for socket in (*workers, backend):
        socket.close()
    thread.join(5)
    assert not thread.is_alive()
    for each in threads:
        each.join(5)


def test_a_forwarder_passes_on_subscriptions_and_messages_and_a_copy_of_both(
    ctx: mcast.Context,
) -> None:
    frontend, backend = ctx.socket(mcast.XSUB), ctx.socket(mcast.XPUB)
    capture, copies = ctx.socket(mcast.PUSH), ctx.socket(mcast.PULL)
    copies.bind("inproc://copies")
    capture.connect("inproc://copies")
    frontend.bind("inproc://in")
    backend.bind("tcp://127.0.0.1:*")
    proxy = mcast.Proxy(frontend, backend, capture)
    thread = threading.Thread(target=proxy.run)
    thread.start()
    pub, sub = ctx.socket(mcast.XPUB), ctx.socket(mcast.SUB)
    pub.connect("inproc://in")
    sub.subscribe("A")
    sub.connect(backend.last_endpoint)
    assert pub.recv(timeout=5) == b"\1A"
    pub.send_multipart([b"A", b"1"])
    pub.send_multipart([b"B", b"2"])
    assert sub.recv_multipart(timeout=5) == [b"A", b"1"]
    assert copies.recv_multipart(timeout=5) == [b"\1A"]
    assert copies.recv_multipart(timeout=5) == [b"A", b"1"]
    assert proxy.stats()["frontend_messages"] == 1
    frontend.close()
    thread.join(5)
    assert not thread.is_alive()


def test_back_pressure_goes_through_a_streamer(ctx: mcast.Context) -> None:
    frontend = ctx.socket(mcast.PULL, rcvhwm=10)
    backend = ctx.socket(mcast.PUSH, sndhwm=10)
    frontend.bind("inproc://tasks")
    backend.bind("inproc://out")
    thread = threading.Thread(target=mcast.proxy, args=(frontend, backend))
    thread.start()
    push = ctx.socket(mcast.PUSH, sndhwm=10)
    push.connect("inproc://tasks")
    sent = 0
    while push.poll(0.2, mcast.POLLOUT):
        push.send(b"%d" % sent)
        sent += 1
        assert sent < 2000
    pull = ctx.socket(mcast.PULL)
    pull.connect("inproc://out")
    assert [pull.recv(timeout=5) for _ in range(sent)] == [b"%d" % n for n in range(sent)]
    frontend.close()
    thread.join(5)


def test_a_steerable_proxy_pauses_goes_on_counts_and_ends(ctx: mcast.Context) -> None:
    frontend, backend = ctx.socket(mcast.PULL), ctx.socket(mcast.PUSH)
    control, boss = ctx.socket(mcast.REP), ctx.socket(mcast.REQ)
    for name, bound in (("in", frontend), ("out", backend), ("control", control)):
        bound.bind(f"inproc://{name}")
    boss.connect("inproc://control")
    push, pull = ctx.socket(mcast.PUSH), ctx.socket(mcast.PULL)
    push.connect("inproc://in")
    pull.connect("inproc://out")
    thread = threading.Thread(target=mcast.proxy_steerable, args=(frontend, backend, None, control))
    thread.start()

    def order(command: bytes) -> list[bytes]:
        boss.send(command)
        return boss.recv_multipart(timeout=5)

    push.send(b"one")
    assert pull.recv(timeout=5) == b"one"
    assert order(b"PAUSE") == [b""]
    push.send(b"two")
    with pytest.raises(mcast.Again):
        pull.recv(timeout=0.2)
    assert order(b"RESUME") == [b""]
    assert pull.recv(timeout=5) == b"two"
    time.sleep(0.05)
    assert order(b"STATISTICS") == [b"2", b"6", b"0", b"0", b"0", b"0", b"2", b"6"]
    assert order(b"NONSENSE") == [b"unknown command"]
    assert order(b"TERMINATE") == [b""]
    thread.join(5)
    assert not thread.is_alive()


def test_a_proxy_needs_a_context_with_a_thread() -> None:
    with mcast.Context(loop="caller") as ctx:
        pull, push = ctx.socket(mcast.PULL), ctx.socket(mcast.PUSH)
        with pytest.raises(mcast.PatternError, match="thread"):
            mcast.proxy(pull, push)
