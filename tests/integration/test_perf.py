"""``mcast perf`` on loopback: both ends as processes, exit statuses, and an end that is bounded."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ports = itertools.count(20_000 + os.getpid() % 1000 * 10)


def url() -> str:
    return f"epgm://lo;239.192.7.9:{next(_ports)}"


def perf(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcast", "perf", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout.count("\n") == 1, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("batch", ["1", "100"])
@pytest.mark.parametrize("size", ["1", "64", "10K"])
def test_throughput_counts_every_message(size: str, batch: str) -> None:
    done = perf("throughput", url(), "--size", size, "--count", "3001", "--batch", batch, "--json")
    result = result_of(done)
    assert done.returncode == 0, done.stderr
    assert (result["received"], result["missing"], result["pub_sent"]) == (3001, 0, 3001)
    assert result["messages_per_s"] > 0


def test_throughput_measures_delays_on_one_host() -> None:
    result = result_of(perf("throughput", url(), "--count", "5000", "--json"))
    assert 0 < result["delay_p50_s"] <= result["delay_p99_s"] <= result["delay_max_s"]
    assert result["jitter_s"] >= 0


def test_duration_ends_the_run() -> None:
    result = result_of(perf("throughput", url(), "--duration", "0.5", "--rate", "20M", "--json"))
    assert 0.4 < result["seconds"] < 1.5


def test_loss_in_the_middle_is_repaired_and_shows() -> None:
    done = perf(
        *("throughput", url(), "--count", "20K", "--size", "1K", "--rate", "400M", "--json"),
        *("-o", "drop_rate=0.02", "-o", "drop_seed=3"),
    )
    result = result_of(done)
    assert (done.returncode, result["missing"]) == (0, 0)
    assert result["repaired"] > 0


def test_latency_is_half_a_round_trip() -> None:
    done = perf("latency", url(), "--count", "500", "--json")
    result = result_of(done)
    assert done.returncode == 0, done.stderr
    assert result["rounds"] == 500
    assert 1e-6 < result["latency_p50_s"] <= result["latency_p99_s"] < 1.0


def stream_url(scheme: str, folder: Path) -> str:
    return f"ipc://{folder}/s" if scheme == "ipc" else f"tcp://127.0.0.1:{next(_ports)}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "kind"), [("tcp", "pub"), ("ipc", "pub"), ("ipc", "push"), ("tcp", "pair")]
)
def test_streams_are_measured_by_every_type(tmp_path: Path, scheme: str, kind: str) -> None:
    where = (stream_url(scheme, tmp_path), "--type", kind)
    result = result_of(perf("throughput", *where, "--count", "3001", "--json", "-q"))
    assert (result["received"], result["missing"], result["repaired"]) == (3001, 0, None)
    assert result["delay_p50_s"] > 0
    done = perf("latency", *where, "--count", "200", "--json", "-q")
    assert (done.returncode, result_of(done)["rounds"]) == (0, 200)


def test_rate_of_a_stream_is_kept_and_several_sockets_get_all(tmp_path: Path) -> None:
    done = perf(
        *("throughput", stream_url("tcp", tmp_path), "--duration", "0.5", "--rate", "1M", "--json"),
        *("--size", "100", "--sockets", "2", "--batch", "10"),
    )
    result = result_of(done)
    assert (done.returncode, result["missing"]) == (0, 0), done.stderr
    assert result["received"] == 2 * result["pub_sent"]
    assert 0.4e6 < result["pub_messages_per_s"] * 800 < 1.1e6


def test_end_that_cannot_start_ends_the_other_at_once() -> None:
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        keeper.listen()
        done = perf("throughput", f"tcp://127.0.0.1:{keeper.getsockname()[1]}", timeout_s=20)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Address already in use" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "mcast perf throughput: error: the sub process ended without a result"
    )


def test_two_ends_need_no_third_program() -> None:
    where = url()
    sub = subprocess.Popen(
        [sys.executable, "-m", "mcast", "perf", "sub", where, "--json", "--timeout", "30"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        sent = result_of(perf("pub", where, "--count", "2000", "--wait", "2", "--json"))
        out, _ = sub.communicate(timeout=30)
    finally:
        sub.kill()
        sub.wait()
    received = json.loads(out)
    assert sub.returncode == 0
    assert (sent["sent"], received["received"]) == (2000, 2000)


def test_unmet_criterion_ends_with_status_1_and_says_which() -> None:
    done = perf(
        *("throughput", url(), "--count", "1000", "--json", "--quiet"),
        *("--require", "messages_per_s>1e12", "--require", "loss==0"),
    )
    assert done.returncode == 1
    assert "messages_per_s>1e+12" in done.stderr
    assert "loss" not in done.stderr


def test_sub_without_publisher_ends_in_time_with_status_2() -> None:
    done = perf("sub", url(), "--timeout", "1.5", timeout_s=15.0)
    assert done.returncode == 2
    assert "not done within 1.5 s" in done.stderr


def test_pong_that_nobody_asks_ends_in_time_with_status_2() -> None:
    assert perf("pong", url(), "--timeout", "1.5", timeout_s=15.0).returncode == 2


def test_stdout_has_the_report_only() -> None:
    done = perf("throughput", url(), "--duration", "1.5", "--rate", "10M")
    assert all(len(line.split()) == 2 for line in done.stdout.splitlines())
    assert "mcast perf sub:" in done.stderr
