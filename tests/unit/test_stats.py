"""Counters and histograms: what they add up to, and how exact a percentile is."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.stats import Histogram, PgmCounters

US, MS, S = 1_000, 1_000_000, 1_000_000_000


def test_an_empty_histogram_has_no_percentiles() -> None:
    assert Histogram().percentile_s(99) == 0.0
    assert len(Histogram()) == 0


@pytest.mark.parametrize("duration_ns", [11 * US, MS, 15 * MS, 200 * MS, 5 * S, 50 * S])
def test_one_duration_is_every_percentile_to_five_percent(duration_ns: int) -> None:
    histogram = Histogram()
    histogram.add(duration_ns)
    for percent in (1, 50, 99, 100):
        value = histogram.percentile_s(percent)
        assert duration_ns / S <= value * 1.000001
        assert value <= duration_ns / S * 1.0501


@given(st.lists(st.integers(10 * US, 50 * S), min_size=1), st.integers(1, 100))
def test_a_percentile_is_within_five_percent_above_the_exact_one(
    durations_ns: list[int], percent: int
) -> None:
    histogram = Histogram()
    for duration_ns in durations_ns:
        histogram.add(duration_ns)
    wanted = -(-len(durations_ns) * percent // 100)
    exact = sorted(durations_ns)[wanted - 1] / S
    assert exact * 0.999999 <= histogram.percentile_s(percent) <= exact * 1.0501
    assert len(histogram) == len(durations_ns)


@pytest.mark.parametrize("duration_ns", [-5 * S, -1, 0, 1, 9_999, 10_000])
def test_the_shortest_are_counted_in_the_first_bucket(duration_ns: int) -> None:
    histogram = Histogram()
    histogram.add(duration_ns)
    assert histogram.percentile_s(50) == pytest.approx(10.5e-6)


def test_the_longest_are_counted_in_the_last_bucket() -> None:
    histogram = Histogram()
    histogram.add(10**15)
    assert 50 < histogram.percentile_s(50) < 100


def test_counters_start_at_zero_and_appear_in_the_snapshot() -> None:
    counters = PgmCounters()
    snapshot = counters.snapshot()
    assert set(snapshot) == {field.name for field in fields(counters)}
    assert set(snapshot.values()) == {0}


def test_parser_reasons_are_counted_one_by_one_and_together() -> None:
    counters = PgmCounters()
    counters.malformed["checksum"] += 3
    counters.malformed["option"] += 1
    snapshot = counters.snapshot()
    assert snapshot["malformed"] == 4
    assert (snapshot["malformed_checksum"], snapshot["malformed_option"]) == (3, 1)


def test_a_snapshot_stays_as_it_was() -> None:
    counters = PgmCounters()
    before = counters.snapshot()
    counters.naks_sent += 5
    counters.malformed["type"] += 1
    assert before["naks_sent"] == before["malformed"] == 0
    after = counters.snapshot()
    assert {name: after[name] - before.get(name, 0) for name in after if after[name]} == {
        "naks_sent": 5,
        "malformed": 1,
        "malformed_type": 1,
    }


def test_a_snapshot_is_plain_enough_for_json() -> None:
    counters = PgmCounters()
    counters.malformed["checksum"] += 1
    assert json.loads(json.dumps(counters.snapshot())) == counters.snapshot()
