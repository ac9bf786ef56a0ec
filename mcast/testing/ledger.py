"""One subscriber's account of every source: delivered or reported lost, once, in order, honestly.

Owns the oracle of the laws L1 to L5. It knows what each publisher really sent (``Stream``), and so
which message must come next: it needs no numbers in the payloads. Invariant: a message is never
passed over unless a loss reported before lies in it, a subscription leaves it out, or it is longer
than the subscriber takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mcast.events import Event, LossReason, Lost, PeerJoined, PeerLeft, PeerRestarted
from mcast.options import SocketOptions
from mcast.pgm import Messages
from mcast.pgm.sqn import SQN_MASK, extend
from mcast.testing.laws import Law, Violation
from mcast.testing.stream import Stream

__all__ = ["Account", "Ledger"]

_SLACK_NS: Final = 1_000_000
"""A receiver serves timers that are this close together."""


class Account:
    """One source's stream from where it was joined. Its numbers are the source's own."""

    def __init__(self, stream: Stream, first: int, ledger: Ledger) -> None:
        """``first`` is as the subscriber counts."""
        self.stream = stream
        self._ledger = ledger
        self._base = first - extend(first & SQN_MASK, stream.lead)
        self.cursor = first - self._base
        """The first number that was not heard of."""
        self._require(
            stream.first_sqn <= self.cursor <= stream.lead + 1,
            Law.LEDGER,
            f"joined at {self.cursor}, sent are {stream.first_sqn} to {stream.lead}",
        )
        self._next = stream.first_message_from(stream.begin(self.cursor))
        self._losses: list[tuple[int, int]] = []
        self._loss_index = 0
        self._too_long = 0
        self._too_long_most = 0
        self._too_long_told = 0
        self.is_over = False
        self.delivered = 0
        self.lost_to = self.cursor - 1
        """The last number that was reported lost."""

    def deliver(self, event: Messages) -> None:
        """Messages came."""
        stream = self.stream
        first, last = self._passed(event.first, event.last)
        begin, end = stream.begin(first), stream.end(last)
        for message in event.messages:
            index = self._next_owed(end)
            parts = message if isinstance(message, tuple) else (message,)
            if index >= len(stream.messages) or stream.messages[index] != parts:
                raise self._unexpected(index, parts)
            start_at, end_at = stream.span(index)
            self._require(
                begin < end_at <= end,
                Law.INTEGRITY,
                f"message {index} lies in bytes {start_at} to {end_at}, delivered as of"
                f" {begin} to {end} (packets {first} to {last})",
            )
            self._next = index + 1
            self.delivered += 1
        self.cursor = last + 1
        self._nothing_owed_before(end)

    def lose(self, event: Lost, now_ns: int) -> None:
        """A loss was reported."""
        if event.reason is LossReason.TOO_LONG:
            self._too_long_told += event.count
            return
        self._require(
            event.reason is not LossReason.MALFORMED, Law.INTEGRITY, f"honest packets: {event}"
        )
        first, last = self._passed(event.first, event.last)
        self._require(
            event.count == last + 1 - first, Law.LEDGER, f"{event} counts {event.count} packets"
        )
        begin, end = self.stream.begin(first), self.stream.end(last)
        self._nothing_owed_before(begin)
        self._losses.append((begin, end))
        self.cursor = last + 1
        self.lost_to = last
        self._ledger.check_honest(self.stream, first, last, event.reason, now_ns)

    def finish(self, last: int, *, said_so: bool) -> None:
        """The stream is over at ``last``, as the subscriber counts."""
        stream = self.stream
        end = last - self._base
        self._require(
            self.cursor - 1 <= end <= stream.lead, Law.LEDGER, f"the end at {end} is not true"
        )
        if said_so:
            self._require(
                stream.is_closed and end == stream.lead,
                Law.HONEST,
                f"finished at {end}, but it sent up to {stream.lead}",
            )
        self.settle(end)
        self.is_over = True

    def settle(self, last: int | None = None) -> None:
        """Everything up to ``last``, or ever sent, has to be accounted for by now."""
        stream = self.stream
        end = stream.end(stream.lead if last is None else last)
        self._nothing_owed_before(end)
        most = self._too_long_most + self._begins_too_long()
        self._require(
            self._too_long <= self._too_long_told <= most,
            Law.LEDGER,
            f"{self._too_long_told} messages reported too long, there were {self._too_long}"
            f" to {most}",
        )

    def _begins_too_long(self) -> bool:
        """The message under way shows already that it is too long, and may never end."""
        stream, index = self.stream, self._next
        if index >= len(stream.messages):
            return False
        begun = stream.span(index)[0] < stream.end(stream.lead)
        return begun and self._ledger.is_too_long(stream.messages[index])

    @property
    def is_settled(self) -> bool:
        """True if nothing is owed of what was sent until now."""
        stream, ledger = self.stream, self._ledger
        sent = stream.end(stream.lead)
        untold = self._too_long - self._too_long_told
        for index in range(self._next, len(stream.messages)):
            start, end = stream.span(index)
            parts = stream.messages[index]
            if end > sent:
                break
            if any(b < end and start < e for b, e in self._losses):
                continue
            if ledger.is_too_long(parts):
                untold += 1
            elif ledger.wants(parts):
                return False
        return untold <= 0

    def _passed(self, first: int, last: int) -> tuple[int, int]:
        first -= self._base
        last -= self._base
        lead = self.stream.lead
        self._require(
            self.cursor <= first <= last <= lead,
            Law.ORDER,
            f"numbers {first} to {last} after {self.cursor - 1}, sent up to {lead}",
        )
        return first, last

    def _next_owed(self, limit: int) -> int:
        """The message that has to come next, or the first that ends behind ``limit``: of what is
        not reached yet a loss may still be reported."""
        stream, ledger = self.stream, self._ledger
        messages = stream.messages
        index = self._next
        while index < len(messages):
            start, end = stream.span(index)
            if end > limit:
                break
            is_lost = self._is_lost(start, end)
            if ledger.is_too_long(messages[index]):
                self._too_long_most += 1
                self._too_long += not is_lost
            elif not is_lost and ledger.wants(messages[index]):
                break
            index += 1
        self._next = index
        return index

    def _is_lost(self, start: int, end: int) -> bool:
        losses = self._losses
        while self._loss_index < len(losses) and losses[self._loss_index][1] <= start:
            self._loss_index += 1
        return self._loss_index < len(losses) and losses[self._loss_index][0] < end

    def _nothing_owed_before(self, position: int) -> None:
        """The stream has come this far: a message that ended before it must have been heard of."""
        index = self._next_owed(position)
        if index < len(self.stream.messages):
            start, end = self.stream.span(index)
            self._require(
                end > position,
                Law.LEDGER,
                f"message {index} in bytes {start} to {end} is missing without a word,"
                f" the stream is at {position}",
            )

    def _unexpected(self, index: int, parts: tuple[bytes, ...]) -> Violation:
        messages = self.stream.messages
        try:
            found = messages.index(parts)
        except ValueError:
            start = parts[0][:40]
            return self._violation(Law.INTEGRITY, f"{start!r}... was never sent in this life")
        if found < index:
            start_at, end_at = self.stream.span(found)
            is_lost = any(begin < end_at and start_at < end for begin, end in self._losses)
            law = Law.LEDGER if is_lost else Law.ONCE
            how = "although reported lost" if is_lost else "twice, or out of order"
            return self._violation(law, f"message {found} comes {how}; {index} was next")
        return self._violation(
            Law.LEDGER, f"message {found} comes, {index} is missing without a word"
        )

    def _require(self, holds: bool, law: Law, what: str) -> None:
        if not holds:
            raise self._violation(law, what)

    def _violation(self, law: Law, what: str) -> Violation:
        return Violation(law, f"{self._ledger.name}, stream of {self.stream.name}: {what}")


class Ledger:
    """One life of one subscriber: an account for each source that it follows."""

    def __init__(
        self,
        name: str,
        options: SocketOptions,
        topics: Sequence[bytes],
        streams_of: Callable[[str], list[Stream]],
        age_ns: Callable[[Stream, int, int], int],
        silence_ns: Callable[[Stream, int], int],
    ) -> None:
        """``streams_of`` names the lives of a TSI; ``age_ns`` tells how old a packet is and
        ``silence_ns`` for how long its source was not heard, by the subscriber's own clock."""
        self.name = name
        self.accounts: dict[str, Account] = {}
        """The current one of each source, by TSI."""
        self.is_mild = False
        """No fault is under way for which a repair may come too late."""
        self.may_hear_twice = False
        """Its clock jumped: what is under way may begin a stream anew that expired by that."""
        self._options = options
        self._timers = options.timers
        self._topics = tuple(topics)
        self._streams_of = streams_of
        self._age_ns = age_ns
        self._silence_ns = silence_ns
        self.joined = self.left = self.restarted = 0
        self.losses: dict[LossReason, int] = {}
        """Packets, or messages, lost by reason."""

    def enter(self, event: Messages | Event, now_ns: int) -> None:
        """Enter what came out of the engine, in its order. Raises ``Violation``."""
        if isinstance(event, PeerJoined):
            self._open(event.tsi, event.first)
            self.joined += 1
            return
        account = self.accounts.get(event.tsi)
        if account is None or (account.is_over and not isinstance(event, PeerRestarted)):
            raise Violation(Law.LEDGER, f"{self.name}: {event} outside of any stream")
        if isinstance(event, Messages):
            account.deliver(event)
        elif isinstance(event, Lost):
            account.lose(event, now_ns)
            self.losses[event.reason] = self.losses.get(event.reason, 0) + event.count
        elif isinstance(event, PeerLeft):
            self._close(account, event, now_ns)
        elif isinstance(event, PeerRestarted):
            self.restarted += 1
            self._require(
                len(self._streams_of(event.tsi)) > 1, Law.HONEST, f"{event} of its first life"
            )
            self._open(event.tsi, event.first)

    def settle(self, *, all_sent: bool) -> None:
        """At the end: each account is closed; with ``all_sent``, up to what was ever sent."""
        for account in self.accounts.values():
            if not account.is_over and all_sent and not account.stream.is_over:
                account.settle()

    def wants(self, parts: tuple[bytes, ...]) -> bool:
        """True if a subscription asks for the message."""
        return parts[0].startswith(self._topics)

    def is_too_long(self, parts: tuple[bytes, ...]) -> bool:
        """True if it is more than the subscriber takes."""
        options = self._options
        return len(parts) > options.max_parts or sum(map(len, parts)) > options.max_msg_size

    def check_honest(
        self, stream: Stream, first: int, last: int, reason: LossReason, now_ns: int
    ) -> None:
        """L5: the packets could not be repaired any more."""
        where = f"packets {first} to {last} of {stream.name} are reported {reason}, but"
        if reason is LossReason.WINDOW_ADVANCED:
            self._require(
                last < stream.trail, Law.HONEST, f"{where} the window begins at {stream.trail}"
            )
        elif reason is LossReason.REPAIR_DEADLINE:
            age_ns = self._age_ns(stream, last, now_ns)
            timers = self._timers
            allowed_ns = min(
                timers.repair_deadline_ns,
                timers.nak_ncf_retries * timers.nak_rpt_ivl_ns,
                timers.nak_data_retries * timers.nak_rdata_ivl_ns,
            )
            self._require(
                age_ns >= allowed_ns - _SLACK_NS,
                Law.HONEST,
                f"{where} {last} was sent {age_ns / 1e6:.1f} ms ago",
            )
            self._require(
                not self.is_mild, Law.LIVENESS, f"{where} nothing kept them from being repaired"
            )
        elif reason is LossReason.SOURCE_GONE:
            silence_ns = self._silence_ns(stream, now_ns)
            self._require(
                silence_ns >= self._timers.peer_expiry_ns,
                Law.HONEST,
                f"{where} it was heard {silence_ns / 1e6:.1f} ms ago",
            )
        elif reason is LossReason.DISCONTINUITY:
            self._require(
                len(self._streams_of(stream.name)) > 1, Law.HONEST, f"{where} it never restarted"
            )

    def _open(self, tsi: str, first: int) -> None:
        streams = self._streams_of(tsi)
        self._require(bool(streams), Law.HONEST, f"{tsi} joined, which nobody is")
        before = self.accounts.get(tsi)
        account = Account(streams[-1], first, self)
        if before is not None and before.stream is account.stream:
            self._require(
                before.is_over and (self.may_hear_twice or account.cursor >= before.cursor),
                Law.ONCE,
                f"{tsi} joined again at {account.cursor}, and had come to {before.cursor}",
            )
        self.accounts[tsi] = account

    def _close(self, account: Account, event: PeerLeft, now_ns: int) -> None:
        self.left += 1
        stream = account.stream
        if event.reason == "expired":
            silence_ns = self._silence_ns(stream, now_ns)
            self._require(
                silence_ns >= self._timers.peer_expiry_ns,
                Law.HONEST,
                f"{event}, it was heard {silence_ns / 1e6:.1f} ms ago",
            )
        else:
            self._require(event.reason == "finished", Law.HONEST, f"{event}")
        self._require(
            event.tail_unknown == (event.reason == "expired"), Law.HONEST, f"{event}: the tail"
        )
        account.finish(event.last, said_so=event.reason == "finished")

    def _require(self, holds: bool, law: Law, what: str) -> None:
        if not holds:
            raise Violation(law, f"{self.name}: {what}")
