# libzmq's framing and the topic filter; ``reference_frames`` is the specification. Part of
# ``_native.pyx``.

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


cdef struct Prefix:
    const uint8_t *data
    Py_ssize_t size


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


cdef class _Assembly:
    """Messages out of the bodies of frames: parts put together, filtered, grown as they come.

    A part that lies whole in what was read is filtered and copied straight from it. A part that
    spans several grows in the very bytes object that is delivered, by doubling, never past what
    the frame claims and never far past what came.
    """

    cdef TopicFilter _topic_filter  # None: everything passes
    cdef public long long filtered_count
    cdef public long long message_count
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

    def __dealloc__(self):
        Py_XDECREF(self._body)

    @cython.final
    cdef inline bint _passes(self, const uint8_t *topic, Py_ssize_t size) noexcept:
        return self._topic_filter is None or self._topic_filter._match(topic, size)

    @cython.final
    cdef object _end_frame(self, const uint8_t *body, Py_ssize_t size):
        """A part that lies whole in what was read; the message it ends, or None."""
        cdef bint wanted = not self._rejected
        if self._part_count == 0:
            wanted = self._passes(body, size)
        return self._end_part(
            PyBytes_FromStringAndSize(<const char *>body, size) if wanted else None
        )

    @cython.final
    cdef object _end_body(self):
        """A part that came in several pieces; the message it ends, or None."""
        cdef bytes part = self._take_body()
        if self._part_count == 0 and not self._passes(
            <const uint8_t *>PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part)
        ):
            part = None
        return self._end_part(part)

    @cython.final
    cdef bytes _take_body(self):
        """The body that is complete; None if it was not wanted."""
        cdef bytes body = None
        if self._body != NULL:
            body = <bytes>self._body
            Py_XDECREF(self._body)
            self._body = NULL
        self._size_left = -1
        return body

    @cython.final
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

    @cython.final
    cdef inline void _start_body(self, long long size) noexcept:
        self._size_left = self._body_size = size
        self._body_bytes = self._body_room = 0

    @cython.final
    cdef int _grow_body(self, const uint8_t *data, long long size) except -1:
        if self._body_bytes + size > self._body_room:
            self._make_room(size)
        memcpy(_bytes_data(self._body) + self._body_bytes, data, <size_t>size)
        self._body_bytes += size
        return 0

    @cython.final
    cdef int _make_room(self, long long size) except -1:
        cdef long long room = FIRST_BODY_BYTES
        if self._body_room == FIRST_BODY_BYTES:
            room = SECOND_BODY_BYTES
        elif self._body_room:
            room = 2 * self._body_room
        room = min(max(room, self._body_bytes + size), self._body_size)
        if self._body == NULL:
            self._body = _new_bytes(NULL, <Py_ssize_t>room)
        else:
            _PyBytes_Resize(&self._body, <Py_ssize_t>room)
        self._body_room = room
        return 0

    @cython.final
    cdef inline void _start_message(self) noexcept:
        self._parts = None
        self._part_count = 0
        self._rejected = False
        self._too_long = False
        self._total_bytes = 0


@cython.final
cdef class FrameDecoder(_Assembly):
    """As ``reference.FrameDecoder``."""

    cdef readonly bint in_step
    cdef public bint refuses
    cdef public long long refused_count
    cdef public long long malformed_count
    cdef public long long max_message_bytes
    cdef public long long max_part_count
    cdef public long long too_long_count
    cdef uint8_t _head[HEAD_BYTES_MAX]
    cdef int _head_bytes

    def __cinit__(
        self, TopicFilter topic_filter not None, long long max_message_bytes,
        long long max_part_count
    ):
        self._topic_filter = topic_filter
        self.max_message_bytes = max_message_bytes
        self.max_part_count = max_part_count
        self._reset()

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
                if not self._rejected:
                    self._grow_body(data + position, take)
                position += <Py_ssize_t>take
                self._size_left -= take
                if self._size_left == 0:
                    message = self._end_body()
                    if self.refuses:
                        self.refused_count += message is not None
                    elif message is not None:
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
                    if self.refuses:
                        self.refused_count += 1
                        continue
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
                if self.refuses:
                    self.refused_count += message is not None
                elif message is not None:
                    at[0] = position
                    Py_INCREF(message)
                    return <PyObject *>message
            else:
                self._start_body(<long long>length)
        at[0] = end
        return NULL

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
