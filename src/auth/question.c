#include "auth/question.h"

#include "auth/shared.h"
#include "base/clock.h"
#include "base/rand.h"
#include "upstream/upstream.h"

#include <stdlib.h>

enum {
    BUCKETS = 256,
    COMPLAINTS_EVERY_MS = 1000, // about one provider in the log
};

struct question_table {
    struct list buckets[BUCKETS];
    uint32_t count, waiters;
    struct rand rand;
};

struct question {
    struct list node; // in its bucket
    struct hash128 key, same;
    struct auth_worker *worker;
    const struct auth_provider *provider; // of the snapshot that is held
    const struct question_kind *kind;
    const struct auth_cache_settings *cache;
    struct arena arena;
    struct fetch *fetch;
    struct loop_timer due; // the provider's timeout
    uint32_t epoch;        // of the breaker
    bool noted;            // the breaker has heard of it
    struct list waiters;
};

// One exchange that waits, in its arena.
struct waiter {
    struct list node;          // of the question's
    struct question *question; // NULL: over, what follows is filled in
    struct auth_worker *worker;
    struct auth_call *call;
    struct hash128 key;
    uint64_t give_up_us;
    bool decided;
    struct identity *identity; // a reference
    enum end_cause cause;
    struct str detail, challenge;
};

static int64_t wall_ms(void)
{
    return (int64_t)(clock_wall_us() / 1000);
}

static uint64_t now_us(const struct auth_worker *worker)
{
    return worker->needs.loop->now_us;
}

// ---- what is said to the exchange ----

static void count(struct auth_worker *worker, const struct auth_provider *provider,
                  enum provider_counter counter)
{
    metrics_provider(worker->needs.metrics, provider->id, counter);
}

static enum auth_result deny(struct auth_call *call, enum end_cause cause, struct str detail,
                             struct str challenge)
{
    bool about_token = cause == END_INVALID_TOKEN || cause == END_EXPIRED_TOKEN || cause == END_REVOKED_TOKEN;
    enum auth_result result = auth_deny(call, cause, detail, about_token ? "invalid_token" : NULL);
    if (challenge.n)
        call->challenge = challenge;
    return result;
}

// An identity that was found to be good, now or before: is it still?
static enum auth_result allow(struct auth_call *call, struct identity *identity)
{
    enum end_cause cause;
    if (!auth_still_good(identity, call->now_s, &cause))
        return deny(call, cause, STR_NULL, STR_NULL);
    call->identity = identity_ref(identity);
    return AUTH_ALLOW;
}

static bool is_cached(const struct auth_cache_settings *cache)
{
    return cache->ttl_us || cache->negative_ttl_us;
}

// What is known, fresh or not: the fresher one of what this worker and what another one has heard. NULL:
// nothing.
static const struct auth_decision *find(struct auth_worker *worker, struct hash128 key)
{
    int64_t now_ms = wall_ms();
    const struct auth_decision *decision = auth_cache_find(worker->cache, key, now_ms);
    if (decision && now_ms < decision->fresh_until_ms)
        return decision;
    struct auth_decision shared;
    if (!auth_shared_find(key, now_ms, decision ? decision->fresh_until_ms : INT64_MIN, &shared))
        return decision;
    auth_cache_put(worker->cache, &shared);
    identity_unref(shared.identity);
    return auth_cache_find(worker->cache, key, now_ms);
}

// No answer can be had: what was one before, as long as the configuration says.
static enum auth_result fall_back(struct auth_worker *worker, const struct auth_provider *provider,
                                  struct auth_call *call, struct hash128 key)
{
    const struct auth_decision *decision = find(worker, key);
    if (decision && decision->identity) {
        count(worker, provider, COUNT_CACHE_STALE);
        return allow(call, decision->identity);
    }
    count(worker, provider, COUNT_CACHE_MISS);
    call->detail = STR("the Auth Service gives no answer");
    return AUTH_UNAVAILABLE;
}

