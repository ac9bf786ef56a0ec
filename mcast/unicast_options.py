"""The settings of sockets over tcp, ipc, inproc and udp, and of the socket types.

Owns their units, ranges and defaults; names are pyzmq's, times are seconds. ``mcast.options`` puts
them together with those of multicast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mcast.errors import OptionError

__all__ = ["KINDS", "NOT_MULTICAST", "SECURITY_OPTIONS", "UnicastOptions"]

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class UnicastOptions:
    """Options of one socket beside those of multicast. Defaults are libzmq's unless said."""

    # Who may talk.
    plain_server: bool = False
    """Ask clients for a name and a password, which ``authenticate`` judges; readable on the wire.

    Needs ``Socket.authenticate`` before ``bind``.
    """
    plain_username: str = ""
    """Name told to a PLAIN server, up to 255 bytes in UTF-8; with ``plain_password``."""
    plain_password: str = ""
    """Password told to a PLAIN server, up to 255 bytes in UTF-8."""
    curve_server: bool = False
    """Encrypt, as the side whose key is known: needs ``curve_secretkey``."""
    curve_secretkey: str | bytes = ""
    """This side's secret key: 32 bytes, or 40 characters of Z85; ``mcast keygen`` makes one."""
    curve_publickey: str | bytes = ""
    """This side's public key; may be left out, and must fit the secret one if given."""
    curve_serverkey: str | bytes = ""
    """A client's knowledge of its server: the public key. Makes this socket a CURVE client."""
    zap_domain: str = ""
    """What ``authenticate`` is told as domain; ``global`` if this is empty."""

    # Connections.
    handshake_ivl: float = 5.0
    """Longest handshake in seconds, 0.001 to 86400. libzmq: 30."""
    heartbeat_ivl: float = 0.0
    """PING this often, in seconds, 0 (never) to 86400."""
    heartbeat_timeout: float | None = None
    """Close when nothing came for so long after a PING, 0 (never) to 86400. None: as the PING."""
    heartbeat_ttl: float = 0.0
    """Time to live told to the peer by PINGs, 0 (none) to 65.5 s, in tenths."""
    reconnect_ivl: float | None = 0.1
    """Wait before a connection is tried again, plus up to as much by the dice. None: never."""
    reconnect_ivl_max: float = 0.0
    """Double the wait up to so many seconds, 0 (do not) to 3600."""
    connect_timeout: float = 0.0
    """Longest wait for a connection in seconds, 0 (the system's own) to 3600."""
    immediate: bool = False
    """Queue only for connections that stand, not for those to come."""
    backlog: int = 100
    """Connections that may wait to be accepted, 1 to 65535."""
    max_connections: int = 4096
    """Most connections accepted at once by one ``bind``, 1 to 1e6. libzmq: no limit."""
    ipv6: bool = False
    """Names resolve to IPv6, too, and ``tcp://*`` takes both."""
    tcp_rcvbuf: int = 0
    """SO_RCVBUF of connections in bytes; 0 lets the system adapt it, which is faster."""
    tcp_keepalive: int = -1
    """Probes on idle connections: 1 on, 0 off, -1 as the system has it."""
    tcp_keepalive_idle: int = -1
    """Seconds before the first probe; -1 as the system has it."""
    tcp_keepalive_cnt: int = -1
    """Probes before the peer counts as gone; -1 as the system has it."""
    tcp_keepalive_intvl: int = -1
    """Seconds between probes; -1 as the system has it."""
    tcp_maxrt: float = 0.0
    """Longest wait for a sent byte to be acknowledged, in seconds; 0 as the system has it."""

    # Socket types.
    conflate: bool = False
    """Keep the newest message only (PUB, SUB, PUSH, PULL, DEALER)."""
    routing_id: bytes = b""
    """Identity told to peers, up to 255 bytes, the first not zero (REQ, DEALER, ROUTER)."""
    connect_routing_id: bytes = b""
    """This ROUTER's name for the peer of the next ``connect``, which uses it up."""
    probe_router: bool = False
    """Send each new connection an empty message first (REQ, DEALER, ROUTER)."""
    req_relaxed: bool = False
    """A REQ may send again before the reply came."""
    req_correlate: bool = False
    """A REQ numbers its requests, and takes no reply to another."""
    router_mandatory: bool = False
    """A ROUTER raises for a message to nobody it knows, instead of dropping it."""
    router_handover: bool = False
    """A newcomer to a ROUTER takes over the routing id of another peer."""
    router_notify: int = 0
    """A ROUTER receives ``[id, b""]`` when a peer comes (1), goes (2), or both (3)."""
    xpub_verbose: bool = False
    """An XPUB receives every subscription, not only the first to each topic."""
    xpub_verboser: bool = False
    """The same, and every cancellation."""
    xpub_manual: bool = False
    """An XPUB subscribes its peers itself, with ``subscribe`` and ``unsubscribe``."""
    xpub_manual_last_value: bool = False
    """The same, and the next message goes only to whom the last subscription came from."""
    xpub_nodrop: bool = False
    """``send`` waits for a subscriber whose queue is full, instead of dropping (PUB, XPUB, RADIO).

    Not with ``epgm://``."""
    xpub_welcome_msg: bytes = b""
    """Sent first to each new subscriber of an XPUB; empty: none."""
    only_first_subscribe: bool = False
    """Look for subscriptions in the first part of a message only (XPUB, XSUB)."""
    xsub_verbose_unsubscribe: bool = False
    """An XSUB passes on every cancellation, not only the last of each topic."""
    invert_matching: bool = False
    """Send to, and take, what was not subscribed to (PUB, XPUB, SUB)."""
    max_topic_bytes: int = 1024
    """Longest topic that a peer may subscribe to, 1 to 1 MiB. libzmq: no limit."""
    max_subscription_count: int = 10_000
    """Most topics or groups of one peer, 1 to 1e7. libzmq: no limit."""
    max_subscription_bytes: int = 4 * _MIB
    """Most bytes of them together, 1 to 1 GiB. libzmq: no limit."""

    def check_unicast(self) -> None:
        """Raise OptionError for a wrong type or a value out of range."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            kinds = (int, float) if name in _SECONDS else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds):
                wanted = "a number" if name in _SECONDS else "a whole number"
                raise OptionError(f"{name} is {wanted}, not {value!r}")
            if not low <= value <= high:
                raise OptionError(f"{name} is {low:g} to {high:g}, not {value!r}")
        for name in _BOOLS:
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"{name} is True or False, not {getattr(self, name)!r}")
        for name in _BYTES:
            if not isinstance(getattr(self, name), bytes):
                raise OptionError(f"{name} is bytes, not {type(getattr(self, name)).__name__}")
        for name in ("plain_username", "plain_password", "zap_domain"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value.encode()) > 255:
                raise OptionError(f"{name} is text of up to 255 bytes")
        for name in ("curve_secretkey", "curve_publickey", "curve_serverkey"):
            value = getattr(self, name)
            if not isinstance(value, str | bytes) or len(value) not in (0, 32, 40):
                raise OptionError(f"{name} is 32 bytes, or text of 40 characters in Z85")
        if self.plain_server and self.plain_username:
            raise OptionError("plain_server and plain_username: a socket is one or the other")
        if self.curve_server and self.curve_serverkey:
            raise OptionError("curve_server and curve_serverkey: a socket is one or the other")
        if (self.curve_server or self.curve_serverkey) and (
            self.plain_server or self.plain_username
        ):
            raise OptionError("PLAIN and CURVE: a socket has one mechanism")


_SECONDS: Final = frozenset(
    {
        "handshake_ivl",
        "heartbeat_ivl",
        "heartbeat_timeout",
        "heartbeat_ttl",
        "reconnect_ivl",
        "reconnect_ivl_max",
        "connect_timeout",
        "tcp_maxrt",
    }
)
_OPTIONAL: Final = frozenset({"heartbeat_timeout", "reconnect_ivl"})
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "handshake_ivl": (0.001, 86_400),
    "heartbeat_ivl": (0, 86_400),
    "heartbeat_timeout": (0, 86_400),
    "heartbeat_ttl": (0, 65.5),
    "reconnect_ivl": (0.001, 3600),
    "reconnect_ivl_max": (0, 3600),
    "connect_timeout": (0, 3600),
    "backlog": (1, 65_535),
    "max_connections": (1, 10**6),
    "tcp_rcvbuf": (0, 1 << 30),
    "tcp_keepalive": (-1, 1),
    "tcp_keepalive_idle": (-1, 32_767),
    "tcp_keepalive_cnt": (-1, 127),
    "tcp_keepalive_intvl": (-1, 32_767),
    "tcp_maxrt": (0, 3600),
    "router_notify": (0, 3),
    "max_topic_bytes": (1, _MIB),
    "max_subscription_count": (1, 10**7),
    "max_subscription_bytes": (1, 1 << 30),
}
_BOOLS: Final = (
    "plain_server",
    "curve_server",
    "immediate",
    "ipv6",
    "conflate",
    "probe_router",
    "req_relaxed",
    "req_correlate",
    "router_mandatory",
    "router_handover",
    "xpub_verbose",
    "xpub_verboser",
    "xpub_manual",
    "xpub_manual_last_value",
    "xpub_nodrop",
    "only_first_subscribe",
    "xsub_verbose_unsubscribe",
    "invert_matching",
)
_BYTES: Final = ("routing_id", "connect_routing_id", "xpub_welcome_msg")

SECURITY_OPTIONS: Final = (
    "plain_server",
    "plain_username",
    "plain_password",
    "curve_server",
    "curve_secretkey",
    "curve_publickey",
    "curve_serverkey",
    "zap_domain",
)
"""Options that a transport without a handshake must refuse: it would send in the clear."""

NOT_MULTICAST: Final = (*SECURITY_OPTIONS, "conflate", "xpub_nodrop", "invert_matching")
"""Options that ``epgm://`` cannot honour."""

