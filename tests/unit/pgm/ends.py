"""One engine alone, packets in and out by hand, and a clock that moves when the test says so."""

from __future__ import annotations

from random import Random
from typing import TypeVar

from mcast.events import Event, Lost
from mcast.kernel import Message, TopicFilter
from mcast.options import SocketOptions
from mcast.pgm import Messages, PgmEngine, Transmit
from mcast.pgm.events import GROUP
from mcast.pgm.packet import Nak, Packet, Spm, parse_untrusted
from tests.unit.pgm.packets import SOURCE, TSI
from tests.unit.pgm.wire import GROUP_ADDRESS, MS, PORT

RECEIVER = bytes((10, 77, 0, 2))
OTHER = bytes((10, 77, 0, 3))
T0 = 1_000_000 * MS

Kind = TypeVar("Kind")


class End:
    """What a subscriber and a publisher under test have in common."""

    def __init__(self, engine: PgmEngine) -> None:
        self.engine = engine
        self.now_ns = T0
        self.stream: list[Message | Event] = []
        """Messages and events, in order."""
        self.transmits: list[tuple[int, Transmit]] = []
        """Each with the time it was taken out, in ns since ``T0``."""
        self.drain()

    def hear(self, *raws: bytes, address: bytes = SOURCE, to_group: bool = True) -> None:
        """Each as a datagram of its own."""
        for raw in raws:
            self.engine.handle_datagrams(
                self.now_ns, address, memoryview(raw), max(1, len(raw)), to_group
            )
            self.drain()

    def hear_run(self, *raws: bytes, address: bytes = SOURCE) -> None:
        """All as one run of the first one's size, as UDP GRO delivers them."""
        run = b"".join(raws)
        self.engine.handle_datagrams(self.now_ns, address, memoryview(run), len(raws[0]), True)
        self.drain()

    def run(self, seconds: float) -> None:
        """Let time pass, and do what falls due in it."""
        end_ns = self.now_ns + round(seconds * 1e9)
        while self.engine.next_timeout_ns <= end_ns:
            self.now_ns = max(self.now_ns, self.engine.next_timeout_ns)
            self.engine.handle_timeout(self.now_ns)
            self.drain()
        self.now_ns = end_ns

    def drain(self) -> None:
        # Copied now: a repair rewrites the window that the transmit is a view of.
        for item in self.engine.take_transmits():
            self.transmits.append((self.now_ns - T0, item._replace(data=bytes(item.data))))
        for event in self.engine.take_events():
            if isinstance(event, Messages):
                self.stream += event.messages
            else:
                self.stream.append(event)

    @property
    def messages(self) -> list[Message]:
        return [item for item in self.stream if isinstance(item, bytes | tuple)]

    @property
    def events(self) -> list[Event]:
        return [item for item in self.stream if not isinstance(item, bytes | tuple)]

    @property
    def losses(self) -> list[tuple[int, int]]:
        return [(event.first, event.last) for event in self.events if isinstance(event, Lost)]

    @property
    def stats(self) -> dict[str, int | float]:
        return self.engine.stats()

    def sent(self, kind: int, destination: bytes | None = None) -> list[tuple[int, Packet]]:
        """Packets of a type, each with the time since ``T0`` in ns."""
        return [
            (time_ns, packet)
            for time_ns, transmit in self.transmits
            for packet in parsed(transmit)
            if packet.header.type == kind and destination in (None, transmit.destination)
        ]

    def raw(self, kind: int) -> list[bytes]:
        return [
            raw for _, transmit in self.transmits for raw in packets_of(transmit) if raw[4] == kind
        ]

    def forget(self) -> None:
        """Start counting what is sent from here."""
        self.transmits.clear()


def packets_of(transmit: Transmit) -> list[bytes]:
    data = bytes(transmit.data)
    step = transmit.segment_bytes
    return [data[start : start + step] for start in range(0, len(data), step)]


def parsed(transmit: Transmit) -> list[Packet]:
    return [parse_untrusted(raw) for raw in packets_of(transmit)]


def named(packet: Packet) -> list[int]:
    """The numbers of a NAK or NCF."""
    assert isinstance(packet.body, Nak)
    return [packet.body.sqn, *packet.options.nak_list]


def window(packet: Packet) -> tuple[int, int]:
    """Trail and lead of an SPM."""
    assert isinstance(packet.body, Spm)
    return packet.body.trail, packet.body.lead


def subscriber(*topics: bytes, **options: object) -> End:
    """An engine that follows every source of the group."""
    return End(
        PgmEngine(
            address=RECEIVER,
            group=GROUP_ADDRESS,
            port=PORT,
            options=SocketOptions(**options),  # type: ignore[arg-type]
            dice=Random(1),
            now_ns=T0,
            topic_filter=TopicFilter(topics or (b"",)),
        )
    )


class Publisher(End):
    """An engine with a source, ``TSI`` at ``SOURCE``."""

    def send(self, *messages: bytes | tuple[bytes, ...]) -> None:
        for message in messages:
            parts = message if isinstance(message, tuple) else (message,)
            assert self.engine.send(self.now_ns, parts), "the publisher is full"
            self.drain()

    def send_apart(self, *messages: bytes | tuple[bytes, ...]) -> None:
        """Each in packets of its own."""
        for message in messages:
            self.send(message)
            self.engine.flush(self.now_ns)
            self.drain()

    @property
    def window(self) -> tuple[int, int]:
        assert self.engine.source is not None
        return self.engine.source.window


def publisher(**options: object) -> Publisher:
    options.setdefault("txw_bytes", 8 << 20)  # the default is 64 MiB, and Python clears them
    return Publisher(
        PgmEngine(
            address=SOURCE,
            group=GROUP_ADDRESS,
            port=PORT,
            options=SocketOptions(**options),  # type: ignore[arg-type]
            dice=Random(1),
            now_ns=T0,
            source_tsi=TSI,
        )
    )


__all__ = [
    "GROUP",
    "GROUP_ADDRESS",
    "MS",
    "OTHER",
    "PORT",
    "RECEIVER",
    "SOURCE",
    "T0",
    "TSI",
    "End",
    "Publisher",
    "named",
    "packets_of",
    "parsed",
    "publisher",
    "subscriber",
    "window",
]
