"""A timeout that several steps share: read from the clock once, asked for what is left."""

from __future__ import annotations

from time import monotonic

from mcast.errors import OptionError

__all__ = ["Deadline"]


class Deadline:
    """A moment ``timeout`` seconds from now; None never comes. Raises OptionError if negative."""

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:  # neither is NaN
            raise OptionError(
                f"a timeout is in seconds, 0 or more, or None to wait for ever; not {timeout!r}"
            )
        self._at = None if timeout is None else monotonic() + timeout

    @property
    def left(self) -> float | None:
        """Seconds until then, 0 once it has passed; None if it never comes."""
        return None if self._at is None else max(0.0, self._at - monotonic())

    @property
    def has_passed(self) -> bool:
        """True once the time has run out."""
        return self._at is not None and monotonic() >= self._at
