"""The hosts of the simulated network: a real engine each, a clock, a socket buffer, and lives.

Owns what a shell owns: when the engine is called and what becomes of its output. A host can pause
(its packets wait in a bounded buffer), crash and start again, and its clock can jump ahead.
Invariant: after each call of an engine its output is taken, checked and passed on before anything
else happens, as the engine's contract asks.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from mcast.events import Event, Lost
from mcast.kernel import Message, TopicFilter
from mcast.options import DEFAULT_MAXTPDU_BYTES, SocketOptions
from mcast.pgm import Messages, PgmEngine
from mcast.pgm.source import tsdu_bytes
from mcast.testing.conditions import Conditions
from mcast.testing.laws import Law, Violation
from mcast.testing.ledger import Ledger
from mcast.testing.stream import Stream

if TYPE_CHECKING:
    from mcast.testing.network import Network

__all__ = ["Host", "Publisher", "Subscriber"]

Datagrams = tuple[bytes, bytes, int, bool, bool]
"""Packed source address, a run, its segment_bytes, sent to the group, unharmed."""

_NEVER: Final = 1 << 62
_LAN_DELAY_NS: Final = 100_000
_STUCK_LIMIT: Final = 50
"""Calls of ``handle_timeout`` at one time after which its timer does not move."""
_DATA_HEADER_BYTES: Final = 24
_TRUESIZE_BYTES: Final = 768
"""What a datagram costs in a socket's buffer beside its bytes (Linux, skb)."""
_NEWS_NS: Final = 500_000
"""After so long an ``Intake`` has its owner look at new holes."""


class Host:
    """One machine with one endpoint. Made by ``Network``; all times are in ns."""

    engine: PgmEngine

    def __init__(self, network: Network, name: str, address: bytes) -> None:
        self.network = network
        self.name = name
        """As reports call it."""
        self.address = address
        """Packed."""
        self.inbound = Conditions(delay_ns=_LAN_DELAY_NS)
        """What happens to packets on their way to it."""
        self.outbound = Conditions()
        """What happens to packets that it sends, for all receivers alike."""
        self.is_up = True
        """It runs, or sleeps; False after ``crash`` or the end of ``close``."""
        self.is_paused = False
        """It does nothing, and what arrives waits in its socket's buffer."""
        self.rcvbuf_bytes = 4 << 20
        """Size of that buffer; what does not fit is lost and counted in ``overflow_count``."""
        self.overflow_count = 0
        self.offset_ns = 0
        self.scheduled_ns = _NEVER
        self._jumps: list[tuple[int, int]] = []
        self._backlog: deque[Datagrams] = deque()
        self._backlog_bytes = 0
        self._stuck_count = 0
        self._stuck_ns = -1

    @property
    def local_ns(self) -> int:
        """The time by its own clock."""
        return self.network.now_ns + self.offset_ns

    def local_at(self, network_ns: int) -> int:
        """What its clock showed at a time of the network's."""
        offset = 0
        for at_ns, to_offset in self._jumps:
            if at_ns <= network_ns:
                offset = to_offset
        return network_ns + offset

    @property
    def next_ns(self) -> int:
        """When the network is to call ``wake``."""
        if self.is_paused or not self.is_up:
            return _NEVER
        return self.engine.next_timeout_ns - self.offset_ns

    # Faults.

    def pause(self) -> None:
        """Stop working, as SIGSTOP does."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on: first what has waited, or first what is due, as the dice say."""
        if not self.is_paused:
            return
        self.is_paused = False
        if not self.is_up:
            return
        if self.network.dice.random() < 0.5:
            self.wake()
        while self._backlog and self.is_up:
            datagrams = self._backlog.popleft()
            self._backlog_bytes -= len(datagrams[1])
            self._handle(*datagrams)
        self._backlog_bytes = 0
        self.wake()

    def jump(self, by_ns: int) -> None:
        """Its clock goes ahead all at once, as after a suspension."""
        self.offset_ns += by_ns
        self._jumps.append((self.network.now_ns, self.offset_ns))
        self.network.schedule(self)

    def crash(self) -> None:
        """Gone without a word."""
        self.is_up = False
        self._backlog.clear()
        self._backlog_bytes = 0

    # What the network calls.

    def receive(self, datagrams: Datagrams) -> None:
        """A datagram, or a run of them, arrives."""
        if not self.is_up:
            return
        if not self.is_paused:
            self._handle(*datagrams)
            return
        cost = len(datagrams[1]) + _TRUESIZE_BYTES
        if self._backlog_bytes + cost > self.rcvbuf_bytes:
            self.overflow_count += 1
            return
        self._backlog_bytes += cost
        self._backlog.append(datagrams)

    def wake(self) -> None:
        """Do what is due."""
        if self.is_paused or not self.is_up:
            return
        now_ns = self.local_ns
        self._stuck_count = self._stuck_count + 1 if now_ns == self._stuck_ns else 0
        self._stuck_ns = now_ns
        if self._stuck_count > _STUCK_LIMIT:
            raise Violation(
                Law.RESOURCES,
                f"{self.name}: after {_STUCK_LIMIT} calls at one time something is still due",
            )
        self._due(now_ns)
        self.pump()

    def _due(self, now_ns: int) -> None:
        self.engine.handle_timeout(now_ns)

    def pump(self) -> None:
        """Take the engine's output."""
        self._transmit()
        for event in self.engine.take_events():
            self._take(event)
        self.network.schedule(self)

    def _transmit(self) -> None:
        for transmit in self.engine.take_transmits():
            self.network.carry(self, transmit)

    def transmitted(self, packet: bytes) -> None:
        """The network shows each packet before it carries it."""

    def _handle(
        self, address: bytes, data: bytes, segment_bytes: int, to_group: bool, _: bool
    ) -> None:
        self.engine.handle_datagrams(
            self.local_ns, address, memoryview(data), segment_bytes, to_group
        )
        self.pump()

    def _take(self, event: Messages | Event) -> None:
        raise Violation(Law.CRASH, f"{self.name}, a publisher, hears {event}")


