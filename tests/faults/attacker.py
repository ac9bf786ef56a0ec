"""Sends forged packets to a group at a pace, from a host of its own; ends with ``quit`` on stdin.

    attacker.py KIND ADDRESS GROUP PORT TARGET RATE    TARGET: the TSI attacked, in hex

Kinds: ``garbage`` (random bytes, and real packets with one bit flipped), ``tsis`` (each packet of
another source, none twice), ``naks`` (63 numbers each, always the same), ``ncfs``, ``spms`` (of the
target's TSI, far ahead). Says ``{"event": "sent", "count": N, "bytes": B}``.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from itertools import count, cycle, groupby, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.unit.pgm import packets as made

SOURCE = bytes((10, 77, 0, 1))
_UDP_SEGMENT = 103
_RUN_LIMIT = 40


def garbage(tsi: bytes, port: int) -> Iterator[bytes]:
    dice = random.Random(1)
    good = made.odata(5, "x" * 200, tsi=tsi, dport=port)
    kinds = []
    for _ in range(50):
        size = dice.randrange(1, 300)
        kinds += [dice.randbytes(size) for _ in range(10)]
        for _ in range(10):
            flipped = bytearray(good)
            flipped[dice.randrange(len(good))] ^= 1 << dice.randrange(8)
            kinds.append(bytes(flipped))
    return cycle(kinds)


def tsis(tsi: bytes, port: int) -> Iterator[bytes]:
    begun = b"\0\0" + bytes((200, 0)) + b"the beginning of a message"
    for number in count():
        yield made.data(1, begun, tsi=number.to_bytes(8, "big"), dport=port)


def naks(tsi: bytes, port: int) -> Iterator[bytes]:
    group = socket.inet_aton(sys.argv[3])
    lists = (range(first, first + 63) for first in range(0, 630, 63))
    return cycle(
        [
            made.request(made.NAK, *sqns, tsi=tsi, source=SOURCE, group=group, dport=port)
            for sqns in lists
        ]
    )


def ncfs(tsi: bytes, port: int) -> Iterator[bytes]:
    group = socket.inet_aton(sys.argv[3])
    for first in cycle(range(0, 20_000, 63)):
        sqns = range(first, first + 63)
        yield made.request(made.NCF, *sqns, tsi=tsi, source=SOURCE, group=group, dport=port)


def spms(tsi: bytes, port: int) -> Iterator[bytes]:
    for number in count(10_000):
        yield made.spm(
            number, 1 << 30, (1 << 30) + 5, tsi=tsi, dport=port, path=bytes((10, 77, 0, 9))
        )


def send_run(sender: socket.socket, run: bytes, size: int, target: tuple[str, int]) -> None:
    """One call for up to ``_RUN_LIMIT`` packets of one size: a call for each is too slow."""
    for start in range(0, len(run), _RUN_LIMIT * size):
        part = run[start : start + _RUN_LIMIT * size]
        segments = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", size))]
        sender.sendmsg([part], segments if len(part) > size else [], 0, target)


def main() -> None:
    kind, address, group, port, target, rate = sys.argv[1:]
    stream = globals()[kind](bytes.fromhex(target), int(port))
    pause_s = 0.002
    share = max(1, round(float(rate) * pause_s))
    sent_count = sent_bytes = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((address, 0))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            packets = list(islice(stream, share))
            for size, run in groupby(packets, len):
                send_run(sender, b"".join(run), size, (group, int(port)))
            sent_count += len(packets)
            sent_bytes += sum(map(len, packets))
            due += pause_s
            time.sleep(max(0.0, due - time.monotonic()))
    print(json.dumps({"event": "sent", "count": sent_count, "bytes": sent_bytes}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
