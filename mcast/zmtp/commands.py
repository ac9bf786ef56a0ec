"""The bodies of commands: names, and the data of those that every mechanism has (RFC 37).

Owns their layout: one octet of name length, the name, the data, with nothing between (the RFC's
prose has a null octet there; its grammar and every peer have none). HELLO, WELCOME and INITIATE
belong to the mechanisms, READY's data to ``metadata``.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from mcast.zmtp.failure import FailureReason, ZmtpError, printable

__all__ = [
    "CANCEL",
    "ERROR",
    "JOIN",
    "LEAVE",
    "PING",
    "PONG",
    "READY",
    "SUBSCRIBE",
    "TENTH_NS",
    "build_command",
    "build_error",
    "build_ping",
    "read_error_untrusted",
    "read_ping_untrusted",
    "split_untrusted",
]

READY: Final = b"READY"
ERROR: Final = b"ERROR"
PING: Final = b"PING"
PONG: Final = b"PONG"
SUBSCRIBE: Final = b"SUBSCRIBE"
CANCEL: Final = b"CANCEL"
JOIN: Final = b"JOIN"
LEAVE: Final = b"LEAVE"

TENTH_NS: Final = 100_000_000
"""The unit of a PING's TTL: a tenth of a second."""

_CONTEXT_BYTES: Final = 16  # RFC 37 "Connection Heartbeating"; libzmq cuts longer ones, too
_TTL: Final = Struct("!H")
_STATUSES: Final = {b"300": 300, b"400": 400, b"500": 500}  # RFC 27, less success


def build_command(name: bytes, data: bytes = b"") -> bytes:
    """The body of the command ``name``."""
    return bytes((len(name),)) + name + data


def split_untrusted(body: bytes) -> tuple[bytes, bytes]:
    """Name and data of a command's body. Raises ``ZmtpError`` when there is no whole name."""
    end = 1 + body[0] if body else 0
    if end < 2 or end > len(body):
        # The body is not shown: it may be a HELLO with a password.
        raise ZmtpError(FailureReason.MALFORMED, f"a command of {len(body)} bytes has no name")
    return body[1:end], body[end:]


def build_error(reason: bytes) -> bytes:
    """The body of an ERROR. ``reason`` is printable ASCII, cut at 255 bytes."""
    reason = reason[:255]
    return build_command(ERROR, bytes((len(reason),)) + reason)


def read_error_untrusted(data: bytes) -> tuple[bytes, int]:
    """The reason in an ERROR's data, and 300, 400 or 500 if it is just that, else 0."""
    if not data or len(data) != 1 + data[0]:
        raise ZmtpError(FailureReason.MALFORMED, f"an ERROR has no reason: {printable(data)}")
    return data[1:], _STATUSES.get(data[1:], 0)


def build_ping(ttl_ns: int) -> bytes:
    """The body of a PING without context. ``ttl_ns`` is rounded down to tenths of a second."""
    return build_command(PING, _TTL.pack(ttl_ns // TENTH_NS))


def read_ping_untrusted(data: bytes) -> tuple[int, bytes]:
    """TTL in nanoseconds, 0 for none, and the context, cut to 16 bytes, for the PONG."""
    if len(data) < _TTL.size:
        raise ZmtpError(FailureReason.MALFORMED, f"a PING has no TTL: {printable(data)}")
    return _TTL.unpack_from(data)[0] * TENTH_NS, data[_TTL.size : _TTL.size + _CONTEXT_BYTES]
