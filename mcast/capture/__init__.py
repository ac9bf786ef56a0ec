"""Captures: what a file of packets says about PGM, ZMTP and RADIO/DISH; pure, no socket or clock.

``open_capture`` and ``Decoder`` read one; ``Decoder.streams`` and ``Decoder.sessions`` are the
report; ``PcapngWriter`` writes one. ``scapy_layers`` is for those who work with scapy::

    with open_capture(Path("session.pcap")) as file:
        decoder = Decoder(file, messages=True)
        for step in decoder.steps():
            if isinstance(step, Heard):
                print(step.time_ns, step.message)
    for stream in decoder.streams.values():
        print(stream.name, stream.gap_count, stream.lost_count)
"""

from __future__ import annotations

from mcast.capture.decode import Decoder, Heard, Seen
from mcast.capture.files import CaptureError, CaptureFile, Record, open_capture
from mcast.capture.sessions import Direction, Session
from mcast.capture.streams import Gap, PgmStream, Repair
from mcast.capture.write import PcapngWriter, datagram_packet

__all__ = [
    "CaptureError",
    "CaptureFile",
    "Decoder",
    "Direction",
    "Gap",
    "Heard",
    "PcapngWriter",
    "PgmStream",
    "Record",
    "Repair",
    "Seen",
    "Session",
    "datagram_packet",
    "open_capture",
]
