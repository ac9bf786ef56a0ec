"""The grammar of endpoint URLs: what is accepted, how it is spelled back, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcast.endpoint import MAX_URL_CHARS, MulticastEndpoint, format_endpoint, parse_endpoint
from mcast.errors import EndpointError

ACCEPTED = {
    "epgm://eth0;239.192.1.1:5555": ("eth0", None, "239.192.1.1", 5555),
    "epgm://10.77.0.1;239.192.1.1:1": ("10.77.0.1", None, "239.192.1.1", 1),
    "epgm://10.77.0.0;239.192.1.1:65535": ("10.77.0.0", None, "239.192.1.1", 65535),
    "epgm://10.77.0.0/24;239.192.1.1:5555": ("10.77.0.0/24", None, "239.192.1.1", 5555),
    "epgm://eth0;10.0.0.5@232.1.2.3:5555": ("eth0", "10.0.0.5", "232.1.2.3", 5555),
    "epgm://eth0;[ff08::7777]:5580": ("eth0", None, "ff08::7777", 5580),
    "epgm://[fd00:77::1];[ff08::7777]:5580": ("fd00:77::1", None, "ff08::7777", 5580),
    "epgm://[fd00:77::/64];[ff08::7777]:5580": ("fd00:77::/64", None, "ff08::7777", 5580),
    "epgm://[fe80::1%eth0];[ff02::7777]:5580": ("fe80::1%eth0", None, "ff02::7777", 5580),
    "epgm://eth0;[fd00::5]@[ff35::7777]:80": ("eth0", "fd00::5", "ff35::7777", 80),
    "epgm://;239.192.1.1:5555": ("", None, "239.192.1.1", 5555),
}


@pytest.mark.parametrize("url", ACCEPTED)
def test_every_form_of_the_grammar_is_parsed_and_spelled_back(url: str) -> None:
    endpoint = parse_endpoint(url)
    found = (endpoint.interface, endpoint.source, endpoint.group, endpoint.port)
    assert found == ACCEPTED[url]
    assert str(endpoint) == url


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("epgm://eth0;239.192.1.1;239.192.1.1:5555", "epgm://eth0;239.192.1.1:5555"),
        ("epgm://239.192.1.1:5555", "epgm://;239.192.1.1:5555"),
        ("epgm://eth0;239.192.1.1:05555", "epgm://eth0;239.192.1.1:5555"),
        ("epgm://[FD00:77:0::1];[FF08:0::7777]:5580", "epgm://[fd00:77::1];[ff08::7777]:5580"),
    ],
)
def test_other_spellings_become_the_canonical_one(spelling: str, canonical: str) -> None:
    assert str(parse_endpoint(spelling)) == canonical


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no scheme"),
        ("eth0;239.192.1.1:5555", "no scheme"),
        ("EPGM://eth0;239.192.1.1:5555", "unknown scheme 'EPGM'"),
        ("pgm://eth0;239.192.1.1:5555", "use epgm://"),
        ("epgm://eth0;239.192.1.1", r"1\.\.65535"),
        ("epgm://eth0;239.192.1.1:", r"port '' is not a number in 1\.\.65535"),
        ("epgm://eth0;239.192.1.1:0", "port 0 is not"),
        ("epgm://eth0;239.192.1.1:65536", "port 65536 is not"),
        ("epgm://eth0;239.192.1.1:+55", r"port '\+55'"),
        ("epgm://eth0;239.192.1.1:٥٥", "port '٥٥'"),
        ("epgm://eth0;:5555", "group '' is not an IPv4 or IPv6 address"),
        ("epgm://eth0;example.org:5555", "group 'example.org' is not"),
        ("epgm://eth0;10.0.0.5:5555", r"not multicast; allowed are 224\.0\.0\.0/4"),
        ("epgm://eth0;[fd00::5]:5555", "not multicast"),
        ("epgm://eth0;[ff00::5]:5555", "reserved scope 0"),
        ("epgm://eth0;[ff02::5%eth0]:5555", "leave it out"),
        ("epgm://eth0;[::ffff:239.192.1.1]:5555", r"write it as IPv4, 239\.192\.1\.1"),
        ("epgm://eth0;ff08::7777:5580", r"brackets, \[ff08::7777\]"),
        ("epgm://eth0;[239.192.1.1]:5580", "only IPv6 goes into brackets"),
        ("epgm://fd00::1;[ff08::7777]:5580", "brackets"),
        ("epgm://eth0;239.192.1.1,239.192.1.2:5555", "connect once for each group"),
        ("epgm://eth0;239.192.1.1;239.192.1.2:5555", "send group '239.192.1.2' differs"),
        ("epgm://eth0;239.192.1.1;239.192.1.1;239.192.1.1:5555", "4 parts"),
        ("epgm://10.0.0.1;[ff08::7777]:5580", "both must be of one family"),
        ("epgm://[fd00::]/64;[ff08::7777]:5580", "brackets"),
        ("epgm://10.77.0.1/24;239.192.1.1:5555", "host bits"),
        ("epgm://10.77.0.0/33;239.192.1.1:5555", "not a network"),
        ("epgm://[fd00::/64];239.192.1.1:5555", "both must be of one family"),
        ("epgm://[fe80::%a/64];[ff02::1]:5555", "a network"),
        ("epgm://0.0.0.0;239.192.1.1:5555", "not the address of an interface"),
        ("epgm://239.192.1.1;239.192.1.1:5555", "not the address of an interface"),
        ("epgm://veth0@if3;239.192.1.1:5555", "not a name"),
        ("epgm://name-of-16-bytes;239.192.1.1:5555", "not a name"),
        ("epgm://..;239.192.1.1:5555", "not a name"),
        ("epgm://et\udc80;239.192.1.1:5555", "not a name"),
        ("epgm://[fe80::1%a b];[ff02::1]:5555", "the zone is not"),
        ("epgm://eth0;@239.192.1.1:5555", "source '' is not"),
        ("epgm://eth0;239.1.1.1@232.1.2.3:5555", "not the address of one host"),
        ("epgm://eth0;255.255.255.255@232.1.2.3:5555", "not the address of one host"),
        ("epgm://eth0;[fd00::5]@232.1.2.3:5555", "both must be of one family"),
        ("epgm://eth0;[fe80::5%a]@[ff35::1]:5555", "leave it out"),
        ("epgm://" + "x" * MAX_URL_CHARS, "at most 1024"),
    ],
)
def test_a_wrong_url_is_refused_with_its_reason(url: str, reason: str) -> None:
    with pytest.raises(EndpointError, match=reason):
        parse_endpoint(url)


def test_bytes_are_not_a_url() -> None:
    with pytest.raises(EndpointError, match="a URL is a str, not bytes"):
        parse_endpoint(b"epgm://eth0;239.192.1.1:5555")  # type: ignore[arg-type]


def test_an_endpoint_made_by_hand_is_checked_like_a_url() -> None:
    with pytest.raises(EndpointError, match="not multicast"):
        MulticastEndpoint(interface="eth0", group="10.0.0.1", port=5555)
    with pytest.raises(EndpointError, match="port True"):
        MulticastEndpoint(interface="eth0", group="239.192.1.1", port=True)
    with pytest.raises(EndpointError, match="not multicast; only 'epgm'"):
        MulticastEndpoint(interface="a", group="239.1.1.1", port=1, scheme="x")  # type: ignore[arg-type]


def test_version_follows_the_group() -> None:
    assert parse_endpoint("epgm://eth0;239.192.1.1:5555").version == 4
    assert parse_endpoint("epgm://eth0;[ff08::7777]:5555").version == 6


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("epgm://eth0;232.1.2.3:5555", "SOURCE@232.1.2.3"),
        ("epgm://eth0;[ff35::7777]:5555", "SOURCE@[ff35::7777]"),
        ("epgm://eth0;224.0.0.251:5555", "never routed"),
    ],
)
def test_a_group_likely_to_disappoint_gives_a_hint(url: str, hint: str) -> None:
    (found,) = parse_endpoint(url).hints()
    assert hint in found


def test_a_source_specific_group_with_its_source_needs_no_hint() -> None:
    assert parse_endpoint("epgm://eth0;10.0.0.5@232.1.2.3:5555").hints() == ()
    assert parse_endpoint("epgm://eth0;239.192.1.1:5555").hints() == ()


names = st.from_regex(r"[a-z][a-z0-9.\-_]{0,14}", fullmatch=True)
zones = st.sampled_from(["", "%eth0", "%3"])


@st.composite
def multicast_endpoints(draw: st.DrawFn) -> MulticastEndpoint:
    version = draw(st.sampled_from([4, 6]))
    if version == 4:
        number = draw(st.integers(0xE0000000, 0xEFFFFFFF))
        group = ".".join(str(octet) for octet in number.to_bytes(4, "big"))
        unicast = draw(st.ip_addresses(v=4, network="10.0.0.0/8").map(str))
        network = draw(st.sampled_from(["10.77.0.0/24", "10.0.0.0/8", "10.77.0.0"]))
    else:
        scope = draw(st.sampled_from("12458e"))
        group = f"ff{draw(st.sampled_from('013'))}{scope}::{draw(st.integers(1, 0xFFFF)):x}"
        unicast = draw(st.ip_addresses(v=6, network="fd00::/8").map(str))
        network = draw(st.sampled_from(["fd00:77::/64", "fe80::1%eth0", "fd00::"]))
    return MulticastEndpoint(
        interface=draw(st.one_of(st.just(""), names, st.just(unicast), st.just(network))),
        group=group,
        port=draw(st.integers(1, 65535)),
        source=draw(st.one_of(st.none(), st.just(unicast))),
    )


@given(multicast_endpoints())
def test_formatting_and_parsing_are_inverse(endpoint: MulticastEndpoint) -> None:
    assert parse_endpoint(format_endpoint(endpoint)) == endpoint


url_pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "epgm://",
                "eth0",
                ";",
                ":",
                "@",
                "[",
                "]",
                "%",
                "/",
                ",",
                "::",
                "ff02::1",
                "24",
                "239.192.1.1",
                "10.0.0.5",
                "5555",
                "fe80::1",
                ".",
                "0",
                "232.1.2.3",
                "٣",
                "\udc80",
            ]
        ),
        st.text(max_size=4),
    ),
    max_size=12,
).map("".join)


@given(st.one_of(st.text(), url_pieces, url_pieces.map("epgm://".__add__)))
@example("epgm://[fe80::1%];[ff02::1]:1")
@example("epgm://[];[]:1")
@example("epgm://eth0;[ff02::1/64]:1")
def test_arbitrary_text_parses_to_something_canonical_or_raises_endpoint_error(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except EndpointError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint
