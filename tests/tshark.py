"""tshark as the judge of PGM packets: an implementation of the wire that is not ours.

Owns the call of tshark and the reading of its verdict; a test compares the fields. Four facts of
tshark 4.0 (measured) shape this module: ``pgm.hdr.cksum.status`` occurs twice and
only the last is the verdict; an SPMR is shown as plain data, so its checksum is computed here; the
sequence number of a data packet goes by the name of an SPM's; and lengths that contradict each
other (options, TSDU, packet) draw no complaint, so ``judge`` adds them up itself.

Invariant: ``judge`` is silent only when every packet was dissected as PGM with a good checksum,
and nothing in the file is malformed or draws an expert error.
"""

from __future__ import annotations

import ipaddress
import json
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NAMES", "Packet", "counts", "dissect", "judge", "unavailable"]

NAMES = {
    0x00: "SPM",
    0x01: "POLL",
    0x02: "POLR",
    0x04: "ODATA",
    0x05: "RDATA",
    0x08: "NAK",
    0x09: "NNAK",
    0x0A: "NCF",
    0x0C: "SPMR",
    0x0D: "ACK",
}
"""PGM packet types by their number (RFC 3208 s8)."""

_GOOD = "1"
_ERROR_SEVERITY = 0x00800000  # Wireshark's PI_ERROR; warnings and notes are below
_LIMIT_S = 120.0
_SPMR = 0x0C
_OPTIONS_PRESENT = 0x01
_OPT_LENGTH_BYTES = 4
_LAST_OPTION = 0x80
_OPT_NAK_LIST = 0x02
_FIXED_BYTES = {
    0x00: (28, 1),
    0x04: (24, 0),
    0x05: (24, 0),
    0x08: (20, 2),
    0x09: (20, 2),
    0x0A: (20, 2),
}
"""Bytes before the options without NLAs, and the number of NLAs, by type (RFC 3208 s8)."""

_FIELDS = (
    "frame.number",
    "frame.time_epoch",
    "ip.src",
    "ip.dst",
    "ip.ttl",
    "ip.dsfield.dscp",
    "ip.flags.df",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.hlim",
    "udp.srcport",
    "udp.dstport",
    "udp.payload",
    "pgm.hdr.sport",
    "pgm.hdr.dport",
    "pgm.hdr.type",
    "pgm.hdr.opts",
    "pgm.hdr.cksum.status",
    "pgm.hdr.gsi",
    "pgm.hdr.tsdulen",
    "pgm.spm.sqn",
    "pgm.spm.trail",
    "pgm.spm.lead",
    "pgm.spm.pathafi",
    "pgm.spm.res",
    "pgm.spm.path.ipv4",
    "pgm.spm.path.ipv6",
    "pgm.nak.sqn",
    "pgm.nak.srcafi",
    "pgm.nak.srcres",
    "pgm.nak.src.ipv4",
    "pgm.nak.src.ipv6",
    "pgm.nak.grpafi",
    "pgm.nak.grpres",
    "pgm.nak.grp.ipv4",
    "pgm.nak.grp.ipv6",
    "pgm.opts.type",
    "pgm.opts.len",
    "pgm.opts.tlen",
    "pgm.genopts.end",
    "pgm.genopts.type",
    "pgm.genopts.len",
    "pgm.genopts.opx",
    "pgm.opts.nak.op",
    "pgm.opts.nak.list",
    "pgm.opts.nak_bo_ivl.bo_ivl",
    "pgm.opts.nak_bo_ivl.bo_ivl_sqn",
    "pgm.opts.nak_bo_rng.min_bo_ivl",
    "pgm.opts.nak_bo_rng.max_bo_ivl",
    "pgm.opts.join.min_join",
    "pgm.opts.type.invalid",
    "pgm.opts.tlen.invalid",
    "pgm.genopts.len.invalid",
    "pgm.address_format_invalid",
    "pgm.bad_checksum",
    "_ws.malformed",
    "_ws.expert.severity",
    "_ws.expert.message",
)


