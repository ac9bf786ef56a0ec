"""``mcast demo``: its ledgers close under loss, it finds what is planted, and it leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcast.cli.ledger import Plant

LIMIT_S = 60.0
DEMO = [sys.executable, "-m", "mcast", "demo"]
SMALL = ("--messages", "2000", "--loss", "10", "--timeout", "40")


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def children_of(pid: int) -> list[int]:
    """Process ids of the children that run now."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in listed.split()]


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, f"still running: {pids}"
        time.sleep(0.02)


def test_every_ledger_closes_at_ten_percent_loss() -> None:
    ended = demo(*SMALL)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.fullmatch(
        r"every ledger closed: 3 x 2,000 delivered, 0 lost, \d+ repaired,"
        r" repair p50 [\d.]+ ms p99 \d+ ms\n",
        ended.stdout,
    )
    last_rows = [line.split() for line in ended.stderr.splitlines()[-4:]]
    assert [row[:2] for row in last_rows] == [
        ["publisher", "2,000"],
        ["subscriber", "1"],
        ["subscriber", "2"],
        ["subscriber", "3"],
    ]


def test_result_as_json_holds_every_process() -> None:
    ended = demo(*SMALL, "--json", "--subscribers", "2", "--seed", "7", "--size", "100")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(ended.stdout)
    assert result["closed"] is True
    assert result["publisher"]["sent"] == 2000
    assert [sub["received"] for sub in result["subscribers"]] == [2000, 2000]
    assert all(sub["dropped_packets"] > 0 for sub in result["subscribers"])
    assert ended.stderr == "" or "warning" in ended.stderr


def test_table_on_a_terminal_is_drawn_in_place() -> None:
    pytest.importorskip("rich", reason="the live table needs mcast[cli]")
    terminal, stderr = os.openpty()
    process = subprocess.Popen(
        [*DEMO, "--messages", "5000"],
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(stderr)
    drawn = b""
    try:
        while chunk := os.read(terminal, 65536):
            drawn += chunk
    except OSError:  # EIO: nobody has the terminal open any more
        pass
    os.close(terminal)
    stdout, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert stdout.startswith(b"every ledger closed: 3 x 5,000 delivered")
    assert b"messages/s" in drawn
    assert b"\x1b[" in drawn


def test_without_loss_nothing_is_repaired() -> None:
    ended = demo("--messages", "500", "--loss", "0", "--subscribers", "1", "--json")
    result = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert result["subscribers"][0]["dropped_packets"] == 0


@pytest.mark.parametrize("plant", Plant)
def test_planted_fault_opens_the_ledger(plant: Plant) -> None:
    ended = demo("--messages", "500", "--subscribers", "1", "--plant", plant.value)
    assert ended.returncode == 1
    assert ended.stdout.startswith("LEDGER OPEN: subscriber 1: 1 ")


def test_run_that_takes_too_long_is_ended_and_leaves_nothing() -> None:
    process = subprocess.Popen(
        [*DEMO, "--rate", "100K", "--timeout", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    children = wait_for_children(process.pid)
    stdout, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert stdout.startswith("LEDGER OPEN: not finished within --timeout 2 s")
    wait_until_gone(children)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_all_processes_and_says_so(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*DEMO, "--rate", "1M"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = wait_for_children(process.pid)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert stdout.startswith("LEDGER OPEN: ended by a signal")
    assert "Traceback" not in stderr
    wait_until_gone(children)


def test_killed_parent_leaves_no_orphans() -> None:
    process = subprocess.Popen(
        [*DEMO, "--rate", "1M"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    children = wait_for_children(process.pid)
    process.kill()
    process.wait()
    wait_until_gone(children)


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_child_is_a_failure_that_ends_the_rest(victim: int) -> None:
    process = subprocess.Popen(
        [*DEMO, "--rate", "1M"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children = wait_for_children(process.pid)
    subprocess.run(["kill", "-KILL", str(children[victim])], check=True)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 2
    assert stdout.startswith("LEDGER OPEN: 1 processes failed")
    assert f"{'subscriber 1' if victim else 'publisher'} failed" in stderr
    wait_until_gone(children)


def wait_for_children(pid: int) -> list[int]:
    """All four processes of a demonstration."""
    deadline = time.monotonic() + 10
    while len(found := children_of(pid)) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
