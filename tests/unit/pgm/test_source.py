"""The sending end, through an engine: SPMs, pacing, packets, repairs, the window and the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcast.options import PROFILES
from mcast.pgm.packet import NCF, ODATA, RDATA, SPM, SPMR, Data
from mcast.pgm.repair import RepairQueue
from mcast.pgm.source import tsdu_bytes
from tests.unit.pgm import packets
from tests.unit.pgm.ends import (
    GROUP,
    MS,
    OTHER,
    RECEIVER,
    End,
    Publisher,
    named,
    packets_of,
    publisher,
    window,
)
from tests.unit.pgm.packets import MASK, NAK, NNAK, TSI, request

LAN = PROFILES["lan"]
FULL_PACKET = 1452  # PGM packet of a full TSDU over IPv4
IP_UDP = 28
WRAP = 1 << 32
OTHER_TSI = TSI[:6] + b"\x22\x22"


def times_ms(sent: Sequence[tuple[int, object]]) -> list[float]:
    return [time_ns / MS for time_ns, _ in sent]


def tsdus(end: End) -> list[bytes]:
    return [bytes(p.body.tsdu) for _, p in end.sent(ODATA) if isinstance(p.body, Data)]


def odata_sqns(end: End) -> list[int]:
    return [p.body.sqn for _, p in end.sent(ODATA) if isinstance(p.body, Data)]


def rdata_sqns(end: End) -> list[int]:
    return [p.body.sqn for _, p in end.sent(RDATA) if isinstance(p.body, Data)]


def ask(pub: Publisher, *sqns: int, **changes: bytes) -> None:
    pub.hear(request(NAK, *sqns, **changes), address=RECEIVER, to_group=False)  # type: ignore[arg-type]


# SPMs.


def test_a_source_starts_with_three_spms_of_an_empty_window() -> None:
    pub = publisher()
    assert times_ms(pub.sent(SPM)) == [0, 0, 0]
    assert [window(packet) for _, packet in pub.sent(SPM)] == [(0, MASK)] * 3
    assert [packet.body.sqn for _, packet in pub.sent(SPM)] == [0, 1, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("profile", "wanted_ms"),
    [
        ("lan", [20, 50, 100, 200, 400, 800]),
        ("libzmq", [100, 200, 300, 400, 500, 1_800, 8_800, 24_800]),
    ],
)
def test_heartbeats_follow_the_last_data(profile: str, wanted_ms: list[float]) -> None:
    ambient_ivl_ms = PROFILES[profile].spm_ambient_ivl_ns / MS
    pub = publisher(profile=profile, recovery_ivl=3600.0)
    pub.send_apart(b"x")
    pub.forget()
    pub.run(ambient_ivl_ms * 2.5 / 1e3)
    assert times_ms(pub.sent(SPM)) == [*wanted_ms, ambient_ivl_ms, 2 * ambient_ivl_ms]


def test_each_data_packet_starts_the_heartbeats_again() -> None:
    pub = publisher()
    pub.run(0.9)
    for _ in range(3):
        pub.send_apart(b"x")
        pub.forget()
        pub.run(0.03)
        assert len(pub.sent(SPM)) == 1


def test_ambient_spms_come_while_data_flows() -> None:
    pub = publisher()
    pub.forget()
    for _ in range(350):
        pub.send_apart(b"x")
        pub.run(0.01)
    assert times_ms(pub.sent(SPM)) == [1000, 2000, 3000]


def test_spms_tell_the_window() -> None:
    pub = publisher()
    pub.send_apart(b"a", b"b", b"c")
    pub.forget()
    pub.run(0.02)
    assert [window(packet) for _, packet in pub.sent(SPM)] == [(0, 2)]


def test_an_spmr_is_answered_at_once_and_a_flood_of_them_is_not() -> None:
    pub = publisher()
    pub.forget()
    spmr = packets.packet(SPMR, b"")
    pub.hear(spmr, address=RECEIVER)
    assert len(pub.sent(SPM)) == 1
    pub.hear(spmr, address=RECEIVER, to_group=False)  # the same request, by unicast
    assert len(pub.sent(SPM)) == 1
    for _ in range(1000):
        pub.hear(spmr, address=RECEIVER)
        pub.run(0.0001)
    assert len(pub.sent(SPM)) <= 1 + 10 + 4  # a tenth of a second, and the heartbeats in it
    assert pub.stats["spmrs_received"] == 1002


def test_an_spmr_for_another_source_is_not_answered() -> None:
    pub = publisher()
    pub.forget()
    pub.hear(packets.packet(SPMR, b"", tsi=OTHER_TSI), address=RECEIVER)
    assert pub.transmits == []


# When messages leave, and in what packets.


def test_a_lone_message_leaves_at_once() -> None:
    pub = publisher()
    pub.run(0.5)
    pub.send(b"hello")
    assert tsdus(pub) == [packets.tsdu(b"hello")]


def test_messages_that_follow_wait_for_company_for_a_little_while() -> None:
    pub = publisher(coalesce=100e-6)
    pub.send(b"1")
    pub.forget()
    pub.send(b"2", b"3", (b"4", b"5"))
    assert pub.transmits == []
    pub.run(99e-6)
    assert pub.transmits == []
    pub.run(2e-6)
    stream = b"".join(packets.tsdu(*parts)[2:] for parts in [(b"2",), (b"3",), (b"4", b"5")])
    assert tsdus(pub) == [b"\0\0" + stream]


def test_without_coalescing_every_message_leaves_at_once() -> None:
    pub = publisher(coalesce=0)
    pub.send(b"1", b"2", b"3")
    assert len(tsdus(pub)) == 3


def test_a_burst_travels_in_runs_of_equal_packets() -> None:
    pub = publisher(rate=float("inf"))
    pub.send(b"first")
    pub.forget()
    pub.send(*[b"x" * 254] * 2000)
    pub.run(0.001)
    runs = [transmit for _, transmit in pub.transmits if packets_of(transmit)[0][4] == ODATA]
    sizes = [len(packets_of(transmit)) for transmit in runs]
    assert max(sizes) == 44
    assert len([size for size in sizes if size < 44]) <= 1
    for transmit in runs:
        assert len(transmit.data) <= 65_000
        assert {len(raw) for raw in packets_of(transmit)[:-1]} <= {FULL_PACKET}
    assert odata_sqns(pub) == list(range(1, 1 + sum(sizes)))


def test_a_message_is_spread_over_as_many_packets_as_it_takes() -> None:
    size = 16 << 20
    pub = publisher(rate=float("inf"), txw_bytes=64 << 20)
    message = Random(1).randbytes(size)
    pub.send(message)
    pub.run(0.001)
    found = tsdus(pub)
    assert found[0][:2] == b"\0\0"
    assert {tsdu[:2] for tsdu in found[1:-1]} == {b"\xff\xff"}
    assert b"".join(tsdu[2:] for tsdu in found) == packets.frame(message)


def test_a_message_larger_than_the_window_takes_is_refused_and_nothing_is_sent() -> None:
    pub = publisher(txw_bytes=1 << 16)
    assert pub.engine.source is not None
    limit = pub.engine.source.max_stream_bytes
    pub.forget()
    with pytest.raises(ValueError, match="transmit window"):
        pub.engine.send(pub.now_ns, (b"x" * (limit - 9),))
    pub.drain()
    assert pub.transmits == []
    pub.send(b"x" * (limit - 10))
    assert pub.stats["messages_sent"] == 1


@pytest.mark.parametrize("parts", [(), ("text",), (1,)])
def test_what_is_no_message_is_refused(parts: tuple[object, ...]) -> None:
    pub = publisher()
    with pytest.raises((ValueError, TypeError)):
        pub.engine.send(pub.now_ns, parts)  # type: ignore[arg-type]
    assert pub.stats["messages_sent"] == 0


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 200), st.booleans())))
@settings(max_examples=40)
def test_no_packet_ever_carries_less_than_a_byte_of_stream(
    steps: list[tuple[int, int, bool]],
) -> None:
    """libzmq aborts on an empty TSDU, and on one that is shorter than its own offset."""
    pub = publisher(multicast_maxtpdu=200, txw_bytes=1 << 20)
    for size, wait_us, flush in steps:
        if flush:
            pub.engine.flush(pub.now_ns)
        pub.engine.send(pub.now_ns, (b"x" * size,))
        pub.drain()
        pub.run(wait_us / 1e6)
    pub.engine.close(pub.now_ns)
    pub.run(0.05)
    found = tsdus(pub)
    assert all(len(tsdu) > 2 for tsdu in found)
    assert all(int.from_bytes(tsdu[:2], "big") in {0xFFFF, *range(len(tsdu) - 1)} for tsdu in found)
    stream = b"".join(tsdu[2:] for tsdu in found)
    assert stream == b"".join(packets.frame(b"x" * size) for size, _, _ in steps)


def test_ipv6_leaves_less_room_for_data() -> None:
    assert tsdu_bytes(1500, bytes(4)) == 1428
    assert tsdu_bytes(1500, bytes(16)) == 1408


@pytest.mark.parametrize("count", [1, 2, 43, 44, 45, 100])
def test_messages_that_fill_their_packets_exactly_leave_as_well(count: int) -> None:
    pub = publisher()
    pub.send(*[b"x" * 1416] * count)
    pub.run(0.01)
    assert len(tsdus(pub)) == count


# The pace.


def spent(end: End, kind: int) -> list[tuple[int, int]]:
    """(time, bytes on the wire) of each packet of a type."""
    return [
        (time_ns, len(raw) + IP_UDP)
        for time_ns, transmit in end.transmits
        for raw in packets_of(transmit)
        if raw[4] == kind
    ]


def most_over(flow: list[tuple[int, int]], bits_per_s: float) -> float:
    """Most bytes that any window of time held above ``bits_per_s`` times its length."""
    most = level = 0.0
    last_ns = flow[0][0] if flow else 0
    for time_ns, size in flow:
        level = max(0.0, level - (time_ns - last_ns) * bits_per_s / 8e9) + size
        last_ns = time_ns
        most = max(most, level)
    return most


def feed(pub: Publisher, seconds: float, size: int, step_s: float = 0.001) -> None:
    """Offer more than it can send, for a while."""
    end_ns = pub.now_ns + round(seconds * 1e9)
    while pub.now_ns < end_ns:
        while pub.engine.send(pub.now_ns, (b"x" * size,)):
            pub.drain()
        pub.drain()
        pub.run(step_s)


@pytest.mark.parametrize("rate", [1e5, 1e6, 1e7, 2e8])
@pytest.mark.parametrize("size", [10, 1000, 20_000])
def test_data_never_exceeds_the_rate_and_its_burst(rate: float, size: int) -> None:
    pub = publisher(rate=rate, sndhwm=5_000)
    seconds = 2e5 / rate + 0.05
    feed(pub, seconds, size, step_s=seconds / 50)
    flow = spent(pub, ODATA)
    packet = FULL_PACKET + IP_UDP
    burst = max(2 * packet, rate / 8 * 0.001, min(rate / 8 * 0.01, 32 * 1024))
    assert most_over(flow, rate) <= burst + packet
    total = sum(size for _, size in flow)
    assert total >= 0.9 * rate / 8 * seconds - packet


def test_waiting_messages_leave_in_full_packets() -> None:
    """While the rate holds them up anyway, small messages fill packets."""
    pub = publisher(rate=1e6)
    pub.send(*[b"x" * 50] * 500)
    pub.run(1)
    sizes = [len(tsdu) for tsdu in tsdus(pub)]
    assert sum(sizes) > 500 * 50
    assert sum(size == 1428 for size in sizes) >= len(sizes) - 3


def test_without_a_rate_everything_leaves_at_once() -> None:
    pub = publisher(rate=float("inf"))
    pub.send(*[b"x" * 1000] * 5000)
    pub.engine.flush(pub.now_ns)
    pub.drain()
    assert len(tsdus(pub)) > 3000


def test_spms_are_sent_though_the_rate_is_used_up() -> None:
    pub = publisher(rate=1e5, sndhwm=50)
    pub.forget()
    feed(pub, 3, 1000, step_s=0.05)
    assert len(pub.sent(SPM)) >= 3


def test_an_spm_does_not_advertise_what_has_not_left() -> None:
    pub = publisher(rate=1e5)
    pub.send(*[b"x" * 1400] * 20)
    sent_count = len(odata_sqns(pub))
    assert sent_count < 20
    pub.forget()
    pub.hear(packets.packet(SPMR, b""), address=RECEIVER)
    assert [window(packet) for _, packet in pub.sent(SPM)] == [(0, sent_count - 1)]


def test_at_the_high_water_mark_messages_are_refused_until_some_have_left() -> None:
    pub = publisher(rate=1e6, sndhwm=10)
    taken = 0
    while pub.engine.send(pub.now_ns, (b"x" * 1400,)):
        taken += 1
    pub.drain()
    left = len(tsdus(pub))
    assert taken - left == pytest.approx(10, abs=1)
    assert pub.stats["messages_unsent"] == 10
    pub.run(0.05)
    assert pub.engine.send(pub.now_ns, (b"x",))


def test_send_many_takes_what_fits_and_goes_on_from_there() -> None:
    pub = publisher(rate=1e6, sndhwm=10)
    messages = [b"%04d" % n for n in range(1000)]
    taken = 0
    for _ in range(2000):
        taken = pub.engine.send_many(pub.now_ns, messages, taken)
        pub.drain()
        if taken == len(messages):
            break
        pub.run(0.001)
    assert taken == len(messages)
    pub.run(1)
    stream = b"".join(tsdu[2:] for tsdu in tsdus(pub))
    assert stream == b"".join(packets.frame(message) for message in messages)


def test_send_many_takes_messages_as_soon_as_there_is_room() -> None:
    """Room that came with time alone is used, without a ``handle_timeout`` in between."""
    pub = publisher(rate=1e6, sndhwm=10)
    messages = [b"x" * 1400] * 100
    taken = pub.engine.send_many(pub.now_ns, messages, 0)
    pub.drain()
    pub.now_ns += 1_000 * MS
    assert pub.engine.send_many(pub.now_ns, messages, taken) > taken


# Repairs.


def sent_ten(**options: object) -> Publisher:
    pub = publisher(**options)
    pub.send_apart(*[b"m%d" % n for n in range(10)])
    pub.run(0.5)
    pub.forget()
    return pub


def test_a_nak_is_confirmed_and_repaired_at_once() -> None:
    pub = sent_ten()
    ask(pub, 3)
    kinds = [packets_of(transmit)[0][4] for _, transmit in pub.transmits]
    assert kinds == [NCF, RDATA]
    ((_, ncf),) = pub.sent(NCF, GROUP)
    assert named(ncf) == [3]
    ((_, rdata),) = pub.sent(RDATA, GROUP)
    assert bytes(rdata.body.tsdu) == packets.tsdu(b"m3")  # type: ignore[union-attr]


def test_a_packet_that_the_window_drops_while_its_repair_is_made_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a gate, which sends without the lock, lets the window move on in that moment."""
    pub = sent_ten()
    source = pub.engine.source
    assert source is not None
    slots, repairs = source._slots, source._repairs
    next_run = repairs.next_run

    def overtaken(now_ns: int, max_packet_count: int) -> list[int]:
        run = next_run(now_ns, max_packet_count)
        if run and slots.trail <= run[0]:
            slots.advance(run[0] + 1)
        return run

    monkeypatch.setattr(repairs, "next_run", overtaken)
    ask(pub, 3, 4)
    assert rdata_sqns(pub) == []
    assert len(repairs) == 0


