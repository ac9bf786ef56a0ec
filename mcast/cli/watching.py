"""What ``stat``, ``top`` and ``loss`` share: which processes, and looking again and again."""

from __future__ import annotations

import argparse

from mcast.cli import arguments as forms
from mcast.cli.terminal import EXIT_FAILURE, EXIT_UNMET, say
from mcast.errors import OptionError
from mcast.observe import Survey, survey

__all__ = ["add_watch_arguments", "check_interval", "look", "nobody", "program_of"]


def add_watch_arguments(parser: forms.ArgumentParser, *, interval: float | None) -> None:
    """Give a subcommand ``PID``, ``--interval`` and ``--timeout``."""
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
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=forms.seconds,
        default=3.0,
        help="seconds that a busy process may take to answer a look (default 3)",
    )


def check_interval(arguments: argparse.Namespace) -> None:
    """Raise OptionError for an interval that is none."""
    if arguments.interval is not None and arguments.interval < 0.05:
        raise OptionError("--interval is 0.05 seconds or more")


def look(command: str, arguments: argparse.Namespace) -> Survey:
    """The contexts that answer; what does not is told on stderr."""
    found = survey(arguments.pids, timeout=arguments.timeout)
    for path, problem in found.problems.items():
        say(f"{command}: {path}: {problem}")
    return found


def nobody(command: str, arguments: argparse.Namespace, found: Survey) -> int:
    """Say why there is nothing to see; the exit status."""
    if found.problems:
        say(f"{command}: error: nobody answered within {arguments.timeout:g} s; try --timeout")
        return EXIT_FAILURE
    if arguments.pids:
        listed = ", ".join(map(str, arguments.pids))
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
