"""PGM packets to and from bytes (RFC 3208 section 8, options section 9), as carried in UDP.

Owns the layout of every packet type and option; no state. ``parse_untrusted`` looks at lengths
before it reads, makes one pass, and raises only ``PacketError``, whose ``reason`` is a counter's
name. ODATA and RDATA are built by the kernel, in place; everything else is built here.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from mcast.kernel import Buffer, checksum, checksum_ok
from mcast.pgm.sqn import SQN_MASK

__all__ = [
    "ACK",
    "HEADER_BYTES",
    "NAK",
    "NAK_LIST_LIMIT",
    "NCF",
    "NNAK",
    "ODATA",
    "POLL",
    "POLR",
    "RDATA",
    "SPM",
    "SPMR",
    "TYPE_NAMES",
    "Ack",
    "Data",
    "Fragment",
    "Header",
    "Nak",
    "Option",
    "OptionType",
    "Options",
    "Packet",
    "PacketError",
    "Poll",
    "Polr",
    "Spm",
    "Spmr",
    "build_nak",
    "build_ncf",
    "build_spm",
    "build_spmr",
    "inspect_untrusted",
    "parse_untrusted",
    "tsi_of",
    "tsi_text",
]

SPM: Final = 0x00
POLL: Final = 0x01
POLR: Final = 0x02
ODATA: Final = 0x04
RDATA: Final = 0x05
NAK: Final = 0x08
NNAK: Final = 0x09
NCF: Final = 0x0A
SPMR: Final = 0x0C
ACK: Final = 0x0D  # not in RFC 3208: PGMCC, as OpenPGM numbers it

TYPE_NAMES: Final = {
    SPM: "SPM",
    POLL: "POLL",
    POLR: "POLR",
    ODATA: "ODATA",
    RDATA: "RDATA",
    NAK: "NAK",
    NNAK: "NNAK",
    NCF: "NCF",
    SPMR: "SPMR",
    ACK: "ACK",
}
_DOWNSTREAM: Final = frozenset({SPM, POLL, ODATA, RDATA, NCF})

HEADER_BYTES: Final = 16
NAK_LIST_LIMIT: Final = 63  # one number in the NAK itself, 62 in OPT_NAK_LIST (section 9.3)
_OPTION_COUNT_LIMIT: Final = 16  # section 9.1

_FLAG_OPTIONS: Final = 0x01
_FLAG_NETWORK: Final = 0x02
_FLAG_PARITY: Final = 0x80
_OPTION_END: Final = 0x80

_HEADER: Final = Struct("!HHBBH6sH")
_TWO_WORDS: Final = Struct("!II")
_THREE_WORDS: Final = Struct("!III")
_POLL_HEAD: Final = Struct("!IHH")
_POLL_TAIL: Final = Struct("!III")
_OPTION_LENGTH: Final = Struct("!BBH")
_AFI_BYTES: Final = {1: 4, 2: 16}  # address family: IPv4, IPv6 (RFC 1700)


class OptionType:
    """The option numbers of RFC 3208, and OpenPGM's two for PGMCC."""

    LENGTH: Final = 0x00
    FRAGMENT: Final = 0x01
    NAK_LIST: Final = 0x02
    JOIN: Final = 0x03
    NAK_BO_IVL: Final = 0x04
    NAK_BO_RNG: Final = 0x05
    REDIRECT: Final = 0x07
    PARITY_PRM: Final = 0x08
    PARITY_GRP: Final = 0x09
    CURR_TGSIZE: Final = 0x0A
    NBR_UNREACH: Final = 0x0B
    PATH_NLA: Final = 0x0C
    SYN: Final = 0x0D
    FIN: Final = 0x0E
    RST: Final = 0x0F
    CR: Final = 0x10
    CRQST: Final = 0x11
    PGMCC_DATA: Final = 0x12
    PGMCC_FEEDBACK: Final = 0x13
    INVALID: Final = 0x7F


class PacketError(Exception):
    """The bytes are not a PGM packet that may be looked at; ``reason`` names the counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Header(NamedTuple):
    """The 16 octets that start every packet."""

    source_port: int
    destination_port: int
    type: int
    flags: int
    checksum: int
    gsi: bytes
    tsdu_length: int


class Option(NamedTuple):
    """One option as it stands: OPX and FEC bits are kept, since only routers and FEC use them."""

    type: int
    byte2: int
    byte3: int
    value: bytes


class Fragment(NamedTuple):
    """OPT_FRAGMENT: this packet's place in an APDU of several (section 9.2)."""

    first_sqn: int
    offset: int
    apdu_length: int


