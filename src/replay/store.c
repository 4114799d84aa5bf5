#include "replay/store.h"

#include "base/log.h"
#include "replay/table.h"

#include <stdlib.h>

enum { AFTERWARDS_US = 1000000 }; // nobody waits on a request's path for what is kept or dropped

static const struct str purpose = {"idempotency:", 12};

struct replay_store {
    struct replay_store_needs needs;
    struct redis_keeper redis;
    struct str prefix; // on the heap
};

struct replay_question {
    struct replay_store *store;
    struct replay_asking *asking; // NULL: nobody waits any more
    struct replay_hash name, print;
    char running[REPLAY_RUNNING_BYTES];
};

// ---- what is said to Redis ----

static const char claim_script[] = "local v=redis.call('GET',KEYS[1]) if v then return v end "
                                   "redis.call('SET',KEYS[1],ARGV[1],'PX',ARGV[2]) return false";
static const char keep_script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                                  "redis.call('SET',KEYS[1],ARGV[2],'PX',ARGV[3]) return 1 end return 0";
static const char drop_script[] = "if redis.call('GET',KEYS[1])==ARGV[1] then "
                                  "return redis.call('DEL',KEYS[1]) end return 0";

struct command {
    const char *script;
    struct replay_hash name;
    struct str values[3]; // ARGV
    unsigned count;
    uint64_t deadline_us; // 0: the settings'
    void *context;
    void (*on_reply)(void *context, enum redis_failure failure, const struct resp_value *reply);
};

static struct str key_of(const struct replay_store *store, struct replay_hash name, struct arena *arena)
{
    static const char digits[] = "0123456789abcdef";
    char *text = arena_alloc(arena, store->prefix.n + purpose.n + 2 * (size_t)REPLAY_HASH_BYTES);
    char *at = mempcpy(mempcpy(text, store->prefix.p, store->prefix.n), purpose.p, purpose.n);
    for (unsigned i = 0; i < REPLAY_HASH_BYTES; i++) {
        *at++ = digits[name.bytes[i] >> 4];
        *at++ = digits[name.bytes[i] & 15];
    }
    return str_range(text, at);
}

static struct str print_ms(uint64_t us, char digits[static 20])
{
    uint64_t ms = us / 1000;
    return (struct str){digits, u64_print(ms ? ms : 1, digits)};
}

// Everything of it is copied.
static void tell(struct replay_store *store, const struct command *command)
{
    struct arena arena;
    if (!store->redis.fleet) // a reload took Redis away while the request was under way
        return;
    arena_init(&arena, NULL);
    struct str key = key_of(store, command->name, &arena);
    struct str argv[4 + countof(command->values)] = {STR("EVAL"), str_of(command->script), STR("1"), key};
    memcpy(argv + 4, command->values, sizeof command->values);
    redis_fleet_command(store->redis.fleet, key, argv, 4 + command->count, command->deadline_us,
                        command->context, command->on_reply);
    arena_reset(&arena);
}

static void on_done(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    (void)context;
    if (failure || reply->kind == RESP_ERROR)
        log_debug("idempotency", "Redis has not taken what became of a request");
}

static void drop_in_redis(struct replay_store *store, struct replay_hash name, const char *running)
{
    tell(store, &(struct command){.script = drop_script,
                                  .name = name,
                                  .values = {{running, REPLAY_RUNNING_BYTES}},
                                  .count = 1,
                                  .deadline_us = AFTERWARDS_US,
                                  .on_reply = on_done});
}

static void keep_in_redis(struct replay_store *store, const struct replay_asking *asking, struct str answer,
                          uint64_t ttl_us)
{
    char digits[20];
    size_t n = REPLAY_VALUE_HEAD_BYTES + answer.n;
    char *value = arena_alloc(asking->arena, n), *at = value;
    *at++ = 'd';
    at = mempcpy(at, asking->print.bytes, REPLAY_HASH_BYTES);
    if (answer.n)
        memcpy(at, answer.p, answer.n);
    tell(store, &(struct command){
                    .script = keep_script,
                    .name = asking->name,
                    .values = {{asking->running, REPLAY_RUNNING_BYTES}, {value, n}, print_ms(ttl_us, digits)},
                    .count = 3,
                    .deadline_us = AFTERWARDS_US,
                    .on_reply = on_done});
}

// ---- what it answers ----

static enum replay_state hear(struct replay_asking *asking, enum redis_failure failure,
                              const struct resp_value *reply)
{
    if (failure)
        return REPLAY_UNAVAILABLE;
    struct str answer = STR_NULL;
    enum replay_state state = replay_value_read(reply, &asking->print, &answer);
    if (state != REPLAY_NEW && state != REPLAY_UNAVAILABLE)
        asking->is_in_redis = false; // another one's
    if (state == REPLAY_ANSWER && !(asking->answer = shared_copy(answer)))
        return REPLAY_LOST; // memory is out: it must not be carried out again
    return state;
}

