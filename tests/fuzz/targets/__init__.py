"""All fuzz targets by name: where each is, and which modules it measures the coverage of.

To add one: a module here with a ``TARGET`` (see ``tests.fuzz.target``), a row below, a folder
``tests/fuzz/corpus/NAME`` (``tools/fuzz NAME --minutes 1``, then ``tools/fuzz NAME --minimise``
fills it), and at least one plant. The tests take all three from here.

This module imports no target: what a target imports is to be instrumented first.
"""

from __future__ import annotations

import importlib
from typing import Final, NamedTuple

from tests.fuzz.target import Target

__all__ = ["ROWS", "Row", "load"]


class Row(NamedTuple):
    """What is known of a target before it is imported."""

    about: str
    """What its inputs are; for ``tools/fuzz --list``."""
    module: str
    """In this package."""
    measured: tuple[str, ...]
    """Modules, or packages, whose branches guide the search: only what is under test, since each
    instrumented branch costs time."""
    is_twin: bool = False
    """Runs every input on both kernels."""


_PGM = (
    "mcast.pgm",
    *(f"mcast.kernel.reference{part}" for part in ("", "_frames", "_receive", "_pace")),
)
_CAPTURE = (
    "mcast.capture.decode",
    "mcast.capture.dissect",
    "mcast.capture.files",
    "mcast.capture.sessions",
    "mcast.capture.streams",
    "mcast.kernel.reference_capture",
)
_ZMTP = ("mcast.zmtp", "mcast.kernel.reference_zmtp")

ROWS: Final[dict[str, Row]] = {
    "pgm-packet": Row("one PGM packet", "pgm_packet", ("mcast.pgm.packet",)),
    "pgm-options": Row("the option area of a packet", "pgm_options", ("mcast.pgm.packet",)),
    "pgm-receiver": Row("packets and time into a receiver", "pgm_receiver", _PGM, True),
    "pgm-source": Row("messages, requests and time into a source", "pgm_source", _PGM, True),
    "zmtp-greeting": Row("a ZMTP peer from its first byte", "zmtp_greeting", _ZMTP, True),
    "zmtp-handshake": Row("NULL and PLAIN behind the greeting", "zmtp_handshake", _ZMTP, True),
    "zmtp-curve": Row("CURVE by a peer that has the keys", "zmtp_curve", _ZMTP),
    "zmtp-frames": Row("frames and subscriptions of a ready peer", "zmtp_frames", _ZMTP, True),
    "subscriptions": Row(
        "subscribing, cancelling and matching", "subscriptions", ("mcast.patterns.subscriptions",)
    ),
    "capture-file": Row("a capture file", "capture_file", _CAPTURE, True),
    "endpoint": Row("endpoint URLs", "endpoint", ("mcast.endpoint", "mcast.unicast")),
    "kernel": Row(
        "the same calls on both kernels",
        "kernel",
        tuple(
            f"mcast.kernel.reference{part}"
            for part in ("", "_capture", "_frames", "_gates", "_pace", "_receive", "_zmtp")
        ),
    ),
}


def load(name: str) -> Target:
    """The target ``name``, imported now."""
    module = importlib.import_module(f"tests.fuzz.targets.{ROWS[name].module}")
    target = module.TARGET
    assert isinstance(target, Target)
    return target
