"""``mcast replay``: a capture's multicast datagrams through a real socket, in the capture's time.

Owns what the arguments mean together. Exit status 1 means that a signal ended it, or the system
refused datagrams.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from mcast.capture.faults import Faults, Planned
from mcast.capture.files import STDIN, CaptureError
from mcast.cli import arguments as forms
from mcast.cli.terminal import (
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_UNMET,
    TURN_S,
    Progress,
    Stop,
    Stopwatch,
    say,
)
from mcast.errors import OptionError
from mcast.raw import Replay, paced, planned_datagrams

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["Speed", "add_parser", "group_map", "run", "share", "speed"]

_TURN_NS: Final = round(TURN_S * 1e9)

_EPILOG = """\
UDP datagrams to multicast groups are sent; what went to single hosts is left out. They leave from
this host's address, so that mcast and libzmq take them for streams of this host: of the PGM streams
of several hosts, those with the same TSI become one. Every loop repeats the sequence numbers.

The error printed is that of the gaps between datagrams. The last 0.3 ms of each wait are spent
looking at the clock, which takes a whole CPU at more than some 3,000 datagrams/s.

exit status:
  0  all was sent
  1  a signal came first, or the system refused datagrams, such as one above the MTU
  2  the file is missing, no capture, cut off or corrupt; what came before was sent
  3  bad arguments, such as an interface that is not there

examples:
  mcast replay session.pcapng
  mcast replay session.pcapng --speed max --map 239.192.1.1=239.192.1.2
  mcast replay session.pcapng --loss 5% --burst 3 --seed 7
  mcast replay -i eth0 feed.pcap --speed 10M --loop
"""

Speed = tuple[str, float]
"""``times`` and a factor, ``rate`` and bits per second, or ``max`` and 0."""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add the subcommand to the parser of ``mcast``."""
    parser = commands.add_parser(
        "replay",
        help="send a capture's multicast datagrams again, in their time",
        description="Send a capture's multicast datagrams again, in the time they were captured.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="a pcap or pcapng file, - for stdin"
    )
    parser.add_argument(
        "-i",
        "--interface",
        metavar="IFACE",
        default="lo",
        help="name, address or network of the interface (default: lo)",
    )
    parser.add_argument(
        "--speed",
        metavar="SPEED",
        type=speed,
        default=("times", 1.0),
        help="1x (default), another factor such as 0.5x, max, or bits per second such as 10M",
    )
    parser.add_argument("--loop", action="store_true", help="again and again, until a signal")
    parser.add_argument(
        "--map",
        metavar="GROUP=GROUP",
        type=group_map,
        action="append",
        default=[],
        help="send to another group, with :PORT behind it to another port; may be repeated",
    )
    parser.add_argument("--ttl", metavar="N", type=forms.hops, default=1, help="hops (default 1)")
    faults = parser.add_argument_group("faults")
    faults.add_argument("--loss", metavar="P", type=share, default=0.0, help="lose P percent")
    faults.add_argument(
        "--burst", metavar="N", type=float, default=1.0, help="lose N in a row on average"
    )
    faults.add_argument(
        "--reorder", metavar="P", type=share, default=0.0, help="let three overtake P percent"
    )
    faults.add_argument("--dup", metavar="P", type=share, default=0.0, help="send P percent twice")
    faults.add_argument(
        "--delay", metavar="S", type=forms.seconds, default=0.0, help="hold each up to S seconds"
    )
    faults.add_argument("--seed", metavar="N", type=int, default=0, help="same seed, same faults")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(run=run)


def speed(text: str) -> Speed:
    """The meaning of ``--speed``."""
    if text.lower() == "max":
        return "max", 0.0
    if found := re.fullmatch(r"(\d+(?:\.\d*)?)x", text):
        factor = float(found[1])
        if factor > 0:
            return "times", factor
    elif (rate := forms.bits_per_second(text)) > 0:
        return ("max", 0.0) if math.isinf(rate) else ("rate", rate)
    raise argparse.ArgumentTypeError(f"1x, max or a rate such as 10M is wanted, not {text!r}")


