// The compiled routing table: a pure match of host, path, method, headers and query to a route.
//
// Precedence (Gateway API, HTTPRouteRule): exact host, longer wildcard host, any host; then exact path,
// template (compared from the left, a literal segment before a variable one), regex (file order of the
// expression's first use for that host), longer prefix; then a method match over none, more header matches,
// more query matches, file order. A less specific route is looked at when a more specific one does not fit.
//
//   "*.example.com" covers a.example.com and a.b.example.com, not example.com; a dot at a host's end does not
//   count a prefix is whole segments: /orders and /orders/ both match /orders, /orders/ and /orders/1, not
//   /ordersx {name} matches one segment that is not empty; a regex matches the whole path or value, never a
//   part a path that does not begin with "/" (OPTIONS *, CONNECT) has no route methods are exact: HEAD needs
//   its own mention of a header any line may match; of a query parameter the first one counts, decoded ("+"
//   is a space) an expression that runs into its limit (route_regex.h) ends the search with no route: an
//   attacker must not be able
//     to reach the less specific route behind it
//
// Cost does not grow with the number of routes: hosts are hashed, paths are tries of segments whose children
// are hashed; only regex routes of the same host, and routes of the very same path, are tried one by one.
#pragma once

#include "http/message.h"
#include "policy/policy.h"
#include "route/route_config.h"

struct upstream;

enum route_action { ROUTE_FORWARD, ROUTE_SPLIT, ROUTE_REDIRECT, ROUTE_RESPOND };

struct route_split {
    struct upstream *upstream;
    uint32_t weight;
};

struct route {
    const struct route_settings *settings;
    struct str name;
    uint32_t metric_id;
    enum route_action action;
    struct upstream *upstream;       // FORWARD
    const struct route_split *split; // SPLIT
    uint32_t split_count, split_total;
    const struct policy_use *policies;
    uint32_t policy_count;
    bool has_ends;                        // one of them has on_end
    const struct retry_settings *retries; // the route's own, or NULL: the upstream's
};

struct route_table;

enum { ROUTE_CAPTURES = 16 };

struct route_match {
    const struct route *route; // NULL: none
    // Why none: true when a route fits but for the method; allowed lists the methods it has, for Allow.
    bool method_mismatch;
    struct str allow;                         // in the arena: "GET, POST"
    struct str_pair captures[ROUTE_CAPTURES]; // of the template; [0, capture_count) are filled in
    uint32_t capture_count;
};

// Resolves an upstream's name for route_table_new.
struct route_names {
    struct upstream *(*upstream_of)(struct route_names *names, struct str name);
};

// routes: struct route_settings. Everything lives in arena (regex code too: freed by route_table_fini). NULL
// and *err when a regex does not compile or a template is too long; names are resolved by names->upstream_of,
// which never fails for settings that were checked.
struct route_table *route_table_new(const struct config_list *routes, struct arena *arena,
                                    struct route_names *names, struct err *err);
void route_table_fini(struct route_table *table);

// A worker's scratch memory for regex matching. One thread.
struct route_scratch;
struct route_scratch *route_scratch_new(void);
void route_scratch_free(struct route_scratch *scratch);

// request: method, host, path, query, headers are read. arena for allow.
void route_find(const struct route_table *table, const struct request_head *request,
                struct route_scratch *scratch, struct arena *arena, struct route_match *match);

// Every route in matching order (`sallyport routes`, GET /api/v1/routes).
uint32_t route_table_count(const struct route_table *table);
const struct route *route_table_at(const struct route_table *table, uint32_t index);
// "api.example.com /orders/* GET,POST [header x=1]" for people.
void route_print(const struct route *route, struct buf *out);
// "auth corp or keys, optional, scopes orders.read and orders.write, roles gold or silver" for people;
// nothing when everybody may call.
void route_print_auth(const struct route *route, struct buf *out);

// What the request becomes for the upstream: rewrite.prefix / rewrite.path applied to the normalised path, as
// Gateway API's ReplacePrefixMatch and ReplaceFullPath do. A rewritten path is normalised again; false when
// it is then refused.
bool route_rewrite_path(const struct route_match *match, const struct request_head *request,
                        struct arena *arena, struct str *path);
// The Location of a redirect, its parts from the request: {path}, {query} (a "?" before an empty one is
// dropped), {host}, {scheme} and the template's names. Never a control or a space; a path of the request
// never becomes an authority.
struct str route_redirect_location(const struct route_match *match, const struct request_head *request,
                                   struct str scheme, struct arena *arena);
// Draws one target of a split by weight; the upstream of any other forwarding route.
struct upstream *route_draw(const struct route *route, struct rand *rand);
