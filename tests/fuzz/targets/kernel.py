"""Programs of calls for both kernels, drawn from the input: ``tests.fuzz.kernel_differential``.

Machines that use sockets and clocks stay with that script: an input must mean the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import ModuleType, SimpleNamespace

from mcast.kernel import reference
from tests.fuzz import kernel_differential as differential
from tests.fuzz.target import ByteDice, Target

NEED_SOCKETS = {"flow", "gate", "intake", "stream", "udp"}
NAMES = (
    *("plain", "transmit", "decode", "receive", "inbox", "pace", "zmtp"),
    *("schedule", "capture"),
)
"""In the order of their numbers in committed inputs: new ones go behind the others."""

_other: ModuleType | SimpleNamespace
try:
    _other = differential.native()
except ImportError:
    _other = reference


def run(data: bytes) -> None:
    """The first byte picks the machine, the others are its dice."""
    number = data[0] & 15 if data else 0
    machine = differential.MACHINES[NAMES[number % len(NAMES)]]
    differential.compare(machine, machine.program(ByteDice(data[1:])), reference, _other)


def seeds() -> Iterator[bytes]:
    """Some bytes for each machine."""
    for number, _ in enumerate(NAMES):
        for step in (1, 7, 37, 101):
            yield bytes((number,)) + bytes(place * step % 251 for place in range(120))


def _put(name: str) -> None:
    global _other
    _other = differential.planted(name)


_FITTING = {
    "checksum-zero",
    "generous-bucket",
    "late-trail",
    "stored-repair",
    "torn-inbox",
}
PLANTS = {name: partial(_put, name) for name in differential.PLANTS if name in _FITTING}

TARGET = Target(run, seeds, PLANTS, max_bytes=400)
