"""The throttle: down when receivers cannot follow, up again after it, never for chance losses."""

from __future__ import annotations

from math import inf

import pytest

from mcast.kernel import TokenBucket
from mcast.pgm.throttle import TICK_NS, Throttle

PACKET_BYTES = 1000
START_NS = 10**12


class Sending:
    """A source that sends ``per_tick`` packets a tick through the throttle."""

    def __init__(self, rate: float = inf, min_rate: float = 1e6) -> None:
        self.bucket = TokenBucket(rate, 100_000)
        self.throttle = Throttle(self.bucket, rate, min_rate, 100_000)
        self.now_ns = START_NS
        self.packets = 0
        self.throttle.tick(self.now_ns, 0, 0)

    def send(self, packets: int, *, asked: int = 0, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.now_ns += TICK_NS
            self.packets += packets
            total = self.packets, self.packets * PACKET_BYTES
            if asked:
                self.throttle.note(self.now_ns, asked, *total)
            self.throttle.tick(self.now_ns, *total)


def test_losses_by_chance_do_not_slow_the_publisher_down() -> None:
    sending = Sending()
    sending.send(1000, asked=10, ticks=100)
    assert sending.throttle.is_full
    assert sending.throttle.cut_count == 0


def test_an_unlimited_rate_falls_below_what_was_sent_when_it_was_too_much() -> None:
    sending = Sending()
    sending.send(1000, ticks=10)
    sending.send(1000, asked=300)
    sent_bits_per_s = 1000 * PACKET_BYTES * 8 * 1e9 / TICK_NS
    assert sending.throttle.rate == pytest.approx(0.7 * sent_bits_per_s)
    assert sending.bucket.available_bytes(sending.now_ns) < inf


def test_losses_of_one_time_slow_it_down_once() -> None:
    sending = Sending()
    sending.send(1000, ticks=10)
    sending.send(1000, asked=300, ticks=4)
    assert sending.throttle.cut_count == 1


def test_requests_for_what_was_sent_at_the_old_rate_do_not_count_against_the_new_one() -> None:
    sending = Sending()
    sending.send(1000, ticks=10)
    sending.send(5, asked=10, ticks=4)
    assert sending.throttle.cut_count == 0


def test_it_falls_again_while_losses_go_on_but_never_below_the_minimum() -> None:
    sending = Sending(rate=1e9, min_rate=5e8)
    sending.send(1000, asked=300, ticks=100)
    assert sending.throttle.cut_count > 5
    assert sending.throttle.rate == 5e8


@pytest.mark.parametrize("rate", [1e9, inf])
def test_without_losses_it_gets_back_to_the_full_rate(rate: float) -> None:
    sending = Sending(rate=rate)
    sending.send(1000, asked=300)
    assert not sending.throttle.is_full
    sending.send(1000, ticks=600)
    assert sending.throttle.is_full
    assert sending.throttle.rate == rate
    assert (sending.bucket.available_bytes(sending.now_ns) == inf) == (rate == inf)


def test_it_does_not_grow_before_the_losses_of_the_old_rate_are_over() -> None:
    sending = Sending()
    sending.send(1000, asked=300)
    cut = sending.throttle.rate
    sending.send(1000, ticks=4)
    assert sending.throttle.rate == cut
    sending.send(1000, ticks=2)
    assert sending.throttle.rate > cut
