"""Does the kernel grant the socket buffers that are asked for, and did they overflow before?"""

from __future__ import annotations

from collections.abc import Iterator

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine
from mcast.options import SocketOptions

__all__ = ["check"]

_NAME = "buffers"


def check(machine: Machine, options: SocketOptions) -> Iterator[Finding]:
    """Findings about ``rmem_max``, ``wmem_max`` and datagrams that found no room."""
    granted = machine.granted_buffers(options.rcvbuf, options.sndbuf)
    for what, sysctl, asked_bytes, granted_bytes in (
        ("receive", "rmem_max", options.rcvbuf, granted[0]),
        ("send", "wmem_max", options.sndbuf, granted[1]),
    ):
        limit = machine.number(f"/proc/sys/net/core/{sysctl}")
        known = "" if limit is None else f" (net.core.{sysctl} is {limit:,})"
        if granted_bytes < asked_bytes:
            yield Finding(
                _NAME,
                Severity.WARNING,
                f"{what} buffer: {asked_bytes:,} bytes are asked for and {granted_bytes:,} granted"
                f"{known}; in a container the limit is the host's",
                (
                    f"sysctl -w net.core.{sysctl}={asked_bytes}",
                    f"echo net.core.{sysctl}={asked_bytes} >> /etc/sysctl.d/60-mcast.conf",
                ),
            )
        else:
            yield Finding(
                _NAME, Severity.OK, f"{what} buffer: {granted_bytes:,} bytes are granted{known}"
            )
    overflows = machine.counter("/proc/net/snmp", "Udp", "RcvbufErrors")
    if overflows:
        yield Finding(
            _NAME,
            Severity.NOTE,
            f"{overflows:,} UDP datagrams of all programs found their receive buffer full so far;"
            " see rcvbuf_overflows in a socket's stats() for yours",
        )
