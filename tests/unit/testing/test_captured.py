"""The assertions on captures: what they let pass, what they refuse, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcast.testing import assert_no_gaps, assert_repaired, read_session
from tests.unit.capture.files import START_NS, pcap
from tests.unit.capture.test_decode import data, nak, ncf
from tests.unit.kernel.packets import RDATA
from tests.vectors.pcap import CAPTURES

GAP = [data(0), data(3), data(4)]
REPAIRED = [*GAP, nak(1, 2), ncf(1, 2), data(1, kind=RDATA), data(2, kind=RDATA)]


def written(folder: Path, packets: list[bytes]) -> Path:
    path = folder / "made.pcap"
    path.write_bytes(pcap((START_NS + 1000 * n, packet) for n, packet in enumerate(packets)))
    return path


def test_whole_stream_has_no_gaps() -> None:
    session = read_session(CAPTURES / "epgm_lo_basic.pcap")
    assert_no_gaps(session)
    assert_no_gaps(session, session.streams[0])
    assert_repaired(session)
    assert session.messages[:2] == [b"A", (b"topic", b"hello world")]


def test_repaired_gap_is_a_gap_and_repaired(tmp_path: Path) -> None:
    session = read_session(written(tmp_path, REPAIRED))
    assert_repaired(session)
    with pytest.raises(AssertionError, match="has 1 gaps, 2 packets: 1 to 2"):
        assert_no_gaps(session)


def test_gap_that_stays_is_not_repaired(tmp_path: Path) -> None:
    session = read_session(written(tmp_path, GAP))
    with pytest.raises(AssertionError, match=r"000102030405\.9029 lost 2 packets: 1 to 2"):
        assert_repaired(session)


def test_nak_without_answer_is_not_repaired() -> None:
    session = read_session(CAPTURES / "epgm_lo_nak_misdirected.pcap")
    assert_no_gaps(session)
    with pytest.raises(AssertionError, match="asked for in vain: 2"):
        assert_repaired(session)


def test_capture_without_a_stream_proves_nothing(tmp_path: Path) -> None:
    session = read_session(written(tmp_path, []))
    for question in (assert_no_gaps, assert_repaired):
        with pytest.raises(AssertionError, match="has no PGM stream"):
            question(session)


def test_broken_capture_proves_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, [data(0), data(1)])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="cut off"):
        assert_no_gaps(read_session(path))
