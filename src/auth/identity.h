// What authentication has found out about who calls. Made by a provider in one worker, kept in that worker's
// cache, read by everything that comes after: authorisation, identity headers, limits, the access log.
//
// Its memory is one block; a cached identity serves many exchanges, so nothing of it changes but the counts,
// deny_version and the signed token.
#pragma once

#include "base/arena.h"
#include "base/json_parse.h"
#include "config/config.h"
#include "http/header.h"

struct auth;
struct auth_provider;

struct identity {
    uint32_t references; // of one worker: its cache and its exchanges
    size_t bytes;        // of memory in all
    // Whose: the provider's id, named by metric_name(NAME_PROVIDER, id). No pointer, since what is cached
    // outlives the snapshot it was made under.
    uint32_t provider;
    bool revocable;               // the deny list is asked about it (auth_still_good)
    struct str subject, consumer; // n == 0: not known
    struct str_list roles, scopes;
    struct str issuer, jti; // of a token, for revocation; n == 0: none
    int64_t issued_at;      // Unix seconds; INT64_MIN: not said
    int64_t expires;        // Unix seconds; INT64_MAX: never. Streams end then
    int64_t leeway_s;       // so long after that its token is taken all the same
    uint64_t deny_version;  // of the deny list that it was last found not to be in
    // What goes upstream: identity_headers rendered, and what a forward provider's answer added under other
    // names. Values are safe: no controls, non-ASCII percent-encoded, as are commas in the elements of lists.
    // Names have the id of header_id_of.
    const struct header *headers;
    uint32_t header_count;
    // identity_token, made when it is first wanted and again before it runs out (identity_token.h): the one
    // thing that changes. On the heap, in `bytes`; good to be sent until signed_until.
    struct str signed_token;
    int64_t signed_until;
    // Claims that the configuration refers to by path (`jwt.tenant`): text, lists joined by commas.
    const struct str_pair *claims;
    uint32_t claim_count;
};

struct identity *identity_ref(struct identity *identity);
void identity_unref(struct identity *identity); // NULL is harmless
// Another one that says the same, with one reference, for another worker; without the signed token. NULL:
// memory is out.
struct identity *identity_copy(const struct identity *identity);

// What a provider fills in to have an identity made; spans may be anywhere.
struct identity_facts {
    const struct auth_provider *provider;
    bool revocable;
    struct str subject, consumer, issuer, jti;
    struct str_list roles, scopes;
    int64_t issued_at, expires, leeway_s;
    const struct json_value *claims; // for `jwt.CLAIM`; NULL: none
    const struct headers *copied;    // of a forward provider's answer; NULL: none
};

// One reference is the caller's. NULL: memory is out, or there is more of it than an identity may hold
// (IDENTITY_BYTES): treat the token as invalid then.
enum { IDENTITY_BYTES = 16 * 1024 };
struct identity *identity_new(const struct auth *auth, const struct identity_facts *facts);

// A claim as text: a string, a number or a boolean as written, an array of those joined by commas. False: not
// there, or an object.
bool identity_claim_text(const struct json_value *claims, struct str path, struct arena *arena,
                         struct str *text);
// A string (space separated) or an array of strings.
bool identity_claim_list(const struct json_value *claims, struct str path, struct arena *arena,
                         struct str_list *list);
// Appends value so that it is safe as a field value: printable ASCII but % as it is, everything else
// percent-encoded (RFC 3986 2.1); spaces at the ends too.
struct str identity_encode(struct str value, struct arena *arena);
