"""Addresses as the kernel takes them."""

from __future__ import annotations

import socket
import sys

import pytest

from mcast.errors import EndpointError
from mcast.net.udp import address_text, packed_address, packed_sockaddr

pytestmark = pytest.mark.kernel_independent


@pytest.mark.parametrize("text", ["127.0.0.1", "239.192.1.1", "::1", "fe80::1", "ff08::7777"])
def test_packing_and_unpacking_an_address_are_inverse(text: str) -> None:
    assert address_text(packed_address(text)) == text


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0", "10.0.0.256", "fe80::1%lo", "1\0"])
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(EndpointError, match="is not an IPv4 or IPv6 address"):
        packed_address(text)


def test_an_address_has_four_or_sixteen_bytes() -> None:
    for packed in (b"", b"12345", bytes(17)):
        with pytest.raises(EndpointError, match="IPv4 has 4 and IPv6 has 16"):
            address_text(packed)
        with pytest.raises(EndpointError, match="IPv4 has 4 and IPv6 has 16"):
            packed_sockaddr(packed, 1)


def test_an_ipv4_sockaddr_has_host_order_family_and_network_order_port() -> None:
    packed = packed_sockaddr("127.0.0.1", 0x1234)
    assert packed == socket.AF_INET.to_bytes(2, sys.byteorder) + b"\x12\x34\x7f\0\0\1" + bytes(8)
    assert packed == packed_sockaddr(b"\x7f\0\0\1", 0x1234)


def test_an_ipv6_sockaddr_carries_the_scope() -> None:
    packed = packed_sockaddr("fe80::1", 0x1234, scope_id=7)
    assert len(packed) == 28
    assert packed[2:4] == b"\x12\x34"
    assert packed[8:24] == packed_address("fe80::1")
    assert packed[24:] == (7).to_bytes(4, sys.byteorder)


def test_a_port_outside_its_range_is_refused() -> None:
    for port in (-1, 65536):
        with pytest.raises(EndpointError, match=r"not in 0\.\.65535"):
            packed_sockaddr("127.0.0.1", port)
