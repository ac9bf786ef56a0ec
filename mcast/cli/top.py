"""``mcast top``: a live view of all sockets of all processes, the busiest first.

Owns the columns. A row is a socket; what should worry somebody has a column of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.groups import rate_text
from mcast.cli.table import LiveTable
from mcast.cli.terminal import EXIT_OK, Output, Stop
from mcast.cli.watching import (
    add_watch_arguments,
    check_interval,
    look,
    nobody,
    program_of,
)
from mcast.observe import ContextStatus, Rate, rates

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["HEADS", "NUMBERS", "add_parser", "rows", "run", "title"]

HEADS: Final = (
    "PID",
    "command",
    "type",
    "endpoint",
    "messages/s",
    "bit/s",
    "waiting",
    "repaired/s",
    "lost",
    "refused",
    "overflows",
)
NUMBERS: Final = tuple(range(4, len(HEADS)))
_COMMAND_WIDTH: Final = 24
_ENDPOINT_WIDTH: Final = 40

_EPILOG = """\
A row is a socket. waiting: messages that wait for the rate, or for recv; repaired/s: packets sent
again, or that came after all; lost: packets for ever; refused: messages that came while the queue
of the application was full; overflows: datagrams that the kernel's buffer had no room for. The last
three count since the socket was made. On a terminal with rich installed (mcast[cli]) it is drawn in
place, elsewhere written once an interval. Ctrl-C ends it.

exit status: 0; 1 when no process of yours has a socket; 2 when a PID has none, or nobody answers;
3 bad arguments

examples:
  mcast top
  mcast top 4711 --interval 0.5
  mcast top --count 2 >snapshot.txt
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "top",
        help="watch the sockets of running processes",
        description="Watch the sockets of your running processes that use mcast.",
        epilog=_EPILOG,
    )
    add_watch_arguments(parser, interval=1.0)
    parser.add_argument(
        "--count", metavar="N", type=forms.positive_count, help="end after N intervals"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Watch; the exit status. Blocks until ``--count`` intervals have passed or a signal comes.

    Raises: OptionError.
    """
    check_interval(arguments)
    output = Output()
    found = look("mcast top", arguments)
    if not found.contexts:
        return nobody("mcast top", arguments, found)
    before = found.contexts
    shown_count = 0
    with (
        Stop() as stop,
        LiveTable(output, HEADS, interval_s=arguments.interval, numbers=NUMBERS) as table,
    ):
        while not (output.is_closed or stop.wait(arguments.interval)):
            now = look("mcast top", arguments).contexts
            table.show(title(now), rows(rates(before, now)))
            before = now
            shown_count += 1
            if shown_count == arguments.count:
                break
    return EXIT_OK


def title(contexts: Sequence[ContextStatus]) -> str:
    """One line over the table."""
    socket_count = sum(len(context.sockets) for context in contexts)
    process_count = len({context.pid for context in contexts})
    return f"mcast top: {process_count} processes, {socket_count} sockets"


def rows(found: Sequence[Rate]) -> list[tuple[str, ...]]:
    """The cells, the busiest socket first."""
    return [_row(rate) for rate in sorted(found, key=lambda rate: -_messages_per_s(rate))]


def _row(rate: Rate) -> tuple[str, ...]:
    socket, counters = rate.socket, rate.socket.counters
    bytes_per_s = sum(
        map(
            rate.per_second,
            ("odata_bytes_sent", "rdata_bytes_sent", "bytes_received", "bytes_sent"),
        )
    )
    repaired_per_s = rate.per_second("rdata_sent") + rate.per_second("repaired")
    waiting = counters.get("messages_unsent", 0) + counters.get("queued", 0)
    more = f" +{len(socket.endpoints) - 1}" if len(socket.endpoints) > 1 else ""
    where = _cut((socket.endpoints or ("",))[0], _ENDPOINT_WIDTH) + more
    return (
        str(rate.context.pid),
        _cut(program_of(rate.context.command), _COMMAND_WIDTH),
        socket.kind,
        where,
        f"{_messages_per_s(rate):,.0f}",
        rate_text(bytes_per_s * 8),
        f"{waiting:,.0f}",
        f"{repaired_per_s:,.0f}",
        f"{counters.get('lost', 0):,}",
        f"{counters.get('queue_refused', 0) + counters.get('dropped_at_hwm', 0):,}",
        f"{counters.get('rcvbuf_overflows', 0):,}",
    )


def _messages_per_s(rate: Rate) -> float:
    names = ("messages_sent", "messages_received", "messages_taken")
    return sum(map(rate.per_second, names))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
