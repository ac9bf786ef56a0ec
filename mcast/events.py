"""What a subscriber can learn beside its messages: who came, who went, and what was lost.

Every class here is a plain value made by the protocol engines; ``Socket.events`` hands them out.
Sequence numbers are PGM packet numbers, extended past 2^32, so that they only ever grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Event",
    "LossReason",
    "Lost",
    "PeerHeard",
    "PeerJoined",
    "PeerLeft",
    "PeerQuiet",
    "PeerRestarted",
    "RepairsLimited",
]


class LossReason(StrEnum):
    """Why packets could not be delivered."""

    WINDOW_ADVANCED = "window_advanced"
    """The source's transmit window moved past them before a repair arrived."""
    REPAIR_DEADLINE = "repair_deadline"
    """No repair came within ``repair_deadline``, or all retries were used up."""
    SOURCE_GONE = "source_gone"
    """The source ended, was reset or expired while they were missing."""
    DISCONTINUITY = "discontinuity"
    """The source started again with the same identity."""
    APP_HWM = "app_hwm"
    """They arrived, but the application's receive queue was full."""
    TOO_LONG = "too_long"
    """They arrived, with messages over ``max_msg_size`` or ``max_parts``; only those are lost."""
    MALFORMED = "malformed"
    """They arrived, but what they carry follows no framing, or is a fragment out of place."""

    @property
    def counts_messages(self) -> bool:
        """True if ``Lost.count`` counts messages instead of packets."""
        return self in (LossReason.APP_HWM, LossReason.TOO_LONG, LossReason.MALFORMED)


@dataclass(slots=True)
class Lost:
    """Packets of one source that were not delivered and never will be.

    Messages that lie in them, wholly or in part, are missing whole; no part of one is delivered.
    With ``app_hwm``, ``too_long`` and ``malformed`` the packets came and ``count`` messages are
    missing: they lie in the range, and others in it may have been delivered.
    """

    tsi: str
    """The source: 12 hex digits of GSI, a dot, the data-source port."""
    first: int
    """First lost packet number."""
    last: int
    """Last lost packet number."""
    count: int
    """Packets in the range; with ``app_hwm``, ``too_long`` and ``malformed``, messages dropped."""
    reason: LossReason
    """Why."""


@dataclass(slots=True)
class PeerJoined:
    """A source was heard for the first time; its stream starts here."""

    tsi: str
    """The source: 12 hex digits of GSI, a dot, the data-source port."""
    address: str
    """The IP address it sends from."""
    first: int
    """Packet number from which on everything is delivered or reported lost."""


@dataclass(slots=True)
class PeerLeft:
    """A source ended; its stream is over."""

    tsi: str
    """The source: 12 hex digits of GSI, a dot, the data-source port."""
    reason: str
    """``finished`` (it said so), ``reset`` (it gave up) or ``expired`` (silence)."""
    last: int
    """Last packet number known to exist."""
    tail_unknown: bool
    """True if it may have sent more than ``last``, which nobody here can know."""


@dataclass(slots=True)
class PeerRestarted:
    """A source came back with the same identity and new numbers; a new stream starts here."""

    tsi: str
    """The source: 12 hex digits of GSI, a dot, the data-source port."""
    first: int
    """Packet number from which on everything is delivered or reported lost."""


@dataclass(slots=True)
class PeerQuiet:
    """Nothing of a source comes any more although its SPMs are due; its stream goes on.

    It was stopped, or the network no longer carries the group here. Told once for each silence:
    after ``peer_quiet_ns`` of the profile (3 s, three ambient SPMs; ``libzmq``: 90 s) or three
    times the longest pause that this source made between two SPMs, whichever is more, 90 s at
    most. Not where ``peer_expiry`` is shorter: then it has left. Ours; RFC 3208 has none.
    """

    tsi: str
    """The source: 12 hex digits of GSI, a dot, the data-source port."""
    silent_s: float
    """Seconds since its last packet."""


@dataclass(slots=True)
class PeerHeard:
    """A source that was quiet is heard again, and its stream goes on where it was."""

    tsi: str
    """The source: 12 hex digits of GSI, a dot, the data-source port."""
    silent_s: float
    """Seconds that nothing came."""


@dataclass(slots=True)
class RepairsLimited:
    """What this subscriber misses of a source has come late for a while.

    Of 16 requests in a row that were served, each 50 ms after the one before or later, not one
    brought all that it named within 50 ms (or ``nak_rdata_ivl_ns`` of the profile, where that is
    more). Either the source has used up its ``repair_share``, or it is far away, or so much is lost
    that hardly a repair arrives at the first try, or one of both ends is short of processor time.
    What is missing when the window moves on or ``repair_deadline`` is over will be lost. Told every
    10 s at most. Ours; RFC 3208 has none.
    """

    tsi: str
    """The source: 12 hex digits of GSI, a dot, the data-source port."""
    wait_s: float
    """Seconds from the request to its last repair, of the quickest of the 16."""


Event = Lost | PeerJoined | PeerLeft | PeerRestarted | PeerQuiet | PeerHeard | RepairsLimited
"""Whatever ``Socket.events`` may hand out."""
