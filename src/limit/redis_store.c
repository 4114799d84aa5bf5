#include "limit/redis_store_private.h"

#include "base/log.h"
#include "base/rand.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    SPARE_BLOCKS = 16, // of questions' memory
    SECOND_US = 1000000,
    LAST_RETURN_US = SECOND_US, // before a window's end
    QUIET_MS = 60000,           // between two log lines of what Redis complains of
};

static bool is_shadow(const struct limit_use *use)
{
    return use->limit->settings->shadow;
}

// ---- trouble ----

static void probe(struct limit_worker *worker);

static void probe_soon(struct limit_worker *worker)
{
    uint32_t jitter = rand_below(worker->needs.rand, LIMIT_PROBE_MS / 2);
    loop_timer_set(worker->needs.loop, &worker->trouble.probe, LIMIT_PROBE_MS + jitter);
}

// One line for all workers.
static void log_trouble(bool is_there)
{
    static _Atomic int workers;
    int before = atomic_fetch_add(&workers, is_there ? 1 : -1);
    if (is_there && before == 0)
        log_warn("limit", "Redis does not decide in time: limits go by on_redis_down");
    else if (!is_there && before == 1)
        log_info("limit", "Redis decides again");
}

static void set_trouble(struct limit_worker *worker, bool is_there)
{
    struct limit_trouble *trouble = &worker->trouble;
    if (trouble->is_there == is_there)
        return;
    trouble->is_there = is_there;
    trouble->in_a_row = trouble->answers = trouble->failures = 0;
    log_trouble(is_there);
    if (is_there)
        probe_soon(worker);
    else
        loop_timer_stop(worker->needs.loop, &trouble->probe);
}

static void begin_trouble(struct limit_question *question)
{
    struct limit_trouble *trouble = &question->worker->trouble;
    arena_reset(&trouble->arena);
    trouble->key = arena_printf(&trouble->arena, "%.*s:probe", STR_ARG(question->queries[0].key));
    set_trouble(question->worker, true);
}

static void note(struct limit_question *question, bool good)
{
    struct limit_worker *worker = question->worker;
    struct limit_trouble *trouble = &worker->trouble;
    uint64_t second = limit_now(worker) / SECOND_US;
    if (trouble->is_there) // what was asked before
        return;
    if (trouble->second != second) {
        trouble->second = second;
        trouble->answers = trouble->failures = 0;
    }
    trouble->answers++;
    trouble->failures += !good;
    trouble->in_a_row = good ? 0 : trouble->in_a_row + 1;
    bool too_many = trouble->answers >= LIMIT_TROUBLE_MIN &&
                    trouble->failures * 100 >= trouble->answers * LIMIT_TROUBLE_PERCENT;
    if (!good && (too_many || trouble->in_a_row >= LIMIT_TROUBLE_IN_A_ROW))
        begin_trouble(question);
}

static void log_complaint(struct limit_worker *worker, const struct resp_value *reply)
{
    uint64_t now_ms = loop_now_ms(worker->needs.loop);
    if (reply->kind != RESP_ERROR || now_ms < worker->quiet_until_ms)
        return;
    worker->quiet_until_ms = now_ms + QUIET_MS;
    log_warn("limit", "Redis says: %.*s", STR_ARG(reply->text));
}

// ---- questions ----

struct limit_question *limit_question_new(struct limit_worker *worker, uint32_t capacity)
{
    struct arena arena;
    arena_init(&arena, &worker->spares);
    struct limit_question *question = arena_new(&arena, struct limit_question);
    question->worker = worker;
    question->fleet = worker->redis.fleet;
    question->queries = arena_array(&arena, struct limit_query, capacity);
    question->capacity = capacity;
    question->lease_version = worker->lease.version;
    question->arena = arena;
    return question;
}

void limit_question_free(struct limit_question *question)
{
    struct arena arena = question->arena;
    arena_reset(&arena);
}

