"""Who may connect: what an authenticator is asked, what it answers, and two ready-made ones.

Owns nothing. The questions are those of ZAP (RFC 27), asked in this process by a call instead of
over a socket.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from mcast.errors import OptionError
from mcast.z85 import curve_key

__all__ = ["Allowed", "AuthRequest", "Authenticator", "Denied", "allow"]


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """One connection that wants in."""

    mechanism: str
    """``NULL``, ``PLAIN`` or ``CURVE``."""
    address: str
    """The peer's IP address; with ``ipc://`` ``localhost:UID:GID:PID``."""
    domain: str
    """The option ``zap_domain``."""
    identity: bytes
    """The peer's identity, where it is known by now (CURVE)."""
    username: str = ""
    """PLAIN: the name it gave; what is no UTF-8 in it is replaced."""
    password: str = field(default="", repr=False)
    """PLAIN: the password it gave."""
    public_key: bytes = b""
    """CURVE: its public key of 32 bytes, which it has proved to own."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Yes; and who it is."""

    user_id: str = ""
    """Told in the monitor's ``handshake_succeeded``."""
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    """Whatever else is known."""


@dataclass(frozen=True, slots=True)
class Denied:
    """No. ``temporary``: the connection is closed without a word, and the peer will try again."""

    temporary: bool = False


Authenticator = Callable[[AuthRequest], "Allowed | Denied | bool"]
"""Asked once for each connection, in the loop's thread: it must not block. If it raises, the answer
is no."""


def allow(
    *,
    addresses: Collection[str] | None = None,
    users: Mapping[str, str] | None = None,
    keys: Collection[bytes | str] | None = None,
) -> Authenticator:
    """An authenticator with lists; whoever is missing in one that is given is denied.

    ``addresses``: IP addresses or networks such as ``10.0.0.0/8``, of TCP peers. ``users``:
    passwords by name, for PLAIN. ``keys``: public keys, for CURVE, as 40 characters of
    Z85 or 32 bytes.

    Raises: OptionError for an address or a key that is none, or if no list is given.
    """
    if addresses is None and users is None and keys is None:
        raise OptionError("allow() needs addresses, users or keys; without any it would admit all")
    try:
        networks = [ipaddress.ip_network(text, strict=False) for text in addresses or ()]
    except ValueError as error:
        raise OptionError(f"addresses: {error}") from None
    known_keys = frozenset(curve_key(key, "each of keys") for key in keys or ())

    def judge(request: AuthRequest) -> bool:
        if addresses is not None and not _is_in(request.address, networks):
            return False
        if users is not None:
            known = users.get(request.username)
            if request.mechanism != "PLAIN" or known is None:
                return False
            if not _same(known, request.password):
                return False
        return keys is None or (request.mechanism == "CURVE" and request.public_key in known_keys)

    return judge


def _is_in(text: str, networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False  # ipc://
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _same(known: str, given: str) -> bool:
    """Compared in a time that tells nothing of where they differ."""
    left, right = known.encode(), given.encode()
    difference = len(left) ^ len(right)
    for ours, theirs in zip(left, right, strict=False):
        difference |= ours ^ theirs
    return not difference
