"""Picks the kernel, once, at import: readable Python or compiled, with the same names and results.

``MCAST_KERNEL`` in the environment decides:

- ``auto`` (default): the compiled kernel when it was built, else the reference;
- ``reference``: :mod:`mcast.kernel.reference`, the specification;
- ``native``: ``mcast.kernel._native``, or an ImportError that says how to build it.

Owns the choice and nothing else. The contract is ``reference.__all__``; this module has exactly
those names, and ``NAME`` tells which kernel is behind them: ``"reference"`` or ``"native"``.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from mcast.kernel import reference

if TYPE_CHECKING:
    from mcast.kernel.reference import *  # noqa: F403

__all__ = ["NAME"]
__all__ += reference.__all__

_BUILD = "build it with MCAST_NATIVE=require pip install -e . and a C compiler"


def _compiled_names() -> list[str]:
    """The functions and classes of the contract; its type aliases always come from reference."""
    return [name for name in reference.__all__ if callable(getattr(reference, name))]


def _load_native() -> ModuleType:
    """The compiled kernel; raises ImportError when it is not built or older than the contract."""
    try:
        native = importlib.import_module("mcast.kernel._native")
    except ImportError as error:
        raise ImportError(f"the native kernel is not available ({error}); {_BUILD}") from error
    missing = [name for name in _compiled_names() if not hasattr(native, name)]
    if missing:
        raise ImportError(
            f"the native kernel lacks {', '.join(missing)}: stale or unfinished; {_BUILD}"
        )
    return native


def _choose(wanted: str) -> tuple[ModuleType, Literal["reference", "native"]]:
    if wanted == "reference":
        return reference, "reference"
    if wanted == "native":
        return _load_native(), "native"
    if wanted != "auto":
        raise ImportError(f"MCAST_KERNEL is {wanted!r}; allowed are auto, reference and native")
    if importlib.util.find_spec("mcast.kernel._native") is None:
        return reference, "reference"
    try:
        return _load_native(), "native"
    except ImportError as error:
        # It was built, so its user expects its speed: never fall back in silence.
        warnings.warn(f"{error}; running on the reference kernel", RuntimeWarning, stacklevel=2)
        return reference, "reference"


NAME: Literal["reference", "native"]
_kernel, NAME = _choose(os.environ.get("MCAST_KERNEL") or "auto")
globals().update({name: getattr(reference, name) for name in reference.__all__})
globals().update({name: getattr(_kernel, name) for name in _compiled_names()})
