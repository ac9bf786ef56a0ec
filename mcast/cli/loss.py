"""``mcast loss``: where packets got lost: process, kernel buffer, interface or network.

Exit status 1 means that an application got less than was sent to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mcast.cli import arguments as forms
from mcast.cli.table import aligned
from mcast.cli.terminal import EXIT_OK, EXIT_UNMET, Output, Stop
from mcast.cli.watching import add_watch_arguments, check_interval, look, nobody
from mcast.observe import ContextStatus, rates
from mcast.observe.host import HostDrops, host_drops
from mcast.observe.loss import ADVICE, Cause, Finding, attribute
from mcast.observe.places import interface_of

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_HEADS: Final = ("PID", "type", "endpoint", "missed", "lost", *Cause, "refused")

_EPILOG = """\
missed: packets that did not come at first; lost: those of them that were not repaired either. The
columns between say where they went and add up to missed: thrown away by drop_rate, no room in the
process (rxw_full) or in the kernel's buffer of the socket (SO_RXQ_OVFL), dropped by the interface;
the network is what remains. refused: messages, not packets, for which the application was too slow.

Without --interval it is what happened since each process began, and what interfaces dropped cannot
be told from the network. With it, what happens within S seconds, for /proc/net and
/sys/class/net/*/statistics are read before and after.

exit status: 0; 1 when something was lost or refused, or no process of yours has a socket; 2 when a
PID has none; 3 bad arguments

examples:
  mcast loss
  mcast loss --interval 10
  mcast loss 4711 --interval 60 --json
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "loss",
        help="tell where packets got lost: process, kernel, interface, network",
        description="Tell where the packets of your running processes got lost.",
        epilog=_EPILOG,
    )
    add_watch_arguments(parser, interval=None)
    parser.add_argument("--json", action="store_true", help="one object of JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look once, or before and after the interval; the exit status.

    Raises: OptionError.
    """
    check_interval(arguments)
    before: Sequence[ContextStatus] = ()
    drops_before: dict[int, HostDrops] = {}
    found = look("mcast loss", arguments)
    now = found.contexts
    if not now:
        return nobody("mcast loss", arguments, found)
    if arguments.interval is not None:
        before = now
        drops_before = {pid: host_drops(pid) for pid in _pids(before)}
        with Stop() as stop:
            stop.wait(arguments.interval)
        now = look("mcast loss", arguments).contexts
    drops = {pid: host_drops(pid) for pid in _pids(now)}
    dropped = {
        pid: total.since(drops_before[pid]) for pid, total in drops.items() if pid in drops_before
    }
    findings = []
    for rate in rates(before, now):
        host = dropped.get(rate.context.pid)
        nic = interface_of(rate.socket.endpoints)
        findings.append(
            attribute(rate, None if host is None or nic is None else host.nic_total(nic))
        )
    is_interval = arguments.interval is not None
    make = _json if arguments.json else _text
    Output().write(make(findings, dropped if is_interval else drops, is_interval=is_interval))
    return EXIT_UNMET if any(finding.has_lost for finding in findings) else EXIT_OK


def _pids(contexts: Sequence[ContextStatus]) -> list[int]:
    return sorted({context.pid for context in contexts})


def _text(findings: Sequence[Finding], drops: dict[int, HostDrops], *, is_interval: bool) -> bytes:
    lines = aligned(_HEADS, list(map(_row, findings)), numbers=range(3, len(_HEADS)))
    since = "meanwhile" if is_interval else "since the machine began"
    seen = {host.namespace: host for host in drops.values()}
    for host in seen.values():
        told = [f"UDP {name} {count:,}" for name, count in host.udp.items() if count]
        for nic, counts in host.nics.items():
            told += [f"{nic} {name} {count:,}" for name, count in counts.items() if count]
        lines.append(f"all sockets of the machine, {since}: {', '.join(told) or 'nothing dropped'}")
    for cause, advice in ADVICE.items():
        count = sum(finding.causes[cause] for finding in findings)
        if count:
            lines.append(f"{cause}: {count:,} packets: {advice}")
    if refused := sum(finding.refused for finding in findings):
        lines.append(
            f"refused: {refused:,} messages: call recv more often (recv_many), or raise rcvhwm"
        )
    if denied := sum(finding.unrepairable for finding in findings):
        lines.append(
            f"publishers: {denied:,} packets asked for when they had left the window: raise"
            " txw_bytes or recovery_ivl"
        )
    if not any(finding.missed or finding.refused for finding in findings):
        lines.append("nothing was missed")
    return ("\n".join(lines) + "\n").encode()


def _row(finding: Finding) -> tuple[str, ...]:
    socket = finding.rate.socket
    return (
        str(finding.rate.context.pid),
        socket.kind,
        ", ".join(socket.endpoints) or "not connected",
        f"{finding.missed:,}",
        f"{finding.lost:,}",
        *(f"{finding.causes[cause]:,}" for cause in Cause),
        f"{finding.refused:,}",
    )


def _json(findings: Sequence[Finding], drops: dict[int, HostDrops], *, is_interval: bool) -> bytes:
    told = {
        "interval": is_interval,
        "sockets": [
            {
                "pid": finding.rate.context.pid,
                "type": finding.rate.socket.kind,
                "endpoints": finding.rate.socket.endpoints,
                "seconds": round(finding.rate.elapsed_s, 3),
                "missed": finding.missed,
                "lost": finding.lost,
                "causes": {cause.name.lower(): n for cause, n in finding.causes.items()},
                "refused_messages": finding.refused,
                "repairs_denied": finding.unrepairable,
            }
            for finding in findings
        ],
        "machine": {
            str(pid): {
                "udp": host.udp,
                "interfaces": host.nics,
                "process_socket_drops": host.process_drops,
            }
            for pid, host in drops.items()
        },
    }
    return json.dumps(told).encode() + b"\n"
