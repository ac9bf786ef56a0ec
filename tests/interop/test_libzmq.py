"""libzmq and mcast, each way, with packets lost both ways: all of it, whole, in order, once.

The libzmq peer is Debian's 4.3.4 with windows wide enough for the whole backlog (see
``test_libzmq_alone``: with its default settings it loses, whoever the other end is). The mcast
peer has its defaults. Each test prints what it measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.netlab import Host, Lab, lab_or_skip
from tests.support.transfer import Peer, libzmq_peer, mcast_peer, transfer

pytestmark = [pytest.mark.interop, pytest.mark.namespace]

QUICK_COUNT = 2_000
FULL_COUNT = 20_000

_COUNTS_AND_LOSSES = [
    pytest.param(QUICK_COUNT, 0),
    pytest.param(QUICK_COUNT, 10),
    *(pytest.param(FULL_COUNT, loss, marks=pytest.mark.slow) for loss in (0, 1, 5, 10)),
]


@pytest.mark.parametrize(("count", "loss_percent"), _COUNTS_AND_LOSSES)
def test_everything_from_mcast_reaches_libzmq(
    libzmq_python: str, count: int, loss_percent: int
) -> None:
    _check_pair(mcast_peer(), libzmq_peer(libzmq_python), count, loss_percent)


@pytest.mark.parametrize(("count", "loss_percent"), _COUNTS_AND_LOSSES)
def test_everything_from_libzmq_reaches_mcast(
    libzmq_python: str, count: int, loss_percent: int
) -> None:
    _check_pair(libzmq_peer(libzmq_python), mcast_peer(), count, loss_percent)


def test_the_libzmq_profile_speaks_to_libzmq_both_ways(libzmq_python: str) -> None:
    ours = mcast_peer("--option", 'profile="libzmq"')
    _check_pair(ours, libzmq_peer(libzmq_python), QUICK_COUNT, 10)
    _check_pair(libzmq_peer(libzmq_python), ours, QUICK_COUNT, 10)


def test_a_libzmq_receiver_loses_by_its_own_window_whoever_sends(libzmq_python: str) -> None:
    # The default RATE and RECOVERY_IVL, 100 kbit/s x 10 s: 80 packets of 1500 bytes.
    narrow = libzmq_peer(libzmq_python, "--rate-kbit", "100", "--recovery-ms", "10000")
    with lab_or_skip(2) as lab:
        account = transfer(
            lab,
            mcast_peer(),
            [(lab.hosts[1], narrow.with_options("--idle", "3")), (lab.hosts[1], mcast_peer())],
            count=QUICK_COUNT,
            loss_percent=10,
        )
    print(account.report("mcast to an 80-packet libzmq window and to mcast, at 10 %"))
    complaints = account.complaints()
    assert [each.startswith("subscriber 0") for each in complaints] == [True]


@pytest.mark.parametrize("publisher", ["mcast", "libzmq"])
def test_subscribers_of_both_kinds_share_a_publisher(libzmq_python: str, publisher: str) -> None:
    theirs, ours = libzmq_peer(libzmq_python), mcast_peer()
    with lab_or_skip(3) as lab:
        hosts = lab.hosts
        account = transfer(
            lab,
            ours if publisher == "mcast" else theirs,
            [(hosts[1], theirs), (hosts[2], theirs), (hosts[1], ours), (hosts[2], ours)],
            count=QUICK_COUNT,
            loss_percent=5,
        )
    print(account.report(f"{publisher} to two libzmq and two mcast subscribers at 5 %"))
    assert not account.complaints()


# One host, one group, one port: a unicast NAK reaches only one of the sockets that share the port,
# and the system alone decides which.


@pytest.mark.parametrize("interface", ["lo", "eth0"])
def test_mcast_publishers_on_one_host_each_get_their_naks(interface: str) -> None:
    ours = mcast_peer()
    with lab_or_skip(2) as lab:
        here, there = lab.hosts
        meeting = _meet(
            lab,
            [(here, ours)] * 3,
            [(here, ours)] * 2 + [(there, ours)] * (interface == "eth0"),
            interface=interface,
            loss_percent=5,
        )
    print(meeting.report(f"three mcast publishers on one host ({interface}) at 5 %"))
    assert not meeting.complaints()
    assert all(int(str(stats["rdata_sent"])) for stats in meeting.publisher_stats)


def test_publishers_and_subscribers_of_both_kinds_share_one_host(libzmq_python: str) -> None:
    theirs, ours = libzmq_peer(libzmq_python), mcast_peer()
    with lab_or_skip(1) as lab:
        (here,) = lab.hosts
        meeting = _meet(
            lab,
            [(here, ours), (here, theirs), (here, ours), (here, theirs)],
            [(here, ours), (here, theirs), (here, ours), (here, theirs)],
            interface="127.0.0.1",
            loss_percent=5,
        )
    print(meeting.report("two publishers and two subscribers of each kind on one host at 5 %"))
    assert not meeting.complaints()


def test_mcast_gets_repairs_from_libzmq_publishers_that_miss_their_naks(
    libzmq_python: str,
) -> None:
    # All of them bind port 5555 of any address: the system picks one for each of our sockets,
    # and half of the time it is the wrong one. libzmq's own subscriber then never gets a repair.
    theirs, ours = libzmq_peer(libzmq_python), mcast_peer()
    with lab_or_skip(1) as lab:
        (here,) = lab.hosts
        meeting = _meet(
            lab,
            [(here, theirs)] * 3,
            [(here, ours)] * 3,
            interface="127.0.0.1",
            loss_percent=5,
        )
    print(meeting.report("three libzmq publishers and three mcast subscribers on one host at 5 %"))
    assert not meeting.complaints()


def _check_pair(publisher: Peer, subscriber: Peer, count: int, loss_percent: int) -> None:
    with lab_or_skip(2) as lab:
        account = transfer(
            lab,
            publisher,
            [(lab.hosts[1], subscriber)],
            count=count,
            loss_percent=loss_percent,
            timeout_s=90,
        )
    print(account.report(f"{publisher.name} to {subscriber.name} at {loss_percent} %"))
    print(_repairs(account.ledgers[0]))
    assert not account.complaints()
    assert (sum(account.dropped) > 0) == (loss_percent > 0)


@dataclass
class _Meeting:
    """Several publishers' streams, as each subscriber's ledger has them."""

    count: int
    stream_count: int
    ledgers: list[dict[str, object]]
    publisher_stats: list[dict[str, object]]
    names: list[str]

    def complaints(self) -> list[str]:
        found = []
        for name, ledger in zip(self.names, self.ledgers, strict=True):
            wrong = {
                key: ledger[key]
                for key in ("missing", "duplicates", "reordered", "corrupt")
                if ledger[key]
            }
            if wrong or ledger["received"] != self.count * self.stream_count:
                found.append(f"{name}: received {ledger['received']}, {wrong}")
        return found

    def report(self, title: str) -> str:
        lines = [f"{title}: {self.stream_count} streams of {self.count}"]
        for name, ledger in zip(self.names, self.ledgers, strict=True):
            lines.append(
                f"  {name}: {ledger['outcome']}, received {ledger['received']}, "
                f"missing {ledger['missing']}, {ledger['seconds']} s{_repairs(ledger)}"
            )
        lines += [
            f"  mcast publisher: {stats['naks_received']} NAKs, {stats['rdata_sent']} repairs, "
            f"{stats['naks_relayed']} relayed"
            for stats in self.publisher_stats
        ]
        return "\n".join(lines)


def _meet(
    lab: Lab,
    publishers: Sequence[tuple[Host, Peer]],
    subscribers: Sequence[tuple[Host, Peer]],
    *,
    interface: str,
    loss_percent: float,
    count: int = QUICK_COUNT,
) -> _Meeting:
    """Let every publisher send its own stream at the same time, paced so that they interleave."""
    numbers = [str(number) for number in range(len(publishers))]
    # One part each: a libzmq subscriber may join the parts of different publishers.
    common = ("--count", str(count), "--shape", "single")
    receiving = [
        peer.with_options(*common, "--streams", *numbers).start(host, "sub", interface=interface)
        for host, peer in subscribers
    ]
    sending = [
        peer.with_options(*common, "--interval-us", "500", "--stream", number).start(
            host, "pub", interface=interface
        )
        for number, (host, peer) in zip(numbers, publishers, strict=True)
    ]
    lab.lose_everywhere(loss_percent)
    for process in sending:
        process.tell("go")
    ledgers = [process.wait_json("summary", timeout_s=80) for process in receiving]
    stats = []
    for process, (_, peer) in zip(sending, publishers, strict=True):
        process.wait_json("sent", timeout_s=10)
        process.tell("quit")
        if peer.name == "mcast":
            stats.append(process.wait_json("stats", timeout_s=10))
    names = [f"{peer.name} on {host.address}" for host, peer in subscribers]
    return _Meeting(count, len(publishers), ledgers, stats, names)


def _repairs(ledger: dict[str, object]) -> str:
    stats = ledger.get("stats")
    if not isinstance(stats, dict):
        return ""
    return (
        f"  [{ledger['kernel']} kernel: {stats['repaired']} repaired, {stats['lost']} lost, "
        f"{stats['naks_sent']} NAKs, p50 {stats['repair_p50_s'] * 1e3:.0f} ms, "
        f"p99 {stats['repair_p99_s'] * 1e3:.0f} ms]"
    )
