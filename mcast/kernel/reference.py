"""The kernel contract in readable Python: the specification of the loops that run per packet.

Owns the layout of packets in the transmit window, the fast path of the receive window, the cutting
of messages out of the PGM byte stream, the topic filter and the checksum. Owns no decision: when
to send, what to ask for again and what to give up is the business of ``mcast.pgm``.

Invariants:
- a sequence number is a plain int that counts on past 2^32 (*extended*); the wire carries its low
  32 bits (RFC 3208 section 3.3 compares those by the sign of their difference);
- a slot is only reused after ``trail`` has passed it, and never while it waits to be sent;
- bytes from the network raise nothing: a packet that is not plain, valid and expected is left to
  the caller, a malformed stream is counted and resynchronised at the next message start.

``_native.pyx`` has every name in ``__all__`` with the same results and the same errors; the tests
run on both, and a property test compares them call by call.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import cast

from mcast.kernel.reference_io import Baton, UdpReader, UdpWriter

__all__ = [
    "Baton",
    "Buffer",
    "FrameDecoder",
    "Inbox",
    "Message",
    "ReceiveGate",
    "ReceiveSlots",
    "SendGate",
    "TopicFilter",
    "TransmitSlots",
    "UdpReader",
    "UdpWriter",
    "checksum",
    "checksum_ok",
    "longest_bytes",
    "parts_of",
]

Buffer = bytes | bytearray | memoryview
"""What may be sent: anything contiguous and made of bytes."""

Message = bytes | tuple[bytes, ...]
"""A received message: its only part, or the tuple of its parts when there are several."""

_SQN_MASK = 0xFFFF_FFFF
_HALF_SPACE = 1 << 31
_ODATA = 0x04
_RDATA = 0x05
_DATA_HEADER_BYTES = 24  # common header 16, data_sqn 4, trail 4 (RFC 3208 section 8.2)
_OFFSET_BYTES = 2  # libzmq's first-message offset in front of each TSDU
_NO_MESSAGE_START = 0xFFFF
_SHORT_FRAME_LIMIT = 0xFF  # a length octet of 0xFF announces eight octets of length
_MORE = 0x01


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
        """Messages appended to an ``out`` list."""
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


class TransmitSlots:
    """The transmit window's packets, built in place in one contiguous block of equal slots.

    Messages go in as libzmq frames them (``append``), fill the open packet, and are sealed packet
    by packet with header and checksum. ``take_run`` hands out what is sealed and not yet sent as
    one view that a single UDP GSO call can carry; ``repair_run`` hands out sent packets again as
    RDATA. The numbers: ``trail <= unsent <= next``; packets below ``trail`` are gone, those from
    ``unsent`` on wait to be sent, ``next`` is the open one.

    A slot holds 24 bytes of header and ``tsdu_bytes``. Memory: ``slot_count`` times that, touched
    only as the window fills. When all slots are full the oldest sent packet makes room.
    """

    __slots__ = (
        "_block",
        "_completed",
        "_header",
        "_lengths",
        "_message_start",
        "_open_bytes",
        "_slot_bytes",
        "_slot_count",
        "_tsdu_bytes",
        "_unsent_message_base",
        "armed_below",
        "armed_until_ns",
        "baton",
        "max_stream_bytes",
        "message_count",
        "next",
        "trail",
        "unsent",
        "unsent_limit",
    )

    def __init__(
        self, tsi: bytes, dport: int, tsdu_bytes: int, slot_count: int, first_sqn: int = 0
    ) -> None:
        if len(tsi) != 8 or not 0 < dport < 65536:
            raise ValueError("a TSI has 8 bytes and a port is 1 to 65535")
        if not 16 <= tsdu_bytes <= 65_000 or slot_count < 4 or first_sqn < 0:
            raise ValueError(
                "tsdu_bytes is 16 to 65000, slot_count 4 or more, first_sqn not negative"
            )
        self._header = tsi[6:8] + dport.to_bytes(2, "big") + b"\x04\0\0\0" + tsi[:6]
        self._tsdu_bytes = tsdu_bytes
        self._slot_bytes = _DATA_HEADER_BYTES + tsdu_bytes
        self._slot_count = slot_count
        self._block = bytearray(self._slot_bytes * slot_count)
        self._lengths = [0] * slot_count
        self._completed = [0] * slot_count
        self._unsent_message_base = 0
        self._open_bytes = 0  # bytes of stream in the open packet
        self._message_start = _NO_MESSAGE_START
        self.armed_until_ns = 0
        """Monotonic time until which a ``SendGate`` may append by itself; 0: it may not."""
        self.armed_below = first_sqn
        """Packet number at which it stops all the same."""
        self.baton: Baton | None = None
        """Told of what a ``SendGate`` moves."""
        self.trail = first_sqn
        """Oldest packet that can still be repaired."""
        self.unsent = first_sqn
        """First sealed packet that ``take_run`` has not handed out."""
        self.next = first_sqn
        """Number of the open packet; the lead is one less."""
        self.message_count = 0
        """Messages appended so far."""
        self.unsent_limit = slot_count // 2
        """Most packets that may wait to be sent; leaves the rest of the window for repairs."""
        self.max_stream_bytes = (self.unsent_limit - 1) * (tsdu_bytes - _OFFSET_BYTES)
        """Longest message, frame heads included (2 bytes a part, 10 from 254 bytes on)."""

    @property
    def open_bytes(self) -> int:
        """Bytes of stream in the open packet, 0 when there is nothing to seal."""
        return self._open_bytes

    @property
    def unsent_message_count(self) -> int:
        """Messages of which at least the last byte has not been handed out by ``take_run``."""
        return self.message_count - self._unsent_message_base

    def append(self, parts: Sequence[Buffer]) -> bool:
        """Frame one message into the stream; False, and nothing done, when too much waits already.

        Raises ``ValueError`` if there is no part, or if the message exceeds ``max_stream_bytes``,
        ``TypeError`` if a part is not contiguous bytes; nothing is done then, either.
        """
        # Looked at before anything is written: half a message would ruin the stream for good.
        views = [memoryview(part).cast("B") for part in parts]
        if not views:
            raise ValueError("a message has at least one part")
        stream_bytes = sum(len(view) + (2 if len(view) < 254 else 10) for view in views)
        room = self._tsdu_bytes - _OFFSET_BYTES
        if stream_bytes > self.max_stream_bytes:
            raise ValueError(f"a message of {stream_bytes} bytes does not fit the transmit window")
        packet_count = (self._open_bytes + stream_bytes + room - 1) // room
        if self.next - self.unsent + packet_count > self.unsent_limit:
            return False
        if self._message_start == _NO_MESSAGE_START:
            self._message_start = self._open_bytes
        last = len(views) - 1
        for index, view in enumerate(views):
            length = len(view) + 1  # counts the flags octet
            flags = _MORE if index < last else 0
            if length < _SHORT_FRAME_LIMIT:
                self._write(bytes((length, flags)))
            else:
                self._write(b"\xff" + length.to_bytes(8, "big") + bytes((flags,)))
            self._write(view)
        self.message_count += 1
        if self._open_bytes == room:
            self.seal()
        return True

    def append_many(self, messages: Sequence[Buffer], start: int, end: int) -> int:
        """Append ``messages[start:end]``, one part each; the index of the first that does not fit.

        Raises as ``append``, the messages before the bad one appended.
        """
        for index in range(start, end):
            if not self.append((messages[index],)):
                return index
        return end

    def seal(self) -> None:
        """Close the open packet if it holds anything, so that ``take_run`` may hand it out."""
        if not self._open_bytes:
            return
        room = self._tsdu_bytes - _OFFSET_BYTES
        slot = self.next % self._slot_count
        base = slot * self._slot_bytes
        length = _DATA_HEADER_BYTES + _OFFSET_BYTES + self._open_bytes
        if self._message_start == _NO_MESSAGE_START and self._open_bytes < room:
            # As libzmq: a packet sealed early ends with a message, so the next one starts right
            # behind it, and a late joiner can fall in step here.
            self._message_start = self._open_bytes
        block = self._block
        block[base : base + 14] = self._header
        block[base + 14 : base + 16] = (length - _DATA_HEADER_BYTES).to_bytes(2, "big")
        block[base + 16 : base + 20] = (self.next & _SQN_MASK).to_bytes(4, "big")
        block[base + 20 : base + 24] = (self.trail & _SQN_MASK).to_bytes(4, "big")
        block[base + 24 : base + 26] = self._message_start.to_bytes(2, "big")
        block[base + 6 : base + 8] = checksum(memoryview(block)[base : base + length]).to_bytes(
            2, "big"
        )
        self._lengths[slot] = length
        self._completed[slot] = self.message_count
        self.next += 1
        self._open_bytes = 0
        self._message_start = _NO_MESSAGE_START

    def take_run(self, max_packet_count: int) -> tuple[memoryview, int] | None:
        """The next unsent packets as ``(view, segment_bytes)``, or None; they count as sent now.

        All have ``segment_bytes`` but the last, which may be shorter. The view is good until the
        window has moved once round.
        """
        run = self._run(self.unsent, min(max_packet_count, self.next - self.unsent))
        if run is None:
            return None
        view, segment_bytes, packet_count = run
        self.unsent += packet_count
        self._unsent_message_base = self._completed[(self.unsent - 1) % self._slot_count]
        return view, segment_bytes

    def repair_run(self, sqn: int, max_packet_count: int) -> tuple[memoryview, int] | None:
        """Sent packets from ``sqn`` on as RDATA with the current trail, or None if it is not held.

        Shape and life as ``take_run``. Rewrites type, trail and checksum in the slots.
        """
        if not self.trail <= sqn < self.unsent:
            return None
        run = self._run(sqn, min(max_packet_count, self.unsent - sqn))
        if run is None:
            return None
        view, segment_bytes, _ = run
        for base in range(0, len(view), segment_bytes):
            packet = view[base : base + segment_bytes]
            packet[4] = _RDATA
            packet[6:8] = b"\0\0"
            packet[20:24] = (self.trail & _SQN_MASK).to_bytes(4, "big")
            packet[6:8] = checksum(packet).to_bytes(2, "big")
        return view, segment_bytes

    def advance(self, trail: int) -> None:
        """Let go of packets below ``trail``; never of unsent ones, never backwards."""
        self.trail = max(self.trail, min(trail, self.unsent))

    def _run(self, first: int, packet_count: int) -> tuple[memoryview, int, int] | None:
        if packet_count <= 0:
            return None
        slot = first % self._slot_count
        segment_bytes = self._lengths[slot]
        end_slot = slot + 1
        last_slot = min(slot + packet_count, self._slot_count)
        if segment_bytes == self._slot_bytes:  # a shorter packet leaves a hole behind it
            while end_slot < last_slot and self._lengths[end_slot] == self._slot_bytes:
                end_slot += 1
            if end_slot < last_slot:
                end_slot += 1  # the last segment of a GSO send may be shorter
        base = slot * self._slot_bytes
        end = (end_slot - 1) * self._slot_bytes + self._lengths[end_slot - 1]
        return memoryview(self._block)[base:end], segment_bytes, end_slot - slot

    def _write(self, data: Buffer) -> None:
        """Copy into the open packet and the ones after it, sealing each that is full."""
        view = memoryview(data)
        room = self._tsdu_bytes - _OFFSET_BYTES
        position = 0
        while position < len(view):
            if self._open_bytes == room:
                self.seal()
            if not self._open_bytes:
                # The slot's old packet goes before its first byte does: no repair may be cut
                # from a slot that is being filled again.
                self.trail = max(self.trail, self.next - self._slot_count + 1)
            take = min(room - self._open_bytes, len(view) - position)
            base = (self.next % self._slot_count) * self._slot_bytes
            base += _DATA_HEADER_BYTES + _OFFSET_BYTES + self._open_bytes
            self._block[base : base + take] = view[position : position + take]
            self._open_bytes += take
            position += take


class ReceiveSlots:
    """The fast path of one receive window: packets in order go straight to the decoder.

    ``next`` is the first number not yet given to the decoder, ``lead`` the highest known to exist.
    Packets that come early are kept in a store until the numbers before them arrive or are given
    up. *Plain* means: ODATA or RDATA of this TSI and port, without options, of the right length,
    with a checksum that holds. Whatever is not plain is left for the caller, who may ``store`` it;
    ``release`` hands it back in sequence when it carries options.
    """

    __slots__ = (
        "_gsi",
        "_ports",
        "_store",
        "decoder",
        "duplicate_count",
        "lead",
        "next",
        "packet_count",
        "payload_bytes",
        "repair_count",
        "stored_bytes",
    )

    def __init__(self, tsi: bytes, dport: int, decoder: FrameDecoder, first_sqn: int) -> None:
        if len(tsi) != 8 or not 0 < dport < 65536:
            raise ValueError("a TSI has 8 bytes and a port is 1 to 65535")
        self._ports = tsi[6:8] + dport.to_bytes(2, "big")
        self._gsi = tsi[:6]
        self._store: dict[int, bytes] = {}
        self.decoder = decoder
        self.next = first_sqn
        """First packet not yet decoded."""
        self.lead = first_sqn - 1
        """Highest packet known to exist, from data or, set by the caller, from an SPM or NCF."""
        self.stored_bytes = 0
        """Bytes held in early packets."""
        self.packet_count = 0
        """Plain data packets taken, in order or early."""
        self.repair_count = 0
        """How many of ``packet_count`` were RDATA."""
        self.payload_bytes = 0
        """TSDU bytes of ``packet_count``."""
        self.duplicate_count = 0
        """Packets that ``store`` refused because they were held or decoded before."""

    @property
    def stored_count(self) -> int:
        """Early packets held."""
        return len(self._store)

    def holds(self, sqn: int) -> bool:
        """True if the early packet ``sqn`` is held."""
        return sqn in self._store

    def take_in_order(
        self, data: memoryview, start: int, segment_bytes: int, out: list[Message]
    ) -> int:
        """Decode plain packets ``next``, ``next`` + 1, ... of a run; where the first other starts.

        ``data`` holds datagrams of ``segment_bytes`` each, the last one may be shorter; ``start``
        is the byte to begin at. Also stops when an early packet continues the sequence: call
        ``release`` then.
        """
        size = len(data)
        while start < size:
            packet = data[start : start + segment_bytes]
            if not self._is_plain(packet) or self._sqn(packet) != self.next & _SQN_MASK:
                break
            self._count(packet)
            self.decoder.decode(packet[_DATA_HEADER_BYTES:], out)
            self.lead = max(self.lead, self.next)
            self.next += 1
            start += segment_bytes
            if self._store and self.next in self._store:
                break
        return min(start, size)

    def store_run(
        self, data: memoryview, start: int, segment_bytes: int, stored_bytes_limit: int
    ) -> int:
        """Keep plain packets ``lead`` + 1, + 2, ... of a run; where the first other starts.

        Stops also where the limit would be passed, and at a packet whose trail has passed ``next``
        (the caller must then give numbers up first).
        """
        size = len(data)
        while start < size:
            packet = data[start : start + segment_bytes]
            if (
                not self._is_plain(packet)
                or self._sqn(packet) != (self.lead + 1) & _SQN_MASK
                or self.stored_bytes + len(packet) > stored_bytes_limit
                or self.lead + 1 - self._trail_distance(packet) > self.next
            ):
                break
            self._count(packet)
            self.lead += 1
            self._store[self.lead] = bytes(packet)
            self.stored_bytes += len(packet)
            start += segment_bytes
        return min(start, size)

    def numbers_of(
        self, data: memoryview, start: int, segment_bytes: int
    ) -> tuple[int, int] | None:
        """Number and trail of the packet at ``start`` of a run if it is plain, else None."""
        packet = data[start : start + segment_bytes]
        if not self._is_plain(packet):
            return None
        # The number nearest to the lead, as serial arithmetic has it.
        ahead = (self._sqn(packet) - self.lead + _HALF_SPACE) & _SQN_MASK
        sqn = self.lead + ahead - _HALF_SPACE
        return sqn, sqn - self._trail_distance(packet)

    def store(self, sqn: int, packet: Buffer) -> bool:
        """Keep one data packet that the caller has checked; False if it is held or was decoded.

        Raises ``ValueError`` if it is shorter than a data packet's header.
        """
        if len(packet) < _DATA_HEADER_BYTES:
            raise ValueError(f"a data packet has at least {_DATA_HEADER_BYTES} bytes")
        if sqn < self.next or sqn in self._store:
            self.duplicate_count += 1
            return False
        self._count(memoryview(packet))
        self._store[sqn] = bytes(packet)
        self.stored_bytes += len(packet)
        self.lead = max(self.lead, sqn)
        return True

    def release(self, out: list[Message]) -> bytes | None:
        """Decode early packets from ``next`` on; a packet with options, next in sequence, or None.

        None: the sequence has a hole at ``next`` or is complete. A packet that is returned counts
        as taken; the caller reads its options and calls again.
        """
        while (packet := self._store.pop(self.next, None)) is not None:
            self.stored_bytes -= len(packet)
            self.next += 1
            if packet[5]:
                return packet
            self.decoder.decode(memoryview(packet)[_DATA_HEADER_BYTES:], out)
        return None

    def skip_to(self, sqn: int) -> None:
        """Give up the hole at ``next``: go on with ``sqn``, the decoder out of step.

        No early packet below ``sqn`` may be held.
        """
        self.next = sqn
        self.lead = max(self.lead, sqn - 1)
        self.decoder.resync()

    def _is_plain(self, packet: memoryview) -> bool:
        return (
            len(packet) > _DATA_HEADER_BYTES
            and packet[4] in (_ODATA, _RDATA)
            and packet[5] == 0
            and packet[:4] == self._ports
            and packet[8:14] == self._gsi
            and int.from_bytes(packet[14:16], "big") == len(packet) - _DATA_HEADER_BYTES
            and any(packet[6:8])  # a checksum was computed
            and self._trail_distance(packet) < _HALF_SPACE
            and checksum_ok(packet)
        )

    @staticmethod
    def _sqn(packet: memoryview) -> int:
        return int.from_bytes(packet[16:20], "big")

    @staticmethod
    def _trail_distance(packet: memoryview) -> int:
        """How far the packet's trail lies behind its own number."""
        sqn = int.from_bytes(packet[16:20], "big")
        return (sqn - int.from_bytes(packet[20:24], "big")) & _SQN_MASK

    def _count(self, packet: memoryview) -> None:
        self.packet_count += 1
        self.repair_count += packet[4] == _RDATA
        self.payload_bytes += int.from_bytes(packet[14:16], "big")


