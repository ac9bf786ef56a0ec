"""Room for received datagrams, as docs/howto/tune-host.md has it for many gigabits a second.

Owns the one setting of the machine that a comparison changes, and puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["roomy_buffers"]

RMEM_MAX = Path("/proc/sys/net/core/rmem_max")


@contextmanager
def roomy_buffers(wanted_bytes: int, say: Callable[[str], None]) -> Iterator[None]:
    """Let sockets have receive buffers of ``wanted_bytes`` meanwhile, where this process may."""
    before_bytes = int(RMEM_MAX.read_text(encoding="ascii"))
    if before_bytes >= wanted_bytes:
        yield
        return
    try:
        RMEM_MAX.write_text(f"{wanted_bytes}\n", encoding="ascii")
    except OSError as error:
        say(
            f"net.core.rmem_max stays {before_bytes} ({error.strerror}): datagrams get less room"
            " than those of the recorded figures had; allow it with:"
            f" sysctl -w net.core.rmem_max={wanted_bytes}"
        )
        yield
        return
    try:
        yield
    finally:
        RMEM_MAX.write_text(f"{before_bytes}\n", encoding="ascii")
