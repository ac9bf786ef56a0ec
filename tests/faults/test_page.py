"""docs/reference/fault-matrix.md shows what was measured, for every row there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel_independent

ROOT = Path(__file__).resolve().parents[2]
ROWS = tomllib.loads((ROOT / "tests/faults/matrix.toml").read_text())["row"]


def test_every_row_of_the_matrix_and_every_attack_is_there() -> None:
    expected = [*(str(n) for n in range(1, 49)), *(f"S{n}" for n in range(1, 23))]
    assert [row["id"] for row in ROWS] == expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_row_has_tests_or_says_why_not(row: dict[str, str]) -> None:
    assert row["shown_by"] or row["open"]
    for name in row["shown_by"]:
        path, _, test = name.partition("::")
        text = (ROOT / path).read_text()
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), name


def test_every_figure_belongs_to_a_row() -> None:
    figures = json.loads((ROOT / "tests/faults/figures.json").read_text())["rows"]
    assert set(figures) <= {row["id"] for row in ROWS}


def test_the_page_shows_the_figures() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/faultmatrix", "--check"])
    assert done.returncode == 0, "tools/faultmatrix --write-only"
