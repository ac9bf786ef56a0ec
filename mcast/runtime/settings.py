"""From the options of a socket to those of its pattern and of its connections.

Owns the mapping: seconds become nanoseconds, and the security options one mechanism.
"""

from __future__ import annotations

from dataclasses import fields

from mcast.errors import OptionError
from mcast.options import SocketOptions
from mcast.patterns import SocketKind, options_type
from mcast.patterns.options import QueueOptions
from mcast.z85 import curve_key
from mcast.zmtp import (
    CurveClient,
    CurveServer,
    Null,
    PlainClient,
    PlainServer,
    Security,
    ZmtpOptions,
)

__all__ = ["pattern_options", "security_of", "zmtp_options"]

_IDENTIFIED = frozenset({SocketKind.REQ, SocketKind.DEALER, SocketKind.ROUTER})


def pattern_options(kind: SocketKind, options: SocketOptions) -> QueueOptions:
    """What the pattern of this kind takes of the socket's options. Raises OptionError."""
    made = options_type(kind)
    return made(**{item.name: getattr(options, item.name) for item in fields(made)})


def zmtp_options(
    kind: SocketKind, options: SocketOptions, *, is_judged: bool = False
) -> ZmtpOptions:
    """What a connection of this socket is told; ``is_judged`` if there is an authenticator.

    Raises OptionError.
    """
    timeout_s = options.heartbeat_timeout
    return ZmtpOptions(
        socket_type=str(kind),
        security=security_of(options),
        identity=options.routing_id if kind in _IDENTIFIED else b"",
        # Without a domain NULL would not ask, and a list of addresses be of no use.
        zap_domain=options.zap_domain or ("global" if is_judged else ""),
        max_message_bytes=options.max_msg_size,
        max_part_count=options.max_parts,
        max_topic_bytes=options.max_topic_bytes,
        max_subscription_count=options.max_subscription_count,
        max_subscription_bytes=options.max_subscription_bytes,
        handshake_ivl_ns=_ns(options.handshake_ivl),
        heartbeat_ivl_ns=_ns(options.heartbeat_ivl),
        heartbeat_timeout_ns=None if timeout_s is None else _ns(timeout_s),
        heartbeat_ttl_ns=_ns(options.heartbeat_ttl),
    )


def security_of(options: SocketOptions) -> Security:
    """The mechanism that the options ask for. Raises OptionError for half of one."""
    if options.plain_server:
        return PlainServer()
    if options.plain_username:
        return PlainClient(options.plain_username, options.plain_password)
    if options.curve_server:
        if not options.curve_secretkey:
            raise OptionError("curve_server needs curve_secretkey; `mcast keygen` makes a pair")
        server = CurveServer(_key(options.curve_secretkey))
        _check_public_key(options, server.public_key)
        return server
    if options.curve_serverkey:
        if not options.curve_secretkey:
            raise OptionError("curve_serverkey needs curve_secretkey; `mcast keygen` makes a pair")
        client = CurveClient(_key(options.curve_serverkey), _key(options.curve_secretkey))
        _check_public_key(options, client.public_key)
        return client
    return Null()


def _check_public_key(options: SocketOptions, public_key: bytes) -> None:
    if options.curve_publickey and curve_key(_key(options.curve_publickey)) != public_key:
        raise OptionError("curve_publickey is not that of curve_secretkey")


def _key(key: str | bytes) -> str | bytes:
    """As it is; pyzmq's keys are Z85 in bytes."""
    return key.decode("ascii", "replace") if isinstance(key, bytes) and len(key) == 40 else key


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
