"""Links, VLAN tags, IPv4 and IPv6, fragments: the same datagram comes out of each."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.packet import Packet

from mcast.capture.dissect import UDP as UDP_PROTOCOL
from mcast.capture.dissect import Dissector
from mcast.capture.files import Record

pytestmark = pytest.mark.kernel_independent

PAYLOAD = bytes(range(256)) * 12
V4 = IP(src="10.0.0.1", dst="239.192.1.1", ttl=3) / UDP(sport=7, dport=9) / PAYLOAD
V6 = IPv6(src="fd00::1", dst="ff08::7", hlim=3) / UDP(sport=7, dport=9) / PAYLOAD


def record(packet: Packet | bytes, link: int, *, cut: int | None = None) -> Record:
    data = bytes(packet)
    return Record(1, 5, link, memoryview(data[:cut]), len(data))


@pytest.mark.parametrize("ip", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("link", "head"),
    [
        (1, Ether()),
        (1, Ether() / Dot1Q(vlan=5)),
        (1, Ether() / Dot1AD(vlan=5) / Dot1Q(vlan=6)),
        (113, CookedLinux()),
        (276, CookedLinuxV2()),
        (0, Loopback()),
        (101, None),
    ],
)
def test_datagram_is_found_behind_every_link(ip: Packet, link: int, head: Packet | None) -> None:
    found = Dissector().dissect_untrusted(record(head / ip if head else ip, link))
    assert found is not None
    assert (found.protocol, found.hops) == (UDP_PROTOCOL, 3)
    assert (found.source_port, found.destination_port) == (7, 9)
    assert found.payload == PAYLOAD
    assert str(ip_address(found.source)) == ip.src
    assert str(ip_address(found.destination)) == ip.dst


def test_ipv4_options_and_ipv6_extensions_are_passed_by() -> None:
    router_alert = IP(src="10.0.0.1", dst="239.192.1.1", options=b"\x94\x04\0\0") / UDP() / b"x"
    extended = IPv6(src="fd00::1", dst="ff08::7") / IPv6ExtHdrDestOpt() / UDP() / b"x"
    for packet in (router_alert, extended):
        found = Dissector().dissect_untrusted(record(packet, 101))
        assert found is not None
        assert found.payload == b"x"


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("version", [4, 6])
def test_fragments_are_joined_in_any_order(version: int, backwards: bool) -> None:
    if version == 4:
        pieces = fragment(V4, fragsize=1000)  # type: ignore[no-untyped-call]
    else:
        whole = IPv6(src="fd00::1", dst="ff08::7") / IPv6ExtHdrFragment(id=9)
        pieces = fragment6(whole / UDP(sport=7, dport=9) / PAYLOAD, 1280)  # type: ignore[no-untyped-call]
    assert len(pieces) > 2
    dissector = Dissector()
    found = [dissector.dissect_untrusted(record(p, 101)) for p in pieces[:: -1 if backwards else 1]]
    assert found[:-1] == [None] * (len(pieces) - 1)
    assert found[-1] is not None
    assert found[-1].payload == PAYLOAD
    assert dissector.unfinished_count == 0


def test_unfinished_fragments_are_limited_and_counted() -> None:
    dissector = Dissector()
    for number in range(300):
        head = struct.pack("!BBHHHBBH", 0x45, 0, 28, number, 0x2000, 1, 17, 0)
        dissector.dissect_untrusted(record(head + bytes(8) + bytes(8), 101))
    assert dissector.unfinished_count == 256
    assert dissector.skipped["fragments_given_up"] == 44


def test_fragments_that_overlap_are_no_more_than_a_datagram() -> None:
    dissector = Dissector()
    for place in range(1, 60):
        head = struct.pack("!BBHHHBBH", 0x45, 0, 2020, 9, 0x2000 | place, 1, 17, 0)
        dissector.dissect_untrusted(record(head + bytes(8) + bytes(2000), 101))
    assert dissector.skipped["malformed"] == 1  # the 33rd; then it begins anew
    assert dissector.unfinished_count == 1


def test_what_the_snapshot_length_cut_is_known() -> None:
    found = Dissector().dissect_untrusted(record(V4, 101, cut=100))
    assert found is not None
    assert found.missing_bytes == len(PAYLOAD) - (100 - 28)


@pytest.mark.parametrize(
    ("data", "link", "why"),
    [
        (b"", 101, "cut_short"),
        (b"\x45\0", 101, "cut_short"),
        (b"\x30" * 40, 101, "not_ip"),
        (bytes(Ether(type=0x88CC) / b"lldp"), 1, "not_ip"),
        (bytes(V4), 147, "link_type"),
        (b"\x41" + bytes(V4)[1:], 101, "malformed"),
        (bytes(IP(proto=2) / b"igmp"), 101, "protocol"),
    ],
)
def test_what_cannot_be_read_is_counted_by_reason(data: bytes, link: int, why: str) -> None:
    dissector = Dissector()
    assert dissector.dissect_untrusted(record(data, link)) is None
    assert dissector.skipped == {why: 1}


@given(st.binary(max_size=120), st.sampled_from([0, 1, 101, 113, 276]))
def test_any_bytes_raise_nothing(data: bytes, link: int) -> None:
    dissector = Dissector()
    for first in (b"", b"\x45\0\0\x40", b"\x60\0\0\0\0\x20\x2c"):
        dissector.dissect_untrusted(record(first + data, link))
