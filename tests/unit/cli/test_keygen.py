"""``mcast keygen``: what it prints and writes, and that it overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mcast
from mcast.cli import main

pytestmark = pytest.mark.kernel_independent


def test_the_two_keys_belong_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--json"]) == 0
    keys = json.loads(capsys.readouterr().out)
    assert mcast.curve_public(keys["secret"]) == keys["public"]
    assert main(["keygen"]) == 0
    public, secret = (line.split()[1] for line in capsys.readouterr().out.splitlines())
    assert mcast.curve_public(secret) == public


def test_files_are_written_once_and_the_secret_for_the_owner_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(tmp_path / "server")
    assert main(["keygen", "--out", name]) == 0
    secret = Path(f"{name}.key_secret")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert mcast.curve_public(secret.read_text().strip()) == Path(f"{name}.key").read_text().strip()
    said = capsys.readouterr()
    assert said.out == ""
    assert secret.read_text().strip() not in said.err
    assert main(["keygen", "--out", name]) == 2
    assert "File exists" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--help"]) == 0
    assert "examples:" in capsys.readouterr().out
