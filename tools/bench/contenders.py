"""Everybody who takes part: how each one's two programs are called, and what a run tells.

Owns command lines and the way from their results to one ``Measurement``. All of them use loopback
only. A port belongs to one run, so that nothing of the run before is heard.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from ends import Command, Result, run_alone, run_latency, run_throughput

__all__ = [
    "BUFFER_BYTES",
    "BUILD",
    "LATENCY_ROUNDS",
    "MCAST_OPTIONS",
    "ROOT",
    "ZMQ_PYTHON",
    "Contender",
    "Inproc",
    "LibzmqEpgm",
    "LibzmqLatency",
    "LibzmqTcp",
    "McastLatency",
    "McastThroughput",
    "Measurement",
    "PairLatency",
    "Pipeline",
    "Pyzmq",
    "RawLatency",
    "RawThroughput",
]

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "tools/bench/build"
ZMQ_PYTHON = ROOT / ".venv-pyzmq/bin/python"

LIMIT_S = 60.0
HWM = 100_000
"""High-water mark of both ends of every contender over tcp and inproc, mcast's and everybody
else's: measured, the default of 1,000 costs libzmq up to a quarter."""
BUFFER_BYTES = 64 << 20
"""Receive buffer of every contender over UDP, mcast's and everybody else's; see ``host``."""
LATENCY_ROUNDS = 20_000

MCAST_OPTIONS: Final = ("rcvhwm=1000000", f"rcvbuf={BUFFER_BYTES}", "profile=few")
"""For one or a few subscribers on a fast network."""

# Below the ports that the system hands out, and apart from those of another comparison.
_ports = itertools.count(10_000 + os.getpid() * 101 % 20_000)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run: the figures by name, and what did not arrive."""

    figures: dict[str, float]
    missing: int = 0
    sent: int = 0
    details: dict[str, float] = field(default_factory=dict)


class Contender(Protocol):
    """Somebody who can be measured."""

    @property
    def name(self) -> str:
        """As the report calls it."""

    rate: float | None
    """Bits per second it is paced to; None: it is not."""

    def measure(self, count: int) -> Measurement:
        """Run both ends once. Raises Failed."""


def _received(subs: list[Result], pub: Result, size: int) -> Measurement:
    rate = min(sub["messages_per_s"] for sub in subs)
    keep = ("repaired", "naks_sent", "lost_packets", "refused_messages", "rss_bytes")
    return Measurement(
        figures={
            "messages_per_s": rate,
            "bits_per_s": rate * size * 8,
            "cpu_s_per_message": pub["cpu_s"] / pub["sent"],
        },
        missing=int(sum(sub["missing"] for sub in subs)),
        sent=int(pub["sent"]) * len(subs),
        details={name: sum(sub[name] for sub in subs) for name in keep if name in subs[0]}
        | {"publisher_cpu_s": pub["cpu_s"]},
    )


@dataclass(slots=True, kw_only=True)
class McastThroughput:
    """mcast's publisher and subscribers, in as many processes as asked for."""

    name: str = "mcast"
    size: int
    batch: int = 1
    rate: float | None = math.inf
    kernel: str = "auto"
    processes: int = 1
    sockets: int = 1
    is_busy: bool = False
    """A thread computes without end in the subscriber's process."""
    options: tuple[str, ...] = (*MCAST_OPTIONS, "min_rate=1e8")
    sub_options: tuple[str, ...] = ()

    def measure(self, count: int) -> Measurement:
        url = f"epgm://lo;239.192.8.1:{next(_ports)}"
        perf = [sys.executable, "-m", "mcast", "perf"]
        start: Command = (
            [sys.executable, ROOT / "tools/bench/busy_sub.py"] if self.is_busy else [*perf, "sub"]
        )
        common = [url, "--coordinated", "--json", "--quiet", f"--batch={self.batch}"]
        common += [f"--timeout={LIMIT_S}", *(f"-o{option}" for option in self.options)]
        sub: Command = [*start, *common, f"--sockets={self.sockets}"]
        sub += [f"-o{option}" for option in self.sub_options]
        pub: Command = [*perf, "pub", *common, f"--size={self.size}", f"--count={count}"]
        pub += [f"--rate={self.rate}"]
        environment = {"MCAST_KERNEL": self.kernel}
        subscribers = [sub for _ in range(self.processes)]
        subs, sent = run_throughput(subscribers, pub, environment=environment, limit_s=LIMIT_S + 10)
        return _received(subs, sent, self.size)

    def at_rate(self, rate: float) -> McastThroughput:
        return replace(self, rate=rate)


