# Bytes to and from stream sockets; ``reference_stream`` is the specification. Part of
# ``_native.pyx``.

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    const int MSG_NOSIGNAL

cdef enum:
    FIRST_BLOCK_BYTES = 4096
    KEPT_BLOCK_BYTES = 1 << 18  # of a writer that has nothing to write
    GATHER_COUNT = 64
    DIRECT_BYTES = 1 << 15  # of a body: from here on it is read straight to its place


cdef struct StreamBody:  # in between two bytes of the block
    PyObject *data
    long long at
    Py_ssize_t done


cdef struct StreamMark:
    long long end
    long long count


@cython.final
cdef class StreamReader:
    """As ``reference.StreamReader``."""

    cdef _Block _block
    cdef readonly object data

    def __cinit__(self, long long buffer_bytes=1 << 18):
        if buffer_bytes < 1:
            raise ValueError(f"a buffer of {buffer_bytes} bytes; it must have at least 1")
        self._block = _Block(1, buffer_bytes)
        self.data = PyMemoryView_FromObject(self._block)

    def read(self, int fd, FrameScanner scanner=None):
        """As ``reference.StreamReader.read``."""
        cdef Py_ssize_t size
        if scanner is None:
            return _receive_stream(fd, self._block.data, self._block.size)
        if scanner._is_fed:
            raise ValueError("scan what was read before reading more")
        if scanner._wants_directly():
            return scanner._receive_directly(fd)
        size = _receive_stream(fd, self._block.data, self._block.size)
        if size > 0:
            scanner._let_go()
            scanner._look_at(self._block.data, size)
            scanner._owner = self._block
            scanner._is_fed = True
        return size


cdef Py_ssize_t _receive_stream(int fd, uint8_t *data, Py_ssize_t size) noexcept:
    cdef ssize_t came
    while True:
        came = recv(fd, data, <size_t>size, MSG_DONTWAIT)
        if came >= 0:
            return came
        if errno != EINTR:
            return -errno


