"""A whole capture, packet after packet: streams, sessions, radio datagrams, and what was no use.

Owns the way of each record to its account, in the file's order. Result: a ``Decoder`` whose
``steps`` yields what the caller asked to see, and whose tables hold the report at any time.
Invariants: nothing in a file raises but ``CaptureError`` at its broken end; memory is bounded by
the named limits, not by the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from mcast.capture.dissect import PGM_PROTOCOL, TCP, Dissector, Transport
from mcast.capture.files import CaptureError, CaptureFile
from mcast.capture.room import Room
from mcast.capture.sessions import Session, SessionTable
from mcast.capture.streams import PgmStream
from mcast.kernel import Message
from mcast.pgm.packet import (
    NAK,
    NNAK,
    POLR,
    SPMR,
    TYPE_NAMES,
    Nak,
    Packet,
    PacketError,
    inspect_untrusted,
    tsi_of,
)

if TYPE_CHECKING:
    from mcast.capture.lines import PacketLines

__all__ = ["Decoder", "Heard", "Seen"]

_STREAM_LIMIT: Final = 4096
_EARLY_LIMIT_BYTES: Final = 8 << 20
"""Early packets, holes and requests kept for one stream; beyond it the oldest are given up."""
_TOTAL_EARLY_LIMIT_BYTES: Final = 48 << 20
_TOTAL_UNFINISHED_LIMIT_BYTES: Final = 48 << 20
"""Of messages under way in all streams; beyond it the longest are given up."""
_NEVER_ASK: Final = (NAK, NNAK, SPMR, POLR)


class Heard(NamedTuple):
    """A message, when it was whole."""

    frame: int
    time_ns: int
    origin: PgmStream | Session | Transport
    """The stream; the connection; or the datagram of a RADIO."""
    message: Message
    from_client: bool = False
    """Of a connection: sent by the side that connected."""


class Seen(NamedTuple):
    """A PGM packet, whether an end system would take it or not."""

    transport: Transport
    packet: Packet
    fault: str
    """Why an end system drops it, or empty."""


class Decoder:
    """Reads one ``CaptureFile``."""

    def __init__(
        self,
        file: CaptureFile,
        *,
        messages: bool = False,
        packets: bool = False,
        pgm_ports: frozenset[int] = frozenset(),
        radio_ports: frozenset[int] = frozenset(),
    ) -> None:
        """``messages`` and ``packets``: what ``steps`` yields. ``pgm_ports``: UDP ports that hold
        PGM; empty: whatever is PGM with a good checksum. ``radio_ports``: UDP ports of RADIOs."""
        self.file = file
        self.dissector = Dissector()
        self.streams: dict[tuple[bytes, bytes, int], PgmStream] = {}
        """By source address, TSI and UDP port."""
        self._room = Room()
        self.sessions = SessionTable(self._room)
        self.radio_count = 0
        self.udp_others_count = 0
        """UDP datagrams that are nothing of ours."""
        self.refused: Counter[str] = Counter()
        """PGM packets that belong to no stream or cannot be read, by reason."""
        self.first_ns: int | None = None
        self.last_ns = 0
        """The latest time, when all was read."""
        self.error = ""
        """Why the reading ended before the file did, or empty."""
        self._wants_messages = messages
        self._wants_packets = packets
        self._pgm_ports = pgm_ports
        self._radio_ports = radio_ports
        self._follows = not packets
        self._lines: PacketLines | None = None
        self._by_flow: dict[int, PgmStream] = {}
        if messages:
            file.walk.arrivals = []

    def steps(self) -> Iterator[Heard | Seen | None]:
        """What was asked for, as it comes; None now and then, to look at the clock or a signal.

        Never raises for what is in the file: ``error`` tells.
        """
        chunk = -1
        while True:
            try:
                record = self.file.next_record()
            except CaptureError as error:
                self.error = str(error)
                record = None
            yield from self._arrivals()
            if record is None:
                break
            if self.first_ns is None:
                self.first_ns = self.last_ns = record.time_ns
            self.last_ns = max(self.last_ns, record.time_ns)
            transport = self.dissector.dissect_untrusted(record)
            if transport is not None:
                yield from self._transport(transport)
            if self.file.read_bytes != chunk:
                chunk = self.file.read_bytes
                yield from self._relieve()
                yield None
        # The kernel walks past most packets, so the last may be known to a stream only.
        times = [stream.flow.last_ns for stream in self.streams.values() if stream.flow]
        self.last_ns = max([self.last_ns, *times])
        for stream in self.streams.values():
            out: list[Message] = []
            stream.finish(out)
            yield from self._heard(self.file.frame_count, self.last_ns, stream, out)

    def steps_and_lines(self, lines: PacketLines) -> Iterator[Heard | bytes | None]:
        """As ``steps``, with every PGM packet as a line, or several at once; much faster than
        ``packets`` unless messages are wanted, too."""
        walk_lines: bytearray | None = None
        self._wants_packets = True
        self._follows = not self._wants_messages  # else both would not come in their order
        if self._follows:
            self._lines = lines
            walk_lines = self.file.walk.lines = bytearray()
        for step in self.steps():
            if walk_lines:
                yield bytes(walk_lines)  # of packets in front of this step's
                walk_lines.clear()
            yield lines.line(step) if isinstance(step, Seen) else step
        if walk_lines:
            yield bytes(walk_lines)

    def _arrivals(self) -> Iterator[Heard]:
        """Messages of the packets that the kernel has walked past."""
        arrivals = self.file.walk.arrivals
        if arrivals:
            for flow, time_ns, frame, _, messages in arrivals:
                yield from self._heard(frame, time_ns, self._by_flow[id(flow)], messages)
            arrivals.clear()

    def _heard(
        self, frame: int, time_ns: int, origin: PgmStream, messages: list[Message]
    ) -> Iterator[Heard]:
        if self._wants_messages:
            for message in messages:
                yield Heard(frame, time_ns, origin, message)

    def _relieve(self) -> Iterator[Heard]:
        """Keep all streams together within what they may hold; once for each piece of the file."""
        held = [(s.held_bytes, s) for s in self.streams.values()]
        limit = _EARLY_LIMIT_BYTES
        if sum(size for size, _ in held) > _TOTAL_EARLY_LIMIT_BYTES:
            limit = _TOTAL_EARLY_LIMIT_BYTES // sum(size > 0 for size, _ in held)
        for size, stream in held:
            if size > limit:
                out: list[Message] = []
                stream.relieve(limit, out)
                yield from self._heard(self.file.frame_count, self.last_ns, stream, out)
        if not self._wants_messages:
            return
        unfinished = [(s.unfinished_bytes(), s) for s in self.streams.values()]
        total = sum(size for size, _ in unfinished)
        unfinished.sort(key=lambda row: row[0])
        while total > _TOTAL_UNFINISHED_LIMIT_BYTES:
            size, stream = unfinished.pop()
            stream.drop_unfinished()
            total -= size

    def _transport(self, found: Transport) -> Iterator[Heard | Seen]:
        if found.protocol == TCP:
            handled = self.sessions.handle(found)
            if handled is not None and self._wants_messages and handled[0].is_zmtp:
                session, messages = handled
                is_client = (found.source, found.source_port) == session.client
                for message in messages:
                    yield Heard(found.frame, found.time_ns, session, message, is_client)
            return
        if found.missing_bytes:
            self.dissector.skipped["cut_short"] += 1
            return
        if found.destination_port in self._radio_ports:
            yield from self._radio(found)
            return
        is_named = found.destination_port in self._pgm_ports or found.protocol == PGM_PROTOCOL
        if self._pgm_ports and not is_named:
            self.udp_others_count += 1
            return
        raw = bytes(found.payload)
        try:
            packet, fault = inspect_untrusted(raw)
        except PacketError as error:
            if is_named:
                self.refused[error.reason] += 1
            else:
                self.udp_others_count += 1
            return
        if not is_named and not self._is_likely(found, packet, fault):
            self.udp_others_count += 1
            return
        yield from self._pgm(found, packet, fault, raw)

    def _is_likely(self, found: Transport, packet: Packet, fault: str) -> bool:
        """Is it PGM, though nobody named the port? A good checksum says so, or a known port."""
        if fault in ("", "parity"):
            return packet.header.checksum != 0
        return any(port == found.destination_port for _, _, port in self.streams)

    def _radio(self, found: Transport) -> Iterator[Heard]:
        payload = bytes(found.payload)
        size = payload[0] if payload else 0
        if not payload or len(payload) < 1 + size:
            self.refused["radio"] += 1
            return
        self.radio_count += 1
        if self._wants_messages:
            message = (payload[1 : 1 + size], payload[1 + size :])
            yield Heard(found.frame, found.time_ns, found, message)

    def _pgm(
        self, found: Transport, packet: Packet, fault: str, raw: bytes
    ) -> Iterator[Heard | Seen]:
        if self._wants_packets:
            yield Seen(found, packet, fault)
        stream = self._stream(found, packet, raw, fault)
        if stream is None:
            is_full = len(self.streams) == _STREAM_LIMIT
            self.refused[fault or ("streams" if is_full else "no_stream")] += 1
            return
        if fault:
            stream.refused[fault] += 1
            return
        stream.counts[TYPE_NAMES[packet.header.type]] += 1
        out: list[Message] = []
        had_flow = stream.flow
        stream.handle(packet, raw, found.time_ns, found.wire_bytes, out)
        if stream.flow is not None and had_flow is None:
            self._by_flow[id(stream.flow)] = stream
            if self._lines is not None:
                stream.flow.pattern = self._lines.pattern(Seen(found, packet, fault))
            if self._follows:
                self.file.walk.flows[stream.key] = stream.flow
        slots = stream.slots
        if slots is not None and stream.held_bytes > _EARLY_LIMIT_BYTES:
            stream.relieve(_EARLY_LIMIT_BYTES, out)
        yield from self._heard(found.frame, found.time_ns, stream, out)

    def _stream(self, found: Transport, packet: Packet, raw: bytes, fault: str) -> PgmStream | None:
        """The stream a packet belongs to; a new one for good packets that a source sends."""
        tsi, kind, port = tsi_of(raw), packet.header.type, found.destination_port
        source = found.source
        if kind in _NEVER_ASK or kind == 0x0D:  # towards the source
            if isinstance(packet.body, Nak):
                source = packet.body.source_nla
            else:
                known = [key for key in self.streams if key[1] == tsi and key[2] == port]
                source = known[0][0] if known else found.destination
        key = (source, tsi, port)
        stream = self.streams.get(key)
        if stream is not None or fault:
            return stream
        if kind in _NEVER_ASK or kind == 0x0D:
            if not isinstance(packet.body, Nak):
                return None
            group = packet.body.group_nla
            dport = packet.header.source_port
        else:
            group, dport = found.destination, packet.header.destination_port
        if len(self.streams) == _STREAM_LIMIT:
            return None
        stream = self.streams[key] = PgmStream(
            tsi, source, group, port, dport, keep_messages=self._wants_messages, room=self._room
        )
        return stream
