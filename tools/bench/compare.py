"""Runs every case A B A B, judges the medians of the ratios, and writes what it found.

Owns the order of the runs and the result file. Invariants: both contenders of a pair send the same
number of messages; what was lost is in the result; a target that is not reached is shown as such,
and a case that could not be measured is a failure, not a gap.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cases import CASES, Case
from contenders import BUFFER_BYTES, BUILD, ROOT, Contender, Measurement
from ends import Command, Failed
from host import roomy_buffers
from machine import facts
from plot import draw
from report import table
from tuning import RUN_S, Tunable, calibrated, filling_count, rate_text, tuned

RESULTS: Final = ROOT / "tools/bench/results"
PLOT: Final = ROOT / "docs/explanation/performance.png"
PAIRS: Final = 5
QUICK_PAIRS: Final = 2
QUICK_RUN_S: Final = 0.5
QUICK_STEPS: Final = 4
SLOWER: Final = 0.85
"""After a run that lost, both runs of the pair are repeated at this part of the rate."""
MOST_REPEATS: Final = 8
FIRST_COUNT: Final = 20_000

PROGRAMS: Final = {
    "zmq_throughput": ["-lzmq"],
    "zmq_latency": ["-lzmq"],
    "udp_throughput": [],
    "udp_latency": [],
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def build() -> None:
    """The C programs, where their source is newer. Raises CalledProcessError."""
    source = ROOT / "tools/bench/c"
    newest = max(path.stat().st_mtime for path in source.iterdir())
    BUILD.mkdir(exist_ok=True)
    for name, libraries in PROGRAMS.items():
        program = BUILD / name
        if program.exists() and program.stat().st_mtime > newest:
            continue
        say(f"building {name}")
        flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
        command: Command = ["gcc", *flags, "-o", program, source / f"{name}.c", *libraries]
        subprocess.run(command, check=True)


def tune(contender: Contender, *, quick: bool) -> Contender:
    """At its best loss-free rate, if it has a rate to choose; else unchanged."""
    if contender.rate is None or not isinstance(contender, Tunable):
        return contender
    size = getattr(contender, "size", 64)
    return tuned(
        contender,
        size,
        say,
        highest=contender.rate,
        steps=QUICK_STEPS if quick else 7,
    )


def measured(contender: Contender, count: int) -> Measurement:
    run = contender.measure(count)
    shown = ", ".join(f"{name} {figure:,.9g}" for name, figure in run.figures.items())
    say(f"    {contender.name}: {shown}" + f", MISSING {run.missing:,}" * bool(run.missing))
    return run


def run_case(case: Case, *, pairs: int, quick: bool) -> dict[str, Any]:
    """Everything about one case. Raises Failed."""
    first, second = case.first(), case.second()
    if case.count is None:
        # What may lose is not slowed down: its loss is reported, its rate is what arrived.
        first, second = (
            one if one.name in case.may_lose else tune(one, quick=quick) for one in (first, second)
        )
        rates = [calibrated(one, FIRST_COUNT).figures["messages_per_s"] for one in (first, second)]
        count = filling_count(*rates, seconds=QUICK_RUN_S if quick else RUN_S)
    else:
        count = case.count // 4 if quick else case.count
    say(f"    {count:,} messages or rounds a run")
    runs: list[tuple[Measurement, Measurement]] = []
    repeats = 0
    while len(runs) < pairs:
        pair = measured(first, count), measured(second, count)
        slowed = [slower(one, run, case) for one, run in zip((first, second), pair, strict=True)]
        if slowed != [first, second] and repeats < MOST_REPEATS:
            # A rate that loses is not loss-free after all; the pair does not count.
            first, second = slowed
            repeats += 1
            continue
        runs.append(pair)
    return case_result(case, (first, second), runs, count, repeats)


def slower(contender: Contender, run: Measurement, case: Case) -> Contender:
    """The contender at a lower rate if it lost and can be slowed down; else unchanged."""
    if not run.missing or contender.name in case.may_lose:
        return contender
    if not isinstance(contender, Tunable):
        return contender
    rate = contender.rate
    if rate is None or math.isinf(rate):
        rate = run.figures["bits_per_s"] * 1.2
    say(f"    {contender.name} lost {run.missing:,}: again at {rate_text(rate * SLOWER)}")
    return contender.at_rate(rate * SLOWER)


def case_result(
    case: Case,
    contenders: tuple[Contender, Contender],
    runs: Sequence[tuple[Measurement, Measurement]],
    count: int,
    repeats: int,
) -> dict[str, Any]:
    measures = []
    for target in case.targets:
        firsts, seconds = (
            [run.figures[target.figure] for run in side] for side in zip(*runs, strict=True)
        )
        ratios = [a / b for a, b in zip(firsts, seconds, strict=True)]
        ratio = statistics.median(ratios)
        measures.append(
            {
                "figure": target.figure,
                "target": target.text,
                "at_least": target.at_least,
                "at_most": target.at_most,
                "is_reached": target.is_reached(ratio),
                "first": {"median": statistics.median(firsts), "runs": firsts},
                "second": {"median": statistics.median(seconds), "runs": seconds},
                "ratio": {
                    "median": ratio,
                    "min": min(ratios),
                    "max": max(ratios),
                    "pairs": ratios,
                },
            }
        )
    sides = []
    for contender, side in zip(contenders, zip(*runs, strict=True), strict=True):
        rate = contender.rate
        sides.append(
            {
                "name": contender.name,
                "rate_bits_per_s": None if rate is None or math.isinf(rate) else rate,
                "missing": sum(run.missing for run in side),
                "sent": sum(run.sent for run in side),
                "may_lose": contender.name in case.may_lose,
                "runs": [asdict(run) for run in side],
            }
        )
    return {
        "name": case.name,
        "title": case.title,
        "count": count,
        "repeats_after_loss": repeats,
        "lost_nothing": not any(side["missing"] and not side["may_lose"] for side in sides),
        "sides": sides,
        "measures": measures,
    }


def failed_result(case: Case, why: str) -> dict[str, Any]:
    """A case that could not be measured reaches nothing."""
    return {"name": case.name, "title": case.title, "failure": why, "sides": [], "measures": []}


def is_good(result: dict[str, Any]) -> bool:
    """Measured, nothing lost that must not be, every target reached."""
    return (
        "failure" not in result
        and bool(result["lost_nothing"])
        and all(measure["is_reached"] is not False for measure in result["measures"])
    )


def wanted_cases(names: Sequence[str]) -> list[Case]:
    known = {case.name: case for case in CASES}
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"error: no case {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names] or list(CASES)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare",
        description="Compare mcast with libzmq, pyzmq and raw UDP on this machine, side by side.",
        epilog="Exit status: 0 every target reached, 1 not, 2 it could not be done.",
    )
    parser.add_argument("--case", action="append", default=[], metavar="NAME", help="only this one")
    parser.add_argument("--pairs", type=int, metavar="N", help=f"pairs of runs ({PAIRS})")
    parser.add_argument("--quick", action="store_true", help="short runs, 2 pairs: a smoke test")
    parser.add_argument("--json", action="store_true", help="the result on stdout, too")
    parser.add_argument("--list", action="store_true", help="the cases, and nothing else")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the result goes (tools/bench/results/)"
    )
    parser.add_argument("--no-plot", action="store_true", help="leave the picture as it is")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit status."""
    arguments = parsed(argv)
    cases = wanted_cases(arguments.case)
    if arguments.list:
        for case in cases:
            first, second = case.first().name, case.second().name
            targets = "; ".join(f"{one.figure} {one.text}" for one in case.targets)
            print(f"{case.name:<18} {case.title}: {first} against {second}: {targets}")
        return 0
    build()
    with roomy_buffers(BUFFER_BYTES, say):
        return compare(cases, arguments)


