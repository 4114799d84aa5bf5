// The whole configuration file: its root table and the settings no other room owns.
#pragma once

#include "auth/auth_config.h"
#include "exchange/overload.h"
#include "limit/limit_config.h"
#include "net/tls.h"
#include "redis/redis.h"
#include "route/route_config.h"
#include "upstream/upstream_config.h"

// Bits of listener_settings.protocols: as TLS offers them by ALPN.
enum { PROTOCOL_H2 = TLS_ALPN_H2, PROTOCOL_HTTP1 = TLS_ALPN_HTTP1 };

struct listener_certificate {
    CONFIG_POSITION_FIELDS;
    struct tls_certificate_files files;
};

struct listener_tls_settings {
    CONFIG_POSITION_FIELDS;
    struct config_list certificates; // of listener_certificate; the first is the fallback
    struct str client_ca;            // n == 0: none
    int client_auth;                 // enum tls_client_auth
    int min_version;                 // enum tls_version
    bool strict_sni;
};

struct listener_settings {
    CONFIG_POSITION_FIELDS;
    struct str name;
    struct str address;
    struct str redirect_to; // the name of a listener with tls: answer 308 to it; n == 0: routes
    unsigned protocols;
    bool has_tls;
    struct listener_tls_settings tls;
    struct cidr_set trusted_proxies;
    bool proxy_protocol;
    int underscores;    // enum h1_underscores: underscore in request header names: drop (default) | reject |
                        // allow
    bool merge_slashes; // default false
    struct {
        uint64_t header_bytes, uri_bytes, body_bytes;
        int64_t headers, connections;
    } limits;
    struct {
        uint64_t header_us, body_us, idle_us, write_us;
    } timeouts;
};

enum log_format { LOG_FORMAT_JSON, LOG_FORMAT_COMBINED, LOG_FORMAT_TEMPLATE };

struct access_log_settings {
    enum log_format format;
    struct str template; // LOG_FORMAT_TEMPLATE: "$client $method …"
    struct str output;   // stdout | stderr | off | a path
    double sample;
};
extern const struct config_object access_log_object; // the Auth Service has one, too

struct telemetry_settings {
    struct access_log_settings access_log;
    struct {
        struct str request_id; // header name
        bool server_timing;
        bool rate_limit_legacy;
    } headers;
};

struct admin_settings {
    struct str address;
    struct str token; // n == 0: loopback addresses only
};

struct gateway_settings {
    int64_t version;
    int64_t workers;              // 0: auto
    struct config_list listeners; // of listener_settings
    struct admin_settings admin;
    struct {
        struct str address;
    } status;
    bool has_redis;
    struct redis_settings redis;
    struct config_list auth;      // of auth_settings: providers
    struct config_list consumers; // of consumer_settings
    struct str consumers_file;    // (+) n == 0: none
    struct str_map identity_headers;
    bool has_identity_token;
    struct identity_token_settings identity_token;
    struct config_list rate_limits; // of limit_settings
    struct config_list upstreams;   // of upstream_settings
    struct config_list routes;      // of route_settings
    struct telemetry_settings telemetry;
    struct {
        uint64_t delay_us, timeout_us;
    } drain;
    struct overload_settings overload;
};

extern const struct config_object gateway_object;

// Text → settings with every rule checked, names across sections included (dangling upstreams, duplicate
// names and addresses, a route with no action …). Everything points into arena. False when the report has
// errors.
bool gateway_settings_load(struct str file, struct str text, struct arena *arena,
                           struct gateway_settings *settings, struct config_report *report);
