"""PGM data packets for the kernel's tests, put together by hand, so not by the code under test."""

from __future__ import annotations

import struct

from mcast import kernel

GSI = bytes.fromhex("b7c6d1bc038a")
TSI = GSI + bytes.fromhex("d017")  # port 53271
DPORT = 5555
ODATA = 0x04
RDATA = 0x05


def word_sum_checksum(packet: bytes) -> int:
    """RFC 1071 word by word, the plain way."""
    padded = packet + b"\0" * (len(packet) % 2)
    total = 0
    for (word,) in struct.iter_unpack(">H", padded):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def data_packet(
    sqn: int,
    tsdu: bytes,
    *,
    trail: int = 0,
    kind: int = ODATA,
    options: bytes = b"",
    tsi: bytes = TSI,
    dport: int = DPORT,
    checksum: int | None = None,
) -> bytes:
    """An ODATA or RDATA packet with the right checksum, unless told another."""
    head = struct.pack(
        ">2sHBBH6sHII",
        tsi[6:],
        dport,
        kind,
        0x01 if options else 0,
        0,
        tsi[:6],
        len(tsdu),
        sqn & 0xFFFF_FFFF,
        trail & 0xFFFF_FFFF,
    )
    packet = head + options + tsdu
    value = word_sum_checksum(packet) if checksum is None else checksum
    return packet[:6] + value.to_bytes(2, "big") + packet[8:]


def frame(body: bytes, *, more: bool = False) -> bytes:
    """One part as libzmq's ZMTP/1.0 encoder writes it."""
    length = len(body) + 1
    head = bytes([length]) if length < 255 else b"\xff" + length.to_bytes(8, "big")
    return head + bytes([more]) + body


def tsdu(*messages: bytes, offset: int = 0) -> bytes:
    """A TSDU of whole one-part messages."""
    return offset.to_bytes(2, "big") + b"".join(map(frame, messages))


def take_all(slots: kernel.TransmitSlots) -> list[bytes]:
    """Seal, and take every packet that waits, one by one."""
    slots.seal()
    packets: list[bytes] = []
    while (taken := slots.take_run(1000)) is not None:
        view, segment_bytes = taken
        packets += split(bytes(view), segment_bytes)
    return packets


def split(run: bytes, segment_bytes: int) -> list[bytes]:
    """The packets of a run."""
    return [run[start : start + segment_bytes] for start in range(0, len(run), segment_bytes)]
