"""The list of counters is complete, documented, and adds up."""

from __future__ import annotations

import pytest

from mcast.runtime import counters
from mcast.stats import PgmCounters, Snapshot

pytestmark = pytest.mark.kernel_independent


def test_every_counter_of_the_engine_is_in_the_list() -> None:
    assert set(PgmCounters().snapshot()) <= set(counters.ALL)


def test_no_counter_is_listed_twice() -> None:
    names = [*counters.ALL, *counters.QUEUE]
    assert len(names) == len(set(names))


def test_every_counter_beside_the_engine_s_is_described() -> None:
    described = set(counters.descriptions())
    assert described == set(counters.ALL) - set(PgmCounters().snapshot()) | set(counters.QUEUE)
    assert all(text.endswith(".") for text in counters.descriptions().values())


def test_gauges_are_counters_of_the_list() -> None:
    assert set(counters.ALL) > counters.GAUGES


def test_counters_are_summed_and_some_gauges_take_the_highest() -> None:
    totals: Snapshot = {"odata_sent": 1, "peers": 2, "repair_p99_s": 0.5, "gso": 1}
    counters.add_up(totals, {"odata_sent": 10, "peers": 3, "repair_p99_s": 0.25, "gso": 0})
    assert totals == {"odata_sent": 11, "peers": 5, "repair_p99_s": 0.5, "gso": 1}


def test_what_is_left_out_is_not_added() -> None:
    totals: Snapshot = {"odata_sent": 1, "peers": 2}
    counters.add_up(totals, {"odata_sent": 10, "peers": 3}, leave_out=counters.GAUGES)
    assert totals == {"odata_sent": 11, "peers": 2}
