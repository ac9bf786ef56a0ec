"""The options of each socket type: names as in pyzmq, defaults as in libzmq where it has one.

Owns their checks: an object of these classes has been checked, and never changes. A socket may be
given another one at any time (``Pattern.configure``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from mcast.errors import OptionError
from mcast.patterns.kinds import ROUTING_ID_BYTES, is_routing_id

__all__ = [
    "NOTIFY_CONNECT",
    "NOTIFY_DISCONNECT",
    "ConflatingOptions",
    "DealerOptions",
    "PubOptions",
    "PublisherOptions",
    "QueueOptions",
    "RadioOptions",
    "ReqOptions",
    "RouterOptions",
    "SubOptions",
    "XpubOptions",
    "XsubOptions",
]

NOTIFY_CONNECT: Final = 1
NOTIFY_DISCONNECT: Final = 2
"""Bits of ``router_notify``."""

_RANGES: Final = {
    "sndhwm": (0, 10**9),
    "rcvhwm": (0, 10**9),
    "router_notify": (0, NOTIFY_CONNECT | NOTIFY_DISCONNECT),
    "max_topic_bytes": (1, 1 << 20),
    "max_subscription_count": (1, 10**7),
    "max_subscription_bytes": (1, 1 << 30),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """What every socket type has: its queues, one in each direction for every peer."""

    sndhwm: int = 1000
    """Messages that may wait for one peer before it counts as full, 0 (no limit) to 1e9."""
    rcvhwm: int = 1000
    """Messages of one peer that may wait for ``recv``, 0 (no limit) to 1e9.

    When they do, ``can_receive`` turns false until half of them were taken; nothing is dropped.
    """
    immediate: bool = False
    """Peers count only while connected: no queue for one that is yet to come, or to come back."""

    def __post_init__(self) -> None:
        for item in fields(self):
            name, value = item.name, getattr(self, item.name)
            if item.type == "bool":
                if not isinstance(value, bool):
                    raise OptionError(f"{name} is True or False, not {value!r}")
            elif item.type == "bytes":
                if not isinstance(value, bytes):
                    raise OptionError(f"{name} is bytes, not {value!r}")
            else:
                low, high = _RANGES[name]
                if isinstance(value, bool) or not isinstance(value, int):
                    raise OptionError(f"{name} is a whole number, not {value!r}")
                if not low <= value <= high:
                    raise OptionError(f"{name} is {low} to {high}, not {value}")
        if not is_routing_id(self.own_routing_id or b"-"):
            raise OptionError(
                f"routing_id is up to {ROUTING_ID_BYTES} bytes and does not begin with a zero byte"
            )

    @property
    def conflates(self) -> bool:
        """True if each queue holds the newest message only."""
        return False

    @property
    def own_routing_id(self) -> bytes:
        """What this socket tells its peers as Identity; empty if nothing."""
        return b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflatingOptions(QueueOptions):
    """PUSH and PULL."""

    conflate: bool = False
    """Each queue holds the newest message only, and both high-water marks mean nothing.

    Unlike in libzmq, a multipart message is kept or replaced whole. Fixed once there are peers.
    """

    @property
    def conflates(self) -> bool:
        """True if each queue holds the newest message only."""
        return self.conflate


@dataclass(frozen=True, slots=True, kw_only=True)
class DealerOptions(ConflatingOptions):
    """DEALER."""

    probe_router: bool = False
    """Send each new connection one empty message first, so that a ROUTER there knows us."""
    routing_id: bytes = b""
    """Told to peers as Identity, up to 255 bytes, the first not zero."""

    @property
    def own_routing_id(self) -> bytes:
        """What this socket tells its peers as Identity; empty if nothing."""
        return self.routing_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ReqOptions(QueueOptions):
    """REQ."""

    req_relaxed: bool = False
    """A new request may replace one whose reply has not come; use it with ``req_correlate``."""
    req_correlate: bool = False
    """Number the requests, so that a late reply to another is not taken for the one awaited."""
    probe_router: bool = False
    """Send each new connection one empty message first, so that a ROUTER there knows us."""
    routing_id: bytes = b""
    """Told to peers as Identity, up to 255 bytes, the first not zero."""

    @property
    def own_routing_id(self) -> bytes:
        """What this socket tells its peers as Identity; empty if nothing."""
        return self.routing_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions(QueueOptions):
    """ROUTER."""

    router_mandatory: bool = False
    """Say so when a message has no known peer or its queue is full, instead of dropping it."""
    router_handover: bool = False
    """A newcomer with the routing id of another peer takes it over, instead of being ignored."""
    router_notify: int = 0
    """Put ``(routing id, b"")`` in the queue when a peer connects (1), disconnects (2), or 3."""
    probe_router: bool = False
    """Send each new connection one empty message first, so that a ROUTER there knows us."""
    routing_id: bytes = b""
    """Told to peers as Identity, up to 255 bytes, the first not zero."""

    @property
    def own_routing_id(self) -> bytes:
        """What this socket tells its peers as Identity; empty if nothing."""
        return self.routing_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RadioOptions(QueueOptions):
    """RADIO, and what PUB and XPUB have in common with it."""

    xpub_nodrop: bool = False
    """A full queue of one peer makes ``send`` block, instead of dropping the message for it."""
    max_subscription_count: int = 10_000
    """Most topics or groups of one peer at once, 1 to 1e7. libzmq: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherOptions(RadioOptions):
    """What PUB and XPUB have in common. The limits are for each peer; who exceeds them is refused.

    At the defaults one peer can make a publisher spend about 6 MiB (measured).
    """

    invert_matching: bool = False
    """Send to those who did not subscribe to the topic."""
    max_topic_bytes: int = 1024
    """Longest topic, 1 to 1 MiB. libzmq: no limit."""
    max_subscription_bytes: int = 4 << 20
    """Most bytes of topics together, 1 to 1 GiB. libzmq: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PubOptions(PublisherOptions):
    """PUB."""

    conflate: bool = False
    """Each peer's queue holds the newest message only, and ``sndhwm`` means nothing.

    Fixed once there are peers.
    """

    @property
    def conflates(self) -> bool:
        """True if each queue holds the newest message only."""
        return self.conflate


@dataclass(frozen=True, slots=True, kw_only=True)
class XpubOptions(PublisherOptions):
    """XPUB."""

    xpub_verbose: bool = False
    """Hand the application every subscription, not only the first to each topic."""
    xpub_verboser: bool = False
    """As ``xpub_verbose``, and every cancellation, not only the last of each topic."""
    xpub_manual: bool = False
    """Subscriptions are only handed to the application, which answers with ``subscribe``."""
    xpub_manual_last_value: bool = False
    """As ``xpub_manual``, and the next message goes only to whom the last one came from."""
    xpub_welcome_msg: bytes = b""
    """Sent first to each new connection, whatever it subscribes to; empty: none."""
    only_first_subscribe: bool = False
    """Look for a subscription in the first part of a peer's message only."""

    @property
    def is_manual(self) -> bool:
        """True if the application decides on subscriptions."""
        return self.xpub_manual or self.xpub_manual_last_value


@dataclass(frozen=True, slots=True, kw_only=True)
class SubOptions(ConflatingOptions):
    """SUB."""

    invert_matching: bool = False
    """Take what was not subscribed to; the publisher needs the same option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XsubOptions(QueueOptions):
    """XSUB."""

    xsub_verbose_unsubscribe: bool = False
    """Pass on every cancellation, not only the last of each topic."""
    only_first_subscribe: bool = False
    """Look for a subscription in the first part of a sent message only."""
