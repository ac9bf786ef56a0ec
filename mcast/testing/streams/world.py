"""Sockets, connections and a clock that jumps: where simulated streams run.

Owns the virtual time and the order of all that happens. Invariant: the same seed and the same
calls give the same run; ``trace_hash`` tells two runs apart. Nothing here opens a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Final, cast
from zlib import crc32

from mcast.testing.laws import Law, Violation
from mcast.testing.streams.connection import Connection
from mcast.testing.streams.node import Node
from mcast.testing.streams.stranger import Stranger
from mcast.testing.streams.truth import Truth
from mcast.testing.streams.wire import Cable

__all__ = ["World"]

_START_NS: Final = 1_000_000_000_000
_EVENT_LIMIT: Final = 400_000
"""Happenings of one run: a hundred times what a long one has; more is a loop without end."""

Trace = Callable[[str], None]


class World:
    """All sockets of one run, and all that is between them."""

    def __init__(self, seed: int, *, trace: Trace | None = None) -> None:
        self.dice = Random(f"streams {seed}")
        """All chance comes from here."""
        self.now_ns = _START_NS
        self.delay_ns = 100_000
        """How long a byte takes now."""
        self.chunk_bytes = 1 << 16
        """Most bytes of one read now; each read gets a random share."""
        self.capacity_bytes = 1 << 18
        """What a new connection holds."""
        self.denied = 0.0
        """How often an authenticator says "not now"."""
        self.lag = 0.0
        """How often a reader is busy for some milliseconds when bytes come."""
        self.old = 0.0
        """How often one direction of a connection says that it is of ZMTP 3.0."""
        self.is_slow = False
        """Some application has not received for a while: its peers may have lost patience."""
        self.nodes: list[Node] = []
        self.cables: list[Cable] = []
        self.truth = Truth(self)
        """What applications sent and received."""
        self.trace_hash = 0
        self.trace = trace
        self.connection_count = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0

    @property
    def is_tainted(self) -> bool:
        """True if a byte was changed where nothing guards it."""
        return any(cable.is_tainted and not cable.ends[0].node.is_sealed for cable in self.cables)

    # Connections.

    def connect(self, dialer: Node, number: int, listener: Node) -> Connection:
        """A connection between two sockets stands."""
        cable = self._cable()
        mine = Connection(dialer, number, cable, dials=True)
        theirs = Connection(listener, listener.next_number(), cable, dials=False)
        self._plug(cable, mine, theirs)
        listener.connections[theirs.number] = theirs
        for wire in cable.wires:
            wire.is_old = self.dice.random() < self.old
        return mine

    def intrude(self, listener: Node, data: bytes) -> None:
        """A stranger connects, says this and waits for an answer."""
        cable = self._cable()
        stranger = Stranger(cable, data)
        theirs = Connection(listener, listener.next_number(), cable, dials=False)
        self._plug(cable, cast("Connection", stranger), theirs)
        listener.connections[theirs.number] = theirs
        theirs.start()
        stranger.handle_writable()

    def _cable(self) -> Cable:
        self.connection_count += 1
        cable = Cable(self, self.capacity_bytes)
        self.cables.append(cable)
        return cable

    def _plug(self, cable: Cable, first: Connection, second: Connection) -> None:
        cable.ends = [first, second]
        there, back = cable.wires
        there.writer, there.reader = first, second
        back.writer, back.reader = second, first

    def living_cables(self) -> list[Cable]:
        """Those that stand, between two sockets."""
        return [
            cable for cable in self.cables if not cable.is_over and cable.ends[0].node.is_honest
        ]

    # Time.

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        """Have something done at a time of this world."""
        self._order += 1
        heappush(self._queue, (time_ns, self._order, action))

    def run(self, seconds: float, stop: Callable[[], bool] | None = None) -> None:
        """Let time pass, or until ``stop()``, asked every 50 ms. Raises ``Violation``."""
        end_ns = self.now_ns + round(seconds * 1e9)
        look_ns = self.now_ns
        while self._queue and self._queue[0][0] <= end_ns:
            due_ns, order, action = heappop(self._queue)
            if order > _EVENT_LIMIT:
                raise Violation(Law.RESOURCES, "something goes on for ever")
            self.now_ns = max(self.now_ns, due_ns)
            try:
                action()
            except Violation:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                raise Violation(Law.CRASH, what) from error
            if stop is not None and self.now_ns >= look_ns:
                look_ns = self.now_ns + 50_000_000
                if stop():
                    return
        self.now_ns = max(self.now_ns, end_ns)

    def note(self, line: str) -> None:
        """Something worth a line of the trace happened."""
        self.trace_hash = crc32(line.encode(), self.trace_hash ^ self.now_ns & 0xFFFF_FFFF)
        if self.trace is not None:
            self.trace(f"{(self.now_ns - _START_NS) / 1e6:11.3f} ms  {line}")
