"""``mcast rep``: answers each request with itself, with a text, or with what a command says.

Exit status 1 means that ``--count`` requests did not come.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import mcast
from mcast.cli import arguments as forms
from mcast.cli.kinds import add_socket_arguments, open_socket, socket_options_of
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, TURN_S, Stop, counted, say
from mcast.errors import Again
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_EPILOG = """\
Without --text and --exec a reply is the request itself. A command of --exec gets the request on its
stdin, its parts joined by tabs, and its stdout is the reply; one that fails, or takes over 10 s,
makes an empty reply and a word on stderr. Whoever can connect can have it run: bind it to addresses
that only you reach.

exit status: 0; 1 when --count requests did not come; 2 when the system refuses, such as a port in
use; 3 for bad arguments

examples:
  mcast rep "tcp://127.0.0.1:5555"
  mcast rep "ipc:///tmp/clock" --exec "date +%s"
  mcast rep "tcp://127.0.0.1:5555" --text OK --count 10
"""

_COMMAND_LIMIT_S = 10.0


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "rep",
        help="answer requests",
        description="Answer requests: with themselves, a text, or what a command says.",
        epilog=_EPILOG,
    )
    parser.add_argument("url", metavar="URL", help="where to bind, such as tcp://127.0.0.1:5555")
    parser.add_argument(
        "--connect",
        dest="bind",
        action="store_false",
        help="connect to the URL instead of binding there",
    )
    reply = parser.add_mutually_exclusive_group()
    reply.add_argument("--text", metavar="T", help="the reply to every request")
    reply.add_argument(
        "--exec", metavar="COMMAND", type=_command, help="the reply is what this command writes"
    )
    parser.add_argument(
        "--count", metavar="N", type=forms.positive_count, help="end after N requests"
    )
    parser.add_argument(
        "--timeout", metavar="S", type=forms.seconds, help="end after S seconds in all"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no greeting and no summary")
    add_socket_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer; the exit status. Blocks until ``--count``, ``--timeout`` or a signal.

    Raises: EndpointError, OptionError, TransportError.
    """
    answered = 0
    with Stop() as stop, mcast.Context() as context:
        rep, connections = open_socket(context, mcast.REP, arguments, socket_options_of(arguments))
        if not arguments.quiet:
            connections.greet(rep)
        deadline = Deadline(arguments.timeout)
        while not (stop.is_asked or deadline.has_passed or answered == arguments.count):
            left_s = deadline.left
            connections.tell(quiet=arguments.quiet)
            try:
                request = rep.recv_multipart(
                    timeout=TURN_S if left_s is None else min(TURN_S, left_s)
                )
            except Again:
                continue
            rep.send_multipart(_reply(arguments, request))
            answered += 1
    if not arguments.quiet:
        say(f"mcast rep: {counted(answered, 'request')} answered")
    if arguments.count is not None and answered < arguments.count:
        say(f"mcast rep: {answered:,} of {counted(arguments.count, 'request')} came")
        return EXIT_UNMET
    return EXIT_OK


def _reply(arguments: argparse.Namespace, request: list[bytes]) -> list[bytes]:
    if arguments.text is not None:
        return [os.fsencode(arguments.text)]
    if arguments.exec is None:
        return request
    try:
        done = subprocess.run(
            arguments.exec,
            input=b"\t".join(request),
            stdout=subprocess.PIPE,
            timeout=_COMMAND_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        say(f"mcast rep: {error}")
        return [b""]
    return [done.stdout.removesuffix(b"\n")]


def _command(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if not words:
        raise argparse.ArgumentTypeError("a command is wanted, such as 'date +%s'")
    return words
