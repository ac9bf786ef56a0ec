"""What the checks look at: files of /proc and /sys, commands, and the kernel's own answers.

Owns every look at the machine that is not a socket's; ``mcast.net.survey`` owns those. A check gets
a ``Machine`` and asks it, so that a test can give it another root directory and other answers.
Invariant: nothing is changed and nothing is sent; what cannot be read is None.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from mcast.endpoint import MulticastEndpoint
from mcast.net.interfaces import Interface, list_interfaces
from mcast.net.survey import Link, granted_buffers, list_links
from mcast.options import SocketOptions

__all__ = ["Machine", "Run", "Subject", "run_command"]

_MOST_FILE_BYTES: Final = 1 << 20
_COMMAND_LIMIT_S: Final = 5.0
_SBIN: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Where Debian keeps ``nft`` and ``ip``, which is not in a user's path."""


class Run(Protocol):
    """Runs a command and gives its output, or None when it is not there or fails."""

    def __call__(self, *command: str) -> str | None:
        """The command's stdout."""


def run_command(*command: str) -> str | None:
    """The stdout of ``command``, or None when it is not installed, fails, or takes over 5 s."""
    path = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *command[1:]], capture_output=True, timeout=_COMMAND_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


@dataclass(slots=True)
class Machine:
    """This machine, or one that a test made up."""

    root: Path = Path("/")
    """What file names are below."""
    run: Run = run_command
    """How commands are run."""
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    """Whether a firewall may be looked at."""
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    """The environment variables."""

    def text(self, path: str) -> str | None:
        """The text of a file, its first MiB at most; None when it cannot be read."""
        try:
            with (self.root / path.lstrip("/")).open("rb") as file:
                return file.read(_MOST_FILE_BYTES).decode(errors="replace")
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """The whole number in a file; None when there is none."""
        try:
            return int((self.text(path) or "").strip())
        except ValueError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is a file of that name."""
        return (self.root / path.lstrip("/")).exists()

    def json(self, *command: str) -> object:
        """What a command writes as JSON; None when it does not."""
        text = self.run(*command)
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            return None

    def counter(self, path: str, group: str, name: str) -> int:
        """A counter of /proc/net/snmp or /proc/net/netstat, 0 when there is none.

        Both files hold pairs of lines, ``Group: names`` and ``Group: values``.
        """
        rows = [
            line.split()[1:]
            for line in (self.text(path) or "").splitlines()
            if line.startswith(f"{group}:")
        ]
        if len(rows) < 2 or name not in rows[0]:
            return 0
        place = rows[0].index(name)
        return int(rows[1][place]) if place < len(rows[1]) else 0

    def links(self) -> list[Link]:
        """Every network device."""
        return list_links()

    def interfaces(self) -> list[Interface]:
        """Every address of every device."""
        return list_interfaces()

    def granted_buffers(self, rcvbuf_bytes: int, sndbuf_bytes: int) -> tuple[int, int]:
        """The socket buffers that the kernel grants."""
        return granted_buffers(rcvbuf_bytes, sndbuf_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is examined: an interface, and the endpoint on it if a URL was given."""

    link: Link
    """The device."""
    interface: Interface | None
    """Its address; None when it has none or is down."""
    endpoint: MulticastEndpoint | None
    """The group and port; None without a URL."""
    options: SocketOptions
    """The options that the socket would have."""
    probe: bool = False
    """May send test packets."""
    listen_s: float = 0.0
    """How long to listen for an IGMP querier; 0: not."""

    @property
    def version(self) -> int:
        """4 or 6."""
        if self.endpoint is not None:
            return self.endpoint.version
        return 4 if self.interface is None else self.interface.version

    @property
    def group(self) -> str:
        """The group, or one to look up a route with."""
        if self.endpoint is not None:
            return self.endpoint.group
        return "239.192.0.1" if self.version == 4 else "ff08::7777"
