"""A run drawn from one number: who takes part, what is sent, and which faults happen when.

Owns the swarm: each seed switches kinds of fault on and off at random, and draws its own rates,
limits and numbers to start at. Invariant: a plan is a pure function of its seed, and a run without
some of its faults is still a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from mcast.options import OptionValue
from mcast.pgm.packet import NAK, NCF, ODATA, RDATA, SPM, TYPE_NAMES

__all__ = ["FAULT_KINDS", "Burst", "Fault", "Part", "Plan", "draw"]

_MS: Final = 1_000_000
_WRAP: Final = 1 << 32
_HALF: Final = 1 << 31
_MILD: Final = frozenset({"loss", "duplicate", "reorder", "jitter", "corrupt"})

FAULT_KINDS: Final = (
    "loss",
    "loss_by_type",
    "burst",
    "duplicate",
    "reorder",
    "jitter",
    "delay",
    "corrupt",
    "truncate",
    "mtu",
    "clog",
    "cut",
    "part",
    "pause",
    "slow",
    "jump",
    "crash",
    "crash_same",
    "restart",
    "close",
    "storm",
)
"""Everything that may go wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, for a time."""

    kind: str
    """One of ``FAULT_KINDS``."""
    host: str
    """Whose packets, or who."""
    begin_ns: int
    """From the start of the run."""
    end_ns: int
    """Until when, if it lasts."""
    value: float = 0.0
    """How much: a probability, a size, a time in ns."""
    detail: str = ""
    """Which direction, packet type, or other host."""

    def __str__(self) -> str:
        parts = [f"{self.begin_ns // _MS}-{self.end_ns // _MS} ms", self.kind, self.host]
        if self.detail:
            parts.append(self.detail)
        if self.value:
            parts.append(f"{self.value:g}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Burst:
    """Messages that a publisher sends at one time, each given by the sizes of its parts."""

    at_ns: int
    sizes: tuple[tuple[int, ...], ...]
    flush: bool


@dataclass(slots=True)
class Part:
    """One host of the run."""

    name: str
    options: dict[str, OptionValue]
    at_ns: int = 0
    """When it starts."""
    topics: tuple[bytes, ...] = ()
    bursts: list[Burst] = field(default_factory=list)
    uses_intake: bool = True
    rcvbuf_bytes: int = 4 << 20
    shares_address: bool = False


@dataclass(slots=True)
class Plan:
    """All that a seed decides, but for the dice of the network and the engines."""

    seed: int
    safety_ns: int
    publishers: list[Part]
    subscribers: list[Part]
    faults: list[Fault]
    runs: bool

    @property
    def is_mild(self) -> bool:
        """True if no fault keeps a repair from arriving within the default deadline."""
        ends = self.publishers + self.subscribers
        return (
            all(fault.kind in _MILD for fault in self.faults)
            and all("repair_deadline" not in part.options for part in ends)
            and all(part.options["rate"] == 800e6 for part in self.publishers)
        )


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    dice = Random(f"mcast {seed}")
    safety_ns = dice.randrange(400, 1600) * _MS
    profile = "libzmq" if dice.random() < 0.1 else "lan"
    publishers = [
        _publisher(dice, index, safety_ns, profile)
        for index in range(dice.choices((1, 2, 3), (6, 3, 1))[0])
    ]
    if len(publishers) > 1 and dice.random() < 0.25:
        publishers[1].shares_address = True
    subscribers = [
        _subscriber(dice, index, safety_ns, profile)
        for index in range(dice.choices((1, 2, 3, 5), (4, 4, 2, 1))[0])
    ]
    if all(part.at_ns for part in subscribers):
        subscribers[0].at_ns = 0
    plan = Plan(seed, safety_ns, publishers, subscribers, [], dice.random() < 0.8)
    plan.faults = _faults(Random(f"mcast faults {seed}"), plan)
    storm_dice = Random(f"mcast storm {seed}")
    if storm_dice.random() < 0.12:
        plan.faults.append(_storm(storm_dice, plan))
    return plan


def _storm(dice: Random, plan: Plan) -> Fault:
    """A stranger asks a publisher for everything, again and again."""
    begin = dice.randrange(plan.safety_ns // 2)
    value = dice.choice((1, 5)) * _MS
    return Fault("storm", dice.choice(plan.publishers).name, begin, plan.safety_ns, value)


def _publisher(dice: Random, index: int, safety_ns: int, profile: str) -> Part:
    maxtpdu = dice.choice((128, 200, 576, 1500, 1500, 4000, 9000))
    options: dict[str, OptionValue] = {
        "profile": profile,
        "multicast_maxtpdu": maxtpdu,
        "txw_bytes": dice.choice((1 << 16, 1 << 16, 1 << 18, 1 << 20)),
        "rate": dice.choice((2e6, 20e6, 800e6, 800e6, 800e6, 800e6)),
        "repair_share": dice.choice((0.25, 0.25, 1.0, 0.05)),
        "coalesce": dice.choice((0.0, 50e-6, 50e-6, 0.005)),
        "initial_sqn": _initial_sqn(dice),
    }
    if dice.random() < 0.4:
        options["recovery_ivl"] = dice.choice((0.02, 0.1, 0.5))
    if dice.random() < 0.1:
        options["min_rate"] = 1e6
    if dice.random() < 0.1:
        options["sndhwm"] = dice.choice((1, 10))
    part = Part(f"pub{index}", options)
    left = dice.randrange(40, 240)
    big = dice.random() < 0.3
    at_ns = dice.randrange(20 * _MS)
    while left > 0 and at_ns < safety_ns:
        count = min(left, dice.choice((1, 1, 2, 5, 20, 60)))
        sizes = tuple(_sizes(dice, maxtpdu, big) for _ in range(count))
        part.bursts.append(Burst(at_ns, sizes, dice.random() < 0.3))
        left -= count
        at_ns += int(dice.expovariate(1 / (safety_ns / 40)))
    return part


def _initial_sqn(dice: Random) -> int:
    """Half of the publishers begin near the end of the numbers, a few at half of it."""
    roll = dice.random()
    if roll < 0.5:
        return _WRAP - 1 - dice.choice((0, 1, dice.randrange(20), dice.randrange(20)))
    if roll < 0.6:
        return _HALF - dice.randrange(20)
    return dice.choice((0, 0, dice.randrange(_WRAP - 100_000)))


def _sizes(dice: Random, maxtpdu: int, big: bool) -> tuple[int, ...]:
    parts = dice.choices((1, 2, 3, 6), (8, 1, 1, 1))[0]
    most = 3 * maxtpdu if big and dice.random() < 0.2 else 60
    return tuple(dice.randrange(1, most) for _ in range(parts))


def _subscriber(dice: Random, index: int, safety_ns: int, profile: str) -> Part:
    options: dict[str, OptionValue] = {
        "profile": profile,
        "rxw_bytes": dice.choice((1 << 16, 1 << 16, 1 << 20)),
    }
    if dice.random() < 0.3:
        options["repair_deadline"] = dice.choice((0.05, 0.2, 1.0))
    if dice.random() < 0.3:
        options["peer_expiry"] = dice.choice((1.5, 3.0)) if profile == "lan" else 40.0
    if dice.random() < 0.15:
        options["max_msg_size"] = dice.choice((40, 100, 1000))
    if dice.random() < 0.1:
        options["max_parts"] = dice.choice((1, 2))
    return Part(
        f"sub{index}",
        options,
        at_ns=dice.randrange(safety_ns) if dice.random() < 0.3 else 0,
        topics=tuple(dice.sample((b"A", b"B", b"C", b"D"), 2)) if dice.random() < 0.2 else (),
        uses_intake=dice.random() < 0.7,
        rcvbuf_bytes=dice.choice((20_000, 200_000, 4 << 20)),
    )


def _faults(dice: Random, plan: Plan) -> list[Fault]:
    if dice.random() < 0.3:
        kinds = [kind for kind in FAULT_KINDS if kind in _MILD and dice.random() < 0.6]
    else:
        kinds = [kind for kind in FAULT_KINDS if kind != "storm" and dice.random() < 0.22]
    if "crash_same" in kinds:  # what is late would speak for a life that is over
        kinds = [kind for kind in kinds if kind not in ("crash", "close")]
    faults = []
    for kind in kinds:
        faults += [_fault(dice, plan, kind) for _ in range(dice.choice((1, 1, 2)))]
    return faults


def _fault(dice: Random, plan: Plan, kind: str) -> Fault:
    publishers = [part.name for part in plan.publishers]
    subscribers = [part.name for part in plan.subscribers]
    names = publishers + subscribers
    begin = dice.randrange(plan.safety_ns)
    end = min(plan.safety_ns, begin + dice.randrange(10 * _MS, plan.safety_ns))
    host = dice.choice(names)
    value, detail = 0.0, dice.choice(("in", "out"))
    if kind in ("loss", "corrupt", "duplicate", "reorder"):
        begin = dice.choice((0, begin))
        value = dice.choice((0.02, 0.1, 0.3))
    match kind:
        case "loss_by_type":
            packet_type = dice.choice((SPM, ODATA, RDATA, NAK, NCF))
            detail = f"{detail} {TYPE_NAMES[packet_type]}"
            value = dice.choice((0.5, 0.9, 1.0))
        case "burst":
            value = dice.choice((0.005, 0.02))
            detail = f"{detail} {dice.choice((3, 10, 50))}"
        case "jitter":
            value = dice.choice((0.2, 1, 10, 50)) * _MS
        case "delay":
            value = dice.choice((1, 10, 100)) * _MS
        case "truncate":
            value = dice.choice((0.02, 0.1))
        case "mtu":
            value = dice.choice((100, 150, 1000))
        case "clog":
            end = min(plan.safety_ns, begin + dice.randrange(300) * _MS)
        case "cut":
            detail = dice.choice([name for name in names if name != host] or [host])
        case "pause" | "slow":
            end = min(plan.safety_ns, begin + dice.randrange(1, 600) * _MS)
            detail = ""
        case "jump":
            value = dice.choice((1, 30, 300, 3000, 100_000)) * _MS
            detail = ""
        case "crash" | "restart":
            host = dice.choice(publishers if kind == "crash" else subscribers)
            end = begin + dice.randrange(1, 300) * _MS
            detail = dice.choice(("", "", "for good")) if kind == "crash" else ""
        case "crash_same":
            host = dice.choice(publishers)
            begin = plan.safety_ns // 2
            end = plan.safety_ns
            detail = ""
        case "close":
            host = dice.choice(publishers)
            value = dice.choice((100, 500, 2000)) * _MS
            detail = ""
        case "part":
            detail = ""
    return Fault(kind, host, begin, end, value, detail)
