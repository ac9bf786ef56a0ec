/* libzmq one-way latency: half of the round trip between two processes, PUB/SUB each way.
 *
 *   zmq_latency role=ping|pong there=URL back=URL size=B count=N [limit=S]
 *
 * Over tcp the ping end binds both.
 */
#include <zmq.h>

#include "bench.h"

enum { WARM_UP = 1000 };

static void *make_socket(void *context, int kind, const char *url, int binds)
{
    void *made = zmq_socket(context, kind);
    int linger = 100;
    zmq_setsockopt(made, ZMQ_LINGER, &linger, sizeof linger);
    if (kind == ZMQ_SUB)
        zmq_setsockopt(made, ZMQ_SUBSCRIBE, "", 0);
    fail_if(binds ? zmq_bind(made, url) : zmq_connect(made, url), url);
    return made;
}

static void ping(void *out, void *in, size_t size, long count)
{
    char *data = calloc(1, size), *answer = malloc(size);
    int64_t *rtts_ns = malloc(count * sizeof *rtts_ns);
    int timeout_ms = 20;
    data[0] = 'p';
    /* Until the first answer, ask again: the subscriptions take their time. */
    zmq_setsockopt(in, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms);
    do
        zmq_send(out, data, size, 0);
    while (zmq_recv(in, answer, size, 0) < 0);
    while (zmq_recv(in, answer, size, 0) >= 0)
        ;
    timeout_ms = 5000;
    zmq_setsockopt(in, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms);
    for (long i = -WARM_UP; i < count; i++) {
        int64_t start_ns = now_ns();
        zmq_send(out, data, size, 0);
        fail_if(zmq_recv(in, answer, size, 0) < 0, "no answer");
        if (i >= 0)
            rtts_ns[i] = now_ns() - start_ns;
    }
    data[0] = END;
    zmq_send(out, data, size, 0);
    report_latency(rtts_ns, count);
}

static void pong(void *in, void *out, size_t size)
{
    char *data = malloc(size);
    say("ready");
    while (zmq_recv(in, data, size, 0) >= 0 && data[0] != END)
        zmq_send(out, data, size, 0);
}

int main(int argc, char **argv)
{
    const char *there = text_argument(argc, argv, "there", "tcp://127.0.0.1:5601");
    const char *back = text_argument(argc, argv, "back", "tcp://127.0.0.1:5602");
    int is_ping = !strcmp(text_argument(argc, argv, "role", "pong"), "ping");
    size_t size = argument(argc, argv, "size", 64);
    void *context = zmq_ctx_new();
    alarm(argument(argc, argv, "limit", 120));
    void *out = make_socket(context, ZMQ_PUB, is_ping ? there : back, is_ping);
    void *in = make_socket(context, ZMQ_SUB, is_ping ? back : there, is_ping);
    if (is_ping)
        ping(out, in, size, argument(argc, argv, "count", 20000));
    else
        pong(in, out, size);
    fflush(stdout);
    usleep(is_ping ? 50000 : 0); /* END leaves through the input and output thread */
    _exit(0);
}
