"""What an engine tells its shell about one connection, in the order of its stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from mcast.kernel import Message
from mcast.zmtp.failure import FailureReason

__all__ = [
    "AuthNeeded",
    "AuthStatus",
    "Cancelled",
    "Failed",
    "Messages",
    "Ready",
    "Subscribed",
    "ZmtpEvent",
]


class AuthStatus(IntEnum):
    """What an authenticator may say, by the numbers of RFC 27 (ZAP)."""

    ALLOWED = 200
    TEMPORARY = 300
    """Not now: the connection is closed without a word, and the peer will try again."""
    DENIED = 400
    """No: the peer is told so, and is not to come back with the same credentials."""
    FAILED = 500
    """The authenticator itself failed: the peer is told so."""


@dataclass(slots=True)
class AuthNeeded:
    """May this peer connect? The handshake stands still until ``answer_auth``. Asked once."""

    mechanism: str
    """``NULL``, ``PLAIN`` or ``CURVE``."""
    address: str
    """Where the peer is, as the shell told the engine."""
    domain: str
    """The option ``zap_domain``."""
    identity: bytes
    """What the peer has told of itself by then: with CURVE its identity, else nothing."""
    credentials: tuple[bytes, ...] = field(repr=False)
    """NULL: none. PLAIN: name and password. CURVE: the client's public key, 32 bytes, proved."""


@dataclass(slots=True)
class Ready:
    """The handshake is over, and the peer authenticated if that was asked for: traffic begins."""

    version: tuple[int, int]
    """3.0 or 3.1, the lower of both sides."""
    mechanism: str
    """``NULL``, ``PLAIN`` or ``CURVE``."""
    socket_type: str
    """The peer's, which goes with ours; empty if it did not say."""
    identity: bytes
    """The peer's: at most 255 bytes, the first not zero; often empty."""
    properties: dict[str, bytes]
    """All that the peer told about itself. Only CURVE keeps others from changing it."""
    user_id: str
    """Who the peer is in the authenticator's words; empty if it was not asked."""
    auth_metadata: dict[str, bytes]
    """What else the authenticator said."""


@dataclass(slots=True)
class Messages:
    """Whole messages in order: one event a call, unless parted by a subscription."""

    messages: list[Message]
    """Each is ``bytes``, or a tuple of parts. The list belongs to whoever takes the event."""


@dataclass(slots=True)
class Subscribed:
    """The peer wants messages that begin with these topics; or a DISH joined these groups.

    Only to PUB, XPUB and RADIO. A topic comes as often as the peer sends it.
    """

    topics: list[bytes]
    """In order; the list belongs to whoever takes the event."""


@dataclass(slots=True)
class Cancelled:
    """The peer no longer wants these topics; or a DISH left these groups.

    One cancel ends a topic, however often it was subscribed to; of a topic that was not, nothing
    is heard.
    """

    topics: list[bytes]
    """In order; the list belongs to whoever takes the event."""


@dataclass(slots=True)
class Failed:
    """The last event: the connection is over.

    Write what ``take_transmits`` still gives, then close it.
    """

    reason: FailureReason
    """Why."""
    text: str
    """The same for people: one line, a peer's bytes in it escaped."""
    status: int = 0
    """300, 400 or 500 where an authenticator's status was the cause, here or there; else 0."""


ZmtpEvent = AuthNeeded | Ready | Messages | Subscribed | Cancelled | Failed
"""Whatever ``ZmtpEngine.take_events`` may hand out."""
