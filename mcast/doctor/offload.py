"""Are segmentation and receive offload switched on at the device?"""

from __future__ import annotations

from collections.abc import Iterator

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject

__all__ = ["check"]

_NAME = "offload"


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Findings about GSO and GRO of the device; a device that does not say gives none."""
    link = subject.link
    if link.gso is False:
        yield Finding(
            _NAME,
            Severity.WARNING,
            f"GSO of {link.name} is off: runs of datagrams are cut early, which costs sending rate",
            (f"ethtool -K {link.name} gso on",),
        )
    if link.gro is False and not link.is_loopback:
        yield Finding(
            _NAME,
            Severity.NOTE,
            f"GRO of {link.name} is off: each datagram is received alone. To turn it on:"
            f" ethtool -K {link.name} gro on",
        )
    if link.gso and link.gro:
        yield Finding(_NAME, Severity.OK, f"GSO and GRO of {link.name} are on")
