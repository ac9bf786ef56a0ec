"""URLs in, typed endpoints out; no look at the machine, no input or output.

Owns the grammar of multicast URLs and every check that needs nothing but the text; the other
transports are in ``mcast.unicast``. Whether the named interface exists is decided later, in
``mcast.net.interfaces``.

    epgm://INTERFACE;[SOURCE@]GROUP[;SENDGROUP]:PORT

    epgm://eth0;239.192.1.1:5555              by interface name
    epgm://10.77.0.1;239.192.1.1:5555         by the interface's address
    epgm://10.77.0.0/24;239.192.1.1:5555      by its network; libzmq's 10.77.0.0 also works
    epgm://eth0;10.0.0.5@232.1.2.3:5555       only what 10.0.0.5 sends (source-specific)
    epgm://[fd00:77::1];[ff08::7777]:5580     IPv6 in brackets

Invariant: an endpoint that exists is valid and canonical, so that ``parse_endpoint(str(e)) == e``
and equal endpoints have equal text. Anything else is an ``EndpointError``, and nothing but that.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from mcast.errors import EndpointError
from mcast.unicast import UnicastEndpoint, parse_unicast

__all__ = ["MAX_URL_CHARS", "Endpoint", "MulticastEndpoint", "format_endpoint", "parse_endpoint"]

MAX_URL_CHARS: Final = 1024
"""The longest URL that is looked at; ours, some ten times the longest one that can be valid."""

EXAMPLE: Final = "epgm://eth0;239.192.1.1:5555"

# The kernel's own rule (no "/", ":", white space, not "." or "..", under 16 bytes), less the
# characters that this grammar needs for itself.
_NAME = re.compile(r"[^\s/:;,\[\]@%]{1,15}")
_PORT = re.compile(r"[0-9]{1,5}")

# RFC 4607 s1 and RFC 3306 s6: the ranges in which a group is only meaningful with its source.
_SOURCE_SPECIFIC_V4 = ipaddress.IPv4Network("232.0.0.0/8")
_LOCAL_CONTROL_V4 = ipaddress.IPv4Network("224.0.0.0/24")

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST_SCHEMES: Final = frozenset({"tcp", "ipc", "inproc", "udp"})
_REFUSED_SCHEMES: Final = {
    "pgm": "pgm:// needs raw sockets and their privilege; use epgm://, the same protocol in UDP",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MulticastEndpoint:
    """One multicast group on one interface, checked and in canonical spelling.

    Raises: EndpointError when a field is wrong or two fields contradict each other.
    """

    interface: str
    """Interface name, address, or network with or without a prefix length; "" leaves the choice
    to the resolver, which takes it only when there is exactly one."""

    group: str
    """The multicast group's address, IPv4 or IPv6, without brackets or zone."""

    port: int
    """1..65535: the UDP port, which is the PGM data-destination port, too (as libzmq)."""

    source: str | None = None
    """The one sender to listen to, of the group's address family; None takes every sender."""

    scheme: Literal["epgm"] = "epgm"
    """PGM in UDP datagrams; the only multicast scheme."""

    def __post_init__(self) -> None:
        if self.scheme != "epgm":
            raise EndpointError(f"scheme {self.scheme!r} is not multicast; only 'epgm' is")
        group = _group(self.group)
        # frozen: only the way in may still write, and only the canonical spelling
        object.__setattr__(self, "group", str(group))
        object.__setattr__(self, "interface", _interface(self.interface, group))
        if self.source is not None:
            object.__setattr__(self, "source", str(_source(self.source, group)))
        if type(self.port) is not int or not 1 <= self.port <= 65535:
            raise EndpointError(
                f"port {self.port!r} is not a number in 1..65535; an example: {EXAMPLE}"
            )

    @property
    def version(self) -> Literal[4, 6]:
        """4 or 6: the IP version of the group, which the interface must have an address of."""
        return 6 if ":" in self.group else 4

    @property
    def source_specific_range(self) -> bool:
        """True when the group is in 232.0.0.0/8 or ff3x::/32 (RFC 4607 s1)."""
        return _in_source_specific_range(ipaddress.ip_address(self.group))

    def hints(self) -> tuple[str, ...]:
        """Return what is allowed but likely to disappoint, a sentence each; () when nothing is."""
        found = []
        if self.source_specific_range and self.source is None:
            found.append(
                f"{self.group} is in the source-specific range: a router forwards it only to"
                f" subscribers that name the source, as in SOURCE@{_bracket(self.group)}"
                " (RFC 4607)"
            )
        group = ipaddress.ip_address(self.group)
        if isinstance(group, ipaddress.IPv4Address) and group in _LOCAL_CONTROL_V4:
            found.append(
                f"{self.group} is in 224.0.0.0/24, kept for network control and never routed;"
                " choose one in 239.192.0.0/14 (RFC 5771, RFC 2365)"
            )
        return tuple(found)

    def __str__(self) -> str:
        return format_endpoint(self)


