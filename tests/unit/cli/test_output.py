"""What the subcommands write: messages, events, tables, verdicts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.cli.children import Child
from mcast.cli.demo import Outcome, verdict
from mcast.cli.demo_table import Row, plain_lines
from mcast.cli.lines import generated, split_lines
from mcast.cli.sub import as_json, as_text, event_json, event_text
from mcast.events import (
    Event,
    LossReason,
    Lost,
    PeerHeard,
    PeerJoined,
    PeerLeft,
    PeerQuiet,
    PeerRestarted,
    RepairsLimited,
)

pytestmark = pytest.mark.kernel_independent


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_lines_are_the_same_however_stdin_is_cut(chunks: list[bytes]) -> None:
    lines: list[bytes] = []
    rest = b""
    for chunk in chunks:
        new, rest = split_lines(rest, chunk)
        lines += new
    assert [*lines, rest] == b"".join(chunks).split(b"\n")


@pytest.mark.parametrize(("count", "size"), [(1, 64), (1000, 64), (257, 5), (12, 1), (3, 0)])
def test_generated_messages_have_their_number_and_size(count: int, size: int) -> None:
    messages = [data for batch in generated(count, size) for data in batch]
    assert [len(data) for data in messages] == [size] * count
    if size >= 5:
        assert [int(data.split()[0].rstrip(b".")) for data in messages] == list(range(count))


def test_message_as_text_is_a_line_with_tabs_between_parts() -> None:
    assert as_text([b"AAPL", b"\xff", b""]) == b"AAPL\t\xff\t\n"


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
def test_message_as_json_is_one_line_and_loses_nothing(parts: list[bytes]) -> None:
    import base64

    line = as_json(parts)
    assert line.count(b"\n") == 1
    found = json.loads(line)["parts"]
    assert parts == [
        part.encode() if isinstance(part, str) else base64.b64decode(part["base64"])
        for part in found
    ]


EVENTS: list[tuple[Event, str]] = [
    (
        Lost("ab.1", 5, 9, 5, LossReason.WINDOW_ADVANCED),
        "lost 5 packets of ab.1, packets 5 to 9: window_advanced",
    ),
    (
        Lost("ab.1", 5, 9, 1234, LossReason.APP_HWM),
        "lost 1,234 messages of ab.1, packets 5 to 9: app_hwm",
    ),
    (PeerJoined("ab.1", "10.0.0.1", 7), "ab.1 joined at 10.0.0.1, from packet 7"),
    (PeerRestarted("ab.1", 0), "ab.1 restarted, from packet 0"),
    (PeerQuiet("ab.1", 3.04), "ab.1 is quiet: nothing for 3.0 s although SPMs are due"),
    (
        RepairsLimited("ab.1", 0.251),
        "ab.1 is slow to repair what is missing here: 0.25 s at best",
    ),
    (PeerHeard("ab.1", 5.26), "ab.1 is heard again after 5.3 s"),
    (PeerLeft("ab.1", "finished", 9, False), "ab.1 left (finished) after packet 9"),
    (
        PeerLeft("ab.1", "expired", 9, True),
        "ab.1 left (expired) after packet 9, perhaps not its end",
    ),
]


@pytest.mark.parametrize(("event", "text"), EVENTS)
def test_event_is_told_in_words(event: Event, text: str) -> None:
    assert event_text(event) == text


@pytest.mark.parametrize("event", [event for event, _ in EVENTS])
def test_event_as_json_has_its_name_and_fields(event: Event) -> None:
    found = json.loads(event_json(event))
    assert found.pop("event") == type(event).__name__
    assert type(event)(**found) == event


def test_table_is_aligned_whatever_is_in_it() -> None:
    rows = [
        Row("publisher", 200_000, None, 6235, None, 5042, 12_406.4),
        Row("subscriber 1", None, 199_999, 0, 1, 12_345, 0.0),
    ]
    head, *lines = plain_lines(16.12, rows)
    assert head.split() == [
        *["16.1", "s", "process", "sent", "received", "repaired", "lost", "NAKs", "messages/s"],
    ]
    assert {len(line) for line in (head, *lines)} == {len(head)}
    assert lines[0].split() == ["publisher", "200,000", "6,235", "5,042", "12,406"]
    assert lines[1].split() == ["subscriber", "1", "199,999", "0", "1", "12,345", "0"]


def child(name: str, **report: Any) -> Child:
    """A child that has ended after this report."""
    made = Child.__new__(Child)
    made.plan = cast("Any", SimpleNamespace(name=name))
    made.report = report
    return made


def closed(number: int, **report: Any) -> Child:
    good: dict[str, Any] = {
        "done": True,
        "is_closed": True,
        "received": 100,
        "lost": 0,
        "repaired": 4,
        "faults": {},
        "repair_p50_s": 0.0086,
        "repair_p99_s": 0.01 * number,
    }
    return child(f"subscriber {number}", **(good | report))


def outcome(*subscribers: Child, failures: tuple[str, ...] = (), why: str | None = None) -> Outcome:
    return Outcome(child("publisher", done=True), list(subscribers), 1.0, list(failures), why)


def test_verdict_of_a_good_run_counts_everything_and_ends_with_0() -> None:
    assert verdict(outcome(closed(1), closed(2), closed(3)), 100) == (
        "every ledger closed: 3 x 100 delivered, 0 lost, 12 repaired, repair p50 8.6 ms p99 30 ms",
        0,
    )


def test_verdict_without_repairs_has_no_percentiles() -> None:
    line, status = verdict(outcome(closed(1, repaired=0)), 100)
    assert (line, status) == ("every ledger closed: 1 x 100 delivered, 0 lost, 0 repaired", 0)


def test_verdict_of_a_reported_loss_is_closed_but_ends_with_1() -> None:
    line, status = verdict(outcome(closed(1), closed(2, received=90, lost=10)), 100)
    assert line.startswith("every ledger closed: of 2 x 100, 190 delivered, 10 lost")
    assert status == 1


def test_verdict_of_a_fault_names_subscriber_and_fault() -> None:
    bad = closed(2, is_closed=False, faults={"delivered twice": 1, "corrupt": 2})
    assert verdict(outcome(closed(1), bad), 100) == (
        "LEDGER OPEN: subscriber 2: 1 delivered twice, 2 corrupt",
        1,
    )


def test_verdict_of_an_interrupted_run_says_how_far_it_came() -> None:
    halfway = child("subscriber 1", joined=True, received=50)
    assert verdict(outcome(halfway, why="ended by a signal"), 100) == (
        "LEDGER OPEN: ended by a signal; subscriber 1 has 50 messages and is not done",
        1,
    )


def test_verdict_of_a_failed_process_ends_with_2() -> None:
    line, status = verdict(outcome(closed(1), failures=("publisher failed",)), 100)
    assert line == "LEDGER OPEN: 1 processes failed"
    assert status == 2
