"""A LAN segment of this process: hosts with real engines, seeded faults, and a clock that jumps.

Owns the virtual time, the packets under way and the order of all that happens. Invariant: the same
seed and the same calls give the same run, packet for packet; ``trace_hash`` tells two runs apart.

Nothing here opens a socket, starts a thread or reads a clock: a test of ten seconds takes
milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from ipaddress import ip_address
from random import Random
from typing import Final
from zlib import crc32

from mcast.events import Event, Lost
from mcast.options import OptionValue, SocketOptions
from mcast.pgm import Messages, Transmit
from mcast.pgm.events import GROUP
from mcast.pgm.packet import (
    NAK,
    NCF,
    ODATA,
    RDATA,
    SPM,
    TYPE_NAMES,
    Nak,
    PacketError,
    parse_untrusted,
)
from mcast.testing.hosts import Datagrams, Host, Publisher, Subscriber
from mcast.testing.laws import Law, Violation
from mcast.testing.stream import Stream

__all__ = ["Network"]

_START_NS: Final = 1_000_000_000_000
_NEVER: Final = 1 << 62
_TXW_BYTES: Final = 1 << 20
"""Transmit window where nothing else is asked: to make one of 64 MiB takes longer than a test."""
_FOR_PUBLISHERS: Final = frozenset({NAK, 0x09, 0x0C})
_PORT: Final = 5555
_GROUP: Final = bytes((239, 192, 1, 1))

Entry = tuple[int, int, Host | None, Datagrams | Callable[[], None] | None]
Trace = Callable[[str], None]


class Network:
    """One segment. Make hosts, send, ``run``, then ``check``; the laws are checked on the way."""

    def __init__(self, seed: int = 0, *, trace: Trace | None = None) -> None:
        self.dice = Random(seed)
        """All chance comes from here."""
        self.now_ns = _START_NS
        self.group = _GROUP
        self.port = _PORT
        self.hosts: list[Host] = []
        self.runs = True
        """Datagrams of equal size that leave together arrive as one run, as UDP GRO makes them."""
        self.trace_hash = 0
        self.trace = trace
        """Told of everything that happens, a line each."""
        self.packet_count = 0
        """Packets that arrived somewhere."""
        self._queue: list[Entry] = []
        self._order = 0
        self._cuts: set[tuple[Host, Host]] = set()
        self._streams: dict[str, list[Stream]] = {}
        self._by_address: dict[bytes, list[Host]] = {}

    # Hosts.

    def publisher(
        self,
        name: str = "",
        *,
        address: bytes | None = None,
        tsi: bytes | None = None,
        **options: OptionValue,
    ) -> Publisher:
        """A new host that publishes; ``options`` are those of a socket."""
        options.setdefault("txw_bytes", _TXW_BYTES)
        name = name or f"pub{len(self.hosts)}"
        host = Publisher(
            self,
            name,
            address or self._address(),
            SocketOptions().with_changes(options),
            tsi or self.new_tsi(),
            Random(self.dice.getrandbits(64)),
        )
        self._add(host)
        return host

    def subscriber(self, *topics: bytes, name: str = "", **options: OptionValue) -> Subscriber:
        """A new host that follows every publisher; without ``topics``, all that it sends."""
        name = name or f"sub{len(self.hosts)}"
        host = Subscriber(
            self,
            name,
            self._address(),
            SocketOptions().with_changes(options),
            topics,
            Random(self.dice.getrandbits(64)),
        )
        self._add(host)
        return host

    @property
    def publishers(self) -> list[Publisher]:
        """All of them, gone or not."""
        return [host for host in self.hosts if isinstance(host, Publisher)]

    @property
    def subscribers(self) -> list[Subscriber]:
        """All of them, gone or not."""
        return [host for host in self.hosts if isinstance(host, Subscriber)]

    def new_tsi(self) -> bytes:
        """An identity that nobody has."""
        return self.dice.randbytes(6) + self.dice.randrange(1, 5000).to_bytes(2, "big")

    def streams_of(self, name: str) -> list[Stream]:
        """The lives of a TSI, oldest first."""
        return self._streams.get(name, [])

    def _address(self) -> bytes:
        return bytes((10, 77, *divmod(len(self.hosts) + 1, 256)))

    def _add(self, host: Host) -> None:
        self.hosts.append(host)
        self._by_address.setdefault(host.address, []).append(host)
        self.schedule(host)

    # Faults of the segment.

    def cut(self, sender: Host, receiver: Host) -> None:
        """Nothing gets from one to the other any more; the way back stays."""
        self._cuts.add((sender, receiver))

    def part(self, some: list[Host], others: list[Host]) -> None:
        """Nothing gets between two sets of hosts."""
        for a in some:
            for b in others:
                self.cut(a, b)
                self.cut(b, a)

    def join(self, sender: Host, receiver: Host) -> None:
        """Undo ``cut``."""
        self._cuts.discard((sender, receiver))

    def heal(self) -> None:
        """No faults any more: packets arrive at once and in order, and whoever sleeps wakes up."""
        self._cuts.clear()
        for host in self.hosts:
            for conditions in (host.inbound, host.outbound):
                delay_ns = conditions.delay_ns
                type(conditions).__init__(conditions, delay_ns=delay_ns)
            host.resume()

    # Time.

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        """Have something done at a time of this network."""
        self._push(time_ns, None, action)

    def run(self, seconds: float) -> None:
        """Let time pass. Raises ``Violation``."""
        self.run_until(self.now_ns + round(seconds * 1e9))

    def run_until(self, end_ns: int, stop: Callable[[], bool] | None = None) -> None:
        """Let time pass until ``end_ns``, or until ``stop()``, asked after each happening."""
        queue = self._queue
        while queue and queue[0][0] <= end_ns:
            due_ns, _, host, what = heappop(queue)
            self.now_ns = max(self.now_ns, due_ns)
            if host is None:
                assert callable(what)
                self._do(None, what)
            elif what is None:
                if due_ns != host.scheduled_ns:
                    continue  # it has another appointment by now
                host.scheduled_ns = _NEVER
                self._do(host, host.wake)
                self.schedule(host)
            else:
                assert isinstance(what, tuple)
                self._arrive(host, what)
            if stop is not None and stop():
                return
        self.now_ns = max(self.now_ns, end_ns)

    def check(self) -> None:
        """Everything that was sent must be accounted for by now. Raises ``Violation``."""
        for subscriber in self.subscribers:
            if subscriber.is_up:
                subscriber.ledger.settle(all_sent=True)
                subscriber.check_limits()

    def inject(
        self, receiver: Host, packet: bytes, address: bytes, *, to_group: bool = False
    ) -> None:
        """A packet that nobody here sent arrives, as if from ``address``."""
        self._launch(0, receiver, address, packet, len(packet), to_group, False)

    # What hosts call.

    def schedule(self, host: Host) -> None:
        """Look again when a host wants to be woken."""
        due_ns = host.next_ns
        if due_ns < host.scheduled_ns:
            host.scheduled_ns = due_ns
            self._push(max(due_ns, self.now_ns), host, None)
            host.scheduled_ns = max(due_ns, self.now_ns)

    def publish(self, host: Publisher, stream: Stream) -> None:
        """A publisher begins a life."""
        lives = self._streams.setdefault(stream.name, [])
        lives.append(stream)
        if self.trace is not None:
            self._note(f"{host.name} begins life {stream.life} as {stream.name}")

    def carry(self, sender: Host, transmit: Transmit) -> None:
        """Bring what a host sends to whom it is for."""
        data = bytes(transmit.data)
        size = transmit.segment_bytes
        packets = (
            [data]
            if len(data) <= size
            else [data[start : start + size] for start in range(0, len(data), size)]
        )
        for packet in packets:
            sender.transmitted(packet)
            if self.trace is not None:
                to = "group" if transmit.destination == GROUP else _text(transmit.destination)
                self._note(f"{sender.name} -> {to}: {_describe(packet)}")
        outbound = sender.outbound
        fates = [(0, packet, True) for packet in packets]
        if not outbound.is_clear:
            fates = [
                fate
                for packet in packets
                for fate in outbound.carry(self.dice, self.now_ns, packet)
            ]
        for receiver in self._receivers(sender, transmit, packets[0][4]):
            if (sender, receiver) not in self._cuts:
                self._carry_to(receiver, sender.address, fates, size, transmit.destination == GROUP)

    def tell(self, host: Host, event: Messages | Event) -> None:
        """A subscriber reports."""
        if isinstance(event, Messages):
            for message in event.messages:
                self.trace_hash = crc32(
                    message if isinstance(message, bytes) else b"\0".join(message), self.trace_hash
                )
            if self.trace is not None:
                self._note(
                    f"{host.name}: {len(event.messages)} messages {event.first}-{event.last}"
                )
        else:
            self.trace_hash = crc32(repr(event).encode(), self.trace_hash)
            if self.trace is not None:
                mark = "  <-- LOST" if isinstance(event, Lost) else ""
                self._note(f"{host.name}: {event}{mark}")

    def _receivers(self, sender: Host, transmit: Transmit, kind: int) -> list[Host]:
        if transmit.destination != GROUP:
            # Of several sockets at one address the system gives a unicast packet to the last one.
            return [h for h in self._by_address.get(transmit.destination, ()) if h.is_up][-1:]
        hosts = self.hosts if transmit.hops else self._by_address[sender.address]
        # What a publisher has no use for never reaches it, which saves time.
        return [
            host
            for host in hosts
            if host is not sender
            and host.is_up
            and (isinstance(host, Subscriber) or kind in _FOR_PUBLISHERS)
        ]

    def _carry_to(
        self,
        receiver: Host,
        address: bytes,
        fates: list[tuple[int, bytes, bool]],
        size: int,
        to_group: bool,
    ) -> None:
        inbound = receiver.inbound
        if inbound.is_clear:
            base_ns = inbound.delay_ns
            arrivals = [(base_ns + delay, packet, intact) for delay, packet, intact in fates]
        else:
            arrivals = [
                (outer + delay, arriving, intact and unharmed)
                for outer, packet, intact in fates
                for delay, arriving, unharmed in inbound.carry(self.dice, self.now_ns, packet)
            ]
        run: list[bytes] = []
        run_delay = -1
        for delay, packet, intact in arrivals:
            is_first = delay != run_delay or not intact or len(packet) > size or not self.runs
            if run and (is_first or len(run[-1]) < size):
                self._launch(run_delay, receiver, address, b"".join(run), size, to_group, True)
                run = []
            if not intact:
                self._launch(delay, receiver, address, packet, len(packet), to_group, False)
                continue
            run.append(packet)
            run_delay = delay
        if run:
            self._launch(run_delay, receiver, address, b"".join(run), size, to_group, True)

    def _launch(
        self,
        delay_ns: int,
        receiver: Host,
        address: bytes,
        data: bytes,
        size: int,
        to_group: bool,
        intact: bool,
    ) -> None:
        datagrams = (address, data, max(1, min(size, len(data))), to_group, intact)
        self._push(self.now_ns + delay_ns, receiver, datagrams)

    def _arrive(self, host: Host, datagrams: Datagrams) -> None:
        data = datagrams[1]
        self.packet_count += -(-len(data) // datagrams[2])
        self.trace_hash = crc32(data, self.trace_hash ^ self.now_ns & 0xFFFFFFFF)
        if self.trace is not None and host.is_up:
            harmed = "" if datagrams[4] else "damaged "
            state = " (asleep)" if host.is_paused else ""
            for start in range(0, len(data), datagrams[2]):
                packet = data[start : start + datagrams[2]]
                self._note(f"    {harmed}{_describe(packet)} -> {host.name}{state}")
        self._do(host, lambda: host.receive(datagrams))

    def _do(self, host: Host | None, work: Callable[[], None]) -> None:
        try:
            work()
        except Violation:
            raise
        except Exception as error:
            who = "a command" if host is None else host.name
            raise Violation(Law.CRASH, f"{who}: {type(error).__name__}: {error}") from error

    def _push(
        self, due_ns: int, host: Host | None, what: Datagrams | Callable[[], None] | None
    ) -> None:
        self._order += 1
        heappush(self._queue, (due_ns, self._order, host, what))

    def _note(self, line: str) -> None:
        assert self.trace is not None
        self.trace(f"{(self.now_ns - _START_NS) / 1e6:11.3f} ms  {line}")


def _text(address: bytes) -> str:
    return str(ip_address(address))


def _describe(packet: bytes) -> str:
    """A packet in a few words."""
    try:
        parsed = parse_untrusted(packet)
    except PacketError as error:
        return f"{len(packet)} bytes, not to be read ({error.reason})"
    kind, body = parsed.header.type, parsed.body
    name = TYPE_NAMES[kind]
    if kind in (ODATA, RDATA):
        return f"{name} {body.sqn} trail {body.trail} {len(packet)} bytes"  # type: ignore[union-attr]
    if kind == SPM:
        fin = " FIN" if parsed.options.fin else ""
        return f"{name} {body.sqn} window {body.trail}-{body.lead}{fin}"  # type: ignore[union-attr]
    if kind in (NAK, NCF) and isinstance(body, Nak):
        return f"{name} {', '.join(map(str, (body.sqn, *parsed.options.nak_list)))}"
    return name