@dataclass(frozen=True, slots=True)
class Packet:
    """One datagram as tshark sees it."""

    frame: int
    """Its number in the capture, from 1."""
    time_s: float
    """Seconds since the epoch."""
    source: str
    destination: str
    payload: bytes
    """The UDP payload: the whole PGM packet."""
    fields: dict[str, list[str]]
    """Every field of the list above that occurs, with all its values, as tshark prints them."""

    @property
    def type(self) -> int:
        """The PGM type from the bytes themselves, as tshark knows no SPMR; -1 when too short."""
        return self.payload[4] & 0x0F if len(self.payload) > 4 else -1

    @property
    def name(self) -> str:
        """The type's name in RFC 3208, or its number."""
        return NAMES.get(self.type, f"type {self.type:#x}")

    @property
    def tsi(self) -> str:
        """The transport session this packet belongs to, whichever way it travels: gsi.port."""
        start = 2 if self.type in (0x02, 0x08, 0x09, 0x0C, 0x0D) else 0
        port = int.from_bytes(self.payload[start : start + 2], "big")
        return f"{self.payload[8:14].hex()}.{port}"

    def value(self, field: str) -> int:
        """The last value of a field as a number; ``KeyError`` when the packet has no such field."""
        return int(self.fields[field][-1], 0)

    def text(self, field: str) -> str:
        """The last value of a field as tshark prints it."""
        return self.fields[field][-1]

    @property
    def sqn(self) -> int:
        """The sequence number in the header of SPM, ODATA, RDATA, NAK, NNAK and NCF."""
        return self.value("pgm.nak.sqn" if "pgm.nak.sqn" in self.fields else "pgm.spm.sqn")

    @property
    def options(self) -> list[tuple[int, bytes]]:
        """The options behind OPT_LENGTH: type, and the bytes from the third on."""
        found = []
        if self.type in _FIXED_BYTES and self.payload[5] & _OPTIONS_PRESENT:
            at, last = self.options_start + _OPT_LENGTH_BYTES, False
            while not last and at + 2 <= len(self.payload):
                kind, length = self.payload[at : at + 2]
                last = bool(kind & _LAST_OPTION)
                found.append((kind & ~_LAST_OPTION, self.payload[at + 2 : at + length]))
                at += max(length, 2)
        return found

    @property
    def options_start(self) -> int:
        """Where OPT_LENGTH would begin: behind the fixed header and its addresses."""
        ipv6 = any(name.endswith(".ipv6") for name in self.fields if name.startswith("pgm."))
        fixed_bytes, nla_count = _FIXED_BYTES[self.type]
        return fixed_bytes + nla_count * (20 if ipv6 else 8)

    @property
    def nak_list(self) -> list[int]:
        """The numbers in OPT_NAK_LIST (the header's own is not among them); empty without one.

        Read from the bytes: tshark cuts its text short in a long list (measured).
        """
        for kind, value in self.options:
            if kind == _OPT_NAK_LIST:
                return [number for (number,) in struct.iter_unpack("!I", value[2:])]
        return []

    @property
    def nak_list_text(self) -> str:
        """What tshark makes of OPT_NAK_LIST, such as ``0x3 0x4``; cut short in a long list."""
        # Its value is the octets of its own text.
        values = self.fields.get("pgm.opts.nak.list", [])
        return b"".join(bytes.fromhex(value.replace(":", "")) for value in values).decode().strip()


def unavailable() -> str | None:
    """Return why tshark cannot judge here, or None when it can."""
    return None if shutil.which("tshark") else "tshark is not installed"


def dissect(path: Path, port: int) -> list[Packet]:
    """Return every UDP packet of a capture from or to ``port``, dissected as PGM.

    Raises ``RuntimeError`` with tshark's words when it fails.
    """
    arguments = ["tshark", "-n", "-r", str(path), "-d", f"udp.port=={port},pgm"]
    arguments += ["-Y", f"udp.port=={port} && !icmp && !icmpv6", "-T", "json"]
    arguments += [word for field in _FIELDS for word in ("-e", field)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=_LIMIT_S)
    if done.returncode:
        raise RuntimeError(f"tshark could not read {path}: {done.stderr.strip()}")
    return [_packet(item["_source"]["layers"]) for item in json.loads(done.stdout or "[]")]


