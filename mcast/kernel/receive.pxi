# The receive window; ``reference.ReceiveSlots`` is the specification. Part of ``_native.pyx``.

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
