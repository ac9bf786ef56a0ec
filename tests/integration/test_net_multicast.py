"""The sockets of an endpoint on the real network stack: who hears what, and why opening fails.

Everything stays on loopback or inside a network namespace that the test makes for itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mcast.endpoint import MulticastEndpoint, parse_endpoint
from mcast.errors import EndpointError, InterfaceError, OptionError, TransportError
from mcast.kernel.reference_io import UdpReader, UdpWriter
from mcast.net.interfaces import Interface, resolve_interface
from mcast.net.multicast import BufferWarning, MulticastSockets
from mcast.net.udp import packed_sockaddr

pytestmark = pytest.mark.kernel_independent

GROUP = "239.192.77.1"
UPSTREAM = {0x2, 0x8, 0x9, 0xC, 0xD}  # POLR, NAK, NNAK, SPMR, ACK
CLONE_NEWNET = 0x40000000
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, SO_RXQ_OVFL = 10, 23, 40

Opener = Callable[..., MulticastSockets]


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind(("127.0.0.1", 0))
        number: int = asked.getsockname()[1]
    return number


@pytest.fixture
def open_sockets(port: int) -> Iterator[Opener]:
    """Open the sockets of an endpoint, on lo and GROUP if not told, and close them at the end."""
    with ExitStack() as opened:

        def open_one(
            interface: str = "lo",
            group: str = GROUP,
            *,
            publisher: bool = False,
            **options: int | bool | None,
        ) -> MulticastSockets:
            endpoint = parse_endpoint(f"epgm://{interface};{group}:{port}")
            found = resolve_interface(endpoint.interface, endpoint.version)
            made = MulticastSockets.open(endpoint, found, publisher=publisher, **options)  # type: ignore[arg-type]
            opened.callback(made.close)
            return made

        yield open_one


@pytest.fixture
def namespace() -> Iterator[Callable[[str], None]]:
    """Move this thread into an empty network namespace with lo up; run `ip` and such in it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a network namespace")
    if shutil.which("ip") is None:
        pytest.skip("needs `ip` of iproute2")
    libc = ctypes.CDLL(None, use_errno=True)

    def run(command: str) -> None:
        subprocess.run(command.split(), check=True, capture_output=True)

    with open("/proc/thread-self/ns/net") as home:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            run("ip link set lo up")
            yield run
        finally:
            assert libc.setns(home.fileno(), CLONE_NEWNET) == 0


def packet(kind: int, size: int = 100, fill: bytes = b"\0") -> bytes:
    """Something with a PGM type where PGM has it; the sockets look at nothing else."""
    return (bytes(4) + bytes([kind])).ljust(size, fill)


def arrived(sock: socket.socket | None, *, wait: bool = True) -> list[bytes]:
    """Every datagram at ``sock``; with ``wait``, at least one within 2 s."""
    assert sock is not None
    reader, found = UdpReader(), []
    if wait:
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        assert poller.poll(2000), "nothing arrived within 2 s"
    while batch := reader.read(sock.fileno()):
        for _, data, step in batch:
            found += [bytes(data[at : at + step]) for at in range(0, len(data), step)]
    return found


def publish(sockets: MulticastSockets, data: bytes, segment_bytes: int = 1472) -> None:
    name = sockets.group_sockaddr
    assert UdpWriter().send(sockets.sender.fileno(), name, data, segment_bytes) == len(data)


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_what_the_publisher_sends_reaches_every_subscriber_of_the_host(
    open_sockets: Opener,
) -> None:
    publisher = open_sockets(publisher=True)
    subscribers = [open_sockets() for _ in range(3)]
    publish(publisher, packet(0x4))
    for subscriber in subscribers:
        assert arrived(subscriber.group) == [packet(0x4)]


