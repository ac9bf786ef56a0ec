"""``mcast pub`` and ``mcast sub`` as users run them: processes, pipes, signals, exit statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_S = 20.0
"""Longer than anything here takes."""
POLL_S = 0.01

MCAST = [sys.executable, "-m", "mcast"]


class Subscriber:
    """A running ``mcast sub``, with its output in files."""

    command = "sub"

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._out = folder / "stdout"
        self._err = folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*MCAST, self.command, *arguments], stdout=out, stderr=err
            )
        self.wait_for(f"mcast {self.command}: joined", f"mcast {self.command}: listening at")

    @property
    def stdout(self) -> bytes:
        return self._out.read_bytes()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def wait_for(self, *texts: str) -> None:
        """Until one of ``texts`` is on stdout or stderr."""
        deadline = time.monotonic() + LIMIT_S
        while not any(text in self.stderr or text.encode() in self.stdout for text in texts):
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < deadline, f"no {texts!r}: {self.stdout!r} {self.stderr}"
            time.sleep(POLL_S)

    def status(self) -> int:
        return self.process.wait(LIMIT_S)


@pytest.fixture
def subscribers(tmp_path: Path) -> Iterator[list[Subscriber]]:
    """Those that a test starts; none is left afterwards."""
    started: list[Subscriber] = []
    yield started
    for subscriber in started:
        subscriber.process.kill()
        subscriber.process.wait()


@pytest.fixture
def subscribe(subscribers: list[Subscriber], tmp_path: Path) -> type[Subscriber]:
    def start(*arguments: str) -> Subscriber:
        folder = tmp_path / f"sub{len(subscribers)}"
        folder.mkdir()
        subscribers.append(Subscriber(folder, *arguments))
        return subscribers[-1]

    return start  # type: ignore[return-value]  # called like the class


def publish(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*MCAST, "pub", *arguments], input=data, capture_output=True, timeout=LIMIT_S, check=False
    )


def test_lines_go_from_stdin_to_stdout(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(url, "--count", "4", "--timeout", "10")
    pub = publish(url, data=b"AAPL 189.20\n\n  two  \nopen end")
    assert (pub.returncode, pub.stdout) == (0, b"")
    assert b"4 messages" in pub.stderr
    assert sub.status() == 0
    assert sub.stdout == b"AAPL 189.20\n\n  two  \nopen end\n"
    assert "4 messages, 26 bytes" in sub.stderr
    assert "nothing lost" in sub.stderr


def test_topics_choose_by_prefix(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(url, "--topic", "A", "--topic", "MS", "--count", "3", "--timeout", "10")
    publish(url, data=b"AAPL\nMXYZ\nMSFT\nIBM\nA\n")
    assert sub.status() == 0
    assert sub.stdout == b"AAPL\nMSFT\nA\n"


def test_topic_of_a_publisher_precedes_each_message(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(url, "--count", "2", "--timeout", "10")
    publish(url, "--topic", "AAPL ", data=b"1\n2\n")
    assert sub.status() == 0
    assert sub.stdout == b"AAPL 1\nAAPL 2\n"


def test_tabs_divide_a_multipart_message_on_both_sides(
    url: str, subscribe: type[Subscriber]
) -> None:
    text = subscribe(url, "--count", "2", "--timeout", "10")
    objects = subscribe(url, "--count", "2", "--timeout", "10", "--json")
    publish(url, "--multipart", "--topic", "AAPL", data=b"189.20\t\xff\nx\n")
    assert (text.status(), objects.status()) == (0, 0)
    assert text.stdout == b"AAPL\t189.20\t\xff\nAAPL\tx\n"
    assert [json.loads(line) for line in objects.stdout.splitlines()] == [
        {"parts": ["AAPL", "189.20", {"base64": "/w=="}]},
        {"parts": ["AAPL", "x"]},
    ]


def test_numbered_messages_survive_seeded_loss(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(
        *(url, "--count", "5K", "--timeout", "15", "--json"),
        *("-o", "drop_rate=0.1", "-o", "drop_seed=1"),
    )
    pub = publish(url, "--count", "5000", "--size", "100", "--rate", "20M")
    assert pub.returncode == 0
    assert sub.status() == 0
    messages = [json.loads(line)["parts"] for line in sub.stdout.splitlines()]
    assert [int(parts[0].split()[0]) for parts in messages] == list(range(5000))
    assert {len(parts[0]) for parts in messages} == {100}
    summary = json.loads(sub.stderr.splitlines()[-1])
    assert summary["event"] == "Summary"
    assert summary["received"] == 5000
    assert summary["counters"]["dropped_for_test"] > 0
    assert summary["counters"]["repaired"] > 0


def test_loss_ends_with_status_1_and_is_told(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(
        *(url, "--events", "--timeout", "4"),
        *("-o", "drop_rate=0.3", "-o", "drop_seed=1"),
    )
    # A window of 64 KiB holds a few milliseconds at this rate: less than any repair takes.
    publish(url, "--count", "5000", "--size", "1000", "--rate", "500M", "-o", "txw_bytes=64K")
    assert sub.status() == 1
    assert "window_advanced" in sub.stderr
    assert "LOST" in sub.stderr.splitlines()[-1]
    lines = [int(line.split()[0]) for line in sub.stdout.splitlines()]
    assert 0 < len(lines) < 5000
    assert lines == sorted(set(lines))


def test_events_as_json_are_lines_on_stderr(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(url, "--events", "--json", "--count", "1", "--timeout", "10")
    publish(url, data=b"x")
    assert sub.status() == 0
    events = [json.loads(line) for line in sub.stderr.splitlines() if line.startswith("{")]
    kinds = [event["event"] for event in events]
    # The publisher may have said goodbye before the subscriber ended.
    assert kinds in (["PeerJoined", "Summary"], ["PeerJoined", "PeerLeft", "Summary"])
    assert sub.stdout == b'{"parts": ["x"]}\n'


def test_count_that_does_not_come_in_time_ends_with_status_1(
    url: str, subscribe: type[Subscriber]
) -> None:
    sub = subscribe(url, "--count", "2", "--timeout", "4")
    publish(url, data=b"only one")
    assert sub.status() == 1
    assert sub.stdout == b"only one\n"
    assert "1 of 2 messages came" in sub.stderr


def test_timeout_without_a_count_is_no_failure(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(url, "--timeout", "0.3")
    assert sub.status() == 0
    assert sub.stdout == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_subscriber_in_order(
    url: str, subscribe: type[Subscriber], number: signal.Signals
) -> None:
    sub = subscribe(url)
    publish(url, data=b"x")
    sub.wait_for("x\n")
    sub.process.send_signal(number)
    assert sub.status() == 0
    assert "1 message," in sub.stderr.splitlines()[-1]
    assert "Traceback" not in sub.stderr


def test_signal_before_the_count_ends_with_status_1(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(url, "--count", "5")
    sub.process.send_signal(signal.SIGINT)
    assert sub.status() == 1
    assert "0 of 5 messages came" in sub.stderr


def test_signal_ends_a_publisher_that_waits_for_its_rate(
    url: str, subscribe: type[Subscriber]
) -> None:
    sub = subscribe(url)
    process = subprocess.Popen(
        [*MCAST, "pub", url, "--count", "1M", "--rate", "100K", "--linger", "0.2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    sub.wait_for("0 ..")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert stdout == b""
    assert b"ended by a signal after" in stderr
    assert b"Traceback" not in stderr


def test_second_signal_cuts_the_linger_short(url: str, subscribe: type[Subscriber]) -> None:
    sub = subscribe(url)
    process = subprocess.Popen(
        [*MCAST, "pub", url, "--count", "1M", "--rate", "100K", "--linger", "60"],
        stderr=subprocess.PIPE,
    )
    sub.wait_for("0 ..")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # it lingers
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGINT
    assert b"Traceback" not in stderr


def test_signal_ends_a_publisher_that_waits_for_stdin(
    url: str, subscribe: type[Subscriber]
) -> None:
    sub = subscribe(url)
    reader, writer = os.pipe()
    process = subprocess.Popen([*MCAST, "pub", url], stdin=reader, stderr=subprocess.PIPE)
    os.close(reader)
    os.write(writer, b"one\ntwo\nunfin")
    sub.wait_for("one\ntwo\n")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=LIMIT_S)
    os.close(writer)
    assert process.returncode == 0
    assert b"2 messages" in stderr
    assert b"Traceback" not in stderr


def test_reader_that_goes_away_ends_a_subscriber_quietly(url: str) -> None:
    process = subprocess.Popen([*MCAST, "sub", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    while b"joined" not in process.stderr.readline():
        pass
    process.stdout.close()
    publish(url, data=b"x")
    assert process.wait(LIMIT_S) == 0
    said = process.stderr.read()
    process.stderr.close()
    assert b"1 message," in said
    assert b"Error" not in said


def test_messages_that_the_linger_cuts_off_end_with_status_1(url: str) -> None:
    pub = publish(url, "--count", "1000", "--size", "1000", "--rate", "1M", "--linger", "0.2")
    assert pub.returncode == 1
    assert b"messages not sent within --linger 0.2" in pub.stderr


def test_line_longer_than_the_limit_is_a_failure(url: str) -> None:
    pub = publish(url, "-o", "max_msg_size=1000", data=b"x" * 5000)
    assert pub.returncode == 2
    assert b"max_msg_size" in pub.stderr
    assert b"Traceback" not in pub.stderr


def test_what_the_system_refuses_ends_with_status_2(url: str) -> None:
    # Descriptors 0 to 4 are the standard streams and the loop's; a publisher needs three more.
    code = (
        "import resource, sys; from mcast.cli import main;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6)); sys.exit(main(sys.argv[1:]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "pub", url, "--count", "1"],
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 2
    assert b"mcast pub: error:" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_small_receive_buffer_is_one_line_of_warning(url: str) -> None:
    ended = subprocess.run(
        [*MCAST, "sub", url, "--timeout", "0.1", "-o", "rcvbuf=1023M", "-q"],
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0
    lines = ended.stderr.decode().splitlines()
    assert len(lines) <= 1  # none where the system's limit is that high, or root may pass it
    assert all(line.startswith("mcast sub: warning: ") for line in lines)


def test_quiet_commands_say_nothing(url: str) -> None:
    pub = publish(url, "-q", "--count", "3")
    assert (pub.returncode, pub.stdout, pub.stderr) == (0, b"", b"")