class Publisher(Host):
    """A host that publishes."""

    def __init__(
        self,
        network: Network,
        name: str,
        address: bytes,
        options: SocketOptions,
        tsi: bytes,
        dice: Random,
    ) -> None:
        super().__init__(network, name, address)
        self.options = options
        self.lives = 0
        self._dice = dice
        self._waiting: deque[tuple[bytes, ...]] = deque()
        self.start(tsi)

    def start(self, tsi: bytes) -> None:
        """Begin a life under this identity, after ``crash``."""
        options = self.options
        tpdu = options.multicast_maxtpdu or DEFAULT_MAXTPDU_BYTES
        slot_bytes = tsdu_bytes(tpdu, self.address) + _DATA_HEADER_BYTES
        self.stream = Stream(
            tsi,
            self.address,
            self.lives,
            options,
            slot_bytes,
            self.local_ns,
        )
        """What this life has sent."""
        self.lives += 1
        self.is_up = True
        self._waiting.clear()
        self.engine = PgmEngine(
            address=self.address,
            group=self.network.group,
            port=self.network.port,
            options=options,
            dice=self._dice,
            now_ns=self.local_ns,
            source_tsi=tsi,
        )
        assert self.engine.source is not None
        self.source = self.engine.source
        self.network.publish(self, self.stream)
        self.pump()

    def send(self, *messages: bytes | Sequence[bytes]) -> None:
        """Publish messages, each ``bytes`` or its parts; what is too much now waits for room."""
        for message in messages:
            parts = (message,) if isinstance(message, bytes) else tuple(message)
            self._waiting.append(parts)
        if not self.is_paused and self.is_up:
            self._offer()
            self.pump()

    @property
    def waiting_count(self) -> int:
        """Messages that the engine has no room for yet."""
        return len(self._waiting)

    def flush(self) -> None:
        """Let go of the open packet."""
        if not self.is_paused and self.is_up:
            self.engine.flush(self.local_ns)
            self.pump()

    def close(self, linger_ns: int = 1_000_000_000) -> None:
        """Announce the end when all has left, stay for repairs, and be gone."""
        if not self.is_up or self.stream.is_closed:
            return
        self.stream.is_closed = True
        self._waiting.clear()
        self.engine.close(self.local_ns)
        self.pump()
        life = self.lives
        self.network.at(
            self.network.now_ns + linger_ns, lambda: self.crash() if self.lives == life else None
        )

    def crash(self) -> None:
        """Gone without a word."""
        super().crash()
        self.stream.is_over = True
        self._waiting.clear()

    def wake(self) -> None:
        """Do what is due, and send what has waited for it."""
        super().wake()
        if self._waiting and not self.is_paused and self.is_up:
            self._offer()
            self.pump()

    def transmitted(self, packet: bytes) -> None:
        """The network shows each packet before it carries it."""
        self.stream.send(self.local_ns, packet, self.source.window[1], self.network.now_ns)

    def _offer(self) -> None:
        waiting, now_ns = self._waiting, self.local_ns
        while waiting:
            taken = self.engine.send(now_ns, waiting[0])
            if taken:
                self.stream.take(waiting.popleft())
            self._transmit()  # what leaves is a view of a window that moves on
            if not taken:
                break


