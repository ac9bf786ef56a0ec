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
from typing import TYPE_CHECKING, Final

import mcast
from mcast.cli import arguments as forms
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
from mcast.stats import Snapshot

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "generated", "run", "split_lines"]

_BATCH_COUNT: Final = 256
_READ_BYTES: Final = 1 << 16

_EPILOG = """\
Each line of stdin is one message, without its newline. A message that no subscriber is up to hear
is heard by nobody: publishing needs no listener.

exit status: 0; 1 when not all was sent; 2 when the system refuses; 3 for bad arguments

examples:
  date | mcast pub "epgm://lo;239.192.1.1:5555"
  tail -f quotes.txt | mcast pub "epgm://eth0;239.192.1.1:5555" --rate 100M
  printf 'AAPL\\t189.20\\n' | mcast pub "epgm://lo;239.192.1.1:5555" --multipart
  mcast pub "epgm://lo;239.192.1.1:5555" --count 1M --size 1K --rate 1G --topic test.
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "pub",
        help="publish lines of stdin, or generated messages",
        description="Publish lines of stdin, or generated messages, to a multicast group.",
        epilog=_EPILOG,
    )
    parser.add_argument("url", metavar="URL", help="such as epgm://eth0;239.192.1.1:5555")
    parser.add_argument("--topic", default="", help="put this in front of every message")
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
    taken = 0
    with Stop() as stop, mcast.Context() as context:
        pub = context.socket(mcast.PUB, **options)
        pub.connect(arguments.url)
        links = pub.links
        if not arguments.quiet:
            say(f"mcast pub: joined {pub.last_endpoint}")
        stop.wait(arguments.wait)
        watch = Stopwatch()
        progress = Progress(quiet=arguments.quiet)
        batches = (
            generated(arguments.count, 64 if arguments.size is None else arguments.size)
            if arguments.count is not None
            else _lines_of_stdin(stop, limit)
        )
        for batch in batches:
            taken += (
                _send_multipart(pub, topic, batch, stop)
                if arguments.multipart
                else _send(pub, [topic + line for line in batch] if topic else batch, stop)
            )
            if progress.is_due(taken):
                _show_progress(pub.stats(), watch.elapsed_s)
            if stop.is_asked:
                break
        context.term()
    stats = _total([link.stats() for link in links])
    unsent = int(stats["messages_unsent"])
    if not arguments.quiet:
        _show_summary(stats, watch.elapsed_s)
    if unsent:
        say(f"mcast pub: {unsent:,} messages were not sent within --linger {arguments.linger:g}")
    if arguments.count is not None and taken < arguments.count:
        say(f"mcast pub: ended by a signal after {taken:,} of {arguments.count:,} messages")
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
    if arguments.count is None:
        if arguments.size is not None:
            raise OptionError("--size goes with --count; lines of stdin have their own size")
    elif (arguments.size or 64) + topic_bytes > limit:
        raise OptionError(
            f"--size {arguments.size} with the topic exceeds {limit}; raise it by -o max_msg_size="
        )


def _lines_of_stdin(stop: Stop, limit: int) -> Iterator[list[bytes]]:
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


def _send(pub: mcast.Pub, batch: list[bytes], stop: Stop) -> int:
    """Publish the batch, at the pace of the rate; how many were taken before a signal came."""
    taken = 0
    while taken < len(batch) and not stop.is_asked:
        taken += pub.send_many(batch[taken:] if taken else batch, timeout=TURN_S)
    return taken


def _send_multipart(pub: mcast.Pub, topic: bytes, batch: list[bytes], stop: Stop) -> int:
    taken = 0
    while taken < len(batch) and not stop.is_asked:
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


def _show_summary(stats: Snapshot, elapsed_s: float) -> None:
    sent = stats["messages_sent"] - stats["messages_unsent"]
    say(
        f"mcast pub: {sent:,} messages in {stats['odata_sent']:,} packets in {elapsed_s:.2f} s;"
        f" {stats['naks_received']:,} NAKs, {stats['rdata_sent']:,} packets repaired"
    )