void limit_question_add(struct limit_question *question, const struct limit_use *use, uint64_t cost)
{
    question->queries[question->count++] = (struct limit_query){
        .key = limit_redis_key(question->worker->prefix, use->tag, use->face->label, &question->arena),
        .rule = use->rule,
        .cost = cost,
        .is_shadow = is_shadow(use),
    };
}

static void on_answer(void *context, enum redis_failure failure, const struct resp_value *reply);

static void send_command(struct limit_question *question)
{
    uint64_t left_us = question->due_us - limit_now(question->worker);
    redis_fleet_command(question->fleet, question->queries[0].key, question->argv, question->argc, left_us,
                        question, on_answer);
}

void limit_question_send(struct limit_question *question, enum limit_verb verb, int64_t now_s)
{
    struct limit_worker *worker = question->worker;
    question->asked_us = limit_now(worker);
    question->due_us = question->asked_us + worker->redis.deadline_us;
    question->argc = limit_script_command(verb, question->queries, question->count, now_s, &question->arena,
                                          &question->argv);
    send_command(question);
}

// ---- answers ----

static const struct limit_use *longest_refusal(const struct limit_use *uses, uint32_t count)
{
    const struct limit_use *longest = NULL;
    for (uint32_t i = 0; i < count; i++)
        if (uses[i].wait_us && !is_shadow(&uses[i]) && (!longest || uses[i].wait_us > longest->wait_us))
            longest = &uses[i];
    return longest;
}

static void hear(struct limit_worker *worker, struct limit_asking *asking, const struct limit_told *told,
                 bool passes, uint64_t now_us)
{
    for (uint32_t i = 0; i < asking->count; i++) {
        struct limit_use *use = &asking->uses[i];
        if (use->group != asking->group)
            continue;
        use->rule = told->rule;
        use->state = told->state;
        use->wait_us = told->wait_us;
        use->taken = !passes || told->wait_us ? LIMIT_NOT_TAKEN
                     : use->limit->is_leased  ? LIMIT_TAKEN_OF_LEASE
                                              : LIMIT_TAKEN_IN_REDIS;
        limit_table_put(asking->table, use->key, now_us, told->state);
        if (use->limit->is_leased)
            lease_tell(worker, use, told->state, now_us);
        told++;
    }
    asking->is_refused = !passes;
}

// False: the script has to be sent in whole, and is.
static bool is_final(struct limit_question *question, enum redis_failure failure,
                     const struct resp_value *reply)
{
    if (failure != REDIS_OK || question->is_spelled_out || !limit_script_is_missing(reply) ||
        question->fleet != question->worker->redis.fleet || limit_now(question->worker) >= question->due_us)
        return true;
    question->is_spelled_out = true;
    limit_script_spell_out(question->argv);
    send_command(question);
    return false;
}

static void learn(struct limit_question *question, bool good)
{
    struct limit_worker *worker = question->worker;
    if (question->fleet != worker->redis.fleet)
        return;
    if (question->is_probe && good)
        set_trouble(worker, false);
    else
        note(question, good);
}

// Each use of the group becomes one of its own, and is asked about after all others.
static void tear_group(struct limit_asking *asking)
{
    for (uint32_t i = 0; i < asking->count; i++)
        if (asking->uses[i].group == asking->group)
            asking->uses[i].group = ++asking->groups;
}

static void on_answer(void *context, enum redis_failure failure, const struct resp_value *reply)
{
    struct limit_question *question = context;
    struct limit_worker *worker = question->worker;
    struct limit_asking *asking = question->asking;
    if (!is_final(question, failure, reply))
        return;
    struct limit_told *told = arena_array(&question->arena, struct limit_told, question->count);
    bool passes, good = failure == REDIS_OK && limit_script_read(reply, question->queries, question->count,
                                                                 question->asked_us, &passes, told);
    bool is_torn = failure == REDIS_OK && question->count > 1 && limit_script_is_torn(reply);
    if (failure == REDIS_OK && !good && !is_torn)
        log_complaint(worker, reply);
    learn(question, good || is_torn);
    lease_hear(question, good ? told : NULL);
    if (asking) {
        asking->question = NULL;
        asking->has_failed = !good && !is_torn;
        if (is_torn)
            tear_group(asking);
        else if (good)
            hear(worker, asking, told, passes, limit_now(worker));
    }
    limit_question_free(question);
    if (asking)
        worker->needs.wake(worker->needs.context, asking->ticket);
}

