"""``mcast send``: plain datagrams to multicast groups, numbered or with a content of their own.

Owns what the arguments mean together, and the refusal of what could flood a network by mistake.
Exit status 1 means that a signal or the end of ``--duration`` came before all was sent.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.groups import add_group_arguments, endpoints_of, group_text, other_end, rate_text
from mcast.cli.presets import HEAVY_BPS, PRESETS, Preset
from mcast.cli.send_work import MOST_SIZE_BYTES, Work
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, Output, Progress, Stop, Stopwatch, say
from mcast.errors import OptionError
from mcast.raw import HEAD_BYTES, Pace, Sender

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_LINES_PER_S: Final = 1_000_000
"""The pace of --stdin where none is given: that of whoever writes."""

_EPILOG = f"""\
Datagrams carry a number and a time, which "mcast dump" verifies; each group has numbers of its own.
--text, --hex and --stdin send what they are given instead. --rate and --pps are those of all groups
together. The command line for the other end is printed first.

presets (what is given beside one counts):
{chr(10).join(f"  {name:10} {preset.about}" for name, preset in PRESETS.items())}

A stream of {rate_text(HEAVY_BPS)} or more with a --ttl over 1 needs --force.

exit status:
  0  all was sent
  1  a signal, or the end of --duration, came before --count
  2  the system refused, such as a datagram above the MTU
  3  bad arguments