Endpoint: TypeAlias = MulticastEndpoint | UnicastEndpoint
"""Every kind of endpoint."""


def parse_endpoint(url: str) -> Endpoint:
    """Return the endpoint that ``url`` names; see the module's docstring for the grammar.

    libzmq's ``;SENDGROUP`` is accepted when it is the group itself. Pure: nothing is looked up,
    neither interfaces nor names in DNS.

    Raises: EndpointError, which says what is wrong, with which value, and what is allowed.
    """
    if not isinstance(url, str):
        raise EndpointError(f"a URL is a str, not {type(url).__name__}; an example: {EXAMPLE}")
    if len(url) > MAX_URL_CHARS:
        raise EndpointError(f"URL of {len(url)} characters; at most {MAX_URL_CHARS} are allowed")
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise EndpointError(f"{url!r} has no scheme; an example: {EXAMPLE}")
    if scheme in _REFUSED_SCHEMES:
        raise EndpointError(f"{_REFUSED_SCHEMES[scheme]} (in {url!r})")
    if scheme != "epgm" and scheme not in _UNICAST_SCHEMES:
        known = ", ".join(["epgm", *sorted(_UNICAST_SCHEMES)])
        raise EndpointError(f"unknown scheme {scheme!r} in {url!r}; supported: {known}")
    try:
        return _parse_multicast(rest) if scheme == "epgm" else parse_unicast(scheme, rest)
    except EndpointError as error:
        raise EndpointError(f"{error} (in {url!r})") from None


def format_endpoint(endpoint: Endpoint) -> str:
    """Return the canonical URL of ``endpoint``; ``parse_endpoint`` gives an equal one back."""
    if not isinstance(endpoint, MulticastEndpoint):
        return str(endpoint)
    source = "" if endpoint.source is None else f"{_bracket(endpoint.source)}@"
    return (
        f"{endpoint.scheme}://{_bracket(endpoint.interface)};"
        f"{source}{_bracket(endpoint.group)}:{endpoint.port}"
    )


def _parse_multicast(rest: str) -> MulticastEndpoint:
    # As libzmq: the port is what follows the last colon, so that IPv6 keeps its own colons.
    head, colon, port = rest.rpartition(":")
    if not colon or not _PORT.fullmatch(port):
        raise EndpointError(f"port {port!r} is not a number in 1..65535; an example: {EXAMPLE}")
    parts = head.split(";")
    if len(parts) == 1:
        parts.insert(0, "")  # no interface at all: the same as an empty one
    if len(parts) > 3:
        raise EndpointError(f"{len(parts)} parts separated by ';'; at most INTERFACE;GROUP;GROUP")
    if any("," in part for part in parts[1:]):
        raise EndpointError("several groups in one URL; connect once for each group")
    source, at, group = parts[1].rpartition("@")
    endpoint = MulticastEndpoint(
        interface=_unbracket(parts[0], "interface"),
        group=_unbracket(group, "group"),
        port=int(port),
        source=_unbracket(source, "source") if at else None,
    )
    if len(parts) == 3 and str(_group(_unbracket(parts[2], "send group"))) != endpoint.group:
        raise EndpointError(
            f"send group {parts[2]!r} differs from the group {endpoint.group!r}; sending to one"
            " group and receiving from another is not supported: leave the third part out"
        )
    return endpoint


