// HTTP/2 (RFC 9113) without I/O: what the client's and the upstream's side share on top of nghttp2. Heads in
// and out of header blocks, the session's options, and the accounts of what a peer may do how often.
//
//   header block ──h2_field…──▶ struct h2_fields ──h2_request_head / h2_response_head──▶ struct request_head,
//   … struct response_head, … ──h2_response_fields / h2_request_fields──▶ nghttp2_nv[]
//
// nghttp2 enforces framing, HPACK, stream states and much of RFC 9113 8; what is forwarded is checked again
// here by our own grammar, so that a head in HTTP/2 can never become two messages in HTTP/1 (9113 10.3).
#pragma once

#include "base/arena.h"
#include "http/h1_parse.h"

#include <nghttp2/nghttp2.h>

struct block_pool;

enum {
    H2_STREAMS = 100, // SETTINGS_MAX_CONCURRENT_STREAMS: of one connection (RFC 9113 6.5.2 asks for 100)
    H2_STREAM_WINDOW =
        256 * 1024,              // of a body that waits; 256 KiB at 50 ms round trip: 5 MiB/s for one stream
    H2_FIRST_WINDOW = 32 * 1024, // of an upstream's answer, until its client takes what comes (client_room.h)
    H2_CONNECTION_WINDOW = 1024 * 1024, // of all bodies that wait: bounds what one peer can make us hold
    H2_TABLE_BYTES = 4096,              // HPACK dynamic tables, either direction
    H2_CONTINUATIONS = 8,               // CONTINUATION frames of one header block (VU#421644)
    H2_BLOCK_BYTES =
        1 << 20, // decoded bytes of one header block that are looked at: past it the connection ends
    H2_BLOCK_FIELDS = 20000, // and fields: an HPACK bomb decodes to millions
    H2_OUT_ACKS = 128,       // SETTINGS and PING answers that wait for the peer to read

    // How often a peer may do what costs us more than it, in events a second and at once (leaky buckets,
    // h2_guard_note).
    H2_RESETS_PER_S = 50,
    H2_RESETS_BURST = 200, // RST_STREAM, theirs and those they provoke (CVE-2023-44487, -2025-8671)
    H2_PINGS_PER_S = 10,
    H2_PINGS_BURST = 50,
    H2_SETTINGS_PER_S = 5,
    H2_SETTINGS_BURST = 20,
    H2_PRIORITIES_PER_S = 100,
    H2_PRIORITIES_BURST = 1000, // PRIORITY, PRIORITY_UPDATE: browsers send some for each request
    H2_EMPTIES_PER_S = 50,
    H2_EMPTIES_BURST = 200, // DATA and HEADERS without a byte and without END_STREAM
    H2_UPDATES_PER_S = 5000,
    H2_UPDATES_BURST = 20000, // WINDOW_UPDATE
    H2_UNKNOWNS_PER_S = 50,
    H2_UNKNOWNS_BURST = 200, // frames of unknown types
};

// ---- accounts ----

enum h2_event {
    H2_EVENT_RESET,
    H2_EVENT_PING,
    H2_EVENT_SETTINGS,
    H2_EVENT_PRIORITY,
    H2_EVENT_EMPTY,
    H2_EVENT_UPDATE,
    H2_EVENT_UNKNOWN,
    H2_EVENTS
};

enum {
    H2_UPDATE_BYTES = 512, // of DATA sent entitle the peer to a WINDOW_UPDATE: Go's client says two for 4 KiB
    H2_ENTITLED_BYTES = 16 << 20, // so much of it is remembered
};

struct h2_guard {        // zero it
    uint32_t sent_bytes; // DATA for which no WINDOW_UPDATE has come yet
    bool sent_data;      // since the last PING that was free
    struct {
        uint64_t level, at_us; // of the bucket, in millionths of an event
    } buckets[H2_EVENTS];
};

// DATA was sent to the peer: it may answer with window updates, and measure the path with a PING, as gRPC
// does for each burst (its BDP estimate), without an account.
void h2_guard_sent(struct h2_guard *guard, size_t n);
// One more of these, now. False: too many: GOAWAY ENHANCE_YOUR_CALM.
must_check bool h2_guard_note(struct h2_guard *guard, enum h2_event event, uint64_t now_us);
// The account of a received frame, by its header; H2_EVENTS: none.
enum h2_event h2_event_of(const nghttp2_frame_hd *frame);

// Where in the sequence of frames the bytes of a peer end. Zero it; starts behind the connection preface.
struct h2_frames {
    uint32_t left; // payload bytes of the current frame that are still to come
    uint8_t have;  // bytes of the next frame's header
    uint8_t head[9];
    uint8_t type;
    uint32_t begun;        // frames so far, wrapping around; a header block is one
    uint8_t continuations; // of the open block
    bool in_block;         // a header block is not complete
};

// Follows the next n bytes. False: more than H2_CONTINUATIONS frames in a header block.
must_check bool h2_frames_follow(struct h2_frames *frames, const uint8_t *data, size_t n);
// Whether something is begun that a deadline must bound: a frame's header, a header block, any frame but
// DATA, whose progress is the stream's.
bool h2_frames_partial(const struct h2_frames *frames);

