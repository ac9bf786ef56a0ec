"""Streams of ``mcast send`` as they are found on networks, and which of them are heavy."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

__all__ = ["HEAVY_BPS", "PRESETS", "Preset"]

HEAVY_BPS: Final = 100e6
"""From here on a stream is heavy: it fills a 100 Mbit/s link, and a switch may flood it to all."""


@dataclass(frozen=True, slots=True)
class Preset:
    """The shape of a stream."""

    size_bytes: int
    """Payload of each datagram."""
    per_second: float
    """Datagrams per second, to all groups together."""
    burst_count: int
    """Datagrams to a group that leave together."""
    about: str
    """What it is like."""


PRESETS: Final = {
    "beacon": Preset(64, 1, 1, "one small datagram a second, as without a preset"),
    "telemetry": Preset(200, 100, 1, "a sensor, 100/s"),
    "voice": Preset(172, 50, 1, "RTP with G.711, 50/s"),
    "video": Preset(1316, 760, 1, "MPEG-TS at 8 Mbit/s, 7 packets of 188 bytes each"),
    "ticks": Preset(100, 10_000, 1, "market data, 10,000/s"),
    "bursts": Preset(500, 2_000, 200, "200 at once, ten times a second"),
    "load": Preset(1472, 75_000, 1, "heavy: 900 Mbit/s of full packets"),
    "flood": Preset(1472, inf, 1, "heavy: as fast as this host can"),
}
"""By name."""
