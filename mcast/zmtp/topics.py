"""Subscriptions of one connection: who may have them, and how much a peer may subscribe to.

Owns the set of the peer's topics, which only serves the limits: the patterns have their own. A
DISH's groups, and JOIN and LEAVE for them, are the same thing under other names (RFC 48).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from mcast.errors import MessageTooLongError, PatternError
from mcast.zmtp.commands import CANCEL, JOIN, LEAVE, SUBSCRIBE
from mcast.zmtp.events import Cancelled, Subscribed, ZmtpEvent
from mcast.zmtp.failure import FailureReason, ZmtpError, printable
from mcast.zmtp.options import ZmtpOptions

__all__ = ["OWN_VERBS", "PEER_VERBS", "PeerTopics", "check_topics", "max_topic_bytes"]

OWN_VERBS: Final = {
    "SUB": (SUBSCRIBE, CANCEL),
    "XSUB": (SUBSCRIBE, CANCEL),
    "DISH": (JOIN, LEAVE),
}
"""The commands by which a socket type adds and removes topics or groups."""

PEER_VERBS: Final = {
    "PUB": (SUBSCRIBE, CANCEL),
    "XPUB": (SUBSCRIBE, CANCEL),
    "RADIO": (JOIN, LEAVE),
}
"""Those that its peers send to a socket type."""

_GROUP_BYTES: Final = 255
"""Longest group (RFC 48). A libzmq RADIO aborts at a longer JOIN."""


def max_topic_bytes(options: ZmtpOptions) -> int:
    """The longest topic or group that this connection knows."""
    if options.socket_type in ("RADIO", "DISH"):
        return min(options.max_topic_bytes, _GROUP_BYTES)
    return options.max_topic_bytes


def check_topics(topics: tuple[bytes, ...], options: ZmtpOptions) -> None:
    """Nothing, if this socket may subscribe to them. Raises as ``ZmtpEngine.subscribe``."""
    socket_type, limit = options.socket_type, max_topic_bytes(options)
    if socket_type not in OWN_VERBS:
        raise PatternError(f"a {socket_type} does not subscribe; SUB, XSUB and DISH do")
    for topic in topics:
        if not isinstance(topic, bytes):
            raise TypeError(f"a topic or group is bytes, not {type(topic).__name__}")
        if len(topic) > limit:
            raise MessageTooLongError(f"{len(topic)} bytes of topic or group; {limit} are allowed")
        if socket_type == "DISH" and b"\0" in topic:
            raise ValueError("a group has no zero byte: libzmq would take it for the end")


class PeerTopics:
    """The different topics, or groups, that one peer has at the moment."""

    __slots__ = ("_bytes", "_max_bytes", "_max_count", "_max_topic_bytes", "_topics")

    def __init__(self, options: ZmtpOptions) -> None:
        self._topics: set[bytes] = set()
        self._bytes = 0
        self._max_count = options.max_subscription_count
        self._max_bytes = options.max_subscription_bytes
        self._max_topic_bytes = max_topic_bytes(options)

    @property
    def topics(self) -> Collection[bytes]:
        """All of them."""
        return self._topics

    def add_untrusted(self, topic: bytes, events: list[ZmtpEvent]) -> None:
        """The peer subscribes; also again to what it has. Raises ``ZmtpError`` over a limit."""
        if topic not in self._topics:
            self._count_in_untrusted(topic)
        last = events[-1] if events else None
        if isinstance(last, Subscribed):
            last.topics.append(topic)
        else:
            events.append(Subscribed([topic]))

    def remove(self, topic: bytes, events: list[ZmtpEvent]) -> bool:
        """The peer cancels. False, and no event, if it had not subscribed to that."""
        if topic not in self._topics:
            return False
        self._topics.remove(topic)
        self._bytes -= len(topic)
        last = events[-1] if events else None
        if isinstance(last, Cancelled):
            last.topics.append(topic)
        else:
            events.append(Cancelled([topic]))
        return True

    def _count_in_untrusted(self, topic: bytes) -> None:
        if len(topic) > self._max_topic_bytes:
            raise ZmtpError(
                FailureReason.TOO_LONG,
                f"a topic has {len(topic)} bytes and begins {printable(topic[:16])}; "
                f"the limit is {self._max_topic_bytes}",
            )
        self._topics.add(topic)
        self._bytes += len(topic)
        if len(self._topics) > self._max_count or self._bytes > self._max_bytes:
            raise ZmtpError(
                FailureReason.SUBSCRIPTIONS,
                f"the peer's {len(self._topics)} topics of {self._bytes} bytes together are over "
                f"{self._max_count} topics or {self._max_bytes} bytes",
            )
