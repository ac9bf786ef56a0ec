"""Why a connection ended: the reasons, and the one error that functions on a peer's bytes raise.

Owns no state. Invariant: whatever a peer sends, nothing but ``ZmtpError``, or the ``FrameError`` of
the kernel's scanner, comes out of a function named ``_untrusted``, and ``ZmtpEngine`` lets none of
them out: it turns the first into ``Failed``.
"""

from __future__ import annotations

from enum import StrEnum

from mcast.kernel import FrameError

__all__ = ["FailureReason", "ZmtpError", "printable"]

_PRINTABLE_BYTES = 64  # of a peer's bytes in a text for logs


class FailureReason(StrEnum):
    """Why a connection ended before anybody here wanted it to."""

    NOT_ZMTP = "not_zmtp"
    """What the peer sent first is no signature of ZMTP 2.0 or newer."""
    VERSION = "version"
    """The peer speaks an older ZMTP than 3.0."""
    MECHANISM = "mechanism"
    """The peer wants another security mechanism than this socket."""
    UNEXPECTED = "unexpected"
    """A command, or a message, that has no place at this point."""
    MALFORMED = "malformed"
    """A frame or a command that follows no grammar."""
    TOO_LONG = "too_long"
    """A frame, message or command over a limit of this socket."""
    METADATA = "metadata"
    """Properties that cannot be read, or an identity that cannot be used."""
    SOCKET_TYPE = "socket_type"
    """The peer's socket type does not go with this one."""
    CRYPTOGRAPHIC = "cryptographic"
    """A CURVE box that does not open: wrong key, or bytes changed on the way."""
    KEY_EXCHANGE = "key_exchange"
    """CURVE boxes that open, but name other keys or another connection."""
    NONCE = "nonce"
    """A CURVE command out of sequence: one was replayed or left out."""
    REFUSED = "refused"
    """The answer to ``AuthNeeded`` was no."""
    REFUSED_BY_PEER = "refused_by_peer"
    """The peer sent ERROR. RFC 37: do not come back with the same credentials."""
    SUBSCRIPTIONS = "subscriptions"
    """The peer subscribed to more than ``max_subscriptions`` or ``max_subscription_bytes``."""
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    """The handshake was not over within ``handshake_ivl_ns``."""
    HEARTBEAT_TIMEOUT = "heartbeat_timeout"
    """Nothing came within ``heartbeat_timeout_ns`` of a PING."""
    TTL_EXPIRED = "ttl_expired"
    """Nothing came within the time to live that the peer's own PING announced."""
    PEER_CLOSED = "peer_closed"
    """The peer closed the connection. RFC 37: it may be tried again."""


class ZmtpError(FrameError):
    """A peer broke the protocol or a limit; in ``text`` its bytes are escaped and cut.

    Never leaves ``mcast.zmtp``.
    """

    def __init__(self, reason: FailureReason, text: str, status: int = 0) -> None:
        super().__init__(reason, text)
        self.status = status
        """300, 400 or 500 where an authenticator's status is the cause, else 0."""


def printable(data: bytes) -> str:
    """A peer's bytes for a log: ASCII, everything else escaped, 64 bytes at most."""
    text = ascii(bytes(data[:_PRINTABLE_BYTES]))[1:]
    return text if len(data) <= _PRINTABLE_BYTES else f"{text}..."
