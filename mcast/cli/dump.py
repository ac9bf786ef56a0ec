"""``mcast dump``: the datagrams of multicast groups, and whether numbered ones came whole.

Exit status 1 means that numbers were missing, or that ``--count`` datagrams did not come.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.groups import add_group_arguments, endpoints_of, group_text, other_end
from mcast.cli.terminal import (
    EXIT_OK,
    EXIT_UNMET,
    TURN_S,
    Output,
    Progress,
    Stop,
    Stopwatch,
    say,
)
from mcast.raw import Arrival, Receiver, Stamp, Verifier, stamp_of_untrusted
from mcast.runtime.clock import time_ns
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "hex_lines", "run"]

_HEX_WIDTH: Final = 16

_EPILOG = """\
A line for each datagram: time (UTC, when it was read), source, group, bytes, and the number of one
that "mcast send" made. With --text a line is the payload itself, with --json an object, where a
payload that is not UTF-8 is {"base64": ...}. At the end comes the account of each numbered stream:
received, lost, duplicates, out of order, jitter (RFC 3550).

exit status:
  0  done
  1  numbers were missing, or --count datagrams did not come
  2  a group cannot be joined
  3  bad arguments

examples:
  mcast dump -i lo 239.192.1.1:5000
  mcast dump -i eth0 239.192.1.1:5000+10 -q --duration 10
  mcast dump -i eth0 239.192.1.1:5000 --count 1 --hex
  mcast dump -i eth0 232.1.2.3:5000 --source 10.0.0.5 --json | jq .payload
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "dump",
        help="show the datagrams of multicast groups, and verify numbered ones",
        description="Show the datagrams of multicast groups, and verify numbered ones.",
        epilog=_EPILOG,
    )
    add_group_arguments(parser, receives=True)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--hex", action="store_true", help="also the payload in hex and ASCII")
    form.add_argument("--text", action="store_true", help="only the payload, a line for each")
    form.add_argument("--json", action="store_true", help="a JSON object for each datagram")
    parser.add_argument(
        "--count", metavar="N", type=forms.positive_count, help="end after N datagrams"
    )
    parser.add_argument("--duration", metavar="S", type=forms.seconds, help="end after S seconds")
    parser.add_argument(
        "--rcvbuf",
        metavar="B",
        type=forms.byte_count,
        default=4 << 20,
        help="receive buffer to ask for, such as 16M (default 4M)",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no line for each datagram, only the account"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Receive, show and verify; the exit status.

    Blocks until ``--count`` or ``--duration`` is reached, a signal comes, or nobody reads stdout.

    Raises: EndpointError, OptionError, TransportError.
    """
    output = Output()
    endpoints = endpoints_of(arguments)
    names = [group_text(endpoint) for endpoint in endpoints]
    verifier = Verifier()
    received = byte_total = 0
    progress = Progress(quiet=not arguments.quiet)
    with (
        Stop() as stop,
        Receiver(
            endpoints,
            sources=arguments.source,
            excluded=arguments.exclude,
            rcvbuf_bytes=arguments.rcvbuf,
        ) as receiver,
    ):
        groups = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        say(f"mcast dump: joined {groups} on {receiver.interfaces[0]}")
        say(f"mcast dump: the other end: {other_end('send', arguments)}")
        watch = Stopwatch()
        deadline = Deadline(arguments.duration)
        while not (stop.is_asked or output.is_closed or deadline.has_passed):
            left_s = deadline.left
            for arrival in receiver.receive(min(TURN_S, TURN_S if left_s is None else left_s)):
                wanted = None if arguments.count is None else arguments.count - received
                for data in list(arrival.datagrams())[:wanted]:
                    stamp = stamp_of_untrusted(data)
                    verifier.take(arrival.place, arrival.source, stamp, len(data), arrival.now_ns)
                    received += 1
                    byte_total += len(data)
                    if not arguments.quiet:
                        output.write(_shown(arguments, names, arrival, data, stamp))
            if progress.is_due(received):
                say(f"mcast dump: {received:,} datagrams, {verifier.lost_count:,} lost")
            if received == arguments.count:
                break
        elapsed_s = max(watch.elapsed_s, 1e-9)
        overflow_count = receiver.overflow_count
    account = _account(names, verifier)
    summary: dict[str, object] = {
        "event": "Summary",
        "received": received,
        "bytes": byte_total,
        "seconds": round(elapsed_s, 3),
        "packets_per_s": round(received / elapsed_s, 1),
        "unnumbered": verifier.plain_count,
        "receive_buffer_overflows": overflow_count,
        "streams": account,
    }
    if arguments.json:
        say(json.dumps(summary))
    else:
        _show_account(account, received, byte_total, elapsed_s, overflow_count)
    if arguments.count is not None and received < arguments.count:
        say(f"mcast dump: {received:,} of {arguments.count:,} datagrams came")
        return EXIT_UNMET
    return EXIT_UNMET if verifier.lost_count else EXIT_OK


def hex_lines(data: bytes) -> list[str]:
    """The bytes in hex and ASCII, 16 on a line, each line with its offset."""
    lines = []
    for start in range(0, len(data), _HEX_WIDTH):
        row = data[start : start + _HEX_WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"  {start:04x}  {row.hex(' '):{3 * _HEX_WIDTH - 1}}  {text}")
    return lines


def _shown(
    arguments: argparse.Namespace,
    names: Sequence[str],
    arrival: Arrival,
    data: memoryview,
    stamp: Stamp | None,
) -> bytes:
    if arguments.text:
        return bytes(data) + b"\n"
    group = names[arrival.place]
    at_ns = time_ns()
    at = datetime.fromtimestamp(at_ns // 10**9, UTC).replace(microsecond=at_ns % 10**9 // 1000)
    if arguments.json:
        found = {
            "time": at.isoformat().replace("+00:00", "Z"),
            "source": arrival.source,
            "group": group,
            "bytes": len(data),
            "number": None if stamp is None else stamp.number,
            "run": None if stamp is None else stamp.run,
            "payload": _payload(bytes(data)),
        }
        return json.dumps(found).encode() + b"\n"
    number = "" if stamp is None else f"  #{stamp.number}"
    lines = [f"{at:%H:%M:%S.%f}  {arrival.source} > {group}  {len(data)} bytes{number}"]
    if arguments.hex:
        lines += hex_lines(bytes(data))
    return ("\n".join(lines) + "\n").encode()


def _payload(data: bytes) -> str | dict[str, str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _account(names: Sequence[str], verifier: Verifier) -> list[dict[str, object]]:
    return [
        {
            "group": names[place],
            "source": source,
            "run": run_number,
            "first": stream.first,
            "last": stream.highest,
            "received": stream.received_count,
            "lost": stream.lost_count,
            "gaps": stream.gap_count,
            "duplicates": stream.duplicate_count,
            "reordered": stream.reordered_count,
            "late": stream.late_count,
            "jitter_us": round(stream.jitter_ns / 1e3, 1),
            "packets_per_s": round(stream.per_second, 1),
        }
        for (place, source, run_number), stream in verifier.streams.items()
    ]


def _show_account(
    account: Sequence[dict[str, object]],
    received: int,
    byte_total: int,
    elapsed_s: float,
    overflow_count: int,
) -> None:
    for row in account:
        say(
            f"mcast dump: {row['source']} > {row['group']}: numbers {row['first']:,} to"
            f" {row['last']:,}, {row['received']:,} received, {row['lost']:,} lost in"
            f" {row['gaps']:,} gaps, {row['duplicates']:,} duplicates, {row['reordered']:,} out of"
            f" order, jitter {row['jitter_us']:,} us"
        )
    dropped = (
        f", the full receive buffer dropped {overflow_count:,} times" if overflow_count else ""
    )
    say(
        f"mcast dump: {received:,} datagrams, {byte_total:,} bytes in {elapsed_s:.2f} s"
        f" ({received / elapsed_s:,.0f}/s){dropped}"
    )
