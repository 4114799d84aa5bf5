// What kinds of providers share: private to the room. A new kind is one file, one row, one field table.
#pragma once

#include "auth/auth.h"
#include "auth/breaker.h"
#include "auth/cache.h"
#include "upstream/fetch.h"

struct auth_provider {
    const struct auth_kind_row *kind;
    const struct auth_settings *settings;
    struct auth *auth; // the snapshot's it belongs to
    struct str name;
    uint32_t id; // of metrics (NAME_PROVIDER): dense by name, process-wide: workers' arrays use it
    // Of everything that makes an answer what it is: settings, secrets, identity_headers, identity_token,
    // consumers. Part of every cache key, so that what was decided under another configuration is not found.
    uint64_t fingerprint;
    struct upstream *upstream; // of the Auth Service; NULL: none
    struct jwks *jwks;         // jwt with jwks: process-wide, a reference (jwks.h)
    struct token_keys *keys;   // jwt with a secret
    struct str challenge;      // of a 401 without credentials
};

struct auth_kind_row {
    const char *name; // "jwt"
    // The credentials in the request; n == 0: none of this kind. Borrowed from the request or in its arena.
    struct str (*find)(const struct auth_provider *provider, struct auth_call *call);
    // Judges them. Called again after AUTH_WAIT.
    enum auth_result (*ask)(struct auth_worker *worker, const struct auth_provider *provider,
                            struct auth_call *call, struct str credentials);
    void (*conceal)(const struct auth_provider *provider, struct auth_call *call); // NULL: nothing
    // The exchange that waits (call->state) is gone. NULL: never waits.
    void (*forget)(struct auth_worker *worker, struct auth_call *call);
    // Fills in what the snapshot needs: keys, jwks. May be NULL.
    bool (*compile)(struct auth_provider *provider, const struct auth_sources *sources, struct arena *arena,
                    struct err *err);
    void (*fini)(struct auth_provider *provider);
};

extern const struct auth_kind_row auth_jwt, auth_introspection, auth_forward, auth_api_key, auth_mtls;

// A worker's side of one provider, by id, across reloads; each kind hangs its own on it.
struct auth_local {
    struct auth_worker *worker;
    uint32_t id;
    struct token_verifier *verifier; // jwt
    uint64_t keys_version;           // that it was made of
    struct list waiting;             // jwt: questions that wait for a fetch of keys
    struct auth_breaker breaker;     // introspection, forward
    uint64_t complained_ms;          // about it, in the log; 0: never
};

struct auth_worker {
    struct auth_worker_needs needs;
    struct auth_cache *cache; // of all providers
    struct auth_local **locals;
    uint32_t local_count;
    struct question_table *questions; // under way to Auth Services (question.h); NULL: none yet
    struct identity_signer *signer;   // identity_token.h; NULL: none yet
};

struct auth_local *auth_local_of(struct auth_worker *worker, const struct auth_provider *provider);

// Authorization: Bearer TOKEN (RFC 6750 2.1), one field only, scheme in any case; n == 0: none.
struct str auth_find_bearer(const struct request_head *request);
// Fills in a denial; returns AUTH_DENY. error: of RFC 6750 3.1, "invalid_token"; NULL: none.
enum auth_result auth_deny(struct auth_call *call, enum end_cause cause, struct str detail,
                           const char *error);
