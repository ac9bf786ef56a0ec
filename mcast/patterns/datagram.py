"""RADIO and DISH over UDP: one message is one datagram, its group in front (RFC 48).

Owns the format, which is an octet with the length of the group, the group, and the body, and its
limits. Invariant: no datagram is built that a libzmq DISH cannot read; what others send is read as
the RFC allows.
"""

from __future__ import annotations

from typing import Final

from mcast.errors import MessageTooLongError, PatternError
from mcast.kernel import Buffer

__all__ = [
    "DATAGRAM_BYTES",
    "DATAGRAM_GROUP_BYTES",
    "GROUP_BYTES",
    "build_datagram",
    "check_datagram",
    "check_group",
    "parse_datagram_untrusted",
]

GROUP_BYTES: Final = 255
"""Longest group (ZMQ_GROUP_MAX_LENGTH; its length is one octet)."""
DATAGRAM_GROUP_BYTES: Final = 127
"""Longest group sent over UDP: libzmq reads the length as a signed char, and more aborts it."""
DATAGRAM_BYTES: Final = 8192
"""Longest datagram sent: libzmq reads into so many bytes, and cuts off the rest in silence."""


def check_group(group: bytes) -> None:
    """Raise PatternError unless this may be a group: up to 255 bytes, none of them zero."""
    if len(group) > GROUP_BYTES or b"\0" in group:
        raise PatternError(f"a group is up to {GROUP_BYTES} bytes, none of them zero")


def check_datagram(group: bytes, body: bytes) -> None:
    """Raise MessageTooLongError unless both fit a datagram that every DISH can read."""
    if len(group) > DATAGRAM_GROUP_BYTES:
        raise MessageTooLongError(
            f"a group sent over UDP is up to {DATAGRAM_GROUP_BYTES} bytes, not {len(group)}"
        )
    size = 1 + len(group) + len(body)
    if size > DATAGRAM_BYTES:
        raise MessageTooLongError(
            f"a message sent over UDP is up to {DATAGRAM_BYTES} bytes with its group, not {size}"
        )


def build_datagram(group: bytes, body: bytes) -> bytes:
    """The datagram of one message.

    Raises: PatternError, MessageTooLongError.
    """
    check_group(group)
    check_datagram(group, body)
    return bytes((len(group),)) + group + body


def parse_datagram_untrusted(datagram: Buffer) -> tuple[bytes, bytes] | None:
    """Group and body of a received datagram, copied; None if it is malformed."""
    if not datagram:
        return None
    start = 1 + datagram[0]
    if start > len(datagram):
        return None
    return bytes(datagram[1:start]), bytes(datagram[start:])
