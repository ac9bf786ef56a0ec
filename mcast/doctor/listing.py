"""Every network device with what multicast needs of it, and which one a URL would use."""

from __future__ import annotations

from dataclasses import dataclass

from mcast.doctor.machine import Machine
from mcast.errors import InterfaceError
from mcast.net.interfaces import resolve_interface
from mcast.net.survey import Link
from mcast.raw.groups import group_of_url

__all__ = ["Device", "list_devices"]


@dataclass(frozen=True, slots=True)
class Device:
    """A device, its addresses, and whether it is the one that is asked about."""

    link: Link
    """The device."""
    addresses: tuple[str, ...]
    """Its addresses with their prefix lengths."""
    used: tuple[str, ...]
    """Its addresses that the URL means; without a URL, those that a URL without an interface
    means, for IPv4 and for IPv6."""


def list_devices(url: str | None = None, machine: Machine | None = None) -> list[Device]:
    """The devices in the kernel's order.

    Raises: EndpointError for a malformed URL, and InterfaceError for one that means no interface or
    several.
    """
    machine = machine or Machine()
    present = machine.interfaces()
    used: set[tuple[str, str]] = set()
    if url is not None:
        endpoint = group_of_url(url)
        chosen = resolve_interface(endpoint.interface, endpoint.version)
        used.add((chosen.name, chosen.address))
    else:
        for version in (4, 6):
            try:
                chosen = resolve_interface("", 4 if version == 4 else 6)
            except InterfaceError:
                continue
            used.add((chosen.name, chosen.address))
    return [
        Device(
            link,
            tuple(f"{e.address}/{e.prefix_length}" for e in present if e.name == link.name),
            tuple(
                e.address for e in present if e.name == link.name and (e.name, e.address) in used
            ),
        )
        for link in machine.links()
    ]
