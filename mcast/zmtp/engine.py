"""All ZMTP state of one TCP or IPC connection (RFC 37), and who gets which byte.

Owns greeting, handshake, traffic, heartbeats and the end of one connection. Invariants: nothing a
peer sends raises; before ``Ready`` no message and no subscription comes out, and none goes in;
after the end everything is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum, auto
from typing import Final

from mcast.kernel import Buffer, FrameError, Message
from mcast.zmtp.codec import FrameScanner, encode_command, encode_messages, joined
from mcast.zmtp.commands import (
    PING,
    PONG,
    SUBSCRIBE,
    build_command,
    build_error,
    read_ping_untrusted,
    split_untrusted,
)
from mcast.zmtp.counters import ZmtpCounters
from mcast.zmtp.curve import CurveClientHandshake, CurveServerHandshake, Dice
from mcast.zmtp.curve_traffic import CurveTraffic
from mcast.zmtp.events import (
    AuthNeeded,
    AuthStatus,
    Failed,
    Messages,
    Ready,
    ZmtpEvent,
)
from mcast.zmtp.failure import FailureReason, ZmtpError
from mcast.zmtp.greeting import GREETING_BYTES, build_greeting, read_greeting_untrusted
from mcast.zmtp.handshake import COMMAND_OVERHEAD_BYTES, Question, Step
from mcast.zmtp.heartbeat import NEVER, Heartbeat
from mcast.zmtp.mechanism import handshake_for
from mcast.zmtp.options import ZmtpOptions
from mcast.zmtp.topics import OWN_VERBS, PEER_VERBS, PeerTopics, check_topics, max_topic_bytes

__all__ = ["ZmtpEngine"]

_COMMAND_BYTES: Final = 512
"""Longest command after the handshake, but for subscriptions (the longest that RFC 37 has is a
PING of 23; the threat model leaves unknown ones this)."""
_PONG_LIMIT: Final = 100
"""PONGs that may wait to be taken: a peer that asks and never reads costs no more."""
_PUBLISHERS: Final = frozenset({"PUB", "XPUB"})  # also take subscriptions as messages
_VERB_BYTES: Final = len(build_command(SUBSCRIBE))


class _State(Enum):
    GREETING = auto()
    HANDSHAKE = auto()
    READY = auto()
    OVER = auto()


class ZmtpEngine:
    """One connection without I/O: give it bytes and the time, take bytes and events.

    Four kinds of method, as in every engine here:

    - ``handle_bytes``, ``handle_eof`` and ``handle_timeout`` take input;
    - ``send``, ``subscribe``, ``cancel``, ``answer_auth`` and ``close`` are commands;
    - ``take_transmits`` and ``take_events`` drain the output, in order;
    - ``next_timeout_ns``, ``is_ready`` and ``is_over`` look and change nothing.

    After any input or command call ``take_events`` and ``next_timeout_ns``, and ``take_transmits``
    when all that was taken before is written. ``now_ns`` is monotonic and never goes back. Not
    thread-safe: the shell has one thread or lock.
    """

    def __init__(self, options: ZmtpOptions, *, dice: Dice, now_ns: int, address: str = "") -> None:
        """The connection stands. ``dice`` gives unpredictable bytes, which CURVE's keys are made
        of; ``address`` is the peer's, for ``AuthNeeded``."""
        self._options = options
        self._address = address
        self._state = _State.GREETING
        self._greeting = b""
        self._version = (3, 1)
        self._handshake = handshake_for(options, dice)
        self._has_heard = False  # a command
        self._question: Question | None = None
        self._denial: AuthStatus | None = None
        self._user_id = ""
        self._auth_metadata: dict[str, bytes] = {}
        limit = options.max_metadata_bytes + COMMAND_OVERHEAD_BYTES
        self._scanner: FrameScanner | CurveTraffic = FrameScanner(0, 0, limit)
        self._encode_messages = encode_messages
        self._encode_command = encode_command
        self._add_verb, self._remove_verb = PEER_VERBS.get(options.socket_type, (b"", b""))
        self._topics = PeerTopics(options)
        self._inbox: list[Message] = []
        self._events: list[ZmtpEvent] = []
        security = options.security
        self._transmits = [build_greeting(security.mechanism, security.is_server)]
        self._pong_count = 0
        self._handshake_due_ns = now_ns + options.handshake_ivl_ns
        self._heartbeat = Heartbeat(options)
        self.counters = ZmtpCounters()
        """What happened so far."""

    # Looks.

    @property
    def is_ready(self) -> bool:
        """True from ``Ready`` to the end."""
        return self._state is _State.READY

    @property
    def is_over(self) -> bool:
        """True after ``Failed`` or ``close``: everything is ignored from now on."""
        return self._state is _State.OVER

    @property
    def next_timeout_ns(self) -> int:
        """When to call ``handle_timeout``; 2^62 means never."""
        return min(self._handshake_due_ns, self._heartbeat.next_timeout_ns)

    @property
    def plain_scanner(self) -> FrameScanner | None:
        """The scanner, for somebody else to read for it from now on; None where that cannot be.

        It has to be ready, without CURVE, and a type whose peers do not subscribe by messages.
        Whoever reads calls ``handle_stop`` for what is no message, and ``handle_received``.
        """
        scanner = self._scanner
        if self._state is not _State.READY or not isinstance(scanner, FrameScanner):
            return None
        return None if self._options.socket_type in _PUBLISHERS else scanner

    @property
    def is_plain(self) -> bool:
        """True if frames may be put between what the engine sends: it is ready, without CURVE."""
        return self._state is _State.READY and isinstance(self._scanner, FrameScanner)

    @property
    def has_transmits(self) -> bool:
        """True if ``take_transmits`` would give something."""
        return bool(self._transmits)

    @property
    def peer_topics(self) -> Collection[bytes]:
        """What the peer is subscribed to, or has joined; good until the next input."""
        return self._topics.topics

    # Input.

    def handle_bytes(self, data: Buffer, now_ns: int) -> None:
        """Take what the peer sent next, cut anywhere. Nothing of ``data`` is kept but copies."""
        if self._state is _State.OVER or not len(data):
            return
        self.counters.bytes_received += len(data)
        self._heartbeat.handle_bytes(now_ns)
        try:
            try:
                if self._state is _State.GREETING:
                    data = self._greet_untrusted(data)
                self._scanner.feed(data)
                self._scan_untrusted(now_ns)
            finally:
                # What came before an error is delivered, as if it had come alone.
                self._flush_untrusted()
        except FrameError as error:
            self._fail(error)

    def handle_stop(self, stop: bytes | FrameError, now_ns: int) -> None:
        """Take what somebody who reads for the engine came upon: a command, or an error."""
        if self._state is not _State.READY:
            return
        self._heartbeat.handle_bytes(now_ns)
        try:
            if not isinstance(stop, bytes):
                raise stop
            self._handle_command_untrusted(stop, now_ns)
        except FrameError as error:
            self._fail(error)

    def handle_received(self, size_bytes: int, message_count: int, now_ns: int) -> None:
        """Take note that somebody who reads for the engine got so much since the last call."""
        if self._state is not _State.READY:
            return
        self.counters.bytes_received += size_bytes
        self.counters.messages_received += message_count  # also those behind a command, read before
        if size_bytes:
            self._heartbeat.handle_bytes(now_ns)

    def handle_presence(self, now_ns: int) -> None:
        """Bytes of the peer wait, and are not read for now: it is alive."""
        if self._state is not _State.OVER:
            self._heartbeat.handle_bytes(now_ns)

    def handle_eof(self) -> None:
        """The peer closed the connection, or it broke."""
        if self._state is not _State.OVER:
            where = "" if self._state is _State.READY else " in the handshake"
            self._fail(
                ZmtpError(FailureReason.PEER_CLOSED, f"the peer closed the connection{where}")
            )

    def handle_timeout(self, now_ns: int) -> None:
        """Do whatever is due. Safe early, late and twice."""
        try:
            if now_ns >= self._handshake_due_ns:
                raise ZmtpError(
                    FailureReason.HANDSHAKE_TIMEOUT,
                    f"the handshake took over {self._options.handshake_ivl_ns / 1e9:g} s",
                )
            ping = self._heartbeat.handle_timeout(now_ns)
        except ZmtpError as error:
            self._fail(error)
            return
        if ping is not None:
            self._send_command(ping)
            self.counters.pings_sent += 1

    # Commands.

    def send(self, messages: Iterable[Message]) -> None:
        """Queue whole messages, each ``bytes`` or a tuple of parts; large parts are not copied.

        After the end they are dropped. Raises ``RuntimeError`` before ``Ready``, ``TypeError`` or
        ``ValueError`` for what is no message; nothing of the batch is queued then.
        """
        if self._may_send():
            batch = list(messages)
            self._transmits += self._encode_messages(batch)
            self.counters.messages_sent += len(batch)

    def subscribe(self, *topics: bytes) -> None:
        """Ask for messages that begin with each topic; a DISH joins each group.

        As commands, or as messages to a 3.0 peer. After the end nothing happens. Raises
        ``PatternError`` unless this is a SUB, XSUB or DISH, ``RuntimeError`` before ``Ready``,
        ``MessageTooLongError`` over ``max_topic_bytes`` or 255 bytes of a group.
        """
        self._send_topics(True, topics)

    def cancel(self, *topics: bytes) -> None:
        """Take back ``subscribe``, whose docstring holds here, too."""
        self._send_topics(False, topics)

    def answer_auth(
        self,
        status: AuthStatus,
        now_ns: int,
        *,
        user_id: str = "",
        metadata: Mapping[str, bytes] | None = None,
    ) -> None:
        """The answer to ``AuthNeeded``: go on with the handshake, or end the connection.

        ``user_id`` and ``metadata`` come back in ``Ready``. Ignored when the connection has ended
        since. Raises ``RuntimeError`` if nothing was asked, or it was answered, ``ValueError`` for
        a number that is no ``AuthStatus``.
        """
        status = AuthStatus(status)
        if self._state is _State.OVER:
            return
        question, self._question = self._question, None
        if question is None:
            raise RuntimeError("answer_auth without an AuthNeeded that waits for it")
        if status is AuthStatus.ALLOWED:
            self._user_id = user_id
            self._auth_metadata = dict(metadata or {})
            self._reply(question.allow(), now_ns)
        elif status is AuthStatus.TEMPORARY or self._has_heard:
            self._fail(self._refusal(status))
        else:
            # A libzmq that gets ERROR before it has sent its READY hangs: wait for that.
            self._denial = status

    def close(self, reason: str = "") -> None:
        """End the connection: no more input, no ``Failed``; what was queued may still be taken.

        With a ``reason``, one word, a peer in a handshake is told by ERROR not to come back, if
        this side may say so and the peer has spoken. After ``Ready`` ZMTP has no such word. Raises
        ``ValueError`` unless it is up to 255 visible characters of ASCII, as RFC 37 wants.
        """
        if len(reason) > 255 or not reason.isascii() or not reason.isprintable() or " " in reason:
            raise ValueError(f"reason is up to 255 visible characters of ASCII, not {reason!r}")
        if reason:
            self._tell(reason)
        self._end()

    # Output.

    def take_transmits(self) -> list[bytes]:
        """Buffers to be written in this order, few enough for one gathering write in most cases.

        Take them when all taken before are written: what a peer can make the engine queue by
        asking is bounded until then. After ``Failed`` there may be a last word.
        """
        if not self._transmits:
            return []
        transmits, self._transmits = joined(self._transmits), []
        self._pong_count = 0
        return transmits

    def take_events(self) -> list[ZmtpEvent]:
        """What happened, in stream order."""
        events, self._events = self._events, []
        return events

    # Greeting and handshake.

    def _greet_untrusted(self, data: Buffer) -> bytes:
        """What is left of ``data`` behind the greeting."""
        came = self._greeting + data
        self._greeting = came[:GREETING_BYTES]
        version = read_greeting_untrusted(self._greeting, self._options.security.mechanism)
        if version is None:
            return b""
        self._version = version
        self._state = _State.HANDSHAKE
        self._send_plainly(self._handshake.start())
        self._ask()
        return came[GREETING_BYTES:]

    def _handle_handshake_untrusted(self, command: bytes, now_ns: int) -> None:
        self._has_heard = True
        if self._denial is not None:
            raise self._refusal(self._denial)
        self._reply(self._handshake.handle_untrusted(command), now_ns)

    def _reply(self, command: bytes | None, now_ns: int) -> None:
        self._send_plainly(command)
        if self._handshake.step is Step.DONE:
            self._begin_traffic(now_ns)
        else:
            self._ask()

    def _ask(self) -> None:
        """Pass on the handshake's question, if it has one that was not asked."""
        question, self._handshake.question = self._handshake.question, None
        if question is None:
            return
        self._question = question
        peer = self._handshake.peer
        self._events.append(
            AuthNeeded(
                mechanism=self._options.security.mechanism.decode(),
                address=self._address,
                domain=self._options.zap_domain,
                identity=b"" if peer is None else peer.identity,
                credentials=question.credentials,
            )
        )

    def _refusal(self, status: AuthStatus) -> ZmtpError:
        """Tell the peer, if it is to know, and what to fail with."""
        if status is not AuthStatus.TEMPORARY:
            self._tell(str(int(status)))
        return ZmtpError(FailureReason.REFUSED, f"the authenticator said {int(status)}", status)

    def _tell(self, reason: str) -> None:
        """Send ERROR, where that is this side's right and the peer can take it."""
        if self._state is _State.HANDSHAKE and self._has_heard and self._handshake.tells_error:
            self._send_plainly(build_error(reason.encode()))

    def _send_plainly(self, command: bytes | None) -> None:
        if command is not None:
            self._transmits.append(encode_command(command))

    def _begin_traffic(self, now_ns: int) -> None:
        options, scanner, peer = self._options, self._scanner, self._handshake.peer
        assert peer is not None
        assert isinstance(scanner, FrameScanner)
        scanner.max_message_bytes = options.max_message_bytes
        scanner.max_part_count = options.max_part_count
        scanner.max_command_bytes = max(_COMMAND_BYTES, _VERB_BYTES + max_topic_bytes(options))
        if isinstance(self._handshake, CurveClientHandshake | CurveServerHandshake):
            self._scanner = traffic = self._handshake.traffic(scanner)
            self._encode_messages = traffic.encode_messages
            self._encode_command = traffic.encode_command
        self._state = _State.READY
        self._handshake_due_ns = NEVER
        # A libzmq DISH answers PING, and then hangs up.
        if peer.socket_type != "DISH":
            self._heartbeat.start(now_ns)
        self._events.append(
            Ready(
                version=self._version,
                mechanism=options.security.mechanism.decode(),
                socket_type=peer.socket_type,
                identity=peer.identity,
                properties=peer.properties,
                user_id=self._user_id,
                auth_metadata=self._auth_metadata,
            )
        )

    # Traffic.

    def _scan_untrusted(self, now_ns: int) -> None:
        while (command := self._scanner.scan_untrusted(self._inbox)) is not None:
            if self._state is _State.READY:
                self._handle_command_untrusted(command, now_ns)
            else:
                self._handle_handshake_untrusted(command, now_ns)

    def _handle_command_untrusted(self, command: bytes, now_ns: int) -> None:
        if self._add_verb:
            # A message may be a subscription, and one too many: then nothing behind it counts.
            self._flush_untrusted()
        name, data = split_untrusted(command)
        if name == PING:
            self._answer_ping_untrusted(data, now_ns)
        elif name in (self._add_verb, self._remove_verb):
            self._change_topic_untrusted(name == self._add_verb, data)
        elif name != PONG:
            self.counters.commands_ignored += 1

    def _answer_ping_untrusted(self, data: bytes, now_ns: int) -> None:
        ttl_ns, context = read_ping_untrusted(data)
        self.counters.pings_received += 1
        self._heartbeat.handle_ping(ttl_ns, now_ns)
        if self._pong_count < _PONG_LIMIT:
            self._pong_count += 1
            self._send_command(build_command(PONG, context))
        else:
            self.counters.pings_unanswered += 1

    def _flush_untrusted(self) -> None:
        """Make events of the messages that came; some are subscriptions, in 3.0's form."""
        messages, self._inbox = self._inbox, []
        if self._options.socket_type in _PUBLISHERS:
            start = 0
            for index, message in enumerate(messages):
                if isinstance(message, bytes) and message[:1] in (b"\x00", b"\x01"):
                    self._deliver(messages[start:index])
                    start = index + 1
                    self._change_topic_untrusted(message[0] == 1, message[1:])
            messages = messages[start:]
        self._deliver(messages)

    def _deliver(self, messages: list[Message]) -> None:
        if messages:
            self.counters.messages_received += len(messages)
            self._events.append(Messages(messages))

    def _change_topic_untrusted(self, is_new: bool, topic: bytes) -> None:
        if is_new:
            self._topics.add_untrusted(topic, self._events)
        elif not self._topics.remove(topic, self._events):
            self.counters.cancels_ignored += 1

    def _send_topics(self, is_new: bool, topics: tuple[bytes, ...]) -> None:
        options = self._options
        check_topics(topics, options)
        if not self._may_send():
            return
        if options.socket_type != "DISH" and self._version < (3, 1):
            mark = b"\x01" if is_new else b"\x00"
            self._transmits += self._encode_messages([mark + topic for topic in topics])
            return
        verb = OWN_VERBS[options.socket_type][not is_new]
        for topic in topics:
            self._send_command(build_command(verb, topic))

    def _send_command(self, body: bytes) -> None:
        self._transmits.append(self._encode_command(body))

    def _may_send(self) -> bool:
        if self._state in (_State.GREETING, _State.HANDSHAKE):
            raise RuntimeError("nothing can be sent before Ready")
        return self._state is _State.READY

    # The end.

    def _fail(self, error: FrameError) -> None:
        reason = FailureReason(error.reason)
        if reason is FailureReason.SOCKET_TYPE:
            self._tell(reason.value)
        self._end()
        status = error.status if isinstance(error, ZmtpError) else 0
        self._events.append(Failed(reason, error.text, status))

    def _end(self) -> None:
        self._state = _State.OVER
        self._handshake_due_ns = NEVER
        self._heartbeat.stop()
        self._scanner = FrameScanner(0, 0, 0)  # with what it still held
