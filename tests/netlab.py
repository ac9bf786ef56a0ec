"""A laboratory of network namespaces: real sockets, real packets, faults on order.

Owns the namespaces, the links between them, the nftables rules that lose packets, and every process
started inside. A ``Lab`` of N hosts is N namespaces joined by a bridge in one more::

    with Lab(3) as lab:
        publisher, first, second = lab.hosts
        first.lose(percent=10)  # at the receiver's input: data, SPM, NCF
        publisher.lose(percent=10, pgm_type=NAK)  # at the publisher's input: requests
        with first.capture(tmp_path / "first.pcap"):
            process = first.start([sys.executable, "peer.py"])
            print(process.wait_json("ready", timeout_s=10))

Faults are input hooks (an output hook would also tell the sender's kernel). A capture taken on a
host shows packets before its own rules drop them.

Packets cross as they would cross a wire: ``gso_max_segs 1`` makes the kernel cut a UDP GSO run
before the link, so that a rule loses one datagram and not a run of 44, and tcpdump sees datagrams.

Invariant: on leaving, whatever happened inside, every process and namespace of the lab is gone.
Needs root, iproute2 and nftables; ``unavailable()`` says what is missing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.process import LabError, Process

__all__ = [
    "NAK",
    "NCF",
    "ODATA",
    "RDATA",
    "SPM",
    "SPMR",
    "Capture",
    "Fault",
    "Host",
    "Lab",
    "LabError",
    "Process",
    "lab_or_skip",
    "unavailable",
]

SPM, ODATA, RDATA, NAK, NCF, SPMR = 0x00, 0x04, 0x05, 0x08, 0x0A, 0x0C
"""PGM packet types (RFC 3208 s8), for faults that strike one type only."""

_PREFIX = "mcast-lab"
_COMMAND_LIMIT_S = 20.0
_STALE_GRACE_S = 2.0
_serial = itertools.count()


def unavailable() -> str | None:
    """Return why no lab can be built here, or None when one can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: iproute2, nftables)"
    name = f"{_PREFIX}-{os.getpid()}-probe{next(_serial)}"
    probe = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if probe.returncode:
        return f"cannot make a network namespace: {probe.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return None


@contextlib.contextmanager
def lab_or_skip(host_count: int, *, mtu: int = 1500, gso: bool = False) -> Iterator[Lab]:
    """Give a lab to a test, or skip the test with the reason why there is none."""
    reason = unavailable()
    if reason:
        import pytest

        pytest.skip(reason)
    with Lab(host_count, mtu=mtu, gso=gso) as lab:
        yield lab


