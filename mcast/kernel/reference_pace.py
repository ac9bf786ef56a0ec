"""When a publisher's data leaves: the reference. Part of ``mcast.kernel.reference``.

Owns the pace (a token bucket), and of a transmit window the question whether what was packed goes
now, with the next full run, or when its time has come. The owner of the window asks
(``pgm.Source``); where it has opened the short way (``SendSchedule.open_until_ns``), the compiled
``SendGate`` asks as well, and its owner catches up afterwards with what the schedule has noted.

A bucket keeps one number, the time at which it would be full; no timer ticks (RFC 3208 section
5.1.2). Invariant: over any time t no more than ``burst_bytes`` + rate x t is spent, except for the
last run, which may overdraw and is paid back by waiting.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mcast.kernel.reference import TransmitSlots

__all__ = ["SendSchedule", "TokenBucket"]

_NEVER: Final = 1 << 62
_ALONE_SHARE: Final = 4
_PAUSE_SHARE: Final = 64
_UDP_IP_BYTES: Final = 28  # what libzmq, too, adds to a packet's cost


class TokenBucket:
    """Bytes that may be spent now, refilled at a steady rate. Not thread-safe."""

    __slots__ = ("_burst_ns", "_full_at_ns", "_ns_per_byte")

    def __init__(self, bits_per_s: float, burst_bytes: int) -> None:
        self._full_at_ns = 0.0
        self.set_rate(bits_per_s, burst_bytes)

    def set_rate(self, bits_per_s: float, burst_bytes: int) -> None:
        """Refill at another rate from now on; what was overdrawn is forgiven if there is none."""
        self._ns_per_byte = 0.0 if bits_per_s == inf else 8e9 / bits_per_s
        self._burst_ns = burst_bytes * self._ns_per_byte

    def available_bytes(self, now_ns: int) -> float:
        """Bytes that may be spent at ``now_ns``; negative after an overdraft, inf if unlimited."""
        if not self._ns_per_byte:
            return inf
        debt_ns = max(0.0, self._full_at_ns - now_ns)
        return (self._burst_ns - debt_ns) / self._ns_per_byte

    def spend(self, now_ns: int, size_bytes: int) -> None:
        """Take ``size_bytes`` out, into debt if need be."""
        self._full_at_ns = max(self._full_at_ns, float(now_ns)) + size_bytes * self._ns_per_byte

    def ready_at_ns(self, size_bytes: int) -> int:
        """When ``size_bytes``, capped at the burst, may be spent."""
        wanted_ns = min(size_bytes * self._ns_per_byte, self._burst_ns)
        return int(self._full_at_ns - self._burst_ns + wanted_ns) + 1


class SendSchedule:
    """When the packets of a transmit window leave, and what has left. Guarded by its owner's lock.

    A message that finds nothing pending leaves at once if the last data left a quarter of
    ``coalesce_ns`` ago or longer: it is not one of a burst. Else it leaves with the next full run
    of ``run_packets``, or when that time is over, or when the bucket allows ``quantum_bytes``.
    """

    __slots__ = (
        "_packet_cost_bytes",
        "_slots",
        "armed_below",
        "armed_until_ns",
        "bucket",
        "coalesce_ns",
        "data_left_ns",
        "data_sent_ns",
        "due_ns",
        "is_watched",
        "open_until_ns",
        "quantum_bytes",
        "run_packets",
        "sent_bytes",
        "sent_packets",
    )

    def __init__(
        self,
        slots: TransmitSlots,
        bucket: TokenBucket,
        *,
        coalesce_ns: int,
        quantum_bytes: int,
        run_packets: int,
    ) -> None:
        self._slots = slots
        self._packet_cost_bytes = slots.slot_bytes + _UDP_IP_BYTES
        self.bucket = bucket
        """The pace; each packet costs its bytes and those of its UDP and IP headers."""
        self.coalesce_ns = coalesce_ns
        self.quantum_bytes = quantum_bytes
        self.run_packets = run_packets
        self.armed_until_ns = 0
        """Monotonic time until which a ``SendGate`` may append and leave the rest; 0: never."""
        self.armed_below = slots.next
        """Packet number at which it stops all the same."""
        self.open_until_ns = 0
        """Monotonic time until which a ``SendGate`` that holds the lock may send; 0: never."""
        self.data_sent_ns = -coalesce_ns
        """When data last left."""
        self.data_left_ns = -coalesce_ns
        """When the system call that sent it had returned, if that is known: a call may take as long
        as a pause between messages, and the message after it is no lone one for that."""
        self.due_ns = _NEVER
        """When what is pending has to leave; 2^62 if nothing is."""
        self.is_watched = False
        """The owner has a timer, not after ``due_ns``, and looks at ``due_ns`` again then."""
        self.sent_packets = 0
        self.sent_bytes = 0

    @property
    def has_pending(self) -> bool:
        """True while data waits to leave for the first time."""
        return self._slots.unsent < self._slots.next or self._slots.open_bytes > 0

    def is_due(self, now_ns: int, *, alone: bool) -> bool:
        """True if all that is pending leaves now; ``alone``: nothing was before this message."""
        since_ns = now_ns - self.data_sent_ns
        if not alone:
            return since_ns >= self.coalesce_ns
        return (
            since_ns >= self.coalesce_ns // _ALONE_SHARE
            and now_ns - self.data_left_ns >= self.coalesce_ns // _PAUSE_SHARE
        )

    def close(self) -> None:
        """What comes next goes the long way: from here on the window is the owner's alone."""
        self.armed_until_ns = self.open_until_ns = 0

    def leave(self) -> None:
        """Have no ``Baton`` attend to it any more."""

    def take_run(self, now_ns: int) -> tuple[memoryview, int] | None:
        """``TransmitSlots.take_run`` as far as the rate allows; it counts as sent at ``now_ns``."""
        slots = self._slots
        allowed = self.bucket.available_bytes(now_ns)
        if allowed <= 0 or slots.unsent == slots.next:
            return None
        first = slots.unsent
        affordable = min(self.run_packets, allowed / self._packet_cost_bytes)
        run = slots.take_run(max(1, int(affordable)))
        assert run is not None  # there was something, and at least one packet was asked for
        self._note(now_ns, slots.unsent - first, len(run[0]))
        return run

    def _note(self, now_ns: int, packet_count: int, size_bytes: int) -> None:
        self.bucket.spend(now_ns, size_bytes + packet_count * _UDP_IP_BYTES)
        self.sent_packets += packet_count
        self.sent_bytes += size_bytes
        self.data_sent_ns = self.data_left_ns = now_ns

    def wait(self, *, armed: bool) -> None:
        """Say when what is pending leaves (``due_ns``); ``armed``: until then more may be added."""
        slots = self._slots
        if not self.has_pending:
            self.due_ns = _NEVER
            self.armed_until_ns = 0
            return
        due_ns = self.data_sent_ns + self.coalesce_ns
        packet_limit = self.run_packets
        ready_ns = self.bucket.ready_at_ns(self.quantum_bytes)
        if ready_ns > due_ns:
            # While the rate holds it up it may as well fill, and others behind it.
            due_ns, packet_limit = ready_ns, slots.unsent_limit
        self.due_ns = due_ns
        if armed:
            self.armed_below = slots.unsent + packet_limit
            self.armed_until_ns = due_ns
