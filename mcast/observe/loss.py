"""Where packets got lost: in the process, the kernel's buffer, the interface, or the network.

Pure. A subscriber knows exactly which packets did not come at first: those repaired and those lost.
What the process and the kernel know to have dropped is taken off in the order of how certain it is;
the network is what remains. Invariant: the causes of a socket add up to what it missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mcast.observe.rates import Rate
from mcast.stats import Snapshot

__all__ = ["ADVICE", "Cause", "Finding", "attribute"]


class Cause(StrEnum):
    """Where packets got lost, the most certain first."""

    TEST = "drop_rate"
    """Thrown away on purpose, by the option."""
    PROCESS = "process"
    """Early packets for which the receive window had no room (``rxw_full``)."""
    KERNEL = "kernel buffer"
    """The socket's receive buffer was full (SO_RXQ_OVFL)."""
    NIC = "NIC"
    """The interface, or its driver, dropped or damaged as many meanwhile."""
    NETWORK = "network"
    """What remains: a switch, a cable, another host, or the publisher's own interface."""


ADVICE: Final = {
    Cause.PROCESS: "give the receive window more room (rxw_bytes)",
    Cause.KERNEL: "read faster, or give the buffer room: rcvbuf and sysctl net.core.rmem_max",
    Cause.NIC: "look at ethtool -S and ethtool -g: a longer ring, or a slower publisher (rate)",
    Cause.NETWORK: "look at switches (IGMP snooping, port drops), or lower the publisher's rate",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one socket missed, and why."""

    rate: Rate
    """The socket, and what its counters grew by."""
    missed: int
    """Packets that did not come at first."""
    lost: int
    """Of them, those that were not repaired either."""
    causes: dict[Cause, int]
    """Packets by cause; together ``missed``."""
    refused: int
    """Messages, not packets, that the process was too slow to take, or its peers."""
    unrepairable: int
    """A publisher's: packets asked for that its window no longer held."""

    @property
    def has_lost(self) -> bool:
        """True if the application got less than was sent."""
        return self.lost > 0 or self.refused > 0


def attribute(rate: Rate, nic_drops: int | None) -> Finding:
    """Say why the packets of a socket got lost.

    ``nic_drops`` is what its interface dropped in the same time; None where that is not known, and
    what the interface dropped counts as the network's.
    """
    grown = rate.grown
    missed = _count(grown, "repaired") + _count(grown, "lost")
    suspects = {
        Cause.TEST: _count(grown, "dropped_for_test"),
        Cause.PROCESS: _count(grown, "rxw_full"),
        Cause.KERNEL: _count(grown, "rcvbuf_overflows"),
        Cause.NIC: nic_drops or 0,
    }
    causes = {}
    left = missed
    for cause, dropped in suspects.items():
        causes[cause] = min(dropped, left)
        left -= causes[cause]
    causes[Cause.NETWORK] = left
    return Finding(
        rate=rate,
        missed=missed,
        lost=_count(grown, "lost"),
        causes=causes,
        refused=sum(_count(grown, name) for name in ("queue_refused", "dropped_at_hwm")),
        unrepairable=_count(grown, "naks_outside_window"),
    )


def _count(grown: Snapshot, name: str) -> int:
    return int(grown.get(name, 0))
