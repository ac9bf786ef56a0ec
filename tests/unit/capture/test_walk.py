"""The kernel's walk through records: both kernels alike, and what it takes is what Python would."""

from __future__ import annotations

from struct import pack
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1Q, Ether, Loopback

from mcast.kernel import reference
from tests.fuzz import kernel_differential as differential
from tests.unit.capture.files import GROUP, SOURCE, START_NS, pcap, pcapng, udp
from tests.unit.kernel.packets import data_packet, tsdu

pytestmark = pytest.mark.kernel_independent  # it imports both, whichever is picked

try:
    NATIVE: ModuleType | None = differential.native()
except ImportError:
    NATIVE = None

TSI = bytes(range(6)) + (9029).to_bytes(2, "big")
PORT = 5555


def packet(sqn: int, kind: int = 4, trail: int = 0) -> bytes:
    return data_packet(sqn, tsdu(b"m%d" % sqn), tsi=TSI, dport=PORT, kind=kind, trail=trail)


def decoder_of(kernel: ModuleType) -> Any:
    return kernel.FrameDecoder(kernel.TopicFilter((b"",)), 1 << 20, 100)


def walked(
    kernel: ModuleType,
    data: bytes,
    *,
    is_ng: bool,
    start: int,
    link: int,
    source: bytes,
    group: bytes,
    early: int,
    limit: int,
    tick_ns: int,
    is_wanted: bool,
) -> object:
    """Everything that can be seen of a walk that stops at the first record left, three times."""
    slots = kernel.ReceiveSlots(TSI, PORT, decoder_of(kernel), 0)
    if early:
        slots.store(early, packet(early))
    flow = kernel.CaptureFlow(slots)
    walk = kernel.CaptureWalk(is_ng, data[:1] not in (b"\xa1", b"\0"), limit)
    walk.add_interface(link, tick_ns)
    walk.flows[source + group + PORT.to_bytes(2, "big") + TSI[6:] + TSI[:6]] = flow
    walk.arrivals = [] if is_wanted else None
    walk.lines = bytearray() if is_wanted else None
    flow.pattern = (*((b"|", place) for place in range(len(reference.CAPTURE_FIELDS))), (b"\n", -1))
    stops = []
    for _ in range(3):
        start = walk.walk(data, start)
        stops.append(start)
    facts = [
        (flow.packet_count, flow.byte_count, flow.first_ns, flow.last_ns, flow.peak_bytes),
        (slots.next, slots.lead, slots.stored_bytes, slots.stored_count, slots.packet_count),
    ]
    arrivals = [row[1:] for row in walk.arrivals or ()]
    return stops, walk.frame_count, facts, arrivals, bytes(walk.lines or b"")


def both(
    data: bytes, *, is_ng: bool = False, start: int = 24, link: int = 101, **more: Any
) -> tuple[int, int]:
    """Frames taken and the place of the stop, after both kernels agreed on everything.

    ``early`` is a packet that has come before, and left a hole; ``limit`` is for what it holds up.
    """
    usual = {"source": SOURCE, "group": GROUP, "early": 0, "limit": 10_000, "tick_ns": 1}
    more = {"is_ng": is_ng, "start": start, "link": link, "is_wanted": True, **usual, **more}
    wanted = walked(reference, data, **more)
    if NATIVE is not None:
        assert walked(NATIVE, data, **more) == wanted
    assert isinstance(wanted, tuple)
    return wanted[1], wanted[0][-1]


def times(packets: list[bytes]) -> list[tuple[int, bytes]]:
    return [(START_NS + 20_000_000 * place, data) for place, data in enumerate(packets)]


def test_packets_in_order_are_taken_to_the_end() -> None:
    data = pcap(times([udp(packet(sqn)) for sqn in range(20)]))
    assert both(data) == (20, len(data))
    assert both(pcap(times([udp(packet(s)) for s in range(20)]), order=">"))[0] == 20


def test_pcapng_is_walked_from_its_first_packet() -> None:
    packets = times([udp(packet(sqn)) for sqn in range(5)])
    data = pcapng(packets)
    assert both(data, is_ng=True, start=len(pcapng([]))) == (5, len(data))


@pytest.mark.parametrize(
    ("link", "head"),
    [
        (1, Ether()),
        (1, Ether() / Dot1Q() / Dot1Q()),
        (113, CookedLinux()),
        (276, CookedLinuxV2()),
        (108, Loopback()),
    ],
)
def test_links_are_known(link: int, head: object) -> None:
    packets = [bytes(head / IP(udp(packet(sqn)))) for sqn in range(3)]
    assert both(pcap(times(packets), link=link), link=link)[0] == 3


@pytest.mark.parametrize(
    "odd",
    [
        udp(packet(1)[:-1] + b"?"),  # checksum
        udp(packet(7)),  # a gap
        udp(packet(1, kind=5)),  # RDATA
        udp(packet(1), port=5556),
        udp(packet(1), source=bytes((10, 0, 0, 2))),
        udp(packet(1))[:-4],  # captured in part
        udp(b"not PGM"),
    ],
)
def test_walk_stops_in_front_of_what_needs_thought(odd: bytes) -> None:
    data = pcap(times([udp(packet(0)), odd, udp(packet(1))]))
    assert both(data) == (1, 24 + 16 + len(udp(packet(0))))


def test_pattern_with_a_place_that_is_none_is_refused() -> None:
    for kernel in (reference, NATIVE or reference):
        flow = kernel.CaptureFlow(
            kernel.ReceiveSlots(TSI, PORT, kernel.FrameDecoder(kernel.TopicFilter(), 9, 9), 0)
        )
        flow.pattern = ((b"", len(reference.CAPTURE_FIELDS)),)
        walk = kernel.CaptureWalk(False, True, 10_000)
        walk.add_interface(101, 1)
        walk.flows[SOURCE + GROUP + PORT.to_bytes(2, "big") + TSI[6:] + TSI[:6]] = flow
        walk.lines = bytearray()
        flow.slots.absorb(packet(0), 0, 1 << 16, [])
        with pytest.raises(IndexError):
            walk.walk(pcap(times([udp(packet(1))])), 24)


