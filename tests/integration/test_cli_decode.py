"""``mcast decode`` as users run it: help, reports, bad files, exit statuses."""

from __future__ import annotations

import errno
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcast.cli import main
from tests.vectors.pcap import CAPTURES

pytestmark = pytest.mark.kernel_independent

LIMIT_S = 30.0


def decode(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcast", "decode", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=LIMIT_S, check=False)
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_help_names_formats_statuses_and_examples() -> None:
    done = decode("--help")
    assert done.returncode == 0
    for words in ("pcapng", "exit status:", "examples:", "--radio-port", "--json"):
        assert words in done.stdout


def test_report_says_what_a_stream_did() -> None:
    done = decode(CAPTURES / "epgm_repair_src.pcap")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "stream b7c6d1bc038a.27204  10.77.0.1 > 239.192.1.1:5555  (finished)",
        "  packets: NAK 3, NCF 3, ODATA 9, RDATA 4, SPM 13",
        "  sequence: 0 to 8; window: trail 0, SPM lead 8",
        "  rate: 0.071 Mbit/s, 22 packets/s; 0.269 Mbit/s in the fullest 0.1 s",
        "  messages: 7",
        "  gaps: 0 (0 packets: 0 came out of order, 0 repaired, 0 lost); duplicates: 4; late: 0",
        "  asked for: 4 repaired, NAK to RDATA median 75.320 ms, longest 93.383 ms; 0 unanswered",
        "    2: NAK at 1795425487.819230000, NCF +0.102 ms, RDATA +0.163 ms",
        "    3: NAK at 1795425487.819230000, NCF +0.102 ms, RDATA +93.383 ms",
        "    2: NCF +0.000 ms, RDATA +93.303 ms",
        "    5: NAK at 1795425487.937064000, NCF +0.058 ms, RDATA +75.320 ms",
        "32 packets in 3.102 s: 1 PGM streams, 0 ZMTP sessions",
    ]


def test_report_says_what_a_connection_did() -> None:
    done = decode(CAPTURES / "zmtp_plain_bad.pcap")
    assert done.returncode == 0
    assert "  server: ?, ZMTP 3.1 PLAIN; 0 messages, 0 bytes; commands: ERROR 1" in done.stdout
    assert "    ERROR: 400" in done.stdout


def test_json_has_every_record() -> None:
    done = decode(CAPTURES / "epgm_lo_basic.pcap", "--json", "--messages", "--packets")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [record["record"] for record in records]
    assert (kinds.count("packet"), kinds.count("message")) == (39, 8)
    assert kinds[-2:] == ["stream", "summary"]
    messages = [record["parts"] for record in records if record["record"] == "message"]
    assert messages[:3] == [["A"], ["topic", "hello world"], [""]]


def test_messages_are_lines_with_frame_time_and_stream() -> None:
    done = decode(CAPTURES / "epgm_lo_basic.pcap", "--messages")
    frame, _, stream, *parts = done.stdout.splitlines()[1].split("\t")
    assert (frame, stream, parts) == (
        "8",
        "127.0.0.1/b7c6d1bc038a.53271",
        ["topic", "hello world"],
    )


def test_lost_packets_are_status_1(tmp_path: Path) -> None:
    data = (CAPTURES / "epgm_lo_basic.pcap").read_bytes()
    records, at = [], 24
    while at < len(data):
        end = at + 16 + int.from_bytes(data[at + 8 : at + 12], "little")
        records.append(data[at:end])
        at = end
    path = tmp_path / "lossy.pcap"
    path.write_bytes(data[:24] + b"".join(records[:7] + records[8:]))  # frame 8 is ODATA 1
    done = decode(path)
    assert done.returncode == 1
    assert "1 lost" in done.stdout
    assert "    lost 1 to 1, given up at " in done.stdout


def test_missing_file_is_status_2(tmp_path: Path) -> None:
    done = decode(tmp_path / "nothing.pcap")
    assert done.returncode == 2
    assert done.stderr == (
        f"mcast decode: error: {tmp_path}/nothing.pcap: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the file is empty"),
        (b"not a capture, really", "this is no pcap or pcapng file: it begins with 6e 6f 74 20"),
    ],
)
def test_file_that_is_no_capture_is_status_2(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    done = decode(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcast decode: error: {path}: {why}")


def test_truncated_file_is_reported_up_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes((CAPTURES / "epgm_repair_src.pcap").read_bytes()[:3000])
    done = decode(path)
    assert done.returncode == 2
    assert "16 packets in 1.001 s: 1 PGM streams" in done.stdout
    assert done.stderr == (
        f"mcast decode: error: {path}: after frame 16: the file ends inside a packet: it was cut "
        "off; what came before was read\n"
    )


def test_corrupt_file_is_reported_up_to_there(tmp_path: Path) -> None:
    data = (CAPTURES / "epgm_lo_basic.pcap").read_bytes()
    path = tmp_path / "corrupt.pcap"
    path.write_bytes(data + b"\xff" * 64)
    done = decode(path)
    assert done.returncode == 2
    assert "  messages: 8" in done.stdout
    assert "after frame 39: a packet of 4294967295 bytes is none" in done.stderr


def test_folder_and_unreadable_argument_are_errors(tmp_path: Path) -> None:
    done = decode(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"mcast decode: error: {tmp_path}: Is a directory\n"
    done = decode(tmp_path, "--port", "many")
    assert done.returncode == 3
    assert "--port" in done.stderr


def test_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secret.pcap"
    path.write_bytes(b"")

    def refuse(self: Path, *_: object, **__: object) -> None:  # root may read everything
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert main(["decode", str(path)]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"mcast decode: error: {path}: Permission denied\n")


def test_gzip_file_and_standard_input_say_the_same_as_the_file(tmp_path: Path) -> None:
    source = CAPTURES / "epgm_repair_src.pcap"
    packed = gzip.compress(source.read_bytes())
    path = tmp_path / "session.pcap.gz"
    path.write_bytes(packed)
    wanted = decode(source).stdout
    for done in (
        decode(path),
        decode("-", stdin=source.read_bytes()),
        decode("-", stdin=packed),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (0, wanted, "")


@pytest.mark.parametrize(
    ("stdin", "why"),
    [
        (b"", "-: the file is empty"),
        (gzip.compress(b""), "-: the file is empty"),
        (b"#!/bin/sh", "-: this is no pcap or pcapng file: it begins with 23 21 2f 62"),
        (gzip.compress(bytes(99))[:-12], "-: the gzip file is cut off or corrupt: "),
    ],
)
def test_standard_input_that_is_no_capture_is_one_line(stdin: bytes, why: str) -> None:
    done = decode("-", stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcast decode: error: {why}")
    assert done.stderr.count("\n") == 1


def test_standard_input_that_is_closed_is_named() -> None:
    command = f"{sys.executable} -m mcast decode - <&-"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "mcast decode: error: -: standard input is closed\n"
