"""What happens under too much, for long, and with nothing to do; writes what it found.

Owns the order of the runs, the judgement and the result file. Invariants: a loss that nobody
reported is a fault, however small; the bars are named below, and what misses one is shown as such.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import socket
import statistics
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from contenders import ROOT
from ends import End, Failed
from endurance_report import PAGE, PLOT, RESULTS, draw, newest_result, tables, updated
from machine import facts

from mcast.options import SocketOptions

PROGRAM: Final = ROOT / "tools/bench/endurance_ends.py"
FACTORS: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
QUICK_FACTORS: Final = (0.5, 4.0)
COLLAPSE: Final = 0.5
"""Goodput below this part of what the subscriber could have is a collapse."""
MEMORY_MARGIN_BYTES: Final = 30_000_000
SETTLED_S: Final = 10
GROWTH_BYTES: Final = 5_000_000
"""Between the medians of the last two quarters of the rest: more is a trend, not a queue."""
IDLE_SHARE: Final = 0.005
STEPS: Final = 6
QUICK_STEPS: Final = 3
TSDU_BYTES: Final = 1428
PACKET_BYTES: Final = 1480
"""TSDU and headers of a packet of 1,500 bytes, as the rate counts it."""
MIN_RATE: Final = 10e6
FULL_MIN_RATE: Final = 100e6
EXTRA_S: Final = 60.0

Result = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """What is sent, and to whom: a subscriber whose capacity lies between two bounds."""

    name: str
    title: str
    size: int
    batch: int
    lowest_per_s: float
    highest_per_s: float
    work_ns: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def head_bytes(self) -> int:
        """ZMTP's: flags, and the length in one byte or eight."""
        return 2 if self.size < 256 else 9

    @property
    def messages_per_packet(self) -> float:
        return TSDU_BYTES / (self.size + self.head_bytes)

    def rate(self, per_s: float) -> float:
        """Bits per second for so many messages per second."""
        return per_s / self.messages_per_packet * PACKET_BYTES * 8


@dataclass(frozen=True)
class Way:
    """Options under which a load is offered, and whether they promise that nothing is lost."""

    name: str
    loads: tuple[str, ...]
    options: dict[str, float] = field(default_factory=dict)
    loop: str = "thread"
    loses_nothing: bool = False


