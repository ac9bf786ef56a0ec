"""The options' checks, and that each socket type has those it should."""

from __future__ import annotations

from typing import Any

import pytest

from mcast.errors import OptionError
from mcast.patterns.options import (
    ConflatingOptions,
    DealerOptions,
    PubOptions,
    QueueOptions,
    RadioOptions,
    ReqOptions,
    RouterOptions,
    SubOptions,
    XpubOptions,
    XsubOptions,
)

pytestmark = pytest.mark.kernel_independent


@pytest.mark.parametrize(
    ("options", "name", "low", "high"),
    [
        (QueueOptions, "sndhwm", 0, 10**9),
        (QueueOptions, "rcvhwm", 0, 10**9),
        (RouterOptions, "router_notify", 0, 3),
        (PubOptions, "max_topic_bytes", 1, 1 << 20),
        (RadioOptions, "max_subscription_count", 1, 10**7),
        (XpubOptions, "max_subscription_bytes", 1, 1 << 30),
    ],
)
def test_numbers_have_a_range(options: Any, name: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(options(**{name: value}), name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(OptionError, match=f"{name} is {low} to {high}, not {value}"):
            options(**{name: value})
    for wrong in (1.0, "1", None, True):
        with pytest.raises(OptionError, match=f"{name} is a whole number"):
            options(**{name: wrong})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (QueueOptions, "immediate"),
        (ConflatingOptions, "conflate"),
        (DealerOptions, "probe_router"),
        (ReqOptions, "req_relaxed"),
        (ReqOptions, "req_correlate"),
        (RouterOptions, "router_mandatory"),
        (RouterOptions, "router_handover"),
        (RadioOptions, "xpub_nodrop"),
        (PubOptions, "invert_matching"),
        (XpubOptions, "xpub_verbose"),
        (XpubOptions, "xpub_verboser"),
        (XpubOptions, "xpub_manual"),
        (XpubOptions, "xpub_manual_last_value"),
        (XpubOptions, "only_first_subscribe"),
        (SubOptions, "invert_matching"),
        (XsubOptions, "xsub_verbose_unsubscribe"),
        (XsubOptions, "only_first_subscribe"),
    ],
)
def test_switches_are_off_and_take_only_true_and_false(options: Any, name: str) -> None:
    assert getattr(options(), name) is False
    assert getattr(options(**{name: True}), name) is True
    with pytest.raises(OptionError, match=f"{name} is True or False, not 1"):
        options(**{name: 1})


@pytest.mark.parametrize("options", [DealerOptions, ReqOptions, RouterOptions])
def test_routing_ids_are_checked(options: Any) -> None:
    assert options(routing_id=b"x" * 255).own_routing_id == b"x" * 255
    for wrong in (b"x" * 256, b"\0x"):
        with pytest.raises(OptionError, match="routing_id is up to 255 bytes"):
            options(routing_id=wrong)
    with pytest.raises(OptionError, match="routing_id is bytes, not 'x'"):
        options(routing_id="x")


def test_queues_hold_a_thousand_messages_as_in_libzmq() -> None:
    assert (QueueOptions().sndhwm, QueueOptions().rcvhwm) == (1000, 1000)


@pytest.mark.parametrize("options", [ConflatingOptions, DealerOptions, PubOptions, SubOptions])
def test_those_that_can_conflate_do_if_told(options: Any) -> None:
    assert options(conflate=True).conflates
    assert not options().conflates
    assert not QueueOptions().conflates


def test_either_manual_mode_is_manual() -> None:
    assert XpubOptions(xpub_manual=True).is_manual
    assert XpubOptions(xpub_manual_last_value=True).is_manual
    assert not XpubOptions().is_manual
