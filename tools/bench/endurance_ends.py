"""The processes that tools/bench/endurance measures: a publisher, a subscriber, an idle context.

Owns the loops and what the two ends say to each other. Every message begins with its number, so
that the subscriber knows which ones did not come; END carries how many there were. To be faster
than any subscriber the publisher sends messages that were made before: a number repeats after
``RING`` batches, and only the first message of a batch, made anew, has the whole of it.

What is to be done comes as JSON in the only argument after the role; lines of JSON on stdout are
the answers.

    endurance_ends.py pub|sub|idle JSON
"""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path
from struct import Struct
from time import monotonic_ns, process_time_ns, sleep
from typing import Any, Final

import mcast
from mcast.events import Lost

HEAD: Final = Struct("=QQ")
"""The number modulo the ring's size, and 0 or, in the first message of a batch, all of it and 1.

HELLO and 0; or END, to which is added which END it is, and how many messages were sent.
"""
HELLO: Final = 1 << 62
END: Final = 1 << 63
RING: Final = 256
HELLO_S: Final = 0.005
END_S: Final = 0.02
POLL_S: Final = 0.002
SAMPLE_NS: Final = 1_000_000_000
CHECKPOINT_NS: Final = 5_000_000
"""So often the publisher notes which packet it is at; measured: 30 us each, under 1 %."""
EVENTS_NS: Final = 20_000_000
"""So often the subscriber takes its events, so that overruns are told of in small ranges."""

Order = dict[str, Any]


