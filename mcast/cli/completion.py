"""``mcast completion``: the script that lets a shell complete mcast's commands and options.

The script is made from the parser by ``shtab``; pressing TAB then starts no Python.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.terminal import EXIT_FAILURE, EXIT_OK, Output, say

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_SHELLS: Final = ("bash", "zsh", "fish")

_INTERFACES: Final = {
    "bash": textwrap.dedent("""\
        _mcast_interfaces() {
          compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$1"
        }
        """),
    "zsh": textwrap.dedent("""\
        _mcast_interfaces() {
          compadd -- /sys/class/net/*(N:t)
        }
        """),
}
"""Functions that complete the name of a network interface, for the shells where shtab takes one."""

_EPILOG = """\
Needs the package shtab, which the extra "cli" brings: pip install 'mcast[cli]'. Make the script
anew after an update of mcast.

exit status: 0; 2 where shtab is not installed; 3 for bad arguments

examples (for one user; open a new shell afterwards):
  mcast completion bash > ~/.local/share/bash-completion/completions/mcast
  mcast completion zsh > ~/.zfunc/_mcast      # with fpath+=~/.zfunc before compinit
  mcast completion fish > ~/.config/fish/completions/mcast.fish
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "completion",
        help="write the script for completion in a shell",
        description="Write the script that lets a shell complete mcast's commands and options.",
        epilog=_EPILOG,
    )
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the script to stdout; the exit status."""
    try:
        import shtab
    except ImportError:
        say("mcast completion: error: shtab is not installed; pip install 'mcast[cli]'")
        return EXIT_FAILURE
    # The parser knows all commands, this one included, so it can only be asked for here.
    from mcast.cli import make_parser

    parser = make_parser()
    _mark_interfaces(parser)
    script = shtab.complete(parser, arguments.shell, preamble=_INTERFACES.get(arguments.shell, ""))
    Output().write(script.encode())
    return EXIT_OK


def _mark_interfaces(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which arguments are interfaces, in every subcommand."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _mark_interfaces(inner)
        elif "--interface" in action.option_strings:
            complete = dict.fromkeys(_INTERFACES, "_mcast_interfaces")
            action.complete = complete  # type: ignore[attr-defined]  # shtab's own attribute
