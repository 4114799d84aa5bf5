#ifndef BENCH_ANSWER_H
#define BENCH_ANSWER_H

/* Reads HTTP/1.1 responses as far as a load generator must: where each one ends, and its status. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANSWER_HEAD_MAX (16 * 1024)

enum answer_step {
    ANSWER_MORE, /* all bytes taken, the response goes on */
    ANSWER_DONE, /* the response has ended */
    ANSWER_BAD,  /* not a response, or one whose end cannot be told */
};

struct answer {
    int status; /* of the response being read, or of the last one */
    bool keep;  /* the server lets the connection live on */
    bool in_body;
    bool chunked;
    unsigned chunk_at; /* where in the chunked coding */
    uint64_t left;     /* body or chunk bytes still to come */
    char *held;        /* a head that came in pieces */
    size_t held_size;
};

/* Takes bytes and sets *used; after ANSWER_DONE the next response may follow at once. */
enum answer_step answer_take(struct answer *a, const char *data, size_t size, size_t *used);

/* Forgets a half-read response and frees what was held. */
void answer_reset(struct answer *a);

#endif
