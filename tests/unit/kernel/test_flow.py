"""The short ways of a socket with one peer: what the gate writes and when, and who reads.

The reference always takes the long way; the tests of the short one need the compiled kernel.
"""

from __future__ import annotations

import errno
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from mcast.kernel import (
    NAME,
    Baton,
    FrameError,
    FrameScanner,
    Inbox,
    Message,
    ReceiveGate,
    Stop,
    StreamGate,
    StreamIntake,
    StreamWriter,
    TopicFilter,
    encode_messages,
)

compiled = pytest.mark.skipif(NAME != "native", reason="the reference takes the long way")
NEVER = 1 << 62


def framed(*messages: Message) -> bytes:
    return b"".join(encode_messages(messages))


class End:
    """One side of a connection, with the owner's part of the work."""

    def __init__(self, here: socket.socket, epoll: select.epoll) -> None:
        self.slow: list[Any] = []
        self.rest: list[Stop] = []
        self.failed = 0
        self.here = here
        self.lock = threading.Lock()
        epoll.register(here.fileno(), select.EPOLLIN)
        self.baton = Baton(epoll.fileno())
        self.writer = StreamWriter(here.fileno())
        self.inbox = Inbox()
        self.inbox.limit = 1000
        self.scanner = FrameScanner(1 << 20, 8, 512)
        self.intake = StreamIntake(
            here.fileno(),
            self.scanner,
            self.inbox,
            lock=self.lock,
            baton=self.baton,
            rest=self._rest,
            settled=lambda: NEVER,
            share=lambda: None,
        )
        self.inbox.intake = self.intake
        self.receive = ReceiveGate(self.inbox, self._slow_recv)

    def gate(self, *, attended: bool = False, **options: Any) -> StreamGate:
        made = StreamGate(
            **{
                "max_message_bytes": 1000,
                "message_limit": 100,
                "coalesce_ns": 10**12,
                "blocks": True,
                "drops": False,
                **options,
            },
            baton=self.baton,
            attended=attended,
            failed=self._fail,
            slow=lambda *call, **named: self.slow.append((*call, named)),
            slow_many=lambda batch, **named: self.slow.append((batch, named)) or len(batch),
        )
        made.lead_to(self.writer)
        made.is_open = True
        return made

    def _fail(self) -> None:
        self.failed += 1

    def _rest(self, now_ns: int, stop: Stop) -> None:
        assert self.lock.locked()
        self.rest.append(stop)
        if not isinstance(stop, bytes):
            self.intake.is_open = False

    def _slow_recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        raise EOFError(flags, timeout)


@pytest.fixture
def pair() -> Iterator[tuple[End, socket.socket]]:
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    with here, there, select.epoll() as epoll:
        yield End(here, epoll), there


Pair = tuple[End, socket.socket]


@compiled
def test_lone_message_leaves_at_once_and_the_next_one_waits_for_the_owner(pair: Pair) -> None:
    end, there = pair
    gate = end.gate(attended=True)
    gate.send(b"one")
    assert there.recv(100) == framed(b"one")
    assert gate.due_ns == NEVER
    gate.send(b"two")
    gate.send(b"three")
    with pytest.raises(BlockingIOError):
        there.recv(100)
    assert gate.due_ns < NEVER
    assert gate.flush() == 0
    assert there.recv(100) == framed(b"two", b"three")
    assert gate.due_ns == NEVER
    assert (gate.sent_count, end.slow) == (3, [])


@compiled
def test_without_a_thread_nothing_is_left_over(pair: Pair) -> None:
    end, there = pair
    gate = end.gate()
    for _ in range(3):
        gate.send(b"x")
        assert there.recv(100) == framed(b"x")


@compiled
def test_full_batch_leaves_by_itself(pair: Pair) -> None:
    end, there = pair
    gate = end.gate(attended=True, message_limit=10_000)
    gate.send(b"first")
    for _ in range(100):
        gate.send(bytes(500))
    assert len(there.recv(1 << 20)) > 30_000