def test_a_run_stays_one_run_to_every_subscriber(open_sockets: Opener) -> None:
    publisher = open_sockets(publisher=True)
    subscribers = [open_sockets(), open_sockets()]
    run = b"".join(packet(0x4, fill=bytes([number])) for number in range(40))
    publish(publisher, run, 100)
    for subscriber in subscribers:
        assert subscriber.gro
        poller = select.poll()
        poller.register(subscriber.group, select.POLLIN)
        assert poller.poll(2000)
        ((source, data, step),) = UdpReader().read(subscriber.group.fileno())
        assert (source, bytes(data), step) == (b"\x7f\0\0\1", run, 100)


def test_a_publisher_hears_only_what_flows_up_to_a_source(open_sockets: Opener) -> None:
    publisher, subscriber = open_sockets(publisher=True), open_sockets()
    everything = [packet(kind, fill=b"\x08") for kind in range(16)]
    for one in everything:
        publish(subscriber, one)
    assert arrived(subscriber.group) == everything
    assert {one[4] for one in arrived(publisher.group)} == UPSTREAM


def test_a_publisher_drops_a_whole_run_of_data_and_what_is_too_short(open_sockets: Opener) -> None:
    publisher, subscriber = open_sockets(publisher=True), open_sockets()
    publish(publisher, packet(0x4) * 40, 100)
    publish(subscriber, bytes(4))
    publish(subscriber, packet(0x8))
    assert arrived(publisher.group) == [packet(0x8)]


def test_overflow_is_counted_only_where_no_filter_would_be_counted_as_well(
    open_sockets: Opener,
) -> None:
    publisher, subscriber = open_sockets(publisher=True), open_sockets()
    assert publisher.repair is not None
    counted = [
        sock.getsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL)
        for sock in (publisher.group, publisher.repair, subscriber.group)
    ]
    assert counted == [0, 1, 1]


def test_another_group_on_the_same_port_is_not_heard(open_sockets: Opener) -> None:
    subscriber, other = open_sockets(), open_sockets(group="239.192.77.2")
    publish(open_sockets(group="239.192.77.2", publisher=True), packet(0x4))
    publish(open_sockets(publisher=True), packet(0x5))
    assert arrived(other.group) == [packet(0x4)]
    assert arrived(subscriber.group) == [packet(0x5)]


def test_a_source_specific_subscriber_hears_only_its_source(open_sockets: Opener) -> None:
    subscriber = open_sockets(group="127.0.0.1@232.192.77.1")
    everybody = open_sockets(group="232.192.77.1")
    stranger = open_sockets("127.0.0.1", "232.192.77.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.2", 0))
        interface = socket.inet_aton("127.0.0.1")
        elsewhere.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
        elsewhere.sendto(packet(0x4, fill=b"2"), stranger.group.getsockname())
    publish(stranger, packet(0x4, fill=b"1"))
    assert arrived(subscriber.group) == [packet(0x4, fill=b"1")]
    assert arrived(everybody.group) == [packet(0x4, fill=b"2"), packet(0x4, fill=b"1")]


def test_unicast_goes_to_the_repair_socket_and_not_to_wildcard_or_group_sockets(
    open_sockets: Opener, port: int
) -> None:
    # as in the capture of misdirected NAKs: a libzmq process holds the port on every address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as libzmq_like:
        libzmq_like.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        libzmq_like.bind(("0.0.0.0", port))
        libzmq_like.setblocking(False)
        publisher = open_sockets(publisher=True)
        subscribers = [open_sockets() for _ in range(8)]
        for subscriber in subscribers:
            name = packed_sockaddr("127.0.0.1", port)
            UdpWriter().send(subscriber.sender.fileno(), name, packet(0x8), 1472)
        found = arrived(publisher.repair)
        assert found == [packet(0x8)] * 8
        assert arrived(libzmq_like, wait=False) == []
        for subscriber in subscribers:
            assert arrived(subscriber.group, wait=False) == []


def test_a_subscriber_has_no_repair_socket(open_sockets: Opener) -> None:
    assert open_sockets().repair is None


