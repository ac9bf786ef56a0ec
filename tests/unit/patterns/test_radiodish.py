"""RADIO and DISH: groups, their limits, and datagrams byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcast.errors import MessageTooLongError, PatternError
from mcast.kernel import Message
from mcast.patterns import Dish, PeerInfo, Radio, Refusal, SendResult
from mcast.patterns.datagram import build_datagram, parse_datagram_untrusted
from tests.unit.patterns.ends import (
    ANYBODY,
    cancels,
    dropped,
    made,
    out,
    received,
    refusals,
    wants,
)

pytestmark = pytest.mark.kernel_independent

UDP = PeerInfo(is_datagram=True)
MOVIE = (b"Movies", b"Godfather")
SERIES = (b"TV", b"FamilyGuy")


# RADIO.


def test_a_message_goes_to_those_who_joined_exactly_its_group() -> None:
    radio = made(Radio, 3)
    radio.handle_subscriptions(0, wants(b"Movies", b"TV"))
    radio.handle_subscriptions(1, wants(b"Movie"))
    for message in (MOVIE, SERIES, (b"", b"x")):
        assert radio.send(message) is SendResult.SENT
    assert out(radio, 0) == [MOVIE, SERIES]
    assert out(radio, 1) == []
    assert dropped(radio) == {}


def test_a_group_can_be_left() -> None:
    radio = made(Radio, 2)
    for number in range(2):
        radio.handle_subscriptions(number, wants(b"TV", b"TV"))
    radio.handle_subscriptions(0, cancels(b"TV", b"TV"))
    assert radio.send_many([SERIES, SERIES]) == 2
    assert (out(radio, 0), out(radio, 1)) == ([], [SERIES, SERIES])
    assert dropped(radio) == {"cancels_ignored": 1}
    radio.detach(1)
    radio.send(SERIES)
    radio.attach(1, ANYBODY)
    radio.send(SERIES)
    assert out(radio, 1) == []


@pytest.mark.parametrize("message", [b"x", (b"group",), (b"group", b"1", b"2")])
def test_a_radio_sends_only_pairs_of_group_and_body(message: Message) -> None:
    radio = made(Radio, 1)
    with pytest.raises(PatternError, match="is a group and a body"):
        radio.send(message)
    assert radio.send_many([MOVIE, message]) == 1


@pytest.mark.parametrize("group", [b"x" * 256, b"a\0b"])
def test_a_group_is_up_to_255_bytes_and_none_is_zero(group: bytes) -> None:
    radio, dish = made(Radio, 1), made(Dish)
    radio.send((b"x" * 255, b""))
    for call in (lambda: radio.send((group, b"")), lambda: dish.join(group)):
        with pytest.raises(PatternError, match="up to 255 bytes, none of them zero"):
            call()


def test_a_full_member_loses_what_comes_and_others_do_not() -> None:
    radio = made(Radio, 2, sndhwm=1)
    radio.handle_subscriptions(0, wants(b"TV"))
    radio.handle_subscriptions(1, wants(b"TV"))
    radio.send(SERIES)
    out(radio, 1)
    assert radio.is_writable
    radio.send(SERIES)
    assert (out(radio, 0), out(radio, 1)) == ([SERIES], [SERIES])
    assert dropped(radio) == {"dropped_at_hwm": 1}


def test_with_nodrop_a_full_member_blocks() -> None:
    radio = made(Radio, 2, sndhwm=1, xpub_nodrop=True)
    radio.handle_subscriptions(0, wants(b"TV"))
    radio.send(SERIES)
    assert not radio.is_writable
    assert radio.send(SERIES) is SendResult.WOULD_BLOCK
    assert radio.send(MOVIE) is SendResult.SENT
    out(radio, 0)
    assert radio.is_writable
    assert radio.send(SERIES) is SendResult.SENT


def test_with_immediate_a_member_gets_nothing_while_it_is_away() -> None:
    radio = made(Radio, 1, immediate=True)
    radio.handle_subscriptions(0, wants(b"TV"))
    radio.suspend(0)
    radio.send(SERIES)
    radio.attach(0, ANYBODY)
    assert out(radio) == []
    assert dropped(radio) == {}


def test_a_member_that_joins_too_much_is_refused() -> None:
    radio = made(Radio, 2, max_subscription_count=2)
    radio.handle_subscriptions(0, wants(b"a", b"b", b"b"))
    assert refusals(radio) == []
    radio.handle_subscriptions(0, wants(b"c", b"d"))
    assert refusals(radio) == [(0, Refusal.TOO_MANY_SUBSCRIPTIONS)]
    radio.handle_subscriptions(1, wants(b"x" * 255))
    assert refusals(radio) == []
    radio.handle_subscriptions(1, wants(b"x" * 256))
    assert refusals(radio) == [(1, Refusal.MALFORMED)]


# Over UDP.


def test_every_message_goes_to_a_udp_destination() -> None:
    radio = made(Radio)
    radio.attach(0, UDP)
    radio.attach(1, ANYBODY)
    radio.handle_subscriptions(1, wants(b"Movies"))
    radio.send_many([MOVIE, SERIES])
    assert out(radio, 0) == [MOVIE, SERIES]
    assert out(radio, 1) == [MOVIE]


def test_what_fits_no_datagram_raises_only_if_there_is_a_udp_destination() -> None:
    radio = made(Radio, 1)
    too_long = [(b"g" * 128, b""), (b"g", b"b" * 8191)]
    fitting = [(b"g" * 127, b"b" * (8192 - 128)), (b"g", b"b" * 8190)]
    assert radio.send_many(too_long) == 2
    radio.attach(1, UDP)
    for message in too_long:
        with pytest.raises(MessageTooLongError):
            radio.send(message)
    assert radio.send_many([*fitting, too_long[0]]) == 2
    radio.detach(1)
    assert radio.send_many(too_long) == 2


# Bytes of radio_dish_ucast.pcap and radio_dish_mcast.pcap, sent by libzmq.
CAPTURED = [
    ("064d6f76696573476f64666174686572", MOVIE),
    ("02545646616d696c79477579", SERIES),
    ("064d6f76696573", (b"Movies", b"")),
    ("7f" + "78" * 127 + "67313237", (b"x" * 127, b"g127")),
]


@pytest.mark.parametrize(("captured", "message"), CAPTURED)
def test_datagrams_are_those_of_libzmq(captured: str, message: tuple[bytes, bytes]) -> None:
    assert build_datagram(*message) == bytes.fromhex(captured)
    assert parse_datagram_untrusted(bytes.fromhex(captured)) == message


@pytest.mark.parametrize("datagram", [b"", b"\1", b"\3ab", b"\xff" + b"x" * 254])
def test_a_datagram_shorter_than_it_says_is_malformed(datagram: bytes) -> None:
    assert parse_datagram_untrusted(datagram) is None


def test_longer_groups_of_other_radios_are_read() -> None:
    datagram = b"\xff" + b"x" * 255 + b"body"
    assert parse_datagram_untrusted(memoryview(datagram)) == (b"x" * 255, b"body")


@example(b"\0body")
@given(st.binary(max_size=300))
def test_no_datagram_raises_and_nothing_is_made_up(datagram: bytes) -> None:
    message = parse_datagram_untrusted(datagram)
    if message is not None:
        assert datagram == bytes((len(message[0]),)) + message[0] + message[1]


@pytest.mark.parametrize(
    ("group", "body", "error"),
    [
        (b"g" * 128, b"", MessageTooLongError),
        (b"g", b"b" * 8191, MessageTooLongError),
        (b"g" * 256, b"", PatternError),
        (b"\0", b"", PatternError),
    ],
)
def test_no_datagram_is_built_that_libzmq_cannot_read(
    group: bytes, body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        build_datagram(group, body)


# DISH.


def test_a_dish_tells_what_it_joins_and_leaves() -> None:
    dish = made(Dish, 1)
    dish.join(b"TV")
    dish.join(b"Movies")
    dish.leave(b"TV")
    assert dish.take_loaded() == [0]
    assert dish.take_subscriptions(0) == [*wants(b"TV", b"Movies"), *cancels(b"TV")]
    dish.suspend(0)
    dish.attach(0, ANYBODY)
    assert dish.take_subscriptions(0) == wants(b"Movies")


def test_a_dish_joins_once_and_leaves_what_it_joined() -> None:
    dish = made(Dish)
    dish.join(b"TV")
    with pytest.raises(PatternError, match="the group b'TV' is joined already"):
        dish.join(b"TV")
    dish.leave(b"TV")
    with pytest.raises(PatternError, match="the group b'TV' is not joined"):
        dish.leave(b"TV")
    dish.join(b"TV")


def test_a_dish_receives_only_what_it_joined() -> None:
    dish = made(Dish, 2)
    dish.join(b"Movies")
    dish.handle_messages(0, [SERIES, MOVIE, (b"Movie", b"x"), (b"", b"x")])
    dish.handle_messages(1, [SERIES])
    assert received(dish) == [MOVIE]
    assert dropped(dish) == {"filtered": 4}
    dish.join(b"")
    dish.handle_messages(0, [(b"", b"x")])
    assert received(dish) == [(b"", b"x")]


@pytest.mark.parametrize("message", [b"one part", (b"TV", b"a", b"b")])
def test_a_radio_that_sends_no_pairs_is_refused(message: Message) -> None:
    dish = made(Dish, 1)
    dish.join(b"TV")
    dish.handle_messages(0, [SERIES, message])
    assert refusals(dish) == [(0, Refusal.MALFORMED)]
    assert received(dish) == [SERIES]
    assert dropped(dish) == {"dropped_malformed": 1}


def test_a_full_dish_pushes_back() -> None:
    dish = made(Dish, 1, rcvhwm=2)
    dish.join(b"TV")
    dish.handle_messages(0, [SERIES, MOVIE, SERIES])
    assert not dish.can_receive(0)
    assert len(received(dish)) == 2
    assert dish.take_resumed() == [0]
