# Batched reads and runs sent in one call; ``reference_io`` is the specification. Part of
# ``_native.pyx``.

cdef enum:
    GIVEN_COUNT = 1024  # slabs kept to be used again: a window full of them, of 64 KiB each
    GIVEN_LEAST = 16  # of them, which are not let go
    RETURN_READS = 16  # without giving any: then one of them is let go


@cython.final
cdef class UdpReader:
    """As ``reference_io.UdpReader``."""

    cdef readonly dict overflows
    cdef public long long truncated_count
    cdef public long long empty_count
    cdef unsigned int _batch_count
    cdef long long _buffer_bytes
    cdef list _slabs
    cdef list _given  # slabs that others may look at yet
    cdef int _quiet_reads
    cdef mmsghdr *_headers
    cdef iovec *_iovecs
    cdef uint8_t *_names
    cdef uint8_t *_control
    cdef long long _overflow  # the last that was noted, and for whom
    cdef int _overflow_fd
    cdef bytes _last_source  # most datagrams come from where the one before came from

    def __cinit__(self, long long batch_count=32, long long buffer_bytes=65_536):
        cdef long long index
        if batch_count < 1 or buffer_bytes < 1:
            raise ValueError(f"batch of {batch_count} x {buffer_bytes} bytes; both must be >= 1")
        self.overflows = {}
        self._buffer_bytes = buffer_bytes
        self._given = []
        self._batch_count = <unsigned int>batch_count
        self._headers = <mmsghdr *>PyMem_RawCalloc(batch_count, sizeof(mmsghdr))
        self._iovecs = <iovec *>PyMem_RawCalloc(batch_count, sizeof(iovec))
        self._names = <uint8_t *>PyMem_RawCalloc(batch_count, SOCKADDR_BYTES)
        self._control = <uint8_t *>PyMem_RawCalloc(batch_count, CONTROL_BYTES)
        if not (self._headers and self._iovecs and self._names and self._control):
            raise MemoryError
        self._last_source = b""
        self._overflow = -1
        self._slabs = []
        for index in range(batch_count):
            self._slabs.append(None)
            self._put_slab(index, _Slab(<size_t>buffer_bytes))
            self._iovecs[index].iov_len = <size_t>buffer_bytes
            self._headers[index].msg_hdr.msg_name = self._names + index * SOCKADDR_BYTES
            self._headers[index].msg_hdr.msg_iov = &self._iovecs[index]
            self._headers[index].msg_hdr.msg_iovlen = 1
            self._headers[index].msg_hdr.msg_control = self._control + index * CONTROL_BYTES
            self._renew(&self._headers[index].msg_hdr)

    def __dealloc__(self):
        PyMem_RawFree(self._headers)
        PyMem_RawFree(self._iovecs)
        PyMem_RawFree(self._names)
        PyMem_RawFree(self._control)

    cdef int _put_slab(self, Py_ssize_t index, _Slab slab) except -1:
        self._slabs[index] = slab
        self._iovecs[index].iov_base = slab.data
        return 0

    cdef int _give(self, Py_ssize_t index) except -1:
        """What came at ``index`` stays where it is, for as long as others look at it: the next
        datagram goes elsewhere."""
        cdef _Slab given = <_Slab>self._slabs[index]
        if PyList_GET_SIZE(self._given) and Py_REFCNT(PyList_GET_ITEM(self._given, 0)) == 1:
            self._put_slab(index, self._given.pop(0))  # they come back in this order, mostly
        else:
            if PyList_GET_SIZE(self._given):  # the first may be one that is not free for long
                self._given.append(self._given.pop(0))
            self._put_slab(index, _Slab(<size_t>self._buffer_bytes))
        if PyList_GET_SIZE(self._given) < GIVEN_COUNT:
            self._given.append(given)
        self._quiet_reads = 0
        return 0

    cdef int _let_go(self) except -1:
        """After each read: memory that a hole has taken is given back, slowly. Made anew each time it
        costs page faults (measured: 25,000 in 68,000 messages of 8 KiB)."""
        self._quiet_reads += 1
        if self._quiet_reads >= RETURN_READS:
            self._quiet_reads = 0
            if (
                PyList_GET_SIZE(self._given) > GIVEN_LEAST
                and Py_REFCNT(PyList_GET_ITEM(self._given, 0)) == 1
            ):
                del self._given[0]
        return 0

    def read(self, int fd):
        """As ``reference_io.UdpReader.read``."""
        cdef int index
        cdef Py_ssize_t length
        cdef Py_ssize_t segment_bytes
        cdef list received = []
        for index in range(self._receive(fd, self._batch_count)):
            length = self._datagram(fd, index, &segment_bytes)
            if length:
                received.append((self._source(index), self._view(index, length), segment_bytes))
        return received

    cdef int _receive(self, int fd, unsigned int limit) except -1:
        cdef int count = recvmmsg(
            fd, self._headers, min(limit, self._batch_count), MSG_DONTWAIT, NULL
        )
        if count < 0:
            if errno == EAGAIN:
                return 0
            _raise(errno)
        return count

    cdef Py_ssize_t _datagram(self, int fd, int index, Py_ssize_t *segment_bytes) except -1:
        """Length of what came at ``index``, 0 if that is to be dropped; call it once for each."""
        cdef uint32_t value = 0
        cdef long long overflow = -1
        cdef msghdr *header = &self._headers[index].msg_hdr
        cdef Py_ssize_t length = self._headers[index].msg_len
        cdef int flags = header.msg_flags
        cdef cmsghdr *control
        if flags & (MSG_TRUNC | MSG_CTRUNC):
            self.truncated_count += 1
            self._renew(header)
            return 0
        segment_bytes[0] = 0
        control = CMSG_FIRSTHDR(header)
        while control != NULL:
            if control.cmsg_len >= CMSG_LEN(sizeof(uint32_t)):
                memcpy(&value, CMSG_DATA(control), sizeof(uint32_t))
                if control.cmsg_level == SOL_UDP and control.cmsg_type == UDP_GRO:
                    segment_bytes[0] = value
                elif control.cmsg_level == SOL_SOCKET and control.cmsg_type == SO_RXQ_OVFL:
                    overflow = value
            control = CMSG_NXTHDR(header, control)
        self._renew(header)
        if overflow >= 0 and (overflow != self._overflow or fd != self._overflow_fd):
            self._overflow = overflow
            self._overflow_fd = fd
            self.overflows[fd] = overflow
        if length == 0:
            self.empty_count += 1
        elif segment_bytes[0] == 0:
            segment_bytes[0] = length
        return length

    cdef object _view(self, int index, Py_ssize_t length):
        cdef _Slab slab = <_Slab>self._slabs[index]
        slab.size = length
        return PyMemoryView_FromObject(slab)

    def forget(self, int fd):
        """As ``reference_io.UdpReader.forget``."""
        self.overflows.pop(fd, None)
        self._overflow = -1

    cdef inline void _renew(self, msghdr *header) noexcept:
        """Put back what the kernel overwrites with each datagram."""
        header.msg_namelen = SOCKADDR_BYTES
        header.msg_controllen = CONTROL_BYTES
        header.msg_flags = 0

    cdef inline bytes _source(self, int index):
        cdef const uint8_t *name = self._names + index * SOCKADDR_BYTES
        cdef Py_ssize_t size = 16
        cdef sa_family_t family = 0
        memcpy(&family, name, sizeof(family))
        if family == AF_INET:  # port in between: 2 octets, and for IPv6 the flow label's 4
            name += 4
            size = 4
        else:
            name += 8
        if PyBytes_GET_SIZE(self._last_source) != size or memcmp(
            PyBytes_AS_STRING(self._last_source), name, size
        ):
            self._last_source = PyBytes_FromStringAndSize(<const char *>name, size)
        return self._last_source


