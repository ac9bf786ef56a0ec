"""Faults on a real wire between namespaces: what a subscriber is owed, and how soon.

Every message carries publisher, number, length and checksum, and a ledger in the subscriber's
process checks each one (``tests.support.workload``). Times of different processes are compared
by the monotonic clock that they share. Each test prints the figures it measured.

What is owed must hold in every attempt. How soon it comes, on a machine that others use as well,
must hold in one of a few.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mcast import kernel
from tests.netlab import NAK, ODATA, Process, lab_or_skip
from tests.support.figures import figure
from tests.support.transfer import PORT, mcast_peer, transfer
from tests.tshark import dissect

pytestmark = pytest.mark.namespace

Event = dict[str, object]

MESSAGE_BYTES = 256
ONE_PER_PACKET = ("--option", "multicast_maxtpdu=340")
"""A TSDU of 268 bytes holds its offset, one frame head and 256 bytes of body, exactly: so packet
number and message number are the same."""


# Random loss


@pytest.mark.parametrize(
    "count", [pytest.param(10_000), pytest.param(100_000, marks=pytest.mark.slow)]
)
def test_ten_percent_lost_each_way_is_all_repaired(count: int) -> None:
    with lab_or_skip(4) as lab:
        account = transfer(
            lab,
            mcast_peer("--interval-us", "200", "--prepare"),
            [(host, mcast_peer()) for host in lab.hosts[1:]],
            count=count,
            shape=f"fixed:{MESSAGE_BYTES}",
            loss_percent=10,
            timeout_s=90,
        )
    print(account.report("one publisher, three subscribers, 10 % each way"))
    source = account.source
    print(
        f"  publisher: {source['odata_sent']} ODATA, {source['rdata_sent']} RDATA, "
        f"{source['naks_received']} NAKs, {source['ncfs_sent']} NCFs"
    )
    for number, ledger in enumerate(account.ledgers):
        stats = ledger["stats"]
        assert isinstance(stats, dict)
        print(
            f"  subscriber {number} ({ledger['kernel']}): {stats['repaired']} repaired, "
            f"{stats['naks_sent']} NAKs, {stats['nak_sqns_sent']} numbers asked, repair "
            f"p50 {stats['repair_p50_s'] * 1e3:.1f} ms, p99 {stats['repair_p99_s'] * 1e3:.1f} ms"
        )
        assert ledger["events"] == ["PeerJoined"]
        # Measured 90 to 140 ms on a quiet machine with two cores; the rest is for a busy one.
        assert stats["repair_p99_s"] < 0.5
    assert not account.complaints()


# Beyond repair


@pytest.mark.slow
def test_a_blackout_longer_than_the_window_is_reported_exactly_and_ends_at_once() -> None:
    _reach(_blackout, attempts=2)


def _blackout() -> bool:
    rate, window_s, blackout_s = 5_000, 10.0, 15.0
    shape = ("--count", "0", "--shape", f"fixed:{MESSAGE_BYTES}")
    with lab_or_skip(2) as lab:
        source, receiver = lab.hosts
        subscriber = mcast_peer(*shape, "--timeout", "90", "--idle", "60").start(receiver, "sub")
        publisher = mcast_peer(*shape, *ONE_PER_PACKET, "--interval-us", str(1e6 / rate)).start(
            source, "pub"
        )
        time.sleep(0.3)
        start = time.monotonic()
        publisher.tell("go")
        time.sleep(3.0)
        with receiver.blackout() as fault:
            time.sleep(blackout_s)
        time.sleep(5.0)
        subscriber.tell("quit")
        summary, events = _finish(subscriber)
        publisher.kill()
    healed_at = fault.healed_at
    (stream,) = _streams(summary).values()
    lost = [event for event in events if event["kind"] == "Lost"]
    reported = _merged([(_int(event, "first"), _int(event, "last")) for event in lost])
    silence = next(pause for pause in _pairs(summary, "pauses") if pause[1] - pause[0] > 10)
    fresh = [
        at
        for at, counter in _pairs(summary, "progress")
        if at > healed_at and counter > (at - start) * rate - 0.1 * rate
    ]
    caught_up = f"{(fresh[0] - healed_at) * 1e3:.0f} ms" if fresh else "over 5 s"
    first_report_s = _float(lost[0], "at") - healed_at
    live_s = silence[1] - healed_at
    print(
        f"blackout of {blackout_s} s, window {window_s} s, {rate} messages/s, "
        f"{summary['kernel']} kernel: lost {reported} in {len(lost)} event(s), first reported "
        f"{first_report_s * 1e3:.0f} ms after the heal, first message {live_s * 1e3:.0f} ms after, "
        f"caught up with the schedule {caught_up} after; {_repair_line(summary)}"
    )
    figure(
        "7",
        f"15 s with a window of 10 s: {reported} LOST, reported {first_report_s * 1e3:.0f} ms and "
        f"the first message {live_s * 1e3:.0f} ms after the heal",
        met=live_s <= 0.2,
    )
    assert stream["gaps"] == reported, "the ledger's gaps are not what was reported"
    assert len(reported) == 1
    assert {event["reason"] for event in lost} == {"window_advanced"}
    assert sum(_int(event, "count") for event in lost) == stream["missing"]
    # Nothing was given up that the window still held: it holds at least its ten seconds.
    assert reported[0][1] < (healed_at - start - window_s + 1.0) * rate
    assert summary["duplicates"] == summary["corrupt"] == summary["reordered"] == 0
    return first_report_s < 0.1 and live_s < 0.2


@pytest.mark.slow
def test_loss_is_reported_within_100_ms_of_the_trail_passing_it(tmp_path: Path) -> None:
    _reach(lambda: _late_report_s(tmp_path) < 0.1)


def _late_report_s(tmp_path: Path) -> float:
    path = tmp_path / "trail.pcap"
    count, lost_count = 4_000, 5
    shape = ("--count", str(count), "--shape", f"fixed:{MESSAGE_BYTES}")
    window = ("--option", "recovery_ivl=1.0", "--interval-us", "1000")
    with lab_or_skip(2) as lab:
        source, receiver = lab.hosts
        subscriber = mcast_peer(*shape, "--timeout", "30").start(receiver, "sub")
        with receiver.capture(path, port=PORT) as capture:
            publisher = mcast_peer(*shape, *ONE_PER_PACKET, *window).start(source, "pub")
            source.lose(pgm_type=NAK)
            # The 500th to 504th data packet; the rule does not fire again.
            receiver.lose(
                pgm_type=ODATA, match=f"numgen inc mod 1000000 offset 0 == 500-{499 + lost_count}"
            )
            time.sleep(0.3)
            publisher.tell("go")
            summary, events = _finish(subscriber)
        publisher.tell("quit")
        publisher.wait(timeout_s=10)
        packets = dissect(path, PORT)
    (lost,) = [event for event in events if event["kind"] == "Lost"]
    first, last = _int(lost, "first"), _int(lost, "last")
    (stream,) = _streams(summary).values()
    assert capture.missed == 0
    assert (lost["reason"], lost["count"]) == ("window_advanced", lost_count)
    assert stream["gaps"] == [[first, last]]
    assert summary["duplicates"] == summary["corrupt"] == 0
    # The capture has the wall clock, the events the monotonic one.
    shift_s = time.time() - time.monotonic()
    passed_at = next(
        packet.time_s - shift_s
        for packet in packets
        if packet.name == "ODATA" and int.from_bytes(packet.payload[20:24], "big") > last
    )
    delay_s = _float(lost, "at") - passed_at
    print(f"{first} to {last} reported {delay_s * 1e3:.1f} ms after the trail passed them")
    return delay_s


# The publisher dies


@pytest.mark.slow
def test_a_publisher_killed_and_restarted_is_never_spliced_and_always_reported() -> None:
    restart_count, peer_expiry_s = 20, 2.0
    shape = ("--count", "0", "--shape", "headed")
    with lab_or_skip(2) as lab:
        source, receiver = lab.hosts
        subscriber = mcast_peer(
            *shape, "--timeout", "100", "--idle", "60", "--option", f"peer_expiry={peer_expiry_s}"
        ).start(receiver, "sub")
        lab.lose_everywhere(5)
        for incarnation in range(1, restart_count + 1):
            publisher = mcast_peer(
                *shape, "--incarnation", str(incarnation), "--interval-us", "200"
            ).start(source, "pub")
            publisher.tell("go")
            # A different point of the stream each time, often amid a message or a repair.
            time.sleep(0.15 + 0.0137 * incarnation)
            publisher.signal(signal.SIGKILL)
            publisher.wait(timeout_s=5)
        time.sleep(peer_expiry_s + 1.0)
        subscriber.tell("quit")
        summary, events = _finish(subscriber)
    streams = _streams(summary)
    lines: dict[str, list[Event]] = {}
    for event in events:
        lines.setdefault(str(event["tsi"]), []).append(event)
    print(
        f"{restart_count} kills, {summary['kernel']} kernel: {summary['received']} messages of "
        f"{len(streams)} incarnations, {summary['missing']} missing in "
        f"{sum(_int(each, 'gap_count') for each in streams.values())} gaps, "
        f"{sum(event['kind'] == 'Lost' for event in events)} Lost events; {_repair_line(summary)}"
    )
    figure(
        "15",
        f"{restart_count} kills: {len(streams)} streams, 0 spliced, {summary['missing']} missing "
        "and every gap reported",
    )
    assert summary["corrupt"] == summary["duplicates"] == summary["reordered"] == 0
    assert sorted(streams) == sorted(f"{number}.0" for number in range(1, restart_count + 1))
    assert len(lines) == restart_count
    # One after the other, so the sources appear in the order of the incarnations.
    for incarnation, line in enumerate(lines.values(), start=1):
        kinds = [event["kind"] for event in line]
        stream = streams[f"{incarnation}.0"]
        losses = kinds.count("Lost")
        assert kinds == ["PeerJoined"] + ["Lost"] * losses + ["PeerLeft"]
        assert (line[-1]["reason"], line[-1]["tail_unknown"]) == ("expired", True)
        assert _int(stream, "gap_count") <= losses, "a gap that nobody reported"


# A busy application


# The matrix asks for 20,000 a second, which the compiled kernel is there for. The reference took
# 14,000 to 17,000 on a machine in a slow hour, and more than 20,000 on others (measured).
BESIDE_PER_S = 20_000 if kernel.NAME == "native" else 7_500


@pytest.mark.slow
@pytest.mark.parametrize("hog_count", [0, 1])
def test_a_computing_thread_beside_the_subscriber_loses_nothing(hog_count: int) -> None:
    _reach(lambda: _rate_beside(hog_count) >= BESIDE_PER_S)


def _rate_beside(hog_count: int) -> float:
    rate, seconds = BESIDE_PER_S * 5 // 4, 6
    summary = _paced_transfer(rate * seconds, 1e6 / rate, hog_count)
    received_rate = _int(summary, "received") / _float(summary, "seconds")
    print(
        f"{hog_count} computing thread(s), {summary['kernel']} kernel: {summary['received']} "
        f"messages of {MESSAGE_BYTES} B at {received_rate:,.0f}/s, "
        f"missing {summary['missing']}, {_repair_line(summary)}"
    )
    figure(
        "33",
        f"{hog_count} computing thread(s): {received_rate:,.0f} messages/s, "
        f"{summary['missing']} LOST",
        met=received_rate >= BESIDE_PER_S,
    )
    assert summary["missing"] == summary["duplicates"] == summary["corrupt"] == 0
    assert summary["events"] == ["PeerJoined"]
    return received_rate


def _paced_transfer(count: int, interval_us: float, hog_count: int) -> Event:
    shape = ("--count", str(count), "--shape", f"fixed:{MESSAGE_BYTES}", "--timeout", "60")
    with lab_or_skip(2) as lab:
        source, receiver = lab.hosts
        subscriber = mcast_peer(*shape, "--check-later", "--hogs", str(hog_count)).start(
            receiver, "sub"
        )
        publisher = mcast_peer(*shape, "--prepare", "--interval-us", str(interval_us)).start(
            source, "pub"
        )
        time.sleep(0.3)
        publisher.tell("go")
        summary, _ = _finish(subscriber)
        publisher.wait_json("sent", timeout_s=10)
        publisher.tell("quit")
        publisher.wait(timeout_s=10)
    return summary


def _reach(attempt: Callable[[], bool], *, attempts: int = 3) -> None:
    assert any(attempt() for _ in range(attempts)), f"missed in each of {attempts} attempts"


# Reading what a subscriber says


def _finish(subscriber: Process, *, timeout_s: float = 100.0) -> tuple[Event, list[Event]]:
    """The summary, and every event said before it, in order."""
    deadline = time.monotonic() + timeout_s
    events = []
    while True:
        line = subscriber.read_line(timeout_s=deadline - time.monotonic())
        assert line is not None, subscriber.obituary()
        said = json.loads(line)
        if said["event"] == "summary":
            return said, events
        if said["event"] == "event":
            events.append(said)


def _streams(summary: Event) -> dict[str, Event]:
    streams = summary["streams"]
    assert isinstance(streams, dict)
    return streams


def _pairs(summary: Event, name: str) -> list[tuple[float, float]]:
    pairs = summary[name]
    assert isinstance(pairs, list)
    return [(first, second) for first, second in pairs]


def _merged(ranges: list[tuple[int, int]]) -> list[list[int]]:
    """The same numbers with adjoining ranges made one, in order."""
    merged: list[list[int]] = []
    for first, last in sorted(ranges):
        if merged and first == merged[-1][1] + 1:
            merged[-1][1] = last
        else:
            merged.append([first, last])
    return merged


def _repair_line(summary: Event) -> str:
    stats = summary["stats"]
    assert isinstance(stats, dict)
    return (
        f"{stats['repaired']} repaired, p50 {stats['repair_p50_s'] * 1e3:.0f} ms, "
        f"p99 {stats['repair_p99_s'] * 1e3:.0f} ms, "
        f"{stats['rcvbuf_overflows']} dropped by a full buffer"
    )


def _int(event: Event, name: str) -> int:
    value = event[name]
    assert isinstance(value, int)
    return value


def _float(event: Event, name: str) -> float:
    value = event[name]
    assert isinstance(value, float)
    return value
