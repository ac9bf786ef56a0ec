"""The exception tree: what is what, and what each error carries."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

import mcast
from mcast import errors

pytestmark = pytest.mark.kernel_independent

BASES: dict[str, tuple[type[BaseException], ...]] = {
    "Again": (mcast.Error, TimeoutError),
    "ClosedError": (mcast.Error,),
    "ForkedError": (mcast.ClosedError,),
    "LossError": (mcast.Error,),
    "MessageTooLongError": (mcast.Error, ValueError),
    "OptionError": (mcast.Error, ValueError),
    "EndpointError": (mcast.Error, ValueError),
    "InterfaceError": (mcast.EndpointError,),
    "PatternError": (mcast.Error,),
    "TransportError": (mcast.Error, OSError),
    "UnroutableError": (mcast.PatternError,),
}


@pytest.mark.parametrize("name", BASES)
def test_each_error_has_the_bases_that_its_users_catch(name: str) -> None:
    assert getattr(mcast, name).__bases__ == BASES[name]


def test_every_error_is_in_the_table_and_in_the_tree_of_the_docstring() -> None:
    defined = {name for name in errors.__all__ if name != "Error"}
    assert defined == set(BASES)
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn == defined


def test_the_base_catches_everything_and_is_no_other_exception() -> None:
    assert mcast.Error.__bases__ == (Exception,)
    assert all(issubclass(getattr(mcast, name), mcast.Error) for name in BASES)


def test_a_loss_error_carries_the_fields_of_the_event_and_shows_them() -> None:
    error = mcast.LossError("0102030405ff.7", 10, 19, 10, "window_advanced")
    assert (error.tsi, error.first, error.last) == ("0102030405ff.7", 10, 19)
    assert (error.count, error.reason) == (10, "window_advanced")
    for part in ("0102030405ff.7", "10", "19", "window_advanced"):
        assert part in str(error)


def test_a_loss_error_survives_copying_and_pickling() -> None:
    error = mcast.LossError("0102030405ff.7", 10, 19, 10, "window_advanced")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert vars(other) == vars(error)
        assert str(other) == str(error)


def test_a_transport_error_has_the_system_s_number() -> None:
    error = mcast.TransportError(13, "Permission denied")
    assert error.errno == 13
