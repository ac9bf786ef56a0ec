"""The trie against a model of plain sets, its limits, and subscriptions found in messages."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.kernel import Message
from mcast.patterns.base import Change
from mcast.patterns.options import PubOptions
from mcast.patterns.subscriptions import SubscriptionTrie, split_subscriptions

pytestmark = pytest.mark.kernel_independent

# Few letters and short topics, so that they share, split and join labels all the time.
topics = st.text("ab", max_size=4).map(str.encode)
steps = st.lists(st.tuples(st.sampled_from(["add", "remove", "leave"]), topics, st.integers(0, 3)))


def trie_of(*topics: bytes) -> SubscriptionTrie[str]:
    trie: SubscriptionTrie[str] = SubscriptionTrie()
    for topic in topics:
        trie.add(topic, topic.decode())
    return trie


def test_a_topic_matches_all_prefixes_of_it() -> None:
    trie = trie_of(b"", b"a", b"ab", b"abc", b"b", b"abd")
    assert trie.match(b"abcd") == ("", "a", "ab", "abc")
    assert trie.match(b"x") == ("",)
    assert trie.match(b"") == ("",)


def test_without_topics_nothing_matches() -> None:
    assert trie_of().match(b"a") == ()
    assert trie_of(b"ab").match(b"a") == ()
    assert trie_of(b"ab").match(b"") == ()


def test_a_member_that_is_found_twice_is_named_once() -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    for topic in (b"", b"a", b"ab"):
        trie.add(topic, 1)
    trie.add(b"ab", 2)
    assert trie.match(b"ab") == (1, 2)


def test_first_and_last_of_a_topic_are_told() -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    assert trie.add(b"a", 1) is True
    assert trie.add(b"a", 2) is False
    assert trie.add(b"a", 2) is None
    assert trie.remove(b"a", 1) is False
    assert trie.remove(b"a", 1) is None
    assert trie.remove(b"a", 2) is True
    assert trie.remove(b"never", 2) is None


def test_the_longest_topic_is_the_longest_there_is_now() -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    lengths = [trie.longest_bytes]
    for topic in (b"ab", b"abcd", b"abce"):
        trie.add(topic, 1)
        lengths.append(trie.longest_bytes)
    for topic in (b"abcd", b"abce", b"ab"):
        trie.remove(topic, 1)
        lengths.append(trie.longest_bytes)
    assert lengths == [0, 2, 4, 4, 4, 2, 0]


def test_bytes_are_bytes() -> None:
    trie = trie_of()
    trie.add(b"\xff\0\x80", "binary")
    assert trie.match(b"\xff\0\x80\0") == ("binary",)
    assert trie.match(b"\xff\0\x81") == ()


@given(steps=steps, wanted=st.lists(topics, max_size=5))
def test_the_trie_is_a_table_of_topics(
    steps: list[tuple[str, bytes, int]], wanted: list[bytes]
) -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    model: dict[bytes, set[int]] = {}
    for what, topic, member in steps:
        members = model.get(topic, set())
        if what == "add":
            expected = None if member in members else not members
            assert trie.add(topic, member) is expected
            model[topic] = members | {member}
        elif what == "remove":
            expected = members == {member} if member in members else None
            assert trie.remove(topic, member) is expected
            model[topic] = members - {member}
        else:
            had = {t: m for t, m in model.items() if member in m}
            left = trie.remove_member(member)
            assert sorted(left) == sorted((t, m == {member}) for t, m in had.items())
            model = {t: m - {member} for t, m in model.items()}
        model = {t: m for t, m in model.items() if m}
        assert len(trie) == len(model)
        assert trie.longest_bytes == max(map(len, model), default=0)
        for member in range(4):
            own = [t for t, m in model.items() if member in m]
            assert trie.count_of(member) == len(own)
            assert trie.bytes_of(member) == sum(map(len, own))
            assert trie.has(topic, member) is (member in model.get(topic, ()))
    for topic in [*wanted, *model]:
        found = {m for t, members in model.items() if topic.startswith(t) for m in members}
        assert set(trie.match(topic)) == found
        assert len(trie.match(topic)) == len(found)
    for member in range(4):
        trie.remove_member(member)
    assert node_count(trie) == 1


@given(st.sets(topics, min_size=1))
def test_there_are_fewer_than_two_nodes_a_topic(topics: set[bytes]) -> None:
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    for topic in topics:
        trie.add(topic, 1)
    assert node_count(trie) <= 2 * len(topics)
    for topic in list(topics)[::2]:
        trie.remove(topic, 1)
    assert node_count(trie) <= max(1, 2 * len(trie))


def node_count(trie: SubscriptionTrie[int]) -> int:
    nodes = [trie._root]
    for node in nodes:
        nodes += (node.children or {}).values()
    return len(nodes)


def test_a_chain_of_a_thousand_topics_does_not_recurse() -> None:
    chain = [b"a" * n for n in range(3000)]
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    for topic in chain:
        trie.add(topic, len(topic))
    assert len(trie.match(b"a" * 5000)) == 3000
    for topic in chain:
        assert trie.remove_member(len(topic)) == [(topic, True)]


@pytest.mark.parametrize("shape", ["random", "chain"])
def test_a_peer_at_the_limits_takes_less_than_eight_mebibytes(shape: str) -> None:
    options = PubOptions()
    size = options.max_subscription_bytes // options.max_subscription_count
    dice = Random(1)
    if shape == "random":
        topics = (dice.randbytes(size) for _ in range(options.max_subscription_count))
    else:
        topics = (bytes((n % 7,)) * (n // 9) for n in range(options.max_subscription_count))
    trie: SubscriptionTrie[int] = SubscriptionTrie()
    tracemalloc.start()
    try:
        for topic in topics:
            trie.add(topic, 1)
        spent = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert spent < 8 << 20


# In messages.


@pytest.mark.parametrize(
    ("message", "changes", "rest"),
    [
        (b"\1A", [(True, b"A")], None),
        (b"\0A", [(False, b"A")], None),
        (b"\1", [(True, b"")], None),
        (b"", [], b""),
        (b"\2A", [], b"\2A"),
        (b"hello", [], b"hello"),
        ((b"\1A", b"\0B"), [(True, b"A"), (False, b"B")], None),
        ((b"\1A", b"x"), [(True, b"A")], b"x"),
        ((b"x", b"\1A", b"y"), [(True, b"A")], (b"x", b"y")),
        ((b"x", b"y"), [], (b"x", b"y")),
    ],
)
def test_parts_that_begin_with_one_or_zero_are_subscriptions(
    message: Message, changes: list[Change], rest: Message | None
) -> None:
    assert split_subscriptions(message, only_first=False) == (changes, rest)


@pytest.mark.parametrize(
    ("message", "changes", "rest"),
    [
        (b"\1A", [(True, b"A")], None),
        ((b"x", b"\1A"), [], (b"x", b"\1A")),
        ((b"", b"\1A"), [], (b"", b"\1A")),
        ((b"\1A", b"\0B", b"x"), [(True, b"A"), (False, b"B")], b"x"),
    ],
)
def test_with_only_first_subscribe_the_first_part_decides(
    message: Message, changes: list[Change], rest: Message | None
) -> None:
    assert split_subscriptions(message, only_first=True) == (changes, rest)