_NAMED: Final = frozenset({"REQ", "DEALER", "ROUTER"})
KINDS: Final[dict[str, frozenset[str]]] = {
    "conflate": frozenset({"PUB", "SUB", "PUSH", "PULL", "DEALER"}),
    "routing_id": _NAMED,
    "probe_router": _NAMED,
    "connect_routing_id": frozenset({"ROUTER"}),
    "router_mandatory": frozenset({"ROUTER"}),
    "router_handover": frozenset({"ROUTER"}),
    "router_notify": frozenset({"ROUTER"}),
    "req_relaxed": frozenset({"REQ"}),
    "req_correlate": frozenset({"REQ"}),
    "xpub_verbose": frozenset({"XPUB"}),
    "xpub_verboser": frozenset({"XPUB"}),
    "xpub_manual": frozenset({"XPUB"}),
    "xpub_manual_last_value": frozenset({"XPUB"}),
    "xpub_welcome_msg": frozenset({"XPUB"}),
    "xpub_nodrop": frozenset({"PUB", "XPUB", "RADIO"}),
    "only_first_subscribe": frozenset({"XPUB", "XSUB"}),
    "xsub_verbose_unsubscribe": frozenset({"XSUB"}),
    "invert_matching": frozenset({"PUB", "XPUB", "SUB"}),
}
"""Options that only these socket types have."""
