"""Which interface a URL means: by name, address or network, and never by guessing.

Owns the look at the machine (netifaces for names, addresses and netmasks; the kernel for index,
flags and MTU) and the rules of choice. The look is separate from the choice, which is pure.

Invariant: ``resolve_interface`` returns the only interface and address that the text can mean, or
raises with the list of choices. It asks no DNS, so it answers at once offline, too.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import netifaces

from mcast.errors import InterfaceError
from mcast.net.udp import packed_address

__all__ = ["Interface", "list_interfaces", "resolve_interface"]

_Version: TypeAlias = Literal[4, 6]
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# <linux/sockios.h>, <linux/if.h>
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFMTU: Final = 0x8921
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_MULTICAST: Final = 0x1000
_IFREQ: Final = struct.Struct("16s24x")  # struct ifreq on 64-bit systems, at least as long on 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One address of one interface: what a multicast socket joins on and sends from."""

    name: str
    """The kernel's name, such as ``eth0``."""

    index: int
    """The kernel's number for it, 1 and up."""

    address: str
    """One IPv4 or IPv6 address of it, canonical, without a zone."""

    prefix_length: int
    """0..32 or 0..128: the network that the address is in."""

    mtu_bytes: int
    """The longest IP packet it carries, headers included."""

    is_up: bool
    """Administratively up; nothing can be joined or sent while it is not."""

    is_loopback: bool
    """True for ``lo``, which carries multicast although it lacks the flag for it."""

    has_multicast: bool
    """The kernel's MULTICAST flag."""

    @property
    def version(self) -> _Version:
        """4 or 6: the IP version of ``address``."""
        return 6 if ":" in self.address else 4

    @property
    def packed_address(self) -> bytes:
        """``address`` as 4 or 16 bytes."""
        return packed_address(self.address)

    @property
    def scope_id(self) -> int:
        """The index when ``address`` is IPv6 link-local and means nothing without it, else 0."""
        return self.index if self._is_link_local else 0

    @property
    def _is_link_local(self) -> bool:
        return self.version == 6 and ipaddress.IPv6Address(self.address).is_link_local

    def __str__(self) -> str:
        zone = f"%{self.name}" if self.scope_id else ""
        return f"{self.name} ({self.address}{zone}{'' if self.is_up else ', down'})"


def list_interfaces(version: _Version | None = None) -> list[Interface]:
    """Return every address of every interface, one entry each, in the system's order.

    ``version`` limits it to IPv4 or IPv6. An interface without an address has no entry, and one
    that vanishes meanwhile is left out. Takes some 20 us for each interface.
    """
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        for label in netifaces.interfaces():
            name = label.partition(":")[0]  # getifaddrs lists IPv4 aliases as eth0:1
            try:
                index = socket.if_nametoindex(name)
                flags = _ask(asked, _SIOCGIFFLAGS, name, "H")
                mtu_bytes = _ask(asked, _SIOCGIFMTU, name, "i")
                addresses = netifaces.ifaddresses(label)
            except (OSError, ValueError):
                continue
            for family in (netifaces.AF_INET, netifaces.AF_INET6):
                for entry in addresses.get(family, ()):
                    text = entry["addr"].partition("%")[0]
                    found.append(
                        Interface(
                            name=name,
                            index=index,
                            address=str(ipaddress.ip_address(text)),
                            prefix_length=_prefix_length(text, entry.get("netmask")),
                            mtu_bytes=mtu_bytes,
                            is_up=bool(flags & _IFF_UP),
                            is_loopback=bool(flags & _IFF_LOOPBACK),
                            has_multicast=bool(flags & _IFF_MULTICAST),
                        )
                    )
    return [entry for entry in found if version is None or entry.version == version]


def resolve_interface(spec: str, version: _Version) -> Interface:
    """Return the one interface and address that ``spec`` means for IPv4 or IPv6 (4 or 6).

    ``spec`` is an interface name, an address (IPv6 link-local perhaps with ``%eth0``), a network
    with its prefix length, or the network part alone as libzmq takes it (``10.77.0.0``). Empty, it
    means the only interface that is up, carries multicast and is not loopback.

    Raises: InterfaceError when there is no such interface, it is down, or several would do; the
    text lists the choices.
    """
    return _choose(spec, version, list_interfaces(version))


