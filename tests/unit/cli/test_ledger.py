"""The demonstration's judge: it closes for what is right, and finds every planted fault."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.cli.ledger import HEAD_BYTES, Fault, Ledger, Plant, payload, planted

pytestmark = pytest.mark.kernel_independent

TOTAL = 10
RUN = 7


def message(counter: int, *, incarnation: int = RUN, stream: int = 0, size: int = 64) -> bytes:
    return payload(incarnation, stream, counter, size)


def all_messages() -> list[bytes]:
    return [message(counter) for counter in range(TOTAL)]


def judged(messages: Iterable[bytes | None]) -> Ledger:
    """The closed ledger of a stream, in which None is a loss that was reported."""
    ledger = Ledger(RUN, 0, TOTAL)
    for item in messages:
        if item is None:
            ledger.report_loss()
        else:
            ledger.deliver(item)
    ledger.close()
    return ledger


@given(st.integers(HEAD_BYTES, 2000), st.integers(0, 2**64 - 1))
def test_payload_has_the_size_that_was_asked_and_is_intact(size: int, counter: int) -> None:
    data = payload(RUN, 0, counter, size)
    assert len(data) == size
    ledger = Ledger(RUN, 0, 2**64)
    ledger.deliver(data)
    assert Fault.CORRUPT not in ledger.faults


def test_complete_stream_closes_the_ledger() -> None:
    ledger = judged(all_messages())
    assert ledger.is_closed
    assert (ledger.delivered, ledger.lost) == (TOTAL, 0)


def test_ledger_is_open_until_it_is_closed_or_complete() -> None:
    ledger = Ledger(RUN, 0, TOTAL)
    for data in all_messages()[:-1]:
        ledger.deliver(data)
    assert not ledger.is_complete
    assert not ledger.is_closed
    ledger.deliver(message(TOTAL - 1))
    assert ledger.is_complete


@pytest.mark.parametrize("gap", [range(3, 5), range(3), range(7, TOTAL), range(TOTAL)])
def test_gap_that_is_reported_at_its_place_closes_the_ledger(gap: range) -> None:
    stream: list[bytes | None] = [*all_messages()]
    stream[gap.start : gap.stop] = [None]
    ledger = judged(stream)
    assert ledger.is_closed
    assert (ledger.delivered, ledger.lost) == (TOTAL - len(gap), len(gap))


def test_two_reports_may_tell_of_one_gap() -> None:
    stream: list[bytes | None] = [*all_messages()]
    stream[3:5] = [None, None]
    assert judged(stream).is_closed


@pytest.mark.parametrize("gap", [range(3, 5), range(3), range(7, TOTAL), range(TOTAL)])
def test_gap_without_a_word_leaves_the_ledger_open(gap: range) -> None:
    stream = all_messages()
    del stream[gap.start : gap.stop]
    ledger = judged(stream)
    assert not ledger.is_closed
    assert ledger.faults == {Fault.SILENT: len(gap)}


def test_gap_that_is_reported_elsewhere_is_found_twice() -> None:
    ledger = judged([message(0), None, *all_messages()[1:5], *all_messages()[6:]])
    assert ledger.faults == {Fault.FALSE_ALARM: 1, Fault.SILENT: 1}


def test_report_without_a_gap_is_found() -> None:
    assert judged([*all_messages()[:4], None, *all_messages()[4:]]).faults == {Fault.FALSE_ALARM: 1}


def test_report_behind_the_last_message_is_found() -> None:
    assert judged([*all_messages(), None]).faults == {Fault.FALSE_ALARM: 1}


def test_message_that_was_reported_lost_must_not_come() -> None:
    ledger = judged([*all_messages()[:3], None, *all_messages()[4:], message(3)])
    assert ledger.faults == {Fault.BOTH: 1}
    assert ledger.delivered + ledger.lost == TOTAL


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", Fault.CORRUPT),
        (message(3)[: HEAD_BYTES - 1], Fault.CORRUPT),
        (message(3)[:-1], Fault.CORRUPT),
        (message(3) + b"x", Fault.CORRUPT),
        (message(3, incarnation=RUN + 1), Fault.FOREIGN),
        (message(3, stream=1), Fault.FOREIGN),
        (message(TOTAL), Fault.BEYOND),
        (message(2), Fault.TWICE),
    ],
)
def test_message_that_does_not_belong_is_found(data: bytes, fault: Fault) -> None:
    ledger = judged([*all_messages()[:4], data, *all_messages()[4:]])
    assert ledger.faults == {fault: 1}
    assert not ledger.is_closed


@given(st.integers(0, 64 * 8 - 1))
def test_any_flipped_bit_is_found(bit: int) -> None:
    data = bytearray(message(5))
    data[bit // 8] ^= 1 << bit % 8
    ledger = judged([*all_messages()[:5], bytes(data), *all_messages()[6:]])
    assert ledger.faults == {Fault.CORRUPT: 1, Fault.SILENT: 1}


PLANTED = {
    Plant.SKIP: {Fault.SILENT: 1},
    Plant.REPEAT: {Fault.TWICE: 1},
    Plant.SWAP: {Fault.SILENT: 1, Fault.ORDER: 1},
    Plant.CORRUPT: {Fault.CORRUPT: 1, Fault.SILENT: 1},
    Plant.COUNTER: {Fault.SILENT: 1, Fault.TWICE: 1},
}


@pytest.mark.parametrize("plant", Plant)
def test_planted_fault_is_found(plant: Plant) -> None:
    ledger = judged(planted(all_messages(), plant, TOTAL // 2))
    assert ledger.faults == PLANTED[plant]
    assert not ledger.is_closed


@pytest.mark.parametrize("plant", Plant)
def test_plant_changes_nothing_where_its_message_is_not(plant: Plant) -> None:
    assert list(planted(all_messages(), plant, TOTAL)) == all_messages()
