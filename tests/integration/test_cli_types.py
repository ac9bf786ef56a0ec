"""``mcast pub`` and ``sub`` as other types, over other transports; ``mcast req`` and ``rep``."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_cli import LIMIT_S, MCAST, Subscriber


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Subscriber]]:
    found: list[Subscriber] = []
    yield found
    for each in found:
        each.process.kill()
        each.process.wait()


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def mcast(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*MCAST, *arguments], input=data, capture_output=True, timeout=LIMIT_S, check=False
    )


@pytest.mark.parametrize(
    ("sender", "receiver"),
    [("pub", "sub"), ("push", "pull"), ("pair", "pair"), ("dealer", "dealer")],
)
@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_lines_go_between_types_over_streams(
    tmp_path: Path, started: list[Subscriber], scheme: str, sender: str, receiver: str
) -> None:
    url = f"ipc://{tmp_path}/s" if scheme == "ipc" else f"tcp://127.0.0.1:{free_port()}"
    sub = Subscriber(tmp_path, url, "--type", receiver, "--bind", "--count", "3", "--timeout", "15")
    started.append(sub)
    pub = mcast("pub", url, "--type", sender, data=b"AAPL 1\nMSFT 2\nAAPL 3\n")
    assert (pub.returncode, pub.stdout) == (0, b"")
    assert sub.status() == 0
    assert sub.stdout == b"AAPL 1\nMSFT 2\nAAPL 3\n"
    assert b"3 messages, 18 bytes" in pub.stderr


def test_radio_and_dish_carry_groups(tmp_path: Path, started: list[Subscriber]) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    dish = Subscriber(
        tmp_path,
        url,
        *("--type", "dish", "--bind", "--topic", "weather", "--count", "1"),
        *("--timeout", "15"),
    )
    started.append(dish)
    assert mcast("pub", url, "--type", "radio", "--topic", "sport", data=b"0:0").returncode == 0
    assert mcast("pub", url, "--type", "radio", "--topic", "weather", data=b"sun").returncode == 0
    assert dish.status() == 0
    assert dish.stdout == b"weather\tsun\n"


def test_files_are_published_line_by_line_at_a_rate(
    tmp_path: Path, started: list[Subscriber]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"x" * 999 + b"\n" + b"y" * 999 + b"\n")
    second.write_bytes(b"open end")
    url = f"tcp://127.0.0.1:{free_port()}"
    sub = Subscriber(tmp_path, url, "--type", "pull", "--bind", "--count", "3", "--timeout", "15")
    started.append(sub)
    pub = mcast(
        "pub", url, "--type", "push", "--file", str(first), "--file", str(second), "--rate", "40K"
    )
    assert pub.returncode == 0
    assert sub.status() == 0
    assert sub.stdout == first.read_bytes() + b"open end\n"
    seconds = float(pub.stderr.decode().rpartition(" in ")[2].partition(" s")[0])
    assert seconds >= 0.4  # 2,006 bytes at 40 kbit/s


def test_duration_ends_a_publisher(tmp_path: Path) -> None:
    done = mcast(
        "pub",
        f"ipc://{tmp_path}/s",
        "--bind",
        "--count",
        "1M",
        "--rate",
        "10K",
        "--duration",
        "0.3",
    )
    assert done.returncode == 1
    assert b"ended by --duration after" in done.stderr
    sent = int(done.stderr.rpartition(b"after ")[2].partition(b" of")[0])
    assert 1 <= sent <= 9  # 64 bytes each at 10 kbit/s, and one more that is taken before the end


def test_requests_get_their_replies(tmp_path: Path, started: list[Subscriber]) -> None:
    url = f"ipc://{tmp_path}/s"
    rep = Replier(tmp_path, url, "--count", "3")
    started.append(rep)
    req = mcast("req", url, data=b"one\ntwo\n")
    assert (req.returncode, req.stdout) == (0, b"one\ntwo\n")
    assert b"2 of 2 requests answered" in req.stderr
    as_json = mcast("req", url, "--json", "-q", data=b"\xff")
    assert json.loads(as_json.stdout) == {"parts": [{"base64": "/w=="}]}
    assert rep.status() == 0
    assert "3 requests answered" in rep.stderr


@pytest.mark.slow
def test_replies_come_from_a_text_or_a_command(tmp_path: Path, started: list[Subscriber]) -> None:
    for number, (arguments, reply) in enumerate(
        [
            (("--text", "OK"), b"OK\n"),
            (("--exec", "tr a-z A-Z"), b"PING\n"),
            (("--exec", "false"), b"\n"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        rep = Replier(folder, f"ipc://{folder}/s", *arguments, "--count", "1")
        started.append(rep)
        assert mcast("req", f"ipc://{folder}/s", data=b"ping").stdout == reply
        assert rep.status() == 0


def test_request_without_a_reply_ends_with_status_1(tmp_path: Path) -> None:
    done = mcast("req", f"ipc://{tmp_path}/nobody", "--timeout", "0.3", data=b"x")
    assert done.returncode == 1
    assert b"no reply within 0.3 s" in done.stderr


class Replier(Subscriber):
    """A running ``mcast rep``."""

    command = "rep"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["pub", "tcp://127.0.0.1:1", "--type", "sub"], 3, "invalid choice"),
        (["pub", "tcp://127.0.0.1:1", "--type", "radio"], 3, "a radio sends to a group"),
        (["pub", "tcp://127.0.0.1:1", "--file", "x", "--count", "1"], 3, "either --file or"),
        (["pub", "epgm://lo;239.192.1.1:5555", "--file", "/no/such/file"], 2, "No such file"),
        (["pub", "epgm://lo;239.192.1.1:5555", "--type", "push"], 3, "carries PUB and SUB only"),
        (["sub", "tcp://127.0.0.1:1", "--type", "dish"], 3, "name them by --topic"),
        (["sub", "tcp://127.0.0.1:1", "--type", "pull", "--topic", "x"], 3, "--topic is for"),
        (["req", "nonsense"], 3, "no scheme"),
        (["rep", "tcp://127.0.0.1:1", "--exec", "'"], 3, "--exec"),
    ],
)
def test_bad_input_has_its_status_and_its_words(
    arguments: list[str], status: int, words: str
) -> None:
    done = mcast(*arguments)
    assert done.returncode == status, done.stderr
    assert words.encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_port_in_use_is_a_failure() -> None:
    with socket.socket() as keeper:
        keeper.bind(("127.0.0.1", 0))
        keeper.listen()
        url = f"tcp://127.0.0.1:{keeper.getsockname()[1]}"
        for command in (["pub", url, "--bind"], ["sub", url, "--bind"], ["rep", url]):
            done = mcast(*command)
            assert done.returncode == 2
            assert b"Address already in use" in done.stderr
