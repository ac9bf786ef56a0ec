"""Holds the two kernels equal: the same steps on both, every result and attribute compared.

Owns the *machines*, each of which turns dice into a program (a list of steps, plain data) for one
part of the contract, and the loop that tries programs for some seconds:

    python tests/fuzz/kernel_differential.py --seconds 30 --seed 1

A disagreement is printed with the one line that replays it. ``--plant NAME`` puts a copy of the
reference with one known mistake in the place of the compiled kernel; it must be found, else the
fuzzer is no test. The property tests in ``tests/unit/kernel`` draw the same programs from
hypothesis.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from math import inf
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from mcast.kernel import reference
from mcast.kernel.reference_zmtp import frame_head
from mcast.net.udp import packed_sockaddr

TSI = b"\xb7\xc6\xd1\xbc\x03\x8a\xd0\x17"
DPORT = 5555
TSDU_SIZES = (16, 17, 40, 64, 257, 300, 1428)
PART_SIZES = (0, 1, 2, 3, 5, 11, 12, 13, 14, 15, 30, 60, 100, 244, 252, 253, 254, 255, 256, 700)
NEVER = 1 << 62
FIRST_NUMBERS = (0, 0, 1, 77, 2**31 - 3, 2**32 - 5, 2**32 - 1, 2**33 - 4)

Dice = random.Random
Kernel = Any  # a module, or a namespace that stands for one
Step = tuple[Any, ...]
Program = list[Step]


class Machine(NamedTuple):
    """How to make a program, and how to run it on a kernel; a run yields what could be seen."""

    program: Callable[[Dice], Program]
    run: Callable[[Kernel, Program], Iterator[object]]


class Disagreement(AssertionError):
    """The kernels differ: the message shows the step, both observations, and the program."""


def compare(machine: Machine, program: Program, left: Kernel, right: Kernel) -> int:
    """Run ``program`` on both kernels; the number of steps, or Disagreement at the first other."""
    runs = zip(machine.run(left, program), machine.run(right, program), strict=True)
    count = 0
    for count, (expected, found) in enumerate(runs, 1):
        if expected != found:
            step = program[count - 1]
            raise Disagreement(
                f"step {count}: {step!r}\n  reference: {expected!r}\n  other:     {found!r}\n"
                f"  after: {program[: count - 1]!r}"
            )
    return count


class _Marked(Exception):
    """Stands for a LossError; equal to one of the same number."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Marked) and self.args == other.args

    __hash__ = Exception.__hash__


def outcome(call: Callable[..., object], *arguments: object) -> object:
    """What a call returned (views as bytes), or the type and text of what it raised."""
    try:
        result = call(*arguments)
    except (IndexError, TypeError, ValueError, reference.FrameError, _Marked) as error:
        return type(error), str(error)
    if isinstance(result, tuple) and result and isinstance(result[0], memoryview):
        return bytes(result[0]), *result[1:]
    return type(result), result


# --- dice that like the edges --------------------------------------------------------------------


def some_bytes(dice: Dice, size: int) -> bytes:
    kind = dice.randrange(4)
    if kind == 0:
        return bytes(size)
    if kind == 1:
        return b"\xff" * size
    if kind == 2:
        return bytes([dice.randrange(97, 100)]) * size
    return dice.randbytes(size)


def some_part(dice: Dice) -> bytes:
    size = dice.choice(PART_SIZES) if dice.randrange(3) else dice.randrange(40)
    return some_bytes(dice, size)


def some_prefixes(dice: Dice) -> list[bytes]:
    if dice.randrange(3) == 0:
        return [b""]
    return [
        bytes(dice.choices((0, 97, 98, 255), k=dice.randrange(4))) for _ in range(dice.randrange(5))
    ]


def some_run(dice: Dice, packets: Sequence[bytes]) -> tuple[bytes, int]:
    """A run of consecutive packets, often a sound one, as a GRO read would give it."""
    if not packets:
        return dice.randbytes(dice.randrange(64)), dice.randrange(64)
    first = dice.randrange(len(packets))
    run = list(packets[first : first + dice.choice((1, 1, 2, 3, 8))])
    if len(run) > 1 and dice.randrange(4) == 0:
        del run[dice.randrange(len(run))]
    if dice.randrange(6) == 0:
        dice.shuffle(run)
    if dice.randrange(4) == 0:
        place = dice.randrange(len(run))
        run[place] = damaged(dice, run[place])
    segment_bytes = len(run[0])
    if dice.randrange(12) == 0:
        segment_bytes = dice.randrange(segment_bytes + 2)
    return b"".join(run), segment_bytes


def damaged(dice: Dice, packet: bytes) -> bytes:
    """A packet with something wrong; the checksum often right again, so that it is looked at."""
    raw = bytearray(packet)
    kind = dice.randrange(6)
    if kind == 0 and raw:
        raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
        return bytes(raw)
    if kind == 1:
        return bytes(raw[: dice.randrange(len(raw) + 1)])
    if kind == 2:
        return dice.randbytes(dice.randrange(80))
    if kind == 3 and len(raw) >= 8:
        raw[6:8] = b"\0\0"
        return bytes(raw)
    for _ in range(dice.randrange(1, 3)):
        if raw:
            raw[dice.randrange(min(len(raw), 40))] = dice.choice((0, 1, 4, 5, 255, 0x84))
    return with_checksum(raw)


def with_checksum(raw: bytearray) -> bytes:
    if len(raw) >= 8:
        raw[6:8] = b"\0\0"
        raw[6:8] = reference.checksum(raw).to_bytes(2, "big")
    return bytes(raw)


def a_stream(dice: Dice, first_number: int) -> tuple[int, list[bytes]]:
    """Sealed packets of a sound publisher, some as repairs."""
    tsdu_bytes = dice.choice(TSDU_SIZES)
    slots = reference.TransmitSlots(TSI, DPORT, tsdu_bytes, 128, first_number)
    packets: list[bytes] = []
    for _ in range(dice.randrange(1, 20)):
        parts = [some_part(dice) for _ in range(dice.choice((1, 1, 1, 2, 4)))]
        try:
            slots.append(parts)
        except ValueError:
            continue
        if dice.randrange(3) == 0:
            slots.seal()
    slots.seal()
    while slots.unsent < slots.next:
        number = slots.unsent
        taken = slots.take_run(1)
        if dice.randrange(8) == 0:
            taken = slots.repair_run([number])
        assert taken is not None
        packets.append(bytes(taken[0]))
    return tsdu_bytes, packets


# --- machines ------------------------------------------------------------------------------------


def plain_program(dice: Dice) -> Program:
    """Checksum and topic filter."""
    program: Program = []
    for _ in range(dice.randrange(1, 12)):
        data = some_bytes(dice, dice.choice((0, 1, 2, 3, 4, 5, 7, 8, 9, 36, 63, 1452)))
        if dice.randrange(4) == 0:  # make the sum come out even
            raw = bytearray(data + bytes(8))
            data = with_checksum(raw)
        program.append(("sum", data))
        topic = bytes(dice.choices((0, 97, 98, 255), k=dice.randrange(6)))
        program.append(("match", some_prefixes(dice), topic))
        messages: list[Any] = [some_part(dice) for _ in range(dice.randrange(4))]
        if dice.randrange(4) == 3:
            messages.insert(0, tuple(some_part(dice) for _ in range(dice.randrange(4))))
        if dice.randrange(4) == 3:
            messages.append(dice.choice(("text", 3, memoryview(bytes(9))[::2], bytearray(700))))
        program.append(("messages", messages))
    return program


