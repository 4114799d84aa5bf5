// Key sets: fetched from a server and from files, kept, refreshed, asked for by workers.
#include "test_fetch_fixture.h"
#include "test_token_fixture.h"

#include "auth/jwks.h"
#include "auth/provider.h"
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>

enum { SECOND_US = 1000000 };

// A snapshot with one provider.
struct snapshot {
    struct auth auth;
    struct auth_settings settings;
    struct auth_provider provider, *providers[1];
    int holders;
};

struct fixture {
    struct upstream_scene scene;
    struct snapshot snapshot;
    struct token_signer *old_signer, *new_signer;
    struct buf replies[3]; // with the old one's key, the new one's, both
    char file[32];
};

static void hold(void *holder)
{
    ((struct snapshot *)holder)->holders++;
}

static void drop(void *holder)
{
    ((struct snapshot *)holder)->holders--;
}

static void snapshot_init(struct snapshot *snapshot, struct upstream *upstream, const char *file)
{
    struct jwt_settings *jwt = &snapshot->settings.jwt;
    if (file)
        jwt->jwks.file = str_of(file);
    else
        jwt->jwks.uri = (struct auth_uri){.text = STR("http://auth.example/keys?x=1"),
                                          .authority = STR("auth.example"),
                                          .target = STR("/keys?x=1")};
    jwt->jwks.refresh_us = 600ull * SECOND_US;
    jwt->jwks.cooldown_us = 600ull * SECOND_US;
    jwt->jwks.keep_last_good_us = 600ull * SECOND_US;
    jwt->jwks.timeout_us = 5 * SECOND_US;
    snapshot->provider = (struct auth_provider){
        .settings = &snapshot->settings,
        .auth = &snapshot->auth,
        .name = STR("main"),
        .id = metric_name_id(NAME_PROVIDER, STR("main")),
        .upstream = file ? NULL : upstream,
        .jwks = jwks_open(STR("main"), jwt),
    };
    snapshot->providers[0] = &snapshot->provider;
    snapshot->auth = (struct auth){.providers = snapshot->providers,
                                   .provider_count = 1,
                                   .holder = snapshot,
                                   .hold = hold,
                                   .drop = drop};
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    scene_init(&f->scene);
    f->old_signer = signer_of(ALGORITHM_EDDSA);
    f->new_signer = signer_of(ALGORITHM_ES256);
    f->replies[0] = reply_of(&f->old_signer, 1);
    f->replies[1] = reply_of(&f->new_signer, 1);
    f->replies[2] = reply_of((struct token_signer *[]){f->new_signer, f->old_signer}, 2);
    f->scene.server.reply = f->replies[0].base;
    snapshot_init(&f->snapshot, &f->scene.upstream, NULL);
    jwks_start(&f->scene.loop, f->scene.worker, f->scene.metrics);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    jwks_stop();
    assert_int_equal(f->snapshot.holders, 0);
    jwks_close(f->snapshot.provider.jwks);
    scene_fini(&f->scene);
    for (size_t i = 0; i < countof(f->replies); i++)
        buf_free(&f->replies[i]);
    token_signer_free(f->old_signer);
    token_signer_free(f->new_signer);
    if (f->file[0])
        unlink(f->file);
    free(f);
    return 0;
}

static struct jwks *source(const struct fixture *f)
{
    return f->snapshot.provider.jwks;
}

static uint32_t key_count(struct jwks *jwks)
{
    uint64_t version;
    struct token_keys *keys = jwks_keys(jwks, &version);
    uint32_t count = keys ? token_keys_count(keys) : 0;
    assert_int_equal(version, jwks_version(jwks));
    token_keys_unref(keys);
    return count;
}

static uint64_t counted(struct fixture *f, const char *result)
{
    char series[128];
    struct buf text = {0};
    struct metrics_process process = {0};
    snprintf(series, sizeof series, "sallyport_jwks_refresh_total{provider=\"main\",result=\"%s\"} ", result);
    metrics_print(f->scene.metrics, &process, NULL, 0, false, &text);
    buf_append(&text, (struct str){"", 1});
    const char *at = strstr(text.base, series);
    uint64_t value = at ? strtoull(at + strlen(series), NULL, 10) : 0;
    buf_free(&text);
    return value;
}

