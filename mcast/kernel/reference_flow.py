"""The short ways of a socket with one peer on a stream socket: the reference, which takes the long.

Owns the plain traffic of one connection that is ready, NULL or PLAIN: whole messages of one part.
Its owner (``runtime``) has the handshake, commands, heartbeats, errors and the end, opens and
closes these ways, and is handed whatever is not plain, in its turn. Part of
``mcast.kernel.reference``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from threading import Lock

from mcast.kernel.reference_frames import Buffer, Message, TopicFilter
from mcast.kernel.reference_gates import Inbox
from mcast.kernel.reference_intake import Driver
from mcast.kernel.reference_io import Baton
from mcast.kernel.reference_stream import StreamReader, StreamWriter
from mcast.kernel.reference_zmtp import FrameError, FrameScanner

__all__ = ["Stop", "StreamGate", "StreamIntake"]

Stop = bytes | FrameError | int | None
"""What ended a read: a command, what is wrong with the peer's bytes, 0 for its end or a negative
errno; None: nothing did."""

_NEVER = 1 << 62


class StreamGate:
    """The short way of ``send`` to the one peer that a socket has.

    While ``is_open``, which says that the pattern would give any message to this peer, and that
    nothing waits for it but what is in the ``writer``, the compiled gate frames plain ``bytes`` in
    the caller's thread, behind whatever the owner put into the writer. It takes no lock: compiled
    code is not interrupted. It writes when nothing was pending and the last write was a quarter of
    ``coalesce_ns`` ago, when 32 KiB wait, when ``coalesce_ns`` have passed since the last write;
    else it leaves it to the next message, or to the owner when ``due_ns`` has come (the baton wakes
    it, if it attends; without a baton nothing is left over).

    When the system takes no more, the gate takes messages up to ``message_limit``, and 64 KiB
    unless it ``drops``. What comes then is dropped and counted, or, where it ``blocks`` and the
    call has no time limit, waits for the socket. All else goes the long way: ``slow`` or
    ``slow_many``, called with the same arguments, as whatever is not plain. An error of the system
    is for the owner: it closes the gate, keeps the errno in ``error`` and calls ``failed``, without
    a lock.

    It may also lead into the inbox of another socket (``lead_into``): then plain ``bytes`` are put
    there up to a limit, and whoever waits is told when the first comes into an empty inbox.

    This one always takes the long way. What is sent is the same.
    """

    __slots__ = (
        "__weakref__",
        "_slow",
        "_slow_many",
        "dropped_count",
        "due_ns",
        "error",
        "filtered_count",
        "hold",
        "is_open",
        "max_message_bytes",
        "message_limit",
        "sent_count",
        "topic_filter",
        "writer",
    )

    def __init__(
        self,
        *,
        max_message_bytes: int,
        message_limit: int,
        coalesce_ns: int,
        blocks: bool,
        drops: bool,
        baton: Baton,
        attended: bool,
        failed: Callable[[], None],
        slow: Callable[..., None],
        slow_many: Callable[..., int],
    ) -> None:
        """``attended``: there is a loop thread that sleeps in ``baton.poll``."""
        del coalesce_ns, blocks, drops, baton, attended, failed
        self.writer: StreamWriter | None = None
        """Of the peer."""
        self.max_message_bytes = max_message_bytes
        """What is longer goes the long way."""
        self.message_limit = message_limit
        """Most messages that wait in the writer."""
        self._slow = slow
        self._slow_many = slow_many
        self.is_open = False
        """The owner sets it, in any thread that has its lock; ``close`` is for any thread."""
        self.hold = False
        """While true everything goes the long way: the application's part of ``is_open``."""
        self.topic_filter: TopicFilter | None = None
        """What a subscriber wants; what it does not is not sent. None: everything."""
        self.sent_count = 0
        """Messages taken the short way."""
        self.filtered_count = 0
        """Messages that the peer did not want."""
        self.dropped_count = 0
        """Messages dropped because too many waited."""
        self.due_ns = _NEVER
        """When the owner is to call ``flush`` for what the gate left behind; 2^62: never."""
        self.error = 0
        """The errno that closed the gate."""

    def lead_into(self, inbox: Inbox, limit: int, came: Callable[[], None]) -> None:
        """Close the gate, which leads into this inbox when it is opened again.

        With ``limit`` messages in the inbox everything goes the long way. ``came`` is called,
        without a lock, when the inbox was empty. The inbox must have no intake.
        """
        del inbox, limit, came
        self.lead_to(None)

    def lead_to(self, writer: StreamWriter | None) -> None:
        """Close the gate, which leads to this peer when it is opened again, or to none."""
        self.close()
        self.writer = writer
        self.error = 0

    @property
    def is_attended(self) -> bool:
        """The baton wakes its thread at ``due_ns``; the owner needs no timer of its own."""
        return False

    def send(self, data: Buffer, flags: int = 0, *, timeout: float | None = None) -> None:
        """Send one message of one part."""
        self._slow(data, flags, timeout=timeout)

    def send_many(self, messages: Iterable[Buffer], *, timeout: float | None = None) -> int:
        """Send many messages of one part each; how many were taken."""
        return self._slow_many(messages, timeout=timeout)

    def flush(self) -> int:
        """``StreamWriter.write``, for the owner; EAGAIN: it has to call again when writable."""
        return 0 if self.writer is None else self.writer.write()

    def close(self) -> None:
        """From now on everything goes the long way, also what waits in the gate. Takes no lock."""
        self.is_open = False

    def leave(self) -> None:
        """``close``, and have no baton attend to it any more."""
        self.close()


