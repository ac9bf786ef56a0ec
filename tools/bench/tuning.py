"""The highest rate at which nothing is lost, and the count of messages that fills a run.

Multicast has no back-pressure: a publisher without a rate may overrun a subscriber. So a contender
that has a rate is first tuned: the rate is bisected between one that loses and one that does not,
and of those that lost nothing in three runs the fastest wins, which need not be the highest. One
that loses when it is run again is near the edge: from there it goes down in small steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from contenders import Contender, Measurement
from ends import Failed

__all__ = ["Tunable", "calibrated", "filling_count", "tuned"]

LOWEST_RATE: Final = 50e6
HIGHEST_RATE: Final = 40e9
"""More than loopback carries on any machine so far."""
STEPS: Final = 7
CONFIRMATIONS: Final = 2
"""Runs more that a rate must come through: one without a loss may be luck."""
CLOSER: Final = 0.9
"""Of a rate that did not come through again: the next to try, if no known one is higher."""
PROBE_S: Final = 0.6
RUN_S: Final = 1.2
SHORTEST_S: Final = 0.3
FIRST_PER_S: Final = 200_000
FEWEST: Final = 2_000
LONGEST_S: Final = 8.0


@runtime_checkable
class Tunable(Contender, Protocol):
    """A contender with a rate to choose."""

    def at_rate(self, rate: float) -> Contender:
        """The same, paced to so many bits per second."""


Say = Callable[[str], None]


def tuned(
    contender: Tunable, size: int, say: Say, *, highest: float = math.inf, steps: int = STEPS
) -> Contender:
    """The contender at its best loss-free rate. Raises Failed when it loses at any rate."""
    found: list[tuple[float, float]] = []
    fastest = FIRST_PER_S

    def probe(rate: float) -> bool:
        nonlocal fastest
        # As many as could come in the time: what was seen so far, or what the rate lets through.
        possible = fastest if math.isinf(rate) else min(fastest, rate / 8 / size)
        count = max(FEWEST, int(possible * PROBE_S))
        try:
            run = contender.at_rate(rate).measure(count)
        except Failed as failure:
            say(f"    {contender.name} at {rate_text(rate)}: {failure}")
            return False
        per_s = run.figures["messages_per_s"]
        fastest = max(fastest, per_s)
        say(
            f"    {contender.name} at {rate_text(rate)}:"
            f" {per_s:,.0f} messages/s, {run.missing:,} missing"
        )
        if run.missing:
            return False
        found.append((per_s, rate))
        return True

    probe(highest)  # shows what may be possible; too short to say more
    found.clear()
    if not probe(highest) or math.isinf(highest):
        low, high = LOWEST_RATE, min(highest, HIGHEST_RATE)
        for _ in range(steps):
            middle = math.sqrt(low * high)
            if probe(middle):
                low = middle
            else:
                high = middle
    candidates = [rate for _, rate in sorted(found, reverse=True)]
    came_through = set(candidates)
    while candidates:
        rate = candidates.pop(0)
        # A rate that has not come through once yet has one run more to make.
        if all(probe(rate) for _ in range(CONFIRMATIONS + (rate not in came_through))):
            say(f"    {contender.name}: best loss-free rate {rate_text(rate)}")
            return contender.at_rate(rate)
        lower = rate * CLOSER
        slower = (known for known in candidates if known < rate)
        if math.isfinite(lower) and lower > max(slower, default=LOWEST_RATE):
            candidates.insert(0, lower)
    raise Failed(f"{contender.name} loses at every rate down to {rate_text(LOWEST_RATE)}")


def calibrated(contender: Contender, count: int) -> Measurement:
    """A short run that tells about how fast it is; the count grows until the run is long enough."""
    while True:
        run = contender.measure(count)
        if count / run.figures["messages_per_s"] > SHORTEST_S or count > 5e7:
            return run
        count *= 4


def filling_count(first_per_s: float, second_per_s: float, *, seconds: float = RUN_S) -> int:
    """Messages for a run of about ``seconds``, the same for both and bounded for each."""
    slow, fast = sorted((first_per_s, second_per_s))
    wanted = seconds * math.sqrt(slow * fast)
    wanted = min(max(wanted, SHORTEST_S * fast), LONGEST_S * slow)
    return max(1000, int(wanted // 1000 * 1000))


def rate_text(rate: float | None) -> str:
    """Bits per second for people."""
    if rate is None or math.isinf(rate):
        return "no limit"
    return f"{rate / 1e9:.2f} Gbit/s" if rate >= 1e9 else f"{rate / 1e6:.0f} Mbit/s"
