"""The options as attributes of a socket: ``sub.on_loss = "raise"`` is ``sub.set(...)``.

Each option is declared, so that type checkers know its type. Invariant: what is no option cannot
be set, so that a misspelt name is an error and not silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from mcast.options import OPTION_NAMES, OptionValue, SocketOptions

__all__ = ["OptionAttributes"]

_Value = TypeVar("_Value", bool, int, float, str, bytes, str | bytes, int | None, float | None)


class _Option(Generic[_Value]):
    """One of them."""

    def __set_name__(self, owner: type[OptionAttributes], name: str) -> None:
        self._name = name

    def __get__(self, socket: OptionAttributes, owner: type[OptionAttributes]) -> _Value:
        return cast(_Value, getattr(socket._held_options(), self._name))

    def __set__(self, socket: OptionAttributes, value: _Value) -> None:
        socket.set(self._name, value)


class OptionAttributes:
    """Every option by its name, to read and to set; any other public name cannot be set."""

    rate = _Option[float]()
    min_rate = _Option[float | None]()
    repair_share = _Option[float]()
    recovery_ivl = _Option[float]()
    txw_bytes = _Option[int]()
    rxw_bytes = _Option[int]()
    multicast_hops = _Option[int]()
    multicast_loop = _Option[bool]()
    multicast_maxtpdu = _Option["int | None"]()
    dscp = _Option[int]()
    sndhwm = _Option[int]()
    rcvhwm = _Option[int]()
    sndbuf = _Option[int]()
    rcvbuf = _Option[int]()
    max_msg_size = _Option[int]()
    max_parts = _Option[int]()
    linger = _Option[float]()
    coalesce = _Option[float]()
    profile = _Option[str]()
    repair_deadline = _Option["float | None"]()
    peer_expiry = _Option["float | None"]()
    max_peers = _Option[int]()
    on_loss = _Option[str]()
    initial_sqn = _Option[int]()
    drop_rate = _Option[float]()
    drop_seed = _Option[int]()
    plain_server = _Option[bool]()
    plain_username = _Option[str]()
    plain_password = _Option[str]()
    curve_server = _Option[bool]()
    curve_secretkey = _Option["str | bytes"]()
    curve_publickey = _Option["str | bytes"]()
    curve_serverkey = _Option["str | bytes"]()
    zap_domain = _Option[str]()
    handshake_ivl = _Option[float]()
    heartbeat_ivl = _Option[float]()
    heartbeat_timeout = _Option["float | None"]()
    heartbeat_ttl = _Option[float]()
    reconnect_ivl = _Option["float | None"]()
    reconnect_ivl_max = _Option[float]()
    connect_timeout = _Option[float]()
    immediate = _Option[bool]()
    backlog = _Option[int]()
    max_connections = _Option[int]()
    ipv6 = _Option[bool]()
    tcp_rcvbuf = _Option[int]()
    tcp_keepalive = _Option[int]()
    tcp_keepalive_idle = _Option[int]()
    tcp_keepalive_cnt = _Option[int]()
    tcp_keepalive_intvl = _Option[int]()
    tcp_maxrt = _Option[float]()
    conflate = _Option[bool]()
    routing_id = _Option[bytes]()
    connect_routing_id = _Option[bytes]()
    probe_router = _Option[bool]()
    req_relaxed = _Option[bool]()
    req_correlate = _Option[bool]()
    router_mandatory = _Option[bool]()
    router_handover = _Option[bool]()
    router_notify = _Option[int]()
    xpub_verbose = _Option[bool]()
    xpub_verboser = _Option[bool]()
    xpub_manual = _Option[bool]()
    xpub_manual_last_value = _Option[bool]()
    xpub_nodrop = _Option[bool]()
    xpub_welcome_msg = _Option[bytes]()
    only_first_subscribe = _Option[bool]()
    xsub_verbose_unsubscribe = _Option[bool]()
    invert_matching = _Option[bool]()
    max_topic_bytes = _Option[int]()
    max_subscription_count = _Option[int]()
    max_subscription_bytes = _Option[int]()

    def _held_options(self) -> SocketOptions:
        raise NotImplementedError

    def set(self, name: str, value: OptionValue) -> None:
        """Change an option."""
        raise NotImplementedError

    if not TYPE_CHECKING:  # a type checker would take it for leave to set anything

        def __setattr__(self, name: str, value: object) -> None:
            if not name.startswith("_") and name not in OPTION_NAMES:
                known = ", ".join(sorted(OPTION_NAMES))
                raise AttributeError(f"{name!r} is no option of a socket; known are {known}")
            super().__setattr__(name, value)
