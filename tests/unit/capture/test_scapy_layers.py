"""The scapy layers against captured peers, against our own builders, and against tshark.

The vectors have every packet type and every option, with fields read by a decoder that shares no
code with these layers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, split_layers
from scapy.sendrecv import sniff
from scapy.sessions import TCPSession
from scapy.utils import rdpcap

from mcast.capture import scapy_layers as layers
from mcast.pgm import packet as ours
from tests import tshark
from tests.vectors.pcap import CAPTURES, read_connection

VECTORS = json.loads((CAPTURES / "pgm_vectors.json").read_text(encoding="utf-8"))
COMPUTED = [v for v in VECTORS if int(v["decode"]["options"], 16) < 0x80]
"""Without parity, which the header says and no layer can know; OpenPGM's have wrong checksums."""
PGM_CAPTURES = sorted(CAPTURES.glob("*pgm_*.pcap"))
ZMTP_CAPTURES = [*sorted(CAPTURES.glob("zmtp_*.pcap")), CAPTURES / "radio_dish_tcp.pcap"]

BODY_FIELDS = {
    "spm_sqn": "sqn",
    "nla_afi": "path_afi",
    "src_afi": "source_afi",
    "src_nla": "source_nla",
    "grp_afi": "group_afi",
    "grp_nla": "group_nla",
    "subtype": "sub_type",
    "bo_ivl": "backoff",
    "rand": "random",
}
OPTION_FIELDS = {
    "tgs": "group_size",
    "list": "sqns",
    "apdu_len": "apdu_length",
    "tstamp": "timestamp",
    "acker": "acker_nla",
    "nla": "receiver_nla",
    "afi": "receiver_afi",
    "ivl": "interval",
    "sqn": "poll_sqn",
    "max": "maximum",
    "min": "minimum",
    "dlr": "dlr_nla",
    "tgsize": "size",
    "ne_wl": "ne_worst_link",
    "ne_wp": "ne_worst_path",
    "rx_wp": "receiver_worst_path",
    "rcvr": "receiver_nla",
}
UNSEEN_BY_TSHARK = {0x00, *range(0x0A, 0x12)}
"""Options whose type and length tshark 4.0 shows as words only (measured); OPT_LENGTH is apart."""


def forget_bytes(packet: Packet) -> Packet:
    """Make scapy build every layer and option anew instead of repeating what it read."""
    layer = packet
    while layer:
        layer.raw_packet_cache = None
        for value in layer.fields.values():
            for item in value if isinstance(value, list) else ():
                if isinstance(item, Packet):
                    forget_bytes(item)
        layer = layer.payload
    return packet


def number(value: object) -> object:
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_field_of_every_packet_type_is_read(vector: dict[str, Any]) -> None:
    packet = layers.PGM(bytes.fromhex(vector["hex"]))
    wanted = dict(vector["decode"])
    options = wanted.pop("opts", [])
    wanted.pop("checksum_ok")
    assert packet.sprintf("%PGM.type%") == wanted.pop("type")
    assert int(packet.flags) == number(wanted.pop("options"))
    assert packet.gsi.hex() == wanted.pop("gsi")
    for name in ("sport", "dport", "tsdu_length"):
        assert packet.getfieldval(name) == wanted.pop(name)
    assert packet.chksum == number(wanted.pop("checksum"))
    body = packet.payload
    tsdu = wanted.pop("tsdu", "").partition("...")[0]  # the long ones are cut there
    assert bytes(body.payload).hex().startswith(tsdu)
    for name, value in wanted.items():
        assert body.getfieldval(BODY_FIELDS.get(name) or name) == number(value), name
    found = body.fields.get("options", [])
    assert len(found) == len(options)
    for option, fields in zip(found, options, strict=True):
        check_option(option, fields)


