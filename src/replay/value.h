// What stands in Redis for one request, and what is to be read from a reply. Pure.
//
//   'r' print token    it is under way; for as long as its exchange may last
//   'd' print answer   it was answered; no answer: with what cannot be kept
//
// Who claimed it has the token: what comes after its time, when another one has it, changes nothing.
#pragma once

#include "redis/resp.h"
#include "replay/replay.h"

enum {
    REPLAY_TOKEN_BYTES = 16,
    REPLAY_VALUE_HEAD_BYTES = 1 + REPLAY_HASH_BYTES,
    REPLAY_RUNNING_BYTES = REPLAY_VALUE_HEAD_BYTES + REPLAY_TOKEN_BYTES,
};

// What the script that claims a request replies: nothing is there (REPLAY_NEW: it is now), or the value of
// another one. REPLAY_ANSWER: *answer is a part of the reply. Any other reply: REPLAY_UNAVAILABLE; any other
// value: REPLAY_LOST.
enum replay_state replay_value_read(const struct resp_value *reply, const struct replay_hash *print,
                                    struct str *answer);
