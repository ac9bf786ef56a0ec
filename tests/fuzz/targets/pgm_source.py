"""Messages, requests and time into a publisher's engine, on both kernels at once.

What must hold after each step: data leaves once, in sequence, and within the rate; a repair is of
a packet that was sent and is held, at most once in the hold-off, and within its share; nothing
goes to anybody but the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from struct import pack

from mcast.pgm import source as under_test
from mcast.pgm.packet import NAK, NCF, NNAK, ODATA, RDATA, SPM, SPMR
from tests.fuzz.stacks import Stack, both
from tests.fuzz.target import Cut, Target, must, sealed
from tests.fuzz.targets.pgm_receiver import GROUP, MASK, MS, OWN, PORT, T0, TURN_LIMIT

TSI = bytes((1, 2, 3, 4, 5, 6, 0x10, 0x20))
STEP_LIMIT = 32
RATES = (1e6, 2e7, float("inf"))
TRANSMIT_LIMIT = 1024
"""One step's system calls: the repair queue's turn, the window's packets, and some SPMs."""


class Watch:
    """One engine with a source, and what it sent."""

    def __init__(self, stack: Stack, choice: int) -> None:
        self.stack = stack
        first = 2**32 - 4 if choice & 0x40 else 0
        self.options = stack.SocketOptions(
            rate=RATES[choice % 3],
            min_rate=1e4 if choice & 0x20 else None,
            txw_bytes=1 << 16,
            recovery_ivl=1.0,
            sndhwm=50,
            multicast_maxtpdu=200 + 8 * (choice >> 3 & 3),
            initial_sqn=first,
            coalesce=0.0 if choice & 0x80 else 50e-6,
        )
        self.holdoff_ns = self.options.timers.repair_holdoff_ns
        self.engine = stack.PgmEngine(
            address=OWN,
            group=GROUP,
            port=PORT,
            options=self.options,
            dice=Random(1),
            now_ns=T0,
            source_tsi=TSI,
            topic_filter=stack.TopicFilter((b"",)) if choice & 4 else None,
        )
        self.seen: list[object] = []
        self.next = first
        self.first_ns = T0
        self.now_ns = T0
        self.spm_sqn = 0
        self.confirmed_ns: dict[int, int] = {}
        self.data_bytes = self.repair_bytes = 0
        self.drain()

    def drain(self) -> None:
        transmits = self.engine.take_transmits()
        must(len(transmits) <= TRANSMIT_LIMIT, "one step sent too much", len(transmits))
        for destination, view, size, hops in transmits:
            must(destination == b"", "sent to one alone", destination)
            data = bytes(view)
            self.seen.append((data, size, hops))
            for start in range(0, len(data), size):
                self.note(data[start : start + size], hops)
        for event in self.engine.take_events():
            self.seen.append(repr(event))
        trail, lead = self.engine.source.window
        must(trail <= lead + 1 and lead + 1 >= self.next, "a wrong window", trail, lead, self.next)
        if self.options.rate < 1e12:
            seconds = (self.now_ns - self.first_ns) / 1e9
            # Both buckets may be overdrawn by the run or packet that empties them.
            bound = self.options.rate / 8 * seconds + 70_000
            must(self.data_bytes <= bound, "faster than the rate", self.data_bytes, bound)
            share = bound * self.options.repair_share + 70_000
            must(self.repair_bytes <= share, "repairs beyond their share", self.repair_bytes, share)

    def note(self, raw: bytes, hops: int) -> None:
        """One packet that left."""
        if hops == 0:
            return  # passed on to other publishers of this host
        packet = self.stack.parse_untrusted(raw)
        kind, body = packet.header.type, packet.body
        trail, _ = self.engine.source.window
        if kind == ODATA:
            must(body.sqn == self.next & MASK, "data out of sequence", body.sqn, self.next)
            self.next += 1
            self.data_bytes += len(raw)
        elif kind == RDATA:
            behind = (self.next - body.sqn) & MASK
            must(0 < behind <= self.next - trail, "a repair of what is not held", body.sqn, trail)
            self.repair_bytes += len(raw)
        elif kind == NCF:
            for sqn in (body.sqn, *packet.options.nak_list):
                behind = (self.next - sqn) & MASK
                must(0 < behind <= self.next - trail, "confirmed what is not held", sqn, trail)
                since_ns = self.now_ns - self.confirmed_ns.get(sqn, -self.holdoff_ns)
                must(since_ns >= self.holdoff_ns, "confirmed again in the hold-off", sqn, since_ns)
                self.confirmed_ns[sqn] = self.now_ns
        else:
            must(kind == SPM, "a source sent", raw)
            must(body.sqn == self.spm_sqn & MASK, "SPMs out of sequence", body.sqn, self.spm_sqn)
            must(body.lead == (self.next - 1) & MASK, "an SPM of data to come", body, self.next)
            self.spm_sqn += 1

    def turn(self, now_ns: int) -> None:
        self.now_ns = now_ns
        for _ in range(TURN_LIMIT):
            self.engine.handle_timeout(now_ns)
            self.drain()
            if self.engine.next_timeout_ns > now_ns:
                return
        must(False, "what is due is not done", self.engine.next_timeout_ns, now_ns)


