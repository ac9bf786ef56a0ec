# The system's declarations, and the clock. Part of ``_native.pyx``.

cdef extern from "<sched.h>" nogil:
    int sched_yield()


cdef extern from "<sys/syscall.h>" nogil:
    long syscall(long number, ...)


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_wait(int epoll_fd, epoll_event *events, int count, int timeout_ms)
    int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event *event)
    const int EPOLL_CTL_MOD
    const unsigned int EPOLLIN


cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *address, size_t size, int advice)
    const int MADV_HUGEPAGE


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents

    ctypedef unsigned long nfds_t
    int ppoll(pollfd *fds, nfds_t count, const timespec *timeout, const void *mask)
    const short POLLIN
    const short POLLOUT


cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *data, size_t size)
    ssize_t read(int fd, void *data, size_t size)
    int close(int fd)


cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int value, int flags)
    const int EFD_CLOEXEC
    const int EFD_NONBLOCK


cdef inline long long _now() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000LL + now.tv_nsec


cdef inline long long _thread_now() noexcept nogil:
    """Processor time of the calling thread."""
    cdef timespec now
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
    return now.tv_sec * 1_000_000_000LL + now.tv_nsec


cdef extern from *:
    """
    #define mcast_fence() __sync_synchronize()
    """
    void mcast_fence() noexcept nogil


cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    ctypedef unsigned short sa_family_t

    struct iovec:
        void *iov_base
        size_t iov_len

    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type

    ctypedef struct sockaddr_t "struct sockaddr":
        sa_family_t sa_family

    cmsghdr *CMSG_FIRSTHDR(msghdr *header)
    cmsghdr *CMSG_NXTHDR(msghdr *header, cmsghdr *control)
    unsigned char *CMSG_DATA(cmsghdr *control)
    size_t CMSG_LEN(size_t size)
    size_t CMSG_SPACE(size_t size)
    int sendmmsg(int fd, mmsghdr *headers, unsigned int count, int flags)
    int recvmmsg(int fd, mmsghdr *headers, unsigned int count, int flags, void *timeout)
    ssize_t sendmsg(int fd, const msghdr *header, int flags)
    ssize_t sendto(
        int fd, const void *data, size_t size, int flags, const sockaddr_t *name, socklen_t length
    )
    const int AF_INET
    const int MSG_CTRUNC
    const int MSG_DONTWAIT
    const int MSG_TRUNC
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
    const int SOL_SOCKET

cdef enum:  # as in reference_io.py
    SOL_UDP = 17
    SO_RXQ_OVFL = 40
    SO_MEMINFO = 55  # Linux 4.12 and later
    UDP_SEGMENT = 103
    UDP_GRO = 104
    SOCKADDR_BYTES = 28
    CONTROL_BYTES = 128
    RUN_SEGMENT_COUNT = 64
    RUN_BYTES = 65_487
