"""Sockets that say when each datagram reached this host, and from whom: for recording.

Owns the socket options for that and the reading of what they bring. Invariant: one datagram is one
result; nothing is coalesced (GRO is off), so that every datagram has a time of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from struct import Struct
from typing import Final, NamedTuple

from mcast.endpoint import MulticastEndpoint
from mcast.net.interfaces import Interface
from mcast.net.raw import open_receiver

__all__ = ["Stamped", "open_stamped", "read_stamped"]

_SO_TIMESTAMPNS: Final = 35  # <asm-generic/socket.h>
_SO_RXQ_OVFL: Final = 40
_IP_RECVTTL: Final = 12  # <linux/in.h>
_SOL_UDP: Final = 17
_UDP_GRO: Final = 104
_TIMESPEC: Final = Struct("@qq")
_INT: Final = Struct("@i")
_UINT: Final = Struct("@I")
_CONTROL_BYTES: Final = 256
_DATAGRAM_BYTES: Final = 65_535


class Stamped(NamedTuple):
    """One datagram."""

    time_ns: int
    """When the kernel got it, since 1970; 0 if it did not say."""
    source: str
    source_port: int
    hops: int
    """Time to live, or hop limit, that was left."""
    data: bytes
    dropped_count: int | None
    """What this socket's buffer had no room for so far, if the kernel said."""


def open_stamped(
    endpoint: MulticastEndpoint,
    interface: Interface,
    *,
    more_sources: Sequence[str] = (),
    excluded: Sequence[str] = (),
    rcvbuf_bytes: int | None = None,
) -> socket.socket:
    """As ``mcast.net.raw.open_receiver``, for ``read_stamped``. The caller closes it."""
    with ExitStack() as undo:
        opened = undo.enter_context(
            open_receiver(
                endpoint,
                interface,
                more_sources=more_sources,
                excluded=excluded,
                rcvbuf_bytes=rcvbuf_bytes,
            )
        )
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        try:
            opened.setsockopt(_SOL_UDP, _UDP_GRO, 0)
        except OSError:
            pass  # a kernel before 5.0 has none to turn off
        if endpoint.version == 6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        undo.pop_all()
    return opened


def read_stamped(opened: socket.socket) -> Stamped | None:
    """The next datagram, or None when there is none now. Never blocks."""
    try:
        data, control, _, name = opened.recvmsg(_DATAGRAM_BYTES, _CONTROL_BYTES)
    except BlockingIOError:
        return None
    time_ns, hops, dropped = 0, 0, None
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, rest = _TIMESPEC.unpack_from(value)
            time_ns = seconds * 1_000_000_000 + rest
        elif level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
            (dropped,) = _UINT.unpack_from(value)
        elif (level, kind) in (
            (socket.IPPROTO_IP, socket.IP_TTL),
            (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT),
        ):
            (hops,) = _INT.unpack_from(value)
    return Stamped(time_ns, name[0].partition("%")[0], name[1], hops, data, dropped)
