# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, auto_pickle=False, binding=False, embedsignature=True
"""The kernel contract, compiled: ``reference.py`` says what each name does, this says it fast.

Owns no behaviour of its own: every result, attribute and error is the reference's, and a property
test and a differential fuzzer compare them call by call. Read the reference first; the comments
here only say what differs underneath.

Invariants:
- bounds checks are off, so each read of network bytes is preceded by a length check by hand;
- per packet and per message no Python object is made, but for the messages delivered;
- nothing here blocks or gives up the interpreter lock, but for ``Baton``, whose purpose it is.
"""

from __future__ import annotations

import os
from collections import deque

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_FULL_RO,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBuffer_IsContiguous,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.list cimport (
    PyList_CheckExact,
    PyList_GET_ITEM,
    PyList_GET_SIZE,
    PyList_GetSlice,
    PyList_SET_ITEM,
)
from cpython.dict cimport PyDict_GetItem
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.pyport cimport PY_SSIZE_T_MAX
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.errno cimport (
    EAGAIN,
    EINTR,
    EINVAL,
    EIO,
    EMSGSIZE,
    ENOBUFS,
    ENOPROTOOPT,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    errno,
)
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t newsize) except -1
    PyObject *_new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *_bytes_data "PyBytes_AS_STRING"(PyObject *bytes)
    int PyGC_Disable()
    int PyGC_Enable()


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Where the C library lets a program pick at load time: twice as fast (measured). */
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
    #define MCAST_CLONES __attribute__((target_clones("avx2", "default")))
    #else
    #define MCAST_CLONES
    #endif

    static inline uint16_t mcast_get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

    static inline uint32_t mcast_get32(const uint8_t *p)
    {
        return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    }

    static inline uint64_t mcast_get64(const uint8_t *p)
    {
        return (uint64_t)mcast_get32(p) << 32 | mcast_get32(p + 4);
    }

    static inline void mcast_put16(uint8_t *p, uint16_t value)
    {
        p[0] = (uint8_t)(value >> 8);
        p[1] = (uint8_t)value;
    }

    static inline void mcast_put32(uint8_t *p, uint32_t value)
    {
        mcast_put16(p, (uint16_t)(value >> 16));
        mcast_put16(p + 2, (uint16_t)value);
    }

    static inline void mcast_put64(uint8_t *p, uint64_t value)
    {
        mcast_put32(p, (uint32_t)(value >> 32));
        mcast_put32(p + 4, (uint32_t)value);
    }

    /* The folded sum of 16-bit words, 0 only if every byte is zero. Adds 32-bit words as they lie
       in memory (2^16 is 1 modulo 0xFFFF, so wider words and the other byte order give the same
       sum, RFC 1071) into 64 bits, which no buffer shorter than 16 GiB overflows; compilers turn
       the loop into vector instructions. */
    MCAST_CLONES static uint32_t mcast_word_sum(const uint8_t *p, size_t size)
    {
        uint64_t sum = 0;
        uint32_t word;
        size_t count = size / 4;
        for (size_t i = 0; i < count; i++) {
            memcpy(&word, p + 4 * i, 4);
            sum += word;
        }
        word = 0;
        memcpy(&word, p + 4 * count, size % 4);
        sum += word;
        sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
        sum = (sum & 0xFFFFFFFFu) + (sum >> 32);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        sum = (sum >> 8 | sum << 8) & 0xFFFF;
    #endif
        return (uint32_t)sum;
    }

    static inline uint16_t mcast_checksum(const uint8_t *p, size_t size)
    {
        uint16_t result = (uint16_t)(0xFFFF - mcast_word_sum(p, size));
        return result ? result : 0xFFFF;
    }
    """
    uint16_t mcast_get16(const uint8_t *p) noexcept
    uint32_t mcast_get32(const uint8_t *p) noexcept
    uint64_t mcast_get64(const uint8_t *p) noexcept
    void mcast_put16(uint8_t *p, uint16_t value) noexcept
    void mcast_put32(uint8_t *p, uint32_t value) noexcept
    void mcast_put64(uint8_t *p, uint64_t value) noexcept
    uint32_t mcast_word_sum(const uint8_t *p, size_t size) noexcept
    uint16_t mcast_checksum(const uint8_t *p, size_t size) noexcept


__all__ = [
    "Baton",
    "Buffer",
    "FrameDecoder",
    "Inbox",
    "Intake",
    "Leftover",
    "Message",
    "ReceiveGate",
    "ReceiveSlots",
    "SendGate",
    "SendSchedule",
    "TokenBucket",
    "TopicFilter",
    "TransmitSlots",
    "UdpReader",
    "UdpWriter",
    "checksum",
    "checksum_ok",
    "longest_bytes",
    "parts_of",
]

Buffer = bytes | bytearray | memoryview
Message = bytes | tuple[bytes, ...]
Leftover = tuple[bytes, memoryview, int, int]

cdef enum:
    ODATA = 0x04
    RDATA = 0x05
    HEADER_BYTES = 16
    DATA_HEADER_BYTES = 24
    OFFSET_BYTES = 2
    NO_MESSAGE_START = 0xFFFF
    SHORT_FRAME_LIMIT = 0xFF
    MORE = 0x01
    HEAD_BYTES_MAX = 10
    ALONE_SHARE = 4
    PAUSE_SHARE = 64
    UDP_IP_BYTES = 28
    HUGE_PAGE_BYTES = 1 << 21
    FIRST_BODY_BYTES = 2048  # a body that goes on in the next packet is longer than most of one

cdef uint32_t HALF_SPACE = 0x8000_0000u


def checksum(data):
    """As ``reference.checksum``."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    cdef uint16_t result = mcast_checksum(<const uint8_t *>buffer.buf, buffer.len)
    PyBuffer_Release(&buffer)
    return result


