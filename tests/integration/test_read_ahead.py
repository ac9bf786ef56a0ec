"""How far the loop reads ahead of the application, in the compiled kernel's short way."""

from __future__ import annotations

from collections.abc import Iterator
from select import EPOLLIN
from time import monotonic_ns

import pytest

import mcast
from mcast.kernel import NAME
from mcast.runtime.connections import Connection
from tests.integration.test_unicast_sockets import until

pytestmark = pytest.mark.skipif(NAME == "reference", reason="its messages go by the pattern")

COUNT = 60_000
HWM = 50_000
NEAR = 8_192 + 64 * 1024  # a portion, and what one read of messages of a byte may add
MOMENT_NS = 1_000_000


@pytest.fixture
def pull() -> Iterator[mcast.Pull]:
    """One whose loop does nothing but in its own calls, with more coming than it may have."""
    with mcast.Context() as sending, mcast.Context(loop="caller") as receiving:
        push = sending.socket(mcast.PUSH, sndhwm=COUNT, linger=0)
        push.bind("tcp://127.0.0.1:*")
        pull = receiving.socket(mcast.PULL, rcvhwm=HWM)
        pull.connect(push.last_endpoint)
        until(lambda: pull.poll(0.005) or push.poll(0, mcast.POLLOUT))
        push.send(b"first", timeout=5)
        assert pull.recv(timeout=5) == b"first"
        for number in range(COUNT):
            push.send(b"%05d" % number, timeout=5)
        yield pull


def connection_of(pull: mcast.Pull) -> Connection:
    peers = pull._peers
    assert peers is not None
    found = peers.lone_connection
    assert found is not None
    return found


def waiting(pull: mcast.Pull) -> int:
    return int(pull.stats()["queued"])


def read(pull: mcast.Pull) -> Connection:
    """As the loop does when the descriptor is readable, until it has enough for now."""
    connection = connection_of(pull)
    read_on(connection, monotonic_ns())
    return connection


def read_on(connection: Connection, now_ns: int) -> None:
    def has_enough() -> bool:
        connection.handle_ready(now_ns, EPOLLIN)
        return connection.is_paused

    until(has_enough)


def test_the_loop_reads_a_portion_ahead_of_a_reader_that_is_at_it(pull: mcast.Pull) -> None:
    connection = read(pull)
    assert 8_192 <= waiting(pull) <= NEAR
    pull.recv_many(10)
    assert not connection.go_on(monotonic_ns() + MOMENT_NS)
    pull.recv_many(10)
    assert not connection.go_on(monotonic_ns() + 2 * MOMENT_NS)
    assert waiting(pull) <= NEAR


def test_the_loop_reads_on_when_the_reader_has_taken_half(pull: mcast.Pull) -> None:
    connection = read(pull)
    while waiting(pull) > 4_096:
        pull.recv_many(1_000)
    assert connection.go_on(monotonic_ns())


def test_the_queue_of_a_reader_that_is_elsewhere_fills_to_its_high_water_mark(
    pull: mcast.Pull,
) -> None:
    connection = read(pull)
    now_ns = monotonic_ns()
    while waiting(pull) < HWM:
        now_ns += MOMENT_NS
        assert connection.go_on(now_ns)
        read_on(connection, now_ns)
    assert not connection.go_on(now_ns + MOMENT_NS)
    got = []
    while len(got) < COUNT:
        got += pull.recv_many(10_000, timeout=5)
    assert got == [b"%05d" % number for number in range(COUNT)]
