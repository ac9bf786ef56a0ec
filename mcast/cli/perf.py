"""``mcast perf``: how fast, how late, how much is lost, between two processes or two machines.

Owns the command line, the program that runs both ends, criteria and reports; the timed loops are
in ``perf_ends``. Exit status 1 means that something was lost or a ``--require`` was not met.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli import perf_ends as ends
from mcast.cli.perf_load import Load, OutOfTimeError, Result
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, say
from mcast.endpoint import MulticastEndpoint, parse_endpoint
from mcast.errors import EndpointError, Error, OptionError
from mcast.options import OptionValue, SocketOptions
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["Criterion", "add_parser", "criterion", "reply_url", "report_line", "unmet"]

_THROUGHPUT_URL: Final = "epgm://lo;239.192.7.1:5570"
_LATENCY_URL: Final = "epgm://lo;239.192.7.2:5572"
_QUEUE_S: Final = 0.05
"""Longest that a message waits for the rate, about."""
_GRACE_S: Final = 5.0
"""What starting an interpreter and closing the sockets may take beyond the ends' own limits."""

_EPILOG = """\
Results go to stdout, progress to stderr. Throughput is what a subscriber received, from START to
END; latency is half a round trip. Names for --require are those that --json prints; a latency or
delay is in seconds.

exit status: 1 when something was lost or a --require was not met

examples:
  mcast perf throughput --size 1K
  mcast perf throughput --size 64 --batch 1000 --rate 5G --count 10M --json
  mcast perf throughput --size 1K --rate 2G --require 'messages_per_s>2e5' --require 'loss==0'
  mcast perf latency --size 64 --busy-poll --loop caller --require 'latency_p99_s<50e-6'
two machines:
  mcast perf sub "epgm://eth0;239.192.7.1:5570"
  mcast perf pub "epgm://eth0;239.192.7.1:5570" --size 1K --rate 900M --duration 10
  mcast perf pong "epgm://eth0;239.192.7.2:5572"
  mcast perf ping "epgm://eth0;239.192.7.2:5572" --count 10K
"""

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
    *("repaired", "naks_sent", "jitter_s"),
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
        help="such as epgm://eth0;239.192.1.1:5555" + (f" (default {default})" * runs_both),
    )
    if kind in ("latency", "ping", "pong"):
        parser.add_argument(
            "--reply", metavar="URL", help="where pong answers (default: URL with the next port)"
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
            help="most bits per second on the wire, such as 800M, 5G or inf (default 800M)",
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
    forms.add_option_argument(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    """Measure and report; the exit status.

    Raises: OptionError, EndpointError, TransportError, OutOfTimeError.
    """
    kind: str = arguments.kind
    _check_criteria(arguments.require, kind)
    if kind in _ENDS:
        result = _ENDS[kind](_load(arguments))
    else:
        result = _run_both(arguments)
    print(json.dumps(result) if arguments.json else report_line(result), flush=True)
    failed = unmet(arguments.require, result)
    for text in failed:
        say(f"mcast perf {kind}: required {text}")
    if result.get("missing"):
        say(f"mcast perf {kind}: LOST {result['missing']:,} messages")
        return EXIT_UNMET
    return EXIT_UNMET if failed else EXIT_OK


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


def _check_criteria(criteria: Sequence[Criterion], kind: str) -> None:
    for name, _, _ in criteria:
        if name not in _NAMES[kind]:
            known = ", ".join(_NAMES[kind])
            raise OptionError(f"--require {name}: {kind} does not measure it; it measures {known}")


def _multicast(url: str) -> str:
    """The same URL. Raises EndpointError for other transports."""
    if not isinstance(parse_endpoint(url), MulticastEndpoint):
        raise EndpointError(f"mcast perf measures epgm:// endpoints, not {url}")
    return url


def reply_url(url: str) -> str:
    """The same interface and group with the next port, or the one before the last."""
    endpoint = parse_endpoint(_multicast(url))
    assert isinstance(endpoint, MulticastEndpoint)
    port = endpoint.port + 1 if endpoint.port < 65535 else endpoint.port - 1
    return str(
        MulticastEndpoint(
            interface=endpoint.interface, group=endpoint.group, port=port, source=endpoint.source
        )
    )


def _load(arguments: argparse.Namespace) -> Load:
    options = forms.socket_options(arguments.option, rate=getattr(arguments, "rate", None))
    size = getattr(arguments, "size", 64)
    if size < 1:
        raise OptionError("--size is 1 or more")
    if arguments.kind == "pub":
        options.setdefault("sndhwm", _short_queue(options, size))
    context: dict[str, OptionValue] = {}
    if arguments.loop != "default":
        context["loop"] = arguments.loop
    if arguments.busy_poll:
        context["busy_poll"] = True
    is_ping_pong = arguments.kind in ("ping", "pong")
    return Load(
        url=_multicast(arguments.url),
        reply=(arguments.reply or reply_url(arguments.url)) if is_ping_pong else "",
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


class _End:
    """One end as a process, its stdout read line by line against a common deadline."""

    def __init__(self, kind: str, arguments: Sequence[str], deadline: Deadline) -> None:
        self._kind = kind
        self._deadline = deadline
        self._rest = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mcast", "perf", kind, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def line(self) -> str:
        """The next line. Raises Error when the process ends without one, or out of time."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            if not select.select((descriptor,), (), (), self._deadline.left)[0]:
                raise OutOfTimeError(f"the {self._kind} process did not end in time")
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise Error(f"the {self._kind} process ended without a result")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def expect(self, word: str) -> None:
        """Wait for this word."""
        while self.line() != word:
            pass

    def result(self) -> Result:
        """What the process measured; its exit status is about loss, which the result tells, too."""
        found: Result = json.loads(self.line())
        return found

    def tell(self) -> None:
        """A line on its stdin: begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def let_end(self) -> None:
        """The end of its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __enter__(self) -> _End:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _run_both(arguments: argparse.Namespace) -> Result:
    _load(arguments)  # mistakes are found before anything is started
    timeout_s = _timeout_s(arguments)
    deadline = Deadline(timeout_s + _GRACE_S)
    common = ["--coordinated", "--json", f"--timeout={timeout_s}", f"--loop={arguments.loop}"]
    common += ["--busy-poll"] * arguments.busy_poll
    common += [f"-o{name}={_option_text(value)}" for name, value in arguments.option]
    shape = [f"--size={arguments.size}"]
    shape += (
        [f"--count={arguments.count}"]
        if arguments.count is not None
        else [f"--duration={arguments.duration}"]
    )
    quiet = ["--quiet"] * arguments.quiet
    if arguments.kind == "latency":
        common += [arguments.url, f"--reply={arguments.reply or reply_url(arguments.url)}"]
        with _End("pong", [*common, "--quiet"], deadline) as pong:
            pong.expect("ready")
            pause = f"--interval={arguments.interval}"
            with _End("ping", [*common, *shape, pause, *quiet], deadline) as ping:
                return ping.result()
    common += [arguments.url, f"--batch={arguments.batch}"]
    rate = [] if arguments.rate is None else [f"--rate={arguments.rate}"]
    sockets = f"--sockets={arguments.sockets}"
    with _End("sub", [*common, sockets, *quiet], deadline) as sub:
        sub.expect("ready")
        with _End("pub", [*common, *shape, *rate, "--quiet"], deadline) as pub:
            sub.expect("joined")
            pub.tell()
            received = sub.result()
            pub.let_end()
            sent = pub.result()
    return received | {f"pub_{name}": value for name, value in sent.items() if name != "kernel"}


def _option_text(value: OptionValue) -> str:
    return "none" if value is None else str(value)


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