def plain_run(kernel: Kernel, program: Program) -> Iterator[object]:
    for step in program:
        if step[0] == "sum":
            data = step[1]
            yield (
                outcome(kernel.checksum, data),
                outcome(kernel.checksum, memoryview(bytearray(data))),
                outcome(kernel.checksum_ok, data),
            )
        elif step[0] == "messages":
            # How a TypeError of the interpreter reads is its own business.
            for_each = (outcome(of, step[1]) for of in (kernel.parts_of, kernel.longest_bytes))
            yield [
                TypeError if isinstance(one, tuple) and one[0] is TypeError else one
                for one in for_each
            ]
        else:
            topic_filter = kernel.TopicFilter(step[1])
            other = kernel.TopicFilter([memoryview(prefix) for prefix in step[1]])
            yield outcome(topic_filter.match, step[2]), outcome(other.match, bytearray(step[2]))


def transmit_program(dice: Dice) -> Program:
    """Publisher side; numbers are relative to the window when the step runs."""
    program: Program = [
        ("new", dice.choice(TSDU_SIZES), dice.choice((4, 5, 8, 16, 64)), dice.choice(FIRST_NUMBERS))
    ]
    for _ in range(dice.randrange(1, 60)):
        kind = dice.randrange(12)
        if kind < 4:
            parts = [some_part(dice) for _ in range(dice.choice((1, 1, 1, 1, 2, 3, 5)))]
            program.append(("append", parts, dice.choice((bytes, bytes, bytearray, memoryview))))
        elif kind == 4:
            messages = [some_part(dice) for _ in range(dice.randrange(12))]
            start = dice.randrange(-1, len(messages) + 1)
            end = dice.randrange(len(messages) + 2)
            program.append(("append_many", messages, start, end))
        elif kind == 5:
            bad = dice.choice(([], ["text"], [b"a", 3], b"abc", [b"x" * 100_000], None, [None]))
            program.append(("append", bad, None))
        elif kind < 8:
            program.append(("seal",))
        elif kind < 10:
            program.append(("take_run", dice.choice((-1, 0, 1, 2, 3, 44))))
        elif kind == 10:
            deltas = [dice.randrange(-1, 12) for _ in range(dice.choice((0, 1, 1, 2, 9)))]
            program.append(("repair_run", deltas if dice.randrange(4) else list(range(44))))
        else:
            program.append(
                ("advance", dice.randrange(-2, 12))
                if dice.randrange(3)
                else ("limit", dice.randrange(4))
            )
    return program


def transmit_run(kernel: Kernel, program: Program) -> Iterator[object]:
    _, tsdu_bytes, slot_count, first_number = program[0]
    slots = kernel.TransmitSlots(TSI, DPORT, tsdu_bytes, slot_count, first_number)
    for step in program:
        result: object = None
        match step:
            case ("append", parts, None):
                result = outcome(slots.append, parts)
            case ("append", parts, wrap):
                result = outcome(slots.append, [wrap(part) for part in parts])
            case ("append_many", messages, start, end):
                result = outcome(slots.append_many, messages, start, end)
            case ("seal",):
                result = outcome(slots.seal)
            case ("take_run", count):
                result = outcome(slots.take_run, count)
            case ("repair_run", deltas):
                result = outcome(slots.repair_run, [slots.trail + delta for delta in deltas])
            case ("advance", delta):
                result = outcome(slots.advance, slots.trail + delta)
            case ("limit", below):
                slots.unsent_limit = slot_count - 1 - below
        yield (
            result,
            slots.trail,
            slots.unsent,
            slots.next,
            slots.message_count,
            slots.unsent_message_count,
            slots.open_bytes,
            slots.max_stream_bytes,
            slots.unsent_limit,
        )


def decode_program(dice: Dice) -> Program:
    """TSDUs: a sound stream with holes and damage, or something like frames, or noise."""
    program: Program = [("new", some_prefixes(dice), *some_limits(dice))]
    _, packets = a_stream(dice, 0)
    tsdus = [packet[24:] for packet in packets]
    for tsdu in tsdus:
        kind = dice.randrange(16)
        if kind == 0:
            continue
        if kind == 1:
            program.append(("resync",))
        if kind == 2:
            program.append(("filter", some_prefixes(dice)))
        if kind == 3:
            raw = bytearray(tsdu)
            raw[dice.randrange(min(len(raw), 24))] = dice.choice((0, 1, 2, 3, 254, 255))
            tsdu = bytes(raw)
        if kind == 4:
            tsdu = tsdu[: dice.randrange(len(tsdu) + 1)]
        if kind == 5:
            octets = (0, 1, 2, 3, 254, 255)
            tsdu = bytes([0, dice.choice(octets), *dice.choices(octets, k=dice.randrange(40))])
        if kind == 6:
            tsdu = dice.randbytes(dice.randrange(40))
        if kind == 7:
            program.append(("limits", *some_limits(dice)))
        if kind == 8:
            program.append(("refuse", dice.randrange(2) == 0))
        program.append(("decode", tsdu))
    return program


def some_limits(dice: Dice) -> tuple[int, int]:
    return dice.choice((0, 1, 50, 600, 10_000, 1 << 24)), dice.choice((1, 2, 4, 1000))


def decode_run(kernel: Kernel, program: Program) -> Iterator[object]:
    _, prefixes, max_message_bytes, max_part_count = program[0]
    decoder = kernel.FrameDecoder(kernel.TopicFilter(prefixes), max_message_bytes, max_part_count)
    for step in program:
        out: list[reference.Message] = []
        if step[0] == "decode":
            decoder.decode(step[1], out)
        elif step[0] == "resync":
            decoder.resync()
        elif step[0] == "filter":
            decoder.topic_filter = kernel.TopicFilter(step[1])
        elif step[0] == "limits":
            decoder.max_message_bytes, decoder.max_part_count = step[1:]
        elif step[0] == "refuse":
            decoder.refuses = step[1]
        yield out, *decoder_state(decoder)


def decoder_state(decoder: Any) -> tuple[object, ...]:
    return (
        decoder.message_count,
        decoder.filtered_count,
        decoder.malformed_count,
        decoder.too_long_count,
        (bool(decoder.refuses), decoder.refused_count),
        bool(decoder.in_step),
        bool(decoder.is_partial),
        (decoder.max_message_bytes, decoder.max_part_count),
    )


def receive_program(dice: Dice) -> Program:
    """Subscriber side: sound runs with loss, duplicates, reorder, damage and noise between."""
    first_number = dice.choice((*FIRST_NUMBERS, -5))
    _, packets = a_stream(dice, first_number & 0xFFFF_FFFF)
    joined = first_number + dice.choice((0, 0, 0, 1, 2))
    limit_bytes = dice.choice((0, 100, 2000, 1 << 20, 1 << 20))
    program: Program = [("new", some_prefixes(dice), *some_limits(dice), joined, limit_bytes)]
    for _ in range(dice.randrange(1, 40)):
        kind = dice.randrange(16)
        if kind < 8:
            data, segment_bytes = some_run(dice, packets)
            start = 0 if dice.randrange(4) else dice.randrange(len(data) + 2)
            program.append(("absorb", data, start, segment_bytes))
        elif kind == 8:
            data, segment_bytes = some_run(dice, packets)
            program.append(("numbers_of", data, dice.randrange(len(data) + 2), segment_bytes))
        elif kind < 11:
            packet = dice.choice(packets) if packets else b""
            if dice.randrange(4) == 0:
                packet = damaged(dice, packet)
            elif dice.randrange(4) == 0 and len(packet) > 5:
                packet = packet[:5] + b"\x01" + packet[6:]  # as if it had options
            ahead = dice.randrange(-1, len(packets) + 2) if dice.randrange(9) else 1 << 20
            program.append(("store", first_number + ahead, packet))
        elif kind < 13:
            program.append(("release", dice.choice((0, 1, 20, 1000))))
            if dice.randrange(4) == 0:
                program.append(("refuse", dice.choice((0, 100, 2000))))
        elif kind == 13:
            program.append(("skip_to", dice.choice((0, 1, 2, 3, 3, 70_000))))
        elif kind == 14:
            program.append(("reach", dice.choice((-1, 0, 1, 2, 5, 3000, 60_000))))
        elif dice.randrange(8) < 7:
            program.append(("no news",))
        else:
            program.append(dice.choice((("limit", dice.choice((0, 500, 1 << 20))), ("comb",))))
    return program


