"""The tools a laboratory is made with: ``ip``, ``nft`` and whatever runs inside a namespace.

Invariant: a tool that fails is a ``LabError`` with the tool's own words, never a silent half-built
laboratory.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from tests.support.process import LabError

__all__ = ["COMMAND_LIMIT_S", "ip", "run", "set_parameter"]

COMMAND_LIMIT_S = 20.0


def ip(*arguments: str) -> str:
    """Run ``ip`` and return its output."""
    return run(["ip", *arguments]).stdout


def set_parameter(namespace: str, path: str, value: int) -> None:
    """Set a kernel parameter by its path: Debian's minimal install has no sysctl command."""
    run(["ip", "netns", "exec", namespace, "sh", "-c", f"echo {value} > {path}"])


def run(
    arguments: Sequence[str], *, timeout_s: float = COMMAND_LIMIT_S, feed: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; raise ``LabError`` when it fails or takes too long."""
    try:
        done = subprocess.run(
            arguments, input=feed, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(arguments)} took over {timeout_s} s") from None
    if done.returncode:
        raise LabError(f"{' '.join(arguments)} failed: {done.stderr.strip() or done.stdout}")
    return done
