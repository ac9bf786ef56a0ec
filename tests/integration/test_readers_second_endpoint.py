"""A subscriber that gets a second endpoint, or a second reader, in mid-wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import mcast

LIMIT_S = 20.0


def test_a_second_endpoint_in_mid_wait_loses_nothing_of_the_first(
    ctx: mcast.Context, pair: tuple[mcast.Pub, mcast.Sub], make_url: Callable[[], str]
) -> None:
    pub, sub = pair
    got: list[bytes] = []

    def read() -> None:
        while (message := sub.recv(timeout=LIMIT_S)) != b"end":
            got.append(message)

    reader = threading.Thread(target=read)
    reader.start()
    number = 0
    for _ in range(10):
        url = make_url()
        for _ in range(200):
            pub.send(b"%d" % number)
            number += 1
        time.sleep(0.01)  # the reader sleeps
        sub.connect(url)
        for _ in range(200):
            pub.send(b"%d" % number)
            number += 1
        time.sleep(0.01)
        sub.disconnect(url)
    pub.send(b"end")
    reader.join(LIMIT_S)
    assert not reader.is_alive()
    assert got == [b"%d" % one for one in range(number)]


def test_a_reader_that_came_second_gets_what_the_first_left(
    pair: tuple[mcast.Pub, mcast.Sub],
) -> None:
    pub, sub = pair
    got: list[bytes] = []
    first = threading.Thread(target=lambda: got.append(sub.recv(timeout=LIMIT_S)))
    first.start()
    time.sleep(0.05)
    second = threading.Thread(target=lambda: got.append(sub.recv(timeout=LIMIT_S)))
    second.start()
    time.sleep(0.05)
    pub.send_many([b"1", b"2"])
    first.join(LIMIT_S)
    started = time.monotonic()
    second.join(LIMIT_S)
    assert time.monotonic() - started < 1.0
    assert sorted(got) == [b"1", b"2"]
