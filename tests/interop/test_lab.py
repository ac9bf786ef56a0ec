"""The laboratory does what it is told, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netlab import NAK, ODATA, Host, Lab, LabError, lab_or_skip

pytestmark = [pytest.mark.namespace, pytest.mark.kernel_independent]

# Datagrams with the given PGM type at its place; TTL 1 and the interface's own address, as ours.
_SEND = """
import socket, sys
address, target, count, types = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind((address, 0))
    for number in range(count):
        kind = int(types[number % len(types)])
        sender.sendto(bytes(4) + bytes([kind]) + bytes(11), (target, 7500))
"""

_SEND_RUN = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
    sender.sendto(bytes(40_000), (sys.argv[1], 7500))
"""

_GROUP = "239.192.1.1"


def send(source: Host, target: str, count: int, *types: int) -> None:
    kinds = ",".join(map(str, types))
    source.run([sys.executable, "-c", _SEND, source.address, target, str(count), kinds])


def arrived(host: Host) -> int:
    """Datagrams that came as far as UDP; nobody listens, so they are counted under NoPorts."""
    return host.udp_counters()["NoPorts"]


def test_loss_by_type_strikes_that_type_only() -> None:
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        fault = target.lose(pgm_type=NAK)
        send(source, target.address, 200, NAK, ODATA)
        assert fault.dropped == 100
        assert arrived(target) == 100


def test_random_loss_is_near_its_percentage() -> None:
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        fault = target.lose(percent=10)
        send(source, target.address, 5_000, ODATA)
        # 500 expected; six standard deviations of the binomial are 127.
        assert 373 < fault.dropped < 627
        assert arrived(target) == 5_000 - fault.dropped


def test_a_fault_on_one_host_leaves_the_other_alone() -> None:
    with lab_or_skip(3) as lab:
        source, struck, spared = lab.hosts
        with struck.blackout() as fault:
            send(source, struck.address, 50, ODATA)
            send(source, spared.address, 50, ODATA)
        send(source, struck.address, 7, ODATA)
        assert (fault.dropped, arrived(struck), arrived(spared)) == (50, 7, 50)


def test_a_fault_from_one_source_spares_the_others() -> None:
    with lab_or_skip(3) as lab:
        first, second, target = lab.hosts
        fault = target.lose(source=first)
        send(first, target.address, 20, ODATA)
        send(second, target.address, 20, ODATA)
        assert (fault.dropped, arrived(target)) == (20, 20)


def test_multicast_with_ttl_1_crosses_the_bridge_and_is_captured(tmp_path: Path) -> None:
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        path = tmp_path / "group.pcap"
        with target.capture(path, port=7500) as capture:
            send(source, _GROUP, 300, ODATA)
        assert capture.missed == 0
        assert _packets_in(path) == 300


@pytest.mark.parametrize("interface", ["eth0", "lo"])
def test_a_gso_run_is_cut_into_datagrams_before_the_wire(tmp_path: Path, interface: str) -> None:
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        if interface == "lo":
            source = target
        path = tmp_path / "run.pcap"
        fault = target.lose()
        with target.capture(path, port=7500, interface=interface):
            source.run([sys.executable, "-c", _SEND_RUN, target.address])
        assert (fault.dropped, _packets_in(path)) == (40, 40)


def test_nothing_is_left_after_a_failure_inside(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(ZeroDivisionError), lab_or_skip(2) as lab:
        process = lab.hosts[0].start([sys.executable, "-c", "import time; time.sleep(600)"])
        _ = 1 // 0
    assert process.poll() is not None
    assert lab.name not in _namespaces()
    assert "time.sleep(600)" in capsys.readouterr().out


def test_the_lab_of_a_dead_process_is_cleared_away(tmp_path: Path) -> None:
    with lab_or_skip(1):
        pass
    program = (
        "import os\n"
        "from tests.netlab import Lab\n"
        "lab = Lab(1).__enter__()\n"
        "lab.hosts[0].start(['sleep', '600'])\n"
        "print(lab.name, flush=True)\n"
        "os._exit(0)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(tmp_path)},
    )
    dead = done.stdout.strip()
    assert dead in _namespaces()
    with Lab(1):
        assert dead not in _namespaces()


def test_a_process_that_says_nothing_is_reported_with_its_stderr() -> None:
    with lab_or_skip(1) as lab:
        process = lab.hosts[0].start(
            [sys.executable, "-c", "import sys; sys.stderr.write('my reason')"]
        )
        with pytest.raises(LabError, match="my reason"):
            process.wait_json("ready", timeout_s=5)


def _packets_in(path: Path) -> int:
    done = subprocess.run(["tcpdump", "-n", "-r", path], capture_output=True, text=True, check=True)
    return len(done.stdout.splitlines())


def _namespaces() -> str:
    return subprocess.run(
        ["ip", "netns", "list"], capture_output=True, text=True, check=True
    ).stdout
