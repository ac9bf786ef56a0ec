"""``mcast keygen``: a key pair for CURVE.

Invariant: the secret key is written to no file that others may read, and over none that exists.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mcast
from mcast.cli import arguments as forms
from mcast.cli.terminal import EXIT_OK, say

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_EPILOG: Final = """\
The server sets curve_server=True and curve_secretkey; its clients set curve_serverkey to the
server's public key, and curve_secretkey to one of their own.

exit status: 0; 2 when no key can be made or written; 3 for bad arguments

examples:
  mcast keygen
  mcast keygen --out server        writes server.key and server.key_secret
  mcast keygen --json
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "keygen",
        help="make a key pair for CURVE",
        description="Make a key pair for CURVE: encrypted connections over tcp:// and ipc://.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--out",
        metavar="NAME",
        help="write NAME.key and, readable by you only, NAME.key_secret; never over a file",
    )
    parser.add_argument("--json", action="store_true", help="both keys as a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the keys; the exit status.

    Raises: OptionError without PyNaCl, OSError if a file exists or cannot be written.
    """
    public, secret = mcast.curve_keypair()
    if arguments.out is not None:
        paths = [Path(f"{arguments.out}.key_secret"), Path(f"{arguments.out}.key")]
        for path, key, mode in zip(paths, (secret, public), (0o600, 0o644), strict=True):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with open(opened, "w") as file:
                file.write(f"{key}\n")
            say(f"mcast keygen: wrote {path}")
    if arguments.json:
        keys = {"public": public} if arguments.out else {"public": public, "secret": secret}
        sys.stdout.write(json.dumps(keys) + "\n")
    elif arguments.out is None:
        sys.stdout.write(f"public  {public}\nsecret  {secret}\n")
    return EXIT_OK
