"""CURVE's MESSAGE: boxes around everything that follows the handshake (RFC 26).

Owns the traffic's key and both nonce counters. Invariant: the short nonces of a direction go up by
one, so that a box that was replayed, reordered or left out ends the connection.

Where RFC 26 contradicts itself, this follows libzmq: nonces begin with CurveZMQMESSAGEC from the
client and CurveZMQMESSAGES from the server; MESSAGE travels in frames without the COMMAND flag
(one with it is accepted), and in the box a flag of its own (02) marks commands.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

from mcast.kernel import Buffer, FrameError, Message
from mcast.zmtp.boxes import MAC_BYTES, box, open_box_untrusted
from mcast.zmtp.codec import FrameScanner, checked_parts, encode_messages, frame_head
from mcast.zmtp.failure import FailureReason, ZmtpError, printable

__all__ = ["CurveTraffic", "Role", "check_nonce_untrusted", "short_nonce"]

_NONCE_BYTES: Final = 8
_MESSAGE: Final = b"\x07MESSAGE"
_BOX_AT: Final = len(_MESSAGE) + _NONCE_BYTES
_OVERHEAD_BYTES: Final = _BOX_AT + MAC_BYTES + 1  # one octet of flags in the box

_MORE: Final = 0x01
_COMMAND: Final = 0x02
_OUTSIDE: Final = (0x00, 0x01, 0x04, 0x05)  # the flags of a frame that mean the same


class Role(Enum):
    """Which side of a connection one is: the value starts the nonces of what it sends."""

    CLIENT = b"CurveZMQMESSAGEC"
    SERVER = b"CurveZMQMESSAGES"


def short_nonce(number: int) -> bytes:
    """A counter as it stands on the wire."""
    return number.to_bytes(_NONCE_BYTES, "big")


def check_nonce_untrusted(name: str, nonce: bytes, last: int) -> None:
    """Nothing, if ``nonce`` follows ``last``. Raises ``ZmtpError`` if not."""
    if int.from_bytes(nonce, "big") != last + 1:
        raise ZmtpError(
            FailureReason.NONCE, f"a {name} has the nonce {nonce.hex()}, {last + 1} is next"
        )


class CurveTraffic:
    """Takes the place of a ``FrameScanner`` and of the encoders, with the same verbs.

    Opened boxes are put into frames again, so that one scanner knows all limits. What came before
    a bad box is delivered, whether or not it came in the same bytes.
    """

    def __init__(
        self, scanner: FrameScanner, role: Role, key: bytes, sent_nonce: int, heard_nonce: int
    ) -> None:
        """``scanner`` has the limits that shall hold inside, and what already came.

        ``key`` is shared by both sides; the nonces are the last ones of the handshake.
        """
        self._key = key
        self._sent_nonce = sent_nonce
        self._heard_nonce = heard_nonce
        self._sent_prefix = role.value
        self._heard_prefix = (Role.CLIENT if role is Role.SERVER else Role.SERVER).value
        self._error: FrameError | None = None
        self._inner = FrameScanner(
            scanner.max_message_bytes, scanner.max_part_count, scanner.max_command_bytes
        )
        self._outer = scanner
        limit = max(scanner.max_message_bytes, scanner.max_command_bytes) + _OVERHEAD_BYTES
        scanner.max_message_bytes = scanner.max_command_bytes = limit
        scanner.max_part_count = 1  # MORE is told in the box

    def feed(self, data: Buffer) -> None:
        """See ``FrameScanner.feed``."""
        self._outer.feed(data)

    def scan_untrusted(self, messages: list[Message]) -> bytes | None:
        """See ``FrameScanner.scan_untrusted``."""
        if self._error is None and (frames := self._open_all_untrusted()):
            self._inner.feed(b"".join(frames))
        command = self._inner.scan_untrusted(messages)
        if command is None and self._error is not None:
            raise self._error
        return command

    def encode_messages(self, messages: Iterable[Message]) -> list[bytes]:
        """See ``mcast.zmtp.codec.encode_messages``; every part is copied, into its box."""
        # All are checked before the first is sealed: no nonce may be left out.
        checked = [checked_parts(message) for message in messages]
        return encode_messages(
            [
                self._seal(_MORE if index < len(parts) else 0, part)
                for parts in checked
                for index, part in enumerate(parts, 1)
            ]
        )

    def encode_command(self, body: bytes) -> bytes:
        """See ``mcast.zmtp.codec.encode_command``."""
        return b"".join(encode_messages([self._seal(_COMMAND, body)]))

    def _seal(self, flags: int, data: bytes) -> bytes:
        self._sent_nonce += 1
        nonce = short_nonce(self._sent_nonce)
        sealed = box(bytes((flags,)) + data, self._sent_prefix + nonce, self._key)
        return _MESSAGE + nonce + sealed

    def _open_all_untrusted(self) -> list[bytes]:
        """All that came, opened, as frames; the error behind them, if any, is kept."""
        sealed: list[Message] = []
        try:
            while (command := self._outer.scan_untrusted(sealed)) is not None:
                sealed.append(command)
        except FrameError as error:
            self._error = error
        frames: list[bytes] = []
        try:
            for body in sealed:
                assert isinstance(body, bytes)  # max_part_count is 1
                frames += self._open_untrusted(body)
        except ZmtpError as error:
            self._error = error
        return frames

    def _open_untrusted(self, body: bytes) -> tuple[bytes, bytes]:
        if len(body) < _OVERHEAD_BYTES or not body.startswith(_MESSAGE):
            raise ZmtpError(
                FailureReason.UNEXPECTED, f"not sealed, in a CURVE connection: {printable(body)}"
            )
        nonce = body[len(_MESSAGE) : _BOX_AT]
        check_nonce_untrusted("MESSAGE", nonce, self._heard_nonce)
        self._heard_nonce += 1
        plain = open_box_untrusted(body[_BOX_AT:], self._heard_prefix + nonce, self._key, "MESSAGE")
        return frame_head(_OUTSIDE[plain[0] & (_MORE | _COMMAND)], len(plain) - 1), plain[1:]
