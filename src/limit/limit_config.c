// The field table of rate_limits.
#include "limit/limit_config.h"

#include "config/header.h"
#include "http/header.h"
#include "limit/bucket.h"

#define SECOND_US UINT64_C(1000000)

enum { CLAIM_MAX = 256, BURST_MAX = 1000000000 };

// ---- where keys and tiers come from ----

enum { IN_KEY = 1, IN_TIER = 2 };

static const struct source_row {
    enum limit_source source;
    const char *text; // the whole word, or up to the name
    unsigned uses;
    bool is_named;
} sources[] = {
    {LIMIT_IDENTITY, "identity", IN_KEY, false},
    {LIMIT_CLIENT_IP, "client_ip", IN_KEY, false},
    {LIMIT_ROUTE, "route", IN_KEY, false},
    {LIMIT_GLOBAL, "global", IN_KEY, false},
    {LIMIT_ROLES, "identity.roles", IN_TIER, false},
    {LIMIT_CONSUMER, "identity.consumer", IN_TIER, false},
    {LIMIT_HEADER, "header.", IN_KEY | IN_TIER, true},
    {LIMIT_CLAIM, "jwt.", IN_KEY | IN_TIER, true},
};

static bool is_claim_path(struct str path)
{
    return path.n && path.n <= CLAIM_MAX && path.p[0] != '.' && path.p[path.n - 1] != '.' &&
           config_is_printable(path);
}

static bool decode_from(struct config_decoder *decoder, const struct config_node *node, unsigned use,
                        struct limit_from *from)
{
    struct str text, words[countof(sources)];
    size_t count = 0;
    if (!config_decode_string(decoder, node, &text))
        return false;
    for (const struct source_row *row = sources; row < sources + countof(sources); row++) {
        struct str word = str_of(row->text);
        if (!(row->uses & use))
            continue;
        if (!row->is_named) {
            words[count++] = word;
            if (!str_eq(text, word))
                continue;
        } else if (!str_starts(text, word)) {
            continue;
        }
        *from = (struct limit_from){row->source, row->is_named ? str_skip(text, word.n) : STR_NULL};
        if ((row->source == LIMIT_HEADER && !header_name_valid(from->name)) ||
            (row->source == LIMIT_CLAIM && !is_claim_path(from->name)))
            break;
        return true;
    }
    const char *hint = config_suggest(decoder, text, words, count);
    config_fail_type(decoder, node, hint,
                     use == IN_KEY ? "identity, client_ip, header.NAME, jwt.CLAIM, route or global"
                                   : "identity.roles, identity.consumer, jwt.CLAIM or header.NAME");
    return false;
}

struct str limit_from_print(const struct limit_from *from, struct arena *arena)
{
    for (const struct source_row *row = sources; row < sources + countof(sources); row++)
        if (row->source == from->source)
            return arena_printf(arena, "%s%.*s", row->text, STR_ARG(from->name));
    return STR_NULL;
}

static bool is_in_key(const struct limit_key *key, const struct limit_from *from)
{
    for (uint32_t i = 0; i < key->count; i++)
        if (key->v[i].source == from->source && str_eq(key->v[i].name, from->name))
            return true;
    return false;
}

static void add_part(struct config_decoder *decoder, const struct config_node *node, struct limit_key *key)
{
    struct limit_from from;
    if (!decode_from(decoder, node, IN_KEY, &from))
        return;
    if (is_in_key(key, &from))
        config_fail(decoder, node, "remove one of them", "named twice");
    else if (key->count == LIMIT_KEY_PARTS)
        config_fail(decoder, node, "", "more than %d parts", LIMIT_KEY_PARTS);
    else
        key->v[key->count++] = from;
}

static void decode_key(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct limit_key key = {0};
    uint32_t index = 0;
    if (node->kind == CONFIG_LIST) {
        for (const struct config_node *child = node->first; child; child = child->next) {
            config_enter_index(decoder, index++);
            add_part(decoder, child, &key);
            config_leave(decoder);
        }
        if (!node->first)
            config_fail(decoder, node, "global: one bucket for all", "an empty list");
        for (uint32_t i = 0; key.count > 1 && i < key.count; i++)
            if (key.v[i].source == LIMIT_GLOBAL)
                config_fail(decoder, node, "remove it", "global adds nothing to other parts");
    } else {
        add_part(decoder, node, &key);
    }
    if (key.count)
        memcpy(target, &key, sizeof key);
}

