"""``mcast pub``: lines of stdin, or generated messages, to everybody who hears the group.

Exit status 1 means that not all was sent: the linger ran out, a queue was full, nobody had the name
that was called, or a signal came before ``--count`` messages were taken.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import mcast
from mcast.cli import arguments as forms
from mcast.cli.kinds import (
    SENDERS,
    URL_HELP,
    add_socket_arguments,
    add_type_arguments,
    open_socket,
    socket_options_of,
)
from mcast.cli.lines import Pace, generated, lines_of_file, lines_of_stdin
from mcast.cli.terminal import (
    EXIT_OK,
    EXIT_UNMET,
    TURN_S,
    Progress,
    Stop,
    Stopwatch,
    counted,
    say,
)
from mcast.errors import Again, OptionError, UnroutableError
from mcast.options import SocketOptions
from mcast.runtime.deadline import Deadline
from mcast.stats import Snapshot

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_EPILOG = """\
Each line is one message, without its newline. A message that no subscriber is up to hear is heard
by nobody: publishing needs no listener. push, pair and dealer wait for a peer that has room.

An xpub says on stderr what its peers subscribe to. A router sends to the peer that --topic names,
or with --multipart the first part of each line; peers name themselves by -o routing_id=NAME.

exit status: 0; 1 when not all was sent; 2 when the system refuses; 3 for bad arguments

