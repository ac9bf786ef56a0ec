"""The kernel's walk through records: both kernels alike, and what it takes is what Python would."""

from __future__ import annotations

from types import ModuleType

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


def packet(sqn: int, kind: int = 4) -> bytes:
    return data_packet(sqn, tsdu(b"m%d" % sqn), tsi=TSI, dport=PORT, kind=kind)


def walked(kernel: ModuleType, data: bytes, *, is_ng: bool, start: int, link: int) -> object:
    """Everything that can be seen of a walk that stops at the first record left, three times."""
    decoder = kernel.FrameDecoder(kernel.TopicFilter((b"",)), 1 << 20, 100)
    slots = kernel.ReceiveSlots(TSI, PORT, decoder, 0)
    flow = kernel.CaptureFlow(slots)
    walk = kernel.CaptureWalk(is_ng, data[:1] not in (b"\xa1", b"\0"), 10_000)
    walk.add_interface(link, 1)
    walk.flows[SOURCE + GROUP + PORT.to_bytes(2, "big") + TSI[6:] + TSI[:6]] = flow
    walk.arrivals = []
    walk.lines = bytearray()
    flow.pattern = (*((b"|", place) for place in range(len(reference.CAPTURE_FIELDS))), (b"\n", -1))
    stops = []
    for _ in range(3):
        start = walk.walk(data, start)
        stops.append(start)
    facts = [
        (flow.packet_count, flow.byte_count, flow.first_ns, flow.last_ns, flow.peak_bytes),
        (slots.next, slots.lead, slots.stored_bytes, slots.stored_count, slots.packet_count),
    ]
    arrivals = [row[1:] for row in walk.arrivals]
    return stops, walk.frame_count, facts, arrivals, bytes(walk.lines)


def both(data: bytes, *, is_ng: bool = False, start: int = 24, link: int = 101) -> tuple[int, int]:
    """Frames taken and the place of the stop, after both kernels agreed on everything."""
    wanted = walked(reference, data, is_ng=is_ng, start=start, link=link)
    if NATIVE is not None:
        assert walked(NATIVE, data, is_ng=is_ng, start=start, link=link) == wanted
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