def checksum_ok(packet):
    """As ``reference.checksum_ok``."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(packet, &buffer, PyBUF_SIMPLE)
    cdef bint result = mcast_word_sum(<const uint8_t *>buffer.buf, buffer.len) == 0xFFFF
    PyBuffer_Release(&buffer)
    return result


cdef struct Prefix:
    const uint8_t *data
    Py_ssize_t size


cdef long long NEVER = 1LL << 62


cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef extern from "<sys/syscall.h>" nogil:
    long syscall(long number, ...)


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_wait(int epoll_fd, epoll_event *events, int count, int timeout_ms)
    int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event *event)
    const int EPOLL_CTL_MOD
    const unsigned int EPOLLIN


cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *address, size_t size, int advice)
    const int MADV_HUGEPAGE


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents

    ctypedef unsigned long nfds_t
    int ppoll(pollfd *fds, nfds_t count, const timespec *timeout, const void *mask)
    const short POLLIN


cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *data, size_t size)
    ssize_t read(int fd, void *data, size_t size)
    int close(int fd)


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int value, int flags)
    const int EFD_CLOEXEC
    const int EFD_NONBLOCK


cdef inline long long _now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000LL + now.tv_nsec


cdef extern from *:
    """
    #define mcast_fence() __sync_synchronize()
    """
    void mcast_fence() noexcept nogil


# What the loop thread looks at without the interpreter lock. Both live in its baton as long as that
# does, since there is no telling when it looks.

cdef struct Lease:  # of a descriptor, to a thread that waits for messages
    volatile int is_used
    volatile int is_lent
    volatile int is_asleep  # the thread is in a system call and has it for as long as that takes
    int fd
    volatile long long used_ns
    volatile long long due_ns  # when the owner has something to do; whoever reads does it


cdef struct SendTimer:  # of a schedule whose gate moves it
    volatile int is_used
    volatile long long due_ns
    volatile long long sent_packets
    long long seen_packets  # the loop thread's own


cdef enum:
    EPOLL_PWAIT2 = 441  # the same on all architectures, Linux 5.11 and later
    EVENT_COUNT = 64
    OFFER_BYTES = 1 << 18  # about a quarter of a millisecond's worth
    MESSAGE_WEIGHT_BYTES = 256  # what a message costs beside its bytes
    BATCH_WEIGHT_BYTES = 1 << 16
    WATCH_COUNT = 64
    BULK_PACKETS = 16  # of a gate, between two looks at its timer
    BULK_SLEEP_NS = 200_000
    LONGEST_LEASE_NS = 32_000_000
    LEASE_NS = 1_000_000  # at 10 Gbit/s, a third of the default rcvbuf
    PATIENCE = 2000  # yields of the processor, half a millisecond to two


def _nothing():
    pass


@cython.final
cdef class Baton:
    """As ``reference.Baton``; this one knows when the thread that polls wants the lock."""

    cdef int _epoll_fd
    cdef bint _is_precise
    cdef bint _is_tried
    cdef volatile int _is_wanted  # set without the lock, between the system call and getting it
    cdef long long _weight
    cdef Lease _leases[WATCH_COUNT]
    cdef SendTimer _timers[WATCH_COUNT]
    cdef int _lease_count
    cdef int _timer_count
    cdef volatile long long _looks_at_ns  # asleep: when it looks at leases and timers; else 0
    cdef public long long due_ns
    cdef public long long sleeps_until_ns
    cdef public object wake

    def __cinit__(self, int epoll_fd):
        self._epoll_fd = epoll_fd
        self.wake = _nothing
        self._is_precise = True

    def attend(self, SendSchedule schedule not None):
        """As ``reference.Baton.attend``; True while there is room for another."""
        cdef int index
        for index in range(WATCH_COUNT):
            if not self._timers[index].is_used:
                schedule._attend(self, &self._timers[index])
                self._timer_count = max(self._timer_count, index + 1)
                return True
        return False

    def poll(self, long long timeout_ns):
        """As ``reference.Baton.poll``."""
        cdef epoll_event events[EVENT_COUNT]
        cdef long count
        cdef int code, index
        with nogil:
            count = self._poll(events, timeout_ns)
            code = errno
            self._is_wanted = 1
        self._is_wanted = 0
        self._take_back()
        if count < 0:
            if code == EINTR:
                return []
            raise OSError(code, os.strerror(code))
        return [(events[index].data.fd, events[index].events) for index in range(count)]

    cdef long _poll(self, epoll_event *events, long long timeout_ns) noexcept nogil:
        """Sleep; without the interpreter lock, also where a lease or a timer was moved meanwhile."""
        cdef long long now_ns, end_ns, until_ns
        cdef long count
        if self._lease_count == 0 and self._timer_count == 0:
            return self._poll_once(events, timeout_ns)
        now_ns = _now()
        end_ns = now_ns + max(0, timeout_ns)
        while True:
            until_ns = min(end_ns, min(self._first_lapse(now_ns), self._first_due(now_ns)))
            self._looks_at_ns = until_ns
            mcast_fence()  # a gate that moves its timer looks at that afterwards
            if self._earliest_due() < until_ns - BULK_SLEEP_NS:
                continue
            count = self._poll_once(events, until_ns - now_ns)
            self._looks_at_ns = 0
            if count != 0:
                return count
            now_ns = _now()
            if (
                now_ns >= end_ns
                or self._first_lapse(now_ns) <= now_ns
                or self._earliest_due() <= now_ns
            ):
                return 0

    cdef long long _first_due(self, long long now_ns) noexcept nogil:
        """When the first timer is due; later where its gate sends and sends, and moves it anyway."""
        cdef long long first_ns = NEVER
        cdef long long due_ns
        cdef SendTimer *timer
        cdef int index
        for index in range(self._timer_count):
            timer = &self._timers[index]
            if timer.is_used:
                due_ns = timer.due_ns
                if timer.sent_packets - timer.seen_packets >= BULK_PACKETS:
                    due_ns = max(due_ns, now_ns + BULK_SLEEP_NS)
                timer.seen_packets = timer.sent_packets
                first_ns = min(first_ns, due_ns)
        return first_ns

    cdef long long _earliest_due(self) noexcept nogil:
        cdef long long first_ns = NEVER
        cdef int index
        for index in range(self._timer_count):
            if self._timers[index].is_used:
                first_ns = min(first_ns, self._timers[index].due_ns)
        return first_ns

    cdef long _poll_once(self, epoll_event *events, long long timeout_ns) noexcept nogil:
        cdef timespec limit
        cdef long count = -1
        cdef int code
        timeout_ns = max(0, timeout_ns)
        limit.tv_sec = timeout_ns // 1_000_000_000
        limit.tv_nsec = timeout_ns % 1_000_000_000
        if self._is_precise:
            count = syscall(
                EPOLL_PWAIT2, <long>self._epoll_fd, events, <long>EVENT_COUNT, &limit,
                NULL, <size_t>8,
            )
            code = errno
            # As in the reference: which errors say that the call is not to be had.
            if count < 0 and (
                code == ENOSYS or code == EPERM or (code == EINVAL and not self._is_tried)
            ):
                self._is_precise = False
            self._is_tried = True
        if not self._is_precise:
            count = epoll_wait(
                self._epoll_fd, events, EVENT_COUNT,
                <int>min((timeout_ns + 999_999) // 1_000_000, 1 << 30),
            )
        return count

    cdef long long _first_lapse(self, long long now_ns) noexcept nogil:
        cdef long long first_ns = NEVER
        cdef Lease *lease
        cdef int index
        for index in range(self._lease_count):
            lease = &self._leases[index]
            if lease.is_lent:
                if lease.is_asleep:  # the longer it has slept the more rarely; it says when it wakes
                    first_ns = min(
                        first_ns,
                        now_ns + min(max(now_ns - lease.used_ns, LEASE_NS), LONGEST_LEASE_NS),
                    )
                else:
                    first_ns = min(first_ns, lease.used_ns + LEASE_NS)
                first_ns = min(first_ns, lease.due_ns + LEASE_NS)
        return first_ns

    cdef Lease *_new_lease(self, int fd) noexcept:
        """A place for the leases of a descriptor; NULL if there are too many of them."""
        cdef int index
        for index in range(WATCH_COUNT):
            if not self._leases[index].is_used:
                memset(&self._leases[index], 0, sizeof(Lease))
                self._leases[index].is_used = 1
                self._leases[index].fd = fd
                self._leases[index].due_ns = NEVER
                self._lease_count = max(self._lease_count, index + 1)
                return &self._leases[index]
        return NULL

    cdef bint _lend(self, Lease *lease) noexcept:
        """Leave a descriptor to the thread that asks; the loop thread is to be woken then."""
        if not self._watch(lease.fd, 0):
            return False
        lease.used_ns = _now()
        lease.is_lent = 1
        return True

    cdef void _take_back(self) noexcept:
        """Watch those descriptors again that nobody has been at for a while."""
        cdef long long now_ns
        cdef Lease *lease
        cdef int index
        if self._lease_count == 0:
            return
        now_ns = _now()
        for index in range(self._lease_count):
            lease = &self._leases[index]
            if lease.is_lent and now_ns >= lease.due_ns + LEASE_NS:
                lease.due_ns = NEVER  # the loop has its own timer for it, and does it now
            if lease.is_lent and not lease.is_asleep and now_ns >= lease.used_ns + LEASE_NS:
                lease.is_lent = 0
                self._watch(lease.fd, EPOLLIN)

    cdef bint _watch(self, int fd, uint32_t events) noexcept:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = events
        event.data.fd = fd
        return epoll_ctl(self._epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0

    def spend(self, long long weight_bytes):
        """As ``reference.Baton.spend``."""
        self._spend(weight_bytes)

    cdef inline void _spend(self, long long weight_bytes) noexcept:
        self._weight += weight_bytes
        if self._weight >= OFFER_BYTES and self._is_wanted:
            self._hand_over()

    cdef void _hand_over(self) noexcept:
        """Give up the lock and wait a moment for the other to take it; a release alone would only
        restart its wait, since this thread would have it back before the other has woken."""
        cdef int patience = PATIENCE
        self._weight = 0
        with nogil:
            while self._is_wanted and patience > 0:
                sched_yield()
                patience -= 1


def longest_bytes(messages):
    """As ``reference.longest_bytes``."""
    cdef Py_ssize_t longest = 0
    cdef Py_buffer buffer
    cdef bint in_one_piece
    cdef object message
    for message in messages:
        if PyBytes_CheckExact(message):
            longest = max(longest, PyBytes_GET_SIZE(message))
        else:
            PyObject_GetBuffer(message, &buffer, PyBUF_FULL_RO)
            in_one_piece = PyBuffer_IsContiguous(&buffer, b"C")
            longest = max(longest, buffer.len)
            PyBuffer_Release(&buffer)
            if not in_one_piece:
                raise TypeError("the bytes of a message lie in one piece")
    return longest


def parts_of(list messages not None):
    """As ``reference.parts_of``."""
    cdef object message
    cdef list parts
    for message in messages:
        if not PyBytes_CheckExact(message):
            break
    else:
        return messages
    parts = []
    for message in messages:
        if PyBytes_CheckExact(message):
            parts.append(message)
        else:
            parts.extend(message)
    return parts



@cython.final
cdef class TopicFilter:
    """As ``reference.TopicFilter``: sorted prefixes, none of which starts another."""

    cdef list _sorted  # owns the bytes that _prefixes points into
    cdef Prefix *_prefixes
    cdef Py_ssize_t _count
    cdef bint _takes_all

    def __cinit__(self, prefixes=()):
        cdef bytes prefix
        cdef Py_ssize_t index
        self._sorted = []
        for prefix in sorted({bytes(each) for each in prefixes}):
            if not (self._sorted and prefix.startswith(self._sorted[len(self._sorted) - 1])):
                self._sorted.append(prefix)
        self._count = len(self._sorted)
        self._prefixes = <Prefix *>PyMem_RawCalloc(self._count + 1, sizeof(Prefix))
        if self._prefixes == NULL:
            raise MemoryError
        for index in range(self._count):
            prefix = self._sorted[index]
            self._prefixes[index].data = <const uint8_t *>PyBytes_AS_STRING(prefix)
            self._prefixes[index].size = PyBytes_GET_SIZE(prefix)
            self._takes_all |= PyBytes_GET_SIZE(prefix) == 0

    def __dealloc__(self):
        PyMem_RawFree(self._prefixes)

    def match(self, topic):
        """As ``reference.TopicFilter.match``."""
        cdef Py_buffer buffer
        PyObject_GetBuffer(topic, &buffer, PyBUF_SIMPLE)
        cdef bint result = self._match(<const uint8_t *>buffer.buf, buffer.len)
        PyBuffer_Release(&buffer)
        return result

    cdef inline bint _match(self, const uint8_t *topic, Py_ssize_t size) noexcept:
        return self._takes_all or self._search(topic, size)

    cdef bint _search(self, const uint8_t *topic, Py_ssize_t size) noexcept:
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self._count
        cdef Py_ssize_t middle
        cdef Prefix *prefix
        cdef int order
        # Narrows to the only prefix that can match: the greatest one not above the topic.
        while low < high:
            middle = (low + high) // 2
            prefix = &self._prefixes[middle]
            order = memcmp(prefix.data, topic, min(prefix.size, size))
            if order == 0:
                if prefix.size <= size:
                    return True
                high = middle  # the topic starts the prefix, so it is below it
            elif order < 0:
                low = middle + 1
            else:
                high = middle
        return False


@cython.final
cdef class FrameDecoder:
    """As ``reference.FrameDecoder``.

    A part that lies whole in one TSDU is filtered and copied straight from it. A part that spans
    TSDUs grows in the very bytes object that is delivered, by doubling, never past what the frame
    claims and never far past what came.
    """

    cdef TopicFilter _topic_filter
    cdef public long long filtered_count
    cdef readonly bint in_step
    cdef public long long malformed_count
    cdef public long long max_message_bytes
    cdef public long long max_part_count
    cdef public long long message_count
    cdef public long long too_long_count
    cdef uint8_t _head[HEAD_BYTES_MAX]
    cdef int _head_bytes
    cdef long long _size_left  # of the body under way; -1: its head is not complete
    cdef long long _body_size
    cdef long long _body_bytes  # of _body, how many have come
    cdef long long _body_room
    cdef PyObject *_body  # a bytes object that nobody else has seen yet, or NULL
    cdef bint _more
    cdef bint _rejected
    cdef bint _too_long
    cdef long long _total_bytes
    cdef long long _part_count
    cdef list _parts

    def __cinit__(
        self, TopicFilter topic_filter not None, long long max_message_bytes,
        long long max_part_count
    ):
        self._topic_filter = topic_filter
        self.max_message_bytes = max_message_bytes
        self.max_part_count = max_part_count
        self._reset()

    def __dealloc__(self):
        Py_XDECREF(self._body)

    @property
    def topic_filter(self):
        """The filter that applies from the next message on."""
        return self._topic_filter

    @topic_filter.setter
    def topic_filter(self, TopicFilter topic_filter not None):
        self._topic_filter = topic_filter

    @property
    def is_partial(self):
        """True between the first byte of a message and its last."""
        return self.in_step and (
            self._part_count > 0 or self._too_long or self._size_left >= 0 or self._head_bytes > 0
        )

    def resync(self):
        """Drop an unfinished message and wait for the next message start (after a loss)."""
        self._reset()

    def decode(self, tsdu, list out not None):
        """As ``reference.FrameDecoder.decode``."""
        cdef Py_buffer buffer
        PyObject_GetBuffer(tsdu, &buffer, PyBUF_SIMPLE)
        try:
            self._decode(<const uint8_t *>buffer.buf, buffer.len, out)
        finally:
            PyBuffer_Release(&buffer)

    cdef int _decode(self, const uint8_t *data, Py_ssize_t end, list out) except -1:
        cdef Py_ssize_t position = self._enter(data, end)
        cdef PyObject *message
        while True:
            message = self._next(data, &position, end)
            if message == NULL:
                return 0
            out.append(<object>message)
            Py_DECREF(<object>message)

    cdef Py_ssize_t _enter(self, const uint8_t *data, Py_ssize_t end) noexcept:
        """Where in a TSDU to begin; ``end`` if there is nothing for us in it."""
        cdef Py_ssize_t position = OFFSET_BYTES
        cdef Py_ssize_t offset
        if end < OFFSET_BYTES:
            self._give_up()
            return end
        if not self.in_step:
            offset = mcast_get16(data)
            if offset == NO_MESSAGE_START:
                return end
            position += offset
            if position > end:
                self._give_up()
                return end
            self.in_step = True
        return position

    cdef PyObject *_next(
        self, const uint8_t *data, Py_ssize_t *at, Py_ssize_t end
    ) except? NULL:
        """The next message that ends in this TSDU, a new reference, or NULL; moves ``at`` on."""
        cdef Py_ssize_t position = at[0]
        cdef Py_ssize_t wanted
        cdef uint64_t length
        cdef long long take
        cdef const uint8_t *head
        cdef object message
        while position < end:
            if self._size_left >= 0:  # inside a body
                take = min(self._size_left, <long long>(end - position))
                self._grow_body(data + position, take)
                position += <Py_ssize_t>take
                self._size_left -= take
                if self._size_left == 0:
                    message = self._end_body()
                    if message is not None:
                        at[0] = position
                        Py_INCREF(message)
                        return <PyObject *>message
                continue
            head = data + position
            if self._head_bytes == 0 and end - position >= HEAD_BYTES_MAX:
                length = head[0]
                if (  # the usual message: short, of one part, and all here
                    length - 1 < SHORT_FRAME_LIMIT - 1
                    and not head[1] & MORE
                    and self._part_count == 0
                    and not self._too_long
                    and <Py_ssize_t>length < end - position
                    and <long long>length <= self.max_message_bytes
                    and self.max_part_count > 0
                ):
                    position += <Py_ssize_t>length + 1
                    if not self._topic_filter._match(head + 2, <Py_ssize_t>length - 1):
                        self.filtered_count += 1
                        continue
                    self.message_count += 1
                    at[0] = position
                    return _new_bytes(<const char *>head + 2, <Py_ssize_t>length - 1)
                position += HEAD_BYTES_MAX if head[0] == SHORT_FRAME_LIMIT else 2
            else:  # near the end of the TSDU, or begun in the last one: octet by octet
                wanted = 2
                if self._head_bytes and self._head[0] == SHORT_FRAME_LIMIT:
                    wanted = HEAD_BYTES_MAX
                while self._head_bytes < wanted and position < end:
                    self._head[self._head_bytes] = data[position]
                    self._head_bytes += 1
                    position += 1
                    wanted = HEAD_BYTES_MAX if self._head[0] == SHORT_FRAME_LIMIT else 2
                if self._head_bytes < wanted:
                    break  # the frame's head goes on in the next TSDU
                self._head_bytes = 0
                head = self._head
            if head[0] == SHORT_FRAME_LIMIT:
                length = mcast_get64(head + 1)
                self._more = head[9] & MORE
            else:
                length = head[0]
                self._more = head[1] & MORE
            if length == 0:
                self._give_up()
                break
            length -= 1  # the flags octet
            if (
                self._too_long
                or self._total_bytes > self.max_message_bytes
                or length > <uint64_t>(self.max_message_bytes - self._total_bytes)
                or self._part_count >= self.max_part_count
            ):
                self._note_too_long()
                if length > <uint64_t>(end - position):
                    self._reset()  # whatever it claims, the next offset leads to the next message
                    break
                position += <Py_ssize_t>length
                if not self._more:
                    self._start_message()
                continue
            self._total_bytes += <long long>length
            if length <= <uint64_t>(end - position):
                message = self._end_frame(data + position, <Py_ssize_t>length)
                position += <Py_ssize_t>length
                if message is not None:
                    at[0] = position
                    Py_INCREF(message)
                    return <PyObject *>message
            else:
                self._size_left = self._body_size = <long long>length
                self._body_bytes = self._body_room = 0
        at[0] = end
        return NULL

    cdef object _end_frame(self, const uint8_t *body, Py_ssize_t size):
        """A part that lies whole in the TSDU; the message it ends, or None."""
        cdef bint wanted = not self._rejected
        if self._part_count == 0:
            wanted = self._topic_filter._match(body, size)
        return self._end_part(
            PyBytes_FromStringAndSize(<const char *>body, size) if wanted else None
        )

    cdef object _end_body(self):
        """A part that came in several TSDUs; the message it ends, or None."""
        cdef bytes part = None
        if self._body != NULL:
            part = <bytes>self._body
            Py_XDECREF(self._body)
            self._body = NULL
        self._size_left = -1
        if self._part_count == 0 and not self._topic_filter._match(
            <const uint8_t *>PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part)
        ):
            part = None
        return self._end_part(part)

    cdef object _end_part(self, bytes part):
        """Take a whole part, None if the message is rejected; the message it ends, or None."""
        cdef list parts
        if self._part_count == 0:
            if not self._more:  # the usual message
                if part is None:
                    self.filtered_count += 1
                else:
                    self.message_count += 1
                self._total_bytes = 0
                return part
            self._rejected = part is None
            self._parts = None if self._rejected else []
        self._part_count += 1
        if not self._rejected:
            self._parts.append(part)
        if self._more:
            return None
        parts = self._parts
        if self._rejected:
            self.filtered_count += 1
        else:
            self.message_count += 1
        self._start_message()
        return None if parts is None else tuple(parts)

    cdef int _grow_body(self, const uint8_t *data, long long size) except -1:
        cdef long long room
        if self._rejected:
            return 0
        if self._body_bytes + size > self._body_room:
            room = max(2 * self._body_room, self._body_bytes + size, FIRST_BODY_BYTES)
            room = min(room, self._body_size)
            if self._body == NULL:
                self._body = _new_bytes(NULL, <Py_ssize_t>room)
            else:
                _PyBytes_Resize(&self._body, <Py_ssize_t>room)
            self._body_room = room
        memcpy(_bytes_data(self._body) + self._body_bytes, data, <size_t>size)
        self._body_bytes += size
        return 0

    cdef inline void _start_message(self) noexcept:
        self._parts = None
        self._part_count = 0
        self._rejected = False
        self._too_long = False
        self._total_bytes = 0

    cdef void _note_too_long(self) noexcept:
        """Drop the message under way, whose frames are skipped from now on."""
        if not self._too_long:
            self.too_long_count += 1
            self._start_message()
            self._too_long = True

    cdef void _reset(self) noexcept:
        cdef PyObject *body = self._body
        self.in_step = False
        self._start_message()
        self._head_bytes = 0
        self._size_left = -1
        self._more = False
        self._body = NULL
        Py_XDECREF(body)

    cdef void _give_up(self) noexcept:
        self.malformed_count += 1
        self._reset()


cdef inline void _fill_buffer(
    Py_buffer *buffer, uint8_t *data, Py_ssize_t size, int flags
) noexcept:
    """All but the owner; PyBuffer_FillInfo would leak the None that Cython puts there first."""
    buffer.buf = data
    buffer.len = size
    buffer.itemsize = 1
    buffer.readonly = 0
    buffer.ndim = 1
    buffer.format = NULL
    buffer.shape = NULL
    buffer.strides = NULL
    buffer.suboffsets = NULL
    buffer.internal = NULL
    if flags & PyBUF_FORMAT:
        buffer.format = <char *>b"B"
    if flags & PyBUF_ND:
        buffer.shape = &buffer.len
    if (flags & PyBUF_STRIDES) == PyBUF_STRIDES:
        buffer.strides = &buffer.itemsize


@cython.final
cdef class _Block:
    """Zeroed memory that lives as long as anyone looks at it; pages are touched on first use."""

    cdef uint8_t *data
    cdef Py_ssize_t size

    def __cinit__(self, size_t count, size_t item_bytes):
        self.data = <uint8_t *>PyMem_RawCalloc(count, item_bytes)
        if self.data == NULL:
            raise MemoryError
        self.size = <Py_ssize_t>(count * item_bytes)
        self._ask_for_huge_pages()

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    cdef void _ask_for_huge_pages(self) noexcept:
        """Fewer page faults and misses of the TLB, where the block has room for such pages."""
        cdef size_t first = (<size_t>self.data + HUGE_PAGE_BYTES - 1) & ~<size_t>(HUGE_PAGE_BYTES - 1)
        cdef size_t end = (<size_t>self.data + self.size) & ~<size_t>(HUGE_PAGE_BYTES - 1)
        if first < end:
            madvise(<void *>first, end - first, MADV_HUGEPAGE)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.obj = self
        _fill_buffer(buffer, self.data, self.size, flags)


@cython.final
cdef class TransmitSlots:
    """As ``reference.TransmitSlots``. The numbers are read-only here."""

    cdef _Block _block
    cdef object _view
    cdef uint32_t *_lengths
    cdef long long *_completed
    cdef uint8_t _header[14]
    cdef long long _slot_bytes
    cdef long long _slot_count
    cdef long long _room  # bytes of stream in a full packet
    cdef long long _open_slot
    cdef uint8_t *_stream  # where the open packet's bytes of stream begin
    cdef long long _open_bytes
    cdef long long _message_start
    cdef long long _unsent_message_base
    cdef public long long max_stream_bytes
    cdef readonly long long message_count
    cdef readonly long long next
    cdef readonly long long trail
    cdef readonly long long unsent
    cdef public long long unsent_limit

    def __cinit__(
        self, bytes tsi not None, long long dport, long long tsdu_bytes, long long slot_count,
        long long first_sqn=0
    ):
        if len(tsi) != 8 or not 0 < dport < 65536:
            raise ValueError("a TSI has 8 bytes and a port is 1 to 65535")
        if not 16 <= tsdu_bytes <= 65_000 or slot_count < 4 or first_sqn < 0:
            raise ValueError(
                "tsdu_bytes is 16 to 65000, slot_count 4 or more, first_sqn not negative"
            )
        cdef bytes header = tsi[6:8] + int(dport).to_bytes(2, "big") + b"\x04\0\0\0" + tsi[:6]
        memcpy(self._header, PyBytes_AS_STRING(header), 14)
        self._slot_bytes = DATA_HEADER_BYTES + tsdu_bytes
        self._slot_count = slot_count
        self._room = tsdu_bytes - OFFSET_BYTES
        self._block = _Block(slot_count, self._slot_bytes)
        self._view = memoryview(self._block)
        self._lengths = <uint32_t *>PyMem_RawCalloc(slot_count, sizeof(uint32_t))
        self._completed = <long long *>PyMem_RawCalloc(slot_count, sizeof(long long))
        if self._lengths == NULL or self._completed == NULL:
            raise MemoryError
        self._message_start = NO_MESSAGE_START
        self.trail = self.unsent = self.next = first_sqn
        self.unsent_limit = slot_count // 2
        self.max_stream_bytes = (self.unsent_limit - 1) * self._room
        self._open_slot = first_sqn % slot_count
        self._find_stream()

    def __dealloc__(self):
        PyMem_RawFree(self._lengths)
        PyMem_RawFree(self._completed)

    @property
    def slot_bytes(self):
        """Bytes of a full packet, header included."""
        return self._slot_bytes

    @property
    def open_bytes(self):
        """Bytes of stream in the open packet, 0 when there is nothing to seal."""
        return self._open_bytes

    @property
    def unsent_message_count(self):
        """Messages of which at least the last byte has not been handed out by ``take_run``."""
        return self.message_count - self._unsent_message_base

    def append(self, parts):
        """As ``reference.TransmitSlots.append``."""
        cdef PyObject *only = NULL
        if PyTuple_CheckExact(parts):
            if PyTuple_GET_SIZE(parts) == 1:
                only = <PyObject *>PyTuple_GET_ITEM(parts, 0)
        elif PyList_CheckExact(parts):
            if PyList_GET_SIZE(parts) == 1:
                only = <PyObject *>PyList_GET_ITEM(parts, 0)
        if only != NULL and PyBytes_CheckExact(<object>only):
            return self._append_bytes(<object>only) != 0
        return self._append_parts(parts) != 0

    def append_many(self, messages, Py_ssize_t start, Py_ssize_t end):
        """As ``reference.TransmitSlots.append_many``."""
        cdef Py_ssize_t index
        cdef object message
        cdef int done
        for index in range(start, end):
            # Asked anew each time: a message's buffer code may run Python that changes the list.
            if PyList_CheckExact(messages) and 0 <= index < PyList_GET_SIZE(messages):
                message = <object>PyList_GET_ITEM(messages, index)
            elif PyTuple_CheckExact(messages) and 0 <= index < PyTuple_GET_SIZE(messages):
                message = <object>PyTuple_GET_ITEM(messages, index)
            else:
                message = messages[<object>index]
            if PyBytes_CheckExact(message):
                done = self._append_bytes(message)
            else:
                done = self._append_parts((message,))
            if not done:
                return index
        return end

    def seal(self):
        """As ``reference.TransmitSlots.seal``."""
        self._seal()

    def take_run(self, long long max_packet_count):
        """As ``reference.TransmitSlots.take_run``."""
        cdef long long first = self.unsent % self._slot_count
        cdef long long count = self._run(first, min(max_packet_count, self.next - self.unsent))
        if count == 0:
            return None
        self._hand_out(count)
        return self._view_of(first, count), self._lengths[first]

    def repair_run(self, long long sqn, long long max_packet_count):
        """As ``reference.TransmitSlots.repair_run``."""
        if not self.trail <= sqn < self.unsent:
            return None
        cdef long long first = sqn % self._slot_count
        cdef long long count = self._run(first, min(max_packet_count, self.unsent - sqn))
        if count == 0:
            return None
        cdef long long slot
        cdef uint8_t *packet
        for slot in range(first, first + count):
            packet = self._block.data + slot * self._slot_bytes
            packet[4] = RDATA
            mcast_put16(packet + 6, 0)
            mcast_put32(packet + 20, <uint32_t>self.trail)
            mcast_put16(packet + 6, mcast_checksum(packet, self._lengths[slot]))
        return self._view_of(first, count), self._lengths[first]

    def advance(self, long long trail):
        """As ``reference.TransmitSlots.advance``."""
        self.trail = max(self.trail, min(trail, self.unsent))

    cdef inline int _append_bytes(self, bytes message) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(message)
        if not self._admit(size + (2 if size < 254 else 10)):
            return 0
        self._write_frame(<const uint8_t *>PyBytes_AS_STRING(message), size, 0)
        self.message_count += 1
        if self._open_bytes == self._room:
            self._seal()
        return 1

    cdef int _append_parts(self, parts) except -1:
        cdef Py_buffer *buffers
        cdef Py_ssize_t part_count, index
        cdef Py_ssize_t held = 0
        cdef long long stream_bytes = 0
        cdef list views = [
            part if PyBytes_CheckExact(part) else memoryview(part).cast("B") for part in parts
        ]
        part_count = len(views)
        if part_count == 0:
            raise ValueError("a message has at least one part")
        buffers = <Py_buffer *>PyMem_RawCalloc(part_count, sizeof(Py_buffer))
        if buffers == NULL:
            raise MemoryError
        try:
            for held in range(part_count):
                PyObject_GetBuffer(views[held], &buffers[held], PyBUF_SIMPLE)
                stream_bytes += buffers[held].len + (2 if buffers[held].len < 254 else 10)
            held = part_count
            if not self._admit(stream_bytes):
                return 0
            for index in range(part_count):
                self._write_frame(
                    <const uint8_t *>buffers[index].buf,
                    buffers[index].len,
                    MORE if index < part_count - 1 else 0,
                )
        finally:
            for index in range(held):
                PyBuffer_Release(&buffers[index])
            PyMem_RawFree(buffers)
        self.message_count += 1
        if self._open_bytes == self._room:
            self._seal()
        return 1

    cdef inline int _admit(self, long long stream_bytes) except -1:
        """1 if a message of this length may be written now, 0 if not yet; marks its start."""
        cdef long long packet_count = 1
        cdef long long end = self._open_bytes + stream_bytes
        if stream_bytes > self.max_stream_bytes:
            raise ValueError(f"a message of {stream_bytes} bytes does not fit the transmit window")
        if end > self._room:
            packet_count = (end + self._room - 1) // self._room
        if self.next - self.unsent + packet_count > self.unsent_limit:
            return 0
        if self._message_start == NO_MESSAGE_START:
            self._message_start = self._open_bytes
        return 1

    cdef inline void _write_frame(
        self, const uint8_t *body, Py_ssize_t size, uint8_t flags
    ) noexcept:
        cdef uint8_t head[HEAD_BYTES_MAX]
        cdef uint8_t *place
        if size < 254:
            if self._open_bytes and size + 2 <= self._room - self._open_bytes:
                place = self._stream + self._open_bytes
                place[0] = <uint8_t>(size + 1)
                place[1] = flags
                memcpy(place + 2, body, size)
                self._open_bytes += size + 2
                return
            head[0] = <uint8_t>(size + 1)
            head[1] = flags
            self._write(head, 2)
        else:
            head[0] = SHORT_FRAME_LIMIT
            mcast_put64(head + 1, <uint64_t>size + 1)
            head[9] = flags
            self._write(head, HEAD_BYTES_MAX)
        self._write(body, size)

    cdef void _write(self, const uint8_t *data, long long size) noexcept:
        cdef long long take
        while size > 0:
            if self._open_bytes == self._room:
                self._seal()
            if self._open_bytes == 0:
                self.trail = max(self.trail, self.next - self._slot_count + 1)
            take = min(self._room - self._open_bytes, size)
            memcpy(self._stream + self._open_bytes, data, <size_t>take)
            self._open_bytes += take
            data += take
            size -= take

    cdef void _seal(self) noexcept:
        if self._open_bytes == 0:
            return
        cdef uint8_t *packet = self._stream - (DATA_HEADER_BYTES + OFFSET_BYTES)
        cdef uint32_t length = <uint32_t>(DATA_HEADER_BYTES + OFFSET_BYTES + self._open_bytes)
        if self._message_start == NO_MESSAGE_START and self._open_bytes < self._room:
            self._message_start = self._open_bytes
        memcpy(packet, self._header, 14)
        mcast_put16(packet + 14, <uint16_t>(length - DATA_HEADER_BYTES))
        mcast_put32(packet + 16, <uint32_t>self.next)
        mcast_put32(packet + 20, <uint32_t>self.trail)
        mcast_put16(packet + 24, <uint16_t>self._message_start)
        mcast_put16(packet + 6, mcast_checksum(packet, length))
        self._lengths[self._open_slot] = length
        self._completed[self._open_slot] = self.message_count
        self.next += 1
        self._open_bytes = 0
        self._message_start = NO_MESSAGE_START
        self._open_slot += 1
        if self._open_slot == self._slot_count:
            self._open_slot = 0
        self._find_stream()

    cdef inline void _find_stream(self) noexcept:
        self._stream = (
            self._block.data + self._open_slot * self._slot_bytes
            + (DATA_HEADER_BYTES + OFFSET_BYTES)
        )

    cdef inline void _hand_out(self, long long count) noexcept:
        self.unsent += count
        self._unsent_message_base = self._completed[(self.unsent - 1) % self._slot_count]

    cdef inline Py_ssize_t _run_bytes(self, long long first, long long count) noexcept:
        return (count - 1) * self._slot_bytes + self._lengths[first + count - 1]

    cdef long long _run(self, long long first, long long packet_count) noexcept:
        """How many packets from slot ``first`` on lie end to end in equal segments."""
        cdef long long end = first + 1
        cdef long long last
        if packet_count <= 0:
            return 0
        last = min(first + packet_count, self._slot_count)
        if self._lengths[first] == self._slot_bytes:
            while end < last and self._lengths[end] == self._slot_bytes:
                end += 1
            if end < last:
                end += 1
        return end - first

    cdef object _view_of(self, long long first, long long count):
        cdef long long last = first + count - 1
        return self._view[first * self._slot_bytes:last * self._slot_bytes + self._lengths[last]]


@cython.final
cdef class TokenBucket:
    """As ``reference.TokenBucket``."""

    cdef double _burst_ns
    cdef double _full_at_ns
    cdef double _ns_per_byte

    def __cinit__(self, double bits_per_s, double burst_bytes):
        self.set_rate(bits_per_s, burst_bytes)

    def set_rate(self, double bits_per_s, double burst_bytes):
        """As ``reference.TokenBucket.set_rate``."""
        self._ns_per_byte = 0.0 if bits_per_s == INFINITY else 8e9 / bits_per_s
        self._burst_ns = burst_bytes * self._ns_per_byte

    def available_bytes(self, long long now_ns):
        """As ``reference.TokenBucket.available_bytes``."""
        return self._available(now_ns)

    def spend(self, long long now_ns, long long size_bytes):
        """As ``reference.TokenBucket.spend``."""
        self._spend(now_ns, size_bytes)

    def ready_at_ns(self, double size_bytes):
        """As ``reference.TokenBucket.ready_at_ns``."""
        return self._ready_at(size_bytes)

    cdef inline double _available(self, long long now_ns) noexcept:
        if self._ns_per_byte == 0.0:
            return INFINITY
        return (self._burst_ns - max(0.0, self._full_at_ns - now_ns)) / self._ns_per_byte

    cdef inline void _spend(self, long long now_ns, long long size_bytes) noexcept:
        self._full_at_ns = (
            max(self._full_at_ns, <double>now_ns) + size_bytes * self._ns_per_byte
        )

    cdef inline long long _ready_at(self, double size_bytes) noexcept:
        cdef double wanted_ns = min(size_bytes * self._ns_per_byte, self._burst_ns)
        return <long long>(self._full_at_ns - self._burst_ns + wanted_ns) + 1


@cython.final
@cython.no_gc_clear  # _timer points into the baton
cdef class SendSchedule:
    """As ``reference.SendSchedule``."""

    cdef TransmitSlots _slots
    cdef long long _packet_cost_bytes
    cdef readonly TokenBucket bucket
    cdef readonly long long coalesce_ns
    cdef readonly long long quantum_bytes
    cdef readonly long long run_packets
    cdef public long long armed_below
    cdef public long long armed_until_ns
    cdef public long long data_left_ns
    cdef public long long data_sent_ns
    cdef public bint is_watched
    cdef public long long open_until_ns
    cdef readonly long long sent_bytes
    cdef Baton _baton  # in which _timer lives, once it attends
    cdef SendTimer *_timer
    cdef SendTimer _own_timer

    def __cinit__(
        self, TransmitSlots slots not None, TokenBucket bucket not None, *,
        long long coalesce_ns, long long quantum_bytes, long long run_packets
    ):
        self._slots = slots
        self._packet_cost_bytes = slots._slot_bytes + UDP_IP_BYTES
        self.bucket = bucket
        self.coalesce_ns = coalesce_ns
        self.quantum_bytes = quantum_bytes
        self.run_packets = run_packets
        self.armed_below = slots.next
        self.data_sent_ns = self.data_left_ns = -coalesce_ns
        self._timer = &self._own_timer
        self._timer.due_ns = NEVER

    @property
    def due_ns(self):
        """When what is pending has to leave; 2^62 if nothing is."""
        return self._timer.due_ns

    @property
    def sent_packets(self):
        """Packets that have left."""
        return self._timer.sent_packets

    cdef void _attend(self, Baton baton, SendTimer *timer) noexcept:
        timer[0] = self._timer[0]
        timer.is_used = 1
        self._baton = baton
        self._timer = timer
        self.is_watched = True

    def leave(self):
        """As ``reference.SendSchedule.leave``."""
        self._own_timer = self._timer[0]
        self._own_timer.is_used = 0
        self._timer.is_used = 0
        self._timer = &self._own_timer
        self._baton = None

    @property
    def has_pending(self):
        """True while data waits to leave for the first time."""
        return self._has_pending()

    def is_due(self, long long now_ns, *, bint alone):
        """As ``reference.SendSchedule.is_due``."""
        return self._is_due(now_ns, alone)

    def close(self):
        """As ``reference.SendSchedule.close``."""
        self._close()

    def take_run(self, long long now_ns):
        """As ``reference.SendSchedule.take_run``."""
        cdef TransmitSlots slots = self._slots
        cdef long long first = slots.unsent % slots._slot_count
        cdef long long count = self._affordable_run(now_ns)
        if count == 0:
            return None
        slots._hand_out(count)
        self._note(now_ns, count, slots._run_bytes(first, count))
        return slots._view_of(first, count), slots._lengths[first]

    def wait(self, *, bint armed):
        """As ``reference.SendSchedule.wait``."""
        self._wait(armed)

    cdef inline bint _is_due(self, long long now_ns, bint alone) noexcept:
        cdef long long since_ns = now_ns - self.data_sent_ns
        if not alone:
            return since_ns >= self.coalesce_ns
        return (
            since_ns >= self.coalesce_ns // ALONE_SHARE
            and now_ns - self.data_left_ns >= self.coalesce_ns // PAUSE_SHARE
        )

    cdef inline bint _has_pending(self) noexcept:
        return self._slots.unsent < self._slots.next or self._slots._open_bytes > 0

    cdef inline void _close(self) noexcept:
        self.armed_until_ns = self.open_until_ns = 0

    cdef long long _affordable_run(self, long long now_ns) noexcept:
        """Packets of the next run that the rate allows; 0: none, or none is there."""
        cdef TransmitSlots slots = self._slots
        cdef double allowed = self.bucket._available(now_ns)
        cdef double affordable
        if allowed <= 0 or slots.unsent == slots.next:
            return 0
        affordable = min(<double>self.run_packets, allowed / self._packet_cost_bytes)
        return slots._run(
            slots.unsent % slots._slot_count,
            min(max(1, <long long>affordable), slots.next - slots.unsent),
        )

    cdef inline void _note(
        self, long long now_ns, long long packet_count, Py_ssize_t size_bytes
    ) noexcept:
        self.bucket._spend(now_ns, size_bytes + packet_count * UDP_IP_BYTES)
        self._timer.sent_packets += packet_count
        self.sent_bytes += size_bytes
        self.data_sent_ns = self.data_left_ns = now_ns

    cdef void _wait(self, bint armed) noexcept:
        cdef TransmitSlots slots = self._slots
        cdef long long due_ns, ready_ns
        cdef long long packet_limit = self.run_packets
        if not self._has_pending():
            self._timer.due_ns = NEVER
            self.armed_until_ns = 0
            return
        due_ns = self.data_sent_ns + self.coalesce_ns
        ready_ns = self.bucket._ready_at(<double>self.quantum_bytes)
        if ready_ns > due_ns:
            due_ns = ready_ns
            packet_limit = slots.unsent_limit
        self._timer.due_ns = due_ns
        if armed:
            self.armed_below = slots.unsent + packet_limit
            self.armed_until_ns = due_ns


@cython.final
cdef class ReceiveSlots:
    """As ``reference.ReceiveSlots``."""

    cdef readonly FrameDecoder decoder
    cdef uint8_t _ports[4]
    cdef uint8_t _gsi[6]
    cdef dict _store
    cdef public long long duplicate_count
    cdef public long long heard_ns
    cdef public long long lead
    cdef public long long odd_from
    cdef public long long next
    cdef public long long packet_count
    cdef public long long payload_bytes
    cdef public long long repair_count
    cdef public long long stored_bytes

    def __cinit__(
        self, bytes tsi not None, long long dport, FrameDecoder decoder not None,
        long long first_sqn
    ):
        if len(tsi) != 8 or not 0 < dport < 65536:
            raise ValueError("a TSI has 8 bytes and a port is 1 to 65535")
        cdef const uint8_t *raw = <const uint8_t *>PyBytes_AS_STRING(tsi)
        memcpy(self._gsi, raw, 6)
        memcpy(self._ports, raw + 6, 2)
        mcast_put16(self._ports + 2, <uint16_t>dport)
        self._store = {}
        self.odd_from = -1
        self.decoder = decoder
        self.next = first_sqn
        self.lead = first_sqn - 1

    @property
    def stored_count(self):
        """Early packets held."""
        return len(self._store)

    def holds(self, long long sqn):
        """True if the early packet ``sqn`` is held."""
        return sqn in self._store

    def take_in_order(
        self, data, Py_ssize_t start, Py_ssize_t segment_bytes, list out not None
    ):
        """As ``reference.ReceiveSlots.take_in_order``."""
        cdef Py_buffer buffer
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            return self._take(<const uint8_t *>buffer.buf, buffer.len, start, segment_bytes, out)
        finally:
            PyBuffer_Release(&buffer)

    cdef Py_ssize_t _take(
        self, const uint8_t *data, Py_ssize_t size, Py_ssize_t start, Py_ssize_t segment_bytes,
        list out
    ) except -1:
        cdef const uint8_t *packet
        cdef Py_ssize_t length
        while 0 <= start < size:
            packet = data + start
            length = min(segment_bytes, size - start)
            if (
                not self._is_plain(packet, length)
                or mcast_get32(packet + 16) != <uint32_t>self.next
            ):
                break
            self._count(packet)
            self.decoder._decode(packet + DATA_HEADER_BYTES, length - DATA_HEADER_BYTES, out)
            self.lead = max(self.lead, self.next)
            self.next += 1
            start += length
            if self._store and self.next in self._store:
                break
        return min(start, size)

    cdef Py_ssize_t _admit(
        self, const uint8_t *data, Py_ssize_t size, Py_ssize_t segment_bytes
    ) noexcept:
        """``_take`` without decoding: the packets up to the place returned are to be decoded."""
        cdef const uint8_t *packet
        cdef Py_ssize_t length
        cdef Py_ssize_t start = 0
        while start < size:
            packet = data + start
            length = min(segment_bytes, size - start)
            if (
                not self._is_plain(packet, length)
                or mcast_get32(packet + 16) != <uint32_t>self.next
            ):
                break
            self._count(packet)
            self.lead = max(self.lead, self.next)
            self.next += 1
            start += length
        return start

    def store_run(
        self, data, Py_ssize_t start, Py_ssize_t segment_bytes, long long stored_bytes_limit
    ):
        """As ``reference.ReceiveSlots.store_run``."""
        cdef Py_buffer buffer
        cdef const uint8_t *packet
        cdef Py_ssize_t length
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            while 0 <= start < buffer.len:
                packet = <const uint8_t *>buffer.buf + start
                length = min(segment_bytes, buffer.len - start)
                if (
                    not self._is_plain(packet, length)
                    or mcast_get32(packet + 16) != <uint32_t>(self.lead + 1)
                    or self.stored_bytes + length > stored_bytes_limit
                    or self.lead + 1 - self._trail_distance(packet) > self.next
                ):
                    break
                self._count(packet)
                self.lead += 1
                self._store[self.lead] = PyBytes_FromStringAndSize(<const char *>packet, length)
                self.stored_bytes += length
                start += length
            return min(start, buffer.len)
        finally:
            PyBuffer_Release(&buffer)

    def numbers_of(self, data, Py_ssize_t start, Py_ssize_t segment_bytes):
        """As ``reference.ReceiveSlots.numbers_of``."""
        cdef Py_buffer buffer
        cdef const uint8_t *packet
        cdef long long sqn
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            if 0 <= start < buffer.len:
                packet = <const uint8_t *>buffer.buf + start
                if self._is_plain(packet, min(segment_bytes, buffer.len - start)):
                    sqn = self.lead + <int32_t>(mcast_get32(packet + 16) - <uint32_t>self.lead)
                    return sqn, sqn - self._trail_distance(packet)
        finally:
            PyBuffer_Release(&buffer)
        return None

    def store(self, long long sqn, packet):
        """As ``reference.ReceiveSlots.store``."""
        cdef bytes copy = bytes(packet)
        if PyBytes_GET_SIZE(copy) < DATA_HEADER_BYTES:
            raise ValueError(f"a data packet has at least {int(DATA_HEADER_BYTES)} bytes")
        if sqn < self.next or sqn in self._store:
            self.duplicate_count += 1
            return False
        self._count(<const uint8_t *>PyBytes_AS_STRING(copy))
        self._store[sqn] = copy
        self.stored_bytes += PyBytes_GET_SIZE(copy)
        self.lead = max(self.lead, sqn)
        return True

    def release(self, list out not None):
        """As ``reference.ReceiveSlots.release``."""
        cdef bytes packet
        cdef const uint8_t *raw
        while self._store:
            packet = self._store.pop(self.next, None)
            if packet is None:
                break
            raw = <const uint8_t *>PyBytes_AS_STRING(packet)
            self.stored_bytes -= PyBytes_GET_SIZE(packet)
            self.next += 1
            if raw[5]:
                return packet
            self.decoder._decode(
                raw + DATA_HEADER_BYTES, PyBytes_GET_SIZE(packet) - DATA_HEADER_BYTES, out
            )
        return None

    def skip_to(self, long long sqn):
        """As ``reference.ReceiveSlots.skip_to``."""
        self.next = sqn
        self.lead = max(self.lead, sqn - 1)
        self.decoder._reset()

    cdef inline bint _is_plain(self, const uint8_t *packet, Py_ssize_t length) noexcept:
        return (
            length > DATA_HEADER_BYTES
            and (packet[4] == ODATA or packet[4] == RDATA)
            and packet[5] == 0
            and memcmp(packet, self._ports, 4) == 0
            and memcmp(packet + 8, self._gsi, 6) == 0
            and mcast_get16(packet + 14) == length - DATA_HEADER_BYTES
            and (packet[6] != 0 or packet[7] != 0)
            and self._trail_distance(packet) < HALF_SPACE
            and mcast_word_sum(packet, length) == 0xFFFF
        )

    cdef inline uint32_t _trail_distance(self, const uint8_t *packet) noexcept:
        """How far the packet's trail lies behind its own number."""
        return mcast_get32(packet + 16) - mcast_get32(packet + 20)

    cdef inline void _count(self, const uint8_t *packet) noexcept:
        self.packet_count += 1
        self.repair_count += packet[4] == RDATA
        self.payload_bytes += mcast_get16(packet + 14)


cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    ctypedef unsigned short sa_family_t

    struct iovec:
        void *iov_base
        size_t iov_len

    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type

    ctypedef struct sockaddr_t "struct sockaddr":
        sa_family_t sa_family

    cmsghdr *CMSG_FIRSTHDR(msghdr *header)
    cmsghdr *CMSG_NXTHDR(msghdr *header, cmsghdr *control)
    unsigned char *CMSG_DATA(cmsghdr *control)
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)
    int sendmmsg(int fd, mmsghdr *headers, unsigned int count, int flags)
    int recvmmsg(int fd, mmsghdr *headers, unsigned int count, int flags, void *timeout)
    ssize_t sendmsg(int fd, const msghdr *header, int flags)
    ssize_t sendto(
        int fd, const void *data, size_t size, int flags, const sockaddr_t *name, socklen_t length
    )
    const int AF_INET
    const int MSG_CTRUNC
    const int MSG_DONTWAIT
    const int MSG_TRUNC
    const int SOL_SOCKET

cdef enum:  # as in reference_io.py
    SOL_UDP = 17
    SO_RXQ_OVFL = 40
    UDP_SEGMENT = 103
    UDP_GRO = 104
    SOCKADDR_BYTES = 28
    CONTROL_BYTES = 128
    RUN_SEGMENT_COUNT = 64
    RUN_BYTES = 65_487


