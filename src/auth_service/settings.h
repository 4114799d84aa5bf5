// What auth.yaml says, and its field tables.
#pragma once

#include "auth_service/scrypt.h"
#include "exchange/gateway_config.h"
#include "token/token.h"

enum auth_grant {
    GRANT_CLIENT_CREDENTIALS = 1,
    GRANT_REFRESH_TOKEN = 2,
    GRANT_PASSWORD = 4,
};

enum auth_token_format { TOKEN_FORMAT_JWT, TOKEN_FORMAT_OPAQUE };

// Signing algorithms as bits of a set, and as a choice: 0 is none.
enum auth_algorithm { AUTH_DEFAULT = 0, AUTH_RS256 = 1, AUTH_ES256 = 2, AUTH_EDDSA = 4 };
enum { AUTH_ALGORITHMS = 3 };
extern const struct auth_algorithm_row {
    enum auth_algorithm bit;
    enum token_algorithm algorithm;
} auth_algorithm_rows[AUTH_ALGORITHMS];
enum token_algorithm auth_algorithm_of(enum auth_algorithm bit);

struct client_settings {
    CONFIG_POSITION_FIELDS;
    struct str id;
    struct str secret_hash, secret; // one of them
    unsigned grants;                // enum auth_grant
    struct str_list scopes, roles, audiences;
    uint64_t access_us, refresh_us; // 0: as tokens says
    int algorithm;                  // enum auth_algorithm; AUTH_DEFAULT: as tokens says
    int token_format;
    struct str_map claims;
    struct scrypt_hash hash; // of secret_hash, compiled
};

struct user_settings {
    CONFIG_POSITION_FIELDS;
    struct str name;
    struct str password_hash;
    struct str_list scopes, roles;
    struct str_map claims;
    struct scrypt_hash hash;
};

struct rule_settings { // of /authorize
    struct str path;   // prefix, whole segments
    struct str_list methods, roles, scopes;
};

struct auth_service_settings {
    int64_t version;
    struct str address, issuer, url, state;
    struct {
        unsigned algorithms; // enum auth_algorithm
        uint64_t rotate_us, overlap_us;
    } keys;
    struct {
        uint64_t access_us, refresh_us;
        struct str_list audiences;
        int algorithm;
    } tokens;
    struct config_list clients, users, rules;
    bool password_grant;
    struct {
        int64_t failures, from_address, for_name;
        uint64_t per_us;
    } login_limit;
    int64_t threads;
    bool has_redis;
    struct redis_settings redis;
    struct cidr_set trusted_proxies;
    struct access_log_settings access_log;
    uint64_t drain_us;
};

extern const struct config_object auth_service_object;

// False: every mistake is in *report.
bool auth_settings_load(struct str file, struct str text, struct arena *arena,
                        struct auth_service_settings *settings, struct config_report *report);

static inline const struct client_settings *auth_clients(const struct auth_service_settings *settings)
{
    return settings->clients.v;
}

static inline const struct user_settings *auth_users(const struct auth_service_settings *settings)
{
    return settings->users.v;
}
