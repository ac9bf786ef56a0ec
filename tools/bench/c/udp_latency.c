/* The floor of one-way latency: half a round trip of UDP multicast datagrams on loopback.
 *
 *   udp_latency role=ping|pong group=G port=P size=B count=N spin=0|1 [limit=S]
 *
 * The answers come by the port above. spin=1 asks without end instead of sleeping in recv.
 */
#include <errno.h>

#include "udp.h"

enum { WARM_UP = 1000 };

static long take(int fd, char *data, size_t size, int spin)
{
    long got;
    do
        got = recv(fd, data, size, spin ? MSG_DONTWAIT : 0);
    while (got < 0 && spin && (errno == EAGAIN || errno == EWOULDBLOCK));
    return got;
}

static void ping(int out, int in, size_t size, long count, int spin)
{
    char *data = calloc(1, size);
    int64_t *rtts_ns = malloc(count * sizeof *rtts_ns);
    data[0] = 'p';
    for (long i = -WARM_UP; i < count; i++) {
        int64_t start_ns = now_ns();
        fail_if(send(out, data, size, 0) < 0, "send");
        fail_if(take(in, data, size, spin) < 0, "recv");
        if (i >= 0)
            rtts_ns[i] = now_ns() - start_ns;
    }
    data[0] = END;
    send(out, data, size, 0);
    report_latency(rtts_ns, count);
}

static void pong(int in, int out, size_t size, int spin)
{
    char *data = malloc(size);
    say("ready");
    while (take(in, data, size, spin) >= 0 && data[0] != END)
        fail_if(send(out, data, size, 0) < 0, "send");
}

int main(int argc, char **argv)
{
    const char *group = text_argument(argc, argv, "group", "239.192.9.2");
    int port = argument(argc, argv, "port", 5711), spin = argument(argc, argv, "spin", 0);
    int is_ping = !strcmp(text_argument(argc, argv, "role", "pong"), "ping");
    size_t size = argument(argc, argv, "size", 64);
    alarm(argument(argc, argv, "limit", 120));
    int out = group_sender(group, is_ping ? port : port + 1);
    int in = group_listener(group, is_ping ? port + 1 : port, 0);
    if (is_ping)
        ping(out, in, size, argument(argc, argv, "count", 20000), spin);
    else
        pong(in, out, size, spin);
    return 0;
}
