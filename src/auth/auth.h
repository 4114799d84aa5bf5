// Authentication: who calls, asked of the providers that a route names.
//
//   struct auth         in the snapshot: providers, consumers, what upstreams are told. Read-only.
//   struct auth_worker  a worker's side, across reloads: caches, verifiers, questions under way
//   struct auth_call    one exchange's question to one provider at a time
//
//   policy/auth.c                     auth                                   beyond
//     auth_ask ─────────────────────▶ kind->find, cache, kind->ask ─────────▶ token room (at once)
//     ◀── ALLOW, DENY, NONE …                                              or fetch to the Auth Service
//     ◀── WAIT      …   needs.wake(ticket) when the answer is in: ask again
//
// What each kind does is a row of struct auth_kind_row (provider.h).
#pragma once

#include "auth/auth_config.h"
#include "auth/identity.h"
#include "base/ticket.h"
#include "http/message.h"
#include "net/addr.h"
#include "net/tls.h"
#include "observe/metrics.h"

struct auth_guarded;
struct auth_provider;
struct auth_worker;
struct consumers;
struct upstream;
struct upstream_worker;

// A header for upstreams: identity_headers, compiled.
enum identity_source {
    IDENTITY_SUBJECT,
    IDENTITY_CONSUMER,
    IDENTITY_ROLES,
    IDENTITY_SCOPES,
    IDENTITY_PROVIDER,
    IDENTITY_CLAIM
};
struct identity_header {
    struct str name;
    enum header_id id;
    enum identity_source source;
    struct str claim; // dotted path
};

struct auth {
    struct auth_provider **providers;
    uint32_t provider_count;
    const struct identity_header *headers;
    uint32_t header_count;
    const struct str *claims; // paths of every claim that the configuration refers to
    uint32_t claim_count;
    struct consumers *consumers;                          // a reference; consumers.h
    const struct identity_token_settings *identity_token; // NULL: off
    struct str identity_key;                              // its PEM
    // Names that clients may not say: identity headers, identity_token's, what forward providers copy. See
    // auth_strip.
    const struct auth_guarded *guarded; // NULL: none
    // Who holds the snapshot that this is part of: a question under way outlives the exchange that asked.
    void *holder;
    void (*hold)(void *holder);
    void (*drop)(void *holder); // any thread
};

// ---- the snapshot's side: control thread ----

struct auth_sources {                    // of the configuration, checked
    const struct config_list *providers; // of auth_settings
    const struct config_list *consumers; // of consumer_settings
    struct str consumers_file;           // n == 0: none
    const struct str_map *identity_headers;
    const struct identity_token_settings *identity_token; // NULL: none
    struct str_list claims; // further ones that the configuration refers to, by path
    uint64_t generation;
    unsigned tls_slots; // as in upstream_compile; 0: only looked at, no file is read, no host looked up
    bool (*read_file)(const void *context, struct str path, struct str *content);
    const void *read_context;
};
struct auth_mistake {
    struct str path; // "auth.corp"
    unsigned line, column;
    struct err err;
};
// False and *mistake when a file is bad or a name is not found. Everything else has been checked by the field
// tables. auth_fini in any case.
must_check bool auth_compile(struct auth *auth, const struct auth_sources *sources, struct arena *arena,
                             struct auth_mistake *mistake);
void auth_fini(struct auth *auth);
// Whether the files that auth_compile would read are good. Of sources, what has to do with them is needed.
bool auth_check_files(const struct auth_sources *sources, struct auth_mistake *mistake);
const struct auth_provider *auth_provider_named(const struct auth *auth, struct str name);
// The upstreams behind providers, to be handed to upstream_worker_update with the others; they stay auth's.
#define AUTH_UPSTREAM_PREFIX "auth:" // and the provider's name: no configured one has a colon
uint32_t auth_upstreams(const struct auth *auth, struct upstream **upstreams, uint32_t max);

// The source of an identity header, "identity.roles" or "jwt.CLAIM", and the claim's path. False: it is none.
bool auth_identity_source(struct str text, enum identity_source *source, struct str *claim);

// The one spelling for all under which auth_strip knows a name.
struct str auth_fold(struct str name, struct arena *arena);
// Names that clients may not say. NULL when there are none.
const struct auth_guarded *auth_guarded_new(const struct str *names, uint32_t count, struct arena *arena);
// Removes what clients may not say from a head's fields: every guarded name in every spelling, that is in any
// case and with any character that is no letter or digit for another one, as CGI and its heirs read them
// (X_User_Id, x.user.id). Before routing, on every route. And from trailers.
void auth_strip(const struct auth *auth, struct headers *headers);
// The query as it may be written down: the API keys in it are masked, valid or not.
struct str auth_loggable_query(const struct auth *auth, struct str query, struct arena *arena);

// ---- a worker's side ----

struct auth_worker_needs { // borrowed from the worker
    struct loop *loop;
    struct upstream_worker *upstreams;
    struct metrics *metrics;
    unsigned tls_slot;
    void *context;
    void (*wake)(void *context, struct ticket ticket); // from the loop, never from inside auth_ask
};
struct auth_worker *auth_worker_new(const struct auth_worker_needs *needs);
void auth_worker_free(struct auth_worker *worker);
// A new snapshot is in force.
void auth_worker_update(struct auth_worker *worker, const struct auth *auth);

// ---- one question ----

enum auth_result {
    AUTH_NONE,        // the request carries no credentials of this provider's kind
    AUTH_ALLOW,       // call->identity: the caller's reference
    AUTH_DENY,        // call->cause, call->detail, call->challenge
    AUTH_WAIT,        // ask again when woken, or after call->wait_us at the latest
    AUTH_UNAVAILABLE, // no decision can be had: call->detail
    AUTH_RESULTS,
};

struct auth_call { // zero it; lives in the exchange's arena
    // The request, filled in by the policy.
    struct request_head *request;
    const struct tls_facts *tls; // NULL: plain
    const struct ip *client;
    struct str scheme, request_id;
    struct arena *arena;
    uint64_t now_us; // monotonic
    int64_t now_s;   // Unix seconds
    struct ticket ticket;
    // Between two asks: whose answer it waits for (NULL: nobody's), and what that provider has to remember.
    const struct auth_provider *waits_for;
    void *state;
    // The answer.
    struct identity *identity;
    enum end_cause cause;
    struct str detail;
    struct str challenge; // for WWW-Authenticate; n == 0: the kind's own
    uint64_t wait_us;
};

enum auth_result auth_ask(struct auth_worker *worker, const struct auth_provider *provider,
                          struct auth_call *call);
// The exchange ends while it waits: nobody is to be woken.
void auth_forget(struct auth_worker *worker, struct auth_call *call);
// What an allowed request must not carry onward: the token with forward_token: false, an API key. After
// AUTH_ALLOW.
void auth_conceal(const struct auth_provider *provider, struct auth_call *call);
// `Bearer realm="…"`, for a 401 without credentials; n == 0: the service says it (forward).
struct str auth_challenge(const struct auth_provider *provider);
// Whether an identity that was good still is: it has not expired (now_s, no leeway) and is not on the deny
// list. For streams: the deny list is only asked again when it has changed.
bool auth_still_good(struct identity *identity, int64_t now_s, enum end_cause *cause);
// identity_token for this identity, made now or before, in arena; n == 0: off, or it cannot be made.
struct str auth_identity_token(struct auth_worker *worker, const struct auth *auth, struct identity *identity,
                               int64_t now_s, struct arena *arena);
