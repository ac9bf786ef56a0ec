"""REQ and REP: one request, one reply, in turn; the envelope that finds the way back (RFC 28).

Owns whose turn it is. Invariants: between two replies that a REQ hands out it has sent a request,
and the reply is to the last one; between two requests that a REP hands out it was given a reply,
which goes to whom the request came from or nowhere.

A request on the wire is the optional number of REQ_CORRELATE, the addresses of ROUTERs that it came
through, an empty part, and the body. The reply repeats all that stands in front of the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from sys import byteorder
from typing import Final

from mcast.errors import PatternError
from mcast.kernel import Message
from mcast.patterns.balance import Balanced, Distributing, FairQueued
from mcast.patterns.base import Pipe
from mcast.patterns.events import Refusal, SendResult
from mcast.patterns.kinds import PeerInfo, SocketKind
from mcast.patterns.options import QueueOptions, ReqOptions

__all__ = ["Rep", "Req"]

_ID_BYTES: Final = 4
_ID_MASK: Final = 0xFFFF_FFFF
_DELIMITER: Final = (b"",)


class Req(Balanced):
    """REQ: sends a request to the next peer in turn, then receives that peer's reply.

    If the peer asked leaves first, the reply never comes: only ``req_relaxed`` lets go of it, as
    in libzmq. What arrives and is not that reply is dropped; no stranger's message is taken for it.
    """

    kind = SocketKind.REQ
    options_type = ReqOptions
    options: ReqOptions

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        # Set from request to reply; it stays so when that pipe has left.
        self._asked: Pipe | None = None
        self._reply: Message | None = None
        self._last_id = dice.getrandbits(32)
        self._awaited_id = b""  # empty: the request had none
        super().__init__(options, dice)

    def send(self, message: Message) -> SendResult:
        """Queue a request; with ``req_relaxed`` it replaces one that has no reply yet.

        Raises: PatternError while a reply is awaited, without ``req_relaxed``.
        """
        if self._asked is not None and not self.options.req_relaxed:
            raise PatternError("a REQ socket receives the reply before it sends another request")
        if not self._ready:
            return SendResult.WOULD_BLOCK
        request_id = b""
        if self.options.req_correlate:
            self._last_id = (self._last_id + 1) & _ID_MASK
            request_id = self._last_id.to_bytes(_ID_BYTES, byteorder)  # as libzmq: host order
        body = (message,) if isinstance(message, bytes) else message
        envelope = (request_id, b"") if request_id else _DELIMITER
        if self._reply is not None:
            self.counters.dropped_unexpected += 1
        asked = self._ready[0]
        super().send(envelope + body)
        self._asked, self._reply = asked, None
        self._awaited_id = request_id
        return SendResult.SENT

    def send_many(self, batch: Sequence[Message]) -> int:
        """1 if the first of ``batch`` was sent, else 0: a request at a time.

        Raises: PatternError as ``send``.
        """
        return int(bool(batch) and self.send(batch[0]) is SendResult.SENT)

    def recv(self) -> Message | None:
        """The reply, or None while it has not come.

        Raises: PatternError if there is no request.
        """
        if self._asked is None:
            raise PatternError("a REQ socket sends a request before it receives")
        reply = self._reply
        if reply is not None:
            self._asked, self._reply = None, None
        return reply

    @property
    def is_writable(self) -> bool:
        """True if a request may be sent, and some peer has room."""
        return bool(self._ready) and (self._asked is None or self.options.req_relaxed)

    @property
    def is_readable(self) -> bool:
        """True if the reply is there."""
        return self._reply is not None

    def handle_messages(self, number: int, batch: Sequence[Message]) -> None:
        """Take replies; one without the empty part ends the connection, as in libzmq."""
        self.counters.messages_received += len(batch)
        pipe = self._pipes.get(number)
        for place, message in enumerate(batch):
            request_id, body = _without_envelope(message)
            if pipe is None:
                self.counters.dropped_unexpected += 1
            elif body is None:
                self.counters.dropped_malformed += 1
                self.counters.dropped_unexpected += len(batch) - place - 1
                self._refuse(number, Refusal.MALFORMED)
                return
            elif pipe is self._asked and self._reply is None and request_id == self._awaited_id:
                self._reply = body
            else:
                self.counters.dropped_unexpected += 1

    def _connected(self, pipe: Pipe, peer: PeerInfo) -> None:
        super()._connected(pipe, peer)
        if self.options.probe_router:
            self._greet(pipe, b"")


def _without_envelope(message: Message) -> tuple[bytes, Message | None]:
    """The number that a reply carries, empty if none, and its body; None if it is no reply."""
    if isinstance(message, bytes):
        return b"", None
    if not message[0]:
        return b"", message[1] if len(message) == 2 else message[1:]
    if len(message[0]) == _ID_BYTES and len(message) > 2 and not message[1]:
        return message[0], message[2] if len(message) == 3 else message[2:]
    return b"", None


class Rep(FairQueued, Distributing):
    """REP: receives a request from each peer in turn, and sends its reply back the same way."""

    kind = SocketKind.REP
    options_type = QueueOptions

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._asker: Pipe | None = None  # set from request to reply
        self._envelope: tuple[bytes, ...] = ()
        super().__init__(options, dice)

    def _receive(self, pipe: Pipe, batch: Sequence[Message]) -> None:
        requests = [message for message in batch if _delimiter_place(message) >= 0]
        self.counters.dropped_malformed += len(batch) - len(requests)
        if requests:
            super()._receive(pipe, requests)

    def recv(self) -> Message | None:
        """The body of the next request, or None if there is none now.

        Raises: PatternError if the last one was not replied to.
        """
        if self._asker is not None:
            raise PatternError("a REP socket sends the reply before it receives another request")
        asker = self._active[0] if self._active else None
        message = super().recv()
        if message is None:
            return None
        assert isinstance(message, tuple)
        split = _delimiter_place(message) + 1
        self._asker, self._envelope = asker, message[:split]
        return message[split] if len(message) == split + 1 else message[split:]

    def recv_many(self, limit: int) -> list[Message]:
        """The next request, in a list: one at a time.

        Raises: PatternError as ``recv``.
        """
        message = self.recv() if limit > 0 else None
        return [] if message is None else [message]

    def send(self, message: Message) -> SendResult:
        """Queue the reply; always SENT. It is dropped if the peer has left or its queue is full.

        Raises: PatternError if there is no request to reply to.
        """
        asker = self._asker
        if asker is None:
            raise PatternError("a REP socket receives a request before it sends a reply")
        body = (message,) if isinstance(message, bytes) else message
        self._asker = None
        if asker.is_usable:
            self._give((asker,), self._envelope + body)
        else:
            self.counters.dropped_unroutable += 1
        return SendResult.SENT

    @property
    def is_readable(self) -> bool:
        """True if a request may be received, and is there."""
        return bool(self._active) and self._asker is None

    @property
    def is_writable(self) -> bool:
        """True if a reply is due."""
        return self._asker is not None


def _delimiter_place(message: Message) -> int:
    """Where the empty part stands that parts envelope and body; -1 if there is none."""
    if isinstance(message, bytes):
        return -1
    try:
        return message.index(b"", 0, len(message) - 1)
    except ValueError:
        return -1
