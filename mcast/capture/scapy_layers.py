"""scapy layers for PGM (RFC 3208, and PGMCC as OpenPGM has it), ZMTP, and RADIO/DISH datagrams.

Result: packets to build, change and look at, field by field, for those who test with scapy::

    from scapy.layers.inet import IP, UDP
    from mcast.capture.scapy_layers import PGM, PGMNak, PGMOptNakList, bind_pgm

    bind_pgm(5555)
    nak = PGM(sport=5555, dport=9029, gsi=bytes(6)) / PGMNak(
        sqn=3, source_nla="127.0.0.1", group_nla="239.192.1.1", options=[PGMOptNakList(sqns=[4, 5])]
    )
    bytes(IP() / UDP(dport=5555) / nak)

What is left alone is computed: checksum, TSDU length, option flags, OPT_LENGTH in front of the
options, their lengths, and the END bit of the last. Nothing is bound to a UDP or TCP port until
``bind_pgm``, ``bind_zmtp`` or ``bind_radio`` says so, because none has a registered port; IP
protocol 113 is PGM at once. Needs scapy (``pip install mcast[capture]``).

Owns layouts only, independent of ``mcast.pgm.packet``, so that the tests can hold one against the
other. Invariant: a dissected packet builds the very bytes it came from, whatever they were.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import error as StructError  # noqa: N812
from typing import Any, ClassVar, Final

from scapy.base_classes import BasePacket
from scapy.fields import (
    BitEnumField,
    BitField,
    ByteField,
    Field,
    FieldListField,
    FlagsField,
    IntField,
    IP6Field,
    IPField,
    MultipleTypeField,
    PacketListField,
    ShortField,
    StrField,
    StrFixedLenField,
    XIntField,
    XShortField,
    _FieldContainer,
)
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw, bind_bottom_up, bind_layers

from mcast.capture.scapy_zmtp import (
    RadioDatagram,
    ZMTPCancel,
    ZMTPCommand,
    ZMTPError,
    ZMTPFrame,
    ZMTPGreeting,
    ZMTPJoin,
    ZMTPLeave,
    ZMTPPing,
    ZMTPPong,
    ZMTPProperty,
    ZMTPReady,
    ZMTPStream,
    ZMTPSubscribe,
)
from mcast.kernel import checksum

__all__ = [
    "PGM",
    "PGM_OPTIONS",
    "LibzmqTSDU",
    "PGMAck",
    "PGMNak",
    "PGMNcf",
    "PGMNnak",
    "PGMOdata",
    "PGMOptCr",
    "PGMOptCrqst",
    "PGMOptCurrTgsize",
    "PGMOptFin",
    "PGMOptFragment",
    "PGMOptInvalid",
    "PGMOptJoin",
    "PGMOptLength",
    "PGMOptNakBoIvl",
    "PGMOptNakBoRng",
    "PGMOptNakList",
    "PGMOptNbrUnreach",
    "PGMOptParityGrp",
    "PGMOptParityPrm",
    "PGMOptPathNla",
    "PGMOptPgmccData",
    "PGMOptPgmccFeedback",
    "PGMOptRedirect",
    "PGMOptRst",
    "PGMOptSyn",
    "PGMOption",
    "PGMPoll",
    "PGMPolr",
    "PGMRdata",
    "PGMSpm",
    "PGMSpmr",
    "RadioDatagram",
    "ZMTPCancel",
    "ZMTPCommand",
    "ZMTPError",
    "ZMTPFrame",
    "ZMTPGreeting",
    "ZMTPJoin",
    "ZMTPLeave",
    "ZMTPPing",
    "ZMTPPong",
    "ZMTPProperty",
    "ZMTPReady",
    "ZMTPStream",
    "ZMTPSubscribe",
    "bind_pgm",
    "bind_radio",
    "bind_zmtp",
]

_IP_PROTOCOL: Final = 113
_OPTIONS_PRESENT: Final = 0x01
_NETWORK_SIGNIFICANT: Final = 0x02
_END: Final = 0x80
_TYPES: Final = {
    0x0: "SPM",
    0x1: "POLL",
    0x2: "POLR",
    0x4: "ODATA",
    0x5: "RDATA",
    0x8: "NAK",
    0x9: "NNAK",
    0xA: "NCF",
    0xC: "SPMR",
    0xD: "ACK",
}
_AFI_IPV6: Final = 2

_Fields = list[Field[Any, Any] | _FieldContainer]


def _nla(name: str, is_ipv6: Callable[[Packet], bool]) -> MultipleTypeField:
    return MultipleTypeField([(IP6Field(name, "::"), is_ipv6)], IPField(name, "0.0.0.0"))


def _address(prefix: str) -> _Fields:
    """An address family, its reserved octets and the address; set the family to 2 for IPv6."""
    afi = f"{prefix}_afi"
    return [
        ShortField(afi, 1),
        ShortField(f"{prefix}_reserved", 0),
        _nla(f"{prefix}_nla", lambda packet: packet.getfieldval(afi) == _AFI_IPV6),
    ]


# -- options (RFC 3208 section 9) -----------------------------------------------------------------


def _head(number: int, bits: _Fields | None = None) -> _Fields:
    """What every option starts with: END, type, length, F and OPX, then U and seven bits."""
    return [
        BitField("end", None, 1),
        BitField("type", number, 7),
        ByteField("len", None),
        BitField("reserved", 0, 5),
        BitField("f", 0, 1),
        BitField("opx", 0, 2),
        BitField("u", 0, 1),
        *(bits or [BitField("bits", 0, 7)]),
    ]


class PGMOption(Packet):
    """An option that has no class of its own; the base of those that have."""

    name = "PGM option"
    network: ClassVar[bool] = False
    """Whether routers have to look at it, which the header then says."""
    fields_desc = [*_head(0x7F), StrField("value", b"")]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Nothing inside: what follows is the next option."""
        return b"", s

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in the length."""
        if self.len is None:
            pkt = pkt[:1] + bytes((len(pkt) & 0xFF,)) + pkt[2:]
        return pkt + pay


class PGMOptLength(PGMOption):
    """OPT_LENGTH, the first: the bytes of all options, itself included. Put in when left out."""

    name = "PGM OPT_LENGTH"
    fields_desc = [
        BitField("end", 0, 1),
        BitField("type", 0x00, 7),
        ByteField("len", 4),
        ShortField("total", None),
    ]


class PGMOptFragment(PGMOption):
    """OPT_FRAGMENT: this packet's place in an APDU of several."""

    name = "PGM OPT_FRAGMENT"
    fields_desc = [
        *_head(0x01),
        IntField("first_sqn", 0),
        IntField("offset", 0),
        IntField("apdu_length", 0),
    ]