class Options(NamedTuple):
    """A packet's options: what an end system acts on, decoded, and all of them as they stand."""

    all: tuple[Option, ...] = ()
    fragment: Fragment | None = None
    nak_list: tuple[int, ...] = ()
    join: int | None = None
    syn: bool = False
    fin: bool = False
    reset: bool = False
    unreachable: bool = False
    nak_bo_ivl_us: int | None = None


class Spm(NamedTuple):
    """Source path message: the window, and where NAKs go."""

    sqn: int
    trail: int
    lead: int
    path_nla: bytes


class Data(NamedTuple):
    """ODATA or RDATA."""

    sqn: int
    trail: int
    tsdu: memoryview


class Nak(NamedTuple):
    """NAK, NNAK or NCF: the first number; more are in the packet's OPT_NAK_LIST."""

    sqn: int
    source_nla: bytes
    group_nla: bytes


class Poll(NamedTuple):
    """A poll of a group's members (section 14.7.1)."""

    sqn: int
    round: int
    sub_type: int
    path_nla: bytes
    backoff_us: int
    random: int
    mask: int


class Polr(NamedTuple):
    """The answer to a poll."""

    sqn: int
    round: int


class Spmr(NamedTuple):
    """A request for an SPM: the header is all there is."""


class Ack(NamedTuple):
    """OpenPGM's PGMCC acknowledgement."""

    rx_max: int
    bitmap: int


Body = Spm | Data | Nak | Poll | Polr | Spmr | Ack


class Packet(NamedTuple):
    """A whole packet."""

    header: Header
    body: Body
    options: Options


_NO_OPTIONS: Final = Options()


def tsi_of(packet: Buffer) -> bytes:
    """The 8-byte TSI of a packet of 16 bytes or more: GSI, then the data-source port.

    The port stands first in packets from the source and second in packets to it (section 8.3).
    """
    port = packet[0:2] if packet[4] & 0x0F in _DOWNSTREAM else packet[2:4]
    return bytes(packet[8:14]) + bytes(port)


def tsi_text(tsi: bytes) -> str:
    """A TSI as people read it: 12 hex digits of GSI, a dot, the data-source port."""
    return f"{tsi[:6].hex()}.{int.from_bytes(tsi[6:], 'big')}"


def parse_untrusted(packet: Buffer) -> Packet:
    """The fields of one UDP payload.

    Raises ``PacketError`` with reason ``truncated``, ``version``, ``type``, ``checksum``,
    ``checksum_missing``, ``address_family``, ``parity``, ``option`` or ``length``. Views into
    ``packet`` are kept.
    """
    view = memoryview(packet)
    header = _parse_header_untrusted(view)
    fault = _checksum_fault(header, view)
    if fault:
        raise PacketError(fault)
    return _parse_rest_untrusted(header, view, with_parity=False)


def inspect_untrusted(packet: Buffer) -> tuple[Packet, str]:
    """The fields of one UDP payload for those who look on, and why an end system drops it, or "".

    A wrong checksum and parity are no reason to look away. Raises ``PacketError`` with one of the
    other reasons of ``parse_untrusted``. Views into ``packet`` are kept.
    """
    view = memoryview(packet)
    header = _parse_header_untrusted(view)
    parsed = _parse_rest_untrusted(header, view, with_parity=True)
    parity = "parity" if header.flags & _FLAG_PARITY else ""
    return parsed, _checksum_fault(header, view) or parity


def _parse_header_untrusted(view: memoryview) -> Header:
    if len(view) < HEADER_BYTES:
        raise PacketError("truncated")
    header = Header(*_HEADER.unpack_from(view))
    if header.type & 0xC0:
        raise PacketError("version")
    kind = header.type & 0x0F
    if kind not in TYPE_NAMES:
        raise PacketError("type")
    return header._replace(type=kind)


def _checksum_fault(header: Header, view: memoryview) -> str:
    if header.checksum:
        return "" if checksum_ok(view) else "checksum"
    # "Not computed" is allowed on everything but data (section 8).
    return "checksum_missing" if header.type in (ODATA, RDATA) else ""


