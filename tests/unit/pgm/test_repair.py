"""The queue of repairs alone: hold-off, memory, runs, budget, and what the trail passes."""

from __future__ import annotations

import pytest

from mcast.kernel import TokenBucket
from mcast.pgm.repair import RepairQueue

BYTE_PER_NS = 8e9
BURST_BYTES = 100
HOLDOFF_NS = 1000
MEMORY = 1 << 16
ALL = 1 << 20


def queue() -> RepairQueue:
    return RepairQueue(BYTE_PER_NS, BURST_BYTES, HOLDOFF_NS)


def test_a_number_is_taken_again_when_the_hold_off_after_its_repair_is_over() -> None:
    one = queue()
    assert one.ask([5, 6], 0) == [5, 6]
    assert one.ask([5, 7], 1) == [7]
    one.sent([5, 6], 10, 10)
    assert one.ask([5, 6], 10 + HOLDOFF_NS - 1) == []
    assert one.ask([5, 6], 10 + HOLDOFF_NS) == [5, 6]


def test_the_hold_off_begins_with_the_request_where_nothing_was_sent() -> None:
    one = queue()
    one.ask([5], 0)
    one.forget_below(6)
    assert one.ask([5], HOLDOFF_NS - 1) == []
    assert one.ask([5], HOLDOFF_NS) == [5]


def test_the_oldest_request_is_forgotten_first_and_not_before_the_memory_is_full() -> None:
    one = queue()
    one.ask(range(MEMORY), 0)
    one.forget_below(MEMORY)
    assert len(one) == 0
    assert one.ask([0, MEMORY - 1], 1) == []
    assert one.ask([MEMORY], 1) == [MEMORY]
    assert one.ask([MEMORY - 1, 1], 2) == []
    assert one.ask([0], 2) == [0]


@pytest.mark.parametrize(
    ("asked", "limit", "run"),
    [
        ([5], ALL, [5]),
        ([5, 6, 7], ALL, [5, 6, 7]),
        ([5, 6, 7], 2, [5, 6]),
        ([5, 7, 8], ALL, [5, 7, 8]),
        ([9, 5, 6], ALL, [9, 5, 6]),
    ],
)
def test_a_run_is_of_what_was_asked_for_first(asked: list[int], limit: int, run: list[int]) -> None:
    one = queue()
    one.ask(asked, 0)
    assert one.next_run(0, limit) == run
    assert one.next_run(0, limit) == run  # until it was sent


def test_a_run_has_nothing_that_the_trail_has_passed() -> None:
    one = queue()
    one.ask(range(40, 100), 0)
    one.ask([3, 100, 4], 0)
    one.forget_below(40)
    one.sent(range(40, 98), 10, 0)
    assert one.next_run(1000, 3) == [98, 99, 100]


def test_only_what_was_sent_leaves_the_queue() -> None:
    one = queue()
    one.ask([5, 6, 7], 0)
    one.sent([5, 6], 10, 0)
    assert one.next_run(0, ALL) == [7]
    one.sent([7], 10, 0)
    assert one.next_run(0, ALL) == []
    assert len(one) == 0


def test_nothing_is_sent_while_the_budget_is_used_up() -> None:
    one, bucket = queue(), TokenBucket(BYTE_PER_NS, BURST_BYTES)
    assert one.next_timeout_ns() is None
    one.ask([5, 6], 0)
    now_ns = 10_000
    one.sent([5], BURST_BYTES, now_ns)
    bucket.spend(now_ns, BURST_BYTES)
    assert one.next_run(now_ns, ALL) == []
    assert one.next_run(now_ns + 1, ALL) == [6]
    assert one.next_timeout_ns() == bucket.ready_at_ns(1) < bucket.ready_at_ns(2)


@pytest.mark.parametrize(
    ("count", "moved", "left"),
    [
        (32, 1, 32),  # a sweep waits until the trail has moved by a sixteenth of the queue
        (32, 2, 30),
        (33, 1, 33),
        (40, 2, 38),
    ],
)
def test_what_the_trail_has_passed_is_swept_out_now_and_then(
    count: int, moved: int, left: int
) -> None:
    one = queue()
    one.forget_below(100)
    one.ask(range(100, 100 + count), 0)
    one.forget_below(100 + moved)
    assert len(one) == left
    assert one.next_run(0, 1) == [100 + moved]
    assert len(one) == count - moved
