"""The fixture ``mcast_capture`` in a session of pytest of its own, with real sockets and loss."""

from __future__ import annotations

import pytest

CONFTEST = 'pytest_plugins = ["mcast.testing.pytest_plugin"]'


def test_captured_session_shows_that_a_lossy_subscriber_was_repaired(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/howto/capture-tests.md."""
    monkeypatch.setenv("MCAST_LOSS", "10%,seed=1")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import mcast
        from mcast.testing import assert_no_gaps, assert_repaired

        def test_quotes_are_repaired(mcast_capture):
            capture = mcast_capture("239.192.7.9:5597")
            url = "epgm://lo;239.192.7.9:5597"
            with mcast.Context() as context:
                subscriber = context.socket(mcast.SUB)
                subscriber.subscribe(b"")
                subscriber.connect(url)
                publisher = context.socket(mcast.PUB)
                publisher.bind(url)
                publisher.send(b"first")
                while not subscriber.poll(0.05):
                    publisher.send(b"first")
                for number in range(300):
                    publisher.send(b"quote %d" % number + bytes(1000))
                while not subscriber.recv(timeout=10).startswith(b"quote 299"):
                    pass
            session = capture.stop()
            assert_no_gaps(session)
            assert_repaired(session)
            (stream,) = session.streams
            assert stream.counts["NCF"] > 0
            assert stream.repair_count > 0
            assert len([m for m in session.messages if m.startswith(b"quote")]) == 300
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_wrong_interface_is_an_error_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        def test_nothing(mcast_capture):
            mcast_capture("239.192.7.9:5597", interface="nope0")
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no interface named 'nope0'*"])