def _bracket(text: str) -> str:
    return f"[{text}]" if ":" in text else text


def _unbracket(text: str, what: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1]
        if ":" not in inner:
            raise EndpointError(f"{what} {text!r}: only IPv6 goes into brackets")
        return inner
    if ":" in text:
        raise EndpointError(f"{what} {text!r}: an IPv6 address goes into brackets, [{text}]")
    return text


def _address(text: str, what: str) -> _Address:
    try:
        # a number would be taken as an address, too
        address = ipaddress.ip_address(str(text))
    except ValueError:
        raise EndpointError(
            f"{what} {text!r} is not an IPv4 or IPv6 address; an example: {EXAMPLE}"
        ) from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise EndpointError(f"{what} {text!r}: write it as IPv4, {address.ipv4_mapped}")
    return address


def _group(text: str) -> _Address:
    group = _address(text, "group")
    if not group.is_multicast:
        raise EndpointError(
            f"group {text!r} is not multicast; allowed are 224.0.0.0/4 and ff00::/8,"
            f" an example: {EXAMPLE}"
        )
    if isinstance(group, ipaddress.IPv6Address):
        _no_zone(group, "group")
        if group.packed[1] & 0x0F == 0:
            # RFC 4291 s2.7: such a packet must not be sent and is dropped when it arrives
            raise EndpointError(f"group {text!r} has the reserved scope 0; an example: ff08::7777")
    return group


def _source(text: str, group: _Address) -> _Address:
    source = _address(text, "source")
    if source.is_multicast or source.is_unspecified or str(source) == "255.255.255.255":
        raise EndpointError(f"source {text!r} is not the address of one host, such as 10.0.0.5")
    if isinstance(source, ipaddress.IPv6Address):
        _no_zone(source, "source")
    _same_version(source.version, group, f"source {text!r}")
    return source


def _no_zone(address: ipaddress.IPv6Address, what: str) -> None:
    if address.scope_id is not None:
        raise EndpointError(f"{what} {str(address)!r}: the interface says the zone; leave it out")


def _same_version(version: int, group: _Address, what: str) -> None:
    if version != group.version:
        raise EndpointError(
            f"{what} is IPv{version} and group {str(group)!r} is IPv{group.version};"
            " both must be of one family"
        )


def _interface(text: str, group: _Address) -> str:
    if text == "":
        return text
    if "/" in text:
        return _interface_network(text, group)
    if _is_address(text):
        address = _address(text, "interface")
        if address.is_multicast or address.is_unspecified:
            raise EndpointError(
                f"interface {text!r} is not the address of an interface or network;"
                f" an example: {EXAMPLE}"
            )
        zone = address.scope_id if isinstance(address, ipaddress.IPv6Address) else None
        if zone is not None and not _is_name(zone):
            raise EndpointError(f"interface {text!r}: the zone is not an interface name or index")
        _same_version(address.version, group, f"interface {text!r}")
        return str(address)
    if not _is_name(text):
        raise EndpointError(
            f"interface {text!r} is not a name, an address or a network;"
            " allowed are eth0, 10.77.0.1, 10.77.0.0/24, [fd00:77::1]"
        )
    return text


def _interface_network(text: str, group: _Address) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise EndpointError(
            f"interface {text!r} is not a network; its host bits must be zero and the prefix"
            " length in range, as in 10.77.0.0/24 or [fd00:77::/64]"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.scope_id is not None:
        raise EndpointError(f"interface {text!r}: a network has no zone")
    _same_version(network.version, group, f"interface {text!r}")
    return str(network)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    # printable first: a lone surrogate is not, and could not be encoded
    return (
        text.isprintable()
        and _NAME.fullmatch(text) is not None
        and text not in (".", "..")
        and len(text.encode()) <= 15
    )


def _in_source_specific_range(group: _Address) -> bool:
    if isinstance(group, ipaddress.IPv4Address):
        return group in _SOURCE_SPECIFIC_V4
    return (
        group.packed[0] == 0xFF and group.packed[1] & 0xF0 == 0x30 and group.packed[2:4] == b"\0\0"
    )
