"""Plain multicast datagrams, without PGM: sent at a pace, received, counted and verified.

What the commands ``mcast send``, ``dump``, ``join``, ``scout``, ``record`` and ``replay`` are made
of, for programs::

    (group,) = parse_groups("239.192.1.1:5000", interface="lo")
    with Receiver([group]) as receiver:
        for arrival in receiver.receive(timeout_s=1.0):
            print(arrival.source, bytes(arrival.data))
"""

from __future__ import annotations

from mcast.raw.groups import MOST_GROUPS, group_of_url, parse_groups
from mcast.raw.numbered import HEAD_BYTES, Stamp, number_into, stamp_of_untrusted
from mcast.raw.pace import Pace
from mcast.raw.receiver import Arrival, Receiver
from mcast.raw.record import Recorder
from mcast.raw.replay import Replay, TimingError, paced, planned_datagrams
from mcast.raw.sender import Sender
from mcast.raw.verify import Stream, Verifier

__all__ = [
    "HEAD_BYTES",
    "MOST_GROUPS",
    "Arrival",
    "Pace",
    "Receiver",
    "Recorder",
    "Replay",
    "Sender",
    "Stamp",
    "Stream",
    "TimingError",
    "Verifier",
    "group_of_url",
    "number_into",
    "paced",
    "parse_groups",
    "planned_datagrams",
    "stamp_of_untrusted",
]
