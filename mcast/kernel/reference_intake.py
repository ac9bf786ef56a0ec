"""From a subscriber's socket to its inbox: the reference. Part of ``mcast.kernel.reference``.

Owns the receive buffers of one descriptor, and the way of what is plain: packets of a stream that
has nothing out of the ordinary (no packet with options, no end in sight) go through its
``ReceiveSlots`` into the inbox, whatever is missing between them. Which streams those are the owner
says (``streams``), and everything else is handed back to it, in the order in which it came: control
packets alone do not hold up the data behind them. What holes that leaves the owner looks at some
time later (``due_ns``), for many packets at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol

from mcast.kernel.reference_frames import Message
from mcast.kernel.reference_gates import Inbox
from mcast.kernel.reference_io import Baton, UdpReader

if TYPE_CHECKING:
    from mcast.kernel.reference_receive import ReceiveSlots

__all__ = ["Driver", "Intake", "Leftover"]

Leftover = tuple[bytes, memoryview, int, int]
"""Packed source address, a run, its segment_bytes, and where in it to go on."""

_HEADER_BYTES: Final = 16
_READ_COUNT: Final = 16
_ODATA: Final = 0x04
_RDATA: Final = 0x05
_NEVER: Final = 1 << 62
_NEWS_NS: Final = 500_000
"""After so long the owner is to look at new holes: a twentieth of the usual back-off."""
_LEAST_ROOM: Final = 1024
"""Messages for which the inbox must have room before more is released, if its limit is not less: a
packet of 1500 bytes holds 714 at most."""


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
        overrun: Callable[[bytes, list[Message], int, int, int], None],
        settled: Callable[[], int],
        share: Callable[[], None],
        driver: Driver | None = None,
        spare: Callable[[], int] | None = None,
    ) -> None:
        """``streams``: the plain ones, by packed address and TSI; the owner keeps it up to date.

        ``rest`` takes what ``wait`` could not deal with, the lock held, and ``settled`` is called
        when the lock is free again; it tells when ``rest`` is to be called the next time, perhaps
        with nothing, by whoever waits then: a millisecond later the loop does its owner's work.
        ``overrun`` gets messages for which the inbox has no room, how many more were counted and
        not made, since it was full, and the numbers of the packets they came in. ``share`` is
        called by whoever has waited, for those who wait otherwise.
        ``spare``, for tests, says how many packets pass until the next is dropped.
        """
        del lock, baton, rest, settled, share, driver  # only the compiled ``wait`` asks for them
        self._fd = fd
        self._inbox = inbox
        self._streams = streams
        self._overrun = overrun
        self._reader = UdpReader(_READ_COUNT)
        self._spare = spare
        self._spared = 0 if spare is None else spare()
        self.dropped_count = 0
        """Packets dropped because ``spare`` said so."""
        self.is_open = True
        """False: ``wait`` does nothing any more."""
        self.is_stale = False
        """The next ``wait`` calls ``rest`` first, perhaps with nothing."""
        self.hold = False
        """While true nothing is released here: the owner is at it."""
        self.due_ns = _NEVER
        """When the owner is to look at its streams; it sets this back."""
        self.pulls = False
        """True if whoever takes messages from the inbox releases more, when ``inbox.intake`` is
        this. The reference never does."""
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
        is_held_up = False
        for address, data, segment_bytes in batch:
            for run in self._spared_runs(data, segment_bytes):
                start = 0
                if not is_held_up:
                    start = self._take(now_ns, address, run, segment_bytes)
                    if start < 0:
                        continue
                    is_held_up = len(run) <= start + 4 or run[start + 4] in (_ODATA, _RDATA)
                leftovers.append((address, run, segment_bytes, start))
        return leftovers

    def _spared_runs(self, data: memoryview, segment_bytes: int) -> Iterator[memoryview]:
        """What is left of a run when the packets are gone that are to be lost."""
        if self._spare is None:
            yield data
            return
        begin = 0
        while begin < len(data):
            end = begin + self._spared * segment_bytes
            if end >= len(data):
                self._spared -= -(-(len(data) - begin) // segment_bytes)
                yield data[begin:]
                return
            self.dropped_count += 1
            self._spared = self._spare()
            if begin < end:
                yield data[begin:end]
            begin = end + segment_bytes

    def _take(self, now_ns: int, address: bytes, data: memoryview, segment_bytes: int) -> int:
        """Take plain packets; where the rest begins, -1 if there is none."""
        if len(data) < _HEADER_BYTES:
            return 0
        key = b"".join((address, data[8:14], data[:2]))
        slots = self._streams.get(key)
        if slots is None:
            return 0
        decoder = slots.decoder
        odd_count = decoder.too_long_count + decoder.malformed_count
        first = slots.undecoded
        messages: list[Message] = []
        refused_count = decoder.refused_count
        decoder.refuses = len(self._inbox) >= self._inbox.limit
        try:
            start = slots.absorb(data, 0, segment_bytes, messages)
        finally:
            decoder.refuses = False
        if start:
            slots.heard_ns = now_ns
        if slots.ready_count:
            self._release(slots, messages)
        refused_count = decoder.refused_count - refused_count
        if refused_count or len(self._inbox) + len(messages) > self._inbox.limit:
            self._overrun(key, messages, refused_count, first, slots.undecoded - 1)
        elif messages:
            self._inbox.put(messages)
        if slots.has_news or slots.ready_count:
            self.due_ns = min(self.due_ns, now_ns + _NEWS_NS)
        if decoder.too_long_count + decoder.malformed_count != odd_count:
            slots.odd_from = first
            return start
        return -1 if start == len(data) else start

    def _release(self, slots: ReceiveSlots, messages: list[Message]) -> None:
        """Add what is ready to ``messages``, as far as it is to leave the window now.

        Beyond half of its limit the window is not to fill: what the inbox does not take is refused.
        """
        room = self._inbox.limit - len(self._inbox)
        if self.hold:
            return
        # What carries options is not here: such a stream is not among those given.
        if room >= min(_LEAST_ROOM, self._inbox.limit):
            slots.release(messages, room)
        slots.refuse(slots.limit_bytes // 2)

    def wait(self, timeout_ns: int) -> bool | None:
        """Wait until the inbox may have something: True, or False if ``timeout_ns`` ran out first.

        None: it cannot be done here and now, wait in another way. A negative time is for ever.
        Signal handlers run. For any thread; the reference never does it.
        """
        del timeout_ns
        return None

    def settle(self) -> None:
        """Have all that was read in the inbox, where it is not yet. For any thread.

        What is ready in a window may stay there.
        """

    def resume(self) -> None:
        """The owner has done its work: ``hold`` is over, and what it left ready is looked at."""
        self.hold = False

    def entrust(self, due_ns: int) -> bool:
        """Have whoever waits call ``rest`` when ``due_ns`` has come; False if nobody is there to.

        A millisecond later the loop wakes for it all the same.
        """
        del due_ns
        return False

    def ring(self) -> None:
        """Have a thread that is asleep in ``wait`` look again. For any thread."""

    def hand_back(self) -> None:
        """Somebody waits in another way: unless a thread is in ``wait``, the loop thread is to read
        from now on. For any thread."""

    def close(self) -> None:
        """Let go of the descriptor; nobody may be about to call ``read``."""
        self.is_open = False
        self.ring()
