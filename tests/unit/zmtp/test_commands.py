"""Commands, properties and keys as text: bytes by hand, truncations, random bytes."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.z85 import z85_decode, z85_encode
from mcast.zmtp import FailureReason
from mcast.zmtp.commands import (
    build_command,
    build_error,
    build_ping,
    read_error_untrusted,
    read_ping_untrusted,
    split_untrusted,
)
from mcast.zmtp.failure import ZmtpError, printable
from mcast.zmtp.metadata import (
    COMPATIBLE,
    Peer,
    is_property_name,
    own_properties,
    read_peer_untrusted,
)
from tests.unit.zmtp.wire import properties

pytestmark = pytest.mark.kernel_independent

SUB = properties(Socket_Type=b"SUB")


def test_command_is_name_length_name_and_data() -> None:
    assert build_command(b"SUBSCRIBE", b"A") == bytes.fromhex("09535542534352494245 41")
    assert split_untrusted(b"\x09SUBSCRIBEA") == (b"SUBSCRIBE", b"A")


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00A", b"\x05READ"])
def test_command_without_a_whole_name_is_malformed(body: bytes) -> None:
    with pytest.raises(ZmtpError, match="has no name"):
        split_untrusted(body)


def test_error_has_a_reason_of_255_bytes_at_most() -> None:
    assert build_error(b"400") == bytes.fromhex("05 4552524f52 03 343030")
    assert len(build_error(bytes(300))) == 6 + 1 + 255


@pytest.mark.parametrize(
    ("data", "reason", "status"),
    [
        (b"\x03400", b"400", 400),
        (b"\x03300", b"300", 300),
        (b"\x03200", b"200", 0),
        (b"\x00", b"", 0),
        (b"\x04gone", b"gone", 0),
    ],
)
def test_error_is_read(data: bytes, reason: bytes, status: int) -> None:
    assert read_error_untrusted(data) == (reason, status)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01ab"])
def test_error_of_another_length_is_malformed(data: bytes) -> None:
    with pytest.raises(ZmtpError, match="no reason"):
        read_error_untrusted(data)


def test_ping_tells_tenths_of_a_second() -> None:
    assert build_ping(2_000_000_000) == bytes.fromhex("04 50494e47 0014")
    assert build_ping(99_999_999) == bytes.fromhex("04 50494e47 0000")


def test_ping_is_read_and_its_context_cut_to_16_bytes() -> None:
    assert read_ping_untrusted(b"\x00\x05") == (500_000_000, b"")
    assert read_ping_untrusted(b"\xff\xff" + bytes(17)) == (6_553_500_000_000, bytes(16))
    for short in (b"", b"\x00"):
        with pytest.raises(ZmtpError, match="no TTL"):
            read_ping_untrusted(short)


def test_own_properties_are_in_libzmqs_order() -> None:
    assert own_properties("PUB", b"id", ()) == properties(Socket_Type=b"PUB")
    assert own_properties("REQ", b"client-1", ()) == properties(
        Socket_Type=b"REQ", Identity=b"client-1"
    )
    assert own_properties("ROUTER", b"", (("X-b", b"2"), ("X-a", b"1"))) == properties(
        Socket_Type=b"ROUTER", Identity=b"", X_a=b"1", X_b=b"2"
    )


@pytest.mark.parametrize("ours", COMPATIBLE)
@pytest.mark.parametrize("theirs", COMPATIBLE)
def test_socket_types_accept_each_other_or_not_from_both_sides(ours: str, theirs: str) -> None:
    data = properties(Socket_Type=theirs.encode())
    if ours in COMPATIBLE[theirs]:
        assert read_peer_untrusted(data, ours).socket_type == theirs
    else:
        with pytest.raises(ZmtpError, match=f"'{theirs}' does not go with {ours}"):
            read_peer_untrusted(data, ours)


@pytest.mark.parametrize("theirs", [b"", b"sub", b"SUBX", b"STREAM", b"\xff"])
def test_unknown_socket_type_is_refused(theirs: bytes) -> None:
    with pytest.raises(ZmtpError) as caught:
        read_peer_untrusted(properties(Socket_Type=theirs), "PUB")
    assert caught.value.reason is FailureReason.SOCKET_TYPE


def test_names_compare_without_case_and_are_kept_as_spelt() -> None:
    data = properties(SOCKET_TYPE=b"REQ", identity=b"me", X_y=b"")
    found = {"SOCKET-TYPE": b"REQ", "identity": b"me", "X-y": b""}
    assert read_peer_untrusted(data, "ROUTER") == Peer("REQ", b"me", found)


def test_first_of_equal_names_counts() -> None:
    data = SUB + properties(Socket_Type=b"PULL") + properties(socket_type=b"PULL")
    peer = read_peer_untrusted(data, "PUB")
    assert peer.socket_type == "SUB"
    assert peer.properties["Socket-Type"] == b"SUB"


def test_missing_socket_type_is_no_error() -> None:
    assert read_peer_untrusted(b"", "PUB") == Peer("", b"", {})


@pytest.mark.parametrize("identity", [b"\x00", b"\x00abc", bytes([1]) * 256])
def test_identity_that_cannot_be_used_is_refused(identity: bytes) -> None:
    with pytest.raises(ZmtpError, match="identity is") as caught:
        read_peer_untrusted(properties(Identity=identity), "ROUTER")
    assert caught.value.reason is FailureReason.METADATA


def test_identity_may_have_255_bytes() -> None:
    longest = bytes([1]) * 255
    assert read_peer_untrusted(properties(Identity=longest), "ROUTER").identity == longest


@pytest.mark.parametrize(
    "data",
    [
        *(SUB[:size] for size in range(1, len(SUB))),
        SUB + b"\x01",
        SUB + b"\x01X",
        b"\x00" + pack("!I", 0),
        b"\x01 " + pack("!I", 0),
        b"\x01X" + pack("!I", 1 << 31),
        b"\x01X" + pack("!I", (1 << 32) - 1),
    ],
)
def test_properties_that_do_not_parse_are_refused(data: bytes) -> None:
    with pytest.raises(ZmtpError) as caught:
        read_peer_untrusted(data, "PUB")
    assert caught.value.reason is FailureReason.METADATA


@given(st.binary(max_size=100))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    for read in (
        split_untrusted,
        read_error_untrusted,
        read_ping_untrusted,
        lambda data: read_peer_untrusted(data, "PUB"),
    ):
        try:
            read(data)
        except ZmtpError:
            pass


@pytest.mark.parametrize("name", ["", "X y", "X:", "é", "a" * 256])
def test_names_have_the_rfcs_characters(name: str) -> None:
    assert not is_property_name(name)
    assert is_property_name("X-a_b.c+1")


def test_peers_bytes_are_escaped_and_cut_in_texts() -> None:
    assert printable(b"a\n\x1b[31m\xff") == r"'a\n\x1b[31m\xff'"
    assert printable(b"a" * 65) == f"'{'a' * 64}'..."


def test_z85_is_that_of_rfc_32() -> None:
    assert z85_encode(bytes.fromhex("864FD26FB559F75B")) == "HelloWorld"
    assert z85_decode("HelloWorld") == bytes.fromhex("864FD26FB559F75B")


@given(st.binary(max_size=40).filter(lambda data: len(data) % 4 == 0))
def test_z85_comes_back(data: bytes) -> None:
    assert z85_decode(z85_encode(data)) == data


@pytest.mark.parametrize(
    ("text", "why"),
    [("abcd", "multiple of 5"), ("abcd~", "alphabet"), ("#####", "32 bits")],
)
def test_text_that_is_no_z85_is_refused_and_not_shown(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        z85_decode(text)
    assert text not in str(caught.value)


def test_z85_encodes_whole_words_only() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        z85_encode(b"abc")
