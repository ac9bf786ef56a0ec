"""The transmit window: framing into packets, runs, repairs, eviction, and the limits."""

from __future__ import annotations

import gc
import random
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcast import kernel
from tests.unit.kernel.packets import (
    DPORT,
    GSI,
    ODATA,
    RDATA,
    TSI,
    data_packet,
    frame,
    split,
    take_all,
    word_sum_checksum,
)


def window(
    tsdu_bytes: int = 1428, slot_count: int = 64, first_sqn: int = 0
) -> kernel.TransmitSlots:
    return kernel.TransmitSlots(TSI, DPORT, tsdu_bytes, slot_count, first_sqn)


def fill(slots: kernel.TransmitSlots, count: int) -> None:
    """Send ``count`` packets, each with one message that is the packet's number."""
    for _ in range(count):
        assert slots.append((str(slots.next).encode(),))
        slots.seal()
        slots.take_run(1000)


def taken_runs(
    slots: kernel.TransmitSlots, max_packet_count: int
) -> Iterator[tuple[memoryview, int]]:
    while (run := slots.take_run(max_packet_count)) is not None:
        yield run


def header(packet: bytes) -> dict[str, int]:
    names = ("kind", "options", "checksum", "tsdu_bytes", "sqn", "trail", "offset")
    return dict(zip(names, struct.unpack(">4xBBH6xHIIH", packet[:26]), strict=True))


@pytest.mark.skipif(kernel.NAME != "native", reason="Python may be interrupted anywhere")
@pytest.mark.parametrize("threshold", range(1, 12))
def test_what_is_sent_while_a_repair_run_is_made_does_not_get_into_it(threshold: int) -> None:
    """The garbage collector may run where an object is made, and let a thread in that sends."""
    slots = kernel.TransmitSlots(TSI, DPORT, 1400, 64, 0)
    for _ in range(100):
        slots.append([b"short"])
        slots.seal()
        slots.take_run(8)
    asked = list(range(slots.trail, slots.trail + 20))

    def send(phase: str, _: object) -> None:
        if phase == "start":
            gc.callbacks.remove(send)
            for _number in range(40):
                slots.append([b"Z" * 1300])
                slots.seal()

    litter: list[object] = [[] for _ in range(200)]  # no list is to be had without making one
    gc.collect()
    litter += [[] for _ in range(200)]
    thresholds = gc.get_threshold()
    gc.callbacks.append(send)
    gc.set_threshold(threshold)
    try:
        run = slots.repair_run(asked)
    finally:
        gc.set_threshold(*thresholds)
        if send in gc.callbacks:
            gc.callbacks.remove(send)
    if run is not None:  # else the window had moved on before
        assert b"Z" not in run[0]
        assert len(run[0]) == 20 * run[1]


# --- framing, byte for byte ----------------------------------------------------------------------

LIBZMQ = {
    "A": ([b"A"], "0000020041"),
    "two parts": ([b"topic", b"hello world"], "00000601746f7069630c0068656c6c6f20776f726c64"),
    "empty": ([b""], "00000100"),
    "253, the longest short form": ([b"x" * 253], "0000fe00" + "78" * 253),
    "254, the shortest long form": ([b"y" * 254], "0000ff00000000000000ff00" + "79" * 254),
    "first part empty": ([b"", b"z"], "0000010102007a"),
}


@pytest.mark.parametrize(("parts", "raw"), LIBZMQ.values(), ids=LIBZMQ)
def test_a_message_is_framed_as_libzmq_frames_it(parts: list[bytes], raw: str) -> None:
    slots = window()
    assert slots.append(parts)
    (packet,) = take_all(slots)
    # libzmq leaves the offset at the first message of a TSDU; ours does, too.
    assert packet[24:].hex() == raw


def test_a_packet_is_that_of_libzmq_octet_for_octet() -> None:
    slots = window()
    slots.append([b"A"])
    slots.seal()
    slots.append([b"topic", b"hello world"])
    first, second = take_all(slots)
    assert first.hex() == "d01715b304004622b7c6d1bc038a000500000000000000000000020041"
    assert second.hex() == (
        "d01715b304006c98b7c6d1bc038a00160000000100000000"
        "00000601746f7069630c0068656c6c6f20776f726c64"
    )


def test_4000_octets_make_the_three_tsdus_of_libzmq() -> None:
    slots = window()
    slots.append([b"L" * 4000])
    tsdus = [packet[24:] for packet in take_all(slots)]
    assert [len(tsdu) for tsdu in tsdus] == [1428, 1428, 1160]
    assert tsdus[0].startswith(bytes.fromhex("0000ff0000000000000fa1004c"))
    assert tsdus[1].startswith(bytes.fromhex("ffff4c"))
    assert tsdus[2].startswith(bytes.fromhex("04864c"))  # 1158, the end: a message could start


