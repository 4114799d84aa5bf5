// The admin and status listeners, on the control thread's loop, so that they answer whatever the workers do.
// Reads through public headers; changes only by asking the host for a reload or a drain.
//
//   status: GET /livez /readyz /healthz /metrics /jwks.json
//   admin:  GET /api/v1/config|routes|upstreams|limits|idempotency|stale|exchanges|info
//          POST /api/v1/reload|drain|explain
//          GET and POST /api/v1/revocations   GET, PUT and DELETE /api/v1/breakers   DELETE /api/v1/stale
//
// What lives in workers (metrics, exchanges) is asked for by a task posted to each worker's loop; the answer
// waits for all of them, at most ADMIN_COLLECT_MS, then goes out with what has come.
#pragma once

#include "auth/deny.h"
#include "front/front.h"

enum admin_state { ADMIN_STARTING, ADMIN_READY, ADMIN_DRAINING };

enum admin_revoked {
    ADMIN_REVOKED,
    ADMIN_REVOKED_HERE, // but other gateways cannot be told
    ADMIN_REVOKED_PAST,
    ADMIN_REVOKED_FULL,
    ADMIN_REVOKED_BAD,
};

// What the admin room asks of the program; implemented by the process (cli/process.c). Control thread only.
struct admin_host {
    struct worker **workers;
    struct front **fronts;
    unsigned worker_count;
    struct gateway *gateway; // in force
    enum admin_state state;
    struct metrics_process process;
    struct metrics *own; // what the control thread counts by itself; NULL: nothing
    uint64_t started_us; // monotonic
    unsigned listening;  // listeners accepting
    // Loads the file again; false and the mistakes in *report (its arena is the caller's) when it is bad.
    bool (*reload)(struct admin_host *host, struct config_report *report);
    void (*drain)(struct admin_host *host);
    // From now on these tokens are refused, here and by all gateways that share a Redis.
    enum admin_revoked (*revoke)(struct admin_host *host, const struct deny_entry *entry);
    struct str (*redis_state)(struct admin_host *host); // up, down or off; static
    struct limit_gateways *gateways;                    // NULL: no limit is in Redis
};

struct admin;

enum admin_kind { ADMIN_API, ADMIN_STATUS };

enum {
    ADMIN_COLLECT_MS = 1000,
    ADMIN_CONNECTIONS = 64 /* at once; more are closed */,
    ADMIN_BODY_BYTES = 65536
};

struct admin *admin_new(struct loop *loop, struct admin_host *host);
// Accepts on fd (the caller's to close); replaces an earlier fd of that kind.
must_check bool admin_listen(struct admin *admin, enum admin_kind kind, int fd);
void admin_free(struct admin *admin);

// One route as the admin API and `sallyport routes --json` show it: its pattern, policies and settings.
void admin_print_route(struct json *json, const struct route *route);

// `sallyport explain` and POST /api/v1/explain: what would happen to this request, as JSON. url:
// "https://host/path". False and *err when the request makes no sense. Pure: reads the snapshot only.
bool explain_request(const struct gateway *gateway, struct str method, struct str url,
                     const struct str_map *headers, struct json *out, struct err *err);
