"""ZMTP connections in a capture: TCP put in sequence, greetings, commands and messages read.

Owns the account of a connection. Invariants: a connection is ZMTP when one side's first bytes are
a greeting; bytes that come early are kept up to a limit; where a direction cannot be followed any
further it says why, once, and is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized
from typing import Final

from mcast.capture.dissect import Transport
from mcast.capture.room import Room
from mcast.kernel import FrameError, Message
from mcast.zmtp import codec as _codec

__all__ = ["Direction", "Session", "SessionTable"]

_GREETING_BYTES: Final = 64
_MESSAGE_LIMIT_BYTES: Final = 16 << 20
_COMMAND_LIMIT_BYTES: Final = 1 << 20
_PART_LIMIT: Final = 65_536
_EARLY_LIMIT_BYTES: Final = 4 << 20
"""Segments kept for a direction while one before them is missing."""
_SEGMENT_BYTES: Final = 128
"""What each of them counts beside its bytes."""
_SESSION_LIMIT: Final = 10_000
_LIST_LIMIT: Final = 1000
_HALF_SPACE: Final = 1 << 31
_SQN_MASK: Final = 0xFFFF_FFFF
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10

Address = tuple[bytes, int]


class Direction:
    """What one side sent."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.version: tuple[int, int] | None = None
        self.mechanism = ""
        self.as_server = False
        self.commands: Counter[str] = Counter()
        self.metadata: dict[str, str] = {}
        self.subscriptions: list[str] = []
        """Prefixes asked for, and groups joined, up to 1000."""
        self.error = ""
        """The reason in its ERROR."""
        self.message_count = 0
        self.message_bytes = 0
        self.stream_bytes = 0
        self.retransmitted_count = 0
        """Segments that brought nothing new."""
        self.fault = ""
        """Why it could not be followed to its end, or empty."""
        self._next: int | None = None
        self._early: dict[int, bytes] = {}
        self._early_bytes = 0
        self._unfinished_bytes = 0
        self._greeting = b""
        self._scanner = _codec.FrameScanner(_MESSAGE_LIMIT_BYTES, _PART_LIMIT, _COMMAND_LIMIT_BYTES)

    @property
    def is_zmtp(self) -> bool:
        """True when a greeting came."""
        return self.version is not None

    @property
    def missing_bytes(self) -> bool:
        """True while early segments wait for one that is not in the file."""
        return bool(self._early)

    def start(self, sqn: int) -> None:
        """SYN was seen: the stream begins behind it."""
        if self._next is None:
            self._next = (sqn + 1) & _SQN_MASK

    def take(self, sqn: int, data: bytes, missing_bytes: int) -> list[Message]:
        """The messages that a segment completes. Nothing raises."""
        if self.fault or not (data or missing_bytes):
            return []
        if self._next is None:
            self._next = sqn
        ahead = (sqn - self._next + _HALF_SPACE & _SQN_MASK) - _HALF_SPACE
        if ahead > 0:
            if sqn not in self._early:
                self._keep(sqn, data)
            return []
        fresh = data[-ahead:] if ahead else data
        if not fresh and not missing_bytes:
            self.retransmitted_count += 1
            return []
        found = self._feed(fresh)
        while self._early and not self.fault:
            early = self._early.pop(self._next, None)
            if early is None:
                break
            self._early_bytes -= len(early)
            self._room.hold(len(early) + _SEGMENT_BYTES, 0)
            found += self._feed(early)
        if missing_bytes:
            self._end("segments were captured only in part (snapshot length)")
        return found

    def _keep(self, sqn: int, data: bytes) -> None:
        """Hold a segment until those in front of it come."""
        if self._early_bytes + len(data) > _EARLY_LIMIT_BYTES:
            self._end("a segment is missing in the capture")
        elif not self._room.hold(0, len(data) + _SEGMENT_BYTES):
            self._end("a segment is missing in the capture, as in many connections")
        else:
            self._early[sqn] = data
            self._early_bytes += len(data)

    def _end(self, why: str) -> None:
        self.fault = self.fault or why
        self._room.hold(self._early_bytes + _SEGMENT_BYTES * len(self._early), 0)
        self._room.hold(self._unfinished_bytes, 0)
        self._early.clear()
        self._early_bytes = self._unfinished_bytes = 0
        self._scanner = _codec.FrameScanner(0, 0, 0)  # what it held is let go

    def _feed(self, data: bytes) -> list[Message]:
        assert self._next is not None
        self._next = (self._next + len(data)) & _SQN_MASK
        self.stream_bytes += len(data)
        if len(self._greeting) < _GREETING_BYTES:
            room = _GREETING_BYTES - len(self._greeting)
            self._greeting += data[:room]
            data = data[room:]
            if not self._read_greeting() or not data:
                return []
        messages: list[Message] = []
        is_whole = False
        try:
            self._scanner.feed(data)
            while (body := self._scanner.scan_untrusted(messages)) is not None:
                self._command(bytes(body))
                is_whole = True
        except FrameError as error:
            self._end(error.text)
        else:
            held = len(data) + (0 if messages or is_whole else self._unfinished_bytes)
            if self._room.hold(self._unfinished_bytes, held):
                self._unfinished_bytes = held
            else:
                self._end("its messages, with those of other connections, are too long")
        self.message_count += len(messages)
        for message in messages:
            parts = (message,) if isinstance(message, bytes) else message
            self.message_bytes += sum(map(len, parts))
        return messages

    def _read_greeting(self) -> bool:
        """True when the greeting is whole and good."""
        head = self._greeting
        if head[:1] != b"\xff" or (len(head) > 9 and head[9] != 0x7F):
            self._end("it does not begin with a greeting of ZMTP 3")
        elif len(head) == _GREETING_BYTES:
            if head[10] < 3:
                self._end(f"it speaks ZMTP {head[10]}, not 3")
            self.version = (head[10], head[11])
            self.mechanism = _text(head[12:32].rstrip(b"\0"))
            self.as_server = bool(head[32])
            return not self.fault
        return False

    def _command(self, body: bytes) -> None:
        size = body[0] if body else 0
        name, data = _text(body[1 : 1 + size]), body[1 + size :]
        if body[:4] == b"^RRO":  # libzmq's ERROR without a length (measured)
            name, data = "ERROR", body[5:]
        if name not in self.commands and not self._has_place(self.commands):
            name = "others"
        self.commands[name] += 1
        if (name == "READY" and self.mechanism != "CURVE") or (
            name == "INITIATE" and self.mechanism == "PLAIN"
        ):
            self._read_metadata(data)
        elif name in ("SUBSCRIBE", "JOIN"):
            self._room.add(self.subscriptions, _text(data), _LIST_LIMIT)
        elif name == "ERROR":
            self.error = _text(data[1:])

    def _has_place(self, table: Sized) -> bool:
        return len(table) < _LIST_LIMIT and self._room.take_entry()

    def _read_metadata(self, data: bytes) -> None:
        at = 0
        while at < len(data) and self._has_place(self.metadata):
            end = at + 1 + data[at]
            key, size = data[at + 1 : end], int.from_bytes(data[end : end + 4], "big")
            self.metadata[_text(key)] = _text(data[end + 4 : end + 4 + size])
            at = end + 4 + size


