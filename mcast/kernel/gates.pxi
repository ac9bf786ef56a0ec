# Between the application and the windows; ``reference_gates`` is the specification. Part of
# ``_native.pyx``.

cdef enum:
    TAIL_COUNT = 1000  # items of a list that grows; fewer cost more lists, more a longer copy

cdef object ZERO = 0  # small integers are one object each


@cython.final
cdef class SendGate:
    """As ``reference.SendGate``, with two short ways; both look at the clock once.

    *Armed*, a message is added to the open packet, without a lock, and left to whoever sends it.
    *Open*, this thread takes the lock if it is free and does what the owner would do with a plain
    message: append, and send if it is time to. Anything out of the ordinary takes the long way.

    Reading the clock here is the exception to the rule that the runtime alone does: a message
    that comes after the flush was due must not wait for the loop thread, which may have to wait
    for the interpreter lock.
    """

    cdef TransmitSlots _slots
    cdef SendSchedule _schedule
    cdef UdpWriter _writer
    cdef Baton _baton
    cdef object _acquire
    cdef object _release
    cdef object _slow
    cdef object _slow_many
    cdef object _tend
    cdef long long _max_message_bytes
    cdef long long _message_limit
    cdef int _fd
    cdef uint64_t _name[4]
    cdef socklen_t _name_bytes

    def __cinit__(
        self, TransmitSlots slots not None, SendSchedule schedule not None, *,
        long long max_message_bytes, long long message_limit, lock, UdpWriter writer not None,
        int fd, bytes sockaddr not None, Baton baton, tend, slow, slow_many
    ):
        if PyBytes_GET_SIZE(sockaddr) > SOCKADDR_BYTES:
            raise ValueError(f"sockaddr of {len(sockaddr)} bytes; at most {int(SOCKADDR_BYTES)}")
        self._slots = slots
        self._schedule = schedule
        self._writer = writer
        self._baton = baton
        self._acquire = lock.acquire
        self._release = lock.release
        self._tend = tend
        self._slow = slow
        self._slow_many = slow_many
        self._max_message_bytes = max_message_bytes
        self._message_limit = message_limit
        self._fd = fd
        self._name_bytes = <socklen_t>PyBytes_GET_SIZE(sockaddr)
        memcpy(self._name, PyBytes_AS_STRING(sockaddr), self._name_bytes)

    def send(self, data, flags=0, *, timeout=None):
        """As ``reference.SendGate.send``."""
        cdef TransmitSlots slots = self._slots
        cdef SendSchedule schedule = self._schedule
        cdef long long now_ns
        if (
            flags is ZERO
            and PyBytes_CheckExact(data)
            and PyBytes_GET_SIZE(data) <= self._max_message_bytes
            and slots.message_count - slots._unsent_message_base < self._message_limit
            and schedule.armed_until_ns | schedule.open_until_ns
        ):
            now_ns = _now()
            if now_ns < schedule.armed_until_ns and slots.next < schedule.armed_below:
                if slots._append_bytes(data):
                    if slots.next >= schedule.armed_below and now_ns < schedule.open_until_ns:
                        self._send_run(now_ns)
                    self._spend(PyBytes_GET_SIZE(data) + MESSAGE_WEIGHT_BYTES)
                    return
            elif now_ns < schedule.open_until_ns and self._send_open(data, now_ns):
                self._spend(PyBytes_GET_SIZE(data) + MESSAGE_WEIGHT_BYTES)
                return
        self._slow(data, flags, timeout=timeout)

    def send_many(self, messages, *, timeout=None):
        """As ``reference.SendGate.send_many``."""
        cdef Py_ssize_t taken = 0
        cdef long long now_ns
        if PyList_CheckExact(messages) and self._schedule.open_until_ns:
            now_ns = _now()
            if now_ns < self._schedule.open_until_ns and self._are_plain(messages):
                taken = self._send_many_open(messages, now_ns)
                if taken == PyList_GET_SIZE(messages):
                    return taken
        if taken:
            return taken + self._slow_many(messages[taken:], timeout=timeout)
        return self._slow_many(messages, timeout=timeout)

    cdef bint _are_plain(self, list messages) noexcept:
        cdef Py_ssize_t index
        cdef PyObject *message
        for index in range(PyList_GET_SIZE(messages)):
            message = <PyObject *>PyList_GET_ITEM(messages, index)
            if (
                not PyBytes_CheckExact(<object>message)
                or PyBytes_GET_SIZE(<object>message) > self._max_message_bytes
            ):
                return False
        return True

    cdef inline void _spend(self, long long weight_bytes) noexcept:
        if self._baton is not None:
            self._baton._spend(weight_bytes)

    # From getting the lock to its release nothing runs Python, so nothing comes in between.

    cdef bint _send_open(self, bytes data, long long now_ns) except -1:
        """Take one message as the owner would; False, and nothing done, if that is for Python."""
        cdef SendSchedule schedule = self._schedule
        cdef bint alone = not schedule._has_pending()
        if (
            not (schedule.is_watched or schedule._is_due(now_ns, alone))
            or self._acquire(False) is not True
        ):
            return False
        if not self._can_afford(now_ns) or not self._slots._append_bytes(data):
            self._release()
            return False
        self._leave(now_ns, alone)
        return True

    cdef int _send_run(self, long long now_ns) except -1:
        """Let a full run go, if it may go now and nobody else is at it."""
        if self._can_afford(now_ns) and self._acquire(False) is True:
            self._leave(now_ns, False)
        return 0

    cdef Py_ssize_t _send_many_open(self, list messages, long long now_ns) except -1:
        """How many messages were taken."""
        cdef TransmitSlots slots = self._slots
        cdef long long run_packets = self._schedule.run_packets
        cdef Py_ssize_t index = 0
        cdef Py_ssize_t count = PyList_GET_SIZE(messages)
        cdef bint alone
        if self._acquire(False) is not True:
            return 0
        alone = not self._schedule._has_pending()
        while index < count and self._can_afford(now_ns):
            while (
                index < count
                and slots.next - slots.unsent < run_packets
                and slots.message_count - slots._unsent_message_base < self._message_limit
                and slots._append_bytes(<object>PyList_GET_ITEM(messages, index))
            ):
                index += 1
            if slots.next - slots.unsent < run_packets or not self._let_out(now_ns):
                break
        self._leave(now_ns, alone)
        self._spend(BATCH_WEIGHT_BYTES)
        return index

    cdef int _leave(self, long long now_ns, bint alone) except -1:
        """Send what is to leave now, arm for the rest, and give the lock back."""
        cdef TransmitSlots slots = self._slots
        cdef SendSchedule schedule = self._schedule
        cdef bint is_done = True
        if slots.next - slots.unsent >= schedule.run_packets:
            is_done = self._let_out(now_ns)
        if is_done and schedule._is_due(now_ns, alone):
            slots._seal()
            is_done = self._let_out(now_ns)
        if is_done:
            schedule._wait(True)
            is_done = schedule.is_watched or schedule._timer.due_ns == NEVER
        else:
            schedule._close()
        self._release()
        if schedule._baton is not None and schedule._timer.due_ns != NEVER:
            mcast_fence()
            if schedule._timer.due_ns < schedule._baton._looks_at_ns - BULK_SLEEP_NS:
                schedule._baton.wake()
        if not is_done:
            self._tend()
        return 0

    cdef inline bint _can_afford(self, long long now_ns) noexcept:
        """Whether all that is pending, and a packet more, may leave now."""
        cdef SendSchedule schedule = self._schedule
        cdef long long packets = self._slots.next - self._slots.unsent
        return schedule.bucket._available(now_ns) > packets * schedule._packet_cost_bytes

    cdef bint _let_out(self, long long now_ns) noexcept:
        """Send what is sealed; False if the system, or the rate, does not take all of it."""
        cdef TransmitSlots slots = self._slots
        cdef SendSchedule schedule = self._schedule
        cdef Run run
        cdef long long first, count
        run.fd = self._fd
        run.name = <const sockaddr_t *>self._name
        run.name_bytes = self._name_bytes
        while slots.unsent < slots.next:
            first = slots.unsent % slots._slot_count
            count = schedule._affordable_run(now_ns)
            if count == 0:
                return False
            run.data = slots._block.data + first * slots._slot_bytes
            run.length = slots._run_bytes(first, count)
            run.segment_bytes = slots._lengths[first]
            if not self._writer._send_whole(&run):
                return False
            slots._hand_out(count)
            schedule._note(now_ns, count, run.length)
            schedule.data_left_ns = _now()
        return True