static void on_answer(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct replay_question *question = context;
    struct replay_store *store = question->store;
    struct replay_asking *asking = question->asking;
    if (asking) {
        asking->question = NULL;
        asking->told = hear(asking, failure, reply);
        asking->is_told = true;
        store->needs.wake(store->needs.context, asking->ticket);
    } else if (!failure && reply->kind == RESP_NULL) {
        drop_in_redis(store, question->name, question->running); // claimed, for nobody
    }
    free(question);
}

static void ask(struct replay_store *store, struct replay_asking *asking, uint64_t now_us)
{
    struct replay_question *question = calloc(1, sizeof *question);
    check(question);
    char *at = asking->running;
    *at++ = 'r';
    at = mempcpy(at, asking->print.bytes, REPLAY_HASH_BYTES);
    for (unsigned i = 0; i < REPLAY_TOKEN_BYTES; i += sizeof(uint64_t)) {
        uint64_t random = rand_u64(store->needs.rand);
        at = mempcpy(at, &random, sizeof random);
    }
    *question = (struct replay_question){.store = store, .asking = asking, .name = asking->name};
    memcpy(question->running, asking->running, sizeof question->running);
    asking->question = question;
    asking->is_in_redis = true;
    char digits[20];
    tell(store, &(struct command){
                    .script = claim_script,
                    .name = asking->name,
                    .values = {{asking->running, REPLAY_RUNNING_BYTES},
                               print_ms(asking->until_us > now_us ? asking->until_us - now_us : 0, digits)},
                    .count = 2,
                    .context = question,
                    .on_reply = on_answer});
}

// ---- the request's way ----

// Redis has not said anything, or may have: its place there is given back with the one here.
static enum replay_state without_redis(struct replay_store *store, struct replay_asking *asking)
{
    if (asking->on_redis_down == REPLAY_DOWN_LOCAL)
        return REPLAY_NEW;
    replay_drop(store, asking);
    return REPLAY_UNAVAILABLE;
}

static enum replay_state heed(struct replay_store *store, struct replay_asking *asking)
{
    if (asking->told == REPLAY_UNAVAILABLE)
        return without_redis(store, asking);
    if (asking->told != REPLAY_NEW)
        replay_table_drop(asking->name, asking->token);
    return asking->told;
}

enum replay_state replay_claim(struct replay_store *store, struct replay_asking *asking, uint64_t now_us)
{
    if (asking->question)
        return REPLAY_WAIT;
    if (asking->is_told)
        return heed(store, asking);
    // Of requests under way in this process the end is always heard of, however late.
    enum replay_state here =
        replay_table_claim(asking->name, asking->print, now_us, UINT64_MAX, &asking->token, &asking->answer);
    if (here != REPLAY_NEW || asking->where == REPLAY_LOCAL || !store->redis.fleet)
        return here;
    if (!redis_fleet_is_up(store->redis.fleet))
        return without_redis(store, asking);
    ask(store, asking, now_us);
    return REPLAY_WAIT;
}

void replay_keep(struct replay_store *store, struct replay_asking *asking, struct str answer, uint64_t now_us,
                 uint64_t ttl_us)
{
    replay_table_keep(asking->name, asking->token, answer, now_us + ttl_us);
    if (asking->is_in_redis)
        keep_in_redis(store, asking, answer, ttl_us);
}

void replay_drop(struct replay_store *store, struct replay_asking *asking)
{
    replay_table_drop(asking->name, asking->token);
    if (asking->is_in_redis)
        drop_in_redis(store, asking->name, asking->running);
}

struct shared *replay_take_answer(struct replay_asking *asking)
{
    struct shared *answer = asking->answer;
    asking->answer = NULL;
    return answer;
}

void replay_forget(struct replay_asking *asking)
{
    shared_unref(replay_take_answer(asking));
    if (!asking->question)
        return;
    replay_table_drop(asking->name, asking->token);
    asking->question->asking = NULL; // what Redis will say is seen to when it does
    asking->question = NULL;
}

// ---- a worker's ----

struct replay_store *replay_store_new(const struct replay_store_needs *needs)
{
    struct replay_store *store = calloc(1, sizeof *store);
    check(store);
    store->needs = *needs;
    redis_keeper_init(&store->redis, needs->loop);
    return store;
}

static void use_prefix(struct replay_store *store, struct str prefix)
{
    free((char *)(uintptr_t)store->prefix.p);
    store->prefix = (struct str){str_dup(prefix), prefix.n};
}

void replay_store_free(struct replay_store *store)
{
    redis_keeper_fini(&store->redis);
    free((char *)(uintptr_t)store->prefix.p);
    free(store);
}

void replay_store_update(struct replay_store *store, const struct redis_settings *settings,
                         const struct addr *addrs, unsigned addr_count)
{
    static const struct redis_fleet_events none = {0};
    const struct redis_fleet_options options = {.access = {.loop = store->needs.loop,
                                                           .tls_slot = store->needs.tls_slot,
                                                           .settings = settings,
                                                           .addrs = addrs,
                                                           .addr_count = addr_count,
                                                           .metrics = store->needs.metrics},
                                                .purpose = "idempotency",
                                                .events = &none};
    if (redis_keeper_update(&store->redis, &options) && settings)
        use_prefix(store, settings->key_prefix);
}
