"""``mcast send``, ``dump``, ``join`` and ``ifaces`` as users run them."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import fresh_url

LIMIT_S = 20.0
MCAST = [sys.executable, "-m", "mcast"]


def fresh_group() -> str:
    return fresh_url().partition(";")[2]


def mcast(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*MCAST, *arguments], input=data, capture_output=True, timeout=LIMIT_S, check=False
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


class Listener:
    """A running ``dump`` or ``join``, with its output in files."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen([*MCAST, *arguments], stdout=out, stderr=err)
        deadline = time.monotonic() + LIMIT_S
        while ": joined" not in self.stderr:
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def status(self) -> int:
        return self.process.wait(LIMIT_S)


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[list[Listener]]:
    started: list[Listener] = []
    yield started
    for listener in started:
        listener.process.kill()
        listener.process.wait()


@pytest.fixture
def listen(listeners: list[Listener], tmp_path: Path) -> type[Listener]:
    def start(*arguments: str) -> Listener:
        listeners.append(Listener(tmp_path / f"l{len(listeners)}", *arguments))
        return listeners[-1]

    return start  # type: ignore[return-value]  # called like the class


# send and dump


def test_numbered_datagrams_of_a_range_are_verified(listen: type[Listener]) -> None:
    group = f"{fresh_group()}+3"
    dump = listen("dump", "-i", "lo", group, "--count", "1500", "--duration", "15", "-q")
    sent = mcast("send", "-i", "lo", group, "--pps", "30K", "--count", "500", "--json")
    assert sent.returncode == 0
    summary = json.loads(sent.stdout)
    assert (summary["sent"], summary["bytes"]) == (1500, 1500 * 64)
    assert dump.status() == 0
    assert dump.stdout == ""
    assert dump.stderr.count("numbers 0 to 499, 500 received, 0 lost in 0 gaps, 0 dupl") == 3
    assert "1,500 datagrams, 96,000 bytes" in dump.stderr


def test_each_end_prints_the_other_and_it_works(listen: type[Listener]) -> None:
    group = fresh_group()
    dump = listen("dump", "-i", "lo", group, "--count", "1", "--duration", "15")
    (line,) = [text for text in dump.stderr.splitlines() if "the other end: " in text]
    command = shlex.split(line.partition("the other end: ")[2])
    assert command[:2] == ["mcast", "send"]
    sent = mcast(*command[1:], "--count", "1")
    assert dump.status() == 0
    assert f"the other end: mcast dump -i lo {group}" in sent.stderr


def test_pace_is_kept(listen: type[Listener]) -> None:
    sent = mcast("send", "-i", "lo", fresh_group(), "--pps", "2K", "--duration", "1", "--json")
    # A held-up sender makes up for 100 ms; a machine that others use holds it up for longer.
    assert 1000 < json.loads(sent.stdout)["sent"] <= 2100
    rate = mcast(
        "send",
        "-i",
        "lo",
        fresh_group(),
        "--rate",
        "8M",
        "--size",
        "972",
        "--duration",
        "1",
        "--json",
    )
    assert 4e6 < json.loads(rate.stdout)["bits_per_s"] <= 8.5e6


def test_gaps_and_duplicates_are_counted_and_end_with_status_1(listen: type[Listener]) -> None:
    import socket

    from mcast.raw import number_into

    group = fresh_group()
    dump = listen("dump", "-i", "lo", group, "--count", "6", "--duration", "15", "-q")
    address, _, port = group.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for number in (0, 1, 5, 4, 1, 6):
            data = bytearray(40)
            number_into(data, 0, 7, number, time.monotonic_ns())
            raw.sendto(data, (address, int(port)))
    assert dump.status() == 1
    assert "numbers 0 to 6, 5 received, 2 lost in 1 gaps, 1 duplicates, 1 out of" in dump.stderr


def test_text_hex_and_json_show_the_payload(listen: type[Listener]) -> None:
    group = fresh_group()
    ends = ("-i", "lo", group, "--count", "1", "--duration", "15")
    text = listen("dump", *ends, "--text")
    hexed = listen("dump", *ends, "--hex")
    objects = listen("dump", *ends, "--json")
    assert mcast("send", "-i", "lo", group, "--hex", "41 42 ff", "--count", "1").returncode == 0
    assert {listener.status() for listener in (text, hexed, objects)} == {0}
    assert text._out.read_bytes() == b"AB\xff\n"
    assert f"127.0.0.1 > {group}  3 bytes" in hexed.stdout
    assert "  0000  41 42 ff" in hexed.stdout
    assert hexed.stdout.rstrip().endswith("AB.")
    found = json.loads(objects.stdout)
    assert (found["source"], found["group"], found["bytes"]) == ("127.0.0.1", group, 3)
    assert found["payload"] == {"base64": "QUL/"}
    summary = json.loads(objects.stderr.splitlines()[-1])
    assert (summary["event"], summary["received"], summary["unnumbered"]) == ("Summary", 1, 1)