def check_option(option: Packet, wanted: dict[str, Any]) -> None:
    fields = dict(wanted)
    kind = fields.pop("opt")
    assert option.name == f"PGM OPT_{kind}"
    raw = bytes(option)
    for place, name in ((2, "byte2"), (3, "byte3")):
        if name in fields:
            assert raw[place] == number(fields.pop(name))
    for name, value in fields.items():
        assert option.getfieldval(OPTION_FIELDS.get(name, name)) == value, (kind, name)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_packet_builds_from_its_fields_alone(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    assert bytes(forget_bytes(layers.PGM(raw))) == raw


@pytest.mark.parametrize("vector", COMPUTED, ids=lambda vector: vector["name"])
def test_what_is_left_alone_is_computed_as_the_peer_did(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    packet = forget_bytes(layers.PGM(raw))
    packet.flags = packet.chksum = packet.tsdu_length = None
    options = packet.payload.fields.get("options", [])
    for option in options[1:]:
        option.end = None
    if options:
        if not isinstance(options[-1], layers.PGMOptPathNla):
            for option in options[1:]:
                option.len = None
        packet.payload.options = options[1:]
    assert bytes(packet) == raw


def test_nak_is_what_the_engine_builds() -> None:
    source, group = bytes((10, 77, 0, 1)), bytes((239, 192, 1, 1))
    tsi = bytes(range(6)) + (9029).to_bytes(2, "big")
    packet = layers.PGM(sport=5555, dport=9029, gsi=tsi[:6]) / layers.PGMNak(
        sqn=3,
        source_nla="10.77.0.1",
        group_nla="239.192.1.1",
        options=[layers.PGMOptNakList(sqns=[4, 7])],
    )
    assert bytes(packet) == ours.build_nak(tsi, 5555, [3, 4, 7], source, group)


def test_spm_of_ipv6_is_what_the_engine_builds() -> None:
    nla = bytes.fromhex("fd000077000000000000000000000001")
    packet = layers.PGM(sport=9029, dport=5555, gsi=bytes(6)) / layers.PGMSpm(
        sqn=1, trail=2, lead=3, path_afi=2, path_nla="fd00:77::1", options=[layers.PGMOptFin()]
    )
    tsi = bytes(6) + (9029).to_bytes(2, "big")
    assert bytes(packet) == ours.build_spm(tsi, 5555, 1, 2, 3, nla, fin=True)


def test_current_group_size_is_of_the_network_but_on_odata() -> None:
    option = layers.PGMOptCurrTgsize(size=3)
    spm = layers.PGM(bytes(layers.PGM() / layers.PGMSpm(options=[option])))
    odata = layers.PGM(bytes(layers.PGM() / layers.PGMOdata(options=[option]) / b"x"))
    assert (int(spm.flags), int(odata.flags)) == (0x03, 0x01)


@pytest.fixture
def bound() -> Iterator[None]:
    """Ports of the captures bound to the layers, and free again for the other tests."""
    layers.bind_pgm(5555, 5560, 5562, 5570, 5580)
    layers.bind_radio(5700, 5701)
    layers.bind_zmtp(*range(5601, 5610), 5702)
    yield
    for port in (5555, 5560, 5562, 5570, 5580):
        split_layers(UDP, layers.PGM, dport=port)
    for port in (5700, 5701):
        split_layers(UDP, layers.RadioDatagram, dport=port)
    for port in (*range(5601, 5610), 5702):
        split_layers(TCP, layers.ZMTPStream, dport=port)
        split_layers(TCP, layers.ZMTPStream, sport=port)


@given(st.binary(max_size=80), st.sampled_from([0x00, 0x01]), st.sampled_from([5555, 5700]))
@pytest.mark.usefixtures("bound")
def test_any_datagram_is_kept_as_it_came(data: bytes, flags: int, port: int) -> None:
    payload = data[:5] + bytes((flags,)) + data[6:]
    raw = bytes(UDP(dport=port) / payload)
    assert bytes(UDP(raw)) == raw


@given(st.binary(max_size=80))
@pytest.mark.usefixtures("bound")
def test_any_segment_is_kept_as_it_came(data: bytes) -> None:
    raw = bytes(TCP(dport=5601) / data)
    assert bytes(TCP(raw)) == raw


@given(st.integers(0, 127), st.binary(max_size=40))
def test_option_of_an_odd_length_is_kept_as_it_came(number: int, value: bytes) -> None:
    option = bytes((0x80 | number, 4 + len(value), 0, 0)) + value
    area = bytes((0, 4)) + (4 + len(option)).to_bytes(2, "big") + option
    raw = bytes(layers.PGM(type=4, flags=1) / (bytes(8) + area))
    packet = layers.PGM(raw)
    assert len(packet.payload.options) == 2
    assert bytes(forget_bytes(packet)) == raw


def same_as_tshark(packet: Packet, judged: tshark.Packet) -> None:
    """Compare each field that tshark 4.0 shows and shows right."""
    body, fields = packet.payload, judged.fields
    pairs = [
        ("pgm.hdr.sport", packet.sport),
        ("pgm.hdr.dport", packet.dport),
        ("pgm.hdr.type", packet.type),
        ("pgm.hdr.opts", int(packet.flags)),
        ("pgm.hdr.tsdulen", packet.tsdu_length),
    ]
    for theirs, field in (
        ("pgm.spm.sqn", "sqn"),
        ("pgm.spm.trail", "trail"),
        ("pgm.spm.lead", "lead"),
        ("pgm.spm.pathafi", "path_afi"),
        ("pgm.nak.sqn", "sqn"),
        ("pgm.nak.srcafi", "source_afi"),
        ("pgm.nak.grpafi", "group_afi"),
    ):
        if theirs in fields:
            pairs.append((theirs, body.getfieldval(field)))
    for name, value in pairs:
        assert judged.value(name) == value, (judged.frame, name)
    assert judged.text("pgm.hdr.gsi").replace(":", "") == packet.gsi.hex()
    for prefix, field in (("spm.path", "path"), ("nak.src", "source"), ("nak.grp", "group")):
        for version in ("ipv4", "ipv6"):
            if f"pgm.{prefix}.{version}" in fields:
                theirs = judged.text(f"pgm.{prefix}.{version}")
                assert theirs == body.getfieldval(f"{field}_nla")
    options = [o for o in body.fields.get("options", []) if o.type not in UNSEEN_BY_TSHARK]
    kinds = [int(kind, 0) & 0x7F for kind in fields.get("pgm.genopts.type", [])]
    assert [option.type for option in options] == kinds
    lengths = [int(size) for size in fields.get("pgm.genopts.len", [])]
    assert [option.len for option in options] == lengths


@pytest.mark.interop("tshark")
@pytest.mark.parametrize("path", PGM_CAPTURES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("bound")
def test_layers_agree_with_tshark(path: Path) -> None:
    packets = rdpcap(str(path))
    ports = {packet[UDP].dport for packet in packets if UDP in packet and layers.PGM in packet}
    judged_count = 0
    for port in ports:
        for judged in tshark.dissect(path, port):
            packet = packets[judged.frame - 1]
            assert bytes(packet[layers.PGM]) == judged.payload
            if "pgm.hdr.type" in judged.fields:  # tshark 4.0 knows no SPMR
                same_as_tshark(packet[layers.PGM], judged)
                judged_count += 1
            source = packet[IP].src if IP in packet else packet[IPv6].src
            assert source == judged.source
    assert judged_count > 0


@pytest.mark.parametrize("path", ZMTP_CAPTURES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("bound")
def test_frames_of_a_connection_are_all_found(path: Path) -> None:
    heard = sniff(offline=str(path), session=TCPSession, store=True)
    found = {True: b"", False: b""}
    server = min(p[TCP].sport for p in heard)
    for packet in heard:
        if layers.ZMTPStream in packet:
            stream = packet[layers.ZMTPStream]
            whole = b"".join(bytes(forget_bytes(item)) for item in stream.items)
            found[packet[TCP].sport != server] += whole
    sent = {True: b"", False: b""}
    for segment in read_connection(path.stem):
        sent[segment.from_connecter] += segment.data
    assert found == sent


@pytest.mark.usefixtures("bound")
def test_commands_of_a_connection_are_read() -> None:
    heard = sniff(offline=str(CAPTURES / "zmtp_null_hb.pcap"), session=TCPSession, store=True)
    items = [item for p in heard if layers.ZMTPStream in p for item in p[layers.ZMTPStream].items]
    assert [item.mechanism.rstrip(b"\0") for item in items if "mechanism" in item.fields] == [
        b"NULL",
        b"NULL",
    ]
    ready = next(item for item in items if layers.ZMTPReady in item)[layers.ZMTPReady]
    assert [(item.key, item.value) for item in ready.metadata] == [(b"Socket-Type", b"PUB")]
    topics = [i[layers.ZMTPSubscribe].topic for i in items if layers.ZMTPSubscribe in i]
    assert topics == [b"A", b"topic"]
    assert {item[layers.ZMTPPing].ttl for item in items if layers.ZMTPPing in item} == {20}
    assert [i[layers.ZMTPCancel].topic for i in items if layers.ZMTPCancel in i] == [b"A"]
    messages = [i for i in items if isinstance(i, layers.ZMTPFrame) and not i.is_command]
    assert [(item.more, len(bytes(item.payload))) for item in messages] == [
        (1, 2),
        (0, 4),
        (0, 305),
    ]


def test_frame_says_how_its_size_is_written() -> None:
    short, long = layers.ZMTPFrame() / bytes(255), layers.ZMTPFrame(more=1) / bytes(256)
    assert bytes(short)[:2] == b"\x00\xff"
    assert bytes(long)[:9] == b"\x03" + (256).to_bytes(8, "big")
    command = layers.ZMTPFrame(is_command=1) / layers.ZMTPCommand() / layers.ZMTPJoin(group=b"g")
    assert bytes(command) == b"\x04\x06\x04JOINg"


@pytest.mark.parametrize("name", ["radio_dish_mcast", "radio_dish_ucast"])
@pytest.mark.usefixtures("bound")
def test_radio_datagrams_are_read(name: str) -> None:
    heard = [p[layers.RadioDatagram] for p in rdpcap(str(CAPTURES / f"{name}.pcap"))]
    assert [(p.group, bytes(p.payload)) for p in heard] == [
        (b"Movies", b"Godfather"),
        (b"TV", b"FamilyGuy"),
        (b"Movies", b""),
        (b"x" * 127, b"g127"),
    ]
    assert bytes(layers.RadioDatagram(group=b"TV") / b"FamilyGuy") == bytes(heard[1])


@pytest.mark.usefixtures("bound")
def test_libzmq_payload_is_read_when_asked_for() -> None:
    layers.bind_pgm(5555, libzmq=True)
    try:
        packet = rdpcap(str(CAPTURES / "epgm_lo_basic.pcap"))[3]
        tsdu = packet[layers.LibzmqTSDU]
        assert (tsdu.offset, tsdu.stream) == (0, b"\x02\x00A")
    finally:
        split_layers(layers.PGMOdata, layers.LibzmqTSDU)
        split_layers(layers.PGMRdata, layers.LibzmqTSDU)
