"""RADIO and DISH: messages to groups, matched exactly; a message is ``(group, body)`` (RFC 48).

Owns which peer joined which group. Invariants: a message has two parts, whichever way it goes; a
DISH hands out only what it has joined, so that a peer which filters nothing (UDP) will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from mcast.errors import PatternError
from mcast.kernel import Message
from mcast.patterns.balance import Distributing, FairQueued
from mcast.patterns.base import Change, Pipe
from mcast.patterns.datagram import GROUP_BYTES, check_datagram, check_group
from mcast.patterns.events import Refusal, SendResult
from mcast.patterns.kinds import PeerInfo, SocketKind
from mcast.patterns.options import QueueOptions, RadioOptions
from mcast.patterns.subscribers import Telling

__all__ = ["Dish", "Radio"]


class Radio(Distributing):
    """RADIO: sends a message to each peer that joined its group, and to every UDP destination."""

    kind = SocketKind.RADIO
    options_type = RadioOptions
    options: RadioOptions

    def __init__(self, options: QueueOptions, dice: Random) -> None:
        self._members: dict[bytes, dict[Pipe, None]] = {}
        self._groups: dict[Pipe, set[bytes]] = {}
        self._datagram_pipes: dict[Pipe, None] = {}
        super().__init__(options, dice)

    def send(self, message: Message) -> SendResult:
        """Queue ``(group, body)`` for each member of the group; a full queue drops it for that one.

        WOULD_BLOCK only with ``xpub_nodrop``, if one of these queues is full: then none has it.

        Raises: PatternError unless it is such a pair, MessageTooLongError if it does not fit a
        datagram and there is a UDP destination.
        """
        if isinstance(message, bytes) or len(message) != 2:
            raise PatternError("a message of a RADIO socket is a group and a body")
        group, body = message
        check_group(group)
        if self._datagram_pipes:
            check_datagram(group, body)
        pipes = [
            pipe
            for pipe in (*self._members.get(group, ()), *self._datagram_pipes)
            if pipe.is_usable
        ]
        if self.options.xpub_nodrop and not all(pipe.is_open for pipe in pipes):
            return SendResult.WOULD_BLOCK
        self._give(pipes, message)
        return SendResult.SENT

    @property
    def is_writable(self) -> bool:
        """True; with ``xpub_nodrop`` while no queue is full."""
        return not self.options.xpub_nodrop or self._has_room_everywhere

    def handle_subscriptions(self, number: int, changes: Iterable[Change]) -> None:
        """Take the groups that a peer joined and left; too many end in ``Refused``."""
        pipe = self._pipes.get(number)
        if pipe is None:
            return
        groups = self._groups.setdefault(pipe, set())
        for is_join, group in changes:
            if not is_join:
                self._leave(pipe, group)
            elif group in groups:
                continue
            elif len(group) > GROUP_BYTES:
                self._refuse(number, Refusal.MALFORMED)
                return
            elif len(groups) >= self.options.max_subscription_count:
                self._refuse(number, Refusal.TOO_MANY_SUBSCRIPTIONS)
                return
            else:
                groups.add(group)
                self._members.setdefault(group, {})[pipe] = None

    def _leave(self, pipe: Pipe, group: bytes) -> None:
        groups = self._groups[pipe]
        if group not in groups:
            self.counters.cancels_ignored += 1
            return
        groups.remove(group)
        members = self._members[group]
        del members[pipe]
        if not members:
            del self._members[group]

    def _connected(self, pipe: Pipe, peer: PeerInfo) -> None:
        super()._connected(pipe, peer)
        if peer.is_datagram:
            self._datagram_pipes[pipe] = None

    def _removed(self, pipe: Pipe) -> None:
        super()._removed(pipe)
        self._datagram_pipes.pop(pipe, None)
        for group in list(self._groups.get(pipe, ())):
            self._leave(pipe, group)
        self._groups.pop(pipe, None)


class Dish(Telling, FairQueued):
    """DISH: receives ``(group, body)`` of the groups it joined, from each RADIO in turn."""

    kind = SocketKind.DISH
    options_type = QueueOptions

    def join(self, group: bytes) -> None:
        """Receive the messages of ``group``.

        Raises: PatternError if it is joined already, longer than 255 bytes, or has a zero byte.
        """
        check_group(group)
        if group in self._wanted:
            raise PatternError(f"the group {group!r} is joined already")
        self._want(group)

    def leave(self, group: bytes) -> None:
        """End ``join``.

        Raises: PatternError if it is not joined.
        """
        if not self._drop(group):
            raise PatternError(f"the group {group!r} is not joined")
        self._tell(False, group)

    def _receive(self, pipe: Pipe, batch: Sequence[Message]) -> None:
        shaped = [m for m in batch if not isinstance(m, bytes) and len(m) == 2]
        groups = self._wanted
        wanted = [m for m in shaped if m[0] in groups]
        self.counters.filtered += len(shaped) - len(wanted)
        if wanted:
            super()._receive(pipe, wanted)
        if len(shaped) < len(batch):  # as in libzmq, it is not listened to any more
            self.counters.dropped_malformed += len(batch) - len(shaped)
            self._refuse(pipe.number, Refusal.MALFORMED)