def test_each_line_of_stdin_is_a_datagram(listen: type[Listener]) -> None:
    group = fresh_group()
    dump = listen("dump", "-i", "lo", group, "--count", "3", "--duration", "15", "--text")
    sent = mcast("send", "-i", "lo", group, "--stdin", data=b"one\n\ntwo\nopen end")
    assert sent.returncode == 0
    assert dump.status() == 0
    assert dump.stdout == "one\ntwo\nopen end\n"


def test_source_filters_take_and_leave(listen: type[Listener]) -> None:
    group = fresh_group()
    ends = ("-i", "lo", group, "--count", "1")
    taken = listen(
        "dump", *ends, "--duration", "15", "--source", "127.0.0.9", "--source", "127.0.0.1"
    )
    other = listen("dump", *ends, "--duration", "2", "--source", "127.0.0.9")
    excluded = listen("dump", *ends, "--duration", "2", "--exclude", "127.0.0.1")
    mcast("send", "-i", "lo", group, "--count", "1")
    assert (taken.status(), other.status(), excluded.status()) == (0, 1, 1)
    assert "0 of 1 datagrams came" in other.stderr


def test_signal_ends_a_sender_in_order() -> None:
    process = subprocess.Popen(
        [*MCAST, "send", "-i", "lo", fresh_group(), "--count", "1M", "--pps", "10"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "the other end" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "ended before all was sent" in stderr
    assert "Traceback" not in stderr


def test_reader_that_goes_away_ends_a_dump_quietly() -> None:
    group = fresh_group()
    process = subprocess.Popen(
        [*MCAST, "dump", "-i", "lo", group], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    while b"joined" not in process.stderr.readline():
        pass
    process.stdout.close()
    mcast("send", "-i", "lo", group, "--count", "1")
    assert process.wait(LIMIT_S) == 0
    said = process.stderr.read()
    process.stderr.close()
    assert b"Traceback" not in said


GROUP = "239.192.1.1:5000"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["send", "-i", "lo", "10.0.0.1:5000"], 3, "not multicast"),
        (["send", "-i", "lo", GROUP, "--size", "10"], 3, "--size is 24 to"),
        (["send", "-i", "lo", GROUP, "--text", ""], 3, "1 to 65487 bytes"),
        (["send", "-i", "lo", GROUP, "--text", "x", "--size", "50"], 3, "have theirs"),
        (["send", "-i", "lo", GROUP, "--hex", "xyz"], 3, "pairs of hex digits"),
        (["send", "-i", "lo", GROUP, "--preset", "storm"], 3, "invalid choice"),
        (["send", "-i", "lo", GROUP, "--rate", "0"], 3, "--rate is more than 0"),
        (["send", "-i", "lo", GROUP, "--ttl", "256"], 3, "hops are 0 to 255"),
        (["send", "-i", "lo", GROUP, "--stdin", "--count", "2"], 3, "--stdin sends every line"),
        (["send", "-i", "lo", GROUP, "--preset", "flood", "--ttl", "2"], 3, "add --force"),
        (["send", "-i", "lo", GROUP, "--rate", "1G", "--ttl", "2"], 3, "add --force"),
        (["send", "-i", "nosuch0", GROUP], 3, "no interface named 'nosuch0'"),
        (["dump", "-i", "lo"], 3, "GROUP"),
        (["dump", "-i", "lo", GROUP, "--source", "a.b"], 3, "source 'a.b'"),
        (["dump", "-i", "lo", GROUP, "--source", "10.0.0.1", "--exclude", "10.0.0.2"], 3, "both"),
        (["dump", "-i", "lo", GROUP, "--hex", "--json"], 3, "not allowed with"),
        (["join", "-i", "lo", f"{GROUP}+1000"], 3, "1 to 512"),
        (["join", "-i", "lo", GROUP, "--interval", "0"], 3, "--interval"),
        (["ifaces", "epgm://nosuch0;239.192.1.1:5000"], 3, "choices"),
        (["ifaces", "tcp://127.0.0.1:5000"], 3, "not multicast"),
    ],
)
def test_bad_input_has_its_status_and_its_words(
    arguments: list[str], status: int, words: str
) -> None:
    done = mcast(*arguments)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_datagram_above_the_mtu_is_refused_by_the_system() -> None:
    done = mcast("send", "-i", "lo", GROUP, "--size", "65480", "--count", "1", "-q")
    assert (done.returncode, done.stderr) == (0, "")  # lo carries 64 KiB and 28 bytes
    done = mcast("send", "-i", "lo", "[ff02::7777]:5000", "--count", "1")
    assert done.returncode in (0, 2)  # 2 where lo has no IPv6 route, and the error says which
    assert "Traceback" not in done.stderr


