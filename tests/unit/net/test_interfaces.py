"""The choice of an interface: one meaning, or an error with the choices; no guess."""

from __future__ import annotations

import ipaddress
import socket
from typing import Literal

import netifaces
import pytest

from mcast.errors import EndpointError, InterfaceError
from mcast.net import interfaces
from mcast.net.interfaces import Interface, list_interfaces, resolve_interface

pytestmark = pytest.mark.kernel_independent


def entry(name: str, index: int, address: str, *, up: bool = True) -> Interface:
    parsed = ipaddress.ip_interface(address)
    return Interface(
        name=name,
        index=index,
        address=str(parsed.ip),
        prefix_length=parsed.network.prefixlen,
        mtu_bytes=1500,
        is_up=up,
        is_loopback=name == "lo",
        has_multicast=name != "lo",
    )


LO4 = entry("lo", 1, "127.0.0.1/8")
LO6 = entry("lo", 1, "::1/128")
ETH4 = entry("eth0", 2, "10.77.0.1/24")
ETH6 = entry("eth0", 2, "fd00:77::1/64")
ETH6_LINK = entry("eth0", 2, "fe80::1/64")
WLAN4 = entry("wlan0", 3, "192.168.1.9/24")
WLAN6_LINK = entry("wlan0", 3, "fe80::1/64")
DOWN4 = entry("eth9", 9, "10.99.0.1/24", up=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Interface]:
    present = [LO4, LO6, ETH4, ETH6, ETH6_LINK, WLAN4, WLAN6_LINK, DOWN4]

    def look(version: Literal[4, 6] | None = None) -> list[Interface]:
        return [found for found in present if version in (None, found.version)]

    monkeypatch.setattr(interfaces, "list_interfaces", look)
    return present


@pytest.mark.parametrize(
    ("spec", "version", "expected"),
    [
        ("eth0", 4, ETH4),
        ("eth0", 6, ETH6),  # its link-local address is not what the name means
        ("wlan0", 6, WLAN6_LINK),  # it has no other
        ("lo", 4, LO4),
        ("lo", 6, LO6),
        ("10.77.0.1", 4, ETH4),
        ("10.77.0.0", 4, ETH4),
        ("10.77.0.0/24", 4, ETH4),
        ("10.0.0.0/8", 4, ETH4),
        ("127.0.0.0", 4, LO4),
        ("fd00:77::1", 6, ETH6),
        ("fd00:77:0::1", 6, ETH6),
        ("fd00:77::", 6, ETH6),
        ("fd00:77::/64", 6, ETH6),
        ("fe80::1%eth0", 6, ETH6_LINK),
        ("fe80::1%3", 6, WLAN6_LINK),
    ],
)
def test_name_address_and_network_find_the_interface(
    machine: list[Interface], spec: str, version: Literal[4, 6], expected: Interface
) -> None:
    assert resolve_interface(spec, version) == expected


@pytest.mark.parametrize(
    ("spec", "version"),
    [("eth7", 4), ("10.77.0.2", 4), ("10.78.0.0/24", 4), ("::2", 6), ("fe80::1%lo", 6)],
)
def test_what_matches_nothing_is_an_error_that_lists_the_choices(
    machine: list[Interface], spec: str, version: Literal[4, 6]
) -> None:
    with pytest.raises(InterfaceError) as caught:
        resolve_interface(spec, version)
    assert repr(spec) in str(caught.value)
    for present in machine:
        assert (str(present) in str(caught.value)) == (present.version == version)


def test_one_link_local_address_on_two_interfaces_needs_its_zone(machine: list[Interface]) -> None:
    with pytest.raises(InterfaceError, match=r"2 .*: eth0 \(fe80::1%eth0\), wlan0 \(fe80::1%wlan0"):
        resolve_interface("fe80::1", 6)


