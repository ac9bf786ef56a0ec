"""What may be sent, and how it becomes bytes whose length is a number of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from mcast.kernel import Buffer, Message

if TYPE_CHECKING:
    from typing_extensions import Buffer as AnyBuffer  # part of the type checker, not installed

    BytesLike: TypeAlias = AnyBuffer
    """What may be sent: bytes, bytearray, memoryview, array.array, and what else is a buffer."""
else:
    BytesLike = bytes | bytearray | memoryview

__all__ = ["BytesLike", "as_message", "flat", "topic_bytes"]


def flat(data: BytesLike) -> Buffer:
    """The same bytes with ``len`` counting bytes. Raises TypeError for what is not bytes-like."""
    if isinstance(data, bytes | bytearray):
        return data
    view = _view(data)
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    return view.tobytes()


def as_message(parts: Sequence[Buffer]) -> Message:
    """A message of one or more parts as the kernel has it; what may change is copied."""
    if len(parts) == 1:
        return bytes(parts[0])
    return tuple([bytes(part) for part in parts])


def _view(data: BytesLike) -> memoryview:
    try:
        return memoryview(data)
    except TypeError:
        hint = "; encode it first" if isinstance(data, str) else ""
        raise TypeError(f"a message is bytes-like, not {type(data).__name__}{hint}") from None


def topic_bytes(topic: BytesLike | str) -> bytes:
    """A topic as bytes, a str in UTF-8. Raises TypeError for what is neither."""
    return topic.encode() if isinstance(topic, str) else _view(topic).tobytes()
