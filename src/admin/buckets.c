// Buckets of rate limits: GET shows one, DELETE makes it full again.
//
//   /api/v1/limits/NAME?key=…&key=…     one key for each part of the limit's key (limit/limit.h)
#include "admin/room.h"

#include "base/clock.h"
#include "http/uri.h"

struct bucket_question {
    struct limit_table *table;
    const struct limit *limit;
    struct limit_words words;
    struct hash128 key;
};

static bool refuse(struct serve_client *c, unsigned status, const char *why)
{
    struct str code = status == 404 ? STR("not_found") : STR("bad_request");
    serve_reply_problem(c, &(struct serve_problem){.status = status, .code = code, .detail = str_of(why)});
    return false;
}

// NULL: *words is complete; else what is wrong.
static const char *read_words(struct str query, struct arena *arena, struct limit_words *words)
{
    while (query.n) {
        struct str pair = {query.p, str_find(query, '&')}, value;
        query = str_skip(query, pair.n < query.n ? pair.n + 1 : pair.n);
        struct str name = {pair.p, str_find(pair, '=')};
        if (!uri_form_decode(str_skip(pair, name.n < pair.n ? name.n + 1 : name.n), arena, &value))
            return "a value is not percent-encoded";
        if (str_eq(name, STR("issuer")))
            words->issuer = value;
        else if (!str_eq(name, STR("key")))
            return "expected ?key=…&key=…, and issuer=… for a subject";
        else if (words->count == LIMIT_KEY_PARTS)
            return "too many keys";
        else
            words->v[words->count++] = value;
    }
    return NULL;
}

// False: it has been answered.
static bool read_question(struct serve_client *c, struct bucket_question *question)
{
    const struct limits *limits = &host_of(c)->gateway->limits;
    struct str name = str_skip(c->request.path, c->row->path.n);
    *question = (struct bucket_question){.table = limits->table, .limit = limit_named(limits, name)};
    if (!question->limit)
        return refuse(c, 404, "no limit has this name");
    const char *why = read_words(c->request.query, &c->arena, &question->words);
    if (why || !limit_key_of_words(question->limit, &question->words, &question->key, &why))
        return refuse(c, 400, why);
    return true;
}

static void print_quota(struct json *json, const struct bucket_question *question,
                        const struct limit_quota *quota, struct str text, uint64_t now_us)
{
    struct limit_rule rule = {.is_window = true};
    uint64_t state = 0;
    window_at(&rule.window, quota->unit, quota->tokens, (int64_t)(clock_wall_us() / 1000000), now_us);
    limit_table_find(question->table, limit_quota_key(question->key, quota->unit), &state);
    json_object(json);
    json_field_string(json, "quota", text);
    json_field_u64(json, "remaining", rule_remaining(&rule, state, now_us));
    json_field_u64(json, "ends_in_ms", rule_full_us(&rule, state, now_us) / 1000);
    json_object_end(json);
}

static void print_tier(struct json *json, const struct bucket_question *question,
                       const struct limit_tier *tier, const struct limit_tier_settings *settings,
                       uint64_t state, struct arena *arena)
{
    uint64_t now_us = clock_monotonic_us(), settled = rule_settle(&tier->rule, state, now_us);
    json_object(json);
    json_field_string(json, "tier", tier->name.n ? tier->name : STR("default"));
    json_field_string(json, "rate", limit_rate_print(&settings->rate, arena));
    json_field_u64(json, "burst", rule_tokens(&tier->rule));
    json_field_u64(json, "remaining", rule_remaining(&tier->rule, settled, now_us));
    json_field_u64(json, "full_in_ms", (rule_full_us(&tier->rule, settled, now_us) + 999) / 1000);
    json_key(json, STR("quotas"));
    json_array(json);
    for (uint32_t i = 0; i < tier->quota_count; i++)
        print_quota(json, question, &tier->quotas[i], settings->quotas.v[i], now_us);
    json_array_end(json);
    json_object_end(json);
}

// Which tier a caller is in is known when it calls: what there is is shown for each.
static void reply_bucket(struct serve_client *c, const struct bucket_question *question)
{
    const struct limit *limit = question->limit;
    const struct limit_tier_settings *tiers = limit->settings->tiers.v;
    uint64_t state = 0;
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_string(&json, "name", limit->name);
    json_field_bool(&json, "known", limit_table_find(question->table, question->key, &state));
    json_key(&json, STR("tiers"));
    json_array(&json);
    for (uint32_t i = 0; i <= limit->tier_count; i++)
        print_tier(&json, question, &limit->tiers[i],
                   i < limit->tier_count ? &tiers[i] : &limit->settings->otherwise, state, &c->arena);
    json_array_end(&json);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

void api_bucket(struct serve_client *c)
{
    struct bucket_question question;
    if (read_question(c, &question))
        reply_bucket(c, &question);
}

void api_bucket_reset(struct serve_client *c)
{
    struct bucket_question question;
    if (!read_question(c, &question))
        return;
    limit_table_reset(question.table, question.key);
    for (unsigned unit = 0; unit < WINDOW_UNITS; unit++)
        limit_table_reset(question.table, limit_quota_key(question.key, unit));
    reply_bucket(c, &question);
}
