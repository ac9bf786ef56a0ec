"""From a subscriber's socket to its inbox: the reference. Part of ``mcast.kernel.reference``.

Owns the receive buffers of one descriptor, and the way of what is plain: a run of packets from a
stream that has nothing out of the ordinary (no gap, no early packet, no end in sight) goes through
its ``ReceiveSlots`` into the inbox. Which streams those are the owner says (``streams``), and
everything else is handed back to it, in the order in which it came.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from mcast.kernel.reference_frames import Message
from mcast.kernel.reference_gates import Inbox
from mcast.kernel.reference_io import Baton, UdpReader

if TYPE_CHECKING:
    from mcast.kernel.reference import ReceiveSlots

__all__ = ["Driver", "Intake", "Leftover"]

Leftover = tuple[bytes, memoryview, int, int]
"""Packed source address, a run, its segment_bytes, and where in it to go on."""

_HEADER_BYTES: Final = 16
_READ_COUNT: Final = 16


class Driver(Protocol):
    """Of a loop without a thread: whose turn it is to work, and one round of the work."""

    lock: Lock
    spins: bool

    def turn(self) -> None:
        """Serve whatever is ready or due, without waiting."""


class Intake:
    """Reads one descriptor. ``read`` is for whoever has the owner's lock; ``wait`` takes it.

    *The one who waits does the work*: a thread that calls ``wait`` because the inbox is empty
    reads the socket itself, so that a message wakes one thread and not two. While it does, and a
    moment longer (the *lease*), the loop thread leaves the descriptor alone.
    """

    def __init__(
        self,
        fd: int,
        inbox: Inbox,
        streams: dict[bytes, ReceiveSlots],
        *,
        lock: Lock,
        baton: Baton,
        rest: Callable[[int, list[Leftover]], None],
        overrun: Callable[[bytes, list[Message], int, int], None],
        settled: Callable[[], int],
        share: Callable[[], None],
        driver: Driver | None = None,
    ) -> None:
        """``streams``: the plain ones, by packed address and TSI; the owner keeps it up to date.

        ``rest`` takes what ``wait`` could not deal with, the lock held, and ``settled`` is called
        when the lock is free again; it tells when ``rest`` is to be called the next time, perhaps
        with nothing, by whoever waits then: a millisecond later the loop does its owner's work.
        ``overrun`` gets messages for which the inbox has no room, with the numbers of the packets
        they came in. ``share`` is called by whoever has waited, for those who wait otherwise.
        """
        del lock, baton, rest, settled, share, driver  # only the compiled ``wait`` asks for them
        self._fd = fd
        self._inbox = inbox
        self._streams = streams
        self._overrun = overrun
        self._reader = UdpReader(_READ_COUNT)
        self.is_open = True
        """False: ``wait`` does nothing any more."""
        self.is_stale = False
        """The next ``wait`` calls ``rest`` first, perhaps with nothing."""
        self.size_bytes = 0
        """What the last ``read`` got; 0 says that nothing waits."""

    @property
    def overflow_count(self) -> int:
        """Datagrams that the system dropped because the socket's buffer was full."""
        return self._reader.overflows.get(self._fd, 0)

    def read(self, now_ns: int) -> list[Leftover]:
        """Read a batch; what is plain is in the inbox, what follows the first other is returned.

        The views are good until the next ``read``. Never blocks. Raises OSError.
        """
        batch = self._reader.read(self._fd)
        self.size_bytes = sum(len(data) for _, data, _ in batch)
        leftovers: list[Leftover] = []
        for address, data, segment_bytes in batch:
            start = 0
            if not leftovers:
                start = self._take(now_ns, address, data, segment_bytes)
                if start < 0:
                    continue
            leftovers.append((address, data, segment_bytes, start))
        return leftovers

    def _take(self, now_ns: int, address: bytes, data: memoryview, segment_bytes: int) -> int:
        """Take plain packets; where the rest begins, -1 if there is none."""
        if len(data) < _HEADER_BYTES:
            return 0
        slots = self._streams.get(b"".join((address, data[8:14], data[:2])))
        if slots is None:
            return 0
        decoder = slots.decoder
        odd_count = decoder.too_long_count + decoder.malformed_count
        first = slots.next
        messages: list[Message] = []
        start = slots.take_in_order(data, 0, segment_bytes, messages)
        if start:
            slots.heard_ns = now_ns
        if len(self._inbox) + len(messages) > self._inbox.limit:
            self._overrun(
                b"".join((address, data[8:14], data[:2])), messages, first, slots.next - 1
            )
        elif messages:
            self._inbox.put(messages)
        if decoder.too_long_count + decoder.malformed_count != odd_count:
            slots.odd_from = first
            return start
        return -1 if start == len(data) else start

    def wait(self, timeout_ns: int) -> bool | None:
        """Wait until the inbox may have something: True, or False if ``timeout_ns`` ran out first.

        None: it cannot be done here and now, wait in another way. A negative time is for ever.
        Signal handlers run. For any thread; the reference never does it.
        """
        del timeout_ns
        return None

    def settle(self) -> None:
        """Have all that was read in the inbox, where it is not yet. For any thread."""

    def ring(self) -> None:
        """Have a thread that is asleep in ``wait`` look again. For any thread."""

    def close(self) -> None:
        """Let go of the descriptor; nobody may be about to call ``read``."""
        self.is_open = False
        self.ring()
