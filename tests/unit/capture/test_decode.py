"""Whole captures: every one of real peers against what it is known to hold, and against tshark."""

from __future__ import annotations

import io
import struct
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from mcast.capture import streams
from mcast.capture.decode import Decoder, Heard, Seen
from mcast.capture.fields import packet_fields, session_fields, stream_fields, summary_fields
from mcast.capture.files import CaptureFile
from mcast.capture.lines import PacketLines
from mcast.capture.streams import PgmStream
from mcast.capture.write import datagram_packet
from mcast.kernel import Message
from mcast.pgm.packet import build_nak, build_ncf, build_spm
from tests import tshark
from tests.unit.capture.files import GROUP, SOURCE, START_NS, opened, pcap, pcapng, udp
from tests.unit.kernel.packets import ODATA, RDATA, data_packet, tsdu
from tests.vectors.pcap import CAPTURES

ALL = sorted(CAPTURES.glob("*.pcap"))
PGM = sorted(CAPTURES.glob("*pgm_*.pcap"))
TSI = bytes(range(6)) + (9029).to_bytes(2, "big")
PORT = 5555
STEP_NS = 1_000_000


def decoded(data: bytes, **options: object) -> tuple[Decoder, list[Message]]:
    decoder = Decoder(opened(data), messages=True, **options)  # type: ignore[arg-type]
    return decoder, [step.message for step in decoder.steps() if isinstance(step, Heard)]


def only_stream(decoder: Decoder) -> PgmStream:
    (stream,) = decoder.streams.values()
    return stream


@pytest.mark.parametrize(
    ("name", "message_count", "repaired", "unanswered", "last"),
    [
        ("epgm_lo_basic", 8, [], [], 9),
        ("epgm_heartbeat", 1, [], [], 0),
        ("epgm_repair_src", 7, [2, 3, 2, 5], [], 8),
        ("epgm_repair_rcv", 7, [2, 3, 2, 5], [], 8),
        ("epgm_latejoin_spmr", 100, [], [], 99),
        ("epgm_unrecoverable", 31, [3] * 7, [], 30),
        ("epgm_loss_multipart", 34, [2] * 5, [2], 35),
        ("epgm_ncf_lost", 6, [2] * 9, [], 5),
        ("epgm_lo_nak_misdirected", 5, [], [2], 4),
        ("epgm_lo_nak_ok", 5, [2], [], 4),
        ("epgm_ipv6", 6, [2], [], 5),
        ("epgm_nak_suppression", 9, [3, 4, 5, 6], [], 8),
    ],
)
def test_capture_of_libzmq_holds_what_is_known_of_it(
    name: str, message_count: int, repaired: list[int], unanswered: list[int], last: int
) -> None:
    decoder, messages = decoded((CAPTURES / f"{name}.pcap").read_bytes())
    stream = only_stream(decoder)
    assert len(messages) == stream.message_count == message_count
    assert [repair.sqn for repair in stream.repairs] == repaired
    assert stream.unanswered == unanswered
    assert (stream.first_sqn, stream.last_sqn) == (0, last)
    assert (stream.gap_count, stream.lost_count, stream.malformed_count) == (0, 0, 0)
    # The capture sits in front of the filter that lost them, so repairs are second copies here.
    assert stream.duplicate_count == stream.counts["RDATA"]
    assert not decoder.error


