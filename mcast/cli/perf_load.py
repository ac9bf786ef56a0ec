"""What the ends of ``mcast perf`` have in common: the load, the watch over it, the sums at the end.

Owns what is said to the program that runs both ends, and the percentiles. Invariant: nobody who
works under a ``Watch`` goes on for longer than ``--timeout``.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import FrameType, TracebackType
from typing import Final, Self

import mcast
from mcast.auth import Authenticator
from mcast.cli.terminal import say
from mcast.errors import Error, OptionError
from mcast.options import OptionValue
from mcast.runtime.deadline import Deadline

__all__ = [
    "CHUNK_COUNT",
    "LATENCY_LIMIT_S",
    "Load",
    "OutOfTimeError",
    "Result",
    "Watch",
    "cpu_s",
    "delays_report",
    "rss_bytes",
    "stdin_speaks",
    "tell",
]

Result = dict[str, float | int | str | None]
"""What an end measured, by name; units last in the names."""

LATENCY_LIMIT_S: Final = 60.0
"""Longest delay that a histogram takes; longer ones count as this."""

CHUNK_COUNT: Final = 256
"""Messages between two looks at the clock; measured: a look costs 0.7 us, under 2 % of a chunk."""
_CHUNK_S: Final = 0.05
"""Where the rate is low a chunk is what leaves in this time, so that the end comes on time."""
_SIGNIFICANT_DIGITS: Final = 3


class OutOfTimeError(Error):
    """The measurement did not end within ``--timeout``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one end has to do."""

    url: str
    reply: str = ""
    """Where pong answers."""
    type: str = "pub"
    """The sender's socket type, a name of ``perf_sockets.TYPES``."""
    binds: bool = False
    """Wait for connections instead of making them."""
    judge: Authenticator | None = None
    """Who decides about clients, if anybody does."""
    pace_bps: float | None = None
    """Most bits of payload per second, where the socket does not keep to its rate itself."""
    size: int = 64
    """Bytes of a message, 1 or more."""
    count: int | None = None
    """Messages, or rounds; None: as many as leave in ``duration_s``."""
    duration_s: float = 2.0
    batch: int = 1
    """Messages of one ``send_many`` or ``recv_many``; 1: ``send`` and ``recv`` calls."""
    interval_s: float = 0.0
    """Pause before each ping."""
    sockets: int = 1
    """Subscriber sockets of the process."""
    wait_s: float = 0.5
    """How long a publisher greets before it begins, where no program coordinates the ends."""
    timeout_s: float = 60.0
    """The end's own limit."""
    options: dict[str, OptionValue]
    context: dict[str, OptionValue]
    """Keyword arguments of the Context: ``loop``, ``busy_poll``."""
    is_coordinated: bool = False
    """Say ``ready`` and ``joined`` on stdout; begin when stdin has a line, end when it ends."""
    is_quiet: bool = False

    def open_context(self) -> mcast.Context:
        """A context with the wished loop. Raises OptionError where this build has no such thing."""
        try:
            return mcast.Context(**self.context)  # type: ignore[arg-type]  # it checks
        except (TypeError, OptionError) as error:
            asked = ", ".join(f"{name}={value!r}" for name, value in self.context.items())
            raise OptionError(f"Context({asked}) is refused: {error}") from None

    @property
    def chunk(self) -> int:
        """Messages between two looks at the clock."""
        if self.batch > 1:
            return self.batch
        rate = self.options.get("rate")
        if not isinstance(rate, int | float) or rate == float("inf"):
            return CHUNK_COUNT
        return max(1, min(CHUNK_COUNT, int(rate * _CHUNK_S / (8 * self.size))))


class Watch:
    """In a ``with`` block: a line of progress every second, and the end when the time is up.

    Works by SIGALRM, which reaches the main thread also where it waits for a message.
    """

    def __init__(self, load: Load, name: str) -> None:
        self._name = name
        self._is_quiet = load.is_quiet
        self._limit = Deadline(load.timeout_s)
        self._timeout_s = load.timeout_s
        self._shown = 0
        self.done = 0
        """Messages or rounds so far; the loops keep it up to date."""

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _tick(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_quiet:
            say(f"mcast perf {self._name}: {self.done:,} ({self.done - self._shown:,}/s)")
        self._shown = self.done
        if self._limit.has_passed:
            raise OutOfTimeError(
                f"not done within {self._timeout_s:g} s (--timeout), after {self.done:,}"
            )


def stdin_speaks(load: Load, timeout_s: float) -> bool:
    """Whether stdin has a line, or has ended, after at most ``timeout_s``."""
    watched = [sys.stdin] if load.is_coordinated else []
    if not select.select(watched, (), (), timeout_s)[0]:
        return False
    os.read(sys.stdin.fileno(), 4096)
    return True


def delays_report(delays_ns: Sequence[int], name: str) -> Result:
    """Percentiles of the delays as ``NAME_p50_s`` and so on, and their jitter; None without any.

    Right to 3 digits (HDR histogram). Jitter is the mean change from one delay to the next, the
    D of RFC 3550 s6.4.1 without its smoothing.

    Raises: OptionError when the package ``hdrhistogram`` (extra ``perf``) is not installed.
    """
    try:
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
    except ImportError:
        raise OptionError("mcast perf needs hdrhistogram: pip install 'mcast[perf]'") from None
    quantiles = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "max": 100.0}
    if not delays_ns:
        return dict.fromkeys([*(f"{name}_{label}_s" for label in quantiles), "jitter_s"])
    most_ns = int(LATENCY_LIMIT_S * 1e9)
    histogram = HdrHistogram(1, most_ns, _SIGNIFICANT_DIGITS)
    for delay_ns in delays_ns:
        histogram.record_value(min(max(delay_ns, 1), most_ns))
    found: Result = {
        f"{name}_{label}_s": histogram.get_value_at_percentile(quantile) / 1e9
        for label, quantile in quantiles.items()
    }
    changes = [abs(b - a) for a, b in pairwise(delays_ns)]
    found["jitter_s"] = sum(changes) / max(1, len(changes)) / 1e9
    return found


def tell(load: Load, word: str) -> None:
    """A word on stdout for the program that coordinates, if there is one."""
    if load.is_coordinated:
        print(word, flush=True)


def cpu_s() -> float:
    """User and system time of this process so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_bytes() -> int:
    """The most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
