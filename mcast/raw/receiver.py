"""Receives plain datagrams of several groups, in batches, with what the kernel says of them.

Owns the sockets and the reader's memory. Invariant: a datagram is handed out with the group that
its own socket joined; a run that the kernel coalesced (GRO) comes as one arrival.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, NamedTuple, Self

from mcast.endpoint import MulticastEndpoint
from mcast.kernel import UdpReader
from mcast.net.interfaces import Interface, resolve_interface
from mcast.net.raw import open_receiver
from mcast.net.udp import address_text
from mcast.runtime.clock import monotonic_ns

__all__ = ["Arrival", "Receiver"]

_MOST_NAMES: Final = 4096
"""Source addresses remembered as text; forged ones must not fill the memory."""


class Arrival(NamedTuple):
    """A datagram, or a run of datagrams of equal size whose last may be shorter."""

    place: int
    """Which of the receiver's endpoints."""
    source: str
    """The sender's address."""
    data: memoryview
    """The payloads; valid until the next arrival is taken."""
    segment_bytes: int
    """The size of each."""
    now_ns: int
    """The monotonic clock when it was read; the same for all of a batch."""

    @property
    def datagram_count(self) -> int:
        """How many datagrams."""
        return -(-len(self.data) // self.segment_bytes)

    def datagrams(self) -> Iterator[memoryview]:
        """Each datagram."""
        for start in range(0, len(self.data), self.segment_bytes):
            yield self.data[start : start + self.segment_bytes]


class Receiver:
    """Joined sockets, one for each endpoint. One thread; use it in a ``with``.

    ``sources`` are the only senders to listen to, besides an endpoint's own; ``excluded`` are those
    not to listen to. ``rcvbuf_bytes`` of None leaves the system's default.

    Raises: EndpointError, InterfaceError, TransportError; a BufferWarning where less was granted.
    """

    def __init__(
        self,
        endpoints: Sequence[MulticastEndpoint],
        *,
        sources: Sequence[str] = (),
        excluded: Sequence[str] = (),
        rcvbuf_bytes: int | None = None,
    ) -> None:
        self.endpoints = list(endpoints)
        """What was joined, in order."""
        self.interfaces: list[Interface] = []
        """The interface of each."""
        self._reader = UdpReader()
        self._places: dict[int, int] = {}
        self._names: dict[bytes, str] = {}
        with ExitStack() as undo:
            self._poll = undo.enter_context(select.epoll())
            for place, endpoint in enumerate(endpoints):
                interface = resolve_interface(endpoint.interface, endpoint.version)
                own, more = endpoint, list(sources)
                if sources and endpoint.source is None:
                    own = MulticastEndpoint(
                        interface=endpoint.interface,
                        group=endpoint.group,
                        port=endpoint.port,
                        source=sources[0],
                    )
                    more = more[1:]
                opened = undo.enter_context(
                    open_receiver(
                        own,
                        interface,
                        more_sources=more,
                        excluded=excluded,
                        rcvbuf_bytes=rcvbuf_bytes,
                    )
                )
                self.interfaces.append(interface)
                self._places[opened.fileno()] = place
                self._poll.register(opened.fileno(), select.EPOLLIN)
            self._open = undo.pop_all()

    @property
    def overflow_count(self) -> int:
        """Datagrams, or runs of them, that the kernel dropped because a buffer was full."""
        return sum(self._reader.overflows.values())

    def receive(self, timeout_s: float) -> Iterator[Arrival]:
        """What has come, a batch of each group; nothing after ``timeout_s`` seconds without any.

        Use each arrival before the next one is taken: the memory is used again.
        """
        ready = self._poll.poll(timeout_s)
        now_ns = monotonic_ns()
        for fd, _ in ready:
            place = self._places[fd]
            for source, data, segment_bytes in self._reader.read(fd):
                yield Arrival(place, self._text(source), data, segment_bytes, now_ns)

    def close(self) -> None:
        """Leave the groups and close the sockets; a second call does nothing."""
        self._open.close()

    def _text(self, source: bytes) -> str:
        text = self._names.get(source)
        if text is None:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            text = self._names[source] = address_text(source)
        return text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
