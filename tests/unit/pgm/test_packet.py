"""Packets: every vector, every truncation, every flipped bit, and whatever hypothesis thinks of."""

from __future__ import annotations

import json
from ipaddress import ip_address
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcast.pgm.packet import (
    NAK_LIST_LIMIT,
    TYPE_NAMES,
    Ack,
    Data,
    Fragment,
    Nak,
    OptionType,
    Packet,
    PacketError,
    Poll,
    Polr,
    Spm,
    Spmr,
    build_nak,
    build_ncf,
    build_spm,
    build_spmr,
    inspect_untrusted,
    parse_untrusted,
    tsi_of,
    tsi_text,
)
from tests.unit.pgm import packets
from tests.unit.pgm.packets import SOURCE, TSI, option, option_area, seal
from tests.unit.pgm.wire import GROUP_ADDRESS, PORT
from tests.vectors.pcap import CAPTURES, read_capture

VECTORS = json.loads((CAPTURES / "pgm_vectors.json").read_text())
OPTION_NUMBERS = {
    name: number for name, number in vars(OptionType).items() if isinstance(number, int)
}
REASONS = {
    "truncated",
    "version",
    "type",
    "checksum",
    "checksum_missing",
    "parity",
    "option",
    "length",
    "address_family",
}
PARITY = 0x80


def reason_of(raw: bytes) -> str | None:
    """Why the packet is refused, or None if it is not. Lets any other exception pass."""
    try:
        parse_untrusted(raw)
    except PacketError as error:
        return error.reason
    return None


# The vectors.


def name_of(vector: dict[str, object]) -> str:
    return str(vector["name"])


def is_parity(vector: dict[str, object]) -> bool:
    return bool(bytes.fromhex(str(vector["hex"]))[5] & PARITY)


def without_parity(raw: bytes) -> bytes:
    return seal(raw[:5] + bytes((raw[5] & ~PARITY,)) + raw[6:])


def test_the_vectors_hold_every_packet_type_and_option() -> None:
    types = {vector["decode"]["type"] for vector in VECTORS}
    options = {opt["opt"] for vector in VECTORS for opt in vector["decode"].get("opts", ())}
    assert len(VECTORS) == 38
    assert types == set(TYPE_NAMES.values())
    assert options == set(OPTION_NUMBERS) - {"INVALID"}


def test_the_vectors_of_the_capture_file_are_those_of_the_list() -> None:
    payloads = [datagram.payload for datagram in read_capture("pgm_vectors")]
    assert payloads == [bytes.fromhex(vector["hex"]) for vector in VECTORS]


@pytest.mark.parametrize("vector", [v for v in VECTORS if not is_parity(v)], ids=name_of)
def test_a_vector_is_parsed_to_its_fields(vector: dict[str, object]) -> None:
    check_fields(bytes.fromhex(str(vector["hex"])), vector["decode"])


@pytest.mark.parametrize("vector", [v for v in VECTORS if is_parity(v)], ids=name_of)
def test_a_parity_vector_is_refused_as_such(vector: dict[str, object]) -> None:
    raw = bytes.fromhex(str(vector["hex"]))
    decode = vector["decode"]
    assert isinstance(decode, dict)
    # OpenPGM's own parity packets carry a wrong checksum, and that is noticed first.
    assert reason_of(raw) == ("parity" if decode["checksum_ok"] else "checksum")
    assert reason_of(seal(raw)) == "parity"
    # Apart from that flag the packet reads like any other.
    check_fields(
        without_parity(raw), decode | {"options": f"{raw[5] & ~PARITY:#04x}", "checksum": None}
    )


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_who_looks_on_sees_every_packet_and_why_it_is_dropped(vector: dict[str, object]) -> None:
    raw = seal(bytes.fromhex(str(vector["hex"])))
    found, fault = inspect_untrusted(raw)
    assert fault == ("parity" if is_parity(vector) else "")
    assert found.body == parse_untrusted(seal(without_parity(raw))).body
    damaged, fault = inspect_untrusted(raw[:6] + bytes((raw[6] ^ 1,)) + raw[7:])
    assert fault == "checksum"
    assert damaged.body == found.body


