/* libzmq PUB/SUB or PUSH/PULL throughput, one zmq_send and one zmq_msg_recv for each message.
 *
 *   zmq_throughput role=pub|sub url=URL size=B count=N [hwm=N] [rate_kbit=R ivl_ms=T] [buffer=B]
 *                  [pace=MESSAGES_PER_S] [sockets=N] [limit=S] [pattern=pubsub|pipeline]
 *
 * Over tcp the publisher binds; over epgm both connect. A full queue blocks the publisher
 * (ZMQ_XPUB_NODROP), as nothing may be lost. With pattern=pipeline the publisher is a PUSH and the
 * subscriber a PULL, which lose nothing anyway.
 */
#include <errno.h>
#include <zmq.h>

#include "bench.h"

#define MOST_SOCKETS 256

static void *make_socket(void *context, int kind, int argc, char **argv)
{
    const char *url = text_argument(argc, argv, "url", "");
    void *made = zmq_socket(context, kind);
    int hwm = argument(argc, argv, "hwm", 1000), linger = 0, no_drop = 1;
    int rate = argument(argc, argv, "rate_kbit", 0), ivl = argument(argc, argv, "ivl_ms", 0);
    int buffer = argument(argc, argv, "buffer", 0);
    zmq_setsockopt(made, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(made, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(made, ZMQ_LINGER, &linger, sizeof linger);
    if (rate)
        zmq_setsockopt(made, ZMQ_RATE, &rate, sizeof rate);
    if (ivl)
        zmq_setsockopt(made, ZMQ_RECOVERY_IVL, &ivl, sizeof ivl);
    if (buffer) {
        zmq_setsockopt(made, ZMQ_SNDBUF, &buffer, sizeof buffer);
        zmq_setsockopt(made, ZMQ_RCVBUF, &buffer, sizeof buffer);
    }
    if (kind == ZMQ_PUB)
        fail_if(zmq_setsockopt(made, ZMQ_XPUB_NODROP, &no_drop, sizeof no_drop), "NODROP");
    else if (kind == ZMQ_SUB)
        zmq_setsockopt(made, ZMQ_SUBSCRIBE, "", 0);
    if ((kind == ZMQ_PUB || kind == ZMQ_PUSH) && !strncmp(url, "tcp:", 4))
        fail_if(zmq_bind(made, url), url);
    else
        fail_if(zmq_connect(made, url), url);
    return made;
}

static void send_control(void *socket, char letter, uint64_t number)
{
    unsigned char message[CONTROL_BYTES];
    make_control(message, letter, number);
    fail_if(zmq_send(socket, message, sizeof message, 0) < 0, "zmq_send");
}

/* A PUSH says END once: without its peer it would block. */
static void publish(void *socket, int end_ivl_ms, int argc, char **argv)
{
    size_t size = argument(argc, argv, "size", 64);
    long count = argument(argc, argv, "count", 1000000);
    double pace = argument(argc, argv, "pace", 0);
    char *data = malloc(size);
    int ended = 0;
    memset(data, 'x', size);
    while (!stdin_says(2, &ended))
        send_control(socket, HELLO, 0);
    send_control(socket, START, size);
    double cpu_before = cpu_s();
    int64_t start_ns = now_ns();
    for (long i = 0; i < count; i++) {
        /* Paced by the millisecond: a clock read for each message would be part of its cost. */
        if (pace > 0 && i % 64 == 0)
            while (now_ns() - start_ns < i / pace * 1e9)
                usleep(200);
        fail_if(zmq_send(socket, data, size, 0) < 0, "zmq_send");
    }
    send_control(socket, END, count);
    double seconds = (now_ns() - start_ns) / 1e9;
    while (!ended) {
        if (!stdin_says(end_ivl_ms, &ended))
            send_control(socket, END, count);
    }
    /* Until the subscriber had it all: the input and output thread's share belongs to it, too. */
    double cpu = cpu_s() - cpu_before;
    printf("{\"sent\": %ld, \"seconds\": %.6f, \"cpu_s\": %.6f, \"cpu_s_per_message\": %.3e}\n",
           count, seconds, cpu, cpu / count);
    free(data);
}

struct state {
    int has_joined, has_ended;
    long received, sent;
    int64_t start_ns, end_ns;
};

/* Takes one message; 0 when none waits (only with ZMQ_DONTWAIT). */
static int take(void *socket, zmq_msg_t *message, struct state *state, int flags)
{
    if (zmq_msg_recv(message, socket, flags) < 0) {
        fail_if(errno != EAGAIN && errno != EINTR, "zmq_msg_recv");
        return 0;
    }
    char letter = control_letter(zmq_msg_data(message), zmq_msg_size(message));
    if (!letter) {
        state->received++;
    } else if (letter == HELLO) {
        state->has_joined = 1;
    } else if (letter == START) {
        state->start_ns = now_ns();
    } else if (!state->has_ended) {
        state->end_ns = now_ns();
        state->sent = control_number(zmq_msg_data(message));
        state->has_ended = 1;
    }
    return 1;
}

static void subscribe(void **sockets, int socket_count)
{
    struct state states[MOST_SOCKETS] = {0};
    zmq_pollitem_t items[MOST_SOCKETS];
    zmq_msg_t message;
    int joined = 0, ended = 0;
    zmq_msg_init(&message);
    say("ready");
    for (int i = 0; i < socket_count; i++)
        items[i] = (zmq_pollitem_t){.socket = sockets[i], .events = ZMQ_POLLIN};
    double cpu_before = cpu_s();
    while (ended < socket_count) {
        if (socket_count > 1)
            fail_if(zmq_poll(items, socket_count, -1) < 0, "zmq_poll");
        for (int i = 0; i < socket_count; i++) {
            struct state *state = &states[i];
            if (socket_count > 1 && !(items[i].revents & ZMQ_POLLIN))
                continue;
            int was_joined = state->has_joined, had_ended = state->has_ended;
            if (socket_count > 1)
                for (int n = 0; n < 1000 && take(sockets[i], &message, state, ZMQ_DONTWAIT); n++)
                    ;
            else
                while (state->has_joined == was_joined && state->has_ended == had_ended)
                    take(sockets[i], &message, state, 0);
            joined += state->has_joined - was_joined;
            if (joined == socket_count && state->has_joined != was_joined)
                say("joined");
            ended += state->has_ended - had_ended;
        }
    }
    long received = 0, sent = 0;
    int64_t start_ns = states[0].start_ns, end_ns = 0;
    for (int i = 0; i < socket_count; i++) {
        received += states[i].received;
        sent += states[i].sent;
        if (states[i].end_ns > end_ns)
            end_ns = states[i].end_ns;
    }
    double seconds = (end_ns - start_ns) / 1e9;
    printf("{\"received\": %ld, \"missing\": %ld, \"seconds\": %.6f, \"messages_per_s\": %.1f,"
           " \"cpu_s\": %.6f}\n",
           received, sent - received, seconds, received / seconds / socket_count,
           cpu_s() - cpu_before);
}

int main(int argc, char **argv)
{
    void *context = zmq_ctx_new(), *sockets[MOST_SOCKETS];
    int socket_count = argument(argc, argv, "sockets", 1);
    int is_pipeline = !strcmp(text_argument(argc, argv, "pattern", "pubsub"), "pipeline");
    alarm(argument(argc, argv, "limit", 120));
    if (!strcmp(text_argument(argc, argv, "role", "sub"), "pub")) {
        publish(make_socket(context, is_pipeline ? ZMQ_PUSH : ZMQ_PUB, argc, argv),
                is_pipeline ? -1 : 20, argc, argv);
    } else {
        for (int i = 0; i < socket_count; i++)
            sockets[i] = make_socket(context, is_pipeline ? ZMQ_PULL : ZMQ_SUB, argc, argv);
        subscribe(sockets, socket_count);
    }
    fflush(stdout);
    _exit(0); /* closing epgm sockets in order is not what is measured */
}
