"""Which socket types the commands that carry lines can use, and how they are opened.

Owns the meaning of ``--type`` and ``--bind``. Types whose messages need an answer or an address are
not here: ``mcast req`` and ``mcast rep`` are for REQ and REP.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Final

import mcast
from mcast.errors import OptionError
from mcast.options import OptionValue

__all__ = ["RECEIVERS", "SENDERS", "add_type_arguments", "open_socket"]

SENDERS: Final = {
    "pub": mcast.PUB,
    "push": mcast.PUSH,
    "pair": mcast.PAIR,
    "dealer": mcast.DEALER,
    "radio": mcast.RADIO,
}
"""What ``mcast pub`` can be."""
RECEIVERS: Final = {
    "sub": mcast.SUB,
    "pull": mcast.PULL,
    "pair": mcast.PAIR,
    "dealer": mcast.DEALER,
    "dish": mcast.DISH,
}
"""What ``mcast sub`` can be."""


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
    parser.add_argument(
        "--bind", action="store_true", help="wait for connections at the URL instead of making one"
    )


def open_socket(
    context: mcast.Context,
    kind: mcast.SocketType,
    arguments: argparse.Namespace,
    options: Mapping[str, OptionValue],
    topics: Iterable[bytes] = (),
) -> mcast.Socket:
    """A socket of the type, with its topics, connected to the URL or bound there.

    Raises: OptionError for a DISH without a group; as ``Socket.bind`` and ``connect``.
    """
    made: mcast.Socket = context.socket(kind, **options)
    wanted = list(topics)
    if isinstance(made, mcast.Sub):
        for topic in wanted or [b""]:
            made.subscribe(topic)
    elif isinstance(made, mcast.Dish):
        if not wanted:
            raise OptionError("a dish receives the groups that it joins: name them by --topic")
        for group in wanted:
            made.join(group)
    elif wanted:
        raise OptionError(f"--topic is for sub and dish; a {kind.name} takes every message")
    if arguments.bind:
        made.bind(arguments.url)
    else:
        made.connect(arguments.url)
    return made
