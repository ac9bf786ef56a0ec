"""What a capture must show for a test to pass: no gaps, or every gap repaired.

Owns the questions; ``mcast.capture`` reads the file. Works on any pcap or pcapng file, whoever made
it. Invariant: an assertion that fails names the stream and the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mcast.capture import Decoder, Heard, PgmStream, Session, open_capture
from mcast.kernel import Message

__all__ = ["CapturedSession", "assert_no_gaps", "assert_repaired", "read_session"]

_SHOWN: Final = 10
"""Gaps and numbers named in a failure's text."""


class CapturedSession:
    """A capture that was read to its end."""

    def __init__(self, path: Path, decoder: Decoder, heard: Sequence[Heard]) -> None:
        self.path = path
        self.streams: list[PgmStream] = list(decoder.streams.values())
        """Its PGM streams, in the order they were first heard."""
        self.sessions: list[Session] = [s for s in decoder.sessions.sessions if s.is_zmtp]
        """Its ZMTP connections."""
        self.heard: list[Heard] = list(heard)
        """Its messages with their times and streams."""
        self.error = decoder.error
        """Why the file could not be read to its end, or empty."""

    @property
    def messages(self) -> list[Message]:
        """Its messages: bytes, or a tuple where there are several parts."""
        return [step.message for step in self.heard]


def read_session(path: Path) -> CapturedSession:
    """Everything in the capture at ``path``, its messages in memory.

    Raises ``OSError`` or ``mcast.capture.CaptureError`` if there is no capture.
    """
    with open_capture(path) as file:
        decoder = Decoder(file, messages=True)
        heard = [step for step in decoder.steps() if isinstance(step, Heard)]
        return CapturedSession(path, decoder, heard)


def assert_no_gaps(session: CapturedSession, *streams: PgmStream) -> None:
    """Every number of ``streams`` (none named: of all) came, and in its turn.

    Raises ``AssertionError`` with the gaps; also if there is no stream, or the file is broken.
    """
    for stream in _asked(session, streams):
        shown = ", ".join(_range(gap.first, gap.last) for gap in stream.gaps[:_SHOWN])
        count = f"{stream.gap_count} gaps, {stream.missing_count} packets"
        assert not stream.gap_count, f"{_name(session, stream)} has {count}: {shown}"


def assert_repaired(session: CapturedSession, *streams: PgmStream) -> None:
    """Whatever was missing or asked for in ``streams`` (none named: in all) came in the end.

    Passes, too, where nothing was missing. Raises ``AssertionError`` with the numbers that never
    came or were asked for in vain; also if there is no stream, or the file is broken.
    """
    for stream in _asked(session, streams):
        shown = ", ".join(_range(gap.first, gap.last) for gap in stream.lost[:_SHOWN])
        name = _name(session, stream)
        assert not stream.lost_count, f"{name} lost {stream.lost_count} packets: {shown}"
        vain = stream.unanswered
        assert not vain, f"{name}: asked for in vain: {', '.join(map(str, vain[:_SHOWN]))}"


def _asked(session: CapturedSession, streams: Sequence[PgmStream]) -> Sequence[PgmStream]:
    assert not session.error, f"{session.path}: {session.error}"
    found = streams or session.streams
    assert found, f"{session.path} has no PGM stream"
    return found


def _name(session: CapturedSession, stream: PgmStream) -> str:
    return f"{session.path}: stream {stream.name}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"
