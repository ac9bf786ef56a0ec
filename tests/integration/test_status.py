"""The counters of a running process, read from outside: by its status socket, and by HTTP."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcast
from mcast.net.status import ask_all, private_directory, status_directories
from mcast.observe import survey

LIMIT_S = 10.0

PROGRAM = """
import sys, time, mcast
ctx = mcast.Context(linger=0.0)
pub = ctx.socket(mcast.PUB)
pub.connect(sys.argv[1])
pub.send(b"x")
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the status sockets of this test are, and those of nobody else."""
    made = tmp_path_factory.mktemp("s", numbered=True) / "status"
    monkeypatch.setenv("MCAST_STATUS", str(made))
    return made


@contextlib.contextmanager
def running(url: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_process_is_seen_with_its_sockets_and_counters(url: str) -> None:
    with running(url) as process:
        (context,) = survey().contexts
        assert context.pid == process.pid
        assert context.loop == "thread"
        (pub,) = context.sockets
        assert (pub.number, pub.kind, pub.endpoints) == (1, "PUB", (url,))
        assert pub.counters["messages_sent"] == 1
        assert survey([process.pid]).contexts[0].path == context.path
        assert survey([process.pid + 1]).contexts == []


def test_only_the_owner_can_reach_the_socket(url: str, ctx: mcast.Context, directory: Path) -> None:
    ctx.socket(mcast.PUB)
    (path,) = directory.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_goes_with_its_context(directory: Path) -> None:
    with mcast.Context() as ctx:
        assert not directory.exists()  # a context without sockets costs nothing
        ctx.socket(mcast.SUB)
        assert len(os.listdir(directory)) == 1
    assert os.listdir(directory) == []


def test_what_a_killed_process_left_is_removed_by_the_next_look(url: str, directory: Path) -> None:
    with running(url) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(os.listdir(directory)) == 1
        assert survey().contexts == []
        assert os.listdir(directory) == []


def test_a_forked_child_closes_it_and_leaves_the_name_to_the_parent(
    ctx: mcast.Context, directory: Path
) -> None:
    ctx.socket(mcast.SUB)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ctx.closed and len(os.listdir(directory)) == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert [context.pid for context in survey().contexts] == [os.getpid()]


def test_off_is_off(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    with mcast.Context(status=False) as ctx:
        ctx.socket(mcast.SUB)
        assert not directory.exists()
    monkeypatch.setenv("MCAST_STATUS", "off")
    with mcast.Context() as ctx:
        ctx.socket(mcast.SUB)
        assert not directory.exists()


def test_a_directory_that_others_can_enter_is_not_used(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    with mcast.Context() as ctx:
        ctx.socket(mcast.SUB)
        assert os.listdir(directory) == []
    with pytest.raises(mcast.TransportError, match="chmod 700"):
        mcast.Context(status=True)


def test_a_link_is_not_followed(tmp_path: Path, directory: Path) -> None:
    tmp_path.chmod(0o700)
    directory.symlink_to(tmp_path)
    with pytest.raises(mcast.TransportError, match="not a directory"):
        private_directory([str(directory)])


def test_a_setting_that_means_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCAST_STATUS", "yes")
    with pytest.raises(mcast.OptionError, match="MCAST_STATUS is on, off or"):
        mcast.Context()


def test_another_user_s_runtime_directory_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert status_directories()[0] == str(tmp_path / "mcast")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert str(tmp_path / "mcast") not in status_directories()


def test_those_who_ask_and_never_read_hold_up_nobody(ctx: mcast.Context, url: str) -> None:
    """Far more than are answered at once, none of which reads; and bytes that nobody wants."""
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    many = [ctx.socket(mcast.SUB) for _ in range(200)]  # longer than the socket's buffer
    path = survey().contexts[0].path
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            asked = stack.enter_context(socket.socket(socket.AF_UNIX))
            asked.settimeout(LIMIT_S)
            asked.connect(path)
            with contextlib.suppress(OSError):
                asked.send(b"\x00GET / " * 100)
        deadline = time.monotonic() + LIMIT_S
        while len(survey().contexts) != 1:
            assert time.monotonic() < deadline
        assert len(os.listdir("/proc/self/fd")) <= before + 30 + 8
        assert len(survey().contexts[0].sockets) == len(many) + 1


def test_a_loop_without_a_thread_answers_while_it_is_driven(url: str) -> None:
    for busy_poll in (False, True):
        with mcast.Context(loop="caller", busy_poll=busy_poll, linger=0.0) as ctx:
            sub = ctx.socket(mcast.SUB)
            sub.connect(url)
            looked = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from mcast.observe import survey; print(len(survey(timeout=8).contexts))",
                ],
                stdout=subprocess.PIPE,
            )
            while looked.poll() is None:
                with contextlib.suppress(mcast.Again):
                    sub.recv(timeout=0.05)
            assert looked.communicate()[0] == b"1\n"


def test_an_answer_that_never_ends_is_given_up(tmp_path: Path) -> None:
    path = str(tmp_path / "endless.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        pid = os.fork()
        if pid == 0:
            client, _ = listener.accept()
            with contextlib.suppress(OSError):
                while True:
                    client.send(b"[" * 65536)
            os._exit(0)
        answers = ask_all([path], lambda: LIMIT_S)
        os.waitpid(pid, 0)
    assert isinstance(answers[path], OSError)
    assert "longer than" in str(answers[path])


# By HTTP.


def scraped(ctx: mcast.Context) -> str:
    answer = urllib.request.urlopen(f"http://{ctx.metrics_address}/metrics", timeout=LIMIT_S)
    text: bytes = answer.read()
    return text.decode()


def test_prometheus_reads_the_counters(url: str) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with mcast.Context(metrics=":0", linger=0.0) as ctx:
        pub = ctx.socket(mcast.PUB)
        pub.connect(url)
        pub.send_many([b"x"] * 5)
        text = scraped(ctx)
        assert ctx.metrics_address is not None
        assert ctx.metrics_address.startswith("127.0.0.1:")
    found = {family.name: family for family in text_string_to_metric_families(text)}
    sent = found["mcast_messages_sent"]
    assert sent.type == "counter"
    (sample,) = sent.samples
    assert (sample.name, sample.value) == ("mcast_messages_sent_total", 5.0)
    assert sample.labels == {"socket": "1", "type": "PUB", "endpoint": url}
    assert found["mcast_peers"].type == "gauge"
    assert found["mcast_naks_sent"].documentation == "NAK packets sent."
    promtool = shutil.which("promtool")
    if promtool is not None:
        judged = subprocess.run([promtool, "check", "metrics"], input=text.encode(), check=False)
        assert judged.returncode == 0


def test_a_port_in_use_is_a_clear_error_at_the_constructor() -> None:
    with mcast.Context(metrics=":0") as ctx:
        assert ctx.metrics_address is not None
        with pytest.raises(mcast.TransportError, match="choose another port"):
            mcast.Context(metrics=ctx.metrics_address)


@pytest.mark.parametrize("text", ["", "9404", ":x", ":70000", "a:b:1", "[::1]", ":-1"])
def test_what_is_no_address_is_an_error(text: str) -> None:
    with pytest.raises(mcast.OptionError, match="metrics is an address such as ':9404'"):
        mcast.Context(metrics=text)


def test_the_port_is_free_after_the_context() -> None:
    with mcast.Context(metrics=":0") as ctx:
        address = ctx.metrics_address
        assert address is not None
    with mcast.Context(metrics=address) as again:
        assert again.metrics_address == address


def test_a_forked_child_does_not_keep_the_port() -> None:
    with mcast.Context(metrics=":0") as ctx:
        address = ctx.metrics_address
        assert address is not None
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with mcast.Context(metrics=address) as again:
            scraped(again)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_client_that_trickles_bytes_is_cut_off() -> None:
    with mcast.Context(metrics=":0") as ctx:
        assert ctx.metrics_address is not None
        host, port = ctx.metrics_address.split(":")
        began = time.monotonic()
        with socket.create_connection((host, int(port))) as slow:
            with contextlib.suppress(OSError):
                while time.monotonic() - began < LIMIT_S:
                    slow.send(b"G")
                    time.sleep(0.1)
                    slow.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        if slow.recv(1) == b"":
                            break
                    slow.setblocking(True)
            assert 1.5 < time.monotonic() - began < 5
        assert "# TYPE" in scraped(ctx) or scraped(ctx) == ""
