"""``tools/fuzz`` finds each planted mistake, saves the input, and its line replays it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import targets

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "fuzz"
PLANTS = [(name, plant) for name in targets.ROWS for plant in targets.load(name).plants]

pytestmark = pytest.mark.kernel_independent  # it picks its kernels itself
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed (mcast[fuzz])"
)


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TOOL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@needs_atheris
@pytest.mark.slow
@pytest.mark.timeout(400)  # a search takes seconds, and longer where others compute, too
@pytest.mark.parametrize(("name", "plant"), PLANTS)
def test_a_planted_mistake_is_found_and_replayed(name: str, plant: str) -> None:
    found = fuzz(name, "--plant", plant, "--minutes", "1.5", "--seed", "1")
    assert found.returncode == 1, found.stdout + found.stderr
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("replay: ")]
    replayed = fuzz(*line.split()[2:])
    assert replayed.returncode == 1, replayed.stdout
    assert "FAILED" in replayed.stdout
    saved = line.split("--input ")[1].split()[0]
    (ROOT / saved).unlink()


@needs_atheris
def test_a_short_search_of_sound_code_finds_nothing_and_counts() -> None:
    searched = fuzz("pgm-options", "--runs", "5000", "--seed", "1")
    assert searched.returncode == 0, searched.stdout + searched.stderr
    assert "nothing found" in searched.stdout
    assert "0 findings" in searched.stdout


def test_an_input_that_holds_is_replayed_without_atheris(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"epgm://eth0;239.192.1.1:5555")
    replayed = fuzz("endpoint", "--input", str(path))
    assert replayed.returncode == 0, replayed.stderr
    assert "holds" in replayed.stdout


def test_targets_are_listed_and_an_unknown_one_is_a_usage_error() -> None:
    listed = fuzz("--list")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in targets.ROWS)
    unknown = fuzz("pgm-pigeon")
    assert unknown.returncode == 2
    assert "pgm-packet" in unknown.stderr