def test_no_repair_is_made_while_the_system_takes_nothing() -> None:
    pub = sent_ten()
    source = pub.engine.source
    assert source is not None
    source.is_held_up = True
    ask(pub, 3)
    assert rdata_sqns(pub) == []
    source.is_held_up = False
    pub.run(0.01)
    assert rdata_sqns(pub) == [3]


def test_a_list_is_confirmed_by_a_list() -> None:
    pub = sent_ten()
    ask(pub, 1, 2, 7)
    assert [named(ncf) for _, ncf in pub.sent(NCF)] == [[1, 2, 7]]
    assert rdata_sqns(pub) == [1, 2, 7]


def test_a_nak_to_the_group_is_served_as_well() -> None:
    pub = sent_ten()
    pub.hear(request(NAK, 3), address=RECEIVER, to_group=True)
    assert rdata_sqns(pub) == [3]


def test_neighbours_are_repaired_in_one_run() -> None:
    pub = publisher(rate=float("inf"))
    pub.send(*[b"x" * 1416] * 40)
    pub.run(0.1)
    pub.forget()
    ask(pub, *range(5, 35))
    (run,) = [transmit for _, transmit in pub.transmits if packets_of(transmit)[0][4] == RDATA]
    assert len(packets_of(run)) == 30


def test_a_number_is_repaired_once_in_the_hold_off_whoever_asks() -> None:
    pub = sent_ten()
    for _ in range(20):
        ask(pub, 3)
        pub.run(LAN.repair_holdoff_ns / 20 / 1e9)
    assert rdata_sqns(pub) == [3]
    assert len(pub.sent(NCF)) == 1
    assert pub.stats["naks_ignored"] == 19
    ask(pub, 3)
    assert rdata_sqns(pub) == [3, 3]


