"""Packets and time into a subscriber's engine, on both kernels at once.

An input is a program: packets of two publishers that know what they sent, so that a few bytes lead
far into the state machine, and datagrams of a forger between them. What is checked after each
step: nothing was lost without a word, every limit holds, and nothing is sent but requests, to the
group or to where packets came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random
from struct import pack
from typing import Any

from mcast.pgm import receiver as under_test
from mcast.pgm.nak import GAP_LIMIT
from mcast.pgm.packet import NAK, NCF, NNAK, ODATA, RDATA, SPM, SPMR
from tests.fuzz.stacks import Stack, both
from tests.fuzz.target import Cut, Target, must, sealed
from tests.vectors.pcap import CAPTURES, read_capture

MS = 1_000_000
T0 = 1_000_000 * MS
GROUP = bytes((239, 192, 1, 1))
PORT = 5555
OWN = bytes((10, 77, 0, 9))
MASK = 0xFFFF_FFFF
FIRST_NUMBERS = (0, 2**32 - 3)
RXW_BYTES = 1 << 16
STEP_LIMIT = 48
TURN_LIMIT = 64
"""Timeouts that may follow each other at one moment: each peer has four timers."""
TRANSMIT_LIMIT = 4 * 1024
"""A step's packets: with two peers, every number that may be asked for in a NAK of its own, to the
group and to the source."""


class Peer:
    """A publisher that numbers its packets; what it claims beyond that is the input's."""

    def __init__(self, index: int, first: int) -> None:
        self.address = bytes((10, 77, 0, 1 + index))
        self.tsi = bytes((1, 2, 3, 4, 5, index, 0x10, index))
        self.lead = self.joined = first
        self.spm_sqn = 0

    def packet(self, kind: int, body: bytes, flags: int = 0, tsdu_bytes: int = 0) -> bytes:
        ports = pack("!H", PORT)
        ports = ports + self.tsi[6:] if kind in (NAK, NNAK, SPMR) else self.tsi[6:] + ports
        head = ports + bytes((kind, flags, 0, 0)) + self.tsi[:6] + pack("!H", tsdu_bytes)
        return sealed(head + body)

    def data(self, sqn: int, trail: int, kind: int = ODATA, area: bytes = b"") -> bytes:
        """The packet ``sqn``: its one message says so, and is as long every time."""
        text = b"%d" % (sqn & MASK)
        tsdu = b"\0\0" + bytes((1 + len(text), 0)) + text
        body = pack("!II", sqn & MASK, trail & MASK) + area + tsdu
        return self.packet(kind, body, bool(area), len(tsdu))

    def request(self, kind: int, sqns: list[int]) -> bytes:
        area = b"".join(pack("!I", sqn & MASK) for sqn in sqns[1:])
        if area:
            area = pack("!BBH", 0, 4, 8 + len(area)) + bytes((0x82, 4 + len(area), 0, 0)) + area
        nlas = b"\0\1\0\0" + self.address + b"\0\1\0\0" + GROUP
        return self.packet(kind, pack("!I", sqns[0] & MASK) + nlas + area, 3 if area else 0)

    def spm(self, trail: int, lead: int, area: bytes = b"") -> bytes:
        body = pack("!III", self.spm_sqn & MASK, trail & MASK, lead & MASK)
        return self.packet(SPM, body + b"\0\1\0\0" + self.address + area, bool(area))


@cache
def _options(stack: Stack, profile: str) -> Any:
    return stack.SocketOptions(
        rxw_bytes=RXW_BYTES,
        max_msg_size=600,
        max_parts=3,
        max_peers=3,
        peer_expiry=20,
        profile=profile,
    )


