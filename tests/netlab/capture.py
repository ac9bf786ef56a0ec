"""tcpdump on one interface of a host, for the length of a block."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.netlab.commands import COMMAND_LIMIT_S
from tests.support.process import LabError, Process

if TYPE_CHECKING:
    from tests.netlab.host import Host

__all__ = ["Capture"]


class Capture:
    """tcpdump for the length of a block; ``path`` is complete when the block has ended.

    ``missed`` is how many packets tcpdump could not keep up with: 0, or the file proves nothing.
    """

    def __init__(
        self, host: Host, path: Path, port: int | None, interface: str, snapshot_bytes: int
    ) -> None:
        self.host = host
        self.path = path
        self.missed = 0
        self._filter = ["udp"] if port is None else ["udp", "port", str(port)]
        self._interface = interface
        self._snapshot_bytes = snapshot_bytes
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self._process = self.host.start(
            [
                *("tcpdump", "-i", self._interface, "-w", str(self.path), "-U", "-n"),
                # Without immediate mode this kernel hands over no block for seconds (measured).
                *("--immediate-mode", "-B", "32768", "-s", str(self._snapshot_bytes)),
                *("-Z", "root", *self._filter),
            ]
        )
        deadline = time.monotonic() + COMMAND_LIMIT_S
        while "listening on" not in self._process.stderr:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"tcpdump did not start\n{self._process.obituary()}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        # On a busy machine tcpdump is behind; it has caught up when the file stops growing.
        size = -1
        while self._process.poll() is None and size != self.path.stat().st_size:
            size = self.path.stat().st_size
            time.sleep(0.2)
        self._process.signal(signal.SIGINT)
        self._process.wait(timeout_s=COMMAND_LIMIT_S)
        found = re.search(r"(\d+) packets? dropped by kernel", self._process.stderr)
        self.missed = int(found[1]) if found else 0
