"""CURVE's handshake, which proves the keys of both sides (RFC 25, RFC 26).

Owns both roles. Invariants: each connection has fresh keys, drawn from the dice it is given; short
nonces go up by one with each command of a direction, MESSAGE included (``curve_traffic``); a
server computes nothing before a HELLO, and answers it with less than it got.

Secrets are named by what they are for; the RFC's letters stand beside them: C, S are permanent
keys of client and server, C', S' those of this connection, small letters the secret halves.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from mcast.z85 import curve_key
from mcast.zmtp.boxes import (
    MAC_BYTES,
    box,
    open_box_untrusted,
    public_key_of,
    secret_box,
    shared_key_untrusted,
)
from mcast.zmtp.codec import FrameScanner
from mcast.zmtp.commands import READY, build_command
from mcast.zmtp.curve_traffic import CurveTraffic, Role, check_nonce_untrusted, short_nonce
from mcast.zmtp.failure import FailureReason, ZmtpError
from mcast.zmtp.handshake import HELLO, INITIATE, WELCOME, Handshake, Question, Step
from mcast.zmtp.options import CurveClient, CurveServer, ZmtpOptions

__all__ = ["CurveClientHandshake", "CurveServerHandshake", "Dice"]

Dice = Callable[[int], bytes]
"""So many unpredictable bytes, as ``os.urandom`` gives them."""

_KEY: Final = 32
_LONG_NONCE: Final = 16
_SHORT_NONCE: Final = 8
_VERSION: Final = b"\x01\x00"
_PADDING: Final = bytes(72)
_SIGNED: Final = bytes(64)
_COOKIE: Final = _LONG_NONCE + _KEY + _KEY + MAC_BYTES
_VOUCH: Final = _KEY + _KEY + MAC_BYTES
_HELLO_BYTES: Final = 200 - len(build_command(HELLO))
_WELCOME_BYTES: Final = 168 - len(build_command(WELCOME))
_INITIATE_LEAST_BYTES: Final = 257 - len(build_command(INITIATE))
_READY_LEAST_BYTES: Final = 30 - len(build_command(READY))


def _check_size_untrusted(name: str, data: bytes, least: int, most: int | None = None) -> None:
    if len(data) < least or (most is not None and len(data) > most):
        raise ZmtpError(FailureReason.MALFORMED, f"a {name} has {len(data)} bytes of data")


class CurveClientHandshake(Handshake):
    """HELLO, WELCOME, INITIATE, READY. A WELCOME that opens has proved the server's key."""

    tells_error = False

    def __init__(self, options: ZmtpOptions, security: CurveClient, dice: Dice) -> None:
        super().__init__(options, Step.WELCOME)
        self._table = {
            Step.WELCOME: (WELCOME, self._welcome),
            Step.READY: (READY, self._ready),
        }
        self._dice = dice
        self._server_key = curve_key(security.server_key)  # S
        self._secret_key = curve_key(security.secret_key)  # c
        self._public_key = security.public_key  # C
        self._own_secret = b""  # c'
        self._own_public = b""  # C'
        self._hello_key = b""  # of c' and S
        self._traffic_key = b""  # of c' and S'
        self._heard_nonce = 0

    def start(self) -> bytes:
        """HELLO, with a key that is new."""
        self._own_secret = self._dice(_KEY)
        self._own_public = public_key_of(self._own_secret)
        self._hello_key = shared_key_untrusted(self._server_key, self._own_secret)
        nonce = short_nonce(1)
        signature = box(_SIGNED, b"CurveZMQHELLO---" + nonce, self._hello_key)
        return build_command(HELLO, _VERSION + _PADDING + self._own_public + nonce + signature)

    def traffic(self, scanner: FrameScanner) -> CurveTraffic:
        """Everything that follows READY, out of ``scanner``. Only when done."""
        return CurveTraffic(scanner, Role.CLIENT, self._traffic_key, 2, self._heard_nonce)

    def _welcome(self, data: bytes) -> bytes:
        _check_size_untrusted("WELCOME", data, _WELCOME_BYTES, _WELCOME_BYTES)
        long_nonce, sealed = data[:_LONG_NONCE], data[_LONG_NONCE:]
        plain = open_box_untrusted(sealed, b"WELCOME-" + long_nonce, self._hello_key, "WELCOME")
        server_public, cookie = plain[:_KEY], plain[_KEY:]
        self._traffic_key = shared_key_untrusted(server_public, self._own_secret)
        vouch_nonce = self._dice(_LONG_NONCE)
        vouch = box(
            self._own_public + self._server_key,
            b"VOUCH---" + vouch_nonce,
            shared_key_untrusted(server_public, self._secret_key),
        )
        nonce = short_nonce(2)
        sealed = box(
            self._public_key + vouch_nonce + vouch + self._options.properties,
            b"CurveZMQINITIATE" + nonce,
            self._traffic_key,
        )
        self.step = Step.READY
        return build_command(INITIATE, cookie + nonce + sealed)

    def _ready(self, data: bytes) -> None:
        _check_size_untrusted("READY", data, _READY_LEAST_BYTES)
        nonce, sealed = data[:_SHORT_NONCE], data[_SHORT_NONCE:]
        plain = open_box_untrusted(sealed, b"CurveZMQREADY---" + nonce, self._traffic_key, "READY")
        self._meet_untrusted(plain)
        self._heard_nonce = int.from_bytes(nonce, "big")
        self.step = Step.DONE


