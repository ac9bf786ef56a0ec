"""Messages known to both sides of an interop test by their number and sizes. Imports nothing else.

Owns no state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["digest_of", "message_of"]


def message_of(index: int, sizes: Sequence[int]) -> list[bytes]:
    """The parts of message ``index``, of these sizes."""
    return [part_of(index * 31 + place, size) for place, size in enumerate(sizes)]


def part_of(seed: int, size: int) -> bytes:
    """Bytes that tell where they belong."""
    block = hashlib.blake2b(b"%d" % seed, digest_size=61).digest()  # 61: no power of two
    # Never 0 or 1 in front, which a publisher would take for a subscription.
    return (b"\xff" + block * (size // 61 + 1))[:size]


def digest_of(parts: Sequence[bytes]) -> str:
    """A short text that differs when a byte, or a boundary between parts, does."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()
