"""What becomes of a socket's connections, said on stderr: the commands' eyes on tcp:// and ipc://.

Owns what is worth a line: that a peer cannot be reached or refuses us, once until it changes; that
we are connected; with ``all_peers`` everybody who comes and goes. A group has no connections.
Invariant: a command does not wait for a peer that has said no for good.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import mcast
from mcast.cli.terminal import say
from mcast.endpoint import MulticastEndpoint, parse_endpoint
from mcast.errors import Again, ClosedError, TransportError
from mcast.monitor import MonitorEvent, MonitorKind

__all__ = ["Connections"]

_DENIED: Final = 400
"""ZAP's status (RFC 27) of a peer that does not want us; the library does not try again."""

_FAILURES: Final = (MonitorKind.CLOSED, MonitorKind.HANDSHAKE_FAILED, MonitorKind.DISCONNECTED)


class Connections:
    """The connections of one socket, watched since before its first ``bind`` or ``connect``."""

    def __init__(self, command: str, socket: mcast.Socket, url: str, *, binds: bool) -> None:
        self._command = command
        self._binds = binds
        self._told = ""
        self.is_group = isinstance(parse_endpoint(url), MulticastEndpoint)
        """The socket speaks multicast: there are no connections."""
        self._monitor = None if self.is_group else socket.monitor()
        self.ever = 0
        """Peers that talked to us so far, however shortly. Known after ``tell``."""

    def greet(self, socket: mcast.Socket) -> None:
        """Say where we are."""
        how = "joined" if self.is_group else "listening at" if self._binds else "connecting to"
        say(f"{self._command}: {how} {socket.last_endpoint}")

    def tell(self, *, quiet: bool = False, all_peers: bool = False) -> None:
        """Say what has happened since the last call. Does not block.

        Raises: TransportError when the peer that we connect to refuses us.
        """
        while self._monitor is not None:
            try:
                event = self._monitor.recv(timeout=0)
            except (Again, ClosedError):
                return
            self.ever += event.kind is MonitorKind.HANDSHAKE_SUCCEEDED
            if event.kind is MonitorKind.HANDSHAKE_FAILED and event.value == _DENIED:
                if not self._binds:
                    raise TransportError(
                        f"{event.endpoint} refuses us: it does not know this key, or this name and"
                        " password (400)"
                    )
                event = replace(event, text="we refused its key, or its name and password")
            text = self._text(event, all_peers=all_peers)
            # What is tried ten times a second is said when it changes.
            if text and text != self._told and not quiet:
                say(f"{self._command}: {text}")
            self._told = text or self._told

    def _text(self, event: MonitorEvent, *, all_peers: bool) -> str:
        where = event.endpoint if not self._binds else event.address or "a peer"
        if event.kind is MonitorKind.HANDSHAKE_SUCCEEDED:
            return f"connected to {where}" if all_peers or not self._binds else ""
        if event.kind not in _FAILURES or not event.text:
            return ""
        if event.kind is MonitorKind.CLOSED:
            return f"cannot connect to {where}: {event.text}; trying again"
        if event.kind is MonitorKind.HANDSHAKE_FAILED:
            return f"no agreement with {where}: {event.text}"
        return f"{where} has gone: {event.text}" if all_peers or not self._binds else ""
