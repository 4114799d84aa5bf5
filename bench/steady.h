#ifndef BENCH_STEADY_H
#define BENCH_STEADY_H

/* steady's parts: steady.c says when a request is due and what became of it, a wire how it is made. */

#include "sock.h"

#define REQUEST_MAX 1024
#define NOWHERE     UINT32_MAX

enum outcome { PENDING, OK, OTHER_STATUS, ERROR_STATUS, REFUSED, BROKEN, TIMED_OUT, OUTCOMES };

struct request {
    uint32_t place;      /* where the wire has it, while pending */
    uint32_t latency_us; /* from when it was due */
    uint8_t outcome;
    bool late;
};

struct steady;

struct wire {
    void (*setup)(struct steady *s);
    /* The request is due. Its outcome is told by request_end, perhaps at once. */
    void (*begin)(struct steady *s, size_t number);
    /* Nobody waits for it any more: TIMED_OUT. */
    void (*give_up)(struct steady *s, size_t number);
    /* `place` is what was given to epoll with the socket. */
    void (*on_event)(struct steady *s, void *place, uint32_t events);
};

extern const struct wire wire_h1, wire_h2, wire_grpc;

struct steady {
    struct sockaddr_in to;
    uint64_t rate, slot_ms, timeout_ns;
    bool each; /* print the latency of each request */
    double seconds;
    const char *path;
    const struct wire *wire;

    int epoll;
    uint64_t start_ns;
    struct request *requests;
    size_t total, sent, oldest; /* before oldest, none is pending */
};

void request_end(struct steady *s, size_t number, enum outcome outcome);

/* What an answer's HTTP status amounts to. */
enum outcome outcome_of(unsigned status);

void *steady_alloc(size_t count, size_t size);
void steady_watch(struct steady *s, int fd, void *place);

#endif
