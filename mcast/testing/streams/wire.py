"""A simulated connection: two directions of bytes, with the buffers and the faults of a system.

Owns the bytes under way. Invariant: what is read is a prefix of what was written, cut into pieces
anywhere, unless a fault changed a byte, and then the wire says so (``is_tainted``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mcast.testing.streams.connection import Connection
    from mcast.testing.streams.world import World

__all__ = ["Cable", "Wire"]

_LAG_NS: Final = 5_000_000
_MINOR_VERSION_AT: Final = 11  # in a greeting


class Wire:
    """One direction. Written by one end, read by the other; ``Cable`` knows which."""

    def __init__(self, world: World, capacity_bytes: int) -> None:
        self.reader: Connection | None = None
        self.writer: Connection | None = None
        self.capacity_bytes = capacity_bytes
        """What fits: on the way and in both buffers together."""
        self.passed_bytes = 0
        """All that was written."""
        self.cut_at: int | None = None
        """The connection breaks when so many bytes have passed."""
        self.corrupt_at: int | None = None
        """The byte with this number is changed on the way."""
        self.is_old = False
        """The greeting says 3.0."""
        self.is_dead = False
        """Nothing arrives any more, and nobody is told."""
        self.is_tainted = False
        """A byte was changed."""
        self.is_over = False
        """No more comes: the end of the stream stands behind what has arrived."""
        self.arrived = bytearray()
        """Not read yet."""
        self._world = world
        self._flying: deque[bytes] = deque()
        self._flying_bytes = 0
        self._last_due_ns = 0
        self._is_awaited = False  # by a writer that found it full

    def write(self, data: bytes | bytearray) -> int:
        """How many bytes the system took."""
        room = self.capacity_bytes - self._flying_bytes - len(self.arrived)
        piece = bytearray(data[: max(0, room)])
        first, self.passed_bytes = self.passed_bytes, self.passed_bytes + len(piece)
        taken = len(piece)
        self._is_awaited = taken < len(data)
        self._spoil(piece, first)
        if self.cut_at is not None and self.cut_at < self.passed_bytes:
            del piece[max(0, self.cut_at - first) :]
        if piece:
            self._flying.append(bytes(piece))
            self._flying_bytes += len(piece)
            if not self.is_dead:
                self._later(self._arrive)
        return taken

    def read(self, limit: int) -> bytes:
        """The next bytes, at most ``limit``; none if none are there."""
        data = bytes(self.arrived[:limit])
        del self.arrived[:limit]
        if data and self._is_awaited and self.writer is not None:
            self._is_awaited = False
            self._later(self.writer.handle_writable)
        return data

    def end(self) -> None:
        """The last byte has been written; the reader hears of it behind that."""
        if not self.is_dead:
            self._later(self._end)

    def drop(self) -> None:
        """What is under way, or has arrived, is gone: so does a reset."""
        self._flying.clear()
        self._flying_bytes = 0
        self.arrived.clear()
        self.is_over = True

    def _spoil(self, piece: bytearray, first: int) -> None:
        at = _MINOR_VERSION_AT - first
        if self.is_old and 0 <= at < len(piece):
            piece[at] = 0
        if self.corrupt_at is not None and 0 <= self.corrupt_at - first < len(piece):
            piece[self.corrupt_at - first] ^= self._world.dice.randrange(1, 256)
            self.is_tainted = True
            self.corrupt_at = None

    def _later(self, action: Callable[[], None]) -> None:
        # In order, whatever becomes of the delay meanwhile.
        self._last_due_ns = max(self._last_due_ns, self._world.now_ns + self._world.delay_ns)
        self._world.at(self._last_due_ns, action)

    def _arrive(self) -> None:
        if not self._flying or self.is_dead:
            return
        piece = self._flying.popleft()
        self._flying_bytes -= len(piece)
        self.arrived += piece
        self._wake()

    def _end(self) -> None:
        self.is_over = True
        self._wake()

    def _wake(self) -> None:
        """The reader looks, at once or when it comes to it: then more may have come."""
        world = self._world
        if self.reader is None:
            return
        if world.lag and world.dice.random() < world.lag:
            world.at(world.now_ns + world.dice.randrange(_LAG_NS), self.reader.handle_readable)
        else:
            self.reader.handle_readable()


class Cable:
    """Both directions between two ends, and how it ends."""

    def __init__(self, world: World, capacity_bytes: int) -> None:
        self.wires = (Wire(world, capacity_bytes), Wire(world, capacity_bytes))
        self.ends: list[Connection] = []
        """Who dialled, and who accepted."""
        self.is_over = False
        """It is broken or closed."""
        self.dead_ns = 0
        """When a direction died; 0: none has."""
        self.is_late = False
        """Bytes took their time at some point, so that an end may have given up."""
        self.is_reset = False
        """At ``cut_at`` what has arrived is thrown away, too."""

    @property
    def is_tainted(self) -> bool:
        """True if a byte was changed in one direction or the other."""
        return any(wire.is_tainted for wire in self.wires)

    def out_of(self, end: Connection) -> Wire:
        """The direction in which ``end`` writes."""
        return self.wires[self.ends.index(end)]

    def into(self, end: Connection) -> Wire:
        """The direction from which ``end`` reads."""
        return self.wires[1 - self.ends.index(end)]

    def kill(self, *, both: bool, now_ns: int) -> None:
        """Half-open: nothing arrives any more in one or both directions, and nobody is told."""
        self.dead_ns = now_ns
        for wire in self.wires[: 2 if both else 1]:
            wire.is_dead = True

    def close(self, end: Connection) -> None:
        """``end`` closes its socket: the other one reads to the end, and can write no more."""
        if not self.is_over:
            self.is_over = True
            self.into(end).drop()
            self.out_of(end).end()

    def snap(self, *, reset: bool) -> None:
        """It breaks, and both ends hear of it; so does one that was left half-open."""
        if self.is_over and not self.dead_ns:
            return
        self.is_over = True
        for wire in self.wires:
            if reset:
                wire.drop()
            wire.is_dead = False
            wire.end()
