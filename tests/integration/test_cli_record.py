"""``mcast record`` and ``mcast replay`` as users run them, on loopback, and what comes round."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mcast.cli import main
from mcast.kernel import TransmitSlots
from tests.unit.capture.files import START_NS, pcap, udp
from tests.vectors.pcap import CAPTURES

LIMIT_S = 30.0
MCAST = [sys.executable, "-m", "mcast"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*MCAST, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Exit status, and what was said on both, without the start of a process."""
    status = main(list(map(str, arguments)))
    said = capsys.readouterr()
    return status, said.out + said.err


class Recording:
    """A running ``mcast record``."""

    def __init__(self, folder: Path, *arguments: object, before: Sequence[str] = ()) -> None:
        self.path = folder / "got.pcapng"
        command = [*before, *MCAST, "record", str(self.path), *map(str, arguments)]
        self.log = folder / "record.stderr"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)
        deadline = time.monotonic() + LIMIT_S
        while "recording" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> tuple[int, str]:
        """Exit status and stderr, after what was sent has had time to arrive."""
        time.sleep(0.3)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S), self.log.read_text()


@pytest.fixture
def recordings() -> Iterator[list[Recording]]:
    started: list[Recording] = []
    yield started
    for recording in started:
        recording.process.kill()
        recording.process.wait()


def messages(path: Path) -> list[object]:
    done = run("decode", path, "--json", "--messages")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return [record["parts"] for record in records if record["record"] == "message"]


def session(path: Path, count: int, every_ns: int) -> list[str]:
    """Make a capture of ``count`` messages, a packet each; the messages."""
    slots = TransmitSlots(bytes(6) + (9029).to_bytes(2, "big"), 5599, 300, 2 * count + 8)
    made, packets = [], []
    for number in range(count):
        made.append(f"message {number} {'x' * 100}")
        slots.append((made[-1].encode(),))
        slots.seal()
        run_of_one = slots.take_run(1)
        assert run_of_one is not None
        packets.append((START_NS + number * every_ns, udp(bytes(run_of_one[0]), port=5599)))
    path.write_bytes(pcap(packets))
    return made


