"""The sockets: PUB publishes to groups, SUB hears them; names are pyzmq's where it has one.

``base`` has what all kinds share, ``pub`` and ``sub`` one kind each, ``buffers`` what may be sent.
"""

from __future__ import annotations

from mcast.sockets.base import (
    DONTWAIT,
    NOBLOCK,
    POLLIN,
    POLLOUT,
    PUB,
    SNDMORE,
    SUB,
    Socket,
    SocketType,
)
from mcast.sockets.buffers import BytesLike
from mcast.sockets.pub import Pub
from mcast.sockets.sub import Sub

__all__ = [
    "DONTWAIT",
    "NOBLOCK",
    "POLLIN",
    "POLLOUT",
    "PUB",
    "SNDMORE",
    "SUB",
    "BytesLike",
    "Pub",
    "Socket",
    "SocketType",
    "Sub",
]
