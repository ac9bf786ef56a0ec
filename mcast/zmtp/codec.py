"""Frames of commands, and what is left to Python of ZMTP's framing (RFC 37 "Framing").

Owns nothing: messages and the scanner are the kernel's, where compiled code may take their place.
"""

from __future__ import annotations

from typing import Final

from mcast.kernel import FrameScanner, encode_messages
from mcast.kernel.reference_zmtp import UNCOPIED_BYTES, checked_parts, frame_head

__all__ = [
    "FrameScanner",
    "checked_parts",
    "encode_command",
    "encode_messages",
    "frame_head",
    "joined",
]

_COMMAND: Final = 0x04


def encode_command(body: bytes) -> bytes:
    """The frame of a command: short up to 255 bytes, long above."""
    return frame_head(_COMMAND, len(body)) + body


def joined(buffers: list[bytes]) -> list[bytes]:
    """The same bytes in fewer buffers: neighbours under 8 KiB become one."""
    if len(buffers) < 2:
        return buffers
    fewer: list[bytes] = []
    pieces: list[bytes] = []
    for buffer in buffers:
        if len(buffer) < UNCOPIED_BYTES:
            pieces.append(buffer)
            continue
        if pieces:
            fewer.append(b"".join(pieces))
            pieces.clear()
        fewer.append(buffer)
    if pieces:
        fewer.append(b"".join(pieces))
    return fewer
