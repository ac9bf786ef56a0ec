"""Groups as the tools write them: ``[SOURCE@]GROUP:PORT[+COUNT]``, a range of addresses.

    239.192.1.1:5000              one group
    239.192.1.1:5000+10           ten groups, 239.192.1.1 to 239.192.1.10, at one port
    239.192.1.1+10:5000           the same
    10.0.0.5@232.1.2.3:5000       only what 10.0.0.5 sends
    [ff08::7777]:5000             IPv6 in brackets
    epgm://eth0;239.192.1.1:5000  a URL, whose interface counts

Pure. Invariant: every endpoint that comes out is valid, and there are at most ``MOST_GROUPS``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from mcast.endpoint import MulticastEndpoint, parse_endpoint
from mcast.errors import EndpointError
from mcast.unicast import UdpEndpoint

__all__ = ["MOST_GROUPS", "group_of_url", "parse_groups"]

MOST_GROUPS: Final = 512
"""Each group has a socket of its own, and a process may often open 1024 files."""

_FORM: Final = re.compile(
    r"(?:(?P<source>[^@]*)@)?(?P<group>\[[^\]]*\]|[^:+\[\]]*)(?:\+(?P<many>\d{1,6}))?"
    r":(?P<port>\d{1,5})(?:\+(?P<more>\d{1,6}))?"
)
_EXAMPLE: Final = "239.192.1.1:5000 or 239.192.1.1:5000+10"


def group_of_url(url: str) -> MulticastEndpoint:
    """The group, port and interface of an ``epgm://`` or ``udp://`` URL.

    Raises: EndpointError for any other URL.
    """
    endpoint = parse_endpoint(url)
    if isinstance(endpoint, UdpEndpoint) and endpoint.is_multicast:
        return MulticastEndpoint(
            interface=endpoint.interface, group=endpoint.address, port=endpoint.port
        )
    if not isinstance(endpoint, MulticastEndpoint):
        raise EndpointError(f"{url} is not multicast; epgm:// and udp:// URLs of a group are")
    return endpoint


def parse_groups(text: str, *, interface: str = "") -> list[MulticastEndpoint]:
    """The endpoints that ``text`` names, on ``interface`` where it names none itself.

    Raises: EndpointError for anything else than the forms of this module's docstring, and for a
    range that is longer than ``MOST_GROUPS`` or leaves the multicast addresses.
    """
    if "://" in text:
        return [group_of_url(text)]
    found = _FORM.fullmatch(text)
    if found is None:
        raise EndpointError(f"{text!r} is not a group and a port, such as {_EXAMPLE}")
    if found["many"] and found["more"]:
        raise EndpointError(f"{text!r} has two counts of groups; one is enough")
    count = int(found["many"] or found["more"] or 1)
    if not 1 <= count <= MOST_GROUPS:
        raise EndpointError(f"{count} groups in {text!r}; 1 to {MOST_GROUPS} are possible")
    first = MulticastEndpoint(
        interface=interface,
        group=found["group"].strip("[]"),
        port=int(found["port"]),
        source=found["source"].strip("[]") if found["source"] is not None else None,
    )
    start = ipaddress.ip_address(first.group)
    try:
        return [
            MulticastEndpoint(
                interface=interface, group=str(start + i), port=first.port, source=first.source
            )
            for i in range(count)
        ]
    except ipaddress.AddressValueError:
        raise EndpointError(f"{text!r} ends beyond the last address") from None