def test_multipart_over_packets_points_only_at_message_starts() -> None:
    slots = window()
    slots.append([b"HEAD", b"x" * 3000])
    tsdus = [packet[24:] for packet in take_all(slots)]
    assert tsdus[0].startswith(bytes.fromhex("0000") + frame(b"HEAD", more=True) + b"\xff")
    assert [tsdu[:2].hex() for tsdu in tsdus] == ["0000", "ffff", "00a4"]
    assert len(tsdus[2]) == 2 + 0xA4


def test_the_offset_names_the_first_of_several_messages() -> None:
    slots = window(tsdu_bytes=40)
    slots.append([b"x" * 40])  # 42 octets: 38 and 4
    slots.append([b"second"])
    slots.append([b"third"])
    tsdus = [packet[24:] for packet in take_all(slots)]
    assert [tsdu[:2].hex() for tsdu in tsdus] == ["0000", "0004"]
    assert tsdus[1][2 + 4 :] == frame(b"second") + frame(b"third")


def test_a_message_that_fills_its_last_packet_leaves_no_offset() -> None:
    slots = window(tsdu_bytes=40)
    slots.append([b"x" * (38 + 38 - 2)])
    tsdus = [packet[24:] for packet in take_all(slots)]
    assert [tsdu[:2].hex() for tsdu in tsdus] == ["0000", "ffff"]
    assert [len(tsdu) for tsdu in tsdus] == [40, 40]


def test_a_full_packet_is_sealed_by_itself() -> None:
    slots = window(tsdu_bytes=40)
    slots.append([b"x" * 36])
    assert (slots.next, slots.open_bytes) == (1, 0)
    slots.append([b"x" * 35])
    assert (slots.next, slots.open_bytes) == (1, 37)


def test_a_frame_head_may_be_cut_by_the_end_of_a_packet() -> None:
    slots = window(tsdu_bytes=40)
    slots.append([b"x" * 35])  # one octet of room is left
    slots.append([b"yz"])
    tsdus = [packet[24:] for packet in take_all(slots)]
    assert tsdus[0] == b"\0\0" + frame(b"x" * 35) + b"\x03"
    assert tsdus[1] == b"\0\x03" + b"\0yz"


def test_sealing_nothing_makes_no_packet() -> None:
    slots = window()
    slots.seal()
    assert slots.next == 0
    assert slots.take_run(10) is None


def test_every_packet_is_well_formed() -> None:
    slots = window(first_sqn=7)
    slots.append([b"L" * 4000])
    for number, packet in enumerate(take_all(slots), 7):
        assert packet[:4] == TSI[6:] + DPORT.to_bytes(2, "big")
        assert packet[8:14] == GSI
        fields = header(packet)
        assert (fields["kind"], fields["options"]) == (ODATA, 0)
        assert (fields["sqn"], fields["trail"]) == (number, 7)
        assert fields["tsdu_bytes"] == len(packet) - 24
        assert fields["checksum"] == word_sum_checksum(packet[:6] + b"\0\0" + packet[8:])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_parts_may_be_any_bytes_type(kind: type) -> None:
    slots = window()
    slots.append([kind(b"one")])
    slots.append((kind(b"two"), kind(b"three")))
    assert slots.append_many([kind(b"four")], 0, 1) == 1
    (packet,) = take_all(slots)
    stream = frame(b"one") + frame(b"two", more=True) + frame(b"three") + frame(b"four")
    assert packet[26:] == stream


def test_an_item_wider_than_an_octet_counts_by_its_octets() -> None:
    slots = window()
    slots.append([memoryview(struct.pack("4H", 1, 2, 3, 4)).cast("H")])
    (packet,) = take_all(slots)
    assert packet[26:] == frame(struct.pack("4H", 1, 2, 3, 4))


# --- what is refused -----------------------------------------------------------------------------

MISTAKES: dict[str, tuple[object, type[Exception], str]] = {
    "no part": ([], ValueError, "a message has at least one part"),
    "text": (["text"], TypeError, "bytes-like"),
    "a number": ([b"good", 3], TypeError, "bytes-like"),
    "bytes instead of a list": (b"abc", TypeError, "bytes-like"),
    "every other octet": ([memoryview(b"abcdef")[::2]], TypeError, "contiguous"),
    "too long": ([b"x" * 100_000], ValueError, "a message of 100010 bytes does not fit"),
}