def same_as_tshark(fields: dict[str, object], judged: tshark.Packet) -> None:
    """Every field that tshark 4.0 shows of a packet, next to ours."""
    shown = judged.fields
    names = {
        "pgm.hdr.sport": "pgm_source_port",
        "pgm.hdr.dport": "pgm_destination_port",
        "pgm.hdr.opts": "flags",
        "pgm.hdr.tsdulen": "tsdu_length",
        "pgm.spm.trail": "trail",
        "pgm.spm.lead": "lead",
        "pgm.nak.sqn": "sqn",
        "udp.srcport": "source_port",
        "udp.dstport": "destination_port",
        "ip.ttl": "hops",
        "ipv6.hlim": "hops",
    }
    sqn_name = "spm_sqn" if fields["type"] == "SPM" else "sqn"
    for theirs, ours in (names | {"pgm.spm.sqn": sqn_name}).items():
        if theirs in shown:
            assert judged.value(theirs) == fields[ours], (judged.frame, theirs)
    assert judged.text("pgm.hdr.gsi").replace(":", "") == fields["gsi"]
    for theirs, ours in (
        ("pgm.spm.path", "path_nla"),
        ("pgm.nak.src", "source_nla"),
        ("pgm.nak.grp", "group_nla"),
    ):
        for version in ("ipv4", "ipv6"):
            if f"{theirs}.{version}" in shown:
                assert str(ip_address(judged.text(f"{theirs}.{version}"))) == fields[ours]
    is_good = judged.text("pgm.hdr.cksum.status") == "1"
    assert is_good == (fields["fault"] != "checksum")
    assert (judged.source, judged.destination) == (fields["source"], fields["destination"])
    assert judged.nak_list == fields.get("nak_list", [])
    options = fields["options"]
    assert isinstance(options, list)
    seen = [o for o in options if not 0x0A <= o["type"] <= 0x11]  # the others tshark only names
    assert [int(k, 0) & 0x7F for k in shown.get("pgm.genopts.type", [])] == [
        o["type"] for o in seen
    ]
    assert [int(n) for n in shown.get("pgm.genopts.len", [])] == [o["length"] for o in seen]


@pytest.mark.interop("tshark")
@pytest.mark.parametrize("path", PGM, ids=lambda path: path.stem)
def test_every_packet_agrees_with_tshark_field_by_field(path: Path) -> None:
    port = next(iter({5555} if "pgm_vectors" in path.stem else udp_ports(path)))
    decoder = Decoder(opened(path.read_bytes()), packets=True, pgm_ports=frozenset((port,)))
    ours = {step.transport.frame: step for step in decoder.steps() if isinstance(step, Seen)}
    theirs = {packet.frame: packet for packet in tshark.dissect(path, port)}
    assert ours.keys() == theirs.keys()
    for frame, seen in ours.items():
        assert bytes(seen.transport.payload) == theirs[frame].payload
        assert abs(theirs[frame].time_s - seen.transport.time_ns / 1e9) < 1e-6
        if "pgm.hdr.type" in theirs[frame].fields:  # tshark 4.0 knows no SPMR
            fields = packet_fields(seen)
            assert fields["type"] == theirs[frame].name
            same_as_tshark(fields, theirs[frame])


def udp_ports(path: Path) -> set[int]:
    decoder = Decoder(opened(path.read_bytes()))
    for _ in decoder.steps():
        pass
    return {stream.port for stream in decoder.streams.values()}


@pytest.mark.interop("tshark")
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_frames_are_counted_as_tshark_counts(path: Path) -> None:
    listed = subprocess.run(
        ["tshark", "-n", "-r", str(path)], capture_output=True, text=True, check=True
    )
    decoder, _ = decoded(path.read_bytes())
    assert decoder.file.frame_count == len(listed.stdout.splitlines())


def test_report_is_the_same_with_and_without_what_is_printed_on_the_way() -> None:
    """``packets`` leads every packet through Python; otherwise the kernel walks past most."""
    for path in ALL:
        reports = []
        for packets in (False, True):
            decoder = Decoder(opened(path.read_bytes()), packets=packets)
            for _ in decoder.steps():
                pass
            report = [stream_fields(stream) for stream in decoder.streams.values()]
            for fields in report:
                del fields["trail"]  # the kernel does not look at it while nothing is missing
            reports.append((report, summary_fields(decoder)))
        assert reports[0] == reports[1], path.stem


@pytest.mark.parametrize("is_json", [False, True])
def test_packets_are_the_same_lines_whoever_writes_them(is_json: bool) -> None:
    """The kernel writes those of plain data, unless messages are wanted between them."""
    texts = [path.read_bytes() for path in ALL]
    numbers = [0, 2, 3, 1, *range(4, 40)]
    for packet in (data, lambda sqn: udp6(data_packet(sqn, tsdu(b"six"), tsi=TSI, dport=PORT))):
        texts.append(pcap([(START_NS + sqn, packet(sqn)) for sqn in numbers]))
        texts.append(pcapng([(START_NS + sqn, packet(sqn)) for sqn in numbers]) * 2)
    for text in texts:
        written = []
        for messages in (False, True):
            decoder = Decoder(opened(text), messages=messages)
            steps = decoder.steps_and_lines(PacketLines(is_json=is_json))
            written.append(b"".join(step for step in steps if isinstance(step, bytes)))
        decoder = Decoder(opened(text), packets=True)
        seen = [step for step in decoder.steps() if isinstance(step, Seen)]
        assert written[0] == written[1] == b"".join(map(PacketLines(is_json=is_json).line, seen))