class Lab:
    """``host_count`` hosts, 10.77.0.1 upwards, on one bridge. Use as a context manager.

    ``gso=True`` lets UDP GSO runs cross the links whole: fast, but rules and captures see runs.
    ``snooping=True`` turns on IGMP snooping, off by default as there is no querier.
    """

    def __init__(
        self, host_count: int, *, mtu: int = 1500, gso: bool = False, snooping: bool = False
    ) -> None:
        if not 1 <= host_count <= 200:
            raise ValueError(f"host_count is {host_count}: 1 to 200 are possible")
        self.mtu = mtu
        self.gso = gso
        self.snooping = snooping
        self.name = f"{_PREFIX}-{os.getpid()}-{next(_serial)}"
        self.hosts = [Host(self, number) for number in range(1, host_count + 1)]
        self._bridge = f"{self.name}-bridge"
        self._directory = tempfile.TemporaryDirectory(prefix=f"{self.name}-")

    @property
    def directory(self) -> Path:
        """A directory of the lab's own, gone with it (stderr of processes, captures)."""
        return Path(self._directory.name)

    def __enter__(self) -> Self:
        remove_stale()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            for host in self.hosts:
                for process in host.processes:
                    print(process.obituary())
        self.close()

    def close(self) -> None:
        """End every process of the lab and delete its namespaces; safe to call twice."""
        for host in self.hosts:
            for process in reversed(host.processes):
                process.kill()
            host.processes.clear()
        for namespace in [*(host.namespace for host in self.hosts), self._bridge]:
            _delete_namespace(namespace)
        self._directory.cleanup()

    def lose_everywhere(self, percent: float) -> list[Fault]:
        """Lose this share of the UDP packets that reach any host: both directions of every pair."""
        return [host.lose(percent=percent) for host in self.hosts] if percent else []

    def _build(self) -> None:
        bridge = self._bridge
        _ip("netns", "add", bridge)
        # Nothing but the lab's own packets belongs on its wires.
        for scope in ("all", "default"):
            _set(bridge, f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", 1)
        _ip(
            *("-n", bridge, "link", "add", "sw", "mtu", str(self.mtu), "type", "bridge"),
            *("mcast_snooping", str(int(self.snooping)), "forward_delay", "0"),
        )
        _ip("-n", bridge, "link", "set", "sw", "up")
        for host in self.hosts:
            host.build(bridge)


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
        _ip("netns", "add", self.namespace)
        _ip(
            *("-n", bridge, "link", "add", port, *mtu, "type", "veth"),
            *("peer", "name", self.interface, *mtu, "netns", self.namespace),
        )
        _ip("-n", bridge, "link", "set", port, "master", "sw", "up")
        self.ip("link", "set", "lo", "up")
        if not self.lab.gso:
            for interface in ("lo", self.interface):
                self.ip("link", "set", interface, "gso_max_segs", "1")
        self.ip("addr", "add", f"{self.address}/24", "dev", self.interface)
        self.ip("-6", "addr", "add", f"{self.address6}/64", "dev", self.interface, "nodad")
        self.ip("link", "set", self.interface, "up")
        self.ip("route", "add", "224.0.0.0/4", "dev", self.interface)
        self.nft(
            "add table inet lab\n"
            "add chain inet lab faults { type filter hook input priority -10; }\n"
        )

    # Processes

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the argument list that runs ``arguments`` inside this namespace."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def run(
        self, arguments: Sequence[str], *, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; raise ``LabError`` with its stderr when it fails."""
        return _run(self.command(arguments), timeout_s=timeout_s)

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
        return _ip("-n", self.namespace, *arguments)

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
        permille = round(percent * 10)
        if not 0 < permille <= 1000:
            raise ValueError(f"percent is {percent}: 0.1 to 100 are possible")
        words = ["meta l4proto udp"]
        if source is not None:
            words.append(f"ip saddr {source.address}")
        if pgm_type is not None:
            # Byte 4 of the UDP payload, low nibble (RFC 3208 s8); UDP's own header is not "inner".
            words.append(f"@ih,36,4 {pgm_type:#x}")
        if match:
            words.append(match)
        if permille < 1000:
            words.append(f"numgen random mod 1000 < {permille}")
        return Fault(self, " ".join(words))

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
        return _run(self.command(["nft", "-a", "-e", "-f", "-"]), feed=script).stdout

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


class Fault:
    """One nftables rule that drops packets at a host's input until ``heal()``."""

    def __init__(self, host: Host, condition: str) -> None:
        self.host = host
        self.condition = condition
        answer = host.nft(f"add rule inet lab faults {condition} counter drop\n")
        found = re.search(r"# handle (\d+)", answer)
        if found is None:
            raise LabError(f"nft named no handle for {condition!r}: {answer!r}")
        self._handle: int | None = int(found[1])
        self._dropped = 0
        self.healed_at = 0.0
        """``time.monotonic()`` just before the rule was removed; 0 while it is in force."""

    @property
    def dropped(self) -> int:
        """How many packets the rule has dropped so far (kept after healing)."""
        if self._handle is not None:
            listing = json.loads(
                self.host.run(["nft", "-j", "list", "chain", "inet", "lab", "faults"]).stdout
            )
            for item in listing["nftables"]:
                rule = item.get("rule", {})
                if rule.get("handle") == self._handle:
                    self._dropped = next(
                        part["counter"]["packets"] for part in rule["expr"] if "counter" in part
                    )
        return self._dropped

    def heal(self) -> None:
        """Remove the rule; safe to call twice."""
        if self._handle is not None:
            _ = self.dropped
            self.healed_at = time.monotonic()
            self.host.nft(f"delete rule inet lab faults handle {self._handle}\n")
            self._handle = None


class Capture:
    """tcpdump for the length of a block; ``path`` is complete when the block has ended.

    ``missed`` is how many packets tcpdump could not keep up with: 0, or the file proves nothing.
    """

    def __init__(
        self, host: Host, path: Path, port: int | None, interface: str, snapshot_bytes: int
    ) -> None:
        self.host = host
        self.path = path
        self.missed = 0
        self._filter = ["udp"] if port is None else ["udp", "port", str(port)]
        self._interface = interface
        self._snapshot_bytes = snapshot_bytes
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self._process = self.host.start(
            [
                *("tcpdump", "-i", self._interface, "-w", str(self.path), "-U", "-n"),
                # Without immediate mode this kernel hands over no block for seconds (measured).
                *("--immediate-mode", "-B", "32768", "-s", str(self._snapshot_bytes)),
                *("-Z", "root", *self._filter),
            ]
        )
        deadline = time.monotonic() + _COMMAND_LIMIT_S
        while "listening on" not in self._process.stderr:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"tcpdump did not start\n{self._process.obituary()}")
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        # On a busy machine tcpdump is behind; it has caught up when the file stops growing.
        size = -1
        while self._process.poll() is None and size != self.path.stat().st_size:
            size = self.path.stat().st_size
            time.sleep(0.2)
        self._process.signal(signal.SIGINT)
        self._process.wait(timeout_s=_COMMAND_LIMIT_S)
        found = re.search(r"(\d+) packets? dropped by kernel", self._process.stderr)
        self.missed = int(found[1]) if found else 0


def remove_stale() -> None:
    """Delete the namespaces of labs whose process is gone, and what still runs inside them."""
    for line in _ip("netns", "list").splitlines():
        found = re.match(rf"({_PREFIX}-(\d+)-\S+)", line)
        if found and not Path(f"/proc/{found[2]}").exists():
            _delete_namespace(found[1])


def _delete_namespace(name: str) -> None:
    if not Path(f"/run/netns/{name}").exists():
        return
    deadline = time.monotonic() + _STALE_GRACE_S
    while time.monotonic() < deadline:
        listing = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
        if not listing.stdout.split():
            break
        for pid in listing.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.02)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _ip(*arguments: str) -> str:
    return _run(["ip", *arguments]).stdout


def _set(namespace: str, path: str, value: int) -> None:
    """Set a kernel parameter by its path: Debian's minimal install has no sysctl command."""
    _run(["ip", "netns", "exec", namespace, "sh", "-c", f"echo {value} > {path}"])


def _run(
    arguments: Sequence[str], *, timeout_s: float = _COMMAND_LIMIT_S, feed: str | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            arguments, input=feed, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(arguments)} took over {timeout_s} s") from None
    if done.returncode:
        raise LabError(f"{' '.join(arguments)} failed: {done.stderr.strip() or done.stdout}")
    return done
