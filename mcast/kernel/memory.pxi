# Memory that views may look at. Part of ``_native.pyx``.

cdef inline void _fill_buffer(
    Py_buffer *buffer, uint8_t *data, Py_ssize_t size, int flags
) noexcept:
    """All but the owner; PyBuffer_FillInfo would leak the None that Cython puts there first."""
    buffer.buf = data
    buffer.len = size
    buffer.itemsize = 1
    buffer.readonly = 0
    buffer.ndim = 1
    buffer.format = NULL
    buffer.shape = NULL
    buffer.strides = NULL
    buffer.suboffsets = NULL
    buffer.internal = NULL
    if flags & PyBUF_FORMAT:
        buffer.format = <char *>b"B"
    if flags & PyBUF_ND:
        buffer.shape = &buffer.len
    if (flags & PyBUF_STRIDES) == PyBUF_STRIDES:
        buffer.strides = &buffer.itemsize


@cython.final
cdef class _Block:
    """Zeroed memory that lives as long as anyone looks at it; pages are touched on first use."""

    cdef uint8_t *data
    cdef Py_ssize_t size

    def __cinit__(self, size_t count, size_t item_bytes):
        self.data = <uint8_t *>PyMem_RawCalloc(count, item_bytes)
        if self.data == NULL:
            raise MemoryError
        self.size = <Py_ssize_t>(count * item_bytes)
        self._ask_for_huge_pages()

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    cdef void _ask_for_huge_pages(self) noexcept:
        """Fewer page faults and misses of the TLB, where the block has room for such pages."""
        cdef size_t first = (<size_t>self.data + HUGE_PAGE_BYTES - 1) & ~<size_t>(HUGE_PAGE_BYTES - 1)
        cdef size_t end = (<size_t>self.data + self.size) & ~<size_t>(HUGE_PAGE_BYTES - 1)
        if first < end:
            madvise(<void *>first, end - first, MADV_HUGEPAGE)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.obj = self
        _fill_buffer(buffer, self.data, self.size, flags)


@cython.final
cdef class _Slab:
    """Memory for one datagram; a view of it has the size set when it was made."""

    cdef uint8_t *data
    cdef Py_ssize_t size

    def __cinit__(self, size_t size):
        self.data = <uint8_t *>PyMem_RawMalloc(size)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self.data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.obj = self
        _fill_buffer(buffer, self.data, self.size, flags)
