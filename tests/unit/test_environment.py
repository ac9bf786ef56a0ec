"""``MCAST_LOSS``: loss by seed for any process that uses mcast."""

from __future__ import annotations

import pytest

import mcast
from mcast.options import environment_options

pytestmark = pytest.mark.kernel_independent


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("10%", {"drop_rate": 0.1, "drop_seed": 0}),
        ("10%,seed=1", {"drop_rate": 0.1, "drop_seed": 1}),
        ("0.5%,seed=77", {"drop_rate": 0.005, "drop_seed": 77}),
    ],
)
def test_forms_are_read(
    text: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCAST_LOSS", text)
    assert environment_options() == options


@pytest.mark.parametrize("text", ["10", "0.1", "95%", "10%,1", "10%,seed=x", "-1%", "ten%"])
def test_other_forms_are_refused_where_the_context_is_made(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCAST_LOSS", text)
    with pytest.raises(mcast.OptionError, match="MCAST_LOSS is 0% to 90%"):
        mcast.Context()


def test_sockets_get_it_unless_the_program_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCAST_LOSS", "10%,seed=3")
    with mcast.Context() as context:
        assert context.socket(mcast.SUB).drop_rate == 0.1
        assert context.socket(mcast.SUB).drop_seed == 3
        assert context.socket(mcast.SUB, drop_rate=0.0).drop_rate == 0
    with mcast.Context(drop_rate=0.2) as context:
        assert context.socket(mcast.SUB).drop_rate == 0.2
