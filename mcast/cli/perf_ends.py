"""The four ends that ``mcast perf`` measures with: publisher, subscriber, ping and pong.

Owns the loops that are timed and what the two ends say to each other in between. The loops are as
tight as an application's can be: bound methods in locals, no clock and no counting for each
message. Invariants: an end is bounded in time; the number of missing messages is exact, because
END says how many messages there were and which END it is.

A control message has 16 bytes: 0xff and a letter, a number of 32 bits, one of 64 bits, in the
host's order. Data starts with ``x``; every last message of a chunk carries the time of its sending.
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
from struct import Struct
from types import FrameType, TracebackType
from typing import Final, Self

import mcast
from mcast import kernel
from mcast.cli.terminal import say
from mcast.errors import Again, Error, OptionError
from mcast.events import LossReason, Lost, PeerJoined
from mcast.options import OptionValue
from mcast.runtime.clock import monotonic_ns
from mcast.runtime.deadline import Deadline

__all__ = [
    "LATENCY_LIMIT_S",
    "Load",
    "OutOfTimeError",
    "Result",
    "delays_report",
    "ping",
    "pong",
    "publish",
    "subscribe",
]

Result = dict[str, float | int | str | None]
"""What an end measured, by name; units last in the names."""

LATENCY_LIMIT_S: Final = 60.0
"""Longest delay that a histogram takes; longer ones count as this."""

_CONTROL: Final = Struct("=2sxxIQ")
_STAMP: Final = Struct("=2s6xQ")
_HELLO: Final = b"\xffH"
_START: Final = b"\xffS"
_END: Final = b"\xffE"
_STAMPED: Final = b"xT"
_CONTROL_BYTE: Final = 0xFF

_CHUNK_COUNT: Final = 256
"""Messages between two looks at the clock; measured: the looks cost under 1 % of a send."""
_CHUNK_S: Final = 0.05
"""Where the rate is low a chunk is what leaves in this time, so that the end comes on time."""
_HELLO_S: Final = 0.005
_QUIET_S: Final = 0.05
_WARM_UP_ROUNDS: Final = 1000
_SIGNIFICANT_DIGITS: Final = 3


class OutOfTimeError(Error):
    """The measurement did not end within ``--timeout``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one end has to do."""

    url: str
    reply: str = ""
    """Where pong answers."""
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
            return mcast.Context(**self.context)
        except (TypeError, OptionError) as error:
            asked = ", ".join(f"{name}={value!r}" for name, value in self.context.items())
            raise OptionError(f"Context({asked}) is refused by this version: {error}") from None

    @property
    def chunk(self) -> int:
        """Messages between two looks at the clock."""
        if self.batch > 1:
            return self.batch
        rate = self.options.get("rate")
        if not isinstance(rate, int | float) or rate == float("inf"):
            return _CHUNK_COUNT
        return max(1, min(_CHUNK_COUNT, int(rate * _CHUNK_S / (8 * self.size))))


class _Watch:
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


def publish(load: Load) -> Result:
    """Send the load to whoever listens; what the sending cost. Blocks; main thread only.

    Raises: OutOfTimeError, OptionError, EndpointError, TransportError.
    """
    with _Watch(load, "pub") as watch, load.open_context() as context:
        pub = context.socket(mcast.PUB, **load.options)
        pub.connect(load.url)
        _greet(load, pub)
        pub.send(_CONTROL.pack(_START, load.chunk, load.size))
        cpu_s = _cpu_s()
        start_ns = monotonic_ns()
        send = _send_batches if load.batch > 1 else _send_singly
        sent = send(load, pub, watch)
        seconds = (monotonic_ns() - start_ns) / 1e9
        _send_ends(load, pub, sent)
        # Taken when the other end has it all, so that what the loop thread still sends counts.
        cpu_s = _cpu_s() - cpu_s
        stats = pub.stats()
    return {
        "sent": sent,
        "seconds": seconds,
        "messages_per_s": sent / seconds,
        "cpu_s": cpu_s,
        "cpu_s_per_message": cpu_s / sent,
        "rss_bytes": _rss_bytes(),
        "kernel": kernel.NAME,
        **{name: stats.get(name, 0) for name in ("odata_sent", "rdata_sent", "naks_received")},
    }


def _greet(load: Load, pub: mcast.Pub) -> None:
    """HELLO until the coordinating program, or the wait, says that everybody is there."""
    deadline = Deadline(None if load.is_coordinated else load.wait_s)
    while not deadline.has_passed:
        pub.send(_CONTROL.pack(_HELLO, 0, 0))
        if _stdin_speaks(load, _HELLO_S):
            return


def _stdin_speaks(load: Load, timeout_s: float) -> bool:
    """Whether stdin has a line, or has ended, after at most ``timeout_s``."""
    watched = [sys.stdin] if load.is_coordinated else []
    if not select.select(watched, (), (), timeout_s)[0]:
        return False
    os.read(sys.stdin.fileno(), 4096)
    return True


def _send_singly(load: Load, pub: mcast.Pub, watch: _Watch) -> int:
    send = pub.send
    payload = b"x" * load.size
    plain = range(load.chunk - 1)
    chunk = load.chunk
    left = load.count
    end_ns = monotonic_ns() + int(load.duration_s * 1e9)
    sent = 0
    while left is None or left >= chunk:
        for _ in plain:
            send(payload)
        now_ns = monotonic_ns()
        send(_stamped(payload, now_ns))
        sent += chunk
        watch.done = sent
        if left is not None:
            left -= chunk
        elif now_ns >= end_ns:
            return sent
    for _ in range(left):
        send(payload)
    return sent + left


def _send_batches(load: Load, pub: mcast.Pub, watch: _Watch) -> int:
    send_many = pub.send_many
    payload = b"x" * load.size
    batch = [payload] * load.batch
    left = load.count
    end_ns = monotonic_ns() + int(load.duration_s * 1e9)
    sent = 0
    while left is None or left >= load.batch:
        now_ns = monotonic_ns()
        batch[-1] = _stamped(payload, now_ns)
        send_many(batch)
        sent += load.batch
        watch.done = sent
        if left is not None:
            left -= load.batch
        elif now_ns >= end_ns:
            return sent
    send_many(batch[:left])
    return sent + left


def _send_ends(load: Load, pub: mcast.Pub, sent: int) -> None:
    """END as often as a chunk is long, since a subscriber looks once a chunk; then again."""
    number = 0
    deadline = Deadline(None if load.is_coordinated else 1.0)
    while True:
        for _ in range(load.chunk):
            pub.send(_CONTROL.pack(_END, number, sent))
            number += 1
        if _stdin_speaks(load, _QUIET_S) or deadline.has_passed:
            return


def _stamped(payload: bytes, now_ns: int) -> bytes:
    if len(payload) < _STAMP.size:
        return payload
    return _STAMP.pack(_STAMPED, now_ns) + payload[_STAMP.size :]


def subscribe(load: Load) -> Result:
    """Receive until END, on every socket; rate, loss and delays. Blocks; main thread only.

    Rates are those of one socket. Delays are from the call of ``send`` to the return of ``recv``,
    queues included, and mean something on one host only.

    Raises: OutOfTimeError, OptionError, EndpointError, TransportError.
    """
    with _Watch(load, "sub") as watch, load.open_context() as context:
        tallies = []
        for _ in range(load.sockets):
            sub = context.socket(mcast.SUB, **load.options)
            sub.subscribe(b"")
            sub.connect(load.url)
            tallies.append(_Tally(sub))
        _tell(load, "ready")
        _meet(load, tallies)
        cpu_s = _cpu_s()
        if load.sockets > 1:
            _take_from_all(load, tallies, watch)
        else:
            take = _take_batches if load.batch > 1 else _take_singly
            take(load, tallies[0], watch)
        cpu_s = _cpu_s() - cpu_s
        return _subscriber_result(load, tallies, cpu_s)


class _Tally:
    """What one subscriber socket has got. Data starts after START, or with the first data heard."""

    def __init__(self, sub: mcast.Sub) -> None:
        self.sub = sub
        self.taken = 0
        """Messages since the start, ENDs included."""
        self.missing = 0
        self.sent = 0
        self.chunk = _CHUNK_COUNT
        self.size = 0
        self.start_ns = 0
        self.end_ns = 0
        self.delays_ns: list[int] = []

    @property
    def received(self) -> int:
        return self.sent - self.missing

    @property
    def seconds(self) -> float:
        return max(1, self.end_ns - self.start_ns) / 1e9

    def begin(self, message: bytes) -> None:
        self.start_ns = monotonic_ns()
        if message[:2] == _START:
            _, self.chunk, self.size = _CONTROL.unpack(message)
        else:
            self.taken, self.size = 1, len(message)

    def finish(self, end: bytes) -> None:
        """The last message taken is this END: whatever is not there by now is missing."""
        self.end_ns = monotonic_ns()
        _, number, self.sent = _CONTROL.unpack(end)
        self.missing = self.sent + number + 1 - self.taken

    def add(self, batch: Sequence[bytes]) -> bool:
        """Count a batch; True if it ends in an END."""
        stamp_at = self.chunk - 1 - self.taken % self.chunk
        self.taken += len(batch)
        if stamp_at < len(batch):
            self.time(batch[stamp_at])
        if batch[-1][0] == _CONTROL_BYTE:
            self.finish(batch[-1])
            return True
        return False

    def time(self, message: bytes) -> None:
        """Note the delay if the message carries its time; after a loss another may stand here."""
        if message[:2] == _STAMPED:
            self.delays_ns.append(monotonic_ns() - _STAMP.unpack_from(message)[1])


def _meet(load: Load, tallies: list[_Tally]) -> None:
    """Wait for the publisher, say so, and take all up to its START."""
    first = [tally.sub.recv() for tally in tallies]
    for tally in tallies:
        _await_publisher(tally.sub)
    _tell(load, "joined")
    for tally, message in zip(tallies, first, strict=True):
        while message[:2] == _HELLO:
            message = tally.sub.recv()
        tally.begin(message)


def _await_publisher(sub: mcast.Sub) -> None:
    """From PeerJoined on, everything is delivered or reported; it comes with the first message."""
    for event in sub.events(timeout=1.0):
        if isinstance(event, PeerJoined):
            return


def _take_singly(_load: Load, tally: _Tally, watch: _Watch) -> None:
    recv = tally.sub.recv
    chunk = range(tally.chunk)
    while True:
        for _ in chunk:
            message = recv()
        tally.taken += tally.chunk
        watch.done = tally.taken
        if message[0] == _CONTROL_BYTE:
            tally.finish(message)
            return
        tally.time(message)


def _take_batches(load: Load, tally: _Tally, watch: _Watch) -> None:
    recv_many = tally.sub.recv_many
    wanted = load.batch
    while not tally.add(recv_many(wanted)):
        watch.done = tally.taken


def _take_from_all(load: Load, tallies: list[_Tally], watch: _Watch) -> None:
    """Round and round, blocking only when no socket has anything."""
    open_tallies = list(tallies)
    timeout_s = 0.0
    wanted = max(load.batch, _CHUNK_COUNT)
    while open_tallies:
        was_idle = True
        for tally in list(open_tallies):
            try:
                batch = tally.sub.recv_many(wanted, timeout=timeout_s)
            except Again:
                continue
            was_idle = False
            timeout_s = 0.0
            watch.done += len(batch)
            if tally.add(batch):
                open_tallies.remove(tally)
        if was_idle:
            timeout_s = 0.001


def _subscriber_result(load: Load, tallies: list[_Tally], cpu_s: float) -> Result:
    seconds = max(tally.seconds for tally in tallies)
    received = sum(tally.received for tally in tallies)
    sent = sum(tally.sent for tally in tallies)
    lost_packets = refused = 0
    for event in (event for tally in tallies for event in tally.sub.events()):
        if isinstance(event, Lost):
            if event.reason is LossReason.APP_HWM:
                refused += event.count
            else:
                lost_packets += event.count
    stats = [tally.sub.stats() for tally in tallies]
    per_s = received / seconds / load.sockets
    return {
        "size_bytes": tallies[0].size,
        "received": received,
        "missing": sent - received,
        "loss": (sent - received) / sent if sent else 0.0,
        "lost_packets": lost_packets,
        "refused_messages": refused,
        "seconds": seconds,
        "messages_per_s": per_s,
        "bits_per_s": per_s * tallies[0].size * 8,
        "cpu_s": cpu_s,
        "cpu_s_per_message": cpu_s / max(1, received),
        "rss_bytes": _rss_bytes(),
        "kernel": kernel.NAME,
        "repaired": sum(one.get("repaired", 0) for one in stats),
        "naks_sent": sum(one.get("naks_sent", 0) for one in stats),
        **delays_report([delay for tally in tallies for delay in tally.delays_ns], "delay"),
    }


def ping(load: Load) -> Result:
    """Half the round trip to pong and back, for each round. Blocks; main thread only.

    Raises: OutOfTimeError when nobody answers, OptionError, EndpointError, TransportError.
    """
    payload = b"x" * load.size
    halves_ns: list[int] = []
    with _Watch(load, "ping") as watch, load.open_context() as context:
        pub = context.socket(mcast.PUB, **load.options)
        sub = context.socket(mcast.SUB, **load.options)
        sub.subscribe(b"")
        pub.connect(load.url)
        sub.connect(load.reply)
        _find_pong(pub, sub)
        send, recv, append = pub.send, sub.recv, halves_ns.append
        for _ in range(_WARM_UP_ROUNDS):
            send(payload)
            recv()
        end = Deadline(load.duration_s if load.count is None else None)
        start_ns = monotonic_ns()
        while watch.done != load.count and not end.has_passed:
            if load.interval_s:
                select.select((), (), (), load.interval_s)
            sent_ns = monotonic_ns()
            send(payload)
            recv()
            append((monotonic_ns() - sent_ns) // 2)
            watch.done += 1
        seconds = (monotonic_ns() - start_ns) / 1e9
        for _ in range(3):
            send(_CONTROL.pack(_END, 0, 0))
        missing = sum(event.count for event in sub.events() if isinstance(event, Lost))
    return {
        "size_bytes": load.size,
        "rounds": len(halves_ns),
        "missing": missing,
        "loss": missing / max(1, len(halves_ns)),
        "seconds": seconds,
        "kernel": kernel.NAME,
        **delays_report(halves_ns, "latency"),
    }


def _find_pong(pub: mcast.Pub, sub: mcast.Sub) -> None:
    """HELLO until it is answered, then wait until the last answer has come."""
    hello = _CONTROL.pack(_HELLO, 0, 0)
    is_found = False
    while True:
        if not is_found:
            pub.send(hello)
        try:
            sub.recv(timeout=_QUIET_S)
            is_found = True
        except Again:
            if is_found:
                return


def pong(load: Load) -> Result:
    """Answer every message with itself until ping says END. Blocks; main thread only.

    Raises: OutOfTimeError, OptionError, EndpointError, TransportError.
    """
    with _Watch(load, "pong") as watch, load.open_context() as context:
        pub = context.socket(mcast.PUB, **load.options)
        sub = context.socket(mcast.SUB, **load.options)
        sub.subscribe(b"")
        sub.connect(load.url)
        pub.connect(load.reply)
        _tell(load, "ready")
        send, recv = pub.send, sub.recv
        while (message := recv())[:2] != _END:
            send(message)
            watch.done += 1
    return {"answered": watch.done, "kernel": kernel.NAME}


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


def _tell(load: Load, word: str) -> None:
    if load.is_coordinated:
        print(word, flush=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rss_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