@pytest.mark.parametrize(("parts", "error", "text"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_raises_and_leaves_the_stream_as_it_was(
    parts: object, error: type[Exception], text: str
) -> None:
    slots = window()
    slots.append([b"before"])
    with pytest.raises(error, match=text):
        slots.append(parts)  # type: ignore[arg-type]
    assert slots.message_count == 1
    slots.append([b"after"])
    (packet,) = take_all(slots)
    assert packet[26:] == frame(b"before") + frame(b"after")


def test_append_many_keeps_what_came_before_a_mistake() -> None:
    slots = window()
    with pytest.raises(TypeError):
        slots.append_many([b"1", b"2", "3", b"4"], 0, 4)  # type: ignore[list-item]
    assert slots.message_count == 2


@pytest.mark.parametrize(
    ("tsi", "dport", "tsdu_bytes", "slot_count", "first_sqn"),
    [
        (TSI[:7], DPORT, 1428, 64, 0),
        (TSI, 0, 1428, 64, 0),
        (TSI, 65536, 1428, 64, 0),
        (TSI, DPORT, 15, 64, 0),
        (TSI, DPORT, 65001, 64, 0),
        (TSI, DPORT, 1428, 3, 0),
        (TSI, DPORT, 1428, 64, -1),
    ],
)
def test_impossible_windows_are_refused(
    tsi: bytes, dport: int, tsdu_bytes: int, slot_count: int, first_sqn: int
) -> None:
    with pytest.raises(ValueError, match=r"TSI|tsdu_bytes"):
        kernel.TransmitSlots(tsi, dport, tsdu_bytes, slot_count, first_sqn)


@pytest.mark.parametrize(("dport", "tsdu_bytes", "slot_count"), [(1, 16, 4), (65535, 65_000, 4)])
def test_windows_at_the_limits_carry_messages(dport: int, tsdu_bytes: int, slot_count: int) -> None:
    slots = kernel.TransmitSlots(TSI, dport, tsdu_bytes, slot_count)
    assert slots.append([b"A"])
    (packet,) = take_all(slots)
    assert packet[2:4] == dport.to_bytes(2, "big")
    assert packet[26:] == frame(b"A")


# --- the limit on what waits ---------------------------------------------------------------------


def test_append_says_no_when_the_window_is_half_full_of_unsent_packets() -> None:
    slots = window(tsdu_bytes=40, slot_count=8)
    full = [b"x" * 36]
    assert slots.unsent_limit == 4
    assert [slots.append(full) for _ in range(5)] == [True] * 4 + [False]
    assert (slots.message_count, slots.next) == (4, 4)
    slots.take_run(1)
    assert slots.append(full)
    assert not slots.append(full)


def test_a_refused_message_leaves_no_trace() -> None:
    slots = window(tsdu_bytes=40, slot_count=8)
    for _ in range(3):
        slots.append([b"x" * 36])
    slots.append([b"head"])
    assert not slots.append([b"y" * 38])
    assert slots.open_bytes == 6
    packets = take_all(slots)
    assert packets[-1][24:] == b"\0\0" + frame(b"head")


def test_one_octet_over_the_last_packet_is_refused() -> None:
    slots = window(tsdu_bytes=40, slot_count=8)
    for _ in range(3):
        slots.append([b"x" * 36])
    assert not slots.append([b"y" * 37])
    assert slots.append([b"y" * 36])
    assert slots.next - slots.unsent == slots.unsent_limit


def test_the_longer_frame_head_counts_against_the_longest_message() -> None:
    slots = window(tsdu_bytes=88, slot_count=8)
    assert slots.max_stream_bytes == 258
    assert slots.append([b"x" * 253])
    with pytest.raises(ValueError, match="264 bytes"):
        slots.append([b"x" * 254])


def test_the_longest_message_fits_an_idle_window_whatever_is_in_the_open_packet() -> None:
    slots = window(tsdu_bytes=40, slot_count=16)
    assert slots.max_stream_bytes == 7 * 38
    slots.append([b"x" * 35])
    body = 7 * 38 - 10
    assert slots.append([b"y" * body])
    with pytest.raises(ValueError, match="267 bytes"):
        slots.append([b"y" * (body + 1)])


def test_append_many_says_how_far_it_came() -> None:
    slots = window(tsdu_bytes=40, slot_count=8)
    messages = [b"x" * 36] * 10
    assert slots.append_many(messages, 0, 10) == 4
    assert slots.append_many(messages, 4, 10) == 4
    slots.take_run(44)
    assert slots.append_many(messages, 4, 10) == 8
    slots.take_run(44)
    assert slots.append_many(tuple(messages), 8, 10) == 10
    assert slots.message_count == 10


def test_append_many_of_no_messages_is_done_at_once() -> None:
    assert window().append_many([], 0, 0) == 0
    assert window().append_many([b"a"], 1, 1) == 1


def test_unsent_messages_count_until_their_last_octet_is_taken() -> None:
    slots = window(tsdu_bytes=40, slot_count=16)
    slots.append([b"a"])
    assert slots.unsent_message_count == 1
    slots.append([b"x" * 60])
    slots.seal()
    assert slots.unsent_message_count == 2
    slots.take_run(1)  # all of the first, half of the second
    assert slots.unsent_message_count == 1
    slots.take_run(1)
    assert slots.unsent_message_count == 0


# --- runs ----------------------------------------------------------------------------------------


def test_full_packets_and_a_shorter_last_one_make_one_run() -> None:
    slots = window(tsdu_bytes=40, slot_count=64)
    slots.append([b"x" * 100])
    slots.seal()
    run = slots.take_run(44)
    assert run is not None
    view, segment_bytes = run
    assert segment_bytes == 64
    assert [len(packet) for packet in split(bytes(view), 64)] == [64, 64, 26 + 102 - 76]
    assert slots.take_run(44) is None


def test_a_run_ends_behind_a_short_packet() -> None:
    slots = window(tsdu_bytes=40, slot_count=64)
    for size in (36, 5, 36, 36, 5, 5):
        slots.append([b"x" * size])
        slots.seal()
    runs = [(len(view), segment_bytes) for view, segment_bytes in taken_runs(slots, 44)]
    short = 26 + 7
    assert runs == [(64 + short, 64), (64 + 64 + short, 64), (short, short)]


def test_a_run_has_at_most_as_many_packets_as_asked_for() -> None:
    slots = window(tsdu_bytes=40, slot_count=64)
    for _ in range(5):
        slots.append([b"x" * 36])
    lengths = [len(view) for view, _ in taken_runs(slots, 2)]
    assert lengths == [128, 128, 64]
    assert slots.take_run(0) is None


def test_a_run_ends_at_the_end_of_the_ring() -> None:
    slots = window(tsdu_bytes=40, slot_count=8)
    fill(slots, 6)
    for _ in range(4):
        slots.append([b"x" * 36])
    lengths = [len(view) for view, _ in taken_runs(slots, 44)]
    assert lengths == [128, 128]
    assert slots.unsent == slots.next == 10


def test_a_view_outlives_its_window() -> None:
    slots = window()
    slots.append([b"kept"])
    slots.seal()
    run = slots.take_run(1)
    assert run is not None
    del slots
    assert bytes(run[0]).endswith(b"kept")


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=3), max_size=30),
    st.sampled_from([16, 40, 257, 1428]),
    st.randoms(use_true_random=False),
)
def test_whatever_is_appended_comes_out_of_a_decoder_in_order(
    messages: list[list[bytes]], tsdu_bytes: int, dice: random.Random
) -> None:
    slots = window(tsdu_bytes=tsdu_bytes, slot_count=256)
    decoder = kernel.FrameDecoder(kernel.TopicFilter([b""]), 1 << 20, 100)
    out: list[kernel.Message] = []
    for parts in messages:
        assert slots.append(parts)
        if dice.random() < 0.3:
            for packet in take_all(slots):
                decoder.decode(packet[24:], out)
    for packet in take_all(slots):
        decoder.decode(packet[24:], out)
    assert out == [parts[0] if len(parts) == 1 else tuple(parts) for parts in messages]
    assert decoder.malformed_count == 0