def test_what_a_list_adds_to_a_pending_repair_is_accepted() -> None:
    pub = sent_ten()
    ask(pub, 3)
    ask(pub, 3, 4)
    assert [named(ncf) for _, ncf in pub.sent(NCF)] == [[3], [4]]
    assert rdata_sqns(pub) == [3, 4]


def test_a_repair_carries_the_current_trail() -> None:
    pub = publisher(txw_bytes=1 << 16, rate=float("inf"))
    pub.send_apart(*[b"x" * 1400] * 100)
    trail, lead = pub.window
    assert trail > 0
    ask(pub, lead - 3)
    ((_, rdata),) = pub.sent(RDATA)
    assert rdata.body.trail == trail  # type: ignore[union-attr]


@pytest.mark.parametrize("sqn", [10, 5000, MASK])
def test_what_the_window_does_not_hold_is_denied_by_an_spm(sqn: int) -> None:
    pub = sent_ten()
    ask(pub, sqn)
    assert pub.sent(NCF) == pub.sent(RDATA) == []
    assert [window(spm) for _, spm in pub.sent(SPM)] == [(0, 9)]
    assert pub.stats["naks_outside_window"] == 1


def test_denials_are_no_more_than_ten_a_second() -> None:
    pub = sent_ten()
    pub.run(1)
    for _ in range(1000):
        ask(pub, 5000)
        pub.run(0.001)
    spms = [time for time, _ in pub.sent(SPM)]
    assert len(spms) <= 11 + 5  # and the heartbeats and ambient ones


