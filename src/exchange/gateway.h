// The snapshot: everything that a configuration file means, compiled, read-only and reference-counted.
// Workers pick up a new one between turns; each exchange holds the one it began with.
#pragma once

#include "auth/auth.h"
#include "base/map.h"
#include "exchange/gateway_files.h"
#include "limit/limit.h"
#include "observe/access_log.h"
#include "route/route.h"
#include "upstream/upstream.h"

#include <stdatomic.h>

// A listener's settings, ready for use on the path.
struct gateway_listener {
    const struct listener_settings *settings;
    struct str name;
    uint32_t metric_id;
    struct addr addr;
    uint32_t port;                           // 0: unix
    struct str port_text;                    // for X-Forwarded-Port
    struct quota *connections;               // of limits, over all workers
    struct tls_server **tls;                 // by worker slot; NULL: plain, or made for no worker
    const struct gateway_listener *redirect; // of redirect_to; NULL: routes
};

struct gateway {
    atomic_uint references;
    struct arena arena; // all of it
    struct gateway_settings settings;
    struct gateway_listener *listeners;
    uint32_t listener_count;
    unsigned workers; // that it was made for; 0: none
    struct gateway_files files;
    struct upstream **upstreams;
    uint32_t upstream_count;     // all of them
    uint32_t own_upstream_count; // the configured ones, which come first; the rest are auth's
    bool keeps_copies;           // one of them has stale_us
    struct route_table *routes;
    struct auth auth; // who may call, and what upstreams are told of it
    struct limits limits;
    struct addr redis_addrs[REDIS_SEEDS]; // of redis.url, or of redis.nodes
    unsigned redis_addr_count;
    bool replays_in_redis; // a route keeps its answers there
    const struct access_format *log_format;
    enum header_id request_id_header; // of telemetry.headers.request_id; HEADER_OTHER: looked up by name
    uint64_t generation;
    struct str file;
    struct map upstream_names;
    struct gateway *next_dead; // gateway_reap's
};

// Compiles text. use NULL: it is only looked at, and no file of TLS is read. NULL when it has mistakes (in
// *report, allocated from report->arena). One reference is the caller's.
struct gateway *gateway_new(struct str file, struct str text, const struct gateway_use *use,
                            struct config_report *report);
struct gateway *gateway_ref(struct gateway *gateway);
// Any thread may drop its reference; the last one hands it to gateway_reap's list, since endpoint references
// are the control thread's to drop.
void gateway_unref(struct gateway *gateway);
// Control thread: frees what nobody holds any more.
void gateway_reap(void);
// Where the same request is answered by a listener with TLS: for redirect_to.
struct str gateway_tls_location(const struct gateway_listener *listener, const struct request_head *request,
                                struct arena *arena);
const struct gateway_listener *gateway_listener_named(const struct gateway *gateway, struct str name);
