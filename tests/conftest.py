"""What every test shares: who may be skipped and where, and seeded random examples.

Owns the meaning of the markers ``interop`` and ``namespace`` (see pyproject.toml) and two options
of ours. The invariant: with ``CI=true`` no test with one of these markers is skipped, whatever
the reason: such a skip is turned into a failure, and so is a module skipped as a whole, whose
markers nobody has seen.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run: a failure that a colleague sees, everybody sees.
hypothesis.settings.register_profile("seeded", derandomize=True, deadline=None)
hypothesis.settings.load_profile("seeded")

# A shell that starts a run in the background has it ignore Ctrl-C, and so would every child.
signal.signal(signal.SIGINT, signal.default_int_handler)

NO_SKIP_IN_CI = ("interop", "namespace")


def in_ci() -> bool:
    return os.environ.get("CI") == "true"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mcast")
    group.addoption("--quick", action="store_true", help="leave out the tests marked slow")
    group.addoption(
        "--second-pass",
        action="store_true",
        help="leave out the tests marked kernel_independent: another pass has run them",
    )


def pytest_configure() -> None:
    # Under nohup it is ignored, and so would the programs do that the tests start and hang up on.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = []
    if config.getoption("--quick"):
        left_out.append("slow")
    if config.getoption("--second-pass"):
        left_out.append("kernel_independent")
    deselected = [item for item in items if any(map(item.get_closest_marker, left_out))]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in set(deselected)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("namespace"):
        skip_if(why_no_namespaces())
    for marker in item.iter_markers("interop"):
        for peer in marker.args or ("libzmq",):
            skip_if(why_no_peer(peer))


def skip_if(reason: str | None) -> None:
    if reason is not None:
        pytest.skip(reason)


@functools.cache
def why_no_namespaces() -> str | None:
    """Why network namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need `ip` (apt-get install iproute2)"
    name = f"mcast-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"network namespaces are refused: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


@functools.cache
def why_no_peer(peer: str) -> str | None:
    """Why ``peer`` ("libzmq", "pyzmq" or the name of a program) cannot be used here, or None."""
    name = {"libzmq": "MCAST_LIBZMQ_PYTHON", "pyzmq": "MCAST_PYZMQ_PYTHON"}.get(peer)
    if name is None:
        return None if shutil.which(peer) else f"the program {peer} is not installed"
    python = os.environ.get(name)
    if not python:
        return f"no {peer} peer: {name} is not set (tools/test makes the peer)"
    if not Path(python).is_file():
        return f"no {peer} peer: {name}={python} does not exist"
    return None


@pytest.fixture(scope="session")
def libzmq_python() -> str:
    """The interpreter whose ``zmq`` speaks PGM through Debian's libzmq; a peer process runs it."""
    skip_if(why_no_peer("libzmq"))
    return os.environ["MCAST_LIBZMQ_PYTHON"]


@pytest.fixture(scope="session")
def pyzmq_python() -> str:
    """The interpreter that has the pyzmq wheel, whose libzmq is the newest; no PGM in it."""
    skip_if(why_no_peer("pyzmq"))
    return os.environ["MCAST_PYZMQ_PYTHON"]


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    must_run = any(map(item.get_closest_marker, NO_SKIP_IN_CI))
    if in_ci() and must_run and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {skip_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if in_ci() and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped as a whole, which CI does not allow: {skip_reason(report)}"
    return report
