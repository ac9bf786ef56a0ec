"""Capture files in all their forms, whole, cut anywhere, and corrupt."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.capture.files import CaptureError, CaptureFile, open_capture
from mcast.capture.write import PcapngWriter
from tests.unit.capture.files import START_NS, opened, pcap, pcapng

pytestmark = pytest.mark.kernel_independent

PACKETS = [(START_NS, b"one"), (START_NS + 1_500_000, b""), (START_NS + 2_000_000, b"three")]


def read_all(file: CaptureFile) -> list[tuple[int, bytes]]:
    found = []
    while (record := file.next_record()) is not None:
        found.append((record.time_ns, bytes(record.data)))
    return found


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [True, False])
def test_pcap_is_read_in_either_byte_order_and_unit(order: str, nano: bool) -> None:
    file = opened(pcap(PACKETS, order=order, nano=nano, link=1))
    assert read_all(file) == PACKETS
    assert file.frame_count == 3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tsresol", [None, 6, 9, 0x80 | 30])
def test_pcapng_is_read_in_either_byte_order_and_any_unit(order: str, tsresol: int | None) -> None:
    found = read_all(opened(pcapng(PACKETS, order=order, tsresol=tsresol)))
    assert [data for _, data in found] == [data for _, data in PACKETS]
    # A tick of 2^-30 s is not a whole number of ns, so a time may be one less.
    assert all(0 <= want - got <= 1 for (got, _), (want, _) in zip(found, PACKETS, strict=True))


def test_sections_count_their_interfaces_anew_and_frames_go_on() -> None:
    file = opened(pcapng(PACKETS, link=1) + pcapng(PACKETS, link=101, order=">"))
    records = []
    while (record := file.next_record()) is not None:
        records.append((record.frame, record.link_type))
    assert records == [(1, 1), (2, 1), (3, 1), (4, 101), (5, 101), (6, 101)]


def test_what_is_written_is_read_back() -> None:
    pieces: list[bytes] = []
    writer = PcapngWriter(pieces.append, interface="lo")
    for time_ns, data in PACKETS:
        writer.packet(time_ns, data)
    writer.statistics(START_NS, 3, 2)
    data = b"".join(pieces)
    assert writer.written_bytes == len(data)
    file = opened(data)
    assert read_all(file) == PACKETS
    assert file.dropped_count == 2


@pytest.mark.parametrize("data", [pcap(PACKETS), pcapng(PACKETS)], ids=["pcap", "pcapng"])
def test_file_cut_anywhere_gives_what_is_whole_and_then_says_so(data: bytes) -> None:
    whole_ends = 0
    for end in range(1, len(data)):
        found = []
        try:
            file = opened(data[:end])
            while (record := file.next_record()) is not None:
                found.append((record.time_ns, bytes(record.data)))
            whole_ends += 1
        except CaptureError as error:
            assert "end" in str(error) or "cut" in str(error) or "no pcap" in str(error)  # noqa: PT017
        assert found == PACKETS[: len(found)]
    # The file may end after its header and after each packet, and nobody can tell.
    assert whole_ends == (3 if data[:1] == b"\x4d" else 4)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"hello world, this is text", "no pcap or pcapng"),
        (pcap([])[:24] + b"\xff" * 40, "corrupt"),
        (pcapng(PACKETS) + b"\x06\0\0\0\xff\xff\xff\x7f" + bytes(40), "corrupt"),
        (pcapng(PACKETS) + b"\x06\0\0\0\x20\0\0\0" + bytes(20) + b"\x24\0\0\0", "differ"),
        (pcapng(PACKETS) + b"\x06\0\0\0\x20\0\0\0\x09" + bytes(19) + b"\x20\0\0\0", "contradicts"),
    ],
)
def test_corrupt_file_is_named_as_such(data: bytes, why: str) -> None:
    with pytest.raises(CaptureError, match=why):
        read_all(opened(data))


@given(st.binary(max_size=200), st.sampled_from(["pcap", "pcapng"]))
def test_any_bytes_end_in_records_or_a_capture_error(tail: bytes, form: str) -> None:
    data = (pcap(PACKETS) if form == "pcap" else pcapng(PACKETS)) + tail
    try:
        assert read_all(opened(data))[:3] == PACKETS
    except CaptureError:
        pass


def test_gzip_file_is_read_and_a_cut_or_corrupt_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcap.gz"
    path.write_bytes(gzip.compress(pcap(PACKETS)))
    with open_capture(path) as file:
        assert read_all(file) == PACKETS
    whole = path.read_bytes()
    for bad in (whole[:-12], whole[:-8] + bytes(8), whole[:14] + b"\xff" * 20):
        path.write_bytes(bad)
        with pytest.raises(CaptureError, match="gzip"), open_capture(path) as file:
            read_all(file)