class StreamIntake:
    """Reads one stream socket. ``read`` is for whoever has the owner's lock; ``wait`` takes it.

    As ``Intake``: a thread that waits because the inbox is empty reads the socket itself, and has
    it to itself for as long and a millisecond longer. Messages that the scanner's filter lets
    through go into the inbox, and all that is not a message is for the owner.
    """

    def __init__(
        self,
        fd: int,
        scanner: FrameScanner,
        inbox: Inbox,
        *,
        lock: Lock,
        baton: Baton,
        rest: Callable[[int, Stop], None],
        settled: Callable[[], int],
        share: Callable[[], None],
        driver: Driver | None = None,
    ) -> None:
        """``scanner`` is the connection's own, for plain traffic, with its limits.

        ``rest`` is called with the time and what ended a read of ``wait``, the lock held; nothing
        behind that was looked at before it returns. With None it was called for since
        ``is_stale``, or since its time had come: ``settled`` is called when the lock is free again
        and tells that. ``share`` is called by whoever has waited, for those who wait otherwise.
        """
        del lock, baton, rest, settled, share, driver  # only the compiled ``wait`` asks for them
        self._fd = fd
        self._scanner = scanner
        self._inbox = inbox
        self._reader = StreamReader()
        self.is_open = True
        """False: ``wait`` does nothing any more."""
        self.is_stale = False
        """The next ``wait`` calls ``rest`` first."""
        self.size_bytes = 0
        """What the last ``read`` got."""
        self.received_bytes = 0
        """What all reads got."""

    def read(self, lazily: bool = False) -> Stop:
        """Read once, unless something read before is still to be scanned; scan it into the inbox.

        ``lazily``: messages may be made when they are asked for, for who asks the inbox next.
        What stopped it; after a command or an error there may be more behind. The owner holds off
        reading while the inbox is full. Never blocks.
        """
        del lazily  # here they are made at once
        self.size_bytes = 0
        if not self._scanner.has_unscanned:
            size = self._reader.read(self._fd, self._scanner)
            if size <= 0:
                return None if size == -errno.EAGAIN else size
            self.size_bytes = size
            self.received_bytes += size
        messages: list[Message] = []
        stop: Stop
        try:
            stop = self._scanner.scan_untrusted(messages)
        except FrameError as error:
            stop = error
        if messages:
            self._inbox.put(messages)
        return stop

    def watch(self, events: int) -> bool:
        """Have the loop's epoll watch the descriptor for these events from now on.

        Instead of the owner, who cannot know whether a waiting thread has the reading to itself;
        what was asked for otherwise, such as EPOLLOUT, is watched for all the same. False: the
        owner has to do it.
        """
        del events
        return False

    def wait(self, timeout_ns: int) -> bool | None:
        """As ``Intake.wait``."""
        del timeout_ns
        return None

    def settle(self) -> None:
        """Have all that was read in the inbox, where it is not yet. For any thread."""

    def ring(self) -> None:
        """Have a thread that is asleep in ``wait`` look again. For any thread."""

    def hand_back(self) -> None:
        """Somebody waits in another way: unless a thread is in ``wait``, the loop thread is to read
        from now on. For any thread."""

    def close(self) -> None:
        """Let go of the descriptor; nobody may be about to call ``read``."""
        self.is_open = False
        self.ring()
