// A small HTTP/1.1 server for a program's own endpoints: the gateway's admin and status listeners, the Auth
// Service. One listener, one table of endpoints; answers are made in memory. Not for traffic: that is front/.
//
//   listener ─▶ client: read head ─▶ admit ─▶ row of the table ─▶ read body ─▶ handler ─▶ reply, at once or
//   later (serve_wait) ─▶ send ─▶ next request, or close
#pragma once

#include "base/arena.h"
#include "base/json.h"
#include "base/rand.h"
#include "http/body.h"
#include "http/h1_parse.h"
#include "net/conn.h"
#include "net/listener.h"

// Bounds of what one client may do, and of how many there are.
struct serve_limits {
    unsigned connections; // at once: the one that is idle longest goes first, then newcomers are closed
    struct h1_limits head;
    uint32_t body_bytes;
    uint32_t request_ms; // from the first byte to the last
    uint32_t idle_ms;    // between requests
    uint32_t write_ms;   // without a byte taken
    uint32_t linger_ms;  // for the rest of a request that was answered before its end
};

struct serve_client;

struct serve_problem {
    unsigned status;
    struct str code, detail;
    struct str allow;        // 405
    struct str authenticate; // 401
    struct str cache;        // Cache-Control; n == 0: no-store
};

// An endpoint: one row.
struct serve_row {
    enum http_method method; // GET serves HEAD too; METHOD_OTHER: any method
    struct str path;
    void (*handle)(struct serve_client *c); // replies, now or later
    bool below;                             // path ends with a slash: what lies below it, not itself
};
#define SERVE_PATH(literal)          \
    {                                \
        literal, sizeof(literal) - 1 \
    }

// What a server is made of; read-only while it runs.
struct serve_settings {
    struct serve_limits limits;
    const struct serve_row *rows;
    size_t row_count;
    struct str no_row; // the detail of a 404
    // Whether a request is let in, before its row is looked for; false: *problem says why not. NULL: all are.
    bool (*admit)(struct serve_client *c, struct serve_problem *problem);
    // Each answer, when it is on its way: for counters and logs. NULL: nobody asks.
    void (*on_answer)(struct serve_client *c, unsigned status, size_t body_bytes);
};

struct server {
    struct listener listener;
    struct loop *loop;
    const struct serve_settings *settings;
    struct rand *rand; // for request ids
    void *context;     // the owner's
    bool listening, draining;
    struct list clients; // the one that was served longest ago first
    unsigned count;
};

enum serve_step {
    SERVE_IDLE, // no byte of a request yet
    SERVE_HEAD,
    SERVE_READ_BODY,
    SERVE_ANSWERING, // the handler waits for something
    SERVE_SENDING,
    SERVE_LINGER, // answered before the request was read: the rest is thrown away, then it is closed
};

enum { SERVE_ID_BYTES = 32 };

struct serve_client {
    struct conn conn;
    struct server *server;
    struct list node;
    struct addr peer;
    struct loop_timer timer;
    struct buf in;
    bool eof;
    bool running; // the client's loop is on the stack
    enum serve_step step;

    // One request; its memory is the heap's, since a client may outlive its server by a turn.
    struct arena arena;
    struct h1_parse parse;
    struct request_head request;
    struct body_reader reader;
    struct buf body; // of the request
    const struct serve_row *row;
    uint64_t began_us;            // monotonic
    struct str consumer, subject; // who asks, in arena, once the handler knows it: for on_answer
    void *pending;                // what the handler waits for
    void (*on_gone)(void *pending);

    char id[SERVE_ID_BYTES]; // of the request
    bool keep;
    struct buf out; // the answer: head and body
};

// ---- server.c ----

// The server is the owner's memory; settings and rand must outlive it.
void serve_init(struct server *server, struct loop *loop, const struct serve_settings *settings,
                struct rand *rand, void *context);
// Accepts on fd (the caller's to close); replaces an earlier one.
must_check bool serve_listen(struct server *server, int fd);
// Accepts no more; idle clients are closed, the others after their answer.
void serve_drain(struct server *server);
// Stops listening and closes every client.
void serve_fini(struct server *server);

// ---- for handlers ----

static inline struct str serve_id(const struct serve_client *c)
{
    return (struct str){c->id, sizeof c->id};
}

static inline struct str serve_body(const struct serve_client *c)
{
    return c->body.base ? buf_str(&c->body) : STR_NULL;
}

// The answer comes later; on_gone(pending) is called when the client goes first, and then nothing may be
// replied. serve_resume: pending has come, c is alive; reply next.
void serve_wait(struct serve_client *c, void *pending, void (*on_gone)(void *pending));
void serve_resume(struct serve_client *c);

// Each is the last thing a handler does for its request: c may be gone afterwards. body is copied.
void serve_reply(struct serve_client *c, unsigned status, struct str type, struct str body);
// body is a JSON text; freed.
void serve_reply_json(struct serve_client *c, unsigned status, struct buf *body);
// application/problem+json (RFC 9457).
void serve_reply_problem(struct serve_client *c, const struct serve_problem *problem);
// For problems with further members: writes the standard ones, the object stays open.
void serve_begin_problem(const struct serve_client *c, struct json *json,
                         const struct serve_problem *problem);
void serve_reply_problem_json(struct serve_client *c, unsigned status, struct buf *body);

struct serve_field {
    struct str name, value;
};
// The whole of it. Without a Cache-Control among the fields, no-store is sent; without a Retry-After, a 503
// says 1.
struct serve_answer {
    unsigned status;
    struct str type, body; // type.n == 0: no Content-Type
    const struct serve_field *fields;
    unsigned field_count;
};
void serve_reply_with(struct serve_client *c, const struct serve_answer *answer);

// ---- negotiate.c ----

// OpenMetrics, or the older text: what the Accept field prefers.
bool serve_accepts_openmetrics(const struct headers *headers);
// The Content-Type of either.
struct str serve_metrics_type(bool openmetrics);

// ---- the room's own ----

void serve_accept(struct server *server, int fd, const struct addr *peer);
void serve_client_close(struct serve_client *c);
// The answer is in c->out: send it.
void serve_client_send(struct serve_client *c);
