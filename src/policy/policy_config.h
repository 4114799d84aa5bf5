// The settings of the policies that issue a route's guards, and their field tables.
#pragma once

#include "config/config.h"
#include "config/header.h"
#include "net/addr.h"

struct header_edit {
    struct str_map set, add;
    struct str_list remove;
};

struct header_rules {
    struct header_edit request, response;
};

struct fault_settings {
    uint64_t delay_us;
    double delay_ratio;
    int64_t status; // 0: none
    double status_ratio;
};

struct ip_rules {
    struct cidr_set allow, deny; // deny wins; an empty allow allows all others
};

struct idempotency_settings {
    bool required;
    uint64_t ttl_us;
    uint64_t body_bytes, response_bytes;
    int store, on_redis_down; // enum replay_where, enum replay_down
};

struct cors_settings {                        // of the Fetch standard's CORS protocol
    struct str_list origins;                  // "https://app.example.com", "https://*.example.com", "*"
    struct str_list methods, headers, expose; // expose (+): response headers that scripts may read
    bool credentials;
    uint64_t max_age_us;
};

extern const struct config_object header_rules_object;
extern const struct config_object cors_object;
extern const struct config_object fault_object;
extern const struct config_object ip_rules_object;
extern const struct config_object idempotency_object;

// A CUSTOM field for a list of networks in a struct cidr_set: listeners use it too.
void config_decode_cidrs(struct config_decoder *decoder, const struct config_node *node, void *target);
struct config_node *config_encode_cidrs(struct arena *arena, const void *target);
#define CONFIG_CIDRS                                                                     \
    .type = CONFIG_CUSTOM, .decode = config_decode_cidrs, .encode = config_encode_cidrs, \
    .type_name = "a list of networks", .schema = "{ type: array, items: { type: string, minLength: 2 } }"