LOADS: Final = (
    Load("slow-application", "256 B, 5 µs of work each", 256, 200, 5e3, 400e3, work_ns=5000),
    Load("batches", "64 B, recv_many without work", 64, 1000, 10e3, 20e6),
    Load(
        "slow-receiver",
        "256 B, subscriber with the reference kernel",
        256,
        200,
        5e3,
        800e3,
        environment={"MCAST_KERNEL": "reference"},
    ),
)
WAYS: Final = (
    Way("rate", ("slow-application", "batches", "slow-receiver")),
    # The queue's overruns are no business of the publisher: see docs/decisions/0006.
    Way("rate, min_rate", ("slow-application",), {"min_rate": MIN_RATE}),
    Way(
        "rate, min_rate, the caller's loop",
        ("slow-application",),
        {"min_rate": MIN_RATE},
        "caller",
        loses_nothing=True,
    ),
    Way(
        "rate, min_rate",
        ("batches", "slow-receiver"),
        {"min_rate": MIN_RATE},
        loses_nothing=True,
    ),
)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fresh_url() -> str:
    """A group and port on ``lo`` that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]
    return f"epgm://lo;239.192.{random.randrange(1, 255)}.{random.randrange(1, 255)}:{port}"


def run(
    publisher: Result, subscriber: Result, environment: dict[str, str] | None = None
) -> tuple[Result, Result]:
    """What publisher and subscriber found, each with ``before_bytes``. Raises Failed."""
    url = fresh_url()
    deadline = time.monotonic() + publisher["duration_s"] + EXTRA_S

    def end(role: str, order: Result, extra: dict[str, str]) -> End:
        command = [sys.executable, PROGRAM, role, json.dumps(order | {"url": url})]
        return End(command, deadline, extra)

    with contextlib.ExitStack() as stack:
        sub = stack.enter_context(end("sub", subscriber, environment or {}))
        sub_before = sub.result()["rss_bytes"]
        sub.expect("ready")
        pub = stack.enter_context(end("pub", publisher, {}))
        pub_before = pub.result()["rss_bytes"]
        sub.expect("joined")
        pub.go()
        received: Result = sub.result()
        pub.let_end()
        sent: Result = pub.result()
    return sent | {"before_bytes": pub_before}, received | {"before_bytes": sub_before}


def offered(load: Load, way: Way, per_s: float, duration_s: float) -> tuple[Result, Result]:
    """One run at so many messages per second. Raises Failed."""
    common = {"size": load.size, "batch": load.batch, "keeps": True}
    publisher = {
        **common,
        "duration_s": duration_s,
        "options": {"rate": load.rate(per_s), **way.options},
    }
    subscriber = {**common, "work_ns": load.work_ns, "loop": way.loop, "options": {}}
    return run(publisher, subscriber, load.environment)


def capacity_per_s(load: Load, duration_s: float, steps: int) -> float:
    """The most messages per second that it takes in time, without a loss; by bisection."""
    low, high = load.lowest_per_s, load.highest_per_s
    found = 0.0
    for _ in range(steps):
        middle = math.sqrt(low * high)
        sent, received = offered(load, WAYS[0], middle, duration_s)
        keeps_up = received["seconds"] < 1.03 * sent["seconds"] + 0.03
        if keeps_up and not received["missing"]:
            low = middle
            found = received["received"] / received["seconds"]
        else:
            high = middle
        say(f"    {middle:,.0f}/s: {'' if low == middle else 'not '}kept up with")
    if not found:
        raise Failed(f"{load.name}: does not keep up with {low:,.0f} messages/s")
    return found


def accounting(load: Load, sent: Result, received: Result) -> tuple[Result, list[str]]:
    """What was lost, and what of it the subscriber was not told, or told wrong."""
    losses, missing = received["losses"], received["missing"]
    by_reason: dict[str, int] = {}
    for _, _, count, reason in losses:
        by_reason[reason] = by_reason.get(reason, 0) + count
    refused = by_reason.get("app_hwm", 0)
    packets = sum(by_reason.values()) - refused
    faults = []
    if received["stats"]["events_dropped"]:
        # A word that was lost, too. What remains to be known are the counters' sums.
        faults.append(f"{received['stats']['events_dropped']:,} events dropped")
        refused, packets = received["stats"]["queue_refused"], received["stats"]["lost"]
    # In lost packets lie so many messages at most, each end of a range cutting one in two; where
    # there are none, what was refused is exactly what is missing, and the ENDs that came first.
    ranges = sum(reason != "app_hwm" for *_, reason in losses)
    ranges += received["stats"]["events_dropped"]
    most = math.ceil(packets * load.messages_per_packet) + 2 * ranges
    in_packets = missing + received["refused_ends"] - refused
    least = -received["refused_ends"] if packets else 0
    if not least <= in_packets <= most:
        faults.append(f"{in_packets} missing beside the refused, 0 to {most} reported")
    silent = unreported(received["gaps"], losses, sent["checkpoints"])
    if silent and not received["stats"]["events_dropped"]:
        faults.append(f"{silent} gaps where no loss was reported")
    account = {
        "missing": missing,
        "refused": refused - received["refused_ends"],
        "lost_packets": packets,
        "by_reason": by_reason,
        "gaps": len(received["gaps"]),
        "silent_gaps": silent,
    }
    return account, faults


def unreported(gaps: list[list[int]], losses: list[list[Any]], checkpoints: list[list[int]]) -> int:
    """Gaps between message numbers that lie in no reported range of packets.

    The publisher noted now and then how many messages it had sent and which packet it was at.
    """
    numbers = [number for number, _ in checkpoints]
    spans = sorted((first, last) for first, last, *_ in losses)
    firsts = [first for first, _ in spans]
    reach, furthest = [], -1
    for _, last in spans:
        furthest = max(furthest, last)
        reach.append(furthest)
    silent = 0
    for first, last in gaps:
        before = checkpoints[bisect_right(numbers, first) - 1][1] + 1
        index = min(bisect_left(numbers, last + 1), len(numbers) - 1)
        after = checkpoints[index][1] + 1
        place = bisect_right(firsts, after) - 1
        silent += place < 0 or reach[place] < before
    return silent


def point(load: Load, way: Way, capacity: float, factor: float, duration_s: float) -> Result:
    """One offered load, judged. Raises Failed."""
    sent, received = offered(load, way, factor * capacity, duration_s)
    account, faults = accounting(load, sent, received)
    goodput = received["received"] / received["seconds"]
    share = goodput / min(capacity, factor * capacity)
    if share < COLLAPSE:
        faults.append(f"collapse: {share:.0%} of what is possible")
    if way.loses_nothing and account["missing"]:
        faults.append("lost what min_rate should have saved")
    peak = max(received["memory_bytes"]) - received["before_bytes"]
    return {
        "factor": factor,
        "offered_per_s": factor * capacity,
        "sent": sent["sent"],
        "sent_per_s": sent["sent"] / sent["seconds"],
        "received": received["received"],
        "goodput_per_s": goodput,
        **account,
        "repaired": received["stats"]["repaired"],
        "naks_sent": received["stats"]["naks_sent"],
        "rcvbuf_overflows": received["stats"]["rcvbuf_overflows"],
        "rdata_sent": sent["stats"]["rdata_sent"],
        "subscriber_growth_bytes": peak,
        "faults": faults,
    }


def overload(*, quick: bool) -> list[Result]:
    """Goodput against offered load, for every load and every set of options."""
    found = []
    for load in LOADS[:1] if quick else LOADS:
        say(f"{load.title}: what the subscriber takes")
        capacity = capacity_per_s(load, 0.3 if quick else 1.0, QUICK_STEPS if quick else STEPS)
        for way in WAYS:
            if load.name not in way.loads:
                continue
            say(f"  {way.name}, capacity {capacity:,.0f} messages/s")
            curve = []
            for factor in QUICK_FACTORS if quick else FACTORS:
                one = point(load, way, capacity, factor, 0.5 if quick else 3.0)
                say(
                    f"    {factor:g}x: sent {one['sent_per_s']:,.0f}/s, goodput"
                    f" {one['goodput_per_s']:,.0f}/s, {one['missing']:,} of {one['sent']:,}"
                    f" missing {one['by_reason'] or ''} {'; '.join(one['faults'])}"
                )
                curve.append(one)
            found.append(
                {
                    "load": load.name,
                    "title": load.title,
                    "way": way.name,
                    "loses_nothing": way.loses_nothing,
                    "capacity_per_s": capacity,
                    "points": curve,
                }
            )
    return found


def memory(*, quick: bool) -> Result:
    """Both ends at full rate, sampled each second. Raises Failed."""
    seconds = 3.0 if quick else 60.0
    common = {"size": 1024, "batch": 100, "keeps": False}
    say(f"memory over {seconds:g} s at full rate, 1 KiB messages")
    sent, received = run(
        {
            **common,
            "duration_s": seconds,
            "options": {"rate": "inf", "min_rate": FULL_MIN_RATE},
        },
        {**common, "work_ns": 0, "options": {}},
    )
    options = SocketOptions()
    message_bytes = sys.getsizeof(bytes(1024)) + 8 + 15  # its place in the queue; the allocator
    limits = {
        "publisher": options.txw_bytes + MEMORY_MARGIN_BYTES,
        "subscriber": options.rxw_bytes + options.rcvhwm * message_bytes + MEMORY_MARGIN_BYTES,
    }
    ends = {}
    for name, end in (("publisher", sent), ("subscriber", received)):
        samples = [size - end["before_bytes"] for size in end["memory_bytes"]]
        settled = samples[min(SETTLED_S, len(samples) // 3) :]
        quarter = -(-len(settled) // 4)
        growth = statistics.median(settled[-quarter:]) - statistics.median(
            settled[-2 * quarter : -quarter] or settled
        )
        faults = []
        if max(samples) > limits[name]:
            faults.append("over the limit")
        if growth > GROWTH_BYTES:
            faults.append("grows")
        ends[name] = {
            "before_bytes": end["before_bytes"],
            "samples_bytes": samples,
            "peak_bytes": max(samples),
            "peak_before_settled_bytes": max(samples[: -len(settled)] or settled),
            "settled_growth_bytes": growth,
            "limit_bytes": limits[name],
            "faults": faults,
        }
        say(
            f"    {name}: peak {max(samples) / 1e6:.1f} MB of {limits[name] / 1e6:.0f} MB, then"
            f" {growth / 1e6:+.2f} MB {'; '.join(faults)}"
        )
    return {
        "seconds": sent["seconds"],
        "messages_per_s": received["received"] / received["seconds"],
        "missing": received["missing"],
        "ends": ends,
    }


def idle(*, receives: bool, seconds: float) -> Result:
    """CPU of a context with a PUB and a SUB while nobody sends. Raises Failed."""
    order = {"url": fresh_url(), "receives": receives, "duration_s": seconds, "settle_s": 1.0}
    deadline = time.monotonic() + seconds + EXTRA_S
    with End([sys.executable, PROGRAM, "idle", json.dumps(order)], deadline, {}) as end:
        found: Result = end.result()
    faults = ["too much"] if found["share"] > IDLE_SHARE else []
    what = "SUB in recv" if receives else "nobody waits"
    say(f"    {what}: {found['share']:.3%} CPU, {found['loop_turns']} turns {'; '.join(faults)}")
    return found | {"receives": receives, "faults": faults}


def is_good(result: Result) -> bool:
    """No fault anywhere."""
    judged = [one for curve in result["overload"] for one in curve["points"]]
    judged += result["memory"]["ends"].values()
    judged += result["idle"]
    return not any(one["faults"] for one in judged)


def write_page() -> None:
    """The newest result into the page, and its picture. Raises ValueError as ``updated``."""
    newest = newest_result()
    if newest is None:
        raise ValueError("there is no result yet")
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), newest), encoding="utf-8")
    if not draw(newest, PLOT):
        say("matplotlib is not installed (extra bench): the picture stays as it is")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="endurance",
        description="Overload up to 4 times, memory at full rate, CPU of an idle context.",
        epilog="Exit status: 0 every bar reached, 1 not, 2 it could not be done.",
    )
    parser.add_argument("--quick", action="store_true", help="short runs: a smoke test")
    parser.add_argument("--json", action="store_true", help="the result on stdout, not the tables")
    parser.add_argument("--report", action="store_true", help="only write the page anew")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="where the result goes (tools/bench/results/); the page stays as it is then",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, judge; the exit status."""
    arguments = parsed(argv)
    if arguments.report:
        write_page()
        return 0
    machine = facts()
    quick = arguments.quick
    overloaded, remembered = overload(quick=quick), memory(quick=quick)
    say("CPU of an idle context")
    idled = [idle(receives=one, seconds=2.0 if quick else 10.0) for one in (False, True)]
    whole = {
        "machine": machine,
        "is_quick": quick,
        "overload": overloaded,
        "memory": remembered,
        "idle": idled,
    }
    date = str(machine["date"])[:19].replace(":", "").replace("-", "")
    path = arguments.output or RESULTS / f"endurance-{date}-{machine['commit']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    say(f"written: {path}")
    if arguments.output is None:
        write_page()
    print(json.dumps(whole) if arguments.json else tables(whole))
    return 0 if is_good(whole) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, Failed) as error:
        say(f"error: {error}")
        sys.exit(2)