@dataclass(slots=True, kw_only=True)
class LibzmqTcp:
    """Debian's libzmq over tcp, from C."""

    name: str = "libzmq C tcp"
    size: int
    processes: int = 1
    sockets: int = 1
    pattern: str = "pubsub"
    """Or ``pipeline``: PUSH and PULL."""
    pace: float = 0.0
    """Messages per second; 0: as many as it can."""
    rate: float | None = None

    def measure(self, count: int) -> Measurement:
        program = BUILD / "zmq_throughput"
        common = [f"url=tcp://127.0.0.1:{next(_ports)}", f"hwm={HWM}", f"limit={LIMIT_S:g}"]
        sub: Command = [program, "role=sub", *common, f"sockets={self.sockets}"]
        pub: Command = [program, "role=pub", *common, f"size={self.size}", f"count={count}"]
        pub += [f"pace={self.pace}"]
        for command in (sub, pub):
            command.append(f"pattern={self.pattern}")
        subs, sent = run_throughput(
            [sub] * self.processes, pub, environment={}, limit_s=LIMIT_S + 10
        )
        return _received(subs, sent, self.size)


@dataclass(slots=True, kw_only=True)
class LibzmqEpgm:
    """Debian's libzmq over epgm on loopback, from C; both ends with the same rate and window."""

    name: str = "libzmq C epgm"
    size: int
    rate: float | None = 2e9
    """Its option is an int of kbit/s that it multiplies by 1000: beyond 2.1e9 it overflows."""
    limit_s: float = 40.0
    """A NAK that goes to the wrong process holds delivery up for 10 s, then the packet is lost."""

    def measure(self, count: int) -> Measurement:
        program = BUILD / "zmq_throughput"
        assert self.rate is not None
        common = [f"url=epgm://127.0.0.1;239.192.8.2:{next(_ports)}", f"hwm={HWM}"]
        common += [f"rate_kbit={int(self.rate / 1000)}", "ivl_ms=400", f"buffer={BUFFER_BYTES}"]
        common += [f"limit={self.limit_s:g}"]
        pub: Command = [program, "role=pub", *common, f"size={self.size}", f"count={count}"]
        subs, sent = run_throughput(
            [[program, "role=sub", *common]], pub, environment={}, limit_s=self.limit_s
        )
        return _received(subs, sent, self.size)

    def at_rate(self, rate: float) -> LibzmqEpgm:
        return replace(self, rate=rate)


@dataclass(slots=True, kw_only=True)
class Pyzmq:
    """The pyzmq wheel over tcp."""

    name: str = "pyzmq tcp"
    size: int
    rate: float | None = None

    def measure(self, count: int) -> Measurement:
        program: Command = [ZMQ_PYTHON, ROOT / "tools/bench/zmq_peer.py"]
        common = [f"tcp://127.0.0.1:{next(_ports)}", f"--hwm={HWM}"]
        pub: Command = [*program, "pub", *common, f"--size={self.size}", f"--count={count}"]
        subs, sent = run_throughput(
            [[*program, "sub", *common]], pub, environment={}, limit_s=LIMIT_S
        )
        return _received(subs, sent, self.size)


