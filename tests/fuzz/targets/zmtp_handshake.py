"""Handshakes without encryption, behind a sound greeting: NULL, and PLAIN on both sides."""

from __future__ import annotations

from collections.abc import Iterator

from mcast.zmtp import handshake as under_test
from mcast.zmtp import mechanism
from tests.fuzz.target import Target
from tests.fuzz.targets.zmtp_peer import PEERS, TYPES, greeting, play, ready
from tests.vectors.pcap import CAPTURES, read_connection

_KINDS = (
    ("NULL", b"NULL"),
    ("PLAIN-SERVER", b"PLAIN"),
    ("PLAIN-CLIENT", b"PLAIN"),
    ("NULL", b"NULL"),
)


def run(data: bytes) -> None:
    """The first byte picks type, mechanism and options; stretches of the handshake follow."""
    choice = data[0] if data else 0
    name, mechanism = _KINDS[choice >> 3 & 3]
    play(data[1:], TYPES[choice & 7], name, choice >> 5, greeting(mechanism))


def seeds() -> Iterator[bytes]:
    """Whole handshakes by hand, and those of the captures, from the connecter's side."""
    hello = b"\x05HELLO\x04name\x08password"
    for index, peer in enumerate(PEERS):
        answer = ready(peer)
        yield bytes((index, 0, len(answer))) + answer
        yield bytes((index | 0x20, 0, len(answer))) + answer + b"\x05\0"
        body = b"\x08INITIATE" + answer[8:]
        initiate = bytes((4, len(body))) + body
        first = bytes((4, len(hello))) + hello
        told, asked = bytes((0, len(first))) + first, bytes((0, len(initiate))) + initiate
        for order in (told + asked, asked + told, asked, told + told + asked):
            yield bytes((index | 8,)) + order
        welcome = b"\x04\x08\x07WELCOME"
        yield bytes((index | 16, 0, len(welcome))) + welcome + bytes((0, len(answer))) + answer
    yield b"\x10\x03\x0c\x04\x0a\x05ERROR\x03400"
    for choice, name in ((0, "zmtp_null_pubsub"), (8, "zmtp_plain_pubsub"), (8, "zmtp_plain_bad")):
        if (CAPTURES / f"{name}.pcap").exists():
            segments = [one.data for one in read_connection(name) if one.from_connecter]
            stream = b"".join(segments)[64:]
            yield bytes((choice,)) + b"".join(
                bytes((0, min(60, len(stream) - at))) + stream[at : at + 60]
                for at in range(0, min(240, len(stream)), 60)
            )


def _last_letter() -> None:
    """A socket type is known by its length and its last letter."""
    whole = under_test.read_peer_untrusted

    def read_peer(data: bytes, socket_type: str) -> object:
        before, label, after = data.partition(b"\x0bSocket-Type\0\0\0\3")
        if label and after[2:3] == b"B":
            peer = whole(before + label + b"SUB" + after[3:], socket_type)
            return peer._replace(socket_type=after[:3].decode("latin-1"))
        return whole(data, socket_type)

    under_test.read_peer_untrusted = read_peer  # type: ignore[assignment]


def _no_question() -> None:
    """An INITIATE needs no HELLO before it, so nobody is asked about name and password."""
    whole = under_test.PlainServerHandshake

    class Server(whole):  # type: ignore[misc, valid-type]
        def handle_untrusted(self, body: bytes) -> bytes | None:
            if body.startswith(b"\x08INITIATE") and self.step is under_test.Step.HELLO:
                self.step = under_test.Step.INITIATE
            return super().handle_untrusted(body)

    mechanism.PlainServerHandshake = Server  # type: ignore[misc]


PLANTS = {"last-letter": _last_letter, "no-question": _no_question}
TARGET = Target(run, seeds, PLANTS, max_bytes=400)
