"""PUSH, PULL, REQ, REP, DEALER, ROUTER, PAIR, XPUB, XSUB, RADIO and DISH.

What a type does with its peers is in ``mcast.patterns``; these classes are the calls. Invariants: a
message goes out whole or not at all; what was fetched from the pattern ahead of the application is
in the inbox, in order, and nothing overtakes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from mcast.errors import Again, MessageTooLongError, OptionError, PatternError
from mcast.kernel import Buffer, Inbox, Message, ReceiveGate, longest_bytes, parts_of
from mcast.options import SocketOptions
from mcast.runtime.deadline import Deadline
from mcast.runtime.loop import Loop
from mcast.runtime.peers import Peers, SocketKind
from mcast.runtime.queues import Waiters, wait_at
from mcast.sockets.base import DONTWAIT, POLLIN, POLLOUT, SNDMORE, Socket, SocketType
from mcast.sockets.buffers import BytesLike, as_message, flat, topic_bytes
from mcast.stats import Snapshot

__all__ = [
    "Dealer",
    "Dish",
    "Pair",
    "PatternSocket",
    "Pull",
    "Push",
    "Radio",
    "Rep",
    "Req",
    "Router",
    "Xpub",
    "Xsub",
]

_LEAST_HWM: Final = 128
"""Below this ``recv`` fetches each message alone: what was fetched ahead does not count there."""


class PatternSocket(Socket):
    """A socket over tcp://, ipc:// and inproc://, of any type but PUB and SUB."""

    _pollable = POLLIN | POLLOUT
    _address_parts = 0
    """Parts in front of a message that stay here."""
    _fetches_ahead = True
    """False where ``recv`` means more than the next message."""

    def __init__(self, loop: Loop, options: SocketOptions, *, owner: object = None) -> None:
        super().__init__(loop, options, owner=owner)
        self._readable = Waiters(loop.drive)
        self._writable = Waiters(loop.drive)
        self._inbox = Inbox()
        self._inbox.baton = loop.baton
        self._rest: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._has_fd = False
        self._peers = self._make_peers()
        # One call of compiled code each, where the way is short; else it calls what is given here.
        # Nothing in the loop keeps the gates, which keep this socket alive.
        if self._pollable & POLLIN:
            self.__dict__["recv"] = ReceiveGate(self._inbox, self._recv).recv
        self._gate = self._peers.make_gate(self._send, self._send_many)
        self._peers.ways.use(self._gate, self._inbox if self._pollable & POLLIN else None)
        if self._pollable & POLLOUT and self._peers.pattern.passes_on:
            self.__dict__["send"] = self._gate.send
            self.__dict__["send_many"] = self._gate.send_many
        self._options_changed()

    def _make_peers(self) -> Peers:
        return Peers(
            SocketKind(self.kind.name),
            self._options,
            self._loop,
            readable=self._readable,
            writable=self._writable,
        )

    def _unicast(self) -> Peers:
        assert self._peers is not None
        return self._peers

    # Sending.

    def send(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        """Send one part; with ``flags=SNDMORE`` the message goes on with the next call.

        ``flags=DONTWAIT`` is ``timeout=0``. Blocks up to ``timeout`` seconds (None: for ever)
        while no peer has room, where the type waits for one. When the last part's call raises
        Again, the parts before it are kept: repeat that call.

        Raises: Again, MessageTooLongError, PatternError if it is not this socket's turn to send,
        UnroutableError, ClosedError; TypeError for a str.
        """
        self._send(data, flags, timeout=timeout)

    def _send(self, data: BytesLike, flags: int = 0, *, timeout: float | None = None) -> None:
        self.send_multipart((data,), flags, timeout=timeout)

    def send_multipart(
        self, parts: Sequence[BytesLike], flags: int = 0, *, timeout: float | None = None
    ) -> None:
        """Send one message of several parts, delivered whole or not at all. Else as ``send``."""
        if isinstance(parts, bytes | bytearray | memoryview | str):
            raise TypeError(f"parts is a sequence of parts, not one {type(parts).__name__}")
        peers = self._sending()
        begun = self._parts
        if not begun and len(parts) == 1 and not flags & SNDMORE:
            part = flat(parts[0])
            if len(part) > self._options.max_msg_size:
                self._refuse_size(len(part))
            peers.send(bytes(part), 0 if flags & DONTWAIT else timeout)
            return
        whole = [*begun, *(bytes(flat(part)) for part in parts)]
        more = bool(flags & SNDMORE)
        if not 1 <= len(whole) + more <= self._options.max_parts:
            raise OptionError(
                f"a message has 1 to {self._options.max_parts} parts, not {len(whole) + more}"
            )
        self._check_size(whole)
        if more:
            self._parts = whole
            self._gate.hold = True
            return
        peers.send(as_message(whole), 0 if flags & DONTWAIT else timeout)
        self._parts = []
        self._gate.hold = self.closed

    def send_many(self, messages: Iterable[BytesLike], *, timeout: float | None = None) -> int:
        """Send many messages of one part each; how many, all unless ``timeout`` seconds ran out.

        Raises: as ``send``; nothing is sent if one of them is too long.
        """
        return self._send_many(messages, timeout=timeout)

    def _send_many(self, messages: Iterable[BytesLike], *, timeout: float | None = None) -> int:
        if self._parts:
            raise PatternError("a message is under way since send(..., SNDMORE); finish it first")
        if isinstance(messages, bytes | bytearray | memoryview | str):
            raise TypeError(f"messages is a series of messages, not one {type(messages).__name__}")
        peers = self._sending()
        batch: list[Message] = [
            message if type(message) is bytes else bytes(flat(message)) for message in messages
        ]
        if (longest := longest_bytes(batch)) > self._options.max_msg_size:
            self._refuse_size(longest)
        return peers.send_many(batch, timeout)

    def send_many_multipart(
        self, messages: Iterable[Sequence[BytesLike]], *, timeout: float | None = None
    ) -> int:
        """As ``send_many``, each message a sequence of parts."""
        if self._parts:
            raise PatternError("a message is under way since send(..., SNDMORE); finish it first")
        peers = self._sending()
        batch: list[Message] = []
        for parts in messages:
            whole = [flat(part) for part in parts]
            if not 1 <= len(whole) <= self._options.max_parts:
                raise OptionError(
                    f"a message has 1 to {self._options.max_parts} parts, not {len(whole)}"
                )
            self._check_size(whole)
            batch.append(as_message(whole))
        return peers.send_many(batch, timeout)

    def _sending(self) -> Peers:
        self._check()
        if not self._pollable & POLLOUT:
            self._refuse("send")
        return self._unicast()

    def _check_size(self, parts: Sequence[Buffer]) -> None:
        size = sum(map(len, parts[self._address_parts :]))
        if size > self._options.max_msg_size:
            self._refuse_size(size)

    def _refuse_size(self, size: int) -> None:
        raise MessageTooLongError(
            f"message of {size} bytes; max_msg_size is {self._options.max_msg_size}"
        )

    def join(self, group: BytesLike | str) -> None:
        """See ``Dish.join``. Raises: PatternError for other types."""
        self._refuse("join groups", group)

    def leave(self, group: BytesLike | str) -> None:
        """See ``Dish.leave``. Raises: PatternError for other types."""
        self._refuse("join groups", group)

    # Receiving.

    def recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        """The next part: of the message under way, else the first of the next message.

        Blocks up to ``timeout`` seconds (None: for ever); ``flags=DONTWAIT`` is ``timeout=0``.
        ``rcvmore`` tells whether the message goes on. Threads that share the socket use
        ``recv_multipart`` where messages have parts.

        Raises: Again, PatternError if it is not this socket's turn to receive, ClosedError.
        """
        return self._recv(flags, timeout=timeout)

    def _recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        self._check()
        while self._rest:
            try:
                part = self._rest.popleft()
            except IndexError:  # another thread was faster
                break
            self._hold()
            return part
        message = self._get_many(1, 0 if flags & DONTWAIT else timeout)[0]
        if isinstance(message, bytes):
            return message
        self._rest.extend(message[1:])
        self._hold()
        return message[0]

    def recv_multipart(self, flags: int = 0, *, timeout: float | None = None) -> list[bytes]:
        """The next message whole, as the list of its parts; after ``recv``, the parts left over.

        Raises: as ``recv``.
        """
        self._check()
        if self._rest and (rest := self._take_rest()):
            return rest
        message = self._get_many(1, 0 if flags & DONTWAIT else timeout)[0]
        return [message] if isinstance(message, bytes) else list(message)

    def recv_many(self, count: int, *, timeout: float | None = None) -> list[bytes]:
        """The parts of 1 to ``count`` messages, in order. Waits for the first message only.

        Raises: as ``recv``.
        """
        return parts_of(self._get_at_least_one(count, timeout))

    def recv_many_multipart(self, count: int, *, timeout: float | None = None) -> list[list[bytes]]:
        """1 to ``count`` messages, each as the list of its parts. Waits for the first only.

        Raises: as ``recv``.
        """
        return [
            [message] if isinstance(message, bytes) else list(message)
            for message in self._get_at_least_one(count, timeout)
        ]

    @property
    def rcvmore(self) -> bool:
        """True if the message that ``recv`` began has more parts."""
        return bool(self._rest)

    def _get_at_least_one(self, count: int, timeout: float | None) -> list[Message]:
        self._check()
        if count < 1:
            raise OptionError(f"count is 1 or more, not {count}")
        if self._rest and (rest := self._take_rest()):
            return [tuple(rest)]
        return self._get_many(count, timeout)

    def _get_many(self, count: int, timeout: float | None) -> list[Message]:
        if not self._pollable & POLLIN:
            self._refuse("receive")
        deadline = Deadline(timeout)
        try:
            while not (taken := self._fetch(count)):
                left = deadline.left
                if left == 0 or not wait_at(self._inbox, self._readable, self._can_receive, left):
                    raise Again(f"no message within {timeout} s")
                self._check()
        finally:
            if self._has_fd:
                self._readable.refresh()
            if self._writable.has_descriptor:
                self._writable.refresh()
        return taken

    def _fetch(self, count: int) -> list[Message]:
        """What the inbox has, else what the pattern has, and some more into the inbox."""
        taken = self._inbox.get_many(count)
        if taken:
            return taken
        return self._unicast().recv_many(count, self._inbox, fetches_ahead=self._ahead)

    def _take_rest(self) -> list[bytes]:
        taken: list[bytes] = []
        while self._rest:
            try:
                taken.append(self._rest.popleft())
            except IndexError:  # another thread was faster
                break
        self._hold()
        return taken

    def _hold(self) -> None:
        """No short way while parts are left over, or a descriptor has to be kept right."""
        self._inbox.hold = bool(self._rest) or self._has_fd or self.closed
        if self._has_fd:
            self._readable.refresh()

    def _options_changed(self) -> None:
        options = self._options
        self._ahead = self._fetches_ahead and not options.conflate and options.rcvhwm >= _LEAST_HWM
        self._inbox.limit = options.rcvhwm
        self._gate.max_message_bytes = options.max_msg_size
        self._gate.message_limit = options.sndhwm

    # Waiting.

    def fileno(self) -> int:
        """As ``Socket.fileno``: readable while messages wait, of a socket that only sends while
        one may be sent."""
        self._check_descriptor()
        return self._descriptors(POLLIN if self._pollable & POLLIN else POLLOUT)[0]

    def _descriptors(self, flags: int) -> list[int]:
        found = []
        if flags & self._pollable & POLLIN:
            self._has_fd = True
            self._hold()
            found.append(self._readable.fileno(self._can_receive))
        if flags & self._pollable & POLLOUT:
            found.append(self._writable.fileno(self._can_send))
        return found

    def _can_receive(self) -> bool:
        if self._rest or len(self._inbox) or self.closed:
            return True
        return self._unicast().is_readable

    def _can_send(self) -> bool:
        return self.closed or self._unicast().is_writable

    def _events_now(self) -> int:
        held = POLLIN if self._pollable & POLLIN and self._can_receive() else 0
        return held | (POLLOUT if self._pollable & POLLOUT and self._can_send() else 0)

    def _waiters_for(self, flag: int) -> Waiters:
        return self._readable if flag == POLLIN else self._writable

    @property
    def _waiters(self) -> Waiters:
        return self._readable if self._pollable & POLLIN else self._writable

    def _is_ready(self) -> bool:
        return bool(self._events_now())

    def stats(self) -> Snapshot:
        """All counters; ``docs/reference/counters.md`` has the list."""
        self._check()
        return {**self._unicast().stats(), "queued": len(self._inbox)}

    # The end.

    def _closed(self) -> None:
        self._inbox.hold = self._gate.hold = True
        self._inbox.clear()
        self._readable.close()
        self._writable.close()

    def _abandon(self) -> None:
        super()._abandon()
        self._inbox.hold = self._gate.hold = True
        self._readable.abandon()
        self._writable.abandon()


class Push(PatternSocket):
    """Sends each message to the next PULL that has room; waits when none has."""

    kind = SocketType.PUSH
    _pollable = POLLOUT


class Pull(PatternSocket):
    """Receives from each PUSH in turn."""

    kind = SocketType.PULL
    _pollable = POLLIN


class Pair(PatternSocket):
    """Sends to and receives from its one peer."""

    kind = SocketType.PAIR


class Dealer(PatternSocket):
    """Sends to each peer that has room in turn, receives from each in turn."""

    kind = SocketType.DEALER


class Router(PatternSocket):
    """Receives ``[routing id, ...]`` from each peer in turn; sends the same to whom it names."""

    kind = SocketType.ROUTER
    _address_parts = 1


class Req(PatternSocket):
    """Sends a request to the next peer in turn, then receives that peer's reply."""

    kind = SocketType.REQ
    _fetches_ahead = False


class Rep(PatternSocket):
    """Receives a request from each peer in turn, then sends the reply."""

    kind = SocketType.REP
    _fetches_ahead = False


class Xpub(PatternSocket):
    """As PUB, and receives what peers subscribe to: 1 and the topic, or 0 and the topic."""

    kind = SocketType.XPUB
    _fetches_ahead = False

    def subscribe(self, topic: BytesLike | str = b"") -> None:
        """With ``xpub_manual``: subscribe the peer that the last ``recv`` came from."""
        self._check()
        self._unicast().subscribe(topic_bytes(topic), True)

    def unsubscribe(self, topic: BytesLike | str = b"") -> None:
        """With ``xpub_manual``: end a subscription of the peer that the last ``recv`` came from."""
        self._check()
        self._unicast().subscribe(topic_bytes(topic), False)


class Xsub(PatternSocket):
    """As SUB, and subscribes by messages: 1 and the topic, 0 and the topic to cancel."""

    kind = SocketType.XSUB

    def subscribe(self, topic: BytesLike | str = b"") -> None:
        """The same as sending 1 and the topic."""
        self.send(b"\1" + topic_bytes(topic))

    def unsubscribe(self, topic: BytesLike | str = b"") -> None:
        """The same as sending 0 and the topic."""
        self.send(b"\0" + topic_bytes(topic))


class Radio(PatternSocket):
    """Sends ``[group, body]`` to each DISH that joined the group."""

    kind = SocketType.RADIO
    _pollable = POLLOUT

    def publish(self, group: BytesLike | str, body: BytesLike) -> None:
        """The same as ``send_multipart([group, body])``."""
        self.send_multipart([topic_bytes(group), body])


class Dish(PatternSocket):
    """Receives ``[group, body]`` of the groups it joined."""

    kind = SocketType.DISH
    _pollable = POLLIN

    def join(self, group: BytesLike | str) -> None:
        """Receive messages of the group, up to 255 bytes without zero. Raises PatternError."""
        self._check()
        self._unicast().join(topic_bytes(group), True)

    def leave(self, group: BytesLike | str) -> None:
        """End ``join``. Raises PatternError if it was not joined."""
        self._check()
        self._unicast().join(topic_bytes(group), False)
