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


# Its modules import each other by their bare names, as programs of one folder do.
sys.path.append(str(BENCH))


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


contenders = loaded("contenders")
report = loaded("report")
capture_made = loaded("capture_made")
replay_bench = loaded("replay_bench")
endurance = loaded("endurance")
endurance_ends = loaded("endurance_ends")
endurance_report = loaded("endurance_report")


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
    keep("1a.json", "2026-01-09", is_quick=True)
    assert report.newest_result(tmp_path)["machine"]["date"] == "2026-01-09"
    keep("1b.json", "2026-01-01")
    keep("1c.json", "2026-01-03")
    keep("1d.json", "2026-01-05", is_complete=False)
    assert report.newest_result(tmp_path)["machine"]["date"] == "2026-01-03"


def test_performance_page_shows_the_newest_result() -> None:
    newest = report.newest_result()
    page = report.PAGE.read_text(encoding="utf-8")
    if newest is None:
        assert report.BEGIN in page
    else:
        assert report.updated(page, newest) == page, "run tools/bench/report"


def test_a_result_of_another_tool_is_none_of_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "endurance-1.json").write_text("{}")
    (tmp_path / "decode-1.json").write_text("{}")
    (tmp_path / "replay-1.json").write_text("{}")
    assert report.newest_result(tmp_path) is None


def test_performance_page_shows_the_newest_endurance() -> None:
    newest = endurance_report.newest_result()
    assert newest is not None
    page = endurance_report.PAGE.read_text(encoding="utf-8")
    assert endurance_report.updated(page, newest) == page, "run tools/bench/endurance --report"