# --- repairs and the trail -----------------------------------------------------------------------


def test_a_repair_is_the_packet_as_rdata_with_the_current_trail() -> None:
    slots = window()
    fill(slots, 5)
    slots.advance(2)
    run = slots.repair_run([3])
    assert run is not None
    assert bytes(run[0]) == data_packet(3, b"\0\0" + frame(b"3"), trail=2, kind=RDATA)


def test_a_repair_may_be_sent_again_with_a_later_trail() -> None:
    slots = window()
    fill(slots, 5)
    slots.repair_run([4])
    slots.advance(3)
    run = slots.repair_run([4])
    assert run is not None
    assert bytes(run[0]) == data_packet(4, b"\0\0" + frame(b"4"), trail=3, kind=RDATA)


def test_a_repair_of_full_packets_is_one_run_with_sound_checksums() -> None:
    slots = window(tsdu_bytes=40, slot_count=64)
    slots.append([b"x" * 150])
    take_all(slots)
    run = slots.repair_run(range(10))
    assert run is not None
    packets = split(bytes(run[0]), run[1])
    assert len(packets) == 4
    assert all(kernel.checksum_ok(packet) for packet in packets)
    assert [header(packet)["kind"] for packet in packets] == [RDATA] * 4


def test_repairs_of_one_size_are_one_run_wherever_they_lie() -> None:
    slots = window(tsdu_bytes=40, slot_count=16)
    slots.append([b"x" * 160])  # four full packets and a short one
    take_all(slots)
    fill(slots, 1)
    run = slots.repair_run([3, 0, 2, 4, 5])
    assert run is not None
    packets = split(run[0], run[1])
    assert [header(packet)["sqn"] for packet in packets] == [
        3,
        0,
        2,
        4,
    ]  # a short one ends it
    assert all(kernel.checksum_ok(packet) for packet in packets)
    run = slots.repair_run([5, 1])  # a longer one begins another
    assert run is not None
    assert [header(packet)["sqn"] for packet in split(*run)] == [5]
    run = slots.repair_run([2, 9, 3])
    assert run is not None
    assert [header(packet)["sqn"] for packet in split(*run)] == [2]


