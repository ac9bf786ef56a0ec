"""For users' tests: the fixtures ``mcast_net`` and ``mcast_capture``, the option ``--mcast-seed``.

Not loaded by itself, since importing mcast costs every run of pytest some time: ask for it with
``pytest_plugins = ["mcast.testing.pytest_plugin"]`` in the top ``conftest.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcast.testing.capture_fixtures import mcast_capture
from mcast.testing.network import Network

__all__ = ["mcast_capture", "mcast_net", "pytest_addoption", "pytest_report_header"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--mcast-seed``."""
    parser.getgroup("mcast").addoption(
        "--mcast-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the simulated networks of the fixture mcast_net (default 0)",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Name the seed, so that a run can be made again."""
    return f"mcast seed: {config.getoption('--mcast-seed')}"


@pytest.fixture
def mcast_net(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A ``Network`` with the seed of ``--mcast-seed``; after the test every account must close.

    Time passes only in ``run``. The laws are checked all the time; when the test is over the
    network heals, ten seconds pass, and all that was sent has to be delivered or reported lost.
    Raises ``Violation``.
    """
    network = Network(request.config.getoption("--mcast-seed"))
    yield network
    network.heal()
    network.run(10)
    network.check()
