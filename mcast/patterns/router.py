"""ROUTER: every message has the peer's routing id in front, received and sent (RFC 28).

Owns the table of routing ids. Invariant: an id leads to at most one pipe, and a pipe that has one
is in the table under it; a peer without an id, since another has it, is neither heard nor sent to.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from mcast.errors import PatternError
from mcast.kernel import Message
from mcast.patterns.balance import Distributing, FairQueued
from mcast.patterns.base import Pipe
from mcast.patterns.events import Refusal, Refused, SendResult
from mcast.patterns.kinds import ROUTING_ID_BYTES, PeerInfo, SocketKind, is_routing_id
from mcast.patterns.options import NOTIFY_CONNECT, NOTIFY_DISCONNECT, QueueOptions, RouterOptions

__all__ = ["Router"]

_COUNTER_MASK: Final = 0xFFFF_FFFF


class Router(FairQueued, Distributing):
    """ROUTER: receives from each peer in turn, sends to the one that the first part names.

    A peer is named by ``routing_id`` of ``attach``, else by its own Identity, else by 5 bytes that
    begin with zero. The name stays with the pipe over reconnects, as in libzmq; when the pipe is
    detached it is free at once.
    """

    kind = SocketKind.ROUTER
    options_type = RouterOptions
    options: RouterOptions

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._routes: dict[bytes, Pipe] = {}
        self._next_id = dice.getrandbits(32)
        super().__init__(options, dice)

    def send(self, message: Message) -> SendResult:
        """Queue all but the first part for the peer that it names.

        Without ``router_mandatory`` a message to nobody known, for a full queue, or with no second
        part is SENT and dropped. With it the first is UNROUTABLE, the second WOULD_BLOCK.

        Raises: PatternError with ``router_mandatory`` for a message of one part.
        """
        if isinstance(message, bytes):
            if self.options.router_mandatory:
                raise PatternError("a message of a ROUTER socket has a routing id and a body")
            self.counters.dropped_unroutable += 1
            return SendResult.SENT
        pipe = self._routes.get(message[0])
        if pipe is None or not pipe.is_usable:
            if self.options.router_mandatory:
                return SendResult.UNROUTABLE
            self.counters.dropped_unroutable += 1
            return SendResult.SENT
        if not pipe.is_open and self.options.router_mandatory:
            return SendResult.WOULD_BLOCK
        self._give((pipe,), message[1] if len(message) == 2 else message[1:])
        return SendResult.SENT

    @property
    def is_writable(self) -> bool:
        """True; with ``router_mandatory`` if some peer has room."""
        if not self.options.router_mandatory:
            return True
        return any(pipe.is_open for pipe in self._routes.values())

    def _receive(self, pipe: Pipe, batch: Sequence[Message]) -> None:
        name = pipe.routing_id
        if not name:
            self.counters.dropped_unexpected += len(batch)
            return
        super()._receive(
            pipe, [(name, part) if isinstance(part, bytes) else (name, *part) for part in batch]
        )

    # Names.

    def _check_name(self, routing_id: bytes) -> None:
        if routing_id and not is_routing_id(routing_id):
            raise PatternError(
                f"a routing id is 1 to {ROUTING_ID_BYTES} bytes and does not begin with a zero byte"
            )
        if routing_id in self._routes:
            raise PatternError(f"the routing id {routing_id!r} is another peer's")

    def _added(self, pipe: Pipe, routing_id: bytes) -> None:
        super()._added(pipe, routing_id)
        if routing_id:
            self._name(pipe, routing_id)

    def _connected(self, pipe: Pipe, peer: PeerInfo) -> None:
        super()._connected(pipe, peer)
        if not pipe.routing_id and not self._identify(pipe, peer.routing_id):
            return
        if self.options.probe_router:
            self._greet(pipe, b"")
        self._notify(pipe, NOTIFY_CONNECT)

    def _identify(self, pipe: Pipe, identity: bytes) -> bool:
        """Name a pipe after its peer; False if the name is another's, who keeps it."""
        if identity and not is_routing_id(identity):
            self.counters.routing_ids_replaced += 1
            identity = b""
        if not identity:
            self._name(pipe, self._generated_id())
            return True
        holder = self._routes.get(identity)
        if holder is not None:
            if not self.options.router_handover:
                self._events.append(Refused(pipe.number, Refusal.DUPLICATE_ROUTING_ID))
                return False
            self._refuse(holder.number, Refusal.HANDED_OVER)
        self._name(pipe, identity)
        return True

    def _generated_id(self) -> bytes:
        while True:
            routing_id = b"\0" + self._next_id.to_bytes(4, "big")
            self._next_id = (self._next_id + 1) & _COUNTER_MASK
            if routing_id not in self._routes:
                return routing_id

    def _name(self, pipe: Pipe, routing_id: bytes) -> None:
        pipe.routing_id = routing_id
        self._routes[routing_id] = pipe

    def _disconnected(self, pipe: Pipe) -> None:
        super()._disconnected(pipe)
        self._notify(pipe, NOTIFY_DISCONNECT)

    def _removed(self, pipe: Pipe) -> None:
        super()._removed(pipe)
        if pipe.routing_id:
            del self._routes[pipe.routing_id]

    def _notify(self, pipe: Pipe, what: int) -> None:
        if not self.options.router_notify & what or not pipe.routing_id:
            return
        if self._is_backed_up:  # nothing else limits how often peers come and go
            self.counters.dropped_unexpected += 1
            return
        super()._receive(pipe, [(pipe.routing_id, b"")])