@compiled
def test_rest_of_a_batch_has_its_time_after_full_writes(pair: Pair) -> None:
    end, there = pair
    gate = end.gate(attended=True, message_limit=10_000)
    gate.send(b"first")
    gate.send(b"second")
    assert gate.send_many([bytes(500)] * 100) == 100
    assert end.writer.size_bytes > 0
    assert gate.due_ns < NEVER
    assert gate.flush() == 0
    assert there.recv(1 << 20) == framed(b"first", b"second", *[bytes(500)] * 100)


@compiled
@pytest.mark.parametrize("attended", [False, True])
def test_what_the_system_did_not_take_has_its_time(pair: Pair, attended: bool) -> None:
    end, _ = pair
    clog(end)
    gate = end.gate(attended=attended, coalesce_ns=10**9)
    gate.send_many([bytes(1000)] * 3)
    assert gate.due_ns < NEVER
    assert gate.flush() == errno.EAGAIN
    assert gate.due_ns == NEVER
    gate.send(b"x")
    assert gate.due_ns < NEVER


@compiled
def test_coalesced_message_takes_those_before_it_along(pair: Pair) -> None:
    end, there = pair
    gate = end.gate(attended=True, coalesce_ns=2_000_000)
    gate.send(b"1")
    gate.send(b"2")
    time.sleep(0.003)
    gate.send(b"3")
    assert there.recv(100) == framed(b"1", b"2", b"3")


@compiled
def test_baton_wakes_the_loop_for_what_a_gate_left_behind(pair: Pair) -> None:
    end, _ = pair
    gate = end.gate(attended=True, coalesce_ns=20_000_000)
    assert gate.is_attended
    gate.send(b"1")
    gate.send(b"2")
    started_ns = time.monotonic_ns()
    assert end.baton.poll(5 * 10**9) == []
    assert gate.due_ns <= time.monotonic_ns() < started_ns + 10**9


@pytest.mark.parametrize(
    "data", [b"x" * 1001, bytearray(b"x"), memoryview(b"x"), (b"a", b"b"), "text"]
)
def test_what_is_not_plain_goes_the_long_way(pair: Pair, data: Any) -> None:
    end, _ = pair
    gate = end.gate()
    gate.send(data)
    gate.send_many([b"fine", data], timeout=1)
    assert end.slow == [(data, 0, {"timeout": None}), ([b"fine", data], {"timeout": 1})]
    assert end.writer.size_bytes == 0


def test_flags_and_closed_gates_go_the_long_way(pair: Pair) -> None:
    end, _ = pair
    gate = end.gate()
    gate.send(b"x", 2)
    gate.close()
    gate.send(b"x")
    gate.send_many([b"x"])
    assert len(end.slow) == 3


@compiled
def test_peer_gets_what_it_subscribed_to(pair: Pair) -> None:
    end, there = pair
    gate = end.gate()
    gate.topic_filter = TopicFilter([b"a"])
    gate.send(b"b1")
    gate.send(b"a1")
    assert gate.send_many([b"a2", b"b2", b"a3"]) == 3
    assert there.recv(100) == framed(b"a1", b"a2", b"a3")
    assert (gate.sent_count, gate.filtered_count) == (3, 2)


def clog(end: End) -> None:
    end.here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
    while end.writer.write() == 0:
        end.writer.put([bytes(8000)])


@compiled
def test_full_gate_goes_the_long_way_if_it_may_not_wait(pair: Pair) -> None:
    end, _ = pair
    clog(end)
    gate = end.gate(blocks=False, message_limit=3)
    for _ in range(4):
        gate.send(b"x")
    assert (gate.sent_count, len(end.slow)) == (3, 1)
    gate = end.gate(message_limit=3)
    gate.send(b"x", timeout=0)
    assert gate.send_many([b"x"] * 5, timeout=0) == 5
    assert (gate.sent_count, len(end.slow)) == (0, 3)


@compiled
def test_full_gate_of_a_publisher_drops_and_counts(pair: Pair) -> None:
    end, _ = pair
    clog(end)
    gate = end.gate(blocks=False, drops=True, message_limit=3)
    for _ in range(5):
        gate.send(b"x")
    assert gate.send_many([b"x"] * 4) == 4
    assert (gate.sent_count, gate.dropped_count, end.slow) == (3, 6, [])


