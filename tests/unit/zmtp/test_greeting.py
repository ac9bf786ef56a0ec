"""The greeting: its bytes, its pieces, and whom it turns away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.zmtp import FailureReason
from mcast.zmtp.failure import ZmtpError
from mcast.zmtp.greeting import build_greeting, read_greeting_untrusted
from tests.unit.zmtp.wire import NULL_GREETING, greeting

pytestmark = pytest.mark.kernel_independent


def reason_of(data: bytes) -> FailureReason | None:
    try:
        read_greeting_untrusted(data, b"NULL")
    except ZmtpError as error:
        return error.reason
    return None


def test_null_greeting_is_byte_for_byte_libzmqs() -> None:
    assert build_greeting(b"NULL", False) == NULL_GREETING


def test_server_says_that_it_is_one() -> None:
    sent = build_greeting(b"CURVE", True)
    assert len(sent) == 64
    assert sent[12:33] == b"CURVE" + bytes(15) + b"\x01"


def test_greeting_is_judged_as_far_as_it_came() -> None:
    for size in range(64):
        assert read_greeting_untrusted(NULL_GREETING[:size], b"NULL") is None
    assert read_greeting_untrusted(NULL_GREETING, b"NULL") == (3, 1)


@pytest.mark.parametrize(
    ("version", "spoken"),
    [(b"\x03\x00", (3, 0)), (b"\x03\x01", (3, 1)), (b"\x03\x09", (3, 1)), (b"\x04\x00", (3, 1))],
)
def test_lower_version_of_both_is_spoken(version: bytes, spoken: tuple[int, int]) -> None:
    assert read_greeting_untrusted(greeting(version=version), b"NULL") == spoken


@pytest.mark.parametrize(("major", "named"), [(0, "1.0"), (1, "2.0"), (2, "2.0")])
def test_older_peer_is_refused_at_its_version_octet(major: int, named: str) -> None:
    head = NULL_GREETING[:10] + bytes((major,))
    with pytest.raises(ZmtpError, match=f"speaks ZMTP {named}; 3.0 is the oldest") as caught:
        read_greeting_untrusted(head, b"NULL")
    assert caught.value.reason is FailureReason.VERSION


def test_what_is_no_signature_is_refused_at_its_first_wrong_octet() -> None:
    assert reason_of(b"G") is FailureReason.NOT_ZMTP
    assert reason_of(b"\xff" + bytes(8)) is None
    assert reason_of(b"\xff" + bytes(8) + b"\x7e") is FailureReason.NOT_ZMTP


@pytest.mark.parametrize("theirs", [b"PLAIN", b"NULLX", b"NUL", b"null", b"", b"\xff" * 20])
def test_other_mechanism_is_refused(theirs: bytes) -> None:
    assert reason_of(greeting(theirs)) is FailureReason.MECHANISM


def test_of_the_signatures_end_only_its_lowest_bit_is_asked_for() -> None:
    """As libzmq does: it is what told ZMTP 1.0 from its successors."""
    assert read_greeting_untrusted(b"\xff" + bytes(8) + b"\x01", b"NULL") is None


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=32, max_size=32))
def test_padding_as_server_and_filler_are_not_looked_at(padding: bytes, rest: bytes) -> None:
    data = b"\xff" + padding + NULL_GREETING[9:32] + rest
    assert read_greeting_untrusted(data, b"NULL") == (3, 1)


@given(st.binary(max_size=64))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    reason_of(data)