class Watch:
    """One engine, what came out of it, and what must hold of that."""

    def __init__(self, stack: Stack, choice: int) -> None:
        self.stack = stack
        self.options = _options(stack, "libzmq" if choice & 2 else "lan")
        self.engine = stack.PgmEngine(
            address=OWN,
            group=GROUP,
            port=PORT,
            options=self.options,
            dice=Random(1),
            now_ns=T0,
            topic_filter=stack.TopicFilter((b"",)),
        )
        self.seen: list[object] = []
        self.streams: dict[object, tuple[object, int]] = {}
        """Window and first number of each receiver whose ledger is kept."""
        self.lost: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.is_clean = True
        """No bytes came but those of the two publishers: their messages are known."""

    def hear(self, now_ns: int, address: bytes, data: bytes, size: int, to_group: bool) -> None:
        self.engine.handle_datagrams(now_ns, address, memoryview(data), max(1, size), to_group)
        self.drain()

    def turn(self, now_ns: int) -> None:
        """Do what is due: after that nothing may be."""
        for _ in range(TURN_LIMIT):
            self.engine.handle_timeout(now_ns)
            self.drain()
            if self.engine.next_timeout_ns > now_ns:
                return
        must(False, "what is due is not done", self.engine.next_timeout_ns, now_ns)

    def drain(self) -> None:
        transmits = self.engine.take_transmits()
        must(len(transmits) <= TRANSMIT_LIMIT, "one step sent too much", len(transmits))
        for destination, data, size, hops in transmits:
            raw = bytes(data)
            must(raw[4] in (NAK, SPMR) and size == len(raw), "a receiver sent", raw)
            addresses = {receiver.address for receiver in self.engine._peers.values()}
            must(not destination or destination in addresses, "sent to a stranger", destination)
            self.stack.parse_untrusted(raw)
            self.seen.append((destination, raw, hops))
        for event in self.engine.take_events():
            self.note(event)
        self.settle()

    def note(self, event: Any) -> None:
        kind, name = type(event).__name__, event.tsi
        if kind == "Messages":
            self.seen.append((name, event.first, event.last, event.messages))
            must(self.told.get(name, -1) < event.first <= event.last, "out of order", event)
            self.told[name] = event.last
            for message in event.messages:
                parts = message if isinstance(message, tuple) else (message,)
                must(len(parts) <= 3 and sum(map(len, parts)) <= 600, "over a limit", message)
                if self.is_clean:
                    self.note_clean(name, message)
            return
        self.seen.append((kind, name, *(getattr(event, slot) for slot in event.__slots__[1:])))
        if kind == "PeerJoined":
            if name in self.last or name in self.told:  # it came back, or another address has it
                self.told.pop(name, None)
            self.last.pop(name, None)
            self.lost[name] = 0
        elif kind == "PeerRestarted":
            must(self.told.get(name, -1) < event.first, "numbers went back", event)
            self.lost[name] = 0
            self.last.pop(name, None)  # who begins again, as after OPT_RST, may repeat messages
        elif kind == "Lost" and not event.reason.counts_messages:
            must(self.told.get(name, -1) < event.first <= event.last, "out of order", event)
            must(event.count == event.last + 1 - event.first, "a wrong count", event)
            self.told[name] = event.last
            self.lost[name] += event.count

    def note_clean(self, name: str, message: object) -> None:
        must(isinstance(message, bytes), "parts of nothing", message)
        number = int(message)  # type: ignore[call-overload]
        last = self.last.get(name)
        ahead = 1 if last is None else (number - last) & MASK
        must(0 < ahead < 1 << 31, "a message came again, or late", name, last, number)
        self.last[name] = number

    def settle(self) -> None:
        """The ledger closes: what was taken and what was reported make up all that is behind."""
        receivers = self.engine._peers.values()
        must(len(receivers) <= self.options.max_peers, "too many peers", len(receivers))
        names = [receiver.name for receiver in receivers]
        streams: dict[object, tuple[object, int]] = {}
        for receiver in receivers:
            slots = receiver.slots
            known = self.streams.get(receiver)
            if known is None or known[0] is not slots:
                # Where it began is behind what it took at once, and lost at once.
                taken = slots.packet_count - slots.stored_count
                known = slots, slots.next - taken - self.lost.get(receiver.name, 0)
            streams[receiver] = known
            if names.count(receiver.name) > 1:
                continue  # one TSI from two addresses: events do not tell them apart
            taken = slots.packet_count - slots.stored_count
            lost = self.lost[receiver.name]
            must(
                taken + lost == slots.next - known[1],
                "packets are missing without a word",
                receiver.name,
                known[1],
                slots.next,
                taken,
                lost,
            )
            bound = RXW_BYTES + RXW_BYTES // 4 + 1500
            must(slots.stored_bytes <= bound, "the window is over its limit", slots.stored_bytes)
            must(slots.next <= slots.lead + 1, "next is beyond the lead", slots.next, slots.lead)
            must(len(receiver._gaps) <= GAP_LIMIT, "too many gaps", len(receiver._gaps))
            # The list is brought up to date when it is looked at, and not for each repair.
            gone = [gap for gap in receiver._gaps if gap.last < slots.next]
            must(not gone, "a gap behind the window", gone, slots.next)
        self.streams = streams


