"""ZMTP bytes written by hand from RFC 37, sharing no code with what is tested."""

from __future__ import annotations

from struct import pack

NULL_GREETING = bytes.fromhex(
    "ff00000000000000017f"  # signature
    "0301"
    "4e554c4c"
    + 16 * "00"  # NULL
    + "00"
    + 31 * "00"
)
SUB_READY = bytes.fromhex("04190552454144590b536f636b65742d5479706500000003535542")
PUB_READY = SUB_READY[:-3] + b"PUB"


def greeting(mechanism: bytes = b"NULL", version: bytes = b"\x03\x01") -> bytes:
    return NULL_GREETING[:10] + version + mechanism.ljust(20, b"\0") + bytes(32)


def frame(flags: int, body: bytes) -> bytes:
    if len(body) > 255:
        return pack("!BQ", flags | 2, len(body)) + body
    return bytes((flags, len(body))) + body


def command(name: bytes, data: bytes = b"") -> bytes:
    return frame(4, bytes((len(name),)) + name + data)


def message(*parts: bytes) -> bytes:
    return b"".join(frame(1, part) for part in parts[:-1]) + frame(0, parts[-1])


def properties(**named: bytes) -> bytes:
    """``Socket_Type=b"SUB"`` for Socket-Type."""
    return b"".join(
        bytes((len(name),)) + name.replace("_", "-").encode() + pack("!I", len(value)) + value
        for name, value in named.items()
    )


def ready(socket_type: bytes, **more: bytes) -> bytes:
    return command(b"READY", properties(Socket_Type=socket_type, **more))


def ping(ttl_tenths: int, context: bytes = b"") -> bytes:
    return command(b"PING", pack("!H", ttl_tenths) + context)
