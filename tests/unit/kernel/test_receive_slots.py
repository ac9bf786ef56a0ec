"""The receive window's fast path: in order, early, released, given up, and not plain."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast import kernel
from tests.unit.kernel.packets import DPORT, GSI, RDATA, TSI, data_packet, tsdu

SYN = bytes.fromhex("000400088d040000")


def window(first_sqn: int = 0) -> kernel.ReceiveSlots:
    decoder = kernel.FrameDecoder(kernel.TopicFilter([b""]), 1 << 20, 100)
    return kernel.ReceiveSlots(TSI, DPORT, decoder, first_sqn)


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
    return slots.take_in_order(memoryview(data), start, size, out), out


def released(slots: kernel.ReceiveSlots) -> list[kernel.Message]:
    out: list[kernel.Message] = []
    assert slots.release(out) is None
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


def test_taking_stops_at_a_gap() -> None:
    slots = window()
    assert take(slots, run(0, 1, 3, 4)) == (2 * SIZE, names(0, 1))
    assert (slots.next, slots.lead) == (2, 1)


def test_taking_stops_at_an_old_packet_and_counts_nothing() -> None:
    slots = window(first_sqn=5)
    assert take(slots, run(4)) == (0, [])
    assert (slots.packet_count, slots.duplicate_count) == (0, 0)


def test_repairs_in_order_are_taken_and_counted() -> None:
    slots = window()
    data = packet(0, kind=RDATA) + packet(1) + packet(2, kind=RDATA)
    assert take(slots, data) == (3 * SIZE, names(0, 1, 2))
    assert (slots.packet_count, slots.repair_count) == (3, 2)


def test_a_packet_in_order_does_not_lower_a_lead_known_from_elsewhere() -> None:
    slots = window()
    slots.lead = 9
    take(slots, run(0))
    assert (slots.next, slots.lead) == (1, 9)


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
    assert slots.store_run(memoryview(data), 0, max(len(data), 1), 1 << 20) == 0
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
    assert slots.store_run(memoryview(packet(0)), 0, 0, 1 << 20) == 0


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
    assert slots.store_run(memoryview(data), start, size, 1 << 20) == min(start, len(data))


# --- early packets -------------------------------------------------------------------------------


def store_run(
    slots: kernel.ReceiveSlots, data: memoryview, start: int = 0, limit: int = 1 << 20
) -> int:
    return slots.store_run(data, start, SIZE, limit)


def test_packets_behind_a_hole_are_kept_and_released_when_it_is_filled() -> None:
    slots = window()
    slots.lead = 1  # 0 and 1 are known to be missing
    assert store_run(slots, run(2, 3, 4)) == 3 * SIZE
    assert (slots.next, slots.lead, slots.stored_count) == (0, 4, 3)
    assert slots.stored_bytes == 3 * SIZE
    assert released(slots) == []
    assert take(slots, packet(0, kind=RDATA)) == (SIZE, names(0))
    # the run ends before 2, which is held
    assert take(slots, run(1, 2)) == (SIZE, names(1))
    assert released(slots) == names(2, 3, 4)
    assert (slots.next, slots.lead, slots.stored_count, slots.stored_bytes) == (5, 4, 0, 0)


def test_a_stored_run_counts_its_packets_as_they_come() -> None:
    slots = window()
    slots.lead = 1
    data = memoryview(packet(2) + packet(3, kind=RDATA))
    store_run(slots, data)
    assert (slots.packet_count, slots.repair_count) == (2, 1)
    assert slots.payload_bytes == 2 * (SIZE - 24)
    take(slots, run(0, 1))
    released(slots)
    assert slots.packet_count == 4


def test_a_stored_run_must_go_on_from_the_lead() -> None:
    slots = window()
    slots.lead = 1
    assert store_run(slots, run(3)) == 0
    assert store_run(slots, run(1)) == 0
    assert store_run(slots, run(2, 4)) == SIZE


def test_a_stored_run_stops_where_the_limit_would_be_passed() -> None:
    slots = window()
    slots.lead = 1
    assert store_run(slots, run(2, 3, 4), limit=2 * SIZE) == 2 * SIZE
    assert slots.stored_bytes == 2 * SIZE
    assert store_run(slots, run(4), limit=2 * SIZE) == 0


def test_a_stored_run_stops_at_a_trail_that_has_passed_the_hole() -> None:
    slots = window()
    slots.lead = 4
    data = memoryview(packet(5, trail=0) + packet(6, trail=1))
    assert store_run(slots, data) == SIZE
    assert slots.lead == 5


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
    slots.store_run(memoryview(buffer), 0, SIZE, 1 << 20)
    buffer[:] = bytes(SIZE)
    take(slots, run(0))
    assert released(slots) == names(1)


def test_a_packet_with_options_is_handed_back_in_its_place() -> None:
    slots = window()
    special = packet(1, options=SYN)
    slots.store(1, special)
    slots.store(2, packet(2))
    slots.store(0, packet(0))
    out: list[kernel.Message] = []
    assert slots.release(out) == special
    assert out == names(0)
    assert slots.next == 2
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
    assert slots.next == 2
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
    slots.lead = first
    data = memoryview(b"".join(packet(first + i, trail=first) for i in (1, 2)))
    assert slots.store_run(data, 0, SIZE, 1 << 20) == 2 * SIZE
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
        if not slots.take_in_order(memoryview(packets[sqn]), 0, len(packets[sqn]), out):
            slots.store(sqn, packets[sqn])
        assert slots.release(out) is None
    for sqn in range(sender.trail, sender.next):
        repair = sender.repair_run(sqn, 1)
        assert repair is not None
        data, segment_bytes = repair
        if not slots.take_in_order(data, 0, segment_bytes, out):
            slots.store(sqn, data)
        assert slots.release(out) is None
    assert out == messages
    assert slots.next == sender.next
    assert slots.stored_count == slots.stored_bytes == 0
    assert slots.packet_count == len(packets)
