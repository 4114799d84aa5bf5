// The settings of one route (sallyport.yaml, routes[]) and their field table.
#pragma once

#include "auth/auth_config.h"
#include "base/priority.h"
#include "config/config.h"
#include "limit/limit_config.h"
#include "net/addr.h"
#include "policy/policy_config.h"
#include "upstream/upstream_config.h"

enum path_kind { PATH_PREFIX, PATH_EXACT, PATH_TEMPLATE, PATH_REGEX };

struct path_match {
    enum path_kind kind; // { prefix: / } when the file has none
    struct str text;     // normalised (http/uri.h) for PREFIX, EXACT, TEMPLATE
};

enum value_match_kind { VALUE_EXACT, VALUE_REGEX, VALUE_PRESENT };

struct value_match { // of a header or a query parameter
    struct str name;
    enum value_match_kind kind;
    struct str text;
};

struct value_matches {
    struct value_match *v;
    uint32_t count;
};

struct match_settings {
    struct str_list hosts; // lower case; "*.example.com"; none: any
    struct path_match path;
    struct str_list methods; // none: any
    struct value_matches headers, query;
};

struct split_target {
    CONFIG_POSITION_FIELDS;
    struct str upstream;
    int64_t weight;
};

struct redirect_settings {
    struct str to; // absolute URL or path; {path}, {query}, {host} and template names stand for the request's
    int64_t status;
};

enum rewrite_host { REWRITE_HOST_KEEP, REWRITE_HOST_NAME, REWRITE_HOST_UPSTREAM };

struct rewrite_settings {
    struct str prefix; // replaces the matched prefix
    struct str path;   // whole path; {name} of the template
    enum rewrite_host host_kind;
    struct str host;
};

struct route_settings {
    CONFIG_POSITION_FIELDS;
    struct str name;
    struct match_settings match;
    struct str upstream;      // exactly one of upstream, split, redirect, respond
    struct config_list split; // of split_target
    bool has_redirect, has_respond, has_rewrite, has_retries, has_fault, has_auth, has_cors, has_idempotency;
    struct redirect_settings redirect;
    struct respond_settings respond;
    struct rewrite_settings rewrite;
    struct header_rules headers; // policy/policy_config.h
    uint64_t timeout_us;         // 0: none
    struct retry_settings retries;
    struct fault_settings fault;             // policy/policy_config.h
    struct ip_rules ip;                      // policy/policy_config.h
    struct cors_settings cors;               // policy/policy_config.h
    struct idempotency_settings idempotency; // (+) policy/policy_config.h
    struct route_auth_settings auth;
    struct route_limit_settings rate_limits;
    bool outlive_token;          // (+) streams go on when their token has expired or was revoked
    uint64_t request_body_bytes; // UINT64_MAX: the listener's
    bool access_log;
    int priority; // (+) enum priority
};

extern const struct config_object route_object;

#define CONFIG_BODY_MAX (1024.0 * 1024 * 1024 * 1024) // bytes: no real body is longer
