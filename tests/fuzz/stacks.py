"""The engines twice in one process, once on each kernel, so that one input can be given to both.

Owns the second copy of ``mcast``, which is kept out of ``sys.modules``. Without a compiled kernel
there is one stack only.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from types import ModuleType
from typing import Any

__all__ = ["Stack", "both", "stack"]

_MODULES = (
    "mcast.kernel",
    "mcast.options",
    "mcast.pgm",
    "mcast.pgm.packet",
    "mcast.zmtp",
    "mcast.capture.decode",
    "mcast.capture.fields",
    "mcast.capture.files",
)


class Stack:
    """One copy of the engines: the public names of its modules as attributes."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        for name in _MODULES:
            module = importlib.import_module(name)
            public: list[str] = module.__all__
            for item in public:
                # ``Messages`` is an event of both protocols.
                attribute = "ZmtpMessages" if (name, item) == ("mcast.zmtp", "Messages") else item
                self.__dict__[attribute] = getattr(module, item)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@functools.cache
def stack(kernel: str) -> Stack:
    """The engines on ``kernel``. Raises ImportError if that is not built."""
    loaded = sys.modules.get("mcast.kernel")
    if loaded is not None and kernel == loaded.NAME:
        return Stack(kernel)
    kept = _take_out()
    wanted = os.environ.get("MCAST_KERNEL")
    os.environ["MCAST_KERNEL"] = kernel
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Stack(kernel)
    finally:
        os.environ.pop("MCAST_KERNEL")
        if wanted is not None:
            os.environ["MCAST_KERNEL"] = wanted
        _take_out()
        sys.modules.update(kept)


@functools.cache
def both() -> tuple[Stack, Stack]:
    """The stack on the reference, and the one on the compiled kernel, or the reference again."""
    reference = stack("reference")
    try:
        return reference, stack("native")
    except ImportError:
        return reference, reference


def _take_out() -> dict[str, ModuleType]:
    """All of ``mcast`` out of ``sys.modules``, but for compiled code, which can be loaded once."""
    names = [
        name
        for name in sys.modules
        if (name == "mcast" or name.startswith("mcast.")) and name != "mcast.kernel._native"
    ]
    return {name: sys.modules.pop(name) for name in names}
