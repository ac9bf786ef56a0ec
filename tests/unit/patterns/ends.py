"""Patterns under test, and what the shell would do for them."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any, TypeVar

from mcast.kernel import Message
from mcast.patterns import Pattern, PeerInfo, Refusal

Kind = TypeVar("Kind", bound=Pattern)

ALL = 1_000_000
ANYBODY = PeerInfo()


def made(pattern: type[Kind], peers: int = 0, **options: Any) -> Kind:
    """A pattern with pipes 0 to ``peers`` - 1 connected."""
    one = pattern(pattern.options_type(**options), Random(1))
    for number in range(peers):
        one.attach(number, ANYBODY)
    return one


def out(pattern: Pattern, number: int = 0) -> list[Message]:
    """All that waits for this peer."""
    return pattern.take_outgoing(number, ALL)


def refusals(pattern: Pattern) -> list[tuple[int, Refusal]]:
    return [(event.pipe, event.reason) for event in pattern.take_events()]


def received(pattern: Pattern) -> list[Message]:
    """All that ``recv`` gives, one by one."""
    messages = []
    while (message := pattern.recv()) is not None:
        messages.append(message)
    return messages


def numbered(count: int, first: int = 0) -> list[Message]:
    """Messages that tell them apart; every third in two parts."""
    return [(b"%d" % n, b"part") if n % 3 == 0 else b"%d" % n for n in range(first, first + count)]


def dropped(pattern: Pattern) -> dict[str, int | float]:
    """The counters of drops that are not zero."""
    passed = ("messages_received", "messages_taken")
    counts = pattern.counters.snapshot()
    return {name: count for name, count in counts.items() if count and name not in passed}


def wants(*topics: bytes) -> Iterable[tuple[bool, bytes]]:
    return [(True, topic) for topic in topics]


def cancels(*topics: bytes) -> Iterable[tuple[bool, bytes]]:
    return [(False, topic) for topic in topics]
