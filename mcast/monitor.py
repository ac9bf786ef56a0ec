"""What happens to a socket's connections, as ``Socket.monitor`` tells it.

Owns the names and the value; the queue is ``mcast.runtime.monitor``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["MonitorEvent", "MonitorKind"]


class MonitorKind(StrEnum):
    """What happened; the names are libzmq's."""

    LISTENING = "listening"
    """``bind`` worked; ``endpoint`` is the real one."""
    ACCEPTED = "accepted"
    """Somebody connected to us."""
    ACCEPT_FAILED = "accept_failed"
    """A connection could not be accepted, or was one too many."""
    CONNECT_DELAYED = "connect_delayed"
    """A connection is being made."""
    CONNECTED = "connected"
    """We connected to somebody."""
    CONNECT_RETRIED = "connect_retried"
    """It will be tried again; ``value`` is the wait in milliseconds."""
    HANDSHAKE_SUCCEEDED = "handshake_succeeded"
    """Messages may flow; ``text`` is the user id of the authenticator, if any."""
    HANDSHAKE_FAILED = "handshake_failed"
    """The connection ended in its handshake; ``text`` says why, ``value`` is 300, 400 or 500 if an
    authenticator said no."""
    DISCONNECTED = "disconnected"
    """A connection ended; ``text`` says why."""
    CLOSED = "closed"
    """We stopped listening, or an attempt to connect failed."""


@dataclass(frozen=True, slots=True)
class MonitorEvent:
    """One thing that happened to one connection."""

    kind: MonitorKind
    """What."""
    endpoint: str
    """The URL that was bound or connected to."""
    address: str = ""
    """Where the peer is, if it is known."""
    text: str = ""
    """Details, for people."""
    value: int = 0
    """A number that goes with some kinds."""
