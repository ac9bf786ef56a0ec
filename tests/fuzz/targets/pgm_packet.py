"""One UDP payload into the parser of PGM packets, and into the kernels' own, which must agree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mcast.kernel import reference
from mcast.pgm import packet as under_test
from mcast.pgm.packet import (
    ODATA,
    RDATA,
    TYPE_NAMES,
    Data,
    Nak,
    Packet,
    PacketError,
    Poll,
    Spm,
)
from tests.fuzz.target import Target, must, sealed
from tests.vectors.pcap import CAPTURES, read_capture

REASONS = {
    "truncated",
    "version",
    "type",
    "checksum",
    "checksum_missing",
    "address_family",
    "parity",
    "option",
    "length",
}
OPTION_LIMIT, NAK_LIMIT = 16, 62
PARSER_NAMES = frozenset(TYPE_NAMES)

_kernels = [reference]
with contextlib.suppress(ImportError):
    from mcast.kernel import _native  # type: ignore[attr-defined]

    _kernels.append(_native)


def run(data: bytes) -> None:
    """The first byte says whether the checksum is put right, as a forger would."""
    raw = data[1:] if data[:1] == b"\1" else sealed(data[1:])
    parsed = parse(raw)
    kernels_agree(raw, parsed)


def parse(raw: bytes) -> Packet | None:
    """The packet, after what must hold of any was checked; None if it was refused."""
    try:
        parsed = under_test.parse_untrusted(raw)
    except PacketError as error:
        must(error.reason in REASONS, "a reason without a counter", error.reason)
        return None
    header, body, options = parsed
    must(header.type in PARSER_NAMES and len(header.gsi) == 6, "a wrong header", header)
    must(len(options.all) <= OPTION_LIMIT, "too many options", options)
    must(len(options.nak_list) <= NAK_LIMIT, "too long a list", options.nak_list)
    used = 16 + sum(4 + len(option.value) for option in options.all)
    if isinstance(body, Data):
        must(len(body.tsdu) == header.tsdu_length, "a TSDU of another length", header, body)
        must(bytes(body.tsdu) == raw[len(raw) - len(body.tsdu) :], "a TSDU from elsewhere", body)
        used += 8 + len(body.tsdu)
    else:
        for address in _addresses(body):
            must(len(address) in (4, 16), "an address of a wrong length", address)
            used += 4 + len(address)
    must(used <= len(raw), "more was read than there is", used, len(raw))
    return parsed


def _addresses(body: object) -> tuple[bytes, ...]:
    if isinstance(body, Spm | Poll):
        return (body.path_nla,)
    return (body.source_nla, body.group_nla) if isinstance(body, Nak) else ()


def kernels_agree(raw: bytes, parsed: Packet | None) -> None:
    """A kernel takes for plain data exactly what the parser reads as data without options."""
    if len(raw) < 24 or raw[4] not in (ODATA, RDATA) or raw[2:4] == b"\0\0":
        return
    tsi, port = under_test.tsi_of(raw), int.from_bytes(raw[2:4], "big")
    expected = None
    if parsed is not None and isinstance(parsed.body, Data) and parsed.header.flags == 0:
        behind = (parsed.body.sqn - parsed.body.trail) & 0xFFFF_FFFF
        if len(parsed.body.tsdu) and behind < 1 << 31:
            expected = parsed.body.sqn, parsed.body.sqn - behind
    for kernel in _kernels:
        decoder = kernel.FrameDecoder(kernel.TopicFilter((b"",)), 1000, 4)
        slots = kernel.ReceiveSlots(tsi, port, decoder, int.from_bytes(raw[16:20], "big"))
        found = slots.numbers_of(memoryview(raw), 0, len(raw))
        must(found == expected, "kernel and parser differ", kernel.__name__, found, expected)


def seeds() -> Iterator[bytes]:
    """Every captured packet of 300 bytes or less."""
    for path in sorted(CAPTURES.glob("*pgm*.pcap")):
        for datagram in read_capture(path.stem):
            if len(datagram.payload) <= 300:
                yield b"\0" + datagram.payload


def _trust_the_family() -> None:
    """An address is as long as its family says, whether or not it is there."""

    def parse_nla(view: memoryview, start: int) -> tuple[bytes, int]:
        under_test._need(view, start + 4)
        size = {1: 4, 2: 16}.get(int.from_bytes(view[start : start + 2], "big"))
        if size is None:
            raise PacketError("address_family")
        return bytes(view[start + 4 : start + 4 + size]), start + 4 + size

    under_test._parse_nla_untrusted = parse_nla


TARGET = Target(run, seeds, {"trust-the-family": _trust_the_family}, max_bytes=400)
