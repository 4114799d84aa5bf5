// What the tests of questions share: exchanges, a service in the test's hand, and a provider that asks it.
#pragma once

#include "test_auth_fixture.h"
#include "test_fetch_fixture.h"

#include "auth/question.h"

enum { CALLS = 32, TIMEOUT_US = 2000000, SHORT_US = 40000 };

struct asking { // an exchange
    struct arena arena;
    struct request_head request;
    struct auth_call call;
    enum auth_result result;
    struct identity *identity; // a reference
};

struct fixture {
    struct upstream_scene upstream;
    struct auth_scene auth;
    struct auth_worker *workers[2]; // the first one asks, until another one is to (be_worker)
    struct asking asking[CALLS];
    struct str names[6];
    int held; // the snapshot, how often
    char reply[2048];
};

static inline int64_t now_s(void)
{
    return (int64_t)(clock_wall_us() / 1000000);
}

static inline void be_worker(struct fixture *f, unsigned n)
{
    f->auth.worker = f->workers[n];
}

// ---- asking ----

static inline void request(struct asking *asking, uint32_t slot)
{
    arena_reset(&asking->arena);
    asking->request = (struct request_head){
        .method = METHOD_GET,
        .method_name = STR("GET"),
        .authority = STR("api.example"),
        .host = STR("api.example"),
        .path = STR("/orders"),
    };
    asking->call = (struct auth_call){
        .request = &asking->request,
        .scheme = STR("https"),
        .request_id = STR("r-1"),
        .arena = &asking->arena,
        .now_s = now_s(),
        .ticket = {slot, 1},
    };
    static const struct ip client = {.family = AF_INET, .bytes = {[10] = 0xff, 0xff, 192, 0, 2, 7}};
    asking->call.client = &client;
}

static inline void add_header(struct asking *asking, const char *name, const char *value)
{
    headers_add(&asking->request.headers, &asking->arena, str_of(name), str_of(value));
}

static inline enum auth_result again(struct fixture *f, struct asking *asking)
{
    return asking->result = auth_ask(f->auth.worker, &f->auth.provider, &asking->call);
}

// The n-th exchange asks with this Authorization; NULL: none.
static inline enum auth_result ask(struct fixture *f, uint32_t n, const char *authorization)
{
    struct asking *asking = &f->asking[n];
    request(asking, n);
    if (authorization)
        add_header(asking, "Authorization", authorization);
    return again(f, asking);
}

static inline void on_wake(void *context, struct ticket ticket)
{
    struct fixture *f = context;
    auth_scene_wake(&f->auth, ticket);
    if (ticket.slot < CALLS)
        (void)again(f, &f->asking[ticket.slot]);
}

// Until it is woken with an answer, or asks again because its time is over.
static inline enum auth_result settle(struct fixture *f, uint32_t n)
{
    struct asking *asking = &f->asking[n];
    uint64_t due_us = f->upstream.loop.now_us + asking->call.wait_us;
    UNTIL(&f->upstream, asking->result != AUTH_WAIT || f->upstream.loop.now_us >= due_us);
    return asking->result == AUTH_WAIT ? again(f, asking) : asking->result;
}

static inline enum auth_result ask_to_the_end(struct fixture *f, const char *authorization)
{
    return ask(f, 0, authorization) == AUTH_WAIT ? settle(f, 0) : f->asking[0].result;
}

// Who it is, until the same exchange is allowed again.
static inline struct identity *allowed(struct fixture *f, uint32_t n)
{
    struct asking *asking = &f->asking[n];
    assert_int_equal(asking->result, AUTH_ALLOW);
    assert_non_null(asking->call.identity);
    assert_null(asking->call.state);
    identity_unref(asking->identity);
    return asking->identity = asking->call.identity;
}

static inline void denied(struct fixture *f, enum end_cause cause)
{
    assert_int_equal(f->asking[0].result, AUTH_DENY);
    assert_int_equal(f->asking[0].call.cause, cause);
    assert_null(f->asking[0].call.state);
}

static inline void unavailable(struct fixture *f)
{
    assert_int_equal(f->asking[0].result, AUTH_UNAVAILABLE);
    assert_true(f->asking[0].call.detail.n);
    assert_null(f->asking[0].call.state);
}

// ---- the service ----

static inline void reply(struct fixture *f, const char *status, const char *headers, const char *body)
{
    snprintf(f->reply, sizeof f->reply, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n%s", status, headers,
             strlen(body), body);
    f->upstream.server.reply = f->reply;
}

static inline void say(struct fixture *f, const char *body)
{
    reply(f, "200 OK", "", body);
}

static inline void assert_asked(const struct fixture *f, const char *part)
{
    if (!strstr(f->upstream.server.last, part))
        fail_msg("no %s in %s", part, f->upstream.server.last);
}

static inline unsigned long cache_counted(struct fixture *f, const char *result)
{
    return auth_scene_counted(&f->auth, "cache_total", result);
}

static inline unsigned long decided(struct fixture *f, const char *result)
{
    return auth_scene_counted(&f->auth, "decisions_total", result);
}

// Until so much of wall-clock time has gone by.
static inline void let_pass(struct fixture *f, uint64_t us)
{
    uint64_t end_us = clock_wall_us() + us;
    UNTIL(&f->upstream, clock_wall_us() >= end_us);
}

#define ACTIVE "{\"active\":true,\"sub\":\"ann\",\"scope\":\"read write\",\"roles\":[\"gold\"]}"

// ---- the scene ----

static inline void hold(void *holder)
{
    ((struct fixture *)holder)->held++;
}

static inline void drop(void *holder)
{
    ((struct fixture *)holder)->held--;
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const struct auth_sources sources = {.tls_slots = 2};
    struct err err;
    for (unsigned i = 0; i < CALLS; i++)
        arena_init(&f->asking[i].arena, NULL);
    scene_init(&f->upstream);
    auth_scene_init_on(&f->auth, &f->upstream.loop, f->upstream.metrics, f->upstream.worker);
    f->auth.worker->needs.wake = on_wake;
    f->auth.worker->needs.context = f;
    f->workers[0] = f->auth.worker;
    f->workers[1] = auth_worker_new(&f->auth.worker->needs);
    assert_non_null(f->workers[1]);
    auth_worker_update(f->workers[1], &f->auth.auth);
    f->auth.auth.holder = f;
    f->auth.auth.hold = hold;
    f->auth.auth.drop = drop;
    f->auth.settings.introspection = (struct introspection_settings){
        .uri = {.target = STR("/introspect"), .authority = STR("auth.example:9400")},
        .client_id = STR("gate way"),
        .client_secret = STR("p:\xc3\xa4"),
        .timeout_us = TIMEOUT_US,
        .cache = {.ttl_us = 60000000, .negative_ttl_us = 60000000},
        .roles_claim = STR("roles"),
        .scopes_claim = STR("scope"),
    };
    f->auth.provider.kind = &auth_introspection;
    f->auth.provider.upstream = &f->upstream.upstream;
    assert_true(auth_introspection.compile(&f->auth.provider, &sources, NULL, &err));
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    be_worker(f, 0);
    auth_worker_free(f->workers[1]);
    auth_scene_fini_on(&f->auth);
    assert_int_equal(f->held, 0);
    scene_fini(&f->upstream);
    for (unsigned i = 0; i < CALLS; i++) {
        identity_unref(f->asking[i].identity);
        arena_reset(&f->asking[i].arena);
    }
    free(f);
    return 0;
}
