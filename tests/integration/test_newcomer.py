"""The newcomer's path: the commands of README.md and of the tutorial lead to a first message.

``tools/newcomer`` walks all of it, in a fresh clone and with the install; here are its terminals,
with the mcast of this environment and an endpoint of the test's own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial" / "first-steps.md"
URL = "epgm://lo;239.192.1.1:5555"

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for bash")


@pytest.fixture(scope="module")
def newcomer() -> ModuleType:
    loader = SourceFileLoader("newcomer", str(ROOT / "tools" / "newcomer"))
    spec = importlib.util.spec_from_loader("newcomer", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def commands_of(page: str) -> list[str]:
    """Every command that a page shows."""
    blocks = re.findall(r"^```console[^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the environment that the pages tell the reader to make: this one."""
    scripts = tmp_path / "env" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "mcast").write_text(f'#!/bin/sh\nexec {sys.executable} -m mcast "$@"\n')
    (scripts / "mcast").chmod(0o755)
    (scripts / "activate").write_text(
        f"PATH={scripts}:$PATH PYTHONPATH={ROOT}; export PYTHONPATH\n"
    )
    return tmp_path


@pytest.mark.kernel_independent
def test_both_pages_install_in_the_same_way_and_the_tool_runs_it(newcomer: ModuleType) -> None:
    readme, tutorial = newcomer.path_of(README.read_text()), newcomer.path_of(TUTORIAL.read_text())
    assert readme.install == tutorial.install
    shown = commands_of(README.read_text())
    told = [*readme.install, *readme.first, *readme.second]
    assert shown[: len(told)] == told
    listed = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "newcomer"), "--list"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [line.strip() for line in listed.splitlines() if line.startswith("  ")] == told


@needs_bash
@pytest.mark.parametrize("page", [README, TUTORIAL], ids=lambda page: page.name)
def test_the_commands_of_a_page_lead_to_a_message(
    newcomer: ModuleType, home: Path, url: str, page: Path
) -> None:
    text = page.read_text().replace(URL, url)
    path = newcomer.path_of(text)
    environment = dict(os.environ)
    with (
        newcomer.Terminal(home, environment) as first,
        newcomer.Terminal(home, environment) as second,
    ):
        first.run(". env/bin/activate")
        newcomer.first_message(first, second, path)
        assert first.interrupt() == 0
    assert "AAPL 189.20\n" in first.text
    assert "MSFT" not in first.text


@pytest.mark.slow
@needs_bash
def test_the_rest_of_the_tutorial_s_commands_run(newcomer: ModuleType, home: Path) -> None:
    text = TUTORIAL.read_text()
    path = newcomer.path_of(text)
    shown = commands_of(text)
    rest = shown[len(path.install) + len(path.first) + len(path.second) :]
    assert rest == ["mcast demo --messages 20000"]
    with newcomer.Terminal(home, dict(os.environ)) as terminal:
        terminal.run(". env/bin/activate")
        terminal.run(rest[0], 60.0)
        terminal.wait_for("every ledger closed: 3 x 20,000 delivered, 0 lost", 1.0)


@needs_bash
def test_the_commands_of_the_page_on_encryption_give_an_answer(
    newcomer: ModuleType, home: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = (ROOT / "docs" / "howto" / "encrypt.md").read_text().replace(":5555", f":{port}")
    *make_keys, serve, ask = commands_of(text)
    with (
        newcomer.Terminal(home, dict(os.environ)) as first,
        newcomer.Terminal(home, dict(os.environ)) as second,
    ):
        for terminal in (first, second):
            terminal.run(". env/bin/activate")
        for command in make_keys:
            first.run(command, 20.0)
        first.type(serve)
        second.run(ask, 20.0)
    assert "\nhello\n" in second.text


@needs_bash
@pytest.mark.kernel_independent
def test_a_command_that_fails_and_a_message_that_does_not_come_are_found(
    newcomer: ModuleType, tmp_path: Path
) -> None:
    with newcomer.Terminal(tmp_path, dict(os.environ)) as terminal:
        with pytest.raises(newcomer.Failure, match="ended with status 7"):
            terminal.run("sh -c 'exit 7'")
        with pytest.raises(newcomer.Failure, match="no 'AAPL' within"):
            terminal.wait_for("AAPL", 0.2)


@pytest.mark.kernel_independent
@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("nothing", "0 blocks are marked"),
        ("```console install\n$ a\n```\n```console install\n$ b\n```\n", "2 blocks are marked"),
        ("```console install\n$ a\noutput\n```\n", "lines that are no commands"),
    ],
)
def test_a_page_that_lacks_its_commands_is_refused(
    newcomer: ModuleType, page: str, fault: str
) -> None:
    with pytest.raises(newcomer.Failure, match=fault):
        newcomer.path_of(page)