class PGMOptNakList(PGMOption):
    """OPT_NAK_LIST: up to 62 numbers besides the one in the header."""

    name = "PGM OPT_NAK_LIST"
    network = True
    fields_desc = [*_head(0x02), FieldListField("sqns", [], IntField("sqn", 0))]


class PGMOptJoin(PGMOption):
    """OPT_JOIN: the first number that a late joiner should ask for."""

    name = "PGM OPT_JOIN"
    fields_desc = [*_head(0x03), IntField("min_sqn", 0)]


class PGMOptNakBoIvl(PGMOption):
    """OPT_NAK_BO_IVL: the back-off interval in microseconds, and the POLL it came with."""

    name = "PGM OPT_NAK_BO_IVL"
    network = True
    fields_desc = [*_head(0x04), IntField("interval", 0), IntField("poll_sqn", 0)]


class PGMOptNakBoRng(PGMOption):
    """OPT_NAK_BO_RNG: the back-off's range in microseconds, the upper end first."""

    name = "PGM OPT_NAK_BO_RNG"
    network = True
    fields_desc = [*_head(0x05), IntField("maximum", 0), IntField("minimum", 0)]


class PGMOptRedirect(PGMOption):
    """OPT_REDIRECT: the address of a designated local repairer."""

    name = "PGM OPT_REDIRECT"
    network = True
    fields_desc = [*_head(0x07), *_address("dlr")]


class PGMOptParityPrm(PGMOption):
    """OPT_PARITY_PRM: what parity the source offers. OpenPGM has the two bits the other way."""

    name = "PGM OPT_PARITY_PRM"
    network = True
    fields_desc = [
        *_head(
            0x08, [BitField("bits", 0, 5), BitField("proactive", 0, 1), BitField("ondemand", 0, 1)]
        ),
        IntField("group_size", 0),
    ]


