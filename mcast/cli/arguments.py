"""What the subcommands' arguments have in common: numbers with suffixes, and socket options.

Owns the spelling, never the meaning: ranges are those of ``SocketOptions``, asked here so that a
mistake is found before anything is opened.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Final, NoReturn, get_type_hints

from mcast.cli.terminal import EXIT_ARGUMENTS
from mcast.errors import OptionError
from mcast.options import OptionValue, SocketOptions

__all__ = [
    "ArgumentParser",
    "add_option_argument",
    "bits_per_second",
    "byte_count",
    "hops",
    "percent",
    "positive_count",
    "seconds",
    "socket_option",
    "socket_options",
]

_DECIMAL: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_BINARY: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NUMBER: Final = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)([KMG]?)(?:bit/s|i?B)?", re.IGNORECASE)
_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_BYTE_OPTIONS: Final = {"sndbuf", "rcvbuf", "max_msg_size"}
"""Options in bytes whose names, pyzmq's, don't say so."""


class ArgumentParser(argparse.ArgumentParser):
    """As argparse's; a mistake ends with status 3, because 2 is a failure at run time here."""

    def __init__(
        self, *, prog: str | None = None, description: str | None = None, epilog: str | None = None
    ) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # an abbreviation that works today is ambiguous tomorrow
        )

    def parse_known_args(  # type: ignore[override]  # argparse overloads it for any namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's; what is left over is told by the command that it was given to."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is; ends with SystemExit(3)."""
        self.exit(EXIT_ARGUMENTS, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def bits_per_second(text: str) -> float:
    """A rate such as 800M, 1e9, 1.5G or inf; suffixes are powers of 1000."""
    if text.lower() == "inf":
        return math.inf
    return _number(text, _DECIMAL, "a rate in bit/s, such as 800M, 1e9 or inf")


def byte_count(text: str) -> int:
    """A size such as 256, 64K or 16M; suffixes are powers of 1024."""
    return _whole(_number(text, _BINARY, "a size in bytes, such as 256 or 64K"), text)


def positive_count(text: str) -> int:
    """A whole number from 1 up, such as 200000, 200_000 or 200K; suffixes are powers of 1000."""
    found = _whole(_number(text.replace("_", ""), _DECIMAL, "a count, such as 1000 or 200K"), text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return found


def seconds(text: str) -> float:
    """Seconds, 0 or more."""
    return _number(text, {"": 1}, "seconds, such as 0.5")


def percent(text: str) -> float:
    """A percentage from 0 to 90, the most that a socket drops for a test."""
    found = _number(text.removesuffix("%"), {"": 1}, "a percentage, such as 5")
    if found > 90:
        raise argparse.ArgumentTypeError(f"0 to 90 percent, not {text}")
    return found


def hops(text: str) -> int:
    """A time to live, 0 to 255."""
    if not text.isdecimal() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"hops are 0 to 255, not {text!r}")
    return int(text)


def socket_option(text: str) -> tuple[str, OptionValue]:
    """The name and checked value in ``name=value``, for any option of a socket."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"name=value is wanted, not {text!r}")
    name = name.strip().replace("-", "_")
    parsed: OptionValue = None
    hints = get_type_hints(SocketOptions)
    if name in hints:
        parsed = _value(name, value.strip(), hints[name])
    try:
        SocketOptions().with_changes({name: parsed})
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, parsed


def add_option_argument(parser: argparse.ArgumentParser) -> None:
    """Give a subcommand ``-o name=value``."""
    names = ", ".join(sorted(field.name for field in fields(SocketOptions)))
    parser.add_argument(
        "-o",
        "--option",
        metavar="NAME=VALUE",
        type=socket_option,
        action="append",
        default=[],
        help=f"set an option of the socket; may be repeated. Names: {names}",
    )


def socket_options(
    pairs: Sequence[tuple[str, OptionValue]], **changes: OptionValue
) -> dict[str, OptionValue]:
    """All of ``-o``, the last of a name counting, and ``changes`` that are not None on top."""
    return dict(pairs) | {name: value for name, value in changes.items() if value is not None}


def _value(name: str, text: str, hint: object) -> OptionValue:
    """``text`` as the type that the option is declared with."""
    kinds = set(getattr(hint, "__args__", (hint,)))
    if type(None) in kinds and text.lower() == "none":
        return None
    if str in kinds:
        return text
    if bytes in kinds:
        return os.fsencode(text)
    if bool in kinds:
        word = _WORDS.get(text.lower())
        if word is None:
            raise argparse.ArgumentTypeError(f"{name} is on or off, not {text!r}")
        return word
    if name == "rate":
        return bits_per_second(text)
    scale = _BINARY if name.endswith("_bytes") or name in _BYTE_OPTIONS else {"": 1}
    number = _number(text, scale, f"a number for {name}")
    return number if float in kinds else _whole(number, text)


def _number(text: str, scale: dict[str, int], wanted: str) -> float:
    found = _NUMBER.fullmatch(text.strip())
    if found is None or found[2].upper() not in scale:
        raise argparse.ArgumentTypeError(f"{wanted} is wanted, not {text!r}")
    return float(found[1]) * scale[found[2].upper()]


def _whole(number: float, text: str) -> int:
    if not math.isfinite(number) or number != int(number):
        raise argparse.ArgumentTypeError(f"a whole number is wanted, not {text!r}")
    return int(number)
