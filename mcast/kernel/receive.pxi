# The receive window; ``reference_receive`` is the specification. Part of ``_native.pyx``.
#
# Underneath: the packets held are found by a table of two levels over the last 20 bits of their
# numbers, and lie in blocks of memory, one for each stretch of consecutive packets that came in one
# run. Such a stretch is decoded in order, so a block outlives most of its packets only while it is
# at the front: what is allocated stays near what is counted, whatever comes from the network. A
# stretch that fills much of the memory it was read into stays there instead, and keeps that.

cdef enum:
    LEAP_LIMIT = 1 << 16
    SPAN_LIMIT = 1 << 20
    HOLE_LIMIT = 4096
    LEAST_FRAME_BYTES = 2
    WORTH_BYTES = 24 * 1024  # of the 64 KiB read into: what is kept is 2.7 times of this at most
    PAGE_BITS = 10
    PAGE_ENTRIES = 1 << PAGE_BITS
    PAGE_COUNT = 1024  # times PAGE_ENTRIES is SPAN_LIMIT


cdef struct Block:
    Py_ssize_t holder_count
    PyObject *owner  # of the packets' memory; NULL: they follow the block


cdef struct Entry:
    const uint8_t *packet  # NULL: not held
    Block *block
    Py_ssize_t length


cdef struct Page:
    Py_ssize_t count
    Entry entries[PAGE_ENTRIES]


cdef struct Hole:
    long long first
    long long last