// ---- probes: the whole way, with a bucket that is written ----

static void probe(struct limit_worker *worker)
{
    struct limit_question *question = limit_question_new(worker, 1);
    struct limit_query *query = &question->queries[question->count++];
    struct str key =
        arena_copy(&question->arena, worker->trouble.key); // of this trouble; there may be another
    *query = (struct limit_query){.key = key, .cost = 1};
    check(bucket_compile(&query->rule.bucket, SECOND_US, SECOND_US, SECOND_US, false));
    question->is_probe = true;
    limit_question_send(question, LIMIT_TAKE, 0);
}

static void on_probe(struct loop_timer *timer)
{
    struct limit_worker *worker = container_of(timer, struct limit_worker, trouble.probe);
    if (redis_fleet_is_up(worker->redis.fleet))
        probe(worker);
    probe_soon(worker);
}

static void on_up(void *context)
{
    struct limit_worker *worker = context;
    if (worker->redis.fleet && worker->trouble.is_there)
        probe(worker);
}

// ---- giving back ----

bool limit_may_return(const struct limit_worker *worker, const struct limit_rule *rule)
{
    return !rule->is_window || limit_now(worker) + LAST_RETURN_US < rule->window.end_us;
}

static void give_back_in_redis(struct limit_worker *worker, struct limit_asking *asking, uint32_t group)
{
    struct limit_question *question = NULL;
    if (!worker->redis.fleet) // a reload took Redis away while the request waited for another group
        return;
    for (uint32_t i = 0; i < asking->count; i++) {
        struct limit_use *use = &asking->uses[i];
        if (use->group != group || use->taken != LIMIT_TAKEN_IN_REDIS)
            continue;
        use->taken = LIMIT_NOT_TAKEN;
        if (!limit_may_return(worker, &use->rule))
            continue;
        if (!question)
            question = limit_question_new(worker, asking->count);
        limit_question_add(question, use, use->cost);
        limit_table_give(asking->table, use->key, &use->rule, use->cost);
    }
    if (question)
        limit_question_send(question, LIMIT_GIVE, asking->now_s);
}

static void give_back(struct limit_worker *worker, struct limit_asking *asking)
{
    for (uint32_t i = 0; i < asking->count; i++) {
        struct limit_use *use = &asking->uses[i];
        if (use->taken == LIMIT_TAKEN_OF_LEASE)
            lease_give(worker, use, use->cost);
        else if (use->taken == LIMIT_TAKEN_HERE || use->taken == LIMIT_TAKEN_OF_SHARE)
            limit_table_give(asking->table, use->key, &use->rule, use->cost);
        else
            continue;
        use->taken = LIMIT_NOT_TAKEN;
    }
    for (uint32_t group = 1; group <= asking->groups; group++)
        give_back_in_redis(worker, asking, group);
}

static enum limit_result refuse(struct limit_worker *worker, struct limit_asking *asking)
{
    give_back(worker, asking);
    asking->refuser = longest_refusal(asking->uses, asking->count);
    return LIMIT_REFUSED;
}

// ---- in this process ----

static bool take_here(struct limit_asking *asking, struct limit_use *use, enum limit_taken taken,
                      uint64_t now_us)
{
    use->wait_us = limit_table_take(asking->table, use->key, &use->rule, now_us, use->cost, &use->state);
    use->taken = use->wait_us ? LIMIT_NOT_TAKEN : taken;
    return !use->wait_us || is_shadow(use);
}