class PGMOptParityGrp(PGMOption):
    """OPT_PARITY_GRP: which parity group this packet belongs to."""

    name = "PGM OPT_PARITY_GRP"
    fields_desc = [*_head(0x09), IntField("group", 0)]


class PGMOptCurrTgsize(PGMOption):
    """OPT_CURR_TGSIZE: the size of the last, short transmission group."""

    name = "PGM OPT_CURR_TGSIZE"
    network = True  # but not on ODATA
    fields_desc = [*_head(0x0A), IntField("size", 0)]


class PGMOptNbrUnreach(PGMOption):
    """OPT_NBR_UNREACH: the path back to the source is broken."""

    name = "PGM OPT_NBR_UNREACH"
    network = True
    fields_desc = _head(0x0B)


class PGMOptPathNla(PGMOption):
    """OPT_PATH_NLA: an address without its family; set ``len`` to 20 to build one of IPv6."""

    name = "PGM OPT_PATH_NLA"
    network = True
    fields_desc = [*_head(0x0C), _nla("path_nla", lambda option: option.len == 20)]


class PGMOptSyn(PGMOption):
    """OPT_SYN: the stream starts here."""

    name = "PGM OPT_SYN"
    fields_desc = _head(0x0D)


class PGMOptFin(PGMOption):
    """OPT_FIN: the stream ends here."""

    name = "PGM OPT_FIN"
    fields_desc = _head(0x0E)


class PGMOptRst(PGMOption):
    """OPT_RST: the stream is over, with a reason."""

    name = "PGM OPT_RST"
    fields_desc = _head(0x0F, [BitField("n", 0, 1), BitField("error", 0, 6)])


_WORST: Final[_Fields] = [
    BitField("bits", 0, 4),
    BitField("l", 0, 1),
    BitField("p", 0, 1),
    BitField("r", 0, 1),
]


class PGMOptCr(PGMOption):
    """OPT_CR: a receiver's congestion report."""

    name = "PGM OPT_CR"
    network = True
    fields_desc = [
        *_head(0x10, _WORST),
        IntField("lead", 0),
        ShortField("ne_worst_link", 0),
        ShortField("ne_worst_path", 0),
        ShortField("receiver_worst_path", 0),
        ShortField("reserved2", 0),
        *_address("receiver"),
    ]


class PGMOptCrqst(PGMOption):
    """OPT_CRQST: the source asks for congestion reports."""

    name = "PGM OPT_CRQST"
    network = True
    fields_desc = _head(0x11, _WORST)


class PGMOptPgmccData(PGMOption):
    """PGMCC on ODATA: a timestamp in ms, and who is to acknowledge (0.0.0.0: nobody yet)."""

    name = "PGM OPT_PGMCC_DATA"
    fields_desc = [*_head(0x12), IntField("timestamp", 0), *_address("acker")]


class PGMOptPgmccFeedback(PGMOption):
    """PGMCC on ACK and NAK: the timestamp's echo, and the loss rate in 65535ths."""

    name = "PGM OPT_PGMCC_FEEDBACK"
    fields_desc = [
        *_head(0x13),
        IntField("timestamp", 0),
        ShortField("receiver_afi", 1),
        ShortField("loss_rate", 0),
        _nla("receiver_nla", lambda option: option.receiver_afi == _AFI_IPV6),
    ]


class PGMOptInvalid(PGMOption):
    """What a router left of an option that it did not know."""

    name = "PGM OPT_INVALID"


PGM_OPTIONS: Final[dict[int, type[PGMOption]]] = {
    0x00: PGMOptLength,
    0x01: PGMOptFragment,
    0x02: PGMOptNakList,
    0x03: PGMOptJoin,
    0x04: PGMOptNakBoIvl,
    0x05: PGMOptNakBoRng,
    0x07: PGMOptRedirect,
    0x08: PGMOptParityPrm,
    0x09: PGMOptParityGrp,
    0x0A: PGMOptCurrTgsize,
    0x0B: PGMOptNbrUnreach,
    0x0C: PGMOptPathNla,
    0x0D: PGMOptSyn,
    0x0E: PGMOptFin,
    0x0F: PGMOptRst,
    0x10: PGMOptCr,
    0x11: PGMOptCrqst,
    0x12: PGMOptPgmccData,
    0x13: PGMOptPgmccFeedback,
    0x7F: PGMOptInvalid,
}
"""The class of each option number of RFC 3208, and of OpenPGM's two."""


