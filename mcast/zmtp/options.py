"""What a connection is told before it begins: its socket, its security, its limits and timers.

Owns the checks of all that. An object of these classes has been checked, and never changes. Times
are nanoseconds; the sockets' own options are in seconds and are converted before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from mcast.errors import OptionError
from mcast.z85 import curve_key
from mcast.zmtp import boxes
from mcast.zmtp.commands import TENTH_NS
from mcast.zmtp.failure import ZmtpError
from mcast.zmtp.metadata import COMPATIBLE, IDENTITY_BYTES, is_property_name, own_properties

__all__ = [
    "CurveClient",
    "CurveServer",
    "Null",
    "PlainClient",
    "PlainServer",
    "Security",
    "ZmtpOptions",
]

_MS: Final = 1_000_000
_S: Final = 1000 * _MS
_DAY_NS: Final = 86_400 * _S
_MIB: Final = 1 << 20
_CREDENTIAL_BYTES: Final = 255  # RFC 24: sizes of one octet


@dataclass(frozen=True, slots=True)
class Null:
    """No security (RFC 37): anyone may connect, read and change what is sent."""

    mechanism: ClassVar[bytes] = b"NULL"
    is_server: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class PlainClient:
    """Names itself with a password, both readable on the wire (RFC 24)."""

    mechanism: ClassVar[bytes] = b"PLAIN"
    is_server: ClassVar[bool] = False

    username: str
    """At most 255 bytes in UTF-8."""
    password: str = field(repr=False)
    """At most 255 bytes in UTF-8."""

    def __post_init__(self) -> None:
        for name in ("username", "password"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value.encode()) > _CREDENTIAL_BYTES:
                raise OptionError(f"{name} is text of at most {_CREDENTIAL_BYTES} bytes in UTF-8")


@dataclass(frozen=True, slots=True)
class PlainServer:
    """Asks ``AuthNeeded`` about each client's name and password (RFC 24)."""

    mechanism: ClassVar[bytes] = b"PLAIN"
    is_server: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class CurveClient:
    """Proves its own key and that the server has the key it should (RFC 25, 26).

    Each key is 32 bytes, or 40 characters of Z85; the object has the 32 bytes.
    """

    mechanism: ClassVar[bytes] = b"CURVE"
    is_server: ClassVar[bool] = False

    server_key: bytes | str
    """The server's public key, known beforehand."""
    secret_key: bytes | str = field(repr=False)
    """This client's secret key; the public one follows from it."""
    public_key: bytes = field(init=False)

    def __post_init__(self) -> None:
        boxes.require()
        secret_key = curve_key(self.secret_key, "secret_key")
        server_key = curve_key(self.server_key, "server_key")
        try:
            boxes.shared_key_untrusted(server_key, secret_key)
        except ZmtpError:
            raise OptionError("server_key is nobody's public key (of small order)") from None
        object.__setattr__(self, "server_key", server_key)
        object.__setattr__(self, "secret_key", secret_key)
        object.__setattr__(self, "public_key", boxes.public_key_of(secret_key))


@dataclass(frozen=True, slots=True)
class CurveServer:
    """Proves its key, and asks ``AuthNeeded`` about each client's (RFC 25, 26)."""

    mechanism: ClassVar[bytes] = b"CURVE"
    is_server: ClassVar[bool] = True

    secret_key: bytes | str = field(repr=False)
    """32 bytes, or 40 characters of Z85; the object has the 32 bytes."""
    public_key: bytes = field(init=False)

    def __post_init__(self) -> None:
        boxes.require()
        secret_key = curve_key(self.secret_key, "secret_key")
        object.__setattr__(self, "secret_key", secret_key)
        object.__setattr__(self, "public_key", boxes.public_key_of(secret_key))


