"""The table of docs/explanation/performance.md, made of the newest result, so that it cannot drift.

    report            writes it into the page
    report --check    says whether the page has it; status 1 if not

The newest complete result counts, and a short one (--quick) only if there is no other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

__all__ = [
    "PAGE",
    "RESULTS",
    "amount",
    "between",
    "main",
    "newest_result",
    "table",
    "updated",
    "words",
]

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "tools/bench/results"
PAGE: Final = ROOT / "docs/explanation/performance.md"
BEGIN: Final = "<!-- results: written by tools/bench/report, do not edit -->"
END: Final = "<!-- end of results -->"

_VERDICTS: Final = {True: "reached", False: "**not reached**", None: "reported"}


def newest_result(folder: Path = RESULTS) -> dict[str, Any] | None:
    """The result to show, or None if there is none."""
    paths = folder.glob("[0-9]*.json")  # those of other tools begin with a word
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    complete = [result for result in found if result["is_complete"]]
    return max(
        complete,
        key=lambda result: (not result["is_quick"], result["machine"]["date"]),
        default=None,
    )


def table(result: dict[str, Any]) -> str:
    """The result as Markdown: machine, one row for each figure of each case, losses, rates."""
    lines = [_machine_text(result), ""]
    lines += [
        "| case | measured | against | figure | ratio: median (min to max) | to reach | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in result["cases"]:
        if "failure" in case:
            lines.append(
                f"| {case['title']} | | | | failed: {case['failure']} | | **not reached** |"
            )
        lines += [_row(case, measure) for measure in case["measures"]]
    lines += ["", *_notes(result)]
    return "\n".join(lines)


def _machine_text(result: dict[str, Any]) -> str:
    machine = result["machine"]
    kind = "Short runs (`--quick`), so only a rough picture. " if result["is_quick"] else ""
    changes = " with changes" if machine["has_changes"] else ""
    return (
        f"{kind}Measured {machine['date'][:10]} on {machine['cpu']}, {machine['cores']} cores,"
        f" {machine['kernel']}, Python {machine['python']}; commit {machine['commit']}{changes};"
        f" libzmq {machine['libzmq']} with libpgm {machine['libpgm']}, pyzmq {machine['pyzmq']}."
        f" {result['pairs']} pairs of runs in turn; load average before:"
        f" {machine['load_average']:.1f}."
    )


def _row(case: dict[str, Any], measure: dict[str, Any]) -> str:
    first, second = case["sides"]
    figure = measure["figure"]
    ratio = measure["ratio"]
    verdict = _VERDICTS[measure["is_reached"]]
    if not case["lost_nothing"]:
        verdict = "**not reached**: messages were lost"
    return (
        f"| {case['title']} | {first['name']}: {amount(figure, measure['first']['median'])} |"
        f" {second['name']}: {amount(figure, measure['second']['median'])} | {words(figure)} |"
        f" {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) |"
        f" {measure['target']} | {verdict} |"
    )


def _notes(result: dict[str, Any]) -> list[str]:
    notes = []
    for case in result["cases"]:
        for side in case["sides"]:
            parts = []
            if side["rate_bits_per_s"] is not None:
                rate = side["rate_bits_per_s"]
                text = f"{rate / 1e9:.2f} Gbit/s" if rate >= 1e9 else f"{rate / 1e6:.0f} Mbit/s"
                parts.append(f"paced to {text}")
            if side["missing"]:
                share = side["missing"] / max(1, side["sent"])
                parts.append(f"{side['missing']:,} of {side['sent']:,} lost ({share:.2%})")
            if parts:
                notes.append(f"- {case['name']}, {side['name']}: {', '.join(parts)}.")
    head = "Everybody else ran without a rate and lost nothing:" if notes else ""
    return [head, "", *notes] if notes else ["Nobody was paced, and nothing was lost."]


def words(figure: str) -> str:
    """The figure's name for people."""
    known = {
        "messages_per_s": "messages/s",
        "bits_per_s": "bit/s",
        "datagrams_per_s": "datagrams/s",
        "cpu_s_per_message": "CPU per message",
    }
    return known.get(figure, figure.removesuffix("_s"))


def amount(figure: str, value: float) -> str:
    """The value in a unit that suits it."""
    if figure.endswith("_per_s"):
        for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= scale:
                return f"{value / scale:.2f} {unit}"
        return f"{value:.0f}"
    return f"{value * 1e6:.2f} µs"


def updated(page: str, result: dict[str, Any]) -> str:
    """The page with the table of this result. Raises ValueError if it has no place for one."""
    return between(page, BEGIN, END, table(result))


def between(page: str, begin: str, end: str, text: str) -> str:
    """The page with this text between two marks. Raises ValueError if they are not there."""
    before, begin_found, rest = page.partition(begin)
    _, end_found, after = rest.partition(end)
    if not begin_found or not end_found:
        raise ValueError(f"the page has no lines {begin!r} and {end!r}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the page; the exit status."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args(argv)
    result = newest_result()
    if result is None:
        print("there is no complete result yet: run tools/bench/compare", file=sys.stderr)
        return 1
    page = PAGE.read_text(encoding="utf-8")
    wanted = updated(page, result)
    if arguments.check:
        return 0 if page == wanted else 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