// ---- heads that arrive ----

// What a header block has said so far. Strings are in arena.
struct h2_fields {
    struct arena *arena;
    struct str method, scheme, authority, path, protocol; // pseudo-fields; p == NULL: absent
    unsigned status;
    struct headers headers;
    uint64_t seen, repeated;            // bit i for header id i, as the HTTP/1 parser's
    uint32_t block_bytes, block_fields; // all that was decoded, also past the limits
    uint32_t kept_bytes, kept_fields;   // of these what counts against the limits
    uint32_t max_bytes, max_fields;     // as limits.header_bytes and .headers of HTTP/1; what is past them
                                        // is not kept
    bool is_regular;                    // a field that is no pseudo-field has come
    bool has_underscore;                // in some name
    enum h1_fault fault; // the first: H1_OK, H1_BAD_REQUEST (malformed), H1_HEAD_TOO_LARGE, H1_URI_TOO_LONG
    const char *why;
    char *text, *text_end; // room for more fields, private
};

void h2_fields_init(struct h2_fields *fields, struct arena *arena, uint32_t max_bytes, uint32_t max_fields);
// One field as decoded. Names must be lower-case tokens, values free of controls and of white space around
// them (RFC 9113 8.2.1), pseudo-fields first and once (8.3), connection-specific fields absent, TE only
// "trailers" (8.2.2). False: H2_BLOCK_BYTES or _FIELDS is over: end the connection.
must_check bool h2_field(struct h2_fields *fields, struct str name, struct str value);
// The same for a trailer section, whose pseudo-fields are malformed. Fields that mean something to framing,
// routing or the gateway are dropped, as body_read does (http/body.h). fields->fault tells a bad section.
must_check bool h2_trailer_field(struct h2_fields *fields, struct str name, struct str value);

enum h2_verdict {
    H2_HEAD_GOOD,
    H2_HEAD_MALFORMED, // RFC 9113 8.1.1: stream error PROTOCOL_ERROR
    H2_HEAD_REFUSED,   // well-formed, but refused: answer fields->fault with fields->why, as HTTP/1 does
};

// The request head. Path and host are normalised as in HTTP/1 (uri.h); :authority and Host must agree; cookie
// crumbs are joined (8.2.3). framing: LENGTH with Content-Length, else NONE with end_stream, else CHUNKED; a
// length other than 0 with end_stream is malformed. Extended CONNECT (RFC 8441) becomes METHOD_GET with
// upgrade = :protocol ("websocket" only), FRAMING_NONE, head->extended_connect. Plain CONNECT is refused
// (501). On H2_HEAD_REFUSED *head holds what is understood, for the log: method_name and target, or nothing.
enum h2_verdict h2_request_head(struct h2_fields *fields, bool end_stream, const struct h1_limits *limits,
                                enum h1_underscores underscores, struct request_head *head);
// An upstream's response head; framing as body_read's: NONE when END_STREAM came with it (a length is kept in
// content_length, has_length), LENGTH, else CHUNKED. 101 is malformed (8.6).
enum h2_verdict h2_response_head(struct h2_fields *fields, bool end_stream, enum http_method method,
                                 struct response_head *head);

// ---- heads that leave ----

enum { H2_PSEUDO_FIELDS = 4 };
// How many nghttp2_nv the h2_*_fields functions fill at most for these headers.
size_t h2_fields_max(const struct headers *headers);
// Fill nv (room for h2_fields_max) and return how many. Names are lower-cased into arena where they are not;
// nothing else is copied: submit with NGHTTP2_NV_FLAG_NO_COPY_* set as filled in, and serialise before the
// arena is reset. Fields that are gone, hop-by-hop fields, Host and Content-Length are left out;
// Content-Length is written for FRAMING_LENGTH.
size_t h2_response_fields(const struct response_head *head, enum framing framing, struct arena *arena,
                          nghttp2_nv *nv);
// authority: the Host field's value. scheme: "http" or "https". TE: trailers is added when te_trailers.
size_t h2_request_fields(const struct request_head *head, struct str scheme, struct str target,
                         enum framing framing, bool te_trailers, struct arena *arena, nghttp2_nv *nv);
size_t h2_trailer_fields(const struct headers *trailers, struct arena *arena, nghttp2_nv *nv);

// ---- sessions ----

// Options for either side: no automatic window updates, no closed streams kept, no RFC 7540 priorities, the
// bounds above. The caller frees it (nghttp2_option_del). NULL: memory is out.
nghttp2_option *h2_options(void);
// For nghttp2_session_*_new3: what a session asks for comes from pool, which outlives it.
nghttp2_mem h2_memory(struct block_pool *pool);
// Queues the SETTINGS of a session of ours and opens its connection window. client: no server push; the
// server offers extended CONNECT (RFC 8441). 0 or an nghttp2 error.
must_check int h2_submit_settings(nghttp2_session *session, bool client, uint32_t header_bytes);
