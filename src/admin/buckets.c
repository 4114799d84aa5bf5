// Buckets of rate limits: GET shows one, and how many requests are under way; DELETE makes it full again.
//
//   /api/v1/limits/NAME?key=…&key=…     one key for each part of the limit's key (limit/limit.h)
//
// Those that are in Redis are looked at there, and made full there; what workers of this process remember of
// them is forgotten, and what they hold of them (limit/purse.h) is void.
#include "admin/room.h"

#include "base/clock.h"
#include "http/uri.h"

#include <stdlib.h>

struct bucket_question {
    struct limit_table *table;
    struct purses *purses;
    const struct limit *limit;
    struct limit_words words;
    struct hash128 key;
    // Of each tier its bucket, then its quotas: what is asked, and what is the answer.
    struct limit_query *queries;
    struct limit_told *told;
    uint32_t count;
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
    *question = (struct bucket_question){
        .table = limits->table, .purses = limits->purses, .limit = limit_named(limits, name)};
    if (!question->limit)
        return refuse(c, 404, "no limit has this name");
    const char *why = read_words(c->request.query, &c->arena, &question->words);
    if (why || !limit_key_of_words(question->limit, &question->words, &question->key, &why))
        return refuse(c, 400, why);
    return true;
}

// ---- which ----

static void add_tier(struct bucket_question *question, const struct limit_tier *tier, int64_t now_s,
                     uint64_t now_us)
{
    if (tier->has_bucket)
        question->queries[question->count++] =
            (struct limit_query){.key = tier->face.label, .rule = tier->rule};
    for (uint32_t i = 0; i < tier->quota_count; i++) {
        const struct limit_quota *quota = &tier->quotas[i];
        struct limit_query *query = &question->queries[question->count++];
        *query = (struct limit_query){.key = quota->face.label, .rule.is_window = true};
        window_at(&query->rule.window, quota->unit, question->limit->settings->zone, quota->tokens, now_s,
                  now_us);
    }
}

// Which tier a caller is in is known when it calls: what there is is shown for each.
static void prepare(struct bucket_question *question, int64_t now_s, uint64_t now_us, struct arena *arena)
{
    const struct limit *limit = question->limit;
    uint32_t room = (limit->tier_count + 1) * LIMIT_USES;
    question->queries = arena_array(arena, struct limit_query, room);
    question->told = arena_array(arena, struct limit_told, room);
    for (uint32_t i = 0; i <= limit->tier_count; i++)
        add_tier(question, &limit->tiers[i], now_s, now_us);
}

// ---- what is shown ----

// What this process holds beside what is in Redis.
static void print_leased(struct json *json, const struct bucket_question *question, struct hash128 key,
                         const struct limit_rule *rule, uint64_t now_us)
{
    struct purse_view view = {0};
    if (!question->limit->is_leased)
        return;
    purse_look(question->purses, limit_purse_key(key, rule), now_us, &view);
    json_field_u64(json, "leased", view.tokens);
}

static void print_quota(struct json *json, const struct bucket_question *question,
                        const struct limit_told *told, enum window_unit unit, struct str text,
                        uint64_t now_us)
{
    json_object(json);
    json_field_string(json, "quota", text);
    json_field_u64(json, "remaining", rule_remaining(&told->rule, told->state, now_us));
    print_leased(json, question, limit_quota_key(question->key, unit), &told->rule, now_us);
    json_field_u64(json, "ends_in_ms", rule_full_us(&told->rule, told->state, now_us) / 1000);
    json_object_end(json);
}

static void print_state(struct json *json, const struct limit_rule *rule, uint64_t state, uint64_t now_us)
{
    uint64_t settled = rule_settle(rule, state, now_us);
    json_field_u64(json, "remaining", rule_remaining(rule, settled, now_us));
    json_field_u64(json, "full_in_ms", (rule_full_us(rule, settled, now_us) + 999) / 1000);
}

