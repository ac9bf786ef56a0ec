"""CURVE: a session with a libzmq client byte for byte, and everything that must not get through."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from mcast.kernel import FrameError
from mcast.zmtp import (
    AuthNeeded,
    AuthStatus,
    CurveClient,
    CurveServer,
    Failed,
    FailureReason,
    Messages,
    Ready,
    Subscribed,
    boxes,
)
from mcast.zmtp.codec import FrameScanner
from mcast.zmtp.curve_traffic import CurveTraffic, Role
from mcast.zmtp.failure import ZmtpError
from tests.support.figures import figure
from tests.unit.zmtp.ends import CLIENT, CLIENT_SECRET, SERVER, End, S, pair, talk
from tests.unit.zmtp.wire import command, frame, greeting, message, properties
from tests.vectors.pcap import CAPTURES

pytestmark = pytest.mark.kernel_independent

CURVE_GREETING = greeting(b"CURVE")
OTHER_SECRET = bytes(range(32))

VECTOR = {
    name.strip(): value.strip()
    for name, _, value in (
        line.partition(" = ") for line in (CAPTURES / "curve_vector.txt").read_text().splitlines()
    )
}


def vector(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


# The session of the vector: a server with known secrets, libzmq 4.3.4 as the client.


def vector_server() -> End:
    """Our engine with the vector's keys, dice that fall as they fell then, the client greeted."""
    drawn = iter(
        vector(name)
        for name in (
            "s'_secret(server transient)",
            "cookie_key",
            "cookie_nonce16",
            "welcome_nonce16",
        )
    )

    def dice(size: int) -> bytes:
        value = next(drawn)
        assert len(value) == size
        return value

    security = CurveServer(vector("S_secret(server long-term)"))
    end = End("PUB", security, dice=dice)
    end.take_sent()
    return end.hear(vector("C greeting"))


def test_vector_session_with_libzmq_is_reproduced_byte_for_byte() -> None:
    end = vector_server()
    assert end.hear(frame(4, vector("HELLO"))).take_sent() == frame(4, vector("WELCOME(168)"))
    assert end.hear(frame(4, vector("INITIATE"))).take_sent() == frame(4, vector("READY"))
    (question,) = end.all(AuthNeeded)
    assert question.credentials == (vector("C_public"),)
    assert end.ready.socket_type == "SUB"

    end.engine.send([(b"A1", b"body")])
    end.drain()
    assert end.take_sent() == frame(0, vector('S MESSAGE 1 (MORE,"A1")')) + frame(
        0, vector('S MESSAGE 2 ("body")')
    )

    lines = (CAPTURES / "curve_vector.txt").read_text().splitlines()
    heard = [bytes.fromhex(line.split(" = ")[1]) for line in lines if "C frame flags 00" in line]
    assert len(heard) == 2
    end.hear(frame(0, heard[0]))
    assert end.events[-1] == Subscribed([b"A"])
    end.hear(frame(0, heard[1]))
    assert end.engine.counters.pings_received == 1
    assert end.engine.next_timeout_ns == end.now_ns + 3 * S
    assert len(end.take_sent()) == 2 + 33 + 5  # the PONG, sealed


def test_vector_keys_belong_together() -> None:
    for secret, public in (
        ("S_secret(server long-term)", "S_public"),
        ("C_secret(client long-term)", "C_public"),
        ("s'_secret(server transient)", "S'_public"),
    ):
        assert boxes.public_key_of(vector(secret)) == vector(public)


# The negative matrix: each step of a good session, one thing in it changed.


class Session:
    """A client and a server of ours; what one says reaches the other through ``change``."""

    def __init__(
        self,
        server: CurveServer = SERVER,
        client: CurveClient = CLIENT,
        answer: AuthStatus | None = AuthStatus.ALLOWED,
    ) -> None:
        self.server = End("PUB", server, seed=11, answer=answer)
        self.client = End("SUB", client, seed=12)

    def run(self, step: str = "", change: Callable[[bytes], bytes] = lambda data: data) -> None:
        """Greetings, HELLO, WELCOME, INITIATE and READY, ``change`` applied to ``step``."""
        to_client = self.server.take_sent()
        self.server.hear(self.client.take_sent())
        self.client.hear(to_client)
        for name, sender, receiver in (
            ("HELLO", self.client, self.server),
            ("WELCOME", self.server, self.client),
            ("INITIATE", self.client, self.server),
            ("READY", self.server, self.client),
        ):
            sent = sender.take_sent()
            if not sent:
                return
            receiver.hear(change(sent) if name == step else sent)

    @property
    def receivers(self) -> dict[str, End]:
        return {
            "HELLO": self.server,
            "WELCOME": self.client,
            "INITIATE": self.server,
            "READY": self.client,
        }


