"""The committed inputs of every fuzz target hold, and so do its seeds.

``tools/fuzz`` found them; each reaches something that no other does.
"""

from __future__ import annotations

import pytest

from tests.fuzz import kernel_differential, targets
from tests.fuzz.target import CORPUS, corpus
from tests.fuzz.targets import kernel

pytestmark = pytest.mark.kernel_independent  # those whom it concerns run on both


@pytest.mark.parametrize("name", targets.ROWS)
def test_committed_inputs_and_seeds_hold(name: str) -> None:
    target = targets.load(name)
    for path in corpus(name):
        target.run(path.read_bytes())
    for data in target.seeds():
        target.run(data)


def test_every_target_has_inputs_a_plant_and_a_size() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(targets.ROWS)
    for name in targets.ROWS:
        target = targets.load(name)
        assert target.plants, name
        assert all(path.stat().st_size <= target.max_bytes for path in corpus(name)), name


def test_the_kernel_target_has_every_machine_that_needs_no_socket() -> None:
    assert set(kernel.NAMES) | kernel.NEED_SOCKETS == set(kernel_differential.MACHINES)


def test_the_corpora_stay_small() -> None:
    sizes = [path.stat().st_size for name in targets.ROWS for path in corpus(name)]
    assert sum(sizes) < 1 << 20
    assert len(sizes) < 1000
