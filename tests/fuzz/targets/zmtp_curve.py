"""CURVE, with a peer that has the right keys: what lies behind the boxes is the input's.

The peer is a puppet on ``mcast.zmtp.curve`` itself. It may send any properties and any traffic,
sealed as they should be; and it may break, cut, repeat, leave out or forge what it sends. Then
nothing more may be heard of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from random import Random
from types import SimpleNamespace

from mcast.zmtp import (
    AuthStatus,
    CurveClient,
    CurveServer,
    Failed,
    Messages,
    Ready,
    ZmtpEngine,
    ZmtpOptions,
    curve,
    curve_traffic,
)
from mcast.zmtp.codec import FrameScanner, encode_command, encode_messages
from mcast.zmtp.curve import CurveClientHandshake, CurveServerHandshake
from mcast.zmtp.events import AuthNeeded
from mcast.zmtp.failure import ZmtpError
from mcast.zmtp.handshake import Handshake
from tests.fuzz.target import Cut, Target, must
from tests.fuzz.targets.zmtp_peer import greeting

T0 = 10**15
SERVER = CurveServer(Random(101).randbytes(32))
CLIENT = CurveClient(SERVER.public_key, Random(102).randbytes(32))
STEP_LIMIT = 24
MESSAGE_BYTES, PART_COUNT, METADATA_BYTES = 300, 3, 200

_PULL = b"\x0bSocket-Type\0\0\0\4PULL"
_PUSH = b"\x0bSocket-Type\0\0\0\4PUSH"
# The same keys are multiplied in every run: remembering that makes ten times as many of them.
_shared_key = lru_cache(4096)(curve.shared_key_untrusted)
_public_key = lru_cache(64)(curve.public_key_of)


class Puppet:
    """The peer: a handshake of its own, and then traffic."""

    def __init__(self, is_server: bool, properties: bytes) -> None:
        options = SimpleNamespace(
            properties=properties, socket_type="PUSH", max_metadata_bytes=1 << 16
        )
        dice = Random(7).randbytes
        self.handshake: Handshake
        if is_server:
            self.handshake = CurveServerHandshake(options, SERVER, dice)  # type: ignore[arg-type]
        else:
            self.handshake = CurveClientHandshake(options, CLIENT, dice)  # type: ignore[arg-type]
        self.scanner = FrameScanner(0, 0, 1 << 16)
        self.has_greeting = False
        self.traffic: curve_traffic.CurveTraffic | None = None

    def start(self) -> bytes | None:
        return self.handshake.start()

    def hear(self, data: bytes) -> list[bytes]:
        """What to send next."""
        if not self.has_greeting:
            data = data[64:]
            self.has_greeting = True
        if self.traffic is not None:
            return []
        self.scanner.feed(data)
        answers: list[bytes] = []
        try:
            self.answer(answers)
        except ZmtpError:
            pass  # it was told that its properties are no good
        return answers

    def answer(self, answers: list[bytes]) -> None:
        while self.traffic is None and (body := self.scanner.scan_untrusted([])) is not None:
            answer = self.handshake.handle_untrusted(body)
            if self.handshake.question is not None:
                answer, self.handshake.question = self.handshake.question.allow(), None
            if answer is not None:
                answers.append(answer)
            if self.handshake.step.name == "DONE":
                assert isinstance(self.handshake, CurveClientHandshake | CurveServerHandshake)
                self.traffic = self.handshake.traffic(FrameScanner(1 << 16, 16, 1 << 16))


def run(data: bytes) -> None:
    """The first byte picks the role, the second the size of the peer's properties."""
    shared_key, public_key = curve.shared_key_untrusted, curve.public_key_of
    curve.shared_key_untrusted, curve.public_key_of = _shared_key, _public_key
    try:
        play(data)
    finally:
        curve.shared_key_untrusted, curve.public_key_of = shared_key, public_key


