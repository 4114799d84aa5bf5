// What the service remembers of the tokens it has given: families of refresh tokens, opaque access tokens,
// access tokens that were revoked. In memory, with a copy in STATE/state.jsonl that is replaced in one step
// soon after a change and at the end. No token can be made from that file: it holds hashes.
//
// A refresh token is FAMILY-ID and SECRET. Each use gives a new secret; whoever comes with an old one has a
// copy of a token that somebody else has used, and nobody knows which of the two is the thief: the family
// ends (RFC 9700 4.14.2).
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"

enum {
    VAULT_BUCKETS = 65536,
    VAULT_ENTRIES = 1000000,          // of all kinds
    VAULT_FAMILIES_OF_CLIENT = 10000, // the oldest makes room
    VAULT_ID = 16,
    VAULT_SECRET = 32,
    VAULT_TOKEN_TEXT = 72, // a refresh or opaque token, with a NUL
    VAULT_JTI = 24,        // a jti, with a NUL
    VAULT_RECENT = 8,      // access tokens of a family that end with it
    VAULT_SAVE_MS = 200,   // after a change
};

enum vault_kind { VAULT_FAMILY, VAULT_OPAQUE, VAULT_DENIED, VAULT_KINDS };

struct vault_recent {
    char jti[VAULT_JTI];
    int64_t expires; // Unix seconds
};

struct vault_entry {
    struct vault_entry *chain;
    struct list node; // FAMILY: of its client
    enum vault_kind kind;
    uint8_t key[VAULT_SECRET];    // FAMILY: its id; OPAQUE: of the token; DENIED: of the jti
    int64_t expires;              // Unix seconds
    uint8_t secret[VAULT_SECRET]; // FAMILY: hash of the current one
    struct vault_recent recent[VAULT_RECENT];
    unsigned recent_at;
    bool is_user;                                // FAMILY: the subject is a user
    struct str client, subject, scope, audience; // FAMILY
    struct str claims;                           // OPAQUE: the JSON object; DENIED: the jti
    char text[];
};

struct vault_account { // a client's families
    struct str client;
    struct list families; // the oldest first
    unsigned count;
};

struct vault {
    char *path;
    struct vault_entry **buckets;
    struct vault_account **accounts;
    size_t account_count;
    unsigned counts[VAULT_KINDS];
    unsigned sweep_at;
    bool changed;
    // An access token was revoked; NULL: nobody asks.
    void (*on_deny)(struct vault *vault, struct str jti, int64_t expires);
};

// Reads the file when there is one. False and *err: it cannot be read, or is not such a file.
must_check bool vault_open(struct vault *vault, struct str directory, int64_t now_s, struct err *err);
void vault_close(struct vault *vault);
// Writes the file when something has changed. False and *err.
must_check bool vault_save(struct vault *vault, int64_t now_s, struct err *err);
// Forgets some of what is past: a 64th of the table.
void vault_sweep(struct vault *vault, int64_t now_s);

struct vault_grant {
    struct str client, subject, scope, audience;
    bool is_user;
    int64_t expires;
};
// A new family; its first token in token. NULL: there are too many entries.
struct vault_entry *vault_begin_family(struct vault *vault, const struct vault_grant *grant,
                                       char token[VAULT_TOKEN_TEXT]);
// The family of a refresh token, NULL: unknown or past. *is_current false: the token was used before.
struct vault_entry *vault_find_family(struct vault *vault, struct str token, int64_t now_s, bool *is_current);
// Another token for the family; the one before is used up.
void vault_renew(struct vault *vault, struct vault_entry *family, int64_t expires,
                 char token[VAULT_TOKEN_TEXT]);
// An access token was given in its name.
void vault_note_access(struct vault *vault, struct vault_entry *family, struct str jti, int64_t expires);
// Revokes it, and the access tokens that were given in its name lately.
void vault_end_family(struct vault *vault, struct vault_entry *family, int64_t now_s);

// An opaque access token for these claims. False: there are too many entries.
must_check bool vault_add_opaque(struct vault *vault, struct str claims, int64_t expires,
                                 char token[VAULT_TOKEN_TEXT]);
// Its claims; n == 0: unknown, past or revoked.
struct str vault_find_opaque(struct vault *vault, struct str token, int64_t now_s);
bool vault_revoke_opaque(struct vault *vault, struct str token);

// False: there are too many entries.
must_check bool vault_deny(struct vault *vault, struct str jti, int64_t expires);
bool vault_is_denied(struct vault *vault, struct str jti, int64_t now_s);

// Tells on_deny of all that is revoked and has not expired: after a start.
void vault_tell(struct vault *vault, int64_t now_s);

// A fresh jti; NUL-terminated.
void vault_new_jti(char jti[VAULT_JTI]);
