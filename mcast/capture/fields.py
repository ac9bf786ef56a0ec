"""What the command line prints of packets, streams and sessions, as plain values for JSON.

Owns the names of these fields; they follow RFC 3208, and are a promise to scripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from mcast.capture.decode import Decoder, Seen
from mcast.capture.sessions import Address, Direction, Session
from mcast.capture.streams import Gap, PgmStream
from mcast.pgm.packet import (
    TYPE_NAMES,
    Ack,
    Data,
    Nak,
    Option,
    OptionType,
    Poll,
    Polr,
    Spm,
    tsi_of,
    tsi_text,
)

__all__ = ["address_text", "packet_fields", "session_fields", "stream_fields", "summary_fields"]

_OPTION_NAMES: Final = {
    value: name for name, value in vars(OptionType).items() if isinstance(value, int)
}
_LIST_LIMIT: Final = 100


def address_text(address: bytes) -> str:
    """An address as people read it."""
    return str(ip_address(address)) if len(address) in (4, 16) else address.hex()


def packet_fields(seen: Seen) -> dict[str, object]:
    """Every field of a PGM packet and of what carried it."""
    found, packet = seen.transport, seen.packet
    header, body = packet.header, packet.body
    fields: dict[str, object] = {
        "frame": found.frame,
        "time_ns": found.time_ns,
        "source": address_text(found.source),
        "destination": address_text(found.destination),
        "source_port": found.source_port,
        "destination_port": found.destination_port,
        "hops": found.hops,
        "type": TYPE_NAMES[header.type],
        "tsi": tsi_text(tsi_of(bytes(found.payload))),
        "pgm_source_port": header.source_port,
        "pgm_destination_port": header.destination_port,
        "flags": header.flags,
        "checksum": header.checksum,
        "gsi": header.gsi.hex(),
        "tsdu_length": header.tsdu_length,
    }
    if isinstance(body, Spm):
        fields |= {"spm_sqn": body.sqn, "trail": body.trail, "lead": body.lead}
        fields["path_nla"] = address_text(body.path_nla)
    elif isinstance(body, Data):
        fields |= {"sqn": body.sqn, "trail": body.trail}
    elif isinstance(body, Nak):
        fields |= {"sqn": body.sqn, "nak_list": list(packet.options.nak_list)}
        fields["source_nla"] = address_text(body.source_nla)
        fields["group_nla"] = address_text(body.group_nla)
    elif isinstance(body, Poll):
        fields |= {"sqn": body.sqn, "round": body.round, "sub_type": body.sub_type}
        fields |= {"backoff_us": body.backoff_us, "random": body.random, "mask": body.mask}
        fields["path_nla"] = address_text(body.path_nla)
    elif isinstance(body, Polr):
        fields |= {"sqn": body.sqn, "round": body.round}
    elif isinstance(body, Ack):
        fields |= {"rx_max": body.rx_max, "bitmap": body.bitmap}
    fields["options"] = [_option_fields(option) for option in packet.options.all]
    fields["fault"] = seen.fault
    return fields


def _option_fields(option: Option) -> dict[str, object]:
    name = _OPTION_NAMES.get(option.type, f"{option.type:#04x}")
    return {
        "type": option.type,
        "name": name,
        "length": 4 + len(option.value),
        "byte2": option.byte2,
        "byte3": option.byte3,
        "value": option.value.hex(),
    }


def _gaps(gaps: Sequence[Gap]) -> list[dict[str, int]]:
    return [gap._asdict() for gap in gaps[:_LIST_LIMIT]]


def stream_fields(stream: PgmStream) -> dict[str, object]:
    """The report of a stream; lists are cut at 100 entries, the counts are whole."""
    flow = stream.flow
    lasting_ns = flow.last_ns - flow.first_ns if flow else 0
    waits = [r.rdata_ns - r.nak_ns for r in stream.repairs if r.nak_ns is not None]
    packets = dict(stream.counts) | {"ODATA": stream.odata_count}
    return {
        "tsi": stream.name,
        "source": address_text(stream.source),
        "destination": address_text(stream.destination),
        "port": stream.port,
        "packets": {name: count for name, count in sorted(packets.items()) if count},
        "refused": dict(stream.refused),
        "first_sqn": stream.first_sqn if flow else None,
        "last_sqn": stream.last_sqn if flow else None,
        "trail": stream.trail,
        "spm_lead": stream.spm_lead,
        "first_ns": flow.first_ns if flow else None,
        "last_ns": flow.last_ns if flow else None,
        "bytes": flow.byte_count if flow else 0,
        "bits_per_s": flow.byte_count * 8e9 / lasting_ns if flow and lasting_ns else None,
        "peak_bits_per_s": flow.peak_bytes * 80 if flow else None,
        "packets_per_s": flow.packet_count * 1e9 / lasting_ns if flow and lasting_ns else None,
        "messages": stream.message_count,
        "malformed": stream.malformed_count,
        "fragments": stream.fragment_count,
        "gaps": stream.gap_count,
        "gap_list": _gaps(stream.gaps),
        "missing": stream.missing_count,
        "reordered": stream.reordered_count,
        "repaired": stream.repaired_count,
        "lost": stream.lost_count,
        "lost_list": _gaps(stream.lost),
        "duplicates": stream.duplicate_count,
        "late": stream.late_count,
        "restarts": stream.restart_count,
        "repairs": stream.repair_count,
        "repair_list": [repair._asdict() for repair in stream.repairs[:_LIST_LIMIT]],
        "repair_ms_median": sorted(waits)[len(waits) // 2] / 1e6 if waits else None,
        "repair_ms_max": max(waits) / 1e6 if waits else None,
        "unanswered": len(stream.unanswered),
        "unanswered_list": stream.unanswered[:_LIST_LIMIT],
        "finished": stream.is_finished,
    }


def session_fields(session: Session) -> dict[str, object]:
    """The report of a ZMTP connection."""
    return {
        "client": _place(session.client),
        "server": _place(session.server),
        "first_ns": session.first_ns,
        "last_ns": session.last_ns,
        "packets": session.packet_count,
        "end": session.end,
        "from_client": _direction_fields(session.from_client),
        "from_server": _direction_fields(session.from_server),
    }


def _place(address: Address) -> str:
    text = address_text(address[0])
    return f"[{text}]:{address[1]}" if ":" in text else f"{text}:{address[1]}"


def _direction_fields(direction: Direction) -> dict[str, object]:
    fault = direction.fault
    if not fault and direction.missing_bytes:
        fault = "a segment is missing in the capture"
    return {
        "version": ".".join(map(str, direction.version)) if direction.version else None,
        "mechanism": direction.mechanism,
        "metadata": direction.metadata,
        "commands": dict(direction.commands),
        "subscriptions": direction.subscriptions,
        "messages": direction.message_count,
        "message_bytes": direction.message_bytes,
        "bytes": direction.stream_bytes,
        "retransmitted": direction.retransmitted_count,
        "error": direction.error,
        "fault": fault,
    }


def summary_fields(decoder: Decoder) -> dict[str, object]:
    """What the whole file held, and what of it was no use."""
    sessions = decoder.sessions.sessions
    refused = dict(decoder.refused)
    if decoder.sessions.refused_count:
        refused["connections"] = decoder.sessions.refused_count
    return {
        "frames": decoder.file.frame_count,
        "first_ns": decoder.first_ns,
        "last_ns": decoder.last_ns,
        "streams": len(decoder.streams),
        "sessions": sum(session.is_zmtp for session in sessions),
        "other_connections": sum(not session.is_zmtp for session in sessions),
        "radio": decoder.radio_count,
        "other_udp": decoder.udp_others_count,
        "refused": refused,
        "skipped": dict(decoder.dissector.skipped),
        "unfinished_fragments": decoder.dissector.unfinished_count,
        "dropped_by_capture": decoder.file.dropped_count,
        "lost": sum(stream.lost_count for stream in decoder.streams.values()),
        "error": decoder.error,
    }
