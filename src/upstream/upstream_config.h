// The settings of one upstream (sallyport.yaml, upstreams.NAME) and their field table.
#pragma once

#include "config/config.h"
#include "net/addr.h"
#include "upstream/breaker.h"

struct target_settings {
    CONFIG_POSITION_FIELDS;
    struct str
        address;    // host:port, [v6]:port or unix:/path; a host name is looked up when the file is loaded
    int64_t weight; // 1 and up; 0 takes no new requests
};

enum balance_policy {
    BALANCE_ROUND_ROBIN,
    BALANCE_LEAST_REQUEST,
    BALANCE_RANDOM,
    BALANCE_CONSISTENT_HASH,
    BALANCE_EWMA,
};

enum hash_source { HASH_CLIENT_IP, HASH_HEADER, HASH_COOKIE, HASH_IDENTITY, HASH_PATH };

struct hash_settings {
    enum hash_source source;
    struct str name; // of the header or cookie
};

struct status_range {
    unsigned from, to; // inclusive
};

struct status_set {
    struct status_range *v;
    uint32_t count;
};

struct health_settings {
    struct str path; // n == 0: not by path
    bool has_grpc;   // by grpc.health.v1.Health/Check; with neither there are no active checks
    struct str grpc; // the service it asks for; n == 0: the server as a whole
    uint64_t interval_us, timeout_us;
    int64_t healthy, unhealthy; // successes or failures in a row
    struct status_set statuses;
};

enum retry_on { // bits
    RETRY_CONNECT_FAILURE = 1,
    RETRY_REFUSED_STREAM = 2,
    RETRY_RESET_BEFORE_HEADERS = 4,
    RETRY_RESPONSE_TIMEOUT = 8,
};

struct retry_settings {
    int64_t attempts; // further tries, besides the first
    unsigned retry_on;
    struct status_set statuses;
    double budget;
    uint64_t backoff_us;
    uint64_t body_bytes;
};

struct success_rate_settings {
    uint64_t interval_us;
    int64_t min_requests, min_endpoints;
    double deviations; // 0: not compared
    double min_gap;
};

struct outlier_settings {
    int64_t consecutive_failures, connect_failures; // in a row; 0: not a reason
    uint64_t ejection_us, max_ejection_us;
    double max_ejected;  // share of the endpoints; 0: none is ever ejected
    bool check_readmits; // a good active check lets an endpoint back in
    struct success_rate_settings success_rate;
};

enum upstream_protocol { UPSTREAM_HTTP1, UPSTREAM_H2 };

struct respond_settings { // an answer of the gateway's own
    int64_t status;
    struct str body;
    struct str_map headers;
};

enum breaker_scope { BREAKER_OF_UPSTREAM, BREAKER_OF_ENDPOINT };

struct breaker_fallback { // what stands in for an answer while it is open: what there is of these, in this
                          // order
    uint64_t stale_us;    // how long a copy of an answer is good; 0: none is kept
    struct str upstream;  // n == 0: none
    struct respond_settings respond;
    bool has_respond; // follows from the rest
};

struct breaker_settings {
    bool enabled;
    struct breaker_rules rules; // judges_slow and probe_us follow from the rest
    struct status_set failure_statuses;
    uint64_t slow_call_us; // 0: none is slow
    int scope;             // enum breaker_scope
    bool has_fallback;
    struct breaker_fallback fallback;
};

struct upstream_tls_settings {
    CONFIG_POSITION_FIELDS;
    struct str ca;          // a path, or "system"
    struct str server_name; // n == 0: the target's host
    bool verify;
    struct str cert, key; // n == 0: none
};

struct hedge_settings {
    uint64_t after_us; // 0: none
};

struct upstream_settings {
    CONFIG_POSITION_FIELDS;
    struct str name;
    struct config_list targets; // of target_settings
    int protocol;               // enum upstream_protocol
    bool has_tls;
    struct upstream_tls_settings tls;
    int load_balancer; // enum balance_policy
    struct hash_settings hash_on;
    struct health_settings health_check;
    struct outlier_settings outlier;
    double panic_threshold;
    uint64_t slow_start_us;
    struct {
        int64_t connections, requests, pending;
    } limits;
    bool adaptive_concurrency;
    struct {
        uint64_t connect_us, response_us,
            idle_us; // response: from the request's end to the response head; between body bytes
    } timeouts;
    struct retry_settings retries;
    bool has_hedge;
    struct hedge_settings hedge;
    struct breaker_settings circuit_breaker;
};

extern const struct config_object upstream_object;
extern const struct config_object breaker_object;
extern const struct config_object health_object;
extern const struct config_object outlier_object;
extern const struct config_object retry_object; // routes override with the same table

// A CUSTOM field for a list of statuses in a struct status_set.
void config_decode_statuses(struct config_decoder *decoder, const struct config_node *node, void *target);
struct config_node *config_encode_statuses(struct arena *arena, const void *target);
#define CONFIG_STATUSES                                                                        \
    .type = CONFIG_CUSTOM, .decode = config_decode_statuses, .encode = config_encode_statuses, \
    .type_name = "a list of statuses",                                                         \
    .schema = "{ type: array, items: { anyOf: [{ type: integer, minimum: 100, maximum: 599 }," \
              " { type: string, pattern: '^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$' },"            \
              " { $ref: '#/$defs/variable' }] } }"

bool status_set_has(const struct status_set *set, unsigned status);

// The fields of a struct respond_settings that is this member of a struct: for a table.
#define CONFIG_RESPOND_FIELDS(type_, member_)                                                     \
    {.name = "status",                                                                            \
     .type = CONFIG_INT,                                                                          \
     .offset = offsetof(type_, member_.status),                                                   \
     .fallback = "200",                                                                           \
     .min = 200,                                                                                  \
     .max = 599,                                                                                  \
     .doc = "The status."},                                                                       \
        {.name = "body",                                                                          \
         .type = CONFIG_STRING,                                                                   \
         .offset = offsetof(type_, member_.body),                                                 \
         .fallback = "\"\"",                                                                      \
         .doc = "The body, as it is."},                                                           \
    {                                                                                             \
        .name = "headers", .type = CONFIG_STRING_MAP, .offset = offsetof(type_, member_.headers), \
        .fallback = "{}", .accept = config_accept_respond_header, .masked = true,                 \
        .type_name = "a map of header names to values",                                           \
        .doc = "Headers of the response. Without a Content-Type, text/plain is sent with a body." \
    }
bool config_accept_respond_header(struct config_decoder *decoder, const struct config_node *node,
                                  struct str *value);
// The rules between them; for check hooks.
void config_check_respond(struct config_decoder *decoder, const struct config_node *node,
                          const struct respond_settings *respond);

// Names of listeners, upstreams and routes.
#define CONFIG_NAME_PATTERN "^[A-Za-z0-9_.-]{1,64}$"
// For accept hooks: reports a name (node->key, or node's value) that is empty, too long or has other
// characters.
bool config_check_name(struct config_decoder *decoder, const struct config_node *node, struct str name);
// The same as an accept hook.
bool config_accept_name(struct config_decoder *decoder, const struct config_node *node, struct str *value);

// A name that can be looked up: letters, digits, - _ and dots, no digits alone.
bool config_is_host_name(struct str host);

// For accept hooks: reports a path of a file that is empty or longer than any can be.
bool config_check_path(struct config_decoder *decoder, const struct config_node *node, struct str path);
bool config_accept_path(struct config_decoder *decoder, const struct config_node *node, struct str *value);
#define CONFIG_PATH .pattern = "^.+$", .type_name = "a path"
