"""What a pattern tells its shell: how a send ended, whom it refuses, and what it counted.

Owns these values only. Invariant of the counters: a message that a peer was to get or has sent, and
that is neither handed on nor kept, is in exactly one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, StrEnum

from mcast.stats import Snapshot

__all__ = ["PatternCounters", "Refusal", "Refused", "SendResult"]


class SendResult(Enum):
    """How ``Pattern.send`` ended."""

    SENT = "sent"
    """The message is queued, or was dropped as the socket type does it, and counted."""
    WOULD_BLOCK = "would_block"
    """Nothing happened: no peer can take it now. ``is_writable`` turns true when one can."""
    UNROUTABLE = "unroutable"
    """Nothing happened: a ROUTER with ``router_mandatory`` knows no such peer (EHOSTUNREACH)."""


class Refusal(StrEnum):
    """Why a pattern does not deal with a connection."""

    INCOMPATIBLE = "incompatible"
    """The two socket types do not talk to each other."""
    SECOND_PEER = "second_peer"
    """A PAIR has its one peer already."""
    MALFORMED = "malformed"
    """It sent what its socket type never sends: a reply without a delimiter, a group too long."""
    DUPLICATE_ROUTING_ID = "duplicate_routing_id"
    """Another peer of this ROUTER has its routing id."""
    HANDED_OVER = "handed_over"
    """A newcomer took over its routing id (``router_handover``)."""
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    """It went over a limit of what one peer may subscribe to."""
    UNREAD_CHANGES = "unread_changes"
    """It takes no subscriptions any more while the application goes on changing them."""

    @property
    def closes(self) -> bool:
        """True if the pattern has detached the pipe, so that the shell should close it.

        A newcomer with a duplicate routing id stays, unheard, as in libzmq: to close it would
        have it come back every 100 ms.
        """
        return self is not Refusal.DUPLICATE_ROUTING_ID


@dataclass(slots=True)
class Refused:
    """The pattern has nothing to do with this connection any more."""

    pipe: int
    """Its number."""
    reason: Refusal
    """Why; ``reason.closes`` tells whether to close it."""


@dataclass(slots=True)
class PatternCounters:
    """One socket's counters of whole messages. Owned by its pattern."""

    messages_received: int = 0
    """Messages that arrived from peers, dropped ones included."""
    messages_taken: int = 0
    """Messages that the shell took to send them, one for each peer."""
    dropped_at_hwm: int = 0
    """Not queued because the peer's queue was full (PUB, XPUB, XSUB, RADIO, ROUTER, REP)."""
    dropped_unroutable: int = 0
    """A ROUTER's messages to nobody it knows, and a REP's replies to peers that left."""
    dropped_undelivered: int = 0
    """Still in the queue of a peer when it left."""
    dropped_unexpected: int = 0
    """Arrived where nobody takes them: at a PUSH, for a request given up, from a refused peer."""
    dropped_malformed: int = 0
    """Arrived without the envelope or the group that the socket type needs."""
    filtered: int = 0
    """Arrived, but nobody here had subscribed or joined."""
    conflated: int = 0
    """Replaced by a newer one (``conflate``)."""
    cancels_ignored: int = 0
    """Cancellations of what the peer was not subscribed to."""
    routing_ids_replaced: int = 0
    """Peers whose Identity no ROUTER may use: too long, or it begins with a zero byte."""

    def snapshot(self) -> Snapshot:
        """All of it as a flat dict."""
        return {item.name: getattr(self, item.name) for item in fields(self)}
