"""All PGM state behind one multicast endpoint: a local ``Source``, a ``Receiver`` per remote one.

Owns the table of peers and who gets which packet. Invariant: a datagram never raises; it is
handled, or dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final

from mcast.kernel import Buffer, ReceiveSlots, TokenBucket, TopicFilter
from mcast.options import SocketOptions
from mcast.pgm.events import GROUP, EngineEvent, Transmit
from mcast.pgm.nak import NakBudget
from mcast.pgm.packet import (
    HEADER_BYTES,
    NAK,
    NCF,
    NNAK,
    ODATA,
    RDATA,
    SPM,
    SPMR,
    Data,
    Nak,
    Packet,
    PacketError,
    Spm,
    parse_untrusted,
    tsi_of,
    tsi_text,
)
from mcast.pgm.receiver import Receiver, Room
from mcast.pgm.source import Source
from mcast.pgm.sqn import SQN_MASK
from mcast.stats import Histogram, PgmCounters, Snapshot

__all__ = ["PgmEngine"]

_NEVER: Final = 1 << 62
_HALF_SPACE: Final = 1 << 31
_JOIN_LIMIT: Final = 1 << 16
"""OPT_JOIN may offer a late joiner this many packets of history at most."""
_NEWCOMER_LIMIT: Final = 256
"""Sources of which one packet was heard and no second: forged ones mostly, when there are many."""
_GLIMPSE_LIMIT: Final = 4096
"""Names remembered of those that came when there were too many of these."""
_IDLE_NS: Final = 5_000_000_000
"""Where no place is free, a source silent for so long gives up its own: 5 of our SPMs."""
_RELAY_BITS_PER_S: Final = 1e6
_RELAY_BURST_BYTES: Final = 65_536


class PgmEngine:
    """The protocol of one endpoint, without I/O: give it packets and the time, take what it says.

    Four kinds of method, as in every engine here:

    - ``handle_datagrams`` and ``handle_timeout`` take input;
    - ``send``, ``send_many``, ``flush``, ``close`` and ``set_filter`` are commands;
    - ``take_transmits`` and ``take_events`` drain the output, in order;
    - ``next_timeout_ns`` looks and changes nothing.

    After any input or command call ``take_transmits``, ``take_events`` and ``next_timeout_ns``.
    ``now_ns`` is monotonic and never goes back. Not thread-safe: the shell has one lock or thread.
    """

    def __init__(
        self,
        *,
        address: bytes,
        group: bytes,
        port: int,
        options: SocketOptions,
        dice: Random,
        now_ns: int,
        source_tsi: bytes | None = None,
        topic_filter: TopicFilter | None = None,
    ) -> None:
        """``address`` and ``group`` are packed; with ``source_tsi`` it publishes, with
        ``topic_filter`` it subscribes."""
        self._group = group
        self._port = port
        self._options = options
        self._timers = options.timers
        self._dice = dice
        self._filter = topic_filter
        self._peers: dict[bytes, Receiver] = {}
        self._newcomers: dict[bytes, int] = {}
        self._newcomer_limit = min(_NEWCOMER_LIMIT, -(-options.max_peers // 4))
        self._glimpsed: dict[bytes, None] = {}
        self._swept_ns = now_ns - _IDLE_NS
        self.streams: dict[bytes, ReceiveSlots] = {}
        """Windows of the sources whose stream has nothing out of the ordinary, by packed address
        and TSI: an ``Intake`` may give them packets. Right whenever ``take_events`` was called."""
        self.room = Room()
        """For messages, as the shell sees it."""
        self._touched: dict[Receiver, None] = {}
        self._events: list[EngineEvent] = []
        self._transmits: list[Transmit] = []
        self._retired: Counter[str] = Counter()
        self._peers_due_ns = _NEVER
        self._nak_budget = NakBudget()
        self._relay_bucket = TokenBucket(_RELAY_BITS_PER_S, _RELAY_BURST_BYTES)
        self.counters = PgmCounters()
        """What happened so far; ``stats`` adds what the kernels counted."""
        self.repair_times = Histogram()
        """From noticing a gap to the packet that filled it."""
        self.source: Source | None = None
        """The local publisher, if there is one."""
        if source_tsi is not None:
            self.source = Source(
                tsi=source_tsi,
                address=address,
                group_nla=group,
                dport=port,
                options=options,
                timers=self._timers,
                counters=self.counters,
                transmits=self._transmits,
            )
            self.source.start(now_ns)

    # Commands.

    def set_filter(self, topic_filter: TopicFilter) -> None:
        """Use these subscriptions from the next message on."""
        self._filter = topic_filter
        for receiver in self._peers.values():
            receiver.set_filter(topic_filter)

    # Input.

    def handle_datagrams(
        self,
        now_ns: int,
        address: bytes,
        data: memoryview,
        segment_bytes: int,
        to_group: bool,
        start: int = 0,
    ) -> None:
        """Take one datagram, or a run of ``segment_bytes`` each, that came from ``address``.

        ``to_group`` tells whether it was sent to the group or to us alone; what lies before
        ``start`` was taken by an ``Intake``. Nothing of ``data`` is kept.
        """
        size = len(data)
        if not size:
            self.counters.malformed["truncated"] += 1
        elif start and (receiver := self._peers.get(address + tsi_of(data))) is not None:
            self._newcomers.pop(address + tsi_of(data), None)
            self._touch(receiver)
        while start < size:
            packet = data[start : start + segment_bytes]
            if len(packet) < HEADER_BYTES:
                self.counters.malformed["truncated"] += 1
                return
            tsi = tsi_of(packet)
            receiver = self._peers.get(address + tsi)
            if receiver is not None:
                if self._newcomers:
                    self._newcomers.pop(address + tsi, None)
                self._touch(receiver)
                if packet[4] in (ODATA, RDATA):
                    after = receiver.handle_run(now_ns, data, start, segment_bytes)
                    if after > start:
                        start = after
                        continue
            start += segment_bytes
            try:
                parsed = parse_untrusted(packet)
            except PacketError as error:
                self.counters.malformed[error.reason] += 1
                continue
            self._dispatch(now_ns, address, tsi, parsed, packet, to_group)

    def handle_timeout(self, now_ns: int) -> None:
        """Do whatever is due. Safe early, late and twice."""
        if self.source is not None:
            self.source.handle_timeout(now_ns)
        if now_ns < self._peers_due_ns:
            return
        for key, receiver in list(self._peers.items()):
            if now_ns >= receiver.next_timeout_ns:
                self._touch(receiver)
                receiver.handle_timeout(now_ns)
                if now_ns >= receiver.heard_ns + self._timers.peer_expiry_ns:
                    self._forget(key)
        self._peers_due_ns = min(
            (receiver.next_timeout_ns for receiver in self._peers.values()), default=_NEVER
        )

    def catch_up(self, now_ns: int) -> None:
        """See to what an ``Intake`` left in the windows: new holes, filled ones, what is ready."""
        for key, slots in list(self.streams.items()):
            if slots.has_news or slots.ready_count:
                receiver = self._peers[key]
                self._touch(receiver)
                receiver.catch_up(now_ns)

    # Output.

    def take_transmits(self) -> list[Transmit]:
        """What is to be sent, in this order, before anything else is asked of the engine."""
        if not self._transmits:
            return []
        transmits = self._transmits[:]
        self._transmits.clear()  # the list is shared with source and receivers
        return transmits

    def take_events(self) -> list[EngineEvent]:
        """Messages and events in stream order, one ``Messages`` a source unless parted by loss."""
        for receiver in self._touched:
            receiver.flush()
            self._peers_due_ns = min(self._peers_due_ns, receiver.next_timeout_ns)
            key = receiver.address + receiver.tsi
            if receiver.is_plain and self._peers.get(key) is receiver:
                self.streams[key] = receiver.slots
            else:
                self.streams.pop(key, None)
        self._touched.clear()
        if not self._events:
            return []
        events = self._events[:]
        self._events.clear()
        return events

    @property
    def next_timeout_ns(self) -> int:
        """When to call ``handle_timeout``; 2^62 means never."""
        if self.source is None:
            return self._peers_due_ns
        return min(self.source.next_timeout_ns, self._peers_due_ns)

    @property
    def next_alarm_ns(self) -> int:
        """``next_timeout_ns``, but for what the loop's baton attends to."""
        if self.source is None:
            return self._peers_due_ns
        return min(self.source.next_alarm_ns, self._peers_due_ns)

    def stats(self) -> Snapshot:
        """All counters, and the repair time's percentiles in seconds, as a flat dict."""
        if self.source is not None:
            self.source.catch_up()
        totals = Counter(self._retired)
        for receiver in self._peers.values():
            totals.update(receiver.counts())
        snapshot: Snapshot = {**self.counters.snapshot(), **totals}
        snapshot["peers"] = sum(not receiver.is_over for receiver in self._peers.values())
        snapshot["peers_quiet"] = sum(receiver.is_quiet for receiver in self._peers.values())
        snapshot["repair_p50_s"] = self.repair_times.percentile_s(50)
        snapshot["repair_p99_s"] = self.repair_times.percentile_s(99)
        if self.source is not None:
            trail, lead = self.source.window
            snapshot |= {
                "messages_sent": self.source.message_count,
                "messages_unsent": self.source.unsent_message_count,
                "repairs_waiting": self.source.waiting_repair_count,
                "txw_trail": trail,
                "txw_lead": lead,
                "rate": self.source.rate,
            }
        return snapshot

    def name_of(self, key: bytes) -> str:
        """What events call the source with this packed address and TSI."""
        return tsi_text(key[-8:])

    def _touch(self, receiver: Receiver) -> None:
        if receiver not in self._touched:
            self._touched[receiver] = None
            receiver.resume()

    # Who gets what.

    def _dispatch(
        self,
        now_ns: int,
        address: bytes,
        tsi: bytes,
        packet: Packet,
        raw: memoryview,
        to_group: bool,
    ) -> None:
        header = packet.header
        kind = header.type
        if kind in (ODATA, RDATA, SPM, NCF):
            if self._filter is None:
                return
            if header.destination_port != self._port:
                self.counters.malformed["port"] += 1
                return
            receiver = self._peers.get(address + tsi)
            if receiver is None:
                receiver = self._join(now_ns, address, tsi, packet)
                if receiver is None:
                    return
            if kind == SPM:
                receiver.handle_spm(now_ns, packet)
            elif kind == NCF:
                receiver.handle_ncf(now_ns, packet)
            else:
                receiver.handle_data(now_ns, packet, raw)
        elif kind in (NAK, NNAK, SPMR):
            if header.source_port != self._port:
                self.counters.malformed["port"] += 1
            elif self.source is not None:
                self._ask_source(now_ns, tsi, packet, raw, to_group)
            else:
                self._overhear(now_ns, tsi, packet)
        else:
            self.counters.polls_ignored += 1

    def _ask_source(
        self, now_ns: int, tsi: bytes, packet: Packet, raw: Buffer, to_group: bool
    ) -> None:
        source = self.source
        assert source is not None
        kind = packet.header.type
        if tsi == source.tsi:
            if kind == NAK:
                source.handle_nak(now_ns, packet)
            elif kind == NNAK:
                self.counters.nnaks_received += 1
            else:
                source.handle_spmr(now_ns)
        elif kind == NAK and not to_group and self._relay_bucket.available_bytes(now_ns) > 0:
            # Several publishers of this host share address and port, and the system gave us a
            # NAK that is meant for another: pass it on to all of them, not beyond this host. What
            # came by the group is never passed on, so that it cannot go round.
            self._relay_bucket.spend(now_ns, len(raw))
            self._transmits.append(Transmit(GROUP, bytes(raw), len(raw), hops=0))
            self.counters.naks_relayed += 1

    def _overhear(self, now_ns: int, tsi: bytes, packet: Packet) -> None:
        """Another receiver's request, sent to the group."""
        body = packet.body
        if isinstance(body, Nak):
            receiver = self._peers.get(body.source_nla + tsi)
            if receiver is not None and packet.header.type == NAK:
                self._touch(receiver)
                receiver.handle_peer_nak(now_ns, packet)
            return
        for receiver in self._peers.values():
            if receiver.tsi == tsi:
                self._touch(receiver)
                receiver.handle_peer_spmr(now_ns)

    def _join(self, now_ns: int, address: bytes, tsi: bytes, packet: Packet) -> Receiver | None:
        """Start following a source, if this packet tells where its stream stands."""
        body, options = packet.body, packet.options
        if isinstance(body, Spm):
            # History is not asked for: the stream starts behind what was sent before.
            first = (body.lead + 1) & SQN_MASK
            no_window = (first - body.trail) & SQN_MASK >= _HALF_SPACE
            if no_window or options.fin or options.reset or options.unreachable:
                return None
        elif isinstance(body, Data) and packet.header.type == ODATA:
            # Not with a repair: it lies behind, where an expired stream was heard before.
            first = body.sqn
            if (first - body.trail) & SQN_MASK >= _HALF_SPACE:
                self.counters.malformed["window"] += 1
                return None
            if options.join is not None:
                history = (first - options.join) & SQN_MASK
                if history <= min(_JOIN_LIMIT, (first - body.trail) & SQN_MASK):
                    first = (first - history) & SQN_MASK
        else:
            return None
        if not self._admits(now_ns, address + tsi):
            self.counters.peers_refused += 1
            return None
        assert self._filter is not None
        receiver = Receiver(
            tsi=tsi,
            address=address,
            group_nla=self._group,
            dport=self._port,
            first_sqn=first,
            now_ns=now_ns,
            options=self._options,
            timers=self._timers,
            topic_filter=self._filter,
            dice=self._dice,
            counters=self.counters,
            repair_times=self.repair_times,
            nak_budget=self._nak_budget,
            room=self.room,
            events=self._events,
            transmits=self._transmits,
        )
        self._peers[address + tsi] = receiver
        self._touched[receiver] = None
        return receiver

    def _admits(self, now_ns: int, key: bytes) -> bool:
        """True if this source may be followed, and there is room for it.

        Where many were heard once and never again, one more has to be heard twice: to remember its
        name is all that a forged packet then costs.
        """
        newcomers = self._newcomers
        while newcomers and self._is_confirmed(oldest := next(iter(newcomers))):
            del newcomers[oldest]
        if len(newcomers) >= self._newcomer_limit:
            if key not in self._glimpsed:
                self._glimpsed[key] = None
                if len(self._glimpsed) > _GLIMPSE_LIMIT:
                    del self._glimpsed[next(iter(self._glimpsed))]
                return False
            del self._glimpsed[key]
        else:
            newcomers[key] = now_ns
        if self._make_room(now_ns):
            return True
        newcomers.pop(key, None)
        return False

    def _is_confirmed(self, key: bytes) -> bool:
        """Whether a newcomer was heard again, perhaps by an ``Intake``."""
        return self._peers[key].heard_ns > self._newcomers[key]

    def _make_room(self, now_ns: int) -> bool:
        """True if another source may be followed.

        Place is made by who was heard once only, then by a stream that is over, then by who is
        silent. A stream that is heard keeps its place.
        """
        if len(self._peers) < self._options.max_peers:
            return True
        for key in self._newcomers:
            if key in self._peers:
                self._expel(now_ns, key)
                return True
        for key, receiver in self._peers.items():
            if receiver.is_over:
                self._forget(key)
                return True
        if now_ns - self._swept_ns < _IDLE_NS // 5:
            return False  # looking at all of them for every packet would be an attack's lever
        self._swept_ns = now_ns
        longest = min(self._peers, key=lambda key: self._peers[key].heard_ns)
        if now_ns - self._peers[longest].heard_ns < _IDLE_NS:
            return False
        self._expel(now_ns, longest)
        return True

    def _expel(self, now_ns: int, key: bytes) -> None:
        """Stop following a source, and say that more of it may come unheard."""
        receiver = self._peers[key]
        self._touch(receiver)
        receiver.expire(now_ns)
        receiver.flush()
        self._touched.pop(receiver, None)
        self._forget(key)
        self.counters.peers_expelled += 1

    def _forget(self, key: bytes) -> None:
        receiver = self._peers.pop(key)
        self._newcomers.pop(key, None)
        self.streams.pop(key, None)
        self._retired.update(receiver.counts())

    # Shortcuts for the local source.

    def send(self, now_ns: int, parts: Sequence[Buffer]) -> bool:
        """See ``Source.send``; only with ``source_tsi``."""
        assert self.source is not None
        return self.source.send(now_ns, parts)

    def send_many(self, now_ns: int, messages: Sequence[Buffer], start: int) -> int:
        """See ``Source.send_many``; only with ``source_tsi``."""
        assert self.source is not None
        return self.source.send_many(now_ns, messages, start)

    def flush(self, now_ns: int) -> None:
        """See ``Source.flush``; without a source, nothing."""
        if self.source is not None:
            self.source.flush(now_ns)

    def close(self, now_ns: int) -> None:
        """See ``Source.close``; without a source, nothing."""
        if self.source is not None:
            self.source.close(now_ns)