def test_a_nak_partly_outside_the_window_is_repaired_for_the_rest() -> None:
    pub = sent_ten()
    ask(pub, 8, 9, 10, 11)
    assert [named(ncf) for _, ncf in pub.sent(NCF)] == [[8, 9]]
    assert rdata_sqns(pub) == [8, 9]


@pytest.mark.parametrize(
    "changes", [{"source": OTHER}, {"group": bytes((239, 192, 1, 2))}, {"source": bytes(16)}]
)
def test_a_nak_that_names_another_source_or_group_is_ignored(changes: dict[str, bytes]) -> None:
    pub = sent_ten()
    ask(pub, 3, **changes)
    assert pub.transmits == []
    assert pub.stats["malformed_nak_address"] == 1


def test_an_nnak_is_counted_and_asks_for_nothing() -> None:
    pub = sent_ten()
    pub.hear(request(NNAK, 3), address=RECEIVER, to_group=False)
    assert pub.transmits == []
    assert pub.stats["nnaks_received"] == 1


def test_a_nak_for_another_publisher_of_this_host_is_passed_on_to_the_group_here() -> None:
    pub = sent_ten()
    nak = request(NAK, 3, tsi=OTHER_TSI)
    pub.hear(nak, address=RECEIVER, to_group=False)
    ((_, transmit),) = pub.transmits
    assert (bytes(transmit.data), transmit.destination, transmit.hops) == (nak, GROUP, 0)
    assert pub.stats["naks_relayed"] == 1