static bool take_own(struct limit_asking *asking, uint64_t now_us)
{
    for (uint32_t i = 0; i < asking->count; i++)
        if (!asking->uses[i].limit->is_shared &&
            !take_here(asking, &asking->uses[i], LIMIT_TAKEN_HERE, now_us))
            return false;
    return true;
}

// ---- without Redis ----

// Shares are counted at places of their own, which no answer touches: when Redis comes and goes, or answers
// one worker and not another, all that is taken without it is still no more than one share.

// Never fuller than the bucket was when Redis last spoke.
static void share_bucket(struct limit_asking *asking, struct limit_use *use, uint32_t of, uint64_t now_us)
{
    struct bucket *bucket = &use->rule.bucket;
    uint64_t state = 0;
    limit_table_find(asking->table, use->key, &state);
    *bucket = bucket_share(bucket, of, use->cost < bucket->burst ? use->cost : bucket->burst);
    use->key = limit_share_key(use->key);
    limit_table_drain(asking->table, use->key, now_us, state);
}

// One of what was left when Redis last spoke. When not even this request's cost was left, that is the answer.
static void share_window(struct limit_asking *asking, struct limit_use *use, uint32_t of)
{
    struct window *window = &use->rule.window;
    uint64_t state = 0;
    limit_table_find(asking->table, use->key, &state);
    uint64_t left = window_remaining(window, state);
    if (left < use->cost)
        return;
    window->tokens = left / of > use->cost ? left / of : use->cost;
    use->key = limit_share_key(use->key);
}

static bool take_share(struct limit_asking *asking, struct limit_use *use, uint64_t now_us)
{
    uint32_t of = limit_gateways_count();
    if (use->rule.is_window)
        share_window(asking, use, of);
    else
        share_bucket(asking, use, of, now_us);
    return take_here(asking, use, LIMIT_TAKEN_OF_SHARE, now_us);
}

static void wave_through(struct limit_use *use, uint64_t now_us)
{
    use->state = rule_new_state(now_us);
    use->wait_us = 0;
    use->taken = LIMIT_WAVED_THROUGH;
}

static enum limit_result decide_without_redis(struct limit_worker *worker, struct limit_asking *asking,
                                              uint64_t now_us)
{
    bool is_available = true, has_enough = true;
    for (uint32_t i = 0; i < asking->count; i++) {
        struct limit_use *use = &asking->uses[i];
        if (use->group != asking->group)
            continue;
        use->is_degraded = true;
        int mode = use->limit->settings->on_redis_down;
        if (mode == LIMIT_DOWN_LOCAL)
            has_enough = take_share(asking, use, now_us) && has_enough;
        else
            wave_through(use, now_us);
        is_available &= mode != LIMIT_DOWN_DENY || is_shadow(use);
    }
    if (!has_enough)
        return refuse(worker, asking);
    if (is_available)
        return LIMIT_PASSED;
    give_back(worker, asking);
    return LIMIT_UNAVAILABLE;
}

// ---- the way ----

static bool same_tag(const struct limit_use *a, const struct limit_use *b)
{
    return a->tag.lo == b->tag.lo && a->tag.hi == b->tag.hi;
}

static void form_groups(const struct limit_worker *worker, struct limit_asking *asking)
{
    struct limit_use *uses = asking->uses;
    for (uint32_t i = 0; i < asking->count; i++) {
        if (!uses[i].limit->is_shared || uses[i].taken == LIMIT_TAKEN_OF_LEASE)
            continue;
        for (uint32_t j = 0; j < i && !uses[i].group; j++)
            if (uses[j].group && (!worker->is_cluster || same_tag(&uses[i], &uses[j])))
                uses[i].group = uses[j].group;
        if (!uses[i].group) {
            asking->groups++;
            uses[i].group = asking->groups;
        }
    }
}

