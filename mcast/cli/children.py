"""The demonstration's child processes: what each is told, and how the parent talks to it.

A child reads commands from stdin and writes reports to stdout, both a line each, reports in JSON.
Invariant: no child outlives the parent: it ends when its stdin does, and ``Child.end`` kills it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Final

__all__ = ["GRACE_S", "Child", "Plan"]

GRACE_S: Final = 2.0
"""A child that was told to end gets so long before it is killed."""

_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a child process needs to know."""

    name: str
    """What the table calls it."""
    role: str
    """``publish`` or ``subscribe``."""
    url: str
    """The endpoint."""
    incarnation: int
    """This run of the demonstration, in every payload."""
    message_count: int
    """Messages in all."""
    size_bytes: int
    """Bytes of each."""
    rate: float
    """Most bits per second."""
    drop_rate: float
    """Fraction of the arriving packets that a subscriber throws away."""
    drop_seed: int
    """Seed of the dice for that."""
    plant: str | None
    """A fault between the library and this subscriber's ledger, or None."""


class Child:
    """One child process, from its start to its certain end."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report: dict[str, object] = {}
        """All fields of its reports, the newest value of each."""
        self.was_stopped = False
        """True if it was asked to end before it was done."""
        self._rest = b""
        # A file takes whatever is said, at any time; a pipe would have to be read.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed by end
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mcast.cli.demo_process", json.dumps(asdict(plan))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            # Ctrl-C is for the parent, which ends the children in order.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when a report has come, or the child has ended."""
        return self._stdout.fileno()

    def read(self) -> bool:
        """Take in what was reported; False at its end. For when ``fileno`` is readable."""
        chunk = os.read(self._stdout.fileno(), _READ_BYTES)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self.report |= json.loads(line)
        return bool(chunk)

    def has(self, stage: str) -> bool:
        """True once the child has reported this stage."""
        return bool(self.report.get(stage))

    def count(self, name: str) -> int:
        """A number from the newest report, 0 if there was none."""
        found = self.report.get(name, 0)
        return int(found) if isinstance(found, int | float) else 0

    def tell(self, command: str) -> None:
        """Write a command; a child that has ended does not hear it."""
        try:
            self._stdin.write(command.encode() + b"\n")
        except BrokenPipeError:
            return

    def stop(self) -> None:
        """Ask it to end before it is done; from now on its exit status means nothing."""
        if self._process.poll() is None:
            self.was_stopped = True
        self._stdin.close()

    def end(self) -> tuple[int, str]:
        """End it, if it has not; its exit status, and what it wrote to stderr.

        Blocks up to ``GRACE_S``. Once only.
        """
        self._stdin.close()
        try:
            status = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._stdout.close()
        with self._stderr as stderr:
            stderr.seek(0)
            return status, stderr.read().decode(errors="replace").strip()
