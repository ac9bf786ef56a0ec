"""A publisher or subscriber that runs for hours in bounded memory, and a ledger that says so.

    soak_peer.py pub URL --incarnation 3 --rate 500
    soak_peer.py sub URL

A message is incarnation, counter, CRC-32 and filler, one to a packet from number 0 on: so counter
and packet number are the same, and what was delivered can be compared with what was reported lost.
The subscriber says a JSON line whenever it reads one on stdin: its memory, descriptors and threads,
and the account of every stream that is over or still open. ``quit`` ends either.

Invariant: the ledger keeps for each stream its open gaps and unmatched losses only.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mcast

HEAD = struct.Struct("!QQI")
FILLER = bytes(236)
# A window that has filled within the first minutes: its memory is touched as it does.
OPTIONS = {"multicast_maxtpdu": 340, "txw_bytes": 1 << 20}
PEER_EXPIRY_S = 5.0


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def commands() -> Iterator[str]:
    for line in sys.stdin:
        yield line.strip()


def usage() -> dict[str, int | float]:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "cpu_s": round(time.process_time(), 3),
    }


# Publisher


def publish(url: str, incarnation: int, rate: float) -> None:
    told = threading.Event()
    with mcast.Context() as context:
        pub = context.socket(mcast.PUB, **OPTIONS)  # type: ignore[arg-type]
        pub.connect(url)
        say("ready")
        threading.Thread(target=_answer, args=(told,), daemon=True).start()
        time.sleep(0.2)
        counter, start = 0, time.monotonic()
        while not told.is_set():
            # Ten at a time: a wake-up for each would cost more CPU than the messages.
            time.sleep(max(0.0, start + counter / rate - time.monotonic()))
            numbers = range(counter, counter + 10)
            pub.send_many([_message(incarnation, number) for number in numbers])
            counter += 10
        say("sent", count=counter)


def _message(incarnation: int, counter: int) -> bytes:
    crc = zlib.crc32(struct.pack("!QQ", incarnation, counter))
    return HEAD.pack(incarnation, counter, crc) + FILLER


def _answer(told: threading.Event) -> None:
    for command in commands():
        if command == "quit":
            break
        say("usage", **usage())
    told.set()


# Subscriber


@dataclass
class Stream:
    """One incarnation: what is missing so far and what was reported."""

    first: int
    next: int
    delivered: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    lost_count: int = 0

    def faults(self) -> list[str]:
        """What does not close; gaps and losses that match are forgotten."""
        gaps, lost = _merged(self.gaps), _merged(self.lost)
        both = set(gaps) & set(lost)
        self.gaps = [gap for gap in gaps if gap not in both]
        self.lost = [loss for loss in lost if loss not in both]
        found = [f"silent loss of {first} to {last}" for first, last in self.gaps]
        # Behind the last message a loss shows no gap.
        found += [f"loss of {f} to {t} that was none" for f, t in self.lost if f < self.next]
        return found


class Account:
    """All streams of one subscriber, by TSI for losses and by incarnation for messages."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.tsis: dict[str, int] = {}
        self.waiting: dict[str, tuple[str, int]] = {}
        self.corrupt = self.duplicates = self.delivered = self.lost = 0
        self.over: list[str] = []
        self._lock = threading.Lock()

    def message(self, data: bytes) -> None:
        """Enter one."""
        incarnation, counter, crc = HEAD.unpack_from(data)
        if crc != zlib.crc32(data[:16]) or data[HEAD.size :] != FILLER:
            self.corrupt += 1
            return
        with self._lock:
            stream = self.streams.get(incarnation)
            if stream is None:
                stream = self.streams[incarnation] = Stream(counter, counter)
            if counter < stream.next:
                self.duplicates += 1
                return
            if counter > stream.next:
                stream.gaps.append((stream.next, counter - 1))
            stream.next = counter + 1
            stream.delivered += 1
            self.delivered += 1

    def event(self, event: mcast.Event) -> None:
        """Enter what the socket says; the n-th stream of an address is its n-th incarnation."""
        with self._lock:
            if isinstance(event, mcast.PeerJoined):
                host = int(event.address.rpartition(".")[2])
                known = sum(name // 1_000_000 == host for name in self.tsis.values())
                self.tsis[event.tsi] = host * 1_000_000 + known
            elif isinstance(event, mcast.Lost):
                self.lost += event.count
                name = self.tsis[event.tsi]
                stream = self.streams.get(name)
                if stream is None:
                    stream = self.streams[name] = Stream(event.first, event.first)
                stream.lost.append((event.first, event.last))

    def faults(self) -> list[str]:
        """All that does not close now; call it when nothing is on its way."""
        with self._lock:
            found = [
                f"{name}: {fault}" for name, each in self.streams.items() for fault in each.faults()
            ]
            # Streams that are over and closed are forgotten, but for the two latest of each host.
            for host in {name // 1_000_000 for name in self.streams}:
                mine = sorted(name for name in self.streams if name // 1_000_000 == host)
                for name in mine[:-2]:
                    if not self.streams[name].gaps:
                        del self.streams[name]
        if self.corrupt or self.duplicates:
            found.append(f"{self.corrupt} corrupt, {self.duplicates} twice")
        return found


def subscribe(url: str) -> None:
    account = Account()
    told = threading.Event()
    with mcast.Context() as context:
        sub = context.socket(mcast.SUB, peer_expiry=PEER_EXPIRY_S)
        sub.subscribe(b"")
        sub.connect(url)

        def watch() -> None:
            for event in sub.events(timeout=None):
                account.event(event)

        def answer() -> None:
            for command in commands():
                if command == "quit":
                    break
                stats = sub.stats()
                say(
                    "usage",
                    **usage(),
                    delivered=account.delivered,
                    lost=account.lost,
                    repaired=stats["repaired"],
                    peers=stats["peers"],
                    streams=len(account.tsis),
                    faults=account.faults(),
                )
            told.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        threading.Thread(target=answer, daemon=True).start()
        say("ready")
        while not told.is_set():
            try:
                batch = sub.recv_many(1000, timeout=0.5)
            except mcast.Again:
                continue
            for data in batch:
                account.message(data)
        sub.close()
        watcher.join()
    say("summary", delivered=account.delivered, lost=account.lost, faults=account.faults())


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first == merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=("pub", "sub"))
    parser.add_argument("url")
    parser.add_argument("--incarnation", type=int, default=0)
    parser.add_argument("--rate", type=float, default=500)
    options = parser.parse_args()
    if options.mode == "pub":
        publish(options.url, options.incarnation, options.rate)
    else:
        subscribe(options.url)


if __name__ == "__main__":
    main()
