"""The picture of a result: each pair's ratio, as a multiple of what was to be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report import words

__all__ = ["draw"]


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the picture as PNG: right of the line is better than the target."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    rows = [
        (case, measure)
        for case in result["cases"]
        for measure in case["measures"]
        if measure["is_reached"] is not None
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.45 * len(rows) + 1.5), layout="constrained")
    labels = []
    for place, (case, measure) in enumerate(rows):
        better = [_margin(measure, ratio) for ratio in measure["ratio"]["pairs"]]
        median = _margin(measure, measure["ratio"]["median"])
        colour = "tab:green" if median >= 1 else "tab:red"
        axes.plot(better, [place] * len(better), "o", color=colour, alpha=0.35, markersize=5)
        axes.plot([median], [place], "|", color=colour, markersize=18, markeredgewidth=3)
        against = case["sides"][1]["name"]
        labels.append(f"{case['title']}\n{words(measure['figure'])} against {against}")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("ratio as a multiple of the target (1: just reached; log scale)")
    axes.set_title("mcast: each pair of runs, and the median")
    axes.grid(axis="x", which="both", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date of the library's version, the same result gives the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _margin(measure: dict[str, Any], ratio: float) -> float:
    if measure["at_least"] is not None:
        return ratio / float(measure["at_least"])
    return float(measure["at_most"]) / ratio
