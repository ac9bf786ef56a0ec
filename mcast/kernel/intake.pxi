# From a subscriber's socket to its inbox; ``reference_intake`` is the specification. Part of
# ``_native.pyx``.

cdef enum:
    LARGE_BYTES = 1 << 14
    HELD_COUNT = 16
    LARGE_READS = 2  # runs of up to 64 KiB: what is handed on should still be in the cache
    KEY_BYTES = 24

cdef struct Held:  # a run that was checked and has yet to be decoded
    int slab
    Py_ssize_t start  # of the packet under way
    Py_ssize_t position  # in its TSDU; -1: not begun
    Py_ssize_t end
    Py_ssize_t segment_bytes
    long long first_sqn


@cython.final
cdef class Intake(_Source):
    """As ``reference.Intake``; this one does wait.

    What a waiting thread has read is checked at once and decoded as it is asked for: a message is
    made where it is used, in memory that the one before it has just given back. Whoever looks at
    the inbox in another way has all of it decoded first. Held runs are guarded by the interpreter
    lock alone: decoding runs no Python, but for the garbage collection of a message of several
    parts, against which ``_is_decoding`` guards.
    """

    cdef UdpReader _reader
    cdef dict _streams
    cdef object _overrun
    cdef bint _was_large
    cdef Held _held[HELD_COUNT]
    cdef list _held_slots  # of each of them the ReceiveSlots
    cdef int _held_at
    cdef object _made
    cdef list _odd  # leftovers that say no more than that a source is to be looked at, or None
    cdef bytes _key
    cdef uint8_t _raw_key[KEY_BYTES]

    def __cinit__(
        self, int fd, Inbox inbox not None, dict streams not None, *, lock, Baton baton not None,
        rest, overrun, settled, share, driver=None
    ):
        self._attach(fd, inbox, lock, baton, rest, settled, share, driver)
        self._reader = UdpReader(16)
        self._streams = streams
        self._overrun = overrun
        self._key = b""
        self._held_slots = [None] * HELD_COUNT

    @property
    def overflow_count(self):
        """As ``reference.Intake.overflow_count``."""
        return self._reader.overflows.get(self._fd, 0)

    def read(self, long long now_ns):
        """As ``reference.Intake.read``."""
        return self._read(now_ns, False)

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

    cdef int _drop_held(self) except -1:
        self._held_count = 0
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

    cdef int _take_in(self, long long now_ns, bint is_due) except -1:
        cdef list rest
        cdef bint is_odd = is_due
        if is_due:
            self._settle()
            self._rest(now_ns, [])
        try:
            rest = self._read(now_ns, True)
        except OSError:
            return NOT_NOW  # the loop meets it, too, and counts it
        if rest:
            is_odd = True
            self._settle()
            self._rest(now_ns, rest)
        return is_odd
