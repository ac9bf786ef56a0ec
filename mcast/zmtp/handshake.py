"""From the end of the greeting to the first message: NULL (RFC 37) and PLAIN (RFC 24).

Owns the order of commands: a ``Step`` says what a side waits for, a table what it does then.
Invariant: a side sends nothing before it is its turn, so each input and each verb gives at most
one command, and libzmq, which takes what comes too early for an error, is never given any (libzmq
even takes traffic behind a READY for one, until it has sent its own).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import ClassVar, Final, NamedTuple

from mcast.zmtp.commands import (
    ERROR,
    READY,
    build_command,
    read_error_untrusted,
    split_untrusted,
)
from mcast.zmtp.failure import FailureReason, ZmtpError, printable
from mcast.zmtp.metadata import Peer, read_peer_untrusted
from mcast.zmtp.options import PlainClient, ZmtpOptions

__all__ = [
    "COMMAND_OVERHEAD_BYTES",
    "HELLO",
    "INITIATE",
    "WELCOME",
    "Handshake",
    "NullHandshake",
    "PlainClientHandshake",
    "PlainServerHandshake",
    "Question",
    "Step",
]

HELLO: Final = b"HELLO"
WELCOME: Final = b"WELCOME"
INITIATE: Final = b"INITIATE"

COMMAND_OVERHEAD_BYTES: Final = 518
"""What a handshake's command may have beside properties: PLAIN's longest HELLO. CURVE's INITIATE
has 257."""

_MISSPELT_ERROR: Final = b"^RROR"
"""libzmq's PLAIN server writes ERROR so, in all releases up to 4.3.5."""


class Step(Enum):
    """What a side of a handshake waits for."""

    HELLO = auto()
    WELCOME = auto()
    INITIATE = auto()
    READY = auto()
    ANSWER = auto()
    """The authenticator's. No command is in order."""
    DONE = auto()
    """Nothing: traffic may begin."""


Reaction = Callable[[bytes], bytes | None]
"""From a command's data to the command that answers it, if any."""


class Question(NamedTuple):
    """What an authenticator has to be asked."""

    credentials: tuple[bytes, ...]
    """None with NULL; name and password with PLAIN; the client's key with CURVE."""
    allow: Callable[[], bytes]
    """What to do if it agrees: gives the command to send."""


class Handshake:
    """One side of one handshake. Owned by its ``ZmtpEngine``, which sends what the verbs return."""

    tells_error: ClassVar[bool] = True
    """This side may send ERROR."""
    hears_error: ClassVar[bool] = True
    """The other side may."""

    def __init__(self, options: ZmtpOptions, step: Step) -> None:
        self.step = step
        self.peer: Peer | None = None
        """What the peer told about itself, once it has."""
        self.question: Question | None = None
        """Once there is one, for the engine to take."""
        self._options = options
        self._table: dict[Step, tuple[bytes, Reaction]] = {}

    def start(self) -> bytes | None:
        """Both greetings are there. The command to send, if it is this side's turn."""
        return None

    def handle_untrusted(self, body: bytes) -> bytes | None:
        """Take the peer's next command. The command to send, if any. Raises ``ZmtpError``."""
        name, data = split_untrusted(body)
        if name == ERROR and self.hears_error:
            reason, status = read_error_untrusted(data)
            raise ZmtpError(
                FailureReason.REFUSED_BY_PEER, f"the peer refused: {printable(reason)}", status
            )
        expected, reaction = self._table.get(self.step, (b"", None))
        if name != expected or reaction is None:
            raise ZmtpError(
                FailureReason.UNEXPECTED,
                f"{printable(name)} came while waiting for {self.step.name}",
            )
        return reaction(data)

    def _meet_untrusted(self, properties: bytes) -> None:
        limit = self._options.max_metadata_bytes
        if len(properties) > limit:
            raise ZmtpError(
                FailureReason.TOO_LONG, f"{len(properties)} bytes of properties, limit {limit}"
            )
        self.peer = read_peer_untrusted(properties, self._options.socket_type)


class NullHandshake(Handshake):
    """READY from both sides, in any order; ours waits for an authenticator if a domain is set."""

    def __init__(self, options: ZmtpOptions) -> None:
        super().__init__(options, Step.READY)
        self._table = {Step.READY: (READY, self._ready)}
        self._is_allowed = not options.zap_domain

    def start(self) -> bytes | None:
        """Our READY, unless an authenticator is asked first."""
        if self._is_allowed:
            return build_command(READY, self._options.properties)
        self.question = Question((), self._allow)
        return None

    def _allow(self) -> bytes:
        self._is_allowed = True
        if self.step is Step.ANSWER:
            self.step = Step.DONE
        return build_command(READY, self._options.properties)

    def _ready(self, data: bytes) -> None:
        self._meet_untrusted(data)
        self.step = Step.DONE if self._is_allowed else Step.ANSWER


class PlainClientHandshake(Handshake):
    """HELLO with name and password, WELCOME, INITIATE, READY."""

    tells_error = False

    def __init__(self, options: ZmtpOptions, security: PlainClient) -> None:
        super().__init__(options, Step.WELCOME)
        self._table = {
            Step.WELCOME: (WELCOME, self._welcome),
            Step.READY: (READY, self._ready),
        }
        self._security = security

    def start(self) -> bytes:
        """HELLO."""
        username = self._security.username.encode()
        password = self._security.password.encode()
        sizes = bytes((len(username),)), bytes((len(password),))
        return build_command(HELLO, sizes[0] + username + sizes[1] + password)

    def handle_untrusted(self, body: bytes) -> bytes | None:
        """As every handshake; and libzmq's ERROR is read as what it means."""
        if body.startswith(_MISSPELT_ERROR):
            body = build_command(ERROR, body[len(_MISSPELT_ERROR) :])
        return super().handle_untrusted(body)

    def _welcome(self, data: bytes) -> bytes:
        if data:
            raise ZmtpError(FailureReason.MALFORMED, f"a WELCOME goes on: {printable(data)}")
        self.step = Step.READY
        return build_command(INITIATE, self._options.properties)

    def _ready(self, data: bytes) -> None:
        self._meet_untrusted(data)
        self.step = Step.DONE


class PlainServerHandshake(Handshake):
    """The other side of ``PlainClientHandshake``; an authenticator is asked about each HELLO."""

    hears_error = False

    def __init__(self, options: ZmtpOptions) -> None:
        super().__init__(options, Step.HELLO)
        self._table = {
            Step.HELLO: (HELLO, self._hello),
            Step.INITIATE: (INITIATE, self._initiate),
        }

    def _allow(self) -> bytes:
        self.step = Step.INITIATE
        return build_command(WELCOME)

    def _hello(self, data: bytes) -> None:
        password_at = 1 + data[0] if data else 0
        end = password_at + 1 + data[password_at] if password_at < len(data) else 0
        if not data or len(data) != end:
            # The data is not shown: it may hold a password.
            raise ZmtpError(FailureReason.MALFORMED, "a HELLO holds no name and password")
        self.question = Question((data[1:password_at], data[password_at + 1 :]), self._allow)
        self.step = Step.ANSWER

    def _initiate(self, data: bytes) -> bytes:
        self._meet_untrusted(data)
        self.step = Step.DONE
        return build_command(READY, self._options.properties)
