"""Sends plain datagrams to groups, many with one system call where their sizes are equal."""

from __future__ import annotations

import select
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from mcast.endpoint import MulticastEndpoint
from mcast.kernel import UdpWriter
from mcast.net.interfaces import Interface, resolve_interface
from mcast.net.multicast import DEFAULT_TTL
from mcast.net.raw import open_sender
from mcast.net.udp import packed_sockaddr

__all__ = ["Sender"]

_IP_UDP_BYTES: Final = {4: 28, 6: 48}


class Sender:
    """One socket that sends to several groups of one interface. One thread; use it in a ``with``.

    ``ttl``, ``loop`` and ``dscp`` are as in ``mcast.SocketOptions``; the default of ``dscp`` is 0.

    Raises: EndpointError, InterfaceError, OptionError, TransportError.
    """

    def __init__(
        self,
        endpoints: Sequence[MulticastEndpoint],
        *,
        ttl: int = DEFAULT_TTL,
        loop: bool = True,
        dscp: int = 0,
        sndbuf_bytes: int | None = None,
    ) -> None:
        first = endpoints[0]
        self.interface: Interface = resolve_interface(first.interface, first.version)
        """Where the datagrams leave."""
        self.overhead_bytes = _IP_UDP_BYTES[first.version]
        """What IP and UDP add to each datagram."""
        self._socket = open_sender(
            first, self.interface, ttl=ttl, loop=loop, dscp=dscp, sndbuf_bytes=sndbuf_bytes
        )
        self._names = [
            packed_sockaddr(endpoint.group, endpoint.port, self.interface.index)
            for endpoint in endpoints
        ]
        self._writer = UdpWriter()

    def send(self, place: int, data: memoryview, segment_bytes: int) -> int:
        """Send datagrams of ``segment_bytes`` to the group at ``place``; the bytes taken.

        Never blocks: less than all is taken when the kernel has no room (``wait``).

        Raises: OSError: EMSGSIZE for a datagram above the MTU, EPERM for a firewall's refusal;
        ValueError for no bytes.
        """
        return self._writer.send(self._socket.fileno(), self._names[place], data, segment_bytes)

    def wait(self, timeout_s: float) -> None:
        """Block until the kernel has room, or ``timeout_s`` seconds."""
        select.select((), (self._socket,), (), timeout_s)

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
