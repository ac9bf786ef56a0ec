"""Numbers with suffixes, socket options by name, and what a mistake gets to read."""

from __future__ import annotations

import argparse
import math

import pytest

from mcast.cli import main
from mcast.cli.arguments import (
    bits_per_second,
    byte_count,
    percent,
    positive_count,
    seconds,
    socket_option,
    socket_options,
)

pytestmark = pytest.mark.kernel_independent

URL = "epgm://lo;239.192.1.1:5555"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("800M", 8e8),
        ("800m", 8e8),
        ("1G", 1e9),
        ("1.5G", 1.5e9),
        ("1e9", 1e9),
        ("1Gbit/s", 1e9),
        ("40000", 4e4),
        ("inf", math.inf),
    ],
)
def test_rates_have_decimal_suffixes(text: str, value: float) -> None:
    assert bits_per_second(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("256", 256), ("1K", 1024), ("1KiB", 1024), ("2M", 2 << 20), ("0.5K", 512)]
)
def test_sizes_have_binary_suffixes(text: str, value: int) -> None:
    assert byte_count(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("200K", 200_000), ("200_000", 200_000), ("1e6", 10**6)]
)
def test_counts_have_decimal_suffixes(text: str, value: int) -> None:
    assert positive_count(text) == value


def test_percent_sign_is_optional() -> None:
    assert percent("5") == percent("5%") == 5.0


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("drop_rate=0.05", ("drop_rate", 0.05)),
        ("drop-seed=1", ("drop_seed", 1)),
        ("rate=1G", ("rate", 1e9)),
        ("txw_bytes=64M", ("txw_bytes", 64 << 20)),
        ("rcvbuf=1M", ("rcvbuf", 1 << 20)),
        ("multicast_loop=off", ("multicast_loop", False)),
        ("multicast_loop=TRUE", ("multicast_loop", True)),
        ("multicast_maxtpdu=none", ("multicast_maxtpdu", None)),
        ("multicast_maxtpdu=1400", ("multicast_maxtpdu", 1400)),
        ("repair_deadline=2.5", ("repair_deadline", 2.5)),
        ("profile=libzmq", ("profile", "libzmq")),
        ("routing_id=joe", ("routing_id", b"joe")),
    ],
)
def test_option_has_the_type_of_its_field(text: str, pair: tuple[str, object]) -> None:
    name, value = socket_option(text)
    assert (name, value) == pair
    assert type(value) is type(pair[1])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rate", "name=value is wanted"),
        ("ratte=1", "unknown option ratte; known are"),
        ("rate=1", "rate is 10000 to inf"),
        ("rate=fast", "a rate in bit/s"),
        ("dscp=1.5", "a whole number"),
        ("dscp=1K", "a number for dscp"),
        ("dscp=none", "a number for dscp"),
        ("dscp=-1", "a number for dscp"),
        ("multicast_loop=maybe", "multicast_loop is on or off"),
        ("profile=wan", "profile is one of lan, few, crowd, libzmq"),
        ("coalesce=nan", "a number for coalesce"),
    ],
)
def test_bad_option_says_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
        socket_option(text)


def test_last_option_of_a_name_counts_and_a_flag_of_its_own_counts_more() -> None:
    pairs = [("rate", 1e5), ("rate", 1e6), ("dscp", 0)]
    assert socket_options(pairs, rate=None) == {"rate": 1e6, "dscp": 0}
    assert socket_options(pairs, rate=1e9) == {"rate": 1e9, "dscp": 0}


@pytest.mark.parametrize("text", ["", "-1", "1x", "nan", "1 2", "1e999x", "١x"])
def test_what_is_no_number_is_refused(text: str) -> None:
    for form in (bits_per_second, byte_count, positive_count, seconds, percent):
        with pytest.raises(argparse.ArgumentTypeError):
            form(text)


BAD_COMMAND_LINES = {
    "": "required: COMMAND",
    "publish": "invalid choice: 'publish'",
    "pub": "required: URL",
    "sub": "required: URL",
    f"pub {URL} --rate 5x": "--rate: a rate in bit/s, such as 800M, 1e9 or inf is wanted",
    f"pub {URL} --count 0": "--count: at least 1",
    f"pub {URL} --count 1.5": "--count: a whole number",
    f"pub {URL} --count 1 --size -1": "--size",
    f"pub {URL} --size 5": "--size goes with --count",
    f"pub {URL} --count 1 --size 17M": "raise it by -o max_msg_size=",
    f"pub {URL} --wait never": "--wait: seconds",
    f"pub {URL} --linger 4000": "linger is 0 to 3600",
    f"pub {URL} --rate 1": "rate is 10000 to inf",
    f"pub {URL} --cou 5": "unrecognized arguments: --cou 5",
    f"sub {URL} --timeout x": "--timeout: seconds",
    f"sub {URL} -o rate": "-o/--option: name=value is wanted",
    f"sub {URL} -o ratte=1": "unknown option ratte",
    f"sub {URL} more": "unrecognized arguments: more",
    "demo --loss 91": "--loss: 0 to 90 percent",
    "demo --size 10": "--size is 28 or more, not 10",
    "demo --subscribers 33": "--subscribers is 1 to 32",
    "demo --plant nothing": "--plant: invalid choice",
    "demo --seed one": "--seed: invalid int value",
    "sub nonsense": "nonsense",
    "sub tcp://127.0.0.1": "tcp://",
    "sub epgm://no-such-interface;239.192.1.1:5555": "no-such-interface",
    "pub epgm://lo;10.0.0.1:5555": "10.0.0.1",
}


@pytest.mark.parametrize("line", BAD_COMMAND_LINES)
def test_bad_arguments_end_with_status_3_and_a_helpful_text(
    line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 3
    said = capfd.readouterr()
    assert BAD_COMMAND_LINES[line] in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.parametrize("command", ["", "pub", "sub", "demo"])
def test_help_has_examples_and_ends_with_status_0(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    said = capfd.readouterr()
    assert "examples:" in said.out
    assert "mcast " + command in said.out
    assert said.err == ""


def test_version_is_the_package_s(capfd: pytest.CaptureFixture[str]) -> None:
    import mcast

    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"mcast {mcast.__version__}\n"
