"""Tables of text: aligned columns, redrawn in place on a terminal where ``rich`` is installed.

Owns the way to stdout for the commands that watch something. Both forms show the same figures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Self

from mcast.cli.terminal import Output
from mcast.runtime.deadline import Deadline

if TYPE_CHECKING:
    from types import TracebackType

    from rich.live import Live

__all__ = ["LiveTable", "aligned"]

_LIVE_S: Final = 0.25

Cells = Sequence[str]


def aligned(heads: Cells, rows: Sequence[Cells], *, numbers: Sequence[int] = ()) -> list[str]:
    """The table as lines, its heads first; the columns ``numbers`` are set to the right."""
    table = [heads, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(widths[i]) if i in numbers else cell.ljust(widths[i])
            for i, cell in enumerate(row)
        ).rstrip()
        for row in table
    ]


class LiveTable:
    """A table that changes. Use it in a ``with`` block.

    On a terminal with ``rich`` it is drawn in place, four times a second; elsewhere it is written
    to stdout every ``interval_s``.
    """

    def __init__(
        self, output: Output, heads: Cells, *, interval_s: float, numbers: Sequence[int] = ()
    ) -> None:
        self._output = output
        self._heads = heads
        self._numbers = numbers
        self._live = _live_or_none()
        self._interval_s = interval_s if self._live is None else min(_LIVE_S, interval_s)
        self._next = Deadline(self._interval_s)

    @property
    def is_due(self) -> bool:
        """True once an interval."""
        if not self._next.has_passed:
            return False
        self._next = Deadline(self._interval_s)
        return True

    def show(self, title: str, rows: Sequence[Cells]) -> None:
        """Draw the table under its title."""
        if self._live is None:
            lines = [title, *aligned(self._heads, rows, numbers=self._numbers)]
            self._output.write(("\n".join(lines) + "\n").encode())
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
        for i, head in enumerate(self._heads):
            table.add_column(Text(head), justify="right" if i in self._numbers else "left")
        for row in rows:
            table.add_row(*map(Text, row))  # as text: what comes from the network is no markup
        self._live.update(table, refresh=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()


def _live_or_none() -> Live | None:
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return None
    return Live(console=Console(), auto_refresh=False)
