// The settings of one upstream (sallyport.yaml, upstreams.NAME) and their field table.
#pragma once

#include "config/config.h"
#include "net/addr.h"

struct target_settings {
    CONFIG_POSITION_FIELDS;
    struct str address; // host:port, [v6]:port or unix:/path; a host name is looked up when the file is loaded
    int64_t weight;     // 1 and up; 0 takes no new requests
};

enum balance_policy {
    BALANCE_ROUND_ROBIN,
    BALANCE_LEAST_REQUEST,
    BALANCE_RANDOM,
    BALANCE_CONSISTENT_HASH,
    BALANCE_EWMA,
};

enum hash_source { HASH_CLIENT_IP, HASH_HEADER, HASH_COOKIE, HASH_PATH };

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
    struct str path; // n == 0: no active checks
    uint64_t interval_us, timeout_us;
    int64_t healthy, unhealthy; // successes or failures in a row
    struct status_set statuses;
};

enum retry_on { // bits
    RETRY_CONNECT_FAILURE = 1,
    RETRY_REFUSED_STREAM = 2,
    RETRY_RESET_BEFORE_HEADERS = 4,
};

struct retry_settings {
    int64_t attempts; // further tries, besides the first
    unsigned retry_on;
    struct status_set statuses;
    double budget;
    uint64_t backoff_us;
    uint64_t body_bytes;
};

struct upstream_settings {
    CONFIG_POSITION_FIELDS;
    struct str name;
    struct config_list targets; // of target_settings
    int protocol;               // http/1.1 only, so far
    int load_balancer;          // enum balance_policy
    struct hash_settings hash_on;
    struct health_settings health_check;
    double panic_threshold;
    uint64_t slow_start_us;
    struct {
        int64_t connections, requests, pending;
    } limits;
    struct {
        uint64_t connect_us, response_us, idle_us; // response: from the request's end to the response head; between body bytes
    } timeouts;
    struct retry_settings retries;
};

extern const struct config_object upstream_object;
extern const struct config_object retry_object; // routes override with the same table

bool status_set_has(const struct status_set *set, unsigned status);
