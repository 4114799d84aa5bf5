// Leased limits: purses are filled ahead of need, and emptied when nobody spends from them.
//
//   lease_spend ── purse has enough ─▶ spent; when it is low, a question that nobody waits for fills it
//        └─ purse is short ─▶ the request's question, with lease_buy ─▶ … ─▶ lease_hear: the rest is put in
//   sweep, each LEASE_SWEEP_MS: a purse that has not changed since the last one goes back to Redis
//
// Redis takes tokens out of the bucket before they are in a purse, and a purse is empty before its tokens are
// on their way back: so all gateways together never spend more than the bucket gives. What gets lost on the
// way, or with a process, is lost on the strict side.
#include "limit/redis_store_private.h"

#include "base/clock.h"
#include "observe/metrics.h"

#include <stdlib.h>

enum {
    SECOND_US = 1000000,
    LEASE_SWEEP_MS = 500, // what is not spent from one to the next goes back
};

// A purse that this worker holds: what it needs to give the tokens back.
struct holding {
    struct list node;
    struct purse *purse;
    struct hash128 key;
    struct limit_rule rule;
    uint64_t seen; // purse_release
    struct str redis_key;
    char text[];
};

static uint64_t ends_of(const struct limit_rule *rule)
{
    return rule->is_window ? rule->window.end_us : PURSE_NO_END;
}

static uint32_t most_of(const struct limit_rule *rule, uint64_t cost)
{
    return purse_most(rule_tokens(rule), limit_gateways_count(), cost);
}

static struct hash128 purse_key(const struct limit_use *use)
{
    return limit_purse_key(use->key, &use->rule);
}

// Requests of a snapshot that has been replaced buy nothing: their time zones go with it.
static bool may_hold(const struct lease *lease, const struct limit_use *use)
{
    uintptr_t at = (uintptr_t)use->limit, first = (uintptr_t)lease->limits;
    return at - first < lease->limit_count * sizeof *lease->limits;
}

static bool may_buy(const struct lease *lease, const struct limit_use *use)
{
    return !lease->is_draining && may_hold(lease, use);
}

static int64_t now_s(void)
{
    return (int64_t)(clock_wall_us() / SECOND_US);
}

// ---- giving back to Redis ----

static void lose(struct limit_worker *worker, uint64_t tokens)
{
    metrics_count(worker->needs.metrics, COUNT_LEASE_LOST, tokens);
}

static void return_tokens(struct limit_worker *worker, struct hash128 key, const struct limit_query *query)
{
    struct lease *lease = &worker->lease;
    if (!query->cost)
        return;
    if (!worker->redis.fleet || !limit_may_return(worker, &query->rule)) {
        lose(worker, query->cost);
        return;
    }
    struct limit_question *question = limit_question_new(worker, 1);
    struct limit_query *copy = &question->queries[question->count++];
    *copy = *query;
    copy->key = arena_copy(&question->arena, query->key);
    question->is_return = true;
    lease->under_way++;
    limit_table_give(lease->table, key, &query->rule, query->cost);
    limit_question_send(question, LIMIT_GIVE, now_s());
}

// ---- holding ----

static void sweep_soon(struct limit_worker *worker)
{
    if (!worker->lease.sweep.due_ms)
        loop_timer_set(worker->needs.loop, &worker->lease.sweep, LEASE_SWEEP_MS);
}

static void hold(struct limit_worker *worker, struct purse *purse, struct hash128 key,
                 const struct limit_rule *rule, struct str redis_key)
{
    struct holding *holding = malloc(sizeof *holding + redis_key.n);
    check(holding);
    *holding = (struct holding){.purse = purse, .key = key, .rule = *rule};
    memcpy(holding->text, redis_key.p, redis_key.n);
    holding->redis_key = (struct str){holding->text, redis_key.n};
    list_push_back(&worker->lease.holdings, &holding->node);
    sweep_soon(worker);
}

