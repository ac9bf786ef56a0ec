"""RADIO and DISH over UDP: each message one datagram, nobody knows whether it arrives.

Owns the socket. Invariant: what the system does not take, or has no room here, is dropped and
counted, as UDP is; what others send never raises.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

from mcast.kernel import Message
from mcast.net.datagram import open_receiver, open_sender
from mcast.patterns import PeerInfo, SocketKind
from mcast.patterns.datagram import build_datagram, parse_datagram_untrusted
from mcast.runtime.pipes import NEVER
from mcast.unicast import UdpEndpoint

if TYPE_CHECKING:
    from mcast.runtime.peers import Peers

__all__ = ["DatagramPipe"]

_DATAGRAMS_PER_TURN: Final = 256


class DatagramPipe:
    """One ``udp://`` endpoint; a ``Pipe``."""

    def __init__(self, peers: Peers, number: int, endpoint: UdpEndpoint) -> None:
        """Raises TransportError, InterfaceError."""
        self.number = number
        self.armed_ns = NEVER
        self._peers = peers
        self._sends = peers.kind is SocketKind.RADIO
        opener = open_sender if self._sends else open_receiver
        self._socket = opener(endpoint, peers.options)
        self._is_over = False

    def begin(self) -> None:
        """Attach it to the pattern."""
        theirs = SocketKind.DISH if self._sends else SocketKind.RADIO
        self._peers.pattern.attach(self.number, PeerInfo(theirs, is_datagram=self._sends))
        if not self._sends:
            self._peers.watch(self._socket.fileno(), select.EPOLLIN, self._handle_ready)

    def flush(self, now_ns: int) -> None:  # noqa: ARG002
        """Send what the pattern has."""
        peers = self._peers
        while batch := peers.pattern.take_outgoing(self.number, _DATAGRAMS_PER_TURN):
            for message in batch:
                assert isinstance(message, tuple)  # the pattern lets nothing else in
                try:
                    peers.bytes_sent += self._socket.send(build_datagram(*message))
                except OSError:  # no room, nobody there, no way: it is lost, and counted
                    peers.datagrams_lost += 1

    def _handle_ready(self, now_ns: int, mask: int) -> None:  # noqa: ARG002
        peers = self._peers
        view = peers.reader.data
        batch: list[Message] = []
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                size = self._socket.recv_into(view)
            except BlockingIOError:
                break
            except OSError:
                continue
            message = parse_datagram_untrusted(view[:size])
            if message is None:
                peers.datagrams_malformed += 1
            else:
                batch.append(message)
        room = peers.pattern.room_for(self.number)
        peers.datagrams_lost += max(0, len(batch) - room)
        if batch[:room]:
            peers.pattern.handle_messages(self.number, batch[:room])
            peers.mark()

    def resume(self, now_ns: int) -> None:
        """Nothing to do: it is always read from."""

    def refuse(self, text: str, now_ns: int) -> None:  # noqa: ARG002
        """The pattern will not deal with it any more."""
        self._peers.warn(f"a udp:// endpoint was ended: {text}")
        self.hang_up()

    @property
    def is_drained(self) -> bool:
        """True: what was sent has left, or was lost."""
        return True

    def hang_up(self) -> None:
        """Give the socket back."""
        if not self._is_over:
            self._is_over = True
            self._peers.unwatch(self._socket.fileno())
            self._socket.close()

    def forget(self) -> None:
        """In a forked child: close the descriptor only."""
        self._is_over = True
        self._socket.close()
