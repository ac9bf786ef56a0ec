"""A captured session for users' tests: the fixture ``mcast_capture``.

Owns the recording process, ``mcast record``: it needs no right, and what the test does cannot hold
it up. Invariant: no process outlives its test. Part of ``mcast.testing.pytest_plugin``; alone it is
asked for with ``pytest_plugins = ["mcast.testing.capture_fixtures"]``.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from mcast.testing.captured import CapturedSession, read_session

__all__ = ["RunningCapture", "mcast_capture"]

_END_LIMIT_S: Final = 30.0
"""The recorder ends at once; this is for a machine that is overloaded."""
_SETTLE_S: Final = 0.2
"""What was sent before ``stop`` still has to be taken from the recorder's socket."""


class RunningCapture:
    """A recording under way."""

    def __init__(self, path: Path, groups: tuple[str, ...], interface: str) -> None:
        """Returns when the groups are joined. Raises ``RuntimeError`` with the recorder's words."""
        self.path = path
        """The pcapng file; complete after ``stop``."""
        command = [sys.executable, "-m", "mcast", "record", "-q", "-i", interface, str(path)]
        self._process = subprocess.Popen([*command, *groups], stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.startswith("mcast record: recording"):
                return
            if not line.startswith("mcast record: warning"):
                self.abandon()
                raise RuntimeError(line.strip())
        self.abandon()
        raise RuntimeError("mcast record ended before it recorded anything")

    def stop(self) -> CapturedSession:
        """What was heard. Blocks a fifth of a second; raises ``RuntimeError`` if packets were
        dropped while recording, since the capture then proves nothing."""
        try:
            self._process.wait(_SETTLE_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGTERM)
        _, said = self._process.communicate(timeout=_END_LIMIT_S)
        if self._process.returncode:
            raise RuntimeError(said.strip() or f"status {self._process.returncode}")
        return read_session(self.path)

    def abandon(self) -> None:
        """End the recording, if it still runs, and wait for it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def mcast_capture(tmp_path: Path) -> Iterator[Callable[..., RunningCapture]]:
    """A function that starts recording ``GROUP:PORT ...`` on ``interface``, which is ``lo``.

    Its result's ``stop()`` gives the session: ``streams``, ``messages``, and what
    ``assert_no_gaps`` and ``assert_repaired`` take. The file lies in the test's ``tmp_path``.
    """
    started: list[RunningCapture] = []

    def start(*groups: str, interface: str = "lo") -> RunningCapture:
        path = tmp_path / f"mcast-{len(started) + 1}.pcapng"
        started.append(RunningCapture(path, groups, interface))
        return started[-1]

    yield start
    for capture in started:
        capture.abandon()
