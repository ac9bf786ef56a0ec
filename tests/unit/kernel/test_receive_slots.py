"""The receive window: in order, early, missing, released, given up, and not plain."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast import kernel
from tests.unit.kernel.packets import DPORT, GSI, RDATA, TSI, data_packet, tsdu

SYN = bytes.fromhex("000400088d040000")


NO_LIMIT = 1 << 40


def window(first_sqn: int = 0, limit_bytes: int = 1 << 20) -> kernel.ReceiveSlots:
    decoder = kernel.FrameDecoder(kernel.TopicFilter([b""]), 1 << 20, 100)
    return kernel.ReceiveSlots(TSI, DPORT, decoder, first_sqn, limit_bytes)


def packet(sqn: int, **fields: object) -> bytes:
    """A packet whose one message is its number."""
    return data_packet(sqn, tsdu(name(sqn)), **fields)  # type: ignore[arg-type]


def name(sqn: int) -> bytes:
    return b"%012d" % sqn


def names(*sqns: int) -> list[kernel.Message]:
    return [name(sqn) for sqn in sqns]


SIZE = len(packet(0))


def run(*sqns: int) -> memoryview:
    return memoryview(b"".join(packet(sqn) for sqn in sqns))


def take(
    slots: kernel.ReceiveSlots, data: bytes | memoryview, start: int = 0, size: int = SIZE
) -> tuple[int, list[kernel.Message]]:
    out: list[kernel.Message] = []
    return slots.absorb(memoryview(data), start, size, out), out


def released(slots: kernel.ReceiveSlots) -> list[kernel.Message]:
    out: list[kernel.Message] = []
    assert slots.release(out, NO_LIMIT) is None
    return out


# --- in order ------------------------------------------------------------------------------------


def test_a_run_in_order_is_decoded_in_one_call() -> None:
    slots = window()
    assert take(slots, run(0, 1, 2)) == (3 * SIZE, names(0, 1, 2))
    assert (slots.next, slots.lead) == (3, 2)
    assert (slots.packet_count, slots.repair_count) == (3, 0)
    assert slots.payload_bytes == 3 * (SIZE - 24)


def test_the_last_packet_of_a_run_may_be_shorter() -> None:
    slots = window()
    short = data_packet(1, tsdu(b"short"))
    assert take(slots, packet(0) + short) == (SIZE + len(short), [name(0), b"short"])


def test_a_single_datagram_is_a_run_of_one() -> None:
    assert take(window(), packet(0)) == (SIZE, names(0))


def test_taking_starts_where_it_is_told_to() -> None:
    slots = window(first_sqn=1)
    assert take(slots, run(0, 1, 2), start=SIZE) == (3 * SIZE, names(1, 2))


def test_taking_from_the_end_takes_nothing() -> None:
    assert take(window(), run(0), start=SIZE) == (SIZE, [])
    assert take(window(), b"") == (0, [])


def test_what_follows_a_gap_is_held() -> None:
    slots = window()
    assert take(slots, run(0, 1, 3, 4)) == (4 * SIZE, names(0, 1))
    assert (slots.next, slots.lead, slots.stored_count) == (2, 4, 2)


def test_an_old_packet_is_counted_as_a_duplicate_and_nothing_else() -> None:
    slots = window(first_sqn=5)
    assert take(slots, run(4)) == (SIZE, [])
    assert (slots.packet_count, slots.duplicate_count) == (0, 1)


def test_repairs_in_order_are_taken_and_counted() -> None:
    slots = window()
    data = packet(0, kind=RDATA) + packet(1) + packet(2, kind=RDATA)
    assert take(slots, data) == (3 * SIZE, names(0, 1, 2))
    assert (slots.packet_count, slots.repair_count) == (3, 2)


def test_a_packet_in_order_does_not_lower_a_lead_known_from_elsewhere() -> None:
    slots = window()
    slots.reach(9)
    take(slots, run(0))
    assert (slots.next, slots.lead) == (1, 9)


def test_the_last_of_a_lead_known_from_elsewhere_fills_its_hole() -> None:
    slots = window()
    slots.reach(2)
    take(slots, run(0, 2))
    assert slots.missing(0, 9, 9) == [1]
    assert (slots.next, slots.lead, slots.filled_count) == (1, 2, 2)


def test_a_message_that_spans_packets_comes_with_its_last() -> None:
    slots = window()
    stream = b"\xff" + (101).to_bytes(8, "big") + b"\0" + b"m" * 100
    first = data_packet(0, b"\0\0" + stream[:60])
    second = data_packet(1, b"\xff\xff" + stream[60:])
    assert take(slots, first, size=len(first)) == (len(first), [])
    assert slots.decoder.is_partial
    assert take(slots, second, size=len(second)) == (len(second), [b"m" * 100])


# --- what is not plain ---------------------------------------------------------------------------

OTHER = {
    "another GSI": packet(0, tsi=b"\x01" + TSI[1:]),
    "another source port": packet(0, tsi=GSI + b"\0\1"),
    "another destination port": packet(0, dport=5556),
    "an SPM": packet(0, kind=0x00),
    "a NAK": packet(0, kind=0x08),
    "another version": packet(0, kind=0x44),
    "options": packet(0, options=SYN),
    "no checksum": packet(0, checksum=0),
    "a wrong checksum": packet(0, checksum=0x1234),
    "a header only": data_packet(0, b""),
    "a wrong length": data_packet(0, tsdu(b"a")) + b"\0\0",
    "a trail ahead of it": packet(0, trail=1),
    "a trail half the space behind": packet(0, trail=2**31),
    "half a header": packet(0)[:13],
    "nothing": b"",
}


@pytest.mark.parametrize("data", OTHER.values(), ids=OTHER)
def test_what_is_not_plain_is_left_for_the_caller(data: bytes) -> None:
    slots = window()
    assert take(slots, data, size=max(len(data), 1)) == (0, [])
    assert (slots.next, slots.packet_count, slots.stored_count) == (0, 0, 0)


@pytest.mark.parametrize("length", range(SIZE))
def test_a_packet_cut_short_anywhere_is_left_for_the_caller(length: int) -> None:
    assert take(window(), packet(0)[:length]) == (0, [])


def test_taking_stops_in_the_midst_of_a_run_where_a_packet_is_not_plain() -> None:
    slots = window()
    data = packet(0) + packet(1, checksum=0x1234) + packet(2)
    assert take(slots, data) == (SIZE, names(0))


def test_a_segment_of_no_size_takes_nothing_and_ends() -> None:
    slots = window()
    assert take(slots, packet(0), size=0) == (0, [])


def test_a_malformed_tsdu_is_taken_and_counted_by_the_decoder() -> None:
    slots = window()
    one_octet = data_packet(0, b"\0")
    assert take(slots, one_octet + packet(1), size=len(one_octet))[0] == len(one_octet)
    assert slots.decoder.malformed_count == 1
    assert slots.next == 1


@given(st.binary(max_size=200), st.integers(0, 210), st.integers(0, 210))
def test_no_bytes_raise_and_noise_is_not_taken(data: bytes, start: int, size: int) -> None:
    slots = window()
    assert take(slots, data, start, size) == (min(start, len(data)), [])


# --- early packets -------------------------------------------------------------------------------


def test_packets_behind_a_hole_are_held_and_released_when_it_is_filled() -> None:
    slots = window()
    assert take(slots, run(2, 3, 4)) == (3 * SIZE, [])
    assert (slots.next, slots.lead, slots.stored_count) == (0, 4, 3)
    assert slots.stored_bytes == 3 * SIZE
    assert released(slots) == []
    assert take(slots, packet(0, kind=RDATA)) == (SIZE, names(0))
    assert take(slots, run(1)) == (SIZE, names(1))
    assert (slots.next, slots.undecoded, slots.ready_count) == (5, 2, 3)
    assert released(slots) == names(2, 3, 4)
    assert (slots.next, slots.lead, slots.stored_count, slots.stored_bytes) == (5, 4, 0, 0)


def test_what_comes_in_sequence_waits_behind_what_is_ready() -> None:
    slots = window()
    take(slots, run(1, 0))
    assert take(slots, run(2)) == (SIZE, [])
    assert released(slots) == names(1, 2)
    assert take(slots, run(3)) == (SIZE, names(3))


def test_a_run_may_fill_holes_repeat_and_go_on_ahead() -> None:
    slots = window()
    take(slots, run(2, 5))
    data, out = run(1, 2, 4, 7, 0), []
    assert slots.absorb(data, 0, SIZE, out) == len(data)
    assert out + released(slots) == names(0, 1, 2)
    assert slots.missing(0, 100, 9) == [3, 6]
    assert (slots.duplicate_count, slots.filled_count, slots.hole_count) == (1, 3, 2)


def test_data_that_fills_a_hole_was_late_and_a_repair_was_not() -> None:
    slots = window()
    take(slots, run(0, 3, 7))
    assert slots.late_sqn == -1
    take(slots, packet(1, kind=RDATA))
    assert slots.late_sqn == -1
    take(slots, run(5, 2, 6))
    assert slots.late_sqn == 2
    slots.late_sqn = -1
    slots.store(4, packet(4))
    assert slots.late_sqn == 4


def test_the_lowest_of_the_late_is_told_be_it_number_0() -> None:
    slots = window()
    take(slots, run(4))
    take(slots, run(0, 2))
    assert slots.late_sqn == 0


def test_data_that_comes_again_was_late_up_to_the_last_that_was_mended() -> None:
    slots = window()
    take(slots, run(*range(8)))
    slots.mended_first, slots.mended_last = 3, 5
    take(slots, run(5))
    assert (slots.late_sqn, slots.has_news) == (5, True)


def test_data_that_comes_again_was_late_where_the_owner_says_it_was_mended() -> None:
    slots = window()
    take(slots, run(*range(8)))
    take(slots, run(*range(8)))
    assert (slots.late_sqn, slots.has_news) == (-1, False)
    slots.mended_first, slots.mended_last = 3, 5
    take(slots, bytes(run(2, 6)) + packet(4, kind=RDATA))
    assert (slots.late_sqn, slots.has_news) == (-1, False)
    take(slots, run(5, 3, 4))
    assert (slots.late_sqn, slots.has_news) == (3, True)


def test_held_packets_count_as_they_come() -> None:
    slots = window()
    take(slots, packet(2) + packet(3, kind=RDATA))
    assert (slots.packet_count, slots.repair_count) == (2, 1)
    assert slots.payload_bytes == 2 * (SIZE - 24)
    take(slots, run(0, 1))
    released(slots)
    assert slots.packet_count == 4


def test_nothing_early_is_taken_beyond_the_limit() -> None:
    slots = window(limit_bytes=4 * SIZE)
    assert take(slots, run(2, 3, 4, 5, 6, 7)) == (4 * SIZE, [])
    assert (slots.stored_bytes, slots.lead) == (4 * SIZE, 5)
    assert take(slots, run(6)) == (0, [])


def test_what_fills_a_hole_may_exceed_the_limit_by_a_quarter() -> None:
    slots = window(limit_bytes=4 * SIZE)
    take(slots, run(3, 4, 5, 6))
    assert take(slots, run(2)) == (SIZE, [])
    assert take(slots, run(1)) == (0, [])
    assert take(slots, run(0)) == (SIZE, names(0))


def test_what_is_ready_is_released_up_to_a_limit() -> None:
    slots = window()
    take(slots, run(1, 2, 3, 0))
    most = (SIZE - 24) // 2
    out: list[kernel.Message] = []
    assert slots.release(out, 0) is None
    assert out == []
    slots.release(out, 1)
    assert out == names(1)
    slots.release(out, most)  # the next packet might bring more than that
    assert out == names(1)
    slots.release(out, most + 1)
    assert out == names(1, 2)
    assert slots.ready_count == 1


def test_the_highest_trail_is_kept_and_is_news_where_something_is_missing() -> None:
    slots = window()
    take(slots, packet(0, trail=0) + packet(2, trail=1))
    assert slots.has_news
    slots.has_news = False
    take(slots, packet(3, trail=1))
    assert (slots.trail, slots.has_news) == (1, False)
    take(slots, packet(4, trail=2))
    assert (slots.trail, slots.has_news) == (2, True)


@pytest.mark.parametrize(("number", "is_taken"), [(1 << 16, False), ((1 << 16) - 1, True)])
def test_a_leap_is_left_for_the_caller(number: int, is_taken: bool) -> None:
    assert take(window(), run(number)) == (is_taken * SIZE, [])


def test_numbers_too_far_ahead_are_not_kept() -> None:
    slots = window()
    slots.reach((1 << 20) - 1)
    assert not slots.has_room(1 << 20, 100)
    assert take(slots, run(1 << 20)) == (0, [])
    with pytest.raises(ValueError, match="too far ahead"):
        slots.store(1 << 20, packet(1 << 20))
    assert slots.store((1 << 20) - 1, packet((1 << 20) - 1))


def test_holes_have_a_limit_which_the_packet_waited_for_passes() -> None:
    slots = window()
    for sqn in range(1, 2 * 4094, 2):
        assert take(slots, run(sqn)) == (SIZE, [])
    assert slots.is_full
    assert take(slots, run(2 * 4094 + 1)) == (0, [])  # would open another
    slots.reach(slots.lead + 3)
    middle = slots.lead - 1
    assert take(slots, run(middle)) == (0, [])  # would split one in two
    assert take(slots, run(middle + 1)) == (SIZE, [])
    assert take(slots, run(0)) == (SIZE, names(0))


def test_at_the_limit_of_holes_their_ends_and_what_follows_at_once_are_taken() -> None:
    slots = window()
    while not slots.is_full:
        take(slots, run(slots.lead + 2))
    slots.reach(slots.lead + 5)
    first, last = slots.lead - 4, slots.lead
    assert take(slots, run(last + 1)) == (SIZE, [])
    assert take(slots, run(first + 2)) == (0, [])  # its middle would split it
    assert take(slots, run(first)) == (SIZE, [])
    assert take(slots, run(last)) == (SIZE, [])
    assert slots.is_full
    assert slots.missing(first, last, 9) == [first + 1, first + 2, first + 3]


def test_missing_numbers_are_told_hole_by_hole_up_to_a_limit() -> None:
    slots = window()
    take(slots, run(3, 5, 9))  # 0 to 2, 4, and 6 to 8 are missing
    assert slots.missing(0, 9, 100) == [0, 1, 2, 4, 6, 7, 8]
    assert slots.missing(0, 9, 5) == [0, 1, 2, 4, 6]
    assert slots.missing(0, 9, 4) == [0, 1, 2, 4]
    assert slots.missing(2, 6, 100) == [2, 4, 6]
    assert slots.missing(4, 4, 100) == [4]
    assert slots.missing(3, 3, 100) == slots.missing(5, 4, 100) == slots.missing(0, 9, 0) == []
    assert slots.missing_count(0, 9) == 7
    assert slots.missing_count(1, 6) == 4
    assert slots.missing_count(8, 8) == 1
    assert slots.missing_count(9, 20) == slots.missing_count(6, 4) == 0


def test_a_hole_among_others_is_parted_where_its_middle_comes() -> None:
    slots = window()
    take(slots, run(1, 5, 7))
    take(slots, run(3))
    assert slots.missing(0, 7, 100) == [0, 2, 4, 6]
    assert slots.hole_count == 4
    take(slots, run(0))
    assert (slots.next, slots.hole_last) == (2, 2)


def test_a_hole_is_given_up_in_part() -> None:
    slots = window()
    take(slots, run(6, 9))
    slots.skip_to(3)
    assert (slots.next, slots.hole_last, slots.lead) == (3, 5, 9)
    assert slots.missing(0, 9, 100) == [3, 4, 5, 7, 8]
    slots.skip_to(5)
    assert slots.missing(0, 9, 100) == [5, 7, 8]
    slots.skip_to(7)
    assert slots.missing(0, 9, 100) == [7, 8]
    assert (slots.undecoded, slots.stored_count) == (7, 1)


def test_number_and_trail_of_a_plain_packet_are_told_without_taking_it() -> None:
    slots = window(first_sqn=1 << 32)
    data = packet(0) + packet(1, trail=-300 & 0xFFFF_FFFF) + packet(2, options=SYN)
    assert slots.numbers_of(memoryview(data), 0, SIZE) == (1 << 32, 1 << 32)
    assert slots.numbers_of(memoryview(data), SIZE, SIZE) == ((1 << 32) + 1, (1 << 32) - 300)
    assert slots.numbers_of(memoryview(data), 2 * SIZE, SIZE) is None
    assert slots.numbers_of(memoryview(data), len(data), SIZE) is None
    assert (slots.packet_count, slots.lead) == (0, (1 << 32) - 1)


def test_news_are_holes_that_open_fill_or_fall_behind_the_trail() -> None:
    slots = window()
    assert not slots.has_news
    take(slots, run(0))
    slots.reach(0)
    assert not slots.has_news
    take(slots, run(3))
    assert slots.has_news
    slots.has_news = False
    take(slots, packet(4, trail=1))  # the trail has not passed what is missing
    assert not slots.has_news
    take(slots, packet(5, trail=2))
    assert slots.has_news
    slots.has_news = False
    take(slots, packet(6, trail=2))  # nothing new
    assert not slots.has_news
    take(slots, run(1))
    assert slots.has_news


def test_a_repair_that_fills_a_hole_is_news() -> None:
    slots = window()
    take(slots, run(0, 2))
    slots.has_news = False
    take(slots, packet(1, kind=RDATA))
    assert (slots.has_news, slots.late_sqn) == (True, -1)


def test_a_window_without_holes_has_no_news_whatever_the_trail() -> None:
    slots = window()
    take(slots, packet(0, trail=0) + packet(1, trail=1) + packet(2, trail=2))
    assert (slots.trail, slots.has_news) == (2, False)


def test_bytes_and_duplicates_are_counted_of_long_packets_too() -> None:
    slots = window()
    long = data_packet(0, tsdu(bytes(700)), trail=-(1 << 25) & 0xFFFF_FFFF)
    for _ in range(3):
        take(slots, long, size=len(long))
    assert (slots.payload_bytes, slots.duplicate_count) == (len(long) - 24, 2)
    assert slots.store(0, long) is False
    assert slots.duplicate_count == 3


def test_packets_with_options_are_counted_while_they_are_held() -> None:
    slots = window()
    slots.store(1, packet(1, options=SYN))
    slots.store(2, packet(2))
    slots.store(3, packet(3, options=SYN))
    assert slots.special_count == 2
    slots.store(0, packet(0))
    assert slots.release([], NO_LIMIT) == packet(1, options=SYN)
    assert slots.special_count == 1
    assert slots.release([], NO_LIMIT) == packet(3, options=SYN)
    assert slots.special_count == 0


def test_what_is_ready_is_refused_up_to_a_packet_with_options() -> None:
    slots = window()
    for sqn in (1, 2, 4):
        slots.store(sqn, packet(sqn))
    slots.store(3, packet(3, options=SYN))
    slots.store(0, packet(0))
    assert slots.refuse(0) == 3
    assert (slots.undecoded, slots.stored_count, slots.special_count) == (3, 2, 1)
    assert slots.release([], NO_LIMIT) == packet(3, options=SYN)
    assert released(slots) == names(4)


def test_packets_without_options_do_not_lower_the_count_of_those_with() -> None:
    slots = window()
    for sqn in (1, 2, 3):
        slots.store(sqn, packet(sqn))
    slots.store(4, packet(4, options=SYN))
    slots.store(0, packet(0))
    assert slots.release([], 2) is None  # 0 and 1
    assert slots.special_count == 1
    slots.skip_to(9)
    assert (slots.stored_count, slots.special_count) == (0, 0)


def test_room_is_a_quarter_more_for_what_was_missing() -> None:
    slots = window(limit_bytes=4 * SIZE)
    take(slots, run(2, 3, 4))  # 0 and 1 are missing, 3 are held
    slots.reach(6)  # so are 5 and 6
    assert [slots.has_room(sqn, SIZE) for sqn in (1, 6, 7, 8)] == [True] * 4
    assert [slots.has_room(sqn, 2 * SIZE) for sqn in (1, 6, 7, 8)] == [True, True, False, False]
    assert [slots.has_room(sqn, 2 * SIZE + 1) for sqn in (0, 1, 6)] == [True, False, False]


def test_a_port_of_1_is_one() -> None:
    decoder = kernel.FrameDecoder(kernel.TopicFilter(), 9, 9)
    assert kernel.ReceiveSlots(TSI, 1, decoder, 0).next == 0
    with pytest.raises(ValueError, match=r"^a TSI has 8 bytes and a port is 1 to 65535$"):
        kernel.ReceiveSlots(TSI, 0, decoder, 0)


def test_what_has_come_has_room_however_many_holes_lie_ahead() -> None:
    """The compiled kernel read what lies in memory in front of the holes (tools/sanitize)."""
    slots = window(first_sqn=5)
    while not slots.is_full:
        slots.store(slots.lead + 2, packet(slots.lead + 2))
    assert slots.has_room(4, SIZE)
    assert slots.has_room(5, SIZE)


def test_numbers_below_0_have_places_of_their_own() -> None:
    slots = window(first_sqn=-1030)
    for sqn in (-1029, -1023, -1, 0, 1, 1019, 1023):
        assert slots.store(sqn, packet(sqn & 0xFFFF_FFFF))
    assert slots.stored_count == 7
    assert [sqn for sqn in (-1030, -1028, -5, 2, 1018) if slots.holds(sqn)] == []
    slots.skip_to(0)
    assert (slots.next, slots.undecoded, slots.stored_count) == (2, 0, 4)
    assert released(slots) == names(0, 1)


def test_numbers_that_others_name_are_missing() -> None:
    slots = window()
    slots.reach(3)
    slots.reach(1)
    take(slots, run(6))
    assert (slots.missing_count(0, 9), slots.hole_count, slots.hole_last) == (6, 1, 5)
    assert slots.missing(2, 4, 2) == [2, 3]
    assert slots.missing(4, 2, 9) == []


def test_one_packet_is_stored_once() -> None:
    slots = window()
    assert slots.store(3, packet(3))
    assert slots.holds(3)
    assert not slots.holds(2)
    assert not slots.store(3, packet(3))
    assert (slots.stored_count, slots.duplicate_count, slots.lead) == (1, 1, 3)


def test_a_decoded_packet_is_a_duplicate() -> None:
    slots = window()
    take(slots, run(0, 1))
    assert not slots.store(1, packet(1))
    assert (slots.duplicate_count, slots.packet_count) == (1, 2)


def test_a_stored_repair_is_counted_as_one() -> None:
    slots = window()
    slots.store(1, packet(1, kind=RDATA))
    assert slots.repair_count == 1


def test_early_packets_in_any_order_come_out_in_sequence() -> None:
    slots = window()
    for sqn in (4, 2, 1, 3):
        slots.store(sqn, packet(sqn))
    slots.store(0, packet(0))
    assert released(slots) == names(0, 1, 2, 3, 4)


def test_a_stored_packet_does_not_follow_the_buffer_it_came_from() -> None:
    slots = window()
    buffer = bytearray(packet(1))
    slots.store(1, memoryview(buffer))
    buffer[:] = packet(2)
    slots.absorb(memoryview(buffer), 0, SIZE, [])
    buffer[:] = bytes(SIZE)
    take(slots, run(0))
    assert released(slots) == names(1, 2)


def test_a_packet_with_options_is_handed_back_in_its_place() -> None:
    slots = window()
    special = packet(1, options=SYN)
    slots.store(1, special)
    slots.store(2, packet(2))
    slots.store(0, packet(0))
    out: list[kernel.Message] = []
    assert slots.special_count == 1
    assert slots.release(out, NO_LIMIT) == special
    assert out == names(0)
    assert (slots.undecoded, slots.special_count) == (2, 0)
    assert released(slots) == names(2)
    assert slots.stored_bytes == 0


def test_a_packet_shorter_than_its_header_cannot_be_stored() -> None:
    with pytest.raises(ValueError, match="at least 24 bytes"):
        window().store(0, packet(0)[:23])


@pytest.mark.parametrize(("tsi", "dport"), [(TSI[:7], DPORT), (TSI, 0), (TSI, 65536)])
def test_an_impossible_source_is_refused(tsi: bytes, dport: int) -> None:
    with pytest.raises(ValueError, match="TSI"):
        kernel.ReceiveSlots(tsi, dport, window().decoder, 0)


# --- giving up -----------------------------------------------------------------------------------


def test_giving_a_hole_up_goes_on_behind_it_at_a_message_start() -> None:
    slots = window()
    half = data_packet(0, b"\0\0\x0ahalf")
    take(slots, half, size=len(half))
    slots.store(2, data_packet(2, b"\0\x03" + b"end" + tsdu(b"whole")[2:]))
    assert released(slots) == []
    slots.skip_to(2)
    assert (slots.undecoded, slots.next) == (2, 3)
    assert released(slots) == [b"whole"]
    assert slots.decoder.message_count == 1


def test_giving_up_all_that_is_known_moves_the_lead() -> None:
    slots = window()
    slots.skip_to(100)
    assert (slots.next, slots.lead) == (100, 99)
    assert take(slots, run(100)) == (SIZE, names(100))


# --- past 2^32 -----------------------------------------------------------------------------------


def test_numbers_go_on_past_2_to_the_32() -> None:
    first = 2**32 - 2
    slots = window(first_sqn=first)
    data = b"".join(packet(first + i, trail=first) for i in range(4))
    assert take(slots, data) == (4 * SIZE, names(*range(first, first + 4)))
    assert (slots.next, slots.lead) == (2**32 + 2, 2**32 + 1)


def test_early_packets_are_kept_across_2_to_the_32() -> None:
    first = 2**32 - 1
    slots = window(first_sqn=first)
    data = b"".join(packet(first + i, trail=first) for i in (1, 2))
    assert take(slots, data) == (2 * SIZE, [])
    assert slots.holds(2**32)
    assert take(slots, packet(first, trail=first)) == (SIZE, names(first))
    assert released(slots) == names(2**32, 2**32 + 1)


def test_a_packet_of_the_same_low_bits_is_the_expected_one() -> None:
    slots = window(first_sqn=2**32 + 7)
    assert take(slots, packet(7)) == (SIZE, names(7))
    assert slots.next == 2**32 + 8


# --- both ends -----------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=120), min_size=1, max_size=40),
    st.sampled_from([16, 40, 300]),
    st.randoms(use_true_random=False),
)
def test_messages_come_once_and_in_order_through_loss_reorder_and_repair(
    messages: list[bytes], tsdu_bytes: int, dice: random.Random
) -> None:
    sender = kernel.TransmitSlots(TSI, DPORT, tsdu_bytes, 2048)
    assert sender.append_many(messages, 0, len(messages)) == len(messages)
    sender.seal()
    packets = {}
    while (taken := sender.take_run(1)) is not None:
        packets[sender.unsent - 1] = bytes(taken[0])
    slots = window()
    out: list[kernel.Message] = []
    arrivals = list(packets)
    dice.shuffle(arrivals)
    for sqn in arrivals:
        if dice.random() < 0.2:
            continue  # lost, repaired below
        data = memoryview(packets[sqn])
        assert slots.absorb(data, 0, len(data), out) == len(data)
        if dice.random() < 0.7:
            assert slots.release(out, NO_LIMIT) is None
    for sqn in slots.missing(0, sender.next, 1 << 20) + list(range(slots.lead + 1, sender.next)):
        repair = sender.repair_run([sqn])
        assert repair is not None
        data, segment_bytes = repair
        assert slots.absorb(data, 0, segment_bytes, out) == len(data)
    assert slots.release(out, NO_LIMIT) is None
    assert out == messages
    assert slots.next == sender.next
    assert slots.stored_count == slots.stored_bytes == 0
    assert slots.packet_count == len(packets)