def test_held_gate_goes_the_long_way(pair: Pair) -> None:
    end, _ = pair
    gate = end.gate()
    gate.hold = True
    gate.send(b"x")
    gate.send_many([b"x"])
    assert len(end.slow) == 2


@compiled
def test_gate_that_leads_elsewhere_is_closed_until_it_is_opened(pair: Pair) -> None:
    end, there = pair
    gate = end.gate()
    gate.lead_to(None)
    gate.send(b"a")
    assert (gate.flush(), len(end.slow)) == (0, 1)
    gate.lead_to(end.writer)
    gate.is_open = True
    gate.send(b"b")
    assert there.recv(100) == framed(b"b")


@compiled
def test_full_gate_waits_for_the_peer(pair: Pair) -> None:
    end, there = pair
    clog(end)
    gate = end.gate(message_limit=3)
    sent = [b"%d" % number for number in range(1000)]
    done = threading.Event()

    def send() -> None:
        for message in sent[:500]:
            gate.send(message)
        gate.send_many(sent[500:])
        done.set()

    threading.Thread(target=send, daemon=True).start()
    data = b""
    while not (done.is_set() and end.writer.size_bytes == 0 and data.endswith(framed(sent[-1]))):
        if done.is_set():
            gate.flush()
        if select.select([there], [], [], 10)[0]:
            data += there.recv(1 << 20)
    assert data.lstrip(b"\0x").endswith(framed(*sent)[1:])
    assert (gate.sent_count, end.slow) == (1000, [])


@compiled
def test_closing_wakes_whoever_waits_in_the_gate(pair: Pair) -> None:
    end, _ = pair
    clog(end)
    gate = end.gate(message_limit=1)
    gate.send(b"fits")
    thread = threading.Thread(target=gate.send, args=(b"waits",))
    thread.start()
    time.sleep(0.02)
    assert thread.is_alive()
    gate.close()
    thread.join(5)
    assert not thread.is_alive()
    assert end.slow == [(b"waits", 0, {"timeout": None})]