// The first fetch, to its good end.
static void begin(struct fixture *f)
{
    jwks_update(&f->snapshot.auth);
    UNTIL(&f->scene, jwks_version(source(f)));
    scene_turns(&f->scene, 3);
}

static void passes(struct fixture *f, uint64_t ms)
{
    uint64_t end_us = clock_monotonic_us() + ms * 1000;
    UNTIL(&f->scene, clock_monotonic_us() >= end_us);
}

// ---- fetching ----

static void test_the_first_fetch(void **state)
{
    struct fixture *f = *state;
    f->scene.server.reply = NULL; // held
    assert_int_equal(key_count(source(f)), 0);
    assert_int_equal(jwks_version(source(f)), 0);
    assert_true(str_eq(jwks_awaited(&f->snapshot.auth), STR("main")));
    jwks_update(&f->snapshot.auth);
    UNTIL(&f->scene, f->scene.server.requests == 1);
    assert_string_equal(f->scene.server.last,
                        "GET /keys?x=1 HTTP/1.1\r\nHost: auth.example\r\nUser-Agent: sallyport\r\n"
                        "Accept: application/jwk-set+json, application/json\r\n\r\n");
    assert_int_equal(f->snapshot.holders, 1);
    assert_false(jwks_is_ready(&f->snapshot.auth));
    jwks_update(&f->snapshot.auth); // does not ask twice
    f->scene.server.reply = f->replies[0].base;
    UNTIL(&f->scene, jwks_version(source(f)));
    assert_int_equal(key_count(source(f)), 1);
    assert_true(jwks_is_ready(&f->snapshot.auth));
    assert_int_equal(f->snapshot.holders, 0);
    assert_int_equal(f->scene.server.requests, 1);
    assert_int_equal(counted(f, "success"), 1);
}

static void test_without_providers_it_is_ready(void **state)
{
    (void)state;
    struct auth none = {0};
    assert_true(jwks_is_ready(&none));
    jwks_update(&none);
}

// Each of what can be wrong, and then it is tried again by itself.
static void test_failures_and_trying_again(void **state)
{
    struct fixture *f = *state;
    static char too_large[TOKEN_KEYS_BYTES + 256];
    int head = snprintf(too_large, sizeof too_large, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
                        TOKEN_KEYS_BYTES + 1);
    memset(too_large + head, ' ', TOKEN_KEYS_BYTES + 1);
    char status[1024];
    snprintf(status, sizeof status, "HTTP/1.1 500 Oops%s", f->replies[0].base + strlen("HTTP/1.1 200 OK"));
    const char *const bad[] = {
        status,
        too_large,
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope",
        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
    };
    jwks_update(&f->snapshot.auth);
    for (size_t i = 0; i < countof(bad); i++) {
        f->scene.server.reply = bad[i];
        if (i < 4) {
            UNTIL(&f->scene, counted(f, "failure") == i + 1);
        } else { // by then the pauses are long
            assert_int_equal(jwks_want(source(f)), i == 4 ? JWKS_WAIT : JWKS_FAILED);
            if (i == 4)
                UNTIL(&f->scene, counted(f, "failure") == i + 1);
        }
        assert_int_equal(key_count(source(f)), 0);
        assert_int_equal(jwks_version(source(f)), 0);
        assert_false(jwks_is_ready(&f->snapshot.auth));
    }
    f->scene.server.reply = f->replies[0].base;
    UNTIL(&f->scene, jwks_version(source(f)));
    assert_int_equal(key_count(source(f)), 1);
}

static void test_refresh_and_the_same_content(void **state)
{
    struct fixture *f = *state;
    f->snapshot.settings.jwt.jwks.refresh_us = 20000;
    begin(f);
    uint64_t version = jwks_version(source(f));
    UNTIL(&f->scene, f->scene.server.requests >= 4);
    assert_int_equal(jwks_version(source(f)), version);
    assert_true(counted(f, "success") >= 3);
    f->scene.server.reply = f->replies[2].base;
    UNTIL(&f->scene, jwks_version(source(f)) != version);
    assert_int_equal(key_count(source(f)), 2);
}

