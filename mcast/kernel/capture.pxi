# Records of capture files; ``reference_capture`` is the specification. Part of ``_native.pyx``.

cdef enum:  # as in reference_capture.py
    LINK_NULL = 0
    LINK_ETHERNET = 1
    LINK_RAW_BSD = 12
    LINK_RAW_OPENBSD = 14
    LINK_RAW = 101
    LINK_LOOP = 108
    LINK_SLL = 113
    LINK_IPV4 = 228
    LINK_IPV6 = 229
    LINK_SLL2 = 276
    ENHANCED_PACKET = 6
    IP_UDP = 17
    VLAN_LIMIT = 2
    CAPTURE_KEY_BYTES = 42  # two IPv6 addresses, two ports, a GSI
    CAPTURE_FIELD_COUNT = 10
    NANOSECONDS_FIELD = 3
    DIGITS_LIMIT = 20

cdef long long PEAK_IVL_NS = 100_000_000


cdef inline bint _is_ip_type(const uint8_t *at) noexcept:
    return mcast_get16(at) == 0x0800 or mcast_get16(at) == 0x86DD


@cython.final
cdef class CaptureFlow:
    """As ``reference_capture.CaptureFlow``."""

    cdef public ReceiveSlots slots
    cdef public tuple pattern
    cdef public long long byte_count
    cdef public long long first_ns
    cdef public long long last_ns
    cdef public long long packet_count
    cdef public long long peak_bytes
    cdef long long _bucket
    cdef long long _bucket_bytes

    def __cinit__(self, ReceiveSlots slots not None):
        self.slots = slots
        self.pattern = ()
        self._bucket = -1

    @cython.cdivision(False)  # times before 1970 are rounded down, too
    cpdef heard(self, long long time_ns, long long size_bytes):
        """Count a packet of this stream."""
        cdef long long bucket = time_ns // PEAK_IVL_NS
        if not self.packet_count:
            self.first_ns = time_ns
        self.last_ns = time_ns
        self.packet_count += 1
        self.byte_count += size_bytes
        if bucket != self._bucket:
            self._bucket = bucket
            self._bucket_bytes = 0
        self._bucket_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self._bucket_bytes)


cdef struct CaptureRecord:
    Py_ssize_t end
    long long time_ns
    long long link_type
    const uint8_t *packet
    Py_ssize_t length
    const uint8_t *addresses
    Py_ssize_t address_bytes
    const uint8_t *udp
    Py_ssize_t udp_bytes