// What is there goes back, unless it is in use.
static void let_go(struct limit_worker *worker, struct holding *holding, bool at_once)
{
    uint32_t tokens;
    uint64_t ends_us = purse_ends_us(holding->purse); // before they are out: then they end no earlier
    bool is_over = limit_now(worker) >= ends_us;
    if (!at_once && !is_over && !limit_can_ask(worker)) // they are paid: better spent than lost
        return;
    if (!purse_release(holding->purse, at_once || is_over, &holding->seen, &tokens))
        return;
    if (holding->rule.is_window)
        holding->rule.window.end_us = ends_us;
    return_tokens(worker, holding->key,
                  &(struct limit_query){.key = holding->redis_key, .rule = holding->rule, .cost = tokens});
    list_remove(&holding->node);
    free(holding);
}

static void on_sweep(struct loop_timer *timer)
{
    struct limit_worker *worker = container_of(timer, struct limit_worker, lease.sweep);
    list_each (&worker->lease.holdings, node)
        let_go(worker, container_of(node, struct holding, node), false);
    if (!list_empty(&worker->lease.holdings))
        sweep_soon(worker);
}

static void return_all(struct limit_worker *worker)
{
    list_each (&worker->lease.holdings, node)
        let_go(worker, container_of(node, struct holding, node), true);
}

// ---- buying ----

static void add_extras(struct limit_question *question, const struct limit_use *use, uint64_t now_us,
                       uint64_t counted)
{
    struct limit_worker *worker = question->worker;
    struct limit_query *query = &question->queries[question->count - 1];
    struct purchase purchase;
    purse_begin(worker->lease.purses, purse_key(use), now_us, counted, &purchase);
    if (!purchase.purse)
        return;
    uint32_t batch = purse_batch(purchase.demand, purchase.tokens, most_of(&use->rule, use->cost), use->cost);
    query->extra_count = purse_extras(batch, purchase.tokens, use->cost, query->extras);
    if (!query->extra_count) {
        purse_end(&purchase, 0, 0, PURSE_NO_END);
        return;
    }
    if (!question->bargains)
        question->bargains = arena_array(&question->arena, struct limit_bargain, question->capacity);
    question->bargains[question->count - 1] =
        (struct limit_bargain){purchase, use->key, purse_key(use), use->cost};
}

void lease_buy(struct limit_question *question, const struct limit_use *use, uint64_t now_us)
{
    if (may_buy(&question->worker->lease, use))
        add_extras(question, use, now_us, use->cost);
}

// Nobody waits for it.
static void refill(struct limit_worker *worker, const struct limit_use *use, int64_t now_s, uint64_t now_us)
{
    struct limit_question *question = limit_question_new(worker, 1);
    limit_question_add(question, use, 0);
    add_extras(question, use, now_us, 0);
    if (question->bargains)
        limit_question_send(question, LIMIT_LEASE, now_s);
    else
        limit_question_free(question);
}

// An extra is taken when as much is left for others: Redis had twice a quarter of a batch, when last heard.
static bool is_worth_asking(const struct limit_use *use, const struct purse_view *view, uint64_t now_us)
{
    return !rule_wait_us(&use->rule, view->told, now_us, 2 * (uint64_t)view->low);
}

static void show(struct limit_use *use, uint64_t told, uint64_t tokens, uint64_t now_us)
{
    use->state = told;
    limit_is_current(use, now_us);
    use->state = rule_give(&use->rule, told, tokens);
}

bool lease_spend(struct limit_worker *worker, const struct limit_asking *asking, struct limit_use *use,
                 uint64_t now_us)
{
    struct purse_view view;
    if (!asking->is_keyed || !purse_spend(worker->lease.purses, purse_key(use), now_us, use->cost, &view))
        return false;
    use->taken = LIMIT_TAKEN_OF_LEASE;
    use->wait_us = 0;
    show(use, view.told, view.tokens, now_us);
    if (view.tokens < view.low && !view.is_busy && limit_can_ask(worker) && may_buy(&worker->lease, use) &&
        is_worth_asking(use, &view, now_us))
        refill(worker, use, asking->now_s, now_us);
    return true;
}

bool lease_spend_more(struct limit_worker *worker, struct limit_use *use, uint64_t tokens, uint64_t now_us)
{
    struct purse_view view;
    if (!purse_spend(worker->lease.purses, purse_key(use), now_us, tokens, &view))
        return false;
    show(use, view.told, view.tokens, now_us);
    return true;
}

