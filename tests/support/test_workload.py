"""The ledger must be able to fail: each planted fault is found, and nothing else is."""

from __future__ import annotations

import pytest

from tests.support.workload import HEADER, Ledger, Workload, identify

pytestmark = pytest.mark.kernel_independent

COUNT = 1500


def _account(order: list[int], workload: Workload | None = None) -> dict[str, object]:
    workload = workload or Workload(1)
    ledger = Ledger(workload)
    for counter in order:
        ledger.deliver(workload.message(counter))
    return ledger.summary(COUNT)


def test_a_perfect_run_closes_the_ledger() -> None:
    account = _account(list(range(COUNT)))
    assert account["received"] == COUNT
    assert account["missing"] == account["duplicates"] == account["corrupt"] == 0
    assert account["reordered"] == 0


def test_the_mixed_workload_has_the_sizes_it_promises() -> None:
    workload = Workload(1)
    messages = [workload.message(counter) for counter in range(COUNT)]
    totals = [sum(map(len, parts)) for parts in messages]
    assert min(totals) == 1
    assert max(totals) == 100 * 1024
    assert {len(parts) for parts in messages} == {1, 2, 3, 4, 5}
    assert 800 < sum(totals) / COUNT < 2500
    assert any(b"" in parts for parts in messages)


def test_two_processes_make_the_same_message_and_other_seeds_another() -> None:
    assert Workload(5).message(33) == Workload(5).message(33)
    assert Workload(5).message(33) != Workload(6).message(33)
    assert Workload(5, stream=1).message(33) != Workload(5).message(33)


def test_a_lost_range_is_missing_exactly() -> None:
    account = _account([*range(200), *range(260, COUNT)])
    assert account["missing"] == 60
    assert account["received"] == COUNT - 60
    assert account["corrupt"] == account["duplicates"] == account["reordered"] == 0


def test_a_lost_tail_is_missing() -> None:
    assert _account(list(range(COUNT - 10)))["missing"] == 10


def test_a_message_delivered_twice_is_a_duplicate() -> None:
    workload = Workload(1, shape="single")
    account = _account([*range(100), 50, *range(100, COUNT)], workload)
    assert account["duplicates"] == 1
    assert account["missing"] == 0


def test_two_swapped_messages_are_reordered() -> None:
    workload = Workload(1, shape="single")
    account = _account([*range(100), 101, 100, *range(102, COUNT)], workload)
    assert account["reordered"] == 1
    assert account["missing"] == 0


def test_a_flipped_byte_is_corrupt_and_missing() -> None:
    workload = Workload(1, shape="fixed:256")
    ledger = Ledger(workload)
    for counter in range(COUNT):
        parts = workload.message(counter)
        if counter == 700:
            parts[0] = parts[0][:-1] + bytes([parts[0][-1] ^ 1])
        ledger.deliver(parts)
    account = ledger.summary(COUNT)
    assert account["corrupt"] == 1
    assert account["missing"] == 1


def test_two_messages_spliced_into_one_are_corrupt() -> None:
    workload = Workload(1, shape="fixed:256")
    ledger = Ledger(workload)
    ledger.deliver(workload.message(0) + workload.message(1))
    assert ledger.summary()["corrupt"] == 1


def test_a_splice_of_two_incarnations_is_corrupt() -> None:
    old, new = (Workload(1, shape="fixed:256", incarnation=number) for number in (1, 2))
    ledger = Ledger(old)
    ledger.deliver([old.message(3)[0][:128] + new.message(3)[0][128:]])
    assert ledger.summary()["corrupt"] == 1


def test_streams_are_kept_apart() -> None:
    first, second = (Workload(1, shape="single", stream=number) for number in (1, 2))
    ledger = Ledger(first)
    for counter in range(20):
        ledger.deliver(first.message(counter))
        if counter != 10:
            ledger.deliver(second.message(counter))
    assert ledger.received(stream=1) == 20
    assert ledger.received(stream=2) == 19
    assert ledger.next_counter(stream=2) == 20
    assert ledger.summary()["missing"] == 1


def test_a_headed_message_says_who_it_is() -> None:
    workload = Workload(1, shape="fixed:256", stream=3, incarnation=9)
    assert identify(workload.message(77)) == (9, 3, 77)
    assert identify([b"x" * (HEADER.size - 1)]) is None
