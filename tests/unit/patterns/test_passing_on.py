"""Which sockets with one peer need no look at each message, and what they want of what arrives."""

from __future__ import annotations

from random import Random

import pytest

from mcast.kernel import Message
from mcast.patterns import Dealer, Pair, Pattern, Pub, Pull, Push, SocketKind, Sub, Xsub, create
from tests.unit.patterns.ends import made, numbered, out, received, wants

MESSAGES: list[Message] = [*numbered(6), b"", (b"", b"")]


@pytest.mark.parametrize("pattern", [Pair, Dealer, Push, Pub])
def test_what_passes_on_gives_a_lone_peer_just_what_was_sent(pattern: type[Pattern]) -> None:
    one = made(pattern, peers=1)
    assert one.is_passing_on
    one.handle_subscriptions(0, wants(b""))
    assert one.send_many(MESSAGES) == len(MESSAGES)
    assert out(one) == MESSAGES


@pytest.mark.parametrize("pattern", [Pair, Dealer, Pull, Sub])
def test_what_passes_on_gives_the_application_just_what_the_peer_sent(
    pattern: type[Pattern],
) -> None:
    one = made(pattern, peers=1)
    assert one.is_passing_on
    if isinstance(one, Sub):
        one.subscribe(b"")
    one.handle_messages(0, MESSAGES)
    assert received(one) == MESSAGES


@pytest.mark.parametrize("pattern", [Dealer, Push, Pull, Pub, Sub])
def test_what_conflates_passes_nothing_on(pattern: type[Pattern]) -> None:
    assert not made(pattern, conflate=True).is_passing_on


@pytest.mark.parametrize(
    ("pattern", "option"),
    [(Sub, "invert_matching"), (Pub, "invert_matching"), (Pub, "xpub_nodrop")],
)
def test_what_chooses_message_by_message_passes_nothing_on(
    pattern: type[Pattern], option: str
) -> None:
    one = made(pattern)
    assert one.is_passing_on
    one.configure(pattern.options_type(**{option: True}))
    assert not one.is_passing_on


def test_publisher_passes_nothing_on_once_a_message_of_parts_has_subscribed() -> None:
    pub = made(Pub, peers=1)
    pub.handle_messages(0, [b"\1A"])
    assert pub.is_passing_on  # its connection knows of that
    pub.handle_messages(0, [(b"\1B", b"\1C")])
    assert not pub.is_passing_on


def test_types_that_add_take_away_or_look_pass_nothing_on() -> None:
    passing = {kind for kind in SocketKind if create(kind, Random(1)).is_passing_on}
    assert passing == {pattern.kind for pattern in (Pair, Dealer, Push, Pull, Pub, Sub)}


# What arrives.


def test_sub_wants_of_what_arrives_what_begins_with_a_subscription() -> None:
    sub = made(Sub, peers=1)
    sub.subscribe(b"A")
    wanted = sub.arrival_filter
    assert wanted is not None
    assert [wanted.match(topic) for topic in (b"A1", b"B", b"")] == [True, False, False]
    assert sub.arrival_filter is wanted  # compiled once


@pytest.mark.parametrize("is_asked_first", [False, True])
def test_each_change_of_subscriptions_changes_what_is_wanted(is_asked_first: bool) -> None:
    sub = made(Sub, peers=1)
    if is_asked_first:
        assert sub.arrival_filter is not None
    sub.subscribe(b"A")
    sub.handle_messages(0, [b"A"])
    sub.subscribe(b"B")
    sub.unsubscribe(b"A")
    wanted = sub.arrival_filter
    assert wanted is not None
    assert [wanted.match(topic) for topic in (b"A1", b"B1")] == [False, True]
    sub.handle_messages(0, [b"A", b"B"])
    assert received(sub) == [b"A", b"B"]  # the first came while it was wanted


@pytest.mark.parametrize("pattern", [Pair, Pull, Dealer, Xsub])
def test_others_want_whatever_arrives(pattern: type[Pattern]) -> None:
    assert made(pattern).arrival_filter is None
