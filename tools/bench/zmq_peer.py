"""pyzmq's ends of a comparison: PUB/SUB over tcp, one call for each message.

    zmq_peer.py pub|sub URL --size B --count N

Runs in an environment of its own that has only the pyzmq wheel. Handshake and control messages are
those of c/bench.h. A full queue blocks the publisher, as nothing may be lost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import struct
import sys
import time

import zmq

CONTROL = struct.Struct("=2s6xQ")
HELLO, START, END = b"\xffH", b"\xffS", b"\xffE"
CHUNK_COUNT = 256
"""Messages between two looks at what came, as in `mcast perf`; END comes as often."""


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def stdin_speaks(timeout_s: float) -> bool:
    if not select.select((sys.stdin,), (), (), timeout_s)[0]:
        return False
    os.read(sys.stdin.fileno(), 64)
    return True


def publish(socket: zmq.Socket[bytes], size: int, count: int) -> None:
    send = socket.send
    payload = b"x" * size
    while not stdin_speaks(0.002):
        send(CONTROL.pack(HELLO, 0))
    send(CONTROL.pack(START, size))
    cpu_before = cpu_s()
    start = time.perf_counter()
    for _ in range(count):
        send(payload)
    seconds = time.perf_counter() - start
    is_over = False
    while not is_over:
        for _ in range(CHUNK_COUNT):
            send(CONTROL.pack(END, count))
        is_over = stdin_speaks(0.05)
    cpu = cpu_s() - cpu_before
    print(json.dumps({"sent": count, "seconds": seconds, "cpu_s": cpu}), flush=True)


def subscribe(socket: zmq.Socket[bytes]) -> None:
    recv = socket.recv
    print("ready", flush=True)
    message = recv()
    print("joined", flush=True)
    while message[:2] == HELLO:
        message = recv()
    start = time.perf_counter()
    chunk = range(CHUNK_COUNT)
    taken = 0
    while True:
        for _ in chunk:
            message = recv()
        taken += CHUNK_COUNT
        if message[0] == 0xFF:
            break
    seconds = time.perf_counter() - start
    # tcp keeps order: the data is what came before the ENDs, of which at most a chunk was taken
    # if nothing is missing.
    _, count = CONTROL.unpack(message)
    missing = 0 if 0 < taken - count <= CHUNK_COUNT else max(1, count - taken)
    result = {
        "received": count - missing,
        "missing": missing,
        "seconds": seconds,
        "messages_per_s": (count - missing) / seconds,
    }
    print(json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("pub", "sub"))
    parser.add_argument("url")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--hwm", type=int, default=100_000)
    arguments = parser.parse_args()
    with zmq.Context() as context:
        socket = context.socket(zmq.PUB if arguments.role == "pub" else zmq.SUB)
        socket.set_hwm(arguments.hwm)
        socket.linger = 0
        if arguments.role == "pub":
            socket.setsockopt(zmq.XPUB_NODROP, 1)
            socket.bind(arguments.url)
            publish(socket, arguments.size, arguments.count)
        else:
            socket.subscribe(b"")
            socket.connect(arguments.url)
            subscribe(socket)
        socket.close()


if __name__ == "__main__":
    main()
