"""The soak tool: a short run holds, and its ledger finds what it is there to find."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from mcast.events import LossReason, Lost, PeerJoined
from tests.support.soak_peer import FILLER, HEAD, Account

ROOT = Path(__file__).resolve().parents[2]
NAME = 1_000_000

pytestmark = pytest.mark.kernel_independent


def message(counter: int) -> bytes:
    head = struct.pack("!QQ", NAME, counter)
    return HEAD.pack(NAME, counter, zlib.crc32(head)) + FILLER


def account(*counters: int) -> Account:
    made = Account()
    made.event(PeerJoined("a.1", "10.77.0.1", 0))
    for counter in counters:
        made.message(message(counter))
    return made


def test_a_gap_that_was_reported_closes() -> None:
    made = account(0, 1, 5)
    made.event(Lost("a.1", 2, 3, 2, LossReason.REPAIR_DEADLINE))
    assert made.faults() == [
        f"{NAME}: silent loss of 2 to 4",
        f"{NAME}: loss of 2 to 3 that was none",
    ]
    made.event(Lost("a.1", 4, 4, 1, LossReason.REPAIR_DEADLINE))
    assert made.faults() == []


def test_silence_twice_and_damage_are_found() -> None:
    assert account(0, 2).faults() == [f"{NAME}: silent loss of 1 to 1"]
    assert account(0, 1, 1).faults() == ["0 corrupt, 1 twice"]
    made = account(0)
    made.message(message(1)[:-1] + b"x")
    assert made.faults() == ["1 corrupt, 0 twice"]


@pytest.mark.slow
@pytest.mark.namespace
def test_a_short_soak_holds() -> None:
    words = ["--minutes", "0.25", "--restart", "6", "--join", "5", "--growth", "20", "--json"]
    done = subprocess.run(
        [sys.executable, ROOT / "tools/soak", *words], capture_output=True, text=True, timeout=100
    )
    print(done.stdout, done.stderr)
    verdict = json.loads(done.stdout)
    assert done.returncode == 0
    assert verdict["held"]
    assert verdict["delivered"] > 1_000
    assert verdict["restarts"] >= 2
    assert verdict["joiners"] >= 2


def test_a_soak_says_what_is_wrong_with_its_arguments() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools/soak"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--minutes" in done.stderr