@cython.final
cdef class StreamWriter:
    """As ``reference.StreamWriter``: one block, and where in it the large bodies belong.

    Positions count all bytes that were ever in the block.
    """

    cdef int _fd
    cdef uint8_t *_block
    cdef Py_ssize_t _room
    cdef Py_ssize_t _start  # of what waits in the block
    cdef Py_ssize_t _end
    cdef long long _base  # position of the block's first byte
    cdef StreamBody *_bodies
    cdef Py_ssize_t _body_first
    cdef Py_ssize_t _body_end
    cdef Py_ssize_t _body_room
    cdef StreamMark *_marks
    cdef Py_ssize_t _mark_first
    cdef Py_ssize_t _mark_end
    cdef Py_ssize_t _mark_room
    cdef long long _appended_bytes
    cdef readonly long long written_bytes
    cdef readonly long long message_count

    def __cinit__(self, int fd):
        self._fd = fd

    def __dealloc__(self):
        self._drop_bodies()
        PyMem_RawFree(self._block)
        PyMem_RawFree(self._bodies)
        PyMem_RawFree(self._marks)

    @property
    def size_bytes(self):
        """As ``reference.StreamWriter.size_bytes``."""
        return self._appended_bytes - self.written_bytes

    def append(self, list messages not None):
        """As ``reference.StreamWriter.append``."""
        cdef object message
        cdef list checked
        for message in messages:
            if not PyBytes_CheckExact(message):
                break
        else:
            for message in messages:
                self._append_bytes(<bytes>message)
            return
        checked = [checked_parts(message) for message in messages]
        for message in checked:
            self._append_parts(<tuple>message)

    def put(self, list buffers not None, long long message_count=0):
        """As ``reference.StreamWriter.put``."""
        cdef bytes buffer
        for buffer in buffers:
            self._add(buffer)
        if message_count:
            self._mark(message_count)
            self._count()

    def write(self):
        """As ``reference.StreamWriter.write``."""
        return self._write()

    def clear(self):
        """As ``reference.StreamWriter.clear``."""
        self._drop_bodies()
        self._appended_bytes = self.written_bytes
        self.message_count = 0
        self._mark_first = self._mark_end = 0
        self._empty()

    cdef inline int _append_bytes(self, bytes message) except -1:
        """One message of one part."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(message)
        cdef uint8_t *at
        if size >= ZMTP_UNCOPIED_BYTES:
            self._append_frame(0, message)
        else:
            if size + ZMTP_LONG_HEAD_BYTES > self._room - self._end:
                self._make_room(size + ZMTP_LONG_HEAD_BYTES)
            at = _put_head(self._block + self._end, 0, size)
            memcpy(at, PyBytes_AS_STRING(message), <size_t>size)
            size += _head_bytes_of(size)
            self._end += size
            self._appended_bytes += size
        if self._mark_end == self._mark_room:
            self._make_mark_room()
        self._marks[self._mark_end].end = self._appended_bytes
        self._marks[self._mark_end].count = 1
        self._mark_end += 1
        self.message_count += 1
        return 0

    cdef int _append_parts(self, tuple parts) except -1:
        cdef Py_ssize_t index
        cdef Py_ssize_t last = PyTuple_GET_SIZE(parts) - 1
        for index in range(last + 1):
            self._append_frame(
                ZMTP_MORE if index < last else 0, <bytes>PyTuple_GET_ITEM(parts, index)
            )
        return self._mark(1)

    cdef int _append_frame(self, int flags, bytes body) except -1:
        cdef Py_ssize_t size
        if ZMTP_LONG_HEAD_BYTES > self._room - self._end:
            self._make_room(ZMTP_LONG_HEAD_BYTES)
        size = _head_bytes_of(PyBytes_GET_SIZE(body))
        _put_head(self._block + self._end, flags, PyBytes_GET_SIZE(body))
        self._end += size
        self._appended_bytes += size
        return self._add(body)

    cdef int _add(self, bytes buffer) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(buffer)
        cdef StreamBody *body
        if size >= ZMTP_UNCOPIED_BYTES:
            if self._body_end == self._body_room:
                self._make_body_room()
            body = &self._bodies[self._body_end]
            self._body_end += 1
            body.data = <PyObject *>buffer
            Py_INCREF(buffer)
            body.at = self._base + self._end
            body.done = 0
        else:
            if size > self._room - self._end:
                self._make_room(size)
            memcpy(self._block + self._end, PyBytes_AS_STRING(buffer), <size_t>size)
            self._end += size
        self._appended_bytes += size
        return 0

    cdef int _mark(self, long long count) except -1:
        if self._mark_end == self._mark_room:
            self._make_mark_room()
        self._marks[self._mark_end].end = self._appended_bytes
        self._marks[self._mark_end].count = count
        self._mark_end += 1
        self.message_count += count
        return 0

    cdef int _make_room(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t held = self._end - self._start
        cdef Py_ssize_t room = max(self._room, FIRST_BLOCK_BYTES)
        cdef uint8_t *block
        while room < held + size or (room == self._room and held > room // 2):
            room *= 2
        if room == self._room:
            memmove(self._block, self._block + self._start, <size_t>held)
        else:
            block = <uint8_t *>PyMem_RawMalloc(<size_t>room)
            if block == NULL:
                raise MemoryError
            if held:  # else there may be no old block
                memcpy(block, self._block + self._start, <size_t>held)
            PyMem_RawFree(self._block)
            self._block = block
            self._room = room
        self._base += self._start
        self._start = 0
        self._end = held
        return 0

    cdef int _make_body_room(self) except -1:
        cdef Py_ssize_t held = self._body_end - self._body_first
        cdef StreamBody *bodies = self._bodies
        if held > self._body_room // 2 or bodies == NULL:
            self._body_room = max(8, 2 * self._body_room)
            bodies = <StreamBody *>PyMem_RawRealloc(
                self._bodies, <size_t>self._body_room * sizeof(StreamBody)
            )
            if bodies == NULL:
                self._body_room = self._body_end
                raise MemoryError
            self._bodies = bodies
        memmove(bodies, bodies + self._body_first, <size_t>held * sizeof(StreamBody))
        self._body_first = 0
        self._body_end = held
        return 0

    cdef int _make_mark_room(self) except -1:
        cdef Py_ssize_t held = self._mark_end - self._mark_first
        cdef StreamMark *marks = self._marks
        if held > self._mark_room // 2 or marks == NULL:
            self._mark_room = max(64, 2 * self._mark_room)
            marks = <StreamMark *>PyMem_RawRealloc(
                self._marks, <size_t>self._mark_room * sizeof(StreamMark)
            )
            if marks == NULL:
                self._mark_room = self._mark_end
                raise MemoryError
            self._marks = marks
        memmove(marks, marks + self._mark_first, <size_t>held * sizeof(StreamMark))
        self._mark_first = 0
        self._mark_end = held
        return 0

    cdef int _write(self) noexcept:
        """0, or an errno."""
        cdef Py_ssize_t offered, size
        while self.written_bytes < self._appended_bytes:
            if self._body_first == self._body_end:
                offered = self._end - self._start
                size = send(
                    self._fd, self._block + self._start, <size_t>offered,
                    MSG_DONTWAIT | MSG_NOSIGNAL,
                )
            else:
                size = self._write_gathered(&offered)
            if size < 0:
                if errno == EINTR:
                    continue
                return errno
            self._advance(size)
            if size < offered:
                return EAGAIN
        return 0

    cdef Py_ssize_t _write_gathered(self, Py_ssize_t *offered) noexcept:
        cdef iovec vectors[GATHER_COUNT]
        cdef msghdr header
        cdef long long position = self._base + self._start
        cdef long long end = self._base + self._end
        cdef long long until
        cdef Py_ssize_t index = self._body_first
        cdef StreamBody *body
        cdef int count = 0
        offered[0] = 0
        while count < GATHER_COUNT - 1 and (index < self._body_end or position < end):
            until = self._bodies[index].at if index < self._body_end else end
            if position < until:
                vectors[count].iov_base = self._block + (position - self._base)
                vectors[count].iov_len = <size_t>(until - position)
                offered[0] += <Py_ssize_t>(until - position)
                position = until
                count += 1
            if index < self._body_end:
                body = &self._bodies[index]
                vectors[count].iov_base = _bytes_data(body.data) + body.done
                vectors[count].iov_len = <size_t>(PyBytes_GET_SIZE(<object>body.data) - body.done)
                offered[0] += PyBytes_GET_SIZE(<object>body.data) - body.done
                index += 1
                count += 1
        memset(&header, 0, sizeof(header))
        header.msg_iov = vectors
        header.msg_iovlen = <size_t>count
        return sendmsg(self._fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL)

    cdef void _advance(self, Py_ssize_t size) noexcept:
        cdef StreamBody *body
        cdef Py_ssize_t step
        self.written_bytes += size
        while size > 0:
            step = self._end - self._start
            if self._body_first < self._body_end:
                body = &self._bodies[self._body_first]
                step = <Py_ssize_t>(body.at - self._base) - self._start
                if step == 0:
                    step = min(size, PyBytes_GET_SIZE(<object>body.data) - body.done)
                    body.done += step
                    size -= step
                    if body.done == PyBytes_GET_SIZE(<object>body.data):
                        self._body_first += 1
                        Py_XDECREF(body.data)
                    continue
            step = min(size, step)
            self._start += step
            size -= step
        if self.written_bytes == self._appended_bytes:
            self.message_count = 0
            self._mark_first = self._mark_end = 0
            self._empty()
        else:
            self._count()

    cdef void _count(self) noexcept:
        while (
            self._mark_first < self._mark_end
            and self._marks[self._mark_first].end <= self.written_bytes
        ):
            self.message_count -= self._marks[self._mark_first].count
            self._mark_first += 1

    cdef void _empty(self) noexcept:
        self._base += self._end
        self._start = self._end = 0
        self._body_first = self._body_end = 0
        if self._room > KEPT_BLOCK_BYTES:
            PyMem_RawFree(self._block)
            self._block = NULL
            self._room = 0

    cdef void _drop_bodies(self) noexcept:
        while self._body_first < self._body_end:
            self._body_first += 1
            Py_XDECREF(self._bodies[self._body_first - 1].data)
