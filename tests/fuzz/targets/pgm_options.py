"""The option area of a sound packet: what is read must be what a second, plainer reader finds."""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack, unpack

from mcast.pgm import packet as under_test
from mcast.pgm.packet import NAK, NCF, ODATA, RDATA, SPM, SPMR, Packet
from tests.fuzz.target import Target, must, sealed
from tests.fuzz.targets.pgm_packet import parse
from tests.vectors.pcap import CAPTURES, read_capture

_ADDRESS = b"\0\1\0\0\x0a\x4d\0\1"
_BODIES = (
    (ODATA, b"\0\0\0\7\0\0\0\1"),
    (RDATA, b"\0\0\0\7\0\0\0\1"),
    (SPM, b"\0\0\0\3\0\0\0\1\0\0\0\7" + _ADDRESS),
    (NAK, b"\0\0\0\5" + _ADDRESS + _ADDRESS),
    (NCF, b"\0\0\0\5" + _ADDRESS + _ADDRESS),
    (SPMR, b""),
)
_SIZES = {0x01: (12,), 0x03: (4,), 0x04: (8,), 0x02: tuple(range(4, 249, 4))}


def run(data: bytes) -> None:
    """The first byte picks the packet around the area, and whether the area's length is right."""
    choice = data[0] if data else 0
    kind, body = _BODIES[choice % len(_BODIES)]
    area = data[1:]
    if choice & 0x80:
        area = pack("!BBH", 0, 4, len(area) + 4) + area
    # What the area leaves over is the TSDU.
    total = min(int.from_bytes(area[2:4], "big"), len(area))
    tsdu_length = len(area) - total if kind in (ODATA, RDATA) else 0
    head = pack("!HHBBH6sH", 4242, 5555, kind, 1, 0, b"GSI678", tsdu_length)
    agree(area, parse(sealed(head + body + area)))


def agree(area: bytes, parsed: Packet | None) -> None:
    """The parser takes exactly the areas that follow RFC 3208 section 9.1, and reads the same."""
    expected = read(area)
    if parsed is None or expected is None:
        must(parsed is None and expected is None, "one of two readers refused", parsed, expected)
        return
    options = parsed.options
    must([(one.type, one.value) for one in options.all] == expected, "other options", expected)
    values = dict(expected)
    lists = [unpack(f"!{len(value) // 4}I", value) for kind, value in expected if kind == 0x02]
    must(options.nak_list == (lists[-1] if lists else ()), "another list", options.nak_list)
    must(options.fin == (0x0E in values) and options.syn == (0x0D in values), "SYN or FIN")
    must(options.reset == (0x0F in values), "RST")
    must((options.fragment is None) == (0x01 not in values), "OPT_FRAGMENT")
    must(options.join == (unpack("!I", values[0x03])[0] if 0x03 in values else None), "OPT_JOIN")


def read(area: bytes) -> list[tuple[int, bytes]] | None:
    """The options in ``area`` as (type, value), or None if it breaks a rule."""
    if len(area) < 4 or area[0] & 0x7F or area[1] != 4:
        return None
    end = int.from_bytes(area[2:4], "big")
    if not 4 <= end <= len(area):
        return None
    found: list[tuple[int, bytes]] = []
    rest, is_last = area[4:end], end == 4
    while not is_last:
        if len(found) == 16 or len(rest) < 4 or not 4 <= rest[1] <= len(rest):
            return None
        kind, value = rest[0] & 0x7F, rest[4 : rest[1]]
        if kind in _SIZES and len(value) not in _SIZES[kind]:
            return None
        found.append((kind, value))
        is_last, rest = rest[0] > 0x7F, rest[rest[1] :]
    return None if rest else found


def seeds() -> Iterator[bytes]:
    """The option areas of captured packets, and one of each option."""
    starts = {SPM: 36, ODATA: 24, RDATA: 24, NAK: 36, NCF: 36}
    for path in sorted(CAPTURES.glob("*pgm*.pcap")):
        for datagram in read_capture(path.stem):
            raw = datagram.payload
            start = starts.get(raw[4] & 15)
            if start is not None and raw[5] & 1:
                choice = [kind for kind, _ in _BODIES].index(raw[4] & 15)
                total = int.from_bytes(raw[start + 2 : start + 4], "big")
                yield bytes((choice,)) + raw[start : start + total + 8]
    for kind, sizes in _SIZES.items():
        yield b"\x80" + bytes((0x80 | kind, 4 + sizes[0], 0, 0)) + bytes(sizes[0])


def _no_limit() -> None:
    """Any number of options is read."""
    under_test._OPTION_COUNT_LIMIT = 1 << 30  # type: ignore[misc]


TARGET = Target(run, seeds, {"no-limit": _no_limit}, max_bytes=300)
