"""PUB: from ``send`` into the transmit windows of its endpoints.

Invariant: a message goes to all endpoints or to none, and ``send`` returns when it is in their
windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from threading import RLock
from typing import Final, cast

from mcast.endpoint import MulticastEndpoint
from mcast.errors import Again, ClosedError, MessageTooLongError, OptionError, PatternError
from mcast.kernel import Buffer, Message, StreamGate, longest_bytes
from mcast.options import SocketOptions
from mcast.runtime.deadline import Deadline
from mcast.runtime.links import MulticastLink
from mcast.runtime.loop import Loop
from mcast.runtime.peers import Peers, SocketKind
from mcast.runtime.queues import Waiters
from mcast.sockets.base import DONTWAIT, POLLOUT, SNDMORE, Socket, SocketType
from mcast.sockets.buffers import BytesLike, as_message, flat

__all__ = ["Pub"]

_FRAME_HEAD_BYTES: Final = 10


class Pub(Socket):
    """Publishes messages to everybody who hears its groups.

    When ``send`` returns, the message is in the transmit window of every endpoint, from where it
    is sent and repaired; nobody need have it. While the rate holds it up and ``sndhwm`` is reached,
    ``send`` blocks.
    """

    kind = SocketType.PUB
    _pollable = POLLOUT

    def __init__(self, loop: Loop, options: SocketOptions, *, owner: object = None) -> None:
        super().__init__(loop, options, owner=owner)
        self._parts: list[Buffer] = []
        self._stream_gate: StreamGate | None = None  # of the unicast side
        self._room = Waiters(loop.drive)
        self._turn = RLock()  # whoever has it sends to several endpoints

    def send(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        """Publish one part. With ``flags=SNDMORE`` the message goes on with the next call.

        ``flags=DONTWAIT`` is ``timeout=0``. Blocks up to ``timeout`` seconds (None: for ever).
        When the last part's call raises Again, the parts before it are kept: repeat that call.
        Threads that share the socket use ``send_multipart`` instead of SNDMORE.

        Raises: Again, MessageTooLongError, PatternError before any ``connect``, ClosedError;
        TypeError for a str.
        """
        self._send_one(data, flags, timeout=timeout)

    def _send_one(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        if flags & SNDMORE:
            self._check()
            self._check_parts(len(self._parts) + 2)
            self._parts.append(bytes(flat(data)))
            self._find_short_way()
            return
        self._send([data], 0 if flags & DONTWAIT else timeout)

    def send_multipart(
        self, parts: Sequence[BytesLike], flags: int = 0, *, timeout: float | None = None
    ) -> None:
        """Publish one message of several parts, delivered whole or not at all.

        Parts of earlier calls with SNDMORE come first, and with SNDMORE the message goes on.

        Raises: as ``send``; OptionError if there is no part, or more than ``max_parts``.
        """
        if isinstance(parts, bytes | bytearray | memoryview | str):
            raise TypeError(f"parts is a sequence of parts, not one {type(parts).__name__}")
        if flags & SNDMORE:
            self._check()
            self._check_parts(len(self._parts) + len(parts) + 1)
            self._parts += [bytes(flat(part)) for part in parts]
            self._find_short_way()
            return
        self._send(parts, 0 if flags & DONTWAIT else timeout)

    def send_many(self, messages: Iterable[BytesLike], *, timeout: float | None = None) -> int:
        """Publish many messages of one part each, at the lowest cost per message.

        Returns how many were taken: all, unless ``timeout`` seconds ran out. Nothing is sent if
        one of them is too long.

        Raises: MessageTooLongError, PatternError before any ``connect``, ClosedError.
        """
        return self._send_batch(messages, timeout=timeout)

    def _send_batch(self, messages: Iterable[BytesLike], *, timeout: float | None = None) -> int:
        if self._parts:
            raise PatternError("a message is under way since send(..., SNDMORE); finish it first")
        if isinstance(messages, bytes | bytearray | memoryview | str):
            raise TypeError(f"messages is a series of messages, not one {type(messages).__name__}")
        # The kernel takes anything bytes-like; only its names for the types are fewer.
        batch = cast(Sequence[Buffer], messages if type(messages) is list else list(messages))
        links = self._open_links()
        if self._peers is not None:
            return self._send_batch_to_peers(batch, timeout)
        try:
            longest = longest_bytes(batch)
        except TypeError:
            batch = [flat(message) for message in batch]  # says what is wrong with which
            longest = longest_bytes(batch)
        self._check_size(longest, longest + _FRAME_HEAD_BYTES, links)
        if len(links) == 1:
            return links[0].send_many(batch, timeout)
        deadline = Deadline(timeout)
        for index, message in enumerate(batch):
            try:
                self._send([message], deadline.left)
            except Again:
                return index
        return len(batch)

    def _send_batch_to_peers(self, batch: Sequence[Buffer], timeout: float | None) -> int:
        assert self._peers is not None
        messages: list[Message] = [
            message if type(message) is bytes else bytes(flat(message)) for message in batch
        ]
        links = self._open_links()
        self._check_size(longest := longest_bytes(messages), longest + _FRAME_HEAD_BYTES, links)
        if not links:
            return self._peers.send_many(messages, timeout)
        deadline = Deadline(timeout)
        for index, message in enumerate(messages):
            try:
                self._send([cast(bytes, message)], deadline.left)
            except Again:
                return index
        return len(messages)

    def _send(self, data: Sequence[BytesLike], timeout: float | None) -> None:
        links = self._open_links()
        parts = [flat(part) for part in data]
        begun = self._parts
        if begun:
            parts = begun + parts
        self._check_parts(len(parts))
        size = sum(map(len, parts))
        if begun:
            self._parts = []
        stream_bytes = size + _FRAME_HEAD_BYTES * len(parts)
        try:
            self._check_size(size, stream_bytes, links)
            if len(links) == 1:
                links[0].send(parts, timeout)
            elif links:
                self._send_to_all(links, parts, stream_bytes, timeout)
            if self._peers is not None:
                # It waits only with xpub_nodrop, which no multicast endpoint allows.
                self._peers.send(as_message(parts), timeout)
        except (Again, OptionError):  # also a negative timeout
            self._parts = begun
            raise
        finally:
            if begun:
                self._find_short_way()

    def _find_short_way(self) -> None:
        """Make ``send`` one call of compiled code if there is one way to go and no part waits."""
        with self._lock:
            links = list(self._links.values())
            for link in links:
                link.close_gate()
            self._loop.wake_before(0)  # which has to look after what the gates left
            self.__dict__.pop("send", None)
            self.__dict__.pop("send_many", None)
            if self._stream_gate is not None:
                self._stream_gate.hold = bool(links or self._parts or self._error is not None)
                self._stream_gate.max_message_bytes = self._options.max_msg_size
                self._stream_gate.message_limit = self._options.sndhwm
                if not links:
                    self.__dict__["send"] = self._stream_gate.send
                    self.__dict__["send_many"] = self._stream_gate.send_many
            alone = len(links) == 1 and self._peers is None
            if alone and not self._parts and self._error is None:
                gate = links[0].open_gate(
                    self._send_one, self._send_batch, self._options.max_msg_size
                )
                self.__dict__["send"] = gate.send
                self.__dict__["send_many"] = gate.send_many

    def _options_changed(self) -> None:
        self._find_short_way()  # it knows max_msg_size

    def _send_to_all(
        self,
        links: list[MulticastLink],
        parts: Sequence[Buffer],
        stream_bytes: int,
        timeout: float | None,
    ) -> None:
        """All or none: to every endpoint as soon as each has room for this message."""

        def attempt() -> bool:
            with self._turn:  # nobody else may take the room that was seen
                if not all(link.has_room_for(stream_bytes) for link in links):
                    return False
                for link in links:
                    self._send_to(link, parts)
            return True

        if not self._room.wait(attempt, timeout):
            raise Again("an endpoint's queue is full; it drains at its rate")

    def _send_to(self, link: MulticastLink, parts: Sequence[Buffer]) -> None:
        try:
            # Does not wait, unless the system stopped taking packets this very moment: then for
            # that, since other endpoints have the message by now.
            link.send(parts, None)
        except ClosedError:
            self._check()
            if link in list(self._links.values()):
                raise  # it failed; an endpoint that was left meanwhile needs nothing more

    def _check_parts(self, count: int) -> None:
        if not 1 <= count <= self._options.max_parts:
            raise OptionError(f"a message has 1 to {self._options.max_parts} parts, not {count}")

    def _open_links(self) -> list[MulticastLink]:
        self._check()
        links = list(self._links.values())
        if not links and self._peers is None:
            raise PatternError("nowhere to send: connect the socket first")
        return links

    def _check_size(self, size: int, stream_bytes: int, links: list[MulticastLink]) -> None:
        if size > self._options.max_msg_size:
            raise MessageTooLongError(
                f"message of {size} bytes; max_msg_size is {self._options.max_msg_size}"
            )
        if not links:
            return
        window = min(link.max_stream_bytes for link in links)
        if stream_bytes > window:
            raise MessageTooLongError(
                f"message of {size} bytes; half the transmit window takes {window}: raise txw_bytes"
            )

    def _open(self, endpoint: MulticastEndpoint) -> MulticastLink:
        return MulticastLink(endpoint, self._options, self._loop, room=self._room)

    def _make_peers(self) -> Peers:
        peers = Peers(
            SocketKind.PUB, self._options, self._loop, readable=self._room, writable=self._room
        )
        self._stream_gate = peers.make_gate(self._send_one, self._send_batch)
        peers.ways.use(self._stream_gate, None)
        return peers

    @property
    def _waiters(self) -> Waiters:
        return self._room

    def _is_ready(self) -> bool:
        if self._peers is not None and not self._peers.is_writable:
            return self.closed
        return self.closed or all(link.has_room() for link in list(self._links.values()))

    def _closed(self) -> None:
        if self._stream_gate is not None:
            self._stream_gate.hold = True
        self._room.close()

    def _abandon(self) -> None:
        super()._abandon()
        if self._stream_gate is not None:
            self._stream_gate.hold = True
        self._turn = RLock()
        self._room.abandon()
