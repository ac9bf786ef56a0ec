"""Traffic of a connection: messages, subscriptions, heartbeats, limits, and the end."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from struct import pack
from typing import Any

import pytest

from mcast.errors import MessageTooLongError, PatternError
from mcast.kernel import Buffer, Message
from mcast.zmtp import (
    Cancelled,
    Failed,
    FailureReason,
    Messages,
    Ready,
    Subscribed,
    ZmtpEngine,
    ZmtpOptions,
)
from mcast.zmtp.metadata import COMPATIBLE
from tests.unit.zmtp.ends import MS, PAIRS, T0, End, S, pair, ready_end, talk
from tests.unit.zmtp.wire import (
    NULL_GREETING,
    PUB_READY,
    SUB_READY,
    command,
    frame,
    message,
    ping,
    ready,
)

pytestmark = pytest.mark.kernel_independent

OLD = b"\x03\x00"
PONG = command(b"PONG")


def subscribe(topic: bytes) -> bytes:
    return command(b"SUBSCRIBE", topic)


def cancel(topic: bytes) -> bytes:
    return command(b"CANCEL", topic)


# Messages.


@pytest.mark.parametrize("mechanism", PAIRS)
def test_messages_arrive_as_one_batch(mechanism: str) -> None:
    server, client = pair(mechanism)
    batch: list[Message] = [b"", b"A", (b"a", b""), bytes(300), (bytes(9000), b"x", bytes(20_000))]
    server.engine.send(batch)
    server.drain()
    client.hear(server.take_sent())
    assert client.all(Messages) == [Messages(batch)]
    assert client.engine.counters.messages_received == 5
    assert server.engine.counters.messages_sent == 5


def test_messages_are_on_the_wire_as_rfc_37_has_them() -> None:
    end = ready_end("PUB")
    end.engine.send([(b"A1", b"body"), b"topic" + b"z" * 300])
    end.drain()
    assert end.sent == message(b"A1", b"body") + message(b"topic" + b"z" * 300)


def test_buffers_are_few_and_large_bodies_are_handed_through() -> None:
    end = ready_end("PUSH", ready(b"PULL"))
    large = bytes(100_000)
    for _ in range(3):
        end.engine.send([b"small", large])
    buffers = end.engine.take_transmits()
    assert len(buffers) == 6
    assert [buffer is large for buffer in buffers] == [False, True] * 3
    assert end.engine.take_transmits() == []


def test_any_kind_of_buffer_is_heard_and_none_is_kept() -> None:
    end = ready_end("PULL", ready(b"PUSH"))
    kinds: list[Callable[[bytes], Buffer]] = [bytes, bytearray, memoryview]
    for make in kinds:
        end.hear(make(message(b"whole") + frame(0, b"cut")[:3]), make(b"ut"))
    reused = bytearray(message(b"first") + frame(0, bytes(50))[:20])
    end.engine.handle_bytes(memoryview(reused), end.now_ns)
    reused[:] = bytes(len(reused))
    end.hear(bytes(32))
    assert end.messages == [b"whole", b"cut"] * 3 + [b"first", bytes(50)]


def test_nothing_can_be_sent_before_ready() -> None:
    for end in (End("SUB"), End("SUB").hear(NULL_GREETING)):
        with pytest.raises(RuntimeError, match="before Ready"):
            end.engine.send([b"x"])
        with pytest.raises(RuntimeError, match="before Ready"):
            end.engine.subscribe(b"x")


def test_batch_with_a_mistake_is_not_sent_at_all() -> None:
    for mechanism in PAIRS:
        server, client = pair(mechanism)
        for wrong in ("text", ("a",), (), None):
            with pytest.raises((TypeError, ValueError)):
                server.engine.send([b"fine", wrong])  # type: ignore[list-item]
        server.drain()
        assert server.sent == b""
        assert server.engine.counters.messages_sent == 0
        server.engine.send([b"next"])
        server.drain()
        talk(server, client)
        assert client.messages == [b"next"]


def test_partial_message_dies_with_the_connection() -> None:
    end = ready_end("PULL", ready(b"PUSH")).hear(frame(1, b"half"))
    end.engine.handle_eof()
    end.drain()
    assert end.messages == []
    assert end.failure is FailureReason.PEER_CLOSED


# Limits.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(0, bytes(1001)), FailureReason.TOO_LONG),
        (frame(1, bytes(500)) + frame(0, bytes(501)), FailureReason.TOO_LONG),
        (frame(1, b"") * 8, FailureReason.TOO_LONG),
        (pack("!BQ", 2, 1 << 62), FailureReason.TOO_LONG),
        (pack("!BQ", 6, 1 << 62), FailureReason.TOO_LONG),
        (command(b"X", bytes(1034)), FailureReason.TOO_LONG),
        (frame(4, b""), FailureReason.MALFORMED),
        (frame(4, b"\x09SUBSCR"), FailureReason.MALFORMED),
        (command(b"PING", b"\0"), FailureReason.MALFORMED),
        (frame(5, b"\x04PONG"), FailureReason.MALFORMED),
        (frame(0x80, b""), FailureReason.MALFORMED),
        # What libzmq 4.3.4 makes of a long topic: an eight-octet size without its flag.
        (bytes.fromhex("0400000000000001 00"), FailureReason.MALFORMED),
    ],
)
def test_limit_or_fault_ends_the_connection_behind_what_was_good(
    data: bytes, reason: FailureReason
) -> None:
    end = ready_end("PULL", ready(b"PUSH"), max_message_bytes=1000, max_part_count=8)
    end.hear(message(b"good") + data, message(b"never"))
    assert end.messages == [b"good"]
    assert end.failure is reason
    assert end.engine.next_timeout_ns == 1 << 62


def test_largest_of_everything_is_let_through() -> None:
    end = ready_end("PULL", ready(b"PUSH"), max_message_bytes=1000, max_part_count=8)
    end.hear(message(bytes(1000)), message(*[bytes(125)] * 8), command(b"X", bytes(1032)))
    assert end.messages == [bytes(1000), (bytes(125),) * 8]
    assert end.engine.counters.commands_ignored == 1


def test_thousand_peers_that_claim_everything_cost_little() -> None:
    tracemalloc.start()
    try:
        ends = [ready_end("PULL", ready(b"PUSH"), max_message_bytes=1 << 40) for _ in range(100)]
        for end in ends:
            end.hear(pack("!BQ", 2, 1 << 39) + bytes(100))
        assert tracemalloc.get_traced_memory()[0] < 100 * 16_384
    finally:
        tracemalloc.stop()
    assert not any(end.engine.is_over for end in ends)


def test_million_empty_parts_are_refused() -> None:
    end = ready_end("PULL", ready(b"PUSH")).hear(frame(1, b"") * 1_000_000)
    assert end.failure is FailureReason.TOO_LONG


# Subscriptions.


@pytest.mark.parametrize("publisher", ["PUB", "XPUB"])
def test_both_forms_of_subscription_are_understood(publisher: str) -> None:
    end = ready_end(publisher)
    end.hear(subscribe(b"A") + message(b"\x01B") + cancel(b"A") + message(b"\x00B"))
    assert end.events[1:] == [Subscribed([b"A", b"B"]), Cancelled([b"A", b"B"])]


def test_subscriptions_and_messages_keep_their_order() -> None:
    end = ready_end("XPUB").hear(
        message(b"one")
        + subscribe(b"A")
        + message(b"two")
        + message(b"\x02three")
        + message(b"\x01B")
        + message(b"\x01", b"parts are no subscription")
        + message(b"")
    )
    assert end.stream[1:] == [
        b"one",
        Subscribed([b"A"]),
        b"two",
        b"\x02three",
        Subscribed([b"B"]),
        (b"\x01", b"parts are no subscription"),
        b"",
    ]
    assert len(end.all(Messages)) == 3


def test_many_subscriptions_are_one_event() -> None:
    topics = [b"%d" % number for number in range(1000)]
    end = ready_end("PUB").hear(b"".join(map(subscribe, topics)))
    assert end.events[1:] == [Subscribed(topics)]


def test_topic_is_heard_as_often_as_sent_and_ended_by_one_cancel() -> None:
    end = ready_end("XPUB").hear(subscribe(b"A") * 2 + cancel(b"A") * 2 + cancel(b"never"))
    assert end.events[1:] == [Subscribed([b"A", b"A"]), Cancelled([b"A"])]
    assert end.engine.counters.cancels_ignored == 2


def test_subscriptions_of_others_mean_nothing() -> None:
    end = ready_end("PULL", ready(b"PUSH"))
    end.hear(subscribe(b"A") + command(b"JOIN", b"g") + message(b"\x01A"))
    assert end.messages == [b"\x01A"]
    assert end.engine.counters.commands_ignored == 2


@pytest.mark.parametrize("form", [subscribe, lambda topic: message(b"\x01" + topic)])
@pytest.mark.parametrize(
    ("options", "topics", "reason"),
    [
        ({"max_topic_bytes": 4}, [b"1234", b"12345"], FailureReason.TOO_LONG),
        ({"max_subscription_count": 2}, [b"1", b"2", b"1", b"3"], FailureReason.SUBSCRIPTIONS),
        (
            {"max_subscription_bytes": 5},
            [b"12", b"12", b"345", b"12", b"", b"6"],
            FailureReason.SUBSCRIPTIONS,
        ),
    ],
)
def test_peer_subscribes_up_to_a_limit(
    form: Any, options: Any, topics: list[bytes], reason: FailureReason
) -> None:
    end = ready_end("PUB", **options).hear(b"".join(map(form, topics)))
    assert end.failure is reason
    assert end.all(Subscribed) == [Subscribed(topics[:-1])]


def test_cancelled_topics_no_longer_count() -> None:
    end = ready_end("PUB", max_subscription_count=2, max_subscription_bytes=2)
    for number in range(10):
        end.hear(subscribe(b"%d" % number), cancel(b"%d" % number))
    assert end.failure is None


def test_longest_topic_fits_into_a_command() -> None:
    end = ready_end("PUB", max_topic_bytes=1024).hear(subscribe(bytes(1024)))
    assert end.all(Subscribed) == [Subscribed([bytes(1024)])]
    assert end.hear(subscribe(bytes(1025))).failure is FailureReason.TOO_LONG


@pytest.mark.parametrize("subscriber", ["SUB", "XSUB"])
def test_subscriptions_are_commands_to_3_1_and_messages_to_3_0(subscriber: str) -> None:
    new = ready_end(subscriber, PUB_READY)
    old = ready_end(subscriber, PUB_READY, version=OLD)
    for end in (new, old):
        end.engine.subscribe(b"A", b"topic")
        end.engine.cancel(b"A")
        end.drain()
    assert new.ready.version == (3, 1)
    assert new.sent == bytes.fromhex("040b09535542534352494245 41") + subscribe(b"topic") + (
        bytes.fromhex("040806 43414e43454c 41")
    )
    assert old.ready.version == (3, 0)
    assert old.sent == bytes.fromhex("0002 0141") + message(b"\x01topic") + bytes.fromhex(
        "0002 0041"
    )


def test_long_topics_have_long_frames() -> None:
    end = ready_end("SUB", PUB_READY)
    end.engine.subscribe(bytes(245), bytes(246))
    end.drain()
    assert end.sent == frame(4, b"\x09SUBSCRIBE" + bytes(245)) + (
        bytes.fromhex("060000000000000100") + b"\x09SUBSCRIBE" + bytes(246)
    )


def test_dish_joins_and_leaves_by_commands_whatever_the_version() -> None:
    dish = ready_end("DISH", ready(b"RADIO"), version=OLD)
    dish.engine.subscribe(b"Movies")
    dish.engine.cancel(b"Movies")
    dish.drain()
    assert dish.sent == bytes.fromhex("040b044a4f494e4d6f76696573 040c054c454156454d6f76696573")
    radio = ready_end("RADIO", ready(b"DISH")).hear(dish.take_sent() + message(b"\x01A"))
    assert radio.stream[1:] == [Subscribed([b"Movies"]), Cancelled([b"Movies"]), b"\x01A"]


def test_group_has_255_bytes_at_most_on_both_sides() -> None:
    dish = ready_end("DISH", ready(b"RADIO"))
    dish.engine.subscribe(b"g" * 255)
    with pytest.raises(MessageTooLongError, match="256 bytes of topic or group; 255"):
        dish.engine.subscribe(b"g" * 256)
    with pytest.raises(ValueError, match="zero byte"):
        dish.engine.subscribe(b"a\0")
    radio = ready_end("RADIO", ready(b"DISH")).hear(command(b"JOIN", b"g" * 256))
    assert radio.failure is FailureReason.TOO_LONG


def test_mistakes_in_subscriptions_are_told_at_the_call() -> None:
    end = ready_end("SUB", PUB_READY)
    with pytest.raises(MessageTooLongError, match="1025 bytes of topic or group; 1024"):
        end.engine.subscribe(b"fine", bytes(1025))
    with pytest.raises(TypeError, match="bytes, not str"):
        end.engine.cancel("A")  # type: ignore[arg-type]
    end.drain()
    assert end.sent == b""
    for socket_type in COMPATIBLE:
        if socket_type not in ("SUB", "XSUB", "DISH"):
            with pytest.raises(PatternError, match=f"a {socket_type} does not subscribe"):
                End(socket_type).engine.subscribe(b"A")


# Heartbeats.


def test_ping_leaves_on_time_whatever_else_is_sent() -> None:
    end = ready_end("PUB", heartbeat_ivl_ns=300 * MS, heartbeat_ttl_ns=2 * S)
    end.run(299 * MS)
    assert end.sent == b""
    end.run(1 * MS)
    assert end.take_sent() == bytes.fromhex("0407 0450494e47 0014")
    end.hear(PONG)
    end.engine.send([b"x"])
    end.run(300 * MS)
    assert end.take_sent() == message(b"x") + ping(20)
    assert end.engine.counters.pings_sent == 2


def test_ping_is_sealed_in_curve() -> None:
    server, _ = pair("CURVE", heartbeat_ivl_ns=S)
    server.run(S)
    assert len(server.sent) == 2 + 33 + 7
    assert b"PING" not in server.sent


@pytest.mark.parametrize("sign", [PONG, message(b"x"), b"\x00", command(b"UNKNOWN")])
def test_any_bytes_are_a_sign_of_life(sign: bytes) -> None:
    end = ready_end("PULL", ready(b"PUSH"), heartbeat_ivl_ns=S, heartbeat_timeout_ns=500 * MS)
    end.run(S + 499 * MS)
    end.hear(sign)
    end.run(501 * MS - 1)
    assert end.failure is None


def test_silence_after_a_ping_ends_the_connection() -> None:
    end = ready_end("PUB", heartbeat_ivl_ns=S)
    end.run(2 * S - 1)
    assert end.failure is None
    end.run(1)
    assert end.failure is FailureReason.HEARTBEAT_TIMEOUT


def test_wait_is_not_renewed_by_further_pings() -> None:
    end = ready_end("PUB", heartbeat_ivl_ns=S, heartbeat_timeout_ns=2500 * MS)
    end.run(3500 * MS)
    assert end.failure is FailureReason.HEARTBEAT_TIMEOUT
    assert end.engine.counters.pings_sent == 3


def test_timeout_of_zero_waits_for_ever() -> None:
    end = ready_end("PUB", heartbeat_ivl_ns=S, heartbeat_timeout_ns=0)
    end.run(100 * S)
    assert end.failure is None
    assert end.engine.counters.pings_sent == 100


def test_dish_is_never_sent_a_ping() -> None:
    end = ready_end("RADIO", ready(b"DISH"), heartbeat_ivl_ns=S)
    end.run(10 * S)
    assert end.sent == b""


@pytest.mark.parametrize("version", [OLD, b"\x03\x01"])
def test_ping_is_answered_with_its_context_whatever_the_version(version: bytes) -> None:
    end = ready_end("PUB", version=version).hear(
        ping(0) + ping(20, b"context") + ping(0, bytes(17))
    )
    assert end.take_sent() == PONG + command(b"PONG", b"context") + command(b"PONG", bytes(16))


def test_peers_ttl_begins_anew_with_whatever_comes() -> None:
    end = ready_end("PUB").hear(ping(5))
    end.run(499 * MS)
    end.hear(subscribe(b"A")[:3])  # part of a frame is a sign of life
    end.run(499 * MS)
    assert end.failure is None
    end.run(MS)
    assert end.failure is FailureReason.TTL_EXPIRED


def test_peers_ttl_ends_with_a_ping_that_names_none() -> None:
    end = ready_end("PUB").hear(ping(5) + ping(0))
    end.run(10 * S)
    assert end.failure is None


def test_peers_ttl_holds_however_what_follows_the_ping_was_cut() -> None:
    together = ready_end("PUB").hear(ping(5) + subscribe(b"A"))
    apart = ready_end("PUB").hear(ping(5), subscribe(b"A"))
    for end in (together, apart):
        end.run(10 * S)
        assert end.failure is FailureReason.TTL_EXPIRED


def test_longest_ttl_is_taken_for_what_it_says() -> None:
    end = ready_end("PUB").hear(ping(65_535))
    assert end.engine.next_timeout_ns == T0 + 6_553_500 * MS


def test_ping_flood_queues_a_hundred_answers_until_they_are_taken() -> None:
    end = ready_end("PUB")
    for _ in range(3):
        end.engine.handle_bytes(ping(0) * 500, end.now_ns)
    assert end.engine.counters.pings_received == 1500
    assert end.engine.counters.pings_unanswered == 1400
    end.drain()
    assert end.take_sent() == PONG * 100
    assert end.hear(ping(0)).take_sent() == PONG


def test_commands_without_meaning_are_passed_over() -> None:
    strange = (SUB_READY, command(b"ERROR", b"\x03400"), command(b"X"), command(b"ping", b"\0\0"))
    end = ready_end("PUB").hear(*strange)
    assert end.engine.counters.commands_ignored == len(strange)
    assert len(end.events) == 1
    assert end.take_sent() == b""


def test_timeout_early_late_and_twice_is_safe() -> None:
    end = ready_end("PUB", heartbeat_ivl_ns=S, heartbeat_timeout_ns=0)
    end.engine.handle_timeout(end.now_ns)
    end.engine.handle_timeout(end.now_ns + 100 * S)
    end.engine.handle_timeout(end.now_ns + 100 * S)
    end.drain()
    assert end.take_sent() == ping(0)
    assert end.engine.next_timeout_ns == end.now_ns + 101 * S


# The end.


def test_after_the_end_everything_is_ignored() -> None:
    for finish in ("close", "eof", "fault"):
        end = ready_end("SUB", PUB_READY, heartbeat_ivl_ns=S)
        if finish == "close":
            end.engine.close("unused")  # ZMTP has no word for it any more
        elif finish == "eof":
            end.engine.handle_eof()
        else:
            end.hear(b"\xff\xff")
        end.drain()
        events, sent = list(end.events), end.sent
        end.hear(message(b"x"), b"")
        end.engine.handle_eof()
        end.engine.send([b"x"])
        end.engine.subscribe(b"A")
        end.engine.close("again")
        end.engine.handle_timeout(end.now_ns + 1000 * S)
        end.drain()
        assert (end.events, end.sent) == (events, sent)
        assert end.engine.is_over
        assert not end.engine.is_ready
        assert end.engine.next_timeout_ns == 1 << 62


def test_what_was_queued_may_still_be_taken_after_close() -> None:
    end = ready_end("PUB")
    end.engine.send([b"last"])
    end.engine.close()
    end.drain()
    assert end.sent == message(b"last")
    assert end.failure is None


@pytest.mark.parametrize(
    ("heard", "text"),
    [
        (b"", "the peer closed the connection in the handshake"),
        (NULL_GREETING, "the peer closed the connection in the handshake"),
        (NULL_GREETING + SUB_READY, "the peer closed the connection"),
    ],
)
def test_end_of_the_stream_is_one_event(heard: bytes, text: str) -> None:
    end = End("PUB").hear(heard)
    end.engine.handle_eof()
    end.engine.handle_eof()
    end.drain()
    assert end.all(Failed) == [Failed(FailureReason.PEER_CLOSED, text)]


def test_looks_change_nothing() -> None:
    engine = ZmtpEngine(ZmtpOptions(socket_type="PUB"), dice=bytes, now_ns=T0)
    assert [engine.next_timeout_ns for _ in range(2)] == [T0 + 5 * S] * 2
    assert not engine.is_ready
    assert not engine.is_over
    assert engine.take_events() == []


def test_bytes_are_counted_to_the_last() -> None:
    end = End("PUB").hear(NULL_GREETING, SUB_READY, b"\x01")
    assert end.engine.counters.bytes_received == 64 + 27 + 1
    assert end.all(Ready)
