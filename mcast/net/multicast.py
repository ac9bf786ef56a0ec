"""The UDP sockets of one multicast endpoint, with every option set, checked and explained.

Owns which sockets there are, what they are bound to and what the kernel lets through to them:

- the *group* socket, bound to (group, port) and joined on one interface, takes what the group
  hears. A publisher's takes only what flows up to a source (NAK, NNAK, SPMR, POLR, ACK): a filter
  in the kernel drops the data, its own included, before it costs anything;
- the *sender* socket sends everything, by its interface. A publisher's is bound to (interface
  address, any port), since peers know it by that address. A subscriber's is bound to none, so that
  its NAKs still leave when the interface gets another address; but for loopback, where the kernel
  chooses no source address for multicast;
- the *repair* socket, a publisher's only, bound to (interface address, port), takes the unicast
  NAKs and SPMRs. The kernel prefers it to the wildcard sockets of libzmq processes.

Invariants: no socket takes a datagram of another group, port or interface, whatever other
processes join; each is non-blocking and closed on exec; when opening fails, none stays open and
the error is a ``TransportError`` with a cure.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from mcast.endpoint import MulticastEndpoint
from mcast.errors import EndpointError, OptionError, TransportError
from mcast.net.interfaces import Interface
from mcast.net.udp import packed_sockaddr

__all__ = [
    "DEFAULT_DSCP",
    "DEFAULT_TTL",
    "BufferWarning",
    "MulticastSockets",
]

DEFAULT_TTL: Final = 1
"""Hops: stay in the local network (as ZMQ_MULTICAST_HOPS)."""

DEFAULT_DSCP: Final = 46
"""Expedited forwarding; libzmq sends TOS 0xB8, which is 46 << 2."""

# <linux/in.h>, <linux/in6.h>, <linux/udp.h>, <asm-generic/socket.h>: what `socket` does not name
_IP_MTU_DISCOVER: Final = 10
_IP_MULTICAST_ALL: Final = 49
_IP_UNICAST_IF: Final = 50
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_MULTICAST_ALL: Final = 29  # since Linux 4.20
_IPV6_UNICAST_IF: Final = 76
_PMTUDISC_DO: Final = 2
_MCAST_JOIN_GROUP: Final = 42
_MCAST_JOIN_SOURCE_GROUP: Final = 46
_SOL_UDP: Final = 17
_UDP_GRO: Final = 104
_SO_ATTACH_FILTER: Final = 26
_SO_RXQ_OVFL: Final = 40

# The PGM types that flow up to a source (RFC 3208 s8; ACK is OpenPGM's, for PGMCC)
_UPSTREAM_TYPES: Final = (0x08, 0x09, 0x0C, 0x02, 0x0D)  # NAK, NNAK, SPMR, POLR, ACK
_UDP_HEADER_BYTES: Final = 8  # a socket filter sees the datagram from its UDP header on
_PGM_TYPE_OFFSET: Final = 4


class BufferWarning(UserWarning):
    """The kernel granted a smaller socket buffer than asked; the text has the sysctl line."""


@dataclass(slots=True)
class MulticastSockets:
    """The open sockets of one endpoint on one interface; whoever opens it owns and closes it."""

    group: socket.socket
    """Bound to (group, port); read it. Filtered when it is a publisher's."""

    sender: socket.socket
    """Bound to (interface address, any port); write to it."""

    repair: socket.socket | None
    """Bound to (interface address, port), a publisher's only; read it."""

    group_sockaddr: bytes
    """The group and port as a native ``struct sockaddr``, for the writer."""

    interface: Interface
    """Where all of this is."""

    gro: bool
    """True when the kernel coalesces on the group socket (UDP_GRO)."""

    rcvbuf_bytes: int
    """The receive buffer granted to the group socket, in the unit it was asked in."""

    sndbuf_bytes: int
    """The send buffer granted to the sender socket, in the unit it was asked in."""

    @classmethod
    def open(
        cls,
        endpoint: MulticastEndpoint,
        interface: Interface,
        *,
        publisher: bool,
        ttl: int = DEFAULT_TTL,
        loop: bool = True,
        dscp: int = DEFAULT_DSCP,
        rcvbuf_bytes: int | None = None,
        sndbuf_bytes: int | None = None,
    ) -> MulticastSockets:
        """Return the sockets of ``endpoint`` on ``interface``, joined and ready.

        ``ttl`` is 0..255 hops, 0 staying on this host; ``loop`` lets other processes of this host
        hear what is sent; ``dscp`` is 0..63. A buffer size of None leaves the system's default; a
        size that the kernel cuts gives a BufferWarning, not an error. Blocks no longer than the
        system calls.

        Raises: OptionError for a value out of range; EndpointError when the interface is of the
        other IP version, or a publisher's URL names another source than its interface's address;
        TransportError for what the kernel refuses.
        """
        if publisher and endpoint.source not in (None, interface.address):
            raise EndpointError(
                f"{endpoint}: a publisher on {interface} sends from {interface.address}, so no"
                f" subscriber to source {endpoint.source} would hear it"
            )
        _in_range("ttl", ttl, 255)
        _in_range("dscp", dscp, 63)
        if interface.version != endpoint.version:
            raise EndpointError(
                f"{endpoint} is IPv{endpoint.version} and {interface} is IPv{interface.version}"
            )
        where = _Where(endpoint, interface)
        with _explained("cannot set a socket option", where), ExitStack() as undo:
            group = undo.enter_context(where.udp_socket())
            gro = _open_group(group, where, upstream_only=publisher, rcvbuf_bytes=rcvbuf_bytes)
            sender = undo.enter_context(where.udp_socket())
            _open_sender(sender, where, ttl=ttl, loop=loop, dscp=dscp, sndbuf_bytes=sndbuf_bytes)
            if publisher or ip_address(interface.address).is_loopback:
                with _explained(f"cannot bind to {where.interface}", where):
                    sender.bind(where.interface_name(0))
            else:
                _leave_by_interface(sender, where)
            _check_route(where)
            repair = None
            if publisher:
                repair = undo.enter_context(where.udp_socket())
                _open_repair(repair, where)
            opened = cls(
                group=group,
                sender=sender,
                repair=repair,
                group_sockaddr=packed_sockaddr(endpoint.group, endpoint.port, interface.index),
                interface=interface,
                gro=gro,
                rcvbuf_bytes=_granted(group, socket.SO_RCVBUF),
                sndbuf_bytes=_granted(sender, socket.SO_SNDBUF),
            )
            undo.pop_all()
        return opened

    def set_hops(self, hops: int) -> None:
        """Send multicast from now on with this time to live; 0 stays on this host."""
        if self.interface.version == 6:
            self.sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
        else:
            self.sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)

    def close(self) -> None:
        """Leave the group and close every socket; a second call does nothing."""
        for opened in (self.group, self.sender, self.repair):
            if opened is not None:
                opened.close()


