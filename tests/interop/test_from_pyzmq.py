"""The how-to on moving from pyzmq: its program and the port of it talk to each other."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop("pyzmq")

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "from-pyzmq.md"
PORT = ROOT / "docs" / "examples" / "stock.py"
TIMEOUT_S = 30


def free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def programs(pyzmq_python: str, tmp_path: Path) -> dict[str, list[str]]:
    """The command of each: the original as it stands on the page, and the port."""
    (original,) = re.findall(
        r"^```python pyzmq\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    file = tmp_path / "stock_pyzmq.py"
    file.write_text(original)
    return {"pyzmq": [pyzmq_python, str(file)], "mcast": [sys.executable, str(PORT)]}


@pytest.mark.parametrize("customer", ["pyzmq", "mcast"])
@pytest.mark.parametrize("keeper", ["pyzmq", "mcast"])
def test_either_half_works_with_either_half(
    programs: dict[str, list[str]], keeper: str, customer: str
) -> None:
    urls = [free_url(), free_url()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*programs[keeper], "keeper", *urls], env=environment) as keeps:
        try:
            bought = subprocess.run(
                [*programs[customer], "customer", *urls],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                env=environment,
                check=True,
            )
            assert keeps.wait(TIMEOUT_S) == 0
        finally:
            keeps.kill()
    *ordered, sold_out = bought.stdout.splitlines()
    assert len(ordered) == 5
    assert sold_out == "sold out: ['bolts', 'nuts']"
