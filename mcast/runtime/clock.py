"""The clocks that the command line measures with; only ``runtime`` may read one."""

from __future__ import annotations

from time import monotonic_ns, time_ns

__all__ = ["monotonic_ns", "time_ns"]
