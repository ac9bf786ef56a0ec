"""For tests: a simulated network with real engines inside, seeded faults, and checked promises.

Shipped with the package and never imported by it. ``Network`` is where to start; ``run_seed``
makes a whole run of many faults out of one number, as ``tools/simulate`` does.
"""

from __future__ import annotations

from mcast.testing.captured import (
    CapturedSession,
    assert_no_gaps,
    assert_repaired,
    read_session,
)
from mcast.testing.conditions import Conditions
from mcast.testing.hosts import Host, Publisher, Subscriber
from mcast.testing.laws import Law, Violation
from mcast.testing.ledger import Ledger
from mcast.testing.network import Network
from mcast.testing.simulation import Result, run_seed, shrink
from mcast.testing.stream import Stream

__all__ = [
    "CapturedSession",
    "Conditions",
    "Host",
    "Law",
    "Ledger",
    "Network",
    "Publisher",
    "Result",
    "Stream",
    "Subscriber",
    "Violation",
    "assert_no_gaps",
    "assert_repaired",
    "read_session",
    "run_seed",
    "shrink",
]