examples:
  mcast send -i lo 239.192.1.1:5000
  mcast send -i eth0 239.192.1.1:5000+10 --preset ticks --duration 10
  mcast send -i eth0 239.192.1.1:5000 --rate 20M --size 1316 --count 100K
  mcast send -i eth0 239.192.1.1:5000 --hex "de ad be ef" --count 3
  tail -f quotes.txt | mcast send -i eth0 239.192.1.1:5000 --stdin
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "send",
        help="send plain numbered datagrams to multicast groups",
        description="Send plain datagrams to multicast groups, numbered for verification.",
        epilog=_EPILOG,
    )
    add_group_arguments(parser, receives=False)
    parser.add_argument(
        "--preset", metavar="NAME", choices=PRESETS, help=f"one of {', '.join(PRESETS)}"
    )
    parser.add_argument(
        "--size",
        metavar="B",
        type=forms.byte_count,
        help=f"bytes of payload, {HEAD_BYTES} or more (default 64)",
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--rate",
        metavar="R",
        type=forms.bits_per_second,
        help="bits per second with IP and UDP headers, such as 20M, or inf",
    )
    pace.add_argument(
        "--pps",
        metavar="N",
        type=forms.positive_count,
        help="datagrams per second (default 1; with --stdin as lines come)",
    )
    parser.add_argument(
        "--burst",
        metavar="N",
        type=forms.positive_count,
        help="so many at once to each group (default 1)",
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=forms.positive_count,
        help="end after N datagrams to each group",
    )
    parser.add_argument("--duration", metavar="S", type=forms.seconds, help="end after S seconds")
    content = parser.add_mutually_exclusive_group()
    content.add_argument("--text", metavar="T", help="send this text")
    content.add_argument("--hex", metavar="H", type=_hex_bytes, help="send these bytes, in hex")
    content.add_argument("--stdin", action="store_true", help="send each line of stdin")
    parser.add_argument(
        "--ttl",
        metavar="N",
        type=forms.hops,
        default=1,
        help="hops, 0 (this host) to 255 (default 1: this network)",
    )
    parser.add_argument(
        "--no-loop", action="store_true", help="other programs of this host don't hear it"
    )
    parser.add_argument(
        "--force", action="store_true", help="send a heavy stream beyond this network"
    )
    parser.add_argument("--json", action="store_true", help="the summary as JSON, on stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send; the exit status. Blocks until all is sent, ``--duration`` has passed, or a signal.

    Raises: EndpointError, OptionError, TransportError, OSError, MessageTooLongError.
    """
    fixed = _fixed(arguments)
    plan = _plan(arguments, fixed)
    endpoints = endpoints_of(arguments)
    progress = Progress(quiet=arguments.quiet or arguments.json)
    with (
        Stop() as stop,
        Sender(endpoints, ttl=arguments.ttl, loop=not arguments.no_loop) as sender,
    ):
        wire_bits = 8 * (plan.size_bytes + sender.overhead_bytes)
        per_second = plan.per_second if arguments.rate is None else arguments.rate / wire_bits
        _refuse_heavy(arguments, per_second * wire_bits)
        if not arguments.quiet:
            groups = ", ".join(map(group_text, endpoints[:3])) + ", …" * (len(endpoints) > 3)
            say(f"mcast send: to {groups} from {sender.interface}")
            say(f"mcast send: the other end: {other_end('dump', arguments)}")
        # A round goes to every group.
        pace = Pace(per_second / len(endpoints), plan.burst_count)
        work = Work(sender, len(endpoints), pace, stop, arguments.duration)
        watch = Stopwatch()
        turns = (
            work.lines()
            if arguments.stdin
            else work.repeat(fixed, plan.size_bytes, arguments.count, plan.burst_count)
        )
        for _ in turns:
            if progress.is_due(work.sent_count):
                rate = work.sent_count / max(watch.elapsed_s, 1e-9)
                say(f"mcast send: {work.sent_count:,} datagrams ({rate:,.0f}/s)")
        elapsed_s = max(watch.elapsed_s, 1e-9)
    _show_summary(arguments, work, elapsed_s, sender.overhead_bytes)
    if not work.is_complete:
        say("mcast send: ended before all was sent")
        return EXIT_UNMET
    return EXIT_OK


def _plan(arguments: argparse.Namespace, fixed: bytes | None) -> Preset:
    """The preset with what is given beside it put in; the rate of ``--rate`` comes later."""
    named = PRESETS[arguments.preset or "beacon"]
    if arguments.size is not None and (fixed is not None or arguments.stdin):
        raise OptionError("--size is for numbered datagrams; --text, --hex and --stdin have theirs")
    size_bytes = named.size_bytes if arguments.size is None else arguments.size
    if fixed is not None:
        size_bytes = len(fixed)
    elif not HEAD_BYTES <= size_bytes <= MOST_SIZE_BYTES:
        raise OptionError(f"--size is {HEAD_BYTES} to {MOST_SIZE_BYTES}, not {size_bytes}")
    if arguments.rate is not None and not arguments.rate > 0:
        raise OptionError("--rate is more than 0")
    per_second = named.per_second
    if arguments.pps is not None:
        per_second = arguments.pps
    elif arguments.stdin and arguments.preset is None:
        per_second = _LINES_PER_S
    burst_count = arguments.burst or named.burst_count
    if arguments.stdin and (arguments.count or burst_count > 1):
        raise OptionError("--stdin sends every line, one at a time: no --count and no --burst")
    return Preset(size_bytes, per_second, burst_count, named.about)


def _fixed(arguments: argparse.Namespace) -> bytes | None:
    """The content that every datagram has, or None for numbered ones and lines."""
    fixed = arguments.hex
    if arguments.text is not None:
        fixed = os.fsencode(arguments.text)
    if fixed is not None and not 0 < len(fixed) <= MOST_SIZE_BYTES:
        raise OptionError(f"a datagram has 1 to {MOST_SIZE_BYTES} bytes, not {len(fixed)}")
    return fixed if fixed is None else bytes(fixed)


def _refuse_heavy(arguments: argparse.Namespace, bits_per_s: float) -> None:
    """Raise OptionError for a heavy stream that would leave the local network unasked."""
    # Lines come at the pace of whoever writes them, which nobody knows.
    is_heavy = bits_per_s >= HEAVY_BPS and not (arguments.stdin and arguments.pps is None)
    if is_heavy and arguments.ttl > 1 and not arguments.force:
        raise OptionError(
            f"{rate_text(bits_per_s)} with --ttl {arguments.ttl} would leave this network and may"
            " disturb others; if that is meant, add --force"
        )


def _show_summary(
    arguments: argparse.Namespace, work: Work, elapsed_s: float, overhead_bytes: int
) -> None:
    bits_per_s = 8 * (work.byte_count + work.sent_count * overhead_bytes) / elapsed_s
    if arguments.json:
        summary = {
            "event": "Summary",
            "sent": work.sent_count,
            "bytes": work.byte_count,
            "seconds": round(elapsed_s, 6),
            "packets_per_s": round(work.sent_count / elapsed_s, 1),
            "bits_per_s": round(bits_per_s, 1),
        }
        Output().write(json.dumps(summary).encode() + b"\n")
    elif not arguments.quiet:
        say(
            f"mcast send: {work.sent_count:,} datagrams, {work.byte_count:,} bytes in"
            f" {elapsed_s:.2f} s ({work.sent_count / elapsed_s:,.0f}/s, {rate_text(bits_per_s)})"
        )


def _hex_bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", " "))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"pairs of hex digits are wanted, such as 'de ad be ef', not {text!r}"
        ) from None