@cython.final
cdef class CaptureWalk:
    """As ``reference_capture.CaptureWalk``."""

    cdef public dict flows
    cdef public list arrivals
    cdef public bytearray lines
    cdef public long long frame_count
    cdef public long long stored_bytes_limit
    cdef list _interfaces
    cdef bint _is_little
    cdef bint _is_ng
    cdef uint8_t _key[CAPTURE_KEY_BYTES]  # of the flow that came last
    cdef Py_ssize_t _key_bytes
    cdef CaptureFlow _flow

    def __cinit__(self, bint is_ng, bint is_little, long long stored_bytes_limit):
        self._is_ng = is_ng
        self._is_little = is_little
        self._interfaces = []
        self.flows = {}
        self.stored_bytes_limit = stored_bytes_limit

    def add_interface(self, long long link_type, long long tick_ns):
        """The next interface; ``tick_ns`` is what a fraction counts in, 0 for none in whole ns."""
        self._interfaces.append((link_type, tick_ns))

    def walk(self, data, Py_ssize_t start):
        """As ``reference_capture.CaptureWalk.walk``."""
        cdef Py_buffer buffer
        cdef CaptureRecord record
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        self._key_bytes = 0  # the caller may have changed ``flows``
        try:
            while (
                0 <= start
                and self._record(<const uint8_t *>buffer.buf, buffer.len, start, &record)
                and self._datagram(&record)
                and self._take(&record)
            ):
                start = record.end
            return start
        finally:
            PyBuffer_Release(&buffer)

    cdef inline uint32_t _word(self, const uint8_t *at) noexcept:
        if self._is_little:
            return at[0] | at[1] << 8 | at[2] << 16 | <uint32_t>at[3] << 24
        return mcast_get32(at)

    cdef bint _record(
        self, const uint8_t *data, Py_ssize_t size, Py_ssize_t start, CaptureRecord *record
    ) except -1:
        cdef Py_ssize_t left = size - start
        cdef const uint8_t *at = data + start
        cdef uint32_t captured, block, index
        cdef uint64_t ticks
        cdef long long tick_ns
        if self._is_ng:
            if left < 28 or self._word(at) != ENHANCED_PACKET:
                return False
            block = self._word(at + 4)
            index = self._word(at + 8)
            captured = self._word(at + 20)
            if block < 32 or block % 4 or block > left or index >= len(self._interfaces):
                return False
            if captured > block - 32 or captured != self._word(at + 24):
                return False
            record.link_type, tick_ns = self._interfaces[index]
            ticks = <uint64_t>self._word(at + 12) << 32 | self._word(at + 16)
            if not tick_ns or ticks >= <uint64_t>((1LL << 62) // tick_ns):
                return False
            record.time_ns = <long long>ticks * tick_ns
            record.packet = at + 28
            record.end = start + block
        else:
            if left < 16 or not self._interfaces:
                return False
            captured = self._word(at + 8)
            if captured > left - 16 or captured != self._word(at + 12):
                return False
            record.link_type, tick_ns = self._interfaces[0]
            record.time_ns = self._word(at) * 1_000_000_000LL + self._word(at + 4) * tick_ns
            record.packet = at + 16
            record.end = start + 16 + captured
        record.length = captured
        return True

    cdef bint _datagram(self, CaptureRecord *record) noexcept:
        cdef const uint8_t *packet = record.packet
        cdef const uint8_t *ip
        cdef Py_ssize_t at, left, head, total
        cdef int tag
        cdef long long link = record.link_type
        if link == LINK_ETHERNET:
            at = 12
            for tag in range(VLAN_LIMIT):
                if record.length >= at + 2 and (
                    mcast_get16(packet + at) == 0x8100 or mcast_get16(packet + at) == 0x88A8
                ):
                    at += 4
            if record.length < at + 2 or not _is_ip_type(packet + at):
                return False
            at += 2
        elif link in (LINK_RAW, LINK_IPV4, LINK_IPV6, LINK_RAW_BSD, LINK_RAW_OPENBSD):
            at = 0
        elif link == LINK_NULL or link == LINK_LOOP:
            at = 4
        elif link == LINK_SLL:
            at = 16
            if record.length < 16 or not _is_ip_type(packet + 14):
                return False
        elif link == LINK_SLL2:
            at = 20
            if record.length < 20 or not _is_ip_type(packet):
                return False
        else:
            return False
        left = record.length - at
        if left < 28:
            return False
        ip = packet + at
        if ip[0] >> 4 == 4:
            head = 4 * (ip[0] & 0x0F)
            total = mcast_get16(ip + 2)
            if head < 20 or total > left or total < head + 8:
                return False
            if mcast_get16(ip + 6) & 0x3FFF or ip[9] != IP_UDP:
                return False
            record.addresses = ip + 12
            record.address_bytes = 8
        elif ip[0] >> 4 == 6 and left >= 48 and ip[6] == IP_UDP:
            head = 40
            total = 40 + mcast_get16(ip + 4)
            if total > left or total < 48:
                return False
            record.addresses = ip + 8
            record.address_bytes = 32
        else:
            return False
        record.udp = ip + head
        record.udp_bytes = mcast_get16(record.udp + 4)
        return record.udp_bytes >= 8 + DATA_HEADER_BYTES and head + record.udp_bytes <= total

    cdef bint _take(self, CaptureRecord *record) except -1:
        cdef const uint8_t *pgm = record.udp + 8
        cdef Py_ssize_t length = record.udp_bytes - 8
        cdef Py_ssize_t size = record.address_bytes
        cdef uint8_t key[CAPTURE_KEY_BYTES]
        cdef CaptureFlow flow
        cdef ReceiveSlots slots
        cdef PyObject *found
        cdef list messages
        if pgm[4] != ODATA:
            return False
        memcpy(key, record.addresses, size)
        memcpy(key + size, record.udp + 2, 2)
        memcpy(key + size + 2, pgm, 2)
        memcpy(key + size + 4, pgm + 8, 6)
        size += 10
        if size != self._key_bytes or memcmp(key, self._key, size):
            found = PyDict_GetItem(self.flows, PyBytes_FromStringAndSize(<const char *>key, size))
            if found == NULL:
                return False
            self._flow = <CaptureFlow?><object>found
            memcpy(self._key, key, size)
            self._key_bytes = size
        flow = self._flow
        slots = flow.slots
        if mcast_get32(pgm + 16) != <uint32_t>(slots.lead + 1):
            return False
        if slots.hole_count and (
            slots.stored_bytes + length > self.stored_bytes_limit
            or slots.lead + 1 - slots._trail_distance(pgm) > slots.next
        ):
            return False
        messages = []
        if slots._absorb(pgm, length, 0, length, messages, None, 0) == 0:
            return False
        if messages and self.arrivals is not None:
            self.arrivals.append(
                (flow, record.time_ns, self.frame_count + 1, mcast_get32(pgm + 16), messages)
            )
        self.frame_count += 1
        flow.heard(record.time_ns, record.length)
        if self.lines is not None:
            self._print(flow, record)
        return True

    cdef int _print(self, CaptureFlow flow, CaptureRecord *record) except -1:
        cdef const uint8_t *pgm = record.udp + 8
        cdef long long values[CAPTURE_FIELD_COUNT]
        cdef uint8_t digits[DIGITS_LIMIT]
        cdef bytearray lines = self.lines
        cdef bytes literal
        cdef long long place
        cdef Py_ssize_t first, length, size
        cdef char *to
        values[:] = [
            self.frame_count,
            record.time_ns,
            record.time_ns // 1_000_000_000,
            record.time_ns % 1_000_000_000,
            mcast_get16(record.udp),
            (record.addresses - (4 if record.address_bytes == 8 else 1))[0],
            mcast_get16(pgm + 6),
            mcast_get16(pgm + 14),
            mcast_get32(pgm + 16),
            mcast_get32(pgm + 20),
        ]
        for literal, place in flow.pattern:
            first = DIGITS_LIMIT
            if place >= CAPTURE_FIELD_COUNT:
                raise IndexError("tuple index out of range")
            if place >= 0:
                first = _decimal(values[place], 9 if place == NANOSECONDS_FIELD else 1, digits)
            length = PyBytes_GET_SIZE(literal)
            size = PyByteArray_GET_SIZE(lines)
            PyByteArray_Resize(lines, size + length + DIGITS_LIMIT - first)
            to = PyByteArray_AS_STRING(lines) + size
            memcpy(to, PyBytes_AS_STRING(literal), length)
            memcpy(to + length, digits + first, DIGITS_LIMIT - first)
        return 0


cdef inline Py_ssize_t _decimal(long long value, int least, uint8_t *digits) noexcept:
    """Where the digits of a value of 0 or more begin; they end with the array."""
    cdef Py_ssize_t at = DIGITS_LIMIT
    while value or least > 0:
        at -= 1
        digits[at] = <uint8_t>(48 + value % 10)
        value = value // 10
        least -= 1
    return at
