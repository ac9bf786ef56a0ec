# From a subscriber's socket to its inbox; ``reference_intake`` is the specification. Part of
# ``_native.pyx``.

cdef enum:
    LARGE_BYTES = 1 << 14
    HELD_COUNT = 16
    LARGE_READS = 2  # runs of up to 64 KiB: what is handed on should still be in the cache
    KEY_BYTES = 24
    NEWS_NS = 500_000
    LEAST_ROOM = 1024
    STEP_COUNT = 4096  # messages made at once where a window has more than it should keep
    SHOWN_COUNT = 64  # messages decoded at once where somebody asks for one



cdef struct Held:  # a run that was checked and has yet to be decoded
    int index  # of what was read
    const uint8_t *data
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
    the inbox in another way has all of it decoded first. What is ready in a window is decoded in
    the same way, after the runs that are held (of one stream those come first: nothing is held
    here while something is ready there), and stays where it is until somebody asks for it.

    Held runs and windows are guarded by the interpreter lock alone: decoding runs no Python, but
    for the garbage collection of a message of several parts, against which ``_is_decoding`` guards.
    While the owner decodes what is ready by itself it sets ``hold``, so that nothing overtakes what
    it has decoded and not put in the inbox yet.
    """

    cdef UdpReader _reader
    cdef dict _streams
    cdef object _overrun
    cdef object _spare
    cdef long long _spared
    cdef bint _was_large
    cdef Held _held[HELD_COUNT]
    cdef list _held_slots  # of each of them the ReceiveSlots
    cdef list _held_slabs  # and whose memory it lies in
    cdef int _held_at
    cdef list _ready  # windows that have, or had, something ready
    cdef bint _is_kept  # a window keeps the memory of the datagram that is looked at
    cdef object _made
    cdef list _odd  # leftovers that say no more than that a source is to be looked at, or None
    cdef bytes _key
    cdef uint8_t _raw_key[KEY_BYTES]
    cdef readonly bint pulls
    cdef readonly long long dropped_count

    def __cinit__(
        self, int fd, Inbox inbox not None, dict streams not None, *, lock, Baton baton not None,
        rest, overrun, settled, share, driver=None, spare=None
    ):
        self._attach(fd, inbox, lock, baton, rest, settled, share, driver)
        self._reader = UdpReader(16)
        self._streams = streams
        self._overrun = overrun
        self._spare = spare
        if spare is not None:
            self._spared = spare()
        self._key = b""
        self._ready = []
        self.pulls = True
        self._held_slots = [None] * HELD_COUNT
        self._held_slabs = [None] * HELD_COUNT

    @property
    def hold(self):
        """As ``reference.Intake.hold``."""
        return self._is_on_hold

    @hold.setter
    def hold(self, bint hold):
        self._is_on_hold = hold

    @property
    def due_ns(self):
        """As ``reference.Intake.due_ns``."""
        return self._news_ns

    @due_ns.setter
    def due_ns(self, long long due_ns):
        self._news_ns = due_ns

    def resume(self):
        """As ``reference.Intake.resume``."""
        cdef ReceiveSlots slots
        for slots in self._streams.values():
            if slots.undecoded < slots.next and not slots._is_listed:
                self._list(slots)
        self._is_on_hold = False

    def entrust(self, long long due_ns):
        """As ``reference.Intake.entrust``."""
        if self._lease == NULL or not self._lease.is_lent:
            return False
        self._lease.due_ns = min(self._lease.due_ns, due_ns)
        return True

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
        cdef Py_ssize_t length, begin, start, end
        cdef Py_ssize_t segment_bytes
        cdef bint is_held_up
        cdef long long dropped
        is_lazy = is_lazy and self._inbox._intake is self  # else nobody would ask for it
        self._settle()
        self.size_bytes = 0
        if self._held_count or self._is_decoding:
            return []  # in the middle of it; the system keeps what waits
        count = reader._receive(
            self._fd, LARGE_READS if self._was_large else reader._batch_count
        )
        leftovers, self._odd = self._odd, None
        dropped = reader._overflow
        is_held_up = leftovers is not None
        for index in range(count):
            length = reader._datagram(self._fd, index, &segment_bytes)
            if length == 0:
                continue
            self.size_bytes += length
            self._is_kept = False
            begin = 0
            try:
                while begin < length:
                    end = length if self._spare is None else self._next_loss(begin, length, segment_bytes)
                    if begin < end:
                        start = begin
                        if not is_held_up:
                            start = self._take(now_ns, index, begin, end, segment_bytes, is_lazy)
                            if start >= 0:
                                is_held_up = end <= start + 4 or self._is_data(index, start)
                        if start >= 0:
                            if leftovers is None:
                                leftovers = []
                            view = reader._view(index, length)
                            if self._spare is not None:
                                view = view[begin:end]
                                start -= begin
                            leftovers.append((reader._source(index), view, segment_bytes, start))
                    begin = end
                    if end < length:  # this one is lost
                        begin += segment_bytes
            finally:
                if self._is_kept:
                    reader._give(index)
        reader._let_go()
        if self._lease != NULL and (
            reader._overflow != dropped
            # Without a hole: what fills one comes all at once, and repairs are not to wait.
            or (2 * self._inbox._count > self._inbox.limit and not self._has_hole())
        ):
            self._lease.pressed_ns = now_ns
        self._was_large = count > 0 and self.size_bytes >= count * LARGE_BYTES
        return [] if leftovers is None else leftovers

    cdef bint _has_hole(self) except -1:
        cdef ReceiveSlots slots
        for slots in self._streams.values():
            if slots.hole_count:
                return True
        return False

    cdef Py_ssize_t _next_loss(
        self, Py_ssize_t begin, Py_ssize_t length, Py_ssize_t segment_bytes
    ) except -1:
        """Where the next packet starts that is to be lost, ``length`` if that is not in this run."""
        cdef Py_ssize_t count = (length - begin + segment_bytes - 1) // segment_bytes
        if self._spared >= count:
            self._spared -= count
            return length
        count = <Py_ssize_t>self._spared
        self.dropped_count += 1
        self._spared = self._spare()
        return begin + count * segment_bytes

    cdef Py_ssize_t _take(
        self, long long now_ns, int index, Py_ssize_t begin, Py_ssize_t end,
        Py_ssize_t segment_bytes, bint is_lazy
    ) except -2:
        """Take plain packets of a run; where the rest begins, -1 if there is none."""
        cdef const uint8_t *data
        cdef _Slab slab
        cdef ReceiveSlots slots
        cdef FrameDecoder decoder
        cdef PyObject *found
        cdef list messages = None
        cdef long long odd_count, refused_count, first
        cdef Py_ssize_t start = begin
        if end - begin < HEADER_BYTES:
            return begin
        slab = <_Slab>self._reader._slabs[index]
        data = slab.data
        self._find_key(index, data + begin)
        found = PyDict_GetItem(self._streams, self._key)
        if found == NULL:
            return begin
        slots = <ReceiveSlots>found
        decoder = slots.decoder
        odd_count = decoder.too_long_count + decoder.malformed_count
        refused_count = decoder.refused_count
        first = slots.undecoded
        if is_lazy:
            start += self._hold(slots, index, begin, end, segment_bytes)
        else:
            messages = []
        if start < end:
            decoder.refuses = messages is not None and self._inbox._count >= self._inbox.limit
            self._is_decoding = True  # see ``_decode_some``
            try:
                start = slots._absorb(
                    data, end, start, segment_bytes, messages, slab,
                    0 if self._is_kept else WORTH_BYTES,
                )
            finally:
                decoder.refuses = self._is_decoding = False
                self._is_kept |= slots._has_kept
        if slots.undecoded < slots.next:
            if is_lazy:
                messages = []
            self._release_into(slots, messages)
            if not slots._is_listed:
                self._list(slots)
        if messages is not None:
            refused_count = decoder.refused_count - refused_count
            if refused_count or self._inbox._count + PyList_GET_SIZE(messages) > self._inbox.limit:
                self._report(messages, refused_count, first, slots.undecoded - 1)
            else:
                self._inbox._put(messages)
        if start > begin:
            slots.heard_ns = now_ns
        if slots.has_news or slots.undecoded < slots.next:
            self._news_ns = min(self._news_ns, now_ns + NEWS_NS)
        if decoder.too_long_count + decoder.malformed_count != odd_count:
            slots.odd_from = first
            return start
        return -1 if start == end else start

    cdef int _report(
        self, list messages, long long refused_count, long long first, long long last
    ) except -1:
        """What the inbox has no room for; whoever looks there gets nothing younger meanwhile."""
        cdef bint hold = self._is_on_hold
        self._is_on_hold = True
        try:
            self._overrun(self._key, messages, refused_count, first, last)
        finally:
            self._is_on_hold = hold
        return 0

    cdef int _release_into(self, ReceiveSlots slots, list messages) except -1:
        """Add what is ready, as far as it is to leave the window now; after what is held here."""
        cdef Py_ssize_t room = self._inbox.limit - self._inbox._count
        cdef long long half_bytes = slots.limit_bytes // 2
        cdef long long before = -1
        if self._is_on_hold or self._held_count:
            return 0
        if room < min(LEAST_ROOM, self._inbox.limit):
            room = 0
        self._is_decoding = True
        try:
            if self._inbox._intake is not self:
                slots.release(messages, room)
            while slots.stored_bytes > half_bytes and slots.undecoded > before:
                before = slots.undecoded
                slots.release(messages, min(room, PyList_GET_SIZE(messages) + STEP_COUNT))
            slots._refuse(half_bytes)
        finally:
            self._is_decoding = False
        return 0

    cdef int _list(self, ReceiveSlots slots) except -1:
        """Whoever asks for messages is to look at this window."""
        slots._is_listed = True
        self._ready.append(slots)
        self._ready_count += 1
        return 0

    cdef inline bint _is_data(self, int index, Py_ssize_t start) noexcept:
        cdef uint8_t kind = (<_Slab>self._reader._slabs[index]).data[start + 4]
        return kind == ODATA or kind == RDATA

    cdef Py_ssize_t _hold(
        self, ReceiveSlots slots, int index, Py_ssize_t begin, Py_ssize_t end,
        Py_ssize_t segment_bytes
    ) except -1:
        """Check what is in sequence and keep it for when it is asked for; how many bytes."""
        cdef Held *held
        cdef Py_ssize_t size
        if self._held_count == HELD_COUNT or slots.undecoded < slots.next:
            return 0
        held = &self._held[self._held_count]
        held.first_sqn = slots.next
        held.data = (<_Slab>self._reader._slabs[index]).data
        size = slots._admit(held.data + begin, end - begin, segment_bytes)
        held.index = index
        held.start = begin
        held.position = -1
        held.end = begin + size
        held.segment_bytes = segment_bytes
        if size:
            if self._held_count == 0:
                self._held_at = 0
            self._held_slots[self._held_count] = slots
            self._held_slabs[self._held_count] = self._reader._slabs[index]
            self._held_count += 1
        return size

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
                tsdu = held.data + held.start + DATA_HEADER_BYTES
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
            self._held_slabs[self._held_at] = None
            self._held_at += 1
        self._held_count = 0
        return count

    cdef Py_ssize_t _decode_ready(self, Py_ssize_t limit, list out) except -1:
        """Decode up to ``limit`` messages that are ready, and nothing is held."""
        cdef ReceiveSlots slots
        cdef FrameDecoder decoder
        cdef Entry *entry
        cdef long long odd_count, first
        cdef Py_ssize_t count = 0
        while count < limit and PyList_GET_SIZE(self._ready):
            slots = <ReceiveSlots>PyList_GET_ITEM(self._ready, 0)
            decoder = slots.decoder
            odd_count = decoder.too_long_count + decoder.malformed_count
            first = slots.undecoded
            while count < limit and slots.undecoded < slots.next:
                entry = slots._entry(slots.undecoded)
                if entry.packet[5]:
                    self.is_stale = True  # the owner decodes these
                    break
                count += slots._decode_entry(entry, limit - count, out)
            if decoder.too_long_count + decoder.malformed_count != odd_count:
                slots.odd_from = first
                self.is_stale = True
                slots.has_news = True
            if count < limit:
                slots._is_listed = False
                del self._ready[0]
                self._ready_count -= 1
        return count

    cdef inline int _note_odd(self, ReceiveSlots slots, Held *held, long long odd_count) except -1:
        """Have the owner told if a message could not be delivered."""
        if slots.decoder.too_long_count + slots.decoder.malformed_count != odd_count:
            slots.odd_from = held.first_sqn
            header = memoryview(PyBytes_FromStringAndSize(<const char *>held.data, HEADER_BYTES))
            self._find_key(held.index, held.data)
            if self._odd is None:
                self._odd = []
            self._odd.append((
                self._key[:PyBytes_GET_SIZE(self._key) - 8], header, HEADER_BYTES, HEADER_BYTES
            ))
        return 0

    cdef int _decode_some(self, Py_ssize_t limit, list out) except -1:
        """``_decode_held`` and what is ready, unless that is under way, with nothing coming in
        between."""
        cdef int collects
        cdef Py_ssize_t count
        if self._is_decoding:
            return 0
        self._is_decoding = True
        collects = PyGC_Disable()  # finalizers may run anything, and let other threads in
        try:
            count = 0
            if self._held_count:
                count = self._decode_held(limit, out)
            if count < limit and out is not None and not self._is_on_hold and PyList_GET_SIZE(self._ready):
                self._decode_ready(limit - count, out)
        finally:
            self._is_decoding = False
            if collects:
                PyGC_Enable()
        return 0

    cdef int _decode_all(self) except -1:
        """What is held, since its buffers are to be used again, or something else comes next."""
        cdef list messages = []
        cdef bint hold = self._is_on_hold
        self._is_on_hold = True
        self._decode_some(PY_SSIZE_T_MAX, messages)
        self._is_on_hold = hold
        self._inbox._put(messages)
        return 0

    cdef int _drop_held(self) except -1:
        cdef ReceiveSlots slots
        cdef list ready = self._ready
        cdef list fresh_slabs = [None] * HELD_COUNT, fresh_ready = []
        self._held_count = self._ready_count = 0
        self._held_slabs = fresh_slabs  # made before: making a list may let another thread in here
        self._ready = fresh_ready
        for slots in ready:
            slots._is_listed = False
        return 0

    cdef int _show(self) except -1:
        cdef list messages = []
        self._decode_some(SHOWN_COUNT, messages)
        self._inbox._put(messages)
        return 0

    cdef object _get_plain(self):
        """The next message of what is held, if it has one part; else it is in the inbox."""
        cdef object made
        if self._is_decoding or self._inbox.hold:
            return None
        if self._held_count == 0:
            self._note_taken()
            self._show()
            return self._inbox._get_plain()
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
            if not self.is_open:
                return NOT_NOW  # it failed, and the descriptor may be another's by now
        try:
            rest = self._read(now_ns, True)
        except OSError:
            return NOT_NOW  # the loop meets it, too, and counts it
        if rest:
            is_odd = True
            self._settle()
            self._rest(now_ns, rest)
        return is_odd
