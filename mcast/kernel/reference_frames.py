"""Messages out of the byte stream, and which of them anybody asked for: the reference.

Owns libzmq's framing in TSDUs, the topic filter, and the two names for what a message is. Part of
``mcast.kernel.reference``, which says what the kernel contract is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import cast

__all__ = ["Buffer", "FrameDecoder", "Message", "TopicFilter", "longest_bytes", "parts_of"]

Buffer = bytes | bytearray | memoryview
"""What may be sent: anything contiguous and made of bytes."""

Message = bytes | tuple[bytes, ...]
"""A received message: its only part, or the tuple of its parts when there are several."""

_OFFSET_BYTES = 2  # libzmq's first-message offset in front of each TSDU
_NO_MESSAGE_START = 0xFFFF
_SHORT_FRAME_LIMIT = 0xFF  # a length octet of 0xFF announces eight octets of length
_MORE = 0x01


def longest_bytes(messages: Iterable[object]) -> int:
    """The size of the longest of ``messages``, 0 if there are none.

    Raises ``TypeError`` if one of them is not bytes-like, or its bytes do not lie in one piece.
    """
    longest = 0
    for message in messages:
        view = memoryview(cast(bytes, message))
        if not view.c_contiguous:
            raise TypeError("the bytes of a message lie in one piece")
        longest = max(longest, view.nbytes)
    return longest


def parts_of(messages: list[Message]) -> list[bytes]:
    """The parts of all ``messages`` in one list: the same list if each has one part only."""
    parts: list[bytes] = []
    for message in messages:
        if isinstance(message, bytes):
            parts.append(message)
        else:
            parts.extend(message)
    return parts


class TopicFilter:
    """The compiled subscriptions of one SUB socket: does a message start with any of the prefixes?

    Empty prefix: everything matches. No prefix: nothing does. Immutable; one comparison for each
    halving of the number of prefixes.
    """

    __slots__ = ("_longest", "_sorted")

    def __init__(self, prefixes: Iterable[Buffer] = ()) -> None:
        # A prefix that extends another adds nothing. Without such, the greatest entry not above
        # the topic is the only one that can be its prefix.
        self._sorted: list[bytes] = []
        for prefix in sorted({bytes(prefix) for prefix in prefixes}):
            if not (self._sorted and prefix.startswith(self._sorted[-1])):
                self._sorted.append(prefix)
        self._longest = max(map(len, self._sorted), default=0)

    def match(self, topic: Buffer) -> bool:
        """True if some prefix starts ``topic``, the first part of a message."""
        head = bytes(topic[: self._longest])
        place = bisect_right(self._sorted, head)
        return place > 0 and head.startswith(self._sorted[place - 1])


class FrameDecoder:
    """Cuts whole messages out of one source's TSDUs, which must come in sequence, holes announced.

    A TSDU is a 16-bit offset to the first message that starts in it (0xFFFF: none), then bytes of
    an endless stream of ZMTP/1.0 frames (libzmq's framing). Starts out of step and skips to the
    first message start; ``resync`` puts it out of step again and drops an unfinished message.
    Memory grows with the bytes received, never with a length that a frame claims.

    A message over a limit is dropped alone: its frames are skipped as long as each lies inside
    its TSDU; one that claims to go on behind it puts out of step, so that no claim holds up more
    than this TSDU, and the next offset leads to the next message.

    ``topic_filter`` may be replaced at any time; it applies from the next message on.
    """

    __slots__ = (
        "_body",
        "_head",
        "_more",
        "_parts",
        "_rejected",
        "_size_left",
        "_too_long",
        "_total_bytes",
        "filtered_count",
        "in_step",
        "malformed_count",
        "max_message_bytes",
        "max_part_count",
        "message_count",
        "refused_count",
        "refuses",
        "too_long_count",
        "topic_filter",
    )

    # the message under way; a rejected one has only empty parts, one that is too long has none
    _parts: list[bytes]
    _rejected: bool
    _too_long: bool
    _total_bytes: int

    def __init__(
        self, topic_filter: TopicFilter, max_message_bytes: int, max_part_count: int
    ) -> None:
        self.topic_filter = topic_filter
        self.max_message_bytes = max_message_bytes
        self.max_part_count = max_part_count
        self.message_count = 0
        """Messages appended to an ``out`` list, or refused."""
        self.refuses = False
        """While true, messages are counted instead of appended."""
        self.refused_count = 0
        self.filtered_count = 0
        """Messages that no subscription asked for."""
        self.malformed_count = 0
        """TSDUs or messages given up: bad offset, bad length."""
        self.too_long_count = 0
        """Messages dropped for their bytes or parts, counted as soon as it shows."""
        self.in_step = False
        """The next byte of the stream is known to be inside or at the start of a message."""
        self._start_message()
        self._start_frame()

    @property
    def is_partial(self) -> bool:
        """True between the first byte of a message and its last."""
        return self.in_step and bool(
            self._parts or self._rejected or self._too_long or self._size_left >= 0 or self._head
        )

    def resync(self) -> None:
        """Drop an unfinished message and wait for the next message start (after a loss)."""
        self.in_step = False
        self._start_message()
        self._start_frame()

    def decode(self, tsdu: Buffer, out: list[Message]) -> None:
        """Append to ``out`` each message that this TSDU completes and the filter lets through."""
        view = memoryview(tsdu)
        if len(view) < _OFFSET_BYTES:
            self._give_up()
            return
        position = _OFFSET_BYTES
        if not self.in_step:
            offset = int.from_bytes(view[:_OFFSET_BYTES], "big")
            if offset == _NO_MESSAGE_START:
                return
            position += offset
            if position > len(view):
                self._give_up()
                return
            self.in_step = True
        while position < len(view):
            if self._size_left < 0:
                position = self._read_head_untrusted(view, position)
                if not self.in_step:
                    return
                if self._size_left < 0:
                    continue  # skipped, or the frame's head goes on in the next TSDU
            position = self._read_body(view, position, out)

    def _read_head_untrusted(self, view: memoryview, position: int) -> int:
        """Read length and flags; sets ``_size_left`` when complete and within the limits.

        Gives up when impossible; skips the body, too, when the message is too long.
        """
        head = self._head
        wanted = 2 if not head or head[0] != _SHORT_FRAME_LIMIT else 10
        while len(head) < wanted and position < len(view):
            head.append(view[position])
            position += 1
            wanted = 10 if head[0] == _SHORT_FRAME_LIMIT else 2
        if len(head) < wanted:
            return position
        # The length counts the flags octet, so 0 is impossible.
        length = head[0] if wanted == 2 else int.from_bytes(head[1:9], "big")
        self._more = bool(head[-1] & _MORE)
        head.clear()
        if length == 0:
            self._give_up()
            return position
        self._total_bytes += length - 1
        if (
            self._too_long
            or self._total_bytes > self.max_message_bytes
            or len(self._parts) >= self.max_part_count
        ):
            return self._skip_frame(view, position, length - 1)
        self._size_left = length - 1
        return position

    def _skip_frame(self, view: memoryview, position: int, size: int) -> int:
        """Pass by the body of a frame whose message is too long; where the next frame starts."""
        if not self._too_long:
            self.too_long_count += 1
            self._start_message()
            self._too_long = True
        if size > len(view) - position:
            self.resync()  # whatever it claims, the next offset leads to the next message
            return len(view)
        if not self._more:
            self._start_message()
        return position + size

    def _read_body(self, view: memoryview, position: int, out: list[Message]) -> int:
        end = min(position + self._size_left, len(view))
        self._size_left -= end - position
        if not self._rejected:
            self._body += view[position:end]
        if self._size_left == 0:
            self._end_frame(out)
        return end

    def _end_frame(self, out: list[Message]) -> None:
        if not self._parts and not self._rejected:
            self._rejected = not self.topic_filter.match(self._body)
        # A rejected message keeps its empty parts so that max_part_count holds for it too.
        self._parts.append(b"" if self._rejected else bytes(self._body))
        more = self._more
        self._start_frame()
        if more:
            return
        if self._rejected:
            self.filtered_count += 1
        else:
            self.message_count += 1
            if self.refuses:
                self.refused_count += 1
            else:
                out.append(self._parts[0] if len(self._parts) == 1 else tuple(self._parts))
        self._start_message()

    def _start_message(self) -> None:
        self._parts = []
        self._rejected = False
        self._too_long = False
        self._total_bytes = 0

    def _start_frame(self) -> None:
        self._head = bytearray()
        self._body = bytearray()
        self._size_left = -1  # not known yet
        self._more = False

    def _give_up(self) -> None:
        self.malformed_count += 1
        self.resync()