def receive_run(kernel: Kernel, program: Program) -> Iterator[object]:
    _, prefixes, max_message_bytes, max_part_count, first_number, limit_bytes = program[0]
    decoder = kernel.FrameDecoder(kernel.TopicFilter(prefixes), max_message_bytes, max_part_count)
    slots = kernel.ReceiveSlots(TSI, DPORT, decoder, first_number, limit_bytes)
    for step in program:
        result: object = None
        out: list[reference.Message] = []
        match step:
            case ("absorb", data, start, segment_bytes):
                result = outcome(slots.absorb, memoryview(data), start, segment_bytes, out)
            case ("numbers_of", data, start, segment_bytes):
                result = outcome(slots.numbers_of, memoryview(data), start, segment_bytes)
            case ("store", number, packet):
                result = outcome(slots.store, number, packet)
            case ("release", limit):
                result = outcome(slots.release, out, limit)
            case ("refuse", limit_bytes):
                result = slots.refuse(limit_bytes)
            case ("skip_to", delta):
                slots.skip_to(slots.next + delta)
            case ("reach", delta):
                slots.reach(slots.lead + delta)
            case ("no news",):
                slots.has_news = False
                slots.late_sqn = -1
                slots.mended_first, slots.mended_last = slots.undecoded - 4, slots.lead
            case ("limit", limit_bytes):
                slots.limit_bytes = limit_bytes
            case ("comb",):
                result = comb(slots)
        near = slots.undecoded
        yield (
            result,
            out,
            *window_state(slots),
            slots.decoder is decoder,
            [slots.holds(near + delta) for delta in range(-1, 5)],
            slots.missing(near, slots.lead, 20),
            slots.missing_count(near + 1, slots.lead + 2),
            [slots.has_room(near + delta, 50) for delta in (-1, 0, 1, 2, 4, 70_000, 1 << 20)],
            [slots.has_room(slots.lead + delta, 50) for delta in (-3, -2, -1, 0, 1, 2)],
            *decoder_state(decoder),
        )


def comb(slots: Any) -> object:
    """Store every other number until there are as many holes as may be, and four missing behind."""
    result: object = None
    while not slots.is_full and result in (None, (bool, True)):
        result = outcome(slots.store, slots.lead + 2, bytes(30))
    slots.reach(slots.lead + 4)
    return result


def window_state(slots: Any) -> tuple[object, ...]:
    return (
        (slots.undecoded, slots.next, slots.lead, slots.trail),
        (slots.ready_count, slots.hole_count, slots.hole_last, bool(slots.is_full)),
        (slots.stored_count, slots.stored_bytes, slots.special_count, bool(slots.has_news)),
        (slots.packet_count, slots.repair_count, slots.filled_count, slots.payload_bytes),
        (slots.duplicate_count, slots.limit_bytes, slots.late_sqn),
        (slots.mended_first, slots.mended_last),
    )


def inbox_program(dice: Dice) -> Program:
    """Messages of one and of several parts, exceptions between them, taken in every way."""
    program: Program = [("new",)]
    number = 0
    for _ in range(dice.randrange(1, 60)):
        kind = dice.randrange(10)
        if kind < 3:
            batch: list[reference.Message] = []
            for _ in range(dice.choice((0, 1, 1, 2, 7))):
                number += 1
                one = b"%d" % number
                batch.append(one if dice.randrange(4) else (one, b"part"))
            program.append(("put", batch))
        elif kind == 3:
            number += 1
            program.append(("put_error", number))
        elif kind < 6:
            program.append(("get_many", dice.choice((0, 1, 2, 5, 1000))))
        elif kind < 8:
            program.append(("get_plain",))
        elif kind == 8:
            program.append(("recv", dice.randrange(2)))
        else:
            program.append(dice.choice((("hold", True), ("hold", False), ("clear",))))
    return program


def inbox_run(kernel: Kernel, program: Program) -> Iterator[object]:
    inbox = kernel.Inbox()
    long_way: list[tuple[int, float | None]] = []

    def slow(flags: int = 0, *, timeout: float | None = None) -> bytes:
        long_way.append((flags, timeout))
        return b"slow"

    gate = kernel.ReceiveGate(inbox, slow)
    for step in program:
        result: object = None
        match step:
            case ("put", batch):
                inbox.put(list(batch))
            case ("put_error", number):
                inbox.put_error(_Marked(number))
            case ("get_many", limit):
                result = outcome(inbox.get_many, limit)
            case ("get_plain",):
                result = outcome(inbox.get_plain)
            case ("recv", flags):
                result = outcome(lambda flags=flags: gate.recv(flags, timeout=0.5))
            case ("hold", wanted):
                inbox.hold = wanted
            case ("clear",):
                inbox.clear()
        yield result, len(inbox), bool(inbox.hold), list(long_way)


