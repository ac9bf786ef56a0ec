"""The reference and the compiled kernel agree, step by step, on programs drawn by hypothesis.

The fuzzer in ``tests/fuzz/kernel_differential.py`` runs the same programs for longer; here it is
also shown that it finds each mistake planted for it.
"""

from __future__ import annotations

import inspect
import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

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
def test_both_kernels_have_the_same_functions_and_classes() -> None:
    made = {name for name in reference.__all__ if callable(getattr(reference, name))}
    assert made <= set(vars(NATIVE))


WITHOUT_A_MACHINE = {
    "Baton": "hands work to other threads: test_baton",
    "Inbox.baton": "as Baton",
    "Inbox.intake": "who takes messages pulls from it, in the compiled kernel only",
    "Intake.pulls": "as Inbox.intake",
    "Intake.is_stale": "only the compiled wait looks at it",
    "Intake.wait": "the reference never waits",
    "StreamGate.dropped_count": "the reference takes the long way, where others count",
    "StreamGate.filtered_count": "as dropped_count",
    "StreamGate.sent_count": "as dropped_count",
    "StreamGate.is_attended": "as Baton",
    "StreamGate.lead_into": "the reference takes the long way: tests/integration",
    "StreamIntake.is_stale": "only the compiled wait looks at it",
    "StreamIntake.wait": "the reference never waits",
    "StreamIntake.watch": "as Baton",
}
"""Public names, or classes, that no program of calls can compare, and why."""
PROGRAMS_AT_MOST = 1400


def public_names() -> set[str]:
    """The functions of the contract, and what either kernel has in a class, as Class.attribute."""
    names = set()
    for name in reference.__all__:
        both = getattr(reference, name), getattr(NATIVE, name, None)
        if inspect.isclass(both[0]) and not issubclass(both[0], Exception):
            own = {each for one in both for each in dir(one) if not each.startswith("_")}
            names |= {f"{name}.{attribute}" for attribute in own}
        elif inspect.isfunction(both[0]):
            names.add(name)
    return names


def is_without_a_machine(name: str) -> bool:
    return name in WITHOUT_A_MACHINE or name.partition(".")[0] in WITHOUT_A_MACHINE


def spied(touched: set[str]) -> SimpleNamespace:
    """The reference, which notes each public name that a machine uses, not by way of another."""

    def note(name: str) -> None:
        if sys._getframe(2).f_code.co_filename == differential.__file__:
            touched.add(name)

    def function(name: str, call: Any) -> Any:
        def spy(*arguments: object) -> object:
            note(name)
            return call(*arguments)

        return spy

    def subclass(name: str, parent: Any) -> Any:
        def look(self: object, attribute: str) -> object:
            note(f"{name}.{attribute}")
            return parent.__getattribute__(self, attribute)

        def change(self: object, attribute: str, value: object) -> None:
            note(f"{name}.{attribute}")
            parent.__setattr__(self, attribute, value)

        return type(name, (parent,), {"__getattribute__": look, "__setattr__": change})

    names = {name: getattr(reference, name) for name in reference.__all__}
    for name, one in names.items():
        if inspect.isfunction(one):
            names[name] = function(name, one)
        elif inspect.isclass(one) and not issubclass(one, Exception):
            names[name] = subclass(name, one)
    return SimpleNamespace(**names)


@needs_native
def test_the_machines_use_every_public_name_of_both_kernels() -> None:
    touched: set[str] = set()
    kernel = spied(touched)
    wanted = {name for name in public_names() if not is_without_a_machine(name)}
    for number in range(PROGRAMS_AT_MOST):
        if wanted <= touched:
            break
        name, program = differential.case(3, number)
        for _ in differential.MACHINES[name].run(kernel, program):
            pass
    assert wanted - touched == set()


@needs_native
def test_what_is_said_to_have_no_machine_exists() -> None:
    names = public_names()
    assert all(name in names or hasattr(reference, name) for name in WITHOUT_A_MACHINE)


@pytest.mark.parametrize("plant", differential.PLANTS)
def test_a_planted_mistake_is_found(plant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert differential.main(["--seconds", "30", "--plant", plant]) == 1
    assert f"--plant {plant}" in capsys.readouterr().out


def test_the_reference_agrees_with_itself() -> None:
    for number in range(200):
        differential.try_case(2, number, reference)
