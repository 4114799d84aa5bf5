// The compiled table. route_table.c writes it, route_match.c reads it. Private to this room.
//
//   host ──hash──▶ group ──▶ literal trie (exact and prefix)  ┐
//                    │       template trie                    ├──▶ candidates of that path, best first
//                    │       expressions, in file order       ┘      methods, header and query conditions ──▶
//                    route └─next──▶ group of the longest wildcard that covers this host … ──▶ group of any
//                    host
#pragma once

#include "route/route.h"
#include "route/route_regex.h"
#include "route/route_trie.h"

// A template is walked by recursion, a frame a segment.
enum { TEMPLATE_SEGMENTS = 64 };

struct value_condition {
    enum value_match_kind kind;
    enum header_id id; // of a header
    struct str name, text;
    const struct route_regex *regex; // VALUE_REGEX
};

struct route_conditions {
    const struct value_condition *v; // of headers, then of the query
    uint32_t header_count, query_count;
    const struct str *methods; // those that enum http_method does not know
    uint32_t method_count;
};

// One route at one path of one host. Candidates for the same path are neighbours, best first, and are tried
// in turn.
struct candidate {
    const struct route *route;
    const struct route_conditions *conditions; // NULL: none, and no methods of other names
    uint32_t
        methods; // bit n: enum http_method n. METHOD_OTHER's bit: see conditions, any when there are no names
    uint32_t next; // candidate to try next, 0: none
};

struct regex_use { // of an expression in a group
    const struct route_regex *regex;
    uint32_t candidates;
    uint32_t group;
    uint32_t next;        // of the group, in file order of first use, 0: none
    uint32_t first_route; // that order
};

struct host_group {
    struct str host; // "api.example.com", ".example.com" for a wildcard, "" for any
    bool wildcard;
    uint32_t literals; // roots in the trie, 0: none
    uint32_t templates;
    uint32_t regexes, last_regex; // regex_use, 0: none
    uint32_t next;                // the less specific group; 0: any host
};

struct route_table {
    struct trie trie;
    const struct candidate *candidates; // 0 stands for none
    const struct regex_use *regex_uses; // 0 stands for none
    const struct host_group *groups;    // 0: any host
    struct route_index hosts;           // group by route_host_hash
    uint32_t wildcard_dots; // of the wildcard with most labels: more labels of a host need not be looked at
    struct route *routes;   // in file order
    uint32_t *order;        // in matching order
    const struct str **capture_names; // of each route with a template, by file order
    uint32_t route_count;
    struct route_regex *regexes;
};

// A host without its wildcard mark, hashed.
static inline uint32_t route_host_hash(struct str host, bool wildcard)
{
    uint64_t hash = wildcard;
    for (; host.n >= 8; host = str_skip(host, 8)) {
        uint64_t word;
        memcpy(&word, host.p, 8);
        hash = trie_mix(hash, word);
    }
    return (uint32_t)trie_mix(hash, trie_load_short(host.p, host.n));
}

static inline uint32_t route_group_of(const struct route_table *table, struct str host, bool wildcard)
{
    uint32_t hash = route_host_hash(host, wildcard), id;
    for (uint32_t at = 0; (id = route_index_next(&table->hosts, hash, &at));)
        if (table->groups[id].wildcard == wildcard && str_eq(table->groups[id].host, host))
            return id;
    return 0;
}

// The group of the longest wildcard that covers host, at least one label shorter; 0: none.
uint32_t route_wildcard_of(const struct route_table *table, struct str host);

// The path of a prefix without its closing slash: "/orders/" is "/orders", "/" is "".
struct str route_prefix_text(const struct path_match *path);
// "{name}" as a whole segment.
bool route_is_variable(struct str segment);
// Takes the next segment of *rest ("/a/b" or "a/b"). False at the end.
bool route_next_segment(struct str *rest, struct str *segment);

// route_conditions.c
// Where expressions come from: one code for each text.
struct regex_source {
    struct route_regex *(*compile)(struct regex_source *source, struct str text, struct err *err);
};
// Fills in methods and conditions.
must_check bool route_conditions_compile(const struct match_settings *match, struct arena *arena,
                                         struct regex_source *source, struct candidate *candidate,
                                         struct err *err);
// Headers and query. *too_hard is set when an expression ran into its limit: then nobody knows.
bool route_conditions_fit(const struct route_conditions *conditions, const struct request_head *request,
                          struct route_scratch *scratch, bool *too_hard);

// route_guards.c
// Hangs the policies that a route's settings ask for on the route, in the order they run.
void route_guards_compile(struct route *route, struct arena *arena);

// route_order.c
// What the matching order of whole routes is told by.
struct route_order {
    const struct route *route;
    struct str host; // of the most specific of its hosts, as in struct host_group
    bool wildcard;
    uint32_t regex_order; // among the expressions of that host
    uint32_t rank;        // among routes of the same path
};
// Writes the indexes of the routes, the first to be tried first. keys: in file order.
void route_order(const struct route_order *keys, uint32_t count, uint32_t *order);
