#include "auth/jwks.h"

#include "auth/provider.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rand.h"

#include <pthread.h>
#include <stdlib.h>

struct jwks {
    struct list node;    // in room.sources
    unsigned references; // of snapshots
    struct str uri, ca, file;

    // What workers see: under the lock.
    struct token_keys *keys;  // NULL: none
    _Atomic uint64_t version; // written under the lock
    bool wanted;              // an unknown kid asks; the answer is not there yet
    bool was_wanted;          // ever
    uint64_t want_ended_us, good_us, cooldown_us;

    // The control thread's.
    const struct auth_provider *provider; // of the snapshot in force; NULL: it has no part in that
    const struct auth *held;              // by the fetch under way
    struct fetch *fetch;
    bool for_want; // it began when an unknown kid had asked already
    struct loop_timer due, expiry;
    uint64_t began_us;             // the first fetch; 0: none yet
    unsigned failures;             // in a row
    struct file_stamp seen, tried; // when we last looked; when it was last read
};

// All sources, and what serves them.
static struct {
    struct list sources; // control thread
    struct loop *loop;   // set while no worker runs
    struct upstream_worker *upstreams;
    struct metrics *metrics;
    struct rand rand;
    struct loop_task task; // jwks_want: the control thread looks for who is wanted
    _Atomic bool posted;
    struct jwks_listener *listeners; // under the lock
    uint64_t versions;               // under the lock
} room = {.sources = {&room.sources, &room.sources}};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// ---- any thread ----