def test_a_nak_from_the_group_is_never_passed_on() -> None:
    pub = sent_ten()
    pub.hear(request(NAK, 3, tsi=OTHER_TSI), address=RECEIVER, to_group=True)
    assert pub.transmits == []


def test_passing_on_is_limited() -> None:
    pub = sent_ten()
    nak = request(NAK, *range(63), tsi=OTHER_TSI)
    for _ in range(2000):
        pub.hear(nak, address=RECEIVER, to_group=False)
    assert len(pub.transmits) * len(nak) <= 65_536 + len(nak)


def test_a_storm_of_naks_costs_no_more_than_the_share() -> None:
    """20,000 lists a second, each for 63 numbers of the window: 1.2 million repairs a second."""
    rate, share = 1e8, 0.25
    pub = publisher(rate=rate, repair_share=share, sndhwm=1_000_000)
    pub.send(*[b"x" * 1400] * 2_000)
    pub.run(0.5)
    assert pub.window[1] > 1_900
    pub.forget()
    dice = Random(7)
    seconds = 0.2
    lists = [sorted(dice.sample(range(1_900), 63)) for _ in range(50)]
    for n in range(round(20_000 * seconds)):
        ask(pub, *lists[n % len(lists)])
        pub.run(1 / 20_000)
    flow = spent(pub, RDATA)
    assert most_over(flow, rate * share) <= 256 * 1024 + FULL_PACKET + IP_UDP
    assert sum(size for _, size in flow) <= 256 * 1024 + 1.05 * rate * share / 8 * seconds
    assert sum(size for _, size in flow) >= 0.9 * rate * share / 8 * seconds
    # Every number of it was confirmed once, and not again within the hold-off.
    confirmed: Counter[int] = Counter()
    for _, ncf in pub.sent(NCF):
        confirmed.update(named(ncf))
    assert max(confirmed.values()) <= seconds * 1e9 / LAN.repair_holdoff_ns + 1