def run(data: bytes) -> None:
    """The first byte picks the options, the others are steps."""
    watches = [Watch(stack, data[0] if data else 0) for stack in dict.fromkeys(both())]
    for watch in watches:
        play(watch, Cut(data))
    if len(watches) > 1:
        for left, right in zip(watches[0].seen, watches[1].seen, strict=False):
            must(left == right, "the kernels differ", left, right)
        must(len(watches[0].seen) == len(watches[1].seen), "the kernels differ in number")
        stats = [watch.engine.stats() for watch in watches]
        must(stats[0] == stats[1], "the kernels count differently", *stats)


def play(watch: Watch, cut: Cut) -> None:
    """Carry out a program."""
    choice = cut.octet()
    peers = [Peer(index, FIRST_NUMBERS[(choice >> index) & 1]) for index in range(2)]
    now_ns = T0
    for _ in range(STEP_LIMIT):
        if not cut:
            break
        verb = cut.octet()
        peer = peers[verb >> 7]
        verb &= 0x1F
        if verb < len(_STEPS):
            raw, size, to_group = _STEPS[verb](peer, cut)
            if verb in _FORGED:
                watch.is_clean = False
            watch.hear(now_ns, peer.address, raw, size, to_group)
        elif verb < len(_STEPS) + 4:
            now_ns += (cut.octet() + 1) * (100_000, MS, 20 * MS, 400 * MS)[verb - len(_STEPS)]
            watch.turn(now_ns)
        else:
            now_ns = max(now_ns, min(watch.engine.next_timeout_ns, now_ns + 100_000 * MS))
            watch.turn(now_ns)


# Steps: what arrives, as the run, the size of its packets, and whether by the group.

_Arrival = tuple[bytes, int, bool]


def _alone(raw: bytes, to_group: bool = True) -> _Arrival:
    return raw, len(raw), to_group


def _next(peer: Peer, cut: Cut) -> _Arrival:
    peer.lead += 1
    return _alone(peer.data(peer.lead, peer.joined))


def _skip(peer: Peer, cut: Cut) -> _Arrival:
    peer.lead += 1 + cut.octet()
    return _alone(peer.data(peer.lead, peer.joined))


def _run(peer: Peer, cut: Cut) -> _Arrival:
    packets = []
    shape = cut.octet()
    for _ in range(1 + shape % 7):
        peer.lead += 1 + (shape >> 3 & 1)
        packets.append(peer.data(peer.lead, peer.lead - (shape >> 4)))
    if shape & 0x80:
        packets.reverse()
    same = [packet for packet in packets if len(packet) == len(packets[0])]
    return b"".join(same), len(same[0]), True


def _repair(peer: Peer, cut: Cut) -> _Arrival:
    return _alone(peer.data(peer.lead - cut.octet(), peer.joined, RDATA))