def publish(order: Order) -> Order:
    """Numbered messages of ``size`` bytes in batches for ``duration_s``, as fast as they go."""
    ring = made(order["size"], order["batch"])
    with mcast.Context() as context:
        pub = context.socket(mcast.PUB, **options(order))
        answer({"rss_bytes": rss_bytes()})
        pub.connect(order["url"])
        hello = HEAD.pack(HELLO, 0)
        while not stdin_speaks(HELLO_S):
            pub.send(hello)
        memory, checkpoints = [rss_bytes()], [(0, int(pub.stats()["txw_lead"]))]
        count, fill, send_many = order["batch"], bytes(order["size"] - HEAD.size), pub.send_many
        sent = 0
        now_ns = start_ns = monotonic_ns()
        end_ns = start_ns + int(order["duration_s"] * 1e9)
        sample_ns, checkpoint_ns = start_ns + SAMPLE_NS, start_ns + CHECKPOINT_NS
        while now_ns < end_ns:
            batch = ring[sent // count % RING]
            batch[0] = HEAD.pack(sent % (RING * count), sent + 1) + fill
            send_many(batch)
            sent += count
            now_ns = monotonic_ns()
            if now_ns >= checkpoint_ns:
                checkpoint_ns = now_ns + CHECKPOINT_NS
                if order["keeps"]:
                    checkpoints.append((sent, int(pub.stats()["txw_lead"])))
                if now_ns >= sample_ns:
                    sample_ns += SAMPLE_NS
                    memory.append(rss_bytes())
        while pub.stats()["messages_unsent"]:
            sleep(POLL_S)
        now_ns = monotonic_ns()
        seconds = (now_ns - start_ns) / 1e9
        checkpoints.append((sent, int(pub.stats()["txw_lead"])))
        ends = 0
        while not stdin_speaks(END_S):
            pub.send(HEAD.pack(END + ends, sent))
            ends += 1
        stats = pub.stats()
    return {
        "sent": sent,
        "seconds": seconds,
        "memory_bytes": memory,
        "checkpoints": checkpoints,
        "stats": stats,
    }


def made(size: int, count: int) -> list[list[bytes]]:
    """Batches of messages, numbered all through."""
    fill = bytes(size - HEAD.size)
    return [
        [HEAD.pack(number, 0) + fill for number in range(start, start + count)]
        for start in range(0, RING * count, count)
    ]


def subscribe(order: Order) -> Order:
    """Take everything up to END, ``work_ns`` of computing for each message; what was missing."""
    with mcast.Context(loop=order.get("loop", "thread")) as context:
        sub = context.socket(mcast.SUB, **options(order))
        answer({"rss_bytes": rss_bytes()})
        sub.subscribe(b"")
        sub.connect(order["url"])
        print("ready", flush=True)
        sub.recv()
        print("joined", flush=True)
        taken = Taken(sub, order["batch"], keeps=order["keeps"])
        return taken.all(order["work_ns"])


class Taken:
    """What a subscriber has got: the count, the gaps between the numbers, the losses reported."""

    def __init__(self, sub: mcast.Sub, count: int, *, keeps: bool) -> None:
        """Without ``keeps`` no list is made that grows: for those who measure memory."""
        self._sub = sub
        self._keeps = keeps
        self._count = count
        self._round = RING * count
        self._next = 0
        self._is_sure = True
        self._sent = -1
        self._refused_ends = 0
        self.received = 0
        self.gaps: list[tuple[int, int]] = []
        self.losses: list[tuple[int, int, int, str]] = []

    def all(self, work_ns: int) -> Order:
        """Take to the end."""
        recv_many, number, wanted, ring = (
            self._sub.recv_many,
            HEAD.unpack_from,
            self._count,
            self._round,
        )
        batch = recv_many(wanted)
        while number(batch[-1])[0] == HELLO:
            batch = recv_many(wanted)
        now_ns = start_ns = monotonic_ns()
        memory = [rss_bytes()]
        sample_ns, events_ns = start_ns + SAMPLE_NS, start_ns
        while True:
            due, size = self._next, len(batch)
            if (
                self._is_sure
                and number(batch[0])[0] == due % ring
                and number(batch[-1])[0] == (due + size - 1) % ring
            ):
                self._next += size
                self.received += size
            else:
                self._look_at_each(batch)
                if self._sent >= 0:
                    break
            if work_ns:
                until_ns = monotonic_ns() + work_ns * size
                while (now_ns := monotonic_ns()) < until_ns:
                    pass
            else:
                now_ns = monotonic_ns()
            if now_ns >= events_ns:
                events_ns = now_ns + EVENTS_NS
                self._take_events()
                if now_ns >= sample_ns:
                    sample_ns += SAMPLE_NS
                    memory.append(rss_bytes())
            batch = recv_many(wanted)
        seconds = (monotonic_ns() - start_ns) / 1e9
        self._take_events()
        return {
            "received": self.received,
            "missing": self._sent - self.received,
            "seconds": seconds,
            "refused_ends": self._refused_ends,
            "memory_bytes": memory,
            "gaps": self.gaps,
            "losses": self.losses,
            "stats": self._sub.stats(),
        }

    def _look_at_each(self, batch: list[bytes]) -> None:
        """Take what may have gaps; after one only the next whole number tells how long it was."""
        for message in batch:
            number, whole = HEAD.unpack_from(message)
            if number == HELLO:
                continue
            if number >= END:
                self._sent, self._refused_ends = whole, number - END
                self._skip_to(whole)
                return
            # Nothing comes twice or out of order: whatever is not the next one is a later one.
            self._skip_to(whole - 1 if whole else self._next + (number - self._next) % self._round)
            self._is_sure = self._is_sure or whole > 0
            self._next += 1
            self.received += 1

    def _skip_to(self, number: int) -> None:
        if number != self._next:
            self._is_sure = False
            if self._keeps:
                self.gaps.append((self._next, number - 1))
            self._next = number

    def _take_events(self) -> None:
        for event in self._sub.events():
            if self._keeps and isinstance(event, Lost):
                self.losses.append((event.first, event.last, event.count, str(event.reason)))


def idle(order: Order) -> Order:
    """CPU time of a context with a PUB and a SUB connected while nobody sends anything.

    With ``receives`` the subscriber sits in ``recv``, else nobody waits for anything.
    """
    with mcast.Context() as context:
        pub, sub = context.socket(mcast.PUB), context.socket(mcast.SUB)
        sub.subscribe(b"")
        pub.connect(order["url"])
        sub.connect(order["url"])
        sleep(order["settle_s"])  # the first SPMs, and what importing has left behind
        seconds = order["duration_s"]
        turns = context.stats()["loop_turns"]
        used_ns, start_ns = process_time_ns(), monotonic_ns()
        if order["receives"]:
            try:
                sub.recv(timeout=seconds)
            except mcast.Again:
                pass
        else:
            sleep(seconds)
        used_s = (process_time_ns() - used_ns) / 1e9
        seconds = (monotonic_ns() - start_ns) / 1e9
        turns = context.stats()["loop_turns"] - turns
    return {"cpu_s": used_s, "seconds": seconds, "share": used_s / seconds, "loop_turns": turns}


def options(order: Order) -> Order:
    """The socket's options; JSON has no infinity, so that is a text."""
    return {
        name: float(value) if isinstance(value, str) else value
        for name, value in order["options"].items()
    }


def rss_bytes() -> int:
    """What of this process is resident now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def answer(found: Order) -> None:
    print(json.dumps(found), flush=True)


def stdin_speaks(timeout_s: float) -> bool:
    if not select.select((sys.stdin,), (), (), timeout_s)[0]:
        return False
    os.read(sys.stdin.fileno(), 4096)
    return True


if __name__ == "__main__":
    role = {"pub": publish, "sub": subscribe, "idle": idle}[sys.argv[1]]
    answer(role(json.loads(sys.argv[2])))
