"""PGM packets as lines of text or JSON, and the patterns by which the kernel writes most of them.

Owns the layout of a packet's line. Invariant: a plain ODATA is the same line whoever wrote it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from mcast.capture.decode import Seen
from mcast.capture.fields import packet_fields
from mcast.kernel import CAPTURE_FIELDS
from mcast.pgm.packet import ODATA, Options

__all__ = ["PacketLines", "json_line", "time_text"]

_SECOND_NS: Final = 1_000_000_000
_MARK: Final = re.compile(rb'"?@(\w+)@"?')  # JSON has it in quotes; nothing else of a line has an @
_MARKED: Final = tuple(name for name in CAPTURE_FIELDS if name not in ("seconds", "nanoseconds"))


def time_text(time_ns: int) -> str:
    """Seconds since 1970 with all nine digits, which a float has no room for."""
    sign = "-" if time_ns < 0 else ""
    return f"{sign}{abs(time_ns) // _SECOND_NS}.{abs(time_ns) % _SECOND_NS:09d}"


def json_line(fields: dict[str, object]) -> bytes:
    """One object of JSON lines."""
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class PacketLines:
    """Writes packets as JSON, each a record of the kind ``packet``, or as text for people."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json

    def line(self, seen: Seen) -> bytes:
        """A packet's line."""
        return self._written(packet_fields(seen), time_text(seen.transport.time_ns))

    def pattern(self, seen: Seen) -> tuple[tuple[bytes, int], ...]:
        """``CaptureFlow.pattern`` of the flow that this data packet belongs to."""
        packet = seen.packet
        header = packet.header._replace(type=ODATA, flags=0)
        plain = Seen(seen.transport, packet._replace(header=header, options=Options()), "")
        fields = packet_fields(plain) | {name: f"@{name}@" for name in _MARKED}
        line = self._written(fields, "@seconds@.@nanoseconds@")
        pieces = _MARK.split(line)
        places = [CAPTURE_FIELDS.index(name.decode()) for name in pieces[1::2]]
        return tuple(zip(pieces[::2], [*places, -1], strict=True))

    def _written(self, fields: dict[str, object], time: str) -> bytes:
        if self._is_json:
            return json_line({"record": "packet"} | fields)
        return f"{_text(fields, time)}\n".encode()


def _text(fields: dict[str, Any], time: str) -> str:
    """Number, time, addresses, type, TSI, and what its type has."""
    rest = [
        f"{name}={fields[name]}"
        for name in ("spm_sqn", "sqn", "trail", "lead", "path_nla", "source_nla", "group_nla")
        if name in fields
    ]
    rest += [f"{name}={fields[name]}" for name in ("round", "rx_max", "bitmap") if name in fields]
    if fields.get("nak_list"):
        rest.append("list=" + ",".join(map(str, fields["nak_list"])))
    if fields["tsdu_length"]:
        rest.append(f"length={fields['tsdu_length']}")
    rest += [option["name"] for option in fields["options"] if option["name"] != "NAK_LIST"]
    if fields["fault"]:
        rest.append(f"[{fields['fault']}]")
    ends = f"{fields['source']}:{fields['source_port']} > "
    ends += f"{fields['destination']}:{fields['destination_port']}"
    return " ".join([f"{fields['frame']} {time} {ends}", fields["type"], fields["tsi"], *rest])