static void print_tier(struct json *json, const struct bucket_question *question,
                       const struct limit_told *told, const struct limit_tier *tier,
                       const struct limit_tier_settings *settings, uint64_t now_us, struct arena *arena)
{
    json_object(json);
    json_field_string(json, "tier", tier->name.n ? tier->name : STR("default"));
    if (tier->has_bucket) {
        json_field_string(json, "rate", limit_rate_print(&settings->rate, arena));
        json_field_u64(json, "burst", rule_tokens(&tier->rule));
        print_state(json, &told->rule, told->state, now_us);
        print_leased(json, question, question->key, &tier->rule, now_us);
        told++;
    }
    json_key(json, STR("quotas"));
    json_array(json);
    for (uint32_t i = 0; i < tier->quota_count; i++)
        print_quota(json, question, &told[i], tier->quotas[i].unit, settings->quotas.v[i], now_us);
    json_array_end(json);
    if (tier->in_flight)
        json_field_u64(json, "in_flight", tier->in_flight);
    json_object_end(json);
}

static void reply_bucket(struct serve_client *c, const struct bucket_question *question, bool is_known,
                         uint64_t now_us)
{
    const struct limit *limit = question->limit;
    const struct limit_tier_settings *tiers = limit->settings->tiers.v;
    const struct limit_told *told = question->told;
    struct buf body = {0};
    struct json json;
    json_init(&json, &body, false);
    json_object(&json);
    json_field_string(&json, "name", limit->name);
    json_field_string(&json, "store", limit->is_shared ? STR("redis") : STR("local"));
    json_field_bool(&json, "known", is_known);
    if (limit->has_flight)
        json_field_u64(&json, "in_flight", flight_count(question->key));
    json_key(&json, STR("tiers"));
    json_array(&json);
    for (uint32_t i = 0; i <= limit->tier_count; i++) {
        print_tier(&json, question, told, &limit->tiers[i],
                   i < limit->tier_count ? &tiers[i] : &limit->settings->otherwise, now_us, &c->arena);
        told += limit->tiers[i].has_bucket + limit->tiers[i].quota_count;
    }
    json_array_end(&json);
    json_object_end(&json);
    serve_reply_json(c, 200, &body);
}

// ---- in this process ----

static void look_here(struct serve_client *c, struct bucket_question *question)
{
    uint64_t now_us = clock_monotonic_us(), state = 0;
    prepare(question, (int64_t)(clock_wall_us() / 1000000), now_us, &c->arena);
    bool is_known = limit_table_find(question->table, question->key, &state);
    const struct limit_tier *tier = question->limit->tiers;
    for (uint32_t i = 0; i < question->count; tier++) {
        if (tier->has_bucket) {
            question->told[i].rule = question->queries[i].rule;
            question->told[i++].state = state;
        }
        for (uint32_t j = 0; j < tier->quota_count; j++, i++) {
            struct hash128 key = limit_quota_key(question->key, tier->quotas[j].unit);
            question->told[i].rule = question->queries[i].rule;
            is_known |= limit_table_find(question->table, key, &question->told[i].state);
        }
    }
    reply_bucket(c, question, is_known, now_us);
}

static void reset_one(const struct bucket_question *question, struct hash128 key)
{
    limit_table_reset(question->table, key);
    limit_table_reset(question->table, limit_share_key(key));
}

static void reset_here(const struct bucket_question *question)
{
    const struct limit *limit = question->limit;
    reset_one(question, question->key);
    for (uint32_t i = 0; i <= limit->tier_count; i++)
        if (limit->tiers[i].has_bucket)
            purse_void(question->purses, limit_purse_key(question->key, &limit->tiers[i].rule));
    for (unsigned unit = 0; unit < WINDOW_UNITS; unit++) {
        struct hash128 key = limit_quota_key(question->key, unit);
        reset_one(question, key);
        purse_void(question->purses, key);
    }
}

// ---- in Redis ----

struct asking { // until Redis has answered; a client may go before
    struct serve_client *client;
    struct limit_gateways *gateways;
    struct gateway *gateway; // holds what the question names
    struct bucket_question question;
    struct hash128 tag;
    uint64_t asked_us;
    struct arena arena;
};

static void on_gone(void *pending)
{
    ((struct asking *)pending)->client = NULL;
}

