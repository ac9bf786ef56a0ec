"""A box in the middle of a cable: a program that carries frames and does seeded harm to them.

    relay.py PORT_A PORT_B --seed 7 --toward-b '{"delay_ms": 5, "reorder": 10}' --toward-a '{}'

Owns two AF_PACKET sockets and the frames on their way between them. Each direction has dice of its
own from the seed, so the n-th packet meets the same fate in every run. A JSON line on stdin (``{
"toward_a": {...}, "toward_b": {...}}``) replaces the harm, an empty line or the end of stdin ends
the program, which then says what it did in one JSON line.

A frame keeps the virtio header it came with, so that checksums which the kernel left to the
hardware stay right; a frame we damage loses its UDP checksum instead, so that the damage reaches
the application.

Invariant: what is neither lost nor cut leaves byte for byte as it came; what is not of the chosen
protocol (ARP, IGMP) is carried at once.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass, field, fields
from heapq import heappop, heappush
from random import Random

_SOL_PACKET, _ADD_MEMBERSHIP, _VNET_HDR, _IGNORE_OUTGOING = 263, 1, 15, 23
_PROMISCUOUS = 1
_ETH_P_ALL = 0x0003
_VNET_BYTES, _ETHERNET_BYTES = 10, 14
_UDP, _TCP = 17, 6
_HELD_LIMIT_NS = 100_000_000  # a reordered packet waits no longer for others to overtake it
_QUEUE_LIMIT = 20_000
_BATCH = 64


@dataclass(frozen=True)
class Harm:
    """What happens to the packets of one direction; shares are percents."""

    loss: float = 0.0
    burst: int = 1
    """Packets in a row that each loss takes."""
    duplicate: float = 0.0
    corrupt: float = 0.0
    """One random byte of the payload is changed."""
    truncate: float = 0.0
    """The payload is cut at a random place."""
    reorder: float = 0.0
    depth: int = 3
    """How many later packets overtake one that is reordered."""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Up to so much more delay for each packet, evenly; so packets overtake each other."""
    rate_kbit: float = 0.0
    """Packets leave at this pace; 0: at once."""
    protocol: str = "udp"
    """``udp``, ``tcp`` or ``ip`` (both)."""
    pgm_types: tuple[int, ...] = ()
    """Strike only these PGM types; empty: any packet."""

    def __post_init__(self) -> None:
        if self.protocol not in ("udp", "tcp", "ip"):
            raise ValueError(f"protocol is udp, tcp or ip, not {self.protocol!r}")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{item.name} is {value}: it cannot be negative")


@dataclass
class Tally:
    """What was done to one direction."""

    carried: int = 0
    """All that left, what was carried at once included."""
    lost: int = 0
    duplicated: int = 0
    corrupted: int = 0
    truncated: int = 0
    reordered: int = 0
    overflowed: int = 0
    """Lost because too many were on their way."""


