"""Attacks measured at the engine alone: what one packet costs in time and memory, what it makes us
send. Rows 11 and S1, S4, S7, S12, S13 of the fault matrix."""

from __future__ import annotations

import time
import tracemalloc
from random import Random

import pytest

from mcast import kernel
from tests.support.figures import figure
from tests.unit.pgm import packets as made
from tests.unit.pgm.wire import GROUP_ADDRESS, Node, Wire

STRANGER = bytes((10, 77, 0, 99))


def listening() -> tuple[Wire, Node]:
    """A subscriber that hears the source ``made.TSI``."""
    wire = Wire(seed=31)
    sub = wire.subscriber()
    take(wire, sub, made.spm(1, 0, 0xFFFF_FFFF))
    for sqn in range(100):
        take(wire, sub, made.odata(sqn, f"message {sqn}", trail=0))
    return wire, sub


def take(wire: Wire, node: Node, packet: bytes, address: bytes = made.SOURCE) -> None:
    node.engine.handle_datagrams(
        wire.now_ns, address, memoryview(packet), max(1, len(packet)), to_group=True
    )
    node.engine.take_transmits()
    node.engine.take_events()


def cost_us(wire: Wire, node: Node, packets: list[bytes]) -> float:
    """The mean over all, from the best of three rounds: others use the machine as well."""
    rounds = []
    for _ in range(3):
        start = time.perf_counter()
        for packet in packets:
            take(wire, node, packet)
        rounds.append((time.perf_counter() - start) / len(packets) * 1e6)
    return min(rounds)


def test_every_truncation_is_dropped_and_cheap() -> None:
    wire, sub = listening()
    whole = [
        made.odata(101, "x" * 200, made.option(0x00, bytes(12))),
        made.spm(2, 0, 100),
        made.request(made.NCF, *range(63)),
        made.request(made.NAK, *range(63)),
    ]
    cut = [packet[:length] for packet in whole for length in range(len(packet))]
    cut += [made.seal(packet) for packet in cut if len(packet) >= 16]
    mean_us = cost_us(wire, sub, cut)
    figure("11", f"{len(cut)} truncations: 0 raised, mean {mean_us:.1f} us of the engine each")
    assert sub.engine.counters.malformed.total() >= len(cut)
    assert mean_us <= 100


def test_s1_a_bad_packet_costs_no_more_than_a_good_one() -> None:
    wire, sub = listening()
    dice = Random(2)
    bad = []
    for _ in range(2_000):
        packet = bytearray(made.odata(150, "x" * 200, trail=0))
        packet[dice.randrange(len(packet))] ^= 1 << dice.randrange(8)
        bad.append(bytes(packet))
    duplicates = [made.odata(50, "message 50", trail=0)] * 2_000
    bad_us, good_us = cost_us(wire, sub, bad), cost_us(wire, sub, duplicates)
    figure(
        "S1",
        f"one flipped bit: {bad_us:.1f} us of the engine each, a known packet {good_us:.1f} us",
        met=bad_us <= 20,
    )
    assert bad_us <= (20 if kernel.NAME == "native" else 200) * 3


HOSTILE = {
    "SPM 2^30 ahead": made.spm(2, 0, 1 << 30),
    "SPM with a trail far ahead": made.spm(3, 1_000_100, 1_000_200),
    "ODATA 2^30 ahead": made.odata((1 << 30) + 7, "x", trail=0),
    "ODATA 60,000 ahead": made.odata(60_100, "x", trail=0),
    "NCF for 63 far numbers": made.request(made.NCF, *range(50_000, 50_063)),
    "OPT_FRAGMENT of 4 GiB": made.data(
        100, b"x" * 100, made.option(0x01, b"\0\0\0\x64" + bytes(4) + b"\xff" * 4), trail=0
    ),
    "frame of 2^62 bytes": made.data(100, b"\0\0\xff" + (1 << 62).to_bytes(8, "big"), trail=0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_one_hostile_packet_costs_little_time_and_memory(name: str) -> None:
    packet = HOSTILE[name]
    times = []
    held = 0
    for _ in range(5):
        wire, sub = listening()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        take(wire, sub, packet)
        held = max(held, tracemalloc.get_traced_memory()[0] - before)
        tracemalloc.stop()
        wire, sub = listening()
        start = time.perf_counter()
        take(wire, sub, packet)
        times.append(time.perf_counter() - start)
    best_ms = min(times) * 1e3
    row = "S12" if "4 GiB" in name or "2^62" in name else "S4"
    figure(
        row,
        f"{name}: {best_ms:.2f} ms, {held / 1024:.1f} KiB",
        met=best_ms <= 1 and held <= 65_536,
    )
    assert held <= 65_536
    assert best_ms <= 5
    # And the honest stream goes on.
    heard = sub.engine.stats()["messages_received"]
    take(wire, sub, made.odata(100, "next", trail=0))
    if row == "S4":
        assert sub.engine.stats()["messages_received"] == heard + 1


def test_s7_no_nak_goes_where_a_forged_spm_points() -> None:
    wire, sub = listening()
    victim = bytes((10, 77, 0, 66))
    for number in range(2, 60):
        take(wire, sub, made.spm(number, 0, 99, path=victim))
    take(wire, sub, made.odata(105, "behind a gap", trail=0))
    sent = []
    for _ in range(50):
        wire.now_ns += 10_000_000
        sub.engine.handle_timeout(wire.now_ns)
        sent += sub.engine.take_transmits()
    aimed = sum(transmit.destination == victim for transmit in sent)
    figure("S7", f"58 SPMs with a forged path: {aimed} of {len(sent)} packets went there")
    assert sent
    assert aimed == 0


def test_s13_a_flood_of_spm_requests_is_no_amplifier() -> None:
    wire = Wire(seed=32)
    pub = wire.publisher()
    wire.run(2.0)
    source = pub.engine.source
    assert source is not None
    request = made.packet(made.SPMR, b"", tsi=source.tsi)
    before, start_ns = len(pub.sent), wire.now_ns
    taken = 0
    while wire.now_ns < start_ns + 1_000_000_000:
        wire.deliver(pub, STRANGER, request)
        taken += len(request)
        wire.run(0.0001)
    answers = pub.sent[before:]
    out = sum(map(len, answers))
    figure(
        "S13", f"10,000 SPMRs in 1 s: {len(answers)} answers, {out / taken:.2f} bytes out per in"
    )
    assert len(answers) <= 105
    assert out <= 2 * taken


def test_s5_one_nak_for_the_same_numbers_is_answered_once_in_the_hold_off() -> None:
    wire = Wire(seed=33)
    pub = wire.publisher()
    wire.run(0.1)
    for number in range(100):
        wire.send(pub, b"x" * 1000 + b"%d" % number)
        wire.run(0.001)
    source = pub.engine.source
    assert source is not None
    nak = made.request(
        made.NAK, *range(63), tsi=source.tsi, source=pub.address, group=GROUP_ADDRESS
    )
    repairs = pub.engine.counters.rdata_sent
    for _ in range(200):
        wire.deliver(pub, STRANGER, nak, to_group=False)
        wire.run(0.00005)  # all within 10 ms, which is half of the hold-off
    repairs = pub.engine.counters.rdata_sent - repairs
    figure("S5", f"200 NAKs for the same 63 numbers in 10 ms: {repairs} repairs (libzmq: 200)")
    assert repairs <= 63
