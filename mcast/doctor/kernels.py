"""Is the compiled kernel there, and does the system's kernel cut and join runs of datagrams?"""

from __future__ import annotations

from collections.abc import Iterator

from mcast import kernel
from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine
from mcast.net.survey import udp_offloads
from mcast.options import SocketOptions

__all__ = ["check"]

_NAME = "kernel"


def check(machine: Machine, options: SocketOptions) -> Iterator[Finding]:  # noqa: ARG001
    """Findings about mcast's compiled kernel and the system's UDP offloads."""
    asked = machine.environment.get("MCAST_KERNEL", "")
    if kernel.NAME == "native":
        yield Finding(_NAME, Severity.OK, "mcast runs on its compiled kernel")
    elif asked == "reference":
        yield Finding(
            _NAME,
            Severity.WARNING,
            "mcast runs on its reference kernel, which is far slower, because MCAST_KERNEL asks it",
            ("unset MCAST_KERNEL",),
        )
    else:
        yield Finding(
            _NAME,
            Severity.WARNING,
            "mcast runs on its reference kernel, which is far slower: the compiled one was not"
            " built (it needs a C compiler and Python's headers)",
            ("MCAST_NATIVE=require pip install --force-reinstall --no-binary mcast mcast",),
        )
    gso, gro = udp_offloads()
    for known, name, since in ((gso, "GSO", "4.18"), (gro, "GRO", "5.0")):
        if known:
            yield Finding(_NAME, Severity.OK, f"the system has UDP {name}")
        else:
            yield Finding(
                _NAME,
                Severity.WARNING,
                f"the system has no UDP {name} (Linux {since}): many times fewer packets/s",
            )
