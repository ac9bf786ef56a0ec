"""Is there a way to the group, and does the way back to a source use the same interface?"""

from __future__ import annotations

from collections.abc import Iterator

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject
from mcast.errors import TransportError
from mcast.net.survey import group_route_error, routed_address

__all__ = ["check"]

_NAME = "route"


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Findings about the routing table."""
    interface, link = subject.interface, subject.link
    if interface is None or not link.is_up:
        return
    if subject.version == 6:
        # A local route is what lo takes, and a multicast route what others take (measured, 6.18).
        kind = "local" if link.is_loopback else "multicast"
        fix = f"ip -6 route add {kind} ff00::/8 dev {link.name} table local"
    else:
        fix = f"ip route add 224.0.0.0/4 dev {link.name}"
    error = group_route_error(subject.group, interface)
    if error is not None:
        text = f"no route to the group {subject.group} by {link.name}: {error}"
        yield Finding(_NAME, Severity.BROKEN, text, (fix,))
        return
    if subject.version == 6:
        yield Finding(_NAME, Severity.OK, f"{subject.group} has a route by {link.name}")
        return
    try:
        address = routed_address(subject.group)
    except TransportError as failure:
        yield Finding(
            _NAME,
            Severity.WARNING,
            f"no multicast route: {failure.strerror}. mcast names its interface and works, but"
            " programs that leave the choice to the routing table cannot join or send",
            (fix,),
        )
        return
    others = [entry.name for entry in machine.interfaces() if entry.address == address]
    if link.name in others:
        yield Finding(_NAME, Severity.OK, f"{subject.group} has a route by {link.name}")
    else:
        yield Finding(
            _NAME,
            Severity.NOTE,
            f"programs that name no interface use {', '.join(others) or address} for"
            f" {subject.group}, not {link.name}; mcast names {link.name} itself. To send the others"
            f" there, too: {fix}",
        )