@dataclass
class Direction:
    """One way through the box."""

    exit: socket.socket
    harm: Harm
    dice: Random
    tally: Tally = field(default_factory=Tally)
    flying: list[tuple[int, int, bytes]] = field(default_factory=list)
    held: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Reordered: (leaves behind this many packets, or at this time, frame)."""
    count: int = 0
    serial: int = 0
    losing: int = 0
    free_ns: int = 0

    def take(self, frame: bytes, now_ns: int) -> None:
        """Decide what becomes of one frame."""
        harm, dice, tally = self.harm, self.dice, self.tally
        payload = _payload(frame, harm)
        if payload is None:
            self._send(frame)
            return
        self.count += 1
        if self.losing or dice.random() * 100 < harm.loss:
            self.losing = (self.losing or harm.burst) - 1
            tally.lost += 1
            return
        if dice.random() * 100 < harm.corrupt and payload < len(frame):
            tally.corrupted += 1
            at = dice.randrange(payload, len(frame))
            damaged = bytes((frame[at] ^ dice.randrange(1, 256),))
            frame = _without_checksum(frame[:at] + damaged + frame[at + 1 :])
        if dice.random() * 100 < harm.truncate and payload < len(frame):
            tally.truncated += 1
            frame = _cut(frame, dice.randrange(payload, len(frame)))
        copies = 1
        if dice.random() * 100 < harm.duplicate:
            tally.duplicated += 1
            copies = 2
        if dice.random() * 100 < harm.reorder:
            tally.reordered += 1
            self.held.append((self.count + harm.depth, now_ns + _HELD_LIMIT_NS, frame))
            copies -= 1
        for _ in range(copies):
            self._queue(frame, now_ns)
        while self.held and self.held[0][0] <= self.count:
            self._queue(self.held.pop(0)[2], now_ns)

    def leave(self, now_ns: int) -> None:
        """Send what is due."""
        while self.held and self.held[0][1] <= now_ns:
            self._queue(self.held.pop(0)[2], now_ns)
        while self.flying and self.flying[0][0] <= now_ns:
            self._send(heappop(self.flying)[2])

    def next_ns(self) -> int | None:
        """When ``leave`` has something to do."""
        due = [self.flying[0][0]] if self.flying else []
        if self.held:
            due.append(self.held[0][1])
        return min(due, default=None)

    def _queue(self, frame: bytes, now_ns: int) -> None:
        harm = self.harm
        due_ns = now_ns + int(harm.delay_ms * 1e6)
        if harm.jitter_ms:
            due_ns += int(self.dice.random() * harm.jitter_ms * 1e6)
        if harm.rate_kbit:
            self.free_ns = max(self.free_ns, now_ns) + int(len(frame) * 8e6 / harm.rate_kbit)
            due_ns = max(due_ns, self.free_ns)
        if due_ns <= now_ns:
            self._send(frame)
        elif len(self.flying) >= _QUEUE_LIMIT:
            self.tally.overflowed += 1
        else:
            # The count keeps packets of the same moment in order.
            self.serial += 1
            heappush(self.flying, (due_ns, self.serial, frame))

    def _send(self, frame: bytes) -> None:
        try:
            self.exit.send(frame)
            self.tally.carried += 1
        except OSError:
            self.tally.overflowed += 1


def _payload(frame: bytes, harm: Harm) -> int | None:
    """Where the payload starts, or None for a frame that is carried as it is."""
    start = _VNET_BYTES + _ETHERNET_BYTES
    if len(frame) < start + 28:
        return None
    ether_type = frame[start - 2 : start]
    if ether_type == b"\x08\x00":
        protocol, transport = frame[start + 9], start + (frame[start] & 0x0F) * 4
    elif ether_type == b"\x86\xdd":
        protocol, transport = frame[start + 6], start + 40
    else:
        return None
    wanted = {"udp": (_UDP,), "tcp": (_TCP,), "ip": (_UDP, _TCP)}[harm.protocol]
    if protocol not in wanted or len(frame) < transport + 8:
        return None
    payload = transport + (8 if protocol == _UDP else (frame[transport + 12] >> 4) * 4)
    if harm.pgm_types and (len(frame) < payload + 5 or frame[payload + 4] not in harm.pgm_types):
        return None
    return payload


def _without_checksum(frame: bytes) -> bytes:
    """The same frame with nothing that tells the kernel about the damage (IPv4 and UDP)."""
    start = _VNET_BYTES + _ETHERNET_BYTES
    if frame[start - 2 : start] != b"\x08\x00" or frame[start + 9] != _UDP:
        return frame
    changed = bytearray(frame)
    changed[:_VNET_BYTES] = bytes(_VNET_BYTES)
    checksum = start + (frame[start] & 0x0F) * 4 + 6
    changed[checksum : checksum + 2] = b"\0\0"
    return bytes(changed)


def _cut(frame: bytes, end: int) -> bytes:
    """The frame up to ``end``, with lengths and header checksum to match (IPv4 and UDP)."""
    start = _VNET_BYTES + _ETHERNET_BYTES
    whole = _without_checksum(frame)
    if frame[start - 2 : start] != b"\x08\x00" or frame[start + 9] != _UDP:
        return frame
    cut = bytearray(whole[:end])
    head_bytes = (cut[start] & 0x0F) * 4
    struct.pack_into("!H", cut, start + 2, end - start)
    struct.pack_into("!H", cut, start + head_bytes + 4, end - start - head_bytes)
    struct.pack_into("!H", cut, start + 10, 0)
    total = sum(struct.unpack_from(f"!{head_bytes // 2}H", cut, start))
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("!H", cut, start + 10, ~(total + (total >> 16)) & 0xFFFF)
    return bytes(cut)


def _open(interface: str) -> socket.socket:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    link.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
    link.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    link.bind((interface, 0))
    request = struct.pack("iHH8s", socket.if_nametoindex(interface), _PROMISCUOUS, 0, b"")
    link.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, request)
    link.setblocking(False)
    return link


def _harm(words: object) -> Harm:
    if not isinstance(words, dict):
        raise ValueError(f"harm is a table, not {words!r}")
    known = {item.name for item in fields(Harm)}
    if unknown := set(words) - known:
        raise ValueError(f"{sorted(unknown)} are unknown; known are {sorted(known)}")
    types = tuple(words.get("pgm_types", ()))
    return Harm(**{**words, "pgm_types": types})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port_a")
    parser.add_argument("port_b")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--toward-a", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--toward-b", type=json.loads, default={}, metavar="JSON")
    options = parser.parse_args()
    a, b = _open(options.port_a), _open(options.port_b)
    toward_a = Direction(a, _harm(options.toward_a), Random(f"{options.seed} a"))
    toward_b = Direction(b, _harm(options.toward_b), Random(f"{options.seed} b"))
    ways = {a: toward_b, b: toward_a}
    print(json.dumps({"event": "ready"}), flush=True)
    while True:
        due = [at for way in ways.values() if (at := way.next_ns()) is not None]
        wait_s = max(0, min(due) - time.monotonic_ns()) / 1e9 if due else None
        readable, _, _ = select.select([a, b, sys.stdin], [], [], wait_s)
        now_ns = time.monotonic_ns()
        for link in readable:
            if link is sys.stdin:
                line = sys.stdin.readline().strip()
                if not line:
                    tallies = {
                        "toward_a": asdict(toward_a.tally),
                        "toward_b": asdict(toward_b.tally),
                    }
                    print(json.dumps({"event": "tally", **tallies}), flush=True)
                    return
                changed = json.loads(line)
                toward_a.harm = _harm(changed.get("toward_a", {}))
                toward_b.harm = _harm(changed.get("toward_b", {}))
                continue
            way = ways[link]
            for _ in range(_BATCH):
                try:
                    frame = link.recv(1 << 17)
                except (BlockingIOError, OSError):
                    break
                way.take(frame, now_ns)
        for way in ways.values():
            way.leave(now_ns)


if __name__ == "__main__":
    main()
