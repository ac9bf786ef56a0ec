"""``mcast join``: hold memberships of groups, and watch what comes.

Owns the counts of each group and its sources; the data itself is thrown away.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.groups import add_group_arguments, endpoints_of, group_text, rate_text
from mcast.cli.table import LiveTable
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, TURN_S, Output, Stop, Stopwatch, say
from mcast.errors import OptionError
from mcast.raw import Receiver
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_MOST_SOURCES: Final = 256
"""Sources told apart in each group; those beyond are counted together."""
_HEADS: Final = ("group", "packets", "packets/s", "bit/s", "sources")

_EPILOG = """\
The kernel holds the memberships while this runs: a snooping switch forwards the groups here. bit/s
is payload.

exit status: 0; 1 with --require when a group stayed silent; 2 when a group cannot be joined

examples:
  mcast join -i eth0 239.192.1.1:5000
  mcast join -i eth0 239.192.1.1:5000+20 --duration 10 --require
  mcast join -i eth0 232.1.2.3:5000 --source 10.0.0.5 --json
"""


@dataclass(slots=True)
class _Tally:
    """What one group has brought."""

    packets: int = 0
    bytes: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    other_packets: int = 0
    shown_packets: int = 0
    shown_bytes: int = 0

    def add(self, source: str, packets: int, size_bytes: int) -> None:
        self.packets += packets
        self.bytes += size_bytes
        if source in self.sources or len(self.sources) < _MOST_SOURCES:
            self.sources[source] = self.sources.get(source, 0) + packets
        else:
            self.other_packets += packets


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "join",
        help="hold memberships of groups, and watch what comes",
        description="Hold memberships of multicast groups, and watch what comes.",
        epilog=_EPILOG,
    )
    add_group_arguments(parser, receives=True)
    parser.add_argument("--duration", metavar="S", type=forms.seconds, help="end after S seconds")
    parser.add_argument(
        "--interval",
        metavar="S",
        type=forms.seconds,
        default=1.0,
        help="seconds between two looks (default 1)",
    )
    parser.add_argument(
        "--require", action="store_true", help="exit status 1 if a group stays silent"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object per group and look")
    parser.add_argument("-q", "--quiet", action="store_true", help="no table, only the totals")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Join and watch; the exit status. Blocks until ``--duration`` has passed or a signal comes.

    Raises: EndpointError, OptionError, TransportError.
    """
    if arguments.interval <= 0:
        raise OptionError("--interval is more than 0 seconds")
    output = Output()
    endpoints = endpoints_of(arguments)
    names = [group_text(endpoint) for endpoint in endpoints]
    tallies = [_Tally() for _ in endpoints]
    with (
        Stop() as stop,
        Receiver(endpoints, sources=arguments.source, excluded=arguments.exclude) as receiver,
        LiveTable(output, _HEADS, interval_s=arguments.interval, numbers=(1, 2, 3, 4)) as table,
    ):
        say(f"mcast join: joined {_count(names)} on {receiver.interfaces[0]}")
        deadline = Deadline(arguments.duration)
        watch, shown_s = Stopwatch(), 0.0
        while not (stop.is_asked or output.is_closed or deadline.has_passed):
            left = deadline.left
            wait_s = min(TURN_S, arguments.interval, TURN_S if left is None else left)
            for arrival in receiver.receive(wait_s):
                tallies[arrival.place].add(
                    arrival.source, arrival.datagram_count, len(arrival.data)
                )
            if not arguments.quiet and table.is_due:
                elapsed_s = watch.elapsed_s
                _show(arguments, output, table, names, tallies, elapsed_s, elapsed_s - shown_s)
                shown_s = elapsed_s
        elapsed_s = watch.elapsed_s
        overflow_count = receiver.overflow_count
    for tally in tallies:
        tally.shown_packets = tally.shown_bytes = 0
    if arguments.json:
        lines = _lines(names, tallies, elapsed_s, elapsed_s, "Summary")
        output.write("".join(lines).encode())
    packets, size_bytes = sum(t.packets for t in tallies), sum(t.bytes for t in tallies)
    silent = [name for name, tally in zip(names, tallies, strict=True) if not tally.packets]
    say(
        f"mcast join: {packets:,} packets, {size_bytes:,} bytes in {elapsed_s:.2f} s;"
        f" {len(silent)} of {len(names)} groups silent"
        + (f", the full receive buffer dropped {overflow_count:,} times" if overflow_count else "")
    )
    if arguments.require and silent:
        say(f"mcast join: nothing came to {', '.join(silent[:10])}")
        return EXIT_UNMET
    return EXIT_OK


def _count(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]} ({len(names)} groups)"


def _show(
    arguments: argparse.Namespace,
    output: Output,
    table: LiveTable,
    names: Sequence[str],
    tallies: Sequence[_Tally],
    elapsed_s: float,
    span_s: float,
) -> None:
    if arguments.json:
        output.write("".join(_lines(names, tallies, elapsed_s, span_s, "Look")).encode())
    else:
        rows = []
        for name, tally in zip(names, tallies, strict=True):
            packets, bits = _rates(tally, span_s)
            rows.append(
                (name, f"{tally.packets:,}", f"{packets:,.0f}", rate_text(bits), _sources(tally))
            )
        table.show(f"{elapsed_s:.1f} s", rows)
    for tally in tallies:
        tally.shown_packets, tally.shown_bytes = tally.packets, tally.bytes


def _lines(
    names: Sequence[str], tallies: Sequence[_Tally], elapsed_s: float, span_s: float, event: str
) -> list[str]:
    lines = []
    for name, tally in zip(names, tallies, strict=True):
        packets, bits = _rates(tally, span_s)
        found = {
            "event": event,
            "seconds": round(elapsed_s, 3),
            "group": name,
            "packets": tally.packets,
            "bytes": tally.bytes,
            "packets_per_s": round(packets, 1),
            "bits_per_s": round(bits, 1),
            "sources": tally.sources,
        }
        lines.append(json.dumps(found) + "\n")
    return lines


def _rates(tally: _Tally, span_s: float) -> tuple[float, float]:
    span_s = max(span_s, 1e-9)
    return (
        (tally.packets - tally.shown_packets) / span_s,
        (tally.bytes - tally.shown_bytes) * 8 / span_s,
    )


def _sources(tally: _Tally) -> str:
    if len(tally.sources) == 1 and not tally.other_packets:
        return next(iter(tally.sources))
    return f"{len(tally.sources)}{'+' if tally.other_packets else ''}"
