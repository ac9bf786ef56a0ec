"""Which interface of this host an endpoint means."""

from __future__ import annotations

from collections.abc import Sequence

from mcast.endpoint import MulticastEndpoint, parse_endpoint
from mcast.errors import EndpointError
from mcast.net.interfaces import resolve_interface

__all__ = ["interface_of"]


def interface_of(endpoints: Sequence[str]) -> str | None:
    """The interface of the first multicast endpoint; None if it is not one of this host's."""
    for url in endpoints:
        try:
            endpoint = parse_endpoint(url)
            if isinstance(endpoint, MulticastEndpoint):
                return resolve_interface(endpoint.interface, endpoint.version).name
        except EndpointError:
            continue
    return None
