"""The report of ``mcast decode`` for people: fields in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from mcast.capture.lines import time_text

__all__ = ["report_lines"]

_SHOWN: Final = 5  # gaps, losses, repairs shown of each stream; --json has 100

Fields = Mapping[str, Any]


def report_lines(
    streams: Sequence[Fields], sessions: Sequence[Fields], summary: Fields
) -> Iterator[str]:
    """The whole report."""
    for stream in streams:
        yield from _stream_lines(stream)
    for session in sessions:
        yield from _session_lines(session)
    lasting_s = (summary["last_ns"] - (summary["first_ns"] or 0)) / 1e9 if summary["frames"] else 0
    yield (
        f"{summary['frames']} packets in {lasting_s:.3f} s: {summary['streams']} PGM streams, "
        f"{summary['sessions']} ZMTP sessions"
    )
    others = {
        "radio datagrams": summary["radio"],
        "other UDP datagrams": summary["other_udp"],
        "other TCP connections": summary["other_connections"],
        "dropped while capturing": summary["dropped_by_capture"],
        "datagrams with fragments missing": summary["unfinished_fragments"],
    }
    others |= {f"skipped, {reason}": count for reason, count in summary["skipped"].items()}
    others |= {f"PGM refused, {reason}": count for reason, count in summary["refused"].items()}
    for name, count in others.items():
        if count:
            yield f"  {name}: {count}"


def _stream_lines(stream: Fields) -> Iterator[str]:
    place = f"{stream['source']} > {stream['destination']}:{stream['port']}"
    yield f"stream {stream['tsi']}  {place}{'  (finished)' if stream['finished'] else ''}"
    counts = ", ".join(f"{name} {count}" for name, count in stream["packets"].items())
    yield f"  packets: {counts or 'none'}{_counted('refused', stream['refused'])}"
    if stream["first_sqn"] is not None:
        window = f"trail {_or_dash(stream['trail'])}, SPM lead {_or_dash(stream['spm_lead'])}"
        yield f"  sequence: {stream['first_sqn']} to {stream['last_sqn']}; window: {window}"
    if stream["bits_per_s"] is not None:
        yield (
            f"  rate: {stream['bits_per_s'] / 1e6:.3f} Mbit/s, {stream['packets_per_s']:.0f} "
            f"packets/s; {stream['peak_bits_per_s'] / 1e6:.3f} Mbit/s in the fullest 0.1 s"
        )
    malformed = f", {stream['malformed']} places that are no libzmq framing"
    fragments = f", {stream['fragments']} APDU fragments left out"
    yield (
        f"  messages: {stream['messages']}{malformed if stream['malformed'] else ''}"
        f"{fragments if stream['fragments'] else ''}"
    )
    yield (
        f"  gaps: {stream['gaps']} ({stream['missing']} packets: {stream['reordered']} came out of "
        f"order, {stream['repaired']} repaired, {stream['lost']} lost); duplicates: "
        f"{stream['duplicates']}; late: {stream['late']}"
    )
    for gap in stream["lost_list"][:_SHOWN]:
        yield f"    lost {gap['first']} to {gap['last']}, given up at {time_text(gap['time_ns'])}"
    if stream["repairs"] or stream["unanswered"]:
        times = ""
        if stream["repair_ms_median"] is not None:
            times = (
                f", NAK to RDATA median {stream['repair_ms_median']:.3f} ms, "
                f"longest {stream['repair_ms_max']:.3f} ms"
            )
        yield f"  asked for: {stream['repairs']} repaired{times}; {stream['unanswered']} unanswered"
    for repair in stream["repair_list"][:_SHOWN]:
        yield f"    {_repair_text(repair)}"
    if len(stream["repair_list"]) > _SHOWN:
        yield f"    and {stream['repairs'] - _SHOWN} more (--json)"


def _repair_text(repair: Fields) -> str:
    text = f"{repair['sqn']}:"
    start = repair["nak_ns"] if repair["nak_ns"] is not None else repair["ncf_ns"]
    if repair["nak_ns"] is not None:
        text += f" NAK at {time_text(repair['nak_ns'])},"
    if repair["ncf_ns"] is not None:
        text += f" NCF +{(repair['ncf_ns'] - start) / 1e6:.3f} ms,"
    return f"{text} RDATA +{(repair['rdata_ns'] - start) / 1e6:.3f} ms"


def _session_lines(session: Fields) -> Iterator[str]:
    yield f"session {session['client']} > {session['server']}  {session['end'] or 'open'}"
    for name in ("client", "server"):
        sent = session[f"from_{name}"]
        kind = sent["metadata"].get("Socket-Type", "?")
        version = f"ZMTP {sent['version']} {sent['mechanism']}" if sent["version"] else "no ZMTP"
        commands = ", ".join(f"{name} {count}" for name, count in sent["commands"].items())
        yield (
            f"  {name}: {kind}, {version}; {sent['messages']} messages, "
            f"{sent['message_bytes']} bytes; commands: {commands or 'none'}"
        )
        if sent["subscriptions"]:
            yield f"    subscribed to: {', '.join(map(repr, sent['subscriptions']))}"
        if sent["error"]:
            yield f"    ERROR: {sent['error']}"
        if sent["fault"]:
            yield f"    not followed to its end: {sent['fault']}"


def _or_dash(value: object) -> object:
    return "-" if value is None else value


def _counted(name: str, counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{reason} {count}" for reason, count in counts.items())
    return f"; {name}: {listed}" if counts else ""
