#include "limit/limit.h"

#include "observe/metrics.h"

enum { SECOND_US = 1000000 };

// ---- compiling ----

static struct str print_policy(struct str label, uint64_t tokens, uint64_t window_s, struct arena *arena)
{
    return arena_printf(arena, "\"%.*s\";q=%llu;w=%llu", STR_ARG(label), (unsigned long long)tokens,
                        (unsigned long long)(window_s ? window_s : 1));
}

static void compile_quota(struct limit_quota *quota, struct str limit, struct str text, struct arena *arena)
{
    static const uint64_t lengths_s[] = {
        [WINDOW_MINUTE] = 60, [WINDOW_HOUR] = 3600, [WINDOW_DAY] = 86400, [WINDOW_MONTH] = 30 * 86400};
    check(limit_quota_parse(text, &quota->tokens, &quota->unit)); // the tables have seen it
    struct str unit = str_skip(text, str_find(text, '/') + 1);
    quota->face.label = arena_printf(arena, "%.*s:%.*s", STR_ARG(limit), STR_ARG(unit));
    quota->face.policy = print_policy(quota->face.label, quota->tokens, lengths_s[quota->unit], arena);
}

static void compile_bucket(struct limit_tier *tier, const struct limit *limit,
                           const struct limit_tier_settings *settings, struct arena *arena)
{
    struct bucket *bucket = &tier->rule.bucket;
    check(bucket_compile(bucket, settings->rate.tokens, settings->rate.period_us, limit_burst(settings),
                         limit->settings->cost.header.n)); // the tables have seen it
    tier->face.label = limit->name;
    tier->face.policy = print_policy(limit->name, bucket->burst,
                                     (bucket->span / bucket->parts + SECOND_US - 1) / SECOND_US, arena);
}

static void compile_tier(struct limit_tier *tier, const struct limit *limit,
                         const struct limit_tier_settings *settings, struct arena *arena)
{
    tier->name = settings->name;
    tier->in_flight = (uint32_t)settings->in_flight;
    tier->has_bucket = settings->rate.period_us;
    if (tier->has_bucket)
        compile_bucket(tier, limit, settings, arena);
    struct limit_quota *quotas = arena_array(arena, struct limit_quota, settings->quotas.count);
    for (uint32_t i = 0; i < settings->quotas.count; i++)
        compile_quota(&quotas[i], limit->name, settings->quotas.v[i], arena);
    tier->quotas = quotas;
    tier->quota_count = settings->quotas.count;
}

static void compile_limit(struct limit *limit, const struct limit_settings *settings, bool has_redis,
                          struct arena *arena)
{
    const struct limit_tier_settings *tiers = settings->tiers.v;
    struct limit_tier *compiled = arena_array(arena, struct limit_tier, settings->tiers.count + 1);
    limit->settings = settings;
    limit->name = settings->name;
    limit->id = metric_name_id(NAME_LIMIT, settings->name);
    limit->head = siphash128(siphash_process_key(), 0, settings->name).lo;
    limit->tier_count = settings->tiers.count;
    limit->tiers = compiled;
    limit->cost_header = header_id_of(settings->cost.header);
    for (uint32_t i = 0; i < limit->tier_count; i++)
        compile_tier(&compiled[i], limit, &tiers[i], arena);
    compile_tier(&compiled[limit->tier_count], limit, &settings->otherwise, arena);
    bool wants_redis =
        settings->store == LIMIT_STORE_REDIS || (settings->store == LIMIT_STORE_AUTO && has_redis);
    for (uint32_t i = 0; i <= limit->tier_count; i++) {
        limit->has_flight |= compiled[i].in_flight;
        limit->is_shared |= wants_redis && (compiled[i].has_bucket || compiled[i].quota_count);
    }
    limit->is_leased = limit->is_shared && settings->sync == LIMIT_SYNC_LEASED;
}

static void add_claim(struct limits *limits, const struct limit_from *from)
{
    if (from->source == LIMIT_CLAIM)
        limits->claims.v[limits->claims.count++] = from->name;
}

void limits_compile(struct limits *limits, const struct config_list *settings,
                    const struct redis_settings *redis, struct limit_table *table, struct arena *arena)
{
    const struct limit_settings *from = settings->v;
    struct limit *compiled = arena_array(arena, struct limit, settings->count);
    *limits = (struct limits){
        .v = compiled, .count = settings->count, .table = table, .purses = purses_shared(), .redis = redis};
    limits->claims.v = arena_array(arena, struct str, settings->count * (LIMIT_KEY_PARTS + 1));
    for (uint32_t i = 0; i < settings->count; i++) {
        compile_limit(&compiled[i], &from[i], redis, arena);
        limits->any_shared |= compiled[i].is_shared;
        limits->any_flight |= compiled[i].has_flight;
        add_claim(limits, &from[i].tier_by);
        for (uint32_t j = 0; j < from[i].key.count; j++)
            add_claim(limits, &from[i].key.v[j]);
    }
}