def _parse_rest_untrusted(header: Header, view: memoryview, *, with_parity: bool) -> Packet:
    body, end = _parse_body_untrusted(header.type, view)
    options = _NO_OPTIONS
    if header.flags & _FLAG_OPTIONS:
        options, end = _parse_options_untrusted(view, end)
    if header.flags & _FLAG_PARITY and not with_parity:
        raise PacketError("parity")  # no FEC here, and none was advertised
    if isinstance(body, Data):
        tsdu = view[end:]
        if len(tsdu) != header.tsdu_length:
            raise PacketError("length")
        body = body._replace(tsdu=tsdu)
    return Packet(header, body, options)


def _parse_body_untrusted(kind: int, view: memoryview) -> tuple[Body, int]:
    if kind == SPM:
        _need(view, 28)
        sqn, trail, lead = _THREE_WORDS.unpack_from(view, 16)
        nla, end = _parse_nla_untrusted(view, 28)
        return Spm(sqn, trail, lead, nla), end
    if kind in (ODATA, RDATA):
        _need(view, 24)
        sqn, trail = _TWO_WORDS.unpack_from(view, 16)
        return Data(sqn, trail, view[:0]), 24
    if kind in (NAK, NNAK, NCF):
        _need(view, 20)
        source_nla, end = _parse_nla_untrusted(view, 20)
        group_nla, end = _parse_nla_untrusted(view, end)
        return Nak(int.from_bytes(view[16:20], "big"), source_nla, group_nla), end
    if kind == SPMR:
        return Spmr(), HEADER_BYTES
    if kind == ACK:
        _need(view, 24)
        return Ack(*_TWO_WORDS.unpack_from(view, 16)), 24
    _need(view, 24)
    sqn, round_, sub_type = _POLL_HEAD.unpack_from(view, 16)
    if kind == POLR:
        return Polr(sqn, round_), 24
    nla, end = _parse_nla_untrusted(view, 24)
    _need(view, end + 12)
    return Poll(sqn, round_, sub_type, nla, *_POLL_TAIL.unpack_from(view, end)), end + 12


def _parse_nla_untrusted(view: memoryview, start: int) -> tuple[bytes, int]:
    """An address with its family in front; where the next field starts."""
    _need(view, start + 4)
    size = _AFI_BYTES.get(int.from_bytes(view[start : start + 2], "big"))
    if size is None:
        raise PacketError("address_family")
    end = start + 4 + size
    _need(view, end)
    return bytes(view[start + 4 : end]), end


def _parse_options_untrusted(view: memoryview, start: int) -> tuple[Options, int]:
    """The option area, which must begin with OPT_LENGTH and fill the length that names."""
    _need(view, start + 4)
    kind, length, total = _OPTION_LENGTH.unpack_from(view, start)
    end = start + total
    if kind & 0x7F != OptionType.LENGTH or length != 4 or total < 4 or end > len(view):
        raise PacketError("option")
    found: list[Option] = []
    position = start + 4
    last = total == 4
    while not last:
        if position + 4 > end or len(found) == _OPTION_COUNT_LIMIT:
            raise PacketError("option")
        kind, length = view[position], view[position + 1]
        if length < 4 or position + length > end:
            raise PacketError("option")
        value = bytes(view[position + 4 : position + length])
        found.append(Option(kind & 0x7F, view[position + 2], view[position + 3], value))
        position += length
        last = bool(kind & _OPTION_END)
    if position != end:
        raise PacketError("option")
    return _decode_options_untrusted(found), end


