"""ZMTP 3 frames to and from bytes (RFC 37 "Framing"): the reference.

Owns the layout of frames and the assembly of messages; what a command says is not looked at.
Invariant: a limit is checked when a frame's head shows its size, before a byte of its body is
kept, and no more is kept than came. Part of ``mcast.kernel.reference``, which says what the kernel
contract is.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final, NoReturn

from mcast.kernel.reference_frames import Buffer, Message, TopicFilter

__all__ = [
    "UNCOPIED_BYTES",
    "FrameError",
    "FrameScanner",
    "checked_parts",
    "encode_messages",
    "frame_head",
]

_MORE: Final = 0x01
_LONG: Final = 0x02
_COMMAND: Final = 0x04
_RESERVED: Final = 0xF8
_SHORT_BYTES: Final = 255  # the most that a one-octet size can say
_LONG_HEAD: Final = Struct("!BQ")
_LAST_HEADS: Final = tuple(bytes((0, size)) for size in range(_SHORT_BYTES + 1))
_MORE_HEADS: Final = tuple(bytes((_MORE, size)) for size in range(_SHORT_BYTES + 1))

UNCOPIED_BYTES: Final = 8192
"""A body from this size on is handed out as it is. Measured with a gathering write of 16 bodies:
copying costs the same at 4 KiB, a fifth more at 8 KiB, a third more at 32 KiB."""


class FrameError(Exception):
    """A peer's bytes are no frames, or over a limit."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        """``malformed``, ``too_long`` or ``unexpected``."""
        self.text = text
        """What happened, for people."""


def encode_messages(messages: Iterable[Message]) -> list[bytes]:
    """The frames of a batch, as buffers for one gathering write, in order.

    A message is ``bytes`` or a tuple of at least one ``bytes``. Bodies of 8 KiB and more are
    entries of their own and not copied; everything between two of them is one entry. Raises
    ``TypeError`` or ``ValueError`` for anything that is no message, and has then done nothing.
    """
    buffers: list[bytes] = []
    pieces: list[bytes] = []
    append = pieces.append
    for message in messages:
        if isinstance(message, bytes):
            last = message
        else:
            *others, last = checked_parts(message)
            for part in others:
                size = len(part)
                append(_MORE_HEADS[size] if size <= _SHORT_BYTES else frame_head(_MORE, size))
                if size < UNCOPIED_BYTES:
                    append(part)
                else:
                    buffers += (b"".join(pieces), part)
                    pieces.clear()
        size = len(last)
        append(_LAST_HEADS[size] if size <= _SHORT_BYTES else frame_head(0, size))
        if size < UNCOPIED_BYTES:
            append(last)
        else:
            buffers += (b"".join(pieces), last)
            pieces.clear()
    if pieces:
        buffers.append(b"".join(pieces))
    return buffers


def checked_parts(message: Message) -> tuple[bytes, ...]:
    """The parts of a message to send. Raises as ``encode_messages`` if it is none."""
    if isinstance(message, bytes):
        return (message,)
    if not isinstance(message, tuple):
        raise TypeError(f"a message is bytes or a tuple of bytes, not {type(message).__name__}")
    if not message:
        raise ValueError("a message has at least one part, and this tuple is empty")
    for part in message:
        if not isinstance(part, bytes):
            raise TypeError(f"a part of a message is bytes, not {type(part).__name__}")
    return message


def frame_head(flags: int, size: int) -> bytes:
    """What stands before a body of so many bytes; the size is short if it can be."""
    if size <= _SHORT_BYTES:
        return bytes((flags, size))
    return _LONG_HEAD.pack(flags | _LONG, size)


