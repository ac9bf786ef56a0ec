"""ZMTP frames in the kernel: the topic filter, and what strangers can make it keep.

Layout, limits and cuts are tested where they are used, in ``tests/unit/zmtp/test_codec.py``.
"""

from __future__ import annotations

import tracemalloc

import pytest

from mcast.kernel import FrameError, FrameScanner, Message, TopicFilter, encode_messages


def scanner(*prefixes: bytes) -> FrameScanner:
    made = FrameScanner(1 << 62, 8, 64)
    made.topic_filter = TopicFilter(prefixes)
    return made


def scanned(using: FrameScanner, *pieces: bytes) -> list[Message]:
    out: list[Message] = []
    for piece in pieces:
        using.feed(piece)
        assert using.scan_untrusted(out) is None
    return out


BATCH: list[Message] = [b"a1", b"b1", (b"a", b"b"), (b"b", b"a"), b"", b"a" * 9000, b"b" * 9000]
WANTED: list[Message] = [b"a1", (b"a", b"b"), b"a" * 9000]


def test_only_messages_that_begin_with_a_topic_come_out() -> None:
    using = scanner(b"a")
    assert scanned(using, b"".join(encode_messages(BATCH))) == WANTED
    assert (using.message_count, using.filtered_count) == (3, 4)


def test_filter_looks_at_a_whole_first_part_however_it_is_cut() -> None:
    data = b"".join(encode_messages(BATCH))
    for step in (1, 3, 1000):
        pieces = [data[start : start + step] for start in range(0, len(data), step)]
        assert scanned(scanner(b"a"), *pieces) == WANTED


def test_no_filter_lets_everything_out() -> None:
    using = scanner()
    using.topic_filter = None
    assert scanned(using, b"".join(encode_messages(BATCH))) == BATCH


def test_new_filter_applies_from_the_next_message_on() -> None:
    using = scanner(b"a")
    data = b"".join(encode_messages([b"a1", b"a2", b"b3"]))
    assert scanned(using, data[:3]) == []
    using.topic_filter = TopicFilter([b"b"])
    assert scanned(using, data[3:]) == [b"b3"]


def test_command_inside_an_unwanted_message_comes_out() -> None:
    using = scanner(b"a")
    pieces = b"\x01\x01b", b"\x04\x03X", b"YZ", b"\x00\x01a"
    commands = []
    out: list[Message] = []
    for piece in pieces:
        using.feed(piece)
        while (command := using.scan_untrusted(out)) is not None:
            commands.append(command)
    assert (commands, out, using.filtered_count) == ([b"XYZ"], [], 1)


def test_thousand_peers_that_each_claim_2_62_bytes_cost_little() -> None:
    claim = b"\x02" + (1 << 62).to_bytes(8, "big") + b"x"
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        peers = [scanner(b"") for _ in range(1000)]
        for peer in peers:
            scanned(peer, claim, b"y" * 100)
        assert tracemalloc.get_traced_memory()[1] - before < 8 << 20
    finally:
        tracemalloc.stop()


def test_scan_stops_at_an_error_with_what_came_before() -> None:
    using = scanner(b"")
    using.feed(b"\x00\x01a\x08\x00")
    out: list[Message] = []
    with pytest.raises(FrameError, match="0x08") as caught:
        using.scan_untrusted(out)
    assert (out, caught.value.reason) == ([b"a"], "malformed")


def test_messages_are_refused_while_only_commands_are_expected() -> None:
    using = FrameScanner(100, 0, 100)
    out: list[Message] = []
    using.feed(b"\x04\x02\x01X" + b"\x00\x01a")
    assert using.scan_untrusted(out) == b"\x01X"
    with pytest.raises(FrameError, match="before the handshake's end") as caught:
        using.scan_untrusted(out)
    assert (out, caught.value.reason) == ([], "unexpected")
