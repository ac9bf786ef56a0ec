"""Brokerless messaging in which one packet reaches everyone: reliable multicast PUB/SUB, and every
ZeroMQ pattern over TCP.

    with mcast.Context() as ctx:
        pub = ctx.socket(mcast.PUB)
        pub.connect("epgm://lo;239.192.1.1:5555")
        pub.send(b"hello")

``Context`` makes sockets; ``Pub`` and ``Sub`` are what it makes; ``mcast.asyncio`` has the same
names awaitable. Losses and peers are ``Event`` classes; whatever goes wrong is an ``Error``.
"""

from __future__ import annotations

from mcast.auth import Allowed, Authenticator, AuthRequest, Denied, allow
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
    UnroutableError,
)
from mcast.events import (
    Event,
    LossReason,
    Lost,
    PeerHeard,
    PeerJoined,
    PeerLeft,
    PeerQuiet,
    PeerRestarted,
    RepairsLimited,
)
from mcast.monitor import MonitorEvent, MonitorKind
from mcast.net.multicast import BufferWarning
from mcast.options import PROFILES, SocketOptions, Timers
from mcast.poller import Poller
from mcast.proxy import Proxy, proxy, proxy_steerable
from mcast.runtime.keys import curve_keypair, curve_public
from mcast.sockets import (
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
    Dealer,
    Dish,
    Pair,
    Pub,
    Pull,
    Push,
    Radio,
    Rep,
    Req,
    Router,
    Socket,
    SocketType,
    Sub,
    Xpub,
    Xsub,
)

__all__ = [
    "DEALER",
    "DISH",
    "DONTWAIT",
    "NOBLOCK",
    "PAIR",
    "POLLIN",
    "POLLOUT",
    "PROFILES",
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
    "Again",
    "Allowed",
    "AuthRequest",
    "Authenticator",
    "BufferWarning",
    "ClosedError",
    "Context",
    "Dealer",
    "Denied",
    "Dish",
    "EndpointError",
    "Error",
    "Event",
    "ForkedError",
    "InterfaceError",
    "LossError",
    "LossReason",
    "Lost",
    "MessageTooLongError",
    "MonitorEvent",
    "MonitorKind",
    "OptionError",
    "Pair",
    "PatternError",
    "PeerHeard",
    "PeerJoined",
    "PeerLeft",
    "PeerQuiet",
    "PeerRestarted",
    "Poller",
    "Proxy",
    "Pub",
    "Pull",
    "Push",
    "Radio",
    "Rep",
    "RepairsLimited",
    "Req",
    "Router",
    "Socket",
    "SocketOptions",
    "SocketType",
    "Sub",
    "Timers",
    "TransportError",
    "UnroutableError",
    "Xpub",
    "Xsub",
    "__version__",
    "allow",
    "curve_keypair",
    "curve_public",
    "proxy",
    "proxy_steerable",
]

__version__ = "0.1.0"
