"""Which socket types the commands that carry lines can use, and how they are opened.

Owns the arguments that all of them have: URL, ``--type``, ``--bind``, ``-o`` and those of
``mcast.cli.security``. Types that wait for an answer are not here: ``mcast req`` and ``mcast rep``
are REQ and REP.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Final

import mcast
from mcast.cli import arguments as forms
from mcast.cli.connections import Connections
from mcast.cli.security import add_security_arguments, authenticator, security_options
from mcast.endpoint import parse_endpoint
from mcast.errors import EndpointError, OptionError
from mcast.options import OptionValue
from mcast.unicast import InprocEndpoint, UdpEndpoint

__all__ = [
    "RECEIVERS",
    "SENDERS",
    "URL_HELP",
    "add_bind_argument",
    "add_socket_arguments",
    "add_type_arguments",
    "open_socket",
    "refuse_inproc",
    "socket_options_of",
]

SENDERS: Final = {
    "pub": mcast.PUB,
    "xpub": mcast.XPUB,
    "push": mcast.PUSH,
    "pair": mcast.PAIR,
    "dealer": mcast.DEALER,
    "router": mcast.ROUTER,
    "radio": mcast.RADIO,
}
"""What ``mcast pub`` can be."""
RECEIVERS: Final = {
    "sub": mcast.SUB,
    "xsub": mcast.XSUB,
    "pull": mcast.PULL,
    "pair": mcast.PAIR,
    "dealer": mcast.DEALER,
    "router": mcast.ROUTER,
    "dish": mcast.DISH,
}
"""What ``mcast sub`` can be."""

URL_HELP: Final = "such as epgm://eth0;239.192.1.1:5555, tcp://10.0.0.5:5555 or ipc:///tmp/feed"


def add_type_arguments(
    parser: argparse.ArgumentParser, types: Mapping[str, mcast.SocketType], default: str
) -> None:
    """Give a subcommand ``--type`` and ``--bind``."""
    parser.add_argument(
        "--type",
        metavar="TYPE",
        choices=types,
        default=default,
        help=f"socket type: {', '.join(types)} (default {default})",
    )
    add_bind_argument(parser)


def add_bind_argument(parser: argparse.ArgumentParser) -> None:
    """Give a subcommand ``--bind``."""
    parser.add_argument(
        "--bind", action="store_true", help="wait for connections at the URL instead of making one"
    )


def add_socket_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a subcommand what comes last in its help: ``-o`` and security."""
    forms.add_option_argument(parser)
    add_security_arguments(parser)


def socket_options_of(
    arguments: argparse.Namespace, **changes: OptionValue
) -> dict[str, OptionValue]:
    """All of ``-o``, the files of keys and passwords, and ``changes`` that are not None on top.

    Raises: OptionError, OSError.
    """
    return forms.socket_options(arguments.option, **security_options(arguments), **changes)


def refuse_inproc(url: str) -> None:
    """Raise EndpointError for what could reach nobody: a command is a process of its own."""
    if isinstance(parse_endpoint(url), InprocEndpoint):
        raise EndpointError(
            f"{url} stays within one process, and this command is one; use ipc:// between processes"
        )


def open_socket(
    context: mcast.Context,
    kind: mcast.SocketType,
    arguments: argparse.Namespace,
    options: Mapping[str, OptionValue],
    topics: Iterable[bytes] = (),
) -> tuple[mcast.Socket, Connections]:
    """A socket of the type, with its topics, connected to the URL or bound there; and its eyes.

    Raises: OptionError for a DISH without a group; EndpointError for inproc://; as ``Socket.bind``
    and ``connect``.
    """
    refuse_inproc(arguments.url)
    made: mcast.Socket = context.socket(kind, **options)
    wanted = list(topics)
    if isinstance(made, mcast.Sub | mcast.Xsub):
        for topic in wanted or [b""]:
            made.subscribe(topic)
    elif isinstance(made, mcast.Dish):
        if not wanted:
            raise OptionError("a dish receives the groups that it joins: name them by --topic")
        for group in wanted:
            made.join(group)
    elif wanted:
        raise OptionError(f"--topic is for sub, xsub and dish; a {kind.name} takes every message")
    judge = authenticator(arguments)
    if judge is not None:
        made.authenticate(judge)
    # Over udp:// a dish has no other way.
    is_listener = isinstance(made, mcast.Dish) and isinstance(
        parse_endpoint(arguments.url), UdpEndpoint
    )
    binds = arguments.bind or is_listener
    connections = Connections(f"mcast {arguments.command}", made, arguments.url, binds=binds)
    if binds:
        made.bind(arguments.url)
    else:
        made.connect(arguments.url)
    return made, connections