@dataclass(slots=True, kw_only=True)
class RawThroughput:
    """UDP multicast on loopback with nothing on top; ``count`` is of messages of ``size``."""

    name: str = "raw UDP, GSO and GRO"
    size: int
    mode: str = "gso"
    datagram: int = 1472
    rate: float | None = math.inf

    def measure(self, count: int) -> Measurement:
        program = BUILD / "udp_throughput"
        common = ["group=239.192.8.3", f"port={next(_ports)}", f"mode={self.mode}"]
        common += [f"limit={LIMIT_S:g}", f"buffer={BUFFER_BYTES}"]
        datagrams = max(1, count * self.size // self.datagram)
        pub: Command = [program, "role=pub", *common, f"size={self.datagram}", f"count={datagrams}"]
        if self.rate is not None and math.isfinite(self.rate):
            pub += [f"rate={self.rate}"]
        subs, sent = run_throughput(
            [[program, "role=sub", *common]], pub, environment={}, limit_s=LIMIT_S
        )
        bits = subs[0]["bits_per_s"]
        return Measurement(
            figures={
                "messages_per_s": bits / 8 / self.size,
                "bits_per_s": bits,
                "datagrams_per_s": subs[0]["messages_per_s"],
            },
            missing=int(subs[0]["missing"]),
            sent=int(sent["sent"]),
        )

    def at_rate(self, rate: float) -> RawThroughput:
        return replace(self, rate=rate)


def _latency(found: Result) -> Measurement:
    names = ("p50_s", "p90_s", "p99_s", "p999_s", "max_s")
    figures = {name: found.get(name, found.get(f"latency_{name}", math.nan)) for name in names}
    return Measurement(
        figures=figures, missing=int(found.get("missing", 0)), sent=int(found["rounds"])
    )


@dataclass(slots=True, kw_only=True)
class McastLatency:
    """mcast's ping and pong."""

    name: str = "mcast"
    size: int = 64
    loop: str = "default"
    is_spinning: bool = False
    rate: float | None = None

    def measure(self, count: int) -> Measurement:
        perf = [sys.executable, "-m", "mcast", "perf"]
        common = [f"epgm://lo;239.192.8.4:{next(_ports)}", "--coordinated", "--json", "--quiet"]
        common += [f"--reply=epgm://lo;239.192.8.5:{next(_ports)}", f"--loop={self.loop}"]
        common += ["--busy-poll"] * self.is_spinning
        ping = [*perf, "ping", *common, f"--size={self.size}", f"--count={count}"]
        found = run_latency([*perf, "pong", *common], ping, environment={}, limit_s=LIMIT_S)
        return _latency(found)


@dataclass(slots=True, kw_only=True)
class LibzmqLatency:
    """Debian's libzmq over tcp, from C: PUB/SUB each way."""

    name: str = "libzmq C tcp"
    size: int = 64
    rate: float | None = None

    def measure(self, count: int) -> Measurement:
        common: Command = [BUILD / "zmq_latency", f"size={self.size}", f"count={count}"]
        common += [f"{way}=tcp://127.0.0.1:{next(_ports)}" for way in ("there", "back")]
        return _latency(
            run_latency(
                [*common, "role=pong"], [*common, "role=ping"], environment={}, limit_s=LIMIT_S
            )
        )


@dataclass(slots=True, kw_only=True)
class RawLatency:
    """UDP multicast datagrams on loopback, asleep in recv or spinning."""

    name: str = "raw UDP"
    size: int = 64
    is_spinning: bool = False
    rate: float | None = None

    def measure(self, count: int) -> Measurement:
        common: Command = [BUILD / "udp_latency", "group=239.192.8.6", f"port={next(_ports)}"]
        next(_ports)  # the answers' port
        common += [f"size={self.size}", f"count={count}", f"spin={int(self.is_spinning)}"]
        return _latency(
            run_latency(
                [*common, "role=pong"], [*common, "role=ping"], environment={}, limit_s=LIMIT_S
            )
        )


PIPELINE: Final = {
    "mcast": [sys.executable, ROOT / "tools/bench/pipeline.py", "mcast"],
    "zmq": [ZMQ_PYTHON, ROOT / "tools/bench/pipeline.py", "zmq"],
}
"""The same program for both: the interpreter and the library that it imports."""


@dataclass(slots=True, kw_only=True)
class Pipeline:
    """PUSH to PULL over tcp, by mcast or by the pyzmq wheel."""

    name: str = "mcast tcp"
    library: str = "mcast"
    size: int
    batch: int = 1
    rate: float | None = None

    def measure(self, count: int) -> Measurement:
        url = f"tcp://127.0.0.1:{next(_ports)}"
        common = [url, f"--hwm={HWM}", f"--batch={self.batch}"]
        program: Command = PIPELINE[self.library]
        push: Command = [*program, "push", *common, f"--size={self.size}", f"--count={count}"]
        subs, sent = run_throughput(
            [[*program, "pull", *common]], push, environment={}, limit_s=LIMIT_S
        )
        return _received(subs, sent, self.size)


@dataclass(slots=True, kw_only=True)
class PairLatency:
    """PAIR to PAIR over tcp and back, by mcast or by the pyzmq wheel."""

    name: str = "mcast tcp"
    library: str = "mcast"
    size: int = 64
    rate: float | None = None

    def measure(self, count: int) -> Measurement:
        url = f"tcp://127.0.0.1:{next(_ports)}"
        program: Command = PIPELINE[self.library]
        common = [url, f"--hwm={HWM}"]
        ping: Command = [*program, "ping", *common, f"--size={self.size}", f"--count={count}"]
        return _latency(
            run_latency([*program, "pong", *common], ping, environment={}, limit_s=LIMIT_S)
        )


@dataclass(slots=True, kw_only=True)
class Inproc:
    """PUSH to PULL between two threads of a process, by mcast or by the pyzmq wheel."""

    name: str = "mcast inproc"
    library: str = "mcast"
    size: int
    rate: float | None = None

    def measure(self, count: int) -> Measurement:
        sizes = [f"--size={self.size}", f"--count={count}", f"--hwm={HWM}"]
        both = run_alone([*PIPELINE[self.library], "inproc", *sizes], limit_s=LIMIT_S)
        return _received([both], both, self.size)
