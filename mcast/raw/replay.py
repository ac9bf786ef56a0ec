"""Plays the multicast datagrams of a capture through a real socket, with the capture's timing.

Owns the socket, the waiting and the account of how well the times were kept. Invariant: a datagram
leaves no earlier than its time; the error counted is that of the gap to the one before.
"""

from __future__ import annotations

import select
from array import array
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from mcast.capture.dissect import UDP, Dissector
from mcast.capture.faults import Planned
from mcast.capture.files import open_capture
from mcast.endpoint import MulticastEndpoint
from mcast.net.interfaces import resolve_interface
from mcast.net.multicast import DEFAULT_TTL
from mcast.net.raw import Socket, open_sender
from mcast.runtime.clock import monotonic_ns

__all__ = ["Replay", "TimingError", "paced", "planned_datagrams"]

_SPIN_NS: Final = 300_000
"""The last of a wait is spent looking at the clock: a sleep ends 60 to 150 us late (measured)."""
_SLEEP_LIMIT_S: Final = 0.1
_ROOM_WAIT_S: Final = 0.1
_ERROR_LIMIT_US: Final = 1_000_000


class TimingError:
    """How far the gaps between datagrams were from what they should be, in whole microseconds."""

    def __init__(self) -> None:
        self._counts = array("Q", bytes(8 * (_ERROR_LIMIT_US + 1)))
        self.count = 0
        self.longest_ns = 0

    def note(self, error_ns: int) -> None:
        """Count one gap."""
        size = abs(error_ns)
        self.count += 1
        self.longest_ns = max(self.longest_ns, size)
        self._counts[min(size // 1000, _ERROR_LIMIT_US)] += 1

    def percentile_us(self, share: float) -> int:
        """The error in microseconds that ``share`` (0 to 1) of the gaps do not exceed, rounded up.

        A second is the most it tells; 0 when nothing was counted.
        """
        wanted = share * self.count
        passed = 0
        for size, count in enumerate(self._counts):
            passed += count
            if passed >= wanted and passed:
                return size + 1
        return 0


class Replay:
    """Sends on one interface, named or by address. One thread; use it in a ``with``.

    Raises: InterfaceError, TransportError.
    """

    def __init__(self, interface: str, *, ttl: int = DEFAULT_TTL) -> None:
        self._interface = interface
        self._ttl = ttl
        self._sockets: dict[int, tuple[Socket, int]] = {}
        self._names: dict[tuple[bytes, int], tuple[Socket, tuple[object, ...]]] = {}
        self.timing = TimingError()
        self.packet_count = 0
        self.byte_count = 0
        self.refused_count = 0
        """Datagrams that the system would not take, such as one above the MTU."""
        self._start_ns: int | None = None
        self._last: tuple[int, int] | None = None

    def restart(self) -> None:
        """Let the next datagram's time count from when it leaves."""
        self._start_ns = None
        self._last = None

    def wait_ns(self, at_ns: int) -> int:
        """How long until a datagram of that time is due; below 0 if it is late."""
        return 0 if self._start_ns is None else self._start_ns + at_ns - monotonic_ns()

    def send(self, packet: Planned, *, timed: bool = True) -> None:
        """Send one datagram when it is due; without ``timed`` at once. Blocks until then.

        Raises: InterfaceError, TransportError.
        """
        opened, name = self._where(packet)
        if self._start_ns is None:
            self._start_ns = monotonic_ns() - packet.at_ns
        due_ns = self._start_ns + packet.at_ns
        while timed and (left_ns := due_ns - monotonic_ns()) > 0:
            if left_ns > _SPIN_NS:
                select.select((), (), (), min(_SLEEP_LIMIT_S, (left_ns - _SPIN_NS) / 1e9))
        while True:
            try:
                opened.sendto(packet.payload, name)
                break
            except BlockingIOError:
                select.select((), (opened,), (), _ROOM_WAIT_S)
            except OSError:
                self.refused_count += 1
                return
        now_ns = monotonic_ns()
        if timed and self._last is not None:
            last_now_ns, last_at_ns = self._last
            self.timing.note((now_ns - last_now_ns) - (packet.at_ns - last_at_ns))
        self._last = (now_ns, packet.at_ns)
        self.packet_count += 1
        self.byte_count += len(packet.payload)

    def close(self) -> None:
        """Close the sockets; a second call does nothing."""
        for opened, _ in self._sockets.values():
            opened.close()

    def _where(self, packet: Planned) -> tuple[Socket, tuple[object, ...]]:
        key = (packet.group, packet.port)
        found = self._names.get(key)
        if found is None:
            group = str(ip_address(packet.group))
            opened, index = self._socket(group, packet.port)
            name = (
                (group, packet.port, 0, index) if len(packet.group) == 16 else (group, packet.port)
            )
            found = self._names[key] = (opened, name)
        return found

    def _socket(self, group: str, port: int) -> tuple[Socket, int]:
        endpoint = MulticastEndpoint(interface=self._interface, group=group, port=port)
        found = self._sockets.get(endpoint.version)
        if found is None:
            interface = resolve_interface(self._interface, endpoint.version)
            opened = open_sender(endpoint, interface, ttl=self._ttl)
            found = self._sockets[endpoint.version] = (opened, interface.index)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def planned_datagrams(
    path: Path, groups: Mapping[bytes, tuple[bytes, int | None]] | None = None, speed: float = 1.0
) -> Iterator[Planned]:
    """A capture's multicast datagrams, their times from the first one on, divided by ``speed``.

    ``groups`` replaces a group by another, and its port where one is given.
    Raises: OSError; CaptureError, also after datagrams, where the file is cut off or corrupt.
    """
    with open_capture(path) as file:
        dissector = Dissector()
        first_ns: int | None = None
        while (record := file.next_record()) is not None:
            found = dissector.dissect_untrusted(record)
            if (
                found is None
                or found.protocol != UDP
                or found.missing_bytes
                or not ip_address(found.destination).is_multicast
            ):
                continue
            if first_ns is None:
                first_ns = found.time_ns
            group, port = found.destination, found.destination_port
            if groups and group in groups:
                group, new_port = groups[group]
                port = port if new_port is None else new_port
            at_ns = round((found.time_ns - first_ns) / speed)
            yield Planned(max(0, at_ns), group, port, bytes(found.payload))


def paced(packets: Iterable[Planned], bits_per_second: float) -> Iterator[Planned]:
    """``packets`` at a rate instead of their own times; IP and UDP headers count."""
    at_ns = 0.0
    for packet in packets:
        yield packet._replace(at_ns=round(at_ns))
        overhead = 28 if len(packet.group) == 4 else 48
        at_ns += 8e9 * (len(packet.payload) + overhead) / bits_per_second