static struct config_node *encode_key(struct arena *arena, const void *target)
{
    const struct limit_key *key = target;
    if (key->count == 1)
        return config_new_string(arena, limit_from_print(&key->v[0], arena));
    struct config_node *list = config_new_list(arena), *last = NULL;
    for (uint32_t i = 0; i < key->count; i++)
        config_append(list, &last, STR_NULL, config_new_string(arena, limit_from_print(&key->v[i], arena)));
    return list;
}

static void decode_tier_by(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct limit_from from;
    if (decode_from(decoder, node, IN_TIER, &from))
        memcpy(target, &from, sizeof from);
}

static struct config_node *encode_tier_by(struct arena *arena, const void *target)
{
    const struct limit_from *from = target;
    return from->source ? config_new_string(arena, limit_from_print(from, arena)) : NULL;
}

// ---- rates: 100/s ----

static const struct unit {
    char letter;
    uint64_t seconds;
} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};

static void decode_rate(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct str text = node->kind == CONFIG_SCALAR ? node->text : STR_NULL;
    size_t slash = str_find(text, '/');
    struct limit_rate rate = {0};
    for (size_t i = 0; i < countof(units) && text.n - slash == 2; i++)
        if (text.p[slash + 1] == units[i].letter)
            rate.period_us = units[i].seconds * SECOND_US;
    if (!rate.period_us || !str_to_u64((struct str){text.p, slash}, UINT32_MAX * UINT64_C(100), &rate.tokens))
        config_fail_type(decoder, node, "such as 100/s, 5000/m, 100/h or 1000/d", "a rate");
    else if (!rate.tokens)
        config_fail(decoder, node, "1/d is the least", "a rate of nothing");
    else if (rate.tokens > rate.period_us)
        config_fail(decoder, node, "", "faster than a million a second");
    else
        memcpy(target, &rate, sizeof rate);
}

struct str limit_rate_print(const struct limit_rate *rate, struct arena *arena)
{
    for (size_t i = 0; i < countof(units); i++)
        if (rate->period_us == units[i].seconds * SECOND_US)
            return arena_printf(arena, "%llu/%c", (unsigned long long)rate->tokens, units[i].letter);
    return STR_NULL;
}

static struct config_node *encode_rate(struct arena *arena, const void *target)
{
    struct str text = limit_rate_print(target, arena);
    return text.n ? config_new_plain(arena, text) : NULL;
}

// ---- tiers ----

uint64_t limit_burst(const struct limit_tier_settings *tier)
{
    if (tier->burst)
        return (uint64_t)tier->burst;
    uint64_t second = tier->rate.period_us ? tier->rate.tokens * SECOND_US / tier->rate.period_us : 0;
    return second ? second : 1;
}

bool limit_quota_parse(struct str text, uint64_t *tokens, enum window_unit *unit)
{
    static const struct str names[] = {{"m", 1}, {"h", 1}, {"d", 1}, {"month", 5}};
    size_t slash = str_find(text, '/');
    *unit = WINDOW_UNITS;
    for (size_t i = 0; slash < text.n && i < countof(names); i++)
        if (str_eq(str_skip(text, slash + 1), names[i]))
            *unit = (enum window_unit)i;
    return *unit < WINDOW_UNITS && str_to_u64((struct str){text.p, slash}, WINDOW_TOKENS_MAX, tokens) &&
           *tokens;
}

static bool accept_quota(struct config_decoder *decoder, const struct config_node *node, struct str *value)
{
    uint64_t tokens;
    enum window_unit unit;
    if (limit_quota_parse(*value, &tokens, &unit))
        return true;
    config_fail(decoder, node, "such as 1000000/d, also /m, /h and /month; 1000000000 at the most",
                "not a quota: \"%.*s\"", STR_ARG(*value));
    return false;
}

static void check_quotas(struct config_decoder *decoder, const struct config_node *node,
                         const struct limit_tier_settings *tier)
{
    unsigned seen = 0;
    uint64_t tokens;
    enum window_unit unit;
    for (uint32_t i = 0; i < tier->quotas.count; i++) {
        if (!tier->quotas.v[i].p || !limit_quota_parse(tier->quotas.v[i], &tokens, &unit))
            continue;
        if (seen >> unit & 1)
            config_fail_at(decoder, node, STR("quotas"), "remove one of them", "two for the same time");
        seen |= 1u << unit;
    }
}

static bool is_given(const struct config_node *map, struct str key)
{
    const struct config_node *value = config_get(map, key);
    return value && value->kind != CONFIG_NULL;
}