def test_who_looks_on_is_refused_what_cannot_be_read() -> None:
    raw = packets.odata(1, "a")
    with pytest.raises(PacketError, match="truncated"):
        inspect_untrusted(raw[:10])
    with pytest.raises(PacketError, match="length"):
        inspect_untrusted(raw + b"x")


def check_fields(raw: bytes, decode: object) -> None:
    assert isinstance(decode, dict)
    parsed = parse_untrusted(raw)
    header = parsed.header
    assert (header.source_port, header.destination_port) == (decode["sport"], decode["dport"])
    assert TYPE_NAMES[header.type] == decode["type"]
    assert header.flags == int(decode["options"], 16)
    if decode["checksum"] is not None:
        assert header.checksum == int(decode["checksum"], 16)
    assert header.gsi.hex() == decode["gsi"]
    assert header.tsdu_length == decode["tsdu_length"]
    check_body(parsed, decode)
    expected = [opt for opt in decode.get("opts", ()) if opt["opt"] != "LENGTH"]
    assert len(parsed.options.all) == len(expected)
    for found, wanted in zip(parsed.options.all, expected, strict=True):
        assert found.type == OPTION_NUMBERS[wanted["opt"]]
        assert 4 + len(found.value) == wanted["len"]
        if "byte2" in wanted:
            assert (found.byte2, found.byte3) == (
                int(wanted["byte2"], 16),
                int(wanted["byte3"], 16),
            )
        check_option(parsed, found.value, wanted)


def check_body(parsed: Packet, decode: dict[str, object]) -> None:
    body = parsed.body
    if isinstance(body, Spm):
        wanted = tuple(decode[key] for key in ("spm_sqn", "trail", "lead"))
        assert (body.sqn, body.trail, body.lead) == wanted
        assert str(ip_address(body.path_nla)) == decode["path_nla"]
    elif isinstance(body, Data):
        assert (body.sqn, body.trail) == (decode["sqn"], decode["trail"])
        assert len(body.tsdu) == decode["tsdu_length"]
        assert bytes(body.tsdu).hex().startswith(str(decode["tsdu"]).partition("...")[0])
    elif isinstance(body, Nak):
        assert body.sqn == decode["sqn"]
        assert str(ip_address(body.source_nla)) == decode["src_nla"]
        assert str(ip_address(body.group_nla)) == decode["grp_nla"]
    elif isinstance(body, Poll):
        assert (body.sqn, body.round, body.sub_type) == (
            decode["sqn"],
            decode["round"],
            decode["subtype"],
        )
        assert str(ip_address(body.path_nla)) == decode["path_nla"]
        assert body.backoff_us == decode["bo_ivl"]
        assert (body.random, body.mask) == tuple(int(str(decode[k]), 16) for k in ("rand", "mask"))
    elif isinstance(body, Polr):
        assert (body.sqn, body.round) == (decode["sqn"], decode["round"])
    elif isinstance(body, Ack):
        assert (body.rx_max, body.bitmap) == (decode["rx_max"], int(str(decode["bitmap"]), 16))
    else:
        assert isinstance(body, Spmr)


