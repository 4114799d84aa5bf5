// What Redis replies to the limiter's script. The first byte says of how many keys, the next ones what was
// asked of each, the rest is RESP. What is taken for an answer is one: a request that is refused is told by
// whom and for how long, no bucket holds more than its burst, and what is bought was asked for.
#include "exact_copy.h"

#include "limit/script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST_KEYS = 4, KEY_BYTES = 3 };

static const uint64_t second_us = 1000000, hour_us = 3600000000, now_us = 5000000000;

static struct limit_query query_of(const uint8_t bytes[static KEY_BYTES])
{
    struct limit_query query = {.cost = 1 + bytes[1] % 20, .is_shadow = bytes[0] & 1};
    uint64_t tokens = 1 + bytes[2];
    if (bytes[0] & 2)
        window_at(&query.rule.window, bytes[0] >> 2 & 3, NULL, tokens, 1700000000, now_us);
    else
        check(bucket_compile(&query.rule.bucket, tokens, bytes[0] & 4 ? second_us : hour_us, 1 + bytes[1] / 4,
                             bytes[0] & 8));
    query.rule.is_window = bytes[0] & 2;
    query.extra_count = bytes[0] >> 5 & 3;
    for (uint32_t i = 0; i < query.extra_count; i++)
        query.extras[i] = 100 - i;
    return query;
}

static void check_told(const struct limit_told *told, const struct limit_query *query)
{
    const struct limit_rule *rule = &told->rule;
    check(rule->is_window == query->rule.is_window);
    check(rule_remaining(rule, told->state, now_us) <= rule_tokens(rule));
    if (told->wait_us)
        check(rule_wait_us(rule, told->state, now_us, query->cost) <= told->wait_us);
    uint64_t after = rule_charge(rule, told->state, now_us, query->cost);
    check(rule_remaining(rule, after, now_us) <= rule_remaining(rule, told->state, now_us));
    rule_remaining(rule, rule_give(rule, told->state, query->cost), now_us);
    rule_full_us(rule, rule_settle(rule, told->state, now_us), now_us);
    bool is_asked_for = !told->extra;
    for (uint32_t i = 0; i < query->extra_count; i++)
        is_asked_for |= told->extra == query->extras[i];
    check(is_asked_for);
}

static void check_reply(const struct resp_value *reply, const struct limit_query *queries, uint32_t count)
{
    struct limit_told told[MOST_KEYS];
    bool passes, is_refused = false;
    bool is_answer = limit_script_read(reply, queries, count, now_us, &passes, told);
    bool is_missing = limit_script_is_missing(reply), is_torn = limit_script_is_torn(reply);
    check(is_answer + is_missing + is_torn <= 1);
    if (!is_answer)
        return;
    for (uint32_t i = 0; i < count; i++) {
        check_told(&told[i], &queries[i]);
        is_refused |= told[i].wait_us && !queries[i].is_shadow;
    }
    check(passes == !is_refused);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct limit_query queries[MOST_KEYS];
    struct resp_value reply;
    struct arena arena;
    size_t used, head = n ? 1 + KEY_BYTES * (1 + (size_t)data[0] % MOST_KEYS) : 1;
    if (n < head)
        return 0;
    uint32_t count = 1 + data[0] % MOST_KEYS;
    for (uint32_t i = 0; i < count; i++)
        queries[i] = query_of(data + 1 + (size_t)KEY_BYTES * i);
    arena_init(&arena, NULL);
    char *copy = exact_copy((const char *)data + head, n - head);
    if (resp_parse((struct str){copy, n - head}, 1 << 20, &arena, &reply, &used) == RESP_VALUE)
        check_reply(&reply, queries, count);
    arena_reset(&arena);
    free(copy);
    return 0;
}
