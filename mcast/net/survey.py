"""A look at what the machine gives a multicast socket, without a packet and without a change.

Owns the questions that ``mcast.doctor`` asks the kernel: links, routes, buffers, offloads, ports.
Sockets are opened and closed again, never joined and never sent from. Invariant: nothing leaves
the machine, not even an IGMP report.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from dataclasses import dataclass
from typing import Final

from mcast.endpoint import MulticastEndpoint
from mcast.errors import TransportError
from mcast.net.interfaces import Interface

__all__ = [
    "Link",
    "find_link",
    "granted_buffers",
    "group_route_error",
    "list_links",
    "open_querier_listener",
    "port_error",
    "routed_address",
    "udp_offloads",
]

# <linux/sockios.h>, <linux/if.h>, <linux/ethtool.h>, <linux/udp.h>, <linux/in.h>
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFMTU: Final = 0x8921
_SIOCETHTOOL: Final = 0x8946
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_RUNNING: Final = 0x40
_IFF_MULTICAST: Final = 0x1000
_ETHTOOL_GGSO: Final = 0x23
_ETHTOOL_GGRO: Final = 0x2B
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_DISCARD_PORT: Final = 9
"""RFC 863; connecting a UDP socket sends nothing, it only looks up the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network device, with or without an address."""

    name: str
    """The kernel's name."""
    index: int
    """The kernel's number for it."""
    mtu_bytes: int
    """The longest IP packet it carries."""
    is_up: bool
    """Administratively up."""
    has_carrier: bool
    """The cable, the radio or the other end is there."""
    is_loopback: bool
    """True for ``lo``."""
    has_multicast: bool
    """The kernel's MULTICAST flag."""
    gso: bool | None
    """Generic segmentation offload of the device; None where it does not say."""
    gro: bool | None
    """Generic receive offload of the device; None where it does not say."""


def list_links() -> list[Link]:
    """Every device of this network namespace, in the kernel's order."""
    return [link for _, name in socket.if_nameindex() if (link := find_link(name)) is not None]


def find_link(name: str) -> Link | None:
    """The device of that name, or None. Takes some 10 us."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        try:
            index = socket.if_nametoindex(name)
            flags = _ask(asked, _SIOCGIFFLAGS, name, "H")
            mtu_bytes = _ask(asked, _SIOCGIFMTU, name, "i")
        except (OSError, ValueError):
            return None
        return Link(
            name=name,
            index=index,
            mtu_bytes=mtu_bytes,
            is_up=bool(flags & _IFF_UP),
            has_carrier=bool(flags & _IFF_RUNNING),
            is_loopback=bool(flags & _IFF_LOOPBACK),
            has_multicast=bool(flags & _IFF_MULTICAST),
            gso=_ethtool(asked, name, _ETHTOOL_GGSO),
            gro=_ethtool(asked, name, _ETHTOOL_GGRO),
        )


def granted_buffers(rcvbuf_bytes: int, sndbuf_bytes: int) -> tuple[int, int]:
    """What the kernel grants of a receive and a send buffer; 0 asks for the system's default."""
    granted = []
    for option, asked_bytes in ((socket.SO_RCVBUF, rcvbuf_bytes), (socket.SO_SNDBUF, sndbuf_bytes)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            if asked_bytes:
                asked.setsockopt(socket.SOL_SOCKET, option, min(asked_bytes, 0x3FFFFFFF))
            granted.append(asked.getsockopt(socket.SOL_SOCKET, option) // 2)
    return granted[0], granted[1]


def routed_address(address: str) -> str:
    """The local address that the routing table alone would send to ``address`` from.

    Raises: TransportError when there is no way, with the kernel's errno.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((address, _DISCARD_PORT))
            return str(asked.getsockname()[0])
        except OSError as error:
            raise TransportError(error.errno or errno.EIO, f"{address}: {error.strerror}") from None


def group_route_error(group: str, interface: Interface) -> str | None:
    """Why a socket bound to send on ``interface`` finds no way to ``group``; None when it does."""
    is_ipv6 = interface.version == 6
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            if is_ipv6:
                asked.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)
                asked.connect((group, _DISCARD_PORT, 0, interface.index))
            else:
                request = struct.pack("=4s4si", bytes(4), interface.packed_address, interface.index)
                asked.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
                asked.connect((group, _DISCARD_PORT))
        except OSError as error:
            return str(error.strerror)
    return None


def port_error(endpoint: MulticastEndpoint, interface: Interface) -> str | None:
    """Why the group and port cannot be shared with who holds them; None when they can."""
    is_ipv6 = endpoint.version == 6
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            if is_ipv6:
                asked.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                asked.bind((endpoint.group, endpoint.port, 0, interface.index))
            else:
                asked.bind((endpoint.group, endpoint.port))
        except OSError as error:
            return str(error.strerror)
    return None


def udp_offloads() -> tuple[bool, bool]:
    """Whether this kernel knows UDP_SEGMENT (sending runs) and UDP_GRO (receiving them)."""
    known = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for option, value in ((_UDP_SEGMENT, 0), (_UDP_GRO, 1)):
            try:
                asked.setsockopt(_SOL_UDP, option, value)
            except OSError:
                known.append(False)
            else:
                known.append(True)
    return known[0], known[1]


def open_querier_listener(interface: Interface) -> socket.socket:
    """A non-blocking raw socket that takes the IGMP packets of an IPv4 interface.

    The caller closes it. It joins nothing: queries go to 224.0.0.1, which every host hears anyway.

    Raises: TransportError, with EPERM where raw sockets need a privilege that is lacking.
    """
    try:
        heard = socket.socket(
            socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_IGMP
        )
    except OSError as error:
        raise TransportError(
            error.errno or errno.EIO, f"cannot listen for IGMP queries: {error.strerror}"
        ) from None
    try:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode() + b"\0")
    except OSError as error:
        heard.close()
        raise TransportError(
            error.errno or errno.EIO, f"cannot listen on {interface.name}: {error.strerror}"
        ) from None
    return heard


def _ask(asked: socket.socket, request: int, name: str, kind: str) -> int:
    answer = fcntl.ioctl(asked.fileno(), request, struct.pack("16s24x", name.encode()))
    value: int = struct.unpack_from(f"={kind}", answer, 16)[0]
    return value


def _ethtool(asked: socket.socket, name: str, command: int) -> bool | None:
    """The value of one of ethtool's old on-off questions, or None where it has no answer."""
    value = ctypes.create_string_buffer(struct.pack("=II", command, 0), 8)
    request = struct.pack("@16sP16x", name.encode(), ctypes.addressof(value))
    try:
        fcntl.ioctl(asked.fileno(), _SIOCETHTOOL, request)
    except OSError:
        return None
    return bool(struct.unpack("=II", value.raw)[1])