@cython.final
cdef class Inbox:
    """As ``reference.Inbox``. Keeps the lists as they come; an exception is a list of its own."""

    cdef object _chunks  # deque of non-empty lists behind _head
    cdef list _head
    cdef list _tail  # the last of them, if ``_append`` made it
    cdef Py_ssize_t _at  # items of _head that are gone; their places hold None
    cdef Py_ssize_t _count
    cdef public bint hold
    cdef public Baton baton
    cdef _Source _intake
    cdef public Py_ssize_t limit
    cdef readonly long long put_count

    def __cinit__(self):
        self._chunks = deque()
        self._head = []

    def __len__(self):
        self._settle()
        if self._count == 0 and self._intake is not None and self._intake._has_more():
            self._intake._show()
        return self._count

    @property
    def intake(self):
        """As ``reference.Inbox.intake``."""
        return self._intake

    @intake.setter
    def intake(self, _Source intake):
        self._settle()
        self._intake = intake

    def put(self, list messages not None):
        """As ``reference.Inbox.put``."""
        self._settle()
        self._put(messages)

    cdef inline int _settle(self) except -1:
        """What the intake has not decoded yet comes before all that is put from now on."""
        if self._intake is not None and self._intake._held_count:
            self._intake._decode_all()
        return 0

    cdef inline int _put(self, list messages) except -1:
        if PyList_GET_SIZE(messages):
            self._tail = None
            self._chunks.append(messages)
            self._count += PyList_GET_SIZE(messages)
            self.put_count += PyList_GET_SIZE(messages)
        return 0

    cdef inline bint _append(self, bytes message) except -1:
        """Put one message; True if the inbox was empty. There must be no intake."""
        cdef list fresh
        if self._tail is None or PyList_GET_SIZE(self._tail) >= TAIL_COUNT:
            fresh = [message]  # may let another thread in here, which is why all else comes after
            self._chunks.append(fresh)
            self._tail = fresh
        else:
            self._tail.append(message)
        self._count += 1
        self.put_count += 1
        return self._count == 1

    def put_error(self, error not None):
        """As ``reference.Inbox.put_error``."""
        cdef list alone = [error]
        self._settle()
        self._tail = None
        self._chunks.append(alone)
        self._count += 1

    def get_many(self, Py_ssize_t limit):
        """As ``reference.Inbox.get_many``."""
        # Making a list may collect garbage, whose finalizers may let another thread in here: after
        # the numbers were looked at, they are changed before any list is made.
        cdef list taken = [], empty = [], head
        cdef Py_ssize_t at, wanted
        cdef object first
        cdef _Source intake = self._intake
        if self._count == 0 and intake is not None and intake._has_more():
            intake._glance()
            if self._count == 0 and self._intake is intake:
                intake._note_taken()
                intake._decode_some(limit, taken)  # which is empty
        while self._count and PyList_GET_SIZE(taken) < limit:
            self._step()
            head, at = self._head, self._at
            first = <object>PyList_GET_ITEM(head, at)
            if isinstance(first, Exception):
                if PyList_GET_SIZE(taken):
                    break
                self._at += 1
                self._count -= 1
                raise first
            wanted = min(PyList_GET_SIZE(head) - at, limit - PyList_GET_SIZE(taken))
            self._count -= wanted
            if at == 0 and wanted == PyList_GET_SIZE(head) and empty is not None:
                self._head = empty
                empty = None
                if PyList_GET_SIZE(taken):
                    taken.extend(head)
                else:
                    taken = head
            else:
                self._at += wanted
                taken.extend(PyList_GetSlice(head, at, at + wanted))
        if self.baton is not None:
            self.baton._spend(PyList_GET_SIZE(taken) * MESSAGE_WEIGHT_BYTES)
        return taken

    def clear(self):
        """As ``reference.Inbox.clear``."""
        # Making and dropping objects may run Python, which may let another thread in here: it must
        # find an empty inbox, and what it puts in must stay.
        cdef object chunks, fresh_chunks = deque()
        cdef list head, fresh_head = []
        if self._intake is not None:
            self._intake._drop_held()
        chunks = self._chunks
        head = self._head
        self._count = 0
        self._at = 0
        self._tail = None
        self._chunks = fresh_chunks
        self._head = fresh_head

    def get_plain(self):
        """As ``reference.Inbox.get_plain``."""
        return self._get_plain()

    cdef inline object _get_plain(self):
        cdef PyObject *item
        cdef object message
        if self._count and not self.hold:
            self._step()
            item = <PyObject *>PyList_GET_ITEM(self._head, self._at)
            if PyBytes_CheckExact(<object>item):
                message = <object>item
                Py_INCREF(None)
                PyList_SET_ITEM(self._head, self._at, None)  # takes the reference just made
                Py_DECREF(message)  # the list's
                self._at += 1
                self._count -= 1
                return message
        return None

    cdef inline int _step(self) except -1:
        """Make ``_head[_at]`` the next item; there must be one."""
        if self._at >= PyList_GET_SIZE(self._head):
            self._head = self._chunks.popleft()
            self._at = 0
            if self._intake is not None:
                self._intake._note_taken()
            if self._head is self._tail:
                self._tail = None
        return 0


@cython.final
cdef class ReceiveGate:
    """As ``reference.ReceiveGate``."""

    cdef Inbox _inbox
    cdef object _slow

    def __cinit__(self, Inbox inbox not None, slow):
        self._inbox = inbox
        self._slow = slow

    def recv(self, flags=0, *, timeout=None):
        """As ``reference.ReceiveGate.recv``."""
        cdef Inbox inbox = self._inbox
        cdef _Source intake
        message = inbox._get_plain()
        while message is None:
            intake = inbox._intake
            if intake is None or inbox._count or inbox.hold or intake._is_decoding:
                return self._slow(flags, timeout=timeout)
            if intake._has_more():
                intake._glance()
                if inbox._intake is intake:
                    message = inbox._get_plain() if inbox._count else intake._get_plain()
            elif timeout is not None or flags is not ZERO or intake._wait(-1) != READY:
                return self._slow(flags, timeout=timeout)
            else:
                message = inbox._get_plain()
        if inbox.baton is not None:
            inbox.baton._spend(PyBytes_GET_SIZE(message) + MESSAGE_WEIGHT_BYTES)
        return message
