"""``mcast pub`` and ``sub`` as other types, over other transports; ``mcast req`` and ``rep``."""

from __future__ import annotations

import json
import os
import signal
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
    [
        ("pub", "sub"),
        ("xpub", "xsub"),
        ("push", "pull"),
        ("pair", "pair"),
        ("dealer", "dealer"),
    ],
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


def test_radio_and_dish_carry_groups_in_datagrams(
    tmp_path: Path, started: list[Subscriber]
) -> None:
    url = f"udp://lo;239.192.1.1:{free_port()}"
    dish = Subscriber(
        tmp_path, url, *("--type", "dish", "--topic", "weather", "--count", "1", "--timeout", "15")
    )
    started.append(dish)
    assert mcast("pub", url, "--type", "radio", "--topic", "weather", data=b"sun").returncode == 0
    assert dish.status() == 0
    assert dish.stdout == b"weather\tsun\n"


@pytest.mark.slow
def test_router_names_its_peers_and_is_sent_by_name(
    tmp_path: Path, started: list[Subscriber]
) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    router = Subscriber(tmp_path, url, "--type", "router", "--bind", "--count", "1")
    started.append(router)
    assert mcast("pub", url, "--type", "dealer", "-o", "routing_id=joe", data=b"x").returncode == 0
    assert router.status() == 0
    assert router.stdout == b"joe\tx\n"
    dealer = subprocess.Popen(
        [*MCAST, "sub", url, "--type", "dealer", "-o", "routing_id=joe", "--count", "2"],
        stdout=subprocess.PIPE,
    )
    try:
        ways = (("--topic", "joe"), b"one"), (("--multipart",), b"joe\ttwo\nann\tthree\n")
        for status, (how, data) in enumerate(ways):
            pub = mcast("pub", url, "--type", "router", "--bind", "--wait", "1", *how, data=data)
            assert pub.returncode == status
        assert b"1 message for nobody connected" in pub.stderr
        assert dealer.communicate(timeout=LIMIT_S)[0] == b"one\ntwo\n"
    finally:
        dealer.kill()


def test_xpub_says_what_is_subscribed_to(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    sub = subprocess.Popen(
        [*MCAST, "sub", url, "--topic", "AAPL", "--count", "1", "-q"], stdout=subprocess.PIPE
    )
    try:
        pub = mcast(
            *("pub", url, "--type", "xpub", "--bind", "--wait", "1.5"), data=b"MSFT 1\nAAPL 2\n"
        )
        assert b"a peer subscribed to 'AAPL'" in pub.stderr
        assert sub.communicate(timeout=LIMIT_S)[0] == b"AAPL 2\n"
    finally:
        sub.kill()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key pairs of a server, a client that it knows and one that it doesn't; PLAIN users."""
    pytest.importorskip("nacl")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("server", "known", "stranger"):
        assert mcast("keygen", "--out", f"{folder}/{name}").returncode == 0
    for name, text in {"users": "# those let in\njoe:s3cret\n", "wrong": "joe:guess"}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return folder


@pytest.mark.parametrize(
    ("server", "friend", "stranger"),
    [
        (
            ("--curve-key", "server.key_secret", "--curve-allow", "known.key"),
            ("--curve-server-key", "server.key", "--curve-key", "known.key_secret"),
            ("--curve-server-key", "server.key"),
        ),
        (("--plain-users", "users"), ("--plain-login", "users"), ("--plain-login", "wrong")),
    ],
    ids=["curve", "plain"],
)
def test_friends_are_let_in_and_strangers_told_that_they_are_not(
    tmp_path: Path,
    started: list[Subscriber],
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: tuple[str, ...],
    friend: tuple[str, ...],
    stranger: tuple[str, ...],
) -> None:
    monkeypatch.chdir(keys)
    url = f"ipc://{tmp_path}/s"
    sub = Subscriber(tmp_path, url, "--type", "pull", "--bind", "--count", "1", *server)
    started.append(sub)
    turned_away = mcast("pub", url, "--type", "push", *stranger, data=b"let me in")
    assert turned_away.returncode == 2
    assert b"refuses us: it does not know this key, or this name" in turned_away.stderr
    assert mcast("pub", url, "--type", "push", *friend, data=b"hello").returncode == 0
    assert sub.status() == 0
    assert sub.stdout == b"hello\n"
    assert "we refused its key, or its name and password" in sub.stderr


def test_what_no_peer_took_ends_with_status_1_and_is_counted(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/nobody"
    done = mcast("pub", url, "--type", "push", "--linger", "0.2", data=b"one\ntwo\n")
    assert done.returncode == 1
    for words in ("cannot connect to ipc://", "nobody was connected", "2 messages not sent"):
        assert words.encode() in done.stderr


def test_messages_that_a_full_queue_dropped_end_with_status_1(
    tmp_path: Path, started: list[Subscriber]
) -> None:
    url = f"ipc://{tmp_path}/s"
    sub = Subscriber(tmp_path, url, "--bind", "--events")
    started.append(sub)
    words = ["--count", "50K", "--size", "1K", "--wait", "2", "--linger", "0", "-o", "sndhwm=10"]
    pub = subprocess.Popen([*MCAST, "pub", url, *words], stderr=subprocess.PIPE)
    sub.wait_for("connected to")
    os.kill(sub.process.pid, signal.SIGSTOP)
    try:
        said = pub.communicate(timeout=LIMIT_S)[1]
    finally:
        os.kill(sub.process.pid, signal.SIGCONT)
        pub.kill()
    assert pub.returncode == 1
    assert b"dropped where a peer's queue was full" in said


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
        (["pub", "tcp://127.0.0.1:1", "--type", "router"], 3, "name it by --topic"),
        (["pub", "inproc://a"], 3, "stays within one process"),
        (["sub", "inproc://a"], 3, "use ipc:// between processes"),
        (["sub", "tcp://127.0.0.1:1", "--curve-key", "/no/such"], 2, "/no/such: No such file"),
        (["sub", "tcp://127.0.0.1:1", "--curve-key", "/dev/null"], 3, "the key in /dev/null"),
        (["sub", "tcp://127.0.0.1:1", "--plain-users", "/dev/null"], 3, "0 lines of NAME:PASSWORD"),
        (["sub", "tcp://127.0.0.1:1", "--curve-allow", "x"], 3, "--curve-allow is for a server"),
        (["rep", "tcp://127.0.0.1:1", "--curve-key", "a", "--plain-users", "b"], 3, "one of the"),
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