def test_a_network_that_two_interfaces_share_is_ambiguous(machine: list[Interface]) -> None:
    machine.append(entry("eth1", 4, "10.77.0.2/24"))
    for spec in ("10.77.0.0", "10.77.0.0/24"):
        with pytest.raises(InterfaceError, match=r"eth0 \(10.77.0.1\), eth1 \(10.77.0.2\)"):
            resolve_interface(spec, 4)
    assert resolve_interface("10.77.0.2", 4).name == "eth1"


def test_a_name_with_two_addresses_is_ambiguous(machine: list[Interface]) -> None:
    machine.append(entry("eth0", 2, "10.77.0.3/24"))
    with pytest.raises(InterfaceError, match=r"as its address: eth0 \(10.77.0.1\), eth0 \(10.77"):
        resolve_interface("eth0", 4)


def test_service_addresses_on_loopback_do_not_make_its_name_ambiguous(
    machine: list[Interface],
) -> None:
    machine.insert(0, entry("lo", 1, "10.50.0.1/32"))
    assert resolve_interface("lo", 4) == LO4
    assert resolve_interface("10.50.0.1", 4).name == "lo"


def test_an_empty_name_means_the_only_multicast_interface(machine: list[Interface]) -> None:
    with pytest.raises(InterfaceError, match=r"'' means 2 .*eth0 \(10.77.0.1\), wlan0"):
        resolve_interface("", 4)
    machine.remove(WLAN4)
    assert resolve_interface("", 4) == ETH4
    machine.remove(ETH4)
    with pytest.raises(InterfaceError, match=r"none carries IPv4 multicast; choices: lo \(127"):
        resolve_interface("", 4)


def test_no_address_of_the_family_at_all_is_said_so(machine: list[Interface]) -> None:
    machine.clear()
    with pytest.raises(InterfaceError, match="no interface has an IPv6 address"):
        resolve_interface("eth0", 6)


def test_an_interface_that_is_down_says_how_to_bring_it_up(machine: list[Interface]) -> None:
    with pytest.raises(InterfaceError, match="ip link set eth9 up"):
        resolve_interface("eth9", 4)
    assert str(DOWN4) == "eth9 (10.99.0.1, down)"


def test_host_bits_in_a_network_are_refused(machine: list[Interface]) -> None:
    with pytest.raises(InterfaceError, match="host bits"):
        resolve_interface("10.77.0.1/24", 4)


def test_an_interface_error_is_an_endpoint_error(machine: list[Interface]) -> None:
    with pytest.raises(EndpointError):
        resolve_interface("eth7", 4)


def test_only_link_local_addresses_carry_a_scope(machine: list[Interface]) -> None:
    assert [found.scope_id for found in (LO4, LO6, ETH4, ETH6, ETH6_LINK)] == [0, 0, 0, 0, 2]
    assert ETH4.packed_address == bytes([10, 77, 0, 1])


def test_the_loopback_interface_of_this_machine_is_found() -> None:
    found = resolve_interface("lo", 4)
    assert (found.address, found.index) == ("127.0.0.1", socket.if_nametoindex("lo"))
    assert found.is_up
    assert found.is_loopback
    assert found.mtu_bytes >= 1500
    assert found.prefix_length == 8
    assert found in list_interfaces()
    assert found not in list_interfaces(6)


def test_an_alias_label_is_the_interface_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "lo": {netifaces.AF_INET: [{"addr": "127.0.0.1", "netmask": "255.0.0.0"}]},
        "lo:1": {netifaces.AF_INET: [{"addr": "10.9.0.1"}]},
        "gone0": {},
    }
    monkeypatch.setattr(netifaces, "interfaces", lambda: list(answers))
    monkeypatch.setattr(netifaces, "ifaddresses", answers.__getitem__)
    found = [(e.name, e.address, e.prefix_length) for e in list_interfaces()]
    assert found == [("lo", "127.0.0.1", 8), ("lo", "10.9.0.1", 32)]
