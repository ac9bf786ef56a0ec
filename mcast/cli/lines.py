"""Lines and numbered messages: where the commands that send get their messages from.

Owns the cutting into messages, and the pace at which they leave where the socket has none of its
own. Everything comes in batches, so that Python runs once for many messages.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from math import inf
from typing import Final

from mcast.cli.terminal import TURN_S, Stop
from mcast.errors import MessageTooLongError
from mcast.runtime.deadline import Deadline

__all__ = ["Pace", "generated", "lines_of_file", "lines_of_stdin", "split_lines"]

_BATCH_COUNT: Final = 256
_READ_BYTES: Final = 1 << 16
_PORTION_S: Final = 0.02
"""What leaves together where the command keeps the pace itself."""


def generated(count: int, size_bytes: int) -> Iterator[list[bytes]]:
    """Messages 0 to ``count`` - 1 in batches: the number in decimal, filled up with dots.

    One that is shorter than its number keeps the number's last digits.
    """
    for start in range(0, count, _BATCH_COUNT):
        yield [
            (b"%d " % number).ljust(size_bytes, b".")
            if size_bytes > len(digits := b"%d" % number)
            else digits[len(digits) - size_bytes :]
            for number in range(start, min(count, start + _BATCH_COUNT))
        ]


def split_lines(rest: bytes, chunk: bytes) -> tuple[list[bytes], bytes]:
    """The lines that ``chunk`` completes, without their newlines, and what is left unfinished."""
    if b"\n" not in chunk:
        return [], rest + chunk
    *lines, rest = (rest + chunk).split(b"\n")
    return lines, rest


def lines_of_file(name: str, limit: int) -> Iterator[list[bytes]]:
    """Batches of the file's lines without their newlines.

    Raises: OSError when it cannot be read; MessageTooLongError.
    """
    with open(name, "rb") as file:
        while lines := file.readlines(_READ_BYTES):
            if max(map(len, lines)) > limit + 1:
                raise MessageTooLongError(
                    f"{name}: a line of over {limit} bytes, which is max_msg_size"
                )
            yield [line.removesuffix(b"\n") for line in lines]


def lines_of_stdin(stop: Stop, limit: int) -> Iterator[list[bytes]]:
    """Batches of lines as they come, until the end of stdin or a signal; also a last, open line."""
    stdin = sys.stdin.fileno()
    rest = b""
    while not stop.is_asked:
        if not select.select((stdin,), (), (), TURN_S)[0]:
            yield []  # for the progress
            continue
        chunk = os.read(stdin, _READ_BYTES)
        if not chunk:
            if rest:
                yield [rest]
            return
        lines, rest = split_lines(rest, chunk)
        if len(rest) > limit:
            raise MessageTooLongError(f"a line of over {limit} bytes, which is max_msg_size")
        yield lines


class Pace:
    """Keeps payload to a rate where the socket has none of its own: all but PUB on epgm://."""

    def __init__(self, bits_per_s: float | None) -> None:
        self._bits_per_s = inf if bits_per_s is None else bits_per_s

    def portions(self, batches: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
        """The batches, cut to what the rate allows in a moment, or to single messages."""
        most_bits = self._bits_per_s * _PORTION_S
        for batch in batches:
            portion: list[bytes] = []
            bits = 0
            for message in batch:
                portion.append(message)
                bits += 8 * len(message)
                if bits >= most_bits:
                    yield portion
                    portion, bits = [], 0
            yield portion

    def wait(self, stop: Stop, deadline: Deadline, bits: int, elapsed_s: float) -> None:
        """Sleep until ``bits`` may have been sent since the start, or it is over."""
        ahead_s = bits / self._bits_per_s - elapsed_s
        if ahead_s > 0:
            left_s = deadline.left
            stop.wait(ahead_s if left_s is None else min(ahead_s, left_s))
