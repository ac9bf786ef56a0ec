"""The queue to the application: order, limits, and losses that add up. No sockets, no threads."""

from __future__ import annotations

import pytest

import mcast
from mcast.events import LossReason, Lost, PeerJoined, PeerLeft
from mcast.pgm import Messages
from mcast.runtime import queues
from mcast.runtime.queues import EVENT_LIMIT, ReceiveQueue

TSI, OTHER = "0102030405ff.7", "0102030405ff.8"


def batch(first: int, count: int, tsi: str = TSI) -> Messages:
    """A message in each of ``count`` packets."""
    return Messages(tsi, [b"%d" % n for n in range(first, first + count)], first, first + count - 1)


def gap(first: int, last: int) -> Lost:
    return Lost(TSI, first, last, last - first + 1, LossReason.WINDOW_ADVANCED)


def taken(queue: ReceiveQueue, limit: int = 1000) -> list[int]:
    return [int(message) for message in queue.get_many(limit, 0) if isinstance(message, bytes)]


def events(queue: ReceiveQueue) -> list[mcast.Event]:
    found = []
    while (event := queue.take_event()) is not None:
        found.append(event)
    return found


def make(hwm: int = 100, *, raise_on_loss: bool = False) -> ReceiveQueue:
    return ReceiveQueue(hwm, raise_on_loss=raise_on_loss)


def test_messages_come_out_in_the_order_they_went_in() -> None:
    queue = make()
    queue.put([batch(0, 5), batch(5, 5)])
    queue.put([batch(10, 5)])
    assert len(queue) == 15
    assert taken(queue, 7) == list(range(7))
    assert taken(queue) == list(range(7, 15))
    assert not queue.is_ready()
    with pytest.raises(mcast.Again):
        queue.get_many(1, 0)


def test_events_come_apart_from_messages() -> None:
    queue = make()
    joined = PeerJoined(TSI, "127.0.0.1", 0)
    queue.put([joined, batch(0, 2), gap(2, 3), batch(4, 1)])
    assert queue.has_events()
    assert events(queue) == [joined, gap(2, 3)]
    assert not queue.has_events()
    assert taken(queue) == [0, 1, 4]


def test_with_raise_a_loss_comes_between_the_messages_around_it() -> None:
    queue = make(raise_on_loss=True)
    queue.put([batch(0, 2), gap(2, 3), batch(4, 1)])
    assert taken(queue) == [0, 1]
    with pytest.raises(mcast.LossError) as caught:
        queue.get_many(10, 0)
    assert (caught.value.first, caught.value.last, caught.value.count) == (2, 3, 2)
    assert caught.value.reason == "window_advanced"
    assert taken(queue) == [4]
    assert events(queue) == [gap(2, 3)]


def test_a_full_queue_keeps_the_oldest_and_counts_the_others() -> None:
    queue = make(hwm=3)
    queue.put([batch(0, 5)])
    queue.put([batch(5, 2)])
    assert taken(queue) == [0, 1, 2]
    assert queue.refused_count == 4
    assert events(queue) == [Lost(TSI, 0, 6, 4, LossReason.APP_HWM)]


def test_an_overrun_is_one_event_until_somebody_looks() -> None:
    queue = make(hwm=1)
    queue.put([batch(0, 3)])
    assert events(queue) == [Lost(TSI, 0, 2, 2, LossReason.APP_HWM)]
    queue.put([batch(3, 3)])
    queue.put([batch(6, 3)])
    assert events(queue) == [Lost(TSI, 3, 8, 6, LossReason.APP_HWM)]


def test_overruns_of_two_sources_are_told_apart() -> None:
    queue = make(hwm=1)
    queue.put([batch(0, 1), batch(1, 1), batch(0, 2, OTHER), batch(2, 1)])
    found = [(event.tsi, event.count) for event in events(queue) if isinstance(event, Lost)]
    assert found == [(TSI, 2), (OTHER, 2)]
    assert queue.refused_count == 4


