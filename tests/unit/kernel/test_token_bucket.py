"""Token buckets: never over the rate, never slower than it, exact over years."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcast.kernel import TokenBucket

RATES = st.floats(1e4, 1e11)
BURSTS = st.integers(1_000, 1 << 20)
STEPS = st.lists(st.tuples(st.integers(0, 10_000_000), st.integers(1, 65_000)), max_size=60)


@given(RATES, BURSTS, STEPS, st.sampled_from([0, 1 << 40, 1 << 56]))
def test_no_window_of_time_holds_more_than_its_rate_and_the_burst(
    rate: float, burst: int, steps: list[tuple[int, int]], start_ns: int
) -> None:
    bucket = TokenBucket(rate, burst)
    now_ns = start_ns
    spent: list[tuple[int, int]] = []
    for wait_ns, size in steps:
        now_ns += wait_ns
        if bucket.available_bytes(now_ns) > 0:
            bucket.spend(now_ns, size)
            spent.append((now_ns, size))
    for first in range(len(spent)):
        total = 0
        for time_ns, size in spent[first:]:
            # The last one may overdraw.
            assert total <= burst + (time_ns - spent[first][0]) * rate / 8e9 + 1
            total += size


@given(RATES, BURSTS, st.integers(1, 65_000))
@settings(max_examples=50)
def test_waiting_as_told_gives_the_whole_rate(rate: float, burst: int, size: int) -> None:
    bucket = TokenBucket(rate, burst)
    now_ns, total = 0, 0
    bucket.spend(0, burst)
    for _ in range(200):
        now_ns = max(now_ns, bucket.ready_at_ns(1))
        assert bucket.available_bytes(now_ns) > 0
        bucket.spend(now_ns, size)
        total += size
    ideal_ns = total * 8e9 / rate
    assert now_ns <= ideal_ns + 400
    assert now_ns >= ideal_ns - size * 8e9 / rate - 400


@given(RATES, BURSTS, st.integers(1, 1 << 21), st.integers(0, 1 << 50))
def test_ready_means_ready(rate: float, burst: int, size: int, now_ns: int) -> None:
    bucket = TokenBucket(rate, burst)
    bucket.spend(now_ns, 3 * burst)
    ready_ns = bucket.ready_at_ns(size)
    assert bucket.available_bytes(ready_ns) >= min(size, burst) * 0.999 - 1
    assert bucket.available_bytes(now_ns) < 0


def test_a_bucket_fills_no_further_than_its_burst() -> None:
    bucket = TokenBucket(8e9, 1000)
    assert bucket.available_bytes(10**18) == 1000


def test_debt_is_paid_back_by_waiting() -> None:
    bucket = TokenBucket(8e9, 1000)  # a byte a nanosecond
    bucket.spend(0, 5000)
    assert bucket.available_bytes(0) == -4000
    assert bucket.available_bytes(3000) == -1000
    assert bucket.ready_at_ns(1) == pytest.approx(4001, abs=1)


def test_an_unlimited_bucket_never_waits() -> None:
    bucket = TokenBucket(inf, 1000)
    bucket.spend(5, 1 << 40)
    assert bucket.available_bytes(5) == inf
    assert bucket.ready_at_ns(1 << 30) <= 6


def test_a_new_rate_holds_from_now_on() -> None:
    bucket = TokenBucket(8e9, 1000)
    bucket.spend(1_000_000, 1000)
    bucket.set_rate(4e9, 1000)
    bucket.spend(1_000_000, 1000)
    assert bucket.ready_at_ns(1000) == 1_000_000 + 1000 + 2000 + 1
