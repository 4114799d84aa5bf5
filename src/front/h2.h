// An HTTP/2 client connection (RFC 9113) over nghttp2: private to the room.
//
//   socket ─▶ c->in ─▶ nghttp2_session_mem_recv ─▶ callbacks only note ─▶ settle (h2_stream.c) ─▶ exchange
//   socket ◀─ c->out ◀─ nghttp2_session_mem_send ◀─ submit ◀─ reply verbs (h2_reply.c) ◀─────────── exchange
//
// nghttp2 may not be entered from its own callbacks, and an exchange may answer at once from whatever it is
// told. So a callback writes down what happened to its stream and puts it among the due; when nghttp2 has
// returned, the due are settled. Heads are serialised when they are sent, for their fields lie in the
// exchange's arena, and with them the bodies of answers that are whole; other DATA is framed, and the socket
// written, once a turn by late work, or sooner when there is much.
#pragma once

#include "front/client.h"
#include "http/h2.h"

struct h2_client;

struct h2_stream {
    struct list node; // in h2->streams, or in the front's spare ones
    struct list due;  // in h2->due: settle it
    struct list late; // in h2->late_streams: it has DATA to frame
    struct h2_client *h2;
    struct exchange *x; // NULL: over; what it left may still have to go out
    int32_t id;
    uint32_t error; // closed: why

    // The request.
    struct buf held;         // of the body: what the exchange has not taken yet
    struct headers trailers; // in the exchange's arena
    uint64_t since_us;       // when the body last made progress
    uint64_t over_us;        // since when it is only read to be dropped; 0: it is not
    uint32_t dropped_bytes;
    const char *why; // the head was refused
    uint8_t refused; // enum end_cause of it

    // The response.
    struct buf pending;   // of the body: not framed yet
    struct lent lent;     // and behind it; without a lender for one call
    uint64_t stalled_us;  // since when pending has made no progress; 0: nothing waits
    struct h2_tail *tail; // trailers that outlive the exchange
    bool full;            // FLOW_FULL was said

    bool head_done : 1;    // the request head is complete
    bool begun : 1;        // the exchange has been told of it
    bool ended : 1;        // the request is complete
    bool body_wanted : 1;  // the exchange takes the body
    bool body_over : 1;    // it has been told the end of it
    bool body_fed : 1;     // it has been given some in this turn
    bool delivering : 1;   // h2_deliver is on the stack
    bool continue_due : 1; // 100 is to be said before the body is read
    bool tunnel : 1;
    bool has_data : 1;  // the response has a body: nghttp2 asks for it
    bool end_due : 1;   // no more of it will come
    bool end_sent : 1;  // END_STREAM is with nghttp2
    bool tail_due : 1;  // trailers end the stream, not DATA
    bool data_done : 1; // the last DATA is framed
    bool kept_back : 1; // a byte of pending is, see read_data
    bool reset : 1;     // RST_STREAM is with nghttp2
    bool closed : 1;    // nghttp2 has forgotten the stream
};

struct h2_client {
    struct client *client;
    nghttp2_session *session;
    struct list streams, due, late_streams;
    uint32_t stream_count;
    struct client_room room; // for what streams hold of their responses
    struct loop_late late;
    struct h2_guard guard;
    struct h2_frames frames;
    uint64_t partial_us;    // since when a frame or block is incomplete; 0: none is
    uint32_t partial_begun; // which
    uint64_t idle_us;       // since when there has been no stream
    uint64_t goaway_us;     // draining: when the last stream is named; 0: it has been

    // The header block that is being decoded.
    struct h2_fields fields;
    struct h2_stream *block; // whose; NULL: nobody wants it

    // DATA at which nghttp2 has paused, for the stream to take.
    struct h2_stream *chunk_stream;
    struct str chunk;

    uint64_t turn; // of the loop, in which turn_bytes were read
    uint32_t turn_bytes;
    uint32_t dropped_bytes; // lingering
    bool unread;            // what more there is waits for another turn
    bool paused;            // at chunk
    uint32_t failure;       // the connection must end, or ends, with this error; 0: none
    bool draining;
    bool lingering; // our side is shut, what still comes is read and dropped
};

// ---- h2.c ----

// Late work is due: frames wait to be made or sent.
void h2_wake(struct h2_client *h2);
// Sees that the connection is looked at in so many µs at the latest.
void h2_arm_in(struct h2_client *h2, uint64_t us);

// ---- h2_stream.c ----

// What every session calls. NULL: memory is out.
nghttp2_session_callbacks *h2_callbacks_new(void);
// Acts on what was noted about the streams that are due.
void h2_settle(struct h2_client *h2);
void h2_stream_due(struct h2_stream *s);
// DATA has come.
void h2_take_data(struct h2_stream *s, struct str data);
// Gives the exchange what it wants of the body that is there.
void h2_deliver(struct h2_stream *s);
// Nobody wants the rest of the body.
void h2_drop_held(struct h2_stream *s);
// The stream ends here: RST_STREAM, unless it is over.
void h2_reset(struct h2_stream *s, uint32_t error);
// The connection ends: every exchange as client_gone or client_slow, then every stream.
void h2_end_streams(struct h2_client *h2, enum end_cause cause);

// ---- h2_reply.c ----

extern const struct client_verbs h2_verbs;
// Everything that nghttp2 has to send goes into c->out.
void h2_serialise(struct h2_client *h2);
// The DATA that streams wait to send.
void h2_resume_data(struct h2_client *h2);
int h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                 nghttp2_data_source *source, void *context);
// The trailers that waited for the last DATA.
void h2_send_tail(struct h2_stream *s);
// Bytes of the response's body that wait for the client.
size_t h2_waiting(const struct h2_stream *s);
// Drops what the response still has to say.
void h2_drop_reply(struct h2_stream *s);
