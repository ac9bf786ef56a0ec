"""``mcast sub``: every message of the group to stdout, and whether anything was lost.

Exit status 1 means that something was lost, or that ``--count`` messages did not come.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import mcast
from mcast.cli import arguments as forms
from mcast.cli.connections import Connections
from mcast.cli.kinds import (
    RECEIVERS,
    URL_HELP,
    add_socket_arguments,
    add_type_arguments,
    open_socket,
    socket_options_of,
)
from mcast.cli.terminal import (
    EXIT_OK,
    EXIT_UNMET,
    TURN_S,
    Output,
    Progress,
    Stop,
    Stopwatch,
    counted,
    say,
)
from mcast.errors import Again, LossError
from mcast.events import Event, Lost
from mcast.runtime.deadline import Deadline
from mcast.stats import Snapshot

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "as_json", "as_text", "event_json", "event_text", "run"]

_BATCH_COUNT: Final = 1000

_EPILOG = """\
Each message is a line: its bytes and a newline, the parts of a multipart message joined by tabs;
of a dish the first part is the group, of a router the peer's name. With --json a message is
{"parts": ["AAPL", "189.20"]}, where a part that is not UTF-8 is {"base64": ...}.

exit status: 0; 1 when something was lost, or --count messages did not come; 2 when the system
refuses; 3 for bad arguments

