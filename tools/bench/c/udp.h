/* Multicast on the loopback interface by name, and on no other. */
#ifndef UDP_H
#define UDP_H

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include "bench.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static inline struct sockaddr_in group_address(const char *group, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    fail_if(inet_pton(AF_INET, group, &address.sin_addr) != 1, group);
    return address;
}

/* A socket connected to the group, sending by lo only. */
static inline int group_sender(const char *group, int port)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ip_mreqn lo = {.imr_ifindex = (int)if_nametoindex("lo")};
    struct sockaddr_in own = group_address("127.0.0.1", 0), to = group_address(group, port);
    fail_if(bind(fd, (struct sockaddr *)&own, sizeof own), "bind");
    fail_if(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &lo, sizeof lo), "IP_MULTICAST_IF");
    fail_if(connect(fd, (struct sockaddr *)&to, sizeof to), "connect");
    return fd;
}

/* A socket bound to the group and joined on lo only. */
static inline int group_listener(const char *group, int port, int buffer_bytes)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1, off = 0;
    struct sockaddr_in at = group_address(group, port);
    struct ip_mreqn membership = {.imr_multiaddr = at.sin_addr,
                                  .imr_ifindex = (int)if_nametoindex("lo")};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof off);
    if (buffer_bytes)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    fail_if(bind(fd, (struct sockaddr *)&at, sizeof at), "bind");
    fail_if(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &membership, sizeof membership), "join");
    return fd;
}

#endif
