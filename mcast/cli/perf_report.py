"""What ``mcast perf`` found: its names, how it is told, and whether it is what was required.

Owns the list of what each command measures. Invariant: a criterion on what was not measured does
not hold.
"""

from __future__ import annotations

import argparse
import operator
import re
from collections.abc import Callable, Sequence
from typing import Final

from mcast.cli.perf_load import Result
from mcast.errors import OptionError

__all__ = ["Criterion", "check_criteria", "criterion", "report_line", "unmet"]

Criterion = tuple[str, str, float]
"""A name among the results, a comparison, a number."""

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_CRITERION: Final = re.compile(r"\s*(\w+)\s*(>=|<=|==|>|<)\s*(\S+)\s*")

_DELAYS: Final = ("p50_s", "p90_s", "p99_s", "p999_s", "max_s")
_SUB_NAMES: Final = (
    *("size_bytes", "received", "missing", "loss", "lost_packets", "refused_messages"),
    *("seconds", "messages_per_s", "bits_per_s", "cpu_s", "cpu_s_per_message", "rss_bytes"),
    *("repaired", "naks_sent", "rcvbuf_overflows", "jitter_s"),
    *(f"delay_{name}" for name in _DELAYS),
)
_PUB_NAMES: Final = (
    *("sent", "seconds", "messages_per_s", "cpu_s", "cpu_s_per_message", "rss_bytes"),
    *("odata_sent", "rdata_sent", "naks_received"),
)
_PING_NAMES: Final = (
    *("size_bytes", "rounds", "missing", "loss", "seconds", "jitter_s"),
    *(f"latency_{name}" for name in _DELAYS),
)
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "pub": _PUB_NAMES,
    "sub": _SUB_NAMES,
    "ping": _PING_NAMES,
    "pong": ("answered",),
    "throughput": (*_SUB_NAMES, *(f"pub_{name}" for name in _PUB_NAMES)),
    "latency": _PING_NAMES,
}
"""What each command measures, and ``--require`` can ask for."""


def criterion(text: str) -> Criterion:
    """The parts of such as ``messages_per_s>1e6``. Raises argparse.ArgumentTypeError."""
    found = _CRITERION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"NAME>NUMBER is wanted (or >=, <, <=, ==), not {text!r}")
    try:
        return found[1], found[2], float(found[3])
    except ValueError:
        raise argparse.ArgumentTypeError(f"{found[3]!r} in {text!r} is not a number") from None


def unmet(criteria: Sequence[Criterion], result: Result) -> list[str]:
    """Each criterion that does not hold, with what was found instead; what is unknown doesn't."""
    failed = []
    for name, comparison, wanted in criteria:
        value = result.get(name)
        if not isinstance(value, int | float) or not _COMPARISONS[comparison](value, wanted):
            failed.append(f"{name}{comparison}{wanted:g}, and it is {value}")
    return failed


def check_criteria(criteria: Sequence[Criterion], kind: str) -> None:
    """Raise OptionError for a name that this command does not measure."""
    for name, _, _ in criteria:
        if name not in _NAMES[kind]:
            known = ", ".join(_NAMES[kind])
            raise OptionError(f"--require {name}: {kind} does not measure it; it measures {known}")


def report_line(result: Result) -> str:
    """The results in words: a line of ``name value`` columns, in the reader's units."""
    shown = []
    for name, value in result.items():
        if isinstance(value, str):
            shown.append((name, value))
        elif value is not None:
            shown.append(_column(name, value))
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name:<{width}}  {value:>16}" for name, value in shown)


def _column(name: str, value: float) -> tuple[str, str]:
    """Name and text of one result: per-second values with thousands, short times in us."""
    if name == "loss" or name.endswith("_loss"):
        return name, f"{value:.4%}"
    if name.endswith("_per_s"):
        return name, f"{value:,.0f}"
    if name.endswith("cpu_s_per_message"):
        return name.removesuffix("_s_per_message") + "_ns_per_message", f"{value * 1e9:,.0f}"
    if name.endswith("_s") and not name.endswith("cpu_s"):
        return name.removesuffix("_s") + "_us", f"{value * 1e6:,.1f}"
    return name, f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"