class Subscriber(Host):
    """A host that subscribes, with a ledger of all that it hears."""

    def __init__(
        self,
        network: Network,
        name: str,
        address: bytes,
        options: SocketOptions,
        topics: Sequence[bytes],
        dice: Random,
    ) -> None:
        super().__init__(network, name, address)
        self.options = options
        self.topics = tuple(topics) or (b"",)
        self.uses_intake = True
        """Plain packets take the short way that sockets take."""
        self.reader: Random | None = None
        """With these dice its application takes messages only now and then."""
        self.messages: list[Message] = []
        """All that was delivered, in order, over all lives."""
        self.events: list[Event] = []
        """All that was reported, likewise."""
        self.stream: list[Message | Event] = []
        """Both, as they came."""
        self.on_stream: Callable[[Messages | Event], None] | None = None
        """Also told of whatever comes."""
        self._dice = dice
        self._heard_ns: dict[bytes, int] = {}
        self._news_ns = _NEVER
        self.start()

    def jump(self, by_ns: int) -> None:
        """Its clock goes ahead all at once, as after a suspension."""
        self.ledger.may_hear_twice = True
        super().jump(by_ns)

    def start(self) -> None:
        """Begin a life, after ``crash``."""
        self.is_up = True
        self._heard_ns.clear()
        self._news_ns = _NEVER
        self.ledger = Ledger(
            self.name,
            self.options,
            self.topics,
            self.network.streams_of,
            self._age_ns,
            self._silence_ns,
        )
        """The account of this life."""
        self.engine = PgmEngine(
            address=self.address,
            group=self.network.group,
            port=self.network.port,
            options=self.options,
            dice=self._dice,
            now_ns=self.local_ns,
            topic_filter=TopicFilter(self.topics),
        )
        self.pump()

    @property
    def lost_count(self) -> int:
        """Packets reported lost, over all lives."""
        return sum(
            event.count
            for event in self.events
            if isinstance(event, Lost) and not event.reason.counts_messages
        )

    @property
    def is_idle(self) -> bool:
        """True if no stream is held up by anything."""
        engine = self.engine
        holes = any(slots.hole_count for slots in engine.streams.values())
        return len(engine.streams) == engine.stats()["peers"] and not holes

    @property
    def next_ns(self) -> int:
        """When the network is to call ``wake``."""
        return min(super().next_ns, self._news_at_ns)

    @property
    def _news_at_ns(self) -> int:
        if self.is_paused or not self.is_up or self._news_ns == _NEVER:
            return _NEVER
        return self._news_ns - self.offset_ns

    def _due(self, now_ns: int) -> None:
        super()._due(now_ns)
        self._catch_up(now_ns)

    def _catch_up(self, now_ns: int) -> None:
        self._news_ns = _NEVER
        room = self.engine.room
        room.message_count = self._room()
        room.is_pulled = self.reader is not None and self.uses_intake and self.reader.random() < 0.5
        self.engine.catch_up(now_ns)
        if room.is_pulled:
            self._news_ns = now_ns + _NEWS_NS
            self._pull()

    def _room(self) -> int:
        """Messages that there is room for now."""
        if self.reader is None or self.reader.random() < 0.2:
            return _NEVER
        return self.reader.choice((0, 0, 0, 1, 5))

    def _pull(self) -> None:
        """The application takes what is ready in the plain streams' windows."""
        for event in self.engine.take_events():
            self._take(event)
        for key, slots in self.engine.streams.items():
            room = self._room()
            decoder = slots.decoder
            odd_count = decoder.too_long_count + decoder.malformed_count
            first = slots.undecoded
            messages: list[Message] = []
            if room and slots.ready_count:
                slots.release(messages, room)
            if messages:
                self._take(Messages(self.engine.name_of(key), messages, first, slots.undecoded - 1))
            if decoder.too_long_count + decoder.malformed_count != odd_count:
                slots.odd_from = first
                slots.has_news = True

    def check_limits(self) -> None:
        """L7: no window holds more than it may."""
        limit = self.options.rxw_bytes * 5 // 4 + 65_536
        for receiver in self.engine._peers.values():
            held = receiver.slots.stored_bytes
            if held > limit:
                raise Violation(Law.RESOURCES, f"{self.name} holds {held} bytes, {limit} allowed")

    def _handle(
        self, address: bytes, data: bytes, segment_bytes: int, to_group: bool, intact: bool
    ) -> None:
        now_ns = self.local_ns
        view = memoryview(data)
        if intact:
            self._heard_ns[address + data[8:14] + data[:2]] = now_ns
        start = self._take_in(now_ns, address, data, view, segment_bytes) if self.uses_intake else 0
        if start >= 0:
            self.engine.handle_datagrams(now_ns, address, view, segment_bytes, to_group, start)
            self._catch_up(now_ns)
        self.pump()

    def _take_in(
        self, now_ns: int, address: bytes, data: bytes, view: memoryview, segment_bytes: int
    ) -> int:
        """What ``kernel.Intake`` does with a run; where the rest begins, -1 if there is none."""
        if len(data) < 16:
            return 0
        slots = self.engine.streams.get(address + data[8:14] + data[:2])
        if slots is None:
            return 0
        decoder = slots.decoder
        odd_count = decoder.too_long_count + decoder.malformed_count
        first = slots.undecoded
        messages: list[Message] = []
        start = slots.absorb(view, 0, segment_bytes, messages)
        if start:
            slots.heard_ns = now_ns
        if self.reader is None or slots.stored_bytes > slots.limit_bytes // 2:
            slots.release(messages, sys.maxsize)
        elif room := self._room():
            slots.release(messages, room)
        if messages:
            name = self.engine.name_of(address + data[8:14] + data[:2])
            self._take(Messages(name, messages, first, slots.undecoded - 1))
        if slots.has_news or slots.ready_count:
            self._news_ns = min(self._news_ns, now_ns + _NEWS_NS)
        if decoder.too_long_count + decoder.malformed_count != odd_count:
            slots.odd_from = first
            return start
        return -1 if start == len(data) else start

    def _take(self, event: Messages | Event) -> None:
        if isinstance(event, Messages):
            self.messages += event.messages
            self.stream += event.messages
        else:
            self.events.append(event)
            self.stream.append(event)
        self.network.tell(self, event)
        if self.on_stream is not None:
            self.on_stream(event)
        self.ledger.enter(event, self.local_ns)

    def _age_ns(self, stream: Stream, sqn: int, now_ns: int) -> int:
        return now_ns - self.local_at(stream.network_ns[sqn - stream.first_sqn])

    def _silence_ns(self, stream: Stream, now_ns: int) -> int:
        return now_ns - self._heard_ns.get(stream.address + stream.tsi, -_NEVER)