V6_SOURCE, V6_GROUP = bytes(15) + b"\1", b"\xff\x15" + bytes(13) + b"\7"


def v6(sqn: int) -> bytes:
    return udp(packet(sqn), source=V6_SOURCE, group=V6_GROUP)


def test_ipv6_is_read_as_well() -> None:
    data = pcap(times([v6(sqn) for sqn in range(3)]))
    assert both(data, source=V6_SOURCE, group=V6_GROUP) == (3, len(data))


@pytest.mark.parametrize(
    "odd",
    [
        v6(1)[:4] + pack("!H", 2000) + v6(1)[6:],  # longer than what was captured
        v6(1)[:4] + pack("!H", 7) + v6(1)[6:],  # too short for UDP
        v6(1)[:6] + b"\0" + v6(1)[7:],  # an extension header
        b"\x70" + v6(1)[1:],  # no version of IP
        v6(1)[:44] + pack("!H", 31) + v6(1)[46:],  # a datagram too short for data
    ],
)
def test_walk_stops_in_front_of_odd_ipv6(odd: bytes) -> None:
    data = pcap(times([v6(0), odd, v6(1)]))
    assert both(data, source=V6_SOURCE, group=V6_GROUP)[0] == 1


@pytest.mark.parametrize(
    ("link", "head"),
    [
        (1, Ether(type=0x0806)),
        (113, CookedLinux(proto=0x0806)),
        (276, CookedLinuxV2(proto=0x0806)),
        (147, b""),  # a link type that nobody knows
    ],
)
def test_walk_stops_where_there_is_no_ip(link: int, head: object) -> None:
    records = pcap(times([bytes(head) + udp(packet(0))]), link=link)  # type: ignore[call-overload]
    assert both(records, link=link) == (0, 24)


def ng_record(head: bytes, body: bytes, size: int) -> bytes:
    return pack("<II", 6, size) + head + body + pack("<I", size)


@pytest.mark.parametrize("what", ["interface", "size", "captured", "in part", "time"])
def test_walk_stops_in_front_of_a_block_that_makes_no_sense(what: str) -> None:
    body = udp(packet(1))
    body += bytes(-len(body) % 4)
    whole = len(body) + 32
    captured = 1000 if what == "captured" else len(body)
    head = pack(
        "<IIIII",
        5 if what == "interface" else 0,
        0xFFFF_FFFF if what == "time" else 1,
        0,
        captured,
        captured + (what == "in part"),
    )
    odd = ng_record(head, body, whole + (2 if what == "size" else 0))
    data = pcapng(times([udp(packet(0))]))
    tick_ns = 1 << 20 if what == "time" else 1
    more = ng_record(pack("<IIIII", 0, 0, 9, len(body), len(body)), body, whole)
    start = len(data) if what == "time" else len(pcapng([]))
    stop = len(data)
    taken, at = both(data + odd + more, is_ng=True, start=start, tick_ns=tick_ns)
    assert (taken, at) == (0 if what == "time" else 1, stop)


def test_walk_stops_at_once_where_an_interface_counts_no_whole_nanoseconds() -> None:
    start = len(pcapng([]))
    data = pcapng(times([udp(packet(0))]))
    assert both(data, is_ng=True, start=start, tick_ns=0) == (0, start)


def test_packets_behind_a_hole_are_kept_until_there_are_too_many() -> None:
    packets = [udp(packet(sqn)) for sqn in range(4, 20)]
    data = pcap(times(packets))
    assert both(data, early=3) == (16, len(data))
    size = len(packet(4))
    assert both(data, early=3, limit=5 * size)[0] == 4  # the one that made the hole counts


def test_walk_stops_where_the_publisher_has_given_up_what_is_missing() -> None:
    packets = [udp(packet(4)), udp(packet(5, trail=2))]
    assert both(pcap(times(packets)), early=3)[0] == 1


def test_walk_goes_on_where_nobody_wants_the_messages() -> None:
    data = pcap(times([udp(packet(sqn)) for sqn in range(5)]))
    assert both(data, is_wanted=False) == (5, len(data))


def test_times_before_1970_are_counted_by_tenths_of_a_second_too() -> None:
    for kernel in (reference, *([NATIVE] if NATIVE is not None else [])):
        flow = kernel.CaptureFlow(kernel.ReceiveSlots(TSI, PORT, decoder_of(kernel), 0))
        for time_ns in (-150_000_000, -50_000_000, 50_000_000):
            flow.heard(time_ns, 10)
        assert flow.peak_bytes == 10


record_bytes = st.one_of(
    st.integers(0, 6).map(lambda sqn: udp(packet(sqn))),
    st.tuples(st.integers(0, 6), st.integers(0, 60), st.integers(0, 255)).map(
        lambda row: (lambda d: d[: row[1]] + bytes((row[2],)) + d[row[1] + 1 :])(
            udp(packet(row[0]))
        )
    ),
    st.binary(max_size=60),
)


@settings(max_examples=300)
@given(st.lists(record_bytes, max_size=8), st.booleans(), st.integers(0, 30))
def test_kernels_agree_on_any_file(packets: list[bytes], is_ng: bool, cut: int) -> None:
    made = (pcapng if is_ng else pcap)(times(packets))
    start = len(pcapng([])) if is_ng else 24
    both(made[: len(made) - cut] if len(made) - cut > start else made, is_ng=is_ng, start=start)
