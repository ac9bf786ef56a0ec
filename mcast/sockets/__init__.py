"""The sockets, one class for each type; names are pyzmq's where it has one.

``base`` has what all share; ``pub`` and ``sub`` also speak reliable multicast; ``patterns`` has the
others; ``buffers`` what may be sent.
"""

from __future__ import annotations

from mcast.sockets.base import (
    DEALER,
    DISH,
    DONTWAIT,
    NOBLOCK,
    PAIR,
    POLLIN,
    POLLOUT,
    PUB,
    PULL,
    PUSH,
    RADIO,
    REP,
    REQ,
    ROUTER,
    SNDMORE,
    SUB,
    XPUB,
    XSUB,
    Socket,
    SocketType,
)
from mcast.sockets.buffers import BytesLike
from mcast.sockets.patterns import (
    Dealer,
    Dish,
    Pair,
    Pull,
    Push,
    Radio,
    Rep,
    Req,
    Router,
    Xpub,
    Xsub,
)
from mcast.sockets.pub import Pub
from mcast.sockets.sub import Sub

__all__ = [
    "DEALER",
    "DISH",
    "DONTWAIT",
    "NOBLOCK",
    "PAIR",
    "POLLIN",
    "POLLOUT",
    "PUB",
    "PULL",
    "PUSH",
    "RADIO",
    "REP",
    "REQ",
    "ROUTER",
    "SNDMORE",
    "SUB",
    "XPUB",
    "XSUB",
    "BytesLike",
    "Dealer",
    "Dish",
    "Pair",
    "Pub",
    "Pull",
    "Push",
    "Radio",
    "Rep",
    "Req",
    "Router",
    "Socket",
    "SocketType",
    "Sub",
    "Xpub",
    "Xsub",
]
