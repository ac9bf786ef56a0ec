"""A libzmq publisher or subscriber over epgm in a process of its own (one bad packet kills it).

Run by the Python that holds pyzmq on Debian's libzmq, never by the one that holds mcast:

    libzmq_peer.py pub epgm://10.77.0.1;239.192.1.1:5555 --count 2000
    libzmq_peer.py sub epgm://10.77.0.2;239.192.1.1:5555 --count 2000

One JSON object per line on stdout: ``ready`` after connect, ``sent`` (pub), ``summary`` (sub).
The publisher begins when it reads a line on stdin and leaves at the next one: libzmq repairs
nothing after close, so it must stay until its subscribers have everything.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time

import zmq
from workload import SHAPES, Ledger, Workload, add_to_digest

# OpenPGM prints warnings on stdout, without waiting for our lines to end: only we keep it.
_report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), file=_report, flush=True)


def publish(socket: zmq.Socket[bytes], options: argparse.Namespace, workload: Workload) -> None:
    digest = hashlib.blake2b(digest_size=16)
    sys.stdin.readline()
    sent_bytes = 0
    start = time.monotonic()
    for counter in range(options.count):
        if options.interval_us:
            while time.monotonic() < start + counter * options.interval_us / 1e6:
                time.sleep(min(options.interval_us / 1e6, 0.001))
        parts = workload.message(counter)
        socket.send_multipart(parts)
        add_to_digest(digest, parts)
        sent_bytes += sum(map(len, parts))
    say(
        "sent",
        count=options.count,
        bytes=sent_bytes,
        seconds=round(time.monotonic() - start, 3),
        digest=digest.hexdigest(),
    )
    sys.stdin.readline()


def subscribe(socket: zmq.Socket[bytes], options: argparse.Namespace, workload: Workload) -> None:
    ledger = Ledger(workload)
    deadline = time.monotonic() + options.timeout
    first_at = last_at = 0.0
    quiet_after = deadline
    outcome = "timeout"
    while True:
        left = min(deadline, quiet_after) - time.monotonic()
        if left <= 0:
            outcome = "idle" if quiet_after < deadline else "timeout"
            break
        if not socket.poll(int(left * 1000) + 1):
            continue
        last_at = time.monotonic()
        first_at = first_at or last_at
        quiet_after = last_at + options.idle
        ledger.deliver(socket.recv_multipart())
        if _complete(ledger, options):
            outcome = "complete"
            break
    say(
        "summary",
        outcome=outcome,
        seconds=round(last_at - first_at, 3),
        **ledger.summary(options.count),
    )


def _complete(ledger: Ledger, options: argparse.Namespace) -> bool:
    """True when the last message of every stream is here, or all of them are."""
    return all(ledger.next_counter(stream=each) >= options.count for each in options.streams)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("pub", "sub"))
    parser.add_argument("endpoint")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shape", default="mixed", help=SHAPES)
    parser.add_argument("--stream", type=int, default=0, help="own number (pub), main one (sub)")
    parser.add_argument("--streams", type=int, nargs="*", help="sub: every stream to wait for")
    parser.add_argument("--incarnation", type=int, default=0)
    parser.add_argument("--interval-us", type=float, default=0, help="pub: pause between messages")
    parser.add_argument("--rate-kbit", type=int, default=100_000, help="ZMQ_RATE")
    parser.add_argument("--recovery-ms", type=int, default=60_000, help="ZMQ_RECOVERY_IVL")
    parser.add_argument("--maxtpdu", type=int, default=1500, help="ZMQ_MULTICAST_MAXTPDU")
    parser.add_argument("--rcvbuf", type=int, default=4 << 20, help="ZMQ_RCVBUF; 0 = the system's")
    parser.add_argument(
        "--hwm", type=int, default=0, help="ZMQ_SNDHWM and ZMQ_RCVHWM; 0 = no limit"
    )
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--idle", type=float, default=15.0, help="sub: end after this much silence")
    options = parser.parse_args()
    options.streams = options.streams or [options.stream]
    return options


def main() -> None:
    options = arguments()
    workload = Workload(
        options.seed,
        shape=options.shape,
        stream=options.stream,
        incarnation=options.incarnation,
    )
    context = zmq.Context()
    socket = context.socket(zmq.PUB if options.mode == "pub" else zmq.SUB)
    socket.setsockopt(zmq.RATE, options.rate_kbit)
    socket.setsockopt(zmq.RECOVERY_IVL, options.recovery_ms)
    socket.setsockopt(zmq.MULTICAST_MAXTPDU, options.maxtpdu)
    socket.setsockopt(zmq.SNDHWM, options.hwm)
    socket.setsockopt(zmq.RCVHWM, options.hwm)
    socket.setsockopt(zmq.LINGER, 1000)
    if options.rcvbuf:
        socket.setsockopt(zmq.RCVBUF, options.rcvbuf)
        socket.setsockopt(zmq.SNDBUF, options.rcvbuf)
    if options.mode == "sub":
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(options.endpoint)
    say("ready", libzmq=zmq.zmq_version(), pyzmq=zmq.__version__)
    if options.mode == "pub":
        publish(socket, options, workload)
    else:
        subscribe(socket, options, workload)
    context.destroy(linger=1000)


if __name__ == "__main__":
    main()
