// Answers to requests with an Idempotency-Key, kept for whoever sends the request again
// (draft-ietf-httpapi-idempotency-key-header). docs/RETRIES.md says what clients see of it.
//
//   replay_name   route, caller, key ─▶ which request it says it is
//   replay_print  method, target, body ─▶ which request it really is
//
// Both are SHA-256: clients choose what goes in, all gateways must come to the same, and nobody may find two
// requests with one print.
#pragma once

#include "base/arena.h"
#include "http/header.h"

enum { REPLAY_HASH_BYTES = 32 };

struct replay_hash {
    unsigned char bytes[REPLAY_HASH_BYTES];
};

// Of parts in order; where one ends and the next begins is part of it.
struct replay_hash replay_hash(const struct str *parts, unsigned count);

// What has become of the first request of this name.
enum replay_state {
    REPLAY_NEW,         // there was none: this one is to be carried out, and then kept or dropped
    REPLAY_RUNNING,     // it is under way
    REPLAY_OTHER,       // it had another print
    REPLAY_ANSWER,      // it was answered so
    REPLAY_LOST,        // it was answered, but not with what could be kept
    REPLAY_FULL,        // nobody knows: too many are under way
    REPLAY_UNAVAILABLE, // nobody knows: Redis does not answer
    REPLAY_WAIT,        // for Redis
};

// ---- an answer as one span of bytes ----

struct replay_answer {
    unsigned status;
    struct headers headers, trailers;
    struct str body;
};

// How long the span of this answer will be.
size_t replay_answer_bytes(const struct replay_answer *answer);
// Into out, which has room for that. Fields that are gone are left out.
void replay_answer_write(const struct replay_answer *answer, char *out);
// The arrays of fields are made in the arena; everything else points into span. False: it is no answer.
must_check bool replay_answer_read(struct str span, struct arena *arena, struct replay_answer *answer);
