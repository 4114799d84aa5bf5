#ifndef BENCH_H2_WIRE_H
#define BENCH_H2_WIRE_H

/* What load_h2, steady_h2 and origin_h2 share: frames of an nghttp2 session to the socket, answers, and
   gRPC's message prefix. */

#include "link.h"

#include <nghttp2/nghttp2.h>

#define GRPC_PREFIX 5 /* a flag, 0: not compressed, and four bytes of length */

struct h2_rest { /* what a full socket refused */
    char *bytes;
    size_t at;
    size_t size;
};

/* Sends all the session has to say, many frames with one send. False: the connection is gone. */
bool h2_flush(nghttp2_session *session, struct link *link, struct h2_rest *rest);

void h2_rest_reset(struct h2_rest *rest);

/* A name and value that live as long as the program. */
nghttp2_nv h2_field(const char *name, const char *value);

/* Takes the bytes of one message as they come, and says at the end whether it was whole. */
struct grpc_message {
    uint8_t prefix[GRPC_PREFIX];
    uint64_t got;
};

/* What has come of an answer. Zero it. */
struct h2_answer {
    unsigned status;      /* 0: none yet, or none of three digits */
    bool has_grpc_status; /* in the head or the trailers */
    bool grpc_ok;         /* it is 0 */
    struct grpc_message message;
};

/* The body of a request on its way: a source whose read_callback is h2_read_body. */
struct h2_body {
    const uint8_t *bytes;
    size_t left;
};

ssize_t h2_read_body(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                     nghttp2_data_source *source, void *unused);

/* A client's request under way: the first member of what its stream's user data is. */
struct h2_call {
    bool busy;
    int32_t stream;
    struct h2_answer answer;
    struct h2_body body;
};

/* NULL when nobody waits for this stream any more. */
struct h2_call *h2_call_of(nghttp2_session *session, int32_t stream);

/* For clients: what comes of answers is noted in their calls; NULL: no memory. */
nghttp2_session_callbacks *h2_client_callbacks(nghttp2_on_stream_close_callback on_stream_close);

void grpc_take(struct grpc_message *m, const uint8_t *data, size_t size);
bool grpc_is_whole(const struct grpc_message *m);

/* Makes a message of `size` bytes after its prefix. */
void grpc_make(uint8_t *to, uint32_t size);

#endif
