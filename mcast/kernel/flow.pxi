# The short ways of a socket with one peer on a stream socket; ``reference_flow`` is the
# specification. Part of ``_native.pyx``.

cdef enum:
    STREAM_BATCH_BYTES = 1 << 15  # half of it costs 64 B batches a tenth; twice as much gains none
    STREAM_FULL_BYTES = 1 << 16
    STREAM_READ_BYTES = 1 << 17
    HEAD_ROOM_BYTES = 16  # in front of what is read, for the head that begins before it
    STREAM_RETRY_NS = 1_000_000


@cython.final
@cython.no_gc_clear  # _timer points into the baton
cdef class StreamGate:
    """As ``reference.StreamGate``, with the short way.

    Guarded by the interpreter lock alone: nothing here runs Python between a look and what follows
    of it, but where it waits, and then it looks again.
    """

    cdef object __weakref__
    cdef StreamWriter _writer
    cdef Inbox _sink  # of another socket
    cdef Py_ssize_t _sink_limit
    cdef object _came
    cdef public bint is_open
    cdef public bint hold
    cdef TopicFilter _topic_filter
    cdef readonly long long sent_count
    cdef readonly long long filtered_count
    cdef readonly long long dropped_count
    cdef readonly int error
    cdef public long long max_message_bytes
    cdef public long long message_limit
    cdef object _failed
    cdef object _slow
    cdef object _slow_many
    cdef Baton _baton
    cdef long long _coalesce_ns
    cdef bint _blocks
    cdef bint _drops
    cdef bint _is_blocked  # the system did not take all
    cdef long long _written_ns  # when it was last asked to
    cdef long long _left_ns  # when that call had returned
    cdef int _bell_fd
    cdef int _sleeper_count
    cdef SendTimer *_timer
    cdef SendTimer _own_timer

    def __cinit__(
        self, *, long long max_message_bytes, long long message_limit, long long coalesce_ns,
        bint blocks, bint drops, Baton baton not None, bint attended, failed, slow, slow_many
    ):
        self._bell_fd = -1
        self._own_timer.due_ns = NEVER
        self._timer = &self._own_timer
        self.max_message_bytes = max_message_bytes
        self.message_limit = message_limit
        self._coalesce_ns = coalesce_ns
        self._blocks = blocks
        self._drops = drops
        self._baton = baton
        self._failed = failed
        self._slow = slow
        self._slow_many = slow_many
        self._written_ns = self._left_ns = -coalesce_ns
        if attended:
            self._timer = baton._new_timer()
            if self._timer == NULL:
                self._timer = &self._own_timer

    def __dealloc__(self):
        self._give_timer_back()
        if self._bell_fd >= 0:
            close(self._bell_fd)

    @property
    def topic_filter(self):
        """As ``reference.StreamGate.topic_filter``."""
        return self._topic_filter

    @topic_filter.setter
    def topic_filter(self, TopicFilter topic_filter):
        self._topic_filter = topic_filter

    @property
    def is_attended(self):
        """As ``reference.StreamGate.is_attended``."""
        return self._timer != &self._own_timer

    @property
    def due_ns(self):
        """As ``reference.StreamGate.due_ns``."""
        return self._timer.due_ns

    @property
    def writer(self):
        """As ``reference.StreamGate.writer``."""
        return self._writer

    def lead_into(self, Inbox inbox not None, Py_ssize_t limit, came):
        """As ``reference.StreamGate.lead_into``."""
        self.lead_to(None)
        self._sink = inbox
        self._sink_limit = limit
        self._came = came

    def lead_to(self, StreamWriter writer):
        """As ``reference.StreamGate.lead_to``."""
        self._close()
        self._sink = None
        self._came = None
        self._writer = writer
        self._is_blocked = False
        self.error = 0
        self._timer.due_ns = NEVER

    def send(self, data, flags=0, *, timeout=None):
        """As ``reference.StreamGate.send``."""
        cdef bint alone
        if (
            flags is ZERO
            and self.is_open
            and not self.hold
            and PyBytes_CheckExact(data)
            and PyBytes_GET_SIZE(data) <= self.max_message_bytes
        ):
            if self._sink is not None:
                if self._put(<bytes>data):
                    return
            elif not self._is_wanted(data):
                self.filtered_count += 1
                return
            elif self._has_room() or (timeout is None and self._blocks and self._wait_for_room()):
                alone = self._is_empty()
                self._writer._append_bytes(<bytes>data)
                self.sent_count += 1
                self._leave(alone)
                self._baton._spend(PyBytes_GET_SIZE(data) + MESSAGE_WEIGHT_BYTES)
                return
            elif self._drops:
                self.dropped_count += 1
                self._leave(False)
                return
        self._slow(data, flags, timeout=timeout)

    def send_many(self, messages, *, timeout=None):
        """As ``reference.StreamGate.send_many``."""
        cdef Py_ssize_t taken = 0
        if (
            PyList_CheckExact(messages)
            and self.is_open
            and not self.hold
            and self._are_plain(<list>messages, 0)
        ):
            if self._sink is not None:
                taken = self._put_many(<list>messages)
            else:
                taken = self._take_many(<list>messages, timeout is None)
            if taken == PyList_GET_SIZE(messages):
                return taken
        if taken:
            return taken + self._slow_many(messages[taken:], timeout=timeout)
        return self._slow_many(messages, timeout=timeout)

    def flush(self):
        """As ``reference.StreamGate.flush``."""
        cdef int code
        if self._writer is None:
            return 0
        code = self._write()
        if self._is_blocked:
            self._timer.due_ns = NEVER  # the owner waits for the socket
        return code

    def close(self):
        """As ``reference.StreamGate.close``."""
        self._close()

    def leave(self):
        """As ``reference.StreamGate.leave``."""
        self._close()
        self._give_timer_back()

    cdef void _close(self) noexcept:
        cdef uint64_t one = 1
        self.is_open = False
        if self._sleeper_count and self._bell_fd >= 0:
            write(self._bell_fd, &one, sizeof(one))

    cdef void _give_timer_back(self) noexcept:
        if self._timer != &self._own_timer:
            self._own_timer = self._timer[0]
            self._own_timer.is_used = 0
            self._timer.is_used = 0
            self._timer = &self._own_timer

    cdef inline bint _is_wanted(self, data) noexcept:
        return self._topic_filter is None or self._topic_filter._match(
            <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        )

    cdef inline bint _is_empty(self) noexcept:
        return self._writer._appended_bytes == self._writer.written_bytes

    cdef inline long long _pending_bytes(self) noexcept:
        return self._writer._appended_bytes - self._writer.written_bytes

    cdef inline bint _has_room(self) noexcept:
        return self._writer.message_count < self.message_limit and (
            self._drops or self._pending_bytes() < STREAM_FULL_BYTES
        )

    cdef bint _are_plain(self, list messages, Py_ssize_t index) noexcept:
        cdef PyObject *message
        for index in range(index, PyList_GET_SIZE(messages)):
            message = <PyObject *>PyList_GET_ITEM(messages, index)
            if (
                not PyBytes_CheckExact(<object>message)
                or PyBytes_GET_SIZE(<object>message) > self.max_message_bytes
            ):
                return False
        return True

    # Counting, putting and telling: whatever may run Python comes before the looks or after all.

    cdef bint _put(self, bytes message) except -1:
        """Put it into the other socket's inbox; False if there is no room."""
        cdef Inbox sink = self._sink
        cdef object came
        if sink._count >= self._sink_limit:
            return False
        came = self._came
        self.sent_count += 1
        if sink._append(message):
            came()
        self._baton._spend(PyBytes_GET_SIZE(message) + MESSAGE_WEIGHT_BYTES)
        return True

    cdef Py_ssize_t _put_many(self, list messages) except -1:
        """How many of them there was room for."""
        cdef Inbox sink = self._sink
        cdef object came = self._came
        cdef list taken
        cdef Py_ssize_t count = min(
            PyList_GET_SIZE(messages), max(0, self._sink_limit - sink._count)
        )
        cdef bint was_empty
        taken = PyList_GetSlice(messages, 0, count)
        if not self.is_open or self._sink is not sink or not self._are_plain(taken, 0):
            return 0  # another thread was at it meanwhile
        count = PyList_GET_SIZE(taken)
        was_empty = sink._count == 0
        self.sent_count += count
        sink._put(taken)
        if was_empty and count:
            came()
        self._baton._spend(BATCH_WEIGHT_BYTES)
        return count

    cdef Py_ssize_t _take_many(self, list messages, bint may_wait) except -1:
        """How many messages were taken, or not wanted."""
        cdef Py_ssize_t index = 0
        cdef bint alone = self._is_empty()
        cdef object message
        while index < PyList_GET_SIZE(messages) and self.is_open:
            if self._pending_bytes() >= STREAM_BATCH_BYTES and not self._is_blocked:
                self._write()
            if not self._has_room():
                if not self._is_blocked:
                    self._write()
                if not self._has_room():
                    if self._drops:
                        self.dropped_count += 1
                        index += 1
                        continue
                    if not (may_wait and self._blocks and self._wait_for_room()):
                        break
                    if not self._are_plain(messages, index):  # another thread was at it meanwhile
                        break
                continue
            message = <object>PyList_GET_ITEM(messages, index)
            if self._is_wanted(message):
                self._writer._append_bytes(<bytes>message)
                self.sent_count += 1
            else:
                self.filtered_count += 1
            index += 1
        if self._writer is not None:  # it may have been closed while this thread waited
            self._leave(alone)
        self._baton._spend(BATCH_WEIGHT_BYTES)
        return index

    cdef int _leave(self, bint alone) except -1:
        """Write what is to leave now; for the rest there is a time."""
        cdef long long pending = self._pending_bytes()
        cdef long long now_ns
        if pending == 0:
            return 0
        if pending < STREAM_BATCH_BYTES and self._timer != &self._own_timer:
            now_ns = _now()
            if now_ns - self._written_ns < self._coalesce_ns and not (
                alone
                and now_ns - self._written_ns >= self._coalesce_ns // ALONE_SHARE
                and now_ns - self._left_ns >= self._coalesce_ns // PAUSE_SHARE
            ):
                return self._leave_for_later()
        elif self._is_blocked and _now() - self._written_ns < self._coalesce_ns:
            return self._leave_for_later()
        self._write()
        if self.error:
            self._failed()
        elif self._is_blocked:
            self._arm(self._written_ns + STREAM_RETRY_NS)
        return 0

    cdef int _leave_for_later(self) noexcept:
        """There is always a time for what waits, since a write of before took it back."""
        if self._timer.due_ns == NEVER:
            self._arm(
                self._written_ns + (STREAM_RETRY_NS if self._is_blocked else self._coalesce_ns)
            )
        return 0

    cdef void _arm(self, long long due_ns) noexcept:
        cdef Baton baton = self._baton
        self._timer.due_ns = due_ns
        if self._timer != &self._own_timer:
            mcast_fence()
            if due_ns < baton._looks_at_ns - BULK_SLEEP_NS:
                baton.wake()
            return
        baton.due_ns = min(baton.due_ns, due_ns)  # as ``Loop.wake_before``
        if due_ns < baton.sleeps_until_ns:
            baton.sleeps_until_ns = 0
            baton.wake()

    cdef int _write(self) noexcept:
        """0, or an errno; one that is not about room closes the gate."""
        cdef int code
        self._written_ns = _now()
        code = self._writer._write()
        self._left_ns = _now()
        self._timer.sent_packets += BULK_PACKETS
        self._is_blocked = _is_no_room(code)
        if not self._is_blocked:
            self._timer.due_ns = NEVER
            if code:
                self.error = code
                self._close()
        return code

    cdef bint _wait_for_room(self) except -1:
        """Wait for the socket and write; False if that is for the long way."""
        cdef pollfd fds[2]
        cdef uint64_t rings
        if self._bell_fd < 0:
            self._bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
            if self._bell_fd < 0:
                return False
        while self.is_open:
            self._write()
            if self._has_room():
                return True
            if not self.is_open:
                break
            self._timer.due_ns = NEVER  # this thread does it
            fds[0].fd = self._writer._fd
            fds[0].events = POLLOUT
            fds[1].fd = self._bell_fd
            fds[1].events = POLLIN
            fds[0].revents = fds[1].revents = 0
            self._sleeper_count += 1
            with nogil:
                ppoll(fds, 2, NULL, NULL)
            self._sleeper_count -= 1
            if fds[1].revents and self.is_open:
                read(self._bell_fd, &rings, sizeof(rings))
            try:
                PyErr_CheckSignals()
            except BaseException:
                if self.is_open:
                    self._arm(_now() + STREAM_RETRY_NS)
                raise
        if self.error:
            self._failed()
        return False


