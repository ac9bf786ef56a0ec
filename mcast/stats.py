"""Counters: what was sent, received, repaired, lost, and every reason for which a packet dropped.

Names follow the PGM MIB where it has one, in snake case. Counters only grow; ``snapshot`` makes a
plain dict of them that can be subtracted, printed or sent as JSON.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from math import log

__all__ = ["Histogram", "PgmCounters", "Snapshot"]

Snapshot = dict[str, int | float]
"""Counters by name."""


class Histogram:
    """Durations in buckets 5 % apart, from 10 us up: enough to read percentiles from.

    Memory is fixed (about 320 integers). Not thread-safe.
    """

    __slots__ = ("_counts", "_total")

    _FLOOR_NS = 10_000
    _GROWTH = 1.05
    _BUCKET_COUNT = 320  # up to 60 s

    def __init__(self) -> None:
        self._counts = [0] * self._BUCKET_COUNT
        self._total = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        bucket = 0
        if duration_ns > self._FLOOR_NS:
            bucket = min(
                int(log(duration_ns / self._FLOOR_NS) / log(self._GROWTH)), self._BUCKET_COUNT - 1
            )
        self._counts[bucket] += 1
        self._total += 1

    def percentile_s(self, percent: float) -> float:
        """The duration in seconds that ``percent`` of all do not exceed; 0 if there are none.

        Right to 5 %, rounded up to the edge of a bucket.
        """
        wanted = self._total * percent / 100
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return float(self._FLOOR_NS * self._GROWTH ** (bucket + 1) / 1e9)
        return 0.0

    def __len__(self) -> int:
        return self._total


@dataclass(slots=True)
class PgmCounters:
    """One endpoint's counters, source and receiver side. Owned by its engine."""

    spms_sent: int = 0
    """SPMs sent, of every kind."""
    ncfs_sent: int = 0
    """NCF packets sent."""
    naks_received: int = 0
    """NAK packets that asked this source."""
    nak_sqns_received: int = 0
    """Numbers that they asked for."""
    naks_ignored: int = 0
    """Numbers asked for again within the hold-off, or already queued."""
    naks_outside_window: int = 0
    """Numbers asked for that the window no longer, or not yet, held: repairs denied."""
    naks_relayed: int = 0
    """NAKs for another publisher on this host that were passed on to the group."""
    rdata_sent: int = 0
    """Repair packets sent."""
    rdata_bytes_sent: int = 0
    """Bytes of repair packets, PGM header included."""
    odata_sent: int = 0
    """Original data packets sent."""
    odata_bytes_sent: int = 0
    """Bytes of original data packets, PGM header included."""
    spmrs_received: int = 0
    """Requests for an SPM."""
    nnaks_received: int = 0
    """NNAKs, which inform and ask nothing."""

    spms_received: int = 0
    """SPMs accepted."""
    ncfs_received: int = 0
    """NCF packets of a known source."""
    naks_sent: int = 0
    """NAK packets sent."""
    nak_sqns_sent: int = 0
    """Numbers asked for."""
    naks_withheld: int = 0
    """NAKs not sent because the endpoint's budget of them was used up; asked again later."""
    naks_suppressed: int = 0
    """NAKs of other receivers that did for ours."""
    spmrs_sent: int = 0
    """Requests for an SPM sent."""
    polls_ignored: int = 0
    """POLL and POLR packets, which end systems here do not answer."""
    repaired: int = 0
    """Missing packets that came after all."""
    lost: int = 0
    """Packets reported lost."""
    fragments_dropped: int = 0
    """OPT_FRAGMENT packets out of place or over a limit."""
    rxw_full: int = 0
    """Early packets dropped because the receive window was full; they are repaired later."""
    peers_refused: int = 0
    """Packets of sources beyond ``max_peers``."""
    peers_expelled: int = 0
    """Sources that lost their place to another: heard once only, or silent with ``max_peers``."""
    implausible: int = 0
    """Packets whose numbers lie too far off to be believed at once."""
    nla_mismatches: int = 0
    """SPMs whose path NLA is not where they came from; that address is never used."""
    spms_stale: int = 0
    """SPMs whose number did not advance."""
    after_end: int = 0
    """Data packets of a source whose stream had ended."""
    dropped_for_test: int = 0
    """Packets thrown away by ``drop_rate``."""
    malformed: Counter[str] = field(default_factory=Counter)
    """Packets dropped by the parser, by reason."""

    def snapshot(self) -> Snapshot:
        """All of it as a flat dict; the parser's reasons as ``malformed_REASON``."""
        counts: Snapshot = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name != "malformed"
        }
        counts["malformed"] = self.malformed.total()
        counts |= {f"malformed_{reason}": n for reason, n in sorted(self.malformed.items())}
        return counts
