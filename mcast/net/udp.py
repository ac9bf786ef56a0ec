"""Addresses as text, as packed bytes, and as the ``struct sockaddr`` that the kernel takes.

Owns nothing; pure. Packed, an address is 4 or 16 bytes in network order, which is how datagrams
name their source and how the engines know their peers.
"""

from __future__ import annotations

import socket
import struct

from mcast.errors import EndpointError

__all__ = ["address_text", "packed_address", "packed_sockaddr"]


def packed_address(text: str) -> bytes:
    """Return the 4 or 16 bytes of a numeric address; no name is looked up.

    Raises: EndpointError for anything else, a zone (``%eth0``) included.
    """
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return socket.inet_pton(family, text)
    except (OSError, ValueError):  # ValueError: a NUL or a lone surrogate in the text
        raise EndpointError(f"{text!r} is not an IPv4 or IPv6 address") from None


def address_text(packed: bytes) -> str:
    """Return the canonical text of 4 or 16 packed bytes.

    Raises: EndpointError for any other length.
    """
    if len(packed) not in (4, 16):
        raise EndpointError(f"address of {len(packed)} bytes; IPv4 has 4 and IPv6 has 16")
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def packed_sockaddr(address: str | bytes, port: int, scope_id: int = 0) -> bytes:
    """Return a native ``struct sockaddr_in`` (16 bytes) or ``sockaddr_in6`` (28 bytes).

    ``address`` is text or packed; ``scope_id`` is the interface index that an IPv6 link-local or
    interface-local address needs, without meaning for IPv4. Made once for each destination, not
    for each packet.

    Raises: EndpointError for a wrong address, or a port outside 0..65535.
    """
    if not 0 <= port <= 65535:
        raise EndpointError(f"port {port} is not in 0..65535")
    packed = packed_address(address) if isinstance(address, str) else address
    # the family and the scope are in host order, the rest in network order
    if len(packed) == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", port, packed)
    if len(packed) == 16:
        return (
            struct.pack("=H", socket.AF_INET6)
            + struct.pack(">HI16s", port, 0, packed)
            + struct.pack("=I", scope_id)
        )
    raise EndpointError(f"address of {len(packed)} bytes; IPv4 has 4 and IPv6 has 16")
