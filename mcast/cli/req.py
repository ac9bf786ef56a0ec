"""``mcast req``: each line of stdin is a request, and its reply a line of stdout.

Exit status 1 means that a request got no reply in time; it ends there, since a REQ socket waits for
each reply before the next request.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import mcast
from mcast.cli import arguments as forms
from mcast.cli.kinds import (
    add_bind_argument,
    add_socket_arguments,
    open_socket,
    socket_options_of,
)
from mcast.cli.lines import lines_of_stdin
from mcast.cli.sub import as_json, as_text
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, TURN_S, Output, Stop, Stopwatch, counted, say
from mcast.errors import Again
from mcast.options import SocketOptions
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_EPILOG = """\
A reply is a line, its parts joined by tabs; with --json it is {"parts": [...]}.

exit status: 0 when every request got its reply; 1 when one did not within --timeout; 2 when the
system refuses; 3 for bad arguments

examples:
  echo ping | mcast req tcp://127.0.0.1:5555
  mcast req tcp://10.0.0.5:5555 --timeout 2 --json <requests.txt
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "req",
        help="send lines of stdin as requests, and write the replies",
        description="Send each line of stdin as a request, and write its reply to stdout.",
        epilog=_EPILOG,
    )
    parser.add_argument("url", metavar="URL", help="such as tcp://10.0.0.5:5555")
    add_bind_argument(parser)
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=forms.seconds,
        default=10.0,
        help="longest wait for each reply (default 10)",
    )
    parser.add_argument("--json", action="store_true", help="a JSON object for each reply")
    parser.add_argument("-q", "--quiet", action="store_true", help="no summary")
    add_socket_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and write; the exit status. Blocks until stdin ends, a reply is overdue, or a signal.

    Raises: EndpointError, OptionError, TransportError, MessageTooLongError.
    """
    output = Output()
    options = socket_options_of(arguments)
    options.setdefault("linger", 0.0)
    limit = SocketOptions().with_changes(options).max_msg_size
    line_of = as_json if arguments.json else as_text
    asked = answered = 0
    with Stop() as stop, mcast.Context() as context:
        req, connections = open_socket(context, mcast.REQ, arguments, options)
        watch = Stopwatch()

        def look() -> None:
            connections.tell(quiet=arguments.quiet)

        for batch in lines_of_stdin(stop, limit):
            for line in batch:
                asked += 1
                reply = _ask(req, line, Deadline(arguments.timeout), stop, look)
                if reply is None:
                    break
                answered += 1
                output.write(line_of(reply))
            if answered < asked or output.is_closed:
                break
        look()
        elapsed_s = watch.elapsed_s
    if not arguments.quiet:
        say(f"mcast req: {answered:,} of {counted(asked, 'request')} answered in {elapsed_s:.2f} s")
    if answered < asked:
        why = "ended by a signal" if stop.is_asked else f"no reply within {arguments.timeout:g} s"
        say(f"mcast req: {why}")
        return EXIT_UNMET
    return EXIT_OK


def _ask(
    req: mcast.Socket, request: bytes, deadline: Deadline, stop: Stop, look: Callable[[], None]
) -> list[bytes] | None:
    """The parts of the reply, or None when the time ran out or a signal came."""
    is_sent = False
    while not (stop.is_asked or deadline.has_passed):
        wait_s = min(TURN_S, deadline.left or 0.0)
        try:
            if not is_sent:
                req.send(request, timeout=wait_s)
                is_sent = True
            return req.recv_multipart(timeout=wait_s)
        except Again:
            look()
    return None