const struct limit *limit_named(const struct limits *limits, struct str name)
{
    for (uint32_t i = 0; i < limits->count; i++)
        if (str_eq(limits->v[i].name, name))
            return &limits->v[i];
    return NULL;
}

// ---- what a request says of itself ----

// n == 0: it does not.
static struct str header_of(const struct limit_caller *caller, struct str name)
{
    const struct header *header = headers_find_name(caller->headers, name);
    return header ? header->value : STR_NULL;
}

static struct str claim_of(const struct limit_caller *caller, struct str path)
{
    const struct identity *identity = caller->identity;
    for (uint32_t i = 0; identity && i < identity->claim_count; i++)
        if (str_eq(identity->claims[i].name, path))
            return identity->claims[i].value;
    return STR_NULL;
}

// ---- keys: a chain of hashes, one link for each part ----

// A chain begins with the hash of the limit's name, and the process's seed: its end is the key. Or with
// nothing, and the seed that all gateways share: its end is the tag.
struct chain {
    const struct siphash_key *seed;
    struct hash128 end;
};

// What a part's text is, so that the consumer alice is not the subject alice.
enum part_kind {
    PART_ADDRESS = 1,
    PART_CONSUMER,
    PART_ISSUER,
    PART_SUBJECT,
    PART_HEADER,
    PART_CLAIM,
    PART_ROUTE,
    PART_QUOTA
};

static void link(struct chain *chain, enum part_kind kind, struct str text)
{
    chain->end = siphash128(chain->seed, chain->end.lo + kind, text);
}

static void link_address(struct chain *chain, const struct ip *ip, unsigned prefix)
{
    uint8_t bytes[sizeof ip->bytes] = {0};
    if (ip->family == AF_INET6) {
        memcpy(bytes, ip->bytes, prefix / 8);
        if (prefix % 8)
            bytes[prefix / 8] = (uint8_t)(ip->bytes[prefix / 8] & 0xff00 >> prefix % 8);
    } else if (ip->family) { // a unix socket's peers have no address and one bucket
        memcpy(bytes, ip->bytes, sizeof bytes);
    }
    link(chain, PART_ADDRESS, (struct str){(const char *)bytes, sizeof bytes});
}

static void link_subject(struct chain *chain, struct str issuer, struct str subject)
{
    if (issuer.n) // two issuers may have the same name for two people
        link(chain, PART_ISSUER, issuer);
    link(chain, PART_SUBJECT, subject);
}

static void link_part(struct chain *chain, const struct limit *limit, const struct limit_from *from,
                      const struct limit_caller *caller)
{
    const struct identity *identity = caller->identity;
    struct str text;
    switch (from->source) {
    case LIMIT_GLOBAL: link(chain, 0, STR_NULL); return;
    case LIMIT_ROUTE: link(chain, PART_ROUTE, caller->route); return;
    case LIMIT_IDENTITY:
        if (identity && identity->consumer.n) {
            link(chain, PART_CONSUMER, identity->consumer);
            return;
        }
        if (identity && identity->subject.n) {
            link_subject(chain, identity->issuer, identity->subject);
            return;
        }
        break;
    case LIMIT_HEADER:
        text = header_of(caller, from->name);
        if (text.n) {
            link(chain, PART_HEADER, text);
            return;
        }
        break;
    case LIMIT_CLAIM:
        text = claim_of(caller, from->name);
        if (text.n) {
            link(chain, PART_CLAIM, text);
            return;
        }
        break;
    default: break;
    }
    link_address(chain, caller->client, (unsigned)limit->settings->ipv6_prefix);
}

static struct hash128 link_parts(struct chain chain, const struct limit *limit,
                                 const struct limit_caller *caller)
{
    const struct limit_key *key = &limit->settings->key;
    for (uint32_t i = 0; i < key->count; i++)
        link_part(&chain, limit, &key->v[i], caller);
    return chain.end;
}

// ---- tiers ----

static bool is_among(struct str list, struct str name)
{
    struct str token;
    while (str_next_token(&list, &token))
        if (str_eq(token, name))
            return true;
    return false;
}

static bool is_in_tier(const struct limit_from *by, struct str text, const struct identity *identity,
                       struct str tier)
{
    switch (by->source) {
    case LIMIT_ROLES: return identity && str_list_has(&identity->roles, tier);
    case LIMIT_CLAIM: return is_among(text, tier);
    default: return text.n && str_eq(text, tier);
    }
}

