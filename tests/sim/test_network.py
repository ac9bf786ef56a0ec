"""The simulated network by hand: what it does to packets, and that its laws are kept."""

from __future__ import annotations

import pytest

from mcast.events import LossReason, Lost, PeerLeft
from mcast.pgm.packet import NAK, NCF, ODATA, RDATA, SPM
from mcast.testing import Law, Network, Publisher, Subscriber, Violation
from tests.support.figures import figure

WRAP = 1 << 32


def pair(seed: int = 1, **options: object) -> tuple[Network, Publisher, Subscriber]:
    network = Network(seed)
    publisher = network.publisher(**options)  # type: ignore[arg-type]
    subscriber = network.subscriber()
    network.run(0.1)
    return network, publisher, subscriber


def publish(network: Network, publisher: Publisher, count: int, pause_s: float = 0.001) -> None:
    for n in range(count):
        publisher.send(b"%05d" % n)
        network.run(pause_s)


@pytest.mark.parametrize("uses_intake", [False, True])
def test_without_faults_everything_arrives_after_the_delay(uses_intake: bool) -> None:
    network, publisher, subscriber = pair()
    subscriber.uses_intake = uses_intake
    publisher.send(b"a", (b"b", b"c"))
    network.run(0.000_099)
    assert subscriber.messages == []
    network.run(0.01)
    assert subscriber.messages == [b"a", (b"b", b"c")]
    network.check()


@pytest.mark.parametrize("side", ["inbound", "outbound"])
def test_thirty_percent_loss_is_all_repaired(side: str) -> None:
    network, publisher, subscriber = pair(initial_sqn=WRAP - 100)
    getattr(subscriber, side).loss = 0.3
    subscriber.inbound.loss = 0.3
    publish(network, publisher, 300)
    network.run(5)
    network.check()
    assert len(subscriber.messages) == 300
    assert publisher.stream.repair_count > 50


@pytest.mark.parametrize("kind", [SPM, NCF, RDATA, NAK], ids=["SPM", "NCF", "RDATA", "NAK"])
def test_one_type_can_be_lost_alone(kind: int) -> None:
    network, publisher, subscriber = pair()
    subscriber.inbound.loss_by_type[ODATA] = 0.2
    (subscriber.outbound if kind == NAK else subscriber.inbound).loss_by_type[kind] = 1.0
    publish(network, publisher, 100)
    network.run(6)
    subscriber.inbound.loss_by_type.clear()  # the next SPM tells of the last of them
    network.run(2)
    lost = subscriber.lost_count
    assert (lost > 0) == (kind in (RDATA, NAK))
    assert len(subscriber.messages) + lost == 100
    network.check()


def test_faults_on_both_sides_work_on_what_is_left_of_a_packet() -> None:
    network, publisher, subscriber = pair()
    publisher.outbound.truncate = subscriber.inbound.truncate = 0.5
    subscriber.inbound.corrupt = 0.5
    subscriber.inbound.loss_by_type[SPM] = 0.5
    publish(network, publisher, 100)
    network.heal()
    network.run(2)
    assert len(subscriber.messages) == 100
    network.check()


def test_a_cut_is_one_way_and_ends() -> None:
    network, publisher, subscriber = pair()
    network.cut(publisher, subscriber)
    publish(network, publisher, 10)
    assert subscriber.messages == []
    network.join(publisher, subscriber)
    network.run(0.5)
    assert len(subscriber.messages) == 10


def test_what_a_sleeper_has_no_room_for_is_repaired() -> None:
    network, publisher, subscriber = pair()
    subscriber.rcvbuf_bytes = 10_000
    subscriber.pause()
    publish(network, publisher, 100)
    assert subscriber.overflow_count > 50
    subscriber.resume()
    network.run(1)
    assert len(subscriber.messages) == 100
    network.check()


def test_a_sleep_longer_than_the_window_is_an_exact_loss() -> None:
    network, publisher, subscriber = pair(recovery_ivl=0.05)
    subscriber.rcvbuf_bytes = 3_000
    publisher.send(b"first")
    network.run(0.01)
    subscriber.pause()
    publish(network, publisher, 300)
    subscriber.resume()
    network.run(1)
    losses = [event for event in subscriber.events if isinstance(event, Lost)]
    assert {loss.reason for loss in losses} == {LossReason.WINDOW_ADVANCED}
    assert len(subscriber.messages) + subscriber.lost_count == 301
    network.check()


def test_a_clock_that_jumps_an_hour_ends_streams_and_makes_no_storm() -> None:
    network, publisher, subscriber = pair()
    publish(network, publisher, 10)
    subscriber.inbound.loss = 1.0
    publish(network, publisher, 10)
    subscriber.inbound.loss = 0.0
    subscriber.jump(3_600 * 10**9)
    network.run(1.5)
    assert [e.reason for e in subscriber.events if isinstance(e, PeerLeft)] == ["expired"]
    naks = subscriber.engine.counters.naks_sent
    figure(
        "26", f"an hour passes at once in a gap: {naks} NAKs (bar 100), one PeerLeft, then goes on"
    )
    assert naks <= 100
    publisher.send(b"after")
    network.run(0.1)
    assert subscriber.messages[-1] == b"after"


def test_a_publisher_that_crashes_and_starts_again_is_never_spliced() -> None:
    network, publisher, subscriber = pair()
    for life in range(20):
        publish(network, publisher, 5)
        network.run(0.3)
        publisher.crash()
        network.run(0.2)
        publisher.start(publisher.stream.tsi if life % 2 else network.new_tsi())
        network.run(0.5)
    network.check()
    assert len(subscriber.messages) == 100
    assert subscriber.ledger.restarted == 10


def test_the_ledger_finds_a_message_that_is_withheld() -> None:
    network, publisher, subscriber = pair()
    take = subscriber._take

    def drop(event: object) -> None:
        if getattr(event, "messages", None) and b"00005" in event.messages:  # type: ignore[attr-defined]
            return
        take(event)  # type: ignore[arg-type]

    subscriber._take = drop  # type: ignore[method-assign, assignment]
    with pytest.raises(Violation) as caught:
        publish(network, publisher, 10)
    assert caught.value.law is Law.LEDGER


def test_an_error_in_an_engine_is_a_violation_that_names_the_host() -> None:
    network, publisher, subscriber = pair()
    subscriber.engine.handle_datagrams = None  # type: ignore[method-assign, assignment]
    with pytest.raises(Violation, match=r"L8: sub1: TypeError"):
        publish(network, publisher, 1)


def test_the_plugin_gives_tests_a_network_that_is_checked_after_them(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest('pytest_plugins = ["mcast.testing.pytest_plugin"]')
    pytester.makepyfile(
        """
        def test_good(mcast_net):
            publisher, subscriber = mcast_net.publisher(), mcast_net.subscriber()
            subscriber.inbound.loss = 0.2
            mcast_net.run(0.1)
            publisher.send(*[b"%d" % n for n in range(100)])
            mcast_net.run(2)
            assert len(subscriber.messages) == 100

        def test_bad(mcast_net):
            publisher, subscriber = mcast_net.publisher(), mcast_net.subscriber()
            mcast_net.run(0.1)
            subscriber.ledger.accounts.clear()
            publisher.send(b"nobody expects it")
        """
    )
    result = pytester.runpytest("--mcast-seed", "7")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["mcast seed: 7", "*Violation: L4*"])
