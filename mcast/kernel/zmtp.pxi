# ZMTP 3 frames: ``reference_zmtp.py``, compiled. Part of ``_native.pyx``.

cdef enum:
    ZMTP_MORE = 0x01
    ZMTP_LONG = 0x02
    ZMTP_COMMAND = 0x04
    ZMTP_RESERVED = 0xF8
    ZMTP_SHORT_BYTES = 255
    ZMTP_LONG_HEAD_BYTES = 9
    ZMTP_UNCOPIED_BYTES = 8192  # as in reference_zmtp.py


cdef inline Py_ssize_t _head_bytes_of(Py_ssize_t size) noexcept:
    return 2 if size <= ZMTP_SHORT_BYTES else ZMTP_LONG_HEAD_BYTES


cdef inline uint8_t *_put_head(uint8_t *at, int flags, Py_ssize_t size) noexcept:
    """Write a frame's head; where its body goes."""
    if size <= ZMTP_SHORT_BYTES:
        at[0] = <uint8_t>flags
        at[1] = <uint8_t>size
        return at + 2
    at[0] = <uint8_t>(flags | ZMTP_LONG)
    mcast_put64(at + 1, <uint64_t>size)
    return at + ZMTP_LONG_HEAD_BYTES


def encode_messages(messages):
    """As ``reference.encode_messages``."""
    cdef list batch = messages if PyList_CheckExact(messages) else list(messages)
    cdef list frames = []  # flags and body in turn, of what is not plain
    cdef list buffers = []
    cdef object message, part
    cdef tuple parts
    cdef Py_ssize_t size, index, first, place
    cdef Py_ssize_t total = 0
    cdef uint8_t *at
    cdef bytes copied
    cdef bint is_plain = True
    for message in batch:
        if not PyBytes_CheckExact(message) or PyBytes_GET_SIZE(message) >= ZMTP_UNCOPIED_BYTES:
            is_plain = False
            break
        total += _head_bytes_of(PyBytes_GET_SIZE(message)) + PyBytes_GET_SIZE(message)
    if is_plain:
        if total == 0:
            return buffers
        copied = PyBytes_FromStringAndSize(NULL, total)
        at = <uint8_t *>PyBytes_AS_STRING(copied)
        for message in batch:
            size = PyBytes_GET_SIZE(message)
            at = _put_head(at, 0, size)
            memcpy(at, PyBytes_AS_STRING(message), <size_t>size)
            at += size
        buffers.append(copied)
        return buffers
    for message in batch:
        parts = checked_parts(message)
        first = len(frames)
        for part in parts:
            frames.append(part)
            frames.append(ZMTP_MORE)
        frames[len(frames) - 1] = 0
    index = 0
    while index < PyList_GET_SIZE(frames):
        # Up to and with the head of the next large body, all is one entry.
        place = index
        total = 0
        while place < PyList_GET_SIZE(frames):
            size = PyBytes_GET_SIZE(<object>PyList_GET_ITEM(frames, place))
            total += _head_bytes_of(size)
            place += 2
            if size >= ZMTP_UNCOPIED_BYTES:
                break
            total += size
        copied = PyBytes_FromStringAndSize(NULL, total)
        at = <uint8_t *>PyBytes_AS_STRING(copied)
        buffers.append(copied)
        while index < place:
            part = <object>PyList_GET_ITEM(frames, index)
            size = PyBytes_GET_SIZE(part)
            at = _put_head(at, <int>(<object>PyList_GET_ITEM(frames, index + 1)), size)
            if size >= ZMTP_UNCOPIED_BYTES:
                buffers.append(part)
            else:
                memcpy(at, PyBytes_AS_STRING(part), <size_t>size)
                at += size
            index += 2
    return buffers


