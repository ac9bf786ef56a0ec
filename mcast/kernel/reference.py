"""The kernel contract in readable Python: the specification of the loops that run per packet.

Owns the layout of packets in the transmit window, the receive window, the cutting of messages out
of the PGM byte stream, the topic filter and the checksum. Owns no decision: when
to send, what to ask for again and what to give up is the business of ``mcast.pgm``.

Invariants:
- a sequence number is a plain int that counts on past 2^32 (*extended*); the wire carries its low
  32 bits (RFC 3208 section 3.3 compares those by the sign of their difference);
- a slot is only reused after ``trail`` has passed it, and never while it waits to be sent;
- bytes from the network raise nothing: a packet that is not plain, valid and expected is left to
  the caller, a malformed stream is counted and resynchronised at the next message start.

The framing is in ``reference_frames``, the receive window in ``reference_receive``, the way to the
application in ``reference_gates``, system calls in ``reference_io`` and ``reference_stream``, and
ZMTP in ``reference_zmtp``; this module has the transmit window, and every name of the contract.

``_native.pyx`` has every name in ``__all__`` with the same results and the same errors; the tests
run on both, and a property test compares them call by call.
"""

from __future__ import annotations

from collections.abc import Sequence

from mcast.kernel.reference_capture import CAPTURE_FIELDS, CaptureFlow, CaptureWalk
from mcast.kernel.reference_flow import Stop, StreamGate, StreamIntake
from mcast.kernel.reference_frames import (
    Buffer,
    FrameDecoder,
    Message,
    TopicFilter,
    longest_bytes,
    parts_of,
)
from mcast.kernel.reference_gates import Inbox, ReceiveGate, SendGate
from mcast.kernel.reference_intake import Intake, Leftover
from mcast.kernel.reference_io import Baton, UdpReader, UdpWriter
from mcast.kernel.reference_pace import SendSchedule, TokenBucket
from mcast.kernel.reference_receive import ReceiveSlots
from mcast.kernel.reference_stream import StreamReader, StreamWriter
from mcast.kernel.reference_sum import checksum, checksum_ok
from mcast.kernel.reference_zmtp import FrameError, FrameScanner, encode_messages

__all__ = [
    "CAPTURE_FIELDS",
    "Baton",
    "Buffer",
    "CaptureFlow",
    "CaptureWalk",
    "FrameDecoder",
    "FrameError",
    "FrameScanner",
    "Inbox",
    "Intake",
    "Leftover",
    "Message",
    "ReceiveGate",
    "ReceiveSlots",
    "SendGate",
    "SendSchedule",
    "Stop",
    "StreamGate",
    "StreamIntake",
    "StreamReader",
    "StreamWriter",
    "TokenBucket",
    "TopicFilter",
    "TransmitSlots",
    "UdpReader",
    "UdpWriter",
    "checksum",
    "checksum_ok",
    "encode_messages",
    "longest_bytes",
    "parts_of",
]

_SQN_MASK = 0xFFFF_FFFF
_RDATA = 0x05
_DATA_HEADER_BYTES = 24  # common header 16, data_sqn 4, trail 4 (RFC 3208 section 8.2)
_OFFSET_BYTES = 2  # libzmq's first-message offset in front of each TSDU
_NO_MESSAGE_START = 0xFFFF
_SHORT_FRAME_LIMIT = 0xFF  # a length octet of 0xFF announces eight octets of length
_MORE = 0x01


class TransmitSlots:
    """The transmit window's packets, built in place in one contiguous block of equal slots.

    Messages go in as libzmq frames them (``append``), fill the open packet, and are sealed packet
    by packet with header and checksum. ``take_run`` hands out what is sealed and not yet sent as
    one view that a single UDP GSO call can carry; ``repair_run`` copies sent packets as RDATA. The
    numbers: ``trail <= unsent <= next``; packets below ``trail`` are gone, those from ``unsent`` on
    wait to be sent, ``next`` is the open one.

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
        "_slot_count",
        "_tsdu_bytes",
        "_unsent_message_base",
        "max_stream_bytes",
        "message_count",
        "next",
        "slot_bytes",
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
        self.slot_bytes = _DATA_HEADER_BYTES + tsdu_bytes
        """Bytes of a full packet, header included."""
        self._slot_count = slot_count
        self._block = bytearray(self.slot_bytes * slot_count)
        self._lengths = [0] * slot_count
        self._completed = [0] * slot_count
        self._unsent_message_base = 0
        self._open_bytes = 0  # bytes of stream in the open packet
        self._message_start = _NO_MESSAGE_START
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
        base = slot * self.slot_bytes
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

    def repair_run(self, sqns: Sequence[int]) -> tuple[bytes, int] | None:
        """Copies of sent packets as RDATA with the current trail: (packets, segment_bytes).

        They are those of ``sqns``, in its order, as far as they make one run: all of one size but
        the last, which may be shorter. None if the first is not held.
        """
        run = bytearray()
        segment_bytes = 0
        for sqn in sqns:
            if not self.trail <= sqn < self.unsent:
                break
            slot = sqn % self._slot_count
            length = self._lengths[slot]
            if length > (segment_bytes or length):
                break
            base = slot * self.slot_bytes
            packet = bytearray(self._block[base : base + length])
            packet[4] = _RDATA
            packet[6:8] = b"\0\0"
            packet[20:24] = (self.trail & _SQN_MASK).to_bytes(4, "big")
            packet[6:8] = checksum(packet).to_bytes(2, "big")
            run += packet
            segment_bytes = segment_bytes or length
            if length < segment_bytes:
                break
        return (bytes(run), segment_bytes) if run else None

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
        if segment_bytes == self.slot_bytes:  # a shorter packet leaves a hole behind it
            while end_slot < last_slot and self._lengths[end_slot] == self.slot_bytes:
                end_slot += 1
            if end_slot < last_slot:
                end_slot += 1  # the last segment of a GSO send may be shorter
        base = slot * self.slot_bytes
        end = (end_slot - 1) * self.slot_bytes + self._lengths[end_slot - 1]
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
            base = (self.next % self._slot_count) * self.slot_bytes
            base += _DATA_HEADER_BYTES + _OFFSET_BYTES + self._open_bytes
            self._block[base : base + take] = view[position : position + take]
            self._open_bytes += take
            position += take
