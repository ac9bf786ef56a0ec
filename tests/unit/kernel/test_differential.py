"""The reference and the compiled kernel agree, step by step, on programs drawn by hypothesis.

The fuzzer in ``tests/fuzz/kernel_differential.py`` runs the same programs for longer; here it is
also shown that it finds each mistake planted for it.
"""

from __future__ import annotations

import random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcast.kernel import reference
from tests.fuzz import kernel_differential as differential

pytestmark = pytest.mark.kernel_independent  # it imports both, whichever is picked

NATIVE: ModuleType | None
try:
    NATIVE = differential.native()
except ImportError:
    NATIVE = None

needs_native = pytest.mark.skipif(NATIVE is None, reason="the compiled kernel is not built")


@needs_native
@pytest.mark.parametrize("name", differential.MACHINES)
@settings(max_examples=200)
@given(dice=st.randoms(use_true_random=False))
def test_both_kernels_agree_on_every_result(name: str, dice: random.Random) -> None:
    machine = differential.MACHINES[name]
    differential.compare(machine, machine.program(dice), reference, NATIVE)


@needs_native
def test_both_kernels_agree_on_a_thousand_seeded_programs() -> None:
    for number in range(1000):
        differential.try_case(1, number, NATIVE)


@needs_native
def test_both_kernels_have_the_same_names() -> None:
    assert set(reference.__all__) <= set(vars(NATIVE))


@pytest.mark.parametrize("plant", differential.PLANTS)
def test_a_planted_mistake_is_found(plant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert differential.main(["--seconds", "30", "--plant", plant]) == 1
    assert f"--plant {plant}" in capsys.readouterr().out


def test_the_reference_agrees_with_itself() -> None:
    for number in range(200):
        differential.try_case(2, number, reference)