struct token_keys *jwks_keys(struct jwks *jwks, uint64_t *version)
{
    pthread_mutex_lock(&lock);
    struct token_keys *keys = jwks->keys ? token_keys_ref(jwks->keys) : NULL;
    *version = atomic_load_explicit(&jwks->version, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
    return keys;
}

uint64_t jwks_version(const struct jwks *jwks)
{
    return atomic_load_explicit(&jwks->version, memory_order_acquire);
}

enum jwks_want jwks_want(struct jwks *jwks)
{
    enum jwks_want answer = JWKS_WAIT;
    bool begins = false;
    uint64_t now_us = clock_monotonic_us();
    pthread_mutex_lock(&lock);
    if (!room.loop) {
        answer = JWKS_FAILED;
    } else if (!jwks->wanted) {
        if (jwks->was_wanted && now_us < jwks->want_ended_us + jwks->cooldown_us)
            answer = jwks->good_us >= jwks->want_ended_us ? JWKS_KNOWN : JWKS_FAILED;
        else
            jwks->wanted = begins = true;
    }
    pthread_mutex_unlock(&lock);
    if (begins && !atomic_exchange(&room.posted, true))
        loop_post(room.loop, &room.task);
    return answer;
}

// ---- listeners ----

static void run_listener(struct loop_task *task)
{
    struct jwks_listener *listener = container_of(task, struct jwks_listener, task);
    atomic_store(&listener->posted, false); // what ends from now on is told again
    listener->on_fetched(listener);
}

void jwks_listen(struct jwks_listener *listener)
{
    listener->task.run = run_listener;
    atomic_init(&listener->posted, false);
    pthread_mutex_lock(&lock);
    listener->next = room.listeners;
    room.listeners = listener;
    pthread_mutex_unlock(&lock);
}

void jwks_unlisten(struct jwks_listener *listener)
{
    pthread_mutex_lock(&lock);
    for (struct jwks_listener **at = &room.listeners; *at; at = &(*at)->next)
        if (*at == listener) {
            *at = listener->next;
            break;
        }
    pthread_mutex_unlock(&lock);
    loop_withdraw(listener->loop, &listener->task);
}

// Under the lock, so that a listener is there as long as it is posted to.
static void tell_listeners(void)
{
    for (struct jwks_listener *listener = room.listeners; listener; listener = listener->next)
        if (!atomic_exchange(&listener->posted, true))
            loop_post(listener->loop, &listener->task);
}

// ---- the set in force: control thread ----

static struct str name_of(const struct jwks *jwks)
{
    return jwks->file.n ? jwks->file : jwks->uri;
}

// Under the lock. Takes the reference; the one before is the caller's to drop.
static struct token_keys *replace_keys(struct jwks *jwks, struct token_keys *keys)
{
    struct token_keys *before = jwks->keys;
    jwks->keys = keys;
    atomic_store_explicit(&jwks->version, ++room.versions, memory_order_release);
    return before;
}

static void on_expiry(struct loop_timer *timer)
{
    struct jwks *jwks = container_of(timer, struct jwks, expiry);
    pthread_mutex_lock(&lock);
    struct token_keys *before = replace_keys(jwks, NULL);
    tell_listeners();
    pthread_mutex_unlock(&lock);
    token_keys_unref(before);
    log_error("auth", "%.*s: the last good keys are too old: no token is accepted", STR_ARG(name_of(jwks)));
}

// Counted from when they were good, but only when they could not be had since.
static void let_expire(struct jwks *jwks)
{
    uint64_t end_us = jwks->good_us + jwks->provider->settings->jwt.jwks.keep_last_good_us;
    uint64_t now_us = clock_monotonic_us();
    if (jwks->keys && !jwks->file.n)
        loop_timer_set(room.loop, &jwks->expiry, end_us > now_us ? (end_us - now_us) / 1000 : 0);
}

// ---- when the next fetch is due ----

static uint64_t jitter(double value)
{
    return (uint64_t)(value * (0.9 + 0.2 * rand_unit(&room.rand)));
}

static uint64_t refresh_ms(const struct jwks *jwks)
{
    return jwks->provider->settings->jwt.jwks.refresh_us / 1000;
}

static uint64_t retry_ms(const struct jwks *jwks)
{
    unsigned doublings = jwks->failures - 1;
    uint64_t most_ms = refresh_ms(jwks) < JWKS_RETRY_MAX_MS ? refresh_ms(jwks) : JWKS_RETRY_MAX_MS;
    uint64_t ms = doublings < 16 ? (uint64_t)JWKS_RETRY_MS << doublings : JWKS_RETRY_MAX_MS;
    return ms < most_ms ? ms : most_ms;
}

static void plan(struct jwks *jwks)
{
    uint64_t after_ms = JWKS_LOOK_MS;
    if (!jwks->file.n)
        after_ms = jitter((double)(jwks->failures ? retry_ms(jwks) : refresh_ms(jwks)));
    loop_timer_set(room.loop, &jwks->due, after_ms);
}

// ---- a fetch and its end ----

static void log_failure(const struct jwks *jwks, const char *why)
{
    log_warn("auth", "%.*s: no keys from %.*s: %s%s", STR_ARG(jwks->provider->name), STR_ARG(name_of(jwks)),
             why, jwks->keys ? "; the last good ones stay" : "");
}

static void log_success(const struct jwks *jwks, bool is_new)
{
    if (is_new)
        log_info("auth", "%.*s: %u keys from %.*s", STR_ARG(jwks->provider->name),
                 token_keys_count(jwks->keys), STR_ARG(name_of(jwks)));
    else if (jwks->failures)
        log_info("auth", "%.*s: %.*s has the same keys as before", STR_ARG(jwks->provider->name),
                 STR_ARG(name_of(jwks)));
}

// Whoever waits is answered, unless it was asked when this fetch was under way already, which may have been
// answered before; but the first keys of all are news to everybody, and out of force there will be no other
// fetch.
static void settle_want(struct jwks *jwks, bool is_first, uint64_t now_us)
{
    if (jwks->for_want || (jwks->wanted && !jwks->provider)) {
        jwks->wanted = false;
        jwks->was_wanted = true;
        jwks->want_ended_us = now_us;
    } else if (is_first) {
        jwks->wanted = false;
    }
    jwks->for_want = false;
}

// Takes the reference. NULL: it failed.
static void take(struct jwks *jwks, struct token_keys *keys, const char *why)
{
    uint64_t now_us = clock_monotonic_us();
    struct token_keys *before = keys;
    bool is_new = keys && !(jwks->keys && token_keys_same(jwks->keys, keys));
    pthread_mutex_lock(&lock);
    settle_want(jwks, is_new && !jwks->keys, now_us);
    if (keys)
        jwks->good_us = now_us;
    if (is_new)
        before = replace_keys(jwks, keys);
    bool goes_on = jwks->wanted;
    tell_listeners();
    pthread_mutex_unlock(&lock);
    token_keys_unref(before); // what was replaced, or is there already
    if (!jwks->provider)
        return;
    metrics_provider(room.metrics, jwks->provider->id, keys ? COUNT_JWKS_OK : COUNT_JWKS_FAILED);
    if (keys) {
        log_success(jwks, is_new);
        jwks->failures = 0;
        loop_timer_stop(room.loop, &jwks->expiry);
    } else {
        if (!jwks->failures++ || jwks->file.n) // a file is read only when it has changed
            log_failure(jwks, why);
        let_expire(jwks);
    }
    if (goes_on)
        loop_timer_set(room.loop, &jwks->due, 0);
    else
        plan(jwks);
}

static void on_answer(void *owner, const struct fetch_answer *answer)
{
    struct jwks *jwks = owner;
    const struct auth *held = jwks->held;
    struct token_keys *keys = NULL;
    struct err err = {0};
    const char *why = err.what;
    jwks->fetch = NULL;
    jwks->held = NULL;
    if (answer->cause != END_OK)
        why = end_row(answer->cause)->detail.p;
    else if (answer->status != 200)
        err_set(&err, ERR_INVALID, "", "its status is %u", answer->status);
    else
        keys = token_keys_parse(answer->body, &err);
    take(jwks, keys, why);
    held->drop(held->holder); // the source may go with it
}

static void start_fetch(struct jwks *jwks)
{
    const struct auth_provider *provider = jwks->provider;
    const struct jwt_settings *settings = &provider->settings->jwt;
    struct header accept = {STR("Accept"), STR("application/jwk-set+json, application/json"), HEADER_OTHER};
    struct headers headers = {.v = &accept, .count = 1, .capacity = 1};
    struct fetch_request request = {
        .upstream = provider->upstream,
        .method = METHOD_GET,
        .target = settings->jwks.uri.target,
        .authority = settings->jwks.uri.authority,
        .headers = &headers,
        .answer_bytes = TOKEN_KEYS_BYTES,
        .timeout_us = settings->jwks.timeout_us,
    };
    enum end_cause cause;
    jwks->fetch = fetch_start(room.upstreams, &request, jwks, on_answer, &cause);
    if (!jwks->fetch) {
        take(jwks, NULL, end_row(cause)->detail.p);
        return;
    }
    jwks->held = provider->auth;
    jwks->held->hold(jwks->held->holder);
}

static void read_source_file(struct jwks *jwks)
{
    struct arena arena;
    struct err err = {0};
    struct token_keys *keys = NULL;
    const char *why = err.what;
    arena_init(&arena, NULL);
    jwks->tried = jwks->seen;
    struct str text = file_load(jwks->file, TOKEN_KEYS_BYTES, &arena, &why);
    if (text.p)
        keys = token_keys_parse(text, &err);
    take(jwks, keys, why);
    arena_reset(&arena);
}

// Nothing new in it: who asked for a kid gets the answer of before.
static void answer_as_before(struct jwks *jwks)
{
    uint64_t now_us = clock_monotonic_us();
    pthread_mutex_lock(&lock);
    settle_want(jwks, false, now_us);
    if (!jwks->failures)
        jwks->good_us = now_us;
    tell_listeners();
    pthread_mutex_unlock(&lock);
    plan(jwks);
}

// Read when it is another one and rests: who writes it may not have finished. One of that is not waited for
// when there are no keys yet, or an unknown kid asks.
static void look_at_file(struct jwks *jwks)
{
    struct file_stamp stamp = file_stamp_of(jwks->file);
    bool rests = file_stamp_same(&stamp, &jwks->seen), is_first = !jwks->began_us;
    jwks->seen = stamp;
    if (is_first || (!file_stamp_same(&stamp, &jwks->tried) && (rests || !jwks->keys || jwks->for_want)))
        read_source_file(jwks);
    else if (jwks->for_want)
        answer_as_before(jwks);
    else
        plan(jwks);
}

static void begin(struct jwks *jwks)
{
    loop_timer_stop(room.loop, &jwks->due);
    pthread_mutex_lock(&lock);
    jwks->for_want = jwks->wanted;
    pthread_mutex_unlock(&lock);
    if (jwks->file.n)
        look_at_file(jwks);
    else
        start_fetch(jwks);
    if (!jwks->began_us)
        jwks->began_us = clock_monotonic_us();
}

static void on_due(struct loop_timer *timer)
{
    begin(container_of(timer, struct jwks, due));
}

// ---- what workers want ----

static void answer_wants(void)
{
    list_each (&room.sources, node) {
        struct jwks *jwks = container_of(node, struct jwks, node);
        pthread_mutex_lock(&lock);
        bool wanted = jwks->wanted;
        pthread_mutex_unlock(&lock);
        if (!wanted || jwks->fetch)
            continue; // on_answer goes on
        if (jwks->provider)
            begin(jwks);
        else
            take(jwks, NULL, NULL);
    }
}

static void on_wanted(struct loop_task *task)
{
    (void)task;
    atomic_store(&room.posted, false);
    answer_wants();
}

// ---- the control thread's side ----

static struct jwks *find(const struct jwt_settings *settings)
{
    list_each (&room.sources, node) {
        struct jwks *jwks = container_of(node, struct jwks, node);
        if (str_eq(jwks->uri, settings->jwks.uri.text) && str_eq(jwks->file, settings->jwks.file) &&
            str_eq(jwks->ca, settings->jwks.ca))
            return jwks;
    }
    return NULL;
}

static struct str keep(struct str text)
{
    return (struct str){str_dup(text), text.n};
}

struct jwks *jwks_open(struct str provider, const struct jwt_settings *settings)
{
    struct jwks *jwks = find(settings);
    if (!jwks) {
        jwks = calloc(1, sizeof *jwks);
        check(jwks);
        jwks->uri = keep(settings->jwks.uri.text);
        jwks->file = keep(settings->jwks.file);
        jwks->ca = keep(settings->jwks.ca);
        loop_timer_init(&jwks->due, on_due);
        loop_timer_init(&jwks->expiry, on_expiry);
        list_push_back(&room.sources, &jwks->node);
        log_debug("auth", "%.*s: keys come from %.*s", STR_ARG(provider), STR_ARG(name_of(jwks)));
    }
    jwks->references++;
    return jwks;
}

static void rest(struct jwks *jwks)
{
    if (room.loop) {
        loop_timer_stop(room.loop, &jwks->due);
        loop_timer_stop(room.loop, &jwks->expiry);
    }
}

void jwks_close(struct jwks *jwks)
{
    if (!jwks || --jwks->references)
        return;
    check(!jwks->fetch); // it holds the snapshot that holds us
    rest(jwks);
    list_remove(&jwks->node);
    token_keys_unref(jwks->keys);
    free((void *)(uintptr_t)jwks->uri.p);
    free((void *)(uintptr_t)jwks->file.p);
    free((void *)(uintptr_t)jwks->ca.p);
    free(jwks);
}

void jwks_start(struct loop *loop, struct upstream_worker *upstreams, struct metrics *metrics)
{
    room.loop = loop;
    room.upstreams = upstreams;
    room.metrics = metrics;
    room.task.run = on_wanted;
    atomic_store(&room.posted, false);
    rand_init(&room.rand);
}

static struct jwks *find_fetching(void)
{
    list_each (&room.sources, node) {
        struct jwks *jwks = container_of(node, struct jwks, node);
        if (jwks->fetch)
            return jwks;
    }
    return NULL;
}

static void give_up(struct jwks *jwks)
{
    const struct auth *held = jwks->held;
    fetch_cancel(jwks->fetch);
    jwks->fetch = NULL;
    jwks->held = NULL;
    held->drop(held->holder); // sources may go with it
}

void jwks_stop(void)
{
    if (!room.loop)
        return;
    list_each (&room.sources, node) {
        struct jwks *jwks = container_of(node, struct jwks, node);
        jwks->provider = NULL;
        rest(jwks);
    }
    for (struct jwks *jwks; (jwks = find_fetching());)
        give_up(jwks);
    loop_withdraw(room.loop, &room.task);
    room.loop = NULL;
}

// Of several providers with one source the first one's word counts.
static void adopt(struct jwks *jwks, const struct auth_provider *provider)
{
    if (jwks->provider)
        return;
    jwks->provider = provider;
    pthread_mutex_lock(&lock);
    jwks->cooldown_us = provider->settings->jwt.jwks.cooldown_us;
    pthread_mutex_unlock(&lock);
}

static void use_upstreams(const struct auth *auth)
{
    struct upstream **upstreams = calloc(auth->provider_count + 1, sizeof(struct upstream *));
    check(upstreams);
    uint32_t count = 0;
    for (uint32_t i = 0; i < auth->provider_count; i++) {
        const struct auth_provider *provider = auth->providers[i];
        if (provider->jwks && provider->upstream)
            upstreams[count++] = provider->upstream;
    }
    upstream_worker_update(room.upstreams, upstreams, count);
    free(upstreams);
}

// Begins what is new, or was out of force; a shorter refresh counts at once.
static void follow(struct jwks *jwks)
{
    if (!jwks->provider) {
        rest(jwks);
        return;
    }
    if (jwks->fetch)
        return;
    if (!jwks->due.due_ms) {
        begin(jwks);
        return;
    }
    uint64_t now_ms = loop_now_ms(room.loop), soonest_ms = now_ms + jitter((double)refresh_ms(jwks));
    if (!jwks->file.n && jwks->due.due_ms > soonest_ms)
        loop_timer_set(room.loop, &jwks->due, soonest_ms - now_ms);
}

void jwks_update(const struct auth *auth)
{
    list_each (&room.sources, node)
        container_of(node, struct jwks, node)->provider = NULL;
    for (uint32_t i = 0; i < auth->provider_count; i++)
        if (auth->providers[i]->jwks)
            adopt(auth->providers[i]->jwks, auth->providers[i]);
    use_upstreams(auth);
    metrics_reserve(room.metrics);
    list_each (&room.sources, source)
        follow(container_of(source, struct jwks, node));
    answer_wants(); // of those that are out of force now
}

struct str jwks_awaited(const struct auth *auth)
{
    uint64_t now_us = clock_monotonic_us();
    for (uint32_t i = 0; i < auth->provider_count; i++) {
        const struct jwks *jwks = auth->providers[i]->jwks;
        if (jwks && !jwks->good_us && !(jwks->began_us && now_us >= jwks->began_us + JWKS_FIRST_MS * 1000ull))
            return auth->providers[i]->name;
    }
    return STR_NULL;
}
