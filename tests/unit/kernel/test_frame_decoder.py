"""Messages out of TSDUs: libzmq's framing, whole, split anywhere, malformed, filtered."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast import kernel
from tests.unit.kernel.packets import frame, tsdu

EVERYTHING = kernel.TopicFilter([b""])
IN_STEP = b"\xff\xff"  # the offset says "no message starts here"; in step, nobody looks at it


def decoder(
    prefixes: list[bytes] | None = None, *, max_bytes: int = 1 << 24, max_parts: int = 1000
) -> kernel.FrameDecoder:
    topics = EVERYTHING if prefixes is None else kernel.TopicFilter(prefixes)
    return kernel.FrameDecoder(topics, max_bytes, max_parts)


def decoded(subject: kernel.FrameDecoder, *tsdus: bytes) -> list[kernel.Message]:
    out: list[kernel.Message] = []
    for each in tsdus:
        subject.decode(each, out)
    return out


# --- libzmq's framing ----------------------------------------------------------------------------

LIBZMQ = {
    "A": ("00000200" + b"A".hex(), b"A"),
    "two parts": (
        "00000601746f7069630c0068656c6c6f20776f726c64",
        (b"topic", b"hello world"),
    ),
    "empty": ("00000100", b""),
    "253, the longest short form": ("0000fe00" + "78" * 253, b"x" * 253),
    "254, the shortest long form": ("0000ff00000000000000ff00" + "79" * 254, b"y" * 254),
}


@pytest.mark.parametrize(("raw", "message"), LIBZMQ.values(), ids=LIBZMQ)
def test_a_tsdu_of_libzmq_is_the_message_it_sent(raw: str, message: kernel.Message) -> None:
    assert decoded(decoder(), bytes.fromhex(raw)) == [message]


def test_a_message_over_three_tsdus_of_libzmq_is_whole() -> None:
    stream = frame(b"L" * 4000)
    tsdus = b"\0\0" + stream[:1426], b"\xff\xff" + stream[1426:2852], b"\x04\x86" + stream[2852:]
    assert [len(each) for each in tsdus] == [1428, 1428, 1160]
    assert decoded(decoder(), *tsdus) == [b"L" * 4000]


def test_several_messages_in_one_tsdu_come_in_order() -> None:
    assert decoded(decoder(), tsdu(b"1", b"", b"3" * 300)) == [b"1", b"", b"3" * 300]


def test_a_long_form_for_a_short_part_is_accepted() -> None:
    raw = b"\0\0\xff" + (3).to_bytes(8, "big") + b"\0ab"
    assert decoded(decoder(), raw) == [b"ab"]


def test_flag_bits_other_than_more_mean_nothing() -> None:
    assert decoded(decoder(), b"\0\0\x02\xfea") == [b"a"]


def test_one_part_is_bytes_and_several_are_a_tuple_of_bytes() -> None:
    one, several = decoded(decoder(), tsdu(b"1") + frame(b"2", more=True) + frame(b"3"))
    assert type(one) is bytes
    assert type(several) is tuple
    assert [type(part) for part in several] == [bytes, bytes]


# --- in step, out of step ------------------------------------------------------------------------


def test_a_new_decoder_is_out_of_step_and_skips_tsdus_in_which_no_message_starts() -> None:
    subject = decoder()
    assert decoded(subject, b"\xff\xff" + frame(b"lost")) == []
    assert not subject.in_step
    assert subject.malformed_count == 0


def test_a_late_joiner_starts_at_the_offset() -> None:
    subject = decoder()
    assert decoded(subject, b"\0\x03" + b"???" + frame(b"first")) == [b"first"]
    assert subject.in_step


def test_an_offset_at_the_very_end_puts_the_next_tsdu_in_step() -> None:
    subject = decoder()
    assert decoded(subject, b"\0\x04" + b"????", IN_STEP + frame(b"first")) == [b"first"]


def test_in_step_the_offset_does_not_matter() -> None:
    subject = decoder()
    assert decoded(subject, tsdu(b"1"), b"\x12\x34" + frame(b"2")) == [b"1", b"2"]


def test_resync_drops_the_unfinished_message_and_waits_for_the_next_start() -> None:
    subject = decoder()
    head = frame(b"part", more=True)
    assert decoded(subject, b"\0\0" + head) == []
    before = subject.is_partial
    subject.resync()
    assert (before, subject.is_partial, subject.in_step) == (True, False, False)
    rest = frame(b"tail of the lost one")
    offset = len(rest).to_bytes(2, "big")
    assert decoded(subject, IN_STEP + b"???", offset + rest + frame(b"next")) == [b"next"]
    assert subject.message_count == 1


def test_is_partial_between_the_first_octet_and_the_last() -> None:
    subject = decoder()
    stream = frame(b"ab", more=True) + frame(b"c")
    seen = [subject.is_partial]
    subject.decode(b"\0\0", [])
    for place in range(len(stream)):
        subject.decode(IN_STEP + stream[place : place + 1], [])
        seen.append(subject.is_partial)
    assert seen == [False] + [True] * (len(stream) - 1) + [False]


# --- split anywhere ------------------------------------------------------------------------------

MIXED: list[kernel.Message] = [
    b"",
    b"a",
    (b"b", b"", b"c" * 253),
    b"d" * 254,
    (b"e" * 700, b"f"),
    b"g" * 65,
]


def stream_of(messages: list[kernel.Message]) -> bytes:
    stream = b""
    for message in messages:
        parts = message if isinstance(message, tuple) else (message,)
        stream += b"".join(frame(part, more=True) for part in parts[:-1]) + frame(parts[-1])
    return stream


def test_the_stream_may_be_cut_at_each_byte() -> None:
    stream = stream_of(MIXED)
    for cut in range(len(stream) + 1):
        assert decoded(decoder(), b"\0\0" + stream[:cut], IN_STEP + stream[cut:]) == MIXED


@pytest.mark.parametrize("size", [1, 2, 3, 7, 9, 10, 11, 255, 256])
def test_the_stream_may_be_cut_in_pieces_of_any_size(size: int) -> None:
    stream = stream_of(MIXED)
    subject = decoder()
    subject.decode(b"\0\0", [])
    pieces = [IN_STEP + stream[at : at + size] for at in range(0, len(stream), size)]
    assert decoded(subject, *pieces) == MIXED
    assert not subject.is_partial
    assert subject.message_count == len(MIXED)


MESSAGES = st.lists(
    st.one_of(
        st.binary(max_size=600),
        st.lists(st.binary(max_size=300), min_size=2, max_size=4).map(tuple),
    ),
    max_size=8,
)


@given(MESSAGES, st.data())
def test_any_messages_cut_anywhere_come_out_as_they_went_in(
    messages: list[kernel.Message], data: st.DataObject
) -> None:
    stream = stream_of(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    subject = decoder()
    subject.decode(b"\0\0", [])
    assert decoded(subject, *(IN_STEP + piece for piece in pieces)) == messages


def test_a_large_message_is_whole() -> None:
    body = bytes(range(256)) * 4096  # 1 MiB
    stream = frame(body)
    pieces = [stream[at : at + 1426] for at in range(0, len(stream), 1426)]
    subject = decoder()
    subject.decode(b"\0\0", [])
    (message,) = decoded(subject, *(IN_STEP + piece for piece in pieces))
    assert message == body


# --- malformed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"", b"\0"], ids=["empty", "one octet"])
def test_a_tsdu_under_two_octets_is_counted_and_puts_out_of_step(raw: bytes) -> None:
    subject = decoder()
    assert decoded(subject, tsdu(b"1"), raw, IN_STEP + frame(b"2")) == [b"1"]
    assert subject.malformed_count == 1


def test_a_tsdu_of_an_offset_and_nothing_else_changes_nothing() -> None:
    subject = decoder()
    assert decoded(subject, tsdu(b"1"), b"\0\0", IN_STEP + frame(b"2")) == [b"1", b"2"]
    assert subject.malformed_count == 0


def test_an_offset_behind_the_end_is_counted() -> None:
    subject = decoder()
    assert decoded(subject, b"\0\x05" + b"????") == []
    assert subject.malformed_count == 1
    assert not subject.in_step


@pytest.mark.parametrize(
    "head",
    [b"\0\0", b"\0\x01", b"\xff" + bytes(9)],
    ids=["length 0", "length 0 with more", "long length 0"],
)
def test_an_impossible_length_is_counted_and_the_next_message_start_found(head: bytes) -> None:
    subject = decoder()
    bad = b"\0\0" + frame(b"1") + head + frame(b"after it")
    assert decoded(subject, bad, IN_STEP + frame(b"skipped"), tsdu(b"2")) == [b"1", b"2"]
    assert subject.malformed_count == 1


def test_a_message_of_the_greatest_length_passes_and_one_octet_more_does_not() -> None:
    subject = decoder(max_bytes=10)
    assert decoded(subject, tsdu(b"x" * 10)) == [b"x" * 10]
    assert decoded(subject, tsdu(b"x" * 11)) == []
    assert subject.too_long_count == 1


def test_the_greatest_length_counts_all_parts_together() -> None:
    subject = decoder(max_bytes=10)
    two = b"\0\0" + frame(b"x" * 6, more=True)
    assert decoded(subject, two + frame(b"x" * 4)) == [(b"x" * 6, b"x" * 4)]
    assert decoded(subject, two + frame(b"x" * 5)) == []
    assert subject.too_long_count == 1


def test_the_greatest_length_counts_each_message_anew() -> None:
    subject = decoder(max_bytes=10)
    many = [b"x" * 10] * 5
    assert decoded(subject, tsdu(*many)) == many


def test_an_oversize_message_is_given_up_at_its_head_before_its_bytes_come() -> None:
    subject = decoder(max_bytes=1000)
    assert decoded(subject, b"\0\0\xff" + (1002).to_bytes(8, "big") + b"\0") == []
    assert subject.too_long_count == 1
    assert not subject.is_partial


def test_a_message_of_too_many_parts_is_given_up_and_the_next_one_comes() -> None:
    subject = decoder(max_parts=3)
    three = b"\0\0" + frame(b"a", more=True) * 2 + frame(b"b")
    assert decoded(subject, three) == [(b"a", b"a", b"b")]
    four = b"\0\0" + frame(b"a", more=True) * 3 + frame(b"b")
    assert decoded(subject, four, tsdu(b"next")) == [b"next"]
    assert subject.too_long_count == 1


def test_too_many_parts_are_given_up_in_a_message_nobody_wants_as_well() -> None:
    subject = decoder([b"wanted"], max_parts=3)
    decoded(subject, b"\0\0" + frame(b"a", more=True) * 4)
    assert subject.too_long_count == 1


# --- too long ------------------------------------------------------------------------------------

PARTS = frame(b"a", more=True) * 3
"""As many as ``max_parts=3`` lets through, and then more are announced."""


def given_up(subject: kernel.FrameDecoder) -> tuple[int, int]:
    return subject.too_long_count, subject.malformed_count


def test_the_neighbours_of_a_message_that_is_too_long_come_all_the_same() -> None:
    subject = decoder(max_bytes=10)
    assert decoded(subject, tsdu(b"1", b"x" * 11, b"2", b"y" * 300, b"3")) == [b"1", b"2", b"3"]
    assert given_up(subject) == (2, 0)
    assert subject.message_count == 3
    assert subject.in_step
    assert not subject.is_partial


def test_the_neighbours_of_a_message_of_too_many_parts_come_all_the_same() -> None:
    subject = decoder(max_parts=3)
    many = frame(b"a", more=True) * 9 + frame(b"b")
    assert decoded(subject, tsdu(b"1") + many + frame(b"2")) == [b"1", b"2"]
    assert given_up(subject) == (1, 0)


def test_a_part_that_is_too_long_takes_those_before_and_behind_it_along() -> None:
    subject = decoder(max_bytes=10)
    long = frame(b"head", more=True) + frame(b"x" * 20, more=True) + frame(b"tail")
    assert decoded(subject, tsdu(b"1") + long + frame(b"2")) == [b"1", b"2"]
    assert given_up(subject) == (1, 0)
    # The next one is measured anew.
    assert decoded(subject, tsdu(b"x" * 10)) == [b"x" * 10]


def test_a_message_that_is_too_long_may_go_on_in_the_next_tsdus_between_its_parts() -> None:
    subject = decoder(max_parts=3)
    first = tsdu(b"1") + PARTS + frame(b"a", more=True)
    assert decoded(subject, first) == [b"1"]
    assert subject.is_partial
    assert subject.in_step
    pieces = IN_STEP + frame(b"a", more=True), IN_STEP + frame(b"b") + frame(b"2")
    assert decoded(subject, *pieces) == [b"2"]
    assert given_up(subject) == (1, 0)


def test_a_message_that_is_too_long_may_be_cut_in_the_head_of_a_part() -> None:
    stream = frame(b"1") + PARTS + frame(b"a", more=True) + frame(b"b" * 300) + frame(b"2")
    for cut in range(len(frame(b"1") + PARTS), len(stream) - len(frame(b"2"))):
        subject = decoder(max_parts=3)
        start = (len(stream) - len(frame(b"2")) - cut).to_bytes(2, "big")
        assert decoded(subject, b"\0\0" + stream[:cut], start + stream[cut:]) == [b"1", b"2"]
        assert given_up(subject) == (1, 0)


def test_a_body_that_is_too_long_and_goes_on_costs_no_message_but_its_own() -> None:
    subject = decoder(max_bytes=10)
    stream = frame(b"x" * 300) + frame(b"2")
    first = tsdu(b"1") + stream[:100]
    assert decoded(subject, first) == [b"1"]
    assert not subject.in_step
    middle = IN_STEP + stream[100:200]
    last = (len(stream) - 203).to_bytes(2, "big") + stream[200:]
    assert decoded(subject, middle, last) == [b"2"]
    assert given_up(subject) == (1, 0)


@pytest.mark.parametrize("length", [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_claim_beyond_all_measure_holds_up_one_tsdu_only(length: int, is_begun: bool) -> None:
    subject = decoder(max_parts=3)
    begun = PARTS + frame(b"a", more=True) if is_begun else b""
    bomb = tsdu(b"1") + begun + b"\xff" + length.to_bytes(8, "big") + b"\0" + frame(b"inside")
    assert decoded(subject, bomb, IN_STEP + b"skipped", tsdu(b"2")) == [b"1", b"2"]
    assert given_up(subject) == (1, 0)


def test_a_loss_ends_a_message_that_is_too_long() -> None:
    subject = decoder(max_parts=3)
    decoded(subject, b"\0\0" + PARTS + frame(b"a", more=True))
    subject.resync()
    assert not subject.is_partial
    assert decoded(subject, tsdu(b"2")) == [b"2"]
    assert given_up(subject) == (1, 0)


def test_an_impossible_length_ends_a_message_that_is_too_long() -> None:
    subject = decoder(max_parts=3)
    broken = b"\0\0" + PARTS + frame(b"a", more=True) + b"\0\0"
    assert decoded(subject, broken, tsdu(b"2")) == [b"2"]
    assert given_up(subject) == (1, 1)


@given(st.lists(st.binary(max_size=60), max_size=12))
def test_no_bytes_raise(tsdus: list[bytes]) -> None:
    subject = decoder(max_bytes=1000, max_parts=5)
    out = decoded(subject, *tsdus)
    assert len(out) == subject.message_count


# --- the filter ----------------------------------------------------------------------------------


def test_only_messages_that_start_with_a_prefix_come_and_the_rest_is_counted() -> None:
    subject = decoder([b"AA", b"MS"])
    out = decoded(subject, tsdu(b"AAPL", b"GOOG", b"MSFT", b"", b"A"))
    assert out == [b"AAPL", b"MSFT"]
    assert (subject.message_count, subject.filtered_count) == (2, 3)


def test_the_filter_looks_at_the_first_part_only() -> None:
    subject = decoder([b"AA"])
    unwanted = frame(b"GOOG", more=True) + frame(b"AAPL")
    wanted = frame(b"AAPL", more=True) + frame(b"GOOG")
    assert decoded(subject, b"\0\0" + unwanted + wanted) == [(b"AAPL", b"GOOG")]
    assert subject.filtered_count == 1


def test_a_message_nobody_wants_may_span_tsdus() -> None:
    subject = decoder([b"AA"])
    stream = frame(b"GOOG" * 20, more=True) + frame(b"AA" * 300) + frame(b"AAPL")
    subject.decode(b"\0\0", [])
    pieces = [IN_STEP + stream[at : at + 50] for at in range(0, len(stream), 50)]
    assert decoded(subject, *pieces) == [b"AAPL"]
    assert subject.filtered_count == 1


def test_a_first_part_that_spans_tsdus_is_filtered_whole() -> None:
    subject = decoder([b"AAPL"])
    stream = frame(b"AAPL 189") + frame(b"AAxx 189")
    subject.decode(b"\0\0", [])
    assert decoded(subject, *(IN_STEP + stream[at : at + 3] for at in range(0, 20, 3))) == [
        b"AAPL 189"
    ]
    assert subject.filtered_count == 1


def test_a_new_filter_holds_from_the_next_message_on() -> None:
    subject = decoder([b"A"])
    assert decoded(subject, tsdu(b"A1", b"B1")) == [b"A1"]
    subject.topic_filter = kernel.TopicFilter([b"B"])
    assert decoded(subject, tsdu(b"A2", b"B2")) == [b"B2"]


def test_a_message_whose_first_part_was_taken_comes_whole_under_a_new_filter() -> None:
    subject = decoder([b"A"])
    decoded(subject, b"\0\0" + frame(b"A", more=True))
    subject.topic_filter = kernel.TopicFilter([b"B"])
    assert decoded(subject, IN_STEP + frame(b"x")) == [(b"A", b"x")]


def test_a_delivered_message_does_not_follow_the_buffer_it_came_from() -> None:
    buffer = bytearray(tsdu(b"before"))
    (message,) = decoded(decoder(), memoryview(buffer))  # type: ignore[arg-type]
    buffer[:] = bytes(len(buffer))
    assert message == b"before"
