"""Somebody who connects and speaks no ZMTP, or not to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from mcast.testing.streams.lanes import Lane

if TYPE_CHECKING:
    from mcast.testing.streams.connection import Connection
    from mcast.testing.streams.wire import Cable

__all__ = ["Stranger"]


class _Nobody:
    name: ClassVar[str] = "a stranger"
    is_honest: ClassVar[bool] = False
    is_sealed: ClassVar[bool] = False


class Stranger:
    """One end of a cable, with what a ``Connection`` asks of the other."""

    node = _Nobody()

    def __init__(self, cable: Cable, data: bytes) -> None:
        self.cable = cable
        self.lane = Lane(cast("Connection", self))
        self._data = data

    def __repr__(self) -> str:
        return self.node.name

    @property
    def other(self) -> Connection:
        """Whom it troubles."""
        return self.cable.ends[1]

    def handle_readable(self) -> None:
        """It is told something, which it does not care about."""
        self.cable.wires[1].read(1 << 20)

    def handle_writable(self) -> None:
        """Say more of it."""
        wire = self.cable.wires[0]
        if not self.cable.is_over:
            self._data = self._data[wire.write(self._data) :]