def run(data: bytes) -> None:
    """The first byte picks the options, the others are steps."""
    watches = [Watch(stack, data[0] if data else 0) for stack in dict.fromkeys(both())]
    for watch in watches:
        play(watch, Cut(data[1:]))
    if len(watches) > 1:
        for left, right in zip(watches[0].seen, watches[1].seen, strict=False):
            must(left == right, "the kernels differ", left, right)
        must(len(watches[0].seen) == len(watches[1].seen), "the kernels differ in number")
        stats = [watch.engine.stats() for watch in watches]
        must(stats[0] == stats[1], "the kernels count differently", *stats)


def play(watch: Watch, cut: Cut) -> None:
    """Carry out a program."""
    engine = watch.engine
    is_closed = False
    for _ in range(STEP_LIMIT):
        if not cut:
            break
        verb = cut.octet()
        raw = b""
        match verb & 15:
            case 0 | 1 | 2 if not is_closed:
                parts = [cut.octet() * (1 + (verb >> 4)) for _ in range(1 + (verb & 15))]
                watch.seen.append(engine.send(watch.now_ns, [b"m" * size for size in parts]))
            case 3 if not is_closed:
                batch = [b"b" * (verb >> 2) for _ in range(cut.octet())]
                reached, before = 0, -1
                while reached > before:
                    before = reached
                    reached = engine.send_many(watch.now_ns, batch, reached)
                    watch.seen.append(reached)
                    watch.drain()
            case 4:
                engine.flush(watch.now_ns)
            case 5 | 6:
                sqns = [watch.next - 1 - cut.octet() for _ in range(1 + verb // 16 * 4)]
                raw = _request(NAK, sqns)
            case 7:
                raw = _request(NNAK if verb & 16 else NAK, [cut.number(4)])
            case 8:
                raw = _packet(SPMR, b"")
            case 9:
                raw = sealed(cut.take(cut.octet()))
            case 10:
                first = watch.next - 1 - cut.octet()
                raw = _request(NAK, [first + step for step in range(1 + cut.octet() % 63)])
            case 11:
                other = bytes((9,)) + TSI[1:]
                raw = _request(NAK, [watch.next - 1], tsi=other)
            case 12 if verb & 0xF0 == 0xF0:
                engine.close(watch.now_ns)
                is_closed = True
            case 13 | 14:
                step_ns = (50_000, 10 * MS)[verb & 1]
                watch.turn(watch.now_ns + (cut.octet() + 1) * step_ns)
            case _:
                due_ns = min(engine.next_timeout_ns, watch.now_ns + 100_000 * MS)
                watch.turn(max(watch.now_ns, due_ns))
        if raw:
            to_group = bool(verb & 32)
            view = memoryview(raw)
            engine.handle_datagrams(watch.now_ns, b"\x0a\x4d\0\7", view, len(raw), to_group)
        watch.drain()


def _packet(kind: int, body: bytes, tsi: bytes = TSI, flags: int = 0) -> bytes:
    return sealed(
        pack("!H", PORT) + tsi[6:] + bytes((kind, flags, 0, 0)) + tsi[:6] + b"\0\0" + body
    )


def _request(kind: int, sqns: list[int], tsi: bytes = TSI) -> bytes:
    area = b"".join(pack("!I", sqn & MASK) for sqn in sqns[1:63])
    if area:
        area = pack("!BBH", 0, 4, 8 + len(area)) + bytes((0x82, 4 + len(area), 0, 0)) + area
    nlas = b"\0\1\0\0" + OWN + b"\0\1\0\0" + GROUP
    return _packet(kind, pack("!I", sqns[0] & MASK) + nlas + area, tsi, 3 if area else 0)


def seeds() -> Iterator[bytes]:
    """Sending, being asked, closing; at each rate."""
    for choice in (0, 1, 2, 0x20, 0x45, 0xC2):
        yield bytes((choice, 0, 9, 0, 200, 4, 5, 0, 15, 15, 5, 0, 13, 200, 5, 0, 0xFC, 15, 15))
        yield bytes((choice, 3, 255, 15, 15, 15, 10, 20, 30, 15, 15, 10, 20, 30, 14, 90, 10, 2, 9))
        yield bytes((choice, 2, 255, 255, 255, 7, 0, 0, 0, 1, 8, 8, 11, 9, 20)) + bytes(20)


def _no_holdoff() -> None:
    """Whoever asks again at once gets it again."""

    class Queue(under_test.RepairQueue):
        def sent(self, first: int, count: int, size_bytes: int, now_ns: int) -> None:
            super().sent(first, count, size_bytes, now_ns)
            for sqn in range(first, first + count):
                self._accepted_ns.pop(sqn, None)

    under_test.RepairQueue = Queue  # type: ignore[misc]


PLANTS = {"no-holdoff": _no_holdoff}
TARGET = Target(run, seeds, PLANTS, max_bytes=160)