static void finish(struct asking *asking)
{
    arena_reset(&asking->arena);
    gateway_unref(asking->gateway);
    free(asking);
}

static void reply_silence(struct serve_client *c)
{
    serve_reply_problem(
        c, &(struct serve_problem){503, STR("limiter_unavailable"), STR("Redis does not answer")});
}

// What is full has no key there.
static bool has_taken(const struct bucket_question *question, uint64_t now_us)
{
    for (uint32_t i = 0; i < question->count; i++) {
        const struct limit_told *told = &question->told[i];
        const struct window *window = &told->rule.window;
        if (told->rule.is_window ? window_remaining(window, told->state) < window->tokens
                                 : !bucket_is_full(told->state, now_us))
            return true;
    }
    return false;
}

static void on_told(void *context, const struct limit_told *told)
{
    struct asking *asking = context;
    struct bucket_question *question = &asking->question;
    struct serve_client *c = asking->client;
    if (c) {
        serve_resume(c);
        if (told)
            memcpy(question->told, told, question->count * sizeof *told);
        if (told)
            reply_bucket(c, question, has_taken(question, asking->asked_us), asking->asked_us);
        else
            reply_silence(c);
    }
    finish(asking);
}

static struct str redis_key(const struct asking *asking, struct str label, struct arena *arena)
{
    return limit_redis_key(asking->gateway->settings.redis.key_prefix, asking->tag, label, arena);
}

static void look_in_redis(struct asking *asking)
{
    struct bucket_question *question = &asking->question;
    int64_t now_s = (int64_t)(clock_wall_us() / 1000000);
    asking->asked_us = clock_monotonic_us();
    prepare(question, now_s, asking->asked_us, &asking->arena);
    for (uint32_t i = 0; i < question->count; i++)
        question->queries[i].key = redis_key(asking, question->queries[i].key, &asking->arena);
    limit_gateways_look(asking->gateways, question->queries, question->count, now_s, asking->asked_us, asking,
                        on_told);
}

// NULL: it has been answered.
static struct asking *begin(struct serve_client *c, const struct bucket_question *question)
{
    struct admin_host *host = host_of(c);
    struct limit_seed seed = {0};
    if (!host->gateways || !limit_seed_get(&seed)) {
        reply_silence(c);
        return NULL;
    }
    struct asking *asking = calloc(1, sizeof *asking);
    check(asking);
    *asking = (struct asking){.client = c,
                              .gateways = host->gateways,
                              .gateway = gateway_ref(host->gateway),
                              .question = *question};
    arena_init(&asking->arena, NULL);
    limit_tag_of_words(question->limit, &question->words, &seed.key, &asking->tag);
    serve_wait(c, asking, on_gone);
    return asking;
}

static void on_reset(void *context, bool done)
{
    struct asking *asking = context;
    if (done && asking->client)
        look_in_redis(asking);
    else
        on_told(asking, NULL);
}

static void reset_in_redis(struct asking *asking)
{
    static const char *const endings[] = {"", ":m", ":h", ":d", ":month"};
    struct str keys[countof(endings)];
    for (unsigned i = 0; i < countof(endings); i++) {
        struct str label =
            arena_printf(&asking->arena, "%.*s%s", STR_ARG(asking->question.limit->name), endings[i]);
        keys[i] = redis_key(asking, label, &asking->arena);
    }
    limit_gateways_reset(asking->gateways, keys, countof(keys), asking, on_reset);
}

// ---- the two ----

void api_bucket(struct serve_client *c)
{
    struct bucket_question question;
    if (!read_question(c, &question))
        return;
    if (!question.limit->is_shared) {
        look_here(c, &question);
        return;
    }
    struct asking *asking = begin(c, &question);
    if (asking)
        look_in_redis(asking);
}

void api_bucket_reset(struct serve_client *c)
{
    struct bucket_question question;
    if (!read_question(c, &question))
        return;
    reset_here(&question);
    if (!question.limit->is_shared) {
        look_here(c, &question);
        return;
    }
    struct asking *asking = begin(c, &question);
    if (asking)
        reset_in_redis(asking);
}
