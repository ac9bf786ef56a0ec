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
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.netlab.commands import ip, set_parameter
from tests.netlab.faults import Fault
from tests.netlab.host import Host

__all__ = ["Lab", "lab_or_skip", "unavailable"]

_PREFIX = "mcast-lab"
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
        self.bridge = f"{self.name}-bridge"
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
        for namespace in [*(host.namespace for host in self.hosts), self.bridge]:
            _delete_namespace(namespace)
        self._directory.cleanup()

    def lose_everywhere(self, percent: float) -> list[Fault]:
        """Lose this share of the UDP packets that reach any host: both directions of every pair."""
        return [host.lose(percent=percent) for host in self.hosts] if percent else []

    def _build(self) -> None:
        bridge = self.bridge
        ip("netns", "add", bridge)
        # Nothing but the lab's own packets belongs on its wires.
        for scope in ("all", "default"):
            set_parameter(bridge, f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", 1)
        ip(
            *("-n", bridge, "link", "add", "sw", "mtu", str(self.mtu), "type", "bridge"),
            *("mcast_snooping", str(int(self.snooping)), "forward_delay", "0"),
        )
        ip("-n", bridge, "link", "set", "sw", "up")
        for host in self.hosts:
            host.build(bridge)


def remove_stale() -> None:
    """Delete the namespaces of labs whose process is gone, and what still runs inside them."""
    for line in ip("netns", "list").splitlines():
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