def test_every_socket_is_non_blocking_and_closed_on_exec(open_sockets: Opener) -> None:
    publisher = open_sockets(publisher=True)
    for sock in (publisher.group, publisher.sender, publisher.repair):
        assert sock is not None
        assert not os.get_blocking(sock.fileno())
        assert not os.get_inheritable(sock.fileno())


def test_the_sender_has_the_defaults_of_the_contract(open_sockets: Opener) -> None:
    sender = open_sockets(publisher=True).sender
    assert sender.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 1
    assert sender.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP) == 1
    assert sender.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0xB8
    assert sender.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == 2
    assert sender.getsockname()[0] == "127.0.0.1"


def test_the_sender_takes_every_option(open_sockets: Opener) -> None:
    sender = open_sockets(publisher=True, ttl=255, loop=False, dscp=0).sender
    assert sender.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 255
    assert sender.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP) == 0
    assert sender.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 0


@pytest.mark.parametrize(
    "options",
    [{"ttl": 256}, {"ttl": -1}, {"dscp": 64}, {"rcvbuf_bytes": -1}, {"sndbuf_bytes": 2**30}],
)
def test_an_option_out_of_range_is_refused_and_nothing_stays_open(
    open_sockets: Opener, options: dict[str, int]
) -> None:
    before = open_files()
    with pytest.raises(OptionError, match=r"is not in 0\.\."):
        open_sockets(publisher=True, **options)
    assert open_files() == before


def test_a_granted_buffer_is_read_back(open_sockets: Opener) -> None:
    sockets = open_sockets(rcvbuf_bytes=100_000, sndbuf_bytes=50_000)
    assert (sockets.rcvbuf_bytes, sockets.sndbuf_bytes) == (100_000, 50_000)


@pytest.mark.parametrize(
    ("option", "sysctl"),
    [("rcvbuf_bytes", "net.core.rmem_max"), ("sndbuf_bytes", "net.core.wmem_max")],
)
def test_a_smaller_buffer_than_asked_warns_with_the_line_that_cures_it(
    open_sockets: Opener, option: str, sysctl: str
) -> None:
    with open(f"/proc/sys/{sysctl.replace('.', '/')}") as limit:
        asked = int(limit.read()) + 1
    with pytest.warns(BufferWarning, match=f"sysctl -w {sysctl}={asked}$") as caught:
        sockets = open_sockets(**{option: asked})
    assert caught[0].filename == __file__
    assert getattr(sockets, option) == asked - 1


def test_a_warning_made_an_error_leaves_nothing_open(open_sockets: Opener) -> None:
    before = open_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BufferWarning):
            open_sockets(publisher=True, sndbuf_bytes=2**29)
    assert open_files() == before


def test_closing_twice_does_nothing_and_closing_leaves_nothing_open(open_sockets: Opener) -> None:
    before = open_files()
    sockets = open_sockets(publisher=True)
    sockets.close()
    sockets.close()
    assert open_files() == before


def test_an_unknown_interface_lists_the_choices(open_sockets: Opener) -> None:
    with pytest.raises(InterfaceError, match=r"'no-such-one' .*choices: .*lo \(127\.0\.0\.1\)"):
        open_sockets("no-such-one")


def test_a_publisher_of_another_source_is_refused(open_sockets: Opener) -> None:
    with pytest.raises(EndpointError, match=r"no subscriber to source 127\.0\.0\.9 would hear it"):
        open_sockets(group="127.0.0.9@232.192.77.1", publisher=True)
    open_sockets(group="127.0.0.1@232.192.77.1", publisher=True)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's rights for the block; the kernel drops the capabilities with the user."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def loopback(port: int) -> tuple[MulticastEndpoint, Interface]:
    return parse_endpoint(f"epgm://lo;{GROUP}:{port}"), resolve_interface("lo", 4)


def refusal(endpoint: MulticastEndpoint, interface: Interface) -> TransportError:
    """What opening raises, after which nothing may be open that was not before."""
    before = open_files()
    with pytest.raises(TransportError) as caught:
        MulticastSockets.open(endpoint, interface, publisher=True)
    assert open_files() == before
    assert str(endpoint) in str(caught.value)
    return caught.value


