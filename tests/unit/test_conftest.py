"""The rules about skipping: a skip that CI must not have is planted and has to be found."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel_independent

ROOT = Path(__file__).resolve().parents[2]

SKIPPED = """
from __future__ import annotations
import pytest

@pytest.mark.{marker}
def test_one():
    pytest.skip("the peer has a cold")
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A test folder of its own with our conftest and our markers, outside CI until told."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("MCAST_LIBZMQ_PYTHON", __file__)  # a peer that exists
    pytester.mkdir("tests")
    for name in ("pyproject.toml", "tests/conftest.py"):
        (pytester.path / name).write_bytes((ROOT / name).read_bytes())
    return pytester


def write(session: pytest.Pytester, source: str) -> None:
    (session.path / "tests/test_planted.py").write_text(source, encoding="utf-8")


@pytest.mark.parametrize("marker", ["interop", "namespace"])
def test_skip_that_ci_must_not_have_fails_there(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    write(session, SKIPPED.format(marker=marker))
    session.runpytest_subprocess().assert_outcomes(skipped=1)
    monkeypatch.setenv("CI", "true")
    result = session.runpytest_subprocess()
    # A skip of the test itself fails in its call, one for want of root in its set-up.
    outcomes = result.parseoutcomes()
    assert outcomes.get("skipped", 0) == 0
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_missing_peer_is_a_skip_with_its_reason_and_a_failure_in_ci(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MCAST_LIBZMQ_PYTHON")
    write(session, "import pytest\n\n@pytest.mark.interop\ndef test_one(): ...")
    result = session.runpytest_subprocess()
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines("*MCAST_LIBZMQ_PYTHON is not set*")
    monkeypatch.setenv("CI", "true")
    assert session.runpytest_subprocess().ret == pytest.ExitCode.TESTS_FAILED


def test_missing_program_is_named(session: pytest.Pytester) -> None:
    write(session, "import pytest\n\n@pytest.mark.interop('zshark')\ndef test_one(): ...")
    result = session.runpytest_subprocess()
    result.stdout.fnmatch_lines("*the program zshark is not installed*")


def test_module_skipped_as_a_whole_fails_in_ci(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(session, "import pytest\npytest.skip('not today', allow_module_level=True)")
    monkeypatch.setenv("CI", "true")
    assert session.runpytest_subprocess().ret != pytest.ExitCode.OK


def test_other_skips_and_expected_failures_pass_in_ci(
    session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        session,
        "import pytest\n\n"
        "def test_one(): pytest.skip('elsewhere')\n\n"
        "@pytest.mark.interop\n@pytest.mark.xfail(reason='known')\ndef test_two(): assert 0",
    )
    monkeypatch.setenv("CI", "true")
    session.runpytest_subprocess().assert_outcomes(skipped=1, xfailed=1)


def test_quick_and_second_pass_leave_out_what_they_say(session: pytest.Pytester) -> None:
    write(
        session,
        "import pytest\n\n"
        "@pytest.mark.slow\ndef test_one(): ...\n\n"
        "@pytest.mark.kernel_independent\ndef test_two(): ...\n\n"
        "def test_three(): ...",
    )
    session.runpytest_subprocess("--quick").assert_outcomes(passed=2, deselected=1)
    session.runpytest_subprocess("--quick", "--second-pass").assert_outcomes(passed=1, deselected=2)
