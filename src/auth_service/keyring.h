// The signing keys: one line of keys for each algorithm, each a file STATE/keys/ALGORITHM-MILLISECONDS.pem
// whose name says from when on it signs. So the files are all there is to know, after any crash:
//
//   ──── published ──────────────────────────────────────────────▶
//   made ─── the next ─── signs (rotate) ─── retired (overlap) ─── deleted
//
// The next key is made when the current one begins, so it is published one rotation before it signs.
#pragma once

#include "auth_service/pool.h"
#include "auth_service/settings.h"
#include "base/list.h"
#include "token/sign.h"

enum {
    KEYRING_KEYS = 64,        // of an algorithm: rotating by hand makes no more than this within the overlap
    KEYRING_RETRY_MS = 30000, // after a key could not be made or written
};

struct key_line {
    enum auth_algorithm bit;
    enum token_algorithm algorithm;
    bool listed;    // keys.algorithms has it
    bool is_making; // the next key is being made
    uint64_t retry_at_ms;
    struct list keys; // the oldest first
    unsigned count;
};

struct keyring {
    char *directory;
    uint64_t rotate_ms, overlap_ms;
    struct key_line lines[AUTH_ALGORITHMS];
    struct buf jwks; // the document
    struct token_verifier *verifier;
    uint64_t made; // keys, since the start
    struct pool *pool;
};

// Reads the files, makes what is missing. False and *err: a file that cannot be read or written, or is no
// key.
must_check bool keyring_open(struct keyring *ring, const struct auth_service_settings *settings,
                             struct pool *pool, uint64_t now_ms, struct err *err);
void keyring_close(struct keyring *ring); // no job may be under way in the pool
// Other times and algorithms from now on.
void keyring_configure(struct keyring *ring, const struct auth_service_settings *settings, uint64_t now_ms);
// Rotates, retires and deletes what is due. now_ms: wall clock. Now and then, at least once a second.
void keyring_tick(struct keyring *ring, uint64_t now_ms);
// The next keys sign from now on, and new ones are made.
void keyring_rotate(struct keyring *ring, uint64_t now_ms);
// What signs now; NULL: the algorithm is not there.
struct token_signer *keyring_signer(struct keyring *ring, enum token_algorithm algorithm, uint64_t now_ms);
// Who made this token? Good, or what is wrong with it.
enum token_fault keyring_verify(struct keyring *ring, const struct token *token);
