"""The command ``mcast``: publish, subscribe, and a demonstration that accounts for every message.

Owns the subcommands' common ground: parsing, and what a failure looks like. Invariants: stdout
carries data only, everything else goes to stderr; the exit status is 0 for success, 1 when
something was lost or a criterion was not met, 2 when it could not be done, 3 for bad arguments.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import mcast
from mcast.cli.arguments import ArgumentParser
from mcast.cli.terminal import EXIT_ARGUMENTS, EXIT_FAILURE, EXIT_UNMET, say

__all__ = ["main", "make_parser"]

_DESCRIPTION = "Reliable multicast PUB/SUB on libzmq's wire, without a broker."

_EPILOG = """\
exit status:
  0  done
  1  something was lost, or a criterion was not met
  2  it could not be done
  3  bad arguments

examples:
  mcast demo
  mcast sub "epgm://lo;239.192.1.1:5555" --topic AAPL
  echo "AAPL 189.20" | mcast pub "epgm://lo;239.192.1.1:5555"
"""

# The modules here that have a command each. One a line, so that those who add one don't meet.
_COMMANDS: Final = (
    "pub",
    "sub",
    "req",
    "rep",
    "demo",
    "perf",
    "doctor",
    "ifaces",
    "join",
    "send",
    "dump",
    "scout",
    "decode",
    "stat",
    "top",
    "loss",
    "record",
    "replay",
    "keygen",
    "completion",
)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of the command line ``argv``, without the program's name; None: the real one.

    Blocks until the command is done. Raises nothing; run it in the main thread, for the signals.
    """
    words = sys.argv[1:] if argv is None else argv
    # Importing all of them takes a third of a short command's time.
    chosen = words[:1] if words and words[0] in _COMMANDS else _COMMANDS
    try:
        arguments = make_parser(chosen).parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return EXIT_UNMET
    except Exception:
        say(traceback.format_exc().rstrip())
        return EXIT_FAILURE
    name = f"mcast {arguments.command}"
    if arguments.command == "perf":
        name += f" {arguments.kind}"
    with warnings.catch_warnings():
        _report_warnings(name)
        try:
            status: int = arguments.run(arguments)
        except (mcast.EndpointError, mcast.OptionError) as error:
            say(f"{name}: error: {error}")
            return EXIT_ARGUMENTS
        except (mcast.Error, OSError) as error:
            say(f"{name}: error: {_reason(error)}")
            return EXIT_FAILURE
        except KeyboardInterrupt:
            return EXIT_UNMET
        except Exception:
            # A bug, but not a loss: Python's own status 1 would say so.
            say(traceback.format_exc().rstrip())
            return EXIT_FAILURE
    return status


def make_parser(names: Sequence[str] = _COMMANDS) -> ArgumentParser:
    """The parser of the whole command line, or of these commands only."""
    parser = ArgumentParser(prog="mcast", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"mcast {mcast.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name in names:
        import_module(f"mcast.cli.{name}").add_parser(commands)
    return parser


def _reason(error: Exception) -> str:
    """What went wrong in words: the system's own errors as ``FILE: No such file or directory``."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


class _Lowercase(logging.Formatter):
    """The log's lines as the commands' own: ``mcast pub: warning: ...``."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}: %(level)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return super().format(record)


def _report_warnings(name: str) -> None:
    """Show what the library warns of, each as one line."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        say(f"{name}: warning: {message}")

    if not sys.warnoptions:
        warnings.simplefilter("default", mcast.BufferWarning)
    warnings.showwarning = show
    log = logging.getLogger("mcast")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Lowercase(name))
        log.addHandler(handler)
