"""A peer that is ready: frames, messages, subscriptions, heartbeats, of 3.1 and of 3.0."""

from __future__ import annotations

from collections.abc import Iterator

from mcast.zmtp import engine as under_test
from tests.fuzz.target import Target
from tests.fuzz.targets.zmtp_peer import PEERS, TYPES, greeting, play, ready


def run(data: bytes) -> None:
    """The first byte picks type, version and options; stretches of traffic follow."""
    choice = data[0] if data else 0
    hello = greeting(b"NULL")
    if choice & 0x10:
        hello = hello[:11] + b"\0" + hello[12:]
    before = hello + ready(PEERS[choice & 7])
    play(data[1:], TYPES[choice & 7], "NULL", choice >> 4 & 2, before)


def seeds() -> Iterator[bytes]:
    """Messages short, long and of parts; topics in both forms; PING; what is refused."""
    long = b"\x02\0\0\0\0\0\0\x01\x2c" + b"l" * 300
    traffic = (
        b"\0\x05hello\x01\x01a\x01\x01b\0\x01c",
        b"\x04\x0e\x09SUBSCRIBEabc\x04\x0a\x06CANCELabc\0\x04\x01abc\0\x04\0abc",
        b"\x04\x08\x04JOINabc\x04\x09\x05LEAVEabc",
        b"\x04\x0a\x04PING\0\x0actx\x04\x05\x04PONG\x04\x06\x05THING",
        b"\x06\0\0\0\0\0\0\0\x07\x04PING\0\x01",
        b"\x05\x01x",
        b"\x02\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x01\0\x01\0\x01\0\x01\0\x01\0\0\0",
    )
    for index, _ in enumerate(TYPES):
        for stream in traffic:
            yield bytes((index, 5, len(stream))) + stream
        yield bytes((index, 0x80, len(long) - 256)) + long
        yield bytes((index | 0x30, 0, len(traffic[1]))) + traffic[1] + b"\x7c\0\x7c\0\x06\0"


def _any_number_of_parts() -> None:
    """Parts are not counted."""
    scanner = under_test.FrameScanner

    class Scanner(scanner):  # type: ignore[misc, valid-type]
        def __init__(self, message_bytes: int, part_count: int, command_bytes: int) -> None:
            super().__init__(message_bytes, part_count, command_bytes)

        def scan_untrusted(self, messages: list[object]) -> bytes | None:
            if self.max_part_count > 1:
                self.max_part_count = 1 << 16
            return super().scan_untrusted(messages)

    under_test.FrameScanner = Scanner  # type: ignore[misc]


def _forget_topics() -> None:
    """Topics are not counted, nor their bytes."""
    whole = under_test.PeerTopics

    class Topics(whole):  # type: ignore[misc, valid-type]
        __slots__ = ()

        def _count_in_untrusted(self, topic: bytes) -> None:
            self._topics.add(topic)

    under_test.PeerTopics = Topics  # type: ignore[misc]


PLANTS = {"any-number-of-parts": _any_number_of_parts, "forget-topics": _forget_topics}
TARGET = Target(run, seeds, PLANTS, max_bytes=700)
