"""Noticing that a peer is gone, and being noticed (RFC 37 "Connection Heartbeating").

Owns three timers of one connection. PINGs leave on time whatever else is sent; any bytes from the
peer end the wait for a sign of life, its PONG is only the surest of them (as libzmq). A TTL that
the peer's last PING named begins anew with whatever comes: libzmq ends it then, which makes it
hold or not by how the stream happened to be cut.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from mcast.zmtp.commands import build_ping
from mcast.zmtp.failure import FailureReason, ZmtpError
from mcast.zmtp.options import ZmtpOptions

__all__ = ["NEVER", "Heartbeat"]

NEVER: Final = 1 << 62
"""A time that does not come."""


class _Timer(IntEnum):
    """Indices of ``Heartbeat._due``."""

    PING = 0
    """The next PING is to be sent."""
    SILENCE = 1
    """Nothing came after our PING."""
    TTL = 2
    """Nothing came within the time that the peer's last PING named."""


class Heartbeat:
    """Off until ``start``; but a peer's TTL holds whether or not this side sends PINGs."""

    __slots__ = ("_due", "_ivl_ns", "_peer_ttl_ns", "_silence_ns", "_ttl_ns")

    def __init__(self, options: ZmtpOptions) -> None:
        self._due = [NEVER] * len(_Timer)
        self._ivl_ns = options.heartbeat_ivl_ns
        self._ttl_ns = options.heartbeat_ttl_ns
        self._peer_ttl_ns = 0
        timeout_ns = options.heartbeat_timeout_ns
        self._silence_ns = self._ivl_ns if timeout_ns is None else timeout_ns

    @property
    def next_timeout_ns(self) -> int:
        """When to call ``handle_timeout``."""
        return min(self._due)

    def start(self, now_ns: int) -> None:
        """PINGs from now on, if there are to be any."""
        if self._ivl_ns:
            self._due[_Timer.PING] = now_ns + self._ivl_ns

    def stop(self) -> None:
        """Nothing is due any more."""
        self._due = [NEVER] * len(_Timer)

    def handle_bytes(self, now_ns: int) -> None:
        """The peer lives."""
        self._due[_Timer.SILENCE] = NEVER
        self._await_more(now_ns)

    def handle_ping(self, ttl_ns: int, now_ns: int) -> None:
        """The peer wants to be given up after ``ttl_ns`` of silence; 0: never."""
        self._peer_ttl_ns = ttl_ns
        self._await_more(now_ns)

    def _await_more(self, now_ns: int) -> None:
        self._due[_Timer.TTL] = now_ns + self._peer_ttl_ns if self._peer_ttl_ns else NEVER

    def handle_timeout(self, now_ns: int) -> bytes | None:
        """The body of the PING to send now, if any. Raises ``ZmtpError`` when the peer is gone."""
        if now_ns >= self._due[_Timer.SILENCE]:
            raise ZmtpError(
                FailureReason.HEARTBEAT_TIMEOUT,
                f"nothing came within {self._silence_ns / 1e9:g} s of a PING",
            )
        if now_ns >= self._due[_Timer.TTL]:
            raise ZmtpError(
                FailureReason.TTL_EXPIRED, "nothing came within the TTL of the peer's PING"
            )
        if now_ns < self._due[_Timer.PING]:
            return None
        self._due[_Timer.PING] = now_ns + self._ivl_ns
        if self._silence_ns and self._due[_Timer.SILENCE] == NEVER:
            self._due[_Timer.SILENCE] = now_ns + self._silence_ns
        return build_ping(self._ttl_ns)
