"""Closing from a signal handler or a finalizer, in the thread that is inside a call just then."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("delay_ms", [5, 9, 14])
def test_a_signal_handler_may_close_the_socket_that_is_sending(url: str, delay_ms: int) -> None:
    program = f"""
        import signal, sys, mcast
        ctx = mcast.Context()
        pub = ctx.socket(mcast.PUB)
        pub.connect(sys.argv[1])
        signal.signal(signal.SIGALRM, lambda *_: pub.close())
        signal.setitimer(signal.ITIMER_REAL, {delay_ms} / 1000)
        try:
            while True:
                pub.send_multipart([b"x" * 100, b"y" * 100])
        except mcast.ClosedError:
            ctx.term()
            print("closed")
    """
    ended = run(program, url)
    assert (ended.stdout, ended.stderr) == ("closed\n", "")


def test_a_finalizer_that_runs_in_the_loop_thread_may_close_a_socket(url: str) -> None:
    program = """
        import gc, sys, mcast

        class Owner:
            def __init__(self, ctx):
                self.sub = ctx.socket(mcast.SUB)
                self.sub.connect(sys.argv[1])
                self.sub.subscribe(b"")
                self.me = self  # a cycle, so that the collector finalizes it

            def __del__(self):
                self.sub.close()

        gc.set_threshold(50, 2, 2)
        with mcast.Context() as ctx:
            pub = ctx.socket(mcast.PUB)
            pub.connect(sys.argv[1])
            sub = ctx.socket(mcast.SUB)
            sub.connect(sys.argv[1])
            sub.subscribe(b"")
            for number in range(30):
                Owner(ctx)
                for _ in range(50):
                    pub.send_multipart([b"a", b"b", b"c"])
            for _ in range(1500):
                assert sub.recv_multipart(timeout=10) == [b"a", b"b", b"c"]
        print("done")
    """
    ended = run(program, url)
    assert (ended.stdout, ended.stderr) == ("done\n", "")