@cython.final
cdef class ReceiveSlots:
    """As ``reference.ReceiveSlots``. The numbers are read-only here."""

    cdef readonly FrameDecoder decoder
    cdef uint8_t _ports[4]
    cdef uint8_t _gsi[6]
    cdef Page *_pages[PAGE_COUNT]
    cdef Hole *_holes
    cdef Py_ssize_t _hole_room
    cdef Py_ssize_t _position  # in the TSDU of ``undecoded``, where part of it was decoded; else -1
    cdef readonly long long undecoded
    cdef readonly long long next
    cdef readonly long long lead
    cdef readonly long long trail
    cdef readonly Py_ssize_t hole_count
    cdef readonly Py_ssize_t stored_count
    cdef readonly Py_ssize_t special_count
    cdef public long long duplicate_count
    cdef readonly long long filled_count
    cdef readonly long long packet_count
    cdef readonly long long payload_bytes
    cdef readonly long long repair_count
    cdef readonly long long stored_bytes
    cdef public bint has_news
    cdef public long long heard_ns
    cdef public long long late_sqn
    cdef public long long limit_bytes
    cdef public long long mended_first
    cdef public long long mended_last
    cdef public long long odd_from
    cdef bint _is_listed  # among those that an intake has something ready of
    cdef bint _has_kept  # the last ``_absorb`` left packets where they are

    def __cinit__(
        self, bytes tsi not None, long long dport, FrameDecoder decoder not None,
        long long first_sqn, long long limit_bytes=1 << 26
    ):
        if len(tsi) != 8 or not 0 < dport < 65536:
            raise ValueError("a TSI has 8 bytes and a port is 1 to 65535")
        cdef const uint8_t *raw = <const uint8_t *>PyBytes_AS_STRING(tsi)
        memcpy(self._gsi, raw, 6)
        memcpy(self._ports, raw + 6, 2)
        mcast_put16(self._ports + 2, <uint16_t>dport)
        self.odd_from = self.late_sqn = self.mended_last = -1
        self.decoder = decoder
        self.limit_bytes = limit_bytes
        self.undecoded = self.next = first_sqn
        self.lead = first_sqn - 1
        self._position = -1

    def __dealloc__(self):
        cdef Py_ssize_t index
        for index in range(PAGE_COUNT):
            if self._pages[index] != NULL:
                self._free_page(index)
        PyMem_RawFree(self._holes)

    @property
    def ready_count(self):
        """Packets held that ``release`` would decode."""
        return self.next - self.undecoded

    @property
    def hole_last(self):
        """Last number of the first hole; one less than ``next`` if there is none."""
        return self._holes[0].last if self.hole_count else self.next - 1

    @property
    def is_full(self):
        """True when another hole might exceed the limit of 4096."""
        return self._is_full()

    def holds(self, long long sqn):
        """As ``reference.ReceiveSlots.holds``."""
        return self._holds(sqn)

    def missing(self, long long first, long long last, long long limit):
        """As ``reference.ReceiveSlots.missing``."""
        cdef list found = []
        cdef Py_ssize_t index = max(0, self._hole_below(first))
        cdef long long sqn, high
        while index < self.hole_count and self._holes[index].first <= last:
            sqn = max(first, self._holes[index].first)
            high = min(last, self._holes[index].last)
            while sqn <= high:
                if PyList_GET_SIZE(found) >= limit:
                    return found
                found.append(sqn)
                sqn += 1
            index += 1
        return found

    def missing_count(self, long long first, long long last):
        """As ``reference.ReceiveSlots.missing_count``."""
        cdef long long count = 0
        cdef long long low, high
        cdef Py_ssize_t index = max(0, self._hole_below(first))
        while index < self.hole_count and self._holes[index].first <= last:
            low = max(first, self._holes[index].first)
            high = min(last, self._holes[index].last)
            count += max(0, high + 1 - low)
            index += 1
        return count

    def reach(self, long long last):
        """As ``reference.ReceiveSlots.reach``."""
        if last > self.lead:
            self._open(self.lead + 1, last)
            self.lead = last
            self._advance()

    def absorb(self, data, Py_ssize_t start, Py_ssize_t segment_bytes, list out not None):
        """As ``reference.ReceiveSlots.absorb``."""
        cdef Py_buffer buffer
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            return self._absorb(
                <const uint8_t *>buffer.buf, buffer.len, start, segment_bytes, out, None, 0
            )
        finally:
            PyBuffer_Release(&buffer)

    cdef Py_ssize_t _absorb(
        self, const uint8_t *data, Py_ssize_t size, Py_ssize_t start, Py_ssize_t segment_bytes,
        list out, _Slab slab, Py_ssize_t worth_bytes
    ) except -1:
        """Without ``out`` what comes in sequence is held, too. With ``slab``, whose memory it is,
        early packets of ``worth_bytes`` or more stay there; ``_has_kept`` tells."""
        cdef const uint8_t *packet
        cdef Py_ssize_t length
        cdef long long sqn
        self._has_kept = False
        while 0 <= start < size:
            packet = data + start
            length = min(segment_bytes, size - start)
            if not self._is_plain(packet, length):
                break
            sqn = self._nearest(packet)
            if self._is_known(sqn):
                self.duplicate_count += 1
                if self.mended_first <= sqn <= self.mended_last:
                    self._note_late(sqn, packet[4])
            elif not self._has_room(sqn, length):
                break
            elif out is not None and sqn == self.undecoded:
                self._count(packet)
                self.undecoded += 1
                self._arrive(sqn, packet[4])
                self._note_trail(sqn - self._trail_distance(packet))
                self.decoder._decode(packet + DATA_HEADER_BYTES, length - DATA_HEADER_BYTES, out)
                start += length
                continue
            elif sqn > self.lead:
                start = self._keep_early(
                    data, size, start, segment_bytes, sqn, slab, worth_bytes
                )
                continue
            else:
                self._keep_copy(sqn, packet, length)
            self._note_trail(sqn - self._trail_distance(packet))
            start += length
        return min(start, size)

    cdef Py_ssize_t _admit(
        self, const uint8_t *data, Py_ssize_t size, Py_ssize_t segment_bytes
    ) except -1:
        """``absorb`` without decoding, of what is in sequence: the packets up to the place returned
        are to be decoded by the caller, before anything else of this stream."""
        cdef const uint8_t *packet
        cdef Py_ssize_t length
        cdef Py_ssize_t start = 0
        while start < size:
            packet = data + start
            length = min(segment_bytes, size - start)
            if (
                self.undecoded != self.next
                or mcast_get32(packet + 16) != <uint32_t>self.next
                or not self._is_plain(packet, length)
                or self._nearest(packet) != self.next
            ):
                break
            self._count(packet)
            self.undecoded += 1
            self._arrive(self.next, packet[4])
            self._note_trail(self.undecoded - 1 - self._trail_distance(packet))
            start += length
        return start

    cdef Py_ssize_t _keep_early(
        self, const uint8_t *data, Py_ssize_t size, Py_ssize_t start, Py_ssize_t segment_bytes,
        long long sqn, _Slab slab, Py_ssize_t worth_bytes
    ) except -1:
        """Hold a packet beyond the lead, which was looked at, and those of the run that follow it
        in sequence; where the next one starts."""
        cdef const uint8_t *packet = data + start
        cdef const uint8_t *kept = packet
        cdef uint8_t *copy
        cdef Block *block
        cdef Py_ssize_t end = start + min(segment_bytes, size - start)
        cdef Py_ssize_t length
        cdef long long number = sqn + 1
        while (
            end < size
            and self._is_plain(data + end, min(segment_bytes, size - end))
            and mcast_get32(data + end + 16) == <uint32_t>number
            and number - self.undecoded < SPAN_LIMIT
            and self.stored_bytes + (end - start) + min(segment_bytes, size - end)
            <= self.limit_bytes
        ):
            end += min(segment_bytes, size - end)
            number += 1
        if slab is not None and end - start >= worth_bytes:
            block = self._new_block(0, &copy)
            block.owner = <PyObject *>slab
            Py_INCREF(slab)
            self._has_kept = True
        else:
            block = self._new_block(end - start, &copy)
            memcpy(copy, packet, <size_t>(end - start))
            kept = copy
        while start < end:
            length = min(segment_bytes, end - start)
            self._enter(sqn, kept, length, block)
            self._note_trail(sqn - self._trail_distance(kept))
            kept += length
            start += length
            sqn += 1
        return end

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
                    sqn = self._nearest(packet)
                    return sqn, sqn - self._trail_distance(packet)
        finally:
            PyBuffer_Release(&buffer)
        return None

    def has_room(self, long long sqn, long long size_bytes):
        """As ``reference.ReceiveSlots.has_room``."""
        return self._has_room(sqn, size_bytes)

    def store(self, long long sqn, packet):
        """As ``reference.ReceiveSlots.store``."""
        cdef bytes copy = bytes(packet)
        if PyBytes_GET_SIZE(copy) < DATA_HEADER_BYTES:
            raise ValueError(f"a data packet has at least {int(DATA_HEADER_BYTES)} bytes")
        if sqn - self.undecoded >= SPAN_LIMIT:
            raise ValueError(f"{sqn} is too far ahead of {self.undecoded}")
        if self._is_known(sqn):
            self.duplicate_count += 1
            return False
        self._keep_copy(
            sqn, <const uint8_t *>PyBytes_AS_STRING(copy), PyBytes_GET_SIZE(copy)
        )
        return True

    def release(self, list out not None, Py_ssize_t message_limit):
        """As ``reference.ReceiveSlots.release``."""
        cdef Entry *entry
        cdef Py_ssize_t most
        cdef bytes special
        while self.undecoded < self.next and PyList_GET_SIZE(out) < message_limit:
            entry = self._entry(self.undecoded)
            most = (entry.length - DATA_HEADER_BYTES) // LEAST_FRAME_BYTES
            if PyList_GET_SIZE(out) and PyList_GET_SIZE(out) + most > message_limit:
                break
            if entry.packet[5]:
                special = PyBytes_FromStringAndSize(<const char *>entry.packet, entry.length)
                self._pass_undecoded()
                return special
            self._decode_entry(entry, PY_SSIZE_T_MAX, out)
        return None

    def refuse(self, long long limit_bytes):
        """As ``reference.ReceiveSlots.refuse``."""
        return self._refuse(limit_bytes)

    cdef long long _refuse(self, long long limit_bytes) except -1:
        cdef FrameDecoder decoder = self.decoder
        cdef long long before = decoder.refused_count
        cdef Entry *entry
        decoder.refuses = True
        try:
            while self.stored_bytes > limit_bytes and self.undecoded < self.next:
                entry = self._entry(self.undecoded)
                if entry.packet[5]:
                    break
                self._decode_entry(entry, PY_SSIZE_T_MAX, None)
        finally:
            decoder.refuses = False
        return decoder.refused_count - before

    cdef Py_ssize_t _decode_entry(self, Entry *entry, Py_ssize_t limit, list out) except -1:
        """Decode up to ``limit`` messages of the packet ``undecoded``, which is gone when that was
        all of it; how many there were."""
        cdef const uint8_t *tsdu = entry.packet + DATA_HEADER_BYTES
        cdef Py_ssize_t length = entry.length - DATA_HEADER_BYTES
        cdef Py_ssize_t count = 0
        cdef PyObject *message
        if self._position < 0:
            self._position = self.decoder._enter(tsdu, length)
        while count < limit:
            message = self.decoder._next(tsdu, &self._position, length)
            if message == NULL:
                self._pass_undecoded()
                break
            count += 1
            out.append(<object>message)
            Py_DECREF(<object>message)
        return count

    cdef inline void _pass_undecoded(self) noexcept:
        self._drop(self.undecoded)
        self.undecoded += 1
        self._position = -1

    def skip_to(self, long long sqn):
        """As ``reference.ReceiveSlots.skip_to``."""
        cdef long long number, end
        cdef Py_ssize_t gone = 0
        sqn = max(sqn, self.next)
        number = self.undecoded
        end = min(sqn, number + SPAN_LIMIT)
        while number < end and self.stored_count:
            if self._pages[self._page_of(number)] == NULL:
                number = (number | (PAGE_ENTRIES - 1)) + 1
                continue
            if self._entry(number).packet != NULL:
                self._drop(number)
            number += 1
        while gone < self.hole_count and self._holes[gone].last < sqn:
            gone += 1
        self._remove_holes(0, gone)
        if self.hole_count:
            self._holes[0].first = max(self._holes[0].first, sqn)
        self.lead = max(self.lead, sqn - 1)
        self.undecoded = sqn
        self._position = -1
        self._advance()
        self.decoder._reset()

    cdef inline bint _is_full(self) noexcept:
        return self.hole_count >= HOLE_LIMIT - 2

    cdef inline bint _is_known(self, long long sqn) noexcept:
        return sqn < self.next or (sqn <= self.lead and self._holds(sqn))

    cdef inline bint _holds(self, long long sqn) noexcept:
        cdef Page *page
        if sqn < self.undecoded or sqn - self.undecoded >= SPAN_LIMIT:
            return False
        page = self._pages[self._page_of(sqn)]
        return page != NULL and page.entries[sqn & (PAGE_ENTRIES - 1)].packet != NULL

    cdef inline Py_ssize_t _page_of(self, long long sqn) noexcept:
        return <Py_ssize_t>((sqn >> PAGE_BITS) & (PAGE_COUNT - 1))  # also where it is negative

    cdef inline Entry *_entry(self, long long sqn) noexcept:
        """Its place in the table, where there is a page for it."""
        return &self._pages[self._page_of(sqn)].entries[sqn & (PAGE_ENTRIES - 1)]

    cdef bint _has_room(self, long long sqn, long long size_bytes) noexcept:
        cdef long long limit_bytes = self.limit_bytes
        cdef Py_ssize_t index
        if sqn == self.undecoded:
            return True
        if sqn - self.undecoded >= SPAN_LIMIT:
            return False
        if sqn <= self.lead:
            limit_bytes += limit_bytes // 4
        elif sqn > self.lead + 1 and (self._is_full() or sqn - self.lead > LEAP_LIMIT):
            return False
        if self.stored_bytes + size_bytes > limit_bytes:
            return False
        if sqn < self.lead and self._is_full():
            index = self._hole_below(sqn)
            # Anybody may ask for a number that has come: then no hole is below.
            return index < 0 or not self._holes[index].first < sqn < self._holes[index].last
        return True

    cdef Block *_new_block(self, Py_ssize_t size, uint8_t **data) except NULL:
        """For packets of so many bytes; nobody holds it yet."""
        cdef Block *block = <Block *>PyMem_RawMalloc(<size_t>(sizeof(Block) + size))
        if block == NULL:
            raise MemoryError
        block.holder_count = 0
        block.owner = NULL
        data[0] = <uint8_t *>(block + 1)
        return block

    cdef inline void _release_block(self, Block *block) noexcept:
        block.holder_count -= 1
        if block.holder_count == 0:
            Py_XDECREF(block.owner)
            PyMem_RawFree(block)

    cdef int _keep_copy(self, long long sqn, const uint8_t *packet, Py_ssize_t length) except -1:
        cdef uint8_t *copy
        cdef Block *block = self._new_block(length, &copy)
        memcpy(copy, packet, <size_t>length)
        self._enter(sqn, copy, length, block)
        return 0

    cdef int _enter(
        self, long long sqn, const uint8_t *packet, Py_ssize_t length, Block *block
    ) except -1:
        """Hold a packet that had not come."""
        cdef Py_ssize_t index = self._page_of(sqn)
        cdef Entry *entry
        if self._pages[index] == NULL:
            self._pages[index] = <Page *>PyMem_RawCalloc(1, sizeof(Page))
            if self._pages[index] == NULL:
                raise MemoryError
        self._pages[index].count += 1
        entry = &self._pages[index].entries[sqn & (PAGE_ENTRIES - 1)]
        entry.packet = packet
        entry.length = length
        entry.block = block
        block.holder_count += 1
        self.stored_count += 1
        self.stored_bytes += length
        self.special_count += packet[5] != 0
        self._count(packet)
        self._arrive(sqn, packet[4])
        return 0

    cdef void _drop(self, long long sqn) noexcept:
        """Forget a packet that is held."""
        cdef Py_ssize_t index = self._page_of(sqn)
        cdef Page *page = self._pages[index]
        cdef Entry *entry = &page.entries[sqn & (PAGE_ENTRIES - 1)]
        self.stored_count -= 1
        self.stored_bytes -= entry.length
        self.special_count -= entry.packet[5] != 0
        self._release_block(entry.block)
        entry.packet = NULL
        page.count -= 1
        if page.count == 0:
            PyMem_RawFree(page)
            self._pages[index] = NULL

    cdef void _free_page(self, Py_ssize_t index) noexcept:
        cdef Page *page = self._pages[index]
        cdef Entry *entry
        cdef Py_ssize_t place
        for place in range(PAGE_ENTRIES):
            entry = &page.entries[place]
            if entry.packet != NULL:
                self._release_block(entry.block)
        PyMem_RawFree(page)

    cdef inline int _arrive(self, long long sqn, uint8_t kind) except -1:
        """Note that a number has come which had not."""
        if sqn == self.lead + 1:
            self.lead = sqn
            if self.hole_count == 0:
                self.next = sqn + 1
            return 0
        if sqn > self.lead:
            self._open(self.lead + 1, sqn - 1)
            self.lead = sqn
        else:
            self._fill(sqn)
            self.filled_count += 1
            self._note_late(sqn, kind)
        self._advance()
        return 0

    cdef inline void _note_late(self, long long sqn, uint8_t kind) noexcept:
        if kind == ODATA:
            self.late_sqn = min(sqn, self.late_sqn) if self.late_sqn >= 0 else sqn
            self.has_news = True

    cdef inline void _note_trail(self, long long trail) noexcept:
        if trail > self.trail:
            self.trail = trail
            if trail > self.next and self.hole_count:
                self.has_news = True

    cdef inline void _advance(self) noexcept:
        self.next = self._holes[0].first if self.hole_count else self.lead + 1

    cdef int _open(self, long long first, long long last) except -1:
        self.has_news = True
        if self.hole_count and self._holes[self.hole_count - 1].last == first - 1:
            self._holes[self.hole_count - 1].last = last
            return 0
        return self._insert_hole(self.hole_count, first, last)

    cdef int _fill(self, long long sqn) except -1:
        cdef Py_ssize_t index = self._hole_below(sqn)
        cdef Hole *hole = &self._holes[index]
        cdef long long last = hole.last
        self.has_news = True
        if hole.first == last:
            self._remove_holes(index, 1)
        elif sqn == hole.first:
            hole.first = sqn + 1
        else:
            hole.last = sqn - 1
            if sqn < last:
                self._insert_hole(index + 1, sqn + 1, last)
        return 0

    cdef int _insert_hole(self, Py_ssize_t index, long long first, long long last) except -1:
        cdef Hole *holes
        if self.hole_count == self._hole_room:
            holes = <Hole *>PyMem_RawRealloc(
                self._holes, <size_t>(2 * self._hole_room + 16) * sizeof(Hole)
            )
            if holes == NULL:
                raise MemoryError
            self._holes = holes
            self._hole_room = 2 * self._hole_room + 16
        memmove(
            &self._holes[index + 1], &self._holes[index],
            <size_t>(self.hole_count - index) * sizeof(Hole),
        )
        self._holes[index].first = first
        self._holes[index].last = last
        self.hole_count += 1
        return 0

    cdef void _remove_holes(self, Py_ssize_t index, Py_ssize_t count) noexcept:
        if count == 0:
            return  # there may be no memory to move within
        self.hole_count -= count
        memmove(
            &self._holes[index], &self._holes[index + count],
            <size_t>(self.hole_count - index) * sizeof(Hole),
        )

    cdef Py_ssize_t _hole_below(self, long long sqn) noexcept:
        """The last hole that does not begin above ``sqn``, or -1."""
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.hole_count
        cdef Py_ssize_t middle
        while low < high:
            middle = (low + high) // 2
            if self._holes[middle].first <= sqn:
                low = middle + 1
            else:
                high = middle
        return low - 1

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

    cdef inline long long _nearest(self, const uint8_t *packet) noexcept:
        return self.lead + <int32_t>(mcast_get32(packet + 16) - <uint32_t>self.lead)

    cdef inline uint32_t _trail_distance(self, const uint8_t *packet) noexcept:
        """How far the packet's trail lies behind its own number."""
        return mcast_get32(packet + 16) - mcast_get32(packet + 20)

    cdef inline void _count(self, const uint8_t *packet) noexcept:
        self.packet_count += 1
        self.repair_count += packet[4] == RDATA
        self.payload_bytes += mcast_get16(packet + 14)
