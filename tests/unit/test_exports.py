"""What the package promises: ``__all__`` names what exists, and all that is public.

Invariant: a name without a leading underscore is a promise, so it is either exported on purpose
or made private. The order within ``__all__`` is the linter's business.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import mcast

NOT_IMPORTED = ("_native", "__main__")
"""Last parts of names: built only where a compiler is; runs the program when imported."""


def all_modules() -> list[str]:
    found = pkgutil.walk_packages(mcast.__path__, "mcast.", onerror=lambda name: None)
    names = (info.name for info in found)
    return ["mcast", *(name for name in names if name.rpartition(".")[2] not in NOT_IMPORTED)]


def export_faults(module: ModuleType) -> list[str]:
    """What is wrong with the ``__all__`` of ``module``; nothing when it has none."""
    exported = getattr(module, "__all__", None)
    if exported is None:
        return []
    faults = [f"{name} is listed twice" for name in set(exported) if exported.count(name) > 1]
    faults += [f"{name} does not exist" for name in exported if not hasattr(module, name)]
    faults += [f"{name} is private" for name in exported if is_private(name)]
    faults += [
        f"{name} is defined here and public, but not listed"
        for name, value in vars(module).items()
        if not is_private(name)
        and name not in exported
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]
    return sorted(faults)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def public_names(module: ModuleType) -> set[str]:
    """The names that a user sees, but for submodules that came with an import."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "annotations" and not inspect.ismodule(value)
    }


@pytest.mark.parametrize("name", all_modules())
def test_exports_of_module_exist_and_are_complete(name: str) -> None:
    assert export_faults(importlib.import_module(name)) == []


def test_public_face_lists_exactly_what_is_public() -> None:
    listed = set(getattr(mcast, "__all__", ()))
    modules = {name for name in listed if inspect.ismodule(getattr(mcast, name))}
    dunders = {name for name in listed if name.startswith("__")}
    assert listed - modules - dunders == public_names(mcast)


def planted(source: str) -> ModuleType:
    module = ModuleType("planted")
    exec(source, module.__dict__)
    return module


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("__all__ = ['gone']", "gone does not exist"),
        ("__all__ = ['a', 'a']\na = 1", "a is listed twice"),
        ("__all__ = ['_a']\n_a = 1", "_a is private"),
        ("__all__ = []\ndef f(): ...", "f is defined here and public, but not listed"),
        ("__all__ = []\nclass C: ...", "C is defined here and public, but not listed"),
    ],
)
def test_planted_export_fault_is_found(source: str, fault: str) -> None:
    assert export_faults(planted(source)) == [fault]


def test_imported_names_need_no_listing() -> None:
    assert export_faults(planted("from json import loads\n__all__ = []\ndef _f(): ...")) == []