def recorded() -> dict[str, bytes]:
    """The frames of a good session."""
    frames: dict[str, bytes] = {}
    for step in ("HELLO", "WELCOME", "INITIATE", "READY"):

        def keep(data: bytes, step: str = step) -> bytes:
            frames[step] = data
            return data

        Session().run(step, keep)
    return frames


FRAMES = recorded()


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_good_session_has_the_sizes_of_rfc_26() -> None:
    assert {step: len(data) for step, data in FRAMES.items()} == {
        "HELLO": 2 + 200,
        "WELCOME": 2 + 168,
        "INITIATE": 9 + 257 + len(properties(Socket_Type=b"SUB")),
        "READY": 2 + 30 + len(properties(Socket_Type=b"PUB")),
    }


@pytest.mark.parametrize("step", FRAMES)
def test_any_flipped_bit_of_the_handshake_ends_it(step: str) -> None:
    """Frame heads included; where a size grew, by the deadline. Nothing is ever delivered."""
    for bit in range(8 * len(FRAMES[step])):
        session = Session()
        session.run(step, partial(flipped, bit=bit))
        receiver = session.receivers[step]
        # What an attacker may add while the handshake stands still must not get through either.
        receiver.hear(message(b"\x01A"), message(b"evil"))
        receiver.run(6 * S)
        assert receiver.failure is not None, f"bit {bit} of {step}"
        assert not receiver.all(Ready), f"bit {bit} of {step}"
        assert not receiver.all(Messages) + receiver.all(Subscribed)
        if step in ("HELLO", "INITIATE"):
            assert not receiver.all(AuthNeeded), f"bit {bit} of {step}"
    figure("S18", f"{step}: each of {8 * len(FRAMES[step]):,} bits, all ended, 0 delivered")


def test_any_flipped_bit_of_a_message_ends_the_connection() -> None:
    """But for COMMAND in the frame's head, which both kinds of peers set as they like."""
    frame_bytes, command_flag = 2 + 33 + len(b"bad"), 2
    for bit in range(8 * frame_bytes):
        server, client = pair("CURVE")
        server.engine.send([b"good", b"bad", b"never"])
        server.drain()
        second = 2 + 33 + len(b"good")
        client.hear(flipped(server.take_sent(), 8 * second + bit))
        if bit == command_flag:
            assert client.messages == [b"good", b"bad", b"never"]
            continue
        assert client.messages == [b"good"], f"bit {bit}"
        # A size that grew past what came keeps it waiting, and then the next bytes end it.
        client.hear(bytes(300))
        assert client.failure is not None, f"bit {bit}"
        assert client.messages == [b"good"], f"bit {bit}"


@pytest.mark.parametrize(
    ("server", "client"),
    [
        (SERVER, CurveClient(boxes.public_key_of(OTHER_SECRET), CLIENT_SECRET)),
        (CurveServer(OTHER_SECRET), CLIENT),
    ],
)
def test_wrong_server_key_ends_with_the_hello(server: CurveServer, client: CurveClient) -> None:
    session = Session(server, client)
    session.run()
    assert session.server.failure is FailureReason.CRYPTOGRAPHIC
    assert session.server.take_sent() == b""
    assert not session.client.all(Ready)


def test_client_notices_an_impostor_who_answers_its_hello() -> None:
    client = End("SUB", CLIENT)
    client.take_sent()
    their_hello = client.hear(CURVE_GREETING).take_sent()
    client_public = their_hello[2 + 80 : 2 + 112]
    key = boxes.shared_key_untrusted(client_public, OTHER_SECRET)
    welcome = bytes(16) + boxes.box(bytes(128), b"WELCOME-" + bytes(16), key)
    client.hear(command(b"WELCOME", welcome))
    assert client.failure is FailureReason.CRYPTOGRAPHIC
    assert client.take_sent() == b""


