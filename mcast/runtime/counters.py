"""The list of a socket's counters: every name that ``stats`` has, and what it means.

Owns the names and how endpoints are added up; the values belong to the engines, links and queues.
Invariant: a socket reports every name of its list from its first moment on; only the reasons of
``malformed_REASON`` and ``send_error_ERRNO`` come as they happen.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Collection
from typing import Final

from mcast import stats
from mcast.stats import PgmCounters, Snapshot

__all__ = [
    "ALL",
    "GAUGES",
    "QUEUE",
    "add_up",
    "all_descriptions",
    "descriptions",
    "is_gauge",
    "split_reason",
]

_LINK: Final = {
    "data_received": "Original data packets taken, in order or early.",
    "rdata_received": "Repair packets taken.",
    "bytes_received": "Payload bytes of both, the framing included.",
    "duplicates": "Data packets that were here before.",
    "messages_received": "Messages that the subscriptions let through.",
    "messages_filtered": "Messages that no subscription asked for.",
    "messages_too_long": "Messages dropped for `max_msg_size` or `max_parts`.",
    "malformed_stream": "Data packets or messages given up for their framing.",
    "messages_sent": "Messages that `send` took.",
    "messages_unsent": "Messages that wait for the rate. A gauge.",
    "repairs_waiting": "Packets asked for that wait for the repairs' share of the rate. A gauge.",
    "txw_trail": "Oldest packet that can be repaired. A gauge, the highest of all endpoints.",
    "txw_lead": "Newest packet sent or waiting. A gauge, the highest of all endpoints.",
    "rate": "Bits per second that data may leave at now. A gauge, the highest of all endpoints.",
    "peers": "Sources followed. A gauge.",
    "peers_quiet": "Of them, those of which nothing comes though SPMs are due. A gauge.",
    "repair_p50_s": "Median seconds from noticing a gap to filling it. The worst endpoint's.",
    "repair_p99_s": "The 99th percentile of the same.",
    "rcvbuf_overflows": "Datagrams that the system dropped because the receive buffer was full.",
    "send_backlog": "Packet runs that the system does not take now. A gauge.",
    "gso": "1 if packets leave in runs (UDP_SEGMENT). A gauge.",
    "sendmmsg": "1 if, where they do not, one system call sends many (sendmmsg). A gauge.",
    "gro": "1 if packets arrive in runs (UDP_GRO). A gauge.",
    "rcvbuf_bytes": "Size of the receive buffer granted. A gauge.",
}

QUEUE: Final = {
    "queued": "Messages that wait for `recv`. A gauge.",
    "queue_refused": "Messages dropped because `rcvhwm` was reached; each is in a `Lost` event.",
    "events_dropped": "Events dropped because nobody took them.",
}
"""What a SUB has beside ``ALL``."""

ALL: Final[tuple[str, ...]] = (*PgmCounters().snapshot(), *_LINK)
"""The names that every socket reports."""

GAUGES: Final = frozenset(
    {
        "messages_unsent",
        "repairs_waiting",
        "txw_trail",
        "txw_lead",
        "rate",
        "peers",
        "peers_quiet",
        "repair_p50_s",
        "repair_p99_s",
        "send_backlog",
        "gso",
        "sendmmsg",
        "gro",
        "rcvbuf_bytes",
    }
)
"""Names whose values go down, too, and end with their endpoint."""

_REASONED: Final = {"malformed": "malformed_by_reason", "send_error": "send_errors"}
"""Beginnings of names whose end is a reason, and what all of them together are called."""

_HIGHEST: Final = GAUGES - {
    "messages_unsent",
    "repairs_waiting",
    "peers",
    "peers_quiet",
    "send_backlog",
}


def add_up(totals: Snapshot, addend: Snapshot, *, leave_out: Collection[str] = ()) -> None:
    """Add an endpoint's counters to ``totals``; of some gauges the highest is taken."""
    for name, count in addend.items():
        if name in leave_out:
            continue
        if name in _HIGHEST:
            totals[name] = max(totals.get(name, 0), count)
        else:
            totals[name] = totals.get(name, 0) + count


def descriptions() -> dict[str, str]:
    """What each counter of links and queues means, by name; ``PgmCounters`` documents its own."""
    return {**_LINK, **QUEUE}


@functools.cache
def all_descriptions() -> dict[str, str]:
    """``descriptions`` and those of ``PgmCounters``, out of its source, where that is installed."""
    texts = {
        **descriptions(),
        "malformed_by_reason": "Packets dropped by the parser, by reason.",
        "send_errors": "Packet runs that the system refused, by its reason.",
    }
    try:
        tree = ast.parse(inspect.getsource(stats))
    except OSError:
        return texts
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == PgmCounters.__name__:
            for name, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(name, ast.AnnAssign) and isinstance(text, ast.Expr):
                    texts[ast.unparse(name.target)] = inspect.cleandoc(ast.literal_eval(text.value))
    return texts


def is_gauge(name: str) -> bool:
    """True if the value of this counter shows what is now."""
    return name in GAUGES or name in ("queued", "connections")


def split_reason(name: str) -> tuple[str, str]:
    """``malformed_checksum`` is ``malformed_by_reason`` and ``checksum``; others have no reason."""
    for beginning, together in _REASONED.items():
        reason = name.removeprefix(f"{beginning}_")
        if reason != name and name not in all_descriptions():
            return together, reason
    return name, ""
