# How a thread waits for messages where they come in; ``reference_intake`` is the specification.
# Part of ``_native.pyx``.

cdef enum:
    SPINS_PER_LOOK = 64
    NOT_NOW = 2
    GLANCE_NS = 1_000_000
    GLANCE_BYTES = 1 << 22

cdef object TRY_S = 0.001


cdef enum Waited:
    LONG_WAY = -1
    TIMED_OUT = 0
    READY = 1


@cython.no_gc_clear  # _lease points into the baton
cdef class _Source:
    """Where an inbox gets its messages from; what it has read is held until it is asked for.

    Whatever is below ``# Of each kind`` belongs to the kind of source.
    """

    cdef Inbox _inbox
    cdef Baton _baton
    cdef object _acquire
    cdef object _release
    cdef object _rest
    cdef object _settled
    cdef object _share
    cdef object _driver
    cdef object _drive
    cdef object _give_up
    cdef bint _spins
    cdef int _fd
    cdef Lease *_lease  # in the baton; NULL: none was to be had
    cdef int _bell_fd
    cdef bint _is_led
    cdef bint _is_decoding
    cdef int _held_count  # 0: nothing is held
    cdef Py_ssize_t _ready_count  # of windows that may have something for whoever asks
    cdef bint _is_on_hold  # those are the owner's for now
    cdef long long _news_ns  # when the owner is to look at what came
    cdef public bint is_open
    cdef public bint is_stale
    cdef readonly Py_ssize_t size_bytes

    def __cinit__(self, *_, **__):
        self._bell_fd = -1
        self._news_ns = NEVER

    @cython.final
    cdef int _attach(
        self, int fd, Inbox inbox, lock, Baton baton, rest, settled, share, driver
    ) except -1:
        self._fd = fd
        self._lease = baton._new_lease(fd)
        self._inbox = inbox
        self._baton = baton
        self._acquire = lock.acquire
        self._release = lock.release
        self._rest = rest
        self._settled = settled
        self._share = share
        self._driver = driver
        if driver is not None:
            self._drive = driver.lock.acquire
            self._give_up = driver.lock.release
            self._spins = driver.spins
        self.is_open = True
        return 0

    def __dealloc__(self):
        if self._bell_fd >= 0:
            close(self._bell_fd)
        if self._lease != NULL:
            self._lease.is_used = self._lease.is_lent = 0

    def wait(self, long long timeout_ns):
        """As ``reference.Intake.wait``."""
        cdef Waited waited = self._wait(timeout_ns)
        return None if waited == LONG_WAY else waited == READY

    def settle(self):
        """As ``reference.Intake.settle``."""
        self._settle()

    @cython.final
    cdef inline int _settle(self) except -1:
        if self._held_count:
            self._decode_all()
        return 0

    def ring(self):
        """As ``reference.Intake.ring``."""
        cdef uint64_t one = 1
        if self._lease != NULL and self._lease.is_asleep and self._bell_fd >= 0:
            write(self._bell_fd, &one, sizeof(one))

    def hand_back(self):
        """As ``reference.Intake.hand_back``."""
        if self._lease != NULL and not self._is_led:
            self._lease.used_ns = 0
            if self._lease.is_lent:
                self._baton.wake()

    def close(self):
        """As ``reference.Intake.close``."""
        self.is_open = False
        if self._lease != NULL:
            self._lease.is_lent = 0
        self.ring()
        if self._lease != NULL:
            self._lease.fd = -1  # it may be another's before long: it is lent no more
        if not self._is_led:
            self._close_bell()  # else the thread that may be asleep with it does

    @cython.final
    cdef void _close_bell(self) noexcept:
        if self._bell_fd >= 0:
            close(self._bell_fd)
            self._bell_fd = -1

    @cython.final
    cdef inline bint _has_more(self) noexcept:
        """Whether whoever asks may get more than what is in the inbox."""
        return self._held_count > 0 or (self._ready_count > 0 and not self._is_on_hold)

    @cython.final
    cdef inline void _note_taken(self) noexcept:
        """The application is at it, in the way that reads here."""
        if self._lease != NULL and self._driver is None and not self._inbox.hold:
            self._baton._note_look(self._lease)

    @cython.final
    cdef int _glance(self) except -1:
        """Read beside what is taken from a window, which may go on for long: the loop thread would
        come otherwise, and stand in the way where the interpreter lock is scarce."""
        cdef Lease *lease = self._lease
        cdef Py_ssize_t read_bytes = 0
        cdef long long now_ns
        cdef int took = 1
        if (
            lease == NULL or not lease.is_lent or self._is_led or self._driver is not None
            or self._held_count or self._baton._crowded_ns == 0 or self._is_barred()
        ):
            return 0
        now_ns = _now()
        if now_ns >= self._baton._crowded_ns or now_ns < lease.used_ns + GLANCE_NS:
            return 0
        self._is_led = True
        try:
            while took > 0 and read_bytes < GLANCE_BYTES and not self._is_barred():
                took = self._pump()
                if took > 0:
                    read_bytes += self.size_bytes
            lease.used_ns = _now()
        finally:
            self._is_led = False
            if not self.is_open:
                self._close_bell()
        return 0

    # Of each kind.

    cdef int _decode_some(self, Py_ssize_t limit, list out) except -1:
        """Up to ``limit`` messages of what is held; fewer say that that was all of it."""
        raise NotImplementedError

    cdef int _decode_all(self) except -1:
        """What is held goes to the inbox."""
        raise NotImplementedError

    cdef object _get_plain(self):
        """The next message of what is held, if it has one part; else None."""
        raise NotImplementedError

    cdef int _show(self) except -1:
        """Have some of what is ready in the inbox, which is empty."""
        raise NotImplementedError

    cdef int _drop_held(self) except -1:
        """Throw away what is held."""
        raise NotImplementedError

    cdef int _take_in(self, long long now_ns, bint is_due) except -1:
        """Read once, under the lock; 1 if the owner had something to do, or ``NOT_NOW``."""
        raise NotImplementedError

    # Waiting.

    @cython.final
    cdef Waited _wait(self, long long timeout_ns) except? LONG_WAY:
        cdef long long deadline_ns = NEVER
        cdef Waited waited
        if self._is_led or timeout_ns == 0 or self._is_barred():
            return LONG_WAY
        self._note_taken()
        if self._lease != NULL:
            self._lease.waits_ns = self._lease.taken_ns
        if timeout_ns > 0:
            deadline_ns = _now() + min(timeout_ns, NEVER // 2)
        self._is_led = True
        try:
            if self._driver is None:
                waited = self._wait_beside_loop(deadline_ns)
            else:
                waited = self._wait_driving(deadline_ns)
        finally:
            self._is_led = False
            if not self.is_open:
                self._close_bell()
        self._share()  # others may wait in another way, and nobody else tells them
        return waited

    @cython.final
    cdef inline bint _is_barred(self) noexcept:
        return (
            self._inbox.hold
            or not self.is_open
            or self._is_decoding
            or self._inbox._intake is not self
        )

    @cython.final
    cdef Waited _wait_beside_loop(self, long long deadline_ns) except? LONG_WAY:
        cdef Lease *lease = self._lease
        cdef pollfd fds[2]
        cdef timespec limit
        cdef timespec *until
        cdef long long end_ns, left_ns, slept_ns, woken_ns
        cdef uint64_t rings
        cdef int count, code, took
        if lease == NULL:
            return LONG_WAY
        if self._bell_fd < 0:
            self._bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
            if self._bell_fd < 0:
                return LONG_WAY
        while True:
            PyErr_CheckSignals()
            if self._is_barred():
                return LONG_WAY
            if not lease.is_lent:
                if not self._baton._lend(lease):
                    return LONG_WAY
                self._baton.wake()  # the loop thread has to know
            took = self._pump()
            lease.used_ns = _now()
            if self._inbox._count or self._has_more():
                return READY
            if took < 0:
                return LONG_WAY
            if took > 0:
                self._baton._spend(self.size_bytes)
                continue
            if self._is_barred():
                return LONG_WAY
            if lease.used_ns >= deadline_ns:
                return TIMED_OUT
            until = NULL
            end_ns = min(deadline_ns, lease.due_ns)
            if end_ns != NEVER:
                left_ns = max(0, end_ns - lease.used_ns)
                limit.tv_sec = left_ns // 1_000_000_000
                limit.tv_nsec = left_ns % 1_000_000_000
                until = &limit
            fds[0].fd = lease.fd
            fds[1].fd = self._bell_fd
            fds[0].events = fds[1].events = POLLIN
            fds[0].revents = fds[1].revents = 0
            lease.is_asleep = 1
            with nogil:
                count = ppoll(fds, 2, until, NULL)
                code = errno
                woken_ns = _now()
                slept_ns = woken_ns - lease.used_ns
                lease.used_ns = woken_ns
                lease.is_asleep = 0
            self._baton._note_wait(_now() - woken_ns)
            if slept_ns > 2 * LEASE_NS:
                self._baton.wake()  # the loop thread is to look soon whether we stay away
            if count < 0:
                if code != EINTR:
                    return LONG_WAY
                PyErr_CheckSignals()
            elif fds[1].revents:
                if self._bell_fd >= 0:
                    read(self._bell_fd, &rings, sizeof(rings))
                return LONG_WAY

    @cython.final
    cdef Waited _wait_driving(self, long long deadline_ns) except? LONG_WAY:
        cdef Baton baton = self._baton
        cdef epoll_event events[EVENT_COUNT]
        cdef long long now_ns
        cdef unsigned int spin_count = 0
        cdef long count = 0
        cdef int took
        if self._drive(False) is not True:
            return LONG_WAY
        try:
            while True:
                PyErr_CheckSignals()
                if self._is_barred():
                    return LONG_WAY
                took = self._pump()
                if self._inbox._count or self._has_more():
                    return READY
                if took < 0:
                    return LONG_WAY
                if took > 0:
                    self._baton._spend(self.size_bytes)
                    continue
                if self._is_barred():
                    return LONG_WAY
                now_ns = _now()
                if now_ns >= baton.due_ns:
                    self._driver.turn()
                elif now_ns >= deadline_ns:
                    return TIMED_OUT
                elif self._spins:
                    spin_count += 1
                    if spin_count % SPINS_PER_LOOK == 0:
                        with nogil:
                            count = baton._poll_once(events, 0)
                        if self._are_others(events, count):
                            self._driver.turn()
                else:
                    baton.sleeps_until_ns = min(deadline_ns, baton.due_ns)
                    with nogil:
                        count = baton._poll_once(events, min(deadline_ns, baton.due_ns) - now_ns)
                    baton.sleeps_until_ns = 0
                    if self._are_others(events, count):
                        self._driver.turn()
        finally:
            self._give_up()

    @cython.final
    cdef bint _are_others(self, epoll_event *events, long count) noexcept:
        cdef long index
        for index in range(count):
            if events[index].data.fd != self._fd:
                return True
        return False

    @cython.final
    cdef int _pump(self) except? -1:
        """Read once, under the lock: 1 if something came, 0 if not, -1 if that cannot be now."""
        cdef long long now_ns
        cdef long long due_ns
        cdef int is_odd = 0
        if self._acquire(False) is not True and self._acquire(True, TRY_S) is not True:
            return -1
        try:
            if not self.is_open:
                return -1
            now_ns = _now()
            is_odd = self._take_in(
                now_ns,
                self.is_stale
                or now_ns >= self._news_ns
                or (self._lease != NULL and now_ns >= self._lease.due_ns),
            )
        finally:
            self._release()
        if is_odd == NOT_NOW:
            return -1
        if is_odd:
            due_ns = self._settled()
            if self._lease != NULL:
                self._lease.due_ns = due_ns
        if self._driver is not None:
            self._baton.due_ns = min(self._baton.due_ns, self._news_ns)
        elif self._lease != NULL:
            self._lease.due_ns = min(self._lease.due_ns, self._news_ns)
        return self.size_bytes > 0
