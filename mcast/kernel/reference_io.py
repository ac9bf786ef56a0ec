"""Batched UDP system calls: one call moves many datagrams, and the interpreter lock stays held.

Owns the buffers that datagrams are read into and the message headers that the kernel fills; owns
no socket, only uses the file descriptors that it is given. The same in every kernel choice.

Every call carries MSG_DONTWAIT, so holding the interpreter lock round it is right: it never
blocks, and a thread that computes cannot take a switch interval (5 ms) between two datagrams
(``ctypes.PyDLL`` keeps the lock, ``socket.recv`` and ``ctypes.CDLL`` give it up).

Invariant: a view handed out covers exactly the bytes of one datagram, or of one run of equal
datagrams (only the last may be shorter), and stays valid until the next ``read``.

Linux only: elsewhere the constructors raise NotImplementedError; importing works everywhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from mcast.kernel.reference_pace import SendSchedule

__all__ = ["Baton", "UdpReader", "UdpWriter", "libc"]

# <asm-generic/socket.h>, <linux/socket.h>, <linux/udp.h>; the same on all common architectures
_AF_INET: Final = 2
_SOL_SOCKET: Final = 1
_SOL_UDP: Final = 17
_SO_RXQ_OVFL: Final = 40
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_MSG_CTRUNC: Final = 0x08
_MSG_TRUNC: Final = 0x20
_MSG_DONTWAIT: Final = 0x40

_SOCKADDR_BYTES: Final = 28  # sizeof(struct sockaddr_in6), the larger of the two
_CONTROL_BYTES: Final = 128  # room for both values below and two that somebody else turned on

# UDP_MAX_SEGMENTS, 64 up to Linux 6.8 (128 after it)
_RUN_SEGMENT_COUNT: Final = 64
# 65,535 less the IPv6 header and the UDP header: what fits both families
_RUN_BYTES: Final = 65_487

_NO_ROOM: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})
# What kernels answer that do not know UDP_SEGMENT, or whose device cannot checksum
_GSO_REFUSED: Final = frozenset(
    {errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EMSGSIZE}
)


_EPOLL_PWAIT2: Final = 441  # the same on all architectures, Linux 5.11 and later
_EVENT_COUNT: Final = 64


class _EpollEvent(ctypes.Structure):
    _pack_ = 1 if os.uname().machine == "x86_64" else ctypes.alignment(ctypes.c_uint64)
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer, part of the stable ABI since 3.11."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("object", ctypes.c_void_p),
        ("length", ctypes.c_ssize_t),
        ("item_bytes", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("dimension_count", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_CMSG_HEADER: Final = struct.Struct("@Nii")  # length with header, level, type
_CMSG_ALIGN: Final = ctypes.sizeof(ctypes.c_size_t)
_U32: Final = struct.Struct("@I")


def libc() -> ctypes.PyDLL:
    """The C library, called without giving up the interpreter lock."""
    if not sys.platform.startswith("linux"):
        raise NotImplementedError(
            f"batched UDP needs recvmmsg and UDP_SEGMENT of Linux; this is {sys.platform}"
        )
    return ctypes.PyDLL(None, use_errno=True)


def _raise(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))


class UdpReader:
    """Reads up to ``batch_count`` datagrams or GRO runs with one system call, into its own memory.

    One for each thread, shared by all its sockets; owned by that thread. It holds
    ``batch_count * buffer_bytes`` bytes (2 MiB by default) for its whole life.

    Raises: NotImplementedError where the system is not Linux; ValueError for a size below 1.
    """

    def __init__(self, batch_count: int = 32, buffer_bytes: int = 65_536) -> None:
        if batch_count < 1 or buffer_bytes < 1:
            raise ValueError(f"batch of {batch_count} x {buffer_bytes} bytes; both must be >= 1")
        functions = libc()
        self._recvmmsg = functions.recvmmsg
        self._recvmmsg.argtypes = (
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_void_p,
        )
        self._recvmmsg.restype = ctypes.c_int
        self._batch_count = batch_count
        self._buffer_bytes = buffer_bytes

        self.overflows: dict[int, int] = {}
        """Per file descriptor, the kernel's latest count (u32, wraps) of datagrams it dropped for
        want of room; only for sockets with SO_RXQ_OVFL, and absent while the count is 0."""
        self.truncated_count = 0
        """Datagrams dropped since they, or what the kernel says of them, outgrew their buffer."""
        self.empty_count = 0
        """Datagrams without a byte, dropped here so that every view has a length."""

        self._data = memoryview(bytearray(batch_count * buffer_bytes))
        self._names = memoryview(bytearray(batch_count * _SOCKADDR_BYTES))
        self._control = memoryview(bytearray(batch_count * _CONTROL_BYTES))
        self._iovecs = memoryview(bytearray(batch_count * ctypes.sizeof(_Iovec)))
        self._headers = memoryview(bytearray(batch_count * ctypes.sizeof(_Mmsghdr)))
        self._fill_headers()
        # The kernel overwrites name_bytes, control_bytes and flags of what it receives; copying
        # the used part back from here costs one memmove instead of three writes each.
        self._fresh_headers = bytes(self._headers)
        self._headers_address = _address_of(self._headers)
        self._words = self._headers.cast("I")
        self._sizes = self._headers.cast("P")  # size_t
        self._families = self._names.cast("H")

    def _fill_headers(self) -> None:
        data, names = _address_of(self._data), _address_of(self._names)
        control, iovecs = _address_of(self._control), _address_of(self._iovecs)
        for i in range(self._batch_count):
            iovec = _Iovec.from_buffer(self._iovecs, i * ctypes.sizeof(_Iovec))
            iovec.base = data + i * self._buffer_bytes
            iovec.length = self._buffer_bytes
            header = _Mmsghdr.from_buffer(self._headers, i * ctypes.sizeof(_Mmsghdr)).header
            header.name = names + i * _SOCKADDR_BYTES
            header.name_bytes = _SOCKADDR_BYTES
            header.iov = iovecs + i * ctypes.sizeof(_Iovec)
            header.iov_count = 1
            header.control = control + i * _CONTROL_BYTES
            header.control_bytes = _CONTROL_BYTES

    def read(self, fd: int) -> list[tuple[bytes, memoryview, int]]:
        """Return what waits at ``fd``: (source address, bytes, segment_bytes) each; [] if nothing.

        The source address is packed, 4 or 16 bytes. With UDP_GRO the bytes may be a run of
        datagrams of ``segment_bytes`` each, the last one perhaps shorter; for a single datagram
        ``segment_bytes == len(bytes)``. The views are valid until the next call. A batch may come
        back shorter than what waited, and empty only if nothing was left or all was dropped and
        counted. Never blocks; keeps the interpreter lock.

        Raises: OSError for whatever the system call reports, other than nothing to read.
        """
        count = self._recvmmsg(fd, self._headers_address, self._batch_count, _MSG_DONTWAIT, None)
        if count < 0:
            code = ctypes.get_errno()
            if code in (errno.EAGAIN, errno.EWOULDBLOCK):
                return []
            _raise(code)
        received = []
        words, sizes, names = self._words, self._sizes, self._names
        for i in range(count):
            word = i * _WORDS_PER_HEADER
            length = words[word + _LENGTH_WORD]
            if words[word + _FLAGS_WORD] & (_MSG_TRUNC | _MSG_CTRUNC):
                self.truncated_count += 1
                continue
            segment_bytes = 0
            control_bytes = sizes[i * _SIZES_PER_HEADER + _CONTROL_SIZE]
            if control_bytes:
                segment_bytes = self._read_control(fd, i * _CONTROL_BYTES, control_bytes)
            if not length:
                self.empty_count += 1
                continue
            name = i * _SOCKADDR_BYTES
            if self._families[name >> 1] == _AF_INET:
                source = bytes(names[name + 4 : name + 8])
            else:
                source = bytes(names[name + 8 : name + 24])
            start = i * self._buffer_bytes
            received.append((source, self._data[start : start + length], segment_bytes or length))
        used = count * _HEADER_BYTES
        self._headers[:used] = self._fresh_headers[:used]
        return received

    def forget(self, fd: int) -> None:
        """Drop the overflow count of ``fd``; call it when closing, as numbers are used again."""
        self.overflows.pop(fd, None)

    def _read_control(self, fd: int, start: int, length: int) -> int:
        """Note the overflow count of ``fd``; return the size of the run's segments, 0 if none."""
        segment_bytes = 0
        offset, end = start, start + length
        while offset + _CMSG_HEADER.size <= end:
            size, level, kind = _CMSG_HEADER.unpack_from(self._control, offset)
            if size < _CMSG_HEADER.size:
                break  # the kernel never writes one; without this the loop would not end
            if level == _SOL_UDP and kind == _UDP_GRO:
                (segment_bytes,) = _U32.unpack_from(self._control, offset + _CMSG_HEADER.size)
            elif level == _SOL_SOCKET and kind == _SO_RXQ_OVFL:
                (count,) = _U32.unpack_from(self._control, offset + _CMSG_HEADER.size)
                self.overflows[fd] = count
            offset += -(-size // _CMSG_ALIGN) * _CMSG_ALIGN
        return segment_bytes


class UdpWriter:
    """Sends a run of equal datagrams with one system call, or as few as the kernel allows.

    Owned by whoever holds the lock of the sockets it sends to: one ``send`` at a time.

    Raises: NotImplementedError where the system is not Linux.
    """

    def __init__(self) -> None:
        functions = libc()
        self._sendto = functions.sendto
        self._sendto.argtypes = (
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_uint32,
        )
        self._sendto.restype = ctypes.c_ssize_t
        self._sendmsg = functions.sendmsg
        self._sendmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        self._sendmsg.restype = ctypes.c_ssize_t
        self._get_buffer = ctypes.pythonapi.PyObject_GetBuffer
        self._get_buffer.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
        self._release_buffer = ctypes.pythonapi.PyBuffer_Release
        self._release_buffer.argtypes = (ctypes.c_void_p,)
        self._release_buffer.restype = None

        self.gso = True
        """False for good once the kernel has refused UDP_SEGMENT and a plain send went through;
        ``send`` then uses sendmmsg."""
        self.mmsg = True
        """False for good once the kernel has refused that, too: a system call for each datagram."""
        self._sendmmsg = functions.sendmmsg
        self._sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
        self._sendmmsg.restype = ctypes.c_int

        self._buffer = _PyBuffer()
        self._buffer_address = ctypes.addressof(self._buffer)
        self._iovec = _Iovec()
        self._name = ctypes.create_string_buffer(_SOCKADDR_BYTES)
        # CMSG_SPACE(2): the header, then the u16 in an aligned word
        self._control = ctypes.create_string_buffer(_CMSG_HEADER.size + _CMSG_ALIGN)
        self._header = _Msghdr(
            name=ctypes.addressof(self._name),
            iov=ctypes.addressof(self._iovec),
            iov_count=1,
            control=ctypes.addressof(self._control),
            control_bytes=ctypes.sizeof(self._control),
        )
        self._header_address = ctypes.addressof(self._header)

    def send(self, fd: int, sockaddr: bytes, data: Buffer, segment_bytes: int) -> int:
        """Send ``data`` to ``sockaddr`` as datagrams of ``segment_bytes``; return the bytes taken.

        The result is ``len(data)``, or less when the kernel has no room now, and always a
        multiple of ``segment_bytes`` or all of it: send the rest later, from there on. The last
        datagram may be shorter than the others. ``data`` is any contiguous buffer, read only or
        not; it is not copied, and not used after the call. ``sockaddr`` is a native
        ``struct sockaddr_in`` or ``sockaddr_in6``. Runs longer than the kernel's limits are split.
        Never blocks; keeps the interpreter lock.

        Raises: OSError for what the system call reports, other than no room, if no datagram of
        this call has left yet (else the next call reports it); among them EMSGSIZE for a segment
        above the MTU, and EPERM for a packet that an output firewall drops. ValueError for empty
        data or a segment below 1 byte, BufferError for data that is not contiguous.
        """
        if len(sockaddr) > _SOCKADDR_BYTES:
            raise ValueError(f"sockaddr of {len(sockaddr)} bytes; at most {_SOCKADDR_BYTES}")
        self._get_buffer(data, self._buffer_address, 0)
        try:
            length = self._buffer.length
            if length < 1 or segment_bytes < 1:
                raise ValueError(
                    f"{length} bytes in segments of {segment_bytes}; both must be >= 1"
                )
            address = self._buffer.address
            if length <= segment_bytes or not self.gso:
                return self._send_plain(fd, sockaddr, address, length, segment_bytes)
            return self._send_runs(fd, sockaddr, address, length, segment_bytes)
        finally:
            self._release_buffer(self._buffer_address)

    def _send_runs(
        self, fd: int, sockaddr: bytes, address: int, length: int, segment_bytes: int
    ) -> int:
        run_bytes = segment_bytes * max(1, min(_RUN_SEGMENT_COUNT, _RUN_BYTES // segment_bytes))
        sent = 0
        while sent < length:
            chunk = min(run_bytes, length - sent)
            if chunk <= segment_bytes:
                code = self._sendto_errno(fd, sockaddr, address + sent, chunk)
            else:
                code = self._sendmsg_errno(fd, sockaddr, address + sent, chunk, segment_bytes)
            if code == 0:
                sent += chunk
            elif code in _NO_ROOM or sent:
                break
            elif code in _GSO_REFUSED and chunk > segment_bytes:
                return self._send_plain_instead(fd, sockaddr, address, length, segment_bytes)
            else:
                _raise(code)
        return sent

    def _send_plain_instead(
        self, fd: int, sockaddr: bytes, address: int, length: int, segment_bytes: int
    ) -> int:
        # EINVAL and EMSGSIZE also say that a segment is above the MTU. That fails plainly, too,
        # and raises here, so it is not held against GSO.
        sent = self._send_plain(fd, sockaddr, address, length, segment_bytes)
        if sent:
            self.gso = False
        return sent

    def _send_plain(
        self, fd: int, sockaddr: bytes, address: int, length: int, segment_bytes: int
    ) -> int:
        sent = 0
        if self.mmsg and length > segment_bytes:
            sent = self._send_many(fd, sockaddr, address, length, segment_bytes)
            if self.mmsg:
                return sent
        while sent < length:
            chunk = min(segment_bytes, length - sent)
            code = self._sendto_errno(fd, sockaddr, address + sent, chunk)
            if code == 0:
                sent += chunk
            elif code in _NO_ROOM or sent:
                break
            else:
                _raise(code)
        return sent

    def _send_many(
        self, fd: int, sockaddr: bytes, address: int, length: int, segment_bytes: int
    ) -> int:
        """Send with as few calls of sendmmsg as it takes; the bytes taken."""
        name = ctypes.create_string_buffer(sockaddr, _SOCKADDR_BYTES)
        sent = 0
        while sent < length:
            places = range(sent, length, segment_bytes)[:_RUN_SEGMENT_COUNT]
            iovecs = (_Iovec * len(places))()
            headers = (_Mmsghdr * len(places))()
            for place, header, iovec in zip(places, headers, iovecs, strict=True):
                iovec.base = address + place
                iovec.length = min(segment_bytes, length - place)
                header.header.name = ctypes.addressof(name)
                header.header.name_bytes = len(sockaddr)
                header.header.iov = ctypes.addressof(iovec)
                header.header.iov_count = 1
            done: int = self._sendmmsg(fd, headers, len(places), _MSG_DONTWAIT)
            if done < 0:
                code = ctypes.get_errno()
                if code == errno.ENOSYS:
                    self.mmsg = False
                elif not sent and code not in _NO_ROOM:
                    _raise(code)
                return sent
            sent = min(length, sent + done * segment_bytes)
            if done < len(places):
                return sent
        return sent

    def _sendto_errno(self, fd: int, sockaddr: bytes, address: int, length: int) -> int:
        status = self._sendto(fd, address, length, _MSG_DONTWAIT, sockaddr, len(sockaddr))
        return 0 if status >= 0 else ctypes.get_errno()

    def _sendmsg_errno(
        self, fd: int, sockaddr: bytes, address: int, length: int, segment_bytes: int
    ) -> int:
        ctypes.memmove(self._name, sockaddr, len(sockaddr))
        self._header.name_bytes = len(sockaddr)
        self._iovec.base = address
        self._iovec.length = length
        _GSO_CONTROL.pack_into(
            self._control, 0, _CMSG_HEADER.size + 2, _SOL_UDP, _UDP_SEGMENT, segment_bytes
        )
        status = self._sendmsg(fd, self._header_address, _MSG_DONTWAIT)
        return 0 if status >= 0 else ctypes.get_errno()


def _address_of(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


_GSO_CONTROL: Final = struct.Struct(_CMSG_HEADER.format + "H")

# Where the kernel's answers lie in an array of struct mmsghdr, in units of the views above
_HEADER_BYTES: Final = ctypes.sizeof(_Mmsghdr)
_WORDS_PER_HEADER: Final = _HEADER_BYTES // 4
_SIZES_PER_HEADER: Final = _HEADER_BYTES // ctypes.sizeof(ctypes.c_size_t)
_LENGTH_WORD: Final = _Mmsghdr.length.offset // 4
_FLAGS_WORD: Final = _Msghdr.flags.offset // 4
_CONTROL_SIZE: Final = _Msghdr.control_bytes.offset // ctypes.sizeof(ctypes.c_size_t)


class Baton:
    """Waits for descriptors to the nanosecond, and lets the thread that did go on soon after.

    A thread that wakes from a system call waits up to a switch interval (5 ms) for the interpreter
    lock while another one computes, and at 7 Gbit/s 4 MiB of socket buffer last no longer. So the
    compiled baton knows when the loop thread wants the lock, and whoever moves messages in compiled
    code hands it over every so often (``spend``). This one cannot know: Python's own switching has
    to do.
    """

    def __init__(self, epoll_fd: int) -> None:
        """``epoll_fd`` stays the caller's. Raises NotImplementedError where it is not Linux."""
        if not sys.platform.startswith("linux"):
            raise NotImplementedError("mcast needs Linux for its sockets")
        self._epoll_fd = epoll_fd
        self._libc = ctypes.CDLL(None, use_errno=True)  # gives the interpreter lock up
        self._events = (_EpollEvent * _EVENT_COUNT)()
        self._is_precise = True
        self._is_tried = False
        self.due_ns = 0
        """In a loop without a thread: when it has something to do, 0 if at once."""
        self.sleeps_until_ns = 0
        """Until when whoever does the loop's work sleeps; 0 while it is awake."""
        self.waited_ns = 0
        """How long ``poll`` waited for the interpreter lock when it woke, where that is known."""
        self.wake: Callable[[], None] = lambda: None
        """Wakes it."""

    def attend(self, schedule: SendSchedule) -> bool:
        """Have ``poll`` return when ``schedule.due_ns`` has come; False if its owner has to.

        The compiled one follows, while it sleeps, how a ``SendGate`` moves that; where the gate
        goes on and on sending it looks every 0.2 ms. ``schedule.leave`` ends it.
        """
        del schedule
        return False

    def poll(self, timeout_ns: int) -> list[tuple[int, int]]:
        """Descriptors that are ready, as (fd, mask), up to 64; [] when the time is over.

        Blocks up to ``timeout_ns`` (0: not at all). A signal ends it early. Raises OSError.
        """
        count = -1
        if self._is_precise:
            limit = _Timespec(*divmod(max(0, timeout_ns), 1_000_000_000))
            count = self._libc.syscall(
                _EPOLL_PWAIT2,
                self._epoll_fd,
                self._events,
                _EVENT_COUNT,
                ctypes.byref(limit),
                None,
                ctypes.c_size_t(8),
            )
            if count < 0:
                # Kernels before 5.11 say ENOSYS, filters that do not know the call EPERM, others
                # EINVAL, which after the first call can only mean the descriptor.
                code = ctypes.get_errno()
                self._is_precise = code not in (errno.ENOSYS, errno.EPERM) and (
                    code != errno.EINVAL or self._is_tried
                )
            self._is_tried = True
        if not self._is_precise:
            wait_ms = -(-max(0, timeout_ns) // 1_000_000)
            count = self._libc.epoll_wait(self._epoll_fd, self._events, _EVENT_COUNT, wait_ms)
        if count < 0:
            code = ctypes.get_errno()
            if code == errno.EINTR:
                return []
            raise OSError(code, os.strerror(code))
        return [(event.data & 0x7FFFFFFF, event.events) for event in self._events[:count]]

    def spend(self, weight_bytes: int) -> None:
        """So much was moved; others may get their turn. Cheap: call it for every batch."""
