"""What the kernel and the network interfaces have dropped, out of /proc and /sys.

Owns reading those files, in the network namespace of the process that is asked about. Invariant: a
file that is not there, may not be read or has another form is as if it had nothing to say.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["HostDrops", "host_drops", "parse_dev", "parse_snmp", "parse_udp_drops"]

_DEV_HEADS: Final = ("bytes", "packets", "errs", "drop", "fifo", "frame")
"""Of /proc/net/dev, the receiving side; ``drop`` includes rx_missed_errors there."""
_NIC_NAMES: Final = {"errs": "rx_errors", "drop": "rx_dropped", "fifo": "rx_fifo_errors"}
_SYS_NAMES: Final = (
    "rx_dropped",
    "rx_missed_errors",
    "rx_fifo_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_errors",
)
_SOCKET_LINK: Final = re.compile(r"socket:\[(\d+)\]")
_UDP_NAMES: Final = ("RcvbufErrors", "InCsumErrors", "SndbufErrors", "MemErrors")
"""Without InErrors, which also counts datagrams of groups that one socket of several has joined."""


@dataclass(frozen=True, slots=True)
class HostDrops:
    """Since the machine began; the difference of two says what was dropped between them."""

    udp: dict[str, int] = field(default_factory=dict)
    """Of all sockets of the namespace, IPv4 and IPv6, by the kernel's name: ``RcvbufErrors``."""
    nics: dict[str, dict[str, int]] = field(default_factory=dict)
    """By interface, what it received and could not deliver, by the kernel's name."""
    process_drops: int = 0
    """Datagrams that the buffers of the process's open UDP sockets had no room for."""
    namespace: str = ""
    """The network namespace; processes with the same one see the same counters."""

    def since(self, before: HostDrops) -> HostDrops:
        """What was dropped after ``before``."""
        return HostDrops(
            _less(self.udp, before.udp),
            {nic: _less(now, before.nics.get(nic, {})) for nic, now in self.nics.items()},
            max(0, self.process_drops - before.process_drops),
            self.namespace,
        )

    def nic_total(self, nic: str) -> int:
        """Packets that an interface dropped, each counted once."""
        counts = self.nics.get(nic, {})
        names = ("rx_dropped", "rx_missed_errors", "rx_errors")  # the others are within rx_errors
        return sum(counts.get(name, 0) for name in names)


def host_drops(pid: int, *, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> HostDrops:
    """What the machine has dropped, as the process ``pid`` sees its network."""
    net = proc / str(pid) / "net"
    udp = dict.fromkeys(_UDP_NAMES, 0)
    for name, count in parse_snmp(_text(net / "snmp") + _text(net / "snmp6")).items():
        if name in udp:
            udp[name] += count
    drops = {**parse_udp_drops(_text(net / "udp")), **parse_udp_drops(_text(net / "udp6"))}
    ours = _socket_inodes(proc / str(pid) / "fd")
    return HostDrops(
        udp=udp,
        nics=_nics(net / "dev", sys / "class" / "net"),
        process_drops=sum(count for inode, count in drops.items() if inode in ours),
        namespace=_link(proc / str(pid) / "ns" / "net"),
    )


def parse_snmp(text: str) -> dict[str, int]:
    """UDP's counters of /proc/net/snmp (two lines: names, values) and snmp6 (a name a line)."""
    found: dict[str, int] = {}
    names: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["Udp:"]:
            if names:
                pairs = zip(names, words[1:], strict=False)
                found |= {name: int(count) for name, count in pairs if count.isdigit()}
            names = words[1:]
        elif len(words) == 2 and words[0].startswith("Udp6") and words[1].isdigit():
            name = words[0].removeprefix("Udp6")
            found[name] = found.get(name, 0) + int(words[1])
    return found


def parse_udp_drops(text: str) -> dict[int, int]:
    """The drops of each socket in /proc/net/udp or udp6, by its inode."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return {
        int(row[9]): int(row[-1])
        for row in rows
        if len(row) >= 13 and row[9].isdigit() and row[-1].isdigit()
    }


def parse_dev(text: str) -> dict[str, dict[str, int]]:
    """The receiving side of /proc/net/dev, by interface."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        counts = rest.split()
        if colon and len(counts) >= len(_DEV_HEADS) and all(map(str.isdigit, counts)):
            found[name.strip()] = dict(zip(_DEV_HEADS, map(int, counts), strict=False))
    return found


def _nics(dev: Path, folder: Path) -> dict[str, dict[str, int]]:
    """/proc tells for each namespace; /sys tells more, but perhaps of another namespace."""
    before = parse_dev(_text(dev))
    details = {nic: _details(folder / nic / "statistics") for nic in before}
    after = parse_dev(_text(dev))
    found = {}
    for nic, counts in before.items():
        seen = details[nic].pop("rx_packets", -1)
        if counts["packets"] <= seen <= after.get(nic, counts)["packets"]:
            found[nic] = details[nic]
        else:
            found[nic] = {ours: counts[theirs] for theirs, ours in _NIC_NAMES.items()}
    return found


def _details(folder: Path) -> dict[str, int]:
    texts = {name: _text(folder / name).strip() for name in (*_SYS_NAMES, "rx_packets")}
    return {name: int(text) for name, text in texts.items() if text.isdigit()}


def _socket_inodes(folder: Path) -> set[int]:
    try:
        entries = os.listdir(folder)
    except OSError:
        return set()
    matches = (_SOCKET_LINK.fullmatch(_link(folder / entry)) for entry in entries)
    return {int(match[1]) for match in matches if match}


def _less(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: max(0, count - before.get(name, 0)) for name, count in now.items()}


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
