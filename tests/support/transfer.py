"""One transfer in the laboratory: peers started in the right order, loss turned on, ledgers read.

Owns the order of things that makes a transfer exact. Subscribers are up and joined before the
publisher connects, so that they hear its first SPM; loss begins after that and before the first
data packet, since an SPM is what a new receiver learns the window from (a receiver that misses
every SPM and the first data packets has joined late, and lost nothing); the publisher stays until
the last ledger is in, since libzmq repairs nothing after close.

Invariant: every figure of a ``Transfer`` was counted by the peers or by the kernel, none by us.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.netlab import Fault, Host, Lab, Process

__all__ = ["GROUP", "PORT", "Peer", "Transfer", "libzmq_peer", "mcast_peer", "transfer"]

GROUP = "239.192.1.1"
PORT = 5555

_START_LIMIT_S = 20.0
_SPM_GRACE_S = 0.3  # the first SPMs leave at connect; both peers are then known to each other


@dataclass(frozen=True)
class Peer:
    """A program that speaks the peers' command line; ``options`` go to it as they are."""

    name: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def with_options(self, *options: str) -> Peer:
        """Return the same peer with further options."""
        return Peer(self.name, self.command, (*self.options, *options), self.environment)

    def start(self, host: Host, mode: str, *, interface: str = "") -> Process:
        """Start it as ``pub`` or ``sub`` on a host and return once it is connected."""
        endpoint = f"epgm://{interface or host.address};{GROUP}:{PORT}"
        process = host.start(
            [*self.command, mode, endpoint, *self.options], environment=self.environment
        )
        process.wait_json("ready", timeout_s=_START_LIMIT_S)
        if mode == "sub":
            host.wait_joined(GROUP)
        return process


def libzmq_peer(python: str, *options: str) -> Peer:
    """Return the libzmq peer, run by ``python`` (the ``libzmq_python`` fixture)."""
    return Peer("libzmq", (python, str(Path(__file__).with_name("libzmq_peer.py"))), options)


def mcast_peer(*options: str) -> Peer:
    """Return the mcast peer, run by this very Python, with the kernel under test."""
    return Peer("mcast", (sys.executable, str(Path(__file__).with_name("mcast_peer.py"))), options)


@dataclass
class Transfer:
    """What was sent, and one ledger per subscriber in the order they were given."""

    sent: dict[str, object]
    ledgers: list[dict[str, object]]
    dropped: list[int]
    """Packets that the loss rules dropped, by host."""
    seconds: float
    """From the first message sent to the last ledger closed."""
    source: dict[str, object] = field(default_factory=dict)
    """The publisher's counters, if it is mcast."""
    events: list[list[dict[str, object]]] = field(default_factory=list)
    """What each mcast subscriber's ``events`` gave, with the time it was taken."""

    def complaints(self) -> list[str]:
        """Return one sentence per subscriber that did not get everything, whole, in order, once."""
        found = []
        for number, ledger in enumerate(self.ledgers):
            wrong = {
                name: ledger[name]
                for name in ("missing", "duplicates", "reordered", "corrupt")
                if ledger[name]
            }
            if wrong or ledger["received"] != self.sent["count"]:
                found.append(f"subscriber {number}: received {ledger['received']}, {wrong}")
            elif ledger["digest"] != self.sent["digest"]:
                found.append(f"subscriber {number}: the digests differ")
        return found

    def report(self, title: str) -> str:
        """Return the figures on one line per subscriber."""
        head = f"{title}: {self.sent['count']} messages, {self.sent['bytes']} bytes"
        lines = [f"{head}, {self.seconds:.1f} s, dropped by rule {self.dropped}"]
        for number, ledger in enumerate(self.ledgers):
            lines.append(
                f"  subscriber {number}: {ledger['outcome']}, received {ledger['received']}, "
                f"missing {ledger['missing']}, duplicates {ledger['duplicates']}, "
                f"reordered {ledger['reordered']}, corrupt {ledger['corrupt']}, "
                f"{ledger['seconds']} s from first to last"
            )
        return "\n".join(lines)


def transfer(
    lab: Lab,
    publisher: Peer,
    subscribers: Sequence[tuple[Host, Peer]],
    *,
    count: int,
    loss_percent: float = 0.0,
    shape: str = "mixed",
    timeout_s: float = 60.0,
    strike: Callable[[], Sequence[Fault] | None] | None = None,
    during: Callable[[], None] | None = None,
) -> Transfer:
    """Send ``count`` messages from the lab's first host to the subscribers; return the account.

    ``loss_percent`` strikes whatever UDP reaches any host: data on one side, requests on the other.
    ``strike`` does other harm at the same moment and returns what ``dropped`` counts; ``during`` is
    called once data flows.
    Raises ``LabError`` when a peer dies or says nothing.
    """
    common = ("--count", str(count), "--shape", shape, "--timeout", str(timeout_s))
    source = lab.hosts[0]
    receiving = [
        peer.with_options(*common, *peer.options).start(host, "sub") for host, peer in subscribers
    ]
    sending = publisher.with_options(*common, *publisher.options).start(source, "pub")
    time.sleep(_SPM_GRACE_S)
    faults: list[Fault] = lab.lose_everywhere(loss_percent)
    if strike is not None:
        faults += strike() or ()
    start = time.monotonic()
    sending.tell("go")
    if during is not None:
        during()
    ledgers = [
        process.wait_json("summary", timeout_s=timeout_s + _START_LIMIT_S) for process in receiving
    ]
    seconds = time.monotonic() - start
    sent = sending.wait_json("sent", timeout_s=timeout_s)
    sending.tell("quit")
    counters = sending.wait_json("stats", timeout_s=timeout_s) if publisher.name == "mcast" else {}
    dropped = [fault.dropped for fault in faults]
    for fault in faults:
        fault.heal()
    for process in (sending, *receiving):
        process.wait(timeout_s=_START_LIMIT_S)
    events = [_events(process) for process in receiving]
    return Transfer(sent, ledgers, dropped, seconds, counters, events)


def _events(process: Process) -> list[dict[str, object]]:
    said = (json.loads(line) for line in process.lines if line.startswith("{"))
    return [line for line in said if line.get("event") == "event"]