static void check_tier(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    const struct limit_tier_settings *tier = target;
    struct bucket bucket;
    check_quotas(decoder, node, tier);
    if (!is_given(node, STR("rate")) && !is_given(node, STR("in_flight")))
        config_fail_at(decoder, node, STR("rate"), "add rate: 100/s, or in_flight: 20", "missing");
    if (!is_given(node, STR("rate")) && is_given(node, STR("burst")))
        config_fail_at(decoder, node, STR("burst"), "add rate: 100/s", "a burst without a rate");
    if (tier->rate.period_us &&
        !bucket_compile(&bucket, tier->rate.tokens, tier->rate.period_us, limit_burst(tier), false))
        config_fail_at(decoder, node, STR("burst"), "a smaller burst or a higher rate",
                       "an empty bucket would take longer than a year to be full again");
}

static const struct config_field tier_fields[] = {
    {.name = "rate",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct limit_tier_settings, rate),
     .nullable = true,
     .decode = decode_rate,
     .encode = encode_rate,
     .schema = "{ anyOf: [{ type: string, pattern: '^[0-9]+/[smhd]$' }, { $ref: '#/$defs/variable' }] }",
     .type_name = "a rate",
     .doc =
         "How many tokens come back: N/s, N/m, N/h or N/d, evenly over that time. Only beside in_flight it "
         "may be missing: then there is no bucket.",
     .example = "100/s"},
    {.name = "burst",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_tier_settings, burst),
     .nullable = true,
     .min = 1,
     .max = BURST_MAX,
     .doc =
         "How many tokens there are at most, and so what may come at once. null: what comes in a second, at "
         "least one."},
    {.name = "quotas",
     .type = CONFIG_STRINGS,
     .offset = offsetof(struct limit_tier_settings, quotas),
     .fallback = "[]",
     .accept = accept_quota,
     .pattern = "^[0-9]+/(m|h|d|month)$",
     .type_name = "a list of quotas",
     .doc = "Besides: so many tokens in each minute, hour, day or month of the calendar (time_zone): N/m, "
            "N/h, N/d, N/month.",
     .example = "[1000000/d]"},
    {.name = "in_flight",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_tier_settings, in_flight),
     .nullable = true,
     .min = 1,
     .max = LIMIT_IN_FLIGHT_MAX,
     .doc = "How many requests may be under way at once, in this gateway: from the verdict to the end of the "
            "answer, or of the tunnel. null: no bound.",
     .example = "20"},
    {0},
};

static const struct config_object tier_object = {
    .name = "rate_limit_tier",
    .doc = "How much one key may have.",
    .example = "{ rate: 100/s, burst: 200 }",
    .size = sizeof(struct limit_tier_settings),
    .fields = tier_fields,
    .name_offset = offsetof(struct limit_tier_settings, name),
    .check_rules = check_tier,
};

// ---- costs ----

static void decode_cost(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    static const struct str prefix = STR("header.");
    struct limit_cost cost = {.tokens = 1};
    bool is_text = node->kind == CONFIG_SCALAR && str_starts(node->text, prefix);
    if (is_text) {
        struct str text;
        if (!config_decode_string(decoder, node, &text))
            return;
        cost.header = str_skip(text, prefix.n);
        if (!header_name_valid(cost.header)) {
            config_fail_type(decoder, node, "", "a whole number or header.NAME");
            return;
        }
    } else if (node->kind != CONFIG_SCALAR || config_plain_of(node->text) != CONFIG_PLAIN_INT) {
        config_fail_type(decoder, node, "", "a whole number or header.NAME");
        return;
    } else if (!config_decode_int(decoder, node, &cost.tokens)) {
        return;
    } else if (cost.tokens < 1 || cost.tokens > LIMIT_COST_MAX) {
        config_fail(decoder, node, "", "must be between 1 and %d", LIMIT_COST_MAX);
        return;
    }
    memcpy(target, &cost, sizeof cost);
}

static struct config_node *encode_cost(struct arena *arena, const void *target)
{
    const struct limit_cost *cost = target;
    if (cost->header.n)
        return config_new_string(arena, arena_printf(arena, "header.%.*s", STR_ARG(cost->header)));
    return config_new_plain(arena, arena_printf(arena, "%lld", (long long)cost->tokens));
}

// ---- the limit ----

