"""Every packet type we send, judged by tshark, and its fields held against RFC 3208.

One session over a lossy wire makes them all: the subscriber misses the first SPMs (so it asks by
SPMR), then single packets (NAK, NCF) and whole stretches (NAK and NCF with a list), and the
publisher closes (SPM with OPT_FIN). The capture is the publisher's: what it sends, and what
reaches it. Sections are RFC 3208's; the choices beyond it are libzmq's and OpenPGM's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from tests.netlab import ODATA, SPM, lab_or_skip
from tests.support.transfer import GROUP, PORT, mcast_peer
from tests.tshark import Packet, counts, dissect, judge

pytestmark = [pytest.mark.interop("tshark"), pytest.mark.namespace]

COUNT = 2_000
GROUP6 = "ff15::7777"

_OPTIONS_PRESENT, _OPTIONS_NETWORK = 0x01, 0x02
_OPT_FIN = 0x0E
_DSCP_EF = 46
_NLA_FAMILY = {4: 1, 6: 2}


@dataclass
class Session:
    """What one session left on the wire."""

    version: int
    source: str
    receiver: str
    group: str
    packets: list[Packet]
    missed: int
    summary: dict[str, object]
    by_name: dict[str, list[Packet]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for packet in self.packets:
            self.by_name.setdefault(packet.name, []).append(packet)

    def nla(self, packet: Packet, stem: str) -> str:
        """The address in a field such as ``pgm.nak.src``, as tshark prints it."""
        return packet.text(f"{stem}.ipv{self.version}")


@pytest.fixture(scope="module", params=[4, 6], ids=["ipv4", "ipv6"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    version: int = request.param
    path = tmp_path_factory.mktemp("judged") / "session.pcap"
    with lab_or_skip(2) as lab:
        source, receiver = lab.hosts
        if version == 4:
            ends, group = (source.address, receiver.address), GROUP
            url = f"epgm://eth0;{GROUP}:{PORT}"
        else:
            ends, group = (source.address6, receiver.address6), GROUP6
            url = f"epgm://[fd00:77::/64];[{GROUP6}]:{PORT}"
        peer = mcast_peer("--count", str(COUNT)).command
        options = ["--count", str(COUNT), "--timeout", "40"]
        with source.capture(path, port=PORT) as capture:
            subscriber = receiver.start([*peer, "sub", url, *options])
            subscriber.wait_json("ready", timeout_s=20)
            receiver.wait_joined(group)
            no_spm = receiver.lose(pgm_type=SPM)
            publisher = source.start(
                [*peer, "pub", url, *options, "--interval-us", "500", "--prepare"]
            )
            publisher.wait_json("ready", timeout_s=20)
            publisher.tell("go")
            time.sleep(0.3)  # longer than the subscriber waits for an SPM before it asks
            no_spm.heal()
            receiver.lose(pgm_type=ODATA, match="numgen inc mod 97 < 1")
            receiver.lose(pgm_type=ODATA, match="numgen inc mod 400 < 8")
            summary = subscriber.wait_json("summary", timeout_s=60)
            publisher.wait_json("sent", timeout_s=10)
            publisher.tell("quit")
            publisher.wait(timeout_s=10)
        packets = dissect(path, PORT)
    print(f"IPv{version}: {counts(packets)}")
    return Session(version, *ends, group, packets, capture.missed, summary)


def test_tshark_finds_no_fault_in_any_packet(session: Session) -> None:
    assert session.missed == 0
    assert judge(session.packets) == []


def test_every_type_we_send_is_in_the_capture(session: Session) -> None:
    assert set(session.by_name) == {"SPM", "ODATA", "RDATA", "NAK", "NCF", "SPMR"}
    for name in ("NAK", "NCF"):
        assert any(packet.nak_list for packet in session.by_name[name]), f"no {name} with a list"
        assert any(not packet.nak_list for packet in session.by_name[name]), f"no single {name}"
    assert any(packet.options for packet in session.by_name["SPM"])


def test_the_subscriber_that_asked_got_everything(session: Session) -> None:
    assert session.summary["duplicates"] == session.summary["corrupt"] == 0
    assert session.summary["missing"] == 0
    assert session.summary["outcome"] == "complete"


def test_headers_name_one_session_and_the_right_ports(session: Session) -> None:
    # Section 8: the destination port is always the addressee's endpoint, and upstream packets
    # carry the two ports swapped.
    assert len({packet.tsi for packet in session.packets}) == 1
    for packet in session.packets:
        upstream = packet.name in ("NAK", "SPMR")
        ours, theirs = packet.payload[0:2], packet.payload[2:4]
        assert int.from_bytes(ours if upstream else theirs, "big") == PORT
        assert (ours if not upstream else theirs) != PORT.to_bytes(2, "big")
        assert packet.value("udp.dstport") == PORT
        if packet.name not in ("ODATA", "RDATA"):
            assert packet.payload[14:16] == b"\0\0", "TSDU length of a packet without data"


def test_packets_go_where_they_should_with_their_hops_and_class(session: Session) -> None:
    hops, group_hops = ("ip.ttl" if session.version == 4 else "ipv6.hlim"), 1
    for packet in session.packets:
        if packet.name in ("SPM", "ODATA", "RDATA", "NCF"):
            ends = (session.source, session.group)
        elif packet.name == "NAK":
            ends = (session.receiver, session.source)
        else:
            assert packet.destination in (session.group, session.source)
            ends = (session.receiver, packet.destination)
        assert (packet.source, packet.destination) == ends, packet.name
        if packet.destination == session.group:
            assert packet.value(hops) == group_hops
        if session.version == 4:
            assert packet.value("ip.dsfield.dscp") == _DSCP_EF
    # Section 13.5: to the group and to the source.
    assert {packet.destination for packet in session.by_name["SPMR"]} == {
        session.group,
        session.source,
    }


def test_spms_count_up_and_frame_the_data(session: Session) -> None:
    spms = session.by_name["SPM"]
    assert [spm.sqn for spm in spms] == list(range(len(spms)))
    first = spms[0]
    assert (first.value("pgm.spm.trail"), first.value("pgm.spm.lead")) == (0, 0xFFFF_FFFF)
    last_sqn = -1
    for packet in session.packets:
        if packet.name == "ODATA":
            last_sqn = packet.sqn
        elif packet.name == "SPM":
            assert packet.value("pgm.spm.lead") == last_sqn & 0xFFFF_FFFF
    for spm in spms:
        assert spm.value("pgm.spm.pathafi") == _NLA_FAMILY[session.version]
        assert spm.value("pgm.spm.res") == 0
        assert session.nla(spm, "pgm.spm.path") == session.source


def test_only_the_closing_spms_carry_fin_and_it_is_encoded_as_the_rfc_says(
    session: Session,
) -> None:
    spms = session.by_name["SPM"]
    closing = [spm for spm in spms if spm.options]
    assert len(closing) >= 3
    assert spms[-len(closing) :] == closing
    for spm in closing:
        # OPT_LENGTH with the total, then OPT_FIN, marked as the last (sections 9.1, 9.7); it is
        # not network-significant.
        assert spm.payload[spm.options_start :] == bytes.fromhex("00040008 8e040000")
        assert spm.options == [(_OPT_FIN, b"\0\0")]
        assert spm.payload[5] == _OPTIONS_PRESENT
    for spm in spms[: -len(closing)]:
        assert spm.payload[5] == 0


def test_data_is_numbered_from_zero_without_a_hole_and_repeated_as_it_was(
    session: Session,
) -> None:
    odata = session.by_name["ODATA"]
    assert [packet.sqn for packet in odata] == list(range(len(odata)))
    first_time = {packet.sqn: packet for packet in odata}
    largest = 1500 - (20 if session.version == 4 else 40) - 8 - 24 - 20
    for packet in [*odata, *session.by_name["RDATA"]]:
        assert packet.payload[5] == 0
        tsdu_bytes = packet.value("pgm.hdr.tsdulen")
        assert 3 <= tsdu_bytes <= largest
        assert len(packet.payload) == 24 + tsdu_bytes
        offset = int.from_bytes(packet.payload[24:26], "big")
        assert offset == 0xFFFF or offset <= tsdu_bytes - 2
    for packet in session.by_name["RDATA"]:
        # All but type, checksum and trail are the original's (section 8.2).
        original = first_time[packet.sqn].payload
        assert packet.payload[:4] == original[:4]
        assert packet.payload[8:20] == original[8:20]
        assert packet.payload[24:] == original[24:]


def test_naks_and_ncfs_name_source_and_group(session: Session) -> None:
    for packet in session.by_name["NAK"] + session.by_name["NCF"]:
        for end, address in (("src", session.source), ("grp", session.group)):
            assert packet.value(f"pgm.nak.{end}afi") == _NLA_FAMILY[session.version]
            assert packet.value(f"pgm.nak.{end}res") == 0
            assert session.nla(packet, f"pgm.nak.{end}") == address


def test_nak_lists_are_sorted_flagged_and_encoded_as_the_rfc_says(session: Session) -> None:
    for packet in session.by_name["NAK"] + session.by_name["NCF"]:
        numbers = [packet.sqn, *packet.nak_list]
        assert numbers == sorted(set(numbers))
        assert len(numbers) <= 63
        if len(numbers) == 1:
            assert packet.payload[5] == 0
            assert len(packet.payload) == packet.options_start
            continue
        # Section 9.3: network-significant, so the header has both flags.
        assert packet.payload[5] == _OPTIONS_PRESENT | _OPTIONS_NETWORK
        list_bytes = 4 + 4 * len(packet.nak_list)
        head = packet.payload[packet.options_start :][:8]
        total = (4 + list_bytes).to_bytes(2, "big")
        assert head == b"\x00\x04" + total + bytes([0x82, list_bytes, 0, 0])


def test_naks_ask_for_what_was_sent_and_ncfs_confirm_what_was_asked(session: Session) -> None:
    last_sqn, asked = -1, set()
    for packet in session.packets:
        if packet.name == "ODATA":
            last_sqn = packet.sqn
        elif packet.name == "NAK":
            asked |= {packet.sqn, *packet.nak_list}
            assert max(asked) <= last_sqn
        elif packet.name == "NCF":
            assert {packet.sqn, *packet.nak_list} <= asked
    assert {packet.sqn for packet in session.by_name["RDATA"]} <= asked
