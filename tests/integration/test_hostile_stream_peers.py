"""Hostile peers over tcp, with an honest one beside: nothing wrong gets in, nobody honest suffers.

The handshake of CURVE with every bit flipped, without sockets, is in tests/unit/zmtp; here each
byte is damaged once on its way between two real sockets.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import mcast
from tests.support.figures import figure

GREETING_BYTES = 64
CROWD = 1000

_SERVER = """
import json, sys, threading, time
import mcast

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

with mcast.Context() as ctx:
    router = ctx.socket(mcast.ROUTER, handshake_ivl=30)
    router.bind("tcp://127.0.0.1:*")
    print(router.last_endpoint, flush=True)
    def serve():
        try:
            while True:
                router.send_multipart(router.recv_multipart())
        except mcast.ClosedError:
            return
    thread = threading.Thread(target=serve)
    thread.start()
    for line in sys.stdin:
        print(json.dumps({"memory": memory(), **router.stats()}), flush=True)
    router.close()
    thread.join()
"""


class Server:
    """A ROUTER that sends everything back, in a process of its own, so that its memory is known."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        host, port = self.url.removeprefix("tcp://").split(":")
        self.address = host, int(port)

    def stats(self) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture
def server() -> Iterator[Server]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CROWD + 500
    if hard < wanted:
        pytest.skip(f"the system allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    made = Server()
    yield made
    made.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def command(name: bytes, body: bytes = b"") -> bytes:
    whole = bytes((len(name),)) + name + body
    return bytes((4, len(whole))) + whole


GREETING = b"\xff" + bytes(8) + b"\x7f\3\1" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = command(b"READY", b"\x0bSocket-Type\0\0\0\6DEALER")


@contextlib.contextmanager
def crowd(server: Server, said: bytes) -> Iterator[list[socket.socket]]:
    """A thousand connections that say this and then nothing."""
    with contextlib.ExitStack() as stack:
        members = []
        for _ in range(CROWD):
            member = stack.enter_context(socket.create_connection(server.address))
            member.sendall(said)
            members.append(member)
        yield members


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "what", "said", "stays"),
    [
        ("S17", "are silent from the start", b"", True),
        ("S17", "are silent in the greeting", GREETING[:40], True),
        ("S17", "are silent in the handshake", GREETING, True),
        ("S16", "claim 2^62 bytes", GREETING + READY + b"\2" + (1 << 62).to_bytes(8, "big"), False),
        (
            "S16",
            "claim the 16 MiB that are allowed",
            GREETING + READY + b"\2" + (16 << 20).to_bytes(8, "big") + bytes(1000),
            True,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_crowd_of_hostile_peers_costs_little_and_an_honest_one_loses_nothing(
    server: Server, row: str, what: str, said: bytes, stays: bool
) -> None:
    with mcast.Context() as ctx:
        honest = ctx.socket(mcast.DEALER)
        honest.connect(server.url)
        honest.send(b"warm up")
        assert honest.recv(timeout=10) == b"warm up"
        before = server.stats()["memory"]
        replies: list[bytes] = []
        is_over = threading.Event()

        def talk() -> None:
            number = 0
            while not is_over.is_set() or number < 200:
                honest.send(b"%d" % number)
                replies.append(honest.recv(timeout=20))
                number += 1

        talking = threading.Thread(target=talk)
        talking.start()
        with crowd(server, said) as members:
            deadline = time.monotonic() + 20
            while server.stats()["accepted"] < CROWD + 1:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(0.5)
            stats = server.stats()
            grown_mib = (stats["memory"] - before) / 2**20
            begun = time.monotonic()
            if not stays:
                for member in members:
                    member.settimeout(10)
                    with contextlib.suppress(ConnectionResetError):
                        while member.recv(4096):
                            pass
                print(f"all closed after {time.monotonic() - begun:.1f} s")
        is_over.set()
        talking.join(30)
        assert not talking.is_alive()
    assert replies == [b"%d" % number for number in range(len(replies))]
    assert len(replies) >= 200
    figure(
        row,
        f"{CROWD:,} peers that {what}: {grown_mib:.1f} MiB (bar 16), {len(replies):,} honest "
        "replies meanwhile, none missing",
        met=grown_mib < 16,
    )
    assert grown_mib < 16


class Relay:
    """Passes bytes on between one client and the server, with one bit flipped."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def pass_on(self, flip_upward: int = -1, flip_downward: int = -1, bit: int = 0) -> list[int]:
        """Serve one connection to its end; how many bytes went each way."""
        counts = [0, 0]
        client, _ = self._listener.accept()
        with client, socket.create_connection(self._target) as target:
            pump = threading.Thread(
                target=self._pump, args=(target, client, flip_downward, bit, counts, 1)
            )
            pump.start()
            self._pump(client, target, flip_upward, bit, counts, 0)
            pump.join()
        return counts

    @staticmethod
    def _pump(
        source: socket.socket,
        sink: socket.socket,
        flip: int,
        bit: int,
        counts: list[int],
        place: int,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := bytearray(source.recv(65_536)):
                begin, counts[place] = counts[place], counts[place] + len(data)
                if begin <= flip < counts[place]:
                    data[flip - begin] ^= 1 << bit
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.slow
def test_a_curve_handshake_damaged_in_any_byte_delivers_nothing() -> None:
    server_public, server_secret = mcast.curve_keypair()
    _, client_secret = mcast.curve_keypair()
    with mcast.Context(linger=0) as ctx:
        pull = ctx.socket(
            mcast.PULL, curve_server=True, curve_secretkey=server_secret, handshake_ivl=0.3
        )
        pull.bind("tcp://127.0.0.1:*")
        host, port = pull.last_endpoint.removeprefix("tcp://").split(":")
        relay = Relay((host, int(port)))

        def attempt(message: bytes, **flips: int) -> list[int]:
            push = ctx.socket(
                mcast.PUSH,
                curve_serverkey=server_public,
                curve_secretkey=client_secret,
                reconnect_ivl=None,
                handshake_ivl=0.3,
            )
            push.connect(relay.url)
            push.send(message)
            if not flips:
                threading.Timer(0.3, push.close).start()
            counts = relay.pass_on(**flips)
            push.close()
            return counts

        upward, downward = attempt(b"honest")
        assert pull.recv(timeout=5) == b"honest"
        # The last bytes of the way up are the message: a head, MESSAGE, a nonce, and the box.
        message_bytes = 2 + 8 + 8 + 16 + 1 + len(b"honest")
        for offset in range(GREETING_BYTES, upward - message_bytes):
            attempt(b"damaged upward", flip_upward=offset, bit=offset % 8)
        for offset in range(GREETING_BYTES, downward):
            attempt(b"damaged downward", flip_downward=offset, bit=offset % 8)
        damaged = upward + downward - 2 * GREETING_BYTES - message_bytes
        with pytest.raises(mcast.Again):
            pull.recv(timeout=0.2)
        attempt(b"honest again")
        assert pull.recv(timeout=5) == b"honest again"
        figure(
            "S18", f"one bit in each byte between real sockets: {damaged} handshakes, 0 delivered"
        )
        relay.close()
        deadline = time.monotonic() + 5
        while pull.stats()["connections"]:
            assert time.monotonic() < deadline, "a connection was kept"
            time.sleep(0.01)


def test_who_calls_and_calls_does_not_make_a_curve_server_work_without_end() -> None:
    count = 200
    with mcast.Context(linger=0) as ctx:
        public, secret = mcast.curve_keypair()
        pull = ctx.socket(mcast.PULL, curve_server=True, curve_secretkey=secret)
        pull.bind("tcp://127.0.0.1:*")
        host, port = pull.last_endpoint.removeprefix("tcp://").split(":")
        with contextlib.ExitStack() as stack:
            begun = time.monotonic()
            for _ in range(count):
                stack.enter_context(socket.create_connection((host, int(port)))).sendall(GREETING)
            push = ctx.socket(
                mcast.PUSH, curve_serverkey=public, curve_secretkey=mcast.curve_keypair()[1]
            )
            push.connect(pull.last_endpoint)
            push.send(b"honest")
            assert pull.recv(timeout=20) == b"honest"
            took_s = time.monotonic() - begun
            assert pull.stats()["accepted"] == count + 1
        figure("S19", f"{count} callers at once before an honest peer: let in after {took_s:.2f} s")
        assert took_s >= (count - 50) / 200 * 0.9


def test_who_cannot_show_the_right_key_or_mechanism_gets_nothing_in() -> None:
    server_public, server_secret = mcast.curve_keypair()
    other_public, other_secret = mcast.curve_keypair()
    _, known_secret = mcast.curve_keypair()
    wrong = [
        {},
        {"plain_username": "ann", "plain_password": "secret"},
        {"curve_serverkey": other_public, "curve_secretkey": known_secret},
        {"curve_serverkey": server_public, "curve_secretkey": other_secret},
    ]
    with mcast.Context(linger=0) as ctx:
        pull = ctx.socket(mcast.PULL, curve_server=True, curve_secretkey=server_secret)
        from_known = mcast.curve_public(known_secret)
        pull.authenticate(lambda request: _z85(request.public_key) == from_known)
        monitor = pull.monitor()
        pull.bind("tcp://127.0.0.1:*")
        for options in wrong:
            push = ctx.socket(mcast.PUSH, **options)
            push.connect(pull.last_endpoint)
            with contextlib.suppress(mcast.Again):  # it may have been refused for good by now
                push.send(b"let me in", timeout=0.1)
        good = ctx.socket(mcast.PUSH, curve_serverkey=server_public, curve_secretkey=known_secret)
        good.connect(pull.last_endpoint)
        good.send(b"hello")
        assert pull.recv(timeout=5) == b"hello"
        failed = 0
        while failed < len(wrong):
            failed += monitor.recv(timeout=5).kind is mcast.MonitorKind.HANDSHAKE_FAILED
        with pytest.raises(mcast.Again):
            pull.recv(timeout=0.2)


def _z85(key: bytes) -> str:
    from mcast.z85 import z85_encode

    return z85_encode(key)
