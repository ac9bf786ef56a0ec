"""Seeds: those that once found something, fresh ones each time, and mistakes they must find."""

from __future__ import annotations

import time

import pytest

from mcast.testing import Result, run_seed, shrink
from tests.sim import planted
from tests.sim.planted import PLANTS, Plant, each_plant
from tests.support.figures import figure

FOUND = {
    416: "SPMs that a shorter path overtook passed for a restart",
    1795485471441: "an SPM whose trail ended the stream ended it twice",
    30019079: "SPMs that were held up and came all at once passed for a restart",
    1795792445448: "repairs that found no room in a small window made the source seem slow",
    1795485475617: "a repair began an expired stream anew, behind where it had been",
    957915686367: "the end of a message given up before was held against the proof after it",
    957915686380: "the same, where a partition took the message's beginning",
    957925862338: "the account was closed while messages that are too long were still on their way",
    957925881670: "the same, where a partition held them up",
    957928493468: "a window of 7 packets was to repair a burst of 100 within the deadline",
    957928500544: "the same, with a window of 16",
}
"""Seeds that broke a law once, and what was wrong."""

WELL_HIDDEN = {planted.numbers_stop_at_the_wrap}
"""Mistakes that take hundreds of seeds to find."""

FIXED = range(100)
FRESH_COUNT = 1_000  # with each kernel, so that one run of tools/test makes 2,000
FRESH_QUICK_COUNT = 100


def report(result: Result) -> str:
    least = shrink(result)
    return f"{result.violation}\n{least.violation}\nreplay: {least.replay}"


def run_all(seeds: range) -> list[Result]:
    results = []
    for seed in seeds:
        result = run_seed(seed)
        if result.violation is not None:
            pytest.fail(report(result))
        results.append(result)
    return results


@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_found_something_finds_nothing_more(seed: int) -> None:
    run_all(range(seed, seed + 1))


def test_a_fixed_set_of_seeds_keeps_every_law_and_mostly_crosses_the_wrap() -> None:
    results = run_all(FIXED)
    crossed = sum(result.crossed_wrap for result in results)
    figure("32", f"{len(results)} fixed seeds: 0 failures, {crossed} crossed the wrap (bar 40 %)")
    assert crossed >= 0.4 * len(results)
    assert sum(result.lost for result in results) > 50
    assert sum(result.repaired for result in results) > 200


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_fresh_seeds_keep_every_law(capsys: pytest.CaptureFixture[str]) -> None:
    fresh(FRESH_COUNT, capsys)


def test_a_few_fresh_seeds_keep_every_law(capsys: pytest.CaptureFixture[str]) -> None:
    fresh(FRESH_QUICK_COUNT, capsys)


def fresh(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    first = time.time_ns() // 1_000_000
    with capsys.disabled():
        print(f"\nfresh seeds: tools/simulate --seeds {first}..{first + count}")
    results = run_all(range(first, first + count))
    assert sum(result.crossed_wrap for result in results) >= 0.4 * count


@pytest.mark.parametrize("seed", range(10))
def test_a_seed_goes_the_same_way_twice(seed: int) -> None:
    assert run_seed(seed).trace_hash == run_seed(seed).trace_hash


@pytest.mark.parametrize("plant", each_plant(PLANTS, WELL_HIDDEN))
def test_a_planted_mistake_is_found_within_a_thousand_seeds(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, record_property: pytest.RecordProperty
) -> None:
    plant(monkeypatch)
    for seed in range(1_000):
        result = run_seed(seed)
        if result.violation is not None:
            record_property("seeds", seed + 1)
            print(f"{plant.__name__}: found by seed {seed}: {result.violation}")
            return
    pytest.fail("a thousand seeds found nothing")


def test_a_failure_is_shrunk_to_few_faults_and_names_its_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    PLANTS[10](monkeypatch)  # losses are kept quiet
    failed = next(r for r in map(run_seed, range(1_000)) if r.violation and len(r.faults) > 3)
    least = shrink(failed)
    assert len(least.without) > 0
    assert least.replay.startswith(f"tools/simulate --seed {failed.seed} --without ")
    again = run_seed(failed.seed, without=least.without)
    assert str(again.violation) == str(least.violation)
