"""``mcast doctor``: what on this host keeps multicast from arriving, and the command that mends it.

Exit status 0: all is well; 1: warnings; 2: something is broken.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.terminal import EXIT_FAILURE, EXIT_OK, EXIT_UNMET, Output
from mcast.doctor import Finding, Severity, examine, worst
from mcast.options import SocketOptions

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "as_text", "run"]

_STATUS: Final = {
    Severity.OK: EXIT_OK,
    Severity.NOTE: EXIT_OK,
    Severity.WARNING: EXIT_UNMET,
    Severity.BROKEN: EXIT_FAILURE,
}
_LABELS: Final = {
    Severity.OK: "ok",
    Severity.NOTE: "note",
    Severity.WARNING: "WARNING",
    Severity.BROKEN: "BROKEN",
}

_EPILOG = """\
Each finding is a line, and under it the command that mends it. Run it as root to see the firewall
as well. Without a URL every interface that is not loopback is examined. Nothing is changed, and
nothing is sent unless --probe asks for it: test datagrams that don't leave this host (TTL 0), and
the IGMP reports of the joins.

exit status:
  0  all is well
  1  warnings: it works, but slowly, or not with everybody
  2  something is broken
  3  bad arguments

examples:
  mcast doctor
  sudo mcast doctor "epgm://eth0;239.192.1.1:5555" --probe
  sudo mcast doctor "epgm://eth0;239.192.1.1:5555" --listen 130   # is there an IGMP querier?
  mcast doctor "epgm://eth0;239.192.1.1:5555" -o rcvbuf=16M -o multicast_maxtpdu=9000
  mcast doctor --json | jq -r '.findings[] | select(.severity != "ok") | .fix[]'
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "doctor",
        help="find what keeps multicast from arriving, and how to mend it",
        description="Find what on this host keeps multicast from arriving, and how to mend it.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="such as epgm://eth0;239.192.1.1:5555"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="join the group and send test datagrams that stay on this host",
    )
    parser.add_argument(
        "--listen",
        metavar="S",
        type=forms.seconds,
        default=0.0,
        help="listen S seconds for an IGMP querier; they ask every 125 s (needs root)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object for a program")
    parser.add_argument("-q", "--quiet", action="store_true", help="only what is not well")
    forms.add_option_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine this host; the exit status. Blocks for ``--listen`` and, with ``--probe``, a second.

    Raises: EndpointError, OptionError.
    """
    output = Output()
    options = SocketOptions().with_changes(forms.socket_options(arguments.option))
    findings = []
    for finding in examine(
        arguments.url, options=options, probe=arguments.probe, listen_s=arguments.listen
    ):
        findings.append(finding)
        if not arguments.json and not (arguments.quiet and finding.severity is Severity.OK):
            output.write(as_text(finding).encode())
    found = worst(findings)
    counts = {kind.value: sum(f.severity is kind for f in findings) for kind in Severity}
    if arguments.json:
        report = {
            "url": arguments.url,
            "verdict": found.value,
            "counts": counts,
            "findings": [asdict(finding) for finding in findings],
        }
        output.write(json.dumps(report, indent=2).encode() + b"\n")
    elif not arguments.quiet:
        summary = f"{counts['broken']} broken, {counts['warning']} warnings, {counts['ok']} fine\n"
        output.write(summary.encode())
    return _STATUS[found]


def as_text(finding: Finding) -> str:
    """The finding's line, and under it a line for each command that mends it."""
    lines = [f"{_LABELS[finding.severity]:8} {finding.check:10} {finding.text}"]
    lines += [f"{'':19} fix: {line}" for line in finding.fix]
    return "\n".join(lines) + "\n"