examples:
  mcast sub "epgm://lo;239.192.1.1:5555"
  mcast sub "epgm://eth0;239.192.1.1:5555" --topic AAPL --topic MSFT --json
  mcast sub "epgm://eth0;239.192.1.1:5555" --count 100 --timeout 10 >first-100.txt
  mcast sub "epgm://lo;239.192.1.1:5555" --events -o drop_rate=0.05 -o drop_seed=1
  mcast sub tcp://10.0.0.5:5555 --topic AAPL
  mcast sub "tcp://*:5556" --type pull --bind --curve-key server.key_secret >all-lines.txt
  mcast sub "udp://eth0;239.192.1.1:5557" --type dish --topic weather
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "sub",
        help="write what is published to stdout",
        description="Write the messages of a group, or of another socket, to stdout.",
        epilog=_EPILOG,
    )
    parser.add_argument("url", metavar="URL", help=URL_HELP)
    add_type_arguments(parser, RECEIVERS, "sub")
    parser.add_argument(
        "--topic",
        metavar="T",
        action="append",
        default=[],
        help="only messages that start with T; may be repeated (default: all; dish: the groups)",
    )
    parser.add_argument(
        "--count", metavar="N", type=forms.positive_count, help="end after N messages"
    )
    parser.add_argument(
        "--timeout", metavar="S", type=forms.seconds, help="end after S seconds in all"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object for each message")
    parser.add_argument(
        "--events",
        action="store_true",
        help="losses, publishers and peers that come and go, on stderr (JSON with --json)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary")
    add_socket_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Subscribe and write; the exit status.

    Blocks until ``--count`` or ``--timeout`` is reached, a signal comes, or nobody reads stdout.

    Raises: EndpointError, OptionError, TransportError.
    """
    output = Output()
    losses = _Losses()
    received = byte_total = 0
    with Stop() as stop, mcast.Context() as context:
        options = socket_options_of(arguments)
        kind = RECEIVERS[arguments.type]
        topics = map(os.fsencode, arguments.topic)
        sub, connections = open_socket(context, kind, arguments, options, topics)
        if not arguments.quiet:
            connections.greet(sub)
        watch = Stopwatch()
        deadline = Deadline(arguments.timeout)
        progress = Progress(quiet=arguments.quiet or arguments.json)
        line = as_json if arguments.json else as_text
        while not (stop.is_asked or output.is_closed or deadline.has_passed):
            wanted = _BATCH_COUNT
            if arguments.count is not None:
                wanted = min(wanted, arguments.count - received)
            batch = _receive(sub, wanted, deadline)
            output.write(b"".join(map(line, batch)))
            received += len(batch)
            byte_total += sum(sum(map(len, parts)) for parts in batch)
            _take_events(sub, losses, arguments)
            connections.tell(quiet=arguments.quiet, all_peers=arguments.events)
            if progress.is_due(received):
                _show_progress(received, watch.elapsed_s, sub.stats(), losses, connections)
            if received == arguments.count:
                break
        _take_events(sub, losses, arguments)
        connections.tell(quiet=arguments.quiet, all_peers=arguments.events)
        elapsed_s = watch.elapsed_s
        stats = sub.stats()
        losses.datagram_count = int(stats.get("datagrams_lost", 0))
    if not arguments.quiet:
        if arguments.json:
            _show_summary_json(received, byte_total, elapsed_s, stats, losses)
        else:
            _show_summary(received, byte_total, elapsed_s, stats, losses, connections)
    if arguments.count is not None and received < arguments.count:
        say(f"mcast sub: {received:,} of {counted(arguments.count, 'message')} came")
        return EXIT_UNMET
    return EXIT_UNMET if losses else EXIT_OK


def as_text(parts: Sequence[bytes]) -> bytes:
    """The parts joined by tabs, and a newline."""
    return b"\t".join(parts) + b"\n"


def as_json(parts: Sequence[bytes]) -> bytes:
    """One line of JSON: a part is a string if it is UTF-8, else an object with its base64."""
    return json.dumps({"parts": [_part_json(part) for part in parts]}).encode() + b"\n"


def event_text(event: Event) -> str:
    """One line of words."""
    if isinstance(event, Lost):
        unit = "message" if event.reason.counts_messages else "packet"
        return (
            f"lost {counted(event.count, unit)} of {event.tsi}, packets {event.first} to"
            f" {event.last}: {event.reason.value}"
        )
    if isinstance(event, mcast.PeerJoined):
        return f"{event.tsi} joined at {event.address}, from packet {event.first}"
    if isinstance(event, mcast.PeerRestarted):
        return f"{event.tsi} restarted, from packet {event.first}"
    if isinstance(event, mcast.PeerQuiet):
        return f"{event.tsi} is quiet: nothing for {event.silent_s:.1f} s although SPMs are due"
    if isinstance(event, mcast.PeerHeard):
        return f"{event.tsi} is heard again after {event.silent_s:.1f} s"
    if isinstance(event, mcast.RepairsLimited):
        return f"{event.tsi} is slow to repair what is missing here: {event.wait_s:.2f} s at best"
    tail = ", perhaps not its end" if event.tail_unknown else ""
    return f"{event.tsi} left ({event.reason}) after packet {event.last}{tail}"


def event_json(event: Event) -> str:
    """One line of JSON: the class's name as ``event``, and its fields."""
    return json.dumps({"event": type(event).__name__, **asdict(event)})


class _Losses:
    """What was lost so far."""

    def __init__(self) -> None:
        self.event_count = 0
        self.packet_count = 0
        self.refused_count = 0
        """Messages that came while stdout's reader was too slow, or that no limit allowed."""
        self.datagram_count = 0
        """Datagrams of udp:// for which the system had no room."""

    def add(self, lost: Lost) -> None:
        self.event_count += 1
        if lost.reason.counts_messages:
            self.refused_count += lost.count
        else:
            self.packet_count += lost.count

    def __bool__(self) -> bool:
        return bool(self.event_count or self.datagram_count)

    def __str__(self) -> str:
        if not self:
            return "nothing lost"
        found = []
        if self.event_count:
            found.append(counted(self.packet_count, "packet"))
        if self.refused_count:
            found.append(
                f"{counted(self.refused_count, 'message')} that came faster than stdout took them"
            )
        if self.datagram_count:
            found.append(f"{counted(self.datagram_count, 'datagram')} that found no room")
        return "LOST " + " and ".join(found)


def _receive(sub: mcast.Socket, wanted: int, deadline: Deadline) -> list[list[bytes]]:
    left = deadline.left
    try:
        return sub.recv_many_multipart(
            wanted, timeout=TURN_S if left is None else min(TURN_S, left)
        )
    except Again:
        return []
    except LossError:  # with -o on_loss=raise; the same loss is among the events
        return []


def _take_events(sub: mcast.Socket, losses: _Losses, arguments: argparse.Namespace) -> None:
    if not isinstance(sub, mcast.Sub):
        return  # the others lose nothing that was sent to them, or know nothing of it
    for event in sub.events():
        if isinstance(event, Lost):
            losses.add(event)
        if arguments.events:
            say(event_json(event) if arguments.json else f"mcast sub: {event_text(event)}")


def _show_progress(
    received: int, elapsed_s: float, stats: Snapshot, losses: _Losses, connections: Connections
) -> None:
    rate = received / max(elapsed_s, 1e-9)
    tail = ""
    if connections.is_group:
        tail = f", {counted(int(stats['repaired']), 'packet')} repaired, {losses}"
    say(f"mcast sub: {counted(received, 'message')} ({rate:,.0f}/s){tail}")


def _show_summary(
    received: int,
    byte_total: int,
    elapsed_s: float,
    stats: Snapshot,
    losses: _Losses,
    connections: Connections,
) -> None:
    tail = ""
    if connections.is_group:
        tail = f"; {counted(int(stats['repaired']), 'packet')} repaired"
        if stats["repaired"]:
            p50_ms, p99_ms = stats["repair_p50_s"] * 1e3, stats["repair_p99_s"] * 1e3
            tail += f" (p50 {p50_ms:.1f} ms, p99 {p99_ms:.0f} ms)"
    if connections.is_group or losses:
        tail += f", {losses}"
    say(
        f"mcast sub: {counted(received, 'message')}, {counted(byte_total, 'byte')} in"
        f" {elapsed_s:.2f} s{tail}"
    )


def _show_summary_json(
    received: int, byte_total: int, elapsed_s: float, stats: Snapshot, losses: _Losses
) -> None:
    summary = {
        "received": received,
        "bytes": byte_total,
        "seconds": round(elapsed_s, 3),
        "lost_packets": losses.packet_count,
        "refused_messages": losses.refused_count,
        "lost_datagrams": losses.datagram_count,
        "counters": stats,
    }
    say(json.dumps({"event": "Summary", **summary}))


def _part_json(part: bytes) -> str | dict[str, str]:
    try:
        return part.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(part).decode()}