def _ask(asked: socket.socket, request: int, name: str, kind: Literal["H", "i"]) -> int:
    answer = fcntl.ioctl(asked.fileno(), request, _IFREQ.pack(name.encode()))
    value: int = struct.unpack_from(f"={kind}", answer, 16)[0]
    return value


def _prefix_length(address: str, netmask: str | None) -> int:
    if netmask is None:  # point to point
        return 128 if ":" in address else 32
    if "/" in netmask:  # netifaces writes IPv6 netmasks as ffff:ffff::/32
        return int(netmask.rpartition("/")[2])
    return ipaddress.ip_network(f"0.0.0.0/{netmask}").prefixlen


def _choose(spec: str, version: _Version, present: list[Interface]) -> Interface:
    candidates, what = _matching(spec, version, present)
    if not candidates:
        raise InterfaceError(f"{what}; {_choices(present, version)}")
    up = [entry for entry in candidates if entry.is_up]
    if not up:
        name = candidates[0].name
        raise InterfaceError(f"interface {name} is down; bring it up: ip link set {name} up")
    up = _of_widest_scope(up)
    if len(up) > 1:
        raise InterfaceError(
            f"{spec!r} means {len(up)} interfaces or addresses; write the one you want as its"
            f" address: {', '.join(map(str, up))}"
        )
    return up[0]


def _matching(
    spec: str, version: _Version, present: list[Interface]
) -> tuple[list[Interface], str]:
    """Return what ``spec`` could mean, and the complaint for the case that it is nothing."""
    if spec == "":
        able = [e for e in present if e.is_up and e.has_multicast and not e.is_loopback]
        return able, f"no interface is named and none carries IPv{version} multicast"
    if "/" in spec:
        return _in_network(spec, present), f"no interface has an address in {spec!r}"
    address, zone = _split_zone(spec)
    if address is None:
        named = [entry for entry in present if entry.name == spec]
        return named, f"no interface named {spec!r} has an IPv{version} address"
    exact = [entry for entry in present if ipaddress.ip_address(entry.address) == address]
    if zone is not None:
        exact = [entry for entry in exact if zone in (entry.name, str(entry.index))]
    # libzmq's form: the address is the network itself, as the interface's own netmask cuts it
    return exact or [entry for entry in present if _network_of(entry) == address and not zone], (
        f"no interface has the address {spec!r} or is in a network of that address"
    )


def _split_zone(spec: str) -> tuple[_Address | None, str | None]:
    text, percent, zone = spec.partition("%")
    try:
        return ipaddress.ip_address(text), zone if percent else None
    except ValueError:
        return None, None


def _in_network(spec: str, present: list[Interface]) -> list[Interface]:
    try:
        network = ipaddress.ip_network(spec)
    except ValueError:
        raise InterfaceError(
            f"{spec!r} is not a network, such as 10.77.0.0/24 with its host bits zero"
        ) from None
    return [entry for entry in present if ipaddress.ip_address(entry.address) in network]


def _network_of(entry: Interface) -> _Address:
    text = f"{entry.address}/{entry.prefix_length}"
    return ipaddress.ip_network(text, strict=False).network_address


def _of_widest_scope(candidates: list[Interface]) -> list[Interface]:
    """Leave out what nobody means by the interface's name, where there is something else.

    Every IPv6 interface has a link-local address beside its others, and a loopback interface may
    carry service addresses beside 127.0.0.1; RFC 6724 s5 rule 2 prefers by scope as well.
    """
    if all(entry.is_loopback for entry in candidates):
        usual = [entry for entry in candidates if entry.address in ("127.0.0.1", "::1")]
    else:
        usual = [entry for entry in candidates if not entry.scope_id]
    return usual or candidates


def _choices(present: list[Interface], version: _Version) -> str:
    if not present:
        return f"no interface has an IPv{version} address"
    return f"choices: {', '.join(map(str, present))}"
