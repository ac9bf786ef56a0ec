"""What every command's help has, and the completion that is made of the parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcast.cli import main, make_parser

pytestmark = pytest.mark.kernel_independent


def commands() -> list[str]:
    return sorted(make_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("command", commands())
def test_help_of_every_command_has_its_parts(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "exit status" in text
    assert "examples" in text
    assert f"  mcast {command}" in text or f"| mcast {command}" in text
    assert max(map(len, text.splitlines())) <= 100


def script(shell: str, capsysbinary: pytest.CaptureFixture[bytes]) -> str:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    return capsysbinary.readouterr().out.decode()


def test_bash_completes_commands_options_and_interfaces(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    file = tmp_path / "mcast"
    file.write_text(script("bash", capsysbinary))

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source {file}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1};"
            "_shtab_mcast; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout.split()

    assert sorted(completed("mcast", "")) == commands()
    assert completed("mcast", "doc") == ["doctor"]
    assert completed("mcast", "send", "--pre") == ["--preset"]
    assert completed("mcast", "send", "--preset", "vo") == ["voice"]
    assert "lo" in completed("mcast", "send", "-i", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_of_all_commands(
    shell: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = script(shell, capsysbinary)
    assert [command for command in commands() if command not in text] == []


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "ksh"]) == 3
    assert "invalid choice: 'ksh'" in capsys.readouterr().err


def test_without_shtab_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['shtab'] = None; from mcast.cli import main;"
        "sys.exit(main(['completion', 'bash']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'mcast[cli]'" in done.stderr
