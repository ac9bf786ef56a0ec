"""What the ends of a connection tell about themselves: properties (RFC 37 "Metadata").

Owns their layout, what READY and INITIATE have to say for a socket type, and which types go
together. Names compare without regard to case, as the RFC wants; libzmq compares exactly, so ours
are written as libzmq writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from mcast.zmtp.failure import FailureReason, ZmtpError, printable

__all__ = [
    "COMPATIBLE",
    "IDENTITY_BYTES",
    "Peer",
    "build_properties",
    "is_property_name",
    "own_properties",
    "read_peer_untrusted",
]

COMPATIBLE: Final[dict[str, frozenset[str]]] = {
    "PAIR": frozenset({"PAIR"}),
    "PUB": frozenset({"SUB", "XSUB"}),
    "XPUB": frozenset({"SUB", "XSUB"}),
    "SUB": frozenset({"PUB", "XPUB"}),
    "XSUB": frozenset({"PUB", "XPUB"}),
    "REQ": frozenset({"REP", "ROUTER"}),
    "REP": frozenset({"REQ", "DEALER"}),
    "DEALER": frozenset({"REP", "DEALER", "ROUTER"}),
    "ROUTER": frozenset({"REQ", "DEALER", "ROUTER"}),
    "PUSH": frozenset({"PULL"}),
    "PULL": frozenset({"PUSH"}),
    "RADIO": frozenset({"DISH"}),
    "DISH": frozenset({"RADIO"}),
}
"""Which socket types may face which (RFC 37 "The Socket-Type Property", RFC 48)."""

IDENTITY_BYTES: Final = 255
"""Longest identity (RFC 37 "The Identity Property")."""

_TELL_IDENTITY: Final = frozenset({"REQ", "DEALER", "ROUTER"})  # always, even if empty, as libzmq
_NAME: Final = re.compile(rb"[A-Za-z0-9\-_.+]{1,255}")
_VALUE_SIZE: Final = Struct("!I")


class Peer(NamedTuple):
    """What a peer told about itself."""

    socket_type: str
    """Empty if it did not say: RFC 37 has that as a SHOULD only."""
    identity: bytes
    """At most 255 bytes, the first not zero; often empty."""
    properties: dict[str, bytes]
    """All properties by name as the peer spelt it; of equal names the first."""


def is_property_name(name: str) -> bool:
    """True for 1 to 255 of RFC 37's characters for names: letters, digits, ``-_.+``."""
    return name.isascii() and _NAME.fullmatch(name.encode()) is not None


def build_properties(properties: Iterable[tuple[str, bytes]]) -> bytes:
    """Names and values as READY and INITIATE carry them."""
    return b"".join(
        bytes((len(name),)) + name.encode() + _VALUE_SIZE.pack(len(value)) + value
        for name, value in properties
    )


def own_properties(
    socket_type: str, identity: bytes, metadata: Iterable[tuple[str, bytes]]
) -> bytes:
    """What a socket says of itself, in libzmq's order: type, identity if it matters, the rest."""
    properties = [("Socket-Type", socket_type.encode())]
    if socket_type in _TELL_IDENTITY:
        properties.append(("Identity", identity))
    return build_properties([*properties, *sorted(metadata)])


def read_peer_untrusted(data: bytes, our_type: str) -> Peer:
    """What the peer told, checked against ``our_type``.

    Raises ``ZmtpError``: properties that do not parse, an identity that is too long or starts with
    the zero octet that RFC 37 reserves, a socket type that does not go with ours.
    """
    properties = _read_properties_untrusted(data)
    folded: dict[str, bytes] = {}
    for name, value in properties.items():
        folded.setdefault(name.lower(), value)
    identity = folded.get("identity", b"")
    if len(identity) > IDENTITY_BYTES or identity[:1] == b"\0":
        raise ZmtpError(
            FailureReason.METADATA,
            f"the peer's identity is {len(identity)} bytes and begins {printable(identity[:8])}; "
            f"up to {IDENTITY_BYTES} bytes that do not begin with zero are allowed",
        )
    their_type = folded.get("socket-type")
    if their_type is None:
        return Peer("", identity, properties)
    allowed = COMPATIBLE[our_type]
    if their_type not in {name.encode() for name in allowed}:
        raise ZmtpError(
            FailureReason.SOCKET_TYPE,
            f"socket type {printable(their_type)} does not go with {our_type}, "
            f"which takes {', '.join(sorted(allowed))}",
        )
    return Peer(their_type.decode(), identity, properties)


def _read_properties_untrusted(data: bytes) -> dict[str, bytes]:
    properties: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        value_size_at = position + 1 + data[position]
        name = data[position + 1 : value_size_at]
        value_at = value_size_at + _VALUE_SIZE.size
        if not _NAME.fullmatch(name) or value_at > len(data):
            raise ZmtpError(
                FailureReason.METADATA, f"a property has no name or value: {printable(name)}"
            )
        position = value_at + _VALUE_SIZE.unpack_from(data, value_size_at)[0]
        if position > len(data):
            raise ZmtpError(
                FailureReason.METADATA, f"the value of {printable(name)} is longer than its frame"
            )
        properties.setdefault(name.decode(), data[value_at:position])
    return properties