def udp6(payload: bytes) -> bytes:
    return datagram_packet(bytes(15) + b"\1", b"\xff\x08" + bytes(14), 40000, PORT, payload, 7)


@pytest.mark.parametrize(
    ("name", "mechanism", "kinds", "sent", "subscribed"),
    [
        ("zmtp_null_pubsub", "NULL", ("SUB", "PUB"), (0, 2), ["A", "topic"]),
        ("zmtp_null_hb", "NULL", ("SUB", "PUB"), (0, 2), ["A", "topic"]),
        ("zmtp_null_reqrep", "NULL", ("REQ", "REP"), (1, 1), []),
        ("zmtp_null_router", "NULL", ("DEALER", "ROUTER"), (2, 1), []),
        ("zmtp_plain_pubsub", "PLAIN", ("SUB", "PUB"), (0, 2), ["A", "topic"]),
        ("zmtp_plain_bad", "PLAIN", (None, None), (0, 0), []),
        ("zmtp_curve_pubsub", "CURVE", (None, None), (3, 3), []),
        ("zmtp_curve_reqrep", "CURVE", (None, None), (3, 2), []),
    ],
)
def test_connection_is_followed(
    name: str,
    mechanism: str,
    kinds: tuple[str | None, str | None],
    sent: tuple[int, int],
    subscribed: list[str],
) -> None:
    decoder, messages = decoded((CAPTURES / f"{name}.pcap").read_bytes())
    (session,) = decoder.sessions.sessions
    ends = (session.from_client, session.from_server)
    assert all(end.version == (3, 1) and end.mechanism == mechanism for end in ends)
    assert tuple(end.metadata.get("Socket-Type") for end in ends) == kinds
    assert tuple(end.message_count for end in ends) == sent
    assert len(messages) == sum(sent)
    assert session.from_client.subscriptions == subscribed
    assert session.from_server.error == ("400" if name == "zmtp_plain_bad" else "")
    assert session_fields(session)["end"] == ("" if name == "zmtp_null_hb" else "closed")


def test_radio_is_read_on_the_ports_that_are_named() -> None:
    data = (CAPTURES / "radio_dish_mcast.pcap").read_bytes()
    _, messages = decoded(data, radio_ports=frozenset((5700,)))
    assert messages[:3] == [(b"Movies", b"Godfather"), (b"TV", b"FamilyGuy"), (b"Movies", b"")]
    decoder, messages = decoded(data)
    assert (messages, decoder.udp_others_count) == ([], 4)


# -- streams made for the purpose -----------------------------------------------------------------


def data(sqn: int, *, trail: int = 0, kind: int = ODATA, text: bytes | None = None) -> bytes:
    body = tsdu(b"m%d" % sqn if text is None else text)
    return udp(data_packet(sqn, body, trail=trail, kind=kind, tsi=TSI, dport=PORT))


def nak(*sqns: int) -> bytes:
    return udp(build_nak(TSI, PORT, sqns, SOURCE, GROUP), source=GROUP[:3] + b"\x09", group=SOURCE)


def ncf(*sqns: int) -> bytes:
    return udp(build_ncf(TSI, PORT, sqns, SOURCE, GROUP))


def spm(sqn: int, trail: int, lead: int) -> bytes:
    return udp(build_spm(TSI, PORT, sqn, trail, lead, SOURCE))


def made(*packets: bytes, ng: bool = False) -> tuple[PgmStream, list[Message]]:
    timed = [(START_NS + STEP_NS * place, packet) for place, packet in enumerate(packets)]
    decoder, messages = decoded((pcapng if ng else pcap)(timed))
    return only_stream(decoder), messages


@pytest.mark.parametrize("ng", [False, True])
def test_gap_that_is_repaired_is_paired_with_its_nak(ng: bool) -> None:
    stream, messages = made(
        data(0), data(2), data(3), nak(1), ncf(1), data(1, kind=RDATA), data(4), ng=ng
    )
    assert messages == [b"m0", b"m1", b"m2", b"m3", b"m4"]
    assert (stream.gap_count, stream.missing_count, stream.repaired_count) == (1, 1, 1)
    assert stream.gaps == [streams.Gap(1, 1, START_NS + STEP_NS)]
    at = [START_NS + STEP_NS * place for place in (3, 4, 5)]
    assert stream.repairs == [streams.Repair(1, *at)]
    assert stream_fields(stream)["repair_ms_median"] == 2.0
    assert stream.lost_count == 0


