"""Each check on a made-up machine: what it says of a fault, and the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mcast.doctor import (
    Finding,
    Machine,
    Severity,
    Subject,
    buffers,
    clock,
    container,
    examine,
    firewall,
    igmp,
    interface,
    kernels,
    mtu,
    offload,
    rp_filter,
    worst,
)
from mcast.endpoint import parse_endpoint
from mcast.net.interfaces import Interface
from mcast.net.survey import Link
from mcast.options import SocketOptions

pytestmark = pytest.mark.kernel_independent

LINK = Link(
    name="eth0",
    index=2,
    mtu_bytes=1500,
    is_up=True,
    has_carrier=True,
    is_loopback=False,
    has_multicast=True,
    gso=True,
    gro=True,
)
INTERFACE = Interface(
    name="eth0",
    index=2,
    address="10.77.0.1",
    prefix_length=24,
    mtu_bytes=1500,
    is_up=True,
    is_loopback=False,
    has_multicast=True,
)
SUBJECT = Subject(
    link=LINK,
    interface=INTERFACE,
    endpoint=parse_endpoint("epgm://eth0;239.192.1.1:5555"),
    options=SocketOptions(),
)


class Made(Machine):
    """A machine whose files are below a directory, and whose commands answer from a table."""

    def __init__(self, root: Path, answers: dict[str, str] | None = None) -> None:
        super().__init__(
            root=root,
            run=lambda *command: (answers or {}).get(command[0]),
            is_root=True,
            environment={},
        )
        self.granted = (4 << 20, 1 << 20)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def granted_buffers(self, rcvbuf_bytes: int, sndbuf_bytes: int) -> tuple[int, int]:
        return min(rcvbuf_bytes, self.granted[0]), min(sndbuf_bytes, self.granted[1])

    def links(self) -> list[Link]:
        return [LINK]

    def interfaces(self) -> list[Interface]:
        return [INTERFACE]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def only_fault(found: Iterator[Finding]) -> Finding:
    faults = [f for f in found if f.severity in (Severity.WARNING, Severity.BROKEN)]
    assert len(faults) == 1, faults
    return faults[0]


def severities(found: Iterator[Finding]) -> set[Severity]:
    return {finding.severity for finding in found}


def test_small_rmem_max_is_named_with_both_figures(made: Made) -> None:
    made.granted = (212_992, 212_992)
    made.write("/proc/sys/net/core/rmem_max", "212992\n")
    fault = only_fault(buffers.check(made, SocketOptions()))
    assert "4,194,304 bytes are asked for and 212,992 granted" in fault.text
    assert "rmem_max is 212,992" in fault.text
    assert fault.fix[0] == "sysctl -w net.core.rmem_max=4194304"


def test_small_wmem_max_is_named(made: Made) -> None:
    fault = only_fault(buffers.check(made, SocketOptions(sndbuf=8 << 20)))
    assert fault.fix[0] == "sysctl -w net.core.wmem_max=8388608"


def test_overflows_of_the_past_are_a_note(made: Made) -> None:
    made.write("/proc/net/snmp", "Udp: InDatagrams RcvbufErrors\nUdp: 10 7\n")
    notes = [f for f in buffers.check(made, SocketOptions()) if f.severity is Severity.NOTE]
    assert [note.text.split()[0] for note in notes] == ["7"]


@pytest.mark.parametrize(
    ("change", "severity", "fix"),
    [
        ({"is_up": False}, Severity.BROKEN, "ip link set dev eth0 up"),
        ({"has_carrier": False}, Severity.BROKEN, "ip link show dev eth0"),
        ({"has_multicast": False}, Severity.WARNING, "ip link set dev eth0 multicast on"),
    ],
)
def test_state_of_the_interface(
    made: Made, change: dict[str, bool], severity: Severity, fix: str
) -> None:
    subject = replace(SUBJECT, link=replace(LINK, **change))  # type: ignore[arg-type]
    fault = only_fault(interface.check(made, subject))
    assert (fault.severity, fault.fix) == (severity, (fix,))


def test_interface_without_an_address_is_broken(made: Made) -> None:
    fault = only_fault(interface.check(made, replace(SUBJECT, interface=None)))
    assert "no IPv4 address" in fault.text
    assert fault.fix[0].startswith("ip address add ")


def test_wifi_is_a_note(made: Made) -> None:
    made.write("/sys/class/net/eth0/wireless", "")
    assert severities(interface.check(made, SUBJECT)) == {Severity.OK, Severity.NOTE}


@pytest.mark.parametrize(
    ("everywhere", "here", "is_strict"),
    [("0", "1", True), ("1", "0", True), ("1", "1", True), ("1", "2", False), ("0", "0", False)],
)
def test_the_larger_rp_filter_counts(
    made: Made, everywhere: str, here: str, is_strict: bool
) -> None:
    made.write("/proc/sys/net/ipv4/conf/all/rp_filter", everywhere)
    made.write("/proc/sys/net/ipv4/conf/eth0/rp_filter", here)
    found = list(rp_filter.check(made, SUBJECT))
    assert [f.severity is Severity.WARNING for f in found] == [is_strict]
    if is_strict:
        assert found[0].fix == ("sysctl -w net.ipv4.conf.eth0.rp_filter=2",)


def test_what_rp_filter_has_dropped_is_told(made: Made) -> None:
    made.write("/proc/sys/net/ipv4/conf/all/rp_filter", "1")
    made.write("/proc/net/netstat", "TcpExt: A IPReversePathFilter\nTcpExt: 1 42\n")
    assert "dropped 42 packets" in only_fault(rp_filter.check(made, SUBJECT)).text


def test_tpdu_above_the_mtu_is_broken(made: Made) -> None:
    subject = replace(SUBJECT, options=SocketOptions(multicast_maxtpdu=9000))
    fault = only_fault(mtu.check(made, subject))
    assert (fault.severity, fault.fix) == (Severity.BROKEN, ("ip link set dev eth0 mtu 9000",))


def test_mtu_below_the_usual_tpdu_is_a_warning(made: Made) -> None:
    fault = only_fault(mtu.check(made, replace(SUBJECT, link=replace(LINK, mtu_bytes=1400))))
    assert (fault.severity, fault.fix) == (Severity.WARNING, ("ip link set dev eth0 mtu 1500",))


def test_old_igmp_is_a_warning_where_a_source_is_wanted(made: Made) -> None:
    made.write("/proc/net/igmp", "Idx\tDevice    : Count Querier\n2\teth0      :     3      V2\n")
    assert severities(igmp.check(made, SUBJECT)) == {Severity.NOTE}
    endpoint = parse_endpoint("epgm://eth0;10.77.0.9@232.1.2.3:5555")
    made.write("/proc/sys/net/ipv4/conf/eth0/force_igmp_version", "2\n")
    fault = only_fault(igmp.check(made, replace(SUBJECT, endpoint=endpoint)))
    assert fault.fix[0] == "sysctl -w net.ipv4.conf.eth0.force_igmp_version=0"


def bridge_answer(**data: int) -> dict[str, str]:
    link = {"linkinfo": {"info_kind": "bridge", "info_data": {"mcast_snooping": 1, **data}}}
    return {"ip": json.dumps([link])}


def test_bridge_that_snoops_without_a_querier_is_a_warning(tmp_path: Path) -> None:
    fault = only_fault(igmp.check(Made(tmp_path, bridge_answer(mcast_querier=0)), SUBJECT))
    assert "260 s" in fault.text
    assert fault.fix == ("ip link set dev eth0 type bridge mcast_querier 1",)
    for data in ({"mcast_querier": 1}, {"mcast_snooping": 0}):
        assert severities(igmp.check(Made(tmp_path, bridge_answer(**data)), SUBJECT)) == {
            Severity.OK
        }


def test_querier_is_read_from_an_igmp_packet_and_from_nothing_else() -> None:
    head = bytes([0x46, 0, 0, 32]) + bytes(8) + bytes([10, 0, 0, 1]) + bytes([224, 0, 0, 1])
    query = head + bytes(4) + bytes([0x11, 100]) + bytes(6)
    assert igmp.querier_of(query) == "10.0.0.1"
    report = query[:24] + b"\x22" + query[25:]
    for packet in (report, query[:24], query[:31], b"", bytes(40), bytes([0x4F]) + query[1:]):
        assert igmp.querier_of(packet) is None


def nft(*expressions: object, policy: str = "accept") -> dict[str, str]:
    home = {"family": "inet", "table": "filter"}
    chain = {**home, "name": "input", "hook": "input", "policy": policy}
    rule = {**home, "chain": "input", "expr": expressions}
    return {"nft": json.dumps({"nftables": [{"chain": chain}, {"rule": rule}]})}


def test_firewall_drop_is_named_with_the_rule_that_mends_it(tmp_path: Path) -> None:
    port = {"left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 5555, "op": "=="}
    found = list(firewall.check(Made(tmp_path, nft({"match": port}, {"drop": None})), SUBJECT))
    assert [f.severity for f in found] == [Severity.BROKEN] * 2  # the data, and the requests
    assert found[0].fix == (
        "nft insert rule inet filter input ip daddr 239.192.1.1 udp dport 5555 accept",
    )
    assert found[1].fix == (
        "nft insert rule inet filter input ip daddr 10.77.0.1 udp dport 5555 accept",
    )


def test_iptables_policy_is_named_in_its_own_words(tmp_path: Path) -> None:
    answers = {"iptables": "-P INPUT DROP\n-P OUTPUT ACCEPT\n"}
    found = list(firewall.check(Made(tmp_path, answers), SUBJECT))
    assert found[0].fix == ("iptables -I INPUT -d 239.192.1.1 -p udp --dport 5555 -j ACCEPT",)
    assert found[2].fix == ("iptables -I INPUT -p igmp -j ACCEPT",)


def test_firewall_is_not_looked_at_without_root(made: Made) -> None:
    made.is_root = False
    assert severities(firewall.check(made, SUBJECT)) == {Severity.NOTE}


def test_slow_clock_source_is_a_warning(made: Made) -> None:
    folder = "/sys/devices/system/clocksource/clocksource0"
    made.write(f"{folder}/current_clocksource", "hpet\n")
    made.write(f"{folder}/available_clocksource", "hpet tsc acpi_pm\n")
    fault = only_fault(clock.check(made, SocketOptions()))
    assert fault.fix == (f"echo tsc > {folder}/current_clocksource",)
    made.write(f"{folder}/current_clocksource", "tsc\n")
    assert severities(clock.check(made, SocketOptions())) == {Severity.OK}


@pytest.mark.parametrize(
    ("path", "text", "name"),
    [
        ("/.dockerenv", "", "docker"),
        ("/run/.containerenv", "", "podman"),
        ("/proc/1/cgroup", "0::/kubepods/pod1\n", "kubepods"),
    ],
)
def test_container_is_detected(made: Made, path: str, text: str, name: str) -> None:
    assert severities(container.check(made, SocketOptions())) == {Severity.OK}
    made.write(path, text)
    (found,) = container.check(made, SocketOptions())
    assert f"({name})" in found.text


def test_offloads_that_are_off_are_named(made: Made) -> None:
    fault = only_fault(offload.check(made, replace(SUBJECT, link=replace(LINK, gso=False))))
    assert fault.fix == ("ethtool -K eth0 gso on",)
    unknown = replace(SUBJECT, link=replace(LINK, gso=None, gro=None))
    assert list(offload.check(made, unknown)) == []


@pytest.mark.parametrize(
    ("name", "environment", "fix"),
    [
        ("reference", {}, "MCAST_NATIVE=require pip install"),
        ("reference", {"MCAST_KERNEL": "reference"}, "unset MCAST_KERNEL"),
        ("native", {}, None),
    ],
)
def test_reference_kernel_is_a_warning(
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    environment: dict[str, str],
    fix: str | None,
) -> None:
    monkeypatch.setattr("mcast.kernel.NAME", name)
    made.environment = environment
    if fix is None:
        assert Severity.WARNING not in severities(kernels.check(made, SocketOptions()))
    else:
        assert fix in only_fault(kernels.check(made, SocketOptions())).fix[0]


def test_a_machine_that_shows_nothing_makes_no_check_fail(made: Made) -> None:
    found = list(examine(machine=made))
    assert worst(found) in Severity
    assert {finding.check for finding in found} >= {"interface", "mtu", "buffers", "kernel"}


def test_worst_of_nothing_is_ok() -> None:
    assert worst([]) is Severity.OK
    warning = Finding("x", Severity.WARNING, "y")
    assert worst([Finding("x", Severity.NOTE, "y"), warning]) is Severity.WARNING