def gate_program(dice: Dice) -> Program:
    """Sends through a gate, which may be armed, open or neither; what leaves is read back."""
    coalesce_ns = dice.choice((0, NEVER // 2))
    limit = dice.choice((1, 20, 1000))
    program: Program = [("new", dice.choice((1, 3, 1000)), limit, coalesce_ns)]
    for _ in range(dice.randrange(1, 40)):
        kind = dice.randrange(9)
        if kind < 4:
            message = some_part(dice)
            program.append(("send", message if dice.randrange(5) else bytearray(message)))
        elif kind < 6 and limit == 1000:  # what happens at the limit is the long way's business
            batch: list[Any] = [some_part(dice) for _ in range(dice.randrange(12))]
            if dice.randrange(5) == 0:
                batch.append(bytearray(some_part(dice)))
            program.append(("send_many", batch))
        elif kind == 6:
            program.append(("open", dice.choice((0, NEVER))))
        elif kind == 7:
            program.append(("flags", some_part(dice)))
        else:
            program.append(("flush",))
    return program


class _Owner:
    """What ``pgm.Source`` and its link do with a plain message, in few words."""

    def __init__(self, kernel: Kernel, program: Program) -> None:
        _, run_packets, self.message_limit, coalesce_ns = program[0]
        self.slots = kernel.TransmitSlots(TSI, DPORT, 100, 512)
        bucket = kernel.TokenBucket(inf, 1000)
        self.schedule = kernel.SendSchedule(
            self.slots,
            bucket,
            coalesce_ns=coalesce_ns,
            quantum_bytes=1000,
            run_packets=min(run_packets, 44),
        )
        self.open_until_ns = 0
        self.writer = kernel.UdpWriter()
        self.there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.there.bind(("127.0.0.1", 0))
        self.there.setblocking(False)
        self.here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sockaddr = packed_sockaddr(b"\x7f\0\0\1", self.there.getsockname()[1], 0)
        self.gate = kernel.SendGate(
            self.slots,
            self.schedule,
            max_message_bytes=300,
            message_limit=self.message_limit,
            lock=threading.Lock(),
            writer=self.writer,
            fd=self.here.fileno(),
            sockaddr=self.sockaddr,
            baton=None,
            tend=self.leave,
            slow=self.slow,
            slow_many=self.slow_many,
        )

    def slow(self, data: reference.Buffer, flags: int = 0, *, timeout: float | None = None) -> None:
        if flags == 0:
            alone = not self.schedule.has_pending
            self.slots.append((data,))
            self.leave(alone=alone)

    def slow_many(self, messages: list[reference.Buffer], *, timeout: float | None = None) -> int:
        alone = not self.schedule.has_pending
        for message in messages:
            if not self.slots.append((message,)):
                self.emit()
                self.slots.append((message,))
            if self.slots.next - self.slots.unsent >= self.schedule.run_packets:
                self.emit()
        self.leave(alone=alone)
        return len(messages)

    def leave(self, *, alone: bool = False) -> None:
        if self.slots.next - self.slots.unsent >= self.schedule.run_packets:
            self.emit()
        if self.schedule.is_due(time.monotonic_ns(), alone=alone):
            self.slots.seal()
            self.emit()
        self.watch()

    def emit(self) -> None:
        while (run := self.schedule.take_run(time.monotonic_ns())) is not None:
            self.writer.send(self.here.fileno(), self.sockaddr, *run)

    def watch(self) -> None:
        self.schedule.wait(armed=True)
        self.schedule.is_watched = self.schedule.due_ns < NEVER
        if self.open_until_ns:
            self.schedule.open_until_ns = self.open_until_ns
        else:
            self.schedule.close()

    def arrived(self) -> list[bytes]:
        packets = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packets.append(self.there.recv(65_536))
        return packets

    def close(self) -> None:
        self.here.close()
        self.there.close()


def gate_run(kernel: Kernel, program: Program) -> Iterator[object]:
    owner = _Owner(kernel, program)
    slots, schedule, gate = owner.slots, owner.schedule, owner.gate
    try:
        for step in program:
            result: object = None
            match step:
                case ("send", message):
                    result = outcome(lambda message=message: gate.send(message, timeout=0.5))
                case ("send_many", batch):
                    result = outcome(lambda batch=batch: gate.send_many(list(batch)))
                case ("flags", message):
                    result = outcome(lambda message=message: gate.send(message, 2))
                case ("open", until_ns):
                    owner.open_until_ns = until_ns
                    owner.watch()
                case ("flush",):
                    slots.seal()
                    owner.emit()
                    owner.watch()
            sent = schedule.sent_packets, schedule.sent_bytes, schedule.has_pending
            yield (result, owner.arrived(), slots.next, slots.open_bytes, slots.message_count, sent)
    finally:
        owner.close()


def intake_program(dice: Dice) -> Program:
    """Runs from a publisher and from strangers, read from a socket into an inbox with a limit."""
    first_number = dice.choice(FIRST_NUMBERS)
    _, packets = a_stream(dice, first_number)
    losses = [dice.choice((0, 1, 2, 9, 1000)) for _ in range(40)] if dice.randrange(3) == 0 else []
    limits = dice.choice((1, 5, 1000, 2000)), dice.choice((100, 1000, 1 << 20))
    program: Program = [("new", first_number, *limits, some_prefixes(dice), losses)]
    place = 0
    for _ in range(dice.randrange(1, 12)):
        kind = dice.randrange(8)
        if kind < 4 and place < len(packets):
            count = dice.choice((1, 1, 2, 3, 8))
            run = packets[place : place + count]
            place += count
            # As it would leave: equal lengths, but for the last.
            same = [one for one in run if len(one) == len(run[0])]
            program.append(("come", b"".join(same), len(run[0])))
            program += [("come", one, len(one)) for one in run[len(same) :]]
        elif kind == 4:
            data, segment_bytes = some_run(dice, packets)
            if data and segment_bytes:
                program.append(("come", data, segment_bytes))
        elif kind == 5:
            program.append(("come", dice.randbytes(dice.randrange(1, 60)), 1500))
        elif kind == 6:
            program.append(("take", dice.choice((1, 3, 1000))))
        elif kind == 7:
            program.append(("hold", dice.randrange(3) == 0))
            if dice.randrange(3) == 2:
                program.append(("resume",))
        program.append(("read", dice.randrange(1 << 40)))
    return program


def intake_run(kernel: Kernel, program: Program) -> Iterator[object]:
    _, first_number, limit, limit_bytes, prefixes, losses = program[0]
    decoder = kernel.FrameDecoder(kernel.TopicFilter(prefixes), 500, 3)
    slots = kernel.ReceiveSlots(TSI, DPORT, decoder, first_number, limit_bytes)
    dice = iter(losses)
    inbox = kernel.Inbox()
    inbox.limit = limit
    refused: list[tuple[object, ...]] = []
    writer = kernel.UdpWriter()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
        contextlib.closing(select.epoll()) as epoll,
    ):
        there.setsockopt(17, 104, 1)  # UDP_GRO
        there.bind(("127.0.0.1", 0))
        sockaddr = packed_sockaddr(b"\x7f\0\0\1", there.getsockname()[1], 0)
        intake = kernel.Intake(
            there.fileno(),
            inbox,
            {b"\x7f\0\0\1" + TSI: slots},
            lock=threading.Lock(),
            baton=kernel.Baton(epoll.fileno()),
            rest=lambda *_: None,
            overrun=lambda *call: refused.append(call),
            settled=lambda: NEVER,
            share=lambda: None,
            spare=(lambda: next(dice, 1000)) if losses else None,
        )
        for step in program:
            result: object = None
            match step:
                case ("come", data, segment_bytes):
                    writer.send(here.fileno(), sockaddr, data, segment_bytes)
                case ("read", now_ns):
                    result = [
                        (address, bytes(view), size, start)
                        for address, view, size, start in intake.read(now_ns)
                    ]
                case ("take", count):
                    result = outcome(inbox.get_many, count)
                case ("hold", wanted):
                    intake.hold = wanted
                case ("resume",):
                    intake.settle()
                    intake.resume()
                    result = intake.entrust(0)
            seen = intake.size_bytes, inbox.put_count, slots.heard_ns, slots.odd_from
            dropped = intake.dropped_count, intake.overflow_count, bool(intake.hold)
            yield result, seen, window_state(slots), intake.due_ns, dropped, list(refused)
        intake.ring()
        intake.hand_back()
        intake.close()
        assert not intake.is_open


def pace_program(dice: Dice) -> Program:
    """A bucket over some time."""
    rate = dice.choice((1e4, 8e8, 1e11, inf))
    program: Program = [("new", rate, dice.choice((100, 65_000)))]
    for _ in range(dice.randrange(1, 30)):
        program.append(("spend", dice.choice((0, 1, 10_000, 10**9)), dice.randrange(1, 70_000)))
        if dice.randrange(8) == 7:
            program.append(("rate", dice.choice((1e4, 8e8, inf)), dice.choice((1, 100, 65_000))))
    return program


def pace_run(kernel: Kernel, program: Program) -> Iterator[object]:
    bucket = kernel.TokenBucket(*program[0][1:])
    yield bucket.available_bytes(0)
    now_ns = 10**12
    for step in program[1:]:
        match step:
            case ("spend", step_ns, size_bytes):
                now_ns += step_ns
                bucket.spend(now_ns, size_bytes)
            case ("rate", rate, size_bytes):
                bucket.set_rate(rate, size_bytes)
        yield bucket.available_bytes(now_ns), bucket.ready_at_ns(size_bytes)


def schedule_program(dice: Dice) -> Program:
    """A transmit window whose packets leave when their time has come; nothing is sent."""
    program: Program = [
        (
            "new",
            *(dice.choice((17, 100, 1428)), dice.choice((4, 16, 64))),
            *(dice.choice((1e4, 8e8, inf)), dice.choice((100, 65_000))),
            *(
                dice.choice((0, 50_000, 10**6)),
                dice.choice((1000, 60_000)),
                dice.choice((1, 3, 44)),
            ),
        )
    ]
    for _ in range(dice.randrange(1, 60)):
        kind = dice.randrange(10)
        if kind < 3:
            program.append(("append", some_part(dice)))
        elif kind < 5:
            program.append(("take_run",))
        elif kind == 5:
            program.append(("wait", dice.randrange(2) == 1))
        elif kind == 6:
            program.append(("seal",))
        elif kind == 7:
            program.append(("pass", dice.choice((0, 1, 12_499, 12_500, 10**6, 10**10))))
        elif kind == 8:
            program.append(dice.choice((("close",), ("leave",), ("open",), ("watch",))))
        else:
            left = "left", dice.choice((1, 781, 10**6))
            program.append(left if dice.randrange(3) else ("rate", dice.choice((1e5, inf)), 1000))
    return program


def schedule_run(kernel: Kernel, program: Program) -> Iterator[object]:
    _, tsdu_bytes, slot_count, rate, burst_bytes, coalesce_ns, quantum_bytes, run = program[0]
    slots = kernel.TransmitSlots(TSI, DPORT, tsdu_bytes, slot_count)
    schedule = kernel.SendSchedule(
        slots,
        kernel.TokenBucket(rate, burst_bytes),
        coalesce_ns=coalesce_ns,
        quantum_bytes=quantum_bytes,
        run_packets=run,
    )
    now_ns = 10**12
    for step in program:
        result: object = None
        match step:
            case ("append", part):
                result = outcome(slots.append, [part])
            case ("take_run",):
                result = outcome(schedule.take_run, now_ns)
            case ("wait", armed):
                schedule.wait(armed=armed)
            case ("seal",):
                slots.seal()
            case ("pass", step_ns):
                now_ns += step_ns
            case ("close",):
                schedule.close()
            case ("leave",):
                schedule.leave()
            case ("open",):
                schedule.open_until_ns = now_ns + 10**6
                schedule.is_watched = True
            case ("watch",):
                schedule.is_watched = False
                schedule.armed_until_ns = now_ns + 1
            case ("left", step_ns):
                schedule.data_left_ns = schedule.data_sent_ns + step_ns
            case ("rate", bits_per_s, size_bytes):
                schedule.bucket.set_rate(bits_per_s, size_bytes)
        yield (
            result,
            [bool(schedule.is_due(now_ns, alone=alone)) for alone in (False, True)],
            (bool(schedule.has_pending), bool(schedule.is_watched)),
            (schedule.due_ns, schedule.armed_until_ns, schedule.armed_below),
            (schedule.open_until_ns, schedule.data_sent_ns, schedule.data_left_ns),
            (schedule.sent_packets, schedule.sent_bytes, schedule.bucket.available_bytes(now_ns)),
            (schedule.coalesce_ns, schedule.quantum_bytes, schedule.run_packets),
            (slots.slot_bytes, slots.unsent, slots.next, slots.open_bytes),
        )


LINKS = (101, 101, 1, 0, 108, 113, 276, 228, 12, 7)
"""Link types of captures; 7 is none that is known."""


def capture_program(dice: Dice) -> Program:
    """Records of a capture file, most of them a stream's packets, often with a bent field."""
    is_ng, is_little = dice.randrange(2) == 1, dice.randrange(2) == 1
    first_number = dice.choice(FIRST_NUMBERS)
    _, packets = a_stream(dice, first_number)
    link_type = dice.choice(LINKS)
    ticks = dice.choice((1, 1000, 1000, 10**9))
    program: Program = [("new", is_ng, is_little, first_number, dice.choice((0, 300, 10_000)))]
    if dice.randrange(8) < 7:
        program.append(("interface", link_type, ticks))
    for _ in range(dice.randrange(1, 8)):
        data = bytearray(dice.randrange(8))
        start = len(data)
        for _ in range(dice.randrange(6)):
            packet = dice.choice(packets) if packets and dice.randrange(8) == 7 else b""
            if packets and not packet:
                packet = packets.pop(0)
            if dice.randrange(8) == 7:
                packet = damaged(dice, packet)
            if dice.randrange(8) == 7 and len(packet) > 6:
                packet = with_checksum(bytearray(packet[:4] + b"\5" + packet[5:]))  # RDATA
            data += a_record(dice, packet, link_type, is_ng, is_little)
        if data and dice.randrange(6) == 5:
            data[dice.randrange(len(data))] = dice.choice((0, 1, 4, 6, 17, 69, 255))
        if dice.randrange(6) == 5:
            del data[dice.randrange(len(data) + 1) :]
        if dice.randrange(12) == 11:
            start = dice.choice((-1, 0, 1, len(data), len(data) + 5))
        program.append(("walk", bytes(data), start))
        kind = dice.randrange(8)
        if kind == 5:
            program.append(("heard", dice.choice((-1, -(10**8), 0, 10**17)), 100))
        elif kind == 6:
            program.append(("unheard",))
        elif kind == 7:
            program.append(dice.choice((("reach", 2), ("count", 5), ("limit", 500), ("skip", 1))))
        if dice.randrange(4) == 3:
            places = range(-1, len(reference.CAPTURE_FIELDS))
            pattern = tuple((b"<%d " % place, place) for place in places if dice.randrange(2))
            program.append(("print", pattern) if dice.randrange(4) else ("quiet",))
    return program


def a_record(dice: Dice, packet: bytes, link_type: int, is_ng: bool, is_little: bool) -> bytes:
    """One record around a PGM packet in UDP over IPv4, or IPv6."""
    udp = bytes((0x9C, 0x40)) + DPORT.to_bytes(2, "big") + (8 + len(packet)).to_bytes(2, "big")
    udp += b"\0\0" + packet
    if dice.randrange(4) == 3:
        frame = b"\x60\0\0\0" + len(udp).to_bytes(2, "big") + b"\x11\x01" + bytes(32) + udp
        kind = b"\x86\xdd"
    else:
        options = bytes(4 * dice.choice((0, 0, 0, 1, 10)))
        size = 20 + len(options) + len(udp)
        frame = bytes((0x45 + len(options) // 4, 0)) + size.to_bytes(2, "big") + b"\0\0\x40\0"
        frame += b"\x01\x11\0\0\x0a\0\0\1\xef\xc0\1\1" + options + udp
        kind = b"\x08\0"
    tags = b"".join(dice.choices((b"\x81\0\0\1", b"\x88\xa8\0\2"), k=dice.choice((0, 0, 1, 2, 3))))
    heads = {1: bytes(12) + tags + kind, 0: bytes(4), 108: bytes(4)}
    heads |= {113: bytes(14) + kind, 276: kind + bytes(18)}
    frame = heads.get(link_type, b"") + frame + bytes(dice.choice((0, 0, 1, 2)))
    words = [dice.randrange(1 << 16), dice.randrange(1 << 32), len(frame), len(frame)]
    if dice.randrange(12) == 11:
        words[dice.randrange(4)] = dice.choice((0, 1, 24, 1 << 31, 0xFFFF_FFFF))
    order = "little" if is_little else "big"
    if not is_ng:
        return b"".join(word.to_bytes(4, order) for word in words) + frame
    frame += bytes(-len(frame) % 4)
    head = [6, 32 + len(frame), 0, *words]
    if dice.randrange(12) == 11:
        head[dice.randrange(3)] = dice.choice((0, 1, 6, 28, 32, 33, 36, 0xFFFF_FFFF))
    return b"".join(word.to_bytes(4, order) for word in (*head,)) + frame + bytes(4)


def capture_run(kernel: Kernel, program: Program) -> Iterator[object]:
    _, is_ng, is_little, first_number, limit_bytes = program[0]
    decoder = kernel.FrameDecoder(kernel.TopicFilter([b""]), 10_000, 5)
    slots = kernel.ReceiveSlots(TSI, DPORT, decoder, first_number)
    flow = kernel.CaptureFlow(slots)
    walk = kernel.CaptureWalk(is_ng, is_little, limit_bytes)
    ports_and_gsi = DPORT.to_bytes(2, "big") + TSI[6:] + TSI[:6]
    addresses = b"\x0a\0\0\1\xef\xc0\1\1", bytes(32)
    walk.flows.update({address + ports_and_gsi: flow for address in addresses})
    walk.arrivals = []
    for step in program:
        result: object = None
        match step:
            case ("interface", link_type, tick_ns):
                walk.add_interface(link_type, tick_ns)
            case ("walk", data, start):
                result = outcome(walk.walk, data, start)
            case ("heard", time_ns, size_bytes):
                flow.heard(time_ns, size_bytes)
            case ("unheard",):
                walk.arrivals = None
            case ("print", pattern):
                flow.pattern, walk.lines = pattern, bytearray()
            case ("quiet",):
                walk.lines = None
            case ("reach", delta):
                slots.reach(slots.lead + delta)
            case ("skip", delta):
                flow.slots.skip_to(slots.next + delta)
            case ("count", count):
                walk.frame_count += count
            case ("limit", size_bytes):
                walk.stored_bytes_limit = size_bytes
        yield (
            result,
            None if walk.arrivals is None else [arrival[1:] for arrival in walk.arrivals],
            (walk.frame_count, walk.stored_bytes_limit, len(walk.flows)),
            (flow.pattern, None if walk.lines is None else bytes(walk.lines)),
            (flow.packet_count, flow.byte_count, flow.first_ns, flow.last_ns, flow.peak_bytes),
            *window_state(slots),
            *decoder_state(decoder),
        )


def udp_program(dice: Dice) -> Program:
    """Datagrams and runs through a socket, read in batches into buffers that may be too short."""
    program: Program = [("new", dice.choice((1, 2, 8)), dice.choice((1, 100, 65_536)))]
    for _ in range(dice.randrange(1, 20)):
        if dice.randrange(3):
            segment_bytes = dice.choice((1, 7, 100, 1000))
            count = dice.choice((0, 1, 1, 2, 9))
            data = some_bytes(dice, segment_bytes * count + dice.randrange(segment_bytes))
            program.append(("send", data, segment_bytes, dice.randrange(4)))
        else:
            program.append(("read",))
    program += [("read",)] * 3 + [("forget",), ("closed",)]
    return program


def udp_run(kernel: Kernel, program: Program) -> Iterator[object]:
    reader = kernel.UdpReader(*program[0][1:])
    writer = kernel.UdpWriter()
    yield None
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
    ):
        there.bind(("127.0.0.1", 0))
        sockaddr = packed_sockaddr(b"\x7f\0\0\1", there.getsockname()[1], 0)
        for step in program[1:]:
            result: object = None
            match step:
                case ("send", data, segment_bytes, way):
                    writer.gso, writer.mmsg = way > 1, way > 0
                    result = outcome(writer.send, here.fileno(), sockaddr, data, segment_bytes)
                case ("read",):
                    result = [
                        (address, bytes(view), size)
                        for address, view, size in reader.read(there.fileno())
                    ]
                case ("forget",):
                    reader.forget(there.fileno())
                case ("closed",):
                    there.close()
                    with contextlib.suppress(OSError):
                        result = reader.read(there.fileno())
            yield (
                result,
                (reader.truncated_count, reader.empty_count, dict(reader.overflows)),
                (bool(writer.gso), bool(writer.mmsg)),
            )


def zmtp_program(dice: Dice) -> Program:
    """A peer's byte stream, sound or damaged, cut anywhere; and batches to send."""
    program: Program = [("new", *some_limits(dice), dice.choice((0, 3, 300)))]
    for _ in range(dice.randrange(1, 16)):
        batch: list[Any] = [some_zmtp_message(dice) for _ in range(dice.randrange(6))]
        kind = dice.randrange(12)
        if kind == 0:
            batch.append(dice.choice(("text", (), (b"a", 3), bytearray(b"x"), [b"a"], None)))
        elif kind == 1:
            program.append(("filter", some_prefixes(dice)))
        elif kind == 2:
            program.append(("limits", *some_limits(dice)))
        program.append(("encode", batch))
        if kind != 0:
            program += [("feed", piece) for piece in some_zmtp_pieces(dice, batch)]
    return program


def some_zmtp_message(dice: Dice) -> reference.Message:
    if dice.randrange(8) == 7:  # not 0, which dice made of an input throw for ever behind its end
        return bytes(dice.choice((8191, 8192, 20_000)))
    if dice.randrange(3):
        return some_part(dice)
    return tuple(some_part(dice) for _ in range(dice.randrange(1, 5)))


def some_zmtp_pieces(dice: Dice, batch: list[reference.Message]) -> list[bytes]:
    data = bytearray().join(reference.encode_messages(batch))
    for _ in range(dice.choice((0, 0, 1, 2))):  # a command, perhaps in the middle of a frame
        body = some_bytes(dice, dice.choice((0, 1, 3, 4, 255, 256, 300)))
        place = 0 if dice.randrange(6) else dice.randrange(len(data) + 1)
        data[place:place] = frame_head(4, len(body)) + body
    if data and dice.randrange(10) == 0:
        data[dice.randrange(min(len(data), 20))] = dice.choice((0, 1, 2, 3, 4, 5, 6, 8, 255))
    if dice.randrange(16) == 0:
        data += bytes((dice.choice((2, 3, 6)),)) + (1 << dice.randrange(64)).to_bytes(8, "big")
    pieces = []
    while data:
        size = dice.choice((100_000, 5000, 100, 10, 9, 2, 1))
        pieces.append(bytes(data[:size]))
        del data[:size]
    return pieces if len(pieces) < 60 else [b"".join(pieces)]


def zmtp_run(kernel: Kernel, program: Program) -> Iterator[object]:
    scanner = kernel.FrameScanner(*program[0][1:])
    yield None
    for step in program[1:]:
        match step:
            case ("encode", batch):
                yield outcome(kernel.encode_messages, batch)
            case ("filter", prefixes):
                scanner.topic_filter = kernel.TopicFilter(prefixes)
                yield None
            case ("limits", max_message_bytes, max_part_count):
                scanner.max_message_bytes = max_message_bytes
                scanner.max_part_count = max_part_count
                scanner.max_command_bytes = max_message_bytes
                yield None
            case ("feed", data):
                scanner.feed(memoryview(bytearray(data)))
                seen: list[object] = []
                found: list[reference.Message] = []
                result = bytes, b""
                while isinstance(result, tuple) and result[0] is bytes:
                    result = outcome(scanner.scan_untrusted, found)
                    seen.append((result, len(found)))
                state = (
                    bool(scanner.has_unscanned),
                    scanner.max_message_bytes,
                    scanner.max_part_count,
                    scanner.max_command_bytes,
                )
                yield seen, found, scanner.filtered_count, scanner.message_count, state
                if result[0] is reference.FrameError:
                    scanner = kernel.FrameScanner(*program[0][1:])


def stream_program(dice: Dice) -> Program:
    """Frames written to a socket that takes a part of them, and read again in pieces."""
    program: Program = [("new", dice.choice((1, 7, 100, 9000, 100_000)))]
    for _ in range(dice.randrange(1, 12)):
        kind = dice.randrange(10)
        batch: list[Any] = [some_zmtp_message(dice) for _ in range(dice.randrange(6))]
        if dice.randrange(10) == 0:
            batch.append(dice.choice(("text", (), (b"a", 3))))
        elif dice.randrange(10) == 0:
            batch.append(bytes(dice.choice((40_000, 70_000, 300_000))))
        if kind < 5:
            program.append(("append", batch))
        elif kind < 7:
            buffers = reference.encode_messages([some_zmtp_message(dice) for _ in range(3)])
            program.append(("put", buffers, dice.choice((0, 3))))
        elif kind == 7:
            program.append(("write",))
        else:
            program.append(("drain",))
    program.append(("drain",))
    return program


def stream_run(kernel: Kernel, program: Program) -> Iterator[object]:
    here, there = socket.socketpair()
    reader = kernel.StreamReader(program[0][1])
    scanner = kernel.FrameScanner(1 << 20, 8, 512)
    with here, there:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        writer = kernel.StreamWriter(here.fileno())
        yield reader.read(there.fileno()), writer.write()
        for step in program[1:]:
            match step:
                case ("append", batch):
                    yield outcome(writer.append, batch)
                case ("put", buffers, count):
                    yield outcome(writer.put, buffers, count)
                case ("write",):
                    writer.write()  # how much the system takes is not the kernel's business
                    yield None
                case ("drain",):
                    found: list[reference.Message] = []
                    code = 11
                    while code:
                        code = writer.write()
                        while (size := reader.read(there.fileno(), scanner)) > 0:
                            assert scanner.scan_untrusted(found) is None
                        assert size == -11
                    yield found, writer.size_bytes, writer.message_count, writer.written_bytes
        there.send(b"abc")
        yield reader.read(here.fileno()), bytes(reader.data[:1])
        there.close()
        writer.put([b"x"])
        yield writer.write()
        writer.clear()
        yield writer.write(), writer.size_bytes, reader.read(here.fileno())


def flow_program(dice: Dice) -> Program:
    """A socket with one peer: what is sent by its gate, and what comes to its inbox."""
    program: Program = [("new", dice.choice((5, 300, 100_000)), dice.choice((1, 3, 1000)))]
    for _ in range(dice.randrange(1, 25)):
        kind = dice.randrange(14)
        batch: list[Any] = [some_zmtp_message(dice) for _ in range(dice.randrange(6))]
        if kind < 3:
            program.append(("send", some_part(dice)))
        elif kind == 3:
            program.append(("send", dice.choice(("text", bytearray(b"a"), bytes(9000)))))
        elif kind < 6:
            program.append(("send_many", [some_part(dice) for _ in range(dice.randrange(9))]))
        elif kind == 6:
            program.append(("open", dice.randrange(2)))
            if dice.randrange(3) == 2:
                program.append(
                    dice.choice((("hold", True), ("hold", False), ("close",), ("limits", 3)))
                )
        elif kind == 7:
            program.append(("filter", some_prefixes(dice)))
        elif kind == 8:
            program.append(("put", reference.encode_messages(batch)))
        elif kind == 9:
            program.append(("take", dice.choice((1, 3, 1000))))
        else:
            program += [("come", piece) for piece in some_zmtp_pieces(dice, batch)]
            program.append(("read",))
    return program


def flow_run(kernel: Kernel, program: Program) -> Iterator[object]:
    _, max_message_bytes, message_limit = program[0]
    inbox = kernel.Inbox()
    inbox.limit = 10
    here, there = socket.socketpair()
    with here, there, contextlib.closing(select.epoll()) as epoll:
        there.setblocking(False)
        baton = kernel.Baton(epoll.fileno())
        writer = kernel.StreamWriter(here.fileno())

        def slow(data: bytes, flags: int = 0, *, timeout: float | None = None) -> None:
            if not isinstance(data, bytes | bytearray):
                raise TypeError("no message")
            if gate.topic_filter is None or gate.topic_filter.match(data):
                writer.append([bytes(data)])
                writer.write()

        def slow_many(messages: list[bytes], *, timeout: float | None = None) -> int:
            for message in messages:
                slow(message)
            return len(messages)

        gate = kernel.StreamGate(
            max_message_bytes=max_message_bytes,
            message_limit=message_limit,
            coalesce_ns=50_000,
            blocks=True,
            drops=False,
            baton=baton,
            attended=False,
            failed=lambda: None,
            slow=slow,
            slow_many=slow_many,
        )
        gate.lead_to(writer)
        scanner = kernel.FrameScanner(70_000, 4, 300)
        intake = kernel.StreamIntake(
            here.fileno(),
            scanner,
            inbox,
            lock=threading.Lock(),
            baton=baton,
            rest=lambda *_: None,
            settled=lambda: NEVER,
            share=lambda: None,
        )
        for step in program:
            result: object = None
            match step:
                case ("send", message):
                    result = outcome(gate.send, message)
                case ("send_many", batch):
                    result = outcome(gate.send_many, list(batch))
                case ("open", is_open):
                    gate.is_open = bool(is_open)
                    gate.topic_filter = None
                case ("hold", wanted):
                    gate.hold = wanted
                case ("close",):
                    gate.close()
                case ("limits", count):
                    gate.max_message_bytes = gate.message_limit = count
                case ("filter", prefixes):
                    gate.topic_filter = kernel.TopicFilter(prefixes)
                    scanner.topic_filter = kernel.TopicFilter(prefixes)
                case ("put", buffers):
                    writer.put(buffers)
                case ("come", data):
                    there.send(data)
                case ("read",):
                    stop = intake.read()
                    result = str(stop) if isinstance(stop, reference.FrameError) else stop
                    if isinstance(stop, reference.FrameError):
                        return
                case ("take", count):
                    result = outcome(inbox.get_many, count)
            arrived = b""
            while gate.flush() or writer.size_bytes:
                arrived += there.recv(1 << 20)
            with contextlib.suppress(BlockingIOError):
                arrived += there.recv(1 << 20)
            yield (
                result,
                arrived,
                (intake.size_bytes, intake.received_bytes, inbox.put_count),
                (gate.due_ns, gate.error, gate.is_open, bool(gate.hold), gate.writer is writer),
                (gate.max_message_bytes, gate.message_limit),
            )
        gate.leave()
        intake.settle()
        intake.ring()
        intake.hand_back()
        intake.close()
        assert not intake.is_open


MACHINES = {
    "plain": Machine(plain_program, plain_run),
    "transmit": Machine(transmit_program, transmit_run),
    "decode": Machine(decode_program, decode_run),
    "receive": Machine(receive_program, receive_run),
    "inbox": Machine(inbox_program, inbox_run),
    "gate": Machine(gate_program, gate_run),
    "intake": Machine(intake_program, intake_run),
    "pace": Machine(pace_program, pace_run),
    "flow": Machine(flow_program, flow_run),
    "stream": Machine(stream_program, stream_run),
    "zmtp": Machine(zmtp_program, zmtp_run),
    "schedule": Machine(schedule_program, schedule_run),
    "capture": Machine(capture_program, capture_run),
    "udp": Machine(udp_program, udp_run),
}


# --- planted mistakes ----------------------------------------------------------------------------


class _LateTrail(reference.TransmitSlots):
    """Lets go of a slot's old packet only when the new one is sealed."""

    def _write(self, data: reference.Buffer) -> None:
        trail = self.trail
        super()._write(data)
        self.trail = trail

    def seal(self) -> None:
        self.trail = max(self.trail, self.next - self._slot_count + 1)
        super().seal()


class _ShortHead(reference.FrameDecoder):
    """Takes a length octet of 0xFF for a short frame when it is the last octet of a TSDU."""

    def _read_head_untrusted(self, view: memoryview, position: int) -> int:
        if position == len(view) - 1 and view[position] == 0xFF:
            self._give_up()
            return len(view)
        return super()._read_head_untrusted(view, position)


class _Eager(reference.ReceiveSlots):
    """Counts a repair that was only stored as if it were original data."""

    def store(self, sqn: int, packet: reference.Buffer) -> bool:
        before = self.repair_count
        taken = super().store(sqn, packet)
        self.repair_count = before
        return taken


class _Whole(reference.ReceiveSlots):
    """Takes a hole for filled when its last number comes after one in its middle."""

    def _fill(self, sqn: int) -> None:
        super()._fill(sqn)
        if self._holes and self._holes[-1][1] < sqn and len(self._holes) > 2:
            del self._holes[-1]


def _zero_checksum(data: reference.Buffer) -> int:
    return reference.checksum(data) % 0xFFFF


class _Torn(reference.Inbox):
    """Hands out what lies behind an exception before the exception."""

    def get_many(self, limit: int) -> list[reference.Message]:
        if limit > 1 and len(self._items) > 1 and isinstance(self._items[1], Exception):
            self._items.rotate(-1)
        return super().get_many(limit)


class _Careless(reference.SendGate):
    """Forgets that a message with flags goes the long way."""

    def send(self, data: reference.Buffer, flags: int = 0, *, timeout: float | None = None) -> None:
        super().send(data, 0, timeout=timeout)


class _Greedy(reference.Intake):
    """Goes on with what is plain behind something that is not."""

    def read(self, now_ns: int) -> list[reference.Leftover]:
        leftovers = super().read(now_ns)
        plain = [self._take(now_ns, *one[:3]) < 0 for one in leftovers[1:]]
        return leftovers[:1] + [
            one for one, is_plain in zip(leftovers[1:], plain, strict=True) if not is_plain
        ]


class _Generous(reference.TokenBucket):
    """Forgives a debt after a second."""

    def available_bytes(self, now_ns: int) -> float:
        return super().available_bytes(now_ns + 10**9)


class _Forgetful(reference.StreamWriter):
    """After a part was taken it goes on with the next buffer."""

    def _advance(self, size: int) -> None:
        super()._advance(size)
        if self._first_done_bytes:
            self.written_bytes += len(self._buffers.popleft()) - self._first_done_bytes
            self._first_done_bytes = 0


class _Deaf(reference.StreamIntake):
    """Goes on behind a command."""

    def read(self) -> reference.Stop:
        stop = super().read()
        return super().read() if isinstance(stop, bytes) else stop


class _Blind(reference.FrameScanner):
    """Looks at a long frame's flags only when the whole head is there."""

    def scan_untrusted(self, messages: list[reference.Message]) -> bytes | None:
        if not self._missing_bytes and len(self._data) < 9 and self._data[:1] >= b"\x08":
            return None
        return super().scan_untrusted(messages)


class _Wide(reference.CaptureWalk):
    """Leaves a frame with a VLAN tag."""

    @staticmethod
    def _datagram(link_type: int, packet: memoryview) -> tuple[int, int, int, int] | None:
        if link_type == 1 and packet[12:14] == b"\x81\0":
            return None
        return reference.CaptureWalk._datagram(link_type, packet)


class _Late(reference.SendSchedule):
    """Lets a lone message wait like any other."""

    def is_due(self, now_ns: int, *, alone: bool) -> bool:
        return super().is_due(now_ns, alone=False)


class _Long(reference.UdpReader):
    """Counts what was cut off, and hands it out all the same."""

    def read(self, fd: int) -> list[tuple[bytes, memoryview, int]]:
        before = self.truncated_count
        found = super().read(fd)
        return found + [(b"\x7f\0\0\1", memoryview(b"?"), 1)] * (self.truncated_count - before)


PLANTS: dict[str, dict[str, object]] = {
    "blind-scanner": {"FrameScanner": _Blind},
    "careless-gate": {"SendGate": _Careless},
    "greedy-intake": {"Intake": _Greedy},
    "deaf-intake": {"StreamIntake": _Deaf},
    "forgetful-writer": {"StreamWriter": _Forgetful},
    "generous-bucket": {"TokenBucket": _Generous},
    "torn-inbox": {"Inbox": _Torn},
    "checksum-zero": {"checksum": _zero_checksum},
    "late-lone": {"SendSchedule": _Late},
    "late-trail": {"TransmitSlots": _LateTrail},
    "short-head": {"FrameDecoder": _ShortHead},
    "stored-repair": {"ReceiveSlots": _Eager},
    "uncut-datagram": {"UdpReader": _Long},
    "whole-hole": {"ReceiveSlots": _Whole},
    "wide-vlan": {"CaptureWalk": _Wide},
}


def planted(name: str) -> SimpleNamespace:
    """A kernel that is the reference but for one mistake."""
    names = {name: getattr(reference, name) for name in reference.__all__}
    return SimpleNamespace(**names | PLANTS[name])


def native() -> ModuleType:
    """The compiled kernel; raises ImportError where it is not built."""
    return importlib.import_module("mcast.kernel._native")


# --- the loop ------------------------------------------------------------------------------------


def case(seed: int, number: int) -> tuple[str, Program]:
    """The machine's name and the program of one case."""
    name = list(MACHINES)[number % len(MACHINES)]
    return name, MACHINES[name].program(random.Random(f"{seed}/{number}"))


def try_case(seed: int, number: int, other: Kernel) -> int:
    """Compare one case; the number of steps."""
    name, program = case(seed, number)
    return compare(MACHINES[name], program, reference, other)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit 0 if no case disagreed, 1 if one did, 2 if there is nothing to compare with."""
    parser = argparse.ArgumentParser(description="compare the kernels on random programs")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="replay this case only")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a mistake that must be found")
    options = parser.parse_args(arguments)
    try:
        other = planted(options.plant) if options.plant else native()
    except ImportError as error:
        print(f"no compiled kernel: {error}", file=sys.stderr)
        return 2
    started = time.monotonic()
    number = step_count = 0
    while time.monotonic() - started < options.seconds:
        number_now = number if options.case is None else options.case
        try:
            step_count += try_case(options.seed, number_now, other)
        except Exception as error:
            plant = f" --plant {options.plant}" if options.plant else ""
            print(f"{type(error).__name__} in case {number_now}: {error}")
            print(f"replay: python {sys.argv[0]} --seed {options.seed} --case {number_now}{plant}")
            return 1
        number += 1
        if options.case is not None:
            break
    print(f"{number} cases, {step_count} steps, seed {options.seed}: no disagreement")
    return 0


if __name__ == "__main__":
    sys.exit(main())