def test_packet_of_a_time_that_no_clock_shows_is_read_all_the_same() -> None:
    """The compiled kernel raised OverflowError, and with it the whole reading."""
    packets = [((2**64 - 1) * 1000, data(sqn)) for sqn in range(3)]
    decoder, messages = decoded(pcapng(packets, tsresol=6))
    assert messages == [b"m0", b"m1", b"m2"]
    flow = only_stream(decoder).flow
    assert flow is not None
    assert (flow.first_ns, flow.last_ns) == (1 << 62, 1 << 62)


def test_packets_out_of_order_are_no_loss() -> None:
    stream, messages = made(data(0), data(3), data(2), data(1), data(4))
    assert messages == [b"m0", b"m1", b"m2", b"m3", b"m4"]
    assert (stream.gap_count, stream.reordered_count, stream.lost_count) == (1, 2, 0)


def test_what_the_window_has_left_behind_is_lost_and_late_if_it_comes() -> None:
    stream, messages = made(data(0), data(3), spm(1, 2, 3), data(2), data(1), data(4, trail=2))
    assert messages == [b"m0", b"m2", b"m3", b"m4"]
    assert [(gap.first, gap.last) for gap in stream.lost] == [(1, 1)]
    assert (stream.lost_count, stream.late_count, stream.reordered_count) == (1, 1, 1)


def test_what_never_comes_is_lost_at_the_end() -> None:
    stream, messages = made(data(0), data(5), data(6))
    assert messages == [b"m0", b"m5", b"m6"]
    assert [(gap.first, gap.last) for gap in stream.lost] == [(1, 4)]


def test_second_copies_are_counted() -> None:
    stream, messages = made(data(0), data(0), data(2), data(2), data(1), data(0, kind=RDATA))
    assert messages == [b"m0", b"m1", b"m2"]
    assert stream.duplicate_count == 3


def test_numbers_wrap() -> None:
    first = (1 << 32) - 2
    packets = [data((first + n) % (1 << 32), trail=first, text=b"%d" % n) for n in (0, 1, 3, 2, 4)]
    stream, messages = made(*packets)
    assert messages == [b"0", b"1", b"2", b"3", b"4"]
    assert (stream.first_sqn, stream.last_sqn, stream.lost_count) == (first, first + 4, 0)


def test_far_jump_is_a_restart_and_costs_nothing() -> None:
    stream, messages = made(data(0), data(2_000_000_000, trail=2_000_000_000), data(5))
    assert stream.restart_count == 2
    assert messages == [b"m0", b"m2000000000", b"m5"]
    assert stream.lost_count == 0


def test_unanswered_naks_are_named() -> None:
    stream, _ = made(data(0), nak(7, 9), ncf(7), data(1))
    assert stream.unanswered == [7, 9]


def test_early_packets_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcast.capture.decode._EARLY_LIMIT_BYTES", 1000)
    body = b"x" * 200
    stream, messages = made(data(0), *(data(2 * n, text=body) for n in range(1, 20)))
    assert len(messages) == 20
    assert stream.lost_count == 19
    assert stream.slots is not None
    assert stream.slots.stored_bytes == 0


def test_holes_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcast.capture.streams._HOLE_LIMIT", 4)
    stream, messages = made(*(data(2 * n) for n in range(20)), data(1))
    assert (len(messages), stream.lost_count, stream.late_count) == (20, 19, 1)


def test_truncated_capture_reports_what_came_before() -> None:
    whole = pcap([(START_NS, data(0)), (START_NS, data(1))])
    decoder, messages = decoded(whole[:-3])
    assert messages == [b"m0"]
    assert "cut off" in decoder.error
    assert summary_fields(decoder)["frames"] == 1


