"""Rows 13, 14, 17 to 19, 33 and 35: ends that stop, come late, are slow, or lose far more."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.runs import ONE_PER_PACKET, RATE, check, flow, missing, source, stat
from tests.netlab import lab_or_skip
from tests.support.figures import figure
from tests.support.transfer import mcast_peer

pytestmark = [pytest.mark.namespace, pytest.mark.slow, pytest.mark.kernel_independent]


@pytest.mark.parametrize(("stop_s", "window_s"), [(1.0, 10.0), (3.0, 1.0)])
def test_a_receiver_that_was_stopped_repairs_or_reports(stop_s: float, window_s: float) -> None:
    within = stop_s < window_s
    after = 0
    with lab_or_skip(3) as lab:

        def stop() -> None:
            nonlocal after
            process = lab.hosts[1].processes[0]
            time.sleep(0.5)
            process.signal(signal.SIGSTOP)
            time.sleep(stop_s)
            process.signal(signal.SIGCONT)

        # The buffer holds some 0.5 s of this; the rest is dropped by the kernel.
        done = flow(
            lab,
            seconds=stop_s + 2,
            pub=("--option", f"recovery_ivl={window_s}"),
            sub=("--option", "rcvbuf=1000000"),
            during=stop,
        )
    after = stat(done, "naks_sent")
    lost = [event for event in done.events[0] if event["kind"] == "Lost"]
    figure(
        "13",
        f"stopped {stop_s:.0f} s with a window of {window_s:.0f} s: "
        f"{done.ledgers[0]['missing']} LOST in {len(lost)} event(s), {after} NAKs in all; another "
        f"receiver {done.ledgers[1]['missing']}",
        met=after <= 100,
    )
    assert not done.ledgers[1]["missing"]
    assert after <= 300
    assert {str(event["reason"]) for event in lost} <= (
        {"window_advanced"} if not within else set()
    )
    assert bool(lost) is not within


EVENTS_OF_A_PAUSE = ["PeerJoined", "PeerQuiet", "PeerHeard"]


def test_a_publisher_that_was_stopped_goes_on() -> None:
    back = 0.0
    with lab_or_skip(2) as lab:

        def stop() -> None:
            nonlocal back
            process = lab.hosts[0].processes[-1]
            time.sleep(0.5)
            process.signal(signal.SIGSTOP)
            time.sleep(5)
            back = time.monotonic()
            process.signal(signal.SIGCONT)

        done = flow(lab, rate=1_000, seconds=6, during=stop)
    progress = done.ledgers[0]["progress"]
    assert isinstance(progress, list)
    resumed_s = next(at for at, _ in progress if at > back) - back
    kinds = [event["kind"] for event in done.events[0]]
    silent_s = [round(float(str(event.get("silent_s", 0))), 1) for event in done.events[0]]
    figure(
        "14",
        f"5 s: events {', '.join(kinds)}, the second after {silent_s[1]} s of silence; "
        f"{missing(done)} LOST, first message {resumed_s * 1e3:.0f} ms after",
        met=kinds == EVENTS_OF_A_PAUSE and resumed_s <= 0.2,
    )
    assert kinds == EVENTS_OF_A_PAUSE
    assert 3.0 <= silent_s[1] < 4.0
    assert not missing(done)
    assert resumed_s <= 1


def test_closing_delivers_everything_before_the_end() -> None:
    count = 3_000
    shape = ("--count", "0", "--shape", "fixed:256", "--timeout", "40")
    with lab_or_skip(2) as lab:
        publisher, receiver = lab.hosts
        sub = mcast_peer(*shape).start(receiver, "sub")
        sends = ("--count", str(count), "--shape", "fixed:256", "--interval-us", "200")
        pub = mcast_peer(*sends, *ONE_PER_PACKET, "--option", "linger=10").start(publisher, "pub")
        time.sleep(0.3)
        lab.lose_everywhere(10)
        pub.tell("go")
        pub.wait_json("sent", timeout_s=20)
        pub.tell("close")
        left = sub.wait_json("event", timeout_s=20)
        while left["kind"] != "PeerLeft":
            left = sub.wait_json("event", timeout_s=20)
        sub.tell("quit")
        ledger = sub.wait_json("summary", timeout_s=20)
    figure(
        "17",
        f"closed at once under 10 % loss: {ledger['received']} of {count} delivered, then "
        f"PeerLeft({left['reason']}, tail_unknown={left['tail_unknown']})",
        met=ledger["received"] == count,
    )
    assert (left["reason"], left["tail_unknown"]) == ("finished", False)
    assert ledger["received"] == count


def test_who_joins_late_hears_the_next_message_and_asks_for_nothing() -> None:
    first_s = []
    naks = 0
    sends = ("--count", "0", "--shape", "fixed:256", "--interval-us", "1000")
    with lab_or_skip(2) as lab:
        publisher, receiver = lab.hosts
        pub = mcast_peer(*sends, *ONE_PER_PACKET).start(publisher, "pub")
        pub.tell("go")
        for _ in range(3):
            time.sleep(0.3)
            sub = mcast_peer("--count", "0", "--shape", "fixed:256").start(receiver, "sub")
            ready = time.monotonic()
            joined = sub.wait_json("event", timeout_s=10)
            time.sleep(0.4)
            sub.tell("quit")
            summary = sub.wait_json("summary", timeout_s=10)
            assert isinstance(summary["streams"], dict)
            (stream,) = summary["streams"].values()
            progress = summary["progress"]
            stats = summary["stats"]
            assert isinstance(progress, list)
            assert isinstance(stats, dict)
            assert stream["first"] == joined["first"]
            assert [list(gap) for gap in stream["gaps"]] in ([], [[0, stream["first"] - 1]])
            first_s.append(progress[0][0] - ready)
            naks += stats["naks_sent"]
    figure(
        "18",
        f"busy source, 3 joiners: first message {max(0.0, *first_s) * 1e3:.0f} ms after joining, "
        f"JOINED.first exact, {naks} NAKs",
        met=max(first_s) <= 0.15 and not naks,
    )
    assert max(first_s) <= 0.5
    assert naks == 0


def test_a_slow_application_harms_only_itself() -> None:
    limit = 500
    with lab_or_skip(3) as lab:
        slow = ("--work-us", "2000", "--option", f"rcvhwm={limit}", "--idle", "2")
        done = flow(lab, seconds=3, subs=[slow, ()])
    reasons = {str(event["reason"]) for event in done.events[0] if event["kind"] == "Lost"}
    ledger = done.ledgers[0]
    received = int(str(ledger["received"]))
    figure(
        "19",
        f"multicast, a tenth of the rate: {received} delivered, {ledger['missing']} LOST "
        f"({', '.join(reasons)}), together {done.sent['count']}; the other receiver "
        f"{done.ledgers[1]['received']}",
    )
    assert reasons == {"app_hwm"}
    assert done.ledgers[1]["received"] == done.sent["count"]


def test_a_thread_that_keeps_the_interpreter_lock_loses_nothing() -> None:
    with lab_or_skip(2) as lab:
        done = flow(lab, sub=("--hold-ms", "200"))
    figure(
        "33",
        f"GIL held for 200 ms each time: {missing(done)} LOST, longest lag "
        f"{float(str(done.ledgers[0]['lag_max_s'])) * 1e3:.0f} ms",
    )
    assert not missing(done)


def test_a_crybaby_gets_no_more_than_the_repairs_share() -> None:
    bits = RATE * 340 * 8 * 1.1
    rate = ("--option", f"rate={bits}", "--option", "repair_share=0.25")
    with lab_or_skip(4) as lab:
        calm = flow(lab, pub=rate)
    with lab_or_skip(4) as lab:
        crying = lab.hosts[1]
        done = flow(lab, pub=rate, strike=lambda: [crying.lose(percent=30)])
    share = source(done, "rdata_bytes_sent") * 8 / (bits * done.seconds)
    before, after = (
        max(float(str(ledger["lag_p99_s"])) for ledger in each.ledgers[1:]) for each in (calm, done)
    )
    told = [[event["kind"] for event in events].count("RepairsLimited") for events in done.events]
    figure(
        "35",
        f"1 of 3 loses 30 %: repairs {share:.0%} of the rate (budget 25 %), the others' p99 lag "
        f"{after * 1e3:.1f} ms ({before * 1e3:.1f} ms without), LOST {missing(done)}; "
        f"RepairsLimited to each: {told[0]}, {told[1]}, {told[2]}",
        met=share <= 0.28 and after <= 1.2 * before and bool(told[0]),
    )
    check(done)
    assert share <= 0.3
    assert told[0]
    assert not any(told[1:])
    assert not done.ledgers[1]["missing"]