def share(text: str) -> float:
    """A percentage, 0 to 90, as a share of 1."""
    return forms.percent(text) / 100


def group_map(text: str) -> tuple[bytes, tuple[bytes, int | None]]:
    """``GROUP=GROUP`` or ``GROUP=GROUP:PORT``; a group of IPv6 with a port is in brackets."""
    old, equals, new = text.partition("=")
    port: int | None = None
    if found := re.fullmatch(r"(\[[^\]]+\]|[^:]+):(\d{1,5})", new):
        new, port = found[1], int(found[2])
    try:
        pair = ip_address(old.strip("[]")), ip_address(new.strip("[]"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"GROUP=GROUP[:PORT] is wanted, not {text!r}") from None
    is_fine = equals and all(group.is_multicast for group in pair)
    if not is_fine or pair[0].version != pair[1].version or port not in (None, *range(1, 65536)):
        raise argparse.ArgumentTypeError(
            f"two multicast groups of the same IP version are wanted, not {text!r}"
        )
    return pair[0].packed, (pair[1].packed, port)


def run(arguments: argparse.Namespace) -> int:
    """Replay; the exit status. Blocks until all is sent or a signal comes.

    Raises: InterfaceError, OptionError, TransportError.
    """
    if arguments.burst < 1:
        raise OptionError("--burst is 1 or more")
    if arguments.loop and arguments.file == STDIN:
        raise OptionError("standard input cannot be read again: --loop needs a file")
    kind, _ = arguments.speed
    progress = Progress(quiet=arguments.quiet)
    watch = Stopwatch()
    error = ""
    with Stop() as stop, Replay(arguments.interface, ttl=arguments.ttl) as replay:
        is_first = True
        while is_first or (arguments.loop and replay.packet_count):
            is_first = False
            replay.restart()
            try:
                for packet in _packets(arguments):
                    if not replay.packet_count:
                        say(f"mcast replay: playing {arguments.file} on {arguments.interface}")
                    while kind != "max" and replay.wait_ns(packet.at_ns) > _TURN_NS:
                        if stop.wait(TURN_S / 2):
                            break
                    if stop.is_asked:
                        break
                    replay.send(packet, timed=kind != "max")
                    if progress.is_due(replay.packet_count):
                        say(f"mcast replay: {replay.packet_count} datagrams")
            except CaptureError as cut:
                error = f"{arguments.file}: {cut}"
            except OSError as failed:
                if failed.filename is None:
                    raise
                error = f"{arguments.file}: {failed.strerror}"
            if stop.is_asked or error:
                break
    elapsed_s = watch.elapsed_s
    if replay.packet_count or not error:
        refused = f"; {replay.refused_count} refused by the system" if replay.refused_count else ""
        per_s = replay.packet_count / max(elapsed_s, 1e-9)
        say(
            f"mcast replay: {replay.packet_count} datagrams, {replay.byte_count} bytes in "
            f"{elapsed_s:.3f} s, {per_s:.0f} datagrams/s{refused}"
        )
    timing = replay.timing
    if timing.count:
        say(
            f"mcast replay: error between datagrams: median {timing.percentile_us(0.5)} us, "
            f"99 % {timing.percentile_us(0.99)} us, longest {timing.longest_ns / 1000:.0f} us"
        )
    if error:
        say(f"mcast replay: error: {error}")
        return EXIT_FAILURE
    return EXIT_UNMET if stop.is_asked or replay.refused_count else EXIT_OK


def _packets(arguments: argparse.Namespace) -> Iterator[Planned]:
    kind, value = arguments.speed
    found = planned_datagrams(
        arguments.file, dict(arguments.map), value if kind == "times" else 1.0
    )
    if kind == "rate":
        found = paced(found, value)
    faults = Faults(
        loss=arguments.loss,
        burst=arguments.burst,
        reorder=arguments.reorder,
        dup=arguments.dup,
        delay_ns=round(arguments.delay * 1e9),
    )
    return found if faults == Faults() else faults.shape(found, Random(arguments.seed))