static const struct limit_tier *tier_of(const struct limit *limit, const struct limit_caller *caller)
{
    const struct limit_from *by = &limit->settings->tier_by;
    struct str text = STR_NULL;
    if (by->source == LIMIT_HEADER)
        text = header_of(caller, by->name);
    else if (by->source == LIMIT_CLAIM)
        text = claim_of(caller, by->name);
    else if (by->source == LIMIT_CONSUMER && caller->identity)
        text = caller->identity->consumer;
    uint32_t i = 0;
    while (i < limit->tier_count && !is_in_tier(by, text, caller->identity, limit->tiers[i].name))
        i++;
    return &limit->tiers[i]; // the last one: default
}

struct hash128 limit_quota_key(struct hash128 key, enum window_unit unit)
{
    static const struct str letters[] = {{"m", 1}, {"h", 1}, {"d", 1}, {"M", 1}};
    struct chain chain = {siphash_process_key(), key};
    link(&chain, PART_QUOTA, letters[unit]);
    return chain.end;
}

static void ask_quota(const struct limit_quota *quota, const struct limit_caller *caller,
                      const struct limit_use *bucket, struct limit_use *use)
{
    *use = (struct limit_use){.limit = bucket->limit,
                              .face = &quota->face,
                              .rule.is_window = true,
                              .key = limit_quota_key(bucket->key, quota->unit),
                              .tag = bucket->tag,
                              .cost = bucket->cost};
    window_at(&use->rule.window, quota->unit, bucket->limit->settings->zone, quota->tokens, caller->now_s,
              caller->now_us);
}

static struct hash128 key_of(const struct limit *limit, const struct limit_caller *caller)
{
    struct chain own = {siphash_process_key(), {.lo = limit->head}};
    return link_parts(own, limit, caller);
}

uint32_t limit_ask(const struct limit *limit, const struct limit_caller *caller, struct limit_use *uses)
{
    const struct limit_tier *tier = tier_of(limit, caller);
    struct limit_use bucket = {.limit = limit,
                               .face = &tier->face,
                               .rule = tier->rule,
                               .key = key_of(limit, caller),
                               .cost = (uint64_t)limit->settings->cost.tokens};
    if (limit->is_shared && caller->shared_seed)
        bucket.tag = link_parts((struct chain){.seed = caller->shared_seed}, limit, caller);
    uint32_t count = 0;
    if (tier->has_bucket)
        uses[count++] = bucket;
    for (uint32_t i = 0; i < tier->quota_count; i++)
        ask_quota(&tier->quotas[i], caller, &bucket, &uses[count++]);
    return count;
}

bool limit_ask_flight(const struct limit *limit, const struct limit_caller *caller,
                      struct limit_flight *flight)
{
    const struct limit_tier *tier = limit->has_flight ? tier_of(limit, caller) : NULL;
    if (!tier || !tier->in_flight)
        return false;
    *flight = (struct limit_flight){.limit = limit, .key = key_of(limit, caller), .most = tier->in_flight};
    return true;
}

// ---- verdicts ----

static void take(struct limit_table *table, struct limit_use *use, uint64_t now_us)
{
    use->wait_us = limit_table_take(table, use->key, &use->rule, now_us, use->cost, &use->state);
}

static const struct limit_use *refuser(const struct limit_use *uses, uint32_t count)
{
    const struct limit_use *longest = NULL;
    for (uint32_t i = 0; i < count; i++)
        if (uses[i].wait_us && !uses[i].limit->settings->shadow &&
            (!longest || uses[i].wait_us > longest->wait_us))
            longest = &uses[i];
    return longest;
}

// Somebody else was quicker: what has been taken before is given back.
static void give_back(struct limit_table *table, const struct limit_use *uses, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (!uses[i].wait_us)
            limit_table_give(table, uses[i].key, &uses[i].rule, uses[i].cost);
}

const struct limit_use *limits_look(struct limit_table *table, struct limit_use *uses, uint32_t count,
                                    uint64_t now_us)
{
    for (uint32_t i = 0; i < count; i++)
        uses[i].wait_us =
            limit_table_look(table, uses[i].key, &uses[i].rule, now_us, uses[i].cost, &uses[i].state);
    return refuser(uses, count);
}

const struct limit_use *limits_take(struct limit_table *table, struct limit_use *uses, uint32_t count,
                                    uint64_t now_us)
{
    const struct limit_use *refusing = count > 1 ? limits_look(table, uses, count, now_us) : NULL;
    if (refusing)
        return refusing;
    for (uint32_t i = 0; i < count; i++) {
        take(table, &uses[i], now_us);
        if (uses[i].wait_us && !uses[i].limit->settings->shadow) {
            give_back(table, uses, i);
            return &uses[i];
        }
    }
    return NULL;
}

void limit_take_rest(struct limit_table *table, struct limit_use *use, uint64_t cost, uint64_t now_us)
{
    if (cost > use->cost)
        use->state = limit_table_charge(table, use->key, &use->rule, now_us, cost - use->cost);
    else if (cost < use->cost)
        use->state = limit_table_give(table, use->key, &use->rule, use->cost - cost);
    use->cost = cost;
}

