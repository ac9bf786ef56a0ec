"""The short way of inproc keeps order, wholeness and both high-water marks like the long one."""

from __future__ import annotations

import threading

import pytest

import mcast
from mcast import kernel


def test_order_is_kept_between_the_ways_while_the_queue_runs_full() -> None:
    count = 20_000
    with mcast.Context() as context:
        pull, push = context.socket(mcast.PULL), context.socket(mcast.PUSH)
        pull.rcvhwm = push.sndhwm = 200
        pull.bind("inproc://order")
        push.connect("inproc://order")

        def send() -> None:
            for number in range(0, count, 10):
                push.send(b"%d" % number)
                push.send_multipart([b"%d" % (number + 1), b"more"])
                push.send_many([b"%d" % (number + one) for one in range(2, 10)])

        sender = threading.Thread(target=send)
        sender.start()
        got = [int(pull.recv_multipart(timeout=10)[0]) for _ in range(count)]
        sender.join(10)
        assert got == list(range(count))
        assert pull.stats()["messages_received"] == count


@pytest.mark.skipif(kernel.NAME == "reference", reason="its long way is full a batch earlier")
def test_both_high_water_marks_hold_and_half_of_them_makes_room() -> None:
    with mcast.Context() as context:
        pull, push = context.socket(mcast.PULL), context.socket(mcast.PUSH)
        pull.rcvhwm, push.sndhwm = 300, 200
        pull.bind("inproc://full")
        push.connect("inproc://full")
        for _ in range(500):
            push.send(b"x", timeout=0)
        with pytest.raises(mcast.Again):
            push.send(b"x", timeout=0)
        for _ in range(260):
            pull.recv(timeout=1)
        push.send(b"y", timeout=5)
        assert [pull.recv(timeout=1) for _ in range(241)][-1] == b"y"


def test_second_peer_ends_the_short_way_and_loses_nothing() -> None:
    with mcast.Context() as context:
        pull = context.socket(mcast.PULL)
        first, second = context.socket(mcast.PUSH), context.socket(mcast.PUSH)
        pull.bind("inproc://two")
        first.connect("inproc://two")
        for _ in range(100):
            first.send(b"1")
        second.connect("inproc://two")
        for _ in range(100):
            first.send(b"1")
            second.send(b"2")
        got = [pull.recv(timeout=5) for _ in range(300)]
        assert (got.count(b"1"), got.count(b"2")) == (200, 100)
        second.close()
        first.send(b"3")
        assert pull.recv(timeout=5) == b"3"
