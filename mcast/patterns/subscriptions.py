"""Which peers asked for which topics: a prefix trie for publishers, and subscriptions in messages.

Owns the trie's nodes. Invariants: a member is at most once under a topic; each node but the root
has members or at least two children, so that there are fewer than two nodes for each topic; no
call recurses, and none takes longer than the depth of the topic and the members it finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from itertools import chain
from typing import Final, Generic, TypeVar

from mcast.kernel import Message
from mcast.patterns.base import Change

__all__ = ["Found", "SubscriptionTrie", "split_subscriptions"]

Member = TypeVar("Member", bound=Hashable)
Found = tuple[Member, ...]
"""Members that a topic led to, each once, in the order in which they came under each prefix."""

_MARKS: Final = (b"\0", b"\1")


class _Node(Generic[Member]):
    """A place in the trie: the labels from the root to it make its topic."""

    __slots__ = ("children", "label", "members", "parent")

    def __init__(self, label: bytes, parent: _Node[Member] | None) -> None:
        self.label = label
        self.parent = parent
        self.children: dict[int, _Node[Member]] | None = None
        self.members: tuple[Member, ...] = ()

    def adopt(self, child: _Node[Member]) -> None:
        child.parent = self
        if self.children is None:
            self.children = {}
        self.children[child.label[0]] = child


class SubscriptionTrie(Generic[Member]):
    """Topics, each with the members that want all that begins with it.

    A trie of bytes in which a chain of single children is one node (a radix tree). Topics and
    what is matched are hostile; the caller limits their number and length.
    """

    def __init__(self) -> None:
        self._root: _Node[Member] = _Node(b"", None)
        self._nodes: dict[Member, dict[_Node[Member], None]] = {}
        self._bytes: Counter[Member] = Counter()
        self._lengths: Counter[int] = Counter()
        self.longest_bytes = 0
        """Length of the longest topic: what lies behind it in a message changes no match."""

    def __len__(self) -> int:
        """How many different topics there are."""
        return self._lengths.total()

    def count_of(self, member: Member) -> int:
        """How many topics ``member`` is under."""
        return len(self._nodes.get(member, ()))

    def bytes_of(self, member: Member) -> int:
        """The length of these topics together."""
        return self._bytes[member]

    def has(self, topic: bytes, member: Member) -> bool:
        """True if ``member`` is under ``topic`` itself."""
        node, position = self._descend(topic)
        return position == len(topic) and node in self._nodes.get(member, ())

    def add(self, topic: bytes, member: Member) -> bool | None:
        """True if ``member`` is the first under ``topic``, None if it was there already."""
        node, position = self._descend(topic)
        if position < len(topic):
            node = self._make(node, topic, position)
        nodes = self._nodes.setdefault(member, {})
        if node in nodes:
            return None
        nodes[node] = None
        self._bytes[member] += len(topic)
        is_first = not node.members
        node.members += (member,)
        if is_first:
            self._lengths[len(topic)] += 1
            self.longest_bytes = max(self.longest_bytes, len(topic))
        return is_first

    def remove(self, topic: bytes, member: Member) -> bool | None:
        """True if ``member`` was the last under ``topic``, None if it was not there."""
        if not self.has(topic, member):
            return None
        return self._take_out(self._descend(topic)[0], topic, member)

    def remove_member(self, member: Member) -> list[tuple[bytes, bool]]:
        """The topics that ``member`` was under, each with whether it was the last."""
        topics = []
        for node in list(self._nodes.get(member, ())):
            topic = _topic_of(node)
            topics.append((topic, self._take_out(node, topic, member)))
        return topics

    def match(self, topic: bytes) -> Found[Member]:
        """All members under a prefix of ``topic``, itself included."""
        node = self._root
        found = [node.members] if node.members else []
        position = 0
        while node.children is not None and position < len(topic):
            child = node.children.get(topic[position])
            if child is None or not topic.startswith(child.label, position):
                break
            position += len(child.label)
            node = child
            if node.members:
                found.append(node.members)
        if len(found) == 1:
            return found[0]
        return tuple(dict.fromkeys(chain.from_iterable(found)))

    def _descend(self, topic: bytes) -> tuple[_Node[Member], int]:
        """The last node on the way to ``topic``, and how much of it leads there."""
        node, position = self._root, 0
        while node.children is not None and position < len(topic):
            child = node.children.get(topic[position])
            if child is None or not topic.startswith(child.label, position):
                break
            position += len(child.label)
            node = child
        return node, position

    def _make(self, node: _Node[Member], topic: bytes, position: int) -> _Node[Member]:
        """A new node for ``topic`` below ``node``; splits the label of a child in the way."""
        child = node.children.get(topic[position]) if node.children is not None else None
        if child is not None:
            label = child.label
            shared = 1
            while topic[position + shared : position + shared + 1] == label[shared : shared + 1]:
                shared += 1
            middle = _Node(label[:shared], node)
            child.label = label[shared:]
            middle.adopt(child)
            node.adopt(middle)
            node, position = middle, position + shared
            if position == len(topic):
                return node
        leaf = _Node(topic[position:], node)
        node.adopt(leaf)
        return leaf

    def _take_out(self, node: _Node[Member], topic: bytes, member: Member) -> bool:
        nodes = self._nodes[member]
        del nodes[node]
        self._bytes[member] -= len(topic)
        if not nodes:
            del self._nodes[member]
            del self._bytes[member]
        place = node.members.index(member)
        node.members = node.members[:place] + node.members[place + 1 :]
        if node.members:
            return False
        self._forget_length(len(topic))
        self._prune(node)
        return True

    def _forget_length(self, length: int) -> None:
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]
            if length == self.longest_bytes:
                self.longest_bytes = max(self._lengths, default=0)

    def _prune(self, node: _Node[Member]) -> None:
        """Remove a node without members that no way leads through any more."""
        parent = node.parent
        if parent is not None and node.children is None:
            assert parent.children is not None
            del parent.children[node.label[0]]
            if not parent.children:
                parent.children = None
            node, parent = parent, parent.parent
        if parent is None or node.members or node.children is None or len(node.children) > 1:
            return
        (child,) = node.children.values()
        child.label = node.label + child.label
        parent.adopt(child)


def _topic_of(node: _Node[Member]) -> bytes:
    labels = []
    while node.parent is not None:
        labels.append(node.label)
        node = node.parent
    return b"".join(reversed(labels))


def split_subscriptions(
    message: Message, *, only_first: bool
) -> tuple[list[Change], Message | None]:
    """The subscriptions in a message, and what of it is for the application, if anything is.

    A part that begins with 1 subscribes to the rest of it, with 0 cancels (ZMTP 3.0). With
    ``only_first`` the parts behind a first one that does neither are not looked at.
    """
    parts = (message,) if isinstance(message, bytes) else message
    if only_first and parts[0][:1] not in _MARKS:
        return [], message
    changes: list[Change] = []
    rest = []
    for part in parts:
        if part[:1] in _MARKS:
            changes.append((part[0] == 1, part[1:]))
        else:
            rest.append(part)
    if not changes:
        return changes, message
    if not rest:
        return changes, None
    return changes, rest[0] if len(rest) == 1 else tuple(rest)
