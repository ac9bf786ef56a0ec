"""Damage by a seed: shares come out, order and time follow, nothing is made up."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from mcast.capture import faults
from mcast.capture.faults import Faults, Planned

pytestmark = pytest.mark.kernel_independent

COUNT = 20_000
PACKETS = [Planned(1000 * n, b"grup", 1, n.to_bytes(4, "big")) for n in range(COUNT)]


def shaped(damage: Faults, seed: int = 1) -> list[Planned]:
    return list(damage.shape(PACKETS, Random(seed)))


def numbers(packets: list[Planned]) -> list[int]:
    return [int.from_bytes(packet.payload, "big") for packet in packets]


def test_without_faults_all_leave_as_they_came() -> None:
    assert shaped(Faults()) == PACKETS


def test_same_seed_is_the_same_damage_and_another_is_not() -> None:
    damage = Faults(loss=0.1, dup=0.1, reorder=0.1, delay_ns=3000)
    assert shaped(damage, 7) == shaped(damage, 7)
    assert shaped(damage, 7) != shaped(damage, 8)


@pytest.mark.parametrize("burst", [1.0, 4.0])
def test_loss_has_its_share_and_its_length(burst: float) -> None:
    kept = numbers(shaped(Faults(loss=0.1, burst=burst)))
    runs = [after - before - 1 for before, after in pairwise(kept) if after - before > 1]
    assert len(kept) == pytest.approx(0.9 * COUNT, rel=0.03)
    # Without bursts losses are still next to each other by chance: 1 / 0.9 in a row.
    assert sum(runs) / len(runs) == pytest.approx(max(burst, 1 / 0.9), rel=0.15)


def test_copies_are_whole_and_have_their_share() -> None:
    sent = numbers(shaped(Faults(dup=0.2)))
    assert sorted(set(sent)) == list(range(COUNT))
    assert len(sent) == pytest.approx(1.2 * COUNT, rel=0.03)


def test_reordered_packets_are_overtaken_by_three() -> None:
    sent = numbers(shaped(Faults(reorder=0.05)))
    assert sorted(sent) == list(range(COUNT))
    late = [n for n, next_one in pairwise(sent) if next_one < n]
    assert 0.04 * COUNT < len(late) < 0.06 * COUNT
    shifts = [place - number for place, number in enumerate(sent)]
    assert max(shifts) == 3


def test_times_never_go_back() -> None:
    sent = shaped(Faults(loss=0.1, dup=0.2, reorder=0.2, delay_ns=10_000))
    assert all(before.at_ns <= after.at_ns for before, after in pairwise(sent))
    assert all(p.at_ns - 1000 * int.from_bytes(p.payload, "big") >= 0 for p in sent)


def test_what_is_held_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_HELD_LIMIT", 10)
    endless = (Planned(0, b"", 1, b"") for _ in iter(int, 1))
    damaged = Faults(delay_ns=10**15).shape(endless, Random(1))
    assert len([next(damaged) for _ in range(100)]) == 100
