"""The picked kernel's batched UDP calls, on loopback; what they have in common is in one place.

``tests/integration/test_net_kernel_io.py`` goes deeper; here both kernels answer the same calls.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mcast import kernel
from mcast.kernel import reference
from tests.fuzz import kernel_differential as differential

LOOPBACK = socket.inet_aton("127.0.0.1")
UDP_GRO = 104
SO_RXQ_OVFL = 40
WAIT_S = 5.0


@pytest.fixture(params=[True, False], ids=["gro", "plain"])
def receiver(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        if request.param:
            sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        yield sock


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def sockaddr(sock: socket.socket) -> bytes:
    port = socket.htons(sock.getsockname()[1])
    return struct.pack("=HH4s8x", socket.AF_INET, port, LOOPBACK)


def datagrams(
    reader: kernel.UdpReader, sock: socket.socket, wanted_bytes: int
) -> list[tuple[bytes, bytes]]:
    """(source, datagram) of each, runs cut, until so many bytes have come."""
    found: list[tuple[bytes, bytes]] = []
    while sum(len(data) for _, data in found) < wanted_bytes:
        assert select.select([sock], [], [], WAIT_S)[0], f"only {len(found)} datagrams came"
        for source, view, segment_bytes in reader.read(sock.fileno()):
            raw = bytes(view)
            assert 1 <= segment_bytes <= len(raw)
            found += [
                (source, raw[start : start + segment_bytes])
                for start in range(0, len(raw), segment_bytes)
            ]
    return found


def numbered(count: int, size: int, last: int) -> list[bytes]:
    return [bytes([number % 256]) * size for number in range(count - 1)] + [b"!" * last]


@pytest.mark.parametrize(("gso", "mmsg"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize(
    ("count", "size", "last"), [(1, 5, 5), (3, 100, 7), (44, 1452, 1452), (100, 50, 1)]
)
def test_a_run_arrives_as_the_datagrams_it_was_made_of(
    receiver: socket.socket,
    sender: socket.socket,
    count: int,
    size: int,
    last: int,
    gso: bool,
    mmsg: bool,
) -> None:
    sent = numbered(count, size, last)
    writer = kernel.UdpWriter()
    writer.gso, writer.mmsg = gso, mmsg
    run = b"".join(sent)
    assert writer.send(sender.fileno(), sockaddr(receiver), run, size) == len(run)
    found = datagrams(kernel.UdpReader(), receiver, len(run))
    assert found == [(LOOPBACK, data) for data in sent]
    assert (writer.gso, writer.mmsg) == (gso, mmsg)


@pytest.mark.parametrize(("count", "size"), [(100, 200), (50, 1400)], ids=["64", "64 KiB"])
def test_a_run_above_a_limit_of_one_call_is_split(
    receiver: socket.socket, sender: socket.socket, count: int, size: int
) -> None:
    sent = numbered(count, size, 3)
    run = memoryview(bytearray(b"".join(sent)))
    assert kernel.UdpWriter().send(sender.fileno(), sockaddr(receiver), run, size) == len(run)
    assert [data for _, data in datagrams(kernel.UdpReader(), receiver, len(run))] == sent


def test_a_window_s_run_arrives_and_is_taken_in_order(
    receiver: socket.socket, sender: socket.socket
) -> None:
    tsi = b"\1\2\3\4\5\6\7\x08"
    window = kernel.TransmitSlots(tsi, 5555, 1428, 64)
    messages = [b"%04d" % number for number in range(2000)]
    assert window.append_many(messages, 0, 2000) == 2000
    window.seal()
    run = window.take_run(44)
    assert run is not None
    view, segment_bytes = run
    taken = kernel.UdpWriter().send(sender.fileno(), sockaddr(receiver), view, segment_bytes)
    assert taken == len(view)
    decoder = kernel.FrameDecoder(kernel.TopicFilter([b""]), 100, 1)
    slots = kernel.ReceiveSlots(tsi, 5555, decoder, 0)
    reader = kernel.UdpReader()
    out: list[kernel.Message] = []
    while len(out) < len(messages):
        assert select.select([receiver], [], [], WAIT_S)[0]
        for _, data, size in reader.read(receiver.fileno()):
            assert slots.absorb(data, 0, size, out) == len(data)
    assert out == messages


def test_ipv6_sources_have_16_octets() -> None:
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
    ):
        try:
            receiver.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 loopback: {error}")
        sender.sendto(b"six", receiver.getsockname())
        found = datagrams(kernel.UdpReader(), receiver, 3)
        assert found == [(bytes(15) + b"\1", b"six")]


def test_each_of_several_senders_is_told_apart(receiver: socket.socket) -> None:
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((host, 0))
            sender.sendto(host.encode(), receiver.getsockname())
    found = datagrams(kernel.UdpReader(), receiver, 27)
    assert [socket.inet_ntoa(source).encode() for source, _ in found] == [data for _, data in found]


def test_nothing_to_read_is_an_empty_list(receiver: socket.socket) -> None:
    assert kernel.UdpReader().read(receiver.fileno()) == []


def test_a_datagram_above_the_buffer_is_dropped_and_counted(
    receiver: socket.socket, sender: socket.socket
) -> None:
    reader = kernel.UdpReader(batch_count=4, buffer_bytes=100)
    for size in (100, 101, 5):
        sender.sendto(b"x" * size, receiver.getsockname())
    assert [len(data) for _, data in datagrams(reader, receiver, 105)] == [100, 5]
    assert reader.truncated_count == 1


def test_an_empty_datagram_is_dropped_and_counted(
    receiver: socket.socket, sender: socket.socket
) -> None:
    reader = kernel.UdpReader()
    sender.sendto(b"", receiver.getsockname())
    sender.sendto(b"x", receiver.getsockname())
    assert datagrams(reader, receiver, 1) == [(LOOPBACK, b"x")]
    assert reader.empty_count == 1


def test_what_the_system_dropped_is_counted_and_can_be_forgotten(
    receiver: socket.socket, sender: socket.socket
) -> None:
    receiver.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # as small as it gets
    for _ in range(20):
        sender.sendto(b"x" * 1000, receiver.getsockname())
    reader = kernel.UdpReader()
    while reader.read(receiver.fileno()):
        pass
    assert reader.overflows == {}  # the count goes with the next datagram that finds room
    sender.sendto(b"y", receiver.getsockname())
    datagrams(reader, receiver, 1)
    fd = receiver.fileno()
    assert 0 < reader.overflows[fd] < 20
    reader.forget(fd)
    assert reader.overflows == {}
    reader.forget(fd)


def test_a_view_outlives_its_reader(receiver: socket.socket, sender: socket.socket) -> None:
    reader = kernel.UdpReader()
    sender.sendto(b"kept", receiver.getsockname())
    assert select.select([receiver], [], [], WAIT_S)[0]
    ((_, view, _),) = reader.read(receiver.fileno())
    del reader
    assert bytes(view) == b"kept"


def test_a_segment_above_the_mtu_is_an_error_and_not_held_against_gso(
    receiver: socket.socket, sender: socket.socket
) -> None:
    writer = kernel.UdpWriter()
    for data in (bytes(70_000), bytes(140_000)):
        with pytest.raises(OSError, match="Message too long") as caught:
            writer.send(sender.fileno(), sockaddr(receiver), data, 70_000)
        assert caught.value.errno == errno.EMSGSIZE
    assert writer.gso


KERNELS = [reference]
try:
    KERNELS.append(differential.native())
except ImportError:
    pass


@pytest.mark.kernel_independent
@pytest.mark.parametrize("which", KERNELS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_mistakes_are_told_in_the_same_words(which: Any) -> None:
    writer = which.UdpWriter()
    assert differential.outcome(writer.send, 0, bytes(29), b"x", 1) == (
        ValueError,
        "sockaddr of 29 bytes; at most 28",
    )
    assert differential.outcome(writer.send, 0, bytes(16), b"", 1) == (
        ValueError,
        "0 bytes in segments of 1; both must be >= 1",
    )
    assert differential.outcome(writer.send, 0, bytes(16), b"x", 0) == (
        ValueError,
        "1 bytes in segments of 0; both must be >= 1",
    )
    assert differential.outcome(which.UdpReader, 0, 1) == (
        ValueError,
        "batch of 0 x 1 bytes; both must be >= 1",
    )
    calls: list[Callable[[], object]] = [
        lambda: which.UdpReader().read(-1),
        lambda: writer.send(-1, bytes(16), b"x", 1),
    ]
    for call in calls:
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            call()
        assert caught.value.errno == errno.EBADF
