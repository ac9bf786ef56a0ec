"""To and from the application: the reference, which always takes the long way.

Owns the messages between the loop thread and the application. Part of ``mcast.kernel.reference``,
which says what the kernel contract is; the compiled kernel has the short ways.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING

from mcast.kernel.reference_frames import Buffer, Message
from mcast.kernel.reference_io import Baton, UdpWriter
from mcast.kernel.reference_pace import SendSchedule

if TYPE_CHECKING:
    from mcast.kernel.reference import TransmitSlots
    from mcast.kernel.reference_flow import StreamIntake
    from mcast.kernel.reference_intake import Intake

__all__ = ["Inbox", "ReceiveGate", "SendGate"]


class SendGate:
    """The short ways of ``send``: the caller's thread does what the window's owner would do.

    The owner (``pgm.Source``) says in its ``schedule`` until when a message may just be added to
    the open packet and left to it (``armed_until_ns``), and until when whoever gets the ``lock``
    without waiting may also send (``open_until_ns``), to ``sockaddr`` through ``fd``; ``tend`` is
    called, without the lock, when something was left that nobody would look after. The compiled
    gate does both for plain ``bytes``. Python code may be interrupted at any point, so this one
    always takes the long way: ``slow`` and ``slow_many``, called with the same arguments. What is
    sent is the same.
    """

    __slots__ = ("_slow", "_slow_many")

    def __init__(
        self,
        slots: TransmitSlots,
        schedule: SendSchedule,
        *,
        max_message_bytes: int,
        message_limit: int,
        lock: Lock,
        writer: UdpWriter,
        fd: int,
        sockaddr: bytes,
        baton: Baton | None,
        tend: Callable[[], None],
        slow: Callable[..., None],
        slow_many: Callable[..., int],
    ) -> None:
        """Beyond ``max_message_bytes``, or with ``message_limit`` messages unsent: ``slow``."""
        # Only the short ways ask for these.
        del slots, schedule, max_message_bytes, message_limit, lock, writer, fd, sockaddr, baton
        del tend
        self._slow = slow
        self._slow_many = slow_many

    def send(self, data: Buffer, flags: int = 0, *, timeout: float | None = None) -> None:
        """Publish one message of one part; see ``mcast.Pub.send``."""
        self._slow(data, flags, timeout=timeout)

    def send_many(self, messages: Iterable[Buffer], *, timeout: float | None = None) -> int:
        """Publish many messages of one part each; see ``mcast.Pub.send_many``."""
        return self._slow_many(messages, timeout=timeout)


class Inbox:
    """Messages from the loop thread to the application, in the lists in which they came.

    Any thread may call any method; each is one step as seen from the others. Items are messages,
    and, where ``put_error`` says so, exceptions to be raised in their place.
    """

    __slots__ = ("_items", "_mutex", "baton", "hold", "intake", "limit", "put_count")

    def __init__(self) -> None:
        self._items: deque[Message | Exception] = deque()
        self._mutex = Lock()  # the compiled inbox needs none: nothing interrupts it
        self.hold = False
        """While true a ``ReceiveGate`` always takes the long way."""
        self.baton: Baton | None = None
        """Told of what is taken out."""
        self.limit = 0
        """Most messages that may wait, for whoever puts; the inbox takes what it is given."""
        self.put_count = 0
        """Messages ever put."""
        self.intake: Intake | StreamIntake | None = None
        """Where a ``ReceiveGate`` may wait for more, if the inbox has one source only."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, messages: list[Message]) -> None:
        """Add messages; the list belongs to the inbox from now on."""
        with self._mutex:
            self._items.extend(messages)
            self.put_count += len(messages)

    def put_error(self, error: Exception) -> None:
        """Add an exception to be raised in its turn."""
        with self._mutex:
            self._items.append(error)

    def get_many(self, limit: int) -> list[Message]:
        """Up to ``limit`` messages, as far as no exception comes between; raises it if it is first.

        An empty list means that there is none.
        """
        taken: list[Message] = []
        with self._mutex:
            while self._items and len(taken) < limit:
                item = self._items[0]
                if isinstance(item, Exception):
                    if taken:
                        break
                    self._items.popleft()
                    raise item
                self._items.popleft()
                taken.append(item)
        return taken

    def clear(self) -> None:
        """Throw away what waits."""
        fresh: deque[Message | Exception] = deque()
        with self._mutex:
            dropped, self._items = self._items, fresh
        del dropped  # out of the lock, because finalizers may come back here

    def get_plain(self) -> bytes | None:
        """The next message if it is there, has one part and ``hold`` is off, else None."""
        if not self.hold:
            with self._mutex:
                if self._items and isinstance(head := self._items[0], bytes):
                    self._items.popleft()
                    return head
        return None


class ReceiveGate:
    """The short way of ``recv``: a plain message that waits in the inbox, else ``slow``.

    The application's side of an ``Inbox``: the loop's side knows the inbox and not the gate, so
    that it does not keep the socket alive.
    """

    __slots__ = ("_inbox", "_slow")

    def __init__(self, inbox: Inbox, slow: Callable[..., bytes]) -> None:
        self._inbox = inbox
        self._slow = slow

    def recv(self, flags: int = 0, *, timeout: float | None = None) -> bytes:
        """The next message; ``slow`` is called with the same arguments. See ``mcast.Sub.recv``."""
        message = self._inbox.get_plain()
        return self._slow(flags, timeout=timeout) if message is None else message