def _option(raw: bytes) -> PGMOption:
    """One option by its number; as an unknown one if it is not as long as its number asks for."""
    try:
        option = PGM_OPTIONS.get(raw[0] & 0x7F, PGMOption)(raw)
    except (StructError, OSError, ValueError):
        return PGMOption(raw)
    return option if bytes(option) == raw else PGMOption(raw)


class _OptionsField(PacketListField):
    """The option area: there if the header says so, and made whole when it is built."""

    def __init__(self) -> None:
        super().__init__("options", [], PGMOption)

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, list[BasePacket]]:
        header = pkt.underlayer
        if not isinstance(header, PGM) or not int(header.flags or 0) & _OPTIONS_PRESENT:
            return s, []
        options: list[BasePacket] = []
        end = int.from_bytes(s[2:4], "big") if len(s) >= 4 else len(s)
        area, rest = s[:end], s[end:]
        is_last = False
        while area and not is_last:
            size = area[1] if len(area) > 1 else 0
            if not 4 <= size <= len(area):
                break
            options.append(_option(area[:size]))
            is_last = bool(area[0] & _END)
            area = area[size:]
        if area:
            options.append(Raw(area))
        return rest, options

    def addfield(self, pkt: Packet, s: bytes, val: list[BasePacket] | None) -> bytes:
        options = list(val or [])
        if not options:
            return s
        if not isinstance(options[0], PGMOptLength):
            options.insert(0, PGMOptLength())
        built = [bytes(option) for option in options]
        last = options[-1]
        if len(options) > 1 and isinstance(last, PGMOption) and last.end is None:
            built[-1] = bytes((built[-1][0] | _END,)) + built[-1][1:]
        area = b"".join(built)
        first = options[0]
        if isinstance(first, PGMOptLength) and first.total is None:
            area = area[:2] + len(area).to_bytes(2, "big") + area[4:]
        return s + area


# -- packets (RFC 3208 section 8) -----------------------------------------------------------------


