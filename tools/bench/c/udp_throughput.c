/* What UDP multicast on loopback can carry with nothing on top: the ceiling.
 *
 *   udp_throughput role=pub|sub group=G port=P mode=plain|gso size=B count=DATAGRAMS
 *                  [rate=BITS_PER_S] [buffer=B] [limit=S]
 *
 * plain: one send for each datagram. gso: runs of up to 44 by UDP_SEGMENT, taken in by UDP_GRO.
 * The rate counts UDP payload; there is no flow control, so losses are for the caller to judge.
 */
#include "udp.h"

enum { LARGEST_RUN_BYTES = 65000, MOST_SEGMENTS = 44, BUFFER_BYTES = 1 << 16 };

static void send_control(int fd, char letter, uint64_t number)
{
    unsigned char message[CONTROL_BYTES];
    make_control(message, letter, number);
    send(fd, message, sizeof message, 0);
}

static void publish(int fd, int gso, int argc, char **argv)
{
    int size = argument(argc, argv, "size", 1472), ended = 0, no_segments = 0;
    long count = argument(argc, argv, "count", 1000000);
    double rate = argument(argc, argv, "rate", 0);
    int run = LARGEST_RUN_BYTES / size;
    if (run > MOST_SEGMENTS)
        run = MOST_SEGMENTS;
    if (!gso)
        run = 1;
    char *data = malloc((size_t)size * run);
    memset(data, 'x', (size_t)size * run);
    while (!stdin_says(2, &ended))
        send_control(fd, HELLO, 0);
    send_control(fd, START, size);
    if (gso)
        fail_if(setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size), "UDP_SEGMENT");
    double cpu_before = cpu_s();
    int64_t start_ns = now_ns();
    long sent = 0;
    while (sent < count) {
        long now = count - sent < run ? count - sent : run;
        if (rate > 0)
            while ((now_ns() - start_ns) * rate / 8e9 < (double)sent * size)
                ;
        if (send(fd, data, now * size, 0) < 0)
            continue; /* ENOBUFS: again */
        sent += now;
    }
    double seconds = (now_ns() - start_ns) / 1e9, cpu = cpu_s() - cpu_before;
    setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &no_segments, sizeof no_segments);
    do
        send_control(fd, END, sent);
    while (!stdin_says(5, &ended) || !ended);
    printf("{\"sent\": %ld, \"seconds\": %.6f, \"cpu_s\": %.6f, \"cpu_s_per_message\": %.3e}\n",
           sent, seconds, cpu, cpu / sent);
}

static void subscribe(int fd, int gso)
{
    char *data = malloc(BUFFER_BYTES);
    int on = 1, has_joined = 0;
    long bytes = 0, received, size = 1;
    int64_t start_ns = 0, end_ns = 0;
    if (gso)
        fail_if(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on), "UDP_GRO");
    say("ready");
    for (;;) {
        long got = recv(fd, data, BUFFER_BYTES, 0);
        fail_if(got < 0, "recv");
        char letter = control_letter(data, got);
        if (!letter) {
            bytes += got;
            end_ns = now_ns();
        } else if (letter == HELLO && !has_joined) {
            has_joined = 1;
            say("joined");
        } else if (letter == START) {
            size = control_number(data);
            start_ns = now_ns();
        } else if (letter == END) {
            break;
        }
    }
    received = bytes / size;
    double seconds = (end_ns - start_ns) / 1e9;
    printf("{\"received\": %ld, \"missing\": %ld, \"seconds\": %.6f, \"messages_per_s\": %.1f,"
           " \"bits_per_s\": %.1f}\n",
           received, (long)control_number(data) - received, seconds, received / seconds,
           bytes * 8 / seconds);
}

int main(int argc, char **argv)
{
    const char *group = text_argument(argc, argv, "group", "239.192.9.1");
    int port = argument(argc, argv, "port", 5701);
    int gso = !strcmp(text_argument(argc, argv, "mode", "gso"), "gso");
    alarm(argument(argc, argv, "limit", 120));
    if (!strcmp(text_argument(argc, argv, "role", "sub"), "pub"))
        publish(group_sender(group, port), gso, argc, argv);
    else
        subscribe(group_listener(group, port, argument(argc, argv, "buffer", 4 << 20)), gso);
    return 0;
}
