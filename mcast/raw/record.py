"""Records what groups hear into pcapng files, with the kernel's times and no special right.

Owns the sockets and the files. Invariants: a datagram is written once, whole, to the file that was
open when it was read; a file that was rotated away is complete. What only goes to one host, as a
receiver's NAK does, reaches no group, and is not in the recording.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from contextlib import ExitStack
from io import BufferedWriter
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

from mcast.capture.write import PcapngWriter, datagram_packet
from mcast.endpoint import MulticastEndpoint
from mcast.net.interfaces import resolve_interface
from mcast.net.raw import Socket
from mcast.net.timestamped import open_stamped, read_stamped

__all__ = ["Recorder"]

_DATAGRAMS_PER_TURN: Final = 1024
_BUFFER_BYTES: Final = 1 << 20
_NAMES_LIMIT: Final = 4096


class _File:
    """A file under way. After an error, which names it, it is left as it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._raw = path.open("wb", buffering=0)
        self._buffered = BufferedWriter(self._raw, _BUFFER_BYTES)
        self.is_broken = False

    def write(self, data: bytes) -> None:
        try:
            self._buffered.write(data)
        except OSError as error:
            self._abandon(error)

    def flush(self) -> None:
        try:
            self._buffered.flush()
        except OSError as error:
            self._abandon(error)

    def close(self) -> None:
        self.flush()
        self._buffered.close()

    def _abandon(self, error: OSError) -> NoReturn:
        self.is_broken = True
        self._raw.close()  # with it the buffer counts as closed, and nothing is tried again
        raise OSError(error.errno, error.strerror, str(self._path)) from None


class Recorder:
    """Writes to ``path``; with a rotation to ``NAME-00001.pcapng`` and so on. One thread.

    ``rotate_bytes`` and ``rotate_s`` begin a new file when one is that big or spans that long by
    the packets' times; ``keep_count`` deletes all but the newest so many, 0 none.

    Raises: EndpointError, InterfaceError, TransportError, OSError; a BufferWarning where less
    buffer was granted than asked for.
    """

    def __init__(
        self,
        path: Path,
        endpoints: Sequence[MulticastEndpoint],
        *,
        sources: Sequence[str] = (),
        excluded: Sequence[str] = (),
        rcvbuf_bytes: int | None = None,
        rotate_bytes: int | None = None,
        rotate_s: float | None = None,
        keep_count: int = 0,
    ) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._rotate_ns = round(rotate_s * 1e9) if rotate_s is not None else None
        self._keep_count = keep_count
        self.packet_count = 0
        """Datagrams written."""
        self.byte_count = 0
        """Their payload."""
        self.files: list[Path] = []
        """The files that are kept, the open one last."""
        self._made_count = 0
        self._file: _File | None = None
        self._file_packet_count = 0
        self._start_ns: int | None = None
        self._last_ns = 0
        self._drops: dict[int, int] = {}
        self._reported_drops = 0
        self._names: dict[str, bytes] = {}
        self._groups: dict[int, tuple[Socket, bytes, int]] = {}
        with ExitStack() as undo:
            self._poll = undo.enter_context(select.epoll())
            for endpoint in endpoints:
                interface = resolve_interface(endpoint.interface, endpoint.version)
                own, more = endpoint, list(sources)
                if more and endpoint.source is None:
                    own = MulticastEndpoint(
                        interface=endpoint.interface,
                        group=endpoint.group,
                        port=endpoint.port,
                        source=more.pop(0),
                    )
                opened = undo.enter_context(
                    open_stamped(
                        own,
                        interface,
                        more_sources=more,
                        excluded=excluded,
                        rcvbuf_bytes=rcvbuf_bytes,
                    )
                )
                group = ip_address(endpoint.group).packed
                self._groups[opened.fileno()] = (opened, group, endpoint.port)
                self._poll.register(opened.fileno(), select.EPOLLIN)
                self._interface = interface.name
            self._next_file()
            self._open = undo.pop_all()

    @property
    def dropped_count(self) -> int:
        """Datagrams that the sockets' buffers had no room for."""
        return sum(self._drops.values())

    def turn(self, timeout_s: float) -> int:
        """Write what has come; how many datagrams. Blocks up to ``timeout_s`` seconds for any."""
        count = 0
        for fd, _ in self._poll.poll(timeout_s):
            opened, group, port = self._groups[fd]
            for _ in range(_DATAGRAMS_PER_TURN):
                found = read_stamped(opened)
                if found is None:
                    break
                if found.dropped_count is not None:
                    self._drops[fd] = found.dropped_count
                source = self._packed(found.source)
                packet = datagram_packet(
                    source, group, found.source_port, port, found.data, found.hops
                )
                self._put(found.time_ns, packet)
                self.byte_count += len(found.data)
                count += 1
        return count

    def flush(self) -> None:
        """Hand what was written to the system, so that others can read it."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Leave the groups and finish the file; a second call does nothing."""
        self._open.close()
        self._finish_file()

    def _packed(self, source: str) -> bytes:
        packed = self._names.get(source)
        if packed is None:
            if len(self._names) == _NAMES_LIMIT:
                self._names.clear()
            packed = self._names[source] = ip_address(source).packed
        return packed

    def _put(self, time_ns: int, packet: bytes) -> None:
        if self._start_ns is None:
            self._start_ns = time_ns
        elif (
            self._rotate_bytes is not None
            and self._writer.written_bytes + len(packet) > self._rotate_bytes
        ) or (self._rotate_ns is not None and time_ns - self._start_ns >= self._rotate_ns):
            self._next_file()
            self._start_ns = time_ns
        self._last_ns = time_ns
        self._writer.packet(time_ns, packet)
        self._file_packet_count += 1
        self.packet_count += 1

    def _next_file(self) -> None:
        self._finish_file()
        path = self._path
        self._made_count += 1
        if self._rotate_bytes is not None or self._rotate_ns is not None:
            path = path.with_name(f"{path.stem}-{self._made_count:05}{path.suffix}")
        self._file = _File(path)
        self._writer = PcapngWriter(self._file.write, interface=self._interface)
        self._file.flush()
        self.files.append(path)
        if self._keep_count and len(self.files) > self._keep_count:
            self.files.pop(0).unlink(missing_ok=True)

    def _finish_file(self) -> None:
        if self._file is None or self._file.is_broken:
            return
        dropped = self.dropped_count - self._reported_drops
        self._reported_drops += dropped
        self._writer.statistics(self._last_ns, self._file_packet_count, dropped)
        self._file.close()
        self._file = None
        self._file_packet_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
