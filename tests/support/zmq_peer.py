"""A libzmq socket in a process of its own, told what to do line by line.

Run by a Python that has pyzmq, never by the one that has mcast. Each line of stdin is a JSON object
with ``op``; each is answered by one on stdout, with ``error`` if it failed. Messages are named by
the sizes of their parts, and told by digests, so that 16 MiB need not pass through the pipe.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import zmq
from zmq_workload import digest_of, message_of

TIMEOUT_MS = 15_000


class Peer:
    """One socket at a time."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind("inproc://zeromq.zap.01")
        threading.Thread(target=self._judge, daemon=True).start()
        self._socket: Any = None

    def _judge(self) -> None:
        """Answer ZAP (RFC 27). Names no user: a libzmq REQ that is told of one while it is the
        server hangs up on every reply, also on those of a libzmq REP (4.3.5, seen)."""
        while True:
            version, number, _, _, _, mechanism, *credentials = self._zap.recv_multipart()
            allowed = mechanism != b"PLAIN" or credentials == [b"ann", b"secret"]
            status = b"200" if allowed else b"400"
            self._zap.send_multipart([version, number, status, b"", b"", b""])

    def open(self, type: str, options: dict[str, Any], bind: str, connect: str) -> dict[str, Any]:  # noqa: A002
        """A new socket; the endpoint it is at."""
        self._socket = made = self._context.socket(getattr(zmq, type))
        made.linger = 5000
        made.rcvtimeo = made.sndtimeo = TIMEOUT_MS
        made.reconnect_ivl = 20
        for name, value in options.items():
            made.set(
                getattr(zmq, name.upper()), value.encode() if isinstance(value, str) else value
            )
        if type == "SUB":
            made.subscribe(b"")
        if bind:
            # Its predecessor is closed in the background, and has the address until then.
            for _ in range(200):
                try:
                    made.bind(bind)
                    break
                except zmq.ZMQError as error:
                    if error.errno != zmq.EADDRINUSE:
                        raise
                    time.sleep(0.01)
        else:
            made.connect(connect)
        if type == "XSUB":
            made.send(b"\1")
        return {"endpoint": made.last_endpoint.rstrip(b"\0").decode()}

    def close(self) -> dict[str, Any]:
        """Close it; what was sent still leaves."""
        self._socket.close()
        return {}

    def send(self, shapes: list[list[int]], prefix: list[str]) -> dict[str, Any]:
        """Send these messages."""
        front = [part.encode() for part in prefix]
        for index, sizes in enumerate(shapes):
            self._socket.send_multipart([*front, *message_of(index, sizes)])
        return {}

    def receive(self, count: int) -> dict[str, Any]:
        """The digests of the next ``count`` messages, probes and subscriptions left out."""
        digests: list[str] = []
        while len(digests) < count:
            parts = self._socket.recv_multipart()
            if parts != [b"probe"] and parts[0][:1] not in (b"\0", b"\1"):
                digests.append(digest_of(parts))
        return {"digests": digests}

    def probe(self) -> dict[str, Any]:
        """Send a message that only shows that messages pass."""
        self._socket.send(b"probe")
        return {}

    def wait_for_probe(self, timeout_ms: int) -> dict[str, Any]:
        """Whether a probe came."""
        while self._socket.poll(timeout_ms):
            if self._socket.recv_multipart() == [b"probe"]:
                return {"came": True}
        return {"came": False}

    def echo(self, count: int) -> dict[str, Any]:
        """Send back the next ``count`` messages."""
        for _ in range(count):
            self._socket.send_multipart(self._socket.recv_multipart())
        return {}

    def request(self, shapes: list[list[int]], prefix: list[str]) -> dict[str, Any]:
        """Send each message and wait for it to come back; the digests of what came."""
        front = [part.encode() for part in prefix]
        digests = []
        for index, sizes in enumerate(shapes):
            self._socket.send_multipart([*front, *message_of(index, sizes)])
            parts = self._socket.recv_multipart()
            digests.append(digest_of(parts[len(front) :]))
        return {"digests": digests}


def main() -> None:
    peer = Peer()
    sys.stdout.write(json.dumps({"version": zmq.zmq_version()}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(peer, order.pop("op"))(**order)
        except Exception as error:
            answer = {"error": repr(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
