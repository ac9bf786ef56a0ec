"""``mcast decode``: a capture file as PGM streams, ZMTP sessions, packets and messages.

Exit status 1 means that a stream lost numbers in the capture, 2 that the file could not be read to
its end; what could be read is reported all the same.
"""

from __future__ import annotations

import argparse
import base64
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mcast.capture.decode import Decoder, Heard, Seen
from mcast.capture.dissect import Transport
from mcast.capture.fields import (
    address_text,
    session_fields,
    stream_fields,
    summary_fields,
)
from mcast.capture.files import STDIN, CaptureError, open_capture
from mcast.capture.lines import PacketLines, json_line, time_text
from mcast.capture.sessions import Session
from mcast.cli import arguments as forms
from mcast.cli.decode_text import report_lines
from mcast.cli.terminal import (
    EXIT_FAILURE,
    EXIT_OK,
    EXIT_UNMET,
    Output,
    Progress,
    Stop,
    Stopwatch,
    say,
)

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "run"]

_FLUSH_BYTES: Final = 1 << 16
_BAR_CELLS: Final = 30

_EPILOG = """\
Reads pcap and pcapng, gzipped or not: Ethernet with VLAN tags, Linux cooked v1 and v2, loopback,
raw IP; IPv4, IPv6, fragments. PGM is found by its checksum whatever the port, ZMTP by its greeting;
RADIO datagrams have no mark, so name their ports. Memory does not grow with the file.

With --json every line is an object whose "record" is packet, message, stream, session or summary.

exit status:
  0  read to its end, nothing missing
  1  a stream lost packets, as far as the capture shows
  2  the file is missing, no capture, cut off or corrupt

examples:
  mcast decode session.pcapng
  mcast decode session.pcap --messages
  mcast decode session.pcap --packets --port 5555
  ssh far tcpdump -i eth0 -c 10000 -w - udp | mcast decode -
  mcast decode session.pcap --json | jq 'select(.record == "stream")'
"""


