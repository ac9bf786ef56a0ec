"""Bytes to and from stream sockets, in system calls that keep the interpreter lock: the reference.

Owns what was read and not yet looked at, and what waits to be written; owns no descriptor. Nothing
blocks, and no error is raised for what a peer or the network does: an errno is a result here,
since it is the owner of the connection who knows what it means. Part of ``mcast.kernel.reference``.
"""

from __future__ import annotations

import ctypes
import errno
from collections import deque
from typing import Final

from mcast.kernel.reference_frames import Message
from mcast.kernel.reference_io import libc
from mcast.kernel.reference_zmtp import FrameScanner, encode_messages

__all__ = ["StreamReader", "StreamWriter"]

_MSG_DONTWAIT: Final = 0x40
_MSG_NOSIGNAL: Final = 0x4000
_WRITE_BYTES: Final = 1 << 18  # of one system call; only this kernel has to copy them together


class StreamReader:
    """Reads what waits at a stream socket, as much as its buffer holds with one system call.

    One for each thread, shared by all its sockets; owned by that thread.
    """

    def __init__(self, buffer_bytes: int = 1 << 18) -> None:
        """Raises ValueError below 1, NotImplementedError where the system is not Linux."""
        if buffer_bytes < 1:
            raise ValueError(f"a buffer of {buffer_bytes} bytes; it must have at least 1")
        self._recv = libc().recv
        self._recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._recv.restype = ctypes.c_ssize_t
        self._buffer = (ctypes.c_char * buffer_bytes)()
        self.data = memoryview(self._buffer).cast("B")
        """What was read without a scanner; good until the next ``read``."""

    def read(self, fd: int, scanner: FrameScanner | None = None) -> int:
        """How many bytes came, 0 if the peer has closed, or a negative errno: -EAGAIN is nothing.

        With a ``scanner`` they are fed to it: call ``scan_untrusted`` before the next ``read``. The
        rest of a large frame goes straight to where it is put together. Never blocks; keeps the
        interpreter lock. Raises ValueError if the scanner has something left to be scanned.
        """
        if scanner is not None and scanner.has_unscanned:
            raise ValueError("scan what was read before reading more")
        size: int = self._recv(fd, self._buffer, len(self._buffer), _MSG_DONTWAIT)
        if size < 0:
            return -ctypes.get_errno()
        if scanner is not None and size:
            scanner.feed(self.data[:size])
        return size


class StreamWriter:
    """What is on its way to one stream socket, in order; the system takes it as it can.

    Small buffers are copied together, those of 8 KiB and more are kept and not copied. Guarded by
    its owner's lock.
    """

    def __init__(self, fd: int) -> None:
        """``fd`` stays the caller's. Raises NotImplementedError where the system is not Linux."""
        self._fd = fd
        self._send = libc().send
        self._send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        self._send.restype = ctypes.c_ssize_t
        self._buffers: deque[bytes] = deque()
        self._first_done_bytes = 0  # of the first buffer
        self._marks: deque[tuple[int, int]] = deque()  # messages, and where the last of them ends
        self._appended_bytes = 0
        self.written_bytes = 0
        """Bytes that the system took."""
        self.message_count = 0
        """Messages whose last byte it has not taken."""

    @property
    def size_bytes(self) -> int:
        """Bytes that wait."""
        return self._appended_bytes - self.written_bytes

    def append(self, messages: list[Message]) -> None:
        """Add the frames of these messages. Raises as ``encode_messages``, and adds nothing."""
        frames = [(encode_messages([message]), 1) for message in messages]
        for buffers, count in frames:
            self.put(buffers, count)

    def put(self, buffers: list[bytes], message_count: int = 0) -> None:
        """Add bytes that are frames already, or a greeting, with so many messages in them."""
        for buffer in buffers:
            if buffer:
                self._buffers.append(buffer)
                self._appended_bytes += len(buffer)
        if message_count:
            self.message_count += message_count
            self._marks.append((self._appended_bytes, message_count))
            self._count()

    def write(self) -> int:
        """Write as much as the system takes: 0 if that was all, else an errno.

        EAGAIN (or ENOBUFS) says that the rest is for when the socket is writable again. Never
        blocks, raises no signal, keeps the interpreter lock.
        """
        while self._buffers:
            data = self._gathered()
            size = self._send(self._fd, data, len(data), _MSG_DONTWAIT | _MSG_NOSIGNAL)
            if size < 0:
                return ctypes.get_errno()
            self._advance(size)
            if size < len(data):
                return errno.EAGAIN
        return 0

    def clear(self) -> None:
        """Throw away what waits."""
        self._buffers.clear()
        self._marks.clear()
        self._first_done_bytes = self.message_count = 0
        self._appended_bytes = self.written_bytes

    def _gathered(self) -> bytes:
        pieces = [self._buffers[0][self._first_done_bytes :]]
        size = len(pieces[0])
        for buffer in list(self._buffers)[1:]:
            if size >= _WRITE_BYTES:
                break
            pieces.append(buffer)
            size += len(buffer)
        return b"".join(pieces)

    def _advance(self, size: int) -> None:
        self.written_bytes += size
        self._first_done_bytes += size
        while self._buffers and self._first_done_bytes >= len(self._buffers[0]):
            self._first_done_bytes -= len(self._buffers.popleft())
        self._count()

    def _count(self) -> None:
        while self._marks and self._marks[0][0] <= self.written_bytes:
            self.message_count -= self._marks.popleft()[1]
