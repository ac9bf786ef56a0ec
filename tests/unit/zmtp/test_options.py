"""Options: ranges, types, keys, secrets that are not shown, and life without PyNaCl."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from mcast.errors import OptionError
from mcast.z85 import curve_key, z85_encode
from mcast.zmtp import CurveClient, CurveServer, PlainClient, PlainServer, ZmtpOptions, boxes
from tests.unit.zmtp.ends import CLIENT, CLIENT_SECRET, SERVER, SERVER_SECRET, S

pytestmark = pytest.mark.kernel_independent


def test_defaults_are_those_of_the_threat_model() -> None:
    options = ZmtpOptions(socket_type="PUB")
    assert options.max_message_bytes == 1 << 20
    assert options.max_part_count == 1024
    assert options.max_metadata_bytes == 4096
    assert options.max_topic_bytes == 1024
    assert options.max_subscription_count == 10_000
    assert options.max_subscription_bytes == 4 << 20
    assert options.handshake_ivl_ns == 5 * S


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("socket_type", "STREAM", "socket_type is one of PAIR, PUB"),
        ("socket_type", "pub", "not 'pub'"),
        ("security", "NULL", "security is one of"),
        ("identity", "me", "identity is at most 255 bytes"),
        ("identity", bytes([1]) * 256, "identity is at most 255 bytes"),
        ("identity", b"\0a", "reserved"),
        ("metadata", (("Name", b""),), "begin with X-"),
        ("metadata", (("X-é", b""),), "begin with X-"),
        ("metadata", (("X-a", "text"),), "X-a in metadata is no bytes"),
        ("metadata", (("X-a", bytes(4097)),), "X-a in metadata is no bytes, or too long"),
        ("metadata", (("X-a", bytes(4000)), ("X-b", bytes(100))), "bytes of properties"),
        ("max_message_bytes", 0, "1 to"),
        ("max_message_bytes", 1.5, "whole number"),
        ("max_message_bytes", True, "whole number"),
        ("max_message_bytes", None, "whole number"),
        ("max_part_count", 65_537, "1 to 65536"),
        ("max_metadata_bytes", 63, "64 to"),
        ("max_topic_bytes", 0, "1 to"),
        ("max_subscription_count", 0, "1 to"),
        ("max_subscription_bytes", 0, "1 to"),
        ("handshake_ivl_ns", 0, "1000000 to"),
        ("heartbeat_ivl_ns", 999_999, "1000000 to"),
        ("heartbeat_timeout_ns", -1, "0 to"),
        ("heartbeat_ttl_ns", 65_500_000_001, "0 to 65500000000"),
    ],
)
def test_value_that_is_not_allowed_is_named(option: str, value: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        ZmtpOptions(**{"socket_type": "DEALER", option: value})


def test_zero_turns_heartbeats_off_and_none_follows_the_interval() -> None:
    options = ZmtpOptions(socket_type="PUB", heartbeat_ivl_ns=0, heartbeat_timeout_ns=None)
    assert options.heartbeat_ivl_ns == 0


@pytest.mark.parametrize("value", ["a" * 256, "é" * 128, 7, None, b"bytes"])
@pytest.mark.parametrize("option", ["username", "password"])
def test_credentials_are_text_of_255_bytes(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{option} is text of at most 255 bytes"):
        PlainClient(**{"username": "u", "password": "p", option: value})


def test_keys_are_bytes_or_z85() -> None:
    text = z85_encode(SERVER_SECRET)
    assert len(text) == 40
    assert curve_key(text) == curve_key(SERVER_SECRET) == SERVER_SECRET
    assert CurveServer(text) == SERVER
    assert CurveClient(z85_encode(SERVER.public_key), z85_encode(CLIENT_SECRET)) == CLIENT


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(40), "", "0" * 35, "0" * 39, "~" * 40, 5000])
def test_what_is_no_key_is_refused_and_not_shown(key: Any) -> None:
    with pytest.raises(OptionError, match=r"^secret_key") as caught:
        CurveServer(key)
    assert not key or str(key) not in str(caught.value)


def test_secrets_are_in_no_repr() -> None:
    shown = repr((SERVER, CLIENT, PlainClient("admin", "hidden"), PlainServer()))
    assert "hidden" not in shown
    assert repr(SERVER_SECRET) not in shown
    assert repr(CLIENT_SECRET) not in shown
    assert "admin" in shown


def test_public_key_follows_from_the_secret_one() -> None:
    assert CLIENT.public_key == boxes.public_key_of(CLIENT_SECRET)
    assert len(CLIENT.public_key) == 32


def test_server_key_that_makes_all_results_known_is_refused() -> None:
    with pytest.raises(OptionError, match="server_key is nobody's"):
        CurveClient(bytes(32), CLIENT_SECRET)


def test_without_pynacl_only_curve_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl", None)
    spec = importlib.util.find_spec("mcast.zmtp.boxes")
    assert spec is not None
    assert spec.loader is not None
    bare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bare)
    monkeypatch.setattr("mcast.zmtp.options.boxes", bare)
    ZmtpOptions(socket_type="PUB", security=PlainServer())
    for make in (lambda: CurveServer(SERVER_SECRET), lambda: CurveClient(bytes(32), bytes(32))):
        with pytest.raises(OptionError, match=r"CURVE needs PyNaCl .*pip install 'mcast\[curve\]'"):
            make()