// ---- requests under way ----

const struct limit_flight *limits_enter(struct limit_flight *flights, uint32_t count)
{
    const struct limit_flight *refusing = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct limit_flight *flight = &flights[i];
        if (refusing) { // only to be told
            flight->is_over = flight_count(flight->key) >= flight->most;
            continue;
        }
        flight->is_held = flight_enter(&flight->place, flight->key, flight->most);
        flight->is_over = !flight->is_held;
        if (flight->is_over && !flight->limit->settings->shadow)
            refusing = flight;
    }
    if (refusing)
        limits_leave(flights, count);
    return refusing;
}

void limits_leave(struct limit_flight *flights, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (flights[i].is_held) {
            flight_leave(&flights[i].place);
            flights[i].is_held = false;
        }
}

// ---- keys by their words ----

static bool take_prefix(struct str *text, struct str prefix)
{
    if (!str_starts(*text, prefix))
        return false;
    *text = str_skip(*text, prefix.n);
    return true;
}

static bool link_address_word(struct chain *chain, const struct limit *limit, struct str word,
                              const char **why)
{
    struct ip ip;
    *why = "not an address";
    if (!ip_parse(word, &ip))
        return false;
    link_address(chain, &ip, (unsigned)limit->settings->ipv6_prefix);
    return true;
}

static bool link_identity_word(struct chain *chain, const struct limit *limit, struct str word,
                               struct str issuer, const char **why)
{
    *why = "expected consumer:NAME, subject:NAME or client_ip:ADDRESS";
    if (take_prefix(&word, STR("client_ip:")))
        return link_address_word(chain, limit, word, why);
    if (take_prefix(&word, STR("consumer:")))
        link(chain, PART_CONSUMER, word);
    else if (take_prefix(&word, STR("subject:")))
        link_subject(chain, issuer, word);
    else
        return false;
    return true;
}

static bool link_word(struct chain *chain, const struct limit *limit, const struct limit_from *from,
                      struct str word, struct str issuer, const char **why)
{
    switch (from->source) {
    case LIMIT_IDENTITY: return link_identity_word(chain, limit, word, issuer, why);
    case LIMIT_CLIENT_IP: return link_address_word(chain, limit, word, why);
    case LIMIT_ROUTE: link(chain, PART_ROUTE, word); return true;
    default: break;
    }
    if (take_prefix(&word, STR("client_ip:"))) // of who does not send it
        return link_address_word(chain, limit, word, why);
    link(chain, from->source == LIMIT_HEADER ? PART_HEADER : PART_CLAIM, word);
    return true;
}

static bool link_words(struct chain *chain, const struct limit *limit, const struct limit_words *words,
                       const char **why)
{
    const struct limit_key *parts = &limit->settings->key;
    bool is_global = parts->v[0].source == LIMIT_GLOBAL;
    *why =
        is_global ? "a global limit has one bucket: without key" : "one key for each part of the limit's key";
    if (words->count != (is_global ? 0 : parts->count))
        return false;
    if (is_global)
        link(chain, 0, STR_NULL);
    for (uint32_t i = 0; i < words->count; i++)
        if (!link_word(chain, limit, &parts->v[i], words->v[i], words->issuer, why))
            return false;
    return true;
}

bool limit_key_of_words(const struct limit *limit, const struct limit_words *words, struct hash128 *key,
                        const char **why)
{
    struct chain chain = {siphash_process_key(), {.lo = limit->head}};
    bool good = link_words(&chain, limit, words, why);
    *key = chain.end;
    return good;
}

bool limit_tag_of_words(const struct limit *limit, const struct limit_words *words,
                        const struct siphash_key *shared_seed, struct hash128 *tag)
{
    struct chain chain = {.seed = shared_seed};
    const char *why;
    bool good = link_words(&chain, limit, words, &why);
    *tag = chain.end;
    return good;
}

static char *put(char *to, struct str text)
{
    if (text.n)
        memcpy(to, text.p, text.n);
    return to + text.n;
}

static char *put_hex(char *to, uint64_t value)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned shift = 64; shift;)
        *to++ = digits[value >> (shift -= 4) & 15];
    return to;
}

struct str limit_redis_key(struct str prefix, struct hash128 tag, struct str label, struct arena *arena)
{
    enum { TAG_BYTES = sizeof "{}" - 1 + 2 * sizeof tag };
    char *key = arena_alloc(arena, prefix.n + TAG_BYTES + label.n);
    char *end = put(put_hex(put_hex(put(put(key, prefix), STR("{")), tag.lo), tag.hi), STR("}"));
    return str_range(key, put(end, label));
}
