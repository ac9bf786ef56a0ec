"""Faults beyond loss: copies, damage, the seeded relay, and scenarios read from a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.netlab import Host, lab_or_skip
from tests.netlab.scenario import Scenario, ScenarioError

pytestmark = [pytest.mark.namespace, pytest.mark.kernel_independent]

ROOT = Path(__file__).resolve().parents[2]

# Numbered datagrams, 1 ms apart where asked.
_SEND = """
import socket, sys, time
address, target, count, pause_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind((address, 0))
    for number in range(count):
        sender.sendto(number.to_bytes(4, "big") + bytes(60), (target, 7500))
        time.sleep(pause_s)
"""

# Says the number of each datagram with its length, or that it is damaged, until half a second is
# quiet.
_TAKE = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
    receiver.bind(("", 7500))
    receiver.settimeout(5)
    print('{"event": "ready"}', flush=True)
    try:
        while True:
            data = receiver.recv(2048)
            receiver.settimeout(0.5)
            whole = not any(data[4:])
            print(int.from_bytes(data[:4], "big"), len(data), "whole" if whole else "damaged")
    except TimeoutError:
        print("end", flush=True)
"""

Arrival = tuple[int, int, str]


def through(source: Host, target: Host, count: int, pause_s: float = 0.0) -> list[Arrival]:
    """What arrives of ``count`` datagrams, in order."""
    taker = target.start([sys.executable, "-c", _TAKE])
    taker.wait_json("ready", timeout_s=10)
    arguments = [source.address, target.address, str(count), str(pause_s)]
    source.run([sys.executable, "-c", _SEND, *arguments])
    arrivals = []
    while (line := taker.read_line(timeout_s=10)) != "end":
        assert line is not None
        number, size, state = line.split()
        arrivals.append((int(number), int(size), state))
    return arrivals


def test_copies_are_made_on_the_way_out() -> None:
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        source.duplicate(copies=2)
        numbers = [number for number, _, _ in through(source, target, 50)]
        assert sorted(numbers) == sorted(list(range(50)) * 3)


def test_damage_reaches_the_application() -> None:
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        fault = target.corrupt(offset=40, match="numgen inc mod 10 == 0")
        states = [state for _, _, state in through(source, target, 100)]
        assert states.count("damaged") == fault.dropped == 10
        assert target.udp_counters()["InCsumErrors"] == 0


def test_the_relay_does_what_it_is_told_and_counts_it() -> None:
    harm = {"loss": 10, "duplicate": 5, "corrupt": 10, "truncate": 5, "reorder": 10, "depth": 3}
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        with target.relay(inbound=harm, outbound={}, seed=3) as relay:
            arrivals = through(source, target, 400)
        numbers = [number for number, _, _ in arrivals]
        tally = relay.tally["inbound"]
        print(tally)
        assert all(tally[kind] for kind in ("lost", "duplicated", "corrupted", "truncated"))
        assert len(arrivals) == 400 - tally["lost"] + tally["duplicated"]
        assert numbers != sorted(numbers)
        assert sum(size < 64 for _, size, _ in arrivals) >= tally["truncated"]
        # And afterwards the cable is as it was.
        assert through(source, target, 100) == [(number, 64, "whole") for number in range(100)]


def test_the_same_seed_strikes_the_same_packets() -> None:
    harm = {"loss": 20, "reorder": 20, "depth": 2, "corrupt": 5}
    runs = []
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        for seed in (5, 5, 6):
            with target.relay(inbound=harm, outbound={}, seed=seed):
                # Where a held packet arrives is a matter of time, whether and how is not. All at
                # once they would be too many for the queue in which the first wait for ARP.
                runs.append(sorted(through(source, target, 300, 0.001)))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_relay_delays_both_ways_and_keeps_the_order() -> None:
    with lab_or_skip(2) as lab:
        source, target = lab.hosts
        slow = {"delay_ms": 40, "protocol": "ip"}
        with target.relay(inbound=slow, outbound={}) as relay:
            arrivals = through(source, target, 100, 0.001)
            relay.change(inbound={"loss": 100}, outbound={})
            assert source.run(
                [sys.executable, "-c", _SEND, source.address, target.address, "9", "0"]
            )
        assert [number for number, _, _ in arrivals] == list(range(100))
        assert relay.tally["inbound"]["lost"] == 9


def test_a_relay_leaves_tcp_s_checksums_right() -> None:
    fetch = f"{sys.executable} -c \"import socket; s = socket.create_connection(('10.77.0.1', 80));"
    fetch += " print(len(b''.join(iter(lambda: s.recv(65536), b''))))\""
    serve = (
        "import socket; s = socket.create_server(('', 80)); print('{\"event\": \"ready\"}', "
        "flush=True); c, _ = s.accept(); c.sendall(bytes(300_000)); c.close()"
    )
    with lab_or_skip(2) as lab:
        server, client = lab.hosts
        with client.relay(inbound={"delay_ms": 1, "protocol": "ip"}, outbound={}):
            server.start([sys.executable, "-c", serve]).wait_json("ready", timeout_s=10)
            assert client.run(["sh", "-c", fetch]).stdout.strip() == "300000"


# Scenarios

PLAIN = {"hosts": 2, "seconds": 3}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"hosts": 0}, "hosts is 1 to 200"),
        ({**PLAIN, "sceonds": 1}, "unknown: sceonds"),
        ({**PLAIN, "run": [{"host": 3, "command": "true"}]}, "host 3 is not one of 1 to 2"),
        ({**PLAIN, "run": [{"host": 1}]}, "command"),
        ({**PLAIN, "fault": [{"host": 1}]}, "exactly one of"),
        ({**PLAIN, "fault": [{"host": 1, "loss": 1.0, "link": "down"}]}, "exactly one of"),
        ({**PLAIN, "fault": [{"host": 1, "loss": 1.0, "pgm_type": "XY"}]}, "pgm_type is one of"),
        ({**PLAIN, "fault": [{"host": 1, "loss": 1.0, "colour": 1}]}, "unknown: colour"),
    ],
)
def test_a_scenario_that_says_nonsense_is_refused(words: dict[str, object], complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        Scenario.read(words)


def test_a_scenario_runs_its_commands_and_faults_by_the_timetable() -> None:
    lines: list[str] = []
    scenario = Scenario.read(
        {
            **PLAIN,
            "run": [
                {"host": 1, "name": "steady", "command": "sleep 1.2"},
                {"host": 2, "name": "late", "at": 0.5, "command": "ping -c 1 -W 1 10.77.0.1"},
                {"host": 1, "name": "bad", "command": "sh -c 'echo out; echo err >&2; exit 3'"},
            ],
            "fault": [{"host": 2, "at": 0.2, "until": 1.0, "link": "down"}],
        }
    )
    assert scenario.run(lines.append) == 1
    text = "\n".join(lines)
    for expected in ("bad: out", "bad! err", "bad: exit 3", "steady: exit 0", "host 2: link up"):
        assert expected in text
    assert "late: exit 0" not in text, "the cable was out"


@pytest.mark.slow
def test_the_example_scenario_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/netlab", "run", ROOT / "docs/examples/netlab.toml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert done.stdout.count("nothing lost") == 2


def test_the_tool_explains_itself_and_a_missing_scenario() -> None:
    tool = [sys.executable, str(ROOT / "tools/netlab")]
    told = subprocess.run([*tool, "--help"], capture_output=True, text=True, check=True).stdout
    assert "run a scenario file" in told
    failed = subprocess.run([*tool, "run", "/nowhere.toml"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "/nowhere.toml" in failed.stderr
