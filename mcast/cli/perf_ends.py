"""The four ends that ``mcast perf`` measures with: publisher, subscriber, ping and pong.

Owns the loops that are timed and what the two ends say to each other in between. The loops are as
tight as an application's can be: bound methods in locals, no clock and no counting for each
message. Invariants: an end is bounded in time; the number of missing messages is exact, because
END says how many messages there were and which END it is.

A control message has 16 bytes: 0xff and a letter, a number of 32 bits, one of 64 bits, in the
host's order. Data starts with ``x``; every last message of a chunk carries the time of its sending.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from contextlib import suppress
from struct import Struct
from typing import Final

import mcast
from mcast import kernel
from mcast.cli.perf_load import (
    CHUNK_COUNT,
    Load,
    Result,
    Watch,
    cpu_s,
    delays_report,
    rss_bytes,
    stdin_speaks,
    tell,
)
from mcast.cli.perf_sockets import is_group, open_both, open_end
from mcast.errors import Again
from mcast.events import Lost, PeerJoined
from mcast.runtime.clock import monotonic_ns
from mcast.runtime.deadline import Deadline
from mcast.stats import Snapshot

__all__ = ["ping", "pong", "publish", "subscribe"]

_CONTROL: Final = Struct("=2sxxIQ")
_STAMP: Final = Struct("=2s6xQ")
_HELLO: Final = b"\xffH"
_START: Final = b"\xffS"
_END: Final = b"\xffE"
_STAMPED: Final = b"xT"
_CONTROL_BYTE: Final = 0xFF

_HELLO_S: Final = 0.005
_QUIET_S: Final = 0.05
_WARM_UP_ROUNDS: Final = 1000
_COUNTED: Final = ("repaired", "naks_sent", "rcvbuf_overflows")


def publish(load: Load) -> Result:
    """Send the load to whoever listens; what the sending cost. Blocks; main thread only.

    Raises: OutOfTimeError, OptionError, EndpointError, TransportError.
    """
    with Watch(load, "pub") as watch, load.open_context() as context:
        pub = open_end(load, context, load.url, sends=True)
        _greet(load, pub)
        pub.send(_CONTROL.pack(_START, load.chunk, load.size))
        before_s = cpu_s()
        start_ns = monotonic_ns()
        send = _send_batches if load.batch > 1 else _send_singly
        sent = send(load, pub, watch)
        seconds = (monotonic_ns() - start_ns) / 1e9
        _send_ends(load, pub, sent)
        # Taken when the other end has it all, so that what the loop thread still sends counts.
        used_s = cpu_s() - before_s
        stats = pub.stats()
    return {
        "sent": sent,
        "seconds": seconds,
        "messages_per_s": sent / seconds,
        "cpu_s": used_s,
        "cpu_s_per_message": used_s / sent,
        "rss_bytes": rss_bytes(),
        "kernel": kernel.NAME,
        **_of_group(load, stats, ("odata_sent", "rdata_sent", "naks_received")),
    }


def _of_group(load: Load, stats: Snapshot, names: Sequence[str]) -> Result:
    """Counters that only multicast has; None elsewhere."""
    return {name: stats.get(name, 0) if is_group(load.url) else None for name in names}


def _greet(load: Load, pub: mcast.Socket) -> None:
    """HELLO until the coordinating program, or the wait, says that everybody is there."""
    deadline = Deadline(None if load.is_coordinated else load.wait_s)
    while not deadline.has_passed:
        pub.send(_CONTROL.pack(_HELLO, 0, 0))
        if stdin_speaks(load, _HELLO_S):
            return


def _send_singly(load: Load, pub: mcast.Socket, watch: Watch) -> int:
    send = pub.send
    payload = b"x" * load.size
    plain = range(load.chunk - 1)
    chunk = load.chunk
    left = load.count
    start_ns = monotonic_ns()
    end_ns = start_ns + int(load.duration_s * 1e9)
    sent = 0
    while left is None or left >= chunk:
        for _ in plain:
            send(payload)
        now_ns = monotonic_ns()
        send(_stamped(payload, now_ns))
        sent += chunk
        watch.done = sent
        _keep_pace(load, sent, start_ns)
        if left is not None:
            left -= chunk
        elif now_ns >= end_ns:
            return sent
    for _ in range(left):
        send(payload)
    return sent + left


def _send_batches(load: Load, pub: mcast.Socket, watch: Watch) -> int:
    send_many = pub.send_many
    payload = b"x" * load.size
    batch = [payload] * load.batch
    left = load.count
    start_ns = monotonic_ns()
    end_ns = start_ns + int(load.duration_s * 1e9)
    sent = 0
    while left is None or left >= load.batch:
        now_ns = monotonic_ns()
        batch[-1] = _stamped(payload, now_ns)
        send_many(batch)
        sent += load.batch
        watch.done = sent
        _keep_pace(load, sent, start_ns)
        if left is not None:
            left -= load.batch
        elif now_ns >= end_ns:
            return sent
    send_many(batch[:left])
    return sent + left


def _keep_pace(load: Load, sent: int, start_ns: int) -> None:
    """Sleep until so many messages may have left, where the socket has no pace of its own."""
    if load.pace_bps is not None:
        due_ns = start_ns + int(8e9 * load.size * sent / load.pace_bps)
        if (ahead_ns := due_ns - monotonic_ns()) > 0:
            select.select((), (), (), ahead_ns / 1e9)


def _send_ends(load: Load, pub: mcast.Socket, sent: int) -> None:
    """END as often as a chunk is long, since a subscriber looks once a chunk; then again."""
    number = 0
    deadline = Deadline(None if load.is_coordinated else 1.0)
    while True:
        with suppress(Again):  # who has gone takes no more
            for _ in range(load.chunk):
                pub.send(_CONTROL.pack(_END, number, sent), timeout=_QUIET_S)
                number += 1
        if stdin_speaks(load, _QUIET_S) or deadline.has_passed:
            return


def _stamped(payload: bytes, now_ns: int) -> bytes:
    if len(payload) < _STAMP.size:
        return payload
    return _STAMP.pack(_STAMPED, now_ns) + payload[_STAMP.size :]


def subscribe(load: Load) -> Result:
    """Receive until END, on every socket; rate, loss and delays. Blocks; main thread only.

    Rates are those of one socket. Delays are from the call of ``send`` to the return of ``recv``,
    queues included, and mean something on one host only.

    Raises: OutOfTimeError, OptionError, EndpointError, TransportError.
    """
    with Watch(load, "sub") as watch, load.open_context() as context:
        tallies = [
            _Tally(open_end(load, context, load.url, sends=False)) for _ in range(load.sockets)
        ]
        tell(load, "ready")
        _meet(load, tallies)
        before_s = cpu_s()
        if load.sockets > 1:
            _take_from_all(load, tallies, watch)
        else:
            take = _take_batches if load.batch > 1 else _take_singly
            take(load, tallies[0], watch)
        used_s = cpu_s() - before_s
        return _subscriber_result(load, tallies, used_s)


class _Tally:
    """What one subscriber socket has got. Data starts after START, or with the first data heard."""

    def __init__(self, sub: mcast.Socket) -> None:
        self.sub = sub
        self.taken = 0
        """Messages since the start, ENDs included."""
        self.missing = 0
        self.sent = 0
        self.chunk = CHUNK_COUNT
        self.size = 0
        self.start_ns = 0
        self.end_ns = 0
        self.delays_ns: list[int] = []

    @property
    def received(self) -> int:
        return self.sent - self.missing

    @property
    def seconds(self) -> float:
        return max(1, self.end_ns - self.start_ns) / 1e9

    def begin(self, message: bytes) -> None:
        self.start_ns = monotonic_ns()
        if message[:2] == _START:
            _, self.chunk, self.size = _CONTROL.unpack(message)
        else:
            self.taken, self.size = 1, len(message)

    def finish(self, end: bytes) -> None:
        """The last message taken is this END: whatever is not there by now is missing."""
        self.end_ns = monotonic_ns()
        _, number, self.sent = _CONTROL.unpack(end)
        self.missing = self.sent + number + 1 - self.taken

    def add(self, batch: Sequence[bytes]) -> bool:
        """Count a batch; True if it ends in an END."""
        stamp_at = self.chunk - 1 - self.taken % self.chunk
        self.taken += len(batch)
        if stamp_at < len(batch):
            self.time(batch[stamp_at])
        if batch[-1][0] == _CONTROL_BYTE:
            self.finish(batch[-1])
            return True
        return False

    def time(self, message: bytes) -> None:
        """Note the delay if the message carries its time; after a loss another may stand here."""
        if message[:2] == _STAMPED:
            self.delays_ns.append(monotonic_ns() - _STAMP.unpack_from(message)[1])


def _meet(load: Load, tallies: list[_Tally]) -> None:
    """Wait for the publisher, say so, and take all up to its START."""
    first = [tally.sub.recv() for tally in tallies]
    for tally in tallies:
        _await_publisher(tally.sub)
    tell(load, "joined")
    for tally, message in zip(tallies, first, strict=True):
        while message[:2] == _HELLO:
            message = tally.sub.recv()
        tally.begin(message)


def _await_publisher(sub: mcast.Socket) -> None:
    """From PeerJoined on, everything is delivered or reported; it comes with the first message.

    Over a stream that holds from the first message on.
    """
    if not (isinstance(sub, mcast.Sub) and sub.links):
        return
    for event in sub.events(timeout=1.0):
        if isinstance(event, PeerJoined):
            return


def _take_singly(_load: Load, tally: _Tally, watch: Watch) -> None:
    recv = tally.sub.recv
    chunk = range(tally.chunk)
    while True:
        for _ in chunk:
            message = recv()
        tally.taken += tally.chunk
        watch.done = tally.taken
        if message[0] == _CONTROL_BYTE:
            tally.finish(message)
            return
        tally.time(message)


def _take_batches(load: Load, tally: _Tally, watch: Watch) -> None:
    recv_many = tally.sub.recv_many
    wanted = load.batch
    while not tally.add(recv_many(wanted)):
        watch.done = tally.taken


def _take_from_all(load: Load, tallies: list[_Tally], watch: Watch) -> None:
    """Round and round, blocking only when no socket has anything."""
    open_tallies = list(tallies)
    timeout_s = 0.0
    wanted = max(load.batch, CHUNK_COUNT)
    while open_tallies:
        was_idle = True
        for tally in list(open_tallies):
            try:
                batch = tally.sub.recv_many(wanted, timeout=timeout_s)
            except Again:
                continue
            was_idle = False
            timeout_s = 0.0
            watch.done += len(batch)
            if tally.add(batch):
                open_tallies.remove(tally)
        if was_idle:
            timeout_s = 0.001


def _subscriber_result(load: Load, tallies: list[_Tally], used_s: float) -> Result:
    seconds = max(tally.seconds for tally in tallies)
    received = sum(tally.received for tally in tallies)
    sent = sum(tally.sent for tally in tallies)
    lost_packets = refused = 0
    for event in (event for tally in tallies for event in _losses(tally.sub)):
        if event.reason.counts_messages:
            refused += event.count
        else:
            lost_packets += event.count
    stats = [tally.sub.stats() for tally in tallies]
    per_s = received / seconds / load.sockets
    return {
        "size_bytes": tallies[0].size,
        "received": received,
        "missing": sent - received,
        "loss": (sent - received) / sent if sent else 0.0,
        "lost_packets": lost_packets,
        "refused_messages": refused,
        "seconds": seconds,
        "messages_per_s": per_s,
        "bits_per_s": per_s * tallies[0].size * 8,
        "cpu_s": used_s,
        "cpu_s_per_message": used_s / max(1, received),
        "rss_bytes": rss_bytes(),
        "kernel": kernel.NAME,
        **_of_group(load, _sum(stats), _COUNTED),
        **delays_report([delay for tally in tallies for delay in tally.delays_ns], "delay"),
    }


def _sum(stats: Sequence[Snapshot]) -> Snapshot:
    return {name: sum(one.get(name, 0) for one in stats) for name in _COUNTED}


def _losses(sub: mcast.Socket) -> Iterator[Lost]:
    """Those that a SUB has been told of; the others have no such events."""
    if isinstance(sub, mcast.Sub):
        yield from (event for event in sub.events() if isinstance(event, Lost))


def ping(load: Load) -> Result:
    """Half the round trip to pong and back, for each round. Blocks; main thread only.

    Raises: OutOfTimeError when nobody answers, OptionError, EndpointError, TransportError.
    """
    payload = b"x" * load.size
    halves_ns: list[int] = []
    with Watch(load, "ping") as watch, load.open_context() as context:
        pub, sub = open_both(load, context, asks=True)
        _find_pong(pub, sub)
        send, recv, append = pub.send, sub.recv, halves_ns.append
        for _ in range(_WARM_UP_ROUNDS):
            send(payload)
            recv()
        end = Deadline(load.duration_s if load.count is None else None)
        start_ns = monotonic_ns()
        while watch.done != load.count and not end.has_passed:
            if load.interval_s:
                select.select((), (), (), load.interval_s)
            sent_ns = monotonic_ns()
            send(payload)
            recv()
            append((monotonic_ns() - sent_ns) // 2)
            watch.done += 1
        seconds = (monotonic_ns() - start_ns) / 1e9
        for _ in range(3):
            send(_CONTROL.pack(_END, 0, 0))
        missing = sum(event.count for event in _losses(sub))
    return {
        "size_bytes": load.size,
        "rounds": len(halves_ns),
        "missing": missing,
        "loss": missing / max(1, len(halves_ns)),
        "seconds": seconds,
        "kernel": kernel.NAME,
        **delays_report(halves_ns, "latency"),
    }


def _find_pong(pub: mcast.Socket, sub: mcast.Socket) -> None:
    """HELLO until it is answered, then wait until the last answer has come."""
    hello = _CONTROL.pack(_HELLO, 0, 0)
    is_found = False
    while True:
        if not is_found:
            pub.send(hello)
        try:
            sub.recv(timeout=_QUIET_S)
            is_found = True
        except Again:
            if is_found:
                return


def pong(load: Load) -> Result:
    """Answer every message with itself until ping says END. Blocks; main thread only.

    Raises: OutOfTimeError, OptionError, EndpointError, TransportError.
    """
    with Watch(load, "pong") as watch, load.open_context() as context:
        pub, sub = open_both(load, context, asks=False)
        tell(load, "ready")
        send, recv = pub.send, sub.recv
        while (message := recv())[:2] != _END:
            send(message)
            watch.done += 1
    return {"answered": watch.done, "kernel": kernel.NAME}