// What Redis said of a quota says which window it is; it is over a moment early rather than late.
bool limit_is_current(struct limit_use *use, uint64_t now_us)
{
    if (!use->rule.is_window)
        return true;
    uint64_t steps = use->state & ~WINDOW_COUNT_MASK;
    if (bucket_is_full(steps, now_us))
        return false;
    use->rule.window.end_us = (steps | WINDOW_COUNT_MASK) >> BUCKET_PART_BITS;
    return true;
}

static bool remembers_refusal(struct limit_asking *asking, uint64_t now_us)
{
    for (uint32_t i = 0; i < asking->count; i++) {
        struct limit_use *use = &asking->uses[i];
        const struct limit_rule rule = use->rule;
        if (use->taken == LIMIT_TAKEN_OF_LEASE)
            continue;
        use->state = rule_new_state(now_us);
        if (!limit_table_find(asking->table, use->key, &use->state))
            continue;
        if (!use->group || limit_is_current(use, now_us)) {
            uint64_t settled = rule_settle(&use->rule, use->state, now_us);
            bool has_changed = settled != use->state;
            if (has_changed) // the limit: empty from now on, and not each time anew
                limit_table_put(asking->table, use->key, now_us, settled);
            use->state = settled;
            if (!has_changed || !use->group) // Redis has to hear of the change as well
                use->wait_us = rule_wait_us(&use->rule, use->state, now_us, use->cost);
        }
        if (!use->wait_us)
            use->rule = rule;
    }
    return longest_refusal(asking->uses, asking->count);
}

bool limit_can_ask(const struct limit_worker *worker)
{
    return worker->redis.fleet && !worker->trouble.is_there && redis_fleet_is_up(worker->redis.fleet);
}

static void ask_redis(struct limit_worker *worker, struct limit_asking *asking, uint64_t now_us)
{
    struct limit_question *question = limit_question_new(worker, asking->count);
    for (uint32_t i = 0; i < asking->count; i++) {
        struct limit_use *use = &asking->uses[i];
        if (use->group != asking->group)
            continue;
        limit_question_add(question, use, use->cost);
        if (use->limit->is_leased)
            lease_buy(question, use, now_us);
    }
    question->asking = asking;
    asking->question = question;
    limit_question_send(question, question->bargains ? LIMIT_LEASE : LIMIT_TAKE, asking->now_s);
}

static void spend_leased(struct limit_worker *worker, struct limit_asking *asking, uint64_t now_us)
{
    for (uint32_t i = 0; i < asking->count; i++)
        if (asking->uses[i].limit->is_leased)
            lease_spend(worker, asking, &asking->uses[i], now_us);
}

enum limit_result limit_decide(struct limit_worker *worker, struct limit_asking *asking, uint64_t now_us)
{
    enum limit_result result = LIMIT_PASSED;
    if (!asking->group) {
        spend_leased(worker, asking, now_us);
        form_groups(worker, asking);
        if (remembers_refusal(asking, now_us) || !take_own(asking, now_us))
            return refuse(worker, asking);
    } else if (asking->has_failed) {
        result = decide_without_redis(worker, asking, now_us);
    } else if (asking->is_refused) {
        return refuse(worker, asking);
    }
    while (result == LIMIT_PASSED && asking->group < asking->groups) {
        asking->group++;
        if (asking->is_keyed && limit_can_ask(worker)) {
            ask_redis(worker, asking, now_us);
            return LIMIT_WAIT;
        }
        result = decide_without_redis(worker, asking, now_us);
    }
    return result;
}

void limit_forget(struct limit_asking *asking)
{
    if (asking->question)
        asking->question->asking = NULL;
    asking->question = NULL;
}

// ---- afterwards ----

