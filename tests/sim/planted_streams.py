"""Mistakes in ZMTP and in the patterns that the simulated streams must find.

As ``planted``: each changes what the engines or patterns do, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mcast.patterns import Req, Sub, balance, base, publishers, subscribers
from mcast.patterns.base import Pattern
from mcast.patterns.publishers import Publisher
from mcast.patterns.subscriptions import SubscriptionTrie
from mcast.zmtp import engine
from mcast.zmtp.engine import GREETING_BYTES, ZmtpEngine
from mcast.zmtp.heartbeat import NEVER, Heartbeat, _Timer

Plant = Callable[[pytest.MonkeyPatch], None]


def what_comes_with_the_end_of_the_greeting_is_lost(patch: pytest.MonkeyPatch) -> None:
    good = ZmtpEngine._greet_untrusted

    def bad(self, data):
        had = len(self._greeting)
        left = good(self, data)
        return left if not had or had + len(data) <= GREETING_BYTES else b""

    patch.setattr(ZmtpEngine, "_greet_untrusted", bad)


def messages_overtake_the_subscriptions_behind_them(patch: pytest.MonkeyPatch) -> None:
    def bad(self, is_new, topic):
        if is_new:
            self._topics.add_untrusted(topic, self._events)
            self._events.insert(0, self._events.pop())

    patch.setattr(ZmtpEngine, "_change_topic_untrusted", bad)


def some_that_a_reader_got_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    good = ZmtpEngine.handle_received

    def bad(self, size_bytes, message_count, now_ns):
        good(self, size_bytes, message_count - (message_count > 3), now_ns)

    patch.setattr(ZmtpEngine, "handle_received", bad)


def the_last_of_a_batch_stays_behind(patch: pytest.MonkeyPatch) -> None:
    good = engine.encode_messages

    def bad(messages):
        return good(list(messages)[:-1] or messages)

    patch.setattr(engine, "encode_messages", bad)


def nobody_is_ever_taken_for_dead(patch: pytest.MonkeyPatch) -> None:
    good = Heartbeat.handle_timeout

    def bad(self, now_ns):
        self._due[_Timer.SILENCE] = self._due[_Timer.TTL] = NEVER
        return good(self, now_ns)

    patch.setattr(Heartbeat, "handle_timeout", bad)


def handshakes_may_take_for_ever(patch: pytest.MonkeyPatch) -> None:
    good = ZmtpEngine.__init__

    def bad(self, options, **named):
        good(self, options, **named)
        self._handshake_due_ns = NEVER

    patch.setattr(ZmtpEngine, "__init__", bad)


def a_broken_connection_takes_its_queue_along(patch: pytest.MonkeyPatch) -> None:
    good = Pattern._disconnect

    def bad(self, pipe):
        good(self, pipe)
        pipe.outbox.clear()

    patch.setattr(Pattern, "_disconnect", bad)


def a_drained_inbox_is_not_read_into_again(patch: pytest.MonkeyPatch) -> None:
    def bad(self, pipe):
        pipe.is_paused = False

    patch.setattr(Pattern, "_resume", bad)


def a_queue_taken_in_part_keeps_its_last(patch: pytest.MonkeyPatch) -> None:
    good = base.take

    def bad(queue, limit):
        batch = good(queue, limit)
        if queue:
            queue.appendleft(batch[-1])
        return batch

    patch.setattr(base, "take", bad)


def rounds_of_fair_queueing_are_read_by_peers(patch: pytest.MonkeyPatch) -> None:
    good = balance.take

    def bad(queue, count):
        taken = good(queue, count)
        return taken[::-1]

    patch.setattr(balance, "take", bad)


def who_reconnects_is_not_told_of_subscriptions(patch: pytest.MonkeyPatch) -> None:
    good = subscribers.Telling._connected

    def bad(self, pipe, peer):
        known = getattr(self, "_told", None)
        good(self, pipe, peer)
        if known is not None and pipe.number in known:
            pipe.changes = []
        self._told = {*(known or ()), pipe.number}

    patch.setattr(subscribers.Telling, "_connected", bad)


def cancelled_topics_are_remembered(patch: pytest.MonkeyPatch) -> None:
    def bad(self, pipe, topic):
        return self._trie.remove(topic, pipe)

    patch.setattr(Publisher, "_cancel", bad)


def a_topic_hides_what_is_below_it(patch: pytest.MonkeyPatch) -> None:
    good = SubscriptionTrie.match

    def bad(self, topic):
        return good(self, topic[:2])

    patch.setattr(SubscriptionTrie, "match", bad)


def any_reply_will_do(patch: pytest.MonkeyPatch) -> None:
    good = Req.handle_messages

    def bad(self, number, batch):
        for message in batch:
            if isinstance(message, tuple) and message[0]:
                self._awaited_id = message[0]
        good(self, number, batch)

    patch.setattr(Req, "handle_messages", bad)


def a_sub_believes_its_publishers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sub, "_receive", balance.FairQueued._receive)


def what_is_full_is_dropped_in_silence(patch: pytest.MonkeyPatch) -> None:
    good = publishers.Publisher._give

    def bad(self, pipes, message):
        good(self, [pipe for pipe in pipes if pipe.is_open], message)

    patch.setattr(publishers.Publisher, "_give", bad)


PLANTS: tuple[Plant, ...] = (
    what_comes_with_the_end_of_the_greeting_is_lost,
    messages_overtake_the_subscriptions_behind_them,
    some_that_a_reader_got_are_not_counted,
    the_last_of_a_batch_stays_behind,
    nobody_is_ever_taken_for_dead,
    handshakes_may_take_for_ever,
    a_broken_connection_takes_its_queue_along,
    a_drained_inbox_is_not_read_into_again,
    a_queue_taken_in_part_keeps_its_last,
    rounds_of_fair_queueing_are_read_by_peers,
    who_reconnects_is_not_told_of_subscriptions,
    cancelled_topics_are_remembered,
    a_topic_hides_what_is_below_it,
    any_reply_will_do,
    a_sub_believes_its_publishers,
    what_is_full_is_dropped_in_silence,
)
"""All of them."""