static void test_a_failed_refresh_keeps_the_last_good_set(void **state)
{
    struct fixture *f = *state;
    f->snapshot.settings.jwt.jwks.refresh_us = 20000;
    begin(f);
    uint64_t version = jwks_version(source(f));
    f->scene.server.reply = "HTTP/1.1 503 Oops\r\nContent-Length: 0\r\n\r\n";
    UNTIL(&f->scene, counted(f, "failure") >= 3);
    assert_int_equal(jwks_version(source(f)), version);
    assert_int_equal(key_count(source(f)), 1);
    assert_true(jwks_is_ready(&f->snapshot.auth));
}

static void test_the_last_good_set_runs_out(void **state)
{
    struct fixture *f = *state;
    f->snapshot.settings.jwt.jwks.refresh_us = 20000;
    f->snapshot.settings.jwt.jwks.keep_last_good_us = SECOND_US;
    begin(f);
    passes(f, 1200); // as long as it is refreshed it stays
    uint64_t version = jwks_version(source(f));
    assert_int_equal(key_count(source(f)), 1);
    f->scene.server.reply = NULL;
    f->scene.server.hangs_up = true;
    UNTIL(&f->scene, counted(f, "failure"));
    assert_int_equal(key_count(source(f)), 1);
    UNTIL(&f->scene, jwks_version(source(f)) != version);
    assert_int_equal(key_count(source(f)), 0);
    version = jwks_version(source(f));
    f->scene.server.hangs_up = false;
    f->scene.server.reply = f->replies[0].base;
    UNTIL(&f->scene, jwks_version(source(f)) != version);
    assert_int_equal(key_count(source(f)), 1);
}

// ---- unknown kids ----

static void test_one_fetch_for_all_and_a_cooldown(void **state)
{
    struct fixture *f = *state;
    begin(f);
    f->scene.server.reply = NULL;
    for (int i = 0; i < 5; i++)
        assert_int_equal(jwks_want(source(f)), JWKS_WAIT);
    UNTIL(&f->scene, f->scene.server.requests == 2);
    assert_int_equal(jwks_want(source(f)), JWKS_WAIT); // under way
    uint64_t version = jwks_version(source(f));
    f->scene.server.reply = f->replies[2].base;
    UNTIL(&f->scene, jwks_version(source(f)) != version);
    assert_int_equal(key_count(source(f)), 2);
    for (int i = 0; i < 5; i++)
        assert_int_equal(jwks_want(source(f)), JWKS_KNOWN);
    passes(f, 50);
    assert_int_equal(f->scene.server.requests, 2);
}

// Asks, and says whether it is over.
static bool wanted_until(struct fixture *f, uint64_t end_us)
{
    (void)jwks_want(source(f));
    return clock_monotonic_us() >= end_us;
}

static void test_a_cooldown_ends(void **state)
{
    struct fixture *f = *state;
    f->snapshot.settings.jwt.jwks.cooldown_us = 100000;
    uint64_t began_us = f->scene.loop.now_us;
    begin(f);
    UNTIL(&f->scene, wanted_until(f, began_us + SECOND_US) && f->scene.server.requests >= 1 + 2);
    uint64_t spent_us = clock_monotonic_us() - began_us;
    unsigned fetches = f->scene.server.requests - 1;
    assert_true(fetches <= 1 + spent_us / 100000);
}

static void test_asked_in_vain(void **state)
{
    struct fixture *f = *state;
    begin(f);
    f->scene.server.reply = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n";
    assert_int_equal(jwks_want(source(f)), JWKS_WAIT);
    UNTIL(&f->scene, counted(f, "failure"));
    assert_int_equal(jwks_want(source(f)), JWKS_FAILED);
    assert_int_equal(key_count(source(f)), 1);
    // It is tried again by itself; once that is good, what is not in it is unknown.
    f->scene.server.reply = f->replies[0].base;
    UNTIL(&f->scene, counted(f, "success") == 2);
    assert_int_equal(jwks_want(source(f)), JWKS_KNOWN);
}

