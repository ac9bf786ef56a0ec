"""UDP sockets of RADIO and DISH: to one host or to a group on one interface.

Owns how a ``udp://`` endpoint becomes a socket. Invariant: every socket is non-blocking and closed
on exec; a group is sent to, and joined, on the one interface that the endpoint names.
"""

from __future__ import annotations

import socket
import struct

from mcast.endpoint import MulticastEndpoint
from mcast.errors import TransportError
from mcast.net.interfaces import Interface, resolve_interface
from mcast.options import SocketOptions
from mcast.unicast import ANY, UdpEndpoint

__all__ = ["open_receiver", "open_sender"]


def open_sender(endpoint: UdpEndpoint, options: SocketOptions) -> socket.socket:
    """A socket connected to ``endpoint``. Raises TransportError, InterfaceError."""
    made = _udp_socket(endpoint.version)
    try:
        if endpoint.is_multicast:
            interface = _interface(endpoint)
            if endpoint.version == 6:
                level = socket.IPPROTO_IPV6
                made.setsockopt(level, socket.IPV6_MULTICAST_IF, interface.index)
                made.setsockopt(level, socket.IPV6_MULTICAST_HOPS, options.multicast_hops)
                made.setsockopt(level, socket.IPV6_MULTICAST_LOOP, options.multicast_loop)
            else:
                level = socket.IPPROTO_IP
                made.setsockopt(level, socket.IP_MULTICAST_IF, _mreqn("0.0.0.0", interface.index))
                made.setsockopt(level, socket.IP_MULTICAST_TTL, options.multicast_hops)
                made.setsockopt(level, socket.IP_MULTICAST_LOOP, options.multicast_loop)
        if options.sndbuf:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.sndbuf)
        made.connect((endpoint.address, endpoint.port))
    except BaseException as error:
        made.close()
        raise _explained(endpoint, error) from None
    return made


def open_receiver(endpoint: UdpEndpoint, options: SocketOptions) -> socket.socket:
    """A socket that hears ``endpoint``. Raises TransportError, InterfaceError."""
    made = _udp_socket(endpoint.version)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.rcvbuf:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.rcvbuf)
        where = "" if endpoint.address == ANY else endpoint.address
        if endpoint.is_multicast:
            interface = _interface(endpoint)
            made.bind((endpoint.address, endpoint.port))
            if endpoint.version == 6:
                group = socket.inet_pton(socket.AF_INET6, endpoint.address)
                membership = group + struct.pack("@I", interface.index)
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
            else:
                membership = _mreqn(endpoint.address, interface.index)
                made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        else:
            made.bind((where, endpoint.port))
    except BaseException as error:
        made.close()
        raise _explained(endpoint, error) from None
    return made


def _interface(endpoint: UdpEndpoint) -> Interface:
    as_multicast = MulticastEndpoint(
        interface=endpoint.interface, group=endpoint.address, port=endpoint.port
    )
    return resolve_interface(as_multicast.interface, as_multicast.version)


def _mreqn(group: str, index: int) -> bytes:
    """``struct ip_mreqn``: the interface by its number."""
    return socket.inet_aton(group) + socket.inet_aton("0.0.0.0") + struct.pack("@i", index)


def _udp_socket(version: int) -> socket.socket:
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def _explained(endpoint: UdpEndpoint, error: BaseException) -> BaseException:
    if not isinstance(error, OSError) or isinstance(error, TransportError):
        return error
    return TransportError(error.errno, f"cannot use {endpoint}: {error.strerror}")
