// The room's own: the two listeners, the rows of their tables, who may use the API. How requests come and
// answers go is the serve room's.
#pragma once

#include "admin/admin.h"
#include "serve/serve.h"

enum { ADMIN_KINDS = ADMIN_STATUS + 1 };

struct admin {
    struct loop *loop;
    struct admin_host *host;
    struct rand rand;
    struct server doors[ADMIN_KINDS];
    struct list under_way; // collections
    unsigned collections;
};

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

static inline struct admin *admin_of(const struct serve_client *c)
{
    return c->server->context;
}

static inline struct admin_host *host_of(const struct serve_client *c)
{
    return admin_of(c)->host;
}

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
                 struct serve_problem *problem);

// ---- the handlers ----

void status_livez(struct serve_client *c);
void status_readyz(struct serve_client *c);
void status_healthz(struct serve_client *c);
void status_metrics(struct serve_client *c);
void status_jwks(struct serve_client *c);
void api_config(struct serve_client *c);
void api_routes(struct serve_client *c);
void api_upstreams(struct serve_client *c);
void api_breakers(struct serve_client *c);
void api_breaker(struct serve_client *c);
void api_breaker_force(struct serve_client *c);
void api_breaker_let_go(struct serve_client *c);
void api_limits(struct serve_client *c);
void api_bucket(struct serve_client *c);
void api_bucket_reset(struct serve_client *c);
void api_idempotency(struct serve_client *c);
void api_stale(struct serve_client *c);
void api_stale_drop(struct serve_client *c);
void api_exchanges(struct serve_client *c);
void api_info(struct serve_client *c);
void api_reload(struct serve_client *c);
void api_drain(struct serve_client *c);
void api_explain(struct serve_client *c);
void api_revocations(struct serve_client *c);
void api_revoke(struct serve_client *c);

// ---- what bodies say: NULL, or what is wrong with them. Pure. ----

// {"force": "open"} or {"force": "closed"}.
const char *breaker_force_read(struct str body, struct arena *arena, enum breaker_force *how);
// A token, or all tokens of a subject (docs/ADMIN.md). Texts of *entry are in body or in arena.
const char *revocation_read(struct str body, struct arena *arena, int64_t now_s, struct deny_entry *entry);

struct str admin_state_name(enum admin_state state);
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
// Of the configuration in force; NULL: none has this name.
const struct upstream *upstream_named(const struct gateway *gateway, struct str name);
// One endpoint's state: {address, up, …}. active: requests in flight, -1: not known.
void print_endpoint(struct json *json, const struct upstream_target *target, int64_t active);