examples:
  date | mcast pub "epgm://lo;239.192.1.1:5555"
  tail -f quotes.txt | mcast pub "epgm://eth0;239.192.1.1:5555" --rate 100M
  printf 'AAPL\\t189.20\\n' | mcast pub "epgm://lo;239.192.1.1:5555" --multipart
  mcast pub "epgm://lo;239.192.1.1:5555" --count 1M --size 1K --rate 1G --topic test.
  mcast pub "tcp://*:5555" --bind --file quotes.txt --rate 10M
  mcast pub tcp://10.0.0.5:5556 --type push --file jobs.txt --curve-server-key server.key
  echo sun | mcast pub "udp://eth0;239.192.1.1:5557" --type radio --topic weather
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "pub",
        help="publish lines of stdin, or generated messages",
        description="Publish lines of stdin or files, or generated messages.",
        epilog=_EPILOG,
    )
    parser.add_argument("url", metavar="URL", help=URL_HELP)
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
        "--topic",
        metavar="T",
        default="",
        help="put this in front of every message (radio: its group; router: its peer)",
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
        help="most bits per second, such as 800M, 1e9 or inf (default 800M; not epgm: inf)",
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
    add_socket_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Publish; the exit status.

    Blocks until stdin ends, all numbered messages are sent, or a signal comes, and then up to the
    linger.

    Raises: EndpointError, OptionError, TransportError, MessageTooLongError, OSError.
    """
    options = socket_options_of(arguments, rate=arguments.rate, linger=arguments.linger)
    if arguments.type == "router":
        options.setdefault("router_mandatory", True)  # else nobody would know what went nowhere
    topic = os.fsencode(arguments.topic)
    limit = SocketOptions().with_changes(options).max_msg_size
    _check(arguments, len(topic), limit)
    quiet: bool = arguments.quiet
    byte_total = 0
    was_cut = False
    with Stop() as stop, mcast.Context() as context:
        pub, connections = open_socket(context, SENDERS[arguments.type], arguments, options)
        links = pub.links
        pace = Pace(arguments.rate if not links else None)
        deadline = Deadline(arguments.duration)

        def look() -> None:
            connections.tell(quiet=quiet)
            _tell_subscriptions(pub, quiet=quiet)

        outgoing = _Outgoing(pub, topic, stop, deadline, look, splits=arguments.multipart)
        if not quiet:
            connections.greet(pub)
        stop.wait(arguments.wait)
        watch = Stopwatch()
        progress = Progress(quiet=quiet)
        for batch in pace.portions(_batches(arguments, stop, limit)):
            sent = outgoing.send(batch)
            was_cut = sent < len(batch)
            byte_total += sum(map(len, batch[:sent])) + sent * len(topic)
            pace.wait(stop, deadline, 8 * byte_total, watch.elapsed_s)
            look()
            if progress.is_due(outgoing.taken_count):
                if links:
                    _show_progress(pub.stats(), watch.elapsed_s)
                else:
                    _show_taken(outgoing.taken_count, byte_total, watch.elapsed_s)
            if stop.is_asked or deadline.has_passed:
                break
        dropped = int(pub.stats().get("dropped_at_hwm", 0))
        context.term()
        connections.tell(quiet=quiet)
    if not quiet:
        if links:
            _show_summary(_total([link.stats() for link in links]), watch.elapsed_s)
        else:
            _show_taken(outgoing.taken_count, byte_total, watch.elapsed_s)
        if not (links or connections.ever) and arguments.type != "radio":
            say("mcast pub: nobody was connected")
    return _verdict(
        arguments,
        stop,
        outgoing,
        unsent=pub.unsent_count,
        dropped=dropped,
        was_cut=was_cut,
    )


def _verdict(
    arguments: argparse.Namespace,
    stop: Stop,
    outgoing: _Outgoing,
    *,
    unsent: int,
    dropped: int,
    was_cut: bool,
) -> int:
    """Say what was not sent; the exit status."""
    faults = []
    if unsent:
        faults.append(f"{counted(unsent, 'message')} not sent within --linger {arguments.linger:g}")
    if dropped:
        faults.append(
            f"{counted(dropped, 'message')} dropped where a peer's queue was full: slow down by"
            " --rate, or -o sndhwm="
        )
    if outgoing.unroutable_count:
        faults.append(f"{counted(outgoing.unroutable_count, 'message')} for nobody connected")
    why = "by a signal" if stop.is_asked else "by --duration"
    if arguments.count is None and was_cut:
        faults.append(f"ended {why} with lines unsent")
    if arguments.count is not None and outgoing.taken_count < arguments.count:
        faults.append(
            f"ended {why} after {outgoing.taken_count:,} of {counted(arguments.count, 'message')}"
        )
    for fault in faults:
        say(f"mcast pub: {fault}")
    return EXIT_UNMET if faults else EXIT_OK


def _check(arguments: argparse.Namespace, topic_bytes: int, limit: int) -> None:
    """Refuse what cannot be meant, before anything is opened."""
    if arguments.file and arguments.count is not None:
        raise OptionError("either --file or --count; both say what is published")
    if arguments.type == "radio" and not topic_bytes:
        raise OptionError("a radio sends to a group: name it by --topic")
    if arguments.type == "router" and not (topic_bytes or arguments.multipart):
        raise OptionError("a router sends to one peer: name it by --topic, or use --multipart")
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
            yield from lines_of_file(name, limit)
    else:
        yield from lines_of_stdin(stop, limit)


class _Outgoing:
    """What leaves by one socket, and how much was taken before the end came."""

    def __init__(
        self,
        pub: mcast.Socket,
        topic: bytes,
        stop: Stop,
        deadline: Deadline,
        look: Callable[[], None],
        *,
        splits: bool,
    ) -> None:
        self._pub = pub
        self._look = look
        self._topic = topic
        self._stop = stop
        self._deadline = deadline
        self._splits = splits
        self._has_parts = splits or isinstance(pub, mcast.Radio | mcast.Router)
        self.taken_count = 0
        """Messages that the socket took, or for which it knew no peer."""
        self.unroutable_count = 0
        """Messages to peers that a router does not know."""

    def send(self, batch: list[bytes]) -> int:
        """Send the batch; how many of it were taken."""
        taken = self._send_parts(batch) if self._has_parts else self._send_whole(batch)
        self.taken_count += taken
        return taken

    @property
    def _is_over(self) -> bool:
        return self._stop.is_asked or self._deadline.has_passed

    def _send_whole(self, batch: list[bytes]) -> int:
        if self._topic:
            batch = [self._topic + line for line in batch]
        taken = 0
        while taken < len(batch) and not self._is_over:
            # A socket that nobody is connected to raises instead of taking none.
            with suppress(Again):
                taken += self._pub.send_many(batch[taken:] if taken else batch, timeout=TURN_S)
            if taken < len(batch):
                self._look()
        return taken

    def _send_parts(self, batch: list[bytes]) -> int:
        taken = 0
        head = [self._topic] if self._topic else []
        while taken < len(batch) and not self._is_over:
            parts = batch[taken].split(b"\t") if self._splits else [batch[taken]]
            try:
                self._pub.send_multipart(head + parts, timeout=TURN_S)
            except Again:
                self._look()
                continue
            except UnroutableError:
                self.unroutable_count += 1
            taken += 1
        return taken


def _tell_subscriptions(pub: mcast.Socket, *, quiet: bool) -> None:
    """Take what the peers of an XPUB ask for, and say it."""
    if not isinstance(pub, mcast.Xpub):
        return
    with suppress(Again):
        while True:
            message = pub.recv_multipart(timeout=0)[0]
            if message[:1] in (b"\0", b"\1") and not quiet:
                verb = "subscribed to" if message[:1] == b"\1" else "gave up"
                say(f"mcast pub: a peer {verb} {message[1:].decode(errors='replace')!r}")


def _total(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The counters over all endpoints. A closed socket has no ``stats``, but its links have."""
    names = ("messages_sent", "messages_unsent", "odata_sent", "rdata_sent", "naks_received")
    return {name: sum(snapshot[name] for snapshot in snapshots) for name in names}


def _show_progress(stats: Snapshot, elapsed_s: float) -> None:
    sent = int(stats["messages_sent"] - stats["messages_unsent"])
    say(
        f"mcast pub: {counted(sent, 'message')} sent ({sent / max(elapsed_s, 1e-9):,.0f}/s),"
        f" {stats['messages_unsent']:,} wait, {stats['rdata_sent']:,} packets repaired"
    )


def _show_taken(taken: int, byte_total: int, elapsed_s: float) -> None:
    """As ``_show_summary``, for what is not sent in PGM packets."""
    rate = taken / max(elapsed_s, 1e-9)
    say(
        f"mcast pub: {counted(taken, 'message')}, {counted(byte_total, 'byte')} in {elapsed_s:.2f}"
        f" s ({rate:,.0f}/s)"
    )


def _show_summary(stats: Snapshot, elapsed_s: float) -> None:
    sent = int(stats["messages_sent"] - stats["messages_unsent"])
    say(
        f"mcast pub: {counted(sent, 'message')} in {counted(int(stats['odata_sent']), 'packet')} in"
        f" {elapsed_s:.2f} s; {counted(int(stats['naks_received']), 'NAK')},"
        f" {counted(int(stats['rdata_sent']), 'packet')} repaired"
    )
