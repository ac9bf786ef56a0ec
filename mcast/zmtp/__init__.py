"""ZMTP 3.1 (RFC 37) on one TCP or IPC connection, as a state machine without I/O, clock or dice.

``ZmtpEngine`` is the way in; the order of calls is told once, in its docstring. It speaks to 3.0
peers by their rules, and NULL, PLAIN and CURVE; CURVE needs the extra ``mcast[curve]``.
"""

from __future__ import annotations

from mcast.zmtp.engine import ZmtpEngine
from mcast.zmtp.events import (
    AuthNeeded,
    AuthStatus,
    Cancelled,
    Failed,
    Messages,
    Ready,
    Subscribed,
    ZmtpEvent,
)
from mcast.zmtp.failure import FailureReason
from mcast.zmtp.options import (
    CurveClient,
    CurveServer,
    Null,
    PlainClient,
    PlainServer,
    Security,
    ZmtpOptions,
)

__all__ = [
    "AuthNeeded",
    "AuthStatus",
    "Cancelled",
    "CurveClient",
    "CurveServer",
    "Failed",
    "FailureReason",
    "Messages",
    "Null",
    "PlainClient",
    "PlainServer",
    "Ready",
    "Security",
    "Subscribed",
    "ZmtpEngine",
    "ZmtpEvent",
    "ZmtpOptions",
]