class Session:
    """One TCP connection; ``client`` connected to ``server``, as far as the capture shows it."""

    def __init__(self, client: Address, server: Address, time_ns: int, room: Room) -> None:
        self.client = client
        self.server = server
        self.sent = {client: Direction(room), server: Direction(room)}
        self.first_ns = self.last_ns = time_ns
        self.packet_count = 0
        self.end = ""
        """How it ended in the capture: ``closed``, ``reset`` or empty."""

    @property
    def is_zmtp(self) -> bool:
        """True when one side at least sent a greeting."""
        return any(direction.is_zmtp for direction in self.sent.values())

    @property
    def from_client(self) -> Direction:
        """What the side that connected sent."""
        return self.sent[self.client]

    @property
    def from_server(self) -> Direction:
        """What the side that was connected to sent."""
        return self.sent[self.server]


class SessionTable:
    """All connections of a capture."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.sessions: list[Session] = []
        self.refused_count = 0
        """Connections beyond the limit, each packet of them counted."""
        self._open: dict[tuple[Address, Address], Session] = {}

    def handle(self, segment: Transport) -> tuple[Session, list[Message]] | None:
        """The connection of a segment and the messages it completes; None: it is not followed."""
        source = (segment.source, segment.source_port)
        destination = (segment.destination, segment.destination_port)
        key = (min(source, destination), max(source, destination))
        session = self._open.get(key)
        starts = segment.flags & _SYN and not segment.flags & _ACK
        if session is None or (starts and session.end):
            if len(self.sessions) == _SESSION_LIMIT:
                self.refused_count += 1
                return None
            ends = (
                (destination, source)
                if segment.flags & _SYN and not starts
                else (source, destination)
            )
            session = self._open[key] = Session(*ends, segment.time_ns, self._room)
            self.sessions.append(session)
        session.packet_count += 1
        session.last_ns = segment.time_ns
        direction = session.sent[source]
        if segment.flags & _SYN:
            direction.start(segment.sqn)
        messages = direction.take(segment.sqn, bytes(segment.payload), segment.missing_bytes)
        if segment.flags & _RST:
            session.end = "reset"
        elif segment.flags & _FIN and not session.end:
            session.end = "closed"
        return session, messages


def _text(data: bytes) -> str:
    """A peer's bytes as text, escaped where they are no UTF-8, 64 at most."""
    return data[:64].decode("utf-8", "backslashreplace")