// What a fetch brings that was under way already may have been written before the key was there.
static void test_asked_during_a_refresh(void **state)
{
    struct fixture *f = *state;
    f->snapshot.settings.jwt.jwks.refresh_us = 20000;
    begin(f);
    f->scene.server.reply = NULL;
    UNTIL(&f->scene, f->scene.server.requests > f->scene.server.answered);
    unsigned under_way = f->scene.server.requests;
    f->snapshot.settings.jwt.jwks.refresh_us = 600ull * SECOND_US;
    assert_int_equal(jwks_want(source(f)), JWKS_WAIT);
    f->scene.server.reply = f->replies[0].base;
    UNTIL(&f->scene, jwks_want(source(f)) == JWKS_KNOWN);
    assert_int_equal(f->scene.server.requests, under_way + 1);
}

static void test_asked_before_there_are_keys(void **state)
{
    struct fixture *f = *state;
    f->scene.server.reply = NULL;
    jwks_update(&f->snapshot.auth);
    UNTIL(&f->scene, f->scene.server.requests == 1);
    assert_int_equal(jwks_want(source(f)), JWKS_WAIT);
    f->scene.server.reply = f->replies[0].base;
    UNTIL(&f->scene, jwks_version(source(f)));
    passes(f, 20);
    assert_int_equal(f->scene.server.requests, 1); // the first keys are the answer
    assert_int_equal(jwks_want(source(f)), JWKS_WAIT);
}

// ---- reloads ----

static void test_a_reload_keeps_the_keys(void **state)
{
    struct fixture *f = *state;
    struct snapshot next = {0};
    begin(f);
    uint64_t version = jwks_version(source(f));
    snapshot_init(&next, &f->scene.upstream, NULL);
    assert_ptr_equal(next.provider.jwks, source(f));
    next.settings.jwt.jwks.cooldown_us = 0; // is adopted
    jwks_update(&next.auth);
    jwks_close(source(f));
    passes(f, 20);
    assert_int_equal(f->scene.server.requests, 1);
    assert_int_equal(jwks_version(next.provider.jwks), version);
    next.settings.jwt.jwks.refresh_us = 20000; // sooner than what was planned
    jwks_update(&next.auth);
    UNTIL(&f->scene, f->scene.server.requests >= 3);
    f->snapshot.provider.jwks = next.provider.jwks;
    f->snapshot.settings = next.settings;
    jwks_update(&f->snapshot.auth);
    UNTIL(&f->scene, next.holders == 0);
}

static void test_other_certificates_are_another_source(void **state)
{
    struct fixture *f = *state;
    struct jwt_settings settings = f->snapshot.settings.jwt;
    settings.jwks.ca = STR("/etc/ca.pem");
    struct jwks *other = jwks_open(STR("other"), &settings);
    assert_ptr_not_equal(other, source(f));
    jwks_close(other);
    jwks_close(NULL);
}

static void test_out_of_force_while_it_is_fetched(void **state)
{
    struct fixture *f = *state;
    struct auth none = {0};
    begin(f);
    f->scene.server.reply = NULL;
    assert_int_equal(jwks_want(source(f)), JWKS_WAIT);
    UNTIL(&f->scene, f->scene.server.requests == 2);
    jwks_update(&none);
    assert_int_equal(f->snapshot.holders, 1);
    f->scene.server.reply = f->replies[2].base;
    UNTIL(&f->scene, f->snapshot.holders == 0);
    assert_int_equal(key_count(source(f)), 2);
    assert_int_equal(jwks_want(source(f)), JWKS_KNOWN);
    // In force again: fetched at once.
    jwks_update(&f->snapshot.auth);
    UNTIL(&f->scene, f->scene.server.requests == 3);
}

static void test_asked_out_of_force(void **state)
{
    struct fixture *f = *state;
    struct auth none = {0};
    begin(f);
    assert_int_equal(jwks_want(source(f)), JWKS_WAIT);
    jwks_update(&none); // before it has begun
    assert_int_equal(jwks_want(source(f)), JWKS_FAILED);
    passes(f, 20);
    assert_int_equal(f->scene.server.requests, 1);
    assert_int_equal(key_count(source(f)), 1);
}

static void test_stopped_while_it_is_fetched(void **state)
{
    struct fixture *f = *state;
    f->scene.server.reply = NULL;
    jwks_update(&f->snapshot.auth);
    UNTIL(&f->scene, f->scene.server.requests == 1);
    assert_int_equal(f->snapshot.holders, 1);
    jwks_stop();
    assert_int_equal(f->snapshot.holders, 0);
    assert_int_equal(jwks_want(source(f)), JWKS_FAILED);
    scene_turns(&f->scene, 3);
}

