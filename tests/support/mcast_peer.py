"""An mcast publisher or subscriber in a process of its own, with the libzmq peer's command line.

    mcast_peer.py pub epgm://10.77.0.1;239.192.1.1:5555 --count 2000 --option rate=1e8
    mcast_peer.py sub epgm://10.77.0.2;239.192.1.1:5555 --count 2000

One JSON object per line on stdout: ``ready`` after connect; ``sent`` and, after the end, ``stats``
(pub); every event of the socket as ``event`` with the time it was taken, and ``summary`` (sub).
Times are CLOCK_MONOTONIC in seconds, the same clock in every process of a machine. The publisher
begins when it reads a line on stdin and leaves at the next one; with ``--count 0`` it goes on until
it is killed. A subscriber ends when it has everything, or at ``quit`` on stdin.

``--hogs N`` adds threads that compute without end, as an application would that never yields.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

from workload import SHAPES, Ledger, Workload, add_to_digest, identify

import mcast
from mcast import kernel

_BATCH_COUNT = 1000
_POLL_S = 0.25
_print_lock = threading.Lock()


def say(event: str, **fields: object) -> None:
    with _print_lock:
        print(json.dumps({"event": event, **fields}), flush=True)


# Publisher


def publish(socket: mcast.Pub, options: argparse.Namespace, workload: Workload) -> None:
    counters = range(options.count) if options.count else itertools.count()
    # What is made beforehand costs no time while the clock runs.
    ready = [workload.message(counter) for counter in counters] if options.prepare else None
    sys.stdin.readline()
    digest = hashlib.blake2b(digest_size=16)
    sent_bytes = sent_count = 0
    start = time.monotonic()
    for counter in counters:
        if options.interval_us:
            _wait_until(start + counter * options.interval_us / 1e6)
        parts = ready[counter] if ready is not None else workload.message(counter)
        socket.send_multipart(parts)
        sent_count += 1
        if ready is None:
            add_to_digest(digest, parts)
            sent_bytes += sum(map(len, parts))
    seconds = time.monotonic() - start
    for parts in ready or ():
        add_to_digest(digest, parts)
        sent_bytes += sum(map(len, parts))
    say(
        "sent",
        count=sent_count,
        bytes=sent_bytes,
        seconds=round(seconds, 3),
        digest=digest.hexdigest(),
    )
    sys.stdin.readline()
    say("stats", **socket.stats())


def _wait_until(due_s: float) -> None:
    while (left_s := due_s - time.monotonic()) > 0:
        time.sleep(min(left_s, 0.001))


# Subscriber


def subscribe(socket: mcast.Sub, options: argparse.Namespace, workload: Workload) -> None:
    account = _Account(options, workload)
    told_to_quit = threading.Event()
    events: list[str] = []

    def watch_events() -> None:
        for event in socket.events(timeout=None):
            events.append(type(event).__name__)
            say("event", kind=type(event).__name__, at=time.monotonic(), **asdict(event))

    def watch_stdin() -> None:
        sys.stdin.readline()
        told_to_quit.set()

    watcher = threading.Thread(target=watch_events)
    watcher.start()
    threading.Thread(target=watch_stdin, daemon=True).start()
    deadline = time.monotonic() + options.timeout
    outcome = "timeout"
    # An application that works on every message takes them in small portions.
    most = 10 if options.work_us else _BATCH_COUNT
    while time.monotonic() < deadline:
        if account.complete:
            outcome = "complete"
        elif told_to_quit.is_set():
            outcome = "quit"
        elif account.last_at and time.monotonic() > account.last_at + options.idle:
            outcome = "idle"
        else:
            try:
                batch = socket.recv_many_multipart(most, timeout=_POLL_S)
            except mcast.Again:
                continue
            account.enter(batch, time.monotonic())
            if options.work_us:
                time.sleep(len(batch) * options.work_us / 1e6)
            continue
        break
    stats = socket.stats()
    context_stats = {"kernel": kernel.NAME}
    socket.close()
    watcher.join()
    say(
        "summary",
        outcome=outcome,
        seconds=round(account.last_at - account.first_at, 3),
        events=events,
        stats=stats,
        cpu_s=round(time.process_time(), 3),
        pauses=account.pauses,
        progress=account.progress,
        **context_stats,
        **account.summary(),
    )


class _Account:
    """The ledger, filled at once, or with ``--check-later`` from memory when all is over."""

    def __init__(self, options: argparse.Namespace, workload: Workload) -> None:
        self._options = options
        self._ledger = Ledger(workload)
        self._kept: list[list[list[bytes]]] = []
        self._kept_count = 0
        self._due_at: list[float] = []
        self.first_at = self.last_at = 0.0
        self.pauses: list[tuple[float, float]] = []
        """Each silence of more than half a second: when the last batch before it, and the first
        after it, were taken."""
        self.progress: list[tuple[float, int]] = []
        """Every 20 ms: when a batch was taken, and the counter of its last message."""

    def enter(self, batch: list[list[bytes]], at: float) -> None:
        self.first_at = self.first_at or at
        if self.last_at and at - self.last_at > 0.5:
            self.pauses.append((self.last_at, at))
        self.last_at = at
        if not self.progress or at - self.progress[-1][0] >= 0.02:
            name = identify(batch[-1])
            if name is not None:
                self.progress.append((at, name[2]))
        if self._options.check_later:
            self._kept.append(batch)
            self._kept_count += len(batch)
        else:
            for parts in batch:
                counter = self._ledger.deliver(parts)
                if counter is not None and self._options.interval_us:
                    self._due_at.append(at - counter * self._options.interval_us / 1e6)

    def _lag(self) -> dict[str, float]:
        """How late messages came, measured from the one that came soonest for its number."""
        if not self._due_at:
            return {}
        late = sorted(self._due_at)
        first, count = late[0], len(late)
        return {
            "lag_p50_s": round(late[count // 2] - first, 6),
            "lag_p99_s": round(late[count * 99 // 100] - first, 6),
            "lag_max_s": round(late[-1] - first, 6),
        }

    @property
    def complete(self) -> bool:
        options = self._options
        if not options.count:
            return False
        if options.check_later:
            return self._kept_count >= options.count
        return all(
            self._ledger.next_counter(options.incarnation, each) >= options.count
            for each in options.streams
        )

    def summary(self) -> dict[str, object]:
        for parts in _messages(self._kept):
            self._ledger.deliver(parts)
        return {**self._lag(), **self._ledger.summary(self._options.count or None)}


def _messages(batches: list[list[list[bytes]]]) -> Iterator[list[bytes]]:
    return itertools.chain.from_iterable(batches)


def hog() -> None:
    while True:
        sum(range(1000))


def hold(seconds: float) -> None:
    """Keep the interpreter lock as a C extension might: PyDLL calls do not give it up."""
    usleep = ctypes.PyDLL(None).usleep
    while True:
        usleep(int(seconds * 1e6))
        time.sleep(max(0.2, 4 * seconds))


# Command line


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("pub", "sub"))
    parser.add_argument("endpoint")
    parser.add_argument("--count", type=int, default=2000, help="0 = without end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shape", default="mixed", help=SHAPES)
    parser.add_argument("--stream", type=int, default=0, help="own number (pub), main one (sub)")
    parser.add_argument("--streams", type=int, nargs="*", help="sub: every stream to wait for")
    parser.add_argument("--incarnation", type=int, default=0)
    parser.add_argument(
        "--interval-us",
        type=float,
        default=0,
        help="pub: pause between messages; sub: the publisher's, to tell how late each came",
    )
    parser.add_argument("--work-us", type=float, default=0, help="sub: pause after each message")
    parser.add_argument(
        "--hold-ms",
        type=float,
        default=0,
        help="a thread that keeps the GIL so long, 5 times a second at most",
    )
    parser.add_argument("--prepare", action="store_true", help="pub: make the messages beforehand")
    parser.add_argument("--check-later", action="store_true", help="sub: check after the last one")
    parser.add_argument("--hogs", type=int, default=0, help="threads that compute without end")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--idle", type=float, default=15.0, help="sub: end after this much silence")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=JSON", help="an option of the socket"
    )
    options = parser.parse_args()
    options.streams = options.streams or [options.stream]
    return options


def main() -> None:
    options = arguments()
    workload = Workload(
        options.seed, shape=options.shape, stream=options.stream, incarnation=options.incarnation
    )
    socket_options = {}
    for assignment in options.option:
        name, _, value = assignment.partition("=")
        socket_options[name] = json.loads(value)
    for _ in range(options.hogs):
        threading.Thread(target=hog, daemon=True).start()
    if options.hold_ms:
        threading.Thread(target=hold, args=(options.hold_ms / 1e3,), daemon=True).start()
    with mcast.Context() as context:
        if options.mode == "pub":
            pub = context.socket(mcast.PUB, **socket_options)
            pub.connect(options.endpoint)
            say("ready", kernel=kernel.NAME)
            publish(pub, options, workload)
        else:
            sub = context.socket(mcast.SUB, **socket_options)
            sub.subscribe(b"")
            sub.connect(options.endpoint)
            say("ready", kernel=kernel.NAME)
            subscribe(sub, options, workload)


if __name__ == "__main__":
    main()