def check_option(parsed: Packet, value: bytes, wanted: dict[str, object]) -> None:
    options = parsed.options
    match wanted["opt"]:
        case "FRAGMENT":
            keys = ("first_sqn", "offset", "apdu_len")
            assert options.fragment == Fragment(*(wanted[key] for key in keys))  # type: ignore[arg-type]
        case "NAK_LIST":
            assert list(options.nak_list) == wanted["list"]
        case "JOIN":
            assert options.join == wanted["min_sqn"]
        case "NAK_BO_IVL":
            assert options.nak_bo_ivl_us == wanted["ivl"]
        case "NAK_BO_RNG":
            assert value == pack("!II", wanted["max"], wanted["min"])
        case "SYN":
            assert options.syn
        case "FIN":
            assert options.fin
        case "RST":
            assert options.reset
        case "NBR_UNREACH":
            assert options.unreachable
        case "PARITY_PRM":
            assert value == pack("!I", wanted["tgs"])
        case "PARITY_GRP":
            assert value == pack("!I", wanted["group"])
        case "CURR_TGSIZE":
            assert value == pack("!I", wanted["tgsize"])
        case "PATH_NLA":
            assert str(ip_address(value)) == wanted["path_nla"]
        case "REDIRECT":
            assert str(ip_address(value[4:])) == wanted["dlr"]
        case "CR":
            head = pack("!IHHH", *(wanted[key] for key in ("lead", "ne_wl", "ne_wp", "rx_wp")))
            assert value[:10] == head
            assert str(ip_address(value[16:])) == wanted["rcvr"]
        case "PGMCC_DATA":
            assert value[:4] == pack("!I", wanted["tstamp"])
            assert str(ip_address(value[8:])) == wanted["acker"]
        case "PGMCC_FEEDBACK":
            assert value[:8] == pack("!IHH", wanted["tstamp"], wanted["afi"], wanted["loss_rate"])
            assert str(ip_address(value[8:])) == wanted["nla"]
        case "CRQST":
            assert value == b""
        case other:
            pytest.fail(f"no check for {other}")


# What is built reads back, and reads as the peers' own bytes.

SQN = st.integers(0, packets.MASK)
ADDRESS = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
SQNS = st.lists(SQN, min_size=1, max_size=NAK_LIST_LIMIT, unique=True).map(sorted)
ANY_TSI = st.binary(min_size=8, max_size=8)
ANY_PORT = st.integers(1, 65535)


@given(ANY_TSI, ANY_PORT, SQN, SQN, SQN, ADDRESS, st.booleans())
def test_a_built_spm_reads_back(
    tsi: bytes, dport: int, sqn: int, trail: int, lead: int, path: bytes, fin: bool
) -> None:
    raw = build_spm(tsi, dport, sqn, trail, lead, path, fin=fin)
    parsed = parse_untrusted(raw)
    assert parsed.body == Spm(sqn, trail, lead, path)
    assert parsed.options.fin == fin
    assert (tsi_of(raw), parsed.header.destination_port) == (tsi, dport)


@given(ANY_TSI, ANY_PORT, SQNS, ADDRESS, ADDRESS)
def test_a_built_nak_and_its_ncf_read_back(
    tsi: bytes, port: int, sqns: list[int], source: bytes, group: bytes
) -> None:
    nak, ncf = (build(tsi, port, sqns, source, group) for build in (build_nak, build_ncf))
    for raw in (nak, ncf):
        parsed = parse_untrusted(raw)
        assert parsed.body == Nak(sqns[0], source, group)
        assert list(parsed.options.nak_list) == sqns[1:]
        assert tsi_of(raw) == tsi
    assert parse_untrusted(nak).header.source_port == port
    assert parse_untrusted(ncf).header.destination_port == port


def test_an_spmr_is_a_bare_header() -> None:
    raw = build_spmr(TSI, PORT)
    assert len(raw) == 16
    assert isinstance(parse_untrusted(raw).body, Spmr)
    assert tsi_of(raw) == TSI


