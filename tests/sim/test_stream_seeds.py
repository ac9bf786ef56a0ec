"""Sockets over simulated streams: fixed seeds, fresh ones, and mistakes they must find."""

from __future__ import annotations

import time

import pytest

from mcast.testing import Result, shrink
from mcast.testing.streams import run_stream_seed
from tests.sim import planted_streams
from tests.sim.planted import each_plant
from tests.sim.planted_streams import PLANTS, Plant

FOUND = {
    1068: "messages behind a command that were read with it were not counted by the engine",
}
"""Seeds that broke a law once, and what was wrong."""

WELL_HIDDEN = {
    planted_streams.handshakes_may_take_for_ever,
    planted_streams.cancelled_topics_are_remembered,
    planted_streams.any_reply_will_do,
    planted_streams.a_sub_believes_its_publishers,
}
"""Mistakes that take hundreds of seeds to find."""

FIXED = range(100)
FRESH_COUNT = 60


def run_all(seeds: range) -> list[Result]:
    results = []
    for seed in seeds:
        result = run_stream_seed(seed)
        if result.violation is not None:
            least = shrink(result, run_stream_seed)
            pytest.fail(f"{result.violation}\n{least.violation}\nreplay: {least.replay}")
        results.append(result)
    return results


@pytest.mark.parametrize("seed", FOUND)
def test_a_stream_seed_that_found_something_finds_nothing_more(seed: int) -> None:
    run_all(range(seed, seed + 1))


def test_a_fixed_set_of_stream_seeds_keeps_every_law_over_broken_connections() -> None:
    results = run_all(FIXED)
    assert sum(result.delivered for result in results) > 3_000
    assert sum(result.connections for result in results) > 3 * len(results)


def test_a_few_fresh_stream_seeds_keep_every_law(capsys: pytest.CaptureFixture[str]) -> None:
    first = time.time_ns() // 1_000_000
    with capsys.disabled():
        seeds = f"{first}..{first + FRESH_COUNT}"
        print(f"\nfresh seeds: tools/simulate --world stream --seeds {seeds}")
    run_all(range(first, first + FRESH_COUNT))


@pytest.mark.parametrize("seed", range(10))
def test_a_stream_seed_goes_the_same_way_twice(seed: int) -> None:
    assert run_stream_seed(seed).trace_hash == run_stream_seed(seed).trace_hash


@pytest.mark.kernel_independent
@pytest.mark.parametrize("plant", each_plant(PLANTS, WELL_HIDDEN))
def test_a_mistake_planted_in_streams_is_found_within_a_thousand_seeds(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, record_property: pytest.RecordProperty
) -> None:
    plant(monkeypatch)
    for seed in range(1_000):
        result = run_stream_seed(seed)
        if result.violation is not None:
            record_property("seeds", seed + 1)
            print(f"{plant.__name__}: found by seed {seed}: {result.violation}")
            return
    pytest.fail("a thousand seeds found nothing")


def test_a_failure_over_streams_is_shrunk_and_names_its_replay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    PLANTS[6](monkeypatch)  # a broken connection takes its queue along
    failed = next(
        r for r in map(run_stream_seed, range(1_000)) if r.violation and len(r.faults) > 3
    )
    least = shrink(failed, run_stream_seed)
    assert 0 < len(least.without) < len(least.faults)
    assert least.replay.startswith(f"tools/simulate --world stream --seed {failed.seed} --without ")
    again = run_stream_seed(failed.seed, without=least.without)
    assert str(again.violation) == str(least.violation)
