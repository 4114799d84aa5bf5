#include "replay/value.h"

static enum replay_state state_of(struct str value, const struct replay_hash *print, struct str *answer)
{
    bool is_running = value.n && value.p[0] == 'r';
    if (value.n < REPLAY_VALUE_HEAD_BYTES || (!is_running && value.p[0] != 'd'))
        return REPLAY_LOST;
    if (memcmp(value.p + 1, print->bytes, REPLAY_HASH_BYTES) != 0)
        return REPLAY_OTHER;
    if (is_running)
        return REPLAY_RUNNING;
    *answer = str_skip(value, REPLAY_VALUE_HEAD_BYTES);
    return answer->n ? REPLAY_ANSWER : REPLAY_LOST;
}

enum replay_state replay_value_read(const struct resp_value *reply, const struct replay_hash *print,
                                    struct str *answer)
{
    if (reply->kind == RESP_NULL)
        return REPLAY_NEW;
    return reply->kind == RESP_STRING ? state_of(reply->text, print, answer) : REPLAY_UNAVAILABLE;
}