@pytest.mark.parametrize("status", [AuthStatus.TEMPORARY, AuthStatus.DENIED, AuthStatus.FAILED])
def test_client_key_that_is_not_allowed_gets_no_ready(status: AuthStatus) -> None:
    session = Session(answer=status)
    session.run()
    assert session.server.all(AuthNeeded)[0].credentials == (CLIENT.public_key,)
    assert session.server.failure is FailureReason.REFUSED
    assert not session.server.all(Ready) + session.client.all(Ready)
    if status is not AuthStatus.TEMPORARY:
        assert session.client.all(Failed)[0].status == status


def test_nothing_comes_out_while_the_question_is_open() -> None:
    session = Session(answer=None)
    session.run()
    assert [type(event) for event in session.server.events] == [AuthNeeded]
    session.server.hear(message(b"\x01A"))
    assert session.server.failure is FailureReason.UNEXPECTED


def test_session_cannot_be_replayed() -> None:
    """HELLO may be, to no avail: INITIATE is for another connection's cookie and key."""
    for replayed in ([FRAMES["HELLO"], FRAMES["INITIATE"]], [FRAMES["INITIATE"]]):
        server = End("PUB", SERVER, seed=99).hear(CURVE_GREETING, *replayed, message(b"\x01A"))
        assert server.failure in (FailureReason.KEY_EXCHANGE, FailureReason.UNEXPECTED)
        assert [type(event) for event in server.events] == [Failed]
    client = End("SUB", CLIENT, seed=98).hear(CURVE_GREETING, FRAMES["WELCOME"], FRAMES["READY"])
    assert client.failure is FailureReason.CRYPTOGRAPHIC


@pytest.mark.parametrize("again", FRAMES)
def test_command_that_comes_twice_ends_the_handshake(again: str) -> None:
    session = Session()
    session.run(again, lambda data: data + data)
    assert session.receivers[again].failure is FailureReason.UNEXPECTED


def test_answer_to_hello_is_shorter_than_it() -> None:
    assert len(FRAMES["WELCOME"]) < len(FRAMES["HELLO"])


def test_silent_client_costs_no_dice() -> None:
    def dice(size: int) -> bytes:
        raise AssertionError("rolled")

    end = End("PUB", SERVER, dice=dice).hear(CURVE_GREETING)
    assert not end.engine.is_over


# By hand: what only somebody with the keys could do wrong.

OWN_SECRET = bytes(range(100, 132))  # c', or s'
SHORT = [number.to_bytes(8, "big") for number in range(5)]
LAST = b"\xff" * 8


def hello(
    *,
    version: bytes = b"\x01\x00",
    padding: bytes = bytes(72),
    public: bytes | None = None,
    nonce: bytes = SHORT[1],
    signed: bytes = bytes(64),
    extra: bytes = b"",
) -> bytes:
    key = boxes.shared_key_untrusted(SERVER.public_key, OWN_SECRET)
    sealed = boxes.box(signed, b"CurveZMQHELLO---" + nonce, key)
    public = boxes.public_key_of(OWN_SECRET) if public is None else public
    return command(b"HELLO", version + padding + public + nonce + sealed + extra)


def initiate(
    welcome: bytes,
    *,
    nonce: bytes = SHORT[2],
    vouched: bytes | None = None,
    client_public: bytes = CLIENT.public_key,
    metadata: bytes = properties(Socket_Type=b"SUB"),
) -> bytes:
    own_public = boxes.public_key_of(OWN_SECRET)
    key = boxes.shared_key_untrusted(SERVER.public_key, OWN_SECRET)
    plain = boxes.open_box_untrusted(welcome[26:], b"WELCOME-" + welcome[10:26], key, "WELCOME")
    server_public, cookie = plain[:32], plain[32:]
    vouched = own_public + SERVER.public_key if vouched is None else vouched
    vouch = boxes.box(
        vouched,
        b"VOUCH---" + bytes(16),
        boxes.shared_key_untrusted(server_public, CLIENT_SECRET),
    )
    sealed = boxes.box(
        client_public + bytes(16) + vouch + metadata,
        b"CurveZMQINITIATE" + nonce,
        boxes.shared_key_untrusted(server_public, OWN_SECRET),
    )
    return command(b"INITIATE", cookie + nonce + sealed)


def greeted_server() -> End:
    server = End("PUB", SERVER)
    server.take_sent()
    return server.hear(CURVE_GREETING)


