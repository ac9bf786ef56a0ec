"""Is the interface there, up, connected, able to multicast, and has it an address?"""

from __future__ import annotations

from collections.abc import Iterator

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject

__all__ = ["check"]

_NAME = "interface"


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Findings about the state of the device."""
    link = subject.link
    name = link.name
    if not link.is_up:
        yield Finding(_NAME, Severity.BROKEN, f"{name} is down", (f"ip link set dev {name} up",))
        return
    if not link.has_carrier:
        yield Finding(
            _NAME,
            Severity.BROKEN,
            f"{name} is up but has no carrier: the cable, the radio or the other end is missing",
            (f"ip link show dev {name}",),
        )
    if not (link.has_multicast or link.is_loopback):
        yield Finding(
            _NAME,
            Severity.WARNING,
            f"{name} lacks the MULTICAST flag: a URL that names it works (measured, Linux 6.18),"
            " but one without an interface, and many programs, pass it over",
            (f"ip link set dev {name} multicast on",),
        )
    if subject.interface is None:
        network = "10.77.0.1/24" if subject.version == 4 else "fd00:77::1/64"
        yield Finding(
            _NAME,
            Severity.BROKEN,
            f"{name} has no IPv{subject.version} address, and multicast needs one to send from",
            (f"ip address add {network} dev {name}",),
        )
        return
    if link.has_carrier and (link.has_multicast or link.is_loopback):
        yield Finding(_NAME, Severity.OK, f"{subject.interface} is up and carries multicast")
    if machine.exists(f"/sys/class/net/{name}/wireless"):
        yield Finding(
            _NAME,
            Severity.NOTE,
            f"{name} is Wi-Fi: access points send multicast slowly and never repeat it; expect"
            " loss, and set a low rate",
        )
