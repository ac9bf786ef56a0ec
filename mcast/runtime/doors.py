"""How connections come about: listeners that let peers in, dialers that call and call again.

Owns the listening sockets and the attempts. Invariants: as in ``mcast.runtime.connections``; a
listener that cannot accept rests a moment; a dialer never tries more often than ``reconnect_ivl``.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from mcast.kernel import TokenBucket
from mcast.monitor import MonitorKind
from mcast.net.stream import (
    Address,
    StreamListener,
    StreamSocket,
    finish_connect,
    open_stream,
    peer_name,
    tune,
)
from mcast.runtime.connections import Connection
from mcast.runtime.pipes import NEVER
from mcast.unicast import IpcEndpoint, TcpEndpoint
from mcast.zmtp import Failed, FailureReason

if TYPE_CHECKING:
    from mcast.runtime.peers import Peers

__all__ = ["Dialer", "Door"]

_ACCEPTS_PER_TURN: Final = 64
_REST_NS: Final = 100_000_000
"""How long a listener rests when a connection could not be accepted."""
_CURVE_PER_S: Final = 8 * 200  # in the bucket's bits
"""Peers that a listener with CURVE lets in a second: each costs public-key work, known or not."""
_CURVE_BURST: Final = 50
_SLOW_RETRY_NS: Final = 1_000_000_000
"""Least wait after a peer broke the protocol: it will most likely do so again."""
_FOR_GOOD: Final = frozenset({FailureReason.REFUSED_BY_PEER})
"""After these a dialer does not come back (RFC 37, ERROR)."""
_PASSING: Final = frozenset(
    {
        FailureReason.PEER_CLOSED,
        FailureReason.HANDSHAKE_TIMEOUT,
        FailureReason.HEARTBEAT_TIMEOUT,
        FailureReason.TTL_EXPIRED,
    }
)
"""After these it comes back as soon as it may."""


class Door:
    """A listener: whoever comes in gets a connection."""

    def __init__(self, peers: Peers, endpoint: TcpEndpoint | IpcEndpoint) -> None:
        """Raises TransportError or EndpointError."""
        self._peers = peers
        self._listener = StreamListener(endpoint, peers.options)
        self.asked = str(endpoint)
        """Where it was to listen, wildcards and all."""
        self.endpoint = str(self._listener.endpoint)
        """Where it really listens."""
        self._inside: dict[int, Connection] = {}
        self._curve: TokenBucket | None = None
        if peers.options.curve_server:
            self._curve = TokenBucket(_CURVE_PER_S, _CURVE_BURST)
        self._wake_ns = NEVER
        self.armed_ns = NEVER
        self._is_told = False
        self.is_over = False
        """It is closed."""
        peers.watch(self._listener.fileno(), select.EPOLLIN, self.handle_ready)
        peers.report(MonitorKind.LISTENING, self.endpoint)

    @property
    def next_timeout_ns(self) -> int:
        """When to listen again."""
        return NEVER if self.is_over else self._wake_ns

    def handle_timeout(self, now_ns: int) -> None:  # noqa: ARG002
        """Listen again."""
        self._wake_ns = NEVER
        if not self.is_over:
            self._peers.watch(self._listener.fileno(), select.EPOLLIN, self.handle_ready)

    def handle_ready(self, now_ns: int, mask: int) -> None:  # noqa: ARG002
        """Somebody wants in. Loop thread."""
        peers = self._peers
        for _ in range(_ACCEPTS_PER_TURN):
            if self.is_over:
                return
            if self._curve is not None and self._curve.available_bytes(now_ns) < 1:
                self._rest(self._curve.ready_at_ns(1))  # they wait in the system's backlog
                return
            try:
                accepted = self._listener.accept()
            except OSError as error:
                peers.accepts_failed += 1
                peers.report(MonitorKind.ACCEPT_FAILED, self.endpoint, text=error.strerror or "")
                # Most likely out of descriptors: to look again at once would be a busy loop.
                self._rest(now_ns + _REST_NS)
                return
            if accepted is None:
                return
            if self._curve is not None:
                self._curve.spend(now_ns, 1)
            if len(self._inside) >= peers.options.max_connections:
                accepted.close()
                peers.accepts_failed += 1
                peers.report(MonitorKind.ACCEPT_FAILED, self.endpoint, text="max_connections")
                continue
            try:
                tune(accepted, peers.options)
            except OSError:
                accepted.close()  # it has gone again
                continue
            peers.accepted_count += 1
            peers.report(MonitorKind.ACCEPTED, self.endpoint, peer_name(accepted))
            number = peers.next_number()
            connection = Connection(
                peers, accepted, number, self.endpoint, ended=self._ended, now_ns=now_ns
            )
            if not connection.is_over:  # else it was reset before we could greet it
                self._inside[number] = connection
                peers.came(connection)

    def _rest(self, until_ns: int) -> None:
        """Let nobody in for a while."""
        self._wake_ns = until_ns
        self._peers.watch(self._listener.fileno(), 0, self.handle_ready)
        self._peers.arm(self)

    def _ended(self, connection: Connection, failed: Failed, now_ns: int) -> None:  # noqa: ARG002
        self._inside.pop(connection.number, None)
        self._peers.gone(connection.number)

    def stop(self) -> None:
        """Let nobody in any more, and wake nobody."""
        if not self.is_over:
            self.is_over = True
            self._peers.unwatch(self._listener.fileno())
            self._listener.close()

    def close(self) -> None:
        """Let nobody in any more, and say so. Those who are in stay."""
        self.stop()
        if not self._is_told:
            self._is_told = True
            self._peers.report(MonitorKind.CLOSED, self.endpoint)

    def forget(self) -> None:
        """In a forked child: close the descriptor only."""
        self.is_over = True
        self._listener.forget()

    @property
    def connections(self) -> list[Connection]:
        """Those who are in."""
        return list(self._inside.values())


class Dialer:
    """Makes one connection, and makes it again when it breaks; the pattern's pipe stays."""

    def __init__(
        self,
        peers: Peers,
        endpoint: TcpEndpoint | IpcEndpoint,
        addresses: list[Address],
        number: int,
        now_ns: int,
    ) -> None:
        self.endpoint = str(endpoint)
        self.number = number
        self.armed_ns = NEVER
        self.is_over = False
        """It does not try any more."""
        self._peers = peers
        self._where = endpoint
        self._addresses = addresses
        self._next_address = 0
        self._attempt: StreamSocket | None = None
        self._due_ns = now_ns
        self._ivl_ns = _first_ivl_ns(peers)
        self.connection: Connection | None = None
        """The one that stands."""
        self._try(now_ns)

    # Trying.

    @property
    def next_timeout_ns(self) -> int:
        """When to try again, or to give an attempt up."""
        return NEVER if self.is_over else self._due_ns

    def handle_timeout(self, now_ns: int) -> None:
        """Try, or give the attempt up."""
        if self._attempt is not None:
            self._give_up("no answer within connect_timeout", now_ns)
        elif self.connection is None and not self.is_over:
            self._try(now_ns)

    def _try(self, now_ns: int) -> None:
        peers = self._peers
        address = self._addresses[self._next_address % len(self._addresses)]
        self._next_address += 1
        timeout_ns = round(peers.options.connect_timeout * 1e9)
        self._due_ns = now_ns + timeout_ns if timeout_ns else NEVER
        try:
            self._attempt = open_stream(self._where, address, peers.options)
        except OSError as error:
            self._give_up(error.strerror or str(error), now_ns)
            return
        peers.report(MonitorKind.CONNECT_DELAYED, self.endpoint)
        peers.watch(self._attempt.fileno(), select.EPOLLOUT, self._handle_ready)
        peers.arm(self)

    def _handle_ready(self, now_ns: int, mask: int) -> None:  # noqa: ARG002
        opened, peers = self._attempt, self._peers
        if opened is None:
            return
        try:
            finish_connect(opened)
        except OSError as error:
            self._give_up(error.strerror or str(error), now_ns)
            return
        self._attempt = None
        self._due_ns = NEVER
        peers.unwatch(opened.fileno())
        peers.connected_count += 1
        peers.report(MonitorKind.CONNECTED, self.endpoint, peer_name(opened))
        self.connection = Connection(
            peers, opened, self.number, self.endpoint, ended=self._ended, now_ns=now_ns
        )
        if self.connection.is_over:
            self.connection = None
        else:
            peers.came(self.connection)

    def _give_up(self, text: str, now_ns: int) -> None:
        self._drop_attempt()
        self._peers.report(MonitorKind.CLOSED, self.endpoint, text=text)
        self._retry(now_ns, 0)

    def _drop_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            self._peers.unwatch(attempt.fileno())
            attempt.close()

    def _ended(self, connection: Connection, failed: Failed, now_ns: int) -> None:
        self.connection = None
        peers = self._peers
        was_up = connection.is_attached
        if was_up:
            self._ivl_ns = _first_ivl_ns(peers)
        if failed.reason in _FOR_GOOD or peers.is_closing:
            if failed.reason in _FOR_GOOD:
                peers.warn(f"{self.endpoint} will not be tried again: {failed.text}")
            self.is_over = True
            peers.gone(self.number)
            return
        peers.suspended(self)
        self._retry(now_ns, 0 if failed.reason in _PASSING else _SLOW_RETRY_NS)

    def _retry(self, now_ns: int, least_ns: int) -> None:
        peers, options = self._peers, self._peers.options
        if options.reconnect_ivl is None:
            self.is_over = True
            peers.gone(self.number)
            return
        wait_ns = max(self._ivl_ns + int(peers.dice.random() * self._ivl_ns), least_ns)
        longest_ns = round(options.reconnect_ivl_max * 1e9)
        if longest_ns > self._ivl_ns:
            self._ivl_ns = min(2 * self._ivl_ns, longest_ns)
        self._due_ns = now_ns + wait_ns
        peers.report(MonitorKind.CONNECT_RETRIED, self.endpoint, value=wait_ns // 1_000_000)
        peers.arm(self)

    # As a pipe, while there is no connection.

    def flush(self, now_ns: int) -> None:
        """Nothing can leave."""

    def resume(self, now_ns: int) -> None:
        """Nothing comes."""

    def refuse(self, text: str, now_ns: int) -> None:  # noqa: ARG002
        """The pattern has no place for this connection, not even one to come."""
        self._peers.warn(f"{self.endpoint} is not connected: {text}")
        self.hang_up()

    @property
    def is_drained(self) -> bool:
        """True if nothing waits for the connection to come."""
        return self.is_over or not self._peers.pattern.queued_for(self.number)

    def hang_up(self) -> None:
        """Stop trying, and end what stands."""
        self.is_over = True
        self._drop_attempt()
        if self.connection is not None:
            self.connection.hang_up()
            self.connection = None

    def forget(self) -> None:
        """In a forked child: close the descriptors only."""
        self.is_over = True
        if self._attempt is not None:
            self._attempt.close()
        if self.connection is not None:
            self.connection.forget()


def _first_ivl_ns(peers: Peers) -> int:
    return round((peers.options.reconnect_ivl or 0) * 1e9)