def test_client_by_hand_is_welcome() -> None:
    server = greeted_server()
    server.hear(initiate(server.hear(hello()).take_sent()))
    assert server.ready.socket_type == "SUB"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (hello(version=b"\x02\x00"), FailureReason.MALFORMED),
        (hello(version=b"\x01\x01"), FailureReason.MALFORMED),
        (hello(padding=bytes(71) + b"\x01"), FailureReason.MALFORMED),
        (hello(signed=bytes(63) + b"\x01"), FailureReason.MALFORMED),
        (hello(signed=bytes(63)), FailureReason.MALFORMED),
        (hello(extra=b"\0"), FailureReason.MALFORMED),
        (hello(public=bytes(32)), FailureReason.CRYPTOGRAPHIC),  # of small order
        (hello(public=CLIENT.public_key), FailureReason.CRYPTOGRAPHIC),
        (command(b"HELLO"), FailureReason.MALFORMED),
    ],
)
def test_hello_that_is_not_right_is_refused(data: bytes, reason: FailureReason) -> None:
    server = greeted_server().hear(data)
    assert server.failure is reason
    assert server.take_sent() == b""


OWN_PUBLIC = boxes.public_key_of(OWN_SECRET)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": SHORT[1]}, FailureReason.NONCE),
        ({"nonce": SHORT[3]}, FailureReason.NONCE),
        ({"nonce": SHORT[0]}, FailureReason.NONCE),
        ({"nonce": LAST}, FailureReason.NONCE),
        ({"vouched": CLIENT.public_key + SERVER.public_key}, FailureReason.KEY_EXCHANGE),
        ({"vouched": OWN_PUBLIC + CLIENT.public_key}, FailureReason.KEY_EXCHANGE),
        ({"client_public": OWN_PUBLIC}, FailureReason.CRYPTOGRAPHIC),
        ({"client_public": bytes(32)}, FailureReason.CRYPTOGRAPHIC),
        ({"metadata": properties(Socket_Type=b"PULL")}, FailureReason.SOCKET_TYPE),
        ({"metadata": b"\x01"}, FailureReason.METADATA),
        ({"metadata": bytes(4097)}, FailureReason.TOO_LONG),
    ],
)
def test_initiate_that_is_not_right_is_refused(
    changes: dict[str, Any], reason: FailureReason
) -> None:
    server = greeted_server()
    server.hear(initiate(server.hear(hello()).take_sent(), **changes))
    assert server.failure is reason
    assert not server.all(AuthNeeded)


def test_short_initiate_is_refused() -> None:
    server = greeted_server().hear(hello(), command(b"INITIATE", bytes(247)))
    assert server.failure is FailureReason.MALFORMED


def test_nonces_of_a_handshake_cannot_run_over() -> None:
    server = greeted_server()
    server.hear(initiate(server.hear(hello(nonce=LAST)).take_sent(), nonce=SHORT[0]))
    assert server.failure is FailureReason.NONCE


def test_question_about_a_client_comes_with_its_identity() -> None:
    server = End("ROUTER", SERVER, answer=None)
    client = End("DEALER", CLIENT, identity=b"D1")
    talk(server, client)
    assert server.all(AuthNeeded)[0].identity == b"D1"


@pytest.mark.parametrize("size", [159, 161, 0])
def test_welcome_of_another_size_is_refused(size: int) -> None:
    client = End("SUB", CLIENT).hear(CURVE_GREETING, command(b"WELCOME", bytes(size)))
    assert client.failure is FailureReason.MALFORMED


def test_short_ready_is_refused() -> None:
    session = Session()
    session.run("READY", lambda data: command(b"READY", bytes(23)))
    assert session.client.failure is FailureReason.MALFORMED


def test_clear_error_ends_a_clients_handshake() -> None:
    client = End("SUB", CLIENT).hear(CURVE_GREETING, command(b"ERROR", b"\x03400"))
    assert client.all(Failed)[0].status == 400


# Traffic.

KEY = bytes(range(32))


def traffic(role: Role = Role.SERVER, limit: int = 100) -> CurveTraffic:
    return CurveTraffic(FrameScanner(limit, 4, 64), role, KEY, 1, 1)


def sealed(nonce: int, plain: bytes, role: Role = Role.CLIENT) -> bytes:
    number = nonce.to_bytes(8, "big")
    return b"\x07MESSAGE" + number + boxes.box(plain, role.value + number, KEY)


