#include "limit/gateways.h"

#include "base/log.h"
#include "base/rand.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    DEADLINE_US = 1000000, // nobody waits on a request's path for these
    SEED_DIGITS = 32,
};

static const char heartbeat[] = "local now = redis.call('TIME')[1]\n"
                                "redis.call('ZADD', KEYS[1], now, ARGV[1])\n"
                                "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])\n"
                                "redis.call('EXPIRE', KEYS[1], 60)\n"
                                "return redis.call('ZCARD', KEYS[1])\n";

struct limit_gateways {
    struct loop *loop;
    struct arena arena;
    struct redis_fleet *fleet;
    struct loop_timer timer;
    struct str seed_key, members_key, id;
    char offer[SEED_DIGITS]; // the seed it knows or would have
    bool published;          // what is known now came from here
    uint64_t up_us;          // since when Redis is heard of
    bool odd;                // the seed in Redis is none, and that has been said
};

// ---- what threads share ----

static pthread_mutex_t seed_lock = PTHREAD_MUTEX_INITIALIZER;
static struct siphash_key seed_key;
static _Atomic uint64_t seed_version; // 0: not known; it is a new one for each new seed
static uint64_t seed_versions;
static _Atomic uint32_t alive = 1;

static void publish_seed(struct siphash_key key)
{
    pthread_mutex_lock(&seed_lock);
    if (!atomic_load(&seed_version) || seed_key.k0 != key.k0 || seed_key.k1 != key.k1) {
        seed_key = key;
        atomic_store(&seed_version, ++seed_versions);
    }
    pthread_mutex_unlock(&seed_lock);
}

bool limit_seed_get(struct limit_seed *seed)
{
    uint64_t version = atomic_load_explicit(&seed_version, memory_order_acquire);
    if (unlikely(version != seed->version)) {
        pthread_mutex_lock(&seed_lock);
        seed->version = atomic_load(&seed_version);
        seed->key = seed_key;
        pthread_mutex_unlock(&seed_lock);
    }
    return seed->version != 0;
}

uint32_t limit_gateways_count(void)
{
    return atomic_load_explicit(&alive, memory_order_relaxed);
}

// ---- the seed ----

static bool parse_half(struct str text, uint64_t *half)
{
    *half = 0;
    for (size_t i = 0; i < text.n; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = text.p[i] ? strchr(digits, text.p[i]) : NULL;
        if (!digit)
            return false;
        *half = *half << 4 | (uint64_t)(digit - digits);
    }
    return true;
}

static bool parse_seed(struct str text, struct siphash_key *key)
{
    return text.n == SEED_DIGITS && parse_half((struct str){text.p, SEED_DIGITS / 2}, &key->k0) &&
           parse_half(str_skip(text, SEED_DIGITS / 2), &key->k1);
}

static void on_seed(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct limit_gateways *gateways = context;
    struct siphash_key key;
    if (failure != REDIS_OK || reply->kind != RESP_STRING)
        return; // asked for again with the next heartbeat
    if (parse_seed(reply->text, &key)) {
        memcpy(gateways->offer, reply->text.p, SEED_DIGITS);
        gateways->published = true;
        gateways->odd = false;
        publish_seed(key);
    } else if (!gateways->odd) {
        gateways->odd = true;
        log_error("limit", "%.*s in Redis is none of ours: limits are kept without Redis",
                  STR_ARG(gateways->seed_key));
    }
}

// ---- heartbeats ----

uint32_t limit_gateways_believe(uint32_t known, int64_t told, uint64_t heard_ms)
{
    if (told < known && heard_ms < LIMIT_GATEWAY_GONE_S * 1000)
        return known;
    return told < 1 ? 1 : told < BUCKET_SHARES ? (uint32_t)told : BUCKET_SHARES;
}

static void on_count(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    const struct limit_gateways *gateways = context;
    if (failure != REDIS_OK || reply->kind != RESP_INTEGER)
        return; // the last known number stays
    uint64_t heard_ms = (gateways->loop->now_us - gateways->up_us) / 1000;
    atomic_store(&alive, limit_gateways_believe(atomic_load(&alive), reply->integer, heard_ms));
}

static void beat(struct limit_gateways *gateways)
{
    char gone[4];
    const struct str members[] = {STR("EVAL"),  STR(heartbeat),
                                  STR("1"),     gateways->members_key,
                                  gateways->id, {gone, u64_print(LIMIT_GATEWAY_GONE_S, gone)}};
    const struct str offer[] = {STR("SET"), gateways->seed_key, {gateways->offer, SEED_DIGITS}, STR("NX")};
    const struct str get[] = {STR("GET"), gateways->seed_key};
    redis_fleet_command(gateways->fleet, gateways->seed_key, offer, countof(offer), DEADLINE_US, NULL, NULL);
    redis_fleet_command(gateways->fleet, gateways->seed_key, get, countof(get), DEADLINE_US, gateways,
                        on_seed);
    redis_fleet_command(gateways->fleet, gateways->members_key, members, countof(members), DEADLINE_US,
                        gateways, on_count);
}