cdef struct Run:  # what a send needs all the way down
    int fd
    const sockaddr_t *name
    socklen_t name_bytes
    const uint8_t *data
    Py_ssize_t length
    Py_ssize_t segment_bytes


@cython.final
cdef class UdpWriter:
    """As ``reference_io.UdpWriter``."""

    cdef public bint gso
    cdef public bint mmsg

    def __cinit__(self):
        self.gso = self.mmsg = True

    def send(self, int fd, bytes sockaddr not None, data, Py_ssize_t segment_bytes):
        """As ``reference_io.UdpWriter.send``."""
        cdef Run run
        cdef Py_buffer buffer
        cdef uint64_t name[4]  # aligned, and 4 bytes longer than SOCKADDR_BYTES
        cdef Py_ssize_t name_bytes = PyBytes_GET_SIZE(sockaddr)
        if name_bytes > SOCKADDR_BYTES:
            raise ValueError(
                f"sockaddr of {name_bytes} bytes; at most {int(SOCKADDR_BYTES)}"
            )
        memcpy(name, PyBytes_AS_STRING(sockaddr), name_bytes)
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            if buffer.len < 1 or segment_bytes < 1:
                raise ValueError(
                    f"{buffer.len} bytes in segments of {segment_bytes}; both must be >= 1"
                )
            run.fd = fd
            run.name = <const sockaddr_t *>name
            run.name_bytes = <socklen_t>name_bytes
            run.data = <const uint8_t *>buffer.buf
            run.length = buffer.len
            run.segment_bytes = segment_bytes
            if run.length <= segment_bytes or not self.gso:
                return self._send_plain(&run)
            return self._send_runs(&run)
        finally:
            PyBuffer_Release(&buffer)

    cdef Py_ssize_t _send_runs(self, Run *run) except -1:
        cdef Py_ssize_t run_bytes = run.segment_bytes * max(
            1, min(<Py_ssize_t>RUN_SEGMENT_COUNT, RUN_BYTES // run.segment_bytes)
        )
        cdef Py_ssize_t sent = 0
        cdef Py_ssize_t chunk
        cdef int code
        while sent < run.length:
            chunk = min(run_bytes, run.length - sent)
            if chunk <= run.segment_bytes:
                code = self._sendto_errno(run, run.data + sent, chunk)
            else:
                code = self._sendmsg_errno(run, run.data + sent, chunk)
            if code == 0:
                sent += chunk
            elif sent or _is_no_room(code):
                break
            elif chunk > run.segment_bytes and _is_gso_refused(code):
                # A segment above the MTU fails plainly, too: that is not held against GSO.
                sent = self._send_plain(run)
                if sent:
                    self.gso = False
                break
            else:
                _raise(code)
        return sent

    cdef Py_ssize_t _send_plain(self, Run *run) except -1:
        cdef Py_ssize_t sent = 0
        cdef Py_ssize_t chunk
        cdef int code
        if self.mmsg and run.length > run.segment_bytes:
            sent = self._send_many(run)
            if self.mmsg:
                return sent
        while sent < run.length:
            chunk = min(run.segment_bytes, run.length - sent)
            code = self._sendto_errno(run, run.data + sent, chunk)
            if code == 0:
                sent += chunk
            elif sent or _is_no_room(code):
                break
            else:
                _raise(code)
        return sent

    cdef Py_ssize_t _send_many(self, Run *run) except -1:
        """Send with as few calls of ``sendmmsg`` as it takes; the bytes taken."""
        cdef mmsghdr headers[RUN_SEGMENT_COUNT]
        cdef iovec vectors[RUN_SEGMENT_COUNT]
        cdef Py_ssize_t sent = 0
        cdef Py_ssize_t place
        cdef int count, done, code
        while sent < run.length:
            memset(headers, 0, sizeof(headers))
            place = sent
            count = 0
            while place < run.length and count < RUN_SEGMENT_COUNT:
                vectors[count].iov_base = <void *>(run.data + place)
                vectors[count].iov_len = <size_t>min(run.segment_bytes, run.length - place)
                headers[count].msg_hdr.msg_name = <void *>run.name
                headers[count].msg_hdr.msg_namelen = run.name_bytes
                headers[count].msg_hdr.msg_iov = &vectors[count]
                headers[count].msg_hdr.msg_iovlen = 1
                place += vectors[count].iov_len
                count += 1
            done = sendmmsg(run.fd, headers, <unsigned int>count, MSG_DONTWAIT)
            code = errno
            if done < 0:
                if code == ENOSYS:
                    self.mmsg = False
                elif not sent and not _is_no_room(code):
                    _raise(code)
                return sent
            while done > 0:
                done -= 1
                count -= 1
                sent += <Py_ssize_t>min(run.segment_bytes, run.length - sent)
            if count:
                return sent
        return sent

    cdef bint _send_whole(self, Run *run) noexcept:
        """Send a run that fits one system call; False, and nothing sent, if that fails."""
        if run.length <= run.segment_bytes:
            return self._sendto_errno(run, run.data, run.length) == 0
        return self.gso and self._sendmsg_errno(run, run.data, run.length) == 0

    cdef inline int _sendto_errno(self, Run *run, const uint8_t *data, size_t size) noexcept:
        if sendto(run.fd, data, size, MSG_DONTWAIT, run.name, run.name_bytes) >= 0:
            return 0
        return errno

    cdef int _sendmsg_errno(self, Run *run, const uint8_t *data, size_t size) noexcept:
        cdef msghdr header
        cdef iovec vector
        cdef uint64_t control[4]  # aligned; CMSG_SPACE of a u16 is 24
        cdef cmsghdr *message
        cdef uint16_t segment_bytes = <uint16_t>run.segment_bytes
        memset(&header, 0, sizeof(header))
        memset(control, 0, sizeof(control))
        vector.iov_base = <void *>data
        vector.iov_len = size
        header.msg_name = <void *>run.name
        header.msg_namelen = run.name_bytes
        header.msg_iov = &vector
        header.msg_iovlen = 1
        header.msg_control = control
        header.msg_controllen = CMSG_SPACE(sizeof(segment_bytes))
        message = CMSG_FIRSTHDR(&header)
        message.cmsg_level = SOL_UDP
        message.cmsg_type = UDP_SEGMENT
        message.cmsg_len = CMSG_LEN(sizeof(segment_bytes))
        memcpy(CMSG_DATA(message), &segment_bytes, sizeof(segment_bytes))
        if sendmsg(run.fd, &header, MSG_DONTWAIT) >= 0:
            return 0
        return errno


cdef inline bint _is_no_room(int code) noexcept:
    return code == EAGAIN or code == ENOBUFS


cdef inline bint _is_gso_refused(int code) noexcept:
    return (
        code == EINVAL
        or code == EIO
        or code == ENOPROTOOPT
        or code == EOPNOTSUPP
        or code == EMSGSIZE
    )


cdef int _raise(int code) except -1:
    raise OSError(code, os.strerror(code))
