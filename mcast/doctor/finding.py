"""What a check says: how bad it is, what it is, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Severity"]


class Severity(StrEnum):
    """How bad a finding is; in order."""

    OK = "ok"
    """As it should be."""
    NOTE = "note"
    """Worth knowing; nothing to mend."""
    WARNING = "warning"
    """It works, but slowly, or not with everybody, or not always."""
    BROKEN = "broken"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """The check's name."""
    severity: Severity
    """How bad it is."""
    text: str
    """What is the case, with the values seen."""
    fix: tuple[str, ...] = ()
    """Commands that mend it, each a line for a shell, as root where the system wants that."""
