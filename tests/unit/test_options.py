"""Options: every range at its edges, every wrong type, and the named profiles."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from math import inf, nan

import pytest

from mcast.errors import Error, OptionError
from mcast.options import _OPTIONAL, _RANGES, PROFILES, OptionValue, SocketOptions, Timers
from mcast.unicast_options import _RANGES as UNICAST_RANGES

SECONDS = ("recovery_ivl", "linger", "coalesce", "repair_deadline", "peer_expiry")


def made(name: str, value: object) -> object:
    return getattr(SocketOptions(**{name: value}), name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", _RANGES)
def test_an_option_takes_both_ends_of_its_range_and_nothing_beyond(name: str) -> None:
    low, high = _RANGES[name]
    kind = type(low) if isinstance(low, int) and isinstance(high, int) else float
    for value in (low, high):
        assert made(name, value) == value
    step = 1 if kind is int else 1e-9 + abs(low) * 1e-6
    with pytest.raises(OptionError, match=f"{name} is "):
        made(name, low - step)
    if high != inf:
        with pytest.raises(OptionError, match=f"{name} is .* to "):
            made(name, high + (1 if kind is int else high * 1e-6))


@pytest.mark.parametrize("name", _RANGES)
@pytest.mark.parametrize("value", ["1", b"1", True, [1], object(), nan])
def test_a_number_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        made(name, value)


@pytest.mark.parametrize("name", _RANGES)
def test_none_is_for_options_that_say_so(name: str) -> None:
    if name in _OPTIONAL:
        assert made(name, None) is None
    else:
        with pytest.raises(OptionError, match=name):
            made(name, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("multicast_loop", 1),
        ("multicast_loop", "yes"),
        ("profile", "wan"),
        ("profile", None),
        ("on_loss", "ignore"),
        ("sndhwm", 1.0),
    ],
)
def test_other_wrong_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        made(name, value)


def test_a_wrong_option_is_a_value_error_and_one_of_ours() -> None:
    with pytest.raises(ValueError, match="rate is 10000 to inf, not 5"):
        SocketOptions(rate=5)
    assert issubclass(OptionError, Error)


def test_every_number_has_a_range_that_holds_its_default() -> None:
    options = SocketOptions()
    ranges = {**_RANGES, **UNICAST_RANGES}
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, bool | str | bytes):
            continue
        low, high = ranges[field.name]
        assert value is None or low <= value <= high
    assert set(ranges) <= {field.name for field in fields(options)}


def test_options_never_change() -> None:
    with pytest.raises(FrozenInstanceError):
        SocketOptions().rate = 1e6  # type: ignore[misc]


def test_changes_make_a_checked_copy() -> None:
    options = SocketOptions(rate=1e6)
    changes: dict[str, OptionValue] = {"linger": 2.5, "profile": "libzmq"}
    changed = options.with_changes(changes)
    assert (changed.rate, changed.linger, changed.profile) == (1e6, 2.5, "libzmq")
    assert options.linger == 1.0
    with pytest.raises(OptionError, match="linger is 0 to 3600"):
        options.with_changes({"linger": -1})


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"unknown option lingr; known are .*linger.*"):
        SocketOptions().with_changes({"lingr": 1})


def test_positional_options_are_refused() -> None:
    with pytest.raises(TypeError):
        SocketOptions(1e6)  # type: ignore[call-arg]


def test_own_deadlines_replace_the_profiles() -> None:
    timers = SocketOptions(repair_deadline=0.25, peer_expiry=1.5, profile="libzmq").timers
    assert timers.repair_deadline_ns == 250_000_000
    assert timers.peer_expiry_ns == 1_500_000_000
    assert timers.nak_bo_ivl_ns == PROFILES["libzmq"].nak_bo_ivl_ns
    assert SocketOptions(profile="libzmq").timers == PROFILES["libzmq"]


def test_the_libzmq_profile_has_the_numbers_libzmq_gives_openpgm() -> None:
    ms = 1_000_000
    timers = PROFILES["libzmq"]
    assert timers.nak_bo_ivl_ns == 50 * ms
    assert timers.nak_group_size == 1
    assert timers.nak_rpt_ivl_ns == timers.nak_rdata_ivl_ns == 200 * ms
    assert timers.nak_ncf_retries == timers.nak_data_retries == 50
    assert timers.spm_ambient_ivl_ns == 30_000 * ms
    assert timers.spmr_ivl_ns == 25 * ms
    assert timers.peer_expiry_ns == 300_000 * ms


@pytest.mark.parametrize("timers", PROFILES.values(), ids=PROFILES.keys())
def test_a_profile_fits_together(timers: Timers) -> None:
    assert 0 < timers.nak_bo_ivl_ns < timers.nak_rpt_ivl_ns <= timers.nak_rdata_ivl_ns
    # A confirmed repair that is lost is not asked for in vain within the source's hold-off.
    assert timers.repair_holdoff_ns < timers.nak_rpt_ivl_ns
    assert timers.nak_rdata_ivl_ns * 4 < timers.repair_deadline_ns < timers.peer_expiry_ns
    assert timers.peer_expiry_ns > 2 * timers.spm_ambient_ivl_ns
    assert list(timers.spm_heartbeat_ivls_ns) == sorted(timers.spm_heartbeat_ivls_ns)
    # Heartbeats go on until the ambient SPMs take over.
    assert 0.5 < sum(timers.spm_heartbeat_ivls_ns) / timers.spm_ambient_ivl_ns < 1


def test_seconds_are_written_without_a_unit_and_times_of_engines_with_one() -> None:
    assert all(
        field.name.endswith(("_ns", "_size", "_retries")) or field.name == ("spm_heartbeat_ivls_ns")
        for field in fields(Timers)
    )
    assert set(SECONDS) <= set(_RANGES)
