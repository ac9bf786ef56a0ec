"""The judge must be able to condemn: each planted fault in a capture draws a sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.tshark import counts, dissect, judge

pytestmark = [pytest.mark.interop("tshark"), pytest.mark.kernel_independent]

PORT = 5555
GSI = bytes.fromhex("0a0b0c0d0e0f")
NLA = struct.pack("!HH4B", 1, 0, 10, 77, 0, 1)
GROUP = struct.pack("!HH4B", 1, 0, 239, 192, 1, 1)


def pgm(kind: int, body: bytes, *, options: int = 0, tsdu_bytes: int = 0) -> bytes:
    packet = struct.pack("!HHBBH6sH", 4000, PORT, kind, options, 0, GSI, tsdu_bytes) + body
    padded = packet + bytes(len(packet) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return packet[:6] + struct.pack("!H", (~total & 0xFFFF) or 0xFFFF) + packet[8:]


SPM = pgm(0x00, struct.pack("!III", 7, 3, 9) + NLA)
ODATA = pgm(0x04, struct.pack("!II", 5, 3) + b"\0\0\2\0A", tsdu_bytes=5)
NAK_BODY = struct.pack("!I", 5) + NLA + GROUP
NAK_LIST = pgm(0x08, NAK_BODY + bytes.fromhex("00040010820c000000000006000000ff"), options=0x03)
SPMR = pgm(0x0C, b"")
GOOD = [SPM, ODATA, NAK_LIST, SPMR]


def flipped(packet: bytes) -> bytes:
    return packet[:-1] + bytes([packet[-1] ^ 0x01])


def write_capture(path: Path, packets: list[bytes]) -> None:
    """Write a classic pcap of raw IPv4 packets (link type 101)."""
    ends = (10, 77, 0, 1, 239, 192, 1, 1)
    content = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for number, packet in enumerate(packets):
        udp = struct.pack("!HHHH", 40_000, PORT, 8 + len(packet), 0) + packet
        ip = struct.pack("!BBHHHBBH4B4B", 0x45, 0xB8, 20 + len(udp), 0, 0x4000, 1, 17, 0, *ends)
        content += struct.pack("<IIII", number, 0, len(ip + udp), len(ip + udp)) + ip + udp
    path.write_bytes(content)


def verdict(path: Path, *packets: bytes) -> list[str]:
    write_capture(path, list(packets))
    return judge(dissect(path, PORT))


def test_good_packets_are_acquitted_and_their_fields_are_read(tmp_path: Path) -> None:
    write_capture(tmp_path / "good.pcap", GOOD)
    packets = dissect(tmp_path / "good.pcap", PORT)
    assert judge(packets) == []
    assert counts(packets) == {"NAK": 1, "ODATA": 1, "SPM": 1, "SPMR": 1}
    spm, odata, nak, spmr = packets
    assert (spm.sqn, spm.value("pgm.spm.trail"), spm.value("pgm.spm.lead")) == (7, 3, 9)
    assert spm.text("pgm.spm.path.ipv4") == "10.77.0.1"
    assert (odata.sqn, odata.value("pgm.hdr.tsdulen")) == (5, 5)
    assert (nak.sqn, nak.nak_list) == (5, [6, 255])
    assert nak.nak_list_text == "0x6 0xff"
    assert (spm.source, spm.destination, spm.value("ip.ttl")) == ("10.77.0.1", "239.192.1.1", 1)
    assert spm.tsi == "0a0b0c0d0e0f.4000"
    assert spmr.name == "SPMR"


@pytest.mark.parametrize("packet", GOOD, ids=["SPM", "ODATA", "NAK", "SPMR"])
def test_a_flipped_bit_is_condemned(tmp_path: Path, packet: bytes) -> None:
    assert "checksum" in verdict(tmp_path / "flipped.pcap", flipped(packet))[0]


@pytest.mark.parametrize("packet", GOOD, ids=["SPM", "ODATA", "NAK", "SPMR"])
def test_a_missing_checksum_is_condemned(tmp_path: Path, packet: bytes) -> None:
    assert verdict(tmp_path / "none.pcap", packet[:6] + b"\0\0" + packet[8:])


def test_a_truncated_packet_is_condemned(tmp_path: Path) -> None:
    assert verdict(tmp_path / "short.pcap", pgm(0x00, struct.pack("!II", 7, 3)))


@pytest.mark.parametrize(
    "options",
    [
        "0004000e820c000000000006000000ff",  # the total is too small
        "00040010820a000000000006000000ff",  # the option is too small
        "00040010020c000000000006000000ff",  # nobody is the last
    ],
)
def test_options_that_contradict_each_other_are_condemned(tmp_path: Path, options: str) -> None:
    nak = pgm(0x08, NAK_BODY + bytes.fromhex(options), options=0x03)
    assert verdict(tmp_path / "options.pcap", nak)


@pytest.mark.parametrize("packet", [SPM, ODATA, NAK_LIST], ids=["SPM", "ODATA", "NAK"])
def test_trailing_bytes_are_condemned(tmp_path: Path, packet: bytes) -> None:
    # Two zero bytes leave the checksum right.
    assert "add up" in verdict(tmp_path / "tail.pcap", packet + bytes(2))[0]


def test_an_unknown_type_is_condemned(tmp_path: Path) -> None:
    assert verdict(tmp_path / "type.pcap", pgm(0x0F, b""))
