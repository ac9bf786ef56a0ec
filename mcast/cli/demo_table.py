"""The demonstration's live table: one row for each process, on stderr.

On a terminal with ``rich`` installed it is redrawn in place; elsewhere it is plain lines, a block
every second. Both show the same figures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final

from mcast.cli.terminal import say
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

__all__ = ["Display", "Row", "plain_lines"]

_PLAIN_S: Final = 1.0
_LIVE_S: Final = 0.25


@dataclass(slots=True)
class Row:
    """What the table says of one process; None leaves a cell empty."""

    name: str
    """Which process."""
    sent: int | None
    """Messages sent."""
    received: int | None
    """Messages received."""
    repaired: int
    """Packets repaired: by the publisher for all, by a subscriber for itself."""
    lost: int | None
    """Messages lost."""
    naks: int
    """NAK packets received by the publisher, or sent by the subscriber."""
    per_second: float
    """Messages per second, lately; at the end, over all."""


_HEADS: Final = ("process", "sent", "received", "repaired", "lost", "NAKs", "messages/s")
_WIDTHS: Final = (14, 11, 11, 9, 8, 9, 11)


class Display:
    """Shows the table as it changes. Use it in a ``with`` block."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title = title
        self._quiet = quiet
        self._live: Live | None = None
        if not quiet and sys.stderr.isatty():
            self._live = _live_or_none()
        self._interval_s = _PLAIN_S if self._live is None else _LIVE_S
        self._next = Deadline(self._interval_s)
        if self._live is None and not quiet:
            say(title)

    @property
    def context(self) -> AbstractContextManager[object]:
        """What has to be entered while the table is alive."""
        return nullcontext() if self._live is None else self._live

    @property
    def is_due(self) -> bool:
        """True once an interval."""
        if self._quiet or not self._next.has_passed:
            return False
        self._next = Deadline(self._interval_s)
        return True

    def show(self, elapsed_s: float, rows: Sequence[Row]) -> None:
        """Draw the table."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(_table(self._title, elapsed_s, rows), refresh=True)
            return
        for line in plain_lines(elapsed_s, rows):
            say(line)


def plain_lines(elapsed_s: float, rows: Sequence[Row]) -> list[str]:
    """The table as lines of text, its head first."""
    lines = [_HEADS, *map(_cells, rows)]
    times = [f"{elapsed_s:6.1f} s", *[" " * 8] * len(rows)]
    return [
        time
        + "  "
        + cells[0].ljust(_WIDTHS[0])
        + "".join(cell.rjust(width) for cell, width in zip(cells[1:], _WIDTHS[1:], strict=True))
        for time, cells in zip(times, lines, strict=True)
    ]


def _cells(row: Row) -> tuple[str, ...]:
    return tuple(
        value if isinstance(value, str) else "" if value is None else f"{value:,.0f}"
        for value in astuple(row)
    )


def _live_or_none() -> Live | None:
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:  # it comes with mcast[cli]
        return None
    return Live(console=Console(stderr=True), auto_refresh=False)


def _table(title: str, elapsed_s: float, rows: Sequence[Row]) -> Table:
    from rich.table import Table

    table = Table(title=title, caption=f"{elapsed_s:.1f} s")
    for head in _HEADS:
        table.add_column(head, justify="left" if head == "process" else "right")
    for row in rows:
        table.add_row(*_cells(row), style="bold red" if row.lost else None)
    return table
