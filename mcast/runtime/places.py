"""The endpoints of one socket: what is bound, what is connected, by each transport.

Owns listeners, dialers, inproc names and datagram sockets by their URLs. Invariant: a name in the
switchboard's table is some open socket's. All of it under the switchboard's lock.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mcast.errors import EndpointError, TransportError
from mcast.net.stream import Address
from mcast.patterns import SocketKind
from mcast.runtime.admission import check_judge
from mcast.runtime.datagrams import DatagramPipe
from mcast.runtime.doors import Dialer, Door
from mcast.runtime.inproc import InprocEnd
from mcast.unicast import InprocEndpoint, UdpEndpoint, UnicastEndpoint

if TYPE_CHECKING:
    from mcast.runtime.peers import Peers

__all__ = ["Places"]


class Places:
    """Where one socket is bound and connected to."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._doors: dict[str, Door] = {}
        self._dialers: dict[str, Dialer] = {}
        self._names: set[str] = set()
        self._ends: dict[str, list[InprocEnd]] = {}
        self._datagrams: dict[str, DatagramPipe] = {}

    @property
    def urls(self) -> list[str]:
        """All of them."""
        names = [f"inproc://{name}" for name in self._names]
        return [*self._doors, *self._dialers, *self._datagrams, *names, *self._ends]

    def bind(self, endpoint: UnicastEndpoint) -> str:
        """The URL that it became. Raises EndpointError, OptionError, TransportError."""
        if isinstance(endpoint, InprocEndpoint):
            return self._bind_name(endpoint)
        if isinstance(endpoint, UdpEndpoint):
            return self._open_datagrams(endpoint, SocketKind.DISH)
        if str(endpoint) in self._doors:
            raise EndpointError(f"already bound to {endpoint}")
        check_judge(self._peers.authenticator, self._peers.options)
        door = Door(self._peers, endpoint)
        self._doors[door.endpoint] = door
        return door.endpoint

    def connect(self, endpoint: UnicastEndpoint, addresses: list[Address], now_ns: int) -> str:
        """Its URL. Raises EndpointError, TransportError."""
        url = str(endpoint)
        if isinstance(endpoint, InprocEndpoint):
            self._connect_name(endpoint)
        elif isinstance(endpoint, UdpEndpoint):
            self._open_datagrams(endpoint, SocketKind.RADIO)
        elif url in self._dialers and not self._dialers[url].is_over:
            raise EndpointError(f"already connected to {url}")
        else:
            dialer = Dialer(self._peers, endpoint, addresses, self._peers.reserve(), now_ns)
            self._dialers[url] = dialer
            if not dialer.is_over:  # as it may be where it is to try once only
                self._peers.adopt(dialer)
        return url

    def release(self, url: str) -> str:
        """Leave it. Raises EndpointError if there is no such endpoint."""
        peers, name = self._peers, url.removeprefix("inproc://")
        if url not in self._doors:
            url = self._real(url)
        if (door := self._doors.pop(url, None)) is not None:
            door.close()  # those who are in stay, as in libzmq
        elif (dialer := self._dialers.pop(url, None)) is not None:
            dialer.hang_up()
            peers.gone(dialer.number)
        elif (pipe := self._datagrams.pop(url, None)) is not None:
            pipe.hang_up()
            peers.gone(pipe.number)
        elif name != url and name in self._names:
            self._names.discard(name)
            del peers.switchboard.bound[name]
        elif ends := self._ends.pop(url, None):
            for end in list(ends):
                end.hang_up()
        else:
            raise EndpointError(f"not bound or connected to {url}")
        return url

    def _real(self, asked: str) -> str:
        """The URL that ``asked`` became when it was bound, if it did."""
        urls = [url for url, door in self._doors.items() if door.asked == asked]
        if len(urls) > 1:
            raise EndpointError(f"bound to {asked} more than once: name one of {', '.join(urls)}")
        return urls[0] if urls else asked

    def drop(self, end: InprocEnd) -> None:
        """An end is over."""
        ends = self._ends.get(end.url, [])
        if end in ends:
            ends.remove(end)
            if not ends:
                del self._ends[end.url]

    def stop_listening(self) -> None:
        """Free addresses and names for others, and wake nobody."""
        for door in self._doors.values():
            door.stop()
        for name in self._names:
            del self._peers.switchboard.bound[name]
        self._names.clear()

    def shut(self) -> None:
        """Let nobody in any more."""
        self.stop_listening()
        for door in self._doors.values():
            door.close()

    def hang_up(self) -> None:
        """Give everything back; what the pattern knows as a pipe does so itself."""
        self.shut()
        for dialer in self._dialers.values():
            dialer.hang_up()

    def forget(self) -> None:
        """In a forked child: close the descriptors only."""
        for door in self._doors.values():
            door.forget()
        for dialer in self._dialers.values():
            dialer.forget()
        for pipe in self._datagrams.values():
            pipe.forget()

    def _bind_name(self, endpoint: InprocEndpoint) -> str:
        switchboard, name = self._peers.switchboard, endpoint.name
        if name in switchboard.bound:
            raise TransportError(
                errno.EADDRINUSE,
                f"cannot bind {endpoint}: another socket of this context has the name",
            )
        switchboard.bound[name] = self._peers
        self._names.add(name)
        for end in switchboard.waiting.pop(name, []):
            end.meet(self._peers)
        return str(endpoint)

    def _connect_name(self, endpoint: InprocEndpoint) -> None:
        switchboard = self._peers.switchboard
        end = InprocEnd(self._peers, self._peers.reserve(), str(endpoint))
        self._peers.adopt(end)
        self._ends.setdefault(end.url, []).append(end)
        other = switchboard.bound.get(endpoint.name)
        if other is not None:
            end.meet(other)
        else:
            end.waits_for = endpoint.name
            switchboard.waiting.setdefault(endpoint.name, []).append(end)

    def _open_datagrams(self, endpoint: UdpEndpoint, kind: SocketKind) -> str:
        url, peers = str(endpoint), self._peers
        if peers.kind is not kind:
            does = "binds" if kind is SocketKind.DISH else "connects"
            raise EndpointError(f"{endpoint}: over udp:// a {kind} {does}, and nobody else does")
        if url in self._datagrams:
            raise EndpointError(f"already bound or connected to {url}")
        pipe = DatagramPipe(peers, peers.next_number(), endpoint)
        self._datagrams[url] = pipe
        peers.adopt(pipe)
        pipe.begin()
        return url