@cython.final
cdef class _Slab:
    """One datagram's place in a reader's memory; a view of it has the size set when it was made."""

    cdef _Block block
    cdef uint8_t *data
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.obj = self
        _fill_buffer(buffer, self.data, self.size, flags)


@cython.final
cdef class UdpReader:
    """As ``reference_io.UdpReader``."""

    cdef readonly dict overflows
    cdef public long long truncated_count
    cdef public long long empty_count
    cdef unsigned int _batch_count
    cdef list _slabs
    cdef mmsghdr *_headers
    cdef iovec *_iovecs
    cdef uint8_t *_names
    cdef uint8_t *_control
    cdef long long _overflow  # the last that was noted, and for whom
    cdef int _overflow_fd
    cdef bytes _last_source  # most datagrams come from where the one before came from

    def __cinit__(self, long long batch_count=32, long long buffer_bytes=65_536):
        cdef _Block block
        cdef _Slab slab
        cdef long long index
        if batch_count < 1 or buffer_bytes < 1:
            raise ValueError(f"batch of {batch_count} x {buffer_bytes} bytes; both must be >= 1")
        block = _Block(batch_count, buffer_bytes)
        self.overflows = {}
        self._batch_count = <unsigned int>batch_count
        self._headers = <mmsghdr *>PyMem_RawCalloc(batch_count, sizeof(mmsghdr))
        self._iovecs = <iovec *>PyMem_RawCalloc(batch_count, sizeof(iovec))
        self._names = <uint8_t *>PyMem_RawCalloc(batch_count, SOCKADDR_BYTES)
        self._control = <uint8_t *>PyMem_RawCalloc(batch_count, CONTROL_BYTES)
        if not (self._headers and self._iovecs and self._names and self._control):
            raise MemoryError
        self._last_source = b""
        self._overflow = -1
        self._slabs = []
        for index in range(batch_count):
            slab = _Slab.__new__(_Slab)
            slab.block = block
            slab.data = block.data + index * buffer_bytes
            self._slabs.append(slab)
            self._iovecs[index].iov_base = slab.data
            self._iovecs[index].iov_len = <size_t>buffer_bytes
            self._headers[index].msg_hdr.msg_name = self._names + index * SOCKADDR_BYTES
            self._headers[index].msg_hdr.msg_iov = &self._iovecs[index]
            self._headers[index].msg_hdr.msg_iovlen = 1
            self._headers[index].msg_hdr.msg_control = self._control + index * CONTROL_BYTES
            self._renew(&self._headers[index].msg_hdr)

    def __dealloc__(self):
        PyMem_RawFree(self._headers)
        PyMem_RawFree(self._iovecs)
        PyMem_RawFree(self._names)
        PyMem_RawFree(self._control)

    def read(self, int fd):
        """As ``reference_io.UdpReader.read``."""
        cdef int index
        cdef Py_ssize_t length
        cdef Py_ssize_t segment_bytes
        cdef list received = []
        for index in range(self._receive(fd, self._batch_count)):
            length = self._datagram(fd, index, &segment_bytes)
            if length:
                received.append((self._source(index), self._view(index, length), segment_bytes))
        return received

    cdef int _receive(self, int fd, unsigned int limit) except -1:
        cdef int count = recvmmsg(
            fd, self._headers, min(limit, self._batch_count), MSG_DONTWAIT, NULL
        )
        if count < 0:
            if errno == EAGAIN:
                return 0
            _raise(errno)
        return count

    cdef Py_ssize_t _datagram(self, int fd, int index, Py_ssize_t *segment_bytes) except -1:
        """Length of what came at ``index``, 0 if that is to be dropped; call it once for each."""
        cdef uint32_t value = 0
        cdef long long overflow = -1
        cdef msghdr *header = &self._headers[index].msg_hdr
        cdef Py_ssize_t length = self._headers[index].msg_len
        cdef int flags = header.msg_flags
        cdef cmsghdr *control
        if flags & (MSG_TRUNC | MSG_CTRUNC):
            self.truncated_count += 1
            self._renew(header)
            return 0
        segment_bytes[0] = 0
        control = CMSG_FIRSTHDR(header)
        while control != NULL:
            if control.cmsg_len >= CMSG_LEN(sizeof(uint32_t)):
                memcpy(&value, CMSG_DATA(control), sizeof(uint32_t))
                if control.cmsg_level == SOL_UDP and control.cmsg_type == UDP_GRO:
                    segment_bytes[0] = value
                elif control.cmsg_level == SOL_SOCKET and control.cmsg_type == SO_RXQ_OVFL:
                    overflow = value
            control = CMSG_NXTHDR(header, control)
        self._renew(header)
        if overflow >= 0 and (overflow != self._overflow or fd != self._overflow_fd):
            self._overflow = overflow
            self._overflow_fd = fd
            self.overflows[fd] = overflow
        if length == 0:
            self.empty_count += 1
        elif segment_bytes[0] == 0:
            segment_bytes[0] = length
        return length

    cdef object _view(self, int index, Py_ssize_t length):
        cdef _Slab slab = <_Slab>self._slabs[index]
        slab.size = length
        return PyMemoryView_FromObject(slab)

    def forget(self, int fd):
        """As ``reference_io.UdpReader.forget``."""
        self.overflows.pop(fd, None)
        self._overflow = -1

    cdef inline void _renew(self, msghdr *header) noexcept:
        """Put back what the kernel overwrites with each datagram."""
        header.msg_namelen = SOCKADDR_BYTES
        header.msg_controllen = CONTROL_BYTES
        header.msg_flags = 0

    cdef inline bytes _source(self, int index):
        cdef const uint8_t *name = self._names + index * SOCKADDR_BYTES
        cdef Py_ssize_t size = 16
        cdef sa_family_t family = 0
        memcpy(&family, name, sizeof(family))
        if family == AF_INET:  # port in between: 2 octets, and for IPv6 the flow label's 4
            name += 4
            size = 4
        else:
            name += 8
        if PyBytes_GET_SIZE(self._last_source) != size or memcmp(
            PyBytes_AS_STRING(self._last_source), name, size
        ):
            self._last_source = PyBytes_FromStringAndSize(<const char *>name, size)
        return self._last_source