def test_all_streams_together_hold_a_limited_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcast.capture.decode._TOTAL_EARLY_LIMIT_BYTES", 20_000)
    monkeypatch.setattr("mcast.capture.files.CHUNK_BYTES", 500)
    packets = []
    for place in range(400):
        tsi = bytes((place % 10,)) + TSI[1:]
        packet = data_packet(2 * (place // 10), tsdu(b"x"), trail=0, tsi=tsi, dport=PORT)
        packets += [udp(packet), udp(build_nak(tsi, PORT, [1000 + place], SOURCE, GROUP))]
    decoder = Decoder(opened(pcap((START_NS, packet) for packet in packets)))
    most = 0
    for _ in decoder.steps():
        most = max(most, sum(stream.held_bytes for stream in decoder.streams.values()))
    assert 10_000 < most < 30_000
    lost = [gap.time_ns for stream in decoder.streams.values() for gap in stream.lost]
    assert len(lost) == 10 * 39
    assert all(stream.message_count == 40 for stream in decoder.streams.values())


def test_messages_under_way_are_limited_and_the_next_ones_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcast.capture.decode._TOTAL_UNFINISHED_LIMIT_BYTES", 3000)
    monkeypatch.setattr("mcast.capture.files.CHUNK_BYTES", 500)
    begin = b"\0\0\xff" + (100_000).to_bytes(8, "big") + b"\0"
    long = [begin + bytes(400), *[b"\xff\xff" + bytes(400)] * 20]
    packets = [
        udp(data_packet(sqn, body, tsi=TSI, dport=PORT))
        for sqn, body in enumerate([*long, tsdu(b"next")])
    ]
    decoder, messages = decoded(pcap((START_NS, packet) for packet in packets))
    assert messages == [b"next"]
    assert only_stream(decoder).odata_count == 22


def test_lists_of_all_streams_together_are_limited_and_counts_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcast.capture.room.ENTRY_LIMIT", 5)
    stream, _ = made(*(data(2 * n) for n in range(20)))
    assert len(stream.gaps) + len(stream.lost) == 5
    assert (stream.gap_count, stream.lost_count) == (19, 19)


def test_early_segments_of_all_connections_together_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mcast.capture.room.UNFINISHED_LIMIT_BYTES", 2000)
    greeting = b"\xff" + bytes(8) + b"\x7f\3\1NULL" + bytes(48)
    packets = []
    for port in range(1, 11):
        for sqn, payload in ((0, greeting), (100, bytes(500))):
            head = struct.pack("!HHIIBBHHH", port, 5555, sqn, 0, 0x50, 0x10, 0, 0, 0)
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 0, 0, 1, 6, 0)
            packets.append(ip + SOURCE + GROUP + head + payload)
    decoder, _ = decoded(pcap((START_NS, packet) for packet in packets))
    sessions = decoder.sessions.sessions
    faults = [session.from_client.fault for session in sessions]
    assert len(sessions) == 10
    assert faults == [""] * 3 + ["a segment is missing in the capture, as in many connections"] * 7


@pytest.mark.parametrize(("seconds", "wanted_ns"), [(1 << 63, 1 << 62), (9, 9_000_000_000)])
def test_time_that_cannot_be_is_moved_to_the_end_of_what_can(seconds: int, wanted_ns: int) -> None:
    whole = pcapng([(0, data(0))], tsresol=0)
    at = len(pcapng([])) + 12
    timed = whole[:at] + struct.pack("<II", seconds >> 32, seconds & 0xFFFFFFFF) + whole[at + 8 :]
    decoder, messages = decoded(timed)
    assert (messages, decoder.last_ns) == ([b"m0"], wanted_ns)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file() -> None:
    """40 MB in order: what is held at the end is one chunk, and no message."""
    body = b"x" * 1400
    record = pcap([(START_NS, data(0, text=body))])[24:]

    class Endless(io.RawIOBase):
        sqn = 0

        def read(self, size: int = -1) -> bytes:
            if not self.sqn:
                self.sqn = 1
                return pcap([])
            pieces = []
            for _ in range(size // len(record) if self.sqn < 28_000 else 0):
                pieces.append(pcap([(START_NS, data(self.sqn - 1, text=body))])[24:])
                self.sqn += 1
            return b"".join(pieces)

    decoder = Decoder(CaptureFile(Endless().read))
    for _ in decoder.steps():
        pass
    stream = only_stream(decoder)
    assert stream.message_count == stream.odata_count == decoder.file.frame_count > 28_000
    assert stream.slots is not None
    assert stream.slots.stored_bytes == 0
    assert len(decoder.file._data) < 2 << 20
