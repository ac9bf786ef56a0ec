"""One engine with its events collected, a peer by hand or a second engine, and time by hand."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from mcast.kernel import Buffer, Message
from mcast.zmtp import (
    AuthNeeded,
    AuthStatus,
    Cancelled,
    CurveClient,
    CurveServer,
    Failed,
    FailureReason,
    Messages,
    Null,
    PlainClient,
    PlainServer,
    Ready,
    Security,
    Subscribed,
    ZmtpEngine,
    ZmtpEvent,
    ZmtpOptions,
)
from tests.unit.zmtp.wire import SUB_READY, greeting

MS = 1_000_000
S = 1000 * MS
T0 = 1_000_000 * S

SERVER_SECRET = Random(101).randbytes(32)
CLIENT_SECRET = Random(102).randbytes(32)
SERVER = CurveServer(SERVER_SECRET)
CLIENT = CurveClient(SERVER.public_key, CLIENT_SECRET)
PAIRS: dict[str, tuple[Security, Security]] = {
    "NULL": (Null(), Null()),
    "PLAIN": (PlainServer(), PlainClient("admin", "secret")),
    "CURVE": (SERVER, CLIENT),
}
"""Both roles of each mechanism, server first."""

Kind = TypeVar("Kind")


class End:
    """An engine and all that it said. Questions are answered at once unless ``answer`` is None."""

    def __init__(
        self,
        socket_type: str = "PUB",
        security: Security = PAIRS["NULL"][0],
        *,
        seed: int = 1,
        dice: Callable[[int], bytes] | None = None,
        answer: AuthStatus | None = AuthStatus.ALLOWED,
        **options: Any,
    ) -> None:
        self.now_ns = T0
        self.engine = ZmtpEngine(
            ZmtpOptions(socket_type=socket_type, security=security, **options),
            dice=dice or Random(seed).randbytes,
            now_ns=T0,
            address="127.0.0.1",
        )
        self.answer = answer
        self.events: list[ZmtpEvent] = []
        self.sent = b""
        self.drain()

    def drain(self) -> None:
        events = self.engine.take_events()
        self.events += events
        for event in events:
            if isinstance(event, AuthNeeded) and self.answer is not None:
                self.reply(self.answer)
        self.sent += b"".join(self.engine.take_transmits())

    def reply(self, status: AuthStatus, **more: Any) -> None:
        self.engine.answer_auth(status, self.now_ns, **more)
        self.drain()

    def hear(self, *datas: Buffer) -> End:
        for data in datas:
            self.engine.handle_bytes(data, self.now_ns)
            self.drain()
        return self

    def run(self, duration_ns: int) -> None:
        """Let time pass, and do what falls due in it."""
        end_ns = self.now_ns + duration_ns
        while self.engine.next_timeout_ns <= end_ns:
            self.now_ns = self.engine.next_timeout_ns
            self.engine.handle_timeout(self.now_ns)
            self.drain()
        self.now_ns = end_ns

    def take_sent(self) -> bytes:
        sent, self.sent = self.sent, b""
        return sent

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ready(self) -> Ready:
        (event,) = self.all(Ready)
        return event

    @property
    def failure(self) -> FailureReason | None:
        failed = self.all(Failed)
        assert len(failed) <= 1
        assert not failed or self.events[-1] is failed[0]
        return failed[0].reason if failed else None

    @property
    def stream(self) -> list[ZmtpEvent | Message]:
        """Events in order, without regard to how messages and topics were batched."""
        flat: list[ZmtpEvent | Message] = []
        for event in self.events:
            if isinstance(event, Messages):
                flat += event.messages
            elif isinstance(event, Subscribed | Cancelled):
                flat += [type(event)([topic]) for topic in event.topics]
            else:
                flat.append(event)
        return flat

    @property
    def messages(self) -> list[Message]:
        return [message for event in self.all(Messages) for message in event.messages]


def talk(server: End, client: End) -> None:
    """Carry bytes between two ends until both are silent."""
    while server.sent or client.sent:
        client.hear(server.take_sent())
        server.hear(client.take_sent())


def pair(mechanism: str, **options: Any) -> tuple[End, End]:
    """A PUB as server and a SUB as client, ready."""
    securities = PAIRS[mechanism]
    server = End("PUB", securities[0], seed=2, **options)
    client = End("SUB", securities[1], seed=3, **options)
    talk(server, client)
    return server, client


def ready_end(socket_type: str = "PUB", ready: bytes = SUB_READY, **options: Any) -> End:
    """With NULL; its peer, by hand, has said greeting and ``ready``; ``sent`` is empty."""
    version = options.pop("version", b"\x03\x01")
    end = End(socket_type, **options).hear(greeting(version=version) + ready)
    assert end.engine.is_ready, end.events
    end.take_sent()
    return end