cdef struct Run:  # what a send needs all the way down
    int fd
    const sockaddr_t *name
    socklen_t name_bytes
    const uint8_t *data
    Py_ssize_t length
    Py_ssize_t segment_bytes


@cython.final
cdef class UdpWriter:
    """As ``reference_io.UdpWriter``."""

    cdef public bint gso
    cdef public bint mmsg

    def __cinit__(self):
        self.gso = self.mmsg = True

    def send(self, int fd, bytes sockaddr not None, data, Py_ssize_t segment_bytes):
        """As ``reference_io.UdpWriter.send``."""
        cdef Run run
        cdef Py_buffer buffer
        cdef uint64_t name[4]  # aligned, and 4 bytes longer than SOCKADDR_BYTES
        cdef Py_ssize_t name_bytes = PyBytes_GET_SIZE(sockaddr)
        if name_bytes > SOCKADDR_BYTES:
            raise ValueError(
                f"sockaddr of {name_bytes} bytes; at most {int(SOCKADDR_BYTES)}"
            )
        memcpy(name, PyBytes_AS_STRING(sockaddr), name_bytes)
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            if buffer.len < 1 or segment_bytes < 1:
                raise ValueError(
                    f"{buffer.len} bytes in segments of {segment_bytes}; both must be >= 1"
                )
            run.fd = fd
            run.name = <const sockaddr_t *>name
            run.name_bytes = <socklen_t>name_bytes
            run.data = <const uint8_t *>buffer.buf
            run.length = buffer.len
            run.segment_bytes = segment_bytes
            if run.length <= segment_bytes or not self.gso:
                return self._send_plain(&run)
            return self._send_runs(&run)
        finally:
            PyBuffer_Release(&buffer)

    cdef Py_ssize_t _send_runs(self, Run *run) except -1:
        cdef Py_ssize_t run_bytes = run.segment_bytes * max(
            1, min(<Py_ssize_t>RUN_SEGMENT_COUNT, RUN_BYTES // run.segment_bytes)
        )
        cdef Py_ssize_t sent = 0
        cdef Py_ssize_t chunk
        cdef int code
        while sent < run.length:
            chunk = min(run_bytes, run.length - sent)
            if chunk <= run.segment_bytes:
                code = self._sendto_errno(run, run.data + sent, chunk)
            else:
                code = self._sendmsg_errno(run, run.data + sent, chunk)
            if code == 0:
                sent += chunk
            elif sent or _is_no_room(code):
                break
            elif chunk > run.segment_bytes and _is_gso_refused(code):
                # A segment above the MTU fails plainly, too: that is not held against GSO.
                sent = self._send_plain(run)
                if sent:
                    self.gso = False
                break
            else:
                _raise(code)
        return sent

    cdef Py_ssize_t _send_plain(self, Run *run) except -1:
        cdef Py_ssize_t sent = 0
        cdef Py_ssize_t chunk
        cdef int code
        if self.mmsg and run.length > run.segment_bytes:
            sent = self._send_many(run)
            if self.mmsg:
                return sent
        while sent < run.length:
            chunk = min(run.segment_bytes, run.length - sent)
            code = self._sendto_errno(run, run.data + sent, chunk)
            if code == 0:
                sent += chunk
            elif sent or _is_no_room(code):
                break
            else:
                _raise(code)
        return sent

    cdef Py_ssize_t _send_many(self, Run *run) except -1:
        """Send with as few calls of ``sendmmsg`` as it takes; the bytes taken."""
        cdef mmsghdr headers[RUN_SEGMENT_COUNT]
        cdef iovec vectors[RUN_SEGMENT_COUNT]
        cdef Py_ssize_t sent = 0
        cdef Py_ssize_t place
        cdef int count, done, code
        while sent < run.length:
            memset(headers, 0, sizeof(headers))
            place = sent
            count = 0
            while place < run.length and count < RUN_SEGMENT_COUNT:
                vectors[count].iov_base = <void *>(run.data + place)
                vectors[count].iov_len = <size_t>min(run.segment_bytes, run.length - place)
                headers[count].msg_hdr.msg_name = <void *>run.name
                headers[count].msg_hdr.msg_namelen = run.name_bytes
                headers[count].msg_hdr.msg_iov = &vectors[count]
                headers[count].msg_hdr.msg_iovlen = 1
                place += vectors[count].iov_len
                count += 1
            done = sendmmsg(run.fd, headers, <unsigned int>count, MSG_DONTWAIT)
            code = errno
            if done < 0:
                if code == ENOSYS:
                    self.mmsg = False
                elif not sent and not _is_no_room(code):
                    _raise(code)
                return sent
            while done > 0:
                done -= 1
                count -= 1
                sent += <Py_ssize_t>min(run.segment_bytes, run.length - sent)
            if count:
                return sent
        return sent

    cdef bint _send_whole(self, Run *run) noexcept:
        """Send a run that fits one system call; False, and nothing sent, if that fails."""
        if run.length <= run.segment_bytes:
            return self._sendto_errno(run, run.data, run.length) == 0
        return self.gso and self._sendmsg_errno(run, run.data, run.length) == 0

    cdef inline int _sendto_errno(self, Run *run, const uint8_t *data, size_t size) noexcept:
        if sendto(run.fd, data, size, MSG_DONTWAIT, run.name, run.name_bytes) >= 0:
            return 0
        return errno

    cdef int _sendmsg_errno(self, Run *run, const uint8_t *data, size_t size) noexcept:
        cdef msghdr header
        cdef iovec vector
        cdef uint64_t control[4]  # aligned; CMSG_SPACE of a u16 is 24
        cdef cmsghdr *message
        cdef uint16_t segment_bytes = <uint16_t>run.segment_bytes
        memset(&header, 0, sizeof(header))
        memset(control, 0, sizeof(control))
        vector.iov_base = <void *>data
        vector.iov_len = size
        header.msg_name = <void *>run.name
        header.msg_namelen = run.name_bytes
        header.msg_iov = &vector
        header.msg_iovlen = 1
        header.msg_control = control
        header.msg_controllen = CMSG_SPACE(sizeof(segment_bytes))
        message = CMSG_FIRSTHDR(&header)
        message.cmsg_level = SOL_UDP
        message.cmsg_type = UDP_SEGMENT
        message.cmsg_len = CMSG_LEN(sizeof(segment_bytes))
        memcpy(CMSG_DATA(message), &segment_bytes, sizeof(segment_bytes))
        if sendmsg(run.fd, &header, MSG_DONTWAIT) >= 0:
            return 0
        return errno


cdef inline bint _is_no_room(int code) noexcept:
    return code == EAGAIN or code == ENOBUFS


cdef inline bint _is_gso_refused(int code) noexcept:
    return (
        code == EINVAL
        or code == EIO
        or code == ENOPROTOOPT
        or code == EOPNOTSUPP
        or code == EMSGSIZE
    )


cdef int _raise(int code) except -1:
    raise OSError(code, os.strerror(code))


cdef object ZERO = 0  # small integers are one object each


@cython.final
cdef class SendGate:
    """As ``reference.SendGate``, with two short ways; both look at the clock once.

    *Armed*, a message is added to the open packet, without a lock, and left to whoever sends it.
    *Open*, this thread takes the lock if it is free and does what the owner would do with a plain
    message: append, and send if it is time to. Anything out of the ordinary takes the long way.

    Reading the clock here is the exception to the rule that the runtime alone does: a message
    that comes after the flush was due must not wait for the loop thread, which may have to wait
    for the interpreter lock.
    """

    cdef TransmitSlots _slots
    cdef SendSchedule _schedule
    cdef UdpWriter _writer
    cdef Baton _baton
    cdef object _acquire
    cdef object _release
    cdef object _slow
    cdef object _slow_many
    cdef object _tend
    cdef long long _max_message_bytes
    cdef long long _message_limit
    cdef int _fd
    cdef uint64_t _name[4]
    cdef socklen_t _name_bytes

    def __cinit__(
        self, TransmitSlots slots not None, SendSchedule schedule not None, *,
        long long max_message_bytes, long long message_limit, lock, UdpWriter writer not None,
        int fd, bytes sockaddr not None, Baton baton, tend, slow, slow_many
    ):
        if PyBytes_GET_SIZE(sockaddr) > SOCKADDR_BYTES:
            raise ValueError(f"sockaddr of {len(sockaddr)} bytes; at most {int(SOCKADDR_BYTES)}")
        self._slots = slots
        self._schedule = schedule
        self._writer = writer
        self._baton = baton
        self._acquire = lock.acquire
        self._release = lock.release
        self._tend = tend
        self._slow = slow
        self._slow_many = slow_many
        self._max_message_bytes = max_message_bytes
        self._message_limit = message_limit
        self._fd = fd
        self._name_bytes = <socklen_t>PyBytes_GET_SIZE(sockaddr)
        memcpy(self._name, PyBytes_AS_STRING(sockaddr), self._name_bytes)

    def send(self, data, flags=0, *, timeout=None):
        """As ``reference.SendGate.send``."""
        cdef TransmitSlots slots = self._slots
        cdef SendSchedule schedule = self._schedule
        cdef long long now_ns
        if (
            flags is ZERO
            and PyBytes_CheckExact(data)
            and PyBytes_GET_SIZE(data) <= self._max_message_bytes
            and slots.message_count - slots._unsent_message_base < self._message_limit
            and schedule.armed_until_ns | schedule.open_until_ns
        ):
            now_ns = _now()
            if now_ns < schedule.armed_until_ns and slots.next < schedule.armed_below:
                if slots._append_bytes(data):
                    if slots.next >= schedule.armed_below and now_ns < schedule.open_until_ns:
                        self._send_run(now_ns)
                    self._spend(PyBytes_GET_SIZE(data) + MESSAGE_WEIGHT_BYTES)
                    return
            elif now_ns < schedule.open_until_ns and self._send_open(data, now_ns):
                self._spend(PyBytes_GET_SIZE(data) + MESSAGE_WEIGHT_BYTES)
                return
        self._slow(data, flags, timeout=timeout)

    def send_many(self, messages, *, timeout=None):
        """As ``reference.SendGate.send_many``."""
        cdef Py_ssize_t taken = 0
        cdef long long now_ns
        if PyList_CheckExact(messages) and self._schedule.open_until_ns:
            now_ns = _now()
            if now_ns < self._schedule.open_until_ns and self._are_plain(messages):
                taken = self._send_many_open(messages, now_ns)
                if taken == PyList_GET_SIZE(messages):
                    return taken
        if taken:
            return taken + self._slow_many(messages[taken:], timeout=timeout)
        return self._slow_many(messages, timeout=timeout)

    cdef bint _are_plain(self, list messages) noexcept:
        cdef Py_ssize_t index
        cdef PyObject *message
        for index in range(PyList_GET_SIZE(messages)):
            message = <PyObject *>PyList_GET_ITEM(messages, index)
            if (
                not PyBytes_CheckExact(<object>message)
                or PyBytes_GET_SIZE(<object>message) > self._max_message_bytes
            ):
                return False
        return True

    cdef inline void _spend(self, long long weight_bytes) noexcept:
        if self._baton is not None:
            self._baton._spend(weight_bytes)

    # From getting the lock to its release nothing runs Python, so nothing comes in between.

    cdef bint _send_open(self, bytes data, long long now_ns) except -1:
        """Take one message as the owner would; False, and nothing done, if that is for Python."""
        cdef SendSchedule schedule = self._schedule
        cdef bint alone = not schedule._has_pending()
        if (
            not (schedule.is_watched or schedule._is_due(now_ns, alone))
            or self._acquire(False) is not True
        ):
            return False
        if not self._can_afford(now_ns) or not self._slots._append_bytes(data):
            self._release()
            return False
        self._leave(now_ns, alone)
        return True

    cdef int _send_run(self, long long now_ns) except -1:
        """Let a full run go, if it may go now and nobody else is at it."""
        if self._can_afford(now_ns) and self._acquire(False) is True:
            self._leave(now_ns, False)
        return 0

    cdef Py_ssize_t _send_many_open(self, list messages, long long now_ns) except -1:
        """How many messages were taken."""
        cdef TransmitSlots slots = self._slots
        cdef long long run_packets = self._schedule.run_packets
        cdef Py_ssize_t index = 0
        cdef Py_ssize_t count = PyList_GET_SIZE(messages)
        cdef bint alone
        if self._acquire(False) is not True:
            return 0
        alone = not self._schedule._has_pending()
        while index < count and self._can_afford(now_ns):
            while (
                index < count
                and slots.next - slots.unsent < run_packets
                and slots.message_count - slots._unsent_message_base < self._message_limit
                and slots._append_bytes(<object>PyList_GET_ITEM(messages, index))
            ):
                index += 1
            if slots.next - slots.unsent < run_packets or not self._let_out(now_ns):
                break
        self._leave(now_ns, alone)
        self._spend(BATCH_WEIGHT_BYTES)
        return index

    cdef int _leave(self, long long now_ns, bint alone) except -1:
        """Send what is to leave now, arm for the rest, and give the lock back."""
        cdef TransmitSlots slots = self._slots
        cdef SendSchedule schedule = self._schedule
        cdef bint is_done = True
        if slots.next - slots.unsent >= schedule.run_packets:
            is_done = self._let_out(now_ns)
        if is_done and schedule._is_due(now_ns, alone):
            slots._seal()
            is_done = self._let_out(now_ns)
        if is_done:
            schedule._wait(True)
            is_done = schedule.is_watched or schedule._timer.due_ns == NEVER
        else:
            schedule._close()
        self._release()
        if schedule._baton is not None and schedule._timer.due_ns != NEVER:
            mcast_fence()
            if schedule._timer.due_ns < schedule._baton._looks_at_ns - BULK_SLEEP_NS:
                schedule._baton.wake()
        if not is_done:
            self._tend()
        return 0

    cdef inline bint _can_afford(self, long long now_ns) noexcept:
        """Whether all that is pending, and a packet more, may leave now."""
        cdef SendSchedule schedule = self._schedule
        cdef long long packets = self._slots.next - self._slots.unsent
        return schedule.bucket._available(now_ns) > packets * schedule._packet_cost_bytes

    cdef bint _let_out(self, long long now_ns) noexcept:
        """Send what is sealed; False if the system, or the rate, does not take all of it."""
        cdef TransmitSlots slots = self._slots
        cdef SendSchedule schedule = self._schedule
        cdef Run run
        cdef long long first, count
        run.fd = self._fd
        run.name = <const sockaddr_t *>self._name
        run.name_bytes = self._name_bytes
        while slots.unsent < slots.next:
            first = slots.unsent % slots._slot_count
            count = schedule._affordable_run(now_ns)
            if count == 0:
                return False
            run.data = slots._block.data + first * slots._slot_bytes
            run.length = slots._run_bytes(first, count)
            run.segment_bytes = slots._lengths[first]
            if not self._writer._send_whole(&run):
                return False
            slots._hand_out(count)
            schedule._note(now_ns, count, run.length)
            schedule.data_left_ns = _now()
        return True


@cython.final
cdef class Inbox:
    """As ``reference.Inbox``. Keeps the lists as they come; an exception is a list of its own."""

    cdef object _chunks  # deque of non-empty lists behind _head
    cdef list _head
    cdef Py_ssize_t _at  # items of _head that are gone; their places hold None
    cdef Py_ssize_t _count
    cdef public bint hold
    cdef public Baton baton
    cdef Intake _intake
    cdef public Py_ssize_t limit
    cdef readonly long long put_count

    def __cinit__(self):
        self._chunks = deque()
        self._head = []

    def __len__(self):
        self._settle()
        return self._count

    @property
    def intake(self):
        """As ``reference.Inbox.intake``."""
        return self._intake

    @intake.setter
    def intake(self, Intake intake):
        self._settle()
        self._intake = intake

    def put(self, list messages not None):
        """As ``reference.Inbox.put``."""
        self._settle()
        self._put(messages)

    cdef inline int _settle(self) except -1:
        """What the intake has not decoded yet comes before all that is put from now on."""
        if self._intake is not None and self._intake._held_count:
            self._intake._decode_all()
        return 0

    cdef inline int _put(self, list messages) except -1:
        if PyList_GET_SIZE(messages):
            self._chunks.append(messages)
            self._count += PyList_GET_SIZE(messages)
            self.put_count += PyList_GET_SIZE(messages)
        return 0

    def put_error(self, error not None):
        """As ``reference.Inbox.put_error``."""
        self._settle()
        self._chunks.append([error])
        self._count += 1

    def get_many(self, Py_ssize_t limit):
        """As ``reference.Inbox.get_many``."""
        # Making a list may collect garbage, whose finalizers may let another thread in here: after
        # the numbers were looked at, they are changed before any list is made.
        cdef list taken = [], empty = [], head
        cdef Py_ssize_t at, wanted
        cdef object first
        if self._count == 0 and self._intake is not None and self._intake._held_count:
            self._intake._decode_some(limit, taken)  # which is empty
        while self._count and PyList_GET_SIZE(taken) < limit:
            self._step()
            head, at = self._head, self._at
            first = <object>PyList_GET_ITEM(head, at)
            if isinstance(first, Exception):
                if PyList_GET_SIZE(taken):
                    break
                self._at += 1
                self._count -= 1
                raise first
            wanted = min(PyList_GET_SIZE(head) - at, limit - PyList_GET_SIZE(taken))
            self._count -= wanted
            if at == 0 and wanted == PyList_GET_SIZE(head) and empty is not None:
                self._head = empty
                empty = None
                if PyList_GET_SIZE(taken):
                    taken.extend(head)
                else:
                    taken = head
            else:
                self._at += wanted
                taken.extend(PyList_GetSlice(head, at, at + wanted))
        if self.baton is not None:
            self.baton._spend(PyList_GET_SIZE(taken) * MESSAGE_WEIGHT_BYTES)
        return taken

    def clear(self):
        """As ``reference.Inbox.clear``."""
        # Making and dropping objects may run Python, which may let another thread in here: it must
        # find an empty inbox, and what it puts in must stay.
        cdef object chunks, fresh_chunks = deque()
        cdef list head, fresh_head = []
        if self._intake is not None:
            self._intake._held_count = 0
        chunks = self._chunks
        head = self._head
        self._count = 0
        self._at = 0
        self._chunks = fresh_chunks
        self._head = fresh_head

    def get_plain(self):
        """As ``reference.Inbox.get_plain``."""
        return self._get_plain()

    cdef inline object _get_plain(self):
        cdef PyObject *item
        cdef object message
        if self._count and not self.hold:
            self._step()
            item = <PyObject *>PyList_GET_ITEM(self._head, self._at)
            if PyBytes_CheckExact(<object>item):
                message = <object>item
                Py_INCREF(None)
                PyList_SET_ITEM(self._head, self._at, None)  # takes the reference just made
                Py_DECREF(message)  # the list's
                self._at += 1
                self._count -= 1
                return message
        return None

    cdef inline int _step(self) except -1:
        """Make ``_head[_at]`` the next item; there must be one."""
        if self._at >= PyList_GET_SIZE(self._head):
            self._head = self._chunks.popleft()
            self._at = 0
        return 0


cdef enum:
    LARGE_BYTES = 1 << 14
    HELD_COUNT = 16
    LARGE_READS = 2  # runs of up to 64 KiB: what is handed on should still be in the cache
    KEY_BYTES = 24
    SPINS_PER_LOOK = 64

cdef object TRY_S = 0.001


cdef enum Waited:
    LONG_WAY = -1
    TIMED_OUT = 0
    READY = 1


cdef struct Held:  # a run that was checked and has yet to be decoded
    int slab
    Py_ssize_t start  # of the packet under way
    Py_ssize_t position  # in its TSDU; -1: not begun
    Py_ssize_t end
    Py_ssize_t segment_bytes
    long long first_sqn


@cython.final
@cython.no_gc_clear  # _lease points into the baton
cdef class Intake:
    """As ``reference.Intake``; this one does wait.

    What a waiting thread has read is checked at once and decoded as it is asked for: a message is
    made where it is used, in memory that the one before it has just given back. Whoever looks at
    the inbox in another way has all of it decoded first. Held runs are guarded by the interpreter
    lock alone: decoding runs no Python, but for the garbage collection of a message of several
    parts, against which ``_is_decoding`` guards.
    """

    cdef UdpReader _reader
    cdef Inbox _inbox
    cdef Baton _baton
    cdef dict _streams
    cdef object _acquire
    cdef object _release
    cdef object _rest
    cdef object _overrun
    cdef object _settled
    cdef object _share
    cdef object _driver
    cdef object _drive
    cdef object _give_up
    cdef bint _spins
    cdef int _fd
    cdef Lease *_lease  # in the baton; NULL: none was to be had
    cdef int _bell_fd
    cdef bint _is_led
    cdef bint _was_large
    cdef bint _is_decoding
    cdef Held _held[HELD_COUNT]
    cdef list _held_slots  # of each of them the ReceiveSlots
    cdef int _held_count
    cdef int _held_at
    cdef object _made
    cdef list _odd  # leftovers that say no more than that a source is to be looked at, or None
    cdef bytes _key
    cdef uint8_t _raw_key[KEY_BYTES]
    cdef public bint is_open
    cdef public bint is_stale
    cdef readonly Py_ssize_t size_bytes

    def __cinit__(
        self, int fd, Inbox inbox not None, dict streams not None, *, lock, Baton baton not None,
        rest, overrun, settled, share, driver=None
    ):
        self._bell_fd = -1
        self._fd = fd
        self._lease = baton._new_lease(fd)
        self._reader = UdpReader(16)
        self._inbox = inbox
        self._baton = baton
        self._streams = streams
        self._acquire = lock.acquire
        self._release = lock.release
        self._rest = rest
        self._overrun = overrun
        self._settled = settled
        self._share = share
        self._driver = driver
        if driver is not None:
            self._drive = driver.lock.acquire
            self._give_up = driver.lock.release
            self._spins = driver.spins
        self._key = b""
        self._held_slots = [None] * HELD_COUNT
        self.is_open = True

    def __dealloc__(self):
        if self._bell_fd >= 0:
            close(self._bell_fd)
        if self._lease != NULL:
            self._lease.is_used = 0

    @property
    def overflow_count(self):
        """As ``reference.Intake.overflow_count``."""
        return self._reader.overflows.get(self._fd, 0)

    def read(self, long long now_ns):
        """As ``reference.Intake.read``."""
        return self._read(now_ns, False)

    def wait(self, long long timeout_ns):
        """As ``reference.Intake.wait``."""
        cdef Waited waited = self._wait(timeout_ns)
        return None if waited == LONG_WAY else waited == READY

    def settle(self):
        """As ``reference.Intake.settle``."""
        self._settle()

    cdef inline int _settle(self) except -1:
        if self._held_count:
            self._decode_all()
        return 0

    def ring(self):
        """As ``reference.Intake.ring``."""
        cdef uint64_t one = 1
        if self._lease != NULL and self._lease.is_asleep and self._bell_fd >= 0:
            write(self._bell_fd, &one, sizeof(one))

    def close(self):
        """As ``reference.Intake.close``."""
        self.is_open = False
        if self._lease != NULL:
            self._lease.is_lent = 0
        self.ring()
        if not self._is_led:
            self._close_bell()  # else the thread that may be asleep with it does

    cdef void _close_bell(self) noexcept:
        if self._bell_fd >= 0:
            close(self._bell_fd)
            self._bell_fd = -1

    cdef list _read(self, long long now_ns, bint is_lazy):
        cdef UdpReader reader = self._reader
        cdef list leftovers = None
        cdef int count, index
        cdef Py_ssize_t length, start
        cdef Py_ssize_t segment_bytes
        is_lazy = is_lazy and self._inbox._intake is self  # else nobody would ask for it
        self._settle()
        self.size_bytes = 0
        if self._held_count or self._is_decoding:
            return []  # in the middle of it; the system keeps what waits
        count = reader._receive(
            self._fd, LARGE_READS if self._was_large else reader._batch_count
        )
        leftovers, self._odd = self._odd, None
        for index in range(count):
            length = reader._datagram(self._fd, index, &segment_bytes)
            if length == 0:
                continue
            self.size_bytes += length
            start = 0
            if leftovers is None:
                start = self._take(now_ns, index, length, segment_bytes, is_lazy)
                if start < 0:
                    continue
                leftovers = []
            leftovers.append((
                reader._source(index), reader._view(index, length), segment_bytes, start
            ))
        self._was_large = count > 0 and self.size_bytes >= count * LARGE_BYTES
        return [] if leftovers is None else leftovers

    cdef Py_ssize_t _take(
        self, long long now_ns, int index, Py_ssize_t length, Py_ssize_t segment_bytes,
        bint is_lazy
    ) except -2:
        """Take plain packets of a run; where the rest begins, -1 if there is none."""
        cdef const uint8_t *data
        cdef ReceiveSlots slots
        cdef FrameDecoder decoder
        cdef PyObject *found
        cdef list messages
        cdef long long odd_count, first
        cdef Py_ssize_t start
        if length < HEADER_BYTES:
            return 0
        data = (<_Slab>self._reader._slabs[index]).data
        self._find_key(index, data)
        found = PyDict_GetItem(self._streams, self._key)
        if found == NULL:
            return 0
        slots = <ReceiveSlots>found
        if is_lazy:
            start = self._hold(now_ns, slots, index, data, length, segment_bytes)
            return -1 if start == length else start
        decoder = slots.decoder
        odd_count = decoder.too_long_count + decoder.malformed_count
        first = slots.next
        messages = []
        start = slots._take(data, length, 0, segment_bytes, messages)
        if start:
            slots.heard_ns = now_ns
        if self._inbox._count + PyList_GET_SIZE(messages) > self._inbox.limit:
            self._overrun(self._key, messages, first, slots.next - 1)
        else:
            self._inbox._put(messages)
        if decoder.too_long_count + decoder.malformed_count != odd_count:
            slots.odd_from = first
            return start
        return -1 if start == length else start

    cdef Py_ssize_t _hold(
        self, long long now_ns, ReceiveSlots slots, int index, const uint8_t *data,
        Py_ssize_t length, Py_ssize_t segment_bytes
    ):
        """Check a run and keep it for when it is asked for; where the rest begins."""
        cdef Held *held
        if self._held_count == HELD_COUNT:
            return 0
        held = &self._held[self._held_count]
        held.first_sqn = slots.next
        held.slab = index
        held.start = 0
        held.position = -1
        held.end = slots._admit(data, length, segment_bytes)
        held.segment_bytes = segment_bytes
        if held.end:
            slots.heard_ns = now_ns
            if self._held_count == 0:
                self._held_at = 0
            self._held_slots[self._held_count] = slots
            self._held_count += 1
        return held.end

    cdef Py_ssize_t _decode_held(self, Py_ssize_t limit, list out) except -1:
        """Decode up to ``limit`` messages of what is held; fewer say that that was all of it.

        Without ``out`` it is one at most, which goes to ``_made``.
        """
        cdef Held *held
        cdef const uint8_t *tsdu
        cdef FrameDecoder decoder
        cdef ReceiveSlots slots
        cdef PyObject *message
        cdef Py_ssize_t length
        cdef Py_ssize_t count = 0
        cdef long long odd_count
        while self._held_at < self._held_count:
            held = &self._held[self._held_at]
            slots = <ReceiveSlots>self._held_slots[self._held_at]
            decoder = slots.decoder
            odd_count = decoder.too_long_count + decoder.malformed_count
            while held.start < held.end and count < limit:
                length = min(held.segment_bytes, held.end - held.start) - DATA_HEADER_BYTES
                tsdu = (
                    (<_Slab>self._reader._slabs[held.slab]).data + held.start + DATA_HEADER_BYTES
                )
                if held.position < 0:
                    held.position = decoder._enter(tsdu, length)
                while count < limit:
                    message = decoder._next(tsdu, &held.position, length)
                    if message == NULL:
                        held.start += held.segment_bytes
                        held.position = -1
                        break
                    count += 1
                    if out is None:
                        self._made = <object>message
                    else:
                        out.append(<object>message)
                    Py_DECREF(<object>message)
            self._note_odd(slots, held, odd_count)
            if count == limit:
                return count
            self._held_at += 1
        self._held_count = 0
        return count

    cdef inline int _note_odd(self, ReceiveSlots slots, Held *held, long long odd_count) except -1:
        """Have the owner told if a message could not be delivered."""
        cdef const uint8_t *data
        if slots.decoder.too_long_count + slots.decoder.malformed_count != odd_count:
            slots.odd_from = held.first_sqn
            data = (<_Slab>self._reader._slabs[held.slab]).data
            header = memoryview(PyBytes_FromStringAndSize(<const char *>data, HEADER_BYTES))
            self._find_key(held.slab, data)
            if self._odd is None:
                self._odd = []
            self._odd.append((
                self._key[:PyBytes_GET_SIZE(self._key) - 8], header, HEADER_BYTES, HEADER_BYTES
            ))
        return 0

    cdef int _decode_some(self, Py_ssize_t limit, list out) except -1:
        """``_decode_held``, unless it is under way, with nothing coming in between."""
        cdef int collects
        if self._is_decoding:
            return 0
        self._is_decoding = True
        collects = PyGC_Disable()  # finalizers may run anything, and let other threads in
        try:
            self._decode_held(limit, out)
        finally:
            self._is_decoding = False
            if collects:
                PyGC_Enable()
        return 0

    cdef int _decode_all(self) except -1:
        cdef list messages = []
        self._decode_some(PY_SSIZE_T_MAX, messages)
        self._inbox._put(messages)
        return 0

    cdef object _get_plain(self):
        """The next message of what is held, if it has one part; else it is in the inbox."""
        cdef object made
        if self._is_decoding or self._inbox.hold:
            return None
        self._decode_some(1, None)
        made, self._made = self._made, None
        if made is None or PyBytes_CheckExact(made):
            return made
        self._inbox._put([made])
        return None

    cdef int _find_key(self, int index, const uint8_t *data) except -1:
        """Source address and TSI, in the same bytes object as long as they stay the same."""
        cdef uint8_t raw[KEY_BYTES]
        cdef const uint8_t *name = self._reader._names + index * SOCKADDR_BYTES
        cdef Py_ssize_t size = 4
        cdef sa_family_t family = 0
        memcpy(&family, name, sizeof(family))
        if family == AF_INET:
            memcpy(raw, name + 4, 4)
        else:
            size = 16
            memcpy(raw, name + 8, 16)
        memcpy(raw + size, data + 8, 6)
        memcpy(raw + size + 6, data, 2)
        size += 8
        if PyBytes_GET_SIZE(self._key) != size or memcmp(PyBytes_AS_STRING(self._key), raw, size):
            self._key = PyBytes_FromStringAndSize(<const char *>raw, size)
        return 0

    cdef Waited _wait(self, long long timeout_ns) except? LONG_WAY:
        cdef long long deadline_ns = NEVER
        cdef Waited waited
        if self._is_led or timeout_ns == 0 or self._is_barred():
            return LONG_WAY
        if timeout_ns > 0:
            deadline_ns = _now() + min(timeout_ns, NEVER // 2)
        self._is_led = True
        try:
            if self._driver is None:
                waited = self._wait_beside_loop(deadline_ns)
            else:
                waited = self._wait_driving(deadline_ns)
        finally:
            self._is_led = False
            if not self.is_open:
                self._close_bell()
        self._share()  # others may wait in another way, and nobody else tells them
        return waited

    cdef inline bint _is_barred(self) noexcept:
        return (
            self._inbox.hold
            or not self.is_open
            or self._is_decoding
            or self._inbox._intake is not self
        )

    cdef Waited _wait_beside_loop(self, long long deadline_ns) except? LONG_WAY:
        cdef Lease *lease = self._lease
        cdef pollfd fds[2]
        cdef timespec limit
        cdef timespec *until
        cdef long long left_ns, slept_ns, woken_ns
        cdef uint64_t rings
        cdef int count, code, took
        if lease == NULL:
            return LONG_WAY
        if self._bell_fd < 0:
            self._bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
            if self._bell_fd < 0:
                return LONG_WAY
        while True:
            PyErr_CheckSignals()
            if self._is_barred():
                return LONG_WAY
            if not lease.is_lent:
                if not self._baton._lend(lease):
                    return LONG_WAY
                self._baton.wake()  # the loop thread has to know
            took = self._pump()
            lease.used_ns = _now()
            if self._inbox._count or self._held_count:
                return READY
            if took < 0:
                return LONG_WAY
            if took > 0:
                self._baton._spend(self.size_bytes)
                continue
            if self._is_barred():
                return LONG_WAY
            until = NULL
            if deadline_ns != NEVER:
                left_ns = deadline_ns - lease.used_ns
                if left_ns <= 0:
                    return TIMED_OUT
                limit.tv_sec = left_ns // 1_000_000_000
                limit.tv_nsec = left_ns % 1_000_000_000
                until = &limit
            fds[0].fd = lease.fd
            fds[1].fd = self._bell_fd
            fds[0].events = fds[1].events = POLLIN
            fds[0].revents = fds[1].revents = 0
            lease.is_asleep = 1
            with nogil:
                count = ppoll(fds, 2, until, NULL)
                code = errno
                woken_ns = _now()
                slept_ns = woken_ns - lease.used_ns
                lease.used_ns = woken_ns
            lease.is_asleep = 0
            if slept_ns > 2 * LEASE_NS:
                self._baton.wake()  # the loop thread is to look soon whether we stay away
            if count < 0:
                if code != EINTR:
                    return LONG_WAY
                PyErr_CheckSignals()
            elif fds[1].revents:
                if self._bell_fd >= 0:
                    read(self._bell_fd, &rings, sizeof(rings))
                return LONG_WAY

    cdef Waited _wait_driving(self, long long deadline_ns) except? LONG_WAY:
        cdef Baton baton = self._baton
        cdef epoll_event events[EVENT_COUNT]
        cdef long long now_ns
        cdef unsigned int spin_count = 0
        cdef long count = 0
        cdef int took
        if self._drive(False) is not True:
            return LONG_WAY
        try:
            while True:
                PyErr_CheckSignals()
                if self._is_barred():
                    return LONG_WAY
                took = self._pump()
                if self._inbox._count or self._held_count:
                    return READY
                if took < 0:
                    return LONG_WAY
                if took > 0:
                    self._baton._spend(self.size_bytes)
                    continue
                if self._is_barred():
                    return LONG_WAY
                now_ns = _now()
                if now_ns >= baton.due_ns:
                    self._driver.turn()
                elif now_ns >= deadline_ns:
                    return TIMED_OUT
                elif self._spins:
                    spin_count += 1
                    if spin_count % SPINS_PER_LOOK == 0:
                        with nogil:
                            count = baton._poll_once(events, 0)
                        if self._are_others(events, count):
                            self._driver.turn()
                else:
                    baton.sleeps_until_ns = min(deadline_ns, baton.due_ns)
                    with nogil:
                        count = baton._poll_once(events, min(deadline_ns, baton.due_ns) - now_ns)
                    baton.sleeps_until_ns = 0
                    if self._are_others(events, count):
                        self._driver.turn()
        finally:
            self._give_up()

    cdef bint _are_others(self, epoll_event *events, long count) noexcept:
        cdef long index
        for index in range(count):
            if events[index].data.fd != self._fd:
                return True
        return False

    cdef int _pump(self) except? -1:
        """Read once, under the lock: 1 if something came, 0 if not, -1 if that cannot be now."""
        cdef list rest
        cdef long long now_ns
        cdef long long due_ns
        cdef bint is_odd = False
        if self._acquire(False) is not True and self._acquire(True, TRY_S) is not True:
            return -1
        try:
            if not self.is_open:
                return -1
            now_ns = _now()
            if self.is_stale or (self._lease != NULL and now_ns >= self._lease.due_ns):
                is_odd = True
                self._settle()
                self._rest(now_ns, [])
            try:
                rest = self._read(now_ns, True)
            except OSError:
                return -1  # the loop meets it, too, and counts it
            if rest:
                is_odd = True
                self._settle()
                self._rest(now_ns, rest)
        finally:
            self._release()
        if is_odd:
            due_ns = self._settled()
            if self._lease != NULL:
                self._lease.due_ns = due_ns
        return self.size_bytes > 0


@cython.final
cdef class ReceiveGate:
    """As ``reference.ReceiveGate``."""

    cdef Inbox _inbox
    cdef object _slow

    def __cinit__(self, Inbox inbox not None, slow):
        self._inbox = inbox
        self._slow = slow

    def recv(self, flags=0, *, timeout=None):
        """As ``reference.ReceiveGate.recv``."""
        cdef Inbox inbox = self._inbox
        cdef Intake intake
        message = inbox._get_plain()
        while message is None:
            intake = inbox._intake
            if intake is None or inbox._count or inbox.hold or intake._is_decoding:
                return self._slow(flags, timeout=timeout)
            if intake._held_count:
                message = intake._get_plain()
            elif timeout is not None or flags is not ZERO or intake._wait(-1) != READY:
                return self._slow(flags, timeout=timeout)
            else:
                message = inbox._get_plain()
        if inbox.baton is not None:
            inbox.baton._spend(PyBytes_GET_SIZE(message) + MESSAGE_WEIGHT_BYTES)
        return message
