"""Can the group and port be shared with whoever holds them?"""

from __future__ import annotations

from collections.abc import Iterator

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject
from mcast.net.survey import port_error

__all__ = ["check"]

_NAME = "port"


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:  # noqa: ARG001
    """Findings about binding to the endpoint, and about the address it chose."""
    endpoint, interface = subject.endpoint, subject.interface
    if endpoint is None:
        return
    for hint in endpoint.hints():
        yield Finding(_NAME, Severity.WARNING, hint)
    if interface is None or not subject.link.is_up:
        return
    error = port_error(endpoint, interface)
    if error is None:
        yield Finding(_NAME, Severity.OK, f"port {endpoint.port} of {endpoint.group} can be bound")
        return
    yield Finding(
        _NAME,
        Severity.BROKEN,
        f"port {endpoint.port} of {endpoint.group} cannot be bound: {error}; a program holds it"
        " without SO_REUSEADDR and SO_REUSEPORT, or belongs to another user. Find it, and end it or"
        " choose another port",
        (f"ss -ulpn 'sport = :{endpoint.port}'",),
    )