class FrameScanner:
    """Whole messages and commands out of the byte stream of one peer, however it is cut.

    ``feed`` what came, then call ``scan_untrusted`` until it returns None. It stops behind each
    command, because a command may change what the bytes behind it mean; the limits may be changed
    there. A command between the parts of a message is in order, and comes out before the message.

    Refused: flags that RFC 37 reserves, and MORE on a command. A stream that went out of step
    shows by them, and nobody sends them. A long size may be small.
    """

    __slots__ = (
        "_body",
        "_data",
        "_flags",
        "_is_fed",
        "_message_bytes",
        "_missing_bytes",
        "_parts",
        "_position",
        "_rejected",
        "filtered_count",
        "max_command_bytes",
        "max_message_bytes",
        "max_part_count",
        "message_count",
        "topic_filter",
    )

    def __init__(self, max_message_bytes: int, max_part_count: int, max_command_bytes: int) -> None:
        self.max_message_bytes = max_message_bytes
        """Limit of all parts of a message together."""
        self.max_part_count = max_part_count
        """Limit of parts; 0 while only commands are expected."""
        self.max_command_bytes = max_command_bytes
        """Limit of a command's body, name included."""
        self.topic_filter: TopicFilter | None = None
        """What is not to come out is dropped here; it applies from the next message on."""
        self.filtered_count = 0
        """Messages that the filter dropped."""
        self.message_count = 0
        """Messages that came out."""
        self._data = b""
        self._position = 0
        self._is_fed = False
        self._flags = 0
        self._body = bytearray()  # of a frame whose end has not come
        self._missing_bytes = 0  # of it
        self._parts: list[bytes] = []  # of a message whose last part has not come
        self._message_bytes = 0  # of them
        self._rejected = False  # by the filter; its parts are empty, and count all the same

    @property
    def has_unscanned(self) -> bool:
        """True from ``feed`` until ``scan_untrusted`` returns None or raises."""
        return self._is_fed

    def feed(self, data: Buffer) -> None:
        """Take what came next. ``data`` must stay as it is until ``scan_untrusted`` returns None or
        raises; nothing of it is kept after that but copies."""
        # What is left over from before is at most an unfinished head.
        self._data = self._data[self._position :] + data if self._data else bytes(data)
        self._position = 0
        self._is_fed = True

    def scan_untrusted(self, messages: list[Message]) -> bytes | None:
        """The body of the next command, or None when more has to come.

        Messages that are complete before that are appended to ``messages``: ``bytes``, or a tuple
        of parts. Raises ``FrameError``; the scanner is then of no more use.
        """
        data, position = self._data, self._position
        self._is_fed = False
        if self._missing_bytes:
            more = data[position : position + self._missing_bytes]
            self._body += more
            self._missing_bytes -= len(more)
            position += len(more)
            if self._missing_bytes:
                self._data, self._position = b"", 0
                return None
            body = bytes(self._body)
            self._body = bytearray()
            if self._end_frame(body, messages):
                self._position = position
                self._is_fed = True
                return body
        end = len(data)
        while end - position >= 2:
            flags, size = data[position], data[position + 1]
            start = position + 2
            if flags & _RESERVED or (flags & _COMMAND and flags & _MORE):
                raise FrameError("malformed", f"a frame has the flags {flags:#04x}")
            if flags & _LONG:
                start = position + _LONG_HEAD.size
                if start > end:
                    break
                size = int.from_bytes(data[position + 1 : start], "big")
            self._check_size_untrusted(flags, size)
            self._flags = flags
            position = start + size
            if position > end:
                self._body += data[start:]
                self._missing_bytes = position - end
                position = end
                break
            body = data[start:position]
            if self._end_frame(body, messages):
                self._position = position
                self._is_fed = True
                return body
        self._data, self._position = data[position:], 0
        return None

    def _check_size_untrusted(self, flags: int, size: int) -> None:
        if flags & _COMMAND:
            if size > self.max_command_bytes:
                self._raise_too_long("a command", size, self.max_command_bytes)
            return
        if not self.max_part_count:
            raise FrameError("unexpected", "a message came before the handshake's end")
        total_bytes = self._message_bytes + size
        if total_bytes > self.max_message_bytes:
            self._raise_too_long("a message", total_bytes, self.max_message_bytes)
        if len(self._parts) + 1 + (flags & _MORE) > self.max_part_count:
            raise FrameError("too_long", f"a message has more than {self.max_part_count} parts")

    @staticmethod
    def _raise_too_long(what: str, size: int, limit: int) -> NoReturn:
        raise FrameError("too_long", f"{what} has {size} bytes, the limit is {limit}")

    def _end_frame(self, body: bytes, messages: list[Message]) -> bool:
        """Put a finished frame where it belongs; True if it is a command."""
        if self._flags & _COMMAND:
            return True
        if not self._parts:
            self._rejected = self.topic_filter is not None and not self.topic_filter.match(body)
        self._message_bytes += len(body)
        self._parts.append(b"" if self._rejected else body)
        if self._flags & _MORE:
            return False
        if self._rejected:
            self.filtered_count += 1
        else:
            self.message_count += 1
            messages.append(self._parts[0] if len(self._parts) == 1 else tuple(self._parts))
        self._parts = []
        self._message_bytes = 0
        return False
