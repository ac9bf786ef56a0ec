"""Who may talk, said on a command line: CURVE keys and PLAIN passwords, out of files.

Owns the spelling. Invariant: no secret stands on a command line, which every user of the machine
can read; ``mcast keygen --out`` makes the files for CURVE.
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterator
from typing import Final

import mcast
from mcast.auth import Authenticator, allow
from mcast.cli.terminal import say
from mcast.errors import OptionError
from mcast.options import OptionValue
from mcast.runtime.keys import curve_key

__all__ = ["add_security_arguments", "authenticator", "forwarded", "security_options"]

_MOST_FILE_BYTES: Final = 1 << 20
"""Longest file of keys or passwords that is read; ours, some 10,000 users."""

_FLAGS: Final[tuple[tuple[str, str, str], ...]] = (
    ("--curve-key", "FILE", "this side's secret key, NAME.key_secret of mcast keygen --out NAME"),
    ("--curve-server-key", "FILE", "the server's public key, NAME.key: this side is its client"),
    ("--curve-allow", "FILE", "a server admits only clients with this public key; repeatable"),
    ("--plain-login", "FILE", "a client's NAME:PASSWORD, in a file"),
    ("--plain-users", "FILE", "a server admits the NAME:PASSWORD of this file's lines"),
)


def add_security_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a subcommand the options of CURVE and PLAIN."""
    group = parser.add_argument_group(
        "security over tcp:// and ipc://",
        "With --curve-key alone this side is the server, with --curve-server-key a client,\nwhose"
        " own key is made anew where none is given. PLAIN hides nothing on the wire.",
    )
    for flag, metavar, text in _FLAGS:
        if flag == "--curve-allow":
            group.add_argument(flag, metavar=metavar, action="append", default=[], help=text)
        else:
            group.add_argument(flag, metavar=metavar, help=text)


def security_options(arguments: argparse.Namespace) -> dict[str, OptionValue]:
    """The socket's options that the files make.

    Raises: OSError for a file that cannot be read, OptionError for one that holds no key or no
    name and password, or for flags that contradict each other.
    """
    curve = arguments.curve_key or arguments.curve_server_key
    plain = arguments.plain_login or arguments.plain_users
    if curve and plain:
        raise OptionError("CURVE or PLAIN: a connection has one of the two")
    if arguments.curve_allow and (arguments.curve_server_key or not arguments.curve_key):
        raise OptionError("--curve-allow is for a server: give it --curve-key, and no server's key")
    if arguments.plain_login and arguments.plain_users:
        raise OptionError("--plain-login is a client's and --plain-users a server's: give one")
    found: dict[str, OptionValue] = {}
    if arguments.curve_key:
        found["curve_secretkey"] = _key(arguments.curve_key, is_secret=True)
        found["curve_server"] = not arguments.curve_server_key
    if arguments.curve_server_key:
        found["curve_serverkey"] = _key(arguments.curve_server_key)
        if not arguments.curve_key:
            found["curve_secretkey"] = mcast.curve_keypair()[1]
    if arguments.plain_users:
        found["plain_server"] = True
    if arguments.plain_login:
        ((found["plain_username"], found["plain_password"]),) = _users(arguments.plain_login, 1)
    return found


def authenticator(arguments: argparse.Namespace) -> Authenticator | None:
    """Who judges clients; None where none is asked for.

    Raises: as ``security_options``.
    """
    if arguments.curve_allow:
        return allow(
            keys=[curve_key(_key(path), f"the key in {path}") for path in arguments.curve_allow]
        )
    if arguments.plain_users:
        return allow(users=dict(_users(arguments.plain_users)))
    return None


def forwarded(arguments: argparse.Namespace) -> list[str]:
    """The same flags for a command that this one starts."""
    words = []
    for flag, _, _ in _FLAGS:
        value = getattr(arguments, flag.removeprefix("--").replace("-", "_"))
        words += [f"{flag}={path}" for path in ([value] if isinstance(value, str) else value or [])]
    return words


def _key(path: str, *, is_secret: bool = False) -> str:
    """The key that is the file's one line, checked."""
    text = _text(path, is_secret=is_secret).strip()
    curve_key(text, f"the key in {path}")
    return text


def _users(path: str, most: int | None = None) -> Iterator[tuple[str, str]]:
    """Names and passwords, one ``NAME:PASSWORD`` a line; empty lines and # lines don't count."""
    lines = [
        line
        for line in _text(path, is_secret=True).splitlines()
        if line.strip() and not line.startswith("#")
    ]
    if not lines or (most is not None and len(lines) > most):
        raise OptionError(
            f"{path} has {len(lines)} lines of NAME:PASSWORD; {most or 'some'} wanted"
        )
    for line in lines:
        name, colon, password = line.partition(":")
        if not colon or not name:
            raise OptionError(f"a line of {path} is not NAME:PASSWORD")
        yield name, password


def _text(path: str, *, is_secret: bool) -> str:
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        data = file.read(_MOST_FILE_BYTES + 1)
    if len(data) > _MOST_FILE_BYTES:
        raise OptionError(f"{path} is longer than {_MOST_FILE_BYTES} bytes")
    if is_secret and stat.S_ISREG(mode) and mode & 0o077:
        say(f"mcast: warning: others can read {path}; chmod 600 {path}")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise OptionError(f"{path} is not UTF-8 text") from None