class CurveServerHandshake(Handshake):
    """The other side of ``CurveClientHandshake``; an authenticator is asked about each key C."""

    hears_error = False

    def __init__(self, options: ZmtpOptions, security: CurveServer, dice: Dice) -> None:
        super().__init__(options, Step.HELLO)
        self._table = {
            Step.HELLO: (HELLO, self._hello),
            Step.INITIATE: (INITIATE, self._initiate),
        }
        self._dice = dice
        self._secret_key = curve_key(security.secret_key)  # s
        self._public_key = security.public_key  # S
        self._own_secret = b""  # s'
        self._client_public = b""  # C'
        self._cookie = b""
        self._traffic_key = b""  # of s' and C'
        self._heard_nonce = 0

    def traffic(self, scanner: FrameScanner) -> CurveTraffic:
        """Everything that follows READY, out of ``scanner``. Only when done."""
        return CurveTraffic(scanner, Role.SERVER, self._traffic_key, 1, self._heard_nonce)

    def _hello(self, data: bytes) -> bytes:
        _check_size_untrusted("HELLO", data, _HELLO_BYTES, _HELLO_BYTES)
        public_at = len(_VERSION) + len(_PADDING)
        if data[:public_at] != _VERSION + _PADDING:
            raise ZmtpError(
                FailureReason.MALFORMED, f"a HELLO of CURVE 1.0 begins not with {data[:2].hex()}"
            )
        nonce_at = public_at + _KEY
        box_at = nonce_at + _SHORT_NONCE
        self._client_public, nonce = data[public_at:nonce_at], data[nonce_at:box_at]
        hello_key = shared_key_untrusted(self._client_public, self._secret_key)
        signed = open_box_untrusted(data[box_at:], b"CurveZMQHELLO---" + nonce, hello_key, "HELLO")
        if signed != _SIGNED:
            raise ZmtpError(FailureReason.MALFORMED, "the box of HELLO holds no zeros")
        self._heard_nonce = int.from_bytes(nonce, "big")
        self._own_secret = self._dice(_KEY)
        self._traffic_key = shared_key_untrusted(self._client_public, self._own_secret)
        # A cookie lets a server forget; this one remembers, for a handshake's time, and has the
        # key of each cookie forgotten at once.
        cookie_key, cookie_nonce = self._dice(_KEY), self._dice(_LONG_NONCE)
        self._cookie = cookie_nonce + secret_box(
            self._client_public + self._own_secret, b"COOKIE--" + cookie_nonce, cookie_key
        )
        long_nonce = self._dice(_LONG_NONCE)
        sealed = box(
            public_key_of(self._own_secret) + self._cookie, b"WELCOME-" + long_nonce, hello_key
        )
        self.step = Step.INITIATE
        return build_command(WELCOME, long_nonce + sealed)

    def _initiate(self, data: bytes) -> None:
        _check_size_untrusted("INITIATE", data, _INITIATE_LEAST_BYTES)
        box_at = _COOKIE + _SHORT_NONCE
        if not compare_digest(data[:_COOKIE], self._cookie):
            raise ZmtpError(FailureReason.KEY_EXCHANGE, "the cookie is another connection's")
        nonce = data[_COOKIE:box_at]
        check_nonce_untrusted("INITIATE", nonce, self._heard_nonce)
        self._heard_nonce += 1
        plain = open_box_untrusted(
            data[box_at:], b"CurveZMQINITIATE" + nonce, self._traffic_key, "INITIATE"
        )
        vouch_at = _KEY + _LONG_NONCE
        client_key, vouch_nonce = plain[:_KEY], plain[_KEY:vouch_at]
        vouch = open_box_untrusted(
            plain[vouch_at : vouch_at + _VOUCH],
            b"VOUCH---" + vouch_nonce,
            shared_key_untrusted(client_key, self._own_secret),
            "the vouch",
        )
        # libzmq looks at the first half only; RFC 26 wants both.
        if not compare_digest(vouch, self._client_public + self._public_key):
            raise ZmtpError(FailureReason.KEY_EXCHANGE, "the vouch is for other keys")
        self._meet_untrusted(plain[vouch_at + _VOUCH :])
        self.question = Question((client_key,), self._allow)
        self.step = Step.ANSWER

    def _allow(self) -> bytes:
        self.step = Step.DONE
        nonce = short_nonce(1)
        sealed = box(self._options.properties, b"CurveZMQREADY---" + nonce, self._traffic_key)
        return build_command(READY, nonce + sealed)