@cython.final
cdef class FrameScanner(_Assembly):
    """As ``reference.FrameScanner``; what was fed is looked at where it lies.

    Between two calls of ``feed`` it keeps the few octets of a head that is not complete, and the
    body that is growing.
    """

    cdef public long long max_message_bytes
    cdef public long long max_part_count
    cdef public long long max_command_bytes
    cdef const uint8_t *_data
    cdef Py_ssize_t _at
    cdef Py_ssize_t _end
    cdef Py_buffer _fed
    cdef bint _has_fed
    cdef bint _is_fed
    cdef _Block _owner  # of what is looked at, if nobody fed it
    cdef uint8_t _head[ZMTP_LONG_HEAD_BYTES]
    cdef int _head_bytes
    cdef bint _is_command  # of the body under way
    cdef bytes _command  # that was found

    def __cinit__(
        self, long long max_message_bytes, long long max_part_count, long long max_command_bytes
    ):
        self.max_message_bytes = max_message_bytes
        self.max_part_count = max_part_count
        self.max_command_bytes = max_command_bytes
        self._size_left = -1

    def __dealloc__(self):
        self._let_go()

    @property
    def topic_filter(self):
        """As ``reference.FrameScanner.topic_filter``."""
        return self._topic_filter

    @topic_filter.setter
    def topic_filter(self, TopicFilter topic_filter):
        self._topic_filter = topic_filter

    def feed(self, data):
        """As ``reference.FrameScanner.feed``."""
        if self._at < self._end:
            data = PyBytes_FromStringAndSize(
                <const char *>self._data + self._at, self._end - self._at
            ) + data
        self._let_go()
        PyObject_GetBuffer(data, &self._fed, PyBUF_SIMPLE)
        self._has_fed = self._is_fed = True
        self._look_at(<const uint8_t *>self._fed.buf, self._fed.len)

    def scan_untrusted(self, list messages not None):
        """As ``reference.FrameScanner.scan_untrusted``."""
        return self._scan(messages)

    cdef inline void _look_at(self, const uint8_t *data, Py_ssize_t size) noexcept:
        """Scan this next; it has to stay until the end is reached."""
        self._data = data
        self._at = 0
        self._end = size

    @property
    def has_unscanned(self):
        """As ``reference.FrameScanner.has_unscanned``."""
        return self._is_fed

    cdef inline bint _wants_directly(self) noexcept:
        """So much of a large body has come that the rest may go straight to its place."""
        return self._size_left > 0 and self._body != NULL and self._body_bytes >= DIRECT_BYTES

    cdef Py_ssize_t _receive_directly(self, int fd) except? -1:
        """Read on into the body under way; as ``StreamReader.read``."""
        cdef Py_ssize_t size
        if self._body_room - self._body_bytes < min(self._size_left, DIRECT_BYTES):
            self._make_room(min(self._size_left, DIRECT_BYTES))
        size = _receive_stream(
            fd,
            <uint8_t *>_bytes_data(self._body) + self._body_bytes,
            <Py_ssize_t>min(self._size_left, self._body_room - self._body_bytes),
        )
        if size > 0:
            self._body_bytes += size
            self._size_left -= size
            self._is_fed = True
        return size

    cdef void _let_go(self) noexcept:
        self._at = self._end = 0
        self._owner = None
        if self._has_fed:
            self._has_fed = False
            PyBuffer_Release(&self._fed)

    cdef bytes _scan(self, list messages):
        """The next command, or None; messages before it are appended."""
        cdef const uint8_t *data = self._data
        cdef Py_ssize_t at, end, size
        cdef long long quick_bytes
        cdef PyObject *message
        cdef bytes command
        cdef object made
        self._is_fed = False
        while True:
            if self._size_left < 0 and self._head_bytes == 0:
                quick_bytes = self._quick_bytes()
                at, end = self._at, self._end
                while end - at >= 2 and data[at] == 0:
                    size = data[at + 1]
                    if size > quick_bytes or size > end - at - 2:
                        break
                    at += 2
                    if self._passes(data + at, size):
                        made = PyBytes_FromStringAndSize(<const char *>data + at, size)
                        messages.append(made)
                        self.message_count += 1
                    else:
                        self.filtered_count += 1
                    at += size
                self._at = at
            message = self._next()
            if message == NULL:
                command, self._command = self._command, None
                if command is None:
                    self._let_go()
                else:
                    self._is_fed = True
                return command
            made = <object>message
            Py_DECREF(made)
            messages.append(made)

    cdef inline long long _quick_bytes(self) noexcept:
        """The size up to which a frame without flags is a message and needs no further check."""
        return self.max_message_bytes if self.max_part_count > 0 and self._part_count == 0 else -1

    cdef PyObject *_next(self) except? NULL:
        """The next message, a new reference; NULL: ``_command`` is next, or all was looked at."""
        cdef const uint8_t *data = self._data
        cdef const uint8_t *head
        cdef Py_ssize_t end = self._end
        cdef Py_ssize_t at = self._at
        cdef Py_ssize_t left, wanted
        cdef uint64_t size
        cdef object message
        cdef int flags
        while True:
            left = end - at
            if self._size_left >= 0:  # inside a body
                left = <Py_ssize_t>min(<long long>left, self._size_left)
                if left and (self._is_command or not self._rejected):
                    self._grow_body(data + at, left)
                at += left
                self._at = at
                self._size_left -= left
                if self._size_left > 0:
                    return NULL
                if self._is_command:
                    self._command = self._take_body()
                    return NULL
                message = self._end_body()
                if message is not None:
                    Py_INCREF(message)
                    return <PyObject *>message
                continue
            head = data + at
            if self._head_bytes == 0 and (
                left >= ZMTP_LONG_HEAD_BYTES or (left >= 2 and not head[0] & ZMTP_LONG)
            ):
                flags = head[0]
                if flags == 0 and head[1] <= left - 2 and head[1] <= self._quick_bytes():
                    at += 2 + head[1]
                    self._at = at
                    if not self._passes(head + 2, head[1]):
                        self.filtered_count += 1
                        continue
                    self.message_count += 1
                    return _new_bytes(<const char *>head + 2, head[1])
                at += ZMTP_LONG_HEAD_BYTES if flags & ZMTP_LONG else 2
            else:  # near the end, or begun before it: octet by octet
                wanted = ZMTP_LONG_HEAD_BYTES
                while self._head_bytes < wanted and at < end:
                    self._head[self._head_bytes] = data[at]
                    self._head_bytes += 1
                    at += 1
                    if not self._head[0] & ZMTP_LONG:
                        wanted = 2
                self._at = at
                if self._head_bytes >= 2:
                    self._check_flags(self._head[0])
                if self._head_bytes < 2 or (
                    self._head[0] & ZMTP_LONG and self._head_bytes < ZMTP_LONG_HEAD_BYTES
                ):
                    return NULL
                self._head_bytes = 0
                head = self._head
                flags = head[0]
            self._check_flags(flags)
            size = mcast_get64(head + 1) if flags & ZMTP_LONG else head[1]
            self._check_size(flags, size)
            self._at = at
            self._is_command = (flags & ZMTP_COMMAND) != 0
            if not self._is_command:
                self._more = flags & ZMTP_MORE
                self._total_bytes += <long long>size
            if size > <uint64_t>(end - at):
                self._start_body(<long long>size)
                continue
            self._at = at + <Py_ssize_t>size
            if self._is_command:
                self._command = PyBytes_FromStringAndSize(
                    <const char *>data + at, <Py_ssize_t>size
                )
                return NULL
            message = self._end_frame(data + at, <Py_ssize_t>size)
            at = self._at
            if message is not None:
                Py_INCREF(message)
                return <PyObject *>message

    cdef inline int _check_flags(self, int flags) except -1:
        if flags & ZMTP_RESERVED or (flags & ZMTP_COMMAND and flags & ZMTP_MORE):
            self._refuse("malformed", f"a frame has the flags {flags:#04x}")
        return 0

    cdef inline int _check_size(self, int flags, uint64_t size) except -1:
        if flags & ZMTP_COMMAND:
            if self.max_command_bytes < 0 or size > <uint64_t>self.max_command_bytes:
                self._refuse_size("a command", size, self.max_command_bytes)
            return 0
        if self.max_part_count == 0:
            self._refuse("unexpected", "a message came before the handshake's end")
        if (
            self._total_bytes > self.max_message_bytes
            or size > <uint64_t>(self.max_message_bytes - self._total_bytes)
        ):
            self._refuse_size("a message", size + <object>self._total_bytes, self.max_message_bytes)
        if self._part_count + 1 + (flags & ZMTP_MORE) > self.max_part_count:
            self._refuse("too_long", f"a message has more than {self.max_part_count} parts")
        return 0

    cdef int _refuse_size(self, what, size, limit) except -1:
        return self._refuse("too_long", f"{what} has {size} bytes, the limit is {limit}")

    cdef int _refuse(self, reason, text) except -1:
        self._let_go()
        raise FrameError(reason, text)
