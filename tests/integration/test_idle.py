"""A context that has nothing to do does nothing.

The processes are those of tools/bench/endurance, for a shorter time and with twice its bar.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import fresh_url

PROGRAM = Path(__file__).resolve().parents[2] / "tools/bench/endurance_ends.py"
SHARE = 0.01


def idle_share(*, receives: bool) -> float:
    order = {"url": fresh_url(), "receives": receives, "duration_s": 2.0, "settle_s": 0.5}
    done = subprocess.run(
        [sys.executable, PROGRAM, "idle", json.dumps(order)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout)["share"])


def test_a_context_in_which_nobody_waits_takes_no_cpu() -> None:
    assert idle_share(receives=False) < SHARE


def test_a_subscriber_that_waits_in_recv_takes_no_cpu() -> None:
    assert idle_share(receives=True) < SHARE