def opened(*frames: bytes, limit: int = 100) -> tuple[list[Any], FailureReason | None]:
    end = traffic(limit=limit)
    out: list[Any] = []
    end.feed(b"".join(frames))
    try:
        while (found := end.scan_untrusted(out)) is not None:
            out.append(bytearray(found))
    except FrameError as error:
        return out, FailureReason(error.reason)
    return out, None


def test_sealed_frames_hide_more_and_command() -> None:
    sender = traffic(Role.CLIENT)
    sent = b"".join(sender.encode_messages([(b"a", b"b"), b"c"])) + sender.encode_command(b"\x01X")
    heads = [sent[start : start + 2] for start in (0, 36, 72, 108)]
    assert heads == [b"\x00\x22", b"\x00\x22", b"\x00\x22", b"\x00\x23"]
    assert sender.encode_command(bytes(256))[:9] == b"\x02" + (289).to_bytes(8, "big")
    receiver = traffic(Role.SERVER)
    receiver.feed(sent)
    out: list[Any] = []
    assert receiver.scan_untrusted(out) == b"\x01X"
    assert out == [(b"a", b"b"), b"c"]
    assert receiver.scan_untrusted(out) is None


@pytest.mark.parametrize("flags", [0x00, 0x04])
def test_message_travels_in_frames_of_either_kind(flags: int) -> None:
    assert opened(frame(flags, sealed(2, b"\x00hi"))) == ([b"hi"], None)


def test_unknown_flags_in_a_box_are_passed_over() -> None:
    assert opened(frame(0, sealed(2, b"\xf0hi"))) == ([b"hi"], None)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (sealed(2, b"\x00x"), FailureReason.NONCE),  # replayed
        (sealed(4, b"\x00x"), FailureReason.NONCE),  # one left out
        (sealed(3, b"\x00x", Role.SERVER), FailureReason.CRYPTOGRAPHIC),  # reflected
        (sealed(3, b"\x03x"), FailureReason.MALFORMED),
        (sealed(3, bytes(102)), FailureReason.TOO_LONG),
        (sealed(3, b"\x02" + bytes(65)), FailureReason.TOO_LONG),
        (sealed(3, b"\x00x")[:32], FailureReason.UNEXPECTED),
        (b"in the clear, and long enough to be a box", FailureReason.UNEXPECTED),
        (b"\x04PING\0\0", FailureReason.UNEXPECTED),
        (b"", FailureReason.UNEXPECTED),
    ],
)
def test_what_came_before_a_bad_box_is_delivered(bad: bytes, reason: FailureReason) -> None:
    good = frame(0, sealed(2, b"\x00good"))
    assert opened(good, frame(0, bad)) == ([b"good"], reason)
    assert opened(good, frame(4, bad)) == ([b"good"], reason)


def test_frame_outside_the_grammar_ends_traffic_behind_what_was_good() -> None:
    good = frame(0, sealed(2, b"\x00good"))
    assert opened(good, frame(8, b"")) == ([b"good"], FailureReason.MALFORMED)
    assert opened(good, frame(1, b"")) == ([b"good"], FailureReason.TOO_LONG)
    assert opened(good, frame(0, bytes(200))) == ([b"good"], FailureReason.TOO_LONG)


def test_earlier_of_two_faults_counts() -> None:
    assert opened(frame(0, b"clear"), frame(8, b"")) == ([], FailureReason.UNEXPECTED)


def test_limits_hold_for_what_is_in_the_boxes() -> None:
    halves = [frame(0, sealed(2, b"\x01" + bytes(50))), frame(0, sealed(3, b"\x00" + bytes(50)))]
    assert opened(*halves) == ([(bytes(50), bytes(50))], None)
    assert opened(*halves, limit=99) == ([], FailureReason.TOO_LONG)


def test_message_that_cannot_be_sent_uses_up_no_nonce() -> None:
    sender = traffic(Role.CLIENT)
    with pytest.raises(TypeError, match="a message is bytes"):
        sender.encode_messages([b"fine", "text"])  # type: ignore[list-item]
    assert b"".join(sender.encode_messages([b"x"])) == frame(0, sealed(2, b"\x00x"))


def test_error_behind_a_command_is_not_forgotten() -> None:
    end = traffic()
    end.feed(frame(0, sealed(2, b"\x02\x01X")) + frame(0, b"clear"))
    assert end.scan_untrusted([]) == b"\x01X"
    with pytest.raises(ZmtpError):
        end.scan_untrusted([])
