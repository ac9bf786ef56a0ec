"""Prefix subscriptions: libzmq's rule, whatever their number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcast import kernel

FEW_LETTERS = st.binary(max_size=5).map(lambda raw: bytes(octet % 3 * 127 for octet in raw))


def test_no_prefix_matches_nothing() -> None:
    assert not kernel.TopicFilter().match(b"")
    assert not kernel.TopicFilter([]).match(b"AAPL")


def test_the_empty_prefix_matches_everything() -> None:
    everything = kernel.TopicFilter([b"AAPL", b""])
    assert everything.match(b"")
    assert everything.match(b"MSFT")


def test_a_prefix_matches_itself_and_what_starts_with_it() -> None:
    some = kernel.TopicFilter([b"AAPL", b"MS"])
    assert some.match(b"AAPL")
    assert some.match(b"AAPL 189.20")
    assert some.match(b"MSFT")
    assert not some.match(b"AAP")
    assert not some.match(b"AAPM")
    assert not some.match(b"M")
    assert not some.match(b"")


def test_a_prefix_within_a_longer_one_wins_for_both() -> None:
    some = kernel.TopicFilter([b"AB", b"A", b"ABCD"])
    assert some.match(b"A")
    assert some.match(b"AC")
    assert some.match(b"ABX")


def test_octets_compare_without_sign() -> None:
    some = kernel.TopicFilter([b"\x7f", b"\x80\x00", b"\xff"])
    assert some.match(b"\x7f\xff")
    assert some.match(b"\x80\x00")
    assert some.match(b"\xff\xff")
    assert not some.match(b"\x80\x01")


def test_prefixes_may_be_any_bytes_type() -> None:
    some = kernel.TopicFilter(iter((bytearray(b"A"), memoryview(b"B"))))
    assert some.match(bytearray(b"Ax"))
    assert some.match(memoryview(b"Bx"))


def test_a_filter_keeps_no_hold_of_what_it_was_made_from() -> None:
    prefix = bytearray(b"A")
    some = kernel.TopicFilter([prefix])
    prefix[0] = ord("B")
    assert some.match(b"A")


@given(st.lists(FEW_LETTERS, max_size=8), FEW_LETTERS)
def test_match_is_any_startswith(prefixes: list[bytes], topic: bytes) -> None:
    wanted = any(topic.startswith(prefix) for prefix in prefixes)
    assert kernel.TopicFilter(prefixes).match(topic) is wanted
