"""Runs the two ends of one measurement as processes, and brings both of them to an end.

Owns the handshake's other side (see c/bench.h): every contender's programs speak it. Invariant:
when a function here returns or raises, none of the processes it started is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Command", "End", "Failed", "Result", "run_alone", "run_latency", "run_throughput"]

Result = dict[str, float]
Command = list[str | Path]


class Failed(RuntimeError):
    """A measurement did not come to its end; the text says what the process wrote last."""


class End:
    """One process, its stdout read line by line against a deadline."""

    def __init__(
        self, command: Sequence[str | Path], deadline: float, environment: dict[str, str]
    ) -> None:
        self.command = [str(part) for part in command]
        self._deadline = deadline
        self._rest = b""
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
            start_new_session=True,
        )

    def line(self) -> str:
        """The next line of stdout."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select((descriptor,), (), (), left)[0]:
                raise Failed(f"out of time: {' '.join(self.command)}")
            chunk = os.read(descriptor, 65536)
            if not chunk:
                words = self._last_words()
                last = (words.splitlines() or ["without a word"])[-1]
                raise Failed(f"ended early: {last}\n{' '.join(self.command)}\n{words}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace")

    def expect(self, word: str) -> None:
        """Read up to this line; libraries write their warnings in between."""
        while self.line() != word:
            pass

    def result(self) -> Result:
        """Read up to the line of JSON."""
        while not (line := self.line()).startswith("{"):
            pass
        found: Result = json.loads(line)
        return found

    def go(self) -> None:
        """A line on its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def let_end(self) -> None:
        """The end of its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __enter__(self) -> End:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._process.wait(3.0 if kind is None else 0.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        return (self._process.stderr.read() or b"")[-1500:].decode(errors="replace").strip()


def run_throughput(
    subscribers: Sequence[Sequence[str | Path]],
    publisher: Sequence[str | Path],
    *,
    environment: dict[str, str],
    limit_s: float,
) -> tuple[list[Result], Result]:
    """What each subscriber and the publisher measured. Raises Failed."""
    deadline = time.monotonic() + limit_s
    with contextlib.ExitStack() as stack:
        subs = [stack.enter_context(End(one, deadline, environment)) for one in subscribers]
        for sub in subs:
            sub.expect("ready")
        pub = stack.enter_context(End(publisher, deadline, environment))
        for sub in subs:
            sub.expect("joined")
        pub.go()
        received = [sub.result() for sub in subs]
        pub.let_end()
        return received, pub.result()


def run_alone(program: Sequence[str | Path], *, limit_s: float) -> Result:
    """What one process that has both ends measured. Raises Failed."""
    with End(program, time.monotonic() + limit_s, {}) as both:
        return both.result()


def run_latency(
    pong: Sequence[str | Path],
    ping: Sequence[str | Path],
    *,
    environment: dict[str, str],
    limit_s: float,
) -> Result:
    """What the ping end measured. Raises Failed."""
    deadline = time.monotonic() + limit_s
    with End(pong, deadline, environment) as answering:
        answering.expect("ready")
        with End(ping, deadline, environment) as asking:
            return asking.result()
