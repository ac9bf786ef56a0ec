"""Twenty mistakes that the simulator must find: each changes what the engines do, and nothing else.

A simulator that finds none of them proves nothing. ``PLANTS`` names each with what it stands for;
the test prints after how many seeds it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from math import inf

import pytest
from _pytest.mark.structures import ParameterSet

from mcast.events import LossReason, Lost
from mcast.pgm import Messages, engine, receiver, source
from mcast.pgm.engine import PgmEngine
from mcast.pgm.nak import GapList
from mcast.pgm.packet import build_ncf, build_spm
from mcast.pgm.receiver import Receiver
from mcast.pgm.repair import RepairQueue
from mcast.pgm.source import Source
from mcast.pgm.sqn import extend

Plant = Callable[[pytest.MonkeyPatch], None]


def numbers_stop_at_the_wrap(patch: pytest.MonkeyPatch) -> None:
    def bad(sqn: int, near: int) -> int:
        found = extend(sqn, near)
        return found - (1 << 32) if near < 1 << 32 <= found else found

    patch.setattr(receiver, "extend", bad)
    patch.setattr(source, "extend", bad)


def repairs_are_of_the_next_packet(patch: pytest.MonkeyPatch) -> None:
    good = RepairQueue.next_run

    def bad(self, now_ns, limit):
        return [sqn + 1 for sqn in good(self, now_ns, limit)]

    patch.setattr(RepairQueue, "next_run", bad)


def no_holdoff(patch: pytest.MonkeyPatch) -> None:
    good = RepairQueue.ask

    def bad(self, sqns, now_ns):
        self._accepted_ns.clear()
        return good(self, sqns, now_ns)

    patch.setattr(RepairQueue, "ask", bad)


def repairs_have_no_budget(patch: pytest.MonkeyPatch) -> None:
    good = RepairQueue.__init__

    def bad(self, rate, burst, holdoff_ns):
        good(self, inf, burst, holdoff_ns)

    patch.setattr(RepairQueue, "__init__", bad)


def data_has_no_pace(patch: pytest.MonkeyPatch) -> None:
    good = Source.__init__

    def bad(self, **named):
        good(self, **named)
        self._bucket.set_rate(inf, 1 << 30)

    patch.setattr(Source, "__init__", bad)


def an_spm_gives_up_too_soon(patch: pytest.MonkeyPatch) -> None:
    def bad(tsi, dport, sqn, trail, lead, nla, *, fin=False):
        return build_spm(tsi, dport, sqn, min(trail + 1, lead), lead, nla, fin=fin)

    patch.setattr(source, "build_spm", bad)


def nobody_ever_asks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Receiver, "_request_repairs", lambda self, now_ns: None)


def an_spm_says_nothing_of_the_lead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Receiver, "_take_window", lambda self, now_ns, body: None)


def an_spm_names_what_was_not_sent(patch: pytest.MonkeyPatch) -> None:
    def bad(tsi, dport, sqn, trail, lead, nla, *, fin=False):
        return build_spm(tsi, dport, sqn, trail, lead + 1, nla, fin=fin)

    patch.setattr(source, "build_spm", bad)


def an_ncf_names_one_too_many(patch: pytest.MonkeyPatch) -> None:
    def bad(tsi, dport, sqns, source_nla, group_nla):
        return build_ncf(tsi, dport, [*sqns, sqns[-1] + 1][:63], source_nla, group_nla)

    patch.setattr(source, "build_ncf", bad)


def losses_are_kept_quiet(patch: pytest.MonkeyPatch) -> None:
    good = PgmEngine.take_events

    def bad(self):
        return [event for event in good(self) if not isinstance(event, Lost)]

    patch.setattr(PgmEngine, "take_events", bad)


def a_loss_ends_one_too_early(patch: pytest.MonkeyPatch) -> None:
    def bad(tsi, first, last, count, reason):
        if count > 1 and not reason.counts_messages:
            last, count = last - 1, count - 1
        return Lost(tsi, first, last, count, reason)

    patch.setattr(receiver, "Lost", bad)


def every_loss_is_said_to_be_a_deadline(patch: pytest.MonkeyPatch) -> None:
    def bad(tsi, first, last, count, reason):
        if reason is LossReason.WINDOW_ADVANCED:
            reason = LossReason.REPAIR_DEADLINE
        return Lost(tsi, first, last, count, reason)

    patch.setattr(receiver, "Lost", bad)


def gaps_are_given_up_in_half_the_time(patch: pytest.MonkeyPatch) -> None:
    good = GapList.__init__

    def bad(self, window, timers, dice):
        half_ns = timers.repair_deadline_ns // 2
        good(self, window, replace(timers, repair_deadline_ns=half_ns), dice)

    patch.setattr(GapList, "__init__", bad)


def batches_come_backwards(patch: pytest.MonkeyPatch) -> None:
    good = PgmEngine.take_events

    def bad(self):
        events = good(self)
        for event in events:
            if isinstance(event, Messages):
                event.messages.reverse()
        return events

    patch.setattr(PgmEngine, "take_events", bad)


def a_restart_goes_unnoticed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(receiver, "_RESTART_EVIDENCE", 1 << 62)


def a_heartbeat_is_never_done(patch: pytest.MonkeyPatch) -> None:
    good = Source._schedule_heartbeat

    def bad(self, now_ns):
        before = self._due[source._Timer.HEARTBEAT]
        good(self, now_ns)
        if before <= now_ns:
            self._due[source._Timer.HEARTBEAT] = before

    patch.setattr(Source, "_schedule_heartbeat", bad)


def the_window_forgets_too_soon(patch: pytest.MonkeyPatch) -> None:
    good = Source.__init__

    def bad(self, **named):
        good(self, **named)
        self._recovery_ns //= 2

    patch.setattr(Source, "__init__", bad)


def sources_that_left_are_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PgmEngine, "_forget", lambda self, key: None)


def what_cannot_be_read_raises(patch: pytest.MonkeyPatch) -> None:
    good = engine.parse_untrusted

    def bad(packet):
        try:
            return good(packet)
        except Exception as error:
            raise ValueError("not to be read") from error

    patch.setattr(engine, "parse_untrusted", bad)


PLANTS: tuple[Plant, ...] = (
    numbers_stop_at_the_wrap,
    repairs_are_of_the_next_packet,
    no_holdoff,
    repairs_have_no_budget,
    data_has_no_pace,
    an_spm_gives_up_too_soon,
    nobody_ever_asks,
    an_spm_says_nothing_of_the_lead,
    an_spm_names_what_was_not_sent,
    an_ncf_names_one_too_many,
    losses_are_kept_quiet,
    a_loss_ends_one_too_early,
    every_loss_is_said_to_be_a_deadline,
    gaps_are_given_up_in_half_the_time,
    batches_come_backwards,
    a_restart_goes_unnoticed,
    a_heartbeat_is_never_done,
    the_window_forgets_too_soon,
    sources_that_left_are_kept,
    what_cannot_be_read_raises,
)
"""All of them."""


def each_plant(plants: Iterable[Plant], well_hidden: Container[Plant]) -> list[ParameterSet]:
    """To parametrize a test: each by its name, the well hidden marked slow."""
    return [
        pytest.param(
            plant, id=plant.__name__, marks=[pytest.mark.slow] if plant in well_hidden else []
        )
        for plant in plants
    ]