// False: it is not known, or has to be asked about again.
static bool look_up(struct auth_worker *worker, const struct auth_provider *provider, struct auth_call *call,
                    const struct question_asked *asked, enum auth_result *result)
{
    if (!is_cached(asked->cache))
        return false;
    const struct auth_decision *decision = find(worker, asked->key);
    if (!decision || wall_ms() >= decision->fresh_until_ms)
        return false;
    count(worker, provider, decision->identity ? COUNT_CACHE_HIT : COUNT_CACHE_NEGATIVE);
    *result = decision->identity ? allow(call, decision->identity)
                                 : deny(call, decision->cause, STR_NULL, STR_NULL);
    return true;
}

// ---- keeping ----

static uint64_t seconds_of(struct str text)
{
    uint64_t seconds;
    if (text.n >= 2 && text.p[0] == '"' && text.p[text.n - 1] == '"')
        text = (struct str){text.p + 1, text.n - 2};
    // What is no number is stale at once (RFC 9111 4.2.1).
    return str_to_u64(text, INT32_MAX, &seconds) ? seconds : 0;
}

struct freshness {
    bool forbidden, stale, has_max_age, has_s_maxage;
    uint64_t max_age, s_maxage;
};

static void read_directive(struct freshness *freshness, struct str directive)
{
    size_t equals = str_find(directive, '=');
    struct str name = {directive.p, equals};
    struct str value = equals < directive.n ? str_skip(directive, equals + 1) : STR_NULL;
    if (str_eq_fold(name, STR("no-store")) || str_eq_fold(name, STR("no-cache")) ||
        str_eq_fold(name, STR("private"))) {
        freshness->forbidden = true;
    } else if (str_eq_fold(name, STR("must-revalidate")) || str_eq_fold(name, STR("proxy-revalidate"))) {
        freshness->stale = false;
    } else if (str_eq_fold(name, STR("max-age"))) {
        freshness->has_max_age = true;
        freshness->max_age = seconds_of(value);
    } else if (str_eq_fold(name, STR("s-maxage"))) {
        freshness->has_s_maxage = true;
        freshness->s_maxage = seconds_of(value);
    }
}

