// What Redis replies about a request with an Idempotency-Key. The first 32 bytes of the input are this
// request's print, the rest is RESP. Only the value of a request with the same print has an answer, and
// nothing but "no such key" lets a request go on as new.
#include "exact_copy.h"

#include "replay/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_value(const struct resp_value *reply, const struct replay_hash *print)
{
    struct str answer = STR_NULL, value = reply->text;
    enum replay_state state = replay_value_read(reply, print, &answer);
    bool is_text = reply->kind == RESP_STRING;
    check((state == REPLAY_NEW) == (reply->kind == RESP_NULL));
    check((state == REPLAY_UNAVAILABLE) == (!is_text && reply->kind != RESP_NULL));
    check(state != REPLAY_FULL && state != REPLAY_WAIT);
    check((state == REPLAY_ANSWER) == (answer.n > 0));
    if (state == REPLAY_ANSWER || state == REPLAY_RUNNING)
        check(value.n >= REPLAY_VALUE_HEAD_BYTES && memcmp(value.p + 1, print, sizeof *print) == 0);
    if (state == REPLAY_ANSWER)
        check(value.p[0] == 'd' && answer.p + answer.n == value.p + value.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct replay_hash print;
    struct resp_value reply;
    struct arena arena;
    size_t used;
    if (n < sizeof print)
        return 0;
    memcpy(&print, data, sizeof print);
    arena_init(&arena, NULL);
    char *copy = exact_copy((const char *)data + sizeof print, n - sizeof print);
    if (resp_parse((struct str){copy, n - sizeof print}, 1 << 20, &arena, &reply, &used) == RESP_VALUE)
        check_value(&reply, &print);
    arena_reset(&arena);
    free(copy);
    return 0;
}