def test_with_a_minimum_rate_a_publisher_slows_down_for_who_cannot_follow_and_recovers() -> None:
    rate = 1e8
    pub = publisher(rate=rate, min_rate=1e6, sndhwm=1_000_000)
    pub.send(*[b"x" * 1400] * 2_000)
    pub.run(0.05)
    pub.forget()
    lead = pub.engine.stats()["odata_sent"] - 1
    ask(pub, *range(int(lead) - 62, int(lead) + 1))
    assert pub.engine.stats()["rate"] < 0.75 * rate
    pub.forget()
    pub.run(0.03)
    slow = sum(size for _, size in spent(pub, ODATA))
    assert slow < 0.8 * rate / 8 * 0.03
    pub.run(1.0)
    assert pub.engine.stats()["rate"] == rate


def test_without_a_minimum_rate_it_keeps_its_pace() -> None:
    rate = 1e8
    pub = publisher(rate=rate, sndhwm=1_000_000)
    pub.send(*[b"x" * 1400] * 2_000)
    pub.run(0.05)
    ask(pub, *range(100, 163))
    assert pub.engine.stats()["rate"] == rate


def test_data_goes_on_at_its_rate_during_a_storm_of_naks() -> None:
    rate = 1e7
    pub = publisher(rate=rate, sndhwm=50)
    feed(pub, 0.2, 1400)
    pub.forget()
    for _ in range(200):
        ask(pub, *range(1, 64))
        feed(pub, 0.001, 1400)
    assert sum(size for _, size in spent(pub, ODATA)) >= 0.9 * rate / 8 * 0.2


def test_requests_below_the_trail_are_forgotten() -> None:
    queue = RepairQueue(1e4, 3_000, LAN.repair_holdoff_ns)
    queue.ask(range(40_000), 0)
    assert queue.next_run(0, 44) == list(range(44))
    queue.sent(range(44), 0, 0)
    queue.sent(range(44), 1_000_000, 0)
    # A step for each packet sent; each must not cost a look at every request.
    for trail in range(39_001):
        queue.forget_below(trail)
    assert len(queue) <= 2_000
    assert queue.next_run(10**18, 44) == list(range(39_000, 39_044))
    queue.sent(range(39_000, 39_044), 0, 10**18)
    queue.forget_below(50_000)
    assert queue.next_run(10**18, 44) == []
    assert queue.next_timeout_ns() is None


# The window.