@pytest.mark.parametrize("count", [0, NAK_LIST_LIMIT + 1])
def test_a_nak_for_none_or_too_many_cannot_be_built(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 63"):
        build_nak(TSI, PORT, range(count), SOURCE, GROUP_ADDRESS)


def test_extended_numbers_are_cut_to_the_wire() -> None:
    raw = build_spm(TSI, PORT, 1 << 32, (5 << 32) - 1, 1 << 40 | 7, SOURCE)
    assert parse_untrusted(raw).body == Spm(0, packets.MASK, 7, SOURCE)
    raw = build_nak(TSI, PORT, [(1 << 32) - 1, 1 << 32], SOURCE, GROUP_ADDRESS)
    assert parse_untrusted(raw).options.nak_list == (0,)


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["origin"].startswith("epgm_")], ids=name_of
)
def test_what_libzmq_sends_is_built_byte_for_byte(vector: dict[str, object]) -> None:
    raw = bytes.fromhex(str(vector["hex"]))
    parsed = parse_untrusted(raw)
    body, tsi = parsed.body, tsi_of(raw)
    down, up = parsed.header.destination_port, parsed.header.source_port
    if isinstance(body, Spm):
        fin = parsed.options.fin
        built = build_spm(tsi, down, body.sqn, body.trail, body.lead, body.path_nla, fin=fin)
    elif isinstance(body, Nak):
        is_nak = parsed.header.type == packets.NAK
        build, port = (build_nak, up) if is_nak else (build_ncf, down)
        sqns = [body.sqn, *parsed.options.nak_list]
        built = build(tsi, port, sqns, body.source_nla, body.group_nla)
        # OpenPGM leaves rubbish in an option's reserved octet.
        if parsed.options.all:
            at = raw.index(bytes((0x80 | OptionType.NAK_LIST,)), 36) + 2
            raw = seal(raw[:at] + b"\0" + raw[at + 1 :])
    elif isinstance(body, Spmr):
        built = build_spmr(tsi, up)
    else:
        built = packets.data(
            body.sqn,  # type: ignore[union-attr]  # only data is left among libzmq's packets
            bytes(body.tsdu),  # type: ignore[union-attr]
            trail=body.trail,  # type: ignore[union-attr]
            kind=parsed.header.type,
            tsi=tsi,
            dport=down,
        )
    assert built == raw


def test_a_tsi_is_written_as_tools_write_it() -> None:
    assert tsi_text(bytes.fromhex("b7c6d1bc038ad017")) == "b7c6d1bc038a.53271"


# Hostile bytes.


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_a_vector_cut_at_any_length_is_refused(vector: dict[str, object]) -> None:
    raw = bytes.fromhex(str(vector["hex"]))
    for length in range(len(raw)):
        assert reason_of(raw[:length]) in REASONS
        if length < 16:
            assert reason_of(raw[:length]) == "truncated"
        else:
            # Also when the checksum was made for the stump.
            assert reason_of(seal(raw[:length])) in {"truncated", "option", "length", "parity"}


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_trailing_bytes_of_data_are_refused_and_of_the_rest_ignored(
    vector: dict[str, object],
) -> None:
    raw = bytes.fromhex(str(vector["hex"]))
    for extra in (b"\0", b"\0\0", b"\x01", b"\xff" * 7):
        longer = seal(raw + extra)
        if raw[5] & PARITY:
            assert reason_of(longer) == "parity"
        elif raw[4] in (packets.ODATA, packets.RDATA):
            assert reason_of(longer) == "length"
        else:
            assert parse_untrusted(longer).body == parse_untrusted(seal(raw)).body


