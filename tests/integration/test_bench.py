"""The comparison's own machinery: programs that build, a table that cannot drift, honest verdicts.

What it measures is not a test's business; one short case shows that a whole run works.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "tools/bench"

pytestmark = pytest.mark.kernel_independent


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


report = loaded("report")


def result(**changes: Any) -> dict[str, Any]:
    side = {"rate_bits_per_s": None, "missing": 0, "sent": 100, "may_lose": False}
    measure = {
        "figure": "messages_per_s",
        "target": "3x or more",
        "at_least": 3.0,
        "at_most": None,
        "is_reached": True,
        "first": {"median": 4e6},
        "second": {"median": 1e6},
        "ratio": {"median": 4.0, "min": 3.5, "max": 4.5, "pairs": [4.0]},
    }
    whole = {
        "machine": {
            **dict.fromkeys(
                ("cpu", "kernel", "python", "commit", "libzmq", "libpgm", "pyzmq"), "?"
            ),
            "date": "2026-01-02T03:04:05+00:00",
            "cores": 2,
            "load_average": 0.1,
            "has_changes": False,
        },
        "is_quick": False,
        "is_complete": True,
        "pairs": 5,
        "cases": [
            {
                "name": "one",
                "title": "The one",
                "lost_nothing": True,
                "sides": [{"name": "mcast", **side}, {"name": "other", **side}],
                "measures": [measure],
            }
        ],
    }
    return whole | changes


def test_table_has_a_row_for_each_figure() -> None:
    text = report.table(result())
    assert "| The one | mcast: 4.00 M | other: 1.00 M | messages/s | 4.00 (3.50 to 4.50) |" in text
    assert "| reached |" in text


def test_target_not_reached_is_shown() -> None:
    shown = result()
    shown["cases"][0]["measures"][0]["is_reached"] = False
    assert "**not reached**" in report.table(shown)


def test_ratio_that_lost_messages_reaches_nothing() -> None:
    shown = result()
    shown["cases"][0]["lost_nothing"] = False
    shown["cases"][0]["sides"][0]["missing"] = 7
    text = report.table(shown)
    assert "**not reached**: messages were lost" in text
    assert "7 of 100 lost" in text


def test_case_that_failed_is_a_row() -> None:
    failed = {"name": "f", "title": "F", "failure": "it broke", "sides": [], "measures": []}
    assert "failed: it broke" in report.table(result(cases=[failed]))


def test_page_is_changed_between_its_marks_only() -> None:
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    changed = report.updated(page, result())
    assert changed.startswith(f"before\n{report.BEGIN}\n")
    assert changed.endswith(f"{report.END}\nafter\n")
    assert "old" not in changed
    assert report.updated(changed, result()) == changed


def test_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        report.updated("nothing", result())


def test_newest_complete_result_counts_and_a_quick_one_last(tmp_path: Path) -> None:
    def keep(name: str, date: str, **changes: Any) -> None:
        kept = copy.deepcopy(result(**changes))
        kept["machine"]["date"] = date
        (tmp_path / name).write_text(json.dumps(kept))

    assert report.newest_result(tmp_path) is None
    keep("a.json", "2026-01-09", is_quick=True)
    assert report.newest_result(tmp_path)["machine"]["date"] == "2026-01-09"
    keep("b.json", "2026-01-01")
    keep("c.json", "2026-01-03")
    keep("d.json", "2026-01-05", is_complete=False)
    assert report.newest_result(tmp_path)["machine"]["date"] == "2026-01-03"


def test_performance_page_shows_the_newest_result() -> None:
    newest = report.newest_result()
    page = report.PAGE.read_text(encoding="utf-8")
    if newest is None:
        assert report.BEGIN in page
    else:
        assert report.updated(page, newest) == page, "run tools/bench/report"


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH / "compare.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_list_names_every_case_and_what_is_to_be_reached() -> None:
    done = compare("--list")
    assert done.returncode == 0, done.stderr
    assert "1k-epgm" in done.stdout
    assert "15x or more" in done.stdout


def test_unknown_case_is_refused() -> None:
    done = compare("--case", "nothing")
    assert done.returncode != 0
    assert "no case nothing" in done.stderr


@pytest.mark.slow
def test_short_run_measures_judges_and_writes(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or not Path("/usr/include/zmq.h").is_file():
        pytest.skip("the C programs need gcc and libzmq3-dev")
    output = tmp_path / "result.json"
    done = compare("--quick", "--pairs", "2", "--case", "latency-floor", "--output", str(output))
    assert output.is_file(), done.stderr
    found = json.loads(output.read_text())
    assert found["is_complete"] is False
    if "failure" in found["cases"][0]:
        assert done.returncode == 1
        assert "caller" in found["cases"][0]["failure"] or "ended early" in done.stderr
    else:
        assert len(found["cases"][0]["measures"][0]["ratio"]["pairs"]) == 2
