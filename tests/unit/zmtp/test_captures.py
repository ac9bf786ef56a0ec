"""Captured libzmq connections: each stream fed to an engine in the other side's place.

An engine says the same as the libzmq peer whose place it takes, byte for byte, but for one octet
of the greeting; and it hears what the session's notes say was sent. CURVE's keys of a connection
are random, so of these files only the first steps can be followed; ``test_curve`` has a session
with known keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mcast.kernel import Message
from mcast.zmtp import (
    AuthNeeded,
    AuthStatus,
    Cancelled,
    CurveClient,
    CurveServer,
    Failed,
    FailureReason,
    Null,
    PlainClient,
    PlainServer,
    Ready,
    Security,
    Subscribed,
)
from tests.unit.zmtp.ends import MS, End, S
from tests.vectors.pcap import Segment, read_connection

pytestmark = pytest.mark.kernel_independent

Z = b"topic" + b"z" * 300
TOPICS = [Subscribed([b"A"]), Subscribed([b"topic"]), Cancelled([b"A"])]
Act = Callable[[End], None]
AS_SERVER = 32  # the octet in which libzmq's servers write 0, against the RFCs


def send(*messages: Message) -> Act:
    return lambda end: end.engine.send(messages)


def subscribe(*topics: bytes) -> Act:
    return lambda end: end.engine.subscribe(*topics)


def cancel(topic: bytes) -> Act:
    return lambda end: end.engine.cancel(topic)


@dataclass
class Side:
    """One end of a captured connection."""

    socket_type: str
    security: Security = field(default_factory=Null)
    options: dict[str, Any] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    """What its application did after the handshake, in order."""
    heard: list[Any] = field(default_factory=list)
    """What it heard after ``Ready``."""


CHAT = [send((b"A1", b"body"), Z)]
WANTS = [subscribe(b"A"), subscribe(b"topic"), cancel(b"A")]
GROUPS = [b"x" * 127, b"y" * 128]

SESSIONS = {
    "zmtp_null_pubsub": (
        Side("PUB", acts=CHAT, heard=TOPICS),
        Side("SUB", acts=WANTS, heard=[(b"A1", b"body"), Z]),
    ),
    "zmtp_null_reqrep": (
        Side("REP", acts=[send((b"", b"reply"))], heard=[(b"", b"hello", b"world")]),
        Side(
            "REQ",
            options={"identity": b"client-1"},
            acts=[send((b"", b"hello", b"world"))],
            heard=[(b"", b"reply")],
        ),
    ),
    "zmtp_null_router": (
        Side("ROUTER", acts=[send(b"ans")], heard=[(b"", b"x"), b"y"]),
        Side(
            "DEALER",
            options={"identity": b"D1"},
            acts=[send((b"", b"x"), b"y")],
            heard=[b"ans"],
        ),
    ),
    "zmtp_plain_pubsub": (
        Side("PUB", PlainServer(), acts=CHAT, heard=TOPICS),
        Side("SUB", PlainClient("admin", "secret"), acts=WANTS, heard=[(b"A1", b"body"), Z]),
    ),
    "radio_dish_tcp": (
        Side(
            "RADIO",
            acts=[
                send((b"Movies", b"Godfather"), (b"Movies", b"")),
                send((GROUPS[0], b"g127"), (GROUPS[1], b"g128")),
            ],
            heard=[
                Subscribed([b"Movies"]),
                *(Subscribed([group]) for group in GROUPS),
                Cancelled([b"Movies"]),
            ],
        ),
        Side(
            "DISH",
            acts=[subscribe(b"Movies"), subscribe(*GROUPS), cancel(b"Movies")],
            heard=[
                (b"Movies", b"Godfather"),
                (b"Movies", b""),
                (GROUPS[0], b"g127"),
                (GROUPS[1], b"g128"),
            ],
        ),
    ),
}


def stream(segments: list[Segment], from_connecter: bool) -> bytes:
    return b"".join(s.data for s in segments if s.from_connecter is from_connecter)


def greeting_as_libzmq(end: End, captured: bytes) -> bytes:
    """Our stream with libzmq's padding, which tells the identity's size, and its as-server 0."""
    sent = bytearray(end.sent)
    assert sent[AS_SERVER] == end.engine._options.security.is_server
    sent[AS_SERVER] = 0
    sent[1:9] = captured[1:9]
    return bytes(sent)


@pytest.mark.parametrize("name", SESSIONS)
@pytest.mark.parametrize("place", [0, 1], ids=["bound", "connecting"])
@pytest.mark.parametrize("step", [None, 1])
def test_engine_takes_a_libzmq_peers_place(name: str, place: int, step: int | None) -> None:
    """``step``: captured segments, or every byte alone."""
    side = SESSIONS[name][place]
    segments = read_connection(name)
    end = End(side.socket_type, side.security, **side.options)
    for segment in segments:
        if segment.from_connecter is (place == 0):
            width = step or len(segment.data)
            end.hear(*(segment.data[i : i + width] for i in range(0, len(segment.data), width)))
    assert end.failure is None
    assert end.ready.socket_type == SESSIONS[name][1 - place].socket_type
    assert end.ready.identity == SESSIONS[name][1 - place].options.get("identity", b"")
    asked = [AuthNeeded] if isinstance(side.security, PlainServer) else []
    assert [type(event) for event in end.stream[: len(asked) + 1]] == [*asked, Ready]
    assert end.stream[len(asked) + 1 :] == side.heard

    for act in side.acts:
        act(end)
    end.drain()
    captured = stream(segments, from_connecter=place == 1)
    assert greeting_as_libzmq(end, captured) == captured


@pytest.mark.parametrize("place", [0, 1], ids=["bound", "connecting"])
def test_heartbeats_are_sent_and_answered_as_captured(place: int) -> None:
    """The SUB of this file sends PING every 300 ms; time moves as it was captured."""
    segments = read_connection("zmtp_null_hb")
    beat: dict[str, Any] = {
        "heartbeat_ivl_ns": 300 * MS,
        "heartbeat_ttl_ns": 2 * S,
        "heartbeat_timeout_ns": 1 * S,
    }
    end = End("PUB") if place == 0 else End("SUB", **beat)
    started_ns = segments[0].time_ns
    for segment in segments:
        if segment.from_connecter is (place == 0):
            end.run(max(0, segment.time_ns - started_ns - (end.now_ns - 1_000_000 * S)))
            end.hear(segment.data)
    assert end.failure is None
    captured = stream(segments, from_connecter=place == 1)
    if place == 0:
        assert end.stream[1:] == TOPICS
        assert end.engine.counters.pings_received == 4
        send((b"A1", b"body"), Z)(end)
        end.drain()
        # All PONGs, and what the PUB sent somewhere between them.
        chat = captured[64 + 27 + 2 * 7 :][:324]
        assert sorted(end.sent[64 + 27 :]) == sorted(captured[64 + 27 :])
        assert end.sent.endswith(chat)
    else:
        assert end.messages == [(b"A1", b"body"), Z]
        ping = bytes.fromhex("0407 0450494e47 0014")
        assert captured.count(ping) == 4
        assert end.sent[64 + 27 :] == ping * 4
        assert end.engine.next_timeout_ns > end.now_ns


def test_refusal_by_libzmq_is_understood_and_ours_differs_by_its_misspelling_only() -> None:
    segments = read_connection("zmtp_plain_bad")
    client = End("PUSH", PlainClient("admin", "wrong")).hear(stream(segments, False))
    assert client.events == [Failed(FailureReason.REFUSED_BY_PEER, "the peer refused: '400'", 400)]
    captured = stream(segments, True)
    assert greeting_as_libzmq(client, captured) == captured

    server = End("PULL", PlainServer(), answer=AuthStatus.DENIED).hear(stream(segments, True))
    assert server.all(AuthNeeded)[0].credentials == (b"admin", b"wrong")
    assert server.failure is FailureReason.REFUSED
    captured = stream(segments, False)
    assert captured.endswith(bytes.fromhex("04095e52524f5203343030"))
    assert greeting_as_libzmq(server, captured) == captured[:64] + bytes.fromhex(
        "040a05 4552524f52 03343030"
    )


CURVE_SERVER = CurveServer("JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6")
CURVE_CLIENT = CurveClient(
    "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"
)


@pytest.mark.parametrize(
    ("name", "bound", "connecting"),
    [("zmtp_curve_pubsub", "PUB", "SUB"), ("zmtp_curve_reqrep", "REP", "REQ")],
)
def test_captured_curve_session_gets_a_welcome_and_no_further(
    name: str, bound: str, connecting: str
) -> None:
    """The HELLO opens with the server's key; all that follows was for another connection."""
    segments = read_connection(name)
    server = End(bound, CURVE_SERVER)
    theirs = stream(segments, True)
    server.hear(theirs[: 64 + 202])
    welcome = server.sent[64:]
    assert welcome[:10] == bytes.fromhex("04a8 0757454c434f4d45")
    assert len(welcome) == 170
    server.hear(theirs[64 + 202 :])
    assert [type(event) for event in server.events] == [Failed]
    assert server.failure is FailureReason.KEY_EXCHANGE

    client = End(connecting, CURVE_CLIENT)
    client.hear(stream(segments, False))
    assert client.sent[64:74] == theirs[64:74] == bytes.fromhex("04c8 0548454c4c4f 0100")
    assert len(client.sent) == 64 + 202
    assert [type(event) for event in client.events] == [Failed]
    assert client.failure is FailureReason.CRYPTOGRAPHIC
