"""What one publisher put on the wire in one life, and whether it may: the truth of a ledger.

Owns the record of messages taken and packets sent. It frames the messages by itself, as RFC 3208
carries libzmq's, so that a mistake in the transmit window shows here. Invariant: every packet sent
was checked against the laws of the wire before anybody received it.

Numbers are the source's own, which start at ``first_sqn`` and only grow; a place in the stream of
bytes is called a position.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from mcast.options import SocketOptions
from mcast.pgm.packet import (
    NCF,
    ODATA,
    RDATA,
    SPM,
    TYPE_NAMES,
    Nak,
    PacketError,
    Spm,
    parse_untrusted,
    tsi_text,
)
from mcast.pgm.sqn import SQN_MASK, extend
from mcast.testing.laws import Law, Violation

__all__ = ["Stream"]

_DATA_HEADER_BYTES: Final = 24
_OFFSET_BYTES: Final = 2
_HEAD_BYTES: Final = _DATA_HEADER_BYTES + _OFFSET_BYTES
_NO_START: Final = 0xFFFF
_UDP_IP_BYTES: Final = 28
_RUN_BYTES: Final = 65_000
_RUN_PACKETS: Final = 44
_LEAST_SLOTS: Final = 8
_BURST_S: Final = 0.001
_SLOW_BURST_S, _SLOW_BURST_BYTES = 0.01, 32 * 1024
_REPAIR_BURST_S: Final = 0.05
_MORE: Final = 1


class Stream:
    """One life of one publisher."""

    def __init__(
        self,
        tsi: bytes,
        address: bytes,
        life: int,
        options: SocketOptions,
        slot_bytes: int,
        now_ns: int,
    ) -> None:
        self.tsi = tsi
        self.address = address
        self.name = tsi_text(tsi)
        self.life = life
        self.first_sqn = options.initial_sqn
        self.messages: list[tuple[bytes, ...]] = []
        """What the publisher took, in order; each as its parts."""
        self.trail = self.first_sqn
        """The furthest that any packet has announced."""
        self.is_closed = False
        """It was told to close."""
        self.is_over = False
        """It is gone, with or without a word."""
        self.repair_count = 0
        self.network_ns: list[int] = []
        """When each packet was first sent, from ``first_sqn`` on, in the network's time."""
        self._options = options
        self._timers = options.timers
        self._slot_count = max(_LEAST_SLOTS, options.txw_bytes // slot_bytes)
        self._began_ns = now_ns
        self._starts: list[int] = []
        self._framed = bytearray()
        self._ends: list[int] = [0]
        self._sent_ns: list[int] = []
        self._spm_sqn = -1
        self._confirmed_ns: dict[int, int] = {}
        self._repaired_ns: dict[int, int] = {}
        self._data_bytes = self._repair_bytes = 0
        # As the source has it: a burst, and a last run that may overdraw.
        run_bytes = min(_RUN_PACKETS, max(1, _RUN_BYTES // slot_bytes)) * (
            slot_bytes + _UDP_IP_BYTES
        )
        least_bytes = 2 * (slot_bytes + _UDP_IP_BYTES)
        rate, share = options.rate / 8, options.repair_share
        slow_burst = min(rate * _SLOW_BURST_S, _SLOW_BURST_BYTES)
        self._data_burst = max(least_bytes, rate * _BURST_S, slow_burst) + run_bytes
        self._repair_burst = max(least_bytes, rate * share * _REPAIR_BURST_S) + run_bytes

    # Where things are.

    @property
    def lead(self) -> int:
        """The last number sent."""
        return self.first_sqn + len(self._sent_ns) - 1

    @property
    def is_drained(self) -> bool:
        """True when all that was taken has been sent."""
        return self._ends[-1] == len(self._framed)

    def begin(self, sqn: int) -> int:
        """The position at which a packet, sent or the next to be, begins."""
        return self._ends[sqn - self.first_sqn]

    def end(self, sqn: int) -> int:
        """The position behind a packet."""
        return self._ends[sqn - self.first_sqn + 1]

    def sent_ns(self, sqn: int) -> int:
        """When a packet was first sent, by the publisher's clock."""
        return self._sent_ns[sqn - self.first_sqn]

    def first_message_from(self, position: int) -> int:
        """Index of the first message that starts there or later; it may not exist yet."""
        return bisect_left(self._starts, position)

    def span(self, index: int) -> tuple[int, int]:
        """Where a message starts and ends."""
        after = index + 1
        end = self._starts[after] if after < len(self._starts) else len(self._framed)
        return self._starts[index], end

    # What happens.

    def take(self, parts: Sequence[bytes]) -> None:
        """The publisher accepted a message."""
        self.messages.append(tuple(parts))
        self._starts.append(len(self._framed))
        last = len(parts) - 1
        for index, part in enumerate(parts):
            length = len(part) + 1
            flags = bytes((_MORE if index < last else 0,))
            head = bytes((length,)) if length < 0xFF else b"\xff" + length.to_bytes(8, "big")
            self._framed += head + flags + part

    def send(self, now_ns: int, packet: bytes, window_lead: int, network_ns: int) -> None:
        """The publisher sends a packet while its window reaches to ``window_lead``."""
        kind = packet[4]
        if kind == ODATA:
            self.network_ns.append(network_ns)
            self._send_data(now_ns, packet, window_lead)
        elif kind == RDATA:
            self._send_repair(now_ns, packet, window_lead)
        else:
            self._send_control(now_ns, packet, window_lead)

    def _send_data(self, now_ns: int, packet: bytes, window_lead: int) -> None:
        sqn = self.lead + 1
        self._require(
            packet[16:20] == (sqn & SQN_MASK).to_bytes(4, "big"), f"ODATA {sqn} is not the next"
        )
        begin = self._ends[-1]
        end = begin + len(packet) - _HEAD_BYTES
        self._require(
            packet[_HEAD_BYTES:] == self._framed[begin:end], f"ODATA {sqn} holds other bytes"
        )
        self._check_offset(sqn, int.from_bytes(packet[24:26], "big"), begin, end)
        self._ends.append(end)
        self._sent_ns.append(now_ns)
        self._announce(now_ns, packet[20:24], sqn, window_lead)
        self._data_bytes += len(packet) + _UDP_IP_BYTES
        allowed = self._options.rate / 8e9 * (now_ns - self._began_ns) + self._data_burst
        self._require(self._data_bytes <= allowed, "data leaves faster than the rate")

    def _check_offset(self, sqn: int, offset: int, begin: int, end: int) -> None:
        start = self.first_message_from(begin)
        if start < len(self._starts) and self._starts[start] < end:
            wanted = self._starts[start] - begin
            self._require(offset == wanted, f"ODATA {sqn} names {offset}, not {wanted}, as start")
        else:
            # A packet that a message ends may say so, since the next one starts behind it.
            self._require(
                offset in (_NO_START, end - begin), f"ODATA {sqn} names a start that is none"
            )

    def _send_repair(self, now_ns: int, packet: bytes, window_lead: int) -> None:
        sqn = extend(int.from_bytes(packet[16:20], "big"), self.lead)
        self._require(self.trail <= sqn <= self.lead, f"RDATA {sqn} is outside the window")
        begin, end = self.begin(sqn), self.end(sqn)
        self._require(
            packet[_HEAD_BYTES:] == self._framed[begin:end], f"RDATA {sqn} holds other bytes"
        )
        self._require(sqn in self._confirmed_ns, f"RDATA {sqn} was never confirmed by an NCF")
        self._space_out(self._repaired_ns, "RDATA", sqn, now_ns)
        self._announce(now_ns, packet[20:24], sqn, window_lead)
        self.repair_count += 1
        self._repair_bytes += len(packet) + _UDP_IP_BYTES
        rate = self._options.rate * self._options.repair_share
        allowed = rate / 8e9 * (now_ns - self._began_ns) + self._repair_burst
        self._require(self._repair_bytes <= allowed, "repairs take more than their share")

    def _send_control(self, now_ns: int, packet: bytes, window_lead: int) -> None:
        try:
            parsed = parse_untrusted(packet)
        except PacketError as error:
            raise self._broken(f"a packet that cannot be read: {error.reason}") from error
        kind = parsed.header.type
        body = parsed.body
        if kind == SPM and isinstance(body, Spm):
            self._spm_sqn += 1
            self._require(body.sqn == self._spm_sqn & SQN_MASK, "SPM out of its sequence")
            self._require(
                body.lead == self.lead & SQN_MASK, f"SPM says lead {body.lead}, it is {self.lead}"
            )
            self._announce(now_ns, body.trail.to_bytes(4, "big"), self.lead + 1, window_lead)
            if parsed.options.fin:
                self._require(self.is_closed and self.is_drained, "the end before it is the end")
        elif kind == NCF and isinstance(body, Nak):
            for number in (body.sqn, *parsed.options.nak_list):
                sqn = extend(number, self.lead)
                self._require(self.trail <= sqn <= self.lead, f"NCF {sqn} is outside the window")
                self._space_out(self._confirmed_ns, "NCF", sqn, now_ns)
        else:
            # NAKs for another publisher of this host, passed on to it.
            self._require(
                TYPE_NAMES[kind] == "NAK" and packet[8:14] + packet[2:4] != self.tsi,
                f"a publisher sends a {TYPE_NAMES[kind]}",
            )

    def _announce(self, now_ns: int, trail_octets: bytes, near: int, window_lead: int) -> None:
        """A packet tells where the window begins: only forwards, and not before its time."""
        trail = extend(int.from_bytes(trail_octets, "big"), near)
        if trail == self.trail:
            return
        # A data packet was sealed before it was sent, and others may have left in between.
        self._require(trail <= self.lead + 1, f"trail {trail} beyond lead {self.lead}")
        if trail < self.trail:
            return
        self.trail = trail
        kept_ns = now_ns - self.sent_ns(trail - 1)
        is_full = trail <= window_lead + 2 - self._slot_count
        self._require(
            is_full or kept_ns >= self._options.recovery_ivl * 1e9,
            f"{trail - 1} left the window after {kept_ns / 1e6:.1f} ms with room left",
        )

    def _space_out(self, before: dict[int, int], what: str, sqn: int, now_ns: int) -> None:
        last_ns = before.get(sqn)
        before[sqn] = now_ns
        if last_ns is not None:
            self._require(
                now_ns - last_ns >= self._timers.repair_holdoff_ns,
                f"{what} {sqn} twice within {(now_ns - last_ns) / 1e6:.3f} ms",
            )

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise self._broken(what)

    def _broken(self, what: str) -> Violation:
        return Violation(Law.WIRE, f"{self.name} (life {self.life}): {what}")