// The least that a request must find: a burst, or a quota.
static uint64_t least_of(const struct limit_tier_settings *tier)
{
    uint64_t least = tier->rate.tokens ? limit_burst(tier) : UINT64_MAX, tokens;
    enum window_unit unit;
    for (uint32_t i = 0; i < tier->quotas.count; i++)
        if (tier->quotas.v[i].p && limit_quota_parse(tier->quotas.v[i], &tokens, &unit) && tokens < least)
            least = tokens;
    return least;
}

static void check_costs(struct config_decoder *decoder, const struct config_node *node,
                        const struct limit_settings *limit)
{
    const struct limit_tier_settings *tiers = limit->tiers.v;
    uint64_t least = least_of(&limit->otherwise);
    for (uint32_t i = 0; i < limit->tiers.count; i++)
        least = least_of(&tiers[i]) < least ? least_of(&tiers[i]) : least;
    if ((uint64_t)limit->cost.tokens > least)
        config_fail_at(decoder, node, STR("cost"), "raise the burst or the quota",
                       "more than the %llu there ever are: no request could pass", (unsigned long long)least);
}

static void check_time_zone(struct config_decoder *decoder, const struct config_node *node,
                            struct limit_settings *limit)
{
    struct arena *arena = config_arena(decoder);
    struct time_zone *zone = arena_new(arena, struct time_zone);
    const struct str *names;
    const char *why;
    if (str_eq(limit->time_zone, STR("UTC")))
        return;
    limit->zone = zone;
    if (time_zone_load(limit->time_zone, arena, zone, &why))
        return;
    uint32_t count = time_zone_names(arena, &names);
    const char *hint = count ? config_suggest(decoder, limit->time_zone, names, count)
                             : "there is nothing in " TIME_ZONE_DIRECTORY ": install tzdata";
    config_fail_at(decoder, node, STR("time_zone"), *hint ? hint : "such as Europe/Berlin", "%s: \"%.*s\"",
                   why, STR_ARG(limit->time_zone));
}

static bool asks_who_calls(enum limit_source source)
{
    return source == LIMIT_IDENTITY || source == LIMIT_CLAIM || source == LIMIT_ROLES ||
           source == LIMIT_CONSUMER;
}

static void check_stage(struct config_decoder *decoder, const struct config_node *node,
                        const struct limit_settings *limit)
{
    static const char *why = "with before_auth nobody knows yet who calls";
    if (!limit->before_auth)
        return;
    if (asks_who_calls(limit->tier_by.source))
        config_fail_at(decoder, node, STR("tier_by"), "header.NAME, or no tiers", "%s", why);
    for (uint32_t i = 0; i < limit->key.count; i++)
        if (asks_who_calls(limit->key.v[i].source)) {
            config_fail_at(decoder, node, STR("key"), "client_ip", "%s", why);
            return;
        }
}

static void check_limit(struct config_decoder *decoder, const struct config_node *node, void *target)
{
    struct limit_settings *limit = target;
    if (limit->tiers.count && !limit->tier_by.source)
        config_fail_at(decoder, node, STR("tiers"), "add tier_by: identity.roles", "nothing chooses a tier");
    if (limit->tier_by.source && !limit->tiers.count)
        config_fail_at(decoder, node, STR("tier_by"), "add tiers, or remove it", "there are no tiers");
    if (limit->sync == LIMIT_SYNC_LEASED && limit->store == LIMIT_STORE_LOCAL)
        config_fail_at(decoder, node, STR("sync"), "store: redis, or remove it",
                       "store local has nothing to lease from");
    check_stage(decoder, node, limit);
    check_costs(decoder, node, limit);
    check_time_zone(decoder, node, limit);
}

static bool accept_tier_name(struct config_decoder *decoder, const struct config_node *node,
                             struct str *value)
{
    (void)value;
    if (node->key.n && config_is_printable(node->key) && str_find(node->key, ',') == node->key.n)
        return true;
    config_fail_key(decoder, node, "a role's or consumer's name, without commas", "not the name of a tier");
    return false;
}

static const struct config_option stores[] = {
    {"auto", LIMIT_STORE_AUTO}, {"redis", LIMIT_STORE_REDIS}, {"local", LIMIT_STORE_LOCAL}, {0}};
static const struct config_option syncs[] = {{"exact", LIMIT_SYNC_EXACT}, {"leased", LIMIT_SYNC_LEASED}, {0}};
static const struct config_option downs[] = {
    {"local", LIMIT_DOWN_LOCAL}, {"allow", LIMIT_DOWN_ALLOW}, {"deny", LIMIT_DOWN_DENY}, {0}};

