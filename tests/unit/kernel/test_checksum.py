"""The PGM checksum (RFC 3208 section 8): vectors off the wire, and the plain sum beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast import kernel
from tests.unit.kernel.packets import word_sum_checksum

# Captured from libzmq 4.3.4 and OpenPGM, whole packets with their checksums.
ON_THE_WIRE = {
    "SPM": "d01715b300000e25b7c6d1bc038a00000000000000000000ffffffff000100007f000001",
    "SPM with FIN": (
        "d01715b300017ff0b7c6d1bc038a00000000001a0000000000000009000100007f000001000400088e040000"
    ),
    "ODATA of odd length": "d01715b304004622b7c6d1bc038a000500000000000000000000020041",
    "ODATA multipart": (
        "d01715b304006c98b7c6d1bc038a00160000000100000000"
        "00000601746f7069630c0068656c6c6f20776f726c64"
    ),
    "RDATA": "6a4415b305007dc0b7c6d1bc038a00060000000200000000000003006d32",
    "NAK": "15b36a440800efe6b7c6d1bc038a000000000002000100000a4d000100010000efc00101",
    "NAK with list": (
        "15b36a4408036dc8b7c6d1bc038a000000000002000100000a4d000100010000efc00101"
        "0004000c8208000000000003"
    ),
    "NCF": "6a4415b30a00ede6b7c6d1bc038a000000000002000100000a4d000100010000efc00101",
    "SPMR": "15b3f7c40c00597ab7c6d1bc038a0000",
    "NAK over IPv6": (
        "15cc5c6b080084bbb7c6d1bc038a00000000000200020000fd000077000000000000000000000001"
        "00020000ff080000000000000000000000007777"
    ),
}


@pytest.mark.parametrize("packet", ON_THE_WIRE.values(), ids=ON_THE_WIRE)
def test_packets_of_libzmq_have_the_checksum_we_compute(packet: str) -> None:
    raw = bytes.fromhex(packet)
    blank = raw[:6] + b"\0\0" + raw[8:]
    assert kernel.checksum(blank) == int.from_bytes(raw[6:8], "big")
    assert kernel.checksum_ok(raw)


@pytest.mark.parametrize("packet", ON_THE_WIRE.values(), ids=ON_THE_WIRE)
def test_a_flipped_bit_anywhere_is_noticed(packet: str) -> None:
    raw = bytes.fromhex(packet)
    for place in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        assert not kernel.checksum_ok(flipped)


@given(st.binary(max_size=1600))
def test_checksum_is_the_plain_sum_of_words(data: bytes) -> None:
    assert kernel.checksum(data) == word_sum_checksum(data)


@given(st.binary(min_size=8, max_size=200))
def test_a_packet_with_its_checksum_filled_in_is_ok(data: bytes) -> None:
    blank = data[:6] + b"\0\0" + data[8:]
    value = kernel.checksum(blank)
    assert kernel.checksum_ok(blank[:6] + value.to_bytes(2, "big") + blank[8:])


def test_a_sum_of_all_ones_is_sent_as_all_ones_not_as_not_computed() -> None:
    assert kernel.checksum(b"\xff\xff") == 0xFFFF
    assert kernel.checksum(b"\x12\x34\xed\xcb") == 0xFFFF


def test_nothing_but_zeros_has_the_checksum_of_all_ones() -> None:
    assert kernel.checksum(b"") == 0xFFFF
    assert kernel.checksum(bytes(1452)) == 0xFFFF
    assert not kernel.checksum_ok(bytes(16))


@pytest.mark.parametrize("fill", [0x00, 0x01, 0x80, 0xFF])
def test_a_long_run_of_one_octet_does_not_overflow_the_sum(fill: int) -> None:
    data = bytes([fill]) * 65_507
    assert kernel.checksum(data) == word_sum_checksum(data)


def test_any_place_in_memory_and_any_bytes_type_will_do() -> None:
    data = bytes(range(256)) * 3
    for start in range(9):
        wanted = word_sum_checksum(data[start:])
        assert kernel.checksum(memoryview(data)[start:]) == wanted
        assert kernel.checksum(bytearray(data[start:])) == wanted
