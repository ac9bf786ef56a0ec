"""Sockets for plain multicast datagrams: one that joined a group, or one that sends to any group.

Owns no option of its own: they are those of ``mcast.net.multicast``, so that a tool measures what
the library would see. Invariant: as there; when opening fails, no socket stays open.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from mcast.endpoint import MulticastEndpoint
from mcast.errors import EndpointError
from mcast.net.interfaces import Interface
from mcast.net.multicast import (
    DEFAULT_TTL,
    _explained,
    _join,
    _open_group,
    _open_sender,
    _Where,
)
from mcast.net.udp import packed_sockaddr

__all__ = ["Socket", "open_receiver", "open_sender"]

Socket = socket.socket
"""The type of what is opened here, for those who may not import ``socket``."""

_MCAST_BLOCK_SOURCE: Final = 43  # <linux/in.h>


def open_receiver(
    endpoint: MulticastEndpoint,
    interface: Interface,
    *,
    more_sources: Sequence[str] = (),
    excluded: Sequence[str] = (),
    rcvbuf_bytes: int | None = None,
) -> socket.socket:
    """A non-blocking socket that takes what ``endpoint``'s group hears on ``interface``.

    ``more_sources`` are taken beside the endpoint's own source; ``excluded`` are left out, where no
    source is named. The caller closes it.

    Raises: EndpointError for sources and exclusions together, or another IP version than the
    interface's; TransportError for what the kernel refuses.
    """
    where = _where(endpoint, interface)
    if excluded and (endpoint.source is not None or more_sources):
        raise EndpointError(f"{endpoint}: sources are either named or excluded, not both")
    with _explained("cannot set a socket option", where), ExitStack() as undo:
        opened = undo.enter_context(where.udp_socket())
        _open_group(opened, where, upstream_only=False, rcvbuf_bytes=rcvbuf_bytes)
        for source in more_sources:
            other = MulticastEndpoint(
                interface=endpoint.interface,
                group=endpoint.group,
                port=endpoint.port,
                source=source,
            )
            _join(opened, _Where(other, interface))
        for source in excluded:
            names = (packed_sockaddr(endpoint.group, 0), packed_sockaddr(source, 0))
            request = struct.pack("@I0P128s128s", interface.index, *names)
            with _explained(f"cannot exclude {source}", where):
                opened.setsockopt(where.level, _MCAST_BLOCK_SOURCE, request)
        undo.pop_all()
    return opened


def open_sender(
    endpoint: MulticastEndpoint,
    interface: Interface,
    *,
    ttl: int = DEFAULT_TTL,
    loop: bool = True,
    dscp: int = 0,
    sndbuf_bytes: int | None = None,
) -> socket.socket:
    """A non-blocking socket that sends from ``interface`` to any group of its IP version.

    Options are as ``MulticastSockets.open``; nothing is joined. The caller closes it.

    Raises: EndpointError for another IP version than the interface's; TransportError for what the
    kernel refuses.
    """
    where = _where(endpoint, interface)
    with _explained("cannot set a socket option", where), ExitStack() as undo:
        opened = undo.enter_context(where.udp_socket())
        _open_sender(opened, where, ttl=ttl, loop=loop, dscp=dscp, sndbuf_bytes=sndbuf_bytes)
        undo.pop_all()
    return opened


def _where(endpoint: MulticastEndpoint, interface: Interface) -> _Where:
    if interface.version != endpoint.version:
        raise EndpointError(
            f"{endpoint} is IPv{endpoint.version} and {interface} is IPv{interface.version}"
        )
    return _Where(endpoint, interface)
