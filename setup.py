"""The optional extension ``mcast.kernel._native``; everything else about the build is declared.

Without a C compiler, without Python's headers or without Cython the install goes on: the package
then runs on ``mcast.kernel.reference``. ``MCAST_NATIVE`` changes that:

- ``auto`` (default): build it when that is possible, warn when it is not;
- ``require``: fail, with the compiler's output, when it cannot be built (what CI wants);
- ``skip``: do not try.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCE = "mcast/kernel/_native.pyx"


def native_extensions(mode: str) -> list[Extension]:
    """The extension to build, or an empty list with the reason on stderr."""
    if mode not in ("auto", "require", "skip"):
        sys.exit(f"MCAST_NATIVE is {mode!r}; allowed are auto, require and skip")
    missing = None
    if not Path(SOURCE).is_file():
        missing = f"{SOURCE} is not part of this source tree"
    else:
        try:
            import Cython  # noqa: F401
        except ImportError:
            missing = "Cython is not installed (a build without isolation must bring it)"
    if missing is not None and mode == "require":
        sys.exit(f"the native kernel cannot be built: {missing}")
    if missing is not None or mode == "skip":
        print(f"mcast: no native kernel: {missing or 'MCAST_NATIVE=skip'}", file=sys.stderr)
        return []
    return [
        Extension(
            "mcast.kernel._native",
            [SOURCE],
            depends=sorted(str(path) for path in Path(SOURCE).parent.glob("*.pxi")),
            # No -march=native: the result must run on every machine of its platform.
            extra_compile_args=["-O3"],
            optional=mode == "auto",
        )
    ]


class BuildNative(build_ext):
    """Treats an error of Cython as one of the compiler, which an optional extension survives."""

    def build_extension(self, ext: Extension) -> None:
        from Cython.Compiler.Errors import CompileError as CythonError

        try:
            super().build_extension(ext)
        except CythonError as error:
            raise CompileError(f"Cython does not accept {SOURCE}: {error}") from error


setup(
    ext_modules=native_extensions(os.environ.get("MCAST_NATIVE", "auto")),
    cmdclass={"build_ext": BuildNative},
)