def _repairs(peer: Peer, cut: Cut) -> _Arrival:
    first = peer.lead - cut.octet()
    packets = [peer.data(first + step, peer.joined, RDATA) for step in range(1 + cut.octet() % 9)]
    same = [packet for packet in packets if len(packet) == len(packets[0])]
    return b"".join(same), len(same[0]), True


def _trail(peer: Peer, cut: Cut) -> _Arrival:
    peer.lead += 1
    return _alone(peer.data(peer.lead, peer.lead - cut.octet()))


def _spm(peer: Peer, cut: Cut) -> _Arrival:
    peer.spm_sqn += 1
    return _alone(peer.spm(peer.joined, peer.lead))


def _spm_trail(peer: Peer, cut: Cut) -> _Arrival:
    peer.spm_sqn += 1
    peer.joined = max(peer.joined, peer.lead - cut.octet())
    return _alone(peer.spm(peer.joined, peer.lead))


def _spm_odd(peer: Peer, cut: Cut) -> _Arrival:
    """Any number, trail, lead and option."""
    peer.spm_sqn += cut.signed()
    trail, lead = peer.lead + 16 * cut.signed(), peer.lead + 16 * cut.signed()
    kind = cut.octet()
    area = b""
    if kind & 1:
        value = cut.take(8).ljust(8, b"\0") if kind & 0x7F == 0x05 else b""
        one = bytes((0x80 | (kind >> 1 & 0x7F), 4 + len(value), 0, 0)) + value
        area = pack("!BBH", 0, 4, 4 + len(one)) + one
    return _alone(peer.spm(trail, lead, area))


def _end(peer: Peer, cut: Cut) -> _Arrival:
    """An SPM with OPT_FIN or OPT_RST."""
    peer.spm_sqn += 1
    kind = 0x0F if cut.octet() & 1 else 0x0E
    area = pack("!BBH", 0, 4, 8) + bytes((0x80 | kind, 4, 0, 0))
    return _alone(peer.spm(peer.joined, peer.lead, area))


def _begin_anew(peer: Peer, cut: Cut) -> _Arrival:
    """The publisher restarts."""
    peer.lead = peer.joined = cut.number(2)
    peer.spm_sqn = cut.octet()
    return _alone(peer.spm(peer.joined, peer.lead))


def _confirm(peer: Peer, cut: Cut) -> _Arrival:
    sqns = [peer.lead + cut.signed() for _ in range(1 + cut.octet() % 5)]
    return _alone(peer.request(NCF, sqns))


def _peer_nak(peer: Peer, cut: Cut) -> _Arrival:
    sqns = [peer.lead + cut.signed() for _ in range(1 + cut.octet() % 5)]
    return _alone(peer.request(NAK, sqns))


def _peer_spmr(peer: Peer, cut: Cut) -> _Arrival:
    return _alone(peer.packet(SPMR, b""))


def _far(peer: Peer, cut: Cut) -> _Arrival:
    """Data, an SPM or an NCF with a number that may be anything."""
    kind, sqn = cut.octet(), cut.number(4)
    if kind & 3 == 0:
        peer.spm_sqn += 1
        return _alone(peer.spm(sqn, sqn + cut.octet()))
    if kind & 3 == 1:
        return _alone(peer.request(NCF, [sqn]))
    return _alone(peer.data(sqn, sqn - cut.octet(), RDATA if kind & 4 else ODATA))


def _flagged(peer: Peer, cut: Cut) -> _Arrival:
    """Data with OPT_FRAGMENT, OPT_JOIN, OPT_SYN or OPT_FIN, and the input's TSDU."""
    kind = (0x01, 0x03, 0x0D, 0x0E)[cut.octet() & 3]
    peer.lead += cut.octet() & 1
    value = b""
    if kind == 0x01:
        value = pack("!III", (peer.lead - cut.octet()) & MASK, cut.octet(), cut.octet())
    elif kind == 0x03:
        value = pack("!I", (peer.lead - cut.octet()) & MASK)
    area = pack("!BBH", 0, 4, 8 + len(value)) + bytes((0x80 | kind, 4 + len(value), 0, 0)) + value
    tsdu = cut.take(cut.octet() & 0x3F)
    body = pack("!II", peer.lead & MASK, peer.joined & MASK) + area + tsdu
    return _alone(peer.packet(ODATA, body, 1, len(tsdu)))


