"""What the commands for plain datagrams have in common: groups, interface, sources.

Owns the spelling of these arguments, and of the command line of the other end.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from mcast.endpoint import MulticastEndpoint
from mcast.errors import EndpointError
from mcast.raw import MOST_GROUPS, parse_groups

__all__ = [
    "GROUP_HELP",
    "add_group_arguments",
    "endpoints_of",
    "group_text",
    "other_end",
    "rate_text",
]

GROUP_HELP = (
    "[SOURCE@]GROUP:PORT[+COUNT], such as 239.192.1.1:5000, or 239.192.1.1:5000+10 for ten"
    " addresses; or a URL"
)


def add_group_arguments(parser: argparse.ArgumentParser, *, receives: bool) -> None:
    """Give a subcommand its groups, the interface, and with ``receives`` the source filters."""
    parser.add_argument("groups", metavar="GROUP", nargs="+", help=GROUP_HELP)
    parser.add_argument(
        "-i",
        "--interface",
        metavar="IFACE",
        default="",
        help="name, address or network of the interface (default: the only one there is)",
    )
    if receives:
        parser.add_argument(
            "--source",
            metavar="S",
            action="append",
            default=[],
            help="take only what S sends; may be repeated",
        )
        parser.add_argument(
            "--exclude",
            metavar="S",
            action="append",
            default=[],
            help="leave out what S sends; may be repeated",
        )


def endpoints_of(arguments: argparse.Namespace) -> list[MulticastEndpoint]:
    """The endpoints that the arguments name, each once.

    Raises: EndpointError.
    """
    found = [
        endpoint
        for text in arguments.groups
        for endpoint in parse_groups(text, interface=arguments.interface)
    ]
    found = list(dict.fromkeys(found))
    if len(found) > MOST_GROUPS:
        raise EndpointError(f"{len(found)} groups; at most {MOST_GROUPS} at once")
    if len({(e.interface, e.version) for e in found}) > 1:
        raise EndpointError("the groups are of several interfaces or IP versions; one is possible")
    return found


def group_text(endpoint: MulticastEndpoint) -> str:
    """The group and port as people write them."""
    group = f"[{endpoint.group}]" if endpoint.version == 6 else endpoint.group
    return f"{group}:{endpoint.port}"


def other_end(command: str, arguments: argparse.Namespace, *more: str) -> str:
    """The command line to run at the other end, quoted for a shell.

    Its interface is this one's where it was given; on another host it may have another name.
    """
    where: Sequence[str] = ("-i", arguments.interface) if arguments.interface else ()
    return shlex.join(["mcast", command, *where, *arguments.groups, *more])


def rate_text(bits_per_second: float) -> str:
    """A rate in bit/s with a suffix, three digits of it."""
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits_per_second >= size:
            return f"{bits_per_second / size:.3g} {unit}"
    return f"{bits_per_second:.3g} bit/s"
