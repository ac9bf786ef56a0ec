"""A ZMTP peer from its first byte: what a greeting leads to is told by a second, plainer reader."""

from __future__ import annotations

from collections.abc import Iterator

from mcast.zmtp import greeting as under_test
from tests.fuzz.stacks import both
from tests.fuzz.target import Target, must
from tests.fuzz.targets.zmtp_peer import TYPES, End, greeting, play, ready
from tests.vectors.pcap import CAPTURES, read_connection

_MECHANISMS = (("NULL", b"NULL"), ("PLAIN-SERVER", b"PLAIN"), ("PLAIN-CLIENT", b"PLAIN"))


def run(data: bytes) -> None:
    """The first byte picks socket type and mechanism; stretches of bytes follow."""
    choice = data[0] if data else 0
    name, mechanism = _MECHANISMS[choice >> 3 & 3] if choice >> 3 & 3 < 3 else _MECHANISMS[0]
    end = End(both()[0], TYPES[choice & 7], name, 0)
    end.hear(data[1:], 1 << 20)
    end.drain()
    expected = read(data[1:], mechanism)
    said = end.said[-1][1] if end.said and end.said[-1][0] == "Failed" else None
    if expected is not None or len(data) <= 65:
        must(said == expected, "a greeting that leads elsewhere", said, expected)
    else:
        reasons = ("not_zmtp", "version", "mechanism")
        must(said not in reasons, "a sound greeting is refused", said)
    play(data[1:], TYPES[choice & 7], name, choice >> 5)


def read(data: bytes, mechanism: bytes) -> str | None:
    """Why a peer that begins so is refused, or None if it may go on (RFC 37 "Greeting")."""
    if data and data[0] != 0xFF:
        return "not_zmtp"
    if len(data) >= 10 and data[9] % 2 == 0:
        return "not_zmtp"
    if len(data) >= 11 and data[10] < 3:
        return "version"
    if len(data) >= 64 and data[12:32] != mechanism + bytes(20 - len(mechanism)):
        return "mechanism"
    return None


def seeds() -> Iterator[bytes]:
    """Whole greetings of each mechanism, older peers, and the beginnings of captures."""
    for choice, mechanism in ((0, b"NULL"), (8, b"PLAIN"), (16, b"PLAIN")):
        yield bytes((choice,)) + greeting(mechanism) + ready("SUB")
        yield bytes((choice, 0, 11)) + greeting(mechanism)[:11] + b"\0\x35"
    yield b"\0\x01\0"
    yield b"\0\xff\0\0\0\0\0\0\0\1\x7f\1\0"
    for path in sorted(CAPTURES.glob("zmtp_*.pcap")):
        for side in (True, False):
            stream = b"".join(
                one.data for one in read_connection(path.stem) if one.from_connecter is side
            )
            yield b"\0" + stream[:120]


def _half_a_name() -> None:
    """A mechanism is known by its first letter."""
    whole = under_test.read_greeting_untrusted

    def read_greeting(data: bytes, mechanism: bytes) -> tuple[int, int] | None:
        if len(data) >= 64 and data[12:13] == mechanism[:1] and data[13:16] != b"ULL":
            data = data[:12] + mechanism.ljust(20, b"\0") + data[32:]
        return whole(data, mechanism)

    from mcast.zmtp import engine

    engine.read_greeting_untrusted = read_greeting  # type: ignore[attr-defined]


TARGET = Target(run, seeds, {"half-a-name": _half_a_name}, max_bytes=200)
