# The transmit window; ``reference.TransmitSlots`` is the specification. Part of ``_native.pyx``.

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

    def repair_run(self, sqns):
        """As ``reference.TransmitSlots.repair_run``."""
        cdef list numbers = list(sqns)
        cdef long long sqn
        cdef Py_ssize_t index
        cdef uint32_t length
        cdef uint32_t segment_bytes = 0
        cdef Py_ssize_t count = 0
        cdef Py_ssize_t size = 0
        for sqn in numbers:
            if not self.trail <= sqn < self.unsent:
                break
            length = self._lengths[sqn % self._slot_count]
            if segment_bytes == 0:
                segment_bytes = length
            elif length > segment_bytes:
                break
            size += length
            count += 1
            if length < segment_bytes:
                break
        if count == 0:
            return None
        cdef bytes run = PyBytes_FromStringAndSize(NULL, size)
        cdef uint8_t *packet = <uint8_t *>PyBytes_AS_STRING(run)
        for index in range(count):  # makes no object: nobody else sends until all is copied
            sqn = numbers[index]
            length = self._lengths[sqn % self._slot_count]
            memcpy(packet, self._block.data + (sqn % self._slot_count) * self._slot_bytes, length)
            packet[4] = RDATA
            mcast_put16(packet + 6, 0)
            mcast_put32(packet + 20, <uint32_t>self.trail)
            mcast_put16(packet + 6, mcast_checksum(packet, length))
            packet += length
        return run, segment_bytes

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
