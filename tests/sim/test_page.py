"""``docs/reference/simulation.md`` tells of every planted mistake and every named seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import planted, planted_streams, test_seeds, test_stream_seeds

pytestmark = pytest.mark.kernel_independent

PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/simulation.md").read_text()


@pytest.mark.parametrize("world", [planted, planted_streams], ids=["multicast", "stream"])
def test_the_page_lists_each_planted_mistake_once_and_in_order(world) -> None:
    rows = [line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    names = [plant.__name__ for plant in world.PLANTS]
    assert [row for row in rows if row in names] == names
    assert len(rows) == len(planted.PLANTS) + len(planted_streams.PLANTS)


def test_the_page_names_every_seed_that_found_something() -> None:
    for seed in (*test_seeds.FOUND, *test_stream_seeds.FOUND):
        assert f" {seed}" in PAGE


def test_twenty_mistakes_are_planted_and_two_thousand_fresh_seeds_run_on_two_kernels() -> None:
    assert len(planted.PLANTS) == 20
    assert 2 * test_seeds.FRESH_COUNT >= 2_000
