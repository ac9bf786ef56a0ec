"""Endpoint URLs: an error of the one kind, or an endpoint whose text says the same again."""

from __future__ import annotations

from collections.abc import Iterator

from mcast import endpoint as under_test
from mcast.errors import EndpointError
from tests.fuzz.target import Target, must

_URLS = (
    "epgm://eth0;239.192.1.1:5555",
    "epgm://10.77.0.1;239.192.1.1:5555",
    "epgm://10.77.0.0/24;239.192.1.1:5555",
    "epgm://eth0;10.0.0.5@232.1.2.3:5555",
    "epgm://[fd00:77::1];[ff08::7777]:5580",
    "epgm://[fd00:77::/64];[ff08::7777]:5580",
    "epgm://[fe80::1%eth0];[ff02::1:7777]:1",
    "epgm://eth0;[fd00::5]@[ff38::7777]:65535",
    "epgm://eth0;239.192.1.1;239.192.1.1:5555",
    "epgm://239.192.1.1:5555",
    "tcp://127.0.0.1:5555",
    "tcp://*:*",
    "tcp://[::1]:5555",
    "tcp://192.168.1.17:5555;192.168.1.1:5556",
    "ipc:///tmp/socket",
    "ipc://@abstract",
    "inproc://name",
    "udp://239.192.1.1:5555",
    "pgm://eth0;239.192.1.1:5555",
)


def run(data: bytes) -> None:
    """Any text, lone surrogates too: those of a command line, and those that stand for no byte."""
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "surrogateescape")
    try:
        endpoint = under_test.parse_endpoint(text)
    except EndpointError as error:
        must(str(error), "an error without a word")
        return
    again = str(endpoint)
    must(under_test.parse_endpoint(again) == endpoint, "a text that means something else", again)
    must(str(under_test.parse_endpoint(again)) == again, "a text that is not canonical", again)
    scheme = again.partition("://")[0]
    # A path is whatever the file system allows.
    must(scheme != "epgm" or again.isprintable(), "a text that cannot be shown", again)
    must(scheme == text.partition("://")[0], "another scheme", again)
    must(len(again) <= under_test.MAX_URL_CHARS, "a text that is too long", again)
    hints = getattr(endpoint, "hints", None)
    if hints is not None:
        must(all(hints()), "an empty hint")


def seeds() -> Iterator[bytes]:
    """One URL of each form."""
    yield from (url.encode() for url in _URLS)
    yield b"ipc://\xed\xa0\x80"
    yield b"epgm://\xed\xa0\x80;239.192.1.1:5555"


def _encode_first() -> None:
    """The length of a name is looked at before its letters: not all can be encoded."""
    whole = under_test._is_name
    under_test._is_name = lambda text: len(text.encode()) <= 15 and whole(text)


def _zone_of_a_group() -> None:
    """A group may have a zone."""
    under_test._no_zone = lambda *_: None


PLANTS = {"encode-first": _encode_first, "zone-of-a-group": _zone_of_a_group}
TARGET = Target(run, seeds, PLANTS, max_bytes=120)
