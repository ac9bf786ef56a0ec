"""What a test measured, kept for docs/reference/fault-matrix.md.

Owns one line of JSON for each figure, appended to the file that ``MCAST_FIGURES`` names; without it
a figure is only printed. ``tools/faultmatrix`` sets it, runs the tests and writes the page.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mcast import kernel

__all__ = ["SECONDS", "figure", "times"]

SECONDS = float(os.environ.get("MCAST_MATRIX_SECONDS", "2"))
"""How long a workload of the matrix lasts; faults.md's own is 20 s, the tests' default is short."""


def times(usual: int, full: int) -> int:
    """How often a test does something: with the full workload as often as faults.md names."""
    return full if SECONDS >= 20 else usual


def figure(row: str, text: str, *, met: bool = True) -> None:
    """Note what was measured for a row of the matrix, and whether it meets the row's bar."""
    print(f"row {row}: {text}{'' if met else ' (MISSES ITS BAR)'}")
    path = os.environ.get("MCAST_FIGURES")
    if path:
        line = {"row": row, "text": text, "met": met, "kernel": kernel.NAME}
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")
