"""The streams that are heard: told apart, counted, and never more than the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.capture import census as module
from mcast.capture.census import Census
from mcast.pgm.packet import build_nak, build_spm
from tests.unit.pgm.packets import odata

pytestmark = pytest.mark.kernel_independent

TSI = bytes(range(1, 9))
ADDRESS = bytes([10, 0, 0, 1])


def heard(*datagrams: bytes, place: int = 0, source: str = "10.0.0.1") -> Census:
    census = Census()
    for i, data in enumerate(datagrams):
        census.handle_datagram_untrusted(place, source, memoryview(data), i * 1000)
    return census


def test_spm_alone_makes_a_stream_with_its_window() -> None:
    (stream,) = heard(build_spm(TSI, 5555, 1, 10, 20, ADDRESS)).streams.values()
    assert (stream.tsi, stream.trail, stream.lead) == ("010203040506.1800", 10, 20)
    assert (stream.numbers, stream.lost_count, stream.is_leaving) == (None, 0, False)


def test_goodbye_is_noted() -> None:
    (stream,) = heard(build_spm(TSI, 5555, 1, 10, 20, ADDRESS, fin=True)).streams.values()
    assert stream.is_leaving


def test_missing_numbers_are_lost_until_they_come_also_across_the_wrap() -> None:
    top = 2**32 - 1
    (stream,) = heard(odata(top - 1, "x"), odata(1, "x")).streams.values()
    assert stream.lost_count == 2
    (stream,) = heard(
        odata(top - 1, "x"), odata(1, "x"), odata(top, "x"), odata(0, "x"), odata(0, "x")
    ).streams.values()
    assert stream.lost_count == 0
    assert stream.numbers is not None
    assert (stream.numbers.reordered_count, stream.numbers.duplicate_count) == (2, 1)


def test_same_tsi_of_another_host_or_group_is_another_stream() -> None:
    census = Census()
    for place, source in [(0, "10.0.0.1"), (0, "10.0.0.2"), (1, "10.0.0.1"), (0, "10.0.0.1")]:
        census.handle_datagram_untrusted(place, source, memoryview(odata(1, "x")), 0)
    assert [stream.packet_count for stream in census.streams.values()] == [2, 1, 1]


def test_packets_of_receivers_make_no_stream_but_are_counted() -> None:
    census = heard(build_nak(TSI, 5555, [7], ADDRESS, bytes([239, 1, 1, 1])))
    assert not census.streams
    assert census.upstream[0, "010203040506.1800", "NAK"] == 1


def test_streams_and_receivers_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STREAMS", 10)
    census = Census()
    for i in range(50):
        tsi = i.to_bytes(8, "big")
        spm = build_spm(tsi, 5555, 1, 1, 1, ADDRESS)
        nak = build_nak(tsi, 5555, [7], ADDRESS, bytes([239, 1, 1, 1]))
        for data in (spm, nak):
            census.handle_datagram_untrusted(0, "10.0.0.1", memoryview(data), 0)
    assert (len(census.streams), len(census.upstream), census.bad["streams"]) == (10, 10, 40)


@given(st.binary(max_size=80))
def test_no_bytes_raise(data: bytes) -> None:
    census = heard(data)
    assert len(census.streams) + census.upstream.total() + census.bad.total() == 1
