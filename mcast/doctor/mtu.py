"""Does the largest packet that is sent, the TPDU, fit the interface?"""

from __future__ import annotations

from collections.abc import Iterator

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject
from mcast.options import DEFAULT_MAXTPDU_BYTES

__all__ = ["check"]

_NAME = "mtu"


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Findings about the MTU and ``multicast_maxtpdu``."""
    link, wanted_bytes = subject.link, subject.options.multicast_maxtpdu
    if wanted_bytes is not None and wanted_bytes > link.mtu_bytes:
        yield Finding(
            _NAME,
            Severity.BROKEN,
            f"multicast_maxtpdu is {wanted_bytes} and {link.name} carries {link.mtu_bytes} bytes:"
            " full packets cannot leave, and those of others with that size don't arrive",
            (f"ip link set dev {link.name} mtu {wanted_bytes}",),
        )
    elif wanted_bytes is None and link.mtu_bytes < DEFAULT_MAXTPDU_BYTES:
        yield Finding(
            _NAME,
            Severity.WARNING,
            f"{link.name} carries {link.mtu_bytes} bytes: mcast sends no more, but publishers"
            f" elsewhere (libzmq, too) send packets of {DEFAULT_MAXTPDU_BYTES}, which do not arrive"
            f" here; either raise it, or set multicast_maxtpdu={link.mtu_bytes} at every publisher",
            (f"ip link set dev {link.name} mtu {DEFAULT_MAXTPDU_BYTES}",),
        )
    else:
        tpdu_bytes = wanted_bytes or DEFAULT_MAXTPDU_BYTES
        text = f"{link.name} carries {link.mtu_bytes} bytes, the TPDU is {tpdu_bytes}"
        yield Finding(_NAME, Severity.OK, text)
