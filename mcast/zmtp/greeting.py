"""The 64 bytes with which both sides begin at once (RFC 37 "Greeting").

Owns their layout and the choice of version. A peer may send them in pieces and wait for ours in
between (libzmq: 10, 1, then 53 bytes), so ours leave whole, at once; theirs are judged as far as
they have come.
"""

from __future__ import annotations

from typing import Final

from mcast.zmtp.failure import FailureReason, ZmtpError, printable

__all__ = ["GREETING_BYTES", "build_greeting", "read_greeting_untrusted"]

GREETING_BYTES: Final = 64

_SIGNATURE: Final = bytes((0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F))
"""The padding reads as the frame of an empty identity, which ZMTP 1.0 expects first (libzmq)."""
_VERSION: Final = bytes((3, 1))
_MECHANISM: Final = slice(12, 32)
_MECHANISM_BYTES: Final = 20


def build_greeting(mechanism: bytes, is_server: bool) -> bytes:
    """Our greeting: version 3.1, also towards 3.0 peers, who answer by what they know.

    ``is_server`` goes into the as-server octet, as RFC 37 wants it; libzmq always writes 0 there
    and looks at nobody's.
    """
    head = _SIGNATURE + _VERSION + mechanism.ljust(_MECHANISM_BYTES, b"\0")
    return (head + bytes((is_server,))).ljust(GREETING_BYTES, b"\0")


def read_greeting_untrusted(data: bytes, mechanism: bytes) -> tuple[int, int] | None:
    """The version to speak, 3.0 or 3.1, or None while more of the greeting has to come.

    ``data`` is all that came so far, at most 64 bytes. The padding, the as-server octet and the
    filler are not looked at (RFC 37, and what libzmq puts there). Raises ``ZmtpError`` as soon as
    a byte shows that nothing will come of it.
    """
    if data[:1] not in (b"", b"\xff") or (len(data) > 9 and not data[9] & 1):
        raise ZmtpError(
            FailureReason.NOT_ZMTP,
            f"the peer's first bytes are no ZMTP signature: {printable(data[:10])}",
        )
    if len(data) > 10 and data[10] < _VERSION[0]:
        older = "2.0" if data[10] else "1.0"
        raise ZmtpError(FailureReason.VERSION, f"the peer speaks ZMTP {older}; 3.0 is the oldest")
    if len(data) < GREETING_BYTES:
        return None
    theirs = data[_MECHANISM]
    if theirs != mechanism.ljust(_MECHANISM_BYTES, b"\0"):
        raise ZmtpError(
            FailureReason.MECHANISM,
            f"the peer's mechanism is {printable(theirs.rstrip(bytes(1)))}, "
            f"this socket's is {printable(mechanism)}",
        )
    # A newer major is to speak our version to us (RFC 37 "Version Negotiation").
    return (3, 0) if data[10:12] == b"\x03\x00" else (3, 1)
