"""Which kernel ``mcast.kernel`` picks, and that it never falls back in silence."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from mcast import kernel
from mcast.kernel import reference

NATIVE = "mcast.kernel._native"


def plant(monkeypatch: pytest.MonkeyPatch, *, without: tuple[str, ...] = ()) -> ModuleType:
    """Puts a stand-in for the compiled kernel in place, complete but for ``without``."""
    module = ModuleType(NATIVE)
    module.__spec__ = ModuleSpec(NATIVE, None)
    for name in reference.__all__:
        if name not in without:
            setattr(module, name, getattr(reference, name))
    monkeypatch.setitem(sys.modules, NATIVE, module)
    return module


def plant_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NATIVE, None)


def test_every_name_of_the_contract_is_exported() -> None:
    assert set(kernel.__all__) == {"NAME", *reference.__all__}
    assert [name for name in kernel.__all__ if not hasattr(kernel, name)] == []


def test_environment_decides_which_kernel_runs() -> None:
    wanted = os.environ.get("MCAST_KERNEL", "auto")
    assert kernel.NAME in ({"reference", "native"} if wanted == "auto" else {wanted})


def test_names_come_from_the_kernel_that_is_named() -> None:
    module = reference if kernel.NAME == "reference" else sys.modules[NATIVE]
    assert kernel.TransmitSlots is module.TransmitSlots
    assert kernel.checksum is module.checksum


def test_auto_takes_the_native_kernel_when_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    module = plant(monkeypatch)
    assert kernel._choose("auto") == (module, "native")


def test_auto_takes_the_reference_when_native_is_not_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, NATIVE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert kernel._choose("auto") == (reference, "reference")


def test_auto_warns_when_the_native_kernel_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, without=("TransmitSlots", "checksum"))
    with pytest.warns(RuntimeWarning, match="lacks TransmitSlots, checksum"):
        assert kernel._choose("auto") == (reference, "reference")


def test_type_aliases_need_no_compiled_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    module = plant(monkeypatch, without=("Buffer", "Message"))
    assert kernel._choose("native") == (module, "native")


def test_native_that_is_not_built_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_nothing(monkeypatch)
    with pytest.raises(ImportError, match=r"not available .*; build it with"):
        kernel._choose("native")


def test_native_that_is_stale_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, without=("checksum",))
    with pytest.raises(ImportError, match="lacks checksum: stale or unfinished"):
        kernel._choose("native")


def test_unknown_kernel_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ImportError, match=r"'fast'; allowed are auto, reference and native"):
        kernel._choose("fast")