Security = Null | PlainClient | PlainServer | CurveClient | CurveServer
"""The mechanism and the role in it, which no greeting of a peer can change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZmtpOptions:
    """All options of one connection. Wrong types and values out of range raise ``OptionError``.

    Limits on what a peer may send end the connection when it exceeds them. Where libzmq has no
    limit, ours is the one of the threat model.
    """

    socket_type: str
    """``PUB``, ``ROUTER`` ...: a key of ``mcast.zmtp.metadata.COMPATIBLE``."""
    security: Security = Null()
    """Mechanism, role and keys."""
    identity: bytes = b""
    """Told to the peer by REQ, DEALER and ROUTER: up to 255 bytes, the first not zero."""
    metadata: tuple[tuple[str, bytes], ...] = ()
    """Further properties for the peer; names begin with ``X-`` (RFC 37)."""
    zap_domain: str = ""
    """Passed on in ``AuthNeeded``. NULL asks only if this is not empty, as libzmq (RFC 27)."""
    max_message_bytes: int = _MIB
    """Longest message, all parts together, 1 to 1 TiB. libzmq: unlimited, and for each part."""
    max_part_count: int = 1024
    """Most parts of a message, 1 to 65536."""
    max_metadata_bytes: int = 4096
    """Longest properties, the peer's or ours, 64 to 1 MiB."""
    max_topic_bytes: int = 1024
    """Longest topic of a subscription, 1 to 1 MiB."""
    max_subscription_count: int = 10_000
    """Most different topics or groups that the peer may have at once, 1 to 1e7."""
    max_subscription_bytes: int = 4 * _MIB
    """Most bytes of them together, 1 to 1 GiB."""
    handshake_ivl_ns: int = 5 * _S
    """Longest handshake, the wait for ``answer_auth`` included, 1 ms to a day. libzmq: 30 s."""
    heartbeat_ivl_ns: int = 0
    """PING this often, 1 ms to a day; 0: never, as libzmq."""
    heartbeat_timeout_ns: int | None = None
    """Wait for any bytes after a PING, 0 (for ever) to a day. None: ``heartbeat_ivl_ns``."""
    heartbeat_ttl_ns: int = 0
    """Time to live that our PINGs tell the peer, rounded down to tenths of a second.

    0 (none) to 65.5 s: libzmq takes larger ones modulo 65.536 s, and would hang up at once.
    """

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name == "heartbeat_timeout_ns":
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise OptionError(f"{name} is a whole number, not {value!r}")
            zero_is_off = value == 0 and name == "heartbeat_ivl_ns"
            if not (low <= value <= high or zero_is_off):
                raise OptionError(f"{name} is {low} to {high}, not {value}")
        if self.socket_type not in COMPATIBLE:
            raise OptionError(
                f"socket_type is one of {', '.join(COMPATIBLE)}, not {self.socket_type!r}"
            )
        if not isinstance(self.security, Security):
            raise OptionError(f"security is one of Null, PlainClient ..., not {self.security!r}")
        if not _is_bytes(self.identity, IDENTITY_BYTES):
            raise OptionError(f"identity is at most {IDENTITY_BYTES} bytes")
        if self.identity[:1] == b"\0":
            raise OptionError("an identity that begins with a zero byte is reserved (RFC 37)")
        for name, content in self.metadata:
            if not is_property_name(name) or not name.lower().startswith("x-"):
                raise OptionError(
                    "names in metadata begin with X- and have up to 255 letters, digits and -_.+, "
                    f"not {name!r}"
                )
            if not _is_bytes(content, self.max_metadata_bytes):
                raise OptionError(f"the value of {name} in metadata is no bytes, or too long")
        size = len(self.properties)
        if size > self.max_metadata_bytes:
            raise OptionError(
                f"identity and metadata take {size} bytes of properties, "
                f"max_metadata_bytes is {self.max_metadata_bytes}"
            )

    @property
    def properties(self) -> bytes:
        """What READY or INITIATE says of this socket."""
        return own_properties(self.socket_type, self.identity, self.metadata)


def _is_bytes(value: object, most: int) -> bool:
    return isinstance(value, bytes) and len(value) <= most


_RANGES: Final[dict[str, tuple[int, int]]] = {
    "max_message_bytes": (1, 1 << 40),
    "max_part_count": (1, 1 << 16),
    "max_metadata_bytes": (64, _MIB),
    "max_topic_bytes": (1, _MIB),
    "max_subscription_count": (1, 10**7),
    "max_subscription_bytes": (1, 1 << 30),
    "handshake_ivl_ns": (_MS, _DAY_NS),
    "heartbeat_ivl_ns": (_MS, _DAY_NS),
    "heartbeat_timeout_ns": (0, _DAY_NS),
    "heartbeat_ttl_ns": (0, 655 * TENTH_NS),
}
