"""Both ends of ``mcast perf`` as processes of this machine: started, met, and read.

Owns the processes and the order in which they begin and end. Invariant: none of them is left when
``run_both`` returns or raises, and it takes no longer than ``--timeout`` and a grace.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from mcast.cli.perf_load import Load, OutOfTimeError, Result
from mcast.cli.perf_sockets import RECEIVER_TYPES, is_group
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, TURN_S
from mcast.errors import Error
from mcast.options import OptionValue
from mcast.runtime.deadline import Deadline

__all__ = ["run_both"]

_GRACE_S: Final = 5.0
"""What starting an interpreter and closing the sockets may take beyond the ends' own limits."""


class _End:
    """One end as a process, its stdout read line by line against a common deadline."""

    def __init__(self, kind: str, arguments: Sequence[str], deadline: Deadline) -> None:
        self._kind = kind
        self._deadline = deadline
        self._rest = b""
        self.other: _End | None = None
        """The end that this one waits for, if it waits for one."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mcast", "perf", kind, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def line(self) -> str:
        """The next line. Raises Error when this or the other end ends before, or out of time."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left_s = self._deadline.left
            if left_s == 0:
                raise OutOfTimeError(f"the {self._kind} process did not end in time")
            if not select.select((descriptor,), (), (), min(TURN_S, left_s or TURN_S))[0]:
                if self.other is not None and self.other.has_failed:
                    raise Error(f"the {self.other._kind} process ended without a result")
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise Error(f"the {self._kind} process ended without a result")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    @property
    def has_failed(self) -> bool:
        """It ended with an error of its own; what was lost or required is none."""
        return self._process.poll() not in (None, EXIT_OK, EXIT_UNMET)

    def expect(self, word: str) -> None:
        """Wait for this word."""
        while self.line() != word:
            pass

    def result(self) -> Result:
        """What the process measured; its exit status is about loss, which the result tells, too."""
        found: Result = json.loads(self.line())
        return found

    def tell(self) -> None:
        """A line on its stdin: begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def let_end(self) -> None:
        """The end of its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def __enter__(self) -> _End:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run_both(arguments: argparse.Namespace, load: Load) -> Result:
    """What the receiving end of the load measured, and of throughput also the sending one.

    Blocks. Raises: Error when an end gives no result, OutOfTimeError.
    """
    timeout_s = load.timeout_s
    deadline = Deadline(timeout_s + _GRACE_S)
    common = ["--coordinated", "--json", f"--timeout={timeout_s}", f"--loop={arguments.loop}"]
    common += ["--busy-poll"] * arguments.busy_poll
    common += [f"-o{name}={_option_text(value)}" for name, value in arguments.option]
    binds = ["--bind"] * (not is_group(load.url))
    several = load.sockets > 1  # which cannot bind one URL
    shape = [f"--size={arguments.size}"]
    shape += (
        [f"--count={arguments.count}"]
        if arguments.count is not None
        else [f"--duration={arguments.duration}"]
    )
    quiet = ["--quiet"] * arguments.quiet
    if arguments.kind == "latency":
        common += [load.url, f"--reply={load.reply}", f"--type={load.type}"]
        with _End("pong", [*common, *binds, "--quiet"], deadline) as pong:
            pong.expect("ready")
            pause = f"--interval={arguments.interval}"
            with _End("ping", [*common, *shape, pause, *quiet], deadline) as ping:
                ping.other = pong
                return ping.result()
    common += [load.url, f"--batch={load.batch}"]
    rate = [] if arguments.rate is None else [f"--rate={arguments.rate}"]
    hears = {sender: receiver for receiver, sender in RECEIVER_TYPES.items()}[load.type]
    receiver = [f"--sockets={load.sockets}", f"--type={hears}", *binds * (not several)]
    with _End("sub", [*common, *receiver, *quiet], deadline) as sub:
        sub.expect("ready")
        sender = [*shape, *rate, f"--type={load.type}", *binds * several, "--quiet"]
        with _End("pub", [*common, *sender], deadline) as pub:
            sub.other = pub
            sub.expect("joined")
            pub.tell()
            received = sub.result()
            pub.let_end()
            sent = pub.result()
    return received | {f"pub_{name}": value for name, value in sent.items() if name != "kernel"}


def _option_text(value: OptionValue) -> str:
    return "none" if value is None else str(value)