class SendGate:
    """The short way of ``send``: straight into the open packet while a flush is already due.

    The owner of the window says until when it leaves the window alone (``slots.armed_until_ns``)
    and will then seal and send whatever is there; a message can be appended and left to that. The
    compiled gate does so for plain ``bytes`` without a lock, since nothing else runs in between.
    Python code may be interrupted at any point, so this one always takes the long way: ``slow``,
    called with the same arguments. What is sent is the same.
    """

    __slots__ = ("_slow",)

    def __init__(
        self,
        slots: TransmitSlots,
        max_message_bytes: int,
        message_limit: int,
        slow: Callable[..., None],
    ) -> None:
        """Beyond a limit (size, unsent messages, ``slots.armed_below``): ``slow``."""
        del slots, max_message_bytes, message_limit  # only the short way asks
        self._slow = slow

    def send(self, data: Buffer, flags: int = 0, *, timeout: float | None = None) -> None:
        """Publish one message of one part; see ``mcast.Pub.send``."""
        self._slow(data, flags, timeout=timeout)


class Inbox:
    """Messages from the loop thread to the application, in the lists in which they came.

    Any thread may call any method; each is one step as seen from the others. Items are messages,
    and, where ``put_error`` says so, exceptions to be raised in their place.
    """

    __slots__ = ("_items", "_mutex", "baton", "hold")

    def __init__(self) -> None:
        self._items: deque[Message | Exception] = deque()
        self._mutex = Lock()  # the compiled inbox needs none: nothing interrupts it
        self.hold = False
        """While true a ``ReceiveGate`` always takes the long way."""
        self.baton: Baton | None = None
        """Told of what is taken out."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, messages: list[Message]) -> None:
        """Add messages; the list belongs to the inbox from now on."""
        with self._mutex:
            self._items.extend(messages)

    def put_error(self, error: Exception) -> None:
        """Add an exception to be raised in its turn."""
        with self._mutex:
            self._items.append(error)

    def get_many(self, limit: int) -> list[Message]:
        """Up to ``limit`` messages, as far as no exception comes between; raises it if it is first.

        An empty list means that there is none.
        """
        taken: list[Message] = []
        with self._mutex:
            while self._items and len(taken) < limit:
                item = self._items[0]
                if isinstance(item, Exception):
                    if taken:
                        break
                    self._items.popleft()
                    raise item
                self._items.popleft()
                taken.append(item)
        return taken

    def clear(self) -> None:
        """Throw away what waits."""
        fresh: deque[Message | Exception] = deque()
        with self._mutex:
            dropped, self._items = self._items, fresh
        del dropped  # out of the lock, because finalizers may come back here

    def get_plain(self) -> bytes | None:
        """The next message if it is there, has one part and ``hold`` is off, else None."""
        if not self.hold:
            with self._mutex:
                if self._items and isinstance(head := self._items[0], bytes):
                    self._items.popleft()
                    return head
        return None


class ReceiveGate:
    """The short way of ``recv``: a plain message that waits in the inbox, else ``slow``.

    The application's side of an ``Inbox``: the loop's side knows the inbox and not the gate, so
    that it does not keep the socket alive.
    """

    __slots__ = ("_inbox", "_slow")

    def __init__(self, inbox: Inbox, slow: Callable[..., bytes]) -> None:
        self._inbox = inbox
        self._slow = slow

    def recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        """The next message; ``slow`` is called with the same arguments. See ``mcast.Sub.recv``."""
        message = self._inbox.get_plain()
        return self._slow(flags, timeout=timeout) if message is None else message
