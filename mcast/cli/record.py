"""``mcast record``: what groups hear into pcapng files, without root.

Exit status 1 means that the socket's buffer overflowed, so that datagrams are missing in the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mcast.cli import arguments as forms
from mcast.cli.groups import GROUP_HELP, endpoints_of, group_text
from mcast.cli.terminal import (
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_UNMET,
    TURN_S,
    Progress,
    Stop,
    Stopwatch,
    say,
)
from mcast.errors import OptionError
from mcast.raw import Recorder

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_EPILOG = """\
Times are the kernel's (SO_TIMESTAMPNS). The file holds bare IP packets, whose headers are made up
from what a socket tells; tcpdump, Wireshark and "mcast decode" read it. Only what goes to the group
is heard: a receiver's NAKs go to the source alone, and TCP is not here; tcpdump sees them, as root.
With --rotate-size or --rotate-time files are NAME-00001.pcapng, NAME-00002.pcapng, and so on.

exit status:
  0  recorded until --count, --duration or a signal
  1  datagrams were dropped because the buffer was full (see --rcvbuf)
  2  it could not be done, such as a port that another program keeps to itself, or a full disk;
     what was written until then can be read
  3  bad arguments, such as an interface that is not there

examples:
  mcast record session.pcapng 239.192.1.1:5555
  mcast record -i eth0 feed.pcapng 239.1.1.1:5000+10 --rotate-size 256M --keep 8
  mcast record session.pcapng 239.192.1.1:5555 --duration 60
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "record",
        help="record what multicast groups hear into a pcapng file",
        description="Record what multicast groups hear into a pcapng file, without root.",
        epilog=_EPILOG,
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the pcapng file to write")
    parser.add_argument("groups", metavar="GROUP", nargs="+", help=GROUP_HELP)
    parser.add_argument(
        "-i",
        "--interface",
        metavar="IFACE",
        default="lo",
        help="name, address or network of the interface (default: lo)",
    )
    parser.add_argument(
        "--source", metavar="S", action="append", default=[], help="take only what S sends"
    )
    parser.add_argument(
        "--exclude", metavar="S", action="append", default=[], help="leave out what S sends"
    )
    parser.add_argument(
        "--count", metavar="N", type=forms.positive_count, help="end after N datagrams"
    )
    parser.add_argument("--duration", metavar="S", type=forms.seconds, help="end after S seconds")
    parser.add_argument(
        "--rotate-size", metavar="B", type=forms.byte_count, help="a new file before B bytes"
    )
    parser.add_argument(
        "--rotate-time", metavar="S", type=forms.seconds, help="a new file every S seconds"
    )
    parser.add_argument(
        "--keep", metavar="N", type=forms.positive_count, help="delete all but the newest N files"
    )
    parser.add_argument(
        "--rcvbuf",
        metavar="B",
        type=forms.byte_count,
        default=4 << 20,
        help="receive buffer to ask for, such as 16M (default 4M)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record; the exit status. Blocks until ``--count``, ``--duration`` or a signal.

    Raises: EndpointError, OptionError, TransportError, OSError of sockets.
    """
    try:
        return _record(arguments)
    except OSError as error:
        if error.filename is None:
            raise
        say(f"mcast record: error: {error.filename}: {error.strerror}")
        return EXIT_FAILURE


def _record(arguments: argparse.Namespace) -> int:
    rotates = arguments.rotate_size is not None or arguments.rotate_time is not None
    if arguments.keep and not rotates:
        raise OptionError("--keep needs --rotate-size or --rotate-time")
    if arguments.rotate_time == 0 or arguments.rotate_size == 0:
        raise OptionError("a file has more than 0 bytes and seconds")
    endpoints = endpoints_of(arguments)
    progress = Progress(quiet=arguments.quiet)
    watch = Stopwatch()
    with (
        Stop() as stop,
        Recorder(
            arguments.file,
            endpoints,
            sources=arguments.source,
            excluded=arguments.exclude,
            rcvbuf_bytes=arguments.rcvbuf,
            rotate_bytes=arguments.rotate_size,
            rotate_s=arguments.rotate_time,
            keep_count=arguments.keep or 0,
        ) as recorder,
    ):
        first, last = group_text(endpoints[0]), group_text(endpoints[-1])
        groups = first if len(endpoints) == 1 else f"{first} to {last}"
        say(f"mcast record: recording {groups} to {recorder.files[-1]}")
        while not stop.is_asked:
            wait_s = TURN_S
            if arguments.duration is not None:
                wait_s = min(wait_s, arguments.duration - watch.elapsed_s)
                if wait_s <= 0:
                    break
            if not recorder.turn(wait_s):
                recorder.flush()  # a quiet moment: let others read what there is
            if arguments.count and recorder.packet_count >= arguments.count:
                break
            if progress.is_due(recorder.packet_count):
                say(f"mcast record: {recorder.packet_count} datagrams")
    count = recorder.dropped_count
    dropped = f"; {count} dropped, the buffer was full" if count else ""
    say(
        f"mcast record: {recorder.packet_count} datagrams, {recorder.byte_count} bytes in "
        f"{watch.elapsed_s:.1f} s to {recorder.files[-1]}{dropped}"
    )
    return EXIT_UNMET if recorder.dropped_count else EXIT_OK
