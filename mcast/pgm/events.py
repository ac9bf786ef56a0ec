"""What an engine hands to its shell: datagrams to send, and messages in stream order.

The events that users see are in ``mcast.events``; they come in the same stream as ``Messages``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mcast.events import Event
from mcast.kernel import Buffer, Message

__all__ = ["GROUP", "EngineEvent", "Messages", "Transmit"]

GROUP = b""
"""The destination of a ``Transmit`` that goes to the multicast group."""


@dataclass(slots=True)
class Messages:
    """Whole messages of one source, in order: one event for each source and call."""

    tsi: str
    """The source: 12 hex digits of GSI, a dot, the data-source port."""
    messages: list[Message]
    """Each is ``bytes``, or a tuple of parts. The list belongs to whoever takes the event."""
    first: int
    """Packet number from which on this batch was decoded."""
    last: int
    """Packet number up to which it was decoded."""


EngineEvent = Messages | Event
"""Whatever ``PgmEngine.take_events`` may hand out."""


class Transmit(NamedTuple):
    """One system call's worth of datagrams.

    A view into the transmit window stays right until the window has moved once round; the shell
    sends it, or keeps it and sends it first next time.
    """

    destination: bytes
    """Packed IP address, or ``GROUP``. The UDP port is always the endpoint's."""
    data: Buffer
    """One packet or a run of them."""
    segment_bytes: int
    """Size of each packet of the run; the last may be shorter."""
    hops: int = -1
    """Time to live if it differs from the socket's, else -1."""
