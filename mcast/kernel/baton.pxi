# How the loop thread sleeps and gets the interpreter lock; ``reference_io.Baton`` is the
# specification. Part of ``_native.pyx``.

# What the loop thread looks at without the interpreter lock. Both live in its baton as long as that
# does, since there is no telling when it looks.

cdef struct Lease:  # of a descriptor, to a thread that waits for messages
    volatile int is_used
    volatile int is_lent
    volatile int is_asleep  # the thread is in a system call and has it for as long as that takes
    int fd
    volatile long long used_ns
    volatile long long due_ns  # when the owner has something to do; whoever reads does it
    volatile long long waits_ns  # when a thread last came to wait there
    volatile long long taken_ns  # when the application last took what had been read before
    volatile long long pressed_ns  # when the system dropped something, or the inbox filled
    long long cpu_ns  # of the thread that takes messages, at its last look for them; -1: not known
    unsigned long thread  # which one that was
    long long span_ns  # since then it is seen how much of the time
    long long span_cpu_ns  # it has the processor
    volatile long long prompt_ns  # from then on it is taken to do little else
    uint32_t kept_events  # that the loop thread watches for all the same


cdef struct SendTimer:  # of a schedule whose gate moves it
    volatile int is_used
    volatile long long due_ns
    volatile long long sent_packets
    long long seen_packets  # the loop thread's own


cdef enum:
    EPOLL_PWAIT2 = 441  # the same on all architectures, Linux 5.11 and later
    EVENT_COUNT = 64
    OFFER_BYTES = 1 << 18  # about a quarter of a millisecond's worth
    MESSAGE_WEIGHT_BYTES = 256  # what a message costs beside its bytes
    BATCH_WEIGHT_BYTES = 1 << 16
    WATCH_COUNT = 64
    BULK_PACKETS = 16  # of a gate, between two looks at its timer
    BULK_SLEEP_NS = 200_000
    LONGEST_LEASE_NS = 32_000_000
    LEASE_NS = 1_000_000  # at 10 Gbit/s, a third of the default rcvbuf
    PATIENT_LEASE_NS = 15_000_000  # three times the interpreter's switch interval
    PROMPT_NS = 2_000_000  # of processor time between two looks: who does no more does little else
    DOUBT_NS = 20_000_000  # so long it is watched first
    BUSY_NS = 100_000_000  # so long it is not, after it did more, or slept
    AWAKE_SHARE = 10  # of the time: who has the processor less than a tenth of it sleeps, too
    SWITCH_NS = 12_000_000  # two switch intervals of the interpreter, and what it takes to notice
    UNREAD_NS = 60_000_000  # so long it may take what was read before, and read nothing itself
    CROWDED_NS = 1_000_000_000  # so long after a wait for the interpreter lock others want it, too
    OVERLOAD_NS = 100_000_000  # so long after a drop, or a full inbox, there is still too much
    ROOM_SHARE = 2  # of what the system's buffer holds; below that there is no hurry
    PATIENCE = 2000  # yields of the processor, half a millisecond to two


def _nothing():
    pass


cdef bint _has_room(int fd) noexcept nogil:
    """True while what waits to be read takes but a part of the system's buffer."""
    cdef uint32_t memory[2]  # SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_RCVBUF
    cdef socklen_t size = sizeof(memory)
    if getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) != 0 or size < sizeof(memory):
        return False
    return memory[0] < memory[1] // ROOM_SHARE


cdef bint _is_readable(int fd, list ready) except -1:
    for ready_fd, events in ready:
        if ready_fd == fd:
            return events & EPOLLIN
    return False


