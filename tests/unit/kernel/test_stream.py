"""Reading and writing stream sockets: partial writes, counting, large frames, errors as numbers."""

from __future__ import annotations

import errno
import socket
import tracemalloc
from collections.abc import Iterator

import pytest

from mcast.kernel import FrameScanner, Message, StreamReader, StreamWriter, encode_messages

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    here.setblocking(False)
    there.setblocking(False)
    with here, there:
        yield here, there


def taken(there: socket.socket) -> bytes:
    data = b""
    while True:
        try:
            data += there.recv(1 << 20)
        except BlockingIOError:
            return data


BATCH: list[Message] = [b"a", (b"b", bytes(9000), b"c"), b"", bytes(300), bytes(70_000), b"d"]


def test_what_the_system_does_not_take_goes_first_the_next_time(pair: Pair) -> None:
    here, there = pair
    writer = StreamWriter(here.fileno())
    writer.append(BATCH * 3)
    writer.put([b"raw", bytes(20_000)])
    expected = b"".join(encode_messages(BATCH * 3)) + b"raw" + bytes(20_000)
    assert writer.size_bytes == len(expected)
    assert writer.write() == errno.EAGAIN
    data = taken(there)
    while writer.write() == errno.EAGAIN:
        writer.append([b"more"])
        expected += b"\0\4more"
        data += taken(there)
    assert data + taken(there) == expected
    assert (writer.size_bytes, writer.written_bytes) == (0, len(expected))


def test_message_counts_until_its_last_byte_has_left(pair: Pair) -> None:
    here, there = pair
    writer = StreamWriter(here.fileno())
    writer.append([b"first", bytes(1 << 20), b"third"])
    assert writer.message_count == 3
    assert writer.write() == errno.EAGAIN
    assert writer.message_count == 2
    while writer.write():
        taken(there)
    assert writer.message_count == 0


def test_batch_with_something_that_is_no_message_adds_nothing(pair: Pair) -> None:
    writer = StreamWriter(pair[0].fileno())
    for wrong, error in ("text", TypeError), ((), ValueError), ((b"a", 1), TypeError):
        with pytest.raises(error):
            writer.append([b"fine", (b"fine", b"too"), wrong])  # type: ignore[list-item]
        assert (writer.size_bytes, writer.message_count) == (0, 0)


def test_clear_throws_away_what_waits(pair: Pair) -> None:
    here, there = pair
    writer = StreamWriter(here.fileno())
    writer.append(BATCH)
    writer.clear()
    assert (writer.write(), writer.size_bytes, writer.message_count) == (0, 0, 0)
    writer.append([b"x"])
    assert writer.write() == 0
    assert taken(there) == b"\0\1x"


def test_peer_that_has_gone_is_an_errno_and_no_signal(pair: Pair) -> None:
    here, there = pair
    writer = StreamWriter(here.fileno())
    there.close()
    writer.append([b"x"])
    assert writer.write() == errno.EPIPE
    assert StreamReader(100).read(here.fileno()) == 0


def test_read_tells_what_came_or_why_nothing_did(pair: Pair) -> None:
    here, there = pair
    reader = StreamReader(4)
    assert reader.read(there.fileno()) == -errno.EAGAIN
    here.send(b"abcdef")
    assert reader.read(there.fileno()) == 4
    assert bytes(reader.data) == b"abcd"
    assert reader.read(there.fileno()) == 2
    assert bytes(reader.data[:2]) == b"ef"
    assert reader.read(-1) == -errno.EBADF


def test_scanner_has_to_be_done_with_what_was_read(pair: Pair) -> None:
    here, there = pair
    reader, scanner = StreamReader(100), FrameScanner(100, 1, 100)
    here.send(b"\x04\x01X\x00\x01a")
    assert reader.read(there.fileno(), scanner) == 6
    out: list[Message] = []
    assert scanner.scan_untrusted(out) == b"X"
    with pytest.raises(ValueError, match="scan what was read"):
        reader.read(there.fileno(), scanner)
    assert scanner.scan_untrusted(out) is None
    assert out == [b"a"]
    assert reader.read(there.fileno(), scanner) == -errno.EAGAIN


@pytest.mark.parametrize("buffer_bytes", [1000, 1 << 18])
def test_large_frames_come_whole_through_a_small_buffer(pair: Pair, buffer_bytes: int) -> None:
    here, there = pair
    writer = StreamWriter(here.fileno())
    reader, scanner = StreamReader(buffer_bytes), FrameScanner(1 << 22, 8, 100)
    batch: list[Message] = [bytes(range(256)) * 4096, (b"a", b"b" * 500_000), b"end"]
    writer.append(batch)
    out: list[Message] = []
    while len(out) < len(batch):
        writer.write()
        while reader.read(there.fileno(), scanner) > 0:
            assert scanner.scan_untrusted(out) is None
    assert out == batch


def test_claimed_size_costs_no_more_than_what_came(pair: Pair) -> None:
    here, there = pair
    reader, scanner = StreamReader(10_000), FrameScanner(1 << 62, 8, 100)
    data = b"\x02" + (1 << 61).to_bytes(8, "big") + bytes(200_000)
    tracemalloc.start()
    try:
        while data:
            try:
                data = data[here.send(data) :]
            except BlockingIOError:
                pass
            while reader.read(there.fileno(), scanner) > 0:
                assert scanner.scan_untrusted([]) is None
        assert tracemalloc.get_traced_memory()[0] < 2 * 200_000 + 220_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, -1])
def test_buffer_has_at_least_one_byte(size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        StreamReader(size)