@cython.final
cdef class StreamIntake(_Source):
    """As ``reference.StreamIntake``; this one does wait.

    What a waiting thread has read is looked at once, head by head: if it is nothing but messages of
    one part, they are made as they are asked for. Such bytes hold no command, so that nobody waits
    for an answer that lies here.
    """

    cdef FrameScanner _scanner
    cdef _Block _block
    cdef readonly long long received_bytes

    def __cinit__(
        self, int fd, FrameScanner scanner not None, Inbox inbox not None, *, lock,
        Baton baton not None, rest, settled, share, driver=None
    ):
        self._attach(fd, inbox, lock, baton, rest, settled, share, driver)
        self._scanner = scanner
        self._block = _Block(1, HEAD_ROOM_BYTES + STREAM_READ_BYTES)

    def read(self, bint lazily=False):
        """As ``reference.StreamIntake.read``."""
        return self._read(lazily)

    def watch(self, uint32_t events):
        """As ``reference.StreamIntake.watch``."""
        if self._lease == NULL or not self.is_open:
            return False
        self._lease.kept_events = events & ~EPOLLIN
        if self._lease.is_lent:
            events = self._lease.kept_events
        return self._baton._watch(self._fd, events)

    cdef object _read(self, bint is_lazy):
        cdef FrameScanner scanner = self._scanner
        cdef Py_ssize_t size
        cdef list messages
        cdef object stop
        is_lazy = is_lazy and self._inbox._intake is self  # else nobody would ask for it
        self._settle()
        self.size_bytes = 0
        if self._held_count or self._is_decoding:
            return None  # in the middle of it; the system keeps what waits
        if not scanner._is_fed:
            size = self._receive()
            if size <= 0:
                return None if size == -EAGAIN else size
            self.size_bytes = size
            self.received_bytes += size
        if is_lazy and self._is_plain():
            self._held_count = 1
            return None
        messages = []
        self._is_decoding = True
        try:
            stop = scanner._scan(messages)
        except FrameError as error:
            stop = error
        finally:
            self._is_decoding = False
        self._inbox._put(messages)
        return stop

    cdef Py_ssize_t _receive(self) except? -1:
        cdef FrameScanner scanner = self._scanner
        cdef uint8_t *data = self._block.data + HEAD_ROOM_BYTES
        cdef Py_ssize_t size
        if scanner._wants_directly():
            return scanner._receive_directly(self._fd)
        size = _receive_stream(self._fd, data, STREAM_READ_BYTES)
        if size > 0:
            memcpy(data - scanner._head_bytes, scanner._head, <size_t>scanner._head_bytes)
            scanner._let_go()
            scanner._look_at(data - scanner._head_bytes, size + scanner._head_bytes)
            scanner._owner = self._block
            scanner._head_bytes = 0
            scanner._is_fed = True
        return size

    cdef bint _is_plain(self) noexcept:
        """What was read is but messages of one part within their limits, the last perhaps cut."""
        cdef FrameScanner scanner = self._scanner
        cdef const uint8_t *data = scanner._data
        cdef Py_ssize_t at = scanner._at
        cdef Py_ssize_t end = scanner._end
        cdef uint64_t limit = <uint64_t>scanner.max_message_bytes
        cdef uint64_t size
        if scanner._part_count or scanner._rejected or scanner.max_part_count < 1:
            return False
        if scanner._size_left >= 0:
            if scanner._is_command or scanner._more or scanner._size_left > end - at:
                return False
            at += <Py_ssize_t>scanner._size_left
        elif at == end:
            return False
        while end - at >= 2:
            if data[at] == 0:
                size = data[at + 1]
                at += 2
            elif data[at] == ZMTP_LONG:
                if end - at < ZMTP_LONG_HEAD_BYTES:
                    return True
                size = mcast_get64(data + at + 1)
                at += ZMTP_LONG_HEAD_BYTES
            else:
                return False
            if size > limit:
                return False
            if size > <uint64_t>(end - at):
                return True
            at += <Py_ssize_t>size
        return at == end or data[at] == 0 or data[at] == ZMTP_LONG

    cdef int _decode_some(self, Py_ssize_t limit, list out) except -1:
        cdef FrameScanner scanner = self._scanner
        cdef PyObject *message
        cdef object made
        while limit > 0 and self._held_count:
            message = scanner._next()
            if message == NULL:
                self._end_held()
                break
            made = <object>message
            Py_DECREF(made)
            out.append(made)
            limit -= 1
        return 0

    cdef int _decode_all(self) except -1:
        cdef list messages = []
        self._decode_some(PY_SSIZE_T_MAX, messages)
        self._inbox._put(messages)
        return 0

    cdef object _get_plain(self):
        cdef PyObject *message
        cdef object made
        if self._inbox.hold:
            return None
        message = self._scanner._next()
        if message == NULL:
            self._end_held()
            return None
        made = <object>message
        Py_DECREF(made)
        return made

    cdef int _drop_held(self) except -1:
        cdef list messages = []
        return self._decode_some(PY_SSIZE_T_MAX, messages)

    cdef inline void _end_held(self) noexcept:
        self._held_count = 0
        self._scanner._is_fed = False
        self._scanner._let_go()

    cdef int _take_in(self, long long now_ns, bint is_due) except -1:
        cdef object stop
        cdef int is_odd = is_due
        cdef Py_ssize_t size_bytes
        if is_due:
            self._settle()
            self._rest(now_ns, None)
            if not self.is_open:
                return is_odd
        stop = self._read(True)
        size_bytes = self.size_bytes
        while stop is not None:
            is_odd = 1
            self._rest(now_ns, stop)
            if not (self.is_open and self._scanner._is_fed):
                break
            stop = self._read(True)
        self.size_bytes = size_bytes
        return is_odd
