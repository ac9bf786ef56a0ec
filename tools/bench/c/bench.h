/* What the measuring programs share: arguments, clock, the handshake with the program that runs
 * both ends, and the result line.
 *
 * The handshake, the same for every contender:
 *   subscriber  writes "ready" once it has joined, "joined" when the first greeting has arrived
 *               everywhere, and at the end one line of JSON
 *   publisher   greets every 2 ms until a line arrives on stdin, then sends START, the messages
 *               and END; it repeats END until stdin ends; then one line of JSON
 *
 * A control message has 16 bytes: 0xff, a letter, 6 bytes of zero, a number of 64 bits in the
 * host's order. Data starts with any byte but 0xff.
 */
#ifndef BENCH_H
#define BENCH_H

#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define CONTROL_BYTES 16
#define HELLO 'H'
#define START 'S'
#define END 'E'

static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* User and system time of the whole process. */
static inline double cpu_s(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec
           + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static inline void fail_if(int failed, const char *what)
{
    if (!failed)
        return;
    perror(what);
    exit(2);
}

/* The text after NAME= among the arguments, or the default. */
static inline const char *text_argument(int argc, char **argv, const char *name, const char *other)
{
    size_t length = strlen(name);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], name, length) && argv[i][length] == '=')
            return argv[i] + length + 1;
    return other;
}

static inline double argument(int argc, char **argv, const char *name, double other)
{
    const char *text = text_argument(argc, argv, name, NULL);
    return text ? atof(text) : other;
}

static inline void make_control(unsigned char *message, char letter, uint64_t number)
{
    memset(message, 0, CONTROL_BYTES);
    message[0] = 0xff;
    message[1] = (unsigned char)letter;
    memcpy(message + 8, &number, 8);
}

/* The letter of a control message, 0 for data. */
static inline char control_letter(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    return size == CONTROL_BYTES && bytes[0] == 0xff ? (char)bytes[1] : 0;
}

static inline uint64_t control_number(const void *data)
{
    uint64_t number;
    memcpy(&number, (const char *)data + 8, 8);
    return number;
}

/* Waits up to timeout_ms for a line on stdin or its end; then 1, and *ended says which. */
static inline int stdin_says(int timeout_ms, int *ended)
{
    char line[64];
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (poll(&input, 1, timeout_ms) <= 0)
        return 0;
    *ended = read(0, line, sizeof line) <= 0;
    return 1;
}

static inline void say(const char *word)
{
    printf("%s\n", word);
    fflush(stdout);
}

static int ascending(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* The result line of a latency run: percentiles of half the round trips. Sorts them. */
static inline void report_latency(int64_t *rtts_ns, long count)
{
    qsort(rtts_ns, count, sizeof *rtts_ns, ascending);
#define AT(fraction) (rtts_ns[(long)((count - 1) * (fraction))] / 2e9)
    printf("{\"rounds\": %ld, \"p50_s\": %.9f, \"p90_s\": %.9f, \"p99_s\": %.9f,"
           " \"p999_s\": %.9f, \"max_s\": %.9f}\n",
           count, AT(0.5), AT(0.9), AT(0.99), AT(0.999), AT(1.0));
#undef AT
}

#endif
