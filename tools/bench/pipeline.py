"""mcast's and pyzmq's ends of a comparison over tcp and inproc: the same code for both.

    pipeline.py mcast|zmq push|pull URL [--size B --count N --batch N]    PUSH/PULL throughput
    pipeline.py mcast|zmq ping|pong URL [--size B --count N]              half of PAIR's round trips
    pipeline.py mcast|zmq inproc [--size B --count N]                     PUSH/PULL of two threads

Handshake and control messages are those of c/bench.h, except that START has the number of messages
to come: these patterns lose nothing, so a message that is missing is a run that does not end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import select
import struct
import sys
import threading
import time
from typing import Any, Protocol

CONTROL = struct.Struct("=2s6xQ")
HELLO, START, END = b"\xffH", b"\xffS", b"\xffE"
WARM_UP = 1000
"""Round trips before the first that counts, as in c/zmq_latency.c."""


class Socket(Protocol):
    """What the two libraries have in common, and mcast's batches."""

    def send(self, data: bytes) -> object: ...
    def recv(self) -> bytes: ...
    def send_many(self, messages: list[bytes]) -> int: ...
    def recv_many(self, count: int) -> list[bytes]: ...
    def close(self) -> None: ...


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def stdin_speaks(timeout_s: float | None = None) -> bool:
    return bool(select.select((sys.stdin,), (), (), timeout_s)[0] and sys.stdin.readline())


def send_all(socket: Socket, size: int, count: int, batch: int) -> None:
    payload = b"x" * size
    socket.send(CONTROL.pack(START, count))
    if batch == 1:
        send = socket.send
        for _ in range(count):
            send(payload)
    else:
        messages = [payload] * batch
        for _ in range(count // batch):
            socket.send_many(messages)
        socket.send_many(messages[: count % batch])
    socket.send(CONTROL.pack(END, count))


def recv_all(socket: Socket, count: int, batch: int) -> float:
    """The seconds until END, which must come after ``count`` messages."""
    start = time.perf_counter()
    if batch == 1:
        recv = socket.recv
        for _ in range(count):
            recv()
        message = recv()
    else:
        left = count + 1
        while left:
            messages = socket.recv_many(min(batch, left))
            left -= len(messages)
        message = messages[-1]
    seconds = time.perf_counter() - start
    if bytes(message) != CONTROL.pack(END, count):
        raise SystemExit(f"END did not come after {count} messages")
    return seconds


def show(**figures: float) -> None:
    print(json.dumps(figures), flush=True)


def push(socket: Socket, size: int, count: int, batch: int) -> None:
    while not stdin_speaks(0.002):
        socket.send(CONTROL.pack(HELLO, 0))
    cpu_before = cpu_s()
    start = time.perf_counter()
    send_all(socket, size, count, batch)
    seconds = time.perf_counter() - start
    stdin_speaks()
    show(sent=count, seconds=seconds, cpu_s=cpu_s() - cpu_before)


def pull(socket: Socket, batch: int) -> None:
    print("ready", flush=True)
    message = socket.recv()
    print("joined", flush=True)
    while message[:2] == HELLO:
        message = socket.recv()
    _, count = CONTROL.unpack(message)
    seconds = recv_all(socket, count, batch)
    show(received=count, missing=0, seconds=seconds, messages_per_s=count / seconds)


def ping(socket: Socket, size: int, count: int) -> None:
    payload = b"p" * size
    send, recv, clock = socket.send, socket.recv, time.perf_counter_ns
    rtts_ns = []
    for _ in range(WARM_UP + count):
        start_ns = clock()
        send(payload)
        recv()
        rtts_ns.append(clock() - start_ns)
    socket.send(CONTROL.pack(END, count))
    rtts_ns = sorted(rtts_ns[WARM_UP:])
    parts = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "p999_s": 0.999, "max_s": 1.0}
    show(
        rounds=count,
        **{name: rtts_ns[int((count - 1) * part)] / 2e9 for name, part in parts.items()},
    )


def pong(socket: Socket) -> None:
    print("ready", flush=True)
    send, recv = socket.send, socket.recv
    while (message := recv())[:2] != END:
        send(message)


def inproc(bound: Socket, connected: Socket, size: int, count: int) -> None:
    cpu_before = cpu_s()
    pusher = threading.Thread(target=send_all, args=(connected, size, count, 1))
    pusher.start()
    bound.recv()  # START
    seconds = recv_all(bound, count, 1)
    pusher.join()
    show(
        received=count,
        missing=0,
        sent=count,
        seconds=seconds,
        messages_per_s=count / seconds,
        cpu_s=cpu_s() - cpu_before,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=("mcast", "zmq"))
    parser.add_argument("role", choices=("push", "pull", "ping", "pong", "inproc"))
    parser.add_argument("url", nargs="?", default="inproc://pipeline")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--hwm", type=int, default=100_000)
    arguments = parser.parse_args()
    library: Any = importlib.import_module(arguments.library)
    context = library.Context()

    def opened(kind: str) -> Socket:
        socket = context.socket(getattr(library, kind))
        socket.sndhwm = socket.rcvhwm = arguments.hwm
        made: Socket = socket
        return made

    size, count, batch = arguments.size, arguments.count, arguments.batch
    if arguments.role == "inproc":
        sockets = [opened("PULL"), opened("PUSH")]
        sockets[0].bind(arguments.url)
        sockets[1].connect(arguments.url)
        inproc(*sockets, size, count)
    else:
        kinds = {"push": "PUSH", "pull": "PULL"}
        socket = opened(kinds.get(arguments.role, "PAIR"))
        sockets = [socket]
        if arguments.role in ("push", "pong"):
            socket.bind(arguments.url)
        else:
            socket.connect(arguments.url)
        if arguments.role == "push":
            push(socket, size, count, batch)
        elif arguments.role == "pull":
            pull(socket, batch)
        elif arguments.role == "ping":
            ping(socket, size, count)
        else:
            pong(socket)
    for socket in sockets:
        socket.close()
    context.term()


if __name__ == "__main__":
    main()