def compare(cases: Sequence[Case], arguments: argparse.Namespace) -> int:
    """Run the cases and write what was found; the exit status."""
    pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    machine = facts()
    found = []
    for number, case in enumerate(cases, 1):
        say(f"[{number}/{len(cases)}] {case.name}: {case.title}")
        try:
            result = run_case(case, pairs=pairs, quick=arguments.quick)
        except Failed as failure:
            say(f"    FAILED: {failure}")
            result = failed_result(case, str(failure).splitlines()[0])
        found.append(result)
        for measure in result["measures"]:
            ratio, wanted = measure["ratio"], measure["target"]
            verdict = {True: "reached", False: "NOT REACHED", None: "reported"}
            say(
                f"    {measure['figure']}: {ratio['median']:.2f}x ({ratio['min']:.2f} to"
                f" {ratio['max']:.2f}), wanted {wanted}: {verdict[measure['is_reached']]}"
            )
    whole = {
        "machine": machine,
        "is_quick": arguments.quick,
        "is_complete": not arguments.case,
        "pairs": pairs,
        "cases": found,
    }
    date = str(machine["date"])[:19].replace(":", "").replace("-", "")
    path = arguments.output or RESULTS / f"{date}-{machine['commit']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    say(f"written: {path}")
    if not arguments.no_plot and whole["is_complete"]:
        draw(whole, PLOT)
        say(f"written: {PLOT}")
    print(json.dumps(whole) if arguments.json else table(whole))
    return 0 if all(map(is_good, found)) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        sys.exit(2)
