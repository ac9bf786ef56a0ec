"""A run over streams drawn from one number: which sockets, what they send, what goes wrong.

Owns the swarm, as ``mcast.testing.plan`` does for multicast. Invariant: a plan is a pure function
of its seed, and a run without some of its faults is still a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from mcast.patterns import SocketKind, options_type
from mcast.patterns.options import QueueOptions
from mcast.testing.plan import Fault
from mcast.zmtp import (
    CurveClient,
    CurveServer,
    Null,
    PlainClient,
    PlainServer,
    Security,
    ZmtpOptions,
)

__all__ = ["HANDSHAKE_NS", "TOPICS", "Burst", "Change", "Part", "Plan", "draw"]

_MS: Final = 1_000_000
HANDSHAKE_NS: Final = 400 * _MS
"""Longest handshake: enough for one of single bytes, while nothing is late."""
TOPICS: Final = (b"A", b"B", b"AA", b"AB", b"C", b"ABC")
"""Of messages and subscriptions; a SUB may want everything, too."""

_FAMILIES: Final = (
    ((SocketKind.PUSH,), (SocketKind.PULL,)),
    ((SocketKind.PUB, SocketKind.XPUB), (SocketKind.SUB, SocketKind.XSUB)),
    ((SocketKind.PUB,), (SocketKind.SUB,)),
    ((SocketKind.REQ,), (SocketKind.REP,)),
    ((SocketKind.DEALER,), (SocketKind.ROUTER,)),
    ((SocketKind.DEALER,), (SocketKind.DEALER,)),
    ((SocketKind.PAIR,), (SocketKind.PAIR,)),
    ((SocketKind.RADIO,), (SocketKind.DISH,)),
)
_KINDS: Final = (
    "cut",
    "reset",
    "half_open",
    "one_way",
    "delay",
    "chunk",
    "slow",
    "corrupt",
    "crash",
    "stranger",
    "deny",
)
_SECRETS: Final = (Random("server").randbytes(32), Random("client").randbytes(32))


@dataclass(frozen=True, slots=True)
class Burst:
    """Messages that a socket sends at one time, each given by the sizes of its parts."""

    at_ns: int
    messages: tuple[tuple[bytes, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A subscription, or the end of one."""

    at_ns: int
    is_wanted: bool
    topic: bytes


@dataclass(slots=True)
class Part:
    """One socket of the run."""

    name: str
    kind: SocketKind
    queue: QueueOptions
    zmtp: ZmtpOptions
    dials: tuple[str, ...] = ()
    bursts: list[Burst] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    reads_itself: bool = False


