"""The cases: who is compared with whom, by which figure, and what ratio is to be reached.

Owns nothing but this table. A ratio is the first contender's figure divided by the second's, pair
by pair; ``None`` as target means that the ratio is reported and judged by nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from contenders import (
    LATENCY_ROUNDS,
    MCAST_OPTIONS,
    Contender,
    Inproc,
    LibzmqEpgm,
    LibzmqLatency,
    LibzmqTcp,
    McastLatency,
    McastThroughput,
    PairLatency,
    Pipeline,
    Pyzmq,
    RawLatency,
    RawThroughput,
)

__all__ = ["CASES", "Case", "Target"]

FANOUT_MESSAGES_PER_S: Final = 20_000
FANOUT_RATE: Final = FANOUT_MESSAGES_PER_S * 8 * (256 + 2 + 2)
"""Slow enough that 64 subscribers on two cores keep up, so that only the publisher's cost shows."""
LONG_WINDOWS: Final = (f"txw_bytes={256 << 20}", f"rxw_bytes={256 << 20}")
"""At 10 Gbit/s 0.2 s, so that a repair which is lost three times still comes in time."""


@dataclass(frozen=True, slots=True)
class Target:
    """One figure of a case and the ratio to reach."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def is_reached(self, ratio: float) -> bool | None:
        """Whether the ratio is good enough; None if there is nothing to reach."""
        if self.at_least is not None:
            return ratio >= self.at_least
        return ratio <= self.at_most if self.at_most is not None else None

    @property
    def text(self) -> str:
        """As the issue of it is written in a table."""
        if self.at_least is not None:
            return f"{self.at_least:g}x or more"
        return f"{self.at_most:g}x or less" if self.at_most is not None else "report it"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the comparison."""

    name: str
    title: str
    first: Callable[[], Contender]
    second: Callable[[], Contender]
    targets: tuple[Target, ...]
    count: int | None = None
    """Messages or rounds of each run; None: what fills a second or two, found beforehand."""
    may_lose: tuple[str, ...] = field(default=())
    """Contenders that have no way to keep what they send from being lost."""


_RATE: Final = "messages_per_s"

