// The settings of rate limits (sallyport.yaml: rate_limits; a route's rate_limits) and their field table.
#pragma once

#include "config/config.h"
#include "limit/window.h"

enum {
    LIMIT_KEY_PARTS = 4,
    LIMITS_PER_ROUTE = 8,
    LIMIT_COST_MAX = 1000000,
    LIMIT_IN_FLIGHT_MAX = 1000000,
};

// Where a key's part, or what a tier is chosen by, comes from.
enum limit_source {
    LIMIT_NOTHING,
    LIMIT_IDENTITY,  // key: the consumer, else the subject, else the client's address
    LIMIT_CLIENT_IP, // key
    LIMIT_HEADER,    // header.NAME: of the request
    LIMIT_CLAIM,     // jwt.CLAIM: a dotted path
    LIMIT_ROUTE,     // key: the route's name
    LIMIT_GLOBAL,    // key: the same for all
    LIMIT_ROLES,     // tier_by: identity.roles
    LIMIT_CONSUMER,  // tier_by: identity.consumer
};

struct limit_from {
    enum limit_source source;
    struct str name; // LIMIT_HEADER, LIMIT_CLAIM
};

struct limit_key {
    struct limit_from v[LIMIT_KEY_PARTS];
    uint32_t count;
};

struct limit_rate { // "100/s"
    uint64_t tokens, period_us;
};

struct limit_tier_settings {
    struct str name;        // of a tier; n == 0: default
    struct limit_rate rate; // period_us == 0: no bucket
    int64_t burst;          // tokens; 0: what comes in a second, at least one
    struct str_list quotas;
    int64_t in_flight; // requests at once; 0: no bound
};

struct limit_cost {
    int64_t tokens;
    struct str header; // of the upstream's response, which says the rest of the cost; n == 0: tokens it is
};

enum limit_store { LIMIT_STORE_AUTO, LIMIT_STORE_REDIS, LIMIT_STORE_LOCAL };
enum limit_sync { LIMIT_SYNC_EXACT, LIMIT_SYNC_LEASED };
enum limit_redis_down { LIMIT_DOWN_LOCAL, LIMIT_DOWN_ALLOW, LIMIT_DOWN_DENY };

struct limit_settings {
    CONFIG_POSITION_FIELDS;
    struct str name;
    struct limit_key key;
    struct limit_from tier_by;            // LIMIT_NOTHING: no tiers
    struct config_list tiers;             // of limit_tier_settings, the first that matches is taken
    struct limit_tier_settings otherwise; // default
    int store, sync, on_redis_down;       // enum limit_store, limit_sync, limit_redis_down
    struct limit_cost cost;
    struct str time_zone;
    const struct time_zone *zone; // of quotas; NULL: UTC. Filled in by check_rules.
    bool before_auth;             // (+) decided before it is known who calls
    bool shadow;
    int64_t ipv6_prefix; // bits
};

extern const struct config_object rate_limit_object;

// A route's limits are asked in two stages, each for all of its limits at once.
enum limit_stage { LIMIT_BEFORE_AUTH, LIMIT_AFTER_AUTH, LIMIT_STAGES };

struct route_limit_stage {
    enum limit_stage stage;
    const uint32_t *indices; // of its limits in the root's rate_limits, in the order of the route
    uint32_t count;
    struct str route; // its name
};

// What a route's rate_limits is compiled from.
struct route_limit_settings {
    struct str_list names;
    struct route_limit_stage stages[LIMIT_STAGES]; // filled in by the rules between sections
};

// Rules between sections: fills in what the names mean. node: the list of a route, or NULL; limits: of the
// root's rate_limits; route: its name.
void config_check_route_limits(struct config_decoder *decoder, const struct config_node *node,
                               const struct config_list *limits, struct str route,
                               struct route_limit_settings *settings);
// Whether there is a Redis for those that want it. node: rate_limits, or NULL; limits: what became of it.
void config_check_limit_stores(struct config_decoder *decoder, const struct config_node *node,
                               const struct config_list *limits, bool has_redis);
// "header.X-Tenant": what a key or tier_by says of it.
struct str limit_from_print(const struct limit_from *from, struct arena *arena);
// "100/s".
struct str limit_rate_print(const struct limit_rate *rate, struct arena *arena);
// "1000000/d", also /m, /h and /month. False: it is not that, or 0 or more than WINDOW_TOKENS_MAX.
bool limit_quota_parse(struct str text, uint64_t *tokens, enum window_unit *unit);
// The burst in tokens.
uint64_t limit_burst(const struct limit_tier_settings *tier);
