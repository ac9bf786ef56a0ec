"""The standard workload of the fault matrix, and what every row asks of its ledgers.

One publisher, numbered messages of 256 bytes, one to a packet, 5,000 a second. Invariant: whatever
a row measures, ``account`` has checked that nothing came twice, out of order or changed, and that
what did not come was reported, number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.netlab import Fault, Host, Lab
from tests.support.figures import SECONDS
from tests.support.transfer import Transfer, mcast_peer, transfer

ONE_PER_PACKET = ("--option", "multicast_maxtpdu=340")
"""A TSDU of 268 bytes holds its offset, one frame head and 256 bytes of body, exactly: so packet
number and message number are the same."""

RATE = 5_000


def flow(
    lab: Lab,
    *,
    hosts: Sequence[Host] | None = None,
    rate: float = RATE,
    seconds: float = SECONDS,
    pub: Sequence[str] = (),
    sub: Sequence[str] = (),
    subs: Sequence[Sequence[str]] | None = None,
    strike: Callable[[], Sequence[Fault] | None] | None = None,
    during: Callable[[], None] | None = None,
    loss_percent: float = 0.0,
    timeout_s: float = 60.0,
) -> Transfer:
    """Run the workload from the first host to ``hosts`` (all others) and check its ledgers."""
    interval = ("--interval-us", str(1e6 / rate))
    hosts = lab.hosts[1:] if hosts is None else hosts
    extra = subs or [()] * len(hosts)
    done = transfer(
        lab,
        mcast_peer(*ONE_PER_PACKET, *interval, "--prepare", *pub),
        [(host, mcast_peer(*interval, *sub, *own)) for host, own in zip(hosts, extra, strict=True)],
        count=round(rate * seconds),
        shape="fixed:256",
        loss_percent=loss_percent,
        timeout_s=timeout_s,
        strike=strike,
        during=during,
    )
    print(done.report("flow"))
    check(done)
    return done


def check(done: Transfer) -> None:
    """L1 to L4: in order, once, whole, and delivered plus reported is everything."""
    for ledger, events in zip(done.ledgers, done.events, strict=True):
        wrong = {name: ledger[name] for name in ("duplicates", "reordered", "corrupt")}
        assert not any(wrong.values()), (wrong, ledger["examples"])
        # The publisher joined first; what else is heard was forged.
        honest = next(event["tsi"] for event in events if event["kind"] == "PeerJoined")
        lost = sum(
            int(str(event["count"]))
            for event in events
            if event["kind"] == "Lost" and event["tsi"] == honest
        )
        said = (ledger["missing"], lost)
        assert said[0] == said[1], f"missing and reported: {said}"


def stat(done: Transfer, name: str, subscriber: int = 0) -> Any:
    """One counter of a subscriber."""
    stats = done.ledgers[subscriber]["stats"]
    assert isinstance(stats, dict)
    return stats[name]


def total(done: Transfer, name: str) -> Any:
    """A counter of all subscribers together."""
    return sum(stat(done, name, number) for number in range(len(done.ledgers)))


def worst(done: Transfer, name: str) -> Any:
    """The highest of a counter among the subscribers."""
    return max(stat(done, name, number) for number in range(len(done.ledgers)))


def missing(done: Transfer) -> int:
    """Messages that any subscriber did not get."""
    return sum(int(str(ledger["missing"])) for ledger in done.ledgers)


def source(done: Transfer, name: str) -> Any:
    """One counter of the publisher."""
    return done.source[name]
