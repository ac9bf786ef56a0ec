"""``mcast perf``: how fast, how late, how much is lost, between two processes or two machines.

Owns the command line; the timed loops are in ``perf_ends``, both ends at once in ``perf_both``,
criteria and reports in ``perf_report``, socket types and URLs in ``perf_sockets``. Exit status 1
means that something was lost or a ``--require`` was not met.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli import perf_ends as ends
from mcast.cli.kinds import add_socket_arguments, socket_options_of
from mcast.cli.perf_both import run_both
from mcast.cli.perf_load import Load, Result
from mcast.cli.perf_report import check_criteria, criterion, report_line, unmet
from mcast.cli.perf_sockets import RECEIVER_TYPES, TYPES, check, is_group, reply_url
from mcast.cli.security import authenticator
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, counted, say
from mcast.errors import OptionError
from mcast.options import OptionValue, SocketOptions

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser"]

_THROUGHPUT_URL: Final = "epgm://lo;239.192.7.1:5570"
_LATENCY_URL: Final = "epgm://lo;239.192.7.2:5572"
_QUEUE_S: Final = 0.05
"""Longest that a message waits for the rate, about."""
_EPILOG = """\
Results go to stdout, progress to stderr. Throughput is what a subscriber received, from START to
END; latency is half a round trip. Names for --require are those that --json prints; a latency or
delay is in seconds. Over tcp:// and ipc:// a pub drops what finds its queue full, which counts as
missing: slow it down by --rate, or measure push, which waits.

exit status: 0; 1 when something was lost or a --require was not met; 2 when the system refuses, or
the other end does not come within --timeout; 3 for bad arguments

examples:
  mcast perf throughput --size 1K
  mcast perf throughput --size 64 --batch 1000 --rate 5G --count 10M --json
  mcast perf throughput --size 1K --rate 2G --require 'messages_per_s>2e5' --require 'loss==0'
  mcast perf throughput tcp://127.0.0.1:5570 --type push --size 1K
  mcast perf latency --size 64 --busy-poll --loop caller --require 'latency_p99_s<50e-6'
  mcast perf latency ipc:///tmp/perf --type pair
two machines:
  mcast perf sub "epgm://eth0;239.192.7.1:5570"
  mcast perf pub "epgm://eth0;239.192.7.1:5570" --size 1K --rate 900M --duration 10
  mcast perf pong "epgm://eth0;239.192.7.2:5572"
  mcast perf ping "epgm://eth0;239.192.7.2:5572" --count 10K
  mcast perf sub "tcp://*:5570" --bind --type pull
  mcast perf pub tcp://10.0.0.5:5570 --type push --size 1K
