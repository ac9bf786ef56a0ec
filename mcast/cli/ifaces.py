"""``mcast ifaces``: the network interfaces, and which one a URL would use."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from mcast.cli import arguments as forms
from mcast.cli.table import aligned
from mcast.cli.terminal import EXIT_OK, Output
from mcast.doctor.listing import Device, list_devices

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "as_json", "run"]

_EPILOG = """\
The column "used" has the address that the URL means. Without a URL it has the one that a URL
without an interface means (epgm://;239.192.1.1:5555), for IPv4 and for IPv6: there is none when
several interfaces would do.

exit status: 0; 3 for a URL that means no interface, or several

examples:
  mcast ifaces
  mcast ifaces "epgm://10.77.0.0/24;239.192.1.1:5555"
  mcast ifaces --json | jq -r '.[] | select(.multicast and .up) | .name'
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "ifaces",
        help="list the network interfaces, and which one a URL would use",
        description="List the network interfaces, and which one a URL would use.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="such as epgm://eth0;239.192.1.1:5555"
    )
    parser.add_argument("--json", action="store_true", help="a JSON array for a program")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List them; the exit status.

    Raises: EndpointError, InterfaceError.
    """
    devices = list_devices(arguments.url)
    if arguments.json:
        text = json.dumps([as_json(device) for device in devices], indent=2)
    else:
        heads = ("name", "state", "multicast", "mtu", "used", "addresses")
        text = "\n".join(aligned(heads, [_cells(device) for device in devices], numbers=(3,)))
    Output().write(f"{text}\n".encode())
    return EXIT_OK


def as_json(device: Device) -> dict[str, object]:
    """The device as a JSON object."""
    link = device.link
    return {
        "name": link.name,
        "index": link.index,
        "up": link.is_up,
        "carrier": link.has_carrier,
        "loopback": link.is_loopback,
        "multicast": link.has_multicast or link.is_loopback,
        "mtu_bytes": link.mtu_bytes,
        "gso": link.gso,
        "gro": link.gro,
        "addresses": list(device.addresses),
        "used": list(device.used),
    }


def _cells(device: Device) -> tuple[str, ...]:
    link = device.link
    state = "up" if link.has_carrier else "no carrier"
    return (
        link.name,
        state if link.is_up else "down",
        # lo carries multicast although it lacks the flag for it
        "loopback" if link.is_loopback else "yes" if link.has_multicast else "no",
        str(link.mtu_bytes),
        " ".join(device.used) or "-",
        " ".join(device.addresses) or "-",
    )