def add_parser(commands: _SubParsersAction[forms.ArgumentParser]) -> None:
    """Add ``decode`` to the commands."""
    parser = commands.add_parser(
        "decode",
        help="read a capture file: streams, gaps, repairs, messages",
        description="Read a capture file into PGM streams, ZMTP sessions, packets and messages.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="a pcap or pcapng file, - for stdin"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines instead of text")
    parser.add_argument("--messages", action="store_true", help="also print every message")
    parser.add_argument("--packets", action="store_true", help="also print every PGM packet")
    parser.add_argument(
        "--port",
        metavar="PORT",
        type=int,
        action="append",
        default=[],
        help="UDP port that holds PGM, and no other does; may be repeated (default: by checksum)",
    )
    parser.add_argument(
        "--radio-port",
        metavar="PORT",
        type=int,
        action="append",
        default=[],
        help="UDP port that RADIOs send to; may be repeated",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit status of ``mcast decode`` with these arguments; blocks until the file is read."""
    path: Path = arguments.file
    try:
        with open_capture(path) as file:
            decoder = Decoder(
                file,
                messages=arguments.messages,
                pgm_ports=frozenset(arguments.port),
                radio_ports=frozenset(arguments.radio_port),
            )
            return _read(arguments, decoder, _size_bytes(path))
    except CaptureError as error:
        say(f"mcast decode: error: {path}: {error}")
    except OSError as error:
        say(f"mcast decode: error: {path}: {error.strerror or error}")
    return EXIT_FAILURE


def _size_bytes(path: Path) -> int:
    """Of a file; 0 for what has no size, such as a pipe."""
    found = os.fstat(sys.stdin.fileno()) if path == STDIN else path.stat()
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _read(arguments: argparse.Namespace, decoder: Decoder, size_bytes: int) -> int:
    output = Output()
    lines: list[bytes] = []
    pending_bytes = 0
    bar = _Bar(size_bytes, is_quiet=arguments.quiet)
    message_line = _json_message if arguments.json else _text_message
    steps: Iterator[Heard | bytes | None]
    if arguments.packets:
        steps = decoder.steps_and_lines(PacketLines(is_json=arguments.json))
    else:
        steps = (step for step in decoder.steps() if not isinstance(step, Seen))
    with Stop() as stop:
        for step in steps:
            if step is None:
                bar.show(decoder)
            else:
                line = step if isinstance(step, bytes) else message_line(step)
                lines.append(line)
                pending_bytes += len(line)
                if pending_bytes > _FLUSH_BYTES:
                    output.write(b"".join(lines))
                    lines.clear()
                    pending_bytes = 0
            if stop.is_asked or output.is_closed:
                decoder.error = decoder.error or "stopped before the end"
                break
    bar.clear()
    lines.extend(_report(arguments, decoder))
    output.write(b"".join(lines))
    if decoder.error:
        say(f"mcast decode: error: {arguments.file}: {decoder.error}; what came before was read")
        return EXIT_FAILURE
    lost = any(stream.lost_count for stream in decoder.streams.values())
    return EXIT_UNMET if lost else EXIT_OK


def _report(arguments: argparse.Namespace, decoder: Decoder) -> list[bytes]:
    streams = [stream_fields(stream) for stream in decoder.streams.values()]
    sessions = [session_fields(s) for s in decoder.sessions.sessions if s.is_zmtp]
    summary = summary_fields(decoder)
    if not arguments.json:
        return [f"{line}\n".encode() for line in report_lines(streams, sessions, summary)]
    found = [("stream", fields) for fields in streams]
    found += [("session", fields) for fields in sessions]
    found.append(("summary", summary))
    return [json_line({"record": kind} | fields) for kind, fields in found]


def _json_message(step: Heard) -> bytes:
    parts = step.message if isinstance(step.message, tuple) else (step.message,)
    return json_line(
        {
            "record": "message",
            "frame": step.frame,
            "time_ns": step.time_ns,
            "origin": _origin(step),
            "parts": [_json_part(part) for part in parts],
        }
    )


def _json_part(part: bytes) -> object:
    try:
        return part.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(part).decode("ascii")}


def _text_message(step: Heard) -> bytes:
    parts = step.message if isinstance(step.message, tuple) else (step.message,)
    head = f"{step.frame}\t{time_text(step.time_ns)}\t{_origin(step)}\t"
    return head.encode() + b"\t".join(parts) + b"\n"


def _origin(step: Heard) -> str:
    origin = step.origin
    if isinstance(origin, Transport):
        return f"radio {address_text(origin.source)}:{origin.source_port}"
    if isinstance(origin, Session):
        ends = (
            (origin.client, origin.server) if step.from_client else (origin.server, origin.client)
        )
        return ">".join(f"{address_text(host)}:{port}" for host, port in ends)
    return f"{address_text(origin.source)}/{origin.name}"


class _Bar:
    """How far the reading is: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, size_bytes: int, *, is_quiet: bool) -> None:
        self._size_bytes = size_bytes
        self._progress = Progress(quiet=is_quiet)
        self._watch = Stopwatch()
        self._is_terminal = sys.stderr.isatty()
        self._is_shown = False

    def show(self, decoder: Decoder) -> None:
        read_bytes = decoder.file.read_bytes
        if not self._progress.is_due(read_bytes):
            return
        share = min(1.0, read_bytes / max(1, self._size_bytes))
        rate = read_bytes / max(self._watch.elapsed_s, 1e-9) / 1e6
        text = f"{decoder.file.frame_count} packets, {rate:.0f} MB/s"
        text = f"{share:4.0%} {text}" if self._size_bytes else text
        if not self._is_terminal or not self._size_bytes:
            say(f"mcast decode: {text}")
            return
        self._is_shown = True
        full = round(share * _BAR_CELLS)
        width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
        line = f"[{'#' * full}{'.' * (_BAR_CELLS - full)}] {text}"
        sys.stderr.write(f"\r{line[:width]:<{width}}")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
