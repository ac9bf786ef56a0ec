# The pace of what leaves; ``reference_pace`` is the specification. Part of ``_native.pyx``.

@cython.final
cdef class TokenBucket:
    """As ``reference.TokenBucket``."""

    cdef double _burst_ns
    cdef double _full_at_ns
    cdef double _ns_per_byte

    def __cinit__(self, double bits_per_s, double burst_bytes):
        self.set_rate(bits_per_s, burst_bytes)

    def set_rate(self, double bits_per_s, double burst_bytes):
        """As ``reference.TokenBucket.set_rate``."""
        self._ns_per_byte = 0.0 if bits_per_s == INFINITY else 8e9 / bits_per_s
        self._burst_ns = burst_bytes * self._ns_per_byte

    def available_bytes(self, long long now_ns):
        """As ``reference.TokenBucket.available_bytes``."""
        return self._available(now_ns)

    def spend(self, long long now_ns, long long size_bytes):
        """As ``reference.TokenBucket.spend``."""
        self._spend(now_ns, size_bytes)

    def ready_at_ns(self, double size_bytes):
        """As ``reference.TokenBucket.ready_at_ns``."""
        return self._ready_at(size_bytes)

    cdef inline double _available(self, long long now_ns) noexcept:
        if self._ns_per_byte == 0.0:
            return INFINITY
        return (self._burst_ns - max(0.0, self._full_at_ns - now_ns)) / self._ns_per_byte

    cdef inline void _spend(self, long long now_ns, long long size_bytes) noexcept:
        self._full_at_ns = (
            max(self._full_at_ns, <double>now_ns) + size_bytes * self._ns_per_byte
        )

    cdef inline long long _ready_at(self, double size_bytes) noexcept:
        cdef double wanted_ns = min(size_bytes * self._ns_per_byte, self._burst_ns)
        return <long long>(self._full_at_ns - self._burst_ns + wanted_ns) + 1


@cython.final
@cython.no_gc_clear  # _timer points into the baton
cdef class SendSchedule:
    """As ``reference.SendSchedule``."""

    cdef TransmitSlots _slots
    cdef long long _packet_cost_bytes
    cdef readonly TokenBucket bucket
    cdef readonly long long coalesce_ns
    cdef readonly long long quantum_bytes
    cdef readonly long long run_packets
    cdef public long long armed_below
    cdef public long long armed_until_ns
    cdef public long long data_left_ns
    cdef public long long data_sent_ns
    cdef public bint is_watched
    cdef public long long open_until_ns
    cdef readonly long long sent_bytes
    cdef Baton _baton  # in which _timer lives, once it attends
    cdef SendTimer *_timer
    cdef SendTimer _own_timer

    def __cinit__(
        self, TransmitSlots slots not None, TokenBucket bucket not None, *,
        long long coalesce_ns, long long quantum_bytes, long long run_packets
    ):
        self._slots = slots
        self._packet_cost_bytes = slots._slot_bytes + UDP_IP_BYTES
        self.bucket = bucket
        self.coalesce_ns = coalesce_ns
        self.quantum_bytes = quantum_bytes
        self.run_packets = run_packets
        self.armed_below = slots.next
        self.data_sent_ns = self.data_left_ns = -coalesce_ns
        self._timer = &self._own_timer
        self._timer.due_ns = NEVER

    @property
    def due_ns(self):
        """When what is pending has to leave; 2^62 if nothing is."""
        return self._timer.due_ns

    @property
    def sent_packets(self):
        """Packets that have left."""
        return self._timer.sent_packets

    cdef void _attend(self, Baton baton, SendTimer *timer) noexcept:
        timer[0] = self._timer[0]
        timer.is_used = 1
        self._baton = baton
        self._timer = timer
        self.is_watched = True

    def leave(self):
        """As ``reference.SendSchedule.leave``."""
        self._own_timer = self._timer[0]
        self._own_timer.is_used = 0
        self._timer.is_used = 0
        self._timer = &self._own_timer
        self._baton = None

    @property
    def has_pending(self):
        """True while data waits to leave for the first time."""
        return self._has_pending()

    def is_due(self, long long now_ns, *, bint alone):
        """As ``reference.SendSchedule.is_due``."""
        return self._is_due(now_ns, alone)

    def close(self):
        """As ``reference.SendSchedule.close``."""
        self._close()

    def take_run(self, long long now_ns):
        """As ``reference.SendSchedule.take_run``."""
        cdef TransmitSlots slots = self._slots
        cdef long long first = slots.unsent % slots._slot_count
        cdef long long count = self._affordable_run(now_ns)
        if count == 0:
            return None
        slots._hand_out(count)
        self._note(now_ns, count, slots._run_bytes(first, count))
        return slots._view_of(first, count), slots._lengths[first]

    def wait(self, *, bint armed):
        """As ``reference.SendSchedule.wait``."""
        self._wait(armed)

    cdef inline bint _is_due(self, long long now_ns, bint alone) noexcept:
        cdef long long since_ns = now_ns - self.data_sent_ns
        if not alone:
            return since_ns >= self.coalesce_ns
        return (
            since_ns >= self.coalesce_ns // ALONE_SHARE
            and now_ns - self.data_left_ns >= self.coalesce_ns // PAUSE_SHARE
        )

    cdef inline bint _has_pending(self) noexcept:
        return self._slots.unsent < self._slots.next or self._slots._open_bytes > 0

    cdef inline void _close(self) noexcept:
        self.armed_until_ns = self.open_until_ns = 0

    cdef long long _affordable_run(self, long long now_ns) noexcept:
        """Packets of the next run that the rate allows; 0: none, or none is there."""
        cdef TransmitSlots slots = self._slots
        cdef double allowed = self.bucket._available(now_ns)
        cdef double affordable
        if allowed <= 0 or slots.unsent == slots.next:
            return 0
        affordable = min(<double>self.run_packets, allowed / self._packet_cost_bytes)
        return slots._run(
            slots.unsent % slots._slot_count,
            min(max(1, <long long>affordable), slots.next - slots.unsent),
        )

    cdef inline void _note(
        self, long long now_ns, long long packet_count, Py_ssize_t size_bytes
    ) noexcept:
        self.bucket._spend(now_ns, size_bytes + packet_count * UDP_IP_BYTES)
        self._timer.sent_packets += packet_count
        self.sent_bytes += size_bytes
        self.data_sent_ns = self.data_left_ns = now_ns

    cdef void _wait(self, bint armed) noexcept:
        cdef TransmitSlots slots = self._slots
        cdef long long due_ns, ready_ns
        cdef long long packet_limit = self.run_packets
        if not self._has_pending():
            self._timer.due_ns = NEVER
            self.armed_until_ns = 0
            return
        due_ns = self.data_sent_ns + self.coalesce_ns
        ready_ns = self.bucket._ready_at(<double>self.quantum_bytes)
        if ready_ns > due_ns:
            due_ns = ready_ns
            packet_limit = slots.unsent_limit
        self._timer.due_ns = due_ns
        if armed:
            self.armed_below = slots.unsent + packet_limit
            self.armed_until_ns = due_ns