def test_overruns_that_alternate_push_no_other_event_out() -> None:
    queue = make(hwm=1, raise_on_loss=True)
    queue.put([PeerLeft(TSI, "expired", 0, True)])
    for number in range(20_000):
        queue.put([batch(number, 1, TSI if number % 2 else OTHER)])
    kinds = [type(event) for event in events(queue)]
    assert kinds == [PeerLeft, Lost, Lost]
    assert len(queue) <= 1 + EVENT_LIMIT


def test_with_raise_a_growing_overrun_is_raised_once_with_all_it_has_become() -> None:
    queue = make(hwm=2, raise_on_loss=True)
    queue.put([batch(0, 3)])
    queue.put([batch(3, 3)])
    assert taken(queue) == [0, 1]
    with pytest.raises(mcast.LossError) as caught:
        queue.get_many(10, 0)
    assert (caught.value.first, caught.value.last, caught.value.count) == (0, 5, 4)
    assert "4 messages" in str(caught.value)


def test_with_raise_an_overrun_that_was_raised_does_not_grow_any_more() -> None:
    queue = make(hwm=1, raise_on_loss=True)
    queue.put([batch(0, 3)])
    assert taken(queue) == [0]
    with pytest.raises(mcast.LossError) as caught:
        queue.get_many(10, 0)
    first = caught.value
    queue.put([batch(3, 3)])
    assert first.count == 2
    assert taken(queue) == [3]
    with pytest.raises(mcast.LossError) as caught:
        queue.get_many(10, 0)
    assert caught.value.count == 2
    assert queue.refused_count == 4


def test_with_raise_messages_after_an_overrun_begin_a_new_one() -> None:
    queue = make(hwm=3, raise_on_loss=True)
    queue.put([batch(0, 5)])  # 0 1 2, the error, and room again for some
    assert taken(queue, 3) == [0, 1, 2]
    queue.put([batch(5, 4)])
    counts, numbers = [], []
    while queue.is_ready():
        try:
            numbers += taken(queue)
        except mcast.LossError as error:
            counts.append(error.count)
    assert numbers == [5, 6]  # the error took one place
    assert counts == [2, 2]


def test_a_loss_on_the_wire_is_never_merged_into_an_overrun() -> None:
    queue = make(hwm=1, raise_on_loss=True)
    queue.put([batch(0, 2), gap(2, 3), batch(4, 2)])
    reasons = []
    while queue.is_ready():
        try:
            taken(queue)
        except mcast.LossError as error:
            reasons.append((error.reason, error.count))
    assert reasons == [("app_hwm", 1), ("window_advanced", 2), ("app_hwm", 2)]


def test_events_nobody_takes_are_dropped_oldest_first_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queues, "EVENT_LIMIT", 3)
    queue = make()
    queue.put([gap(n, n) for n in range(0, 10, 2)])
    assert queue.events_dropped == 2
    assert [event.first for event in events(queue) if isinstance(event, Lost)] == [4, 6, 8]


def test_a_closed_queue_gives_nothing_and_makes_nobody_wait() -> None:
    queue = make()
    queue.put([batch(0, 3)])
    queue.close()
    assert len(queue) == 0
    assert queue.is_ready()
    assert queue.has_events()
    with pytest.raises(mcast.Again):
        queue.get_many(1, None)


def test_a_dead_endpoint_is_told_after_what_waited() -> None:
    queue = make()
    queue.put([batch(0, 2)])
    queue.fail(mcast.TransportError("planted"))
    assert queue.is_ready()
    assert taken(queue) == [0, 1]
    for _ in range(2):
        with pytest.raises(mcast.TransportError, match="planted"):
            queue.get_many(1, None)


def test_putting_wakes_who_waits_for_messages_and_who_waits_for_events() -> None:
    queue = make()
    woken: list[str] = []
    queue.waiters.add(lambda: woken.append("messages"))
    queue.event_waiters.add(lambda: woken.append("events"))
    queue.put([gap(0, 1)])
    assert sorted(woken) == ["events", "messages"]


def test_the_limit_may_be_changed_while_messages_wait() -> None:
    queue = make(hwm=10)
    queue.put([batch(0, 10)])
    queue.hwm = 5
    queue.put([batch(10, 1)])
    assert taken(queue) == list(range(10))
    assert queue.refused_count == 1