def _decode_options_untrusted(found: list[Option]) -> Options:
    known: dict[str, object] = {}
    for option in found:
        value = option.value
        match option.type:
            case OptionType.FRAGMENT:
                if len(value) != 12:
                    raise PacketError("option")
                known["fragment"] = Fragment(*_THREE_WORDS.unpack(value))
            case OptionType.NAK_LIST:
                if len(value) % 4 or not 0 < len(value) < 4 * NAK_LIST_LIMIT:
                    raise PacketError("option")
                known["nak_list"] = tuple(
                    int.from_bytes(value[i : i + 4], "big") for i in range(0, len(value), 4)
                )
            case OptionType.JOIN:
                if len(value) != 4:
                    raise PacketError("option")
                known["join"] = int.from_bytes(value, "big")
            case OptionType.NAK_BO_IVL:
                if len(value) != 8:
                    raise PacketError("option")
                known["nak_bo_ivl_us"] = int.from_bytes(value[:4], "big")
            case OptionType.SYN:
                known["syn"] = True
            case OptionType.FIN:
                known["fin"] = True
            case OptionType.RST:
                known["reset"] = True
            case OptionType.NBR_UNREACH:
                known["unreachable"] = True
    return Options(all=tuple(found), **known)  # type: ignore[arg-type]  # keys are its fields


def _need(view: memoryview, size: int) -> None:
    if len(view) < size:
        raise PacketError("truncated")


def build_spm(
    tsi: bytes, dport: int, sqn: int, trail: int, lead: int, path_nla: bytes, *, fin: bool = False
) -> bytes:
    """An SPM with the window ``trail`` to ``lead`` (extended numbers are cut to 32 bits)."""
    body = _THREE_WORDS.pack(sqn & SQN_MASK, trail & SQN_MASK, lead & SQN_MASK) + _nla(path_nla)
    option = bytes((_OPTION_END | OptionType.FIN, 4, 0, 0)) if fin else b""
    return _downstream(tsi, dport, SPM, body, option)


def build_ncf(
    tsi: bytes, dport: int, sqns: Sequence[int], source_nla: bytes, group_nla: bytes
) -> bytes:
    """An NCF for one to 63 numbers, sorted, each once (section 9.3.4: as the NAK's list)."""
    body, option = _nak_body(sqns, source_nla, group_nla)
    return _downstream(tsi, dport, NCF, body, option, network=True)


def build_nak(
    tsi: bytes, dport: int, sqns: Sequence[int], source_nla: bytes, group_nla: bytes
) -> bytes:
    """A NAK for one to 63 numbers, sorted, each once."""
    body, option = _nak_body(sqns, source_nla, group_nla)
    return _upstream(tsi, dport, NAK, body, option)


def build_spmr(tsi: bytes, dport: int) -> bytes:
    """A request for an SPM of the source ``tsi`` (section 13.6)."""
    return _upstream(tsi, dport, SPMR, b"", b"")


def _nak_body(sqns: Sequence[int], source_nla: bytes, group_nla: bytes) -> tuple[bytes, bytes]:
    if not 0 < len(sqns) <= NAK_LIST_LIMIT:
        raise ValueError(f"a NAK names 1 to {NAK_LIST_LIMIT} numbers, not {len(sqns)}")
    body = (sqns[0] & SQN_MASK).to_bytes(4, "big") + _nla(source_nla) + _nla(group_nla)
    rest = sqns[1:]
    if not rest:
        return body, b""
    option = bytes((_OPTION_END | OptionType.NAK_LIST, 4 + 4 * len(rest), 0, 0))
    return body, option + b"".join((sqn & SQN_MASK).to_bytes(4, "big") for sqn in rest)


def _nla(address: bytes) -> bytes:
    return (b"\0\1\0\0" if len(address) == 4 else b"\0\2\0\0") + address


def _downstream(
    tsi: bytes, dport: int, kind: int, body: bytes, option: bytes, *, network: bool = False
) -> bytes:
    ports = tsi[6:8] + dport.to_bytes(2, "big")
    return _build(ports, tsi[:6], kind, body, option, network=network)


def _upstream(tsi: bytes, dport: int, kind: int, body: bytes, option: bytes) -> bytes:
    ports = dport.to_bytes(2, "big") + tsi[6:8]
    return _build(ports, tsi[:6], kind, body, option, network=True)


def _build(
    ports: bytes, gsi: bytes, kind: int, body: bytes, option: bytes, *, network: bool
) -> bytes:
    flags = 0
    if option:
        flags = _FLAG_OPTIONS | (_FLAG_NETWORK if network else 0)
        option = _OPTION_LENGTH.pack(OptionType.LENGTH, 4, 4 + len(option)) + option
    packet = bytearray(ports + bytes((kind, flags, 0, 0)) + gsi + b"\0\0" + body + option)
    packet[6:8] = checksum(packet).to_bytes(2, "big")
    return bytes(packet)
