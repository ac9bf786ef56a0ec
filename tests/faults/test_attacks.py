"""Attacks by whoever can send to the group, on real sockets, with an honest pair running beside.

The attacker has a host of its own; the honest publisher and subscriber run the standard workload.
S-numbers are those of the threat model; the page docs/reference/fault-matrix.md lists them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.faults.runs import ONE_PER_PACKET, flow, missing, source, stat
from tests.netlab import ODATA, Fault, Host, Lab, Process, lab_or_skip
from tests.support.figures import figure
from tests.support.transfer import GROUP, PORT, Transfer, mcast_peer

pytestmark = [pytest.mark.namespace, pytest.mark.slow, pytest.mark.kernel_independent]

ATTACKER = str(Path(__file__).with_name("attacker.py"))


class Attack:
    """The third host sends forged packets while the first two run the workload."""

    def __init__(self, hosts: list[Host], kind: str, rate: float) -> None:
        self.hosts, self.kind, self.rate = hosts, kind, rate
        self.sent: dict[str, object] = {}
        self.rss_bytes = [0, 0]
        self._process: Process | None = None

    def start(self) -> list[Fault]:
        publisher, subscriber, attacker = self.hosts
        joined = next(
            line for line in _events(subscriber.processes[0]) if line["kind"] == "PeerJoined"
        )
        gsi, _, port = str(joined["tsi"]).partition(".")
        target = gsi + int(port).to_bytes(2, "big").hex()
        self.rss_bytes = [_rss(publisher.processes[-1]), _rss(subscriber.processes[0])]
        words = [self.kind, attacker.address, GROUP, str(PORT), target, str(self.rate)]
        self._process = attacker.start([sys.executable, ATTACKER, *words])
        return []

    def stop(self) -> None:
        assert self._process is not None
        publisher, subscriber, _ = self.hosts
        self.rss_bytes = [
            _rss(process) - before
            for process, before in zip(
                (publisher.processes[-1], subscriber.processes[0]), self.rss_bytes, strict=True
            )
        ]
        self._process.tell("quit")
        self.sent = self._process.wait_json("sent", timeout_s=20)

    @property
    def count(self) -> int:
        assert isinstance(self.sent["count"], int)
        return self.sent["count"]


def attacked(
    kind: str, rate: float, *, seconds: float = 4, pub: tuple[str, ...] = (), lossy: bool = False
) -> tuple[Transfer, Attack]:
    with lab_or_skip(3) as lab:
        attack = Attack(list(lab.hosts), kind, rate)

        def strike() -> list[Fault]:
            attack.start()
            return [lab.hosts[1].lose(pgm_type=ODATA, percent=1)] if lossy else []

        def during() -> None:
            time.sleep(seconds - 0.5)
            attack.stop()

        # The attacker's host has no subscriber.
        done = flow(
            lab, hosts=lab.hosts[1:2], seconds=seconds, pub=pub, strike=strike, during=during
        )
    return done, attack


def _rss(process: Process) -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * 4096


def _events(process: Process) -> list[dict[str, object]]:
    return [process.wait_json("event", timeout_s=10)]


def test_s2_garbage_harms_no_message() -> None:
    done, attack = attacked("garbage", 20_000)
    lag_ms = float(str(done.ledgers[0]["lag_p99_s"])) * 1e3
    seen = stat(done, "malformed") + stat(done, "polls_ignored")
    figure(
        "S2",
        f"{attack.count / 3.5:,.0f} bad packets/s beside 5,000 messages/s: {missing(done)} LOST, "
        f"p99 lag {lag_ms:.1f} ms, {seen} counted",
        met=not missing(done),
    )
    assert not missing(done)
    assert seen > 10_000


def test_s3_forged_sources_cost_little_memory() -> None:
    # The publisher's window, which fills meanwhile, shall not grow into the figure.
    small = ("--option", "txw_bytes=1500000")
    done, attack = attacked("tsis", 20_000, seconds=6, pub=small)
    publisher_mib, subscriber_mib = (grown / 2**20 for grown in attack.rss_bytes)
    grown = max(publisher_mib, subscriber_mib)
    figure(
        "S3",
        f"{attack.count:,} forged TSIs in 6 s: subscriber's RSS +{subscriber_mib:.1f} MiB, "
        f"publisher's +{publisher_mib:.1f} MiB, honest {missing(done)} LOST, "
        f"{stat(done, 'peers_refused')} refused",
        met=grown <= 8 and not missing(done),
    )
    assert not missing(done)
    assert stat(done, "peers_refused") > 10_000
    assert grown <= 8


def test_s5_forged_naks_never_exceed_the_repairs_budget() -> None:
    bits, share = 20e6, 0.25
    rate = ("--option", f"rate={bits:.0f}", "--option", f"repair_share={share}")
    done, attack = attacked("naks", 20_000, seconds=5, pub=rate)
    spent = source(done, "rdata_bytes_sent") * 8
    budget = bits * share * done.seconds + 256 * 1024 * 8
    figure(
        "S5",
        f"{attack.count / 4.5:,.0f} forged NAKs/s of 63 numbers: repairs "
        f"{spent / done.seconds / 1e6:.1f} Mbit/s (budget {bits * share / 1e6:.0f}), "
        f"{attack.sent['bytes']} bytes in, {spent // 8} out, honest {missing(done)} LOST",
        met=spent <= budget and not missing(done),
    )
    assert source(done, "naks_received") > 10_000
    assert spent <= budget
    assert not missing(done)


def test_s8_a_forged_lead_does_not_silence_the_source() -> None:
    done, _ = attacked("spms", 200)
    own, *others = (f"{event['kind']} from {event.get('address')}" for event in done.events[0])
    figure(
        "S8",
        f"SPMs of its TSI from another host, 2^30 ahead: honest {missing(done)} LOST; {own} is its "
        f"own event, beside it {len(others)}: {', '.join(others)}",
        met=not missing(done) and len(others) == 1,
    )
    assert not missing(done)
    assert len(set(others)) == len(others) == 1
    assert own not in others


def test_s9_forged_ncfs_delay_repairs_but_do_not_prevent_them() -> None:
    done, _ = attacked("ncfs", 2_000, lossy=True)
    p99_ms = stat(done, "repair_p99_s") * 1e3
    figure(
        "S9",
        f"2,000 forged NCFs/s from another host, 1 % loss: {missing(done)} LOST, "
        f"p99 {p99_ms:.0f} ms (bar 150)",
        met=p99_ms <= 150,
    )
    assert not missing(done)
    assert p99_ms <= 300


def test_s14_nodes_do_not_answer_each_other_for_ever() -> None:
    shape = ("--count", "0", "--shape", "fixed:256")
    with lab_or_skip(3) as lab:
        first, second, attacker = lab.hosts
        mcast_peer(*shape, *ONE_PER_PACKET).start(first, "pub")
        mcast_peer(*shape, *ONE_PER_PACKET).start(second, "pub")
        time.sleep(1.5)
        before = _out(lab)
        time.sleep(2.0)
        quiet = _out(lab) - before
        words = ["naks", attacker.address, GROUP, str(PORT), "00" * 8, "500"]
        process = attacker.start([sys.executable, ATTACKER, *words])
        time.sleep(1.5)
        process.tell("quit")
        sent = process.wait_json("sent", timeout_s=10)
        assert sent["count"]
        before = _out(lab)
        time.sleep(2.0)
        after = _out(lab) - before
    figure(
        "S14", f"{sent['count']} forged NAKs at two publishers: {after - quiet} packets more in 2 s"
    )
    assert after - quiet <= 5


def _out(lab: Lab) -> int:
    return sum(host.udp_counters()["OutDatagrams"] for host in lab.hosts[:2])