@dataclass(slots=True)
class Plan:
    """All that a seed decides, but for the dice of the world and the engines."""

    seed: int
    safety_ns: int
    parts: list[Part]
    faults: list[Fault]
    capacity_bytes: int
    chunk_bytes: int
    delay_ns: int
    """How long a byte takes."""
    lag: float
    """How often a reader is busy when bytes come."""
    old: float
    """How often one direction of a connection says that it is of ZMTP 3.0."""


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    dice = Random(f"mcast streams {seed}")
    safety_ns = dice.randrange(300, 1500) * _MS
    capacity = dice.choice((1 << 18, 1 << 18, 1 << 14, 500, 70))
    chunk = dice.choice((1 << 16, 1 << 16, 200, 20, 1))
    largest = 300 if min(capacity, chunk) < 100 else dice.choice((100, 3000, 20_000))
    parts = _parts(dice, safety_ns, largest)
    faults = _faults(Random(f"mcast stream faults {seed}"), parts, safety_ns)
    old = dice.choice((0.0, 0.0, 0.5))
    lag = dice.choice((0.0, 0.0, 0.1, 0.5))
    delay_ns = dice.choice((_MS // 10, _MS // 10, 4 * _MS))
    return Plan(seed, safety_ns, parts, faults, capacity, chunk, delay_ns, lag, old)


def _parts(dice: Random, safety_ns: int, largest: int) -> list[Part]:
    first, second = dice.choice(_FAMILIES)
    counts = [1 + dice.choice((0, 0, 1, 2)), 1 + dice.choice((0, 0, 1))]
    if SocketKind.PAIR in first:
        counts = [1, 1]
    dice.shuffle(counts)
    listens = dice.randrange(2)
    securities = _securities(dice)
    heartbeat_ns = dice.choice((0, 0, 50 * _MS, 200 * _MS))
    relaxed = dice.random() < 0.5
    sides: list[list[Part]] = [[], []]
    for side, kinds in enumerate((first, second)):
        for index in range(counts[side]):
            kind = dice.choice(kinds)
            name = f"{kind.value.lower()}{side}{index}"
            sides[side].append(
                Part(
                    name,
                    kind,
                    _queue_options(dice, kind, relaxed=relaxed),
                    ZmtpOptions(
                        socket_type=kind.value,
                        security=securities[side == listens],
                        zap_domain="test" if dice.random() < 0.2 else "",
                        handshake_ivl_ns=HANDSHAKE_NS,
                        heartbeat_ivl_ns=heartbeat_ns if dice.random() < 0.7 else 0,
                        heartbeat_ttl_ns=dice.choice((0, heartbeat_ns * 2)),
                    ),
                )
            )
    listeners = tuple(part.name for part in sides[listens])
    dialers = sides[1 - listens]
    for part in dialers:
        part.dials = listeners if dice.random() < 0.7 else (dice.choice(listeners),)
    lonely = set(listeners).difference(*(part.dials for part in dialers))
    dialers[0].dials += tuple(sorted(lonely))
    parts = sides[listens] + sides[1 - listens]
    for part in parts:
        part.reads_itself = dice.random() < 0.3
        _activity(dice, part, safety_ns, largest)
    return parts


def _securities(dice: Random) -> tuple[Security, Security]:
    """For who dials, and for who listens."""
    chance = dice.random()
    if chance < 0.6:
        return Null(), Null()
    if chance < 0.75:
        return PlainClient("name", "word"), PlainServer()
    server = CurveServer(_SECRETS[0])
    return CurveClient(server.public_key, _SECRETS[1]), server


def _queue_options(dice: Random, kind: SocketKind, *, relaxed: bool) -> QueueOptions:
    more: dict[str, bool] = {}
    if kind is SocketKind.REQ:
        more = {"req_relaxed": relaxed, "req_correlate": relaxed}
    elif kind in (SocketKind.PUB, SocketKind.XPUB, SocketKind.RADIO) and dice.random() < 0.2:
        more = {"xpub_nodrop": True}
    elif kind in (SocketKind.PUSH, SocketKind.DEALER) and dice.random() < 0.3:
        more = {"immediate": True}
    made: QueueOptions = options_type(kind)(
        sndhwm=dice.choice((1000, 1000, 20, 4, 1)),
        rcvhwm=dice.choice((1000, 1000, 20, 4, 1)),
        **more,
    )
    return made


def _activity(dice: Random, part: Part, safety_ns: int, largest: int) -> None:
    for _ in range(dice.randrange(1, 7)):
        messages = tuple(
            (
                dice.choice(TOPICS),
                tuple(
                    dice.randrange(dice.choice((1, 30, 300, largest)) + 1)
                    for _ in range(dice.choices((1, 2, 5), (6, 2, 1))[0])
                ),
            )
            for _ in range(dice.choice((1, 3, 10, 30)))
        )
        part.bursts.append(Burst(dice.randrange(safety_ns), messages))
    if part.kind not in (SocketKind.SUB, SocketKind.XSUB, SocketKind.DISH):
        return
    part.bursts.clear()
    wanted = [b"" if dice.random() < 0.2 else dice.choice(TOPICS) for _ in range(3)]
    part.changes = [Change(0, True, topic) for topic in wanted]
    for _ in range(dice.choice((0, 0, 2, 6, 20))):
        at_ns, topic = dice.randrange(safety_ns), dice.choice((*TOPICS, *wanted))
        part.changes.append(Change(at_ns, dice.random() < 0.5, topic))


def _faults(dice: Random, parts: list[Part], safety_ns: int) -> list[Fault]:
    kinds = [kind for kind in _KINDS if dice.random() < 0.3]
    is_sealed = parts[0].zmtp.security.mechanism == b"CURVE"
    if not is_sealed and dice.random() < 0.7 and "corrupt" in kinds:
        kinds.remove("corrupt")  # without a seal little can be asked of what follows
    faults = []
    for kind in kinds:
        for _ in range(dice.choice((1, 1, 2, 4))):
            begin_ns = dice.randrange(safety_ns)
            end_ns = min(safety_ns, begin_ns + dice.randrange(20, 500) * _MS)
            host = dice.choice(parts).name
            faults.append(Fault(kind, host, begin_ns, end_ns, _value(dice, kind)))
    return sorted(faults, key=lambda fault: (fault.begin_ns, fault.kind))


def _value(dice: Random, kind: str) -> float:
    if kind in ("cut", "reset", "corrupt"):
        return dice.randrange(dice.choice((10, 100, 2000)))  # so many bytes from now on
    if kind == "delay":
        return dice.choice((1, 20, 150)) * _MS
    if kind == "chunk":
        return dice.choice((1, 3, 50))
    if kind == "deny":
        return dice.random()
    return 0.0
