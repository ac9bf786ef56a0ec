"""Every program in docs/examples runs, ends, and prints what its text promises.

Each runs as users run it, in a process of its own, on loopback, with a group and port of its own
so that runs side by side don't hear each other.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"
TIMEOUT_S = 60

EXPECTED: dict[str, list[str]] = {
    "hello.py": [r"hello", r"PeerJoined"],
    "losses.py": [
        r"dropped [1-9]\d* packets, repaired [1-9]\d*",
        r"received 5000 of 5000, complete and in order: True",
        r"received [1-4]\d{3} of 5000, rising: True",
        r"[1-9]\d* Lost events tell of [1-9]\d* packets, the first: Lost\(.*window_advanced.*\)",
        r"after number \d+: \d+ packets lost \(window_advanced\)",
        r"[1-9]\d* gaps raised, each in its place",
    ],
    "many_publishers.py": [
        *(rf"publisher-{index}: 2000 messages, complete and in order: True" for index in range(3)),
        r"streams heard: 3",
    ],
    "market_data.py": [
        r"apple: 500 quotes of AAPL\.quote, in order",
        r"both: 1000 quotes of AAPL\.quote, MSFT\.quote, in order",
    ],
    "poller.py": [r"quotes: AAPL 189\.20", r"news: rates unchanged"],
}
"""What each program prints, line by line, as patterns; the order of the poller's is free."""

URL_COUNTS = {"poller.py": 2}


def free_urls(count: int) -> list[str]:
    """Endpoints on loopback whose ports nobody else has now."""
    group = f"239.192.{os.getpid() % 200 + 20}"
    urls = []
    for index in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            urls.append(f"epgm://lo;{group}.{index + 1}:{probe.getsockname()[1]}")
    return urls


def run_example(name: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / name), *free_urls(URL_COUNTS.get(name, 1))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_prints_what_it_promises(name: str) -> None:
    lines = run_example(name)
    patterns = EXPECTED[name]
    if name == "poller.py":
        lines, patterns = sorted(lines), sorted(patterns)
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


def test_every_example_is_run_and_has_a_main() -> None:
    found = {path.name: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert sorted(found) == sorted(EXPECTED)
    assert [name for name, text in found.items() if "def main(" not in text] == []
