"""Who asked for what: the radix trie against a table, step by step."""

from __future__ import annotations

from collections.abc import Iterator

from mcast.patterns import subscriptions as under_test
from tests.fuzz.target import Cut, Target, must

_MEMBERS = ("a", "b", "c")


def run(data: bytes) -> None:
    """Steps of a verb, a member and a topic of up to 15 bytes."""
    cut = Cut(data)
    trie: under_test.SubscriptionTrie[str] = under_test.SubscriptionTrie()
    table: dict[bytes, list[str]] = {}
    while cut:
        verb = cut.octet()
        member = _MEMBERS[(verb >> 2) % len(_MEMBERS)]
        topic = cut.take(verb >> 4)
        present = table.get(topic, [])
        if verb & 3 == 0:
            found = trie.remove(topic, member)
            expected = None
            if member in present:
                present.remove(member)
                expected = not present
            must(found == expected, "remove", topic, member, found, expected)
        elif verb & 3 == 3:
            gone = sorted(trie.remove_member(member))
            mine = sorted(name for name, members in table.items() if member in members)
            for name in mine:
                table[name].remove(member)
            must(gone == [(name, not table[name]) for name in mine], "remove_member", gone, mine)
        else:
            found = trie.add(topic, member)
            expected = None if member in present else not present
            if expected is not None:
                table.setdefault(topic, []).append(member)
            must(found == expected, "add", topic, member, found, expected)
        table = {name: members for name, members in table.items() if members}
        look(trie, table, topic)
    for topic in [*table, b"", data[:20]]:
        look(trie, table, topic)
    count(trie, table)
    for member in _MEMBERS:
        trie.remove_member(member)
    must(len(trie) == 0 and node_count(trie) == 1, "something is left", node_count(trie))


def look(
    trie: under_test.SubscriptionTrie[str], table: dict[bytes, list[str]], topic: bytes
) -> None:
    """What the trie says of a topic is what the table says."""
    wanted: dict[str, None] = {}
    for end in range(len(topic) + 1):
        wanted.update(dict.fromkeys(table.get(topic[:end], ())))
    found = trie.match(topic)
    must(len(set(found)) == len(found) and set(found) == set(wanted), "match", topic, found, wanted)
    for member in _MEMBERS:
        there = member in table.get(topic, ())
        must(trie.has(topic, member) == there, "has", topic, member)


def count(trie: under_test.SubscriptionTrie[str], table: dict[bytes, list[str]]) -> None:
    """What the trie counts is what the table has, in no more nodes than it may have."""
    must(len(trie) == len(table), "how many topics", len(trie), len(table))
    longest = max(map(len, table), default=0)
    must(trie.longest_bytes == longest, "the longest topic", trie.longest_bytes, longest)
    must(node_count(trie) <= 2 * len(table) + 1, "too many nodes", len(table))
    for member in _MEMBERS:
        mine = [name for name, members in table.items() if member in members]
        must(trie.count_of(member) == len(mine), "count_of", member)
        must(trie.bytes_of(member) == sum(map(len, mine)), "bytes_of", member)


def node_count(trie: under_test.SubscriptionTrie[str]) -> int:
    """All nodes, the root included."""
    nodes = [trie._root]
    for node in nodes:
        nodes += (node.children or {}).values()
    return len(nodes)


def seeds() -> Iterator[bytes]:
    """Topics that part late, and cancelling them in another order."""
    yield b"\x31abc\x35abd\x19a\x31ab\x30abc\x03"
    yield b"\x01\x11a\x15a\x21ab\x00\x0b\x07"
    yield b"\xf1" + b"aaaaaaaaaaaaaaa" + b"\x71aaaaaaa\x71aaaaaab\x70aaaaaaa"


def _leave_nodes() -> None:
    """Nodes in which nobody is any more stay."""
    under_test.SubscriptionTrie._prune = lambda *_: None  # type: ignore[method-assign]


def _match_twice() -> None:
    """Who is under two prefixes is found twice."""

    def match(trie: under_test.SubscriptionTrie[str], topic: bytes) -> tuple[str, ...]:
        found: list[str] = []
        for end in range(len(topic) + 1):
            node, reached = trie._descend(topic[:end])
            found += node.members if reached == end else ()
        return tuple(found)

    under_test.SubscriptionTrie.match = match  # type: ignore[method-assign]


PLANTS = {"leave-nodes": _leave_nodes, "match-twice": _match_twice}
TARGET = Target(run, seeds, PLANTS, max_bytes=80)