@compiled
def test_signal_handler_runs_while_the_gate_waits(pair: Pair) -> None:
    end, _ = pair
    clog(end)
    gate = end.gate(message_limit=1)
    gate.send(b"fits")

    def interrupt(number: int, frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(InterruptedError):
            gate.send(b"waits")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (gate.sent_count, gate.is_open) == (1, True)


@compiled
def test_error_of_the_system_closes_the_gate_and_tells_the_owner(pair: Pair) -> None:
    end, there = pair
    gate = end.gate()
    there.close()
    gate.send(b"x")
    assert (gate.error, gate.is_open, end.failed) == (errno.EPIPE, False, 1)


def test_read_hands_out_each_command_before_what_is_behind_it(pair: Pair) -> None:
    end, there = pair
    there.send(framed(b"a") + b"\x04\x02X1" + framed((b"b", b"c")) + b"\x04\x02X2" + framed(b"d"))
    assert end.intake.read() == b"X1"
    assert end.inbox.get_many(9) == [b"a"]
    assert end.intake.read() == b"X2"
    assert end.inbox.get_many(9) == [(b"b", b"c")]
    assert end.intake.read() is None
    assert end.inbox.get_many(9) == [b"d"]
    assert end.intake.read() is None
    assert end.intake.size_bytes == 0
    there.send(b"\xff\xff")
    assert isinstance(end.intake.read(), FrameError)


def test_read_tells_the_end_and_errors(pair: Pair) -> None:
    end, there = pair
    there.close()
    assert end.intake.read() == 0
    end.here.close()
    assert end.intake.read() == -errno.EBADF


@compiled
def test_whoever_waits_reads_and_gets_messages_one_by_one(pair: Pair) -> None:
    end, there = pair
    messages: list[Message] = [b"%d" % number for number in range(2000)] + [bytes(300)] * 20
    data = framed(*messages)
    got: list[Message] = []
    for start in range(0, len(data), 997):
        there.send(data[start : start + 997])
        got.append(end.receive.recv())
        while len(got) % 7 and end.intake.wait(0) is not None:
            pass
    while len(got) < len(messages):
        got.append(end.receive.recv())
    assert got == messages


@compiled
def test_batches_follow_single_messages_in_order(pair: Pair) -> None:
    end, there = pair
    messages: list[Message] = [b"%d" % number for number in range(100)]
    there.send(framed(*messages)[:-1])
    assert end.receive.recv() == b"0"
    assert end.inbox.get_many(3) == messages[1:4]
    assert len(end.inbox) == 95
    there.send(framed(messages[-1])[-1:] + framed((b"a", b"b")))
    got: list[Message] = []
    while len(got) < 97:
        assert end.intake.wait(10**9)
        got += end.inbox.get_many(40)
    assert got == [*messages[4:], (b"a", b"b")]


@compiled
def test_command_goes_to_the_owner_before_anybody_gets_what_is_behind(pair: Pair) -> None:
    end, there = pair
    there.send(framed(b"a") + b"\x04\x04PING" + framed(b"b"))
    assert end.receive.recv() == b"a"
    assert end.rest == [b"PING"]
    assert end.receive.recv() == b"b"


@compiled
def test_end_of_the_connection_ends_the_wait(pair: Pair) -> None:
    end, there = pair
    there.send(framed(b"last"))
    there.close()
    assert end.receive.recv() == b"last"
    with pytest.raises(EOFError):
        end.receive.recv()
    assert end.rest == [0]


@compiled
def test_filter_applies_to_what_is_held(pair: Pair) -> None:
    end, there = pair
    end.scanner.topic_filter = TopicFilter([b"a"])
    there.send(framed(b"b1", b"a1", b"b2", b"b3") + framed(b"a2"))
    assert [end.receive.recv(), end.receive.recv()] == [b"a1", b"a2"]
    assert end.scanner.filtered_count == 3


@compiled
def test_large_message_comes_to_whoever_waits(pair: Pair) -> None:
    end, there = pair
    there.setblocking(True)
    message = bytes(range(256)) * 4000
    thread = threading.Thread(target=there.sendall, args=(framed(message, b"next"),))
    thread.start()
    assert [end.receive.recv(), end.receive.recv()] == [message, b"next"]
    thread.join()


@compiled
def test_waiting_for_nothing_ends_in_time_or_by_the_bell(pair: Pair) -> None:
    end, _ = pair
    assert end.intake.wait(10_000_000) is False
    threading.Timer(0.02, end.intake.ring).start()
    assert end.intake.wait(10**10) is None


@compiled
def test_loop_watches_for_writing_while_a_reader_has_the_reading(pair: Pair) -> None:
    end, there = pair
    assert end.intake.wait(1_000_000) is False  # has the lease from now on
    assert end.intake.watch(select.EPOLLIN | select.EPOLLOUT)
    there.send(framed(b"x"))
    assert end.baton.poll(0) == [(end.here.fileno(), select.EPOLLOUT)]
    time.sleep(0.02)
    end.baton.poll(0)  # nobody was at it for a while
    assert end.baton.poll(0) == [(end.here.fileno(), select.EPOLLIN | select.EPOLLOUT)]


def lapse_s(end: End) -> float:
    """How long the loop thread leaves what waits to a reader that stays away."""
    began = time.monotonic()
    while not end.baton.poll(1_000_000):
        assert time.monotonic() - began < 20
    return time.monotonic() - began


@compiled
def test_loop_leaves_a_reader_its_time_while_the_system_s_buffer_has_room(pair: Pair) -> None:
    end, there = pair
    assert end.intake.wait(1_000_000) is False
    there.send(framed(b"x"))
    assert lapse_s(end) > 0.012


def crowded_lapse_s() -> float:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        select.epoll() as epoll,
        socket.create_connection(server.getsockname()) as there,
        server.accept()[0] as here,
    ):
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        here.setblocking(False)
        there.setblocking(False)
        end = End(here, epoll)
        assert end.intake.wait(1_000_000) is False
        with suppress(BlockingIOError):
            while True:
                there.send(bytes(65_536))
        return lapse_s(end)


@compiled
def test_loop_takes_over_soon_where_the_system_s_buffer_fills() -> None:
    # On a busy machine one look may come late, but not each of many.
    assert any(crowded_lapse_s() < 0.012 for _ in range(20))
