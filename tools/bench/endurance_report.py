"""The tables and the picture of what tools/bench/endurance found, and their place in the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from report import PAGE, RESULTS, amount, between

__all__ = ["BEGIN", "END", "PAGE", "PLOT", "RESULTS", "draw", "newest_result", "tables", "updated"]

BEGIN: Final = "<!-- endurance: written by tools/bench/endurance, do not edit -->"
END: Final = "<!-- end of endurance -->"
PLOT: Final = PAGE.with_name("endurance.png")

Result = dict[str, Any]


def newest_result(folder: Path = RESULTS) -> Result | None:
    """The result to show, or None if there is none; a short one (--quick) only if need be."""
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("endurance-*.json")
    ]
    return max(
        found,
        key=lambda result: (not result["is_quick"], result["machine"]["date"]),
        default=None,
    )


def tables(result: Result) -> str:
    """The result as Markdown: machine, goodput against offered load, memory, idle CPU."""
    machine = result["machine"]
    kind = "Short runs (`--quick`), so only a rough picture. " if result["is_quick"] else ""
    changes = " with changes" if machine["has_changes"] else ""
    measured = (
        f"{kind}Measured {machine['date'][:10]} on {machine['cpu']}, {machine['cores']} cores,"
        f" {machine['kernel']}, Python {machine['python']}; commit {machine['commit']}{changes};"
        f" load average before: {machine['load_average']:.1f}."
    )
    lines = [measured]
    for curve in result["overload"]:
        capacity = amount("messages_per_s", curve["capacity_per_s"])
        lines += [
            "",
            f"**{curve['title']}; options: {curve['way']}.** Keeps up with {capacity} messages/s.",
            "",
            "| offered | sent, messages/s | goodput, messages/s | missing | reported | |",
            "| --- | --- | --- | --- | --- | --- |",
            *map(_row, curve["points"]),
        ]
    memory = result["memory"]
    lines += [
        "",
        (
            f"**Memory over {memory['seconds']:.0f} s at full rate**, 1 KiB messages,"
            f" {amount('messages_per_s', memory['messages_per_s'])} of them a second,"
            f" {memory['missing']:,} missing."
        ),
        "",
        "| end | before connecting | peak above that, first 10 s | peak | limit | trend | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {end['before_bytes'] / 1e6:.1f} MB |"
        f" {end['peak_before_settled_bytes'] / 1e6:.1f} MB | {end['peak_bytes'] / 1e6:.1f} MB |"
        f" {end['limit_bytes'] / 1e6:.1f} MB | {end['settled_growth_bytes'] / 1e6:+.2f} MB |"
        f" {_verdict(end['faults'])} |"
        for name, end in memory["ends"].items()
    ]
    lines += [
        "",
        "**CPU of an idle context** with a PUB and a SUB connected, nobody sending.",
        "",
        "| the SUB | CPU | turns of the loop | over | |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {'sits in `recv`' if one['receives'] else 'is left alone'} | {one['share']:.3%} |"
        f" {one['loop_turns']} | {one['seconds']:.0f} s | {_verdict(one['faults'])} |"
        for one in result["idle"]
    ]
    return "\n".join(lines)


def _row(point: Result) -> str:
    reported = ", ".join(
        f"{count:,} {'messages' if reason == 'app_hwm' else 'packets'} `{reason}`"
        for reason, count in sorted(point["by_reason"].items())
    )
    share = point["missing"] / max(1, point["sent"])
    missing = f"{point['missing']:,} ({share:.1%})" if point["missing"] else "nothing"
    return (
        f"| {point['factor']:g}x | {amount('messages_per_s', point['sent_per_s'])} |"
        f" {amount('messages_per_s', point['goodput_per_s'])} |"
        f" {missing} |"
        f" {reported} | {_verdict(point['faults'])} |"
    )


def _verdict(faults: list[str]) -> str:
    return f"**{'; '.join(faults)}**" if faults else "good"


def updated(page: str, result: Result) -> str:
    """The page with this result. Raises ValueError if it has no place for one."""
    return between(page, BEGIN, END, tables(result))


def draw(result: Result, path: Path) -> bool:
    """Goodput against offered load as PNG, both in parts of the capacity; False if it cannot."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    loads = list(dict.fromkeys(curve["load"] for curve in result["overload"]))
    figure, all_axes = pyplot.subplots(
        1, len(loads), figsize=(4 * len(loads), 3.6), layout="constrained", squeeze=False
    )
    for load, axes in zip(loads, all_axes[0], strict=True):
        for curve in result["overload"]:
            if curve["load"] != load:
                continue
            capacity = curve["capacity_per_s"]
            points = curve["points"]
            axes.plot(
                [one["factor"] for one in points],
                [one["goodput_per_s"] / capacity for one in points],
                "o-",
                markersize=4,
                label=curve["way"],
            )
            axes.set_title(curve["title"], fontsize=9)
        axes.plot([0, 1, 4], [0, 1, 1], ":", color="black", linewidth=1, label="ideal")
        axes.set_xlim(0, 4.1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("offered load, 1: capacity")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="lower right")
    all_axes[0][0].set_ylabel("goodput, 1: capacity")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return True