class PGM(Packet):
    """The header that starts every packet; the body is its payload.

    ``flags``, ``chksum`` and ``tsdu_length`` are computed when left alone, ``type`` by the body.
    """

    name = "PGM"
    fields_desc = [
        ShortField("sport", 0),
        ShortField("dport", 0),
        BitField("version", 0, 2),
        BitField("reserved", 0, 2),
        BitEnumField("type", 0x04, 4, _TYPES),
        FlagsField(
            "flags", None, 8, ["options", "network", "b2", "b3", "b4", "b5", "var", "parity"]
        ),
        XShortField("chksum", None),
        StrFixedLenField("gsi", bytes(6), 6),
        ShortField("tsdu_length", None),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in flags, TSDU length and checksum."""
        if self.flags is None:
            pkt = pkt[:5] + bytes((self._flags(),)) + pkt[6:]
        if self.tsdu_length is None:
            size = len(self.payload.payload) if isinstance(self.payload, _Data) else 0
            pkt = pkt[:14] + size.to_bytes(2, "big")
        if self.chksum is None:
            blank = pkt[:6] + b"\0\0" + pkt[8:]
            pkt = blank[:6] + checksum(blank + pay).to_bytes(2, "big") + blank[8:]
        return pkt + pay

    def _flags(self) -> int:
        options = self.payload.fields.get("options") or []
        if not options:
            return 0
        is_odata = isinstance(self.payload, PGMOdata)
        network = any(
            isinstance(option, PGMOption)
            and option.network
            and not (is_odata and isinstance(option, PGMOptCurrTgsize))
            for option in options
        )
        return _OPTIONS_PRESENT | (_NETWORK_SIGNIFICANT if network else 0)


class PGMSpm(Packet):
    """Source path message: the window, and where NAKs go."""

    name = "PGM SPM"
    fields_desc = [
        IntField("sqn", 0),
        IntField("trail", 0),
        IntField("lead", 0xFFFFFFFF),
        *_address("path"),
        _OptionsField(),
    ]


class PGMPoll(Packet):
    """A poll of a group's members; the back-off is in microseconds."""

    name = "PGM POLL"
    fields_desc = [
        IntField("sqn", 0),
        ShortField("round", 0),
        ShortField("sub_type", 0),
        *_address("path"),
        IntField("backoff", 0),
        XIntField("random", 0),
        XIntField("mask", 0),
        _OptionsField(),
    ]


class PGMPolr(Packet):
    """The answer to a poll."""

    name = "PGM POLR"
    fields_desc = [
        IntField("sqn", 0),
        ShortField("round", 0),
        ShortField("reserved", 0),
        _OptionsField(),
    ]


class _Data(Packet):
    """What ODATA and RDATA share; the TSDU is the payload, plain bytes unless bound."""

    fields_desc = [IntField("sqn", 0), IntField("trail", 0), _OptionsField()]


class PGMOdata(_Data):
    """Data, sent for the first time."""

    name = "PGM ODATA"


class PGMRdata(_Data):
    """Data, sent again because somebody asked."""

    name = "PGM RDATA"


class _NakLike(Packet):
    fields_desc = [
        IntField("sqn", 0),
        *_address("source"),
        *_address("group"),
        _OptionsField(),
    ]


class PGMNak(_NakLike):
    """A receiver asks for a packet."""

    name = "PGM NAK"


class PGMNnak(_NakLike):
    """A local repairer reports a packet that it is repairing itself."""

    name = "PGM NNAK"


class PGMNcf(_NakLike):
    """The source confirms a NAK to the whole group."""

    name = "PGM NCF"


class PGMSpmr(Packet):
    """A receiver asks for an SPM."""

    name = "PGM SPMR"
    fields_desc = [_OptionsField()]


class PGMAck(Packet):
    """PGMCC's acknowledgement, as OpenPGM numbers it."""

    name = "PGM ACK"
    fields_desc = [IntField("rx_max", 0), XIntField("bitmap", 0), _OptionsField()]


class LibzmqTSDU(Packet):
    """What libzmq puts into a packet: where the first message starts, then ZMTP/1.0 frames.

    The frames run on from packet to packet; ``offset`` 0xFFFF says that none starts in this one.
    """

    name = "libzmq TSDU"
    fields_desc = [XShortField("offset", 0), StrField("stream", b"")]


for _number, _body in (
    (0x0, PGMSpm),
    (0x1, PGMPoll),
    (0x2, PGMPolr),
    (0x4, PGMOdata),
    (0x5, PGMRdata),
    (0x8, PGMNak),
    (0x9, PGMNnak),
    (0xA, PGMNcf),
    (0xC, PGMSpmr),
    (0xD, PGMAck),
):
    bind_layers(PGM, _body, type=_number)
bind_layers(IP, PGM, proto=_IP_PROTOCOL)
bind_layers(IPv6, PGM, nh=_IP_PROTOCOL)


def bind_pgm(*ports: int, libzmq: bool = False) -> None:
    """From now on scapy reads UDP datagrams to these ports as PGM.

    ``libzmq``: and everybody's TSDUs as ``LibzmqTSDU``. Applies to the whole process.
    """
    for port in ports:
        bind_bottom_up(UDP, PGM, dport=port)
    if libzmq:
        bind_bottom_up(PGMOdata, LibzmqTSDU)
        bind_bottom_up(PGMRdata, LibzmqTSDU)


def bind_zmtp(*ports: int) -> None:
    """From now on scapy reads TCP segments from and to these ports as ZMTP.

    A segment need not end with a frame: read with ``sniff(session=TCPSession)`` to have them put
    together. Applies to the whole process.
    """
    for port in ports:
        bind_bottom_up(TCP, ZMTPStream, dport=port)
        bind_bottom_up(TCP, ZMTPStream, sport=port)


def bind_radio(*ports: int) -> None:
    """From now on scapy reads UDP datagrams to these ports as RADIO's. For the whole process."""
    for port in ports:
        bind_bottom_up(UDP, RadioDatagram, dport=port)
