"""A child process that a test talks to line by line, and that certainly ends.

Owns one process group: stdin and stdout as lines, stderr in a file for the failure message. Knows
nothing of networks.

Invariant: after ``kill`` neither the process nor anything it started is running.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["LabError", "Process"]


class LabError(RuntimeError):
    """The laboratory could not do what was asked; the text holds the tool's own words."""


class Process:
    """A process with line-wise stdout, stderr in a file, and an end that is certain.

    Single-threaded: one test reads it. ``pid`` is the command itself (``ip netns exec`` execs).
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.arguments = list(arguments)
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._rest = b""
        self.lines: list[str] = []

    @property
    def pid(self) -> int:
        """The process id of the command."""
        return self._process.pid

    @property
    def output(self) -> int:
        """The descriptor of its stdout, for who watches several; don't mix with ``read_line``."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def stderr(self) -> str:
        """Everything the process has written to stderr so far."""
        return self._log.read_text(errors="replace")

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.poll()

    def tell(self, line: str) -> None:
        """Write one line to the process's stdin; a process that has ended does not hear it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def read_line(self, *, timeout_s: float) -> str | None:
        """Return the next line of stdout without its end, None at the end of the stream.

        Raises ``LabError`` with the process's stderr when the time runs out.
        """
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise LabError(f"no line within {timeout_s} s\n{self.obituary()}")
                chunk = os.read(descriptor, 65536)
                if not chunk:
                    return None
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        self.lines.append(line.decode(errors="replace"))
        return self.lines[-1]

    def wait_json(self, event: str, *, timeout_s: float) -> dict[str, object]:
        """Return the next JSON line whose ``event`` is this one; other lines are passed over."""
        deadline = time.monotonic() + timeout_s
        while True:
            line = self.read_line(timeout_s=max(deadline - time.monotonic(), 0.001))
            if line is None:
                raise LabError(f"ended before it said {event!r}\n{self.obituary()}")
            with contextlib.suppress(json.JSONDecodeError):
                found = json.loads(line)
                if isinstance(found, dict) and found.get("event") == event:
                    return found

    def wait(self, *, timeout_s: float) -> int:
        """Return the exit status; raise ``LabError`` when it does not end in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"still running after {timeout_s} s\n{self.obituary()}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it still runs."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the process and what it started, at once, and collect it; safe to call twice."""
        if self._process.poll() is None:
            # Its own session, so its own group: children go with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def obituary(self) -> str:
        """Return what is known of the process, for a failure message."""
        try:
            stderr = self.stderr[-4000:]
        except OSError:
            stderr = ""
        said = "\n".join(self.lines[-20:])
        return (
            f"--- {' '.join(self.arguments)}\n    exit status {self.poll()}\n"
            f"    stdout: {said}\n    stderr: {stderr}"
        )
