"""What ``stat``, ``top`` and ``loss`` share: which processes, and looking again and again."""

from __future__ import annotations

import argparse

from mcast.cli import arguments as forms
from mcast.cli.terminal import EXIT_FAILURE, EXIT_UNMET, say
from mcast.errors import OptionError
from mcast.observe import ContextStatus, survey

__all__ = ["add_watch_arguments", "check_interval", "look", "nobody", "program_of"]


def add_watch_arguments(parser: forms.ArgumentParser, *, interval: float | None) -> None:
    """Give a subcommand ``PID``, ``--interval`` and ``--count``."""
    default = "" if interval is None else f" (default {interval:g})"
    parser.add_argument(
        "pids",
        metavar="PID",
        nargs="*",
        type=forms.positive_count,
        help="only these processes (default: all of yours that use mcast)",
    )
    parser.add_argument(
        "--interval",
        metavar="S",
        type=forms.seconds,
        default=interval,
        help=f"look every S seconds, and show what changed{default}",
    )


def check_interval(arguments: argparse.Namespace) -> None:
    """Raise OptionError for an interval that is none."""
    if arguments.interval is not None and arguments.interval < 0.05:
        raise OptionError("--interval is 0.05 seconds or more")


def look(command: str, pids: list[int]) -> list[ContextStatus]:
    """The contexts that answer; what does not is told on stderr."""
    found = survey(pids)
    for path, problem in found.problems.items():
        say(f"{command}: {path}: {problem}")
    return found.contexts


def nobody(command: str, pids: list[int]) -> int:
    """Say that there is nothing to see; the exit status."""
    if pids:
        listed = ", ".join(map(str, pids))
        say(
            f"{command}: error: no counters of process {listed}: it does not run, is not yours, has"
            " no socket of mcast, or was started with MCAST_STATUS=off"
        )
        return EXIT_FAILURE
    say(f"{command}: no process of yours has a socket of mcast")
    return EXIT_UNMET


def program_of(command: str) -> str:
    """A command line without the directories of its first words and without the interpreter."""
    words = [word.rpartition("/")[2] for word in command.split()]
    if len(words) > 1 and words[0].startswith("python"):
        words = words[1:]
    if len(words) > 1 and words[0] == "-m":
        words = words[1:]
    return " ".join(words)
