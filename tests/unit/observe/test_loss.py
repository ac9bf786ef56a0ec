"""What got lost is attributed to one cause each, and the kernel's files are read as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.observe import ContextStatus, Rate, SocketStatus
from mcast.observe.host import HostDrops, host_drops, parse_dev, parse_snmp, parse_udp_drops
from mcast.observe.loss import Cause, Finding, attribute

pytestmark = pytest.mark.kernel_independent

SOCKET = SocketStatus(1, "SUB", (), {})
CONTEXT = ContextStatus("/a", 7, "x", "native", "thread", 1, 0, 1.0, (SOCKET,))


def found(nic: int | None = None, **grown: int) -> Finding:
    return attribute(Rate(CONTEXT, SOCKET, 1.0, dict(grown)), nic)


def test_what_nobody_near_has_dropped_was_lost_in_the_network() -> None:
    finding = found(repaired=7, lost=3)
    assert finding.causes[Cause.NETWORK] == 10
    assert finding.has_lost


def test_the_certain_causes_come_first() -> None:
    finding = found(5, repaired=20, dropped_for_test=4, rxw_full=3, rcvbuf_overflows=2)
    assert list(finding.causes.values()) == [4, 3, 2, 5, 6]
    assert not finding.has_lost  # all were repaired


def test_a_slow_application_is_told_from_lost_packets() -> None:
    finding = found(queue_refused=8)
    assert (finding.missed, finding.refused, finding.has_lost) == (0, 8, True)


counts = st.integers(0, 1000)


@given(counts, counts, counts, counts, counts, st.none() | counts)
def test_causes_add_up_to_what_was_missed(
    repaired: int, lost: int, test: int, full: int, overflows: int, nic: int | None
) -> None:
    finding = found(
        nic,
        repaired=repaired,
        lost=lost,
        dropped_for_test=test,
        rxw_full=full,
        rcvbuf_overflows=overflows,
    )
    assert sum(finding.causes.values()) == finding.missed == repaired + lost
    assert min(finding.causes.values()) >= 0


SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Udp: InDatagrams NoPorts RcvbufErrors InCsumErrors
Udp: 100 2 30 4
UdpLite: InDatagrams NoPorts RcvbufErrors InCsumErrors
UdpLite: 9 9 9 9
"""
UDP = """\
 sl local_address rem_address st tx_queue rx_queue ... uid timeout inode ref pointer drops
 102: 0101C0EF:15B3 0:0 07 0:0 00:0 0 0 0 4711 2 0 17
"""
DEV = """\
Inter-| Receive | Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes
 eth0: 1000 10 1 2 3 4 0 0 0 0 0 0 0 0 0 0
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    net = tmp_path / "proc" / "7" / "net"
    net.mkdir(parents=True)
    (net / "snmp").write_text(SNMP)
    (net / "snmp6").write_text("Udp6RcvbufErrors                \t5\nIp6InReceives 3\n")
    (net / "udp").write_text(UDP)
    (net / "dev").write_text(DEV)
    fds = tmp_path / "proc" / "7" / "fd"
    fds.mkdir()
    (fds / "3").symlink_to("socket:[4711]")
    (fds / "4").symlink_to("/dev/null")
    statistics = tmp_path / "sys" / "class" / "net" / "eth0" / "statistics"
    statistics.mkdir(parents=True)
    for name, count in {"rx_packets": 10, "rx_dropped": 1, "rx_missed_errors": 6}.items():
        (statistics / name).write_text(f"{count}\n")
    return tmp_path


def drops(machine: Path) -> HostDrops:
    return host_drops(7, proc=machine / "proc", sys=machine / "sys")


def test_the_kernel_s_files_are_read(machine: Path) -> None:
    seen = drops(machine)
    assert seen.udp["RcvbufErrors"] == 35
    assert seen.udp["InCsumErrors"] == 4
    assert seen.process_drops == 17
    assert seen.nics == {"eth0": {"rx_dropped": 1, "rx_missed_errors": 6}}
    assert seen.nic_total("eth0") == 7
    assert seen.nic_total("eth9") == 0


def test_interfaces_of_another_namespace_are_not_taken_for_these(machine: Path) -> None:
    (machine / "sys/class/net/eth0/statistics/rx_packets").write_text("99999\n")
    assert drops(machine).nics == {"eth0": {"rx_errors": 1, "rx_dropped": 2, "rx_fifo_errors": 3}}


def test_only_what_came_after_counts(machine: Path) -> None:
    before = drops(machine)
    (machine / "proc/7/net/snmp").write_text(SNMP.replace("Udp: 100 2 30 4", "Udp: 100 2 42 4"))
    since = drops(machine).since(before)
    assert since.udp == {"RcvbufErrors": 12, "InCsumErrors": 0, "SndbufErrors": 0, "MemErrors": 0}
    assert since.nic_total("eth0") == since.process_drops == 0


def test_a_process_that_has_gone_dropped_nothing(tmp_path: Path) -> None:
    assert host_drops(7, proc=tmp_path, sys=tmp_path).process_drops == 0


@given(st.text())
def test_files_of_another_form_say_nothing(text: str) -> None:
    parse_snmp(text)
    parse_udp_drops(text)
    parse_dev(text)
    assert parse_dev(f"head\n{text.replace(':', '')}") == {}