def test_what_is_recorded_replayed_and_decoded_is_what_was_sent(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    """At 1x and 10,000 packets/s; the error that Must show 3 asks about is printed and read."""
    made = session(tmp_path / "made.pcap", 5000, 100_000)
    recordings.append(Recording(tmp_path, "239.192.7.1:5599"))
    command = ["replay", tmp_path / "made.pcap", "--map", "239.192.1.1=239.192.7.1"]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "5000 datagrams" in done.stderr
    assert "99 % " in done.stderr
    status, said = recordings[0].stop()
    assert status == 0, said
    found = messages(recordings[0].path)
    assert found == [[message] for message in made]


def test_capture_of_libzmq_comes_round(tmp_path: Path, recordings: list[Recording]) -> None:
    path = CAPTURES / "epgm_repair_src.pcap"
    recordings.append(Recording(tmp_path, "239.192.7.2:5598"))
    done = run("replay", path, "--speed", "max", "--map", "239.192.1.1=239.192.7.2:5598")
    # Three NAKs of 32 packets went to the source alone.
    assert (done.returncode, "29 datagrams" in done.stderr) == (0, True), done.stderr
    assert recordings[0].stop()[0] == 0
    assert messages(recordings[0].path) == messages(path)


def test_faults_come_by_the_seed(tmp_path: Path, recordings: list[Recording]) -> None:
    session(tmp_path / "made.pcap", 400, 10_000)
    recordings.append(Recording(tmp_path, "239.192.7.3:5599"))
    command = ["replay", tmp_path / "made.pcap", "--map", "239.192.1.1=239.192.7.3"]
    done = run(*command, "--loss", "10%", "--burst", "3", "--dup", "5", "--seed", "4")
    assert done.returncode == 0
    assert recordings[0].stop()[0] == 0
    decoded = run("decode", recordings[0].path, "--json")
    assert decoded.returncode == 1
    stream = json.loads(decoded.stdout.splitlines()[0])
    again = run(*command, "--loss", "10%", "--burst", "3", "--dup", "5", "--seed", "4")
    assert again.stderr.split(" in ")[0] == done.stderr.split(" in ")[0]
    assert stream["lost"] > 10
    assert stream["duplicates"] > 5


def test_recording_rotates_and_keeps_the_newest(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    session(tmp_path / "made.pcap", 300, 10_000)
    options = ["--rotate-size", "10K", "--keep", "3"]
    recordings.append(Recording(tmp_path, "239.192.7.4:5599", *options))
    assert run("replay", tmp_path / "made.pcap", "--map", "239.192.1.1=239.192.7.4").returncode == 0
    assert recordings[0].stop()[0] == 0
    files = sorted(tmp_path.glob("got-*.pcapng"))
    assert len(files) == 3
    assert files[0].name > "got-00002.pcapng"
    for path in files:
        done = run("decode", path, "--json")
        assert json.loads(done.stdout.splitlines()[-1])["error"] == ""
        assert path.stat().st_size < 11_000


def test_recording_ends_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.pcapng"
    status, said = run_here(capsys, "record", path, "239.192.7.5:5599", "--duration", "0.2")
    assert (status, "0 datagrams, 0 bytes" in said) == (0, True), said
    assert run_here(capsys, "decode", path)[0] == 0


@pytest.mark.parametrize("command", ["record", "replay"])
def test_help_has_examples_and_statuses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = run_here(capsys, command, "--help")
    assert status == 0
    for words in ("examples:", "exit status:", "(default: lo)"):
        assert words in " ".join(said.split())


def test_bad_input_of_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pcapng"
    for arguments, status, words in (
        ((path, "239.192.7.6:5599", "-i", "nope0"), 3, "no interface named 'nope0'"),
        ((path, "10.0.0.1:5599"), 3, "10.0.0.1"),
        ((path, "239.192.7.6:5599", "--keep", "2"), 3, "--keep needs --rotate-size"),
        ((tmp_path / "no" / "x", "239.192.7.6:5599"), 2, "no/x: No such file or directory"),
        ((tmp_path, "239.192.7.6:5599"), 2, f"error: {tmp_path}: Is a directory"),
        (("/dev/full", "239.192.7.6:5599"), 2, "error: /dev/full: No space left on device"),
    ):
        found, said = run_here(capsys, "record", *arguments, "--duration", "0.1")
        assert (found, words in said) == (status, True), said
        assert said.count("\n") == 1, said


def test_port_that_another_program_keeps_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("239.192.7.7", 0))
        port = other.getsockname()[1]
        status, said = run_here(
            capsys, "record", tmp_path / "x", f"239.192.7.7:{port}", "--duration", "0.1"
        )
    assert (status, "SO_REUSEADDR" in said) == (2, True), said


def test_file_that_may_not_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    # Root may write everywhere but here.
    path = "/proc/nothing-here"
    status, said = run_here(capsys, "record", path, "239.192.7.8:5599", "--duration", "0.1")
    assert (status, "mcast record: error: " in said) == (2, True), said


def test_disk_that_is_full_ends_the_recording_and_what_is_there_is_read(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    made = session(tmp_path / "made.pcap", 300, 10_000)
    limit = ["bash", "-c", 'ulimit -f 16; exec "$@"', "bash"]  # in KiB
    recordings.append(Recording(tmp_path, "239.192.7.11:5599", before=limit))
    command = ["replay", tmp_path / "made.pcap", "--map", "239.192.1.1=239.192.7.11"]
    assert run(*command).returncode == 0
    recording = recordings[0]
    assert recording.process.wait(LIMIT_S) == 2
    said = recording.log.read_text().splitlines()
    assert said[1:] == [f"mcast record: error: {recording.path}: File too large"]
    decoded = run("decode", recording.path, "--json", "--messages")
    assert decoded.returncode == 2  # cut off
    records = [json.loads(line) for line in decoded.stdout.splitlines()]
    found = [record["parts"] for record in records if record["record"] == "message"]
    assert 50 < len(found) < 300
    assert found == [[message] for message in made[: len(found)]]


def test_capture_is_replayed_packed_and_from_standard_input(tmp_path: Path) -> None:
    session(tmp_path / "made.pcap", 7, 1000)
    packed = gzip.compress((tmp_path / "made.pcap").read_bytes())
    (tmp_path / "made.gz").write_bytes(packed)
    assert "7 datagrams" in run("replay", tmp_path / "made.gz", "--speed", "max").stderr
    command = [*MCAST, "replay", "-", "--speed", "max"]
    done = subprocess.run(command, input=packed, capture_output=True, timeout=LIMIT_S, check=True)
    assert b"7 datagrams" in done.stderr


def test_bad_input_of_replay_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.pcap"
    session(good, 3, 1000)
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(good.read_bytes()[:-5])
    text = tmp_path / "text"
    text.write_text("no capture")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    corrupt = tmp_path / "corrupt.pcap"
    corrupt.write_bytes(good.read_bytes() + b"\xff" * 64)
    for arguments, status, words in (
        ((tmp_path / "missing.pcap",), 2, "No such file or directory"),
        ((text,), 2, "no pcap or pcapng file"),
        ((cut,), 2, "after frame 2: the file ends inside a packet"),
        ((good, "-i", "nope0"), 3, "no interface named 'nope0'"),
        ((good, "--speed", "fast"), 3, "--speed"),
        ((good, "--map", "239.1.1.1=10.0.0.1"), 3, "multicast groups"),
        ((good, "--loss", "95%"), 3, "0 to 90 percent"),
        ((good, "--burst", "0.5"), 3, "--burst is 1 or more"),
        ((good, "--ttl", "300"), 3, "hops are 0 to 255, not '300'"),
        (("-", "--loop"), 3, "--loop needs a file"),
        ((tmp_path,), 2, f"error: {tmp_path}: Is a directory"),
        ((empty,), 2, "the file is empty"),
        ((corrupt,), 2, "after frame 3: a packet of 4294967295 bytes is none"),
    ):
        found, said = run_here(capsys, "replay", *arguments)
        assert (found, words in said) == (status, True), said


def test_loop_goes_on_until_a_signal(tmp_path: Path) -> None:
    session(tmp_path / "made.pcap", 3, 1000)
    command = [*MCAST, "replay", str(tmp_path / "made.pcap"), "--loop"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "playing" in process.stderr.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert int(said.split("mcast replay: ")[1].split(" ")[0]) > 3
