"""The batched UDP calls on real loopback sockets: what leaves in a run arrives whole."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from mcast.kernel.reference_io import UdpReader, UdpWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

pytestmark = pytest.mark.kernel_independent

SOL_UDP, UDP_GRO, SO_RXQ_OVFL, SO_NO_CHECK = 17, 104, 40, 11


def udp_socket(*, gro: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    if gro:
        made.setsockopt(SOL_UDP, UDP_GRO, 1)
    return made


def name_of(destination: socket.socket) -> bytes:
    host, port = destination.getsockname()[:2]
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", port, socket.inet_aton(host))


def wait_readable(fd: int) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    assert poller.poll(2000), "nothing arrived within 2 s"


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with udp_socket() as made:
        yield made


@pytest.fixture
def plain() -> Iterator[socket.socket]:
    with udp_socket() as made:
        yield made


@pytest.fixture
def coalescing() -> Iterator[socket.socket]:
    with udp_socket(gro=True) as made:
        yield made


def test_nothing_waiting_reads_as_an_empty_list(plain: socket.socket) -> None:
    assert UdpReader().read(plain.fileno()) == []


def test_a_datagram_comes_with_its_source_address_and_its_own_length(
    sender: socket.socket, plain: socket.socket
) -> None:
    assert UdpWriter().send(sender.fileno(), name_of(plain), b"hello", 1400) == 5
    wait_readable(plain.fileno())
    ((source, data, segment_bytes),) = UdpReader().read(plain.fileno())
    assert (source, bytes(data), segment_bytes) == (b"\x7f\0\0\1", b"hello", 5)


def test_an_ipv6_source_is_sixteen_bytes() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("::1", 0))
        port = receiver.getsockname()[1]
        name = struct.pack("=H", socket.AF_INET6) + struct.pack(
            ">HI16s4x", port, 0, socket.inet_pton(socket.AF_INET6, "::1")
        )
        run = bytes(range(250)) * 10
        assert UdpWriter().send(sender.fileno(), name, run, 500) == 2500
        wait_readable(receiver.fileno())
        received = UdpReader().read(receiver.fileno())
        assert {source for source, _, _ in received} == {bytes(15) + b"\1"}
        assert b"".join(data for _, data, _ in received) == run


def test_a_run_arrives_as_one_view_with_its_segment_size(
    sender: socket.socket, coalescing: socket.socket
) -> None:
    run = bytes(range(256)) * 20
    assert UdpWriter().send(sender.fileno(), name_of(coalescing), run, 1000) == len(run)
    wait_readable(coalescing.fileno())
    ((_, data, segment_bytes),) = UdpReader().read(coalescing.fileno())
    assert bytes(data) == run
    assert segment_bytes == 1000


def test_a_run_reaches_a_socket_without_gro_as_single_datagrams(
    sender: socket.socket, plain: socket.socket
) -> None:
    run = bytes(range(256)) * 20
    assert UdpWriter().send(sender.fileno(), name_of(plain), run, 1000) == len(run)
    wait_readable(plain.fileno())
    received = UdpReader().read(plain.fileno())
    assert [len(data) for _, data, _ in received] == [1000] * 5 + [120]
    assert [segment for _, _, segment in received] == [1000] * 5 + [120]
    assert b"".join(data for _, data, _ in received) == run


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_contiguous_buffer_is_sent(
    sender: socket.socket, coalescing: socket.socket, kind: Callable[[bytes], Buffer]
) -> None:
    data = kind(b"x" * 3000)
    assert UdpWriter().send(sender.fileno(), name_of(coalescing), data, 1000) == 3000
    wait_readable(coalescing.fileno())
    assert bytes(UdpReader().read(coalescing.fileno())[0][1]) == b"x" * 3000


def test_a_buffer_is_released_even_when_the_send_fails() -> None:
    data = bytearray(3000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        UdpWriter().send(-1, b"", data, 1000)
    data.extend(b"y")  # BufferError if the writer still held it


def test_a_buffer_with_gaps_is_refused(sender: socket.socket, plain: socket.socket) -> None:
    with pytest.raises(BufferError):
        UdpWriter().send(sender.fileno(), name_of(plain), memoryview(b"abcdef")[::2], 1)


@pytest.mark.parametrize(("data", "segment_bytes"), [(b"", 10), (b"x", 0), (b"x", -1)])
def test_empty_data_and_empty_segments_are_refused(
    sender: socket.socket, plain: socket.socket, data: bytes, segment_bytes: int
) -> None:
    with pytest.raises(ValueError, match="both must be >= 1"):
        UdpWriter().send(sender.fileno(), name_of(plain), data, segment_bytes)


def test_more_than_the_kernel_takes_at_once_is_split_at_segment_boundaries(
    sender: socket.socket, coalescing: socket.socket
) -> None:
    coalescing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    by_bytes = bytes(range(250)) * 600  # 150,000 bytes: three calls by the byte limit
    by_count = bytes(150)  # 150 segments of 1 byte: three calls by the segment limit
    writer, reader = UdpWriter(), UdpReader()
    for run, segment_bytes in ((by_bytes, 1472), (by_count, 1)):
        assert writer.send(sender.fileno(), name_of(coalescing), run, segment_bytes) == len(run)
        assert writer.gso
        received = b""
        while len(received) < len(run):
            wait_readable(coalescing.fileno())
            received += b"".join(data for _, data, _ in reader.read(coalescing.fileno()))
        assert received == run


@pytest.mark.parametrize("gso", [False, True])
def test_a_full_queue_takes_whole_segments_and_says_how_many_bytes(gso: bool) -> None:
    # Loopback UDP always has room for the sender; a UNIX datagram queue does fill up. It knows no
    # UDP_SEGMENT, so with GSO each run is one datagram of its own.
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        writer = UdpWriter()
        writer.gso = gso
        run = bytes(range(250)) * 4000
        unit = 64 * 10 if gso else 10
        taken = writer.send(sender.fileno(), b"", run, 10)
        assert 0 < taken < len(run)
        assert taken % unit == 0
        assert writer.send(sender.fileno(), b"", run[taken:], 10) == 0
        received = b"".join(receiver.recv(65_536) for _ in range(taken // unit))
        assert received == run[:taken]
        more = writer.send(sender.fileno(), b"", run[taken:], 10)
        assert more > 0
        assert receiver.recv(65_536) == run[taken : taken + unit]


def test_a_segment_above_the_mtu_raises_and_is_not_held_against_gso(
    sender: socket.socket, plain: socket.socket
) -> None:
    writer = UdpWriter()
    with pytest.raises(OSError) as caught:
        writer.send(sender.fileno(), name_of(plain), bytes(70_000 * 2), 70_000)
    assert caught.value.errno == errno.EMSGSIZE
    assert writer.gso


def test_a_kernel_that_refuses_gso_gets_plain_datagrams_from_then_on(
    sender: socket.socket, plain: socket.socket
) -> None:
    sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)  # without checksums there is no GSO
    writer = UdpWriter()
    run = bytes(range(250)) * 12
    assert writer.send(sender.fileno(), name_of(plain), run, 1000) == 3000
    assert not writer.gso
    wait_readable(plain.fileno())
    received = [bytes(data) for _, data, _ in UdpReader().read(plain.fileno())]
    assert received == [run[:1000], run[1000:2000], run[2000:]]


def test_a_closed_descriptor_raises_from_both_ends(plain: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        fd = gone.fileno()
    with pytest.raises(OSError) as caught:
        UdpReader().read(fd)
    assert caught.value.errno == errno.EBADF
    for segment_bytes in (10, 4):
        with pytest.raises(OSError) as caught:
            UdpWriter().send(fd, name_of(plain), b"123456789", segment_bytes)
        assert caught.value.errno == errno.EBADF


def test_a_datagram_longer_than_its_buffer_is_dropped_and_counted(
    sender: socket.socket, plain: socket.socket
) -> None:
    reader = UdpReader(batch_count=4, buffer_bytes=100)
    sender.sendto(bytes(101), plain.getsockname())
    sender.sendto(bytes(100), plain.getsockname())
    wait_readable(plain.fileno())
    assert [len(data) for _, data, _ in reader.read(plain.fileno())] == [100]
    assert reader.truncated_count == 1


def test_an_empty_datagram_is_dropped_and_counted(
    sender: socket.socket, plain: socket.socket
) -> None:
    reader = UdpReader()
    sender.sendto(b"", plain.getsockname())
    sender.sendto(b"a", plain.getsockname())
    wait_readable(plain.fileno())
    assert [bytes(data) for _, data, _ in reader.read(plain.fileno())] == [b"a"]
    assert reader.empty_count == 1


def test_a_batch_is_bounded_and_the_rest_comes_with_the_next_read(
    sender: socket.socket, plain: socket.socket
) -> None:
    reader = UdpReader(batch_count=4)
    for number in range(10):
        sender.sendto(bytes([number]), plain.getsockname())
    wait_readable(plain.fileno())
    batches = [[data[0] for _, data, _ in reader.read(plain.fileno())] for _ in range(4)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]


def test_headers_are_fresh_after_a_longer_batch_from_another_socket(
    sender: socket.socket, plain: socket.socket, coalescing: socket.socket
) -> None:
    reader, writer = UdpReader(batch_count=4), UdpWriter()
    for _ in range(3):
        writer.send(sender.fileno(), name_of(coalescing), bytes(3000), 1000)
    wait_readable(coalescing.fileno())
    assert [segment for _, _, segment in reader.read(coalescing.fileno())] == [1000] * 3
    for _ in range(3):
        writer.send(sender.fileno(), name_of(plain), bytes(300), 1000)
    wait_readable(plain.fileno())
    assert [segment for _, _, segment in reader.read(plain.fileno())] == [300] * 3
    writer.send(sender.fileno(), name_of(coalescing), bytes(3000), 1000)
    wait_readable(coalescing.fileno())
    assert [segment for _, _, segment in reader.read(coalescing.fileno())] == [1000]


def test_datagrams_the_kernel_dropped_are_counted_until_forgotten(
    sender: socket.socket, plain: socket.socket
) -> None:
    plain.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader, fd, got = UdpReader(), plain.fileno(), 0
    for _ in range(100):
        sender.sendto(bytes(1000), plain.getsockname())
    wait_readable(fd)
    while batch := reader.read(fd):
        got += len(batch)
    # The count travels with the next datagram that finds room.
    sender.sendto(b"x", plain.getsockname())
    wait_readable(fd)
    reader.read(fd)
    assert reader.overflows == {fd: 100 - got}
    reader.forget(fd)
    assert reader.overflows == {}


def test_a_reader_needs_room_for_something() -> None:
    with pytest.raises(ValueError, match="both must be >= 1"):
        UdpReader(batch_count=0)