def test_what_is_sent_again_later_is_no_matter_to_a_repair_that_waits() -> None:
    slots = window(slot_count=8)
    fill(slots, 4)
    run = slots.repair_run([3])
    assert run is not None
    before = bytes(run[0])
    fill(slots, 20)
    assert run[0] == before


def test_nothing_below_the_trail_and_nothing_unsent_is_repaired() -> None:
    slots = window()
    fill(slots, 5)
    slots.advance(2)
    slots.append([b"unsent"])
    slots.seal()
    assert slots.repair_run([1]) is None
    assert slots.repair_run([5]) is None
    assert slots.repair_run([6]) is None
    assert slots.repair_run([-1]) is None
    run = slots.repair_run(range(4, 10))
    assert run is not None
    assert len(split(bytes(run[0]), run[1])) == 1


def test_advance_goes_neither_back_nor_past_unsent_packets() -> None:
    slots = window()
    fill(slots, 5)
    slots.advance(3)
    slots.advance(1)
    assert slots.trail == 3
    slots.append([b"unsent"])
    slots.seal()
    slots.advance(100)
    assert slots.trail == slots.unsent == 5


def test_the_oldest_packet_goes_when_its_slot_is_needed() -> None:
    slots = window(slot_count=8)
    fill(slots, 8)
    assert slots.trail == 0
    fill(slots, 1)
    assert slots.trail == 1
    fill(slots, 10)
    assert slots.trail == slots.next - 8


def test_a_slot_that_is_being_filled_again_is_never_repaired() -> None:
    slots = window(slot_count=8)
    fill(slots, 8)
    slots.append([b"over packet 0"])
    assert slots.trail == 1
    assert slots.repair_run([0]) is None


def test_an_empty_message_takes_the_place_of_the_oldest_packet_too() -> None:
    slots = window(slot_count=8)
    fill(slots, 8)
    slots.append([b""])
    assert slots.trail == 1
    assert slots.repair_run([0]) is None


def test_every_packet_the_window_holds_can_be_repaired_as_it_was_sent() -> None:
    slots = window(slot_count=8)
    for _ in range(30):
        fill(slots, 1)
        for sqn in range(slots.trail, slots.next):
            run = slots.repair_run([sqn])
            assert run is not None
            assert bytes(run[0])[24:] == b"\0\0" + frame(str(sqn).encode())


def test_the_trail_in_a_header_is_that_of_the_moment_it_was_sealed() -> None:
    slots = window(slot_count=4)
    trails = []
    for _ in range(7):
        slots.append([b"x"])
        slots.seal()
        run = slots.take_run(1)
        assert run is not None
        trails.append(header(bytes(run[0]))["trail"])
    assert trails == [0, 0, 0, 0, 1, 2, 3]


def test_numbers_go_on_past_2_to_the_32_and_the_wire_carries_the_low_bits() -> None:
    slots = window(first_sqn=2**32 - 2)
    for _ in range(4):
        slots.append([b"x"])
        slots.seal()
    packets = take_all(slots)
    assert [header(packet)["sqn"] for packet in packets] == [2**32 - 2, 2**32 - 1, 0, 1]
    assert slots.next == 2**32 + 2
    slots.advance(2**32)
    run = slots.repair_run([2**32 + 1])
    assert run is not None
    fields = header(bytes(run[0]))
    assert (fields["sqn"], fields["trail"]) == (1, 0)