CASES: Final = (
    Case(
        "16-pyzmq",
        "16 B, one call each",
        lambda: McastThroughput(size=16),
        lambda: Pyzmq(size=16),
        (Target(_RATE, at_least=2.5),),
    ),
    Case(
        "16-libzmq",
        "16 B, one call each",
        lambda: McastThroughput(size=16),
        lambda: LibzmqTcp(size=16),
        (Target(_RATE, at_least=0.8),),
    ),
    Case(
        "64-many-libzmq",
        "64 B, send_many and recv_many",
        lambda: McastThroughput(size=64, batch=1000),
        lambda: LibzmqTcp(size=64),
        (Target(_RATE, at_least=4.0),),
    ),
    Case(
        "1k-libzmq",
        "1 KiB, one call each",
        lambda: McastThroughput(size=1024),
        lambda: LibzmqTcp(size=1024),
        (Target(_RATE, at_least=3.0),),
    ),
    Case(
        "1k-epgm",
        "1 KiB, one call each",
        lambda: McastThroughput(size=1024),
        lambda: LibzmqEpgm(size=1024),
        (Target(_RATE, at_least=15.0),),
    ),
    Case(
        "8k-ceiling",
        "8 KiB, one call each, in bit/s",
        lambda: McastThroughput(size=8192),
        lambda: RawThroughput(size=8192),
        (Target("bits_per_s", at_least=0.4),),
        may_lose=("raw UDP, GSO and GRO",),
    ),
    Case(
        "latency-threads",
        "64 B one-way latency, default threads",
        McastLatency,
        LibzmqLatency,
        (Target("p50_s", at_most=0.8), Target("p99_s", at_most=1.0)),
        count=LATENCY_ROUNDS,
    ),
    Case(
        "latency-caller",
        "64 B one-way latency, caller-driven",
        lambda: McastLatency(name="mcast, caller-driven", loop="caller"),
        LibzmqLatency,
        (Target("p50_s", at_most=0.6),),
        count=LATENCY_ROUNDS,
    ),
    Case(
        "latency-spin",
        "64 B one-way latency, busy_poll",
        lambda: McastLatency(name="mcast, busy_poll", loop="caller", is_spinning=True),
        lambda: RawLatency(name="raw UDP, spinning", is_spinning=True),
        (Target("p50_s", at_most=2.5),),
        count=LATENCY_ROUNDS,
    ),
    Case(
        "fanout-cpu",
        "256 B, publisher CPU per message, 64 subscribers",
        lambda: McastThroughput(
            name="mcast, 64 subscribers",
            size=256,
            rate=FANOUT_RATE,
            processes=4,
            sockets=16,
        ),
        lambda: McastThroughput(name="mcast, 1 subscriber", size=256, rate=FANOUT_RATE),
        (Target("cpu_s_per_message", at_most=3.0),),
        count=FANOUT_MESSAGES_PER_S * 2,
    ),
    Case(
        "loss-1-percent",
        "1 KiB, one call each, at 1 % loss",
        lambda: McastThroughput(
            name="mcast, 1 % loss",
            size=1024,
            options=(*MCAST_OPTIONS, *LONG_WINDOWS),
            sub_options=("drop_rate=0.01", "drop_seed=7"),
        ),
        lambda: McastThroughput(
            name="mcast, no loss", size=1024, options=(*MCAST_OPTIONS, *LONG_WINDOWS)
        ),
        (Target(_RATE, at_least=0.7),),
    ),
    Case(
        "busy-thread",
        "256 B, CPU-bound thread in the subscriber",
        lambda: McastThroughput(
            name="mcast, busy subscriber", size=256, is_busy=True, options=MCAST_OPTIONS
        ),
        lambda: McastThroughput(size=256, options=MCAST_OPTIONS),
        (Target(_RATE, at_least=0.5),),
    ),
    Case(
        "16-tcp-pyzmq",
        "PUSH/PULL over tcp, 16 B, one call each",
        lambda: Pipeline(size=16),
        lambda: Pipeline(name="pyzmq tcp", library="zmq", size=16),
        (Target(_RATE, at_least=1.5),),
    ),
    Case(
        "64-many-tcp-libzmq",
        "PUSH/PULL over tcp, 64 B, send_many and recv_many",
        lambda: Pipeline(size=64, batch=1000),
        lambda: LibzmqTcp(size=64, pattern="pipeline"),
        (Target(_RATE, at_least=2.0),),
    ),
    Case(
        "1k-tcp-libzmq",
        "PUSH/PULL over tcp, 1 KiB, one call each",
        lambda: Pipeline(size=1024),
        lambda: LibzmqTcp(size=1024, pattern="pipeline"),
        (Target(_RATE, at_least=1.5),),
    ),
    Case(
        "latency-tcp-pyzmq",
        "64 B one-way latency, PAIR over tcp",
        PairLatency,
        lambda: PairLatency(name="pyzmq tcp", library="zmq"),
        (Target("p50_s", at_most=0.9), Target("p99_s")),
        count=LATENCY_ROUNDS,
    ),
    Case(
        "16-inproc-pyzmq",
        "PUSH/PULL over inproc, two threads, 16 B, one call each",
        lambda: Inproc(size=16),
        lambda: Inproc(name="pyzmq inproc", library="zmq", size=16),
        (Target(_RATE, at_least=2.0),),
    ),
    Case(
        "16-reference",
        "reference kernel, 16 B, one call each",
        lambda: McastThroughput(name="mcast, reference kernel", size=16, kernel="reference"),
        lambda: Pyzmq(size=16),
        (Target(_RATE),),
    ),
    Case(
        "fanout-cpu-libzmq",
        "256 B, publisher CPU per message, 64 subscribers: libzmq",
        lambda: LibzmqTcp(
            name="libzmq C tcp, 64 subscribers",
            size=256,
            processes=4,
            sockets=16,
            pace=FANOUT_MESSAGES_PER_S,
        ),
        lambda: LibzmqTcp(name="libzmq C tcp, 1 subscriber", size=256, pace=FANOUT_MESSAGES_PER_S),
        (Target("cpu_s_per_message"),),
        count=FANOUT_MESSAGES_PER_S * 2,
    ),
    Case(
        "raw-plain",
        "raw UDP, GSO and GRO, in datagrams",
        lambda: RawThroughput(size=1472),
        lambda: RawThroughput(name="raw UDP, plain", size=1472, mode="plain"),
        (Target("datagrams_per_s"),),
        may_lose=("raw UDP, GSO and GRO", "raw UDP, plain"),
    ),
    Case(
        "latency-floor",
        "64 B one-way latency, caller-driven",
        lambda: McastLatency(name="mcast, caller-driven", loop="caller"),
        lambda: RawLatency(name="raw UDP, blocking"),
        (Target("p50_s"), Target("p99_s")),
        count=LATENCY_ROUNDS,
    ),
)
"""The table; each of the first rows answers for one promise, the rest explain them."""