def judge(packets: Iterable[Packet]) -> list[str]:
    """Return one sentence per fault found; an empty list is a clean bill."""
    return [sentence for packet in packets for sentence in _faults(packet)]


def counts(packets: Iterable[Packet]) -> dict[str, int]:
    """Return how many packets of each type there are, by name."""
    return dict(sorted(Counter(packet.name for packet in packets).items()))


def pgm_checksum_is_good(packet: bytes) -> bool:
    """True when the one's complement sum over the whole packet is right (RFC 3208 s8)."""
    padded = packet + bytes(len(packet) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def _faults(packet: Packet) -> Iterable[str]:
    where = f"frame {packet.frame} ({packet.name})"
    fields = packet.fields
    if packet.type not in NAMES or packet.payload[4] >> 4:
        yield f"{where}: no PGM type of version 0: {packet.payload[:16].hex()}"
    elif packet.type == _SPMR:
        # Dissected up to the header at best; the sum is over all bytes for every type alike.
        if not pgm_checksum_is_good(packet.payload):
            yield f"{where}: checksum is wrong"
    elif "pgm.hdr.type" not in fields:
        yield f"{where}: tshark does not take it for PGM"
    elif fields.get("pgm.hdr.cksum.status", ["none"])[-1] != _GOOD:
        yield f"{where}: checksum status {fields.get('pgm.hdr.cksum.status')}"
    if packet.payload[6:8] == b"\0\0":
        yield f"{where}: has no checksum"
    if "pgm.hdr.type" in fields and packet.type in _FIXED_BYTES:
        yield from (f"{where}: {fault}" for fault in _length_faults(packet))
    for name in ("_ws.malformed", "pgm.bad_checksum", "pgm.address_format_invalid"):
        if name in fields:
            yield f"{where}: {name} {fields[name]}"
    for name in ("pgm.opts.type.invalid", "pgm.opts.tlen.invalid", "pgm.genopts.len.invalid"):
        if name in fields:
            yield f"{where}: {name} {fields[name]}"
    for severity in fields.get("_ws.expert.severity", []):
        if int(severity, 0) >= _ERROR_SEVERITY:
            yield f"{where}: expert error {fields.get('_ws.expert.message')}"


def _length_faults(packet: Packet) -> Iterable[str]:
    """Walk the option bytes and add up what the packet says of its own lengths."""
    payload = packet.payload
    start = end = packet.options_start
    if payload[5] & _OPTIONS_PRESENT:
        end += int.from_bytes(payload[start + 2 : start + 4], "big")
        if payload[start : start + 2] != bytes([0, _OPT_LENGTH_BYTES]):
            yield "its first option is not OPT_LENGTH"
        at, last = start + _OPT_LENGTH_BYTES, False
        while not last and at + 2 <= min(end, len(payload)):
            last, length = bool(payload[at] & _LAST_OPTION), payload[at + 1]
            at += max(length, 2)
        if not last or at != end:
            yield f"its options end at byte {at} and should at {end}"
    whole_bytes = end + int.from_bytes(payload[14:16], "big")
    if whole_bytes != len(payload):
        yield f"its parts add up to {whole_bytes} bytes of {len(payload)}"


def _packet(fields: dict[str, list[str]]) -> Packet:
    source, destination = (
        fields.get(f"ip.{end}") or fields.get(f"ipv6.{end}") or [""] for end in ("src", "dst")
    )
    return Packet(
        frame=int(fields["frame.number"][0]),
        time_s=float(fields["frame.time_epoch"][0]),
        source=source[0] and str(ipaddress.ip_address(source[0])),
        destination=destination[0] and str(ipaddress.ip_address(destination[0])),
        payload=bytes.fromhex(fields.get("udp.payload", [""])[0].replace(":", "")),
        fields=fields,
    )
