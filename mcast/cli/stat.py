"""``mcast stat``: the counters of running processes, once or every few seconds.

Owns the forms: table, CSV, JSON lines and Prometheus' text. Each shows the same figures.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import io
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.table import aligned
from mcast.cli.terminal import EXIT_OK, Output, Stop
from mcast.cli.watching import (
    add_watch_arguments,
    check_interval,
    look,
    nobody,
    program_of,
)
from mcast.errors import OptionError
from mcast.observe import ContextStatus, Rate, rates
from mcast.runtime.clock import time_ns
from mcast.runtime.counters import is_gauge
from mcast.runtime.metrics import LABELS, metric_text

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_CSV_HEADS: Final = (
    "time_s",
    "pid",
    "socket",
    "type",
    "endpoints",
    "counter",
    "value",
    "per_second",
)

_EPILOG = """\
Counters that are 0 are left out of the table; docs/reference/counters.md says what each means. With
--interval "per second" is the change since the look before; without, since the process began. JSON
is one object for each look; null is a rate without limit.

exit status: 0; 1 when no process of yours has a socket; 2 when a PID has none, or nobody answers;
3 bad arguments

examples:
  mcast stat
  mcast stat 4711 --interval 1 --counter 'repair*' --counter lost
  mcast stat --json | jq '.contexts[].sockets[].counters.lost'
  mcast stat --prometheus >/var/lib/prometheus/node-exporter/mcast.prom
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "stat",
        help="show the counters of running processes",
        description="Show the counters of your running processes that use mcast.",
        epilog=_EPILOG,
    )
    add_watch_arguments(parser, interval=None)
    parser.add_argument(
        "--count", metavar="N", type=forms.positive_count, help="end after N looks (default: one)"
    )
    parser.add_argument(
        "--counter",
        metavar="NAME",
        action="append",
        default=[],
        help="only counters of this name, which may have * and ?; may be repeated",
    )
    parser.add_argument("--all", action="store_true", help="in the table also counters that are 0")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a line of JSON for each look")
    form.add_argument("--csv", action="store_true", help="a line for each counter")
    form.add_argument("--prometheus", action="store_true", help="Prometheus' text format")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look and write; the exit status. Blocks until ``--count`` looks are made or a signal comes.

    Raises: OptionError.
    """
    check_interval(arguments)
    if arguments.count is not None and arguments.interval is None:
        raise OptionError("--count needs --interval: how often to look")
    if arguments.prometheus and arguments.interval is not None:
        raise OptionError("--prometheus is for one look; Prometheus makes its own intervals")
    output = Output()
    before: Sequence[ContextStatus] = ()
    look_count = 0
    with Stop() as stop:
        while True:
            found = look("mcast stat", arguments)
            contexts = found.contexts
            if not contexts and not found.problems and look_count:
                return EXIT_OK  # all have ended
            if not contexts and not look_count:
                return nobody("mcast stat", arguments, found)
            output.write(_shown(arguments, before, contexts, is_first=not look_count))
            before = contexts
            look_count += 1
            is_over = arguments.interval is None or look_count == arguments.count
            if is_over or output.is_closed or stop.wait(arguments.interval):
                return EXIT_OK


def _shown(
    arguments: argparse.Namespace,
    before: Sequence[ContextStatus],
    contexts: Sequence[ContextStatus],
    *,
    is_first: bool,
) -> bytes:
    found = rates(before, contexts)
    wanted: list[str] = arguments.counter
    if arguments.json:
        return _json(contexts, wanted)
    if arguments.csv:
        return _csv(found, wanted, with_heads=is_first)
    if arguments.prometheus:
        labels = ("pid", *LABELS)
        return metric_text(labels, [(_label_values(rate), _chosen(rate, wanted)) for rate in found])
    return _table(found, wanted, with_zeros=arguments.all)


def _chosen(rate: Rate, wanted: Sequence[str]) -> dict[str, int | float]:
    return {
        name: count
        for name, count in rate.socket.counters.items()
        if not wanted or any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
    }


def _label_values(rate: Rate) -> tuple[str, ...]:
    socket = rate.socket
    return (str(rate.context.pid), str(socket.number), socket.kind, " ".join(socket.endpoints))


def _table(found: Sequence[Rate], wanted: Sequence[str], *, with_zeros: bool) -> bytes:
    lines = []
    shown = None
    for rate in found:
        context, socket = rate.context, rate.socket
        if context is not shown:
            shown = context
            lines.append(
                f"process {context.pid}  {program_of(context.command)}  ({context.kernel} kernel,"
                f" loop={context.loop}, {context.uptime_s:,.0f} s)"
            )
        where = ", ".join(socket.endpoints) or "not connected"
        lines.append(f"  {socket.kind} {socket.number}  {where}")
        rows = [
            (f"    {name}", _number_text(count), _per_second_text(rate, name))
            for name, count in _chosen(rate, wanted).items()
            if count or with_zeros
        ]
        if rows:
            lines += aligned(("    counter", "value", "per second"), rows, numbers=(1, 2))
    return ("\n".join(lines) + "\n").encode()


def _per_second_text(rate: Rate, name: str) -> str:
    return "" if is_gauge(name) else f"{rate.per_second(name):,.1f}"


def _number_text(count: float) -> str:
    if isinstance(count, int) or count == math.inf:
        return f"{count:,}"
    return f"{count:,.6g}"


def _csv(found: Sequence[Rate], wanted: Sequence[str], *, with_heads: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if with_heads:
        writer.writerow(_CSV_HEADS)
    now_s = f"{time_ns() / 1e9:.3f}"
    for rate in found:
        for name, count in _chosen(rate, wanted).items():
            speed = "" if is_gauge(name) else f"{rate.per_second(name):.3f}"
            writer.writerow((now_s, *_label_values(rate), name, count, speed))
    return text.getvalue().encode()


def _json(contexts: Sequence[ContextStatus], wanted: Sequence[str]) -> bytes:
    told = [
        {
            "pid": context.pid,
            "command": context.command,
            "kernel": context.kernel,
            "loop": context.loop,
            "loop_turns": context.loop_turns,
            "uptime_s": round(context.uptime_s, 6),
            "sockets": [
                {
                    "number": rate.socket.number,
                    "type": rate.socket.kind,
                    "endpoints": rate.socket.endpoints,
                    "counters": {
                        name: count if math.isfinite(count) else None
                        for name, count in _chosen(rate, wanted).items()
                    },
                }
                for rate in rates((), [context])
            ],
        }
        for context in contexts
    ]
    return json.dumps({"time_s": time_ns() / 1e9, "contexts": told}).encode() + b"\n"