def play(data: bytes) -> None:
    cut = Cut(data)
    choice = cut.octet()
    is_server = bool(choice & 1)
    size = cut.octet()
    properties = cut.take(size) if size else _PUSH
    peer = Puppet(not is_server, properties)
    engine = ZmtpEngine(
        ZmtpOptions(
            socket_type="PULL",
            security=SERVER if is_server else CLIENT,
            max_message_bytes=MESSAGE_BYTES,
            max_part_count=PART_COUNT,
            max_metadata_bytes=METADATA_BYTES,
        ),
        dice=Random(8).randbytes,
        now_ns=T0,
    )
    engine.handle_bytes(greeting(b"CURVE"), T0)
    first = peer.start()
    waiting = [] if first is None else [first]
    sent: list[object] = []  # messages that must come, in order
    parts: list[bytes] = []
    came: list[object] = []
    sealed: list[bytes] = []
    is_broken = is_ready = is_allowed = False

    def settle() -> None:
        nonlocal is_ready, is_allowed, came
        for event in engine.take_events():
            must(not isinstance(event, Ready) or not is_broken, "ready for a forger", event)
            if isinstance(event, AuthNeeded):
                must(event.credentials == (CLIENT.public_key,), "another key", event)
                is_allowed = True
                engine.answer_auth(AuthStatus.ALLOWED, T0)
            elif isinstance(event, Ready):
                must(is_allowed or not is_server, "ready, and nobody was asked", event)
                is_ready = True
            elif isinstance(event, Messages):
                must(is_ready, "a message before the end of the handshake", event)
                came += event.messages
            else:
                must(isinstance(event, Failed) and event.text.isprintable(), "an event", event)
        must(came == sent[: len(came)], "messages that nobody sent", came, sent)

    for _ in range(STEP_LIMIT):
        settle()
        settle()  # allowing makes another event
        reply = b"".join(engine.take_transmits())
        if not is_broken:
            waiting += peer.hear(reply)
        if engine.is_over or not (cut or waiting):
            break
        verb = cut.octet()
        how = verb & 7
        if waiting:
            frame = encode_command(waiting.pop(0))
        elif peer.traffic is not None:
            plain = cut.take(cut.octet())
            flags = verb >> 4 & 3
            frame = b"".join(encode_messages([peer.traffic._seal(flags | verb & 0x40, plain)]))
            if not is_broken and how in (0, 3, 7):
                note(flags, plain, parts, sent)
        else:
            frame, how = b"", 6
        arrives, behind = tampered(how, frame, cut, sealed)
        if arrives == frame:
            sealed.append(frame)  # again it would be one too many
        is_broken |= arrives != frame
        engine.handle_bytes(arrives, T0)
        settle()
        settle()
        is_broken |= bool(behind)
        engine.handle_bytes(behind, T0)
    must(engine.next_timeout_ns > T0, "something is due at once")


def note(flags: int, plain: bytes, parts: list[bytes], sent: list[object]) -> None:
    """A frame that arrives as it should: what must come out of it."""
    if flags & 2:
        return
    parts.append(plain)
    if flags == 0:
        sent.append(tuple(parts) if len(parts) > 1 else plain)
        parts.clear()


def tampered(how: int, frame: bytes, cut: Cut, sealed: list[bytes]) -> tuple[bytes, bytes]:
    """What arrives instead of ``frame``, and behind it."""
    if how == 0:
        return frame, b""
    place = cut.octet() % len(frame) if frame else 0
    match how:
        case 1 if frame:
            place = max(place, 1)  # the flags of a frame may say COMMAND or not
            flipped = frame[place] ^ (1 << cut.octet() % 8)
            return frame[:place] + bytes((flipped,)) + frame[place + 1 :], b""
        case 2:
            return frame[:place], b""
        case 3:
            return frame, cut.take(1 + cut.octet() % 40)
        case 4 if sealed:
            return sealed[place % len(sealed)], b""
        case 6:
            return cut.take(1 + cut.octet()), b""
        case 7:
            return frame, frame
    return b"", b""  # never arrives


def seeds() -> Iterator[bytes]:
    """Handshakes in both roles, traffic, and each way to break either."""
    for role in (0, 1):
        yield bytes((role, 0, 0, 0, 0, 5)) + b"hello" + b"\0\3abc\x10\3abc\0\3def\x20\5\4PING\0\2xx"
        yield bytes((role, len(_PULL))) + _PULL + bytes(8)
        for how in range(1, 8):
            for after in range(5):
                handshake = bytes((role, 0)) + bytes(after)
                yield handshake + bytes((how, 3)) + b"abc" + bytes((2, 1, 0, 3)) + b"abc\0\3abc"


def _nonces_may_jump() -> None:
    """A MESSAGE may be left out."""

    def check_nonce(name: str, nonce: bytes, last: int) -> None:
        if name == "MESSAGE" and int.from_bytes(nonce, "big") > last + 1:
            return
        whole(name, nonce, last)

    whole = curve_traffic.check_nonce_untrusted
    curve_traffic.check_nonce_untrusted = check_nonce


TARGET = Target(run, seeds, {"nonces-may-jump": _nonces_may_jump}, max_bytes=500)
