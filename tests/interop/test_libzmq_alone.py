"""libzmq to libzmq in the laboratory: what the incumbent does, and which settings make it lose.

These tests need no mcast. They are the ground the interop tests stand on: with a window that holds
the whole backlog a libzmq pair loses nothing at 10 % each way, so a loss there is a fault of ours;
and they show by the settings alone when libzmq itself loses.
"""

from __future__ import annotations

import pytest

from tests.netlab import lab_or_skip
from tests.support.transfer import libzmq_peer, transfer

pytestmark = [pytest.mark.interop, pytest.mark.namespace, pytest.mark.kernel_independent]

QUICK_COUNT = 2_000


@pytest.mark.parametrize("loss_percent", [0, 10])
def test_a_libzmq_pair_with_a_wide_window_loses_nothing(
    libzmq_python: str, loss_percent: int
) -> None:
    peer = libzmq_peer(libzmq_python)
    with lab_or_skip(2) as lab:
        account = transfer(
            lab, peer, [(lab.hosts[1], peer)], count=QUICK_COUNT, loss_percent=loss_percent
        )
    print(account.report(f"libzmq to libzmq at {loss_percent} %"))
    assert not account.complaints()
    assert (sum(account.dropped) > 0) == (loss_percent > 0)


def test_a_libzmq_receiver_loses_when_its_own_window_is_small(libzmq_python: str) -> None:
    # The default RATE and RECOVERY_IVL, 100 kbit/s x 10 s: 80 packets of 1500 bytes.
    narrow = libzmq_peer(libzmq_python, "--rate-kbit", "100", "--recovery-ms", "10000")
    narrow = narrow.with_options("--idle", "3")
    with lab_or_skip(2) as lab:
        account = transfer(
            lab,
            libzmq_peer(libzmq_python),
            [(lab.hosts[1], narrow)],
            count=QUICK_COUNT,
            loss_percent=10,
        )
    print(account.report("libzmq receiver with an 80-packet window at 10 %"))
    assert account.complaints(), "the window was not the limit"