def lossy_run(
    *, gaps: list[list[int]], losses: list[list[Any]], events_dropped: int = 0
) -> list[str]:
    """The faults of a run of 1,000 messages in 100 packets, noted every 100 messages."""
    sent = {"checkpoints": [[number, number // 10] for number in range(0, 1001, 100)]}
    received = {
        "missing": sum(last - first + 1 for first, last in gaps),
        "refused_ends": 0,
        "gaps": gaps,
        "losses": losses,
        "stats": {"events_dropped": events_dropped, "queue_refused": 0, "lost": 0},
    }
    faults: list[str] = endurance.accounting(endurance.LOADS[0], sent, received)[1]
    return faults


def test_a_loss_that_was_reported_is_no_fault() -> None:
    assert lossy_run(gaps=[], losses=[]) == []
    assert lossy_run(gaps=[[320, 329]], losses=[[33, 34, 2, "window_advanced"]]) == []
    assert lossy_run(gaps=[[320, 329]], losses=[[30, 40, 10, "app_hwm"]]) == []


@pytest.mark.parametrize(
    ("gaps", "losses", "fault"),
    [
        ([[320, 329]], [], "1 gaps where no loss was reported"),
        ([[320, 329]], [[80, 81, 2, "window_advanced"]], "1 gaps where no loss was reported"),
        ([[320, 329]], [[30, 40, 9, "app_hwm"]], "1 missing beside the refused, 0 to 0 reported"),
        ([], [[30, 40, 1, "app_hwm"]], "-1 missing beside the refused, 0 to 0 reported"),
        ([[320, 419]], [[33, 34, 2, "window_advanced"]], "100 missing beside the refused"),
    ],
)
def test_a_loss_without_a_word_or_a_word_without_a_loss_is_a_fault(
    gaps: list[list[int]], losses: list[list[Any]], fault: str
) -> None:
    assert any(found.startswith(fault) for found in lossy_run(gaps=gaps, losses=losses))


class Stream:
    """A subscriber that gets these numbers of a publisher's stream, a few at a time, and END."""

    def __init__(self, numbers: list[int], sent: int, count: int) -> None:
        head, ring = endurance_ends.HEAD, endurance_ends.RING * count
        self._messages = [
            head.pack(number % ring, 0 if number % count else number + 1) for number in numbers
        ]
        self._messages.append(head.pack(endurance_ends.END, sent))

    def recv_many(self, count: int) -> list[bytes]:
        taken, self._messages = self._messages[: count - 3], self._messages[count - 3 :]
        return taken

    def events(self) -> list[Any]:
        return []

    def stats(self) -> dict[str, int]:
        return {}


def test_gaps_are_found_where_they_are_also_when_numbers_have_come_round() -> None:
    numbers = [*range(100), *range(5103, 8000), *range(8050, 9000)]
    stream = Stream(numbers, 9001, 10)
    found = endurance_ends.Taken(stream, 10, keeps=True).all(0)
    assert found["received"] == len(numbers)
    assert found["missing"] == 5003 + 50 + 1
    assert sum(last - first + 1 for first, last in found["gaps"]) == found["missing"]
    # The end of a gap is known by the next batch's first message.
    assert [gap for gap in found["gaps"] if not (gap[0] < 5103 and gap[1] < 5110)] == [
        (8000, 8049),
        (9000, 9000),
    ]


def test_events_that_nobody_could_take_are_a_fault() -> None:
    assert lossy_run(gaps=[], losses=[], events_dropped=1) == ["1 events dropped"]


@pytest.mark.interop("tshark")
@pytest.mark.slow
def test_decode_and_tshark_find_the_same_in_a_made_capture(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, BENCH / "decode_bench.py", "--quick", "--pairs", "1", "--output", output],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert output.is_file(), done.stderr
    found = json.loads(output.read_text())
    assert [row["way"] for row in found["compared"]] == [
        row["way"] for row in found["large"]["runs"]
    ]
    types = found["small"]["types"]
    assert all(types[kind] for kind in ("ODATA", "RDATA", "SPM", "NAK", "NCF"))
    assert all(run["is_reached"] for run in found["large"]["runs"])  # memory; speed is no test's


@pytest.mark.slow
def test_what_is_recorded_of_a_replay_has_its_messages_and_its_times(tmp_path: Path) -> None:
    """10,000 packets/s for 1 s. Others may use the machine, so the best of three rounds counts, and
    its bar is five times that of tools/bench/replay, which is for a quiet one."""
    limit_us = 5 * replay_bench.LIMIT_US
    source = tmp_path / "made.pcap"
    made = capture_made.make_capture(source, 9_000_000, step_us=100)
    errors_us = []
    for _ in range(3):
        run = replay_bench.round_trip(source, tmp_path / "got.pcapng")
        assert run.packets == made.packet_count - made.types["NAK"]
        errors_us.append(run.error_us_p99)
        if errors_us[-1] < limit_us:
            break
    assert min(errors_us) < limit_us


@pytest.mark.slow
def test_short_endurance_run_measures_judges_and_writes(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, BENCH / "endurance.py", "--quick", "--json", "--output", output],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(output.read_text())
    assert json.loads(done.stdout) == found
    assert found["is_quick"]
    points = [point for curve in found["overload"] for point in curve["points"]]
    assert max(point["factor"] for point in points) == 4.0
    assert all(point["sent"] == point["received"] + point["missing"] for point in points)
    silent = [point for point in points if point["silent_gaps"]]
    assert silent == []
    assert found["memory"]["ends"]["publisher"]["faults"] == []
    assert "| 4x |" in endurance_report.tables(found)


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


@pytest.mark.parametrize(
    "contender",
    [
        contenders.Pipeline(size=16),
        contenders.Pipeline(size=16, batch=300),
        contenders.Inproc(size=16),
    ],
    ids=["one call each", "batches", "inproc"],
)
def test_mcast_unicast_ends_measure_what_arrives(contender: Any) -> None:
    found = contender.measure(1000)
    assert (found.sent, found.missing) == (1000, 0)
    assert found.figures["messages_per_s"] > 0
    assert found.figures["cpu_s_per_message"] > 0


def test_mcast_pair_measures_round_trips() -> None:
    found = contenders.PairLatency().measure(100)
    assert found.sent == 100
    assert 0 < found.figures["p50_s"] <= found.figures["p99_s"] <= found.figures["max_s"]


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