@cython.final
cdef class Baton:
    """As ``reference.Baton``; this one knows when the thread that polls wants the lock."""

    cdef int _epoll_fd
    cdef bint _is_precise
    cdef bint _is_tried
    cdef volatile int _is_wanted  # set without the lock, between the system call and getting it
    cdef long long _weight
    cdef Lease _leases[WATCH_COUNT]
    cdef SendTimer _timers[WATCH_COUNT]
    cdef int _lease_count
    cdef int _timer_count
    cdef volatile long long _crowded_ns  # until then a third thread is taken to want the lock
    cdef volatile long long _looks_at_ns  # asleep: when it looks at leases and timers; else 0
    cdef public long long due_ns
    cdef public long long sleeps_until_ns
    cdef readonly long long waited_ns
    cdef public object wake

    def __cinit__(self, int epoll_fd):
        self._epoll_fd = epoll_fd
        self.wake = _nothing
        self._is_precise = True

    def attend(self, SendSchedule schedule not None):
        """As ``reference.Baton.attend``; True while there is room for another."""
        cdef SendTimer *timer = self._new_timer()
        if timer == NULL:
            return False
        schedule._attend(self, timer)
        return True

    cdef SendTimer *_new_timer(self) noexcept:
        """A place for the timer of a gate; NULL if there are too many of them."""
        cdef int index
        cdef SendTimer *timer
        for index in range(WATCH_COUNT):
            timer = &self._timers[index]
            if not timer.is_used:
                timer.due_ns = NEVER
                timer.sent_packets = timer.seen_packets = 0
                timer.is_used = 1
                self._timer_count = max(self._timer_count, index + 1)
                return timer
        return NULL

    def poll(self, long long timeout_ns):
        """As ``reference.Baton.poll``."""
        cdef epoll_event events[EVENT_COUNT]
        cdef long count
        cdef int code, index
        cdef long long woken_ns
        cdef list ready
        with nogil:
            count = self._poll(events, timeout_ns)
            code = errno
            woken_ns = _now()
            self._is_wanted = 1
        self._is_wanted = 0
        self.waited_ns = _now() - woken_ns
        self._note_wait(self.waited_ns)
        if count < 0 and code != EINTR:
            raise OSError(code, os.strerror(code))
        ready = [(events[index].data.fd, events[index].events) for index in range(count)]
        self._take_back(ready)
        return ready

    cdef long _poll(self, epoll_event *events, long long timeout_ns) noexcept nogil:
        """Sleep; without the interpreter lock, also where a lease or a timer was moved meanwhile."""
        cdef long long now_ns, end_ns, until_ns
        cdef long count
        if self._lease_count == 0 and self._timer_count == 0:
            return self._poll_once(events, timeout_ns)
        now_ns = _now()
        end_ns = now_ns + max(0, timeout_ns)
        while True:
            until_ns = min(end_ns, min(self._first_lapse(now_ns), self._first_due(now_ns)))
            self._looks_at_ns = until_ns
            mcast_fence()  # a gate that moves its timer looks at that afterwards
            if self._earliest_due() < until_ns - BULK_SLEEP_NS:
                continue
            count = self._poll_once(events, until_ns - now_ns)
            self._looks_at_ns = 0
            if count != 0:
                return count
            now_ns = _now()
            if (
                now_ns >= end_ns
                or self._first_lapse(now_ns) <= now_ns
                or self._earliest_due() <= now_ns
            ):
                return 0

    cdef long long _first_due(self, long long now_ns) noexcept nogil:
        """When the first timer is due; later where its gate sends and sends, and moves it anyway."""
        cdef long long first_ns = NEVER
        cdef long long due_ns
        cdef SendTimer *timer
        cdef int index
        for index in range(self._timer_count):
            timer = &self._timers[index]
            if timer.is_used:
                due_ns = timer.due_ns
                if timer.sent_packets - timer.seen_packets >= BULK_PACKETS:
                    due_ns = max(due_ns, now_ns + BULK_SLEEP_NS)
                timer.seen_packets = timer.sent_packets
                first_ns = min(first_ns, due_ns)
        return first_ns

    cdef long long _earliest_due(self) noexcept nogil:
        cdef long long first_ns = NEVER
        cdef int index
        for index in range(self._timer_count):
            if self._timers[index].is_used:
                first_ns = min(first_ns, self._timers[index].due_ns)
        return first_ns

    cdef long _poll_once(self, epoll_event *events, long long timeout_ns) noexcept nogil:
        cdef timespec limit
        cdef long count = -1
        cdef int code
        timeout_ns = max(0, timeout_ns)
        limit.tv_sec = timeout_ns // 1_000_000_000
        limit.tv_nsec = timeout_ns % 1_000_000_000
        if self._is_precise:
            count = syscall(
                EPOLL_PWAIT2, <long>self._epoll_fd, events, <long>EVENT_COUNT, &limit,
                NULL, <size_t>8,
            )
            code = errno
            # As in the reference: which errors say that the call is not to be had.
            if count < 0 and (
                code == ENOSYS or code == EPERM or (code == EINVAL and not self._is_tried)
            ):
                self._is_precise = False
            self._is_tried = True
        if not self._is_precise:
            count = epoll_wait(
                self._epoll_fd, events, EVENT_COUNT,
                <int>min((timeout_ns + 999_999) // 1_000_000, 1 << 30),
            )
        return count

    cdef long long _first_lapse(self, long long now_ns) noexcept nogil:
        cdef long long first_ns = NEVER
        cdef Lease *lease
        cdef int index
        for index in range(self._lease_count):
            lease = &self._leases[index]
            if lease.is_used and lease.is_lent:
                if lease.is_asleep:  # the longer it has slept the more rarely; it says when it wakes
                    first_ns = min(
                        first_ns,
                        now_ns + min(max(now_ns - lease.used_ns, LEASE_NS), LONGEST_LEASE_NS),
                    )
                else:
                    first_ns = min(first_ns, self._lapse(lease, now_ns))
                first_ns = min(first_ns, lease.due_ns + self._delay_ns(lease, now_ns))
        return first_ns

    cdef long long _lapse(self, Lease *lease, long long now_ns) noexcept nogil:
        """When to take a lease back whose thread is awake. That thread may only be waiting for the
        interpreter lock, which another has for a switch interval: then the loop thread would stand
        in the same queue, and fill another with what the buffer could have kept. Under overload
        what the loop thread reads while the application is still busy with what was read before
        only costs it time: it could not have it all, and what it has no room for is lost anyway."""
        cdef long long lapse_ns = lease.used_ns + LEASE_NS
        if self._is_at_it(lease, now_ns):
            return now_ns + LEASE_NS
        if lapse_ns <= now_ns < lease.used_ns + PATIENT_LEASE_NS and (
            (now_ns < lease.taken_ns + LEASE_NS and now_ns < lease.pressed_ns + OVERLOAD_NS)
            or _has_room(lease.fd)
        ):
            return now_ns + LEASE_NS
        return lapse_ns

    cdef inline void _note_wait(self, long long waited_ns) noexcept:
        """One of this context's threads waited so long for the interpreter lock."""
        if waited_ns >= LEASE_NS:
            self._crowded_ns = _now() + CROWDED_NS

    cdef bint _is_at_it(self, Lease *lease, long long now_ns) noexcept nogil:
        """True where the application's thread does little but take messages, and lacks, it seems,
        but the interpreter lock, which a third thread wants: the loop thread would take it from
        that one."""
        return (
            now_ns < self._crowded_ns
            and lease.used_ns != 0
            and lease.prompt_ns <= now_ns < max(lease.used_ns, lease.taken_ns) + SWITCH_NS
            and now_ns
            < (lease.used_ns + UNREAD_NS if lease.is_lent else lease.waits_ns + CROWDED_NS)
        )

    cdef long long _delay_ns(self, Lease *lease, long long now_ns) noexcept nogil:
        """How long a timer is left to the thread that reads."""
        return SWITCH_NS if self._is_at_it(lease, now_ns) else LEASE_NS

    cdef void _note_look(self, Lease *lease) noexcept:
        """A thread of the application looks for messages, and has done since the last time what it
        did; one that did much is not taken to do little else for a while."""
        cdef long long cpu_ns
        cdef unsigned long thread
        lease.taken_ns = _now()
        if lease.used_ns == 0:
            lease.used_ns = 1  # whoever waited in another way no longer does
        if lease.taken_ns >= self._crowded_ns:
            lease.cpu_ns = -1
            lease.prompt_ns = NEVER
            return  # nobody wants to know
        cpu_ns = _thread_now()
        thread = PyThread_get_thread_ident()
        if lease.cpu_ns < 0 or lease.thread != thread:
            lease.prompt_ns = lease.taken_ns + DOUBT_NS
            lease.span_ns = lease.taken_ns
            lease.span_cpu_ns = cpu_ns
        elif cpu_ns >= lease.cpu_ns + PROMPT_NS:
            lease.prompt_ns = lease.taken_ns + BUSY_NS
        if lease.taken_ns >= lease.span_ns + DOUBT_NS:
            if (cpu_ns - lease.span_cpu_ns) * AWAKE_SHARE < lease.taken_ns - lease.span_ns:
                lease.prompt_ns = lease.taken_ns + BUSY_NS
            lease.span_ns = lease.taken_ns
            lease.span_cpu_ns = cpu_ns
        lease.cpu_ns = cpu_ns
        lease.thread = thread

    cdef Lease *_new_lease(self, int fd) noexcept:
        """A place for the leases of a descriptor; NULL if there are too many of them."""
        cdef int index
        for index in range(WATCH_COUNT):
            if not self._leases[index].is_used:
                memset(&self._leases[index], 0, sizeof(Lease))
                self._leases[index].is_used = 1
                self._leases[index].fd = fd
                self._leases[index].due_ns = NEVER
                self._leases[index].cpu_ns = -1
                self._leases[index].prompt_ns = NEVER
                self._lease_count = max(self._lease_count, index + 1)
                return &self._leases[index]
        return NULL

    cdef bint _lend(self, Lease *lease) noexcept:
        """Leave a descriptor to the thread that asks; the loop thread is to be woken then."""
        if not self._watch(lease.fd, lease.kept_events):
            return False
        lease.used_ns = _now()
        lease.is_lent = 1
        return True

    cdef int _take_back(self, list ready) except -1:
        """Watch those descriptors again that nobody has been at for a while, or long enough to leave
        a timer to the loop: what waits there is ``ready``, and to be read before timers are served,
        since it may be what they wait for."""
        cdef long long now_ns
        cdef Lease *lease
        cdef int index
        cdef bint is_late, is_at_it
        if self._lease_count == 0:
            return 0
        now_ns = _now()
        for index in range(self._lease_count):
            lease = &self._leases[index]
            if not lease.is_used or lease.fd < 0:
                continue
            is_at_it = self._is_at_it(lease, now_ns)
            if not lease.is_lent:
                if is_at_it and _is_readable(lease.fd, ready):
                    self._lend(lease)  # after this once
                continue
            is_late = now_ns >= lease.due_ns + self._delay_ns(lease, now_ns)
            if is_late:
                lease.due_ns = NEVER  # the loop has its own timer for it, and does it now
            if not lease.is_asleep and (is_late or now_ns >= self._lapse(lease, now_ns)):
                ready.append((lease.fd, EPOLLIN))
                if is_at_it:
                    continue  # it stays lent
                lease.is_lent = 0
                self._watch(lease.fd, EPOLLIN | lease.kept_events)
        return 0

    cdef bint _watch(self, int fd, uint32_t events) noexcept:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = events
        event.data.fd = fd
        return epoll_ctl(self._epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0

    def spend(self, long long weight_bytes):
        """As ``reference.Baton.spend``."""
        self._spend(weight_bytes)

    cdef inline void _spend(self, long long weight_bytes) noexcept:
        self._weight += weight_bytes
        if self._weight >= OFFER_BYTES and self._is_wanted:
            self._hand_over()

    cdef void _hand_over(self) noexcept:
        """Give up the lock and wait a moment for the other to take it; a release alone would only
        restart its wait, since this thread would have it back before the other has woken."""
        cdef int patience = PATIENCE
        self._weight = 0
        with nogil:
            while self._is_wanted and patience > 0:
                sched_yield()
                patience -= 1