@pytest.mark.parametrize("vector", [v for v in VECTORS if not is_parity(v)], ids=name_of)
def test_every_single_flipped_bit_is_noticed(vector: dict[str, object]) -> None:
    raw = bytearray.fromhex(str(vector["hex"]))
    assert int.from_bytes(raw[6:8], "big") not in (1 << bit for bit in range(16))
    for bit in range(8 * min(len(raw), 200)):
        raw[bit // 8] ^= 0x80 >> bit % 8
        assert reason_of(bytes(raw)) in {"checksum", "version", "type"}
        raw[bit // 8] ^= 0x80 >> bit % 8


def test_data_needs_a_checksum_and_the_rest_does_not() -> None:
    body = pack("!II", 1, 1) + b"\0\0"
    assert reason_of(packets.packet(packets.ODATA, body, tsdu_length=2, checksum=0)) == (
        "checksum_missing"
    )
    bare = packets.packet(packets.SPMR, b"", checksum=0)
    assert isinstance(parse_untrusted(bare).body, Spmr)


@pytest.mark.parametrize("version", [0x40, 0x80, 0xC0])
def test_another_version_is_refused(version: int) -> None:
    assert reason_of(packets.packet(packets.SPMR | version, b"")) == "version"


@pytest.mark.parametrize("kind", sorted(set(range(16)) - set(TYPE_NAMES)))
def test_an_unknown_type_is_refused(kind: int) -> None:
    assert reason_of(packets.packet(kind, bytes(64))) == "type"


def test_reserved_type_bits_are_ignored() -> None:
    raw = packets.packet(packets.SPMR | 0x30, b"")
    assert parse_untrusted(raw).header.type == packets.SPMR


@pytest.mark.parametrize("family", [0, 3, 0xFFFF])
def test_an_unknown_address_family_is_refused(family: int) -> None:
    body = pack("!IIIHH", 0, 0, 0, family, 0) + bytes(16)
    assert reason_of(packets.packet(packets.SPM, body)) == "address_family"


def with_options(area: bytes) -> bytes:
    body = pack("!III", 1, 0, 0) + packets.nla(SOURCE) + area
    return packets.packet(packets.SPM, body, flags=1)


LENGTH = OptionType.LENGTH
SYN = OptionType.SYN
END = 0x80


@pytest.mark.parametrize(
    "area",
    [
        pytest.param(option(SYN | END), id="OPT_LENGTH missing"),
        pytest.param(pack("!BBH", LENGTH, 5, 8) + option(SYN | END), id="OPT_LENGTH too long"),
        pytest.param(pack("!BBH", LENGTH, 4, 3) + option(SYN | END), id="total under four"),
        pytest.param(pack("!BBH", LENGTH, 4, 12) + option(SYN | END), id="total past the end"),
        pytest.param(pack("!BBH", LENGTH, 4, 8) + bytes((SYN | END, 0, 0, 0)), id="length 0"),
        pytest.param(pack("!BBH", LENGTH, 4, 8) + bytes((SYN, 0, 0, 0)), id="length 0, no end"),
        pytest.param(pack("!BBH", LENGTH, 4, 8) + bytes((SYN | END, 3, 0, 0)), id="length 3"),
        pytest.param(pack("!BBH", LENGTH, 4, 8) + bytes((SYN | END, 5, 0, 0)), id="past the end"),
        pytest.param(pack("!BBH", LENGTH, 4, 8) + bytes((SYN | END, 255, 0, 0)), id="far past it"),
        pytest.param(pack("!BBH", LENGTH, 4, 8) + option(SYN), id="no END"),
        pytest.param(pack("!BBH", LENGTH, 4, 12) + option(SYN) * 2, id="two, no END"),
        pytest.param(pack("!BBH", LENGTH, 4, 12) + option(SYN | END) * 2, id="END too early"),
        pytest.param(pack("!BBH", LENGTH, 4, 6) + b"\x8d\4", id="cut in an option"),
        pytest.param(option_area(*[option(SYN)] * 17), id="seventeen"),
        pytest.param(option_area(option(OptionType.FRAGMENT, bytes(8))), id="FRAGMENT too short"),
        pytest.param(option_area(option(OptionType.FRAGMENT, bytes(16))), id="FRAGMENT too long"),
        pytest.param(option_area(option(OptionType.NAK_LIST)), id="empty NAK_LIST"),
        pytest.param(option_area(option(OptionType.NAK_LIST, bytes(5))), id="odd NAK_LIST"),
        pytest.param(option_area(option(OptionType.JOIN)), id="empty JOIN"),
        pytest.param(option_area(option(OptionType.NAK_BO_IVL, bytes(4))), id="short NAK_BO_IVL"),
    ],
)
def test_a_broken_option_area_is_refused(area: bytes) -> None:
    assert reason_of(with_options(area)) == "option"


@pytest.mark.parametrize("area", [b"", b"\0\4\0"])
def test_announced_options_that_are_not_there_are_refused(area: bytes) -> None:
    assert reason_of(with_options(area)) == "truncated"


def test_a_list_of_63_in_the_option_is_one_too_many() -> None:
    # 63 numbers would need a length octet of 256.
    longest = option(OptionType.NAK_LIST, bytes(4 * 62))
    assert len(parse_untrusted(with_options(option_area(longest))).options.nak_list) == 62
    assert len(longest) == 252


def test_sixteen_options_are_read() -> None:
    parsed = parse_untrusted(with_options(option_area(*[option(SYN)] * 16)))
    assert len(parsed.options.all) == 16


def test_an_option_area_without_options_is_read() -> None:
    assert parse_untrusted(with_options(pack("!BBH", LENGTH, 4, 4))).options.all == ()


@pytest.mark.parametrize("byte2", [0xC3, 0x90, 0x91, 0xFF])
def test_rubbish_in_an_options_reserved_octet_is_ignored(byte2: int) -> None:
    area = option_area(option(OptionType.FIN, byte2=byte2, byte3=0xFF))
    assert parse_untrusted(with_options(area)).options.fin


def test_unknown_and_struck_out_options_are_skipped() -> None:
    area = option_area(option(0x6E, bytes(9)), option(OptionType.INVALID), option(OptionType.FIN))
    options = parse_untrusted(with_options(area)).options
    assert options.fin
    assert [found.type for found in options.all] == [0x6E, OptionType.INVALID, OptionType.FIN]


def test_the_tsdu_starts_behind_the_options() -> None:
    raw = packets.data(7, b"\0\0payload", option(SYN), trail=3)
    body = parse_untrusted(raw).body
    assert isinstance(body, Data)
    assert bytes(body.tsdu) == b"\0\0payload"


@pytest.mark.parametrize("claimed", [0, 4, 6, 65535])
def test_a_tsdu_of_another_length_than_claimed_is_refused(claimed: int) -> None:
    body = pack("!II", 1, 1) + bytes(5)
    assert reason_of(packets.packet(packets.ODATA, body, tsdu_length=claimed)) == "length"


def test_a_buffer_of_any_kind_is_parsed() -> None:
    raw = packets.odata(1, "x")
    for buffer in (raw, bytearray(raw), memoryview(raw), memoryview(b"pad" + raw)[3:]):
        assert parse_untrusted(buffer).header.checksum == parse_untrusted(raw).header.checksum


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_raise_only_a_packet_error(raw: bytes) -> None:
    for candidate in (raw, seal(raw.ljust(16, b"\0"))):
        assert reason_of(candidate) in REASONS | {None}


@given(
    st.sampled_from(sorted(TYPE_NAMES)),
    st.integers(0, 255),
    st.integers(0, 300),
    st.binary(max_size=80),
)
@settings(max_examples=300)
def test_a_good_checksum_over_rubbish_raises_only_a_packet_error(
    kind: int, flags: int, length: int, body: bytes
) -> None:
    raw = packets.packet(kind, body, flags=flags, tsdu_length=length)
    assert reason_of(raw) in (REASONS | {None}) - {"checksum", "version", "type"}


@given(st.sampled_from(VECTORS), st.data())
@settings(max_examples=300)
def test_a_mutated_vector_with_a_good_checksum_raises_only_a_packet_error(
    vector: dict[str, object], data: st.DataObject
) -> None:
    raw = bytearray.fromhex(str(vector["hex"]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert reason_of(seal(bytes(raw))) in REASONS | {None}
