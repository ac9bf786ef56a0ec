"""Every pair of socket types with libzmq, both roles, over tcp and ipc, with each mechanism.

The peer is the libzmq inside the pyzmq wheel. Each cell opens both sockets, passes messages of 0 B
to 16 MiB in one and several parts, has the peer close and come back at the same endpoint, and
passes them again. ``tools/interop`` writes the cells that passed into docs/reference/interop.md.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mcast
from mcast.patterns.kinds import COMPATIBLE, SocketKind
from tests.support.process import Process
from tests.support.zmq_workload import digest_of, message_of

pytestmark = [pytest.mark.interop("pyzmq")]

SHAPES = [
    [0],
    [1],
    [255],
    [256],
    [8192],
    [65_536],
    [1, 0, 300],
    [2, 0],
    [70_000, 5, 0, 0, 1],
]
LARGEST = [[16 << 20], [1, (16 << 20) - 1]]
DRAFTS = {"RADIO", "DISH"}
PAIRS = [
    (str(ours), theirs)
    for ours in SocketKind
    for theirs in sorted(COMPATIBLE[ours])
    if str(ours) not in DRAFTS
]
CELLS = list(itertools.product(("bind", "connect"), ("tcp", "ipc"), ("NULL", "PLAIN", "CURVE")))
PUBLISHING = {"PUB", "XPUB"}
SUBSCRIBING = {"SUB", "XSUB"}

OUR_PUBLIC, OUR_SECRET = mcast.curve_keypair()
PEER_PUBLIC, PEER_SECRET = mcast.curve_keypair()


class Peer:
    """The libzmq process."""

    def __init__(self, python: str, log: Path) -> None:
        script = Path(__file__).parents[1] / "support" / "zmq_peer.py"
        self._process = Process([python, str(script)], log)
        self.version: str = self._answer()["version"]

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        self.tell(op, **fields)
        return self.answer()

    def tell(self, op: str, **fields: Any) -> None:
        self._process.tell(json.dumps({"op": op, **fields}))

    def answer(self) -> dict[str, Any]:
        answer = self._answer()
        assert "error" not in answer, answer["error"]
        return answer

    def _answer(self) -> dict[str, Any]:
        line = self._process.read_line(timeout_s=30)
        assert line is not None, self._process.stderr
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        self._process.kill()


@pytest.fixture
def peer(pyzmq_python: str, tmp_path: Path) -> Iterator[Peer]:
    made = Peer(pyzmq_python, tmp_path / "stderr")
    yield made
    made.kill()


def security(mechanism: str, *, is_server: bool, own: str, other: str) -> dict[str, Any]:
    if mechanism == "PLAIN":
        if is_server:
            return {"plain_server": True}
        return {"plain_username": "ann", "plain_password": "secret"}
    if mechanism == "CURVE":
        if is_server:
            return {"curve_server": True, "curve_secretkey": own}
        return {"curve_secretkey": own, "curve_serverkey": other}
    return {}


def allow(mechanism: str) -> mcast.Authenticator:
    return mcast.allow(users={"ann": "secret"}) if mechanism == "PLAIN" else lambda _: True


class Cell:
    """One pair of sockets, and what is passed between them."""

    def __init__(
        self,
        peer: Peer,
        types: tuple[str, str],
        cell: tuple[str, str, str],
        path: Path,
        ctx: mcast.Context,
    ) -> None:
        self.ours, self.theirs = types
        self.role, transport, mechanism = cell
        self.peer = peer
        binds = self.role == "bind"
        options = security(mechanism, is_server=binds, own=OUR_SECRET, other=PEER_PUBLIC)
        self.their_options = security(
            mechanism, is_server=not binds, own=PEER_SECRET, other=OUR_PUBLIC
        )
        if mechanism == "CURVE":
            self.their_options["curve_publickey"] = PEER_PUBLIC
        if self.ours == self.theirs == "ROUTER":
            options["routing_id"] = b"ours"
            options["router_mandatory"] = True
            self.their_options["routing_id"] = "theirs"
        self.socket: Any = ctx.socket(
            mcast.SocketType[self.ours], reconnect_ivl=0.02, linger=5, **options
        )
        self.socket.authenticate(allow(mechanism))
        wildcard = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{path}"
        if self.ours == "SUB":
            self.socket.subscribe(b"")
        if binds:
            self.socket.bind(wildcard)
            self._open_peer(connect=self.socket.last_endpoint)
        else:
            self.url = self._open_peer(bind=wildcard)
            self.socket.connect(self.url)
        if self.ours == "XSUB":
            self.socket.subscribe(b"")

    def _open_peer(self, bind: str = "", connect: str = "") -> str:
        self._peers_place = {"bind": bind, "connect": connect}
        answer = self.peer.ask(
            "open", type=self.theirs, options=self.their_options, bind=bind, connect=connect
        )
        endpoint: str = answer["endpoint"]
        return endpoint

    def restart_peer(self) -> None:
        self.peer.ask("close")
        place = dict(self._peers_place)
        if place["bind"]:
            place["bind"] = self.url
        # What is sent to a peer that has gone, and of which nobody knows yet, is lost.
        self._wait_for_connections(0)
        self._open_peer(**place)
        self._wait_for_connections(1)

    def _wait_for_connections(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while self.socket.stats()["connections"] != count:
            assert time.monotonic() < deadline, f"waited for {count} connections"
            time.sleep(0.002)

    def pass_messages(self, shapes: list[list[int]]) -> None:
        expected = [digest_of(message_of(index, sizes)) for index, sizes in enumerate(shapes)]
        if self.ours in PUBLISHING or self.ours == "PUSH":
            assert self._publish(shapes) == expected
        elif self.ours in SUBSCRIBING or self.ours == "PULL":
            assert self._receive(shapes) == expected
        elif self.ours in ("REQ", "DEALER", "PAIR") or self.theirs == self.ours:
            assert self._request(shapes) == expected
        else:
            assert self._echo(shapes) == expected

    def _publish(self, shapes: list[list[int]]) -> list[str]:
        if self.ours in PUBLISHING:
            while not self._probe_came():
                pass
        self.peer.tell("receive", count=len(shapes))
        for index, sizes in enumerate(shapes):
            self.socket.send_multipart(message_of(index, sizes), timeout=10)
        digests: list[str] = self.peer.answer()["digests"]
        return digests

    def _probe_came(self) -> bool:
        self.socket.send(b"probe", timeout=10)
        came: bool = self.peer.ask("wait_for_probe", timeout_ms=20)["came"]
        return came

    def _receive(self, shapes: list[list[int]]) -> list[str]:
        if self.ours in SUBSCRIBING:
            deadline = time.monotonic() + 10
            while True:
                self.peer.ask("probe")
                try:
                    if self.socket.recv_multipart(timeout=0.02) == [b"probe"]:
                        break
                except mcast.Again:
                    assert time.monotonic() < deadline, "no subscription came into force"
        self.peer.ask("send", shapes=shapes, prefix=[])
        digests: list[str] = []
        while len(digests) < len(shapes):
            parts = self.socket.recv_multipart(timeout=10)
            if parts != [b"probe"]:
                digests.append(digest_of(parts))
        return digests

    def _request(self, shapes: list[list[int]]) -> list[str]:
        front = [b""] if self.theirs == "REP" and self.ours == "DEALER" else []
        if self.ours == "ROUTER":
            front = [b"theirs"]
        self.peer.tell("echo", count=len(shapes))
        digests = []
        for index, sizes in enumerate(shapes):
            self._send([*front, *message_of(index, sizes)])
            digests.append(digest_of(self.socket.recv_multipart(timeout=10)[len(front) :]))
        self.peer.answer()
        return digests

    def _send(self, parts: list[bytes]) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self.socket.send_multipart(parts, timeout=10)
                return
            except mcast.UnroutableError:  # its connection is still to come
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def _echo(self, shapes: list[list[int]]) -> list[str]:
        prefix = [""] if self.theirs == "DEALER" and self.ours == "REP" else []
        self.peer.tell("request", shapes=shapes, prefix=prefix)
        for _ in shapes:
            self.socket.send_multipart(self.socket.recv_multipart(timeout=10), timeout=10)
        digests: list[str] = self.peer.answer()["digests"]
        return digests


@pytest.mark.slow
@pytest.mark.parametrize("types", PAIRS, ids="-".join)
def test_each_pair_talks_in_every_role_transport_and_mechanism(
    peer: Peer,
    types: tuple[str, str],
    tmp_path: Path,
    record_property: Any,
) -> None:
    # The reference kernel differs in frames only, which are the same in every role and transport.
    cells = CELLS if mcast.kernel.NAME == "native" else CELLS[::5]
    for number, cell in enumerate(cells):
        with mcast.Context() as ctx:
            try:
                at_work = Cell(peer, types, cell, tmp_path / str(number), ctx)
                at_work.pass_messages(SHAPES + LARGEST)
                at_work.restart_peer()
                at_work.pass_messages(SHAPES)
            except BaseException as error:
                error.add_note(f"in the cell {types} {cell}")
                raise
            peer.ask("close")
        record_property("interop-cell", " ".join((*types, *cell, peer.version)))
