// The Auth Service: one loop, one listener, a few threads for what takes long.
//
//   request ─▶ handler ─▶ who asks (authenticate.c: form, login limit, cache or thread) ─▶ what is asked
//   (token.c, inspect.c) ─▶ reply (answer.c)
#pragma once

#include "auth/redis_deny.h"
#include "auth_service/form.h"
#include "auth_service/keyring.h"
#include "auth_service/login_limit.h"
#include "auth_service/pool.h"
#include "auth_service/settings.h"
#include "auth_service/vault.h"
#include "base/map.h"
#include "observe/access_log.h"
#include "serve/serve.h"

enum {
    SERVICE_STATUSES = 600,
    SECRET_CACHE_US = 300 * 1000000, // how long a client's secret that was right is known by its MAC
    MAC_BYTES = 32,
};

// What the settings are compiled to.
struct client_state {
    uint8_t mac[MAC_BYTES]; // of the last secret that was right
    uint64_t until_us;      // 0: none
};

struct config {
    struct arena arena;
    struct auth_service_settings settings;
    struct map clients, users; // by name: struct client_settings, user_settings
    struct client_state *states;
    const struct access_format *format;
    uint64_t generation;
};

struct config *config_load(const char *file, struct config_report *report);
void config_free(struct config *config);

// X(id, name, help)
#define SERVICE_COUNTERS(X)                                                                  \
    X(COUNT_CLIENT_CREDENTIALS, "tokens_client_credentials", "Tokens issued.")               \
    X(COUNT_REFRESH_TOKEN, "tokens_refresh_token", "Tokens issued by refresh.")              \
    X(COUNT_PASSWORD, "tokens_password", "Tokens issued by password.")                       \
    X(COUNT_LOGIN_GOOD, "logins_good", "Clients and users that were who they said.")         \
    X(COUNT_LOGIN_BAD, "logins_bad", "Wrong secrets and passwords, unknown names.")          \
    X(COUNT_LOGIN_LIMITED, "logins_limited", "Logins refused after too many failed ones.")   \
    X(COUNT_LOGIN_CACHED, "logins_cached", "Logins known from a short while ago.")           \
    X(COUNT_POOL_FULL, "logins_overloaded", "Logins refused because too many were waiting.") \
    X(COUNT_REUSED, "refresh_reused", "Families ended because a used token came again.")     \
    X(COUNT_REVOKED, "revocations", "Tokens revoked.")
enum service_counter {
#define X(id, ...) id,
    SERVICE_COUNTERS(X)
#undef X
        SERVICE_COUNTER_COUNT,
};

enum { SERVICE_ROWS = 10, SERVICE_BOUNDS = 14 };
struct service_durations {
    uint64_t counts[SERVICE_BOUNDS + 1]; // each by itself; the last is beyond every bound
    uint64_t sum_us;
};

struct service {
    struct loop loop;
    struct server server;
    struct rand rand;
    const char *file;
    struct config *config;
    struct keyring keys;
    struct vault vault;
    struct pool pool;
    struct login_limit limit;
    struct redis_deny *deny; // NULL: no redis
    struct list questions;   // to the pool: authenticate.c
    uint8_t mac_key[MAC_BYTES];
    struct access_writer *writer;
    struct access_log log;
    struct loop_hook hook;
    struct loop_source signals;
    struct loop_timer second, save, drained;
    int listen_fd, lock_fd;
    double started_s;
    uint64_t counts[SERVICE_COUNTER_COUNT];
    uint32_t answers[SERVICE_ROWS + 1][SERVICE_STATUSES];
    struct service_durations durations[SERVICE_ROWS + 1];
    uint64_t reloads_good, reloads_bad;
};

int service_run(const char *file);
extern const struct serve_settings service_settings;

static inline struct service *service_of(const struct serve_client *c)
{
    return c->server->context;
}

int64_t service_now_s(void);
// The file is written soon.
void service_changed(struct service *service);

// ---- tell.c ----

// What is revoked is told to the gateways through Redis, where there is one. False and *err.
must_check bool tell_open(struct service *service, struct err *err);

// ---- authenticate.c ----

struct caller { // in the request's arena
    const struct client_settings *client;
    const struct user_settings *user;
};
// Where a request comes from, by X-Forwarded-For where trusted_proxies have sent it.
struct ip service_address_of(const struct serve_client *c);
// Reads the form and finds out which client asks; answers itself when that fails. next gets the form.
void authenticate_client(struct serve_client *c,
                         void (*next)(struct serve_client *c, const struct client_settings *client,
                                      const struct form *form));
// The same for a user and a password, for next.
void authenticate_user(struct serve_client *c, const struct client_settings *client, const struct form *form,
                       void (*next)(struct serve_client *c, const struct client_settings *client,
                                    const struct user_settings *user, const struct form *form));

// ---- token.c ----

void handle_token(struct serve_client *c);

// ---- inspect.c ----

void handle_introspect(struct serve_client *c);
void handle_revoke(struct serve_client *c);
void handle_authorize(struct serve_client *c);

// ---- publish.c ----

void handle_metadata(struct serve_client *c);
void handle_jwks(struct serve_client *c);
void handle_livez(struct serve_client *c);
void handle_readyz(struct serve_client *c);
void handle_metrics(struct serve_client *c);
void service_on_answer(struct serve_client *c, unsigned status, size_t bytes);
// An error of RFC 6749 5.2.
void reply_oauth_error(struct serve_client *c, unsigned status, struct str error, struct str description);
void reply_retry(struct serve_client *c, unsigned status, struct str error, uint64_t retry_s);