def test_the_window_advances_when_its_bytes_are_used_up() -> None:
    pub = publisher(txw_bytes=1 << 16, rate=float("inf"))
    pub.send_apart(*[b"x" * 1400] * 44)
    assert pub.window[0] == 0
    pub.send_apart(*[b"x" * 1400] * 100)
    trail, lead = pub.window
    assert lead - trail + 1 == pytest.approx((1 << 16) // FULL_PACKET, abs=1)
    ask(pub, trail - 1)
    assert pub.sent(RDATA) == []
    ask(pub, trail)
    assert rdata_sqns(pub) == [trail]


def test_a_packet_stays_repairable_for_the_recovery_interval_and_not_much_longer() -> None:
    pub = publisher(recovery_ivl=2.0)
    pub.send_apart(b"a")
    pub.run(1.99)
    assert pub.window == (0, 0)
    pub.run(0.08)
    assert pub.window == (1, 0)
    # Nobody would hear of it from data, so an SPM says so.
    assert window(pub.sent(SPM)[-1][1]) == (1, 0)


def test_the_window_advances_by_time_while_data_flows() -> None:
    pub = publisher(recovery_ivl=1.0)
    for _ in range(300):
        pub.send_apart(b"x")
        pub.run(0.01)
    trail, lead = pub.window
    assert 99 <= lead - trail <= 105


def test_numbers_wrap_on_the_wire_and_grow_inside() -> None:
    pub = publisher(initial_sqn=MASK - 1)
    pub.send_apart(b"a", b"b", b"c", b"d")
    assert odata_sqns(pub) == [MASK - 1, MASK, 0, 1]
    assert pub.window == (MASK - 1, WRAP + 1)
    pub.run(0.5)
    assert window(pub.sent(SPM)[-1][1]) == (MASK - 1, 1)
    ask(pub, MASK, 0)
    assert rdata_sqns(pub) == [MASK, 0]
    assert [named(ncf) for _, ncf in pub.sent(NCF)] == [[MASK, 0]]


# The end.


def test_closing_sends_what_waits_and_says_so_three_times() -> None:
    pub = publisher()
    pub.send(b"a", b"b")
    pub.forget()
    pub.engine.close(pub.now_ns)
    pub.drain()
    kinds = [packets_of(transmit)[0][4] for _, transmit in pub.transmits]
    assert kinds == [ODATA, SPM, SPM, SPM]
    assert all(spm.options.fin for _, spm in pub.sent(SPM))
    assert {window(spm) for _, spm in pub.sent(SPM)} == {(0, 1)}


def test_every_spm_after_closing_says_so() -> None:
    pub = publisher()
    pub.send_apart(b"a")
    pub.engine.close(pub.now_ns)
    pub.forget()
    pub.run(5)
    assert len(pub.sent(SPM)) > 8
    assert all(spm.options.fin for _, spm in pub.sent(SPM))


def test_the_end_is_told_when_the_last_data_has_left_and_not_before() -> None:
    pub = publisher(rate=1e6)
    pub.send(*[b"x" * 1400] * 30)
    pub.forget()
    pub.engine.close(pub.now_ns)
    pub.drain()
    assert not any(spm.options.fin for _, spm in pub.sent(SPM))
    pub.run(2)
    last_ns = max(time_ns for time_ns, _ in pub.sent(ODATA))
    fins = [time_ns for time_ns, spm in pub.sent(SPM) if spm.options.fin]
    assert last_ns < fins[0] <= last_ns + 20 * MS
    lead = odata_sqns(pub)[-1]
    assert {window(spm)[1] for _, spm in pub.sent(SPM) if spm.options.fin} == {lead}


def test_repairs_go_on_after_closing() -> None:
    pub = sent_ten()
    pub.engine.close(pub.now_ns)
    ask(pub, 3)
    assert rdata_sqns(pub) == [3]


# Time.


def test_timeouts_may_be_early_late_and_twice() -> None:
    pub = publisher()
    pub.send(b"a", b"b")
    before = len(pub.transmits)
    pub.engine.handle_timeout(pub.now_ns)
    pub.drain()
    assert len(pub.transmits) == before
    pub.now_ns += 10_000 * MS
    pub.engine.handle_timeout(pub.now_ns)
    pub.engine.handle_timeout(pub.now_ns)
    pub.drain()
    assert tsdus(pub) == [packets.tsdu(b"a"), packets.tsdu(b"b")]
    assert len(pub.sent(SPM)) <= 3 + 3


def test_an_idle_source_wakes_for_spms_only() -> None:
    pub = publisher()
    pub.send_apart(b"x")
    pub.run(30)
    wakes = 0
    end_ns = pub.now_ns + 10_000 * MS
    while (due_ns := pub.engine.next_timeout_ns) <= end_ns:
        pub.now_ns = due_ns
        pub.engine.handle_timeout(due_ns)
        pub.drain()
        wakes += 1
    assert wakes == 10


def test_only_so_many_repairs_are_remembered() -> None:
    queue = RepairQueue(1e12, 1 << 20, 10 * MS)
    limit = 1 << 16
    assert len(queue.ask(range(limit + 1), 0)) == limit + 1
    for sqn in (0, 1, limit):
        queue.sent([sqn], 100, 0)
    # Of what is forgotten the hold-off is, too; ``sent`` remembers anew.
    assert queue.ask([0, 1, limit], 1) == []
    queue.ask([limit + 1], 1)
    assert len(queue._accepted_ns) <= limit + 1