static void test_it_cannot_begin(void **state)
{
    struct fixture *f = *state;
    uint32_t count = f->scene.upstream.target_count;
    f->scene.upstream.target_count = 0;
    scene_update(&f->scene);
    jwks_update(&f->snapshot.auth);
    assert_int_equal(counted(f, "failure"), 1);
    assert_int_equal(f->snapshot.holders, 0);
    assert_int_equal(jwks_want(source(f)), JWKS_WAIT);
    UNTIL(&f->scene, jwks_want(source(f)) == JWKS_FAILED);
    f->scene.upstream.target_count = count;
    f->scene.upstream.generation++;
    jwks_update(&f->snapshot.auth);
    UNTIL(&f->scene, jwks_version(source(f)));
}

// ---- files ----

static void write_file(struct fixture *f, const char *text)
{
    char next[40];
    if (!f->file[0])
        snprintf(f->file, sizeof f->file, "/tmp/jwks-%d.json", getpid());
    snprintf(next, sizeof next, "%s.next", f->file);
    FILE *file = fopen(next, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(rename(next, f->file), 0);
}

static const char *body_of(const struct buf *reply)
{
    return strstr(reply->base, "\r\n\r\n") + 4;
}

static void test_a_file(void **state)
{
    struct fixture *f = *state;
    struct snapshot by_file = {0};
    write_file(f, body_of(&f->replies[0]));
    snapshot_init(&by_file, NULL, f->file);
    struct jwks *jwks = by_file.provider.jwks;
    jwks_update(&by_file.auth);
    assert_int_equal(key_count(jwks), 1); // at once
    assert_true(jwks_is_ready(&by_file.auth));
    uint64_t version = jwks_version(jwks);
    // Nothing has changed: that is an answer, too, and nothing is read.
    assert_int_equal(jwks_want(jwks), JWKS_WAIT);
    UNTIL(&f->scene, jwks_want(jwks) == JWKS_KNOWN);
    assert_int_equal(counted(f, "success"), 1);
    write_file(f, body_of(&f->replies[2]));
    UNTIL(&f->scene, jwks_version(jwks) != version);
    assert_int_equal(key_count(jwks), 2);
    // A bad one changes nothing, and is read once.
    version = jwks_version(jwks);
    write_file(f, "{\"keys\":");
    UNTIL(&f->scene, counted(f, "failure") == 1);
    passes(f, 2 * JWKS_LOOK_MS + 100);
    assert_int_equal(counted(f, "failure"), 1);
    unlink(f->file);
    UNTIL(&f->scene, counted(f, "failure") == 2);
    assert_int_equal(jwks_version(jwks), version);
    assert_int_equal(key_count(jwks), 2);
    write_file(f, body_of(&f->replies[1]));
    UNTIL(&f->scene, jwks_version(jwks) != version);
    assert_int_equal(key_count(jwks), 1);
    jwks_update(&f->snapshot.auth);
    jwks_close(jwks);
    UNTIL(&f->scene, f->snapshot.holders == 0);
}

static void test_a_file_is_read_at_once_for_an_unknown_kid(void **state)
{
    struct fixture *f = *state;
    struct snapshot by_file = {0};
    write_file(f, body_of(&f->replies[0]));
    snapshot_init(&by_file, NULL, f->file);
    struct jwks *jwks = by_file.provider.jwks;
    jwks_update(&by_file.auth);
    uint64_t version = jwks_version(jwks), began_us = clock_monotonic_us();
    write_file(f, body_of(&f->replies[2]));
    assert_int_equal(jwks_want(jwks), JWKS_WAIT);
    UNTIL(&f->scene, jwks_version(jwks) != version);
    assert_true(clock_monotonic_us() - began_us < JWKS_LOOK_MS * 1000ull);
    jwks_update(&f->snapshot.auth);
    jwks_close(jwks);
    UNTIL(&f->scene, f->snapshot.holders == 0);
}

// ---- workers ----

struct member {
    pthread_t thread;
    struct loop loop;
    struct jwks_listener listener;
    struct jwks *jwks;
    atomic_uint told, waits;
    atomic_bool ends;
};

static void on_fetched(struct jwks_listener *listener)
{
    struct member *member = container_of(listener, struct member, listener);
    assert_true(pthread_equal(pthread_self(), member->thread));
    atomic_fetch_add(&member->told, 1);
}

static void *run_member(void *context)
{
    struct member *member = context;
    member->thread = pthread_self();
    member->listener = (struct jwks_listener){.loop = &member->loop, .on_fetched = on_fetched};
    jwks_listen(&member->listener);
    while (!atomic_load(&member->ends)) {
        uint64_t version, before = jwks_version(member->jwks);
        struct token_keys *keys = jwks_keys(member->jwks, &version);
        assert_true(version >= before);
        if (keys)
            assert_true(token_keys_count(keys) >= 1);
        token_keys_unref(keys);
        if (jwks_want(member->jwks) == JWKS_WAIT)
            atomic_fetch_add(&member->waits, 1);
        loop_turn(&member->loop, 1);
    }
    jwks_unlisten(&member->listener);
    loop_turn(&member->loop, 0);
    return NULL;
}

static void test_workers_are_told_in_their_own_loops(void **state)
{
    struct fixture *f = *state;
    enum { MEMBERS = 3 };
    struct member *members = calloc(MEMBERS, sizeof *members);
    struct err err;
    f->snapshot.settings.jwt.jwks.refresh_us = 5000;
    f->snapshot.settings.jwt.jwks.cooldown_us = 3000;
    for (int i = 0; i < MEMBERS; i++) {
        members[i].jwks = source(f);
        assert_int_equal(loop_init(&members[i].loop, &err), ERR_OK);
        assert_int_equal(pthread_create(&members[i].thread, NULL, run_member, &members[i]), 0);
    }
    jwks_update(&f->snapshot.auth);
    for (unsigned round = 0; round < 60; round++) {
        f->scene.server.reply =
            round % 7 == 6 ? "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n" : f->replies[round % 3].base;
        unsigned answered = f->scene.server.answered;
        UNTIL(&f->scene, f->scene.server.answered > answered);
    }
    for (int i = 0; i < MEMBERS; i++)
        UNTIL(&f->scene, atomic_load(&members[i].told) > 3 && atomic_load(&members[i].waits));
    for (int i = 0; i < MEMBERS; i++) {
        atomic_store(&members[i].ends, true);
        pthread_join(members[i].thread, NULL);
        loop_fini(&members[i].loop);
    }
    free(members);
}

// What was posted to it and has not run does not run any more.
static void test_unlistened_before_it_is_told(void **state)
{
    struct fixture *f = *state;
    struct member member = {.thread = pthread_self()};
    member.listener = (struct jwks_listener){.loop = &f->scene.loop, .on_fetched = on_fetched};
    jwks_listen(&member.listener);
    f->scene.upstream.target_count = 0;
    scene_update(&f->scene);
    jwks_update(&f->snapshot.auth);
    assert_true(atomic_load(&member.listener.posted));
    jwks_unlisten(&member.listener);
    scene_turns(&f->scene, 3);
    assert_int_equal(atomic_load(&member.told), 0);
    f->scene.upstream.target_count = 1;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_first_fetch),
        TEST(test_without_providers_it_is_ready),
        TEST(test_failures_and_trying_again),
        TEST(test_refresh_and_the_same_content),
        TEST(test_a_failed_refresh_keeps_the_last_good_set),
        TEST(test_the_last_good_set_runs_out),
        TEST(test_one_fetch_for_all_and_a_cooldown),
        TEST(test_a_cooldown_ends),
        TEST(test_asked_in_vain),
        TEST(test_asked_during_a_refresh),
        TEST(test_asked_before_there_are_keys),
        TEST(test_a_reload_keeps_the_keys),
        TEST(test_other_certificates_are_another_source),
        TEST(test_out_of_force_while_it_is_fetched),
        TEST(test_asked_out_of_force),
        TEST(test_stopped_while_it_is_fetched),
        TEST(test_it_cannot_begin),
        TEST(test_a_file),
        TEST(test_a_file_is_read_at_once_for_an_unknown_kid),
        TEST(test_workers_are_told_in_their_own_loops),
        TEST(test_unlistened_before_it_is_told),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
