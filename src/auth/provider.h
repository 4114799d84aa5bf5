// What kinds of providers share: private to the room. A new kind is one file, one row, one field table.
#pragma once

#include "auth/auth.h"
#include "auth/breaker.h"
#include "auth/cache.h"
#include "auth/jwks.h"
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

// What a jwt provider holds claims to.
struct token_rules auth_jwt_rules(const struct jwt_settings *settings);

extern const struct auth_kind_row auth_jwt, auth_introspection, auth_forward, auth_api_key, auth_mtls;

// A worker's side of one provider, by id, across reloads; each kind hangs its own on it.
struct auth_local {
    struct auth_worker *worker;
    uint32_t id;
    struct token_verifier *verifier; // jwt; NULL: not made yet, or there are no keys
    uint64_t keys_version;           // which keys and settings it was made of
    struct list waiting;             // jwt: questions that wait for a fetch of keys
    uint32_t waiting_count;          // of these; who was woken and has not asked again counts no more
    struct auth_breaker breaker;     // introspection, forward
    uint64_t complained_ms;          // about it, in the log; 0: never
};

struct auth_worker {
    struct auth_worker_needs needs;
    struct auth_cache *cache;   // of all providers
    struct auth_local **locals; // by provider id; NULL: not asked yet
    uint32_t local_count;
    struct jwks_listener keys_fetched;
    struct question_table *questions; // under way to Auth Services (question.h); NULL: none yet
    struct identity_signer *signer;   // identity_token.h; NULL: none yet
};

struct auth_local *auth_local_of(struct auth_worker *worker, const struct auth_provider *provider);

// A jwks_listener's: wakes who waits for keys.
void auth_on_keys_fetched(struct jwks_listener *listener);

#define AUTH_BEARER "Bearer realm=\"sallyport\"" // the challenge of bearer kinds (RFC 6750 3)

// What a kind's find may return instead of credentials (the same pointer): something is there, but it cannot
// be read, or only in two ways. It is refused without asking the kind. It is never "none": on a route with
// `optional` the request would go on without an identity and with a field that the service behind may read in
// its own way.
extern const struct str auth_garbled;
// Authorization: Bearer TOKEN (RFC 6750 2.1), scheme in any case. n == 0: no Authorization field, or one of
// another scheme. auth_garbled: two of them, one that begins with no scheme, no b64token behind Bearer.
struct str auth_find_bearer(const struct request_head *request);
// Fills in a denial; returns AUTH_DENY. detail n == 0: the cause's own words. error: of RFC 6750 3.1, makes
// the challenge a bearer's; NULL: it is the kind's own.
enum auth_result auth_deny(struct auth_call *call, enum end_cause cause, struct str detail,
                           const char *error);
// Whether the deny list has it; asks it only when the list has changed since the last time.
bool auth_is_revoked(struct identity *identity, int64_t now_s);