def test_an_interface_of_the_other_ip_version_is_refused(port: int) -> None:
    endpoint, _ = loopback(port)
    with pytest.raises(EndpointError, match=r"is IPv4 and lo \(::1\) is IPv6"):
        MulticastSockets.open(endpoint, resolve_interface("lo", 6), publisher=False)


@pytest.mark.parametrize("address", [GROUP, "127.0.0.1"])
def test_a_port_held_by_a_program_that_does_not_share_says_how_to_find_it(
    port: int, address: str
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((address, port))
        error = refusal(*loopback(port))
    assert error.errno == errno.EADDRINUSE
    assert f"ss -ulpn 'sport = :{port}'" in str(error)


def test_a_vanished_interface_is_explained(port: int) -> None:
    endpoint, interface = loopback(port)
    error = refusal(endpoint, replace(interface, index=99_999))
    assert error.errno == errno.ENODEV
    assert "ip link" in str(error)


def test_a_vanished_address_is_explained(port: int) -> None:
    endpoint, interface = loopback(port)
    error = refusal(endpoint, replace(interface, address="192.0.2.77"))
    assert error.errno == errno.EADDRNOTAVAIL
    assert "ip address show lo" in str(error)


def test_too_many_open_files_is_explained(port: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = loopback(port)
    with open("/dev/null") as highest, ExitStack() as fillers:
        while highest.fileno() > (filler := fillers.enter_context(open("/dev/null"))).fileno():
            pass  # no number below the limit stays free
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (filler.fileno() + 1, hard))
            with pytest.raises(TransportError, match="ulimit -n") as caught:
                MulticastSockets.open(*target, publisher=True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE


@pytest.mark.namespace
def test_too_many_joins_says_which_limit_to_raise(namespace: Callable[[str], None]) -> None:
    Path("/proc/sys/net/ipv4/igmp_max_memberships").write_text("0")
    error = refusal(*loopback(5555))
    assert error.errno == errno.ENOBUFS
    assert "sysctl -w net.ipv4.igmp_max_memberships=" in str(error)


@pytest.mark.namespace
def test_a_privileged_port_is_explained(namespace: Callable[[str], None]) -> None:
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("1024")
    endpoint, interface = loopback(80)
    with as_nobody():
        error = refusal(endpoint, interface)
    assert error.errno == errno.EACCES
    assert "CAP_NET_BIND_SERVICE" in str(error)


@pytest.mark.namespace
@pytest.mark.parametrize("group", ["ff01::7777", "ff02::7777", "ff08::7777"])
def test_ipv6_on_loopback_needs_a_route_and_the_error_says_which(
    namespace: Callable[[str], None], open_sockets: Opener, group: str
) -> None:
    with pytest.raises(TransportError) as caught:
        open_sockets("lo", f"[{group}]", publisher=True)
    assert caught.value.errno == errno.ENETUNREACH
    namespace(str(caught.value).partition("add one: ")[2])
    publisher = open_sockets("lo", f"[{group}]", publisher=True)
    subscribers = [open_sockets("[::1]", f"[{group}]") for _ in range(2)]
    run = packet(0x4) * 40
    publish(publisher, run, 100)
    publish(subscribers[0], packet(0x8))
    for subscriber in subscribers:
        assert arrived(subscriber.group) == [packet(0x4)] * 40 + [packet(0x8)]
    assert arrived(publisher.group) == [packet(0x8)]
    sender = publisher.sender
    assert sender.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == 0xB8
    assert sender.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS) == 1
    assert sender.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER) == 2