void lease_tell(struct limit_worker *worker, struct limit_use *use, uint64_t told, uint64_t now_us)
{
    struct purse_view view;
    purse_tell(worker->lease.purses, purse_key(use), told);
    if (purse_look(worker->lease.purses, purse_key(use), now_us, &view))
        use->state = rule_give(&use->rule, told, view.tokens);
}

// ---- answers ----

static void hear_one(struct limit_question *question, uint32_t i, const struct limit_told *told)
{
    struct limit_worker *worker = question->worker;
    struct limit_bargain *bargain = &question->bargains[i];
    struct limit_query *query = &question->queries[i];
    struct purse *purse = bargain->purchase.purse;
    uint32_t extra = told ? told->extra : 0;
    bool is_late = question->lease_version != worker->lease.version;
    const struct limit_rule *rule = told ? &told->rule : &query->rule;
    if (told) {
        limit_table_put(worker->lease.table, bargain->key, limit_now(worker), told->state);
        purse_tell(worker->lease.purses, bargain->purse_key, told->state);
        metrics_count(worker->needs.metrics, COUNT_LEASE_BOUGHT, extra);
    }
    enum purse_put put = purse_end(&bargain->purchase, is_late ? 0 : extra,
                                   purse_low_water(query->extras[0], bargain->cost), ends_of(rule));
    if (put == PURSE_PUT_HOLD)
        hold(worker, purse, bargain->key, rule, query->key);
    else if (put == PURSE_REFUSED && is_late && !rule->is_window)
        return_tokens(worker, bargain->key,
                      &(struct limit_query){.key = query->key, .rule = *rule, .cost = extra});
    else if (put == PURSE_REFUSED)
        lose(worker, extra);
}

static void hear_return(struct limit_question *question, bool is_back)
{
    struct limit_worker *worker = question->worker;
    worker->lease.under_way--;
    metrics_count(worker->needs.metrics, is_back ? COUNT_LEASE_RETURNED : COUNT_LEASE_LOST,
                  question->queries[0].cost);
}

void lease_hear(struct limit_question *question, const struct limit_told *told)
{
    if (question->is_return)
        hear_return(question, told);
    for (uint32_t i = 0; question->bargains && i < question->count; i++)
        if (question->bargains[i].purchase.purse)
            hear_one(question, i, told ? &told[i] : NULL);
}

// ---- giving back to the purse ----

static enum purse_put put_back(struct limit_worker *worker, struct limit_use *use, uint64_t tokens,
                               struct purse **purse)
{
    uint32_t most = most_of(&use->rule, use->cost);
    if (tokens > most || !may_hold(&worker->lease, use))
        return PURSE_REFUSED;
    return purse_give(worker->lease.purses, purse_key(use), (uint32_t)tokens, most, ends_of(&use->rule),
                      purse);
}

void lease_give(struct limit_worker *worker, struct limit_use *use, uint64_t tokens)
{
    struct purse *purse;
    enum purse_put put = put_back(worker, use, tokens, &purse);
    use->state = rule_give(&use->rule, use->state, tokens);
    if (put == PURSE_PUT)
        return;
    struct limit_question *question = limit_question_new(worker, 1); // only for its query
    limit_question_add(question, use, tokens);
    if (put == PURSE_PUT_HOLD)
        hold(worker, purse, use->key, &use->rule, question->queries[0].key);
    else
        return_tokens(worker, use->key, &question->queries[0]);
    limit_question_free(question);
}

// ---- life ----

void lease_init(struct limit_worker *worker)
{
    list_init(&worker->lease.holdings);
    loop_timer_init(&worker->lease.sweep, on_sweep);
}

void lease_fini(struct limit_worker *worker)
{
    struct loop *loop = worker->needs.loop;
    uint64_t end_us = limit_now(worker) + 2 * worker->redis.deadline_us;
    return_all(worker);
    while (worker->lease.under_way && limit_now(worker) < end_us)
        loop_turn(loop, 1);
    loop_timer_stop(loop, &worker->lease.sweep);
}

void lease_update(struct limit_worker *worker, const struct limits *limits)
{
    struct lease *lease = &worker->lease;
    return_all(worker);
    lease->purses = limits->purses;
    lease->table = limits->table;
    lease->limits = limits->v;
    lease->limit_count = limits->count;
    lease->version++;
}
