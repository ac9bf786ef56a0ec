"""The socket types, which of them talk to each other, and what a socket is told about a peer.

Owns the table of legal pairs (RFC 37 "Socket-Type"; libzmq has the same); nothing here changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "COMPATIBLE",
    "ROUTING_ID_BYTES",
    "PeerInfo",
    "SocketKind",
    "is_compatible",
    "is_routing_id",
]

ROUTING_ID_BYTES: Final = 255
"""Longest routing id: its length is one octet in libzmq (RFC 37 "Identity")."""


class SocketKind(StrEnum):
    """What a socket is for; the values are those of the Socket-Type property on the wire."""

    PAIR = "PAIR"
    PUB = "PUB"
    SUB = "SUB"
    REQ = "REQ"
    REP = "REP"
    DEALER = "DEALER"
    ROUTER = "ROUTER"
    PULL = "PULL"
    PUSH = "PUSH"
    XPUB = "XPUB"
    XSUB = "XSUB"
    RADIO = "RADIO"
    DISH = "DISH"


_LINES: Final = (
    "PAIR: PAIR",
    "PUB: SUB XSUB",
    "XPUB: SUB XSUB",
    "SUB: PUB XPUB",
    "XSUB: PUB XPUB",
    "REQ: REP ROUTER",
    "REP: REQ DEALER",
    "DEALER: REP DEALER ROUTER",
    "ROUTER: REQ DEALER ROUTER",
    "PUSH: PULL",
    "PULL: PUSH",
    "RADIO: DISH",
    "DISH: RADIO",
)

COMPATIBLE: Final[dict[SocketKind, frozenset[str]]] = {
    SocketKind(ours): frozenset(theirs.split())
    for ours, _, theirs in (line.partition(":") for line in _LINES)
}
"""For each of our types the types that a peer may have; symmetric."""


def is_compatible(ours: SocketKind, theirs: str) -> bool:
    """True if a socket of type ``ours`` may talk to one that calls itself ``theirs``."""
    return theirs in COMPATIBLE[ours]


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What the handshake told about the peer, or would tell it about us."""

    socket_type: str = ""
    """Its Socket-Type; empty if it did not say, which libzmq accepts, too."""
    routing_id: bytes = b""
    """Its Identity; empty if it has none. Hostile: only a ROUTER looks at it, and checks it."""
    is_datagram: bool = False
    """It is a UDP destination: a RADIO sends it every group, each message as one datagram."""


def is_routing_id(routing_id: bytes) -> bool:
    """True if a peer may have this name: 1 to 255 bytes, the first not zero (RFC 37)."""
    return 0 < len(routing_id) <= ROUTING_ID_BYTES and routing_id[0] != 0
