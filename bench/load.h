#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

/* The HTTP/1.1 load's parts: load.c runs it, load_conn.c moves its connections, load_options.c reads its
 * options. */

#include "answer.h"
#include "hist.h"
#include "link.h"
#include "result.h"

#define REQUEST_MAX     4096
#define CONNECTIONS_MAX 200000
#define SPREAD_MAX      100000
#define ALPN_HTTP1      "http/1.1"

enum conn_state { CONN_CLOSED, CONN_OPENING, CONN_FREE, CONN_BUSY };

/* What each connection does besides one request after the other. */
enum shakes { SHAKES_NONE, SHAKES_FULL, SHAKES_RESUMED };

struct conn {
    struct link link;
    enum conn_state state;
    bool readable;
    bool ending;
    bool in_ring;
    uint64_t
        from_ns; /* when the request was sent (closed loop) or due (open loop), or the connection begun */
    struct answer answer;
};

struct tokens {
    char *text; /* of the whole file */
    size_t size, count, next;
};

struct load {
    struct sockaddr_in to;
    size_t connections;
    double seconds;
    double warmup;
    uint64_t limit; /* requests, 0: by time */
    uint64_t rate;  /* 0: closed loop */
    size_t idle;
    size_t at_once; /* idle: requests under way at one time */
    bool gate;
    bool phased; /* open loop: phases that standard input names */
    bool over_tls;
    enum shakes shakes; /* not none: a connection for each request */
    uint32_t spread;
    const char *path;
    const char *host;
    const char *tokens; /* a file of bearer tokens, a line each, all of one length; NULL: none */
    bool in_order;      /* the next token for each request, else any */
    const char *extra[16];
    size_t extra_count;

    SSL_CTX *tls; /* NULL: none */
    char request[REQUEST_MAX];
    size_t request_size;
    char *request_digits; /* where the number of --spread goes */
    struct tokens token;
    char *request_token; /* where it goes */
    uint32_t random;

    int epoll;
    struct conn *conns;
    size_t *free_ring; /* open loop: free connections, longest free first */
    size_t free_at;
    size_t free_count;
    size_t busy;
    size_t opening;
    size_t alive;

    bool sending;    /* closed loop: a free connection sends at once */
    bool told;       /* standard input has something to say, or has ended */
    bool collecting; /* sessions are made that are to be resumed: full handshakes are right */
    uint64_t sent;
    uint64_t start_ns;
    uint64_t stop_ns;
    struct counts counts;
    struct hist hist;
};

void options_read(struct load *l, int argc, char **argv);

void tokens_read(struct load *l);
void request_make(struct load *l);

void conn_open(struct load *l, struct conn *c);
void conn_close(struct load *l, struct conn *c);
void conn_send(struct load *l, struct conn *c, uint64_t from_ns);

/* Closed loop: whether the run wants more requests. */
bool may_send(const struct load *l, uint64_t now);

/* Open loop: the connection that has been free longest; NULL when none is. */
struct conn *ring_pop(struct load *l);

/* Waits for events, not longer than told, and handles them. */
void turn(struct load *l, uint64_t wait_ns);

#endif
