"""Reliable multicast, RFC 3208, as state machines without I/O, clock or dice.

``PgmEngine`` is the way in: it owns the ``Source`` of a local publisher and a ``Receiver`` for
each remote one. The order of calls is told once, in its docstring.
"""

from __future__ import annotations

from mcast.pgm.engine import PgmEngine
from mcast.pgm.events import Messages, Transmit

__all__ = ["Messages", "PgmEngine", "Transmit"]
