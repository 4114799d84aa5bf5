// HTTP/2 towards an upstream: a session is a connection, a stream is what one call is lent of it. Private to
// the room.
//
//   verbs of a call     h2_stream.c     head, body → nghttp2's queues; resume → on_body
//   the loop            h2_session.c    readable, late, timers: bytes into nghttp2 and out of it
//   nghttp2's callbacks h2_session.c    what is about the connection; h2_stream.c what is about a stream
//
// nghttp2 must not be entered twice (busy), and an exchange must not hear of one thing while it says another:
// what comes up inside a verb is noted as due for the stream, and told from the loop (session_settle).
#pragma once

#include "http/h2.h"
#include "upstream/link.h"

enum {
    // Serialised ahead of the kernel; more frames stay with nghttp2. What is put on top of it seldom needs
    // more
    // than a block.
    H2_OUT_BYTES = BUF_BLOCK - 4 * 1024,
    H2_GATHER_BYTES = 4 * 1024, // of a request body that wait for the end of the turn
    H2_READS = 16,              // of a buffer each in one turn: other connections want theirs
    H2_SPARE_STREAMS = 256,     // kept by a worker

    // Keep-alive. gRPC servers count pings that nothing else goes with, and close the connection at the third
    // within five minutes.
    H2_TICK_MS = 2500,            // how often it is looked at
    H2_QUIET_MS = 10 * 1000,      // without a byte while streams wait: a ping
    H2_IDLE_QUIET_MS = 30 * 1000, // without a stream
    H2_QUIETER_MS = 300 * 1000,   // since the last ping, when nothing but its answer has come
    H2_PONG_MS = 10 * 1000,       // for the answer: past it the connection is broken
    H2_DOUBT_MS = 250, // without a byte for a stream that is then given up: the others may fare no better
    H2_SMALL_UPDATE = 1024, // bytes: what opens a window by less is counted as a nuisance
};

struct h2_session {
    struct upstream_conn base;
    nghttp2_session *ng;
    struct loop_late late;
    struct loop_timer tick;
    struct h2_guard guard;
    struct h2_frames frames;
    struct list streams; // all that nghttp2 knows and a call holds
    uint32_t stream_count;
    uint32_t places;       // in local->requests, of calls whose RST_STREAM is not written yet
    struct list due;       // streams that something is to be told of
    uint64_t queued_bytes; // ever serialised
    uint64_t heard_ms;     // when a byte came last
    uint64_t pinged_ms;    // when the ping that waits for its answer was sent; 0: none
    bool ping_was_last;    // nothing but its answer has come since a ping
    bool open;             // the peer's SETTINGS have come
    bool doubted;          // takes no new streams until something is heard
    bool leaving;          // GOAWAY: no new streams
    bool busy;             // inside nghttp2
    bool more;             // H2_OUT_BYTES stopped the serialising
    bool broken;           // nghttp2 has given up, or the peer went too far
    bool violated;         // by what the peer sent
};

enum { DUE_FLUSH = 1, DUE_DRAIN = 2, DUE_FAIL = 4 };

struct h2_stream {
    struct upstream_link link;
    struct h2_session *session; // NULL: closed, but what is held is not handed over yet
    struct upstream_worker *worker;
    struct list node; // in session->streams, or the worker's spares
    struct list due_node;
    unsigned due;
    enum end_cause cause;              // DUE_FAIL
    struct upstream_conn *failed_with; // DUE_FAIL: it is the connection that has failed
    uint64_t lent_ms;
    uint64_t serial; // another one each time it is lent; 0: spare
    int32_t id;      // 0: no request yet
    // The request.
    struct buf pending; // of its body: not serialised yet
    struct str span;    // behind it, while its giver is on the stack
    nghttp2_nv *trailers;
    size_t trailer_count;
    uint64_t head_at; // session->queued_bytes where its head begins
    bool head_queued; // serialised
    bool unsent;      // without a session: nothing of it had been sent
    bool request_ended, end_queued;
    bool deferred; // nghttp2 waits to be told of more
    bool full;     // FLOW_FULL was said
    // The response.
    struct h2_fields fields;
    struct headers *response_trailers;
    unsigned informational;
    struct buf held;       // of its body: the client side is full
    size_t unconsumed;     // handed over while it was full: opens the window when it goes on
    uint32_t window_bytes; // what the upstream may send
    uint32_t taken_bytes;  // since the window was looked at
    bool head_seen, response_ended, paused;
    bool is_bad;     // the response is malformed
    bool peer_reset; // RST_STREAM came
    bool closed;     // nghttp2 knows it no longer
};

// ---- h2_session.c ----

static inline struct h2_session *session_of(struct upstream_conn *c)
{
    return container_of(c, struct h2_session, base);
}

// Frames are waiting: out they go before the turn ends.
void session_write_late(struct h2_session *s);
// A body is growing: serialise what the windows allow, and send when there is much.
void session_write_bulk(struct h2_session *s);
void session_note_due(struct h2_stream *stream, unsigned what);
// A stream is gone: there is room for another, or nothing left to do.
void session_lost_stream(struct h2_session *s);
void session_update_room(struct h2_session *s);
// Somebody has waited in vain: is the peer there? A ping asks.
void session_doubt(struct h2_session *s);
// A nghttp2 data provider.
ssize_t session_read_body(nghttp2_session *ng, int32_t id, uint8_t *data, size_t max, uint32_t *flags,
                          nghttp2_data_source *source, void *context);

// ---- h2_stream.c ----

struct upstream_link *stream_lend(struct upstream_conn *c, struct upstream_call *call);
// The connection is gone; the stream may be gone afterwards, too.
void stream_orphaned(struct h2_stream *stream);
void stream_settle(struct h2_stream *stream);

// nghttp2's callbacks for one stream.
void stream_begin_fields(struct h2_stream *stream);
must_check bool stream_field(struct h2_stream *stream, struct str name, struct str value);
void stream_fields_end(struct h2_stream *stream, bool end_stream);
void stream_data(struct h2_stream *stream, struct str span);
void stream_end(struct h2_stream *stream);
void stream_closed(struct h2_stream *stream, uint32_t error);
ssize_t stream_read_body(struct h2_stream *stream, size_t max, uint32_t *flags);
// n bytes of what stream_read_body has announced go into the connection's output.
void stream_move_body(struct h2_stream *stream, size_t n);
// Malformed by nghttp2's rules: the stream is reset already.
void stream_bad(struct h2_stream *stream);
