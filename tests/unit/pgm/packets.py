"""PGM packets for tests, built apart from ``mcast.pgm.packet``: neither hides the other's bugs.

Every field can be wrong on purpose. The checksum is summed word by word.
"""

from __future__ import annotations

from struct import pack

from tests.unit.pgm.wire import GROUP_ADDRESS, PORT

SPM, POLL, POLR, ODATA, RDATA = 0x00, 0x01, 0x02, 0x04, 0x05
NAK, NNAK, NCF, SPMR, ACK = 0x08, 0x09, 0x0A, 0x0C, 0x0D
DOWNSTREAM = (SPM, POLL, ODATA, RDATA, NCF)

TSI = bytes.fromhex("a1b2c3d4e5f60457")  # GSI, data-source port 1111
SOURCE = bytes((10, 77, 0, 1))
MASK = 0xFFFF_FFFF


def word_sum_checksum(packet: bytes) -> int:
    """RFC 3208 section 8, literally: words, end-around carry, complement, never zero."""
    total = 0
    for start in range(0, len(packet), 2):
        total += int.from_bytes(packet[start : start + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF) or 0xFFFF


def packet(
    kind: int,
    body: bytes,
    *,
    tsi: bytes = TSI,
    dport: int = PORT,
    flags: int = 0,
    tsdu_length: int = 0,
    checksum: int | None = None,
) -> bytes:
    """A packet around ``body``, all that follows the header; None computes the checksum."""
    ports = pack("!H", dport)
    ports = tsi[6:] + ports if kind & 0x0F in DOWNSTREAM else ports + tsi[6:]
    raw = bytearray(ports + bytes((kind, flags, 0, 0)) + tsi[:6] + pack("!H", tsdu_length) + body)
    raw[6:8] = pack("!H", word_sum_checksum(bytes(raw)) if checksum is None else checksum)
    return bytes(raw)


def seal(raw: bytes) -> bytes:
    """The same packet with its checksum put right."""
    bare = raw[:6] + b"\0\0" + raw[8:]
    return raw[:6] + pack("!H", word_sum_checksum(bare)) + raw[8:]


def option(kind: int, value: bytes = b"", *, byte2: int = 0, byte3: int = 0) -> bytes:
    return bytes((kind, 4 + len(value), byte2, byte3)) + value


def option_area(*options: bytes) -> bytes:
    """OPT_LENGTH, the options, END on the last."""
    marked = [*options[:-1], bytes((options[-1][0] | 0x80,)) + options[-1][1:]]
    total = 4 + sum(map(len, marked))
    return pack("!BBH", 0, 4, total) + b"".join(marked)


def nla(address: bytes) -> bytes:
    return pack("!HH", 1 if len(address) == 4 else 2, 0) + address


def data(
    sqn: int,
    tsdu: bytes,
    *options: bytes,
    trail: int | None = None,
    kind: int = ODATA,
    tsi: bytes = TSI,
    dport: int = PORT,
    flags: int = 0,
) -> bytes:
    """ODATA or RDATA; the trail is the number itself unless given."""
    area = option_area(*options) if options else b""
    body = pack("!II", sqn & MASK, (sqn if trail is None else trail) & MASK) + area + tsdu
    return packet(
        kind, body, tsi=tsi, dport=dport, flags=flags | bool(options), tsdu_length=len(tsdu)
    )


def frame(part: bytes, *, more: bool = False) -> bytes:
    """One ZMTP/1.0 frame."""
    length = len(part) + 1
    head = bytes((length,)) if length < 0xFF else b"\xff" + pack("!Q", length)
    return head + bytes((more,)) + part


def tsdu(*parts: bytes) -> bytes:
    """One whole message in a packet of its own, as libzmq frames it."""
    last = len(parts) - 1
    return b"\0\0" + b"".join(frame(part, more=i < last) for i, part in enumerate(parts))


def odata(sqn: int, text: str, *options: bytes, trail: int | None = None, **more: int) -> bytes:
    """ODATA with the one-part message ``text``."""
    return data(sqn, tsdu(text.encode()), *options, trail=trail, **more)  # type: ignore[arg-type]


def rdata(sqn: int, text: str, *, trail: int | None = None) -> bytes:
    return data(sqn, tsdu(text.encode()), trail=trail, kind=RDATA)


def spm(
    sqn: int,
    trail: int,
    lead: int,
    *options: bytes,
    path: bytes = SOURCE,
    tsi: bytes = TSI,
    dport: int = PORT,
) -> bytes:
    area = option_area(*options) if options else b""
    body = pack("!III", sqn & MASK, trail & MASK, lead & MASK) + nla(path) + area
    return packet(SPM, body, tsi=tsi, dport=dport, flags=bool(options))


def request(
    kind: int,
    *sqns: int,
    tsi: bytes = TSI,
    source: bytes = SOURCE,
    group: bytes = GROUP_ADDRESS,
    dport: int = PORT,
) -> bytes:
    """NAK, NNAK or NCF for the numbers."""
    rest = b"".join(pack("!I", sqn & MASK) for sqn in sqns[1:])
    area = option_area(option(0x02, rest)) if rest else b""
    body = pack("!I", sqns[0] & MASK) + nla(source) + nla(group) + area
    return packet(kind, body, tsi=tsi, dport=dport, flags=0x03 if rest else 0)
