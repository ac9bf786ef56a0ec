"""``mcast stat``, ``top`` and ``loss`` as users run them, on processes that really run."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcast

LIMIT_S = 20.0
MCAST = [sys.executable, "-m", "mcast"]


@pytest.fixture(autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path_factory.mktemp("w", numbered=True) / "status"
    monkeypatch.setenv("MCAST_STATUS", str(made))
    return made


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MCAST, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.fixture
def pub(ctx: mcast.Context, url: str) -> mcast.Pub:
    """One publisher in this process that has sent five messages."""
    made = ctx.socket(mcast.PUB, rate=float("inf"))
    made.connect(url)
    made.send_many([b"x"] * 5)
    return made


def test_the_table_names_process_socket_and_counters(pub: mcast.Pub, url: str) -> None:
    done = run("stat")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"process {os.getpid()}  ")
    assert lines[1] == f"  PUB 1  {url}"
    assert lines[2].split() == ["counter", "value", "per", "second"]
    rows = {line.split()[0]: line.split()[1] for line in lines[3:]}
    assert rows["messages_sent"] == "5"
    assert rows["rate"] == "inf"
    assert "lost" not in rows
    assert "    lost " in run("stat", "--all").stdout


def test_json_is_one_object_for_each_look(pub: mcast.Pub, url: str) -> None:
    done = run("stat", str(os.getpid()), "--json", "--interval", "0.1", "--count", "2")
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert len(looks) == 2
    (context,) = looks[1]["contexts"]
    assert context["pid"] == os.getpid()
    (socket,) = context["sockets"]
    assert (socket["type"], socket["endpoints"]) == ("PUB", [url])
    assert socket["counters"]["messages_sent"] == 5
    assert socket["counters"]["rate"] is None


def test_csv_has_a_line_for_each_counter(pub: mcast.Pub, url: str) -> None:
    done = run("stat", "--csv", "--counter", "messages_*", "--interval", "0.1", "--count", "2")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    sent = [row for row in rows if row["counter"] == "messages_sent"]
    assert [(row["pid"], row["endpoints"], row["value"]) for row in sent] == [
        (str(os.getpid()), url, "5")
    ] * 2
    assert float(sent[1]["per_second"]) == 0.0


def test_prometheus_text_is_what_prometheus_takes(pub: mcast.Pub) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    done = run("stat", "--prometheus")
    found = {family.name: family for family in text_string_to_metric_families(done.stdout)}
    (sample,) = found["mcast_messages_sent"].samples
    assert sample.labels["pid"] == str(os.getpid())
    assert sample.value == 5.0
    if promtool := shutil.which("promtool"):
        judged = subprocess.run(
            [promtool, "check", "metrics"], input=done.stdout, text=True, check=False
        )
        assert judged.returncode == 0


@pytest.mark.parametrize("command", ["stat", "top", "loss"])
def test_nobody_there_is_status_1_and_a_pid_without_counters_2(command: str) -> None:
    done = run(command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mcast {command}: no process of yours has a socket of mcast\n"
    done = run(command, "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no counters of process 1: it does not run, is not yours" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stat", "x"], "a count, such as"),
        (["stat", "--count", "3"], "--count needs --interval"),
        (["stat", "--json", "--csv"], "not allowed with"),
        (["stat", "--prometheus", "--interval", "1"], "--prometheus is for one look"),
        (["top", "--interval", "0"], "0.05 seconds or more"),
        (["loss", "--interval", "-1"], "is wanted"),
    ],
)
def test_bad_arguments_are_status_3(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert words in done.stderr


def test_a_bad_directory_is_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCAST_STATUS", "maybe")
    done = run("stat")
    assert (done.returncode, done.stdout) == (3, "")
    assert "MCAST_STATUS is on, off or the absolute path" in done.stderr


def test_what_is_no_status_is_told_and_passed_over(pub: mcast.Pub, directory: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "99-bad.sock"))
        listener.listen()
        listener.settimeout(LIMIT_S)
        looking = subprocess.Popen(
            [*MCAST, "stat"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        client, _ = listener.accept()
        with client:
            client.send(b"\x1b[2Jhello")
        out, err = looking.communicate(timeout=LIMIT_S)
    assert looking.returncode == 0
    assert "messages_sent" in out
    assert "99-bad.sock: its answer is no status" in err


@pytest.mark.parametrize("command", ["stat", "top", "loss"])
def test_who_runs_and_does_not_answer_is_not_called_gone(command: str, directory: Path) -> None:
    import socket

    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "99-busy.sock"))
        listener.listen()
        done = run(command, "--timeout", "0.1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "99-busy.sock: it did not answer in time" in done.stderr
    assert "nobody answered within 0.1 s" in done.stderr


def test_top_writes_a_row_for_each_socket(ctx: mcast.Context, pub: mcast.Pub, url: str) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    done = run("top", "--interval", "0.1", "--count", "2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == lines[4] == "mcast top: 1 processes, 2 sockets"
    assert lines[1].split()[:5] == ["PID", "command", "type", "endpoint", "messages/s"]
    assert sorted(line.split(url)[0].split()[-1] for line in lines[2:4]) == ["PUB", "SUB"]


def test_top_draws_in_place_on_a_terminal(pub: mcast.Pub) -> None:
    pytest.importorskip("rich", reason="the live table needs mcast[cli]")
    terminal, stdout = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
    process = subprocess.Popen(
        [*MCAST, "top", "--interval", "0.1", "--count", "3"], stdout=stdout, env=environment
    )
    os.close(stdout)
    drawn = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
        while chunk := os.read(terminal, 65536):
            drawn += chunk
    os.close(terminal)
    assert process.wait(LIMIT_S) == 0
    assert b"mcast top: 1 processes" in drawn
    assert b"\x1b[" in drawn


SUBSCRIBER = """
import sys, mcast
with mcast.Context() as ctx:
    sub = ctx.socket(mcast.SUB, rcvbuf=65536)
    sub.subscribe()
    sub.connect(sys.argv[1])
    print("ready", flush=True)
    while True:
        sub.recv()
"""


@contextlib.contextmanager
def subscriber(url: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SUBSCRIBER, url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_process_that_stood_still_lost_packets_in_the_kernel_s_buffer(
    ctx: mcast.Context, url: str
) -> None:
    with subscriber(url) as process:
        pub = ctx.socket(mcast.PUB, rate=1e9)
        pub.connect(url)
        pub.send(b"x" * 1000)  # it knows the stream before it stands still
        time.sleep(0.2)
        process.send_signal(signal.SIGSTOP)
        pub.send_many([b"x" * 1000] * 2000)  # 2 MB, for a buffer of 64 KiB
        time.sleep(0.1)
        process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + LIMIT_S
        while True:
            done = run("loss", str(process.pid), "--json")
            told = json.loads(done.stdout)["sockets"][0]
            if told["missed"] or time.monotonic() > deadline:
                break
        assert told["causes"]["kernel"] > 0
        machine = json.loads(done.stdout)["machine"][str(process.pid)]
        assert machine["process_socket_drops"] > 0
        text = run("loss", str(process.pid)).stdout
        assert "kernel buffer: " in text
        assert "net.core.rmem_max" in text


def test_nothing_missed_is_status_0(pub: mcast.Pub) -> None:
    done = run("loss", "--interval", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "nothing was missed"
