#ifndef BENCH_RESULT_H
#define BENCH_RESULT_H

/* What the loads count, how they print it, and how they wait for whoever measures with them. */

#include "hist.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct counts {
    uint64_t requests; /* answered, with any status */
    uint64_t bytes;
    uint64_t bad_status;     /* not 2xx */
    uint64_t too_many;       /* 429 */
    uint64_t server_errors;  /* 5xx */
    uint64_t bad_message;    /* gRPC: no whole message, or no grpc-status 0 in the trailers */
    uint64_t broken;         /* connection or stream ended or made no sense before the answer was whole */
    uint64_t connect_failed; /* refused, or the TLS handshake failed */
    uint64_t unanswered;
    uint64_t reconnects;       /* the server closed between requests */
    uint64_t handshakes;       /* of TLS, completed */
    uint64_t resumed;          /* of them */
    uint64_t wrong_handshakes; /* full where resumed was to be measured, or the reverse */
};

struct result {
    const char *event;
    const char *phase; /* NULL: none */
    const char *loop;
    size_t connections;
    size_t streams; /* at once on each connection */
    uint64_t rate;
    uint64_t ns; /* length of the run */
    double cpu_seconds;
    const struct counts *counts;
    const struct hist *hist;
};

uint64_t errors(const struct counts *c);

/* One line of JSON. */
void result_print(const struct result *r);

#define PHASE_MAX 32

/* The next line of standard input names a phase; false when there is none. */
bool phase_read(char phase[PHASE_MAX]);

/* User and system time of this process so far. */
double own_cpu_seconds(void);

/* "ready" is said, and a line (or the end) awaited on standard input. */
void gate_wait(void);

/* Until standard input ends. */
void wait_for_end(void);

double parse_seconds(const char *option, const char *text);

#endif
