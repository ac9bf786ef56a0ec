"""Sequence numbers: 32 bits on the wire, plain growing integers inside (RFC 3208 section 3.3)."""

from __future__ import annotations

__all__ = ["SQN_MASK", "extend"]

SQN_MASK = 0xFFFF_FFFF
_HALF_SPACE = 1 << 31


def extend(sqn: int, near: int) -> int:
    """The integer closest to ``near`` whose low 32 bits are ``sqn``; below it at half the space.

    The sign of the result minus ``near`` is that of the 32-bit difference, as RFC 3208 compares.
    """
    return near + ((sqn - near + _HALF_SPACE) & SQN_MASK) - _HALF_SPACE