def _tsdu(peer: Peer, cut: Cut) -> _Arrival:
    """The next packet with the input's TSDU: any framing, long messages, many parts."""
    peer.lead += 1
    tsdu = b"\0\0" + cut.take(cut.octet())
    body = pack("!II", peer.lead & MASK, peer.joined & MASK) + tsdu
    return _alone(peer.packet(ODATA, body, 0, len(tsdu)))


def _datagram(peer: Peer, cut: Cut) -> _Arrival:
    """Any bytes, with a checksum that is right."""
    raw = sealed(cut.take(cut.octet()))
    return raw, cut.octet() or len(raw), True


def _unsealed(peer: Peer, cut: Cut) -> _Arrival:
    """Any bytes as they are, to us alone."""
    raw = cut.take(cut.octet())
    return raw, cut.octet() or len(raw), False


_STEPS = (
    _next,
    _skip,
    _run,
    _repair,
    _repairs,
    _trail,
    _spm,
    _spm_trail,
    _spm_odd,
    _end,
    _begin_anew,
    _confirm,
    _peer_nak,
    _peer_spmr,
    _far,
    _flagged,
    _tsdu,
    _datagram,
    _unsealed,
)
# A restart may repeat messages, and so may who lies about numbers.
_FORGED = {
    _STEPS.index(step) for step in (_begin_anew, _far, _flagged, _tsdu, _datagram, _unsealed)
}


def seeds() -> Iterator[bytes]:
    """Loss and repair, a lost window, an end, a restart; and every capture, cut to its packets."""
    wait, due = len(_STEPS) + 2, 31
    yield bytes((0, 0, 0, 6, 1, 1, due, due, 11, 1, 0, 3, 0, 0, 6))
    yield bytes((0, 0, 2, 5, 1, 9, due, 3, 3, 4, 5, 4, wait, 3, 7, 2, 0, wait, 20))
    yield bytes((1, 0, 6, 1, 3, due, due, due, due, due, due, due, 9, 0, due, 31, 31))
    yield bytes((2, 0, 6, 9, 0, 10, 0, 0, 1, 8, 1, 0, 0, 0, 8, 1, 0, 0, 0, 8, 1, 0, 0, 0, 0))
    yield bytes((3, 0, 0x80, 6, 0x86, 15, 0, 1, 0, 0, 20, 10)) + b"\0\0\x05\0abcd\x03\0xy"
    for path in sorted(CAPTURES.glob("*pgm*.pcap")):
        program = b"\0"
        for datagram in read_capture(path.stem):
            if len(datagram.payload) < 120 and len(program) < 600:
                program += bytes((17, len(datagram.payload))) + datagram.payload + b"\0"
        yield program


def _skip_too_far() -> None:
    """What is given up takes one number more with it."""
    window = under_test.ReceiveSlots

    class Slots(window):  # type: ignore[misc, valid-type]
        def skip_to(self, sqn: int) -> None:
            super().skip_to(sqn + 1 if sqn % 5 == 0 else sqn)

    under_test.ReceiveSlots = Slots  # type: ignore[misc]


def _forget_a_loss() -> None:
    """Losses of one packet are not worth a word."""
    lost = under_test.Lost

    class Quiet(under_test.Receiver):
        def _report_lost(self) -> None:
            super()._report_lost()
            one = self._events[-1]
            if isinstance(one, lost) and one.count == 1:
                self._events.pop()

    from mcast.pgm import engine

    engine.Receiver = Quiet  # type: ignore[misc]


PLANTS = {"skip-too-far": _skip_too_far, "forget-a-loss": _forget_a_loss}
TARGET = Target(run, seeds, PLANTS, max_bytes=400)
