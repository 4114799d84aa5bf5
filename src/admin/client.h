// The room's own: connections, requests, answers.
//
//   listener ─▶ client: read head ─▶ guard ─▶ row of the table ─▶ read body ─▶ handler ─▶ reply, at once or
//   when what the workers were asked for has come (collect.h) ─▶ send ─▶ next request, or close
#pragma once

#include "admin/admin.h"
#include "http/h1_parse.h"
#include "http/h1_write.h"
#include "net/listener.h"

enum { ADMIN_KINDS = ADMIN_STATUS + 1 };

// Bounds of what a client of these listeners may do.
enum {
    ADMIN_HEAD_BYTES = 16 * 1024, // a browser's cookies fit
    ADMIN_URI_BYTES = 2048,
    ADMIN_HEADERS = 100,
    ADMIN_REQUEST_MS = 10000, // from the first byte to the last
    ADMIN_IDLE_MS = 60000,    // between requests
    ADMIN_WRITE_MS = 10000,   // without a byte taken
    ADMIN_LINGER_MS = 2000,   // for the rest of a request that was answered before its end
};

struct collection;

struct admin_door {
    struct listener listener;
    struct admin *admin;
    enum admin_kind kind;
    bool listening;
    struct list clients; // the one that was served longest ago first
    unsigned count;
};

struct admin {
    struct loop *loop;
    struct admin_host *host;
    struct rand rand;
    struct admin_door doors[ADMIN_KINDS];
    struct list under_way; // collections
    unsigned collections;
};

enum admin_step {
    ADMIN_IDLE, // no byte of a request yet
    ADMIN_HEAD,
    ADMIN_READ_BODY,
    ADMIN_ANSWERING, // the handler waits for workers
    ADMIN_SENDING,
    ADMIN_LINGER, // answered before the request was read: the rest is thrown away, then it is closed
};

struct admin_client {
    struct conn conn;
    struct admin *admin;
    struct admin_door *door;
    struct list node;
    struct addr peer;
    struct loop_timer timer;
    struct buf in;
    bool eof;
    bool running; // client_run is on the stack
    enum admin_step step;

    // One request; its memory is the heap's, since a client may outlive the room by a turn.
    struct arena arena;
    struct h1_parse parse;
    struct request_head request;
    struct body_reader reader;
    struct buf body; // of the request, on the heap
    const struct admin_row *row;
    struct collection *collection;

    char id[32]; // of the request
    bool keep;
    struct buf out; // the answer: head and body, on the heap
};

// An endpoint: one row.
struct admin_row {
    enum admin_kind kind;
    enum http_method method; // GET serves HEAD too
    struct str path;
    void (*handle)(struct admin_client *c); // replies, now or later
};

extern const struct admin_row admin_rows[];
extern const size_t admin_row_count;

// ---- client.c ----

void admin_accept(struct admin_door *door, int fd, const struct addr *peer);
void admin_client_close(struct admin_client *c);
// The answer is in c->out: send it.
void admin_client_send(struct admin_client *c);

// ---- reply.c ----

struct admin_problem {
    unsigned status;
    struct str code, detail;
    struct str allow;        // 405
    struct str authenticate; // 401
};

// Each is the last thing a handler does for its request: c may be gone afterwards. body is copied.
void admin_reply(struct admin_client *c, unsigned status, struct str type, struct str body);
// body is a JSON text; freed.
void admin_reply_json(struct admin_client *c, unsigned status, struct buf *body);
void admin_reply_problem(struct admin_client *c, const struct admin_problem *problem);
// For problems with further members: writes the standard ones, the object stays open.
void admin_begin_problem(const struct admin_client *c, struct json *json,
                         const struct admin_problem *problem);
void admin_reply_problem_json(struct admin_client *c, unsigned status, struct buf *body);

// ---- guard.c ----

// Who may use the admin API (THREATS.md, "admin API"). Pure.
//
//   with a token:    Authorization: Bearer TOKEN, from anywhere; browsers do not send that by themselves
//   without a token: loopback peers only; and since a browser on this machine is one, the Host must name this
//   machine
//                    (against DNS rebinding) and no other site may be the Origin (against forged requests)
//
// True when allowed; else *problem says why not.
bool admin_guard(struct str token, const struct addr *peer, const struct request_head *request,
                 struct admin_problem *problem);

// ---- the handlers ----

void status_livez(struct admin_client *c);
void status_readyz(struct admin_client *c);
void status_healthz(struct admin_client *c);
void status_metrics(struct admin_client *c);
void api_config(struct admin_client *c);
void api_routes(struct admin_client *c);
void api_upstreams(struct admin_client *c);
void api_limits(struct admin_client *c);
void api_exchanges(struct admin_client *c);
void api_info(struct admin_client *c);
void api_reload(struct admin_client *c);
void api_drain(struct admin_client *c);
void api_explain(struct admin_client *c);

struct str admin_state_name(enum admin_state state);
// OpenMetrics, or the older text: what the Accept field prefers.
bool accepts_openmetrics(const struct headers *headers);
// explain_request, which also tells the upstreams that the request may go to: at most EXPLAIN_UPSTREAMS of
// them.
enum { EXPLAIN_UPSTREAMS = 16 };
struct explained {
    const struct upstream *upstreams[EXPLAIN_UPSTREAMS];
    unsigned count;
};
// Writes the members of explain_request's object, without its braces.
bool explain_members(const struct gateway *gateway, struct str method, struct str url,
                     const struct str_map *headers, struct json *out, struct explained *explained,
                     struct err *err);
// One endpoint's state: {address, up, …}. active: requests in flight, -1: not known.
void print_endpoint(struct json *json, const struct upstream_target *target, int64_t active);