#define KEY_SCHEMA                                                                        \
    "{ anyOf: [{ enum: [identity, client_ip, route, global] }, { type: string, pattern: " \
    "'^(header|jwt)[.].+$' }, { $ref: '#/$defs/variable' }] }"

static const struct config_field fields[] = {
    {.name = "key",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct limit_settings, key),
     .fallback = "identity",
     .decode = decode_key,
     .encode = encode_key,
     .schema =
         "{ anyOf: [" KEY_SCHEMA ", { type: array, minItems: 1, maxItems: 4, items: " KEY_SCHEMA " }] }",
     .type_name = "identity, client_ip, header.NAME, jwt.CLAIM, route or global, or a list of them",
     .doc =
         "Whose bucket it is. identity: the consumer, else the token's subject, else the client's address. "
         "A request without the header or the claim is counted by the client's address. Of a list, each "
         "combination has a bucket.",
     .example = "[identity, route]"},
    {.name = "tier_by",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct limit_settings, tier_by),
     .nullable = true,
     .decode = decode_tier_by,
     .encode = encode_tier_by,
     .schema = "{ anyOf: [{ type: string, pattern: '^(identity[.](roles|consumer)|(jwt|header)[.].+)$' }, { "
               "$ref: '#/$defs/variable' }] }",
     .type_name = "identity.roles, identity.consumer, jwt.CLAIM or header.NAME",
     .doc = "What chooses a tier. A header is the client's own word: only for headers that a trusted proxy "
            "sets.",
     .example = "identity.roles"},
    {.name = "tiers",
     .type = CONFIG_OBJECT_MAP,
     .offset = offsetof(struct limit_settings, tiers),
     .fallback = "{}",
     .object = &tier_object,
     .accept = accept_tier_name,
     .doc = "By role, consumer or value: the first one here that the caller has.",
     .example = "{ gold: { rate: 1000/s, burst: 2000 }, silver: { rate: 100/s } }"},
    {.name = "default",
     .type = CONFIG_OBJECT,
     .offset = offsetof(struct limit_settings, otherwise),
     .object = &tier_object,
     .required = true,
     .doc = "For everyone else.",
     .example = "{ rate: 10/s, burst: 20 }"},
    {.name = "store",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct limit_settings, store),
     .fallback = "auto",
     .options = stores,
     .doc = "Where the buckets are. redis: in the Redis of the root's redis, for all gateways together. "
            "local: in this "
            "process. auto: redis where there is one, else local."},
    {.name = "sync",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct limit_settings, sync),
     .fallback = "exact",
     .options = syncs,
     .doc =
         "How gateways share a bucket in Redis. exact: each request asks. leased: tokens are taken ahead in "
         "batches; what one gateway holds the others lack for up to a second (docs/RATE-LIMITS.md). Without "
         "Redis it has no effect."},
    {.name = "on_redis_down",
     .type = CONFIG_ENUM,
     .offset = offsetof(struct limit_settings, on_redis_down),
     .fallback = "local",
     .options = downs,
     .doc =
         "When Redis does not answer within redis.deadline. local: this gateway's share, which is the limit "
         "divided by the gateways that were alive. allow: all pass. deny: 503 limiter_unavailable."},
    {.name = "cost",
     .type = CONFIG_CUSTOM,
     .offset = offsetof(struct limit_settings, cost),
     .fallback = "1",
     .decode = decode_cost,
     .encode = encode_cost,
     .schema = "{ anyOf: [{ type: integer, minimum: 1, maximum: 1000000 }, { type: string, pattern: "
               "'^header[.].+$' }, { $ref: '#/$defs/variable' }] }",
     .type_name = "a whole number or header.NAME",
     .doc = "Tokens that a request takes. header.NAME: one, and what this header of the upstream's response "
            "says "
            "beyond that is taken afterwards, even when it is not there: the bucket then owes it, up to one "
            "burst.",
     .example = "header.X-Cost"},
    {.name = "time_zone",
     .type = CONFIG_STRING,
     .offset = offsetof(struct limit_settings, time_zone),
     .fallback = "UTC",
     .doc = "Whose days and months quotas go by: a name of the system's time zone database. A day with a "
            "change of clocks has 23 or 25 hours. Minutes and hours are those of UTC.",
     .example = "Europe/Berlin"},
    {.name = "before_auth",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct limit_settings, before_auth),
     .fallback = "false",
     .doc = "true: decided and charged before authentication, so that a flood of bad credentials is "
            "refused before the Auth Service sees it. Its key and its tiers cannot ask who calls."},
    {.name = "shadow",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct limit_settings, shadow),
     .fallback = "false",
     .doc = "true: counts and logs what it would refuse, refuses nothing, and tells clients nothing."},
    {.name = "ipv6_prefix",
     .type = CONFIG_INT,
     .offset = offsetof(struct limit_settings, ipv6_prefix),
     .fallback = "64",
     .min = 1,
     .max = 128,
     .doc = "Bits of an IPv6 address that count: one subscriber has all addresses behind them."},
    {0},
};

