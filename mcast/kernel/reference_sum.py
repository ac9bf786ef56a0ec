"""The PGM checksum: the reference. Part of ``mcast.kernel.reference``."""

from __future__ import annotations

from mcast.kernel.reference_frames import Buffer

__all__ = ["checksum", "checksum_ok"]


def checksum(data: Buffer) -> int:
    """The PGM checksum of ``data``, 1 to 0xFFFF, whose own checksum field must hold zero.

    One's complement of the one's complement sum of 16-bit words, an odd last byte padded with
    zero; a result of 0 is sent as 0xFFFF because 0 means "not computed" (RFC 3208 section 8).
    """
    return 0xFFFF - _word_sum(data) or 0xFFFF


def checksum_ok(packet: Buffer) -> bool:
    """True if the sum over a whole packet, its checksum field included, comes out right.

    A field of 0 ("not computed") comes out wrong unless by chance: look at it first.
    """
    return _word_sum(packet) == 0xFFFF


def _word_sum(data: Buffer) -> int:
    # 2^16 is 1 modulo 0xFFFF, so the big-endian number modulo 0xFFFF is the folded word sum; the
    # remainder 0 stands for 0xFFFF unless every byte is zero.
    number = int.from_bytes(data, "big") << (8 * (len(data) & 1))
    return (number % 0xFFFF or 0xFFFF) if number else 0
