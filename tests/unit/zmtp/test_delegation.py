"""Somebody else reads for a ready engine, out of its scanner: what it is told, and does."""

from __future__ import annotations

import pytest

from mcast.kernel import FrameError, FrameScanner, Message
from mcast.zmtp import Failed, FailureReason, Subscribed
from tests.unit.zmtp.ends import MS, PAIRS, End, S, pair, ready_end
from tests.unit.zmtp.wire import NULL_GREETING, PUB_READY, SUB_READY, command, message, ping, ready

pytestmark = pytest.mark.kernel_independent

PONG = command(b"PONG")


def body(frame: bytes) -> bytes:
    """What a scanner hands out of a short frame."""
    return frame[2:]


def reading(end: End, data: bytes) -> list[Message]:
    """What a reader does with ``data``: messages are its own, the rest goes to the engine."""
    scanner = end.engine.plain_scanner
    assert scanner is not None
    messages: list[Message] = []
    scanner.feed(data)
    while (stop := scanner.scan_untrusted(messages)) is not None:
        end.engine.handle_stop(stop, end.now_ns)
    end.engine.handle_received(len(data), len(messages), end.now_ns)
    end.drain()
    return messages


def pull(**options: int) -> End:
    return ready_end("PULL", ready(b"PUSH"), **options)


# Who may read.


@pytest.mark.parametrize("mechanism", PAIRS)
def test_reader_gets_the_scanner_of_what_is_ready_and_not_sealed(mechanism: str) -> None:
    _, client = pair(mechanism)
    is_sealed = mechanism == "CURVE"
    assert (client.engine.plain_scanner is None) is is_sealed
    assert client.engine.is_plain is not is_sealed


def test_reader_gets_no_scanner_before_ready_and_none_after_the_end() -> None:
    end = End("SUB")
    for heard in (b"", NULL_GREETING):
        end.hear(heard)
        assert end.engine.plain_scanner is None
        assert not end.engine.is_plain
    end.hear(PUB_READY)
    assert isinstance(end.engine.plain_scanner, FrameScanner)
    end.engine.close()
    assert end.engine.plain_scanner is None
    assert not end.engine.is_plain


def test_publishers_read_themselves_since_messages_may_subscribe() -> None:
    for publisher in ("PUB", "XPUB"):
        end = ready_end(publisher, SUB_READY)
        assert end.engine.plain_scanner is None
        assert end.engine.is_plain


# What it tells.


def test_messages_that_a_reader_got_are_counted_and_come_out_nowhere_else() -> None:
    end = pull()
    before = end.engine.counters.bytes_received
    data = message(b"one") + message(b"two", b"parts")
    assert reading(end, data) == [b"one", (b"two", b"parts")]
    assert end.messages == []
    assert end.engine.counters.messages_received == 2
    assert end.engine.counters.bytes_received == before + len(data)


def test_command_between_messages_is_answered_as_if_the_engine_had_read_it() -> None:
    end = pull()
    assert reading(end, message(b"one") + ping(0, b"now") + message(b"two")) == [b"one", b"two"]
    assert end.take_sent() == command(b"PONG", b"now")
    assert end.engine.counters.pings_received == 1


def test_messages_behind_a_command_count_although_their_bytes_were_told_before() -> None:
    end = pull()
    end.engine.handle_received(100, 1, end.now_ns)
    end.engine.handle_stop(body(ping(0)), end.now_ns)
    end.engine.handle_received(0, 2, end.now_ns)
    assert end.engine.counters.messages_received == 3


def test_error_in_what_a_reader_got_ends_the_connection() -> None:
    end = pull()
    end.engine.handle_stop(FrameError("malformed", "no frame"), end.now_ns)
    end.drain()
    assert end.all(Failed) == [Failed(FailureReason.MALFORMED, "no frame")]
    assert end.engine.is_over


def test_command_that_a_reader_got_may_end_the_connection() -> None:
    end = pull()
    end.engine.handle_stop(b"\x09SUBSCR", end.now_ns)
    end.drain()
    assert end.failure is FailureReason.MALFORMED


def test_groups_that_a_reader_came_upon_are_joined() -> None:
    end = ready_end("RADIO", ready(b"DISH"))
    assert reading(end, command(b"JOIN", b"group")) == []
    assert end.events[-1] == Subscribed([b"group"])
    assert list(end.engine.peer_topics) == [b"group"]


def test_whoever_goes_on_reading_after_the_end_is_not_heard() -> None:
    end = pull(heartbeat_ivl_ns=S)
    end.hear(ping(5))
    end.engine.handle_eof()
    end.drain()
    end.take_sent()
    events, received = list(end.events), end.engine.counters.bytes_received
    end.engine.handle_stop(body(ping(5)), end.now_ns)
    end.engine.handle_stop(FrameError("malformed", "no frame"), end.now_ns)
    end.engine.handle_received(100, 3, end.now_ns)
    end.engine.handle_presence(end.now_ns)
    end.run(10 * S)
    assert (end.events, end.sent, end.engine.counters.bytes_received) == (events, b"", received)
    assert end.engine.next_timeout_ns == 1 << 62


# Signs of life.


@pytest.mark.parametrize("sign", ["message", "command", "unread"])
def test_peer_that_somebody_else_reads_from_is_alive(sign: str) -> None:
    end = pull(heartbeat_ivl_ns=S, heartbeat_timeout_ns=500 * MS)
    end.run(S + 499 * MS)
    if sign == "message":
        end.engine.handle_received(10, 1, end.now_ns)
    elif sign == "command":
        end.engine.handle_stop(body(PONG), end.now_ns)
    else:
        end.engine.handle_presence(end.now_ns)
    end.run(501 * MS - 1)
    assert end.failure is None
    end.run(500 * MS + 1)
    assert end.failure is FailureReason.HEARTBEAT_TIMEOUT  # the next PING had no answer


def test_reader_that_got_nothing_tells_nothing_about_the_peer() -> None:
    end = pull(heartbeat_ivl_ns=S, heartbeat_timeout_ns=500 * MS)
    end.run(S + 499 * MS)
    end.engine.handle_received(0, 0, end.now_ns)
    end.run(MS)
    assert end.failure is FailureReason.HEARTBEAT_TIMEOUT


# What waits.


def test_engine_tells_whether_anything_waits_to_be_written() -> None:
    end = pull()
    assert not end.engine.has_transmits
    end.engine.handle_stop(body(ping(0)), end.now_ns)
    assert end.engine.has_transmits
    assert end.engine.take_transmits() == [PONG]
    assert not end.engine.has_transmits