"""

_ENDS: Final[dict[str, Callable[[Load], Result]]] = {
    "pub": ends.publish,
    "sub": ends.subscribe,
    "ping": ends.ping,
    "pong": ends.pong,
}
_HELP: Final = {
    "throughput": "publisher and subscriber as two processes of this machine",
    "latency": "ping and pong as two processes of this machine",
    "pub": "publish a load",
    "sub": "receive what `mcast perf pub` publishes",
    "ping": "send and wait for the answer, again and again",
    "pong": "answer `mcast perf ping`",
}


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "perf",
        help="measure throughput and latency",
        description="Measure throughput, latency, loss and jitter.",
        epilog=_EPILOG,
    )
    kinds = parser.add_subparsers(metavar="KIND", dest="kind", required=True)
    for kind, text in _HELP.items():
        _add_kind(kinds, kind, text)


def _add_kind(kinds: _SubParsersAction[forms.ArgumentParser], kind: str, text: str) -> None:
    parser = kinds.add_parser(kind, help=text, description=text.capitalize(), epilog=_EPILOG)
    runs_both = kind in ("throughput", "latency")
    default = _LATENCY_URL if kind == "latency" else _THROUGHPUT_URL
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?" if runs_both else None,
        default=default,
        help="such as epgm://eth0;239.192.1.1:5555, tcp://10.0.0.5:5555 or ipc:///tmp/perf"
        + (f" (default {default})" * runs_both),
    )
    types = RECEIVER_TYPES if kind == "sub" else dict.fromkeys(TYPES)
    usual = next(iter(types))
    parser.add_argument(
        "--type",
        metavar="TYPE",
        choices=types,
        default=usual,
        help=f"socket type: {', '.join(types)} (default {usual})",
    )
    if not runs_both:
        parser.add_argument(
            "--bind",
            action="store_true",
            help="wait for connections at the URL (and at --reply) instead of making them",
        )
    if kind in ("latency", "ping", "pong"):
        parser.add_argument(
            "--reply",
            metavar="URL",
            help="where pong answers (default: URL with the next port, or with .reply; pair: none)",
        )
    if kind not in ("sub", "pong"):
        parser.add_argument(
            "--size", metavar="B", type=forms.byte_count, default=64, help="of a message (64)"
        )
        length = parser.add_mutually_exclusive_group()
        length.add_argument(
            "--count", metavar="N", type=forms.positive_count, help="messages, or rounds"
        )
        length.add_argument(
            "--duration", metavar="S", type=forms.seconds, default=2.0, help="seconds (2)"
        )
    if kind in ("throughput", "pub"):
        parser.add_argument(
            "--rate",
            metavar="R",
            type=forms.bits_per_second,
            help="most bits per second, such as 800M, 5G or inf (default 800M; not epgm: inf)",
        )
        parser.add_argument(
            "--wait",
            metavar="S",
            type=forms.seconds,
            default=0.5,
            help="seconds of greeting before the first message (0.5)",
        )
    if kind in ("throughput", "pub", "sub"):
        parser.add_argument(
            "--batch",
            metavar="N",
            type=forms.positive_count,
            default=1,
            help="messages of one send_many and recv_many (1: send and recv calls)",
        )
    if kind in ("throughput", "sub"):
        parser.add_argument(
            "--sockets",
            metavar="N",
            type=forms.positive_count,
            default=1,
            help="subscriber sockets in the process (1)",
        )
    if kind in ("latency", "ping"):
        parser.add_argument(
            "--interval", metavar="S", type=forms.seconds, default=0.0, help="between pings (0)"
        )
    parser.add_argument(
        "--loop",
        choices=("default", "caller"),
        default="default",
        help="who drives the event loop: a thread, or the caller's own calls",
    )
    parser.add_argument("--busy-poll", action="store_true", help="spin instead of sleeping")
    parser.add_argument(
        "--require",
        metavar="NAME>NUMBER",
        type=criterion,
        action="append",
        default=[],
        help="end with status 1 unless this holds; >, >=, <, <=, ==; may be repeated",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=forms.seconds,
        help="give up after S seconds (60, or the duration and 30)",
    )
    parser.add_argument("--json", action="store_true", help="the results as one JSON object")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    parser.add_argument("--coordinated", action="store_true", help=argparse.SUPPRESS)
    if runs_both:
        forms.add_option_argument(parser)
    else:
        add_socket_arguments(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Measure and report; the exit status.

    Raises: OptionError, EndpointError, TransportError, OutOfTimeError.
    """
    kind: str = arguments.kind
    check_criteria(arguments.require, kind)
    load = _load(arguments)
    result = _ENDS[kind](load) if kind in _ENDS else run_both(arguments, load)
    print(json.dumps(result) if arguments.json else report_line(result), flush=True)
    failed = unmet(arguments.require, result)
    for text in failed:
        say(f"mcast perf {kind}: required {text}")
    if missing := result.get("missing"):
        assert isinstance(missing, int)
        say(f"mcast perf {kind}: LOST {counted(missing, 'message')}")
        return EXIT_UNMET
    return EXIT_UNMET if failed else EXIT_OK


def _load(arguments: argparse.Namespace) -> Load:
    """What the arguments ask for, checked before anything is opened."""
    kind: str = arguments.kind
    rate: float | None = getattr(arguments, "rate", None)
    size = getattr(arguments, "size", 64)
    if size < 1:
        raise OptionError("--size is 1 or more")
    speaks_alone = kind in _ENDS
    options = (
        socket_options_of(arguments, rate=rate)
        if speaks_alone
        else forms.socket_options(arguments.option, rate=rate)
    )
    streams = not is_group(arguments.url)
    sender_type = RECEIVER_TYPES[arguments.type] if kind == "sub" else arguments.type
    if kind == "pub" and not streams:
        options.setdefault("sndhwm", _short_queue(options, size))
    context: dict[str, OptionValue] = {}
    if arguments.loop != "default":
        context["loop"] = arguments.loop
    if arguments.busy_poll:
        context["busy_poll"] = True
    has_reply = kind in ("latency", "ping", "pong")
    load = Load(
        url=arguments.url,
        reply=(arguments.reply or reply_url(arguments.url)) if has_reply else "",
        type=sender_type,
        binds=getattr(arguments, "bind", False),
        judge=authenticator(arguments) if speaks_alone else None,
        pace_bps=rate if streams else None,
        size=size,
        count=getattr(arguments, "count", None),
        duration_s=getattr(arguments, "duration", 0.0),
        batch=getattr(arguments, "batch", 1),
        interval_s=getattr(arguments, "interval", 0.0),
        sockets=getattr(arguments, "sockets", 1),
        wait_s=getattr(arguments, "wait", 0.0),
        timeout_s=_timeout_s(arguments),
        options=options,
        context=context,
        is_coordinated=arguments.coordinated,
        is_quiet=arguments.quiet,
    )
    check(load)
    return load


def _short_queue(options: dict[str, OptionValue], size: int) -> int:
    """Messages that wait for the rate for a moment at most.

    With the usual queue a slow rate would go on long after the last ``send``, and every delay
    would be that of the queue.
    """
    defaults = SocketOptions()
    rate = options.get("rate", defaults.rate)
    assert isinstance(rate, int | float)
    return int(min(defaults.sndhwm, max(100.0, rate * _QUEUE_S / 8 / size)))


def _timeout_s(arguments: argparse.Namespace) -> float:
    if arguments.timeout is not None:
        return float(arguments.timeout)
    if getattr(arguments, "count", None) is not None or not hasattr(arguments, "duration"):
        return 60.0
    return float(arguments.duration) + 30.0
