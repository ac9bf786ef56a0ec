"""``mcast scout``: which PGM streams are heard in groups, without taking part.

Owns the table of streams. It sends nothing but the IGMP reports of its joins, no NAK and no
request, so that what it shows is what the network brings here by itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mcast.capture.census import Census, HeardStream
from mcast.cli import arguments as forms
from mcast.cli.groups import add_group_arguments, endpoints_of, group_text, rate_text
from mcast.cli.table import LiveTable
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, TURN_S, Output, Stop, Stopwatch, say
from mcast.errors import OptionError
from mcast.raw import Receiver
from mcast.runtime.clock import monotonic_ns
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_HEADS: Final = (
    "TSI",
    "publisher",
    "group",
    "packets",
    "packets/s",
    "bit/s",
    "repairs",
    "lost",
    "last seen",
)

_EPILOG = """\
A stream is one publisher's socket; its TSI is the name that losses are reported by. "lost" counts
data packets that were sent, by their numbers, and neither came here nor were repaired since;
"repairs" are those sent again, for anybody. Publishers that are idle are heard by their SPMs: every
second from mcast, up to 30 s apart from libzmq.

exit status: 0; 1 with --require when no stream was heard; 2 when a group cannot be joined

examples:
  mcast scout "epgm://eth0;239.192.1.1:5555"
  mcast scout -i eth0 239.192.1.1:5555+20 --duration 35
  mcast scout -i eth0 239.192.1.1:5555 --duration 5 --json | jq -r .tsi
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "scout",
        help="show the PGM streams that are heard, without taking part",
        description="Show the PGM streams that are heard in groups, without taking part.",
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
        "--require", action="store_true", help="exit status 1 if no stream is heard"
    )
    parser.add_argument(
        "--json", action="store_true", help="a JSON object for each stream, once, at the end"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="only the table at the end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Listen and show; the exit status. Blocks until ``--duration`` has passed or a signal comes.

    Raises: EndpointError, OptionError, TransportError.
    """
    if arguments.interval <= 0:
        raise OptionError("--interval is more than 0 seconds")
    output = Output()
    endpoints = endpoints_of(arguments)
    names = [group_text(endpoint) for endpoint in endpoints]
    census = Census()
    shown = _Shown(names)
    with (
        Stop() as stop,
        Receiver(
            endpoints,
            sources=arguments.source,
            excluded=arguments.exclude,
            rcvbuf_bytes=4 << 20,
        ) as receiver,
        LiveTable(
            output, _HEADS, interval_s=arguments.interval, numbers=(3, 4, 5, 6, 7, 8)
        ) as table,
    ):
        say(f"mcast scout: joined {len(names)} groups on {receiver.interfaces[0]}")
        watch = Stopwatch()
        deadline = Deadline(arguments.duration)
        while not (stop.is_asked or output.is_closed or deadline.has_passed):
            left_s = deadline.left
            wait_s = min(TURN_S, arguments.interval, TURN_S if left_s is None else left_s)
            for arrival in receiver.receive(wait_s):
                for data in arrival.datagrams():
                    census.handle_datagram_untrusted(
                        arrival.place, arrival.source, data, arrival.now_ns
                    )
            if table.is_due and not (arguments.quiet or arguments.json):
                streams = census.streams.values()
                table.show(_title(watch.elapsed_s, census), shown.rows(list(streams)))
        overflow_count = receiver.overflow_count
        elapsed_s = watch.elapsed_s
        found = list(census.streams.values())
        if not arguments.json:
            table.show(_title(elapsed_s, census), shown.totals(found))
    if arguments.json:
        lines = (json.dumps(_as_json(stream, names, census)) + "\n" for stream in found)
        output.write("".join(lines).encode())
    say(
        f"mcast scout: {len(found)} streams, {sum(s.packet_count for s in found):,} packets,"
        f" {sum(s.lost_count for s in found):,} lost, {census.bad.total():,} datagrams that are no"
        f" PGM in {elapsed_s:.1f} s"
        + (f"; the full receive buffer dropped {overflow_count:,} times" if overflow_count else "")
    )
    return EXIT_UNMET if arguments.require and not found else EXIT_OK


class _Shown:
    """What the table said last, for rates since then."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._counts: dict[int, tuple[int, int]] = {}
        self._at_ns = monotonic_ns()

    def rows(self, streams: Sequence[HeardStream]) -> list[tuple[str, ...]]:
        """A row of cells for each stream, its rates since the last call."""
        now_ns = monotonic_ns()
        span_s = max((now_ns - self._at_ns) / 1e9, 1e-9)
        rows = []
        for stream in streams:
            packets, size_bytes = self._counts.get(id(stream), (0, 0))
            rates = (
                (stream.packet_count - packets) / span_s,
                (stream.byte_count - size_bytes) * 8 / span_s,
            )
            self._counts[id(stream)] = (stream.packet_count, stream.byte_count)
            rows.append(self._cells(stream, rates, now_ns))
        self._at_ns = now_ns
        return rows

    def totals(self, streams: Sequence[HeardStream]) -> list[tuple[str, ...]]:
        """A row for each stream, its rates over all the time that it was heard."""
        now_ns = monotonic_ns()
        return [self._cells(stream, _rates(stream), now_ns) for stream in streams]

    def _cells(
        self, stream: HeardStream, rates: tuple[float, float], now_ns: int
    ) -> tuple[str, ...]:
        ago_s = max(0.0, (now_ns - stream.last_ns) / 1e9)
        return (
            stream.tsi,
            stream.source,
            self._names[stream.place],
            f"{stream.packet_count:,}",
            f"{rates[0]:,.0f}",
            rate_text(rates[1]),
            f"{stream.types['RDATA']:,}",
            f"{stream.lost_count:,}",
            "left" if stream.is_leaving else f"{ago_s:.1f} s ago",
        )


def _title(elapsed_s: float, census: Census) -> str:
    naks = sum(count for (*_, kind), count in census.upstream.items() if kind == "NAK")
    heard = f", {naks:,} multicast NAKs" if naks else ""
    return f"{elapsed_s:.1f} s: {len(census.streams)} streams{heard}"


def _rates(stream: HeardStream) -> tuple[float, float]:
    """Packets and bits per second from the first to the last; 0 for a moment."""
    span_s = (stream.last_ns - stream.first_ns) / 1e9
    if not span_s:
        return 0.0, 0.0
    return stream.packet_count / span_s, stream.byte_count * 8 / span_s


def _as_json(stream: HeardStream, names: Sequence[str], census: Census) -> dict[str, object]:
    packets, bits = _rates(stream)
    numbers = stream.numbers
    return {
        "tsi": stream.tsi,
        "publisher": stream.source,
        "group": names[stream.place],
        "packets": stream.packet_count,
        "bytes": stream.byte_count,
        "packets_per_s": round(packets, 1),
        "bits_per_s": round(bits, 1),
        "types": dict(stream.types),
        "multicast_naks": census.upstream[stream.place, stream.tsi, "NAK"],
        "lost": stream.lost_count,
        "gaps": 0 if numbers is None else numbers.gap_count,
        "reordered": 0 if numbers is None else numbers.reordered_count,
        "duplicates": 0 if numbers is None else numbers.duplicate_count,
        "txw_trail": stream.trail,
        "txw_lead": stream.lead,
        "last_seen_s_ago": round(max(0.0, (monotonic_ns() - stream.last_ns) / 1e9), 3),
        "left": stream.is_leaving,
    }