uint64_t question_freshness_us(const struct headers *headers, bool *stale)
{
    struct freshness freshness = {.stale = true};
    uint64_t age = 0;
    for (uint32_t i = 0; i < headers->count; i++) {
        const struct header *header = &headers->v[i];
        struct str rest = header->value, directive;
        if (str_eq_fold(header->name, STR("age")))
            age = seconds_of(header->value);
        if (str_eq_fold(header->name, STR("cache-control")))
            while (str_next_token(&rest, &directive))
                read_directive(&freshness, directive);
    }
    *stale = freshness.stale && !freshness.forbidden;
    if (freshness.forbidden)
        return 0;
    if (!freshness.has_max_age && !freshness.has_s_maxage)
        return UINT64_MAX;
    uint64_t seconds = freshness.has_s_maxage ? freshness.s_maxage : freshness.max_age;
    return seconds > age ? (seconds - age) * 1000000 : 0;
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static struct auth_decision allowance(const struct question *question, const struct question_finding *finding,
                                      const struct headers *headers, int64_t now_ms)
{
    const struct auth_cache_settings *cache = question->cache;
    bool stale = true;
    uint64_t most_us = cache->ignore_cache_control ? UINT64_MAX : question_freshness_us(headers, &stale);
    int64_t end_ms = finding->expires < INT64_MAX / 1000 ? finding->expires * 1000 : INT64_MAX;
    int64_t fresh_ms = (int64_t)((cache->ttl_us < most_us ? cache->ttl_us : most_us) / 1000);
    int64_t stale_ms = stale ? (int64_t)(cache->stale_us / 1000) : 0;
    return (struct auth_decision){
        .identity = finding->identity,
        .fresh_until_ms = sooner(now_ms + fresh_ms, end_ms),
        .stale_until_ms = sooner(now_ms + fresh_ms + stale_ms, end_ms),
    };
}

// That the service is down refuses nobody: beyond its time a denial is no answer. But it is remembered, while
// another worker may hold what was said before it and is stale by now: the later word counts.
static struct auth_decision denial(const struct question *question, const struct question_finding *finding,
                                   const struct headers *headers, int64_t now_ms)
{
    const struct auth_cache_settings *cache = question->cache;
    bool stale;
    uint64_t most_us = cache->ignore_cache_control ? UINT64_MAX : question_freshness_us(headers, &stale);
    uint64_t ttl_us = cache->negative_ttl_us < most_us ? cache->negative_ttl_us : most_us;
    int64_t fresh_until_ms = now_ms + (int64_t)(ttl_us / 1000);
    int64_t others_ms = cache->stale_us ? (int64_t)((cache->ttl_us + cache->stale_us) / 1000) : 0;
    return (struct auth_decision){
        .cause = finding->cause,
        .fresh_until_ms = fresh_until_ms,
        .stale_until_ms = later(fresh_until_ms, now_ms + others_ms),
    };
}

static void keep(const struct question *question, const struct question_finding *finding,
                 const struct headers *headers)
{
    if (!is_cached(question->cache))
        return;
    int64_t now_ms = wall_ms();
    struct auth_decision decision =
        (finding->identity ? allowance : denial)(question, finding, headers, now_ms);
    decision.key = question->key;
    if (decision.stale_until_ms > now_ms && (decision.fresh_until_ms > now_ms || !decision.identity)) {
        auth_cache_put(question->worker->cache, &decision);
        auth_shared_put(&decision);
    } else { // what was known before is no longer true
        auth_cache_drop(question->worker->cache, question->key);
        auth_shared_drop(question->key);
    }
}

// ---- the breaker and the log ----

static void complain(struct question *question, const char *why)
{
    struct auth_local *local = auth_local_of(question->worker, question->provider);
    uint64_t now_ms = now_us(question->worker) / 1000;
    if (local->complained_ms && now_ms < local->complained_ms + COMPLAINTS_EVERY_MS)
        return;
    local->complained_ms = now_ms;
    log_warn("auth", "%.*s: no decision of the Auth Service: %s", STR_ARG(question->provider->name), why);
}

static void note(struct question *question, bool good, const char *why)
{
    struct auth_breaker *breaker = &auth_local_of(question->worker, question->provider)->breaker;
    struct str name = question->provider->name;
    uint64_t now_ms = now_us(question->worker) / 1000;
    if (question->noted)
        return;
    question->noted = true;
    if (!auth_breaker_note(breaker, question->epoch, good, now_ms,
                           rand_unit(&question->worker->questions->rand)))
        return;
    if (good)
        log_info("auth", "%.*s: the Auth Service answers again", STR_ARG(name));
    else
        log_warn("auth", "%.*s: the Auth Service fails (%s): it is not asked for %llu ms", STR_ARG(name), why,
                 (unsigned long long)(breaker->open_until_ms - now_ms));
}

static void release(struct question *question)
{
    if (!question->noted)
        auth_breaker_release(&auth_local_of(question->worker, question->provider)->breaker, question->epoch);
    question->noted = true;
}

// An answer that only this token gets (400, 401, nonsense) says nothing about the service: else whoever sends
// such tokens could close it for all.
static void note_answer(struct question *question, const struct fetch_answer *answer)
{
    if (answer->cause == END_OK)
        note(question, answer->status < 500 && answer->status != 429, "it answers with a failure");
    else if (end_row(answer->cause)->against_upstream)
        note(question, false, end_row(answer->cause)->detail.p);
    else
        release(question);
}

// ---- one question ----

static struct question_table *table_of(struct auth_worker *worker)
{
    if (worker->questions)
        return worker->questions;
    struct question_table *table = calloc(1, sizeof *table);
    check(table);
    for (unsigned i = 0; i < BUCKETS; i++)
        list_init(&table->buckets[i]);
    rand_init(&table->rand);
    return worker->questions = table;
}

static struct list *bucket_of(struct question_table *table, struct hash128 same)
{
    return &table->buckets[same.lo % BUCKETS];
}

static struct question *find_question(struct question_table *table, struct hash128 same)
{
    list_each (bucket_of(table, same), node) {
        struct question *question = container_of(node, struct question, node);
        if (question->same.lo == same.lo && question->same.hi == same.hi)
            return question;
    }
    return NULL;
}

// Out of the table, so that whoever asks from now on begins anew.
static void retire(struct question *question)
{
    loop_timer_stop(question->worker->needs.loop, &question->due);
    list_remove(&question->node);
    question->worker->questions->count--;
}

// The snapshot goes last: it may be freed with this.
static void free_question(struct question *question)
{
    const struct auth *auth = question->provider->auth;
    arena_reset(&question->arena);
    free(question);
    auth->drop(auth->holder);
}

static void tell(struct waiter *waiter, const struct question_finding *finding)
{
    struct arena *arena = waiter->call->arena;
    waiter->question = NULL;
    waiter->decided = finding->decided;
    waiter->identity = finding->identity ? identity_ref(finding->identity) : NULL;
    waiter->cause = finding->cause;
    waiter->detail = finding->detail.n ? arena_copy(arena, finding->detail) : STR_NULL;
    waiter->challenge = finding->challenge.n ? arena_copy(arena, finding->challenge) : STR_NULL;
    waiter->worker->questions->waiters--;
}

// Everybody knows before anybody goes on: who is woken may end others.
static void deliver(struct question *question, const struct question_finding *finding)
{
    struct auth_worker *worker = question->worker;
    struct list told;
    list_init(&told);
    list_move_all(&question->waiters, &told);
    list_each (&told, node)
        tell(container_of(node, struct waiter, node), finding);
    for (struct list *node; (node = list_pop_front(&told));)
        worker->needs.wake(worker->needs.context, container_of(node, struct waiter, node)->call->ticket);
}

static void on_answer(void *owner, const struct fetch_answer *answer)
{
    struct question *question = owner;
    struct question_finding finding = {.expires = INT64_MAX};
    question->fetch = NULL;
    note_answer(question, answer);
    if (answer->cause == END_OK)
        question->kind->judge(question->provider, answer, (int64_t)(clock_wall_us() / 1000000),
                              &question->arena, &finding);
    else
        finding.why = end_row(answer->cause)->detail.p;
    if (finding.decided)
        keep(question, &finding, answer->headers);
    else
        complain(question, finding.why);
    retire(question);
    deliver(question, &finding);
    identity_unref(finding.identity);
    free_question(question);
}

static void on_due(struct loop_timer *timer)
{
    note(container_of(timer, struct question, due), false, "it does not answer in time");
}

static struct question *new_question(struct auth_worker *worker, const struct auth_provider *provider,
                                     const struct question_asked *asked, uint32_t epoch)
{
    struct question *question = calloc(1, sizeof *question);
    if (!question)
        return NULL;
    question->key = asked->key;
    question->same = asked->same;
    question->worker = worker;
    question->provider = provider;
    question->kind = asked->kind;
    question->cache = asked->cache;
    question->epoch = epoch;
    arena_init(&question->arena, NULL);
    list_init(&question->waiters);
    loop_timer_init(&question->due, on_due);
    loop_timer_set(worker->needs.loop, &question->due, (asked->timeout_us + 999) / 1000);
    list_init(&question->node);
    worker->questions->count++;
    provider->auth->hold(provider->auth->holder);
    return question;
}

// NULL: it cannot be asked now.
static struct question *begin(struct auth_worker *worker, const struct auth_provider *provider,
                              const struct auth_call *call, const struct question_asked *asked)
{
    struct auth_breaker *breaker = &auth_local_of(worker, provider)->breaker;
    uint32_t epoch;
    if (worker->questions->count >= QUESTIONS_MAX ||
        !auth_breaker_admit(breaker, now_us(worker) / 1000, &epoch))
        return NULL;
    struct question *question = new_question(worker, provider, asked, epoch);
    if (!question) {
        auth_breaker_release(breaker, epoch);
        return NULL;
    }
    struct fetch_request request = {
        .upstream = provider->upstream,
        .answer_bytes = QUESTION_ANSWER_BYTES,
        .timeout_us = asked->timeout_us + (is_cached(asked->cache) ? QUESTION_LATE_US : 0),
    };
    asked->kind->compose(provider, call, asked->credentials, &question->arena, &request);
    struct fetch_answer failure = {0};
    question->fetch = fetch_start(worker->needs.upstreams, &request, question, on_answer, &failure.cause);
    if (question->fetch) { // others find it from now on: a start that fails may have let them run before
        list_push_back(bucket_of(worker->questions, asked->same), &question->node);
        return question;
    }
    note_answer(question, &failure);
    complain(question, end_row(failure.cause)->detail.p);
    retire(question);
    free_question(question);
    return NULL;
}

// ---- who waits ----

static enum auth_result wait_for(struct question *question, struct auth_call *call,
                                 const struct question_asked *asked)
{
    struct waiter *waiter = arena_new(call->arena, struct waiter);
    waiter->question = question;
    waiter->worker = question->worker;
    waiter->call = call;
    waiter->key = asked->key;
    waiter->give_up_us = now_us(question->worker) + asked->timeout_us;
    list_push_back(&question->waiters, &waiter->node);
    question->worker->questions->waiters++;
    call->state = waiter;
    call->wait_us = asked->timeout_us;
    return AUTH_WAIT;
}

enum auth_result question_ask(struct auth_worker *worker, const struct auth_provider *provider,
                              struct auth_call *call, const struct question_asked *asked)
{
    struct question_table *table = table_of(worker);
    enum auth_result result;
    if (look_up(worker, provider, call, asked, &result))
        return result;
    if (table->waiters >= QUESTION_WAITERS_MAX)
        return fall_back(worker, provider, call, asked->key);
    const struct auth_breaker *breaker = &auth_local_of(worker, provider)->breaker;
    struct question *question = find_question(table, asked->same);
    if (!question)
        question = begin(worker, provider, call, asked);
    else if (breaker->state != AUTH_BREAKER_CLOSED && breaker->epoch != question->epoch)
        question = NULL; // it is late already, and the service is given up for now
    return question ? wait_for(question, call, asked) : fall_back(worker, provider, call, asked->key);
}

enum auth_result question_again(struct auth_worker *worker, const struct auth_provider *provider,
                                struct auth_call *call)
{
    struct waiter *waiter = call->state;
    uint64_t now = now_us(worker);
    if (waiter->question && now < waiter->give_up_us) {
        call->wait_us = waiter->give_up_us - now;
        return AUTH_WAIT;
    }
    enum auth_result result;
    if (!waiter->decided) {
        result = fall_back(worker, provider, call, waiter->key);
    } else {
        count(worker, provider, COUNT_CACHE_MISS);
        result = waiter->identity ? allow(call, waiter->identity)
                                  : deny(call, waiter->cause, waiter->detail, waiter->challenge);
    }
    question_forget(worker, call);
    return result;
}

void question_forget(struct auth_worker *worker, struct auth_call *call)
{
    struct waiter *waiter = call->state;
    if (!waiter)
        return;
    call->state = NULL;
    list_remove(&waiter->node);
    worker->questions->waiters -= waiter->question != NULL;
    identity_unref(waiter->identity);
}

// ---- all of them ----

void questions_free(struct auth_worker *worker)
{
    struct question_table *table = worker->questions;
    if (!table)
        return;
    for (unsigned i = 0; i < BUCKETS; i++)
        list_each (&table->buckets[i], node) {
            struct question *question = container_of(node, struct question, node);
            check(list_empty(&question->waiters)); // exchanges end before their worker
            fetch_cancel(question->fetch);
            retire(question);
            free_question(question);
        }
    free(table);
    worker->questions = NULL;
}

uint32_t questions_under_way(const struct auth_worker *worker)
{
    return worker->questions ? worker->questions->count : 0;
}
