"""Which PGM streams are heard: who sends them, how much, and whether packets are missing.

Owns the list of streams, by group, source address and TSI; pure: bytes and the time are arguments.
It takes no part in the protocol. Invariant: bytes from the network raise nothing and fill no
memory: what is no PGM packet, or of more streams than ``MOST_STREAMS``, is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from mcast.capture.numbers import Numbers
from mcast.pgm.packet import (
    NAK,
    NNAK,
    ODATA,
    RDATA,
    SPM,
    TYPE_NAMES,
    Data,
    PacketError,
    Spm,
    parse_untrusted,
    tsi_of,
    tsi_text,
)

__all__ = ["MOST_STREAMS", "Census", "HeardStream"]

MOST_STREAMS: Final = 4096
"""Streams followed at once; some 2 KiB each."""
_UPSTREAM: Final = frozenset({NAK, NNAK, 0x0C, 0x02, 0x0D})  # SPMR, POLR, ACK
_WRAP: Final = 1 << 32


@dataclass(slots=True)
class HeardStream:
    """What was heard of one source's stream."""

    place: int
    """Which group, as the caller numbers them."""
    source: str
    """The publisher's address."""
    tsi: str
    """The stream's name: GSI and source port."""
    packet_count: int = 0
    """Packets from the publisher."""
    byte_count: int = 0
    """Their UDP payload."""
    types: Counter[str] = field(default_factory=Counter)
    """Those packets by type."""
    trail: int = 0
    """Where its window begins, by the latest SPM or data."""
    lead: int = 0
    """Where its window ends, by the latest SPM."""
    numbers: Numbers | None = None
    """The account of its data packets; None before the first one."""
    is_leaving: bool = False
    """True once it said that it ends (OPT_FIN)."""
    first_ns: int = 0
    """When it was first heard."""
    last_ns: int = 0
    """When it was last heard."""

    @property
    def lost_count(self) -> int:
        """Data packets that were sent, by their numbers, and neither heard nor repaired since."""
        return 0 if self.numbers is None else self.numbers.lost_count


class Census:
    """The streams that are heard. One thread."""

    def __init__(self) -> None:
        self.streams: dict[tuple[int, str, bytes], HeardStream] = {}
        """By (place of the group, source address, TSI)."""
        self.bad: Counter[str] = Counter()
        """Datagrams that are no PGM packet, by reason; ``streams`` for those of too many."""
        self.upstream: Counter[tuple[int, str, str]] = Counter()
        """Packets from receivers, by (place of the group, TSI, type): NAKs that were multicast."""

    def handle_datagram_untrusted(
        self, place: int, source: str, data: memoryview, now_ns: int
    ) -> None:
        """Note a datagram that came to the group ``place`` from ``source``."""
        try:
            packet = parse_untrusted(data)
        except PacketError as error:
            self.bad[error.reason] += 1
            return
        kind = packet.header.type
        tsi = tsi_of(data)
        if kind in _UPSTREAM:
            self.upstream[place, tsi_text(tsi), TYPE_NAMES[kind]] += 1
            if len(self.upstream) > MOST_STREAMS:
                self.upstream.popitem()
            return
        key = (place, source, tsi)
        found = self.streams.get(key)
        if found is None:
            if len(self.streams) >= MOST_STREAMS:
                self.bad["streams"] += 1
                return
            found = self.streams[key] = HeardStream(place, source, tsi_text(tsi), first_ns=now_ns)
        found.last_ns = now_ns
        found.packet_count += 1
        found.byte_count += len(data)
        found.types[TYPE_NAMES[kind]] += 1
        found.is_leaving = found.is_leaving or packet.options.fin
        if kind == SPM and isinstance(packet.body, Spm):
            found.trail, found.lead = packet.body.trail, packet.body.lead
        elif kind in (ODATA, RDATA) and isinstance(packet.body, Data):
            found.trail = packet.body.trail
            _note_number(found, packet.body.sqn)


def _note_number(stream: HeardStream, sqn: int) -> None:
    """Account for a data packet; its 32-bit number is continued beyond the wrap (RFC 1982)."""
    if stream.numbers is None:
        number = sqn + _WRAP  # so that earlier ones are above 0
        stream.numbers = Numbers(number, number)
    else:
        highest = stream.numbers.highest
        number = highest + (sqn - highest + _WRAP // 2) % _WRAP - _WRAP // 2
    stream.numbers.is_new(number)
