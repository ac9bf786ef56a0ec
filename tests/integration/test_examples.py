"""Every program of the documentation runs, ends, and prints what its text promises.

These are the files in docs/examples, the Python of README.md, and the blocks of the other pages
that are marked ``python run``. Each runs as users run it, in a process of its own, on loopback,
with a group and port of its own so that runs side by side don't hear each other.
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
    "broker.py": [r"hello -> HELLO", r"world -> WORLD"],
    "clone.py": [r"3 copies of 50 keys, all the same as the table: True"],
    "encrypted.py": [r"friend: you said hello", r"stranger: no answer", r"in the clear: no answer"],
    "envelopes.py": [r"weather: sunny"] * 3,
    "forwarder.py": [
        *[r"a publisher hears of the subscription: b'\\x01A'"] * 2,
        r"from publisher 0",
        r"from publisher 1",
        r"messages through the proxy: 2",
    ],
    "lazy_pirate.py": [
        r"server: one",
        r"server: two, which is asked again",
        r"client: first",
        r"client: second",
        r"client: no reply",
    ],
    "load_balancer.py": [r"60 tasks done", r"the fast worker did more: True"],
    "ventilator.py": [
        *(rf"worker-{index}: 100 tasks" for index in range(3)),
        r"sum of squares: 8955050",
    ],
    "asyncio_ticker.py": [r"PeerJoined", r"1000 messages in order"],
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
    "market_feed.py": [r"losses made up for: True, the same book: True"] * 3,
    "poller.py": [r"quotes: AAPL 189\.20", r"news: rates unchanged"],
    "stock.py": [
        *(rf"ordered: \{{'item': 'bolts', 'left': {left}\}}" for left in (2, 1, 0)),
        *(rf"ordered: \{{'item': 'nuts', 'left': {left}\}}" for left in (1, 0)),
        r"sold out: \['bolts', 'nuts'\]",
    ],
    "telemetry.py": [
        *(rf"sensor-{index}: 40 readings, none missing between: True" for index in range(5)),
        r"sensor-5: \d+ readings, none missing between: True",
        r"said goodbye: 5 of 6",
    ],
}
"""What each program prints, line by line, as patterns; the order of the poller's is free."""

URL_COUNTS = {
    "poller.py": 2,
    **dict.fromkeys(
        (
            "broker.py",
            "encrypted.py",
            "envelopes.py",
            "forwarder.py",
            "lazy_pirate.py",
            "load_balancer.py",
            "stock.py",
            "ventilator.py",
        ),
        0,
    ),
}

_BLOCK = re.compile(r"^```python( run)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_URL = re.compile(r"epgm://lo;[\d.]+:\d+")


def runnable_blocks() -> dict[str, str]:
    """Runnable code by page and place."""
    found: dict[str, str] = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = [
            match[2]
            for match in _BLOCK.finditer(page.read_text())
            if match[1] or page.name == "README.md"
        ]
        found |= {f"{page.relative_to(ROOT)}-{i}": block for i, block in enumerate(blocks, 1)}
    return found


BLOCKS = runnable_blocks()


def free_urls(count: int) -> list[str]:
    """Endpoints on loopback whose ports nobody else has now."""
    group = f"239.192.{os.getpid() % 200 + 20}"
    urls = []
    for index in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            urls.append(f"epgm://lo;{group}.{index + 1}:{probe.getsockname()[1]}")
    return urls


def run_python(*arguments: str) -> list[str]:
    """The lines that Python with these arguments prints; it has to end well and in time."""
    command = [sys.executable, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_prints_what_it_promises(name: str) -> None:
    lines = run_python(str(EXAMPLES / name), *free_urls(URL_COUNTS.get(name, 1)))
    patterns = EXPECTED[name]
    if name == "poller.py":
        lines, patterns = sorted(lines), sorted(patterns)
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.parametrize("place", BLOCKS)
def test_a_runnable_block_of_a_page_runs(place: str) -> None:
    """All URLs of a block become one, which is what its sockets have to agree on."""
    (url,) = free_urls(1)
    run_python("-c", _URL.sub(url, BLOCKS[place]))


def test_the_first_steps_print_what_the_tutorial_shows() -> None:
    """Word for word where it can be, in form where figures differ from run to run."""
    page = "docs/tutorial/first-steps.md"
    text = (ROOT / page).read_text()
    (url,) = free_urls(1)
    first, second, third = (_URL.sub(url, BLOCKS[f"{page}-{i}"]) for i in (1, 2, 3))
    assert "\n".join(run_python("-c", first)) in text
    complete, figures = run_python("-c", second)
    assert complete in text
    assert re.fullmatch(r"dropped: [1-9]\d* repaired: [1-9]\d*", figures)
    received, lost = run_python("-c", third)
    assert re.fullmatch(r"[1-4]\d{3} of 5000 messages; [1-9]\d* packets lost", received)
    assert lost.startswith("Lost(tsi='")


def test_every_example_is_run_and_has_a_main() -> None:
    found = {path.name: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert sorted(found) == sorted(EXPECTED)
    assert [name for name, text in found.items() if "def main(" not in text] == []