static void settle_in_redis(struct limit_worker *worker, struct limit_table *table, struct limit_use *use,
                            uint64_t cost, int64_t now_s, uint64_t now_us)
{
    bool is_more = cost > use->cost;
    uint64_t rest = is_more ? cost - use->cost : use->cost - cost;
    if (!rest || !worker->redis.fleet || (!is_more && !limit_may_return(worker, &use->rule)))
        return;
    struct limit_question *question = limit_question_new(worker, 1);
    limit_question_add(question, use, rest);
    limit_question_send(question, is_more ? LIMIT_CHARGE : LIMIT_GIVE, now_s);
    if (is_more) {
        use->state = rule_charge(&use->rule, use->state, now_us, rest);
    } else {
        use->state = rule_give(&use->rule, use->state, rest);
        limit_table_give(table, use->key, &use->rule, rest);
    }
    use->cost = cost;
}

static void settle_leased(struct limit_worker *worker, struct limit_table *table, struct limit_use *use,
                          uint64_t cost, int64_t now_s, uint64_t now_us)
{
    if (cost < use->cost)
        lease_give(worker, use, use->cost - cost);
    else if (cost > use->cost && !lease_spend_more(worker, use, cost - use->cost, now_us))
        settle_in_redis(worker, table, use, cost, now_s, now_us);
    use->cost = cost;
}

void limit_settle(struct limit_worker *worker, struct limit_table *table, struct limit_use *use,
                  uint64_t cost, int64_t now_s, uint64_t now_us)
{
    if (use->taken == LIMIT_TAKEN_IN_REDIS)
        settle_in_redis(worker, table, use, cost, now_s, now_us);
    else if (use->taken == LIMIT_TAKEN_OF_LEASE)
        settle_leased(worker, table, use, cost, now_s, now_us);
    else if (use->taken == LIMIT_TAKEN_HERE || use->taken == LIMIT_TAKEN_OF_SHARE)
        limit_take_rest(table, use, cost, now_us);
}

// ---- life ----

struct limit_worker *limit_worker_new(const struct limit_worker_needs *needs)
{
    struct limit_worker *worker = calloc(1, sizeof *worker);
    check(worker);
    worker->needs = *needs;
    worker->spares.max = SPARE_BLOCKS;
    arena_init(&worker->arena, NULL);
    arena_init(&worker->trouble.arena, NULL);
    loop_timer_init(&worker->trouble.probe, on_probe);
    redis_keeper_init(&worker->redis, needs->loop);
    lease_init(worker);
    return worker;
}

void limit_worker_drain(struct limit_worker *worker)
{
    worker->lease.is_draining = true;
}

void limit_worker_free(struct limit_worker *worker)
{
    if (!worker)
        return;
    lease_fini(worker);
    redis_keeper_fini(&worker->redis);
    set_trouble(worker, false);
    arena_spares_fini(&worker->spares);
    arena_reset(&worker->trouble.arena);
    arena_reset(&worker->arena);
    free(worker);
}

static void keep_settings(struct limit_worker *worker, const struct redis_settings *settings)
{
    struct str prefix = settings->key_prefix;
    arena_reset(&worker->arena);
    worker->prefix = arena_copy(&worker->arena, prefix);
    worker->is_cluster = settings->mode == REDIS_CLUSTER;
}

void limit_worker_update(struct limit_worker *worker, const struct limits *limits)
{
    static const struct redis_fleet_events events = {.on_up = on_up};
    const struct redis_settings *settings = limits->any_shared ? limits->redis : NULL;
    const struct redis_fleet_options options = {.access = {.loop = worker->needs.loop,
                                                           .tls_slot = worker->needs.tls_slot,
                                                           .settings = settings,
                                                           .addrs = limits->redis_addrs,
                                                           .addr_count = limits->redis_addr_count,
                                                           .metrics = worker->needs.metrics},
                                                .purpose = "rate limits",
                                                .events = &events,
                                                .context = worker};
    lease_update(worker, limits);
    if (!redis_keeper_update(&worker->redis, &options))
        return;
    set_trouble(worker, false);
    if (worker->redis.fleet)
        keep_settings(worker, settings);
}

const struct siphash_key *limit_worker_seed(struct limit_worker *worker)
{
    return limit_seed_get(&worker->seed) ? &worker->seed.key : NULL;
}