static void on_tick(struct loop_timer *timer)
{
    struct limit_gateways *gateways = container_of(timer, struct limit_gateways, timer);
    if (redis_fleet_is_up(gateways->fleet))
        beat(gateways);
    loop_timer_set(gateways->loop, timer, LIMIT_HEARTBEAT_MS);
}

static void on_up(void *context)
{
    struct limit_gateways *gateways = context;
    gateways->up_us = gateways->loop->now_us;
    beat(gateways);
}

// ---- life ----

static struct str draw(struct arena *arena)
{
    uint64_t secret[2];
    rand_secret(secret, sizeof secret);
    return arena_printf(arena, "%016llx%016llx", (unsigned long long)secret[0],
                        (unsigned long long)secret[1]);
}

struct limit_gateways *limit_gateways_new(const struct redis_access *access, struct err *err)
{
    static const struct redis_fleet_events events = {.on_up = on_up};
    struct limit_gateways *gateways = calloc(1, sizeof *gateways);
    check(gateways);
    struct str prefix = access->settings->key_prefix;
    gateways->loop = access->loop;
    arena_init(&gateways->arena, NULL);
    loop_timer_init(&gateways->timer, on_tick);
    gateways->seed_key = arena_printf(&gateways->arena, "%.*sseed", STR_ARG(prefix));
    gateways->members_key = arena_printf(&gateways->arena, "%.*sgateways", STR_ARG(prefix));
    gateways->id = draw(&gateways->arena);
    memcpy(gateways->offer, draw(&gateways->arena).p, SEED_DIGITS);
    gateways->fleet = redis_fleet_new(
        &(struct redis_fleet_options){
            .access = *access, .purpose = "rate limits, heartbeat", .events = &events, .context = gateways},
        err);
    if (!gateways->fleet) {
        limit_gateways_free(gateways);
        return NULL;
    }
    loop_timer_set(gateways->loop, &gateways->timer, LIMIT_HEARTBEAT_MS);
    return gateways;
}

void limit_gateways_free(struct limit_gateways *gateways)
{
    if (!gateways)
        return;
    loop_timer_stop(gateways->loop, &gateways->timer);
    redis_fleet_free(gateways->fleet);
    if (gateways->published)
        atomic_store(&seed_version, 0);
    arena_reset(&gateways->arena);
    free(gateways);
}

bool limit_gateways_is_same(const struct limit_gateways *a, const struct limit_gateways *b)
{
    return redis_fleet_is_same(a->fleet, b->fleet);
}

// ---- for people ----

struct look {
    struct arena arena;
    const struct limit_query *queries;
    uint32_t count;
    uint64_t now_us;
    void *context;
    void (*on_told)(void *context, const struct limit_told *told);
};

static void on_look(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct look *look = context;
    struct limit_told *told = arena_array(&look->arena, struct limit_told, look->count);
    bool passes;
    if (failure != REDIS_OK ||
        !limit_script_read(reply, look->queries, look->count, look->now_us, &passes, told))
        told = NULL;
    look->on_told(look->context, told);
    arena_reset(&look->arena);
    free(look);
}

void limit_gateways_look(struct limit_gateways *gateways, const struct limit_query *queries, uint32_t count,
                         int64_t now_s, uint64_t now_us, void *context,
                         void (*on_told)(void *context, const struct limit_told *told))
{
    struct look *look = calloc(1, sizeof *look);
    check(look);
    arena_init(&look->arena, NULL);
    struct limit_query *copy = arena_array(&look->arena, struct limit_query, count);
    memcpy(copy, queries, count * sizeof *queries);
    look->queries = copy;
    look->count = count;
    look->now_us = now_us;
    look->context = context;
    look->on_told = on_told;
    struct str *argv;
    unsigned argc = limit_script_command(LIMIT_LOOK, queries, count, now_s, &look->arena, &argv);
    limit_script_spell_out(argv);
    redis_fleet_command(gateways->fleet, queries[0].key, argv, argc, DEADLINE_US, look, on_look);
}

struct reset {
    void *context;
    void (*on_reset)(void *context, bool done);
};

static void on_deleted(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct reset *reset = context;
    reset->on_reset(reset->context, failure == REDIS_OK && reply->kind == RESP_INTEGER);
    free(reset);
}

void limit_gateways_reset(struct limit_gateways *gateways, const struct str *keys, uint32_t count,
                          void *context, void (*on_reset)(void *context, bool done))
{
    struct reset *reset = calloc(1, sizeof *reset);
    check(reset);
    *reset = (struct reset){context, on_reset};
    struct arena arena;
    arena_init(&arena, NULL);
    struct str *argv = arena_array(&arena, struct str, 1 + count);
    argv[0] = STR("DEL");
    memcpy(argv + 1, keys, count * sizeof *keys);
    redis_fleet_command(gateways->fleet, keys[0], argv, 1 + count, DEADLINE_US, reset, on_deleted);
    arena_reset(&arena);
}
