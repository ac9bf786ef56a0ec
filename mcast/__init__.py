"""Brokerless messaging in which one packet reaches everyone: reliable multicast PUB/SUB.

    with mcast.Context() as ctx:
        pub = ctx.socket(mcast.PUB)
        pub.connect("epgm://lo;239.192.1.1:5555")
        pub.send(b"hello")

``Context`` makes sockets; ``Pub`` and ``Sub`` are what it makes; ``mcast.asyncio`` has the same
names awaitable. Losses and peers are ``Event`` classes; whatever goes wrong is an ``Error``.
"""

from __future__ import annotations

from mcast.context import Context
from mcast.errors import (
    Again,
    ClosedError,
    EndpointError,
    Error,
    ForkedError,
    InterfaceError,
    LossError,
    MessageTooLongError,
    OptionError,
    PatternError,
    TransportError,
)
from mcast.events import Event, LossReason, Lost, PeerJoined, PeerLeft, PeerRestarted
from mcast.net.multicast import BufferWarning
from mcast.options import PROFILES, SocketOptions, Timers
from mcast.poller import Poller
from mcast.sockets import (
    DONTWAIT,
    NOBLOCK,
    POLLIN,
    POLLOUT,
    PUB,
    SNDMORE,
    SUB,
    Pub,
    Socket,
    SocketType,
    Sub,
)

__all__ = [
    "DONTWAIT",
    "NOBLOCK",
    "POLLIN",
    "POLLOUT",
    "PROFILES",
    "PUB",
    "SNDMORE",
    "SUB",
    "Again",
    "BufferWarning",
    "ClosedError",
    "Context",
    "EndpointError",
    "Error",
    "Event",
    "ForkedError",
    "InterfaceError",
    "LossError",
    "LossReason",
    "Lost",
    "MessageTooLongError",
    "OptionError",
    "PatternError",
    "PeerJoined",
    "PeerLeft",
    "PeerRestarted",
    "Poller",
    "Pub",
    "Socket",
    "SocketOptions",
    "SocketType",
    "Sub",
    "Timers",
    "TransportError",
    "__version__",
]

__version__ = "0.1.0"
