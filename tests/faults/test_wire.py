"""Rows 9, 10, 12, 20 to 24, 47 and 48: what happens on the wire beside loss, and to interfaces."""

from __future__ import annotations

import re
import sys
import time

import pytest

from tests.faults.runs import RATE, flow, missing, source, stat
from tests.netlab import Host, Lab, lab_or_skip
from tests.support.figures import SECONDS, figure, times
from tests.support.transfer import GROUP, PORT, mcast_peer

pytestmark = [pytest.mark.namespace, pytest.mark.slow, pytest.mark.kernel_independent]

_NOISE = """
import random, socket, sys
dice = random.Random(1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind((sys.argv[1], 0))
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
    for number in range(int(sys.argv[4])):
        sender.sendto(dice.randbytes(dice.randrange(1, 400)), (sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.parametrize("depth", [3, 50, 500])
def test_reordered_packets_are_put_in_order(depth: int) -> None:
    with lab_or_skip(2) as lab:
        receiver = lab.hosts[1]
        harm = {"reorder": 10, "depth": depth, "pgm_types": [4]}
        with receiver.relay(inbound=harm, outbound={}, seed=depth) as relay:
            done = flow(lab)
    reordered = relay.tally["inbound"]["reordered"]
    share = stat(done, "nak_sqns_sent") / reordered
    figure(
        "9",
        f"depth {depth}: {missing(done)} LOST, NAKs for {share:.1%} of {reordered} reordered",
        met=not missing(done) and (depth > 3 or share <= 0.01),
    )
    assert not missing(done)
    assert reordered > 0.05 * RATE * SECONDS
    if depth == 3:
        # A machine that stops the relay for a while makes any reordering longer.
        assert share <= 0.05


@pytest.mark.parametrize("percent", [1, 10])
def test_corrupted_packets_are_repaired_like_lost_ones(percent: int) -> None:
    with lab_or_skip(2) as lab:
        receiver = lab.hosts[1]
        with receiver.relay(inbound={"corrupt": percent}, outbound={}, seed=percent) as relay:
            done = flow(lab)
    struck = relay.tally["inbound"]["corrupted"]
    figure(
        "10",
        f"{percent} %: {struck} packets changed, {stat(done, 'malformed_checksum')} of them seen "
        f"by the checksum, 0 delivered changed, {missing(done)} LOST",
    )
    assert struck > 0
    assert not missing(done)
    assert stat(done, "malformed") >= 0.95 * struck


@pytest.mark.parametrize(("delay_ms", "jitter_ms"), [(1, 0), (50, 0), (500, 0), (0, 100)])
def test_delay_and_jitter_lose_nothing(delay_ms: int, jitter_ms: int) -> None:
    harm = {"delay_ms": delay_ms, "jitter_ms": jitter_ms}
    with lab_or_skip(2) as lab:
        receiver = lab.hosts[1]
        with receiver.relay(inbound=harm, outbound=harm):
            done = flow(lab, rate=2_000)
    again = source(done, "rdata_sent") / source(done, "odata_sent")
    figure(
        "12",
        f"{delay_ms} ms, jitter {jitter_ms} ms: {missing(done)} LOST, {again:.1%} repaired for "
        "nothing",
        met=not missing(done) and again <= 0.05,
    )
    assert not missing(done)


def test_a_full_kernel_buffer_is_counted_and_repaired() -> None:
    with lab_or_skip(2) as lab:
        receiver = lab.hosts[1]
        # The application sleeps while bursts come, and the loop is kept from reading by a holder of
        # the interpreter lock: so the buffer fills.
        done = flow(lab, sub=("--option", "rcvbuf=65536", "--hold-ms", "100"))
        errors = receiver.udp_counters()["RcvbufErrors"]
    counted = stat(done, "rcvbuf_overflows")
    figure("20", f"{missing(done)} LOST; counted {counted} drops, the kernel {errors}")
    assert errors > 0
    assert not missing(done)
    assert counted == errors


def test_a_full_send_buffer_loses_nothing() -> None:
    with lab_or_skip(2) as lab:
        sender = lab.hosts[0]

        def narrow() -> None:
            # 2,000 packets a second take 5.2 Mbit/s, so the sender has to wait for this link.
            sender.ip("link", "set", "dev", sender.interface, "txqueuelen", "10")
            tbf = "tc qdisc add dev eth0 root tbf rate 4mbit burst 1600 limit 6000"
            sender.run(tbf.split())

        done = flow(lab, rate=2_000, pub=("--option", "sndbuf=4608"), strike=narrow)
        text = sender.run(["tc", "-s", "qdisc", "show", "dev", "eth0"]).stdout
    found = re.search(r"dropped (\d+), overlimits (\d+)", text)
    assert found is not None
    figure(
        "21",
        f"4 Mbit/s link, 4.6 kB send buffer: {missing(done)} LOST, queue dropped {found[1]}, held "
        f"back {found[2]} times, {source(done, 'rdata_sent')} repairs",
    )
    assert int(found[2]) > 100
    assert not missing(done)


def test_an_interface_that_goes_down_and_up_loses_nothing() -> None:
    up_at = 0.0
    counts = []
    with lab_or_skip(2) as lab:
        receiver = lab.hosts[1]

        def unplug() -> None:
            nonlocal up_at
            time.sleep(0.3)
            for down_s in (3.0, *(0.05,) * 19):
                receiver.ip("link", "set", "eth0", "down")
                time.sleep(down_s)
                receiver.ip("link", "set", "eth0", "up")
                up_at = up_at or time.monotonic()
                time.sleep(1.0 if down_s == 3.0 else 0.02)
                counts.append(_descriptors(receiver))

        done = flow(lab, rate=1_000, seconds=8, during=unplug)
    progress = done.ledgers[0]["progress"]
    assert isinstance(progress, list)
    live_s = next(at for at, _ in progress if at > up_at) - up_at
    figure(
        "22",
        f"down 3 s, then 19 times 50 ms: {missing(done)} LOST, first message {live_s:.2f} s after "
        f"up, descriptors {counts[0]} to {counts[-1]}",
        met=not missing(done) and live_s <= 1 and counts[0] == counts[-1],
    )
    assert not missing(done)
    assert counts[0] == counts[-1]
    assert live_s <= 2


def _descriptors(host: Host) -> int:
    return len(host.run(["ls", f"/proc/{host.processes[-1].pid}/fd"]).stdout.split())


def test_a_receiver_that_is_renumbered_goes_on() -> None:
    with lab_or_skip(2) as lab:
        receiver = lab.hosts[1]

        def renumber() -> None:
            time.sleep(0.5)
            receiver.ip("addr", "add", "10.77.0.99/24", "dev", "eth0")
            receiver.ip("addr", "del", f"{receiver.address}/24", "dev", "eth0")
            receiver.ip("addr", "replace", "10.77.0.99/24", "dev", "eth0")
            receiver.ip("route", "replace", "224.0.0.0/4", "dev", "eth0")

        done = flow(
            lab,
            rate=1_000,
            seconds=3,
            loss_percent=2,
            sub=("--option", "repair_deadline=1"),
            during=renumber,
        )
    figure(
        "23",
        f"receiver gets another address in the stream, 2 % loss: {missing(done)} LOST, longest "
        f"stall {float(str(done.ledgers[0]['lag_max_s'])):.2f} s",
        met=not missing(done),
    )
    assert not missing(done)


@pytest.mark.timeout(600)
def test_snooping_with_a_querier_keeps_the_group_and_without_one_floods() -> None:
    with_querier_s, without_s = times(4, 300), 4
    with Lab(2, snooping=True) as lab:
        bridge = "/sys/devices/virtual/net/sw/bridge/"
        settings = {
            "query_interval": 50,
            "query_response_interval": 20,
            "startup_query_interval": 50,  # the kernel makes a second of each
            "membership_interval": 150,
            "querier": 1,
        }
        words = "".join(f"echo {v} > {bridge}multicast_{k};" for k, v in settings.items())
        _in_bridge(lab, words)

        def age() -> None:
            time.sleep(with_querier_s)
            _in_bridge(lab, f"echo 0 > {bridge}multicast_querier")

        whole_s = with_querier_s + without_s
        done = flow(lab, rate=500, seconds=whole_s, during=age, timeout_s=whole_s + 60)
    figure(
        "24",
        f"membership ages out after 1.5 s; {with_querier_s} s with a querier, {without_s} s "
        f"without: {missing(done)} LOST, "
        f"longest stall {float(str(done.ledgers[0]['lag_max_s'])):.2f} s",
    )
    assert not missing(done)


def test_a_group_that_no_longer_arrives_is_reported_quiet() -> None:
    """As when a switch has forgotten the membership, and nobody asks for it anew."""
    cut_s = 4.0
    with lab_or_skip(2) as lab:

        def cut() -> None:
            time.sleep(0.5)
            with lab.hosts[1].blackout():
                time.sleep(cut_s)

        done = flow(lab, rate=500, seconds=6, during=cut)
    quiet, heard = done.events[0][1:]
    quiet_s, heard_s = (float(str(event["silent_s"])) for event in (quiet, heard))
    figure(
        "24",
        f"nothing arrives for {cut_s:.0f} s: PeerQuiet after {quiet_s:.1f} s, PeerHeard after "
        f"{heard_s:.1f} s, {missing(done)} LOST",
        met=quiet_s <= 3.2 and not missing(done),
    )
    assert (quiet["kind"], heard["kind"]) == ("PeerQuiet", "PeerHeard")
    assert 3.0 <= quiet_s < cut_s
    assert not missing(done)


def _in_bridge(lab: Lab, script: str) -> None:
    from tests.netlab.commands import run

    run(["ip", "netns", "exec", lab.bridge, "sh", "-c", f"mount -t sysfs sysfs /sys; {script}"])


def test_a_smaller_mtu_is_kept_to() -> None:
    with lab_or_skip(2, mtu=1200) as lab:
        publisher, receiver = lab.hosts
        shape = ("--count", "2000", "--shape", "mixed", "--timeout", "30")
        sub = mcast_peer(*shape).start(receiver, "sub")
        pub = mcast_peer(*shape, "--interval-us", "200").start(publisher, "pub")
        time.sleep(0.3)
        pub.tell("go")
        ledger = sub.wait_json("summary", timeout_s=40)
        fragments = _ip_counter(publisher, "FragCreates")
    figure("47", f"MTU 1,200: {ledger['missing']} LOST, {fragments} IP fragments made")
    assert ledger["missing"] == ledger["corrupt"] == 0
    assert fragments == 0


def _ip_counter(host: Host, name: str) -> int:
    lines = host.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Ip:"))
    return dict(zip(names, map(int, values), strict=True))[name]


def test_other_traffic_on_group_and_port_is_counted_and_not_delivered() -> None:
    with lab_or_skip(3) as lab:
        other = lab.hosts[2]

        def noise() -> None:
            for group in (GROUP, "239.192.9.9"):
                other.run([sys.executable, "-c", _NOISE, other.address, group, str(PORT), "2000"])

        # A foreign socket on the receiver's host that joins another group on the same port.
        join = (
            "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
            f"s.bind(('239.192.9.9', {PORT}));"
            "s.setsockopt(0, socket.IP_ADD_MEMBERSHIP, socket.inet_aton('239.192.9.9') + "
            "socket.inet_aton('10.77.0.2')); print('{\"event\": \"ready\"}', flush=True);"
            "time.sleep(60)"
        )
        foreign = lab.hosts[1].start([sys.executable, "-c", join])
        foreign.wait_json("ready", timeout_s=10)
        done = flow(lab, during=noise)
    bad = stat(done, "malformed") + stat(done, "polls_ignored")
    figure(
        "48",
        f"2,000 foreign packets to the group: {bad} counted, 0 delivered; of 2,000 to another "
        "group, joined on the same host and port, 0 seen",
        met=bad == 2_000,
    )
    assert not missing(done)
    assert bad == 2_000
