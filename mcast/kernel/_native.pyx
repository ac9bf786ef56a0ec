# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, auto_pickle=False, binding=False, embedsignature=True
"""The kernel contract, compiled: ``reference.py`` says what each name does, this says it fast.

Owns no behaviour of its own: every result, attribute and error is the reference's, and a property
test and a differential fuzzer compare them call by call. Read the reference first; the comments
here only say what differs underneath. One extension module, parted into the ``.pxi`` files that are
included at the end, each after what it uses.

Invariants:
- bounds checks are off, so each read of network bytes is preceded by a length check by hand;
- per packet and per message no Python object is made, but for the messages delivered;
- nothing here blocks or gives up the interpreter lock, but for ``Baton``, whose purpose it is.
"""

from __future__ import annotations

import os
from collections import deque

from mcast.kernel.reference_flow import Stop
from mcast.kernel.reference_zmtp import FrameError, checked_parts

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
from cpython.bytearray cimport (
    PyByteArray_AS_STRING,
    PyByteArray_GET_SIZE,
    PyByteArray_Resize,
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
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
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
from libc.string cimport memcmp, memcpy, memmove, memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec


cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **bytes, Py_ssize_t newsize) except -1
    PyObject *_new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size) except NULL
    char *_bytes_data "PyBytes_AS_STRING"(PyObject *bytes)
    Py_ssize_t Py_REFCNT(PyObject *one)
    int PyGC_Disable()
    int PyGC_Enable()
    unsigned long PyThread_get_thread_ident() nogil


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
    "FrameError",
    "FrameScanner",
    "Inbox",
    "Intake",
    "Leftover",
    "Message",
    "ReceiveGate",
    "ReceiveSlots",
    "SendGate",
    "SendSchedule",
    "Stop",
    "StreamGate",
    "StreamIntake",
    "StreamReader",
    "StreamWriter",
    "TokenBucket",
    "TopicFilter",
    "TransmitSlots",
    "UdpReader",
    "UdpWriter",
    "checksum",
    "checksum_ok",
    "encode_messages",
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
    SECOND_BODY_BYTES = 16384  # and one that was not over then may be much longer

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


cdef long long NEVER = 1LL << 62

include "system.pxi"
include "memory.pxi"
include "baton.pxi"
include "frames.pxi"
include "zmtp.pxi"
include "stream.pxi"
include "transmit.pxi"
include "pace.pxi"
include "receive.pxi"
include "capture.pxi"
include "udp.pxi"
include "gates.pxi"
include "wait.pxi"
include "intake.pxi"
include "flow.pxi"
