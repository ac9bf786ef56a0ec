"""Frames: layout, limits, and messages put together however the stream was cut."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.kernel import FrameError, Message
from mcast.zmtp.codec import FrameScanner, encode_command, encode_messages, joined
from mcast.zmtp.failure import FailureReason
from tests.unit.zmtp.wire import frame, message

LARGE = bytes(8192)
sizes = st.sampled_from([0, 1, 2, 254, 255, 256, 257, 8191, 8192, 20_000])
parts = st.builds(lambda size, fill: bytes((fill,)) * size, sizes, st.integers(0, 255))
messages = st.lists(
    parts | st.lists(parts, min_size=2, max_size=4).map(lambda several: tuple(several)), max_size=8
)


def scanner(limit: int = 1 << 20, part_count: int = 1024, command: int = 512) -> FrameScanner:
    return FrameScanner(limit, part_count, command)


def scan(*datas: bytes, using: FrameScanner | None = None) -> list[Message | bytearray]:
    """Messages and commands in order; commands as ``bytearray`` to tell them apart."""
    using = using or scanner()
    out: list[Message | bytearray] = []
    for data in datas:
        using.feed(data)
        while True:
            found: list[Message] = []
            command = using.scan_untrusted(found)
            out += found
            if command is None:
                break
            out.append(bytearray(command))
    return out


def reason_of(data: bytes, using: FrameScanner | None = None) -> FailureReason | None:
    try:
        scan(data, using=using)
    except FrameError as error:
        return FailureReason(error.reason)
    return None


@pytest.mark.parametrize(
    ("body", "head"),
    [
        (b"", "0000"),
        (b"hello", "0005"),
        (bytes(255), "00ff"),
        (bytes(256), "020000000000000100"),
        (bytes(65_536), "020000000000010000"),
    ],
)
def test_size_is_short_up_to_255_bytes(body: bytes, head: str) -> None:
    assert b"".join(encode_messages([body])) == bytes.fromhex(head) + body


def test_all_parts_but_the_last_have_more() -> None:
    encoded = b"".join(encode_messages([(b"A1", bytes(300), b"body")]))
    assert encoded == (
        bytes.fromhex("01024131")
        + bytes.fromhex("03000000000000012c")
        + bytes(300)
        + bytes.fromhex("0004626f6479")
    )


def test_command_has_its_flag() -> None:
    assert encode_command(b"\x04PONG") == bytes.fromhex("0405 04504f4e47")
    assert encode_command(bytes(256))[:9] == bytes.fromhex("060000000000000100")


def test_small_messages_leave_as_one_buffer() -> None:
    assert len(encode_messages([b"a", (b"b", b"c"), bytes(8191)])) == 1


def test_large_parts_are_not_copied() -> None:
    buffers = encode_messages([b"a", (LARGE, b"b", LARGE), LARGE, b"c"])
    assert sum(buffer is LARGE for buffer in buffers) == 3
    assert b"".join(buffers) == b"".join(
        (message(b"a"), message(LARGE, b"b", LARGE), message(LARGE), message(b"c"))
    )


def test_no_messages_are_no_buffers() -> None:
    assert encode_messages([]) == []


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ("text", TypeError, "not str"),
        (bytearray(b"x"), TypeError, "not bytearray"),
        ((), ValueError, "at least one part"),
        ((b"a", "b"), TypeError, "a part of a message is bytes, not str"),
    ],
)
def test_what_is_no_message_is_refused(wrong: Message, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        encode_messages([b"fine", wrong])


def test_neighbours_are_joined_but_not_across_a_large_buffer() -> None:
    assert joined([]) == []
    assert joined([b"a"]) == [b"a"]
    assert joined([b"a", b"b", LARGE, LARGE, b"c", b"d"]) == [b"ab", LARGE, LARGE, b"cd"]
    assert joined([b"a", LARGE])[1] is LARGE


def test_long_size_may_be_small() -> None:
    assert scan(pack("!BQ", 2, 3) + b"abc") == [b"abc"]
    assert scan(pack("!BQ", 6, 3) + b"\x02AB") == [bytearray(b"\x02AB")]


def test_command_between_parts_comes_before_its_message() -> None:
    data = frame(1, b"a") + frame(4, b"\x04PING\0\0") + frame(0, b"b")
    assert scan(data) == [bytearray(b"\x04PING\0\0"), (b"a", b"b")]


def test_scan_stops_behind_a_command_for_new_limits() -> None:
    using = scanner(limit=0, part_count=0)
    using.feed(frame(4, b"go") + frame(0, b"x"))
    found: list[Message] = []
    assert using.scan_untrusted(found) == b"go"
    using.max_message_bytes, using.max_part_count = 1, 1
    assert using.scan_untrusted(found) is None
    assert found == [b"x"]


@pytest.mark.parametrize("flags", [0x08, 0x10, 0x20, 0x40, 0x80, 0x05, 0x07])
def test_reserved_flags_and_commands_with_more_are_malformed(flags: int) -> None:
    assert reason_of(bytes((flags, 0)) + bytes(8)) is FailureReason.MALFORMED


@pytest.mark.parametrize("flags", [0x00, 0x01])
def test_message_before_traffic_is_unexpected(flags: int) -> None:
    assert reason_of(frame(flags, b""), scanner(part_count=0)) is FailureReason.UNEXPECTED


def test_message_may_be_as_long_as_the_limit_and_no_longer() -> None:
    for count in (10, 300):
        assert scan(message(bytes(count)), using=scanner(count)) == [bytes(count)]
        too_long = message(bytes(count + 1))
        assert reason_of(too_long, scanner(count)) is FailureReason.TOO_LONG
        # Judged by its head: no byte of the body has to come.
        assert reason_of(too_long[: -count - 1], scanner(count)) is FailureReason.TOO_LONG


def test_limit_holds_for_all_parts_together() -> None:
    assert scan(message(b"abc", b"", b"de"), using=scanner(5)) == [(b"abc", b"", b"de")]
    assert reason_of(message(b"abc", b"", b"def"), scanner(5)) is FailureReason.TOO_LONG


def test_limit_starts_again_with_each_message() -> None:
    assert scan(message(b"ab", b"c") * 3, using=scanner(3)) == [(b"ab", b"c")] * 3


def test_parts_are_limited_as_soon_as_more_are_announced() -> None:
    assert scan(message(*[b""] * 3), using=scanner(part_count=3)) == [(b"",) * 3]
    three_and_more = frame(1, b"") * 3
    assert reason_of(three_and_more, scanner(part_count=3)) is FailureReason.TOO_LONG


def test_command_may_be_as_long_as_the_limit_and_no_longer() -> None:
    assert scan(frame(4, bytes(512))) == [bytearray(512)]
    assert reason_of(frame(4, bytes(513))) is FailureReason.TOO_LONG


@pytest.mark.parametrize("flags", [2, 3, 6])
@pytest.mark.parametrize("size", [1 << 62, (1 << 64) - 1])
def test_claimed_size_allocates_nothing(flags: int, size: int) -> None:
    tracemalloc.start()
    try:
        assert reason_of(pack("!BQ", flags, size)) is FailureReason.TOO_LONG
        assert tracemalloc.get_traced_memory()[1] < 16_384
    finally:
        tracemalloc.stop()


def test_memory_grows_only_with_what_came() -> None:
    using = scanner(limit=1 << 40)
    tracemalloc.start()
    try:
        scan(pack("!BQ", 2, 1 << 39) + bytes(100_000), using=using)
        assert tracemalloc.get_traced_memory()[0] < 150_000
    finally:
        tracemalloc.stop()


def test_what_was_scanned_is_not_kept() -> None:
    using = scanner()
    tracemalloc.start()
    try:
        assert len(scan(message(bytes(60_000)) + b"\0", using=using)) == 1
        assert tracemalloc.get_traced_memory()[0] < 4_096
    finally:
        tracemalloc.stop()


@given(messages)
def test_messages_come_back_however_the_stream_is_cut(batch: list[Message]) -> None:
    data = b"".join(encode_messages(batch))
    assert scan(data) == batch
    for step in (1, 7, 300, 8192):
        if len(data) <= 2000 * step:
            pieces = [data[start : start + step] for start in range(0, len(data), step)]
            assert scan(*pieces) == batch


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_random_bytes_raise_nothing_else_and_split_alike(data: bytes, cuts: list[int]) -> None:
    def outcome(*datas: bytes) -> tuple[list[Message | bytearray], FailureReason | None]:
        using = scanner(limit=64, part_count=4, command=32)
        out: list[Message | bytearray] = []
        for piece in datas:
            using.feed(piece)
            found: list[Message] = []
            try:
                while (command := using.scan_untrusted(found)) is not None:
                    out += [*found, bytearray(command)]
                    found = []
            except FrameError as error:
                return out + found, FailureReason(error.reason)
            out += found
        return out, None

    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[low:high] for low, high in pairwise(edges)]
    assert outcome(*pieces) == outcome(data)
    assert outcome(*(data[i : i + 1] for i in range(len(data)))) == outcome(data)
