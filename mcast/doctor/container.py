"""Are we in a container or another network namespace, whose network may end at a bridge?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine
from mcast.options import SocketOptions

__all__ = ["check"]

_NAME = "container"
_ENGINES: Final = re.compile(r"\b(docker|kubepods|lxc|libpod|containerd|garden)\b")


def check(machine: Machine, options: SocketOptions) -> Iterator[Finding]:  # noqa: ARG001
    """Findings about where this process lives."""
    kind = _container(machine)
    own = _has_own_network(machine)
    if kind is None:
        text = "not in a container"
        if own:
            text += ", but in a network namespace of its own"
        yield Finding(_NAME, Severity.NOTE if own else Severity.OK, text)
        return
    text = (
        f"in a container ({kind}): a bridged container network carries multicast between its"
        " containers only; to reach the machine's network use the host's"
        " (docker run --network host) or a macvlan"
    )
    yield Finding(_NAME, Severity.NOTE, text)


def _container(machine: Machine) -> str | None:
    if machine.exists("/.dockerenv"):
        return "docker"
    if machine.exists("/run/.containerenv"):
        return "podman"
    if named := machine.environment.get("container"):
        return named
    found = _ENGINES.search(machine.text("/proc/1/cgroup") or "")
    return found[1] if found else None


def _has_own_network(machine: Machine) -> bool:
    """Whether the network is another than that of process 1; False when that cannot be seen."""
    try:
        own, first = (
            os.readlink(machine.root / f"proc/{process}/ns/net") for process in ("self", "1")
        )
    except OSError:
        return False
    return own != first