@pytest.fixture
def two_cards(namespace: Callable[[str], None]) -> Callable[[str], None]:
    """A namespace with two veth interfaces, card0 at 10.77.0.1 and card1 at 10.78.0.1."""
    for number in range(2):
        namespace(f"ip link add card{number} type veth peer name plug{number}")
        namespace(f"ip address add 10.{77 + number}.0.1/24 dev card{number}")
        namespace(f"ip -6 address add fd00:{77 + number}::1/64 dev card{number} nodad")
        namespace(f"ip link set plug{number} up")
        namespace(f"ip link set card{number} up")
    # the kernel adds the IPv6 routes a moment later, when it has noticed the carrier
    command = ["ip", "-6", "route", "show", "table", "local", "type", "multicast"]
    deadline = time.monotonic() + 5
    while subprocess.check_output(command).count(b"ff00::/8 dev card") < 2:
        assert time.monotonic() < deadline, "no multicast routes"
        time.sleep(0.01)
    return namespace


@pytest.mark.namespace
@pytest.mark.parametrize("group", [GROUP, "[ff08::7777]"])
def test_the_same_group_on_another_interface_is_not_heard(
    two_cards: Callable[[str], None], open_sockets: Opener, group: str
) -> None:
    here, there = open_sockets("card0", group), open_sockets("card1", group)
    publish(open_sockets("card1", group, publisher=True), packet(0x4))
    publish(open_sockets("card0", group, publisher=True), packet(0x5))
    assert arrived(there.group) == [packet(0x4)]
    assert arrived(here.group) == [packet(0x5)]


@pytest.mark.namespace
@pytest.mark.parametrize("group", [GROUP, "[ff08::7777]"])
def test_without_loop_the_host_itself_hears_nothing(
    two_cards: Callable[[str], None], open_sockets: Opener, group: str
) -> None:
    subscriber = open_sockets("card0", group)
    publish(open_sockets("card0", group, publisher=True, loop=False), packet(0x4))
    publish(open_sockets("card0", group, publisher=True, loop=True), packet(0x5))
    assert arrived(subscriber.group) == [packet(0x5)]


@pytest.mark.namespace
@pytest.mark.parametrize(("group", "headers"), [(GROUP, 28), ("[ff08::7777]", 48)])
def test_a_segment_above_the_mtu_is_an_error_and_never_a_fragment(
    two_cards: Callable[[str], None], open_sockets: Opener, group: str, headers: int
) -> None:
    publisher, subscriber = (
        open_sockets("card0", group, publisher=True),
        open_sockets("card0", group),
    )
    assert publisher.interface.mtu_bytes == 1500
    writer, fits = UdpWriter(), 1500 - headers
    for count in (1, 3):
        run = bytes((fits + 1) * count)
        with pytest.raises(OSError) as caught:
            writer.send(publisher.sender.fileno(), publisher.group_sockaddr, run, fits + 1)
        assert caught.value.errno == errno.EMSGSIZE
    assert writer.gso
    publish(publisher, bytes(fits * 3), fits)
    assert arrived(subscriber.group) == [bytes(fits)] * 3


@pytest.mark.namespace
def test_addresses_and_networks_of_real_interfaces_are_found(
    two_cards: Callable[[str], None],
) -> None:
    two_cards("ip address add 10.79.0.1/24 dev card1 label card1:1")
    for spec in ("card0", "10.77.0.1", "10.77.0.0", "10.77.0.0/24"):
        assert resolve_interface(spec, 4).name == "card0"
    for spec in ("card0", "fd00:77::1", "fd00:77::", "fd00:77::/64"):
        assert resolve_interface(spec, 6).address == "fd00:77::1"
    assert resolve_interface("10.79.0.0", 4).name == "card1"
    for spec, choices in {
        "": r"card0 \(10.77.0.1\), card1 \(10.78.0.1\), card1 \(10.79.0.1\)",
        "card1": r"card1 \(10.78.0.1\), card1 \(10.79.0.1\)",
    }.items():
        with pytest.raises(InterfaceError, match=choices):
            resolve_interface(spec, 4)
    two_cards("ip link set card0 down")
    with pytest.raises(InterfaceError, match="ip link set card0 up"):
        resolve_interface("card0", 4)
