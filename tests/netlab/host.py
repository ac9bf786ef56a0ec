"""One host of a laboratory: a namespace, what runs inside, and the faults on order.

Owns the namespace's cable to the bridge, its nftables chains and its processes. Invariant: faults
strike this host only, and are counted where they strike.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING

from tests.netlab.capture import Capture
from tests.netlab.commands import ip, run
from tests.netlab.faults import CHAINS, Fault, udp
from tests.netlab.middlebox import Relay
from tests.support.process import LabError, Process

if TYPE_CHECKING:
    from tests.netlab.lab import Lab

__all__ = ["Host"]

_IPV6_LEAST_MTU = 1280


class Host:
    """One namespace with ``eth0`` at ``10.77.0.N`` and ``fd00:77::N``, and ``lo`` up."""

    interface = "eth0"

    def __init__(self, lab: Lab, number: int) -> None:
        self.lab = lab
        self.number = number
        self.namespace = f"{lab.name}-h{number}"
        self.address = f"10.77.0.{number}"
        self.address6 = f"fd00:77::{number:x}"
        self.processes: list[Process] = []

    def __repr__(self) -> str:
        return f"Host({self.address})"

    def build(self, bridge: str) -> None:
        """Make the namespace and plug it into the bridge (the Lab calls this)."""
        port = f"p{self.number}"
        mtu = ("mtu", str(self.lab.mtu))
        ip("netns", "add", self.namespace)
        ip(
            *("-n", bridge, "link", "add", port, *mtu, "type", "veth"),
            *("peer", "name", self.interface, *mtu, "netns", self.namespace),
        )
        ip("-n", bridge, "link", "set", port, "master", "sw", "up")
        self.ip("link", "set", "lo", "up")
        if not self.lab.gso:
            for interface in ("lo", self.interface):
                self.ip("link", "set", interface, "gso_max_segs", "1")
        self.ip("addr", "add", f"{self.address}/24", "dev", self.interface)
        if self.lab.mtu >= _IPV6_LEAST_MTU:
            self.ip("-6", "addr", "add", f"{self.address6}/64", "dev", self.interface, "nodad")
        self.ip("link", "set", self.interface, "up")
        self.ip("route", "add", "224.0.0.0/4", "dev", self.interface)
        for chain, (family, hook) in CHAINS.items():
            self.nft(f"add table {family} lab\nadd chain {family} lab {chain} {{ {hook}; }}\n")

    # Processes

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the argument list that runs ``arguments`` inside this namespace."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def run(self, arguments: Sequence[str], *, timeout_s: float = 60.0) -> CompletedProcess[str]:
        """Run a command inside to its end; raise ``LabError`` with its stderr when it fails."""
        return run(self.command(arguments), timeout_s=timeout_s)

    def start(
        self, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start a process inside; the lab ends it at the latest when it closes."""
        log = self.lab.directory / f"h{self.number}-{len(self.processes)}.stderr"
        process = Process(self.command(arguments), log, environment)
        self.processes.append(process)
        return process

    def ip(self, *arguments: str) -> str:
        """Run ``ip`` inside and return its output."""
        return ip("-n", self.namespace, *arguments)

    # Faults

    def lose(
        self,
        *,
        percent: float = 100.0,
        pgm_type: int | None = None,
        source: Host | None = None,
        match: str = "",
    ) -> Fault:
        """Drop that share of the UDP packets reaching this host, at random; heal with the result.

        ``pgm_type`` restricts it to one PGM type, ``source`` to one sender, ``match`` is any
        further nftables condition, such as ``numgen inc mod 100 < 5`` for bursts.
        """
        address = source.address if source is not None else ""
        return Fault(self, udp(percent=percent, pgm_type=pgm_type, source=address, match=match))

    def duplicate(self, *, percent: float = 100.0, copies: int = 1, match: str = "") -> Fault:
        """Send that share of the UDP packets that leave this host ``copies`` times more."""
        # Copies pass the hook again, and are known by the mark that they carry.
        condition = f"meta mark 0 {udp(percent=percent, match=match)}"
        action = "meta mark set 1" + f" dup to {self.interface}" * copies
        return Fault(self, condition, action=action, chain="egress")

    def corrupt(
        self, *, percent: float = 100.0, offset: int, value: int = 0xEE, match: str = ""
    ) -> Fault:
        """Set the byte ``offset`` of that share of the UDP payloads that reach this host.

        The kernel does not notice: on veth no UDP checksum is verified, so it reaches the socket.
        """
        condition = udp(percent=percent, match=match)
        action = f"@ih,{8 * offset},8 set {value:#x}"
        return Fault(self, condition, action=action, chain="ingress")

    def relay(
        self, *, inbound: Mapping[str, object], outbound: Mapping[str, object], seed: int = 1
    ) -> Relay:
        """Put a seeded box into this host's cable, see ``relay.Harm`` for what it can do.

        ``inbound`` strikes what reaches the host, ``outbound`` what it sends. Use the result as a
        context manager, or ``heal`` it; the cable is cut for some milliseconds at both ends.
        """
        return Relay(self, inbound, outbound, seed)

    @contextlib.contextmanager
    def blackout(self) -> Iterator[Fault]:
        """Lose every UDP packet that reaches this host while the block runs."""
        fault = self.lose()
        try:
            yield fault
        finally:
            fault.heal()

    def nft(self, script: str) -> str:
        """Feed a script to nftables inside this namespace and return what it says."""
        return run(self.command(["nft", "-a", "-e", "-f", "-"]), feed=script).stdout

    # Looking

    def capture(
        self,
        path: Path,
        *,
        port: int | None = None,
        interface: str = "eth0",
        snapshot_bytes: int = 2048,
    ) -> Capture:
        """Record UDP packets on an interface to ``path`` until the block ends.

        ``snapshot_bytes`` is the most that is kept of a packet: raise it to 65535 in a lab with
        ``gso=True``, where runs cross whole (and the ring then holds fewer packets).
        """
        return Capture(self, path, port, interface, snapshot_bytes)

    def wait_joined(self, group: str, *, timeout_s: float = 10.0) -> None:
        """Return once some socket on ``eth0`` or ``lo`` of this host has joined ``group``."""
        deadline = time.monotonic() + timeout_s
        pattern = re.compile(rf"\b{re.escape(group)}\b")
        while not pattern.search(self.ip("maddr", "show")):
            if time.monotonic() > deadline:
                raise LabError(f"nobody joined {group} on {self} within {timeout_s} s")
            time.sleep(0.02)

    def udp_counters(self) -> dict[str, int]:
        """Return the kernel's UDP counters of this host: InDatagrams, RcvbufErrors and so on."""
        lines = self.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
        return dict(zip(names, map(int, values), strict=True))
