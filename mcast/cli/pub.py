"""``mcast pub``: lines of stdin, or generated messages, to everybody who hears the group.

Exit status 1 means that not all was sent: the linger ran out, or a signal came before ``--count``
messages were taken.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

import mcast
from mcast.cli import arguments as forms
from mcast.cli.kinds import SENDERS, add_type_arguments, open_socket
from mcast.cli.terminal import (
    EXIT_OK,
    EXIT_UNMET,
    TURN_S,
    Progress,
    Stop,
    Stopwatch,
    say,
)
from mcast.errors import Again, MessageTooLongError, OptionError
from mcast.options import SocketOptions
from mcast.runtime.deadline import Deadline
from mcast.stats import Snapshot

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "generated", "lines_of_stdin", "run", "split_lines"]

_BATCH_COUNT: Final = 256
_READ_BYTES: Final = 1 << 16
_PORTION_S: Final = 0.02
"""What leaves together where the command keeps the pace itself."""

_EPILOG = """\
Each line of stdin is one message, without its newline. A message that no subscriber is up to hear
is heard by nobody: publishing needs no listener.

exit status: 0; 1 when not all was sent; 2 when the system refuses; 3 for bad arguments

examples:
  date | mcast pub "epgm://lo;239.192.1.1:5555"
  tail -f quotes.txt | mcast pub "epgm://eth0;239.192.1.1:5555" --rate 100M
  printf 'AAPL\\t189.20\\n' | mcast pub "epgm://lo;239.192.1.1:5555" --multipart
  mcast pub "epgm://lo;239.192.1.1:5555" --count 1M --size 1K --rate 1G --topic test.
  mcast pub "tcp://*:5555" --bind --file quotes.txt --rate 10M
  mcast pub tcp://10.0.0.5:5556 --type push --file jobs.txt
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "pub",
        help="publish lines of stdin, or generated messages",
        description="Publish lines of stdin, or generated messages, to a multicast group.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "url", metavar="URL", help="such as epgm://eth0;239.192.1.1:5555 or tcp://10.0.0.5:5555"
    )
    add_type_arguments(parser, SENDERS, "pub")
    parser.add_argument(
        "--file",
        metavar="F",
        action="append",
        default=[],
        help="publish the lines of this file instead of stdin; may be repeated",
    )
    parser.add_argument("--duration", metavar="S", type=forms.seconds, help="end after S seconds")
    parser.add_argument(
        "--topic", default="", help="put this in front of every message (radio: its group)"
    )
    parser.add_argument(
        "--multipart",
        action="store_true",
        help="a line's tabs divide it into parts; the topic is a part of its own",
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=forms.positive_count,
        help="publish N numbered messages instead of stdin",
    )
    parser.add_argument(
        "--size",
        metavar="B",
        type=forms.byte_count,
        help="bytes of a numbered message beside the topic (default 64)",
    )
    parser.add_argument(
        "--rate",
        metavar="R",
        type=forms.bits_per_second,
        help="most bits per second, such as 800M, 1e9 or inf (default 800M)",
    )
    parser.add_argument(
        "--wait",
        metavar="S",
        type=forms.seconds,
        default=0.25,
        help="seconds before the first message, for subscribers to notice (default 0.25)",
    )
    parser.add_argument(
        "--linger",
        metavar="S",
        type=forms.seconds,
        default=10.0,
        help="most seconds to go on sending and repairing at the end (default 10)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary")
    forms.add_option_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Publish; the exit status.

    Blocks until stdin ends, all numbered messages are sent, or a signal comes, and then up to the
    linger.

    Raises: EndpointError, OptionError, TransportError, MessageTooLongError.
    """
    options = forms.socket_options(arguments.option, rate=arguments.rate, linger=arguments.linger)
    topic = os.fsencode(arguments.topic)
    limit = SocketOptions().with_changes(options).max_msg_size
    _check(arguments, len(topic), limit)
    taken = byte_total = 0
    with Stop() as stop, mcast.Context() as context:
        pub = open_socket(context, SENDERS[arguments.type], arguments, options)
        links = pub.links
        pace = _Pace(arguments.rate if not links else None)
        deadline = Deadline(arguments.duration)
        if not arguments.quiet:
            say(f"mcast pub: joined {pub.last_endpoint}")
        stop.wait(arguments.wait)
        watch = Stopwatch()
        progress = Progress(quiet=arguments.quiet)
        for batch in pace.portions(_batches(arguments, stop, limit)):
            sent = (
                _send_multipart(pub, topic, batch, stop, deadline)
                if arguments.multipart or isinstance(pub, mcast.Radio)
                else _send(
                    pub, [topic + line for line in batch] if topic else batch, stop, deadline
                )
            )
            taken += sent
            byte_total += sum(map(len, batch[:sent])) + sent * len(topic)
            pace.wait(stop, deadline, 8 * byte_total, watch.elapsed_s)
            if progress.is_due(taken):
                if links:
                    _show_progress(pub.stats(), watch.elapsed_s)
                else:
                    _show_taken(taken, byte_total, watch.elapsed_s)
            if stop.is_asked or deadline.has_passed:
                break
        context.term()
    stats = _total([link.stats() for link in links])
    unsent = int(stats["messages_unsent"])
    if not arguments.quiet:
        if links:
            _show_summary(stats, watch.elapsed_s)
        else:
            _show_taken(taken, byte_total, watch.elapsed_s)
    if unsent:
        say(f"mcast pub: {unsent:,} messages were not sent within --linger {arguments.linger:g}")
    if arguments.count is not None and taken < arguments.count:
        why = "by a signal" if stop.is_asked else "by --duration"
        say(f"mcast pub: ended {why} after {taken:,} of {arguments.count:,} messages")
        return EXIT_UNMET
    return EXIT_UNMET if unsent else EXIT_OK


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


def _check(arguments: argparse.Namespace, topic_bytes: int, limit: int) -> None:
    """Refuse what cannot be meant, before anything is opened."""
    if arguments.file and arguments.count is not None:
        raise OptionError("either --file or --count; both say what is published")
    if arguments.type == "radio" and not topic_bytes:
        raise OptionError("a radio sends to a group: name it by --topic")
    if arguments.count is None:
        if arguments.size is not None:
            raise OptionError("--size goes with --count; lines of stdin have their own size")
    elif (arguments.size or 64) + topic_bytes > limit:
        raise OptionError(
            f"--size {arguments.size} with the topic exceeds {limit}; raise it by -o max_msg_size="
        )


def _batches(arguments: argparse.Namespace, stop: Stop, limit: int) -> Iterator[list[bytes]]:
    """What is published, in batches."""
    if arguments.count is not None:
        yield from generated(arguments.count, 64 if arguments.size is None else arguments.size)
    elif arguments.file:
        for name in arguments.file:
            yield from _lines_of_file(name, limit)
    else:
        yield from lines_of_stdin(stop, limit)


def _lines_of_file(name: str, limit: int) -> Iterator[list[bytes]]:
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


class _Pace:
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


def _send(pub: mcast.Socket, batch: list[bytes], stop: Stop, deadline: Deadline) -> int:
    """Publish the batch, at the pace of the rate; how many were taken before the end came."""
    taken = 0
    while taken < len(batch) and not (stop.is_asked or deadline.has_passed):
        taken += pub.send_many(batch[taken:] if taken else batch, timeout=TURN_S)
    return taken


def _send_multipart(
    pub: mcast.Socket, topic: bytes, batch: list[bytes], stop: Stop, deadline: Deadline
) -> int:
    taken = 0
    while taken < len(batch) and not (stop.is_asked or deadline.has_passed):
        parts = batch[taken].split(b"\t")
        try:
            pub.send_multipart([topic, *parts] if topic else parts, timeout=TURN_S)
        except Again:
            continue
        taken += 1
    return taken


def _total(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The counters over all endpoints. A closed socket has no ``stats``, but its links have."""
    names = ("messages_sent", "messages_unsent", "odata_sent", "rdata_sent", "naks_received")
    return {name: sum(snapshot[name] for snapshot in snapshots) for name in names}


def _show_progress(stats: Snapshot, elapsed_s: float) -> None:
    sent = stats["messages_sent"] - stats["messages_unsent"]
    say(
        f"mcast pub: {sent:,} messages sent ({sent / max(elapsed_s, 1e-9):,.0f}/s),"
        f" {stats['messages_unsent']:,} wait, {stats['rdata_sent']:,} packets repaired"
    )


def _show_taken(taken: int, byte_total: int, elapsed_s: float) -> None:
    """As ``_show_summary``, for what is not sent in PGM packets."""
    rate = taken / max(elapsed_s, 1e-9)
    say(f"mcast pub: {taken:,} messages, {byte_total:,} bytes in {elapsed_s:.2f} s ({rate:,.0f}/s)")


def _show_summary(stats: Snapshot, elapsed_s: float) -> None:
    sent = stats["messages_sent"] - stats["messages_unsent"]
    say(
        f"mcast pub: {sent:,} messages in {stats['odata_sent']:,} packets in {elapsed_s:.2f} s;"
        f" {stats['naks_received']:,} NAKs, {stats['rdata_sent']:,} packets repaired"
    )