@dataclass(frozen=True, slots=True)
class _Where:
    """The endpoint and the interface, in the forms that the socket calls want."""

    endpoint: MulticastEndpoint
    interface: Interface

    @property
    def is_ipv6(self) -> bool:
        return self.endpoint.version == 6

    @property
    def level(self) -> int:
        return socket.IPPROTO_IPV6 if self.is_ipv6 else socket.IPPROTO_IP

    @property
    def group_name(self) -> tuple[str, int] | tuple[str, int, int, int]:
        return self._name(self.endpoint.group, self.endpoint.port, self.interface.index)

    def interface_name(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        return self._name(self.interface.address, port, self.interface.scope_id)

    def udp_socket(self) -> socket.socket:
        """A new non-blocking UDP socket that is closed on exec, which Python's sockets are."""
        family = socket.AF_INET6 if self.is_ipv6 else socket.AF_INET
        with _explained("cannot open a UDP socket", self):
            made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            if self.is_ipv6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return made

    def _name(
        self, address: str, port: int, scope_id: int
    ) -> tuple[str, int] | tuple[str, int, int, int]:
        return (address, port, 0, scope_id) if self.is_ipv6 else (address, port)


def _open_group(
    group: socket.socket, where: _Where, *, upstream_only: bool, rcvbuf_bytes: int | None
) -> bool:
    """Set up the group socket; return True when the kernel coalesces on it.

    Everything that narrows what it takes is set before it is bound, so that nothing slips in.
    """
    if upstream_only:
        with _explained("cannot attach the packet filter", where):
            _attach_filter(group, _upstream_filter())
    else:
        # The kernel counts what a filter drops as overflow, too, so a filtered socket's count
        # would only tell how much data went by.
        group.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    _only_joined_groups(group, where)
    _ask_buffer(group, socket.SO_RCVBUF, rcvbuf_bytes)
    gro = _turn_gro_on(group)
    _share_port(group)
    name = _text(where.endpoint.group, where.endpoint.port)
    with _explained(f"cannot bind to the group {name}", where):
        group.bind(where.group_name)
    _join(group, where)
    return gro


def _open_sender(
    sender: socket.socket,
    where: _Where,
    *,
    ttl: int,
    loop: bool,
    dscp: int,
    sndbuf_bytes: int | None,
) -> None:
    _ask_buffer(sender, socket.SO_SNDBUF, sndbuf_bytes)
    _send_from_interface(sender, where)
    if where.is_ipv6:
        sender.setsockopt(where.level, socket.IPV6_MULTICAST_HOPS, ttl)
        sender.setsockopt(where.level, socket.IPV6_MULTICAST_LOOP, int(loop))
        sender.setsockopt(where.level, socket.IPV6_TCLASS, dscp << 2)
        sender.setsockopt(where.level, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
    else:
        sender.setsockopt(where.level, socket.IP_MULTICAST_TTL, ttl)
        sender.setsockopt(where.level, socket.IP_MULTICAST_LOOP, int(loop))
        sender.setsockopt(where.level, socket.IP_TOS, dscp << 2)
        # Never fragment: one lost fragment loses the packet, and a segment above the MTU is a
        # setting to correct, which EMSGSIZE says at once.
        sender.setsockopt(where.level, _IP_MTU_DISCOVER, _PMTUDISC_DO)


def _leave_by_interface(sender: socket.socket, where: _Where) -> None:
    """Unicast and multicast leave by the interface, with whatever address it has at the time."""
    index = where.interface.index
    option = _IPV6_UNICAST_IF if where.is_ipv6 else _IP_UNICAST_IF
    sender.setsockopt(where.level, option, struct.pack("!i", index))
    if not where.is_ipv6:
        request = struct.pack("=4s4si", bytes(4), bytes(4), index)
        sender.setsockopt(where.level, socket.IP_MULTICAST_IF, request)


def _open_repair(repair: socket.socket, where: _Where) -> None:
    repair.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    _share_port(repair)
    name = _text(where.interface.address, where.endpoint.port)
    with _explained(f"cannot bind to {name} for unicast NAKs", where):
        repair.bind(where.interface_name(where.endpoint.port))


def _share_port(opened: socket.socket) -> None:
    # libpgm sets SO_REUSEPORT alone; sharing with it needs the same, and SO_REUSEADDR lets in
    # programs that set only that one.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _only_joined_groups(opened: socket.socket, where: _Where) -> None:
    """Take only what this socket joined; else one join anywhere on the host opens the group."""
    if not where.is_ipv6:
        opened.setsockopt(where.level, _IP_MULTICAST_ALL, 0)
        return
    # For IPv6 the kernel then asks which groups were joined, but not on which interface (measured,
    # Linux 6.18); binding to the interface asks that. Old kernels have no IPV6_MULTICAST_ALL (4.20)
    # or want CAP_NET_RAW for the other (5.7): what remains there is the very same group on another
    # interface, since the socket is bound to its group.
    name = where.interface.name.encode() + b"\0"
    for level, option, value in (
        (where.level, _IPV6_MULTICAST_ALL, struct.pack("=i", 0)),
        (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name),
    ):
        try:
            opened.setsockopt(level, option, value)
        except OSError as error:
            if error.errno not in (errno.ENOPROTOOPT, errno.EPERM):
                raise


def _turn_gro_on(opened: socket.socket) -> bool:
    try:
        opened.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError:
        return False  # before Linux 5.0: the same datagrams, one at a time
    return True


def _send_from_interface(opened: socket.socket, where: _Where) -> None:
    index = where.interface.index
    with _explained(f"cannot send multicast on {where.interface}", where):
        if where.is_ipv6:
            opened.setsockopt(where.level, socket.IPV6_MULTICAST_IF, index)
        else:
            # struct ip_mreqn; by index, since two interfaces may have one address
            request = struct.pack("=4s4si", bytes(4), where.interface.packed_address, index)
            opened.setsockopt(where.level, socket.IP_MULTICAST_IF, request)


def _check_route(where: _Where) -> None:
    """Ask the kernel for the way to the group, without a packet: connecting UDP only looks."""
    with where.udp_socket() as probe:
        _send_from_interface(probe, where)
        group = _text(where.endpoint.group, where.endpoint.port)
        with _explained(f"no route to the group {group}", where):
            probe.connect(where.group_name)


def _join(group: socket.socket, where: _Where) -> None:
    endpoint, index = where.endpoint, where.interface.index
    # struct group_req and group_source_req: the addresses are aligned like a pointer, which 0P does
    if endpoint.source is None:
        option = _MCAST_JOIN_GROUP
        request = struct.pack("@I0P128s", index, packed_sockaddr(endpoint.group, 0))
        what = endpoint.group
    else:
        option = _MCAST_JOIN_SOURCE_GROUP
        names = (packed_sockaddr(endpoint.group, 0), packed_sockaddr(endpoint.source, 0))
        request = struct.pack("@I0P128s128s", index, *names)
        what = f"{endpoint.group} from source {endpoint.source}"
    with _explained(f"cannot join {what} on {where.interface}", where):
        group.setsockopt(where.level, option, request)


def _upstream_filter() -> list[tuple[int, int, int, int]]:
    """Return the classic BPF program that takes the types of ``_UPSTREAM_TYPES`` and nothing else.

    An instruction is (code, jump if true, jump if false, operand). A datagram too short for the
    load ends the program with "drop". A GRO run is judged by its first datagram: it comes from one
    sending socket, and a source's carries nothing that flows up.
    """
    load_byte, and_value, jump_equal, give = 0x30, 0x54, 0x15, 0x06
    count = len(_UPSTREAM_TYPES)
    return [
        (load_byte, 0, 0, _UDP_HEADER_BYTES + _PGM_TYPE_OFFSET),
        (and_value, 0, 0, 0x0F),
        *((jump_equal, count - i, 0, kind) for i, kind in enumerate(_UPSTREAM_TYPES)),
        (give, 0, 0, 0),
        (give, 0, 0, 0xFFFFFFFF),
    ]


def _attach_filter(opened: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    # struct sock_fprog; the kernel copies the program during the call
    request = struct.pack("@HP", len(program), ctypes.addressof(code))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, request)


def _ask_buffer(opened: socket.socket, option: int, asked_bytes: int | None) -> None:
    if asked_bytes is None:
        return
    name, sysctl = {
        socket.SO_RCVBUF: ("receive", "net.core.rmem_max"),
        socket.SO_SNDBUF: ("send", "net.core.wmem_max"),
    }[option]
    _in_range(f"{name} buffer", asked_bytes, 0x3FFFFFFF)  # the kernel doubles it, in an int
    opened.setsockopt(socket.SOL_SOCKET, option, asked_bytes)
    granted_bytes = _granted(opened, option)
    if granted_bytes < asked_bytes:
        warnings.warn(
            f"{name} buffer: asked for {asked_bytes} bytes, got {granted_bytes}; allow it with:"
            f" sysctl -w {sysctl}={asked_bytes}",
            BufferWarning,
            stacklevel=4,  # to the caller of MulticastSockets.open
        )


def _granted(opened: socket.socket, option: int) -> int:
    # The kernel keeps twice what was asked, the other half for its own bookkeeping (socket(7)).
    return opened.getsockopt(socket.SOL_SOCKET, option) // 2


def _in_range(name: str, value: int, highest: int) -> None:
    if not 0 <= value <= highest:
        raise OptionError(f"{name} {value!r} is not in 0..{highest}")


def _text(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@contextmanager
def _explained(what: str, where: _Where) -> Iterator[None]:
    """Turn an OSError into a TransportError: what failed, at which endpoint, why, and a cure."""
    try:
        yield
    except TransportError:
        raise  # explained further in
    except OSError as error:
        code = error.errno or errno.EIO
        cure = _cure(code, where)
        reason = f"{what} ({where.endpoint}): {error.strerror}"
        raise TransportError(code, f"{reason}; {cure}" if cure else reason) from error


def _cure(code: int, where: _Where) -> str:
    interface = where.interface
    if code == errno.EADDRINUSE:
        return (
            "another program holds the port without SO_REUSEADDR and SO_REUSEPORT, or runs as"
            f" another user; find it: ss -ulpn 'sport = :{where.endpoint.port}'"
        )
    if code in (errno.EACCES, errno.EPERM):
        return "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one"
    if code == errno.ENODEV:
        return f"interface {interface.name} is gone or cannot do multicast; see: ip link"
    if code == errno.EADDRNOTAVAIL:
        return f"{interface.name} no longer has the address; see: ip address show {interface.name}"
    if code == errno.ENOBUFS:
        option = "igmp_max_msf" if where.endpoint.source else "igmp_max_memberships"
        return f"too many joins; raise the limit: sysctl -w net.ipv4.{option}=100"
    if code == errno.ENETUNREACH and where.is_ipv6:
        # lo has no such route of its own, and takes only this kind (measured, Linux 6.18)
        kind = "local" if interface.is_loopback else "multicast"
        return f"add one: ip -6 route add {kind} ff00::/8 dev {interface.name} table local"
    if code == errno.ENETUNREACH:
        return f"add one: ip route add 224.0.0.0/4 dev {interface.name}"
    if code in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit: ulimit -n"
    return ""
