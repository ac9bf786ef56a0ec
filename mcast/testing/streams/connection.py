"""One end of a simulated connection: a real ``ZmtpEngine`` between a wire and a real ``Pattern``.

Owns what the shell owns in ``mcast.runtime.connections``, in the same order of calls: bytes go in
as they come, the pattern's messages go out when all before them is written, and a pipe whose
pattern has no room is not read. Invariant: whatever passes between engine and pattern is told to
the lanes, which check it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mcast.kernel import FrameError, Message
from mcast.patterns import PeerInfo
from mcast.testing.laws import Law, Violation
from mcast.testing.streams.lanes import Lane
from mcast.zmtp import (
    AuthNeeded,
    AuthStatus,
    Cancelled,
    Failed,
    FailureReason,
    Messages,
    Ready,
    Subscribed,
    ZmtpEngine,
)

if TYPE_CHECKING:
    from mcast.testing.streams.node import Node
    from mcast.testing.streams.wire import Cable

__all__ = ["Connection"]

_MESSAGES_PER_WRITE: Final = 16
_NEVER: Final = 1 << 62
_LATE: Final = frozenset(
    {
        FailureReason.HEARTBEAT_TIMEOUT,
        FailureReason.TTL_EXPIRED,
        FailureReason.HANDSHAKE_TIMEOUT,
    }
)


class Connection:
    """One end, from the greeting on."""

    def __init__(self, node: Node, number: int, cable: Cable, *, dials: bool) -> None:
        self.node = node
        self.number = number
        """The pattern's number for it."""
        self.cable = cable
        self.dials = dials
        self.is_attached = False
        self.is_over = False
        self.is_paused = False
        self.failed: Failed | None = None
        self.lane = Lane(self)
        """What this end sends."""
        self._pending = bytearray()
        self._armed_ns = _NEVER
        self._read_bytes = 0
        world = node.world
        self.engine = ZmtpEngine(
            node.zmtp_options, dice=node.dice.randbytes, now_ns=world.now_ns, address=node.name
        )

    def __repr__(self) -> str:
        return f"{self.node.name}/{self.number}"

    @property
    def other(self) -> Connection:
        """The other end."""
        first, second = self.cable.ends
        return second if self is first else first

    def start(self) -> None:
        """Both ends are there: say the greeting."""
        self.flush()
        self.arm()

    # Input.

    def handle_readable(self) -> None:
        """Bytes came, or the end."""
        world = self.node.world
        wire = self.cable.into(self)
        while not self.is_over and not self.is_paused:
            data = wire.read(world.dice.randrange(world.chunk_bytes) + 1)
            if not data:
                if wire.is_over:
                    self.engine.handle_eof()
                    self._take_events()
                break
            self._hear(data)
        self._go_on()

    def _hear(self, data: bytes) -> None:
        now_ns = self.node.world.now_ns
        self._read_bytes += len(data)
        scanner = self.engine.plain_scanner if self.node.reads_itself else None
        if scanner is None:
            self.engine.handle_bytes(data, now_ns)
        else:  # as the shell does where a socket has one peer
            size = len(data)
            stop: bytes | FrameError | None = b""
            scanner.feed(data)
            while isinstance(stop, bytes) and not self.engine.is_over:
                messages: list[Message] = []
                try:
                    stop = scanner.scan_untrusted(messages)
                except FrameError as error:
                    stop = error
                self._receive(messages)
                self.engine.handle_received(size, len(messages), now_ns)
                size = 0
                if stop is not None:
                    self.engine.handle_stop(stop, now_ns)
                    self._take_events()
        self._take_events()

    def _receive(self, messages: list[Message]) -> None:
        if messages:
            self._require_attached("messages")
            self.other.lane.arrive(messages)
            self.node.pattern.handle_messages(self.number, messages)

    def handle_writable(self) -> None:
        """There is room again."""
        if not self.is_over:
            self.flush()
            self._go_on()

    def handle_timeout(self) -> None:
        """The engine wanted to be woken, perhaps."""
        self._armed_ns = _NEVER
        if self.is_over:
            return
        now_ns = self.node.world.now_ns
        if self.is_paused and self.cable.into(self).arrived:
            self.engine.handle_presence(now_ns)
        self.engine.handle_timeout(now_ns)
        self._take_events()
        self._go_on()

    def resume(self) -> None:
        """The pattern has room again."""
        if self.is_paused:
            self.is_paused = False
            self.node.world.at(self.node.world.now_ns, self.handle_readable)

    def _go_on(self) -> None:
        if not self.is_over:
            self.flush()
        self.node.settle()
        self.arm()

    def arm(self) -> None:
        """Be woken when the engine wants to be."""
        due_ns = self.engine.next_timeout_ns
        if not self.is_over and due_ns < self._armed_ns:
            self._armed_ns = due_ns
            world = self.node.world
            world.at(max(due_ns, world.now_ns), self.handle_timeout)

    # Output.

    def flush(self) -> None:
        """Write what there is, as far as the system takes it."""
        engine, pattern = self.engine, self.node.pattern
        while not self.is_over:
            if self._pending:
                if not self._write():
                    return
                continue
            transmits = engine.take_transmits()
            if transmits:
                self._pending += b"".join(transmits)
                continue
            if not self.is_attached:
                return
            changes = pattern.take_subscriptions(self.number)
            for wanted, topic in changes:
                (engine.subscribe if wanted else engine.cancel)(topic)
                self.lane.change(wanted, topic)
            batch = pattern.take_outgoing(self.number, _MESSAGES_PER_WRITE)
            if batch:
                self.lane.send(batch)
                engine.send(batch)
            elif not changes:
                return

    def _write(self) -> bool:
        """True if the system took all of it."""
        cable = self.cable
        if cable.is_over:
            self._pending.clear()
            self._read_last()
            return False
        wire = cable.out_of(self)
        taken = wire.write(self._pending)
        del self._pending[:taken]
        if wire.cut_at is not None and wire.passed_bytes >= wire.cut_at:
            cable.snap(reset=cable.is_reset)
        return not self._pending

    def _read_last(self) -> None:
        """What the peer said before it left; then it is over."""
        wire = self.cable.into(self)
        while not self.is_over and (data := wire.read(1 << 16)):
            self._hear(data)
        if not self.is_over:
            self.engine.handle_eof()
            self._take_events()

    # What the engine says.

    def _take_events(self) -> None:
        pattern = self.node.pattern
        for event in self.engine.take_events():
            if self.is_over:
                raise Violation(Law.WIRE, f"{self}: {event} behind the last event")
            if isinstance(event, Messages):
                self._receive(event.messages)
            elif isinstance(event, Subscribed):
                self._require_attached("subscriptions")
                self.node.topics.setdefault(self.number, set()).update(event.topics)
                self.other.lane.heard(True, event.topics)
                pattern.handle_subscriptions(self.number, [(True, t) for t in event.topics])
            elif isinstance(event, Cancelled):
                self.node.topics.setdefault(self.number, set()).difference_update(event.topics)
                self.other.lane.heard(False, event.topics)
                pattern.handle_subscriptions(self.number, [(False, t) for t in event.topics])
            elif isinstance(event, AuthNeeded):
                world = self.node.world
                world.at(world.now_ns + world.dice.randrange(20_000_000), self._answer)
            elif isinstance(event, Ready):
                self.is_attached = True
                self.node.world.note(f"{self} is ready for {self.other}, {event.version}")
                info = PeerInfo(event.socket_type, event.identity)
                pattern.attach(self.number, info)
            else:
                self._fail(event)
        if self.is_attached and not self.is_over and not pattern.room_for(self.number):
            self.is_paused = True

    def _require_attached(self, what: str) -> None:
        if not self.is_attached:
            raise Violation(Law.WIRE, f"{self}: {what} came out before Ready")

    def _answer(self) -> None:
        if self.is_over:
            return
        world = self.node.world
        deny = world.dice.random() < world.denied
        status = AuthStatus.TEMPORARY if deny else AuthStatus.ALLOWED
        self.engine.answer_auth(status, world.now_ns)
        self._take_events()
        self._go_on()

    def _fail(self, failed: Failed) -> None:
        self.failed = failed
        reason = failed.reason
        fair = {FailureReason.PEER_CLOSED}
        if self.cable.is_late or self.cable.dead_ns or self.node.world.is_slow:
            fair |= _LATE
        if self.node.world.denied:
            fair.add(FailureReason.REFUSED)
        if reason not in fair and not self.cable.is_tainted and self.other.node.is_honest:
            raise Violation(Law.HONEST, f"{self} took honest {self.other} for bad: {failed}")
        if not self.cable.is_over:
            last_words = b"".join(self.engine.take_transmits())
            if last_words and not self._pending:
                self.cable.out_of(self).write(last_words)
        self.node.world.note(f"{self} is over: {failed.text}")
        self.end()

    def end(self) -> None:
        """Close the socket; the pattern keeps the pipe if it will be dialled again."""
        if self.is_over:
            return
        self.is_over = True
        self.engine.close()
        self.cable.close(self)
        self.node.lost(self)
        self.check_counters()

    def check_counters(self) -> None:
        """The engine has counted all that passed through it. Raises ``Violation``."""
        counters = self.engine.counters
        passed = (len(self.lane.sent), self.other.lane.arrived_count, self._read_bytes)
        counted = (counters.messages_sent, counters.messages_received, counters.bytes_received)
        if passed != counted:
            raise Violation(Law.LEDGER, f"{self} counts {counted}, there were {passed}")