const struct config_object rate_limit_object = {
    .name = "rate_limit",
    .doc = "A token bucket for each key: a request takes tokens, which come back at a rate. Named by routes.",
    .example = "key: identity\n"
               "tier_by: identity.roles\n"
               "tiers:\n"
               "  gold: { rate: 1000/s, burst: 2000 }\n"
               "  silver: { rate: 100/s, burst: 200 }\n"
               "default: { rate: 10/s, burst: 20 }\n",
    .size = sizeof(struct limit_settings),
    .fields = fields,
    .has_position = true,
    .name_offset = offsetof(struct limit_settings, name),
    .check_rules = check_limit,
};

void config_check_limit_stores(struct config_decoder *decoder, const struct config_node *node,
                               const struct config_list *limits, bool has_redis)
{
    const struct limit_settings *settings = limits->v;
    const struct config_node *child = node && node->kind == CONFIG_MAP ? node->first : NULL;
    for (uint32_t i = 0; child && i < limits->count; child = child->next, i++) {
        config_enter(decoder, child->key);
        if (settings[i].store == LIMIT_STORE_REDIS && !has_redis)
            config_fail_at(decoder, child, STR("store"), "add redis, or say auto or local",
                           "there is no redis");
        config_leave(decoder);
    }
}

// ---- a route's limits ----

static bool find_limit(const struct config_list *limits, struct str name, uint32_t *index)
{
    const struct limit_settings *settings = limits->v;
    for (*index = 0; *index < limits->count; ++*index)
        if (str_eq(settings[*index].name, name))
            return true;
    return false;
}

static const char *suggest_limit(struct config_decoder *decoder, struct str name,
                                 const struct config_list *limits)
{
    const struct limit_settings *settings = limits->v;
    struct str *names = arena_array(config_arena(decoder), struct str, limits->count);
    for (uint32_t i = 0; i < limits->count; i++)
        names[i] = settings[i].name;
    const char *hint = config_suggest(decoder, name, names, limits->count);
    return *hint ? hint : "add it to rate_limits";
}

// Divides them by stage.
static void add_to_stage(struct route_limit_settings *settings, const struct config_list *limits,
                         uint32_t *indices, uint32_t index)
{
    const struct limit_settings *all = limits->v;
    struct route_limit_stage *stage =
        &settings->stages[all[index].before_auth ? LIMIT_BEFORE_AUTH : LIMIT_AFTER_AUTH];
    indices[stage->stage * settings->names.count + stage->count++] = index;
}

void config_check_route_limits(struct config_decoder *decoder, const struct config_node *node,
                               const struct config_list *limits, struct str route,
                               struct route_limit_settings *settings)
{
    uint32_t count = settings->names.count, index, i = 0;
    uint32_t *indices = arena_array(config_arena(decoder), uint32_t, LIMIT_STAGES * count);
    for (unsigned stage = 0; stage < LIMIT_STAGES; stage++)
        settings->stages[stage] = (struct route_limit_stage){
            .stage = (enum limit_stage)stage, .indices = indices + stage * count, .route = route};
    if (count > LIMITS_PER_ROUTE)
        config_fail(decoder, node, "", "more than %d limits", LIMITS_PER_ROUTE);
    const struct config_node *child = node && node->kind == CONFIG_LIST ? node->first : NULL;
    for (; child && i < count; child = child->next, i++) {
        struct str name = settings->names.v[i];
        config_enter_index(decoder, i);
        if (name.p && find_limit(limits, name, &index))
            add_to_stage(settings, limits, indices, index);
        else if (name.p)
            config_fail(decoder, child, suggest_limit(decoder, name, limits), "no limit is named \"%.*s\"",
                        STR_ARG(name));
        for (uint32_t j = 0; j < i; j++)
            if (name.p && str_eq(name, settings->names.v[j]))
                config_fail(decoder, child, "remove one of them", "named twice");
        config_leave(decoder);
    }
}
