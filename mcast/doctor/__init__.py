"""Why multicast does not arrive: each check looks at one thing and names the command that mends it.

Owns the order of the checks and the choice of what is examined; each check is a module with one
function. Invariant: nothing is changed, and nothing is sent unless ``probe`` allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from mcast.doctor import (
    buffers,
    clock,
    container,
    firewall,
    igmp,
    interface,
    kernels,
    loop,
    mtu,
    offload,
    port,
    route,
    rp_filter,
)
from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject
from mcast.endpoint import MulticastEndpoint
from mcast.errors import InterfaceError
from mcast.net.interfaces import Interface, resolve_interface
from mcast.options import SocketOptions
from mcast.raw.groups import group_of_url

__all__ = ["Finding", "Machine", "Severity", "Subject", "examine", "worst"]

HOST_CHECKS: Final[dict[str, Callable[[Machine, SocketOptions], Iterator[Finding]]]] = {
    "buffers": buffers.check,
    "kernel": kernels.check,
    "clock": clock.check,
    "container": container.check,
}
"""What is looked at once."""

INTERFACE_CHECKS: Final[dict[str, Callable[[Machine, Subject], Iterator[Finding]]]] = {
    "interface": interface.check,
    "route": route.check,
    "rp_filter": rp_filter.check,
    "mtu": mtu.check,
    "port": port.check,
    "igmp": igmp.check,
    "firewall": firewall.check,
    "offload": offload.check,
    "loop": loop.check,
}
"""What is looked at for the URL's interface, or for each one without a URL."""


def examine(
    url: str | None = None,
    *,
    options: SocketOptions | None = None,
    probe: bool = False,
    listen_s: float = 0.0,
    machine: Machine | None = None,
) -> Iterator[Finding]:
    """Findings of every check, as they are made; those that are fine, too.

    ``url`` names the endpoint; without one every interface that is not loopback is examined.
    ``probe`` allows test datagrams with a time to live of 0 and the joins that they need;
    ``listen_s`` is how long to listen for an IGMP querier, which needs CAP_NET_RAW. Blocks some
    tens of milliseconds, and as long as the two ask for. Any thread.

    Raises: EndpointError for a URL that cannot be parsed, or is not multicast.
    """
    machine = machine or Machine()
    options = options or SocketOptions()
    endpoint = None if url is None else group_of_url(url)
    subjects: list[Subject] = []
    for found in _subjects(machine, endpoint, options):
        if isinstance(found, Finding):
            yield found
        else:
            subjects.append(replace(found, probe=probe, listen_s=listen_s))
    for subject in subjects:
        for check in INTERFACE_CHECKS.values():
            yield from check(machine, subject)
    for look in HOST_CHECKS.values():
        yield from look(machine, options)


def worst(findings: list[Finding]) -> Severity:
    """The worst severity among them; OK when there are none."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.OK)


def _subjects(
    machine: Machine, endpoint: MulticastEndpoint | None, options: SocketOptions
) -> Iterator[Subject | Finding]:
    """What is to be examined, or why that cannot be told."""
    if endpoint is not None:
        yield _subject_of(machine, endpoint, options)
        return
    present = machine.interfaces()
    some = False
    for link in machine.links():
        own = [entry for entry in present if entry.name == link.name and not entry.scope_id]
        if link.is_loopback or not own:
            continue  # without an address it is a port of a bridge, or not in use
        some = True
        if not (link.is_up and link.has_carrier):
            state = "has no carrier" if link.is_up else "is down"
            yield Finding("interface", Severity.NOTE, f"{link.name} {state}; not examined")
            continue
        usual = [entry for entry in own if entry.version == 4] or own
        yield Subject(link=link, interface=usual[0], endpoint=None, options=options)
    if not some:
        yield Finding(
            "interface",
            Severity.NOTE,
            "there is no interface but loopback: multicast stays on this host",
        )


def _subject_of(
    machine: Machine, endpoint: MulticastEndpoint, options: SocketOptions
) -> Subject | Finding:
    links = {link.name: link for link in machine.links()}
    chosen: Interface | None = None
    try:
        chosen = resolve_interface(endpoint.interface, endpoint.version)
    except InterfaceError as error:
        # It may be there, but down or without an address: that is for the checks to say.
        if endpoint.interface not in links:
            names = ", ".join(sorted(links))
            return Finding(
                "interface", Severity.BROKEN, f"{error}; devices: {names}", ("ip -brief address",)
            )
    name = endpoint.interface if chosen is None else chosen.name
    return Subject(link=links[name], interface=chosen, endpoint=endpoint, options=options)