def test_port_that_another_program_keeps_is_a_failure() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as keeper:
        keeper.bind(("", 0))
        done = mcast("dump", "-i", "lo", f"239.192.1.1:{keeper.getsockname()[1]}")
    assert done.returncode == 2
    assert "another program holds the port" in done.stderr


@pytest.mark.parametrize("command", ["send", "dump", "join", "ifaces", "scout"])
def test_help_has_examples_and_exit_statuses(command: str) -> None:
    done = mcast(command, "--help")
    assert done.returncode == 0
    assert "examples:\n" in done.stdout
    assert "exit status:" in done.stdout
    assert f"  mcast {command} " in done.stdout


# join


def test_join_counts_packets_bytes_and_sources(listen: type[Listener]) -> None:
    group = fresh_group()
    join = listen("join", "-i", "lo", group, "--json", "--interval", "0.2", "--require")
    mcast("send", "-i", "lo", group, "--count", "50", "--pps", "1K", "--size", "100")
    deadline = time.monotonic() + LIMIT_S
    while '"packets": 50' not in join.stdout:
        assert time.monotonic() < deadline, join.stdout
        time.sleep(0.02)
    join.process.send_signal(signal.SIGINT)
    assert join.status() == 0
    *looks, summary = [json.loads(line) for line in join.stdout.splitlines()]
    assert {look["event"] for look in looks} == {"Look"}
    assert (summary["event"], summary["packets"], summary["bytes"]) == ("Summary", 50, 5000)
    assert summary["sources"] == {"127.0.0.1": 50}
    assert max(look["packets_per_s"] for look in looks) > 0


def test_join_holds_a_membership_and_reports_silence() -> None:
    group = fresh_group()
    process = subprocess.Popen(
        [*MCAST, "join", "-i", "lo", group, "--duration", "1.5", "--require"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "joined" not in process.stderr.readline():
        pass
    # In /proc/net/igmp a group stands as the number that its four bytes are on this machine.
    address = bytes(map(int, group.partition(":")[0].split(".")))
    number = f"{int.from_bytes(address, sys.byteorder):08X}"
    assert number in Path("/proc/net/igmp").read_text()
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert stdout.splitlines()[1].split() == ["group", "packets", "packets/s", "bit/s", "sources"]
    assert "1 of 1 groups silent" in stderr
    assert number not in Path("/proc/net/igmp").read_text()


# scout


def test_scout_names_each_stream_that_is_heard(listen: type[Listener]) -> None:
    url = fresh_url()
    table = listen("scout", url, "--require", "--interval", "0.2")
    objects = listen("scout", url, "--json")
    first = mcast("pub", url, "--count", "300", "--size", "1000", "--rate", "20M")
    second = mcast("pub", url, "--count", "1")
    mcast("send", url, "--text", "no PGM", "--count", "2", "--pps", "100")
    assert (first.returncode, second.returncode) == (0, 0)
    for scout in (table, objects):
        scout.process.send_signal(signal.SIGTERM)
        assert scout.status() == 0
        assert "2 streams, " in scout.stderr
        assert " 0 lost, 2 datagrams that are no PGM" in scout.stderr
    big, small = [json.loads(line) for line in objects.stdout.splitlines()]
    assert (big["publisher"], big["group"]) == ("127.0.0.1", url.partition(";")[2])
    assert big["types"]["ODATA"] == big["txw_lead"] + 1 > 200
    assert small["types"]["ODATA"] == 1
    assert big["left"]
    assert big["tsi"] in table.stdout
    assert table.stdout.splitlines()[-1].split()[-1] == "left"


def test_scout_of_a_silent_group_is_an_empty_table() -> None:
    group = fresh_group()
    done = mcast("scout", "-i", "lo", group, "--duration", "0.3", "--require", "-q")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert "0 streams" in done.stderr


# ifaces


def test_ifaces_lists_loopback_and_marks_what_a_url_uses() -> None:
    found = json.loads(mcast("ifaces", "epgm://lo;239.192.1.1:5555", "--json").stdout)
    by_name = {device["name"]: device for device in found}
    assert by_name["lo"]["used"] == ["127.0.0.1"]
    assert by_name["lo"]["up"]
    assert by_name["lo"]["loopback"]
    assert "127.0.0.1/8" in by_name["lo"]["addresses"]
    assert [name for name, device in by_name.items() if device["used"]] == ["lo"]
    table = mcast("ifaces").stdout.splitlines()
    assert table[0].split() == ["name", "state", "multicast", "mtu", "used", "addresses"]
    (line,) = [text for text in table if text.startswith("lo ")]
    assert line.split()[1:4] == ["up", "loopback", str(by_name["lo"]["mtu_bytes"])]
