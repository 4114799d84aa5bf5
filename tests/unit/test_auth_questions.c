// Questions to Auth Services, against one that answers, is silent, fails and comes back: introspection and
// forward.
#include "test_auth_questions_fixture.h"

// ---- introspection: what is asked ----

static void test_the_question(void **state)
{
    struct fixture *f = *state;
    say(f, ACTIVE);
    assert_int_equal(ask(f, 0, "Bearer a+b/c=="), AUTH_WAIT);
    assert_true(f->asking[0].call.wait_us && f->asking[0].call.wait_us <= TIMEOUT_US);
    settle(f, 0);
    const struct identity *identity = allowed(f, 0);
    assert_true(str_eq(identity->subject, STR("ann")));
    assert_int_equal(identity->roles.count, 1);
    assert_int_equal(identity->scopes.count, 2);
    assert_int_equal(identity->expires, INT64_MAX);
    assert_asked(f, "POST /introspect HTTP/1.1\r\nHost: auth.example:9400\r\n");
    // gate%20way -> form-encoded, then joined (RFC 6749 2.3.1): "gate+way:p%3A%C3%A4"
    assert_asked(f, "\r\nAuthorization: Basic Z2F0ZSt3YXk6cCUzQSVDMyVBNA==\r\n");
    assert_asked(f, "\r\nContent-Type: application/x-www-form-urlencoded\r\n");
    assert_asked(f, "\r\n\r\ntoken=a%2Bb%2Fc%3D%3D&token_type_hint=access_token");
}

static void test_no_credentials_are_no_question(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ask(f, 0, NULL), AUTH_NONE);
    assert_int_equal(ask(f, 0, "Basic YTpi"), AUTH_NONE);
    assert_int_equal(ask(f, 0, "Bearer"), AUTH_DENY);
    scene_turns(&f->upstream, 5);
    assert_int_equal(f->upstream.server.requests, 0);
    assert_int_equal(f->held, 0);
}

static void test_too_long_a_token(void **state)
{
    struct fixture *f = *state;
    char *text = malloc(TOKEN_BYTES + 16);
    memcpy(text, "Bearer ", 7);
    memset(text + 7, 'a', TOKEN_BYTES + 1);
    text[7 + TOKEN_BYTES + 1] = 0;
    ask(f, 0, text);
    denied(f, END_INVALID_TOKEN);
    free(text);
}

// ---- introspection: what is answered ----

static void test_answers_that_refuse(void **state)
{
    static const struct {
        const char *body;
        enum end_cause cause;
    } cases[] = {
        {"{\"active\":false}", END_INVALID_TOKEN},
        {"{\"active\":true,\"sub\":\"ann\",\"exp\":1000}", END_EXPIRED_TOKEN},
        {"{\"active\":true,\"sub\":\"ann\",\"iss\":\"https://other\"}", END_INVALID_TOKEN},
        {"{\"active\":true,\"sub\":\"ann\",\"aud\":[\"billing\"]}", END_INVALID_TOKEN},
    };
    struct fixture *f = *state;
    f->auth.settings.introspection.issuer = STR("https://auth.example");
    f->names[0] = STR("orders");
    for (size_t i = 0; i < countof(cases); i++) {
        char token[32];
        snprintf(token, sizeof token, "Bearer refused%zu", i);
        f->auth.settings.introspection.audiences = (struct str_list){f->names, i == 3 ? 1 : 0};
        say(f, cases[i].body);
        ask_to_the_end(f, token);
        denied(f, cases[i].cause);
        assert_true(str_starts(f->asking[0].call.challenge, STR("Bearer realm=\"sallyport\", error=")));
    }
    assert_int_equal(decided(f, "deny"), countof(cases));
}

// A service that fails must not look like a token that is bad.
static void test_answers_that_decide_nothing(void **state)
{
    static const char *const cases[][2] = {
        {"500 Oops", "{\"active\":true}"},
        {"401 Unauthorized", "{\"active\":false}"},
        {"403 Forbidden", ""},
        {"302 Found", "{\"active\":true}"},
        {"200 OK", ""},
        {"200 OK", "{\"active\":\"true\"}"},
        {"200 OK", "{\"active\":1}"},
        {"200 OK", "{}"},
        {"200 OK", "[true]"},
        {"200 OK", "{\"active\":true,\"active\":false}"},
        {"200 OK", "{\"active\":true,\"sub\":7}"},
        {"200 OK", "{\"active\":true,\"exp\":\"soon\"}"},
        {"200 OK", "<html>"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < countof(cases); i++) {
        reply(f, cases[i][0], "", cases[i][1]);
        ask_to_the_end(f, "Bearer undecided");
        unavailable(f);
    }
    say(f, ACTIVE);
    ask_to_the_end(f, "Bearer undecided");
    allowed(f, 0);
    assert_int_equal(f->upstream.server.requests, countof(cases) + 1);
    assert_int_equal(decided(f, "unavailable"), countof(cases));
}

// ---- one question for all who ask the same ----

static void test_equal_questions_are_asked_once(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < CALLS; i++)
        assert_int_equal(ask(f, i, "Bearer same"), AUTH_WAIT);
    assert_int_equal(questions_under_way(f->auth.worker), 1);
    assert_int_equal(f->held, 1);
    UNTIL(&f->upstream, f->upstream.server.requests);
    say(f, ACTIVE);
    settle(f, 0);
    for (uint32_t i = 0; i < CALLS; i++)
        assert_ptr_equal(allowed(f, i), f->asking[0].call.identity);
    assert_int_equal(f->auth.woken, CALLS);
    assert_int_equal(f->upstream.server.requests, 1);
    assert_int_equal(questions_under_way(f->auth.worker), 0);
    assert_int_equal(f->held, 0);
    assert_int_equal(cache_counted(f, "miss"), CALLS);
    assert_int_equal(decided(f, "allow"), CALLS);
}

static void test_other_tokens_are_other_questions(void **state)
{
    struct fixture *f = *state;
    say(f, ACTIVE);
    assert_int_equal(ask(f, 0, "Bearer one"), AUTH_WAIT);
    assert_int_equal(ask(f, 1, "Bearer two"), AUTH_WAIT);
    assert_int_equal(questions_under_way(f->auth.worker), 2);
    settle(f, 0);
    settle(f, 1);
    assert_ptr_not_equal(allowed(f, 0), allowed(f, 1));
    assert_int_equal(f->upstream.server.requests, 2);
}

static void test_who_has_gone_is_not_woken(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ask(f, 0, "Bearer gone"), AUTH_WAIT);
    assert_int_equal(ask(f, 1, "Bearer gone"), AUTH_WAIT);
    auth_forget(f->auth.worker, &f->asking[0].call);
    request(&f->asking[0], 0); // its arena is gone
    say(f, ACTIVE);
    settle(f, 1);
    allowed(f, 1);
    assert_int_equal(f->auth.woken, 1);
    // Nobody waits: the answer fills the cache all the same.
    f->upstream.server.reply = NULL;
    assert_int_equal(ask(f, 0, "Bearer alone"), AUTH_WAIT);
    auth_forget(f->auth.worker, &f->asking[0].call);
    say(f, ACTIVE);
    UNTIL(&f->upstream, !questions_under_way(f->auth.worker));
    assert_int_equal(ask(f, 0, "Bearer alone"), AUTH_ALLOW);
    allowed(f, 0);
    assert_int_equal(f->held, 0);
}

static void test_so_many_may_wait(void **state)
{
    struct fixture *f = *state;
    struct auth_call *crowd = calloc(QUESTION_WAITERS_MAX, sizeof *crowd);
    assert_int_equal(ask(f, 0, "Bearer crowd"), AUTH_WAIT);
    for (uint32_t i = 1; i < QUESTION_WAITERS_MAX; i++) {
        crowd[i] = f->asking[0].call;
        crowd[i].ticket.slot = CALLS;
        crowd[i].waits_for = crowd[i].state = NULL;
        assert_int_equal(auth_ask(f->auth.worker, &f->auth.provider, &crowd[i]), AUTH_WAIT);
    }
    assert_int_equal(ask(f, 1, "Bearer crowd"), AUTH_UNAVAILABLE);
    assert_int_equal(ask(f, 1, "Bearer another"), AUTH_UNAVAILABLE);
    say(f, ACTIVE);
    settle(f, 0);
    allowed(f, 0);
    assert_int_equal(f->auth.woken, QUESTION_WAITERS_MAX);
    assert_int_equal(ask(f, 1, "Bearer another"), AUTH_WAIT); // they do not count any more
    settle(f, 1);
    allowed(f, 1);
    for (uint32_t i = 1; i < QUESTION_WAITERS_MAX; i++) {
        assert_int_equal(auth_ask(f->auth.worker, &f->auth.provider, &crowd[i]), AUTH_ALLOW);
        identity_unref(crowd[i].identity);
    }
    free(crowd);
}

// ---- the cache ----

static void test_answers_are_kept(void **state)
{
    struct fixture *f = *state;
    say(f, ACTIVE);
    ask_to_the_end(f, "Bearer kept");
    allowed(f, 0);
    assert_int_equal(ask(f, 0, "Bearer kept"), AUTH_ALLOW);
    allowed(f, 0);
    say(f, "{\"active\":false}");
    ask_to_the_end(f, "Bearer bad");
    denied(f, END_INVALID_TOKEN);
    assert_int_equal(ask(f, 0, "Bearer bad"), AUTH_DENY);
    denied(f, END_INVALID_TOKEN);
    assert_int_equal(f->upstream.server.requests, 2);
    assert_int_equal(cache_counted(f, "hit"), 1);
    assert_int_equal(cache_counted(f, "negative"), 1);
    assert_int_equal(cache_counted(f, "miss"), 2);
}

static void test_answers_are_kept_for_their_time(void **state)
{
    struct fixture *f = *state;
    f->auth.settings.introspection.cache.ttl_us = SHORT_US;
    say(f, ACTIVE);
    ask_to_the_end(f, "Bearer short");
    allowed(f, 0);
    let_pass(f, SHORT_US + 2000);
    ask_to_the_end(f, "Bearer short");
    allowed(f, 0);
    assert_int_equal(f->upstream.server.requests, 2);
}

static void test_answers_that_may_not_be_kept(void **state)
{
    static const char *const headers[] = {
        "Cache-Control: no-store\r\n", "Cache-Control: private, max-age=60\r\n",
        "Cache-Control: max-age=0\r\n", "Cache-Control: max-age=5\r\nAge: 6\r\n"};
    struct fixture *f = *state;
    for (size_t i = 0; i < countof(headers); i++) {
        reply(f, "200 OK", headers[i], ACTIVE);
        ask_to_the_end(f, "Bearer unkept");
        allowed(f, 0);
    }
    assert_int_equal(f->upstream.server.requests, countof(headers));
}

// Some services say no-store with every answer.
static void test_a_ban_that_is_ignored(void **state)
{
    struct fixture *f = *state;
    f->auth.settings.introspection.cache.ignore_cache_control = true;
    reply(f, "200 OK", "Cache-Control: no-store\r\n", ACTIVE);
    ask_to_the_end(f, "Bearer banned");
    allowed(f, 0);
    assert_int_equal(ask(f, 0, "Bearer banned"), AUTH_ALLOW);
    allowed(f, 0);
    reply(f, "200 OK", "Cache-Control: no-store\r\n", "{\"active\":false}");
    ask_to_the_end(f, "Bearer refused");
    denied(f, END_INVALID_TOKEN);
    assert_int_equal(ask(f, 0, "Bearer refused"), AUTH_DENY);
    denied(f, END_INVALID_TOKEN);
    assert_int_equal(f->upstream.server.requests, 2);
    // The token's end counts all the same.
    char body[128];
    snprintf(body, sizeof body, "{\"active\":true,\"sub\":\"ann\",\"exp\":%lld}", (long long)now_s() + 1);
    reply(f, "200 OK", "Cache-Control: no-store\r\n", body);
    ask_to_the_end(f, "Bearer mortal");
    allowed(f, 0);
    let_pass(f, 1100000);
    assert_int_equal(ask(f, 0, "Bearer mortal"), AUTH_WAIT);
    settle(f, 0);
    denied(f, END_EXPIRED_TOKEN);
}

static void test_no_cache_at_all(void **state)
{
    struct fixture *f = *state;
    f->auth.settings.introspection.cache = (struct auth_cache_settings){0};
    say(f, ACTIVE);
    for (unsigned i = 1; i <= 3; i++) {
        ask_to_the_end(f, "Bearer uncached");
        allowed(f, 0);
        assert_int_equal(f->upstream.server.requests, i);
    }
    assert_int_equal(cache_counted(f, "hit"), 0);
}

static void test_kept_no_longer_than_the_token_lives(void **state)
{
    struct fixture *f = *state;
    char body[128];
    snprintf(body, sizeof body, "{\"active\":true,\"sub\":\"ann\",\"exp\":%lld}", (long long)now_s() + 600);
    say(f, body);
    ask_to_the_end(f, "Bearer mortal");
    assert_int_equal(allowed(f, 0)->expires, f->asking[0].call.now_s + 600);
    request(&f->asking[0], 0);
    add_header(&f->asking[0], "Authorization", "Bearer mortal");
    f->asking[0].call.now_s += 600;
    again(f, &f->asking[0]);
    denied(f, END_EXPIRED_TOKEN);
}

static void test_revoked_while_kept(void **state)
{
    struct fixture *f = *state;
    f->auth.settings.introspection.revocation = true;
    say(f, "{\"active\":true,\"sub\":\"ann\",\"jti\":\"opaque-1\"}");
    ask_to_the_end(f, "Bearer revoked");
    allowed(f, 0);
    const struct deny_entry entry = {.jti = STR("opaque-1"), .until = now_s() + 1000};
    assert_int_equal(deny_add(&entry, now_s()), DENY_ADDED);
    ask(f, 0, "Bearer revoked");
    denied(f, END_REVOKED_TOKEN);
}

// ---- a service that is silent or fails ----

static void test_silence_ends_with_the_timeout(void **state)
{
    struct fixture *f = *state;
    f->auth.settings.introspection.timeout_us = SHORT_US;
    uint64_t began_us = clock_monotonic_us();
    ask_to_the_end(f, "Bearer silent");
    unavailable(f);
    assert_true(clock_monotonic_us() - began_us < TIMEOUT_US);
    // It goes on a while, and its late answer is kept.
    assert_int_equal(questions_under_way(f->auth.worker), 1);
    say(f, ACTIVE);
    UNTIL(&f->upstream, !questions_under_way(f->auth.worker));
    assert_int_equal(ask(f, 0, "Bearer silent"), AUTH_ALLOW);
    allowed(f, 0);
    assert_int_equal(f->upstream.server.requests, 1);
    assert_int_equal(f->held, 0);
}

static void test_stale_when_the_service_is_down(void **state)
{
    struct fixture *f = *state;
    struct auth_cache_settings *cache = &f->auth.settings.introspection.cache;
    cache->ttl_us = SHORT_US;
    cache->stale_us = 60000000;
    say(f, ACTIVE);
    ask_to_the_end(f, "Bearer stale");
    allowed(f, 0);
    let_pass(f, SHORT_US + 2000);
    reply(f, "500 Oops", "", "");
    ask_to_the_end(f, "Bearer stale");
    allowed(f, 0);
    assert_int_equal(cache_counted(f, "stale"), 1);
    ask_to_the_end(f, "Bearer other");
    unavailable(f);
    // What it says counts again at once.
    say(f, "{\"active\":false}");
    ask_to_the_end(f, "Bearer stale");
    denied(f, END_INVALID_TOKEN);
}

static void test_the_breaker_opens_and_closes(void **state)
{
    struct fixture *f = *state;
    reply(f, "500 Oops", "", "");
    for (unsigned i = 0; i < AUTH_BREAKER_IN_A_ROW; i++) {
        ask_to_the_end(f, "Bearer broken");
        unavailable(f);
    }
    assert_int_equal(ask(f, 0, "Bearer broken"), AUTH_UNAVAILABLE); // at once
    assert_int_equal(f->upstream.server.requests, AUTH_BREAKER_IN_A_ROW);
    say(f, ACTIVE);
    struct auth_breaker *breaker = &auth_local_of(f->auth.worker, &f->auth.provider)->breaker;
    UNTIL(&f->upstream, loop_now_ms(&f->upstream.loop) >= breaker->open_until_ms);
    assert_int_equal(ask(f, 1, "Bearer probe"), AUTH_WAIT);
    assert_int_equal(ask(f, 0, "Bearer broken"), AUTH_UNAVAILABLE); // one is enough
    settle(f, 1);
    allowed(f, 1);
    ask_to_the_end(f, "Bearer broken");
    allowed(f, 0);
    assert_int_equal(f->held, 0);
}

// Whoever sends tokens that the service chokes on could close it for all.
static void test_answers_about_a_token_leave_the_breaker_closed(void **state)
{
    struct fixture *f = *state;
    reply(f, "400 Bad Request", "", "");
    for (unsigned i = 0; i < 2 * AUTH_BREAKER_IN_A_ROW; i++) {
        ask_to_the_end(f, "Bearer odd");
        unavailable(f);
    }
    assert_int_equal(f->upstream.server.requests, 2 * AUTH_BREAKER_IN_A_ROW);
}

static void test_a_service_that_is_not_there(void **state)
{
    struct fixture *f = *state;
    struct upstream_scene *scene = &f->upstream;
    close(scene->server.listener);
    scene->server.listener = -1;
    server_hang_up(&scene->server);
    ask_to_the_end(f, "Bearer unreachable");
    unavailable(f);
    assert_int_equal(f->held, 0);
}

// Its queue of connections is full: the kernel tries again and again, and nobody waits for that.
static void test_a_service_that_accepts_no_connection(void **state)
{
    enum { CROWD = 8 };
    struct fixture *f = *state;
    struct server *server = &f->upstream.server;
    int listener = server->listener, crowd[CROWD];
    struct sockaddr_in to;
    socklen_t size = sizeof to;
    f->auth.settings.introspection.timeout_us = SHORT_US;
    server->listener = -1;
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&to, &size), 0);
    for (unsigned i = 0; i < CROWD; i++) {
        crowd[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(crowd[i], (struct sockaddr *)&to, size);
    }
    for (unsigned i = 0; i < 3; i++) {
        uint64_t began_us = clock_monotonic_us();
        ask_to_the_end(f, "Bearer crowded");
        unavailable(f);
        assert_true(clock_monotonic_us() - began_us < TIMEOUT_US);
    }
    assert_int_equal(server->accepted, 0);
    for (unsigned i = 0; i < CROWD; i++)
        close(crowd[i]);
    server->listener = listener;
}

static void test_the_worker_goes_while_it_is_asked(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(ask(f, 0, "Bearer last"), AUTH_WAIT);
    auth_forget(f->auth.worker, &f->asking[0].call);
    assert_int_equal(f->held, 1); // teardown: given up, and let go
}

// ---- forward ----

static void be_forward(struct fixture *f)
{
    f->auth.provider.kind = &auth_forward;
    f->names[0] = STR("Authorization");
    f->names[1] = STR("Cookie");
    f->names[2] = STR("X-Forwarded-Uri"); // which the gateway says itself
    f->names[3] = STR("Host");
    f->names[4] = STR("X-User-Id");
    f->names[5] = STR("X-Plan");
    f->auth.settings.forward = (struct forward_settings){
        .uri = {.target = STR("/authorize"), .authority = STR("auth.example:9400")},
        .timeout_us = TIMEOUT_US,
        .request_headers = {f->names, 4},
        .response_headers = {f->names + 4, 2},
        .subject_header = STR("X-User-Id"),
        .roles_header = STR("X-User-Roles"),
    };
}

static void test_what_the_service_sees(void **state)
{
    struct fixture *f = *state;
    struct asking *asking = &f->asking[0];
    be_forward(f);
    reply(f, "200 OK", "X-User-Id: ann\r\nX-User-Roles: gold, admin\r\nX-Plan: big\r\nX-Other: no\r\n", "");
    request(asking, 0);
    asking->request.query = STR("a=1");
    asking->request.has_query = true;
    add_header(asking, "authorization", "Custom x");
    add_header(asking, "Cookie", "s=1");
    add_header(asking, "X-Secret", "not to be shown");
    add_header(asking, "X-Forwarded-Uri", "/forged");
    add_header(asking, "Host", "forged.example");
    assert_int_equal(again(f, asking), AUTH_WAIT);
    settle(f, 0);
    const struct identity *identity = allowed(f, 0);
    assert_true(str_eq(identity->subject, STR("ann")));
    assert_int_equal(identity->roles.count, 2);
    assert_int_equal(identity->header_count, 2);
    assert_true(str_eq(identity->headers[1].name, STR("X-Plan")));
    assert_true(str_eq(identity->headers[1].value, STR("big")));
    assert_asked(f, "GET /authorize HTTP/1.1\r\nHost: auth.example:9400\r\n");
    assert_asked(f, "\r\nX-Forwarded-Method: GET\r\n");
    assert_asked(f, "\r\nX-Forwarded-Proto: https\r\n");
    assert_asked(f, "\r\nX-Forwarded-Host: api.example\r\n");
    assert_asked(f, "\r\nX-Forwarded-Uri: /orders?a=1\r\n");
    assert_asked(f, "\r\nX-Forwarded-For: 192.0.2.7\r\n");
    assert_asked(f, "\r\nX-Request-Id: r-1\r\n");
    assert_asked(f, "\r\nauthorization: Custom x\r\n");
    assert_asked(f, "\r\nCookie: s=1\r\n");
    assert_null(strstr(f->upstream.server.last, "Secret"));
    assert_null(strstr(f->upstream.server.last, "forged"));
}

static void test_what_the_service_says(void **state)
{
    struct fixture *f = *state;
    be_forward(f);
    reply(f, "401 Unauthorized", "WWW-Authenticate: Custom realm=\"x\"\r\n", "");
    ask_to_the_end(f, "Custom y");
    denied(f, END_INVALID_TOKEN);
    assert_true(str_eq(f->asking[0].call.challenge, STR("Custom realm=\"x\"")));
    assert_int_equal(ask_to_the_end(f, NULL), AUTH_NONE); // there was nothing to refuse
    assert_true(str_eq(f->asking[0].call.challenge, STR("Custom realm=\"x\"")));
    reply(f, "401 Unauthorized", "", "");
    assert_int_equal(ask_to_the_end(f, NULL), AUTH_NONE);
    assert_true(str_eq(f->asking[0].call.challenge, STR("Bearer realm=\"sallyport\""))); // and no error
    reply(f, "403 Forbidden", "", "");
    ask_to_the_end(f, NULL);
    denied(f, END_DENIED_BY_AUTH_SERVICE);
    reply(f, "204 No Content", "", "");
    ask_to_the_end(f, NULL);
    allowed(f, 0);
    static const char *const undecided[] = {"302 Found", "404 Not Found", "429 Too Many Requests",
                                            "500 Oops"};
    for (size_t i = 0; i < countof(undecided); i++) {
        reply(f, undecided[i], "Location: /login\r\n", "");
        ask_to_the_end(f, "Custom y");
        unavailable(f);
    }
}

static void test_without_ttl_only_the_same_question_is_shared(void **state)
{
    struct fixture *f = *state;
    be_forward(f);
    for (uint32_t i = 0; i < 4; i++) {
        request(&f->asking[i], i);
        add_header(&f->asking[i], "Authorization", "Custom y");
        if (i == 2)
            f->asking[i].request.path = STR("/other");
        if (i == 3)
            f->asking[i].request.method_name = STR("PUT");
        assert_int_equal(again(f, &f->asking[i]), AUTH_WAIT);
    }
    assert_int_equal(questions_under_way(f->auth.worker), 3);
    reply(f, "200 OK", "", "");
    for (uint32_t i = 0; i < 4; i++) {
        settle(f, i);
        allowed(f, i);
    }
    assert_int_equal(ask(f, 0, "Custom y"), AUTH_WAIT); // nothing was kept
    settle(f, 0);
    allowed(f, 0);
    assert_int_equal(f->upstream.server.requests, 4);
}

static void test_with_ttl_the_key_alone_counts(void **state)
{
    static struct str key[] = {{"header.Authorization", 20}, {"method", 6}};
    struct fixture *f = *state;
    be_forward(f);
    f->auth.settings.forward.cache = (struct auth_cache_settings){.ttl_us = 60000000, .key = {key, 2}};
    reply(f, "200 OK", "", "");
    ask_to_the_end(f, "Custom y");
    allowed(f, 0);
    struct asking *asking = &f->asking[0];
    request(asking, 0);
    add_header(asking, "Authorization", "Custom y");
    asking->request.path = STR("/other");
    assert_int_equal(again(f, asking), AUTH_ALLOW);
    allowed(f, 0);
    asking->request.method_name = STR("PUT");
    assert_int_equal(again(f, asking), AUTH_WAIT);
    settle(f, 0);
    allowed(f, 0);
    ask_to_the_end(f, "Custom z");
    allowed(f, 0);
    assert_int_equal(f->upstream.server.requests, 3);
}

// What the service was shown of one caller is no answer for another, whatever the key leaves out.
static void test_with_ttl_callers_are_told_apart(void **state)
{
    static struct str by_header[] = {{"header.authorization", 20}}, by_cookie[] = {{"cookie.s", 8}};
    static const struct {
        struct str *key;
        const char *first, *second;
        bool is_same;
    } cases[] = {
        {by_header, "s=ann", "s=bob", false},   {by_header, "s=ann", NULL, false},
        {by_header, "s=ann", "s=ann", true},    {by_cookie, "s=ann", "s=bob", false},
        {by_cookie, "s=ann", NULL, false},      {by_cookie, "s=ann; a=1", "s=ann; a=2", true},
        {by_cookie, "s =ann", "s =bob", false}, // a service that is not so strict knows both
        {by_cookie, "t=ann", NULL, false},
    };
    struct fixture *f = *state;
    struct asking *asking = &f->asking[0];
    be_forward(f);
    reply(f, "200 OK", "", "");
    for (size_t i = 0; i < countof(cases); i++) {
        f->auth.settings.forward.cache =
            (struct auth_cache_settings){.ttl_us = 60000000, .key = {cases[i].key, 1}};
        f->auth.provider.fingerprint = i + 1;
        request(asking, 0);
        add_header(asking, "Cookie", cases[i].first);
        assert_int_equal(again(f, asking), AUTH_WAIT);
        settle(f, 0);
        allowed(f, 0);
        request(asking, 0);
        if (cases[i].second)
            add_header(asking, "Cookie", cases[i].second);
        assert_int_equal(again(f, asking), cases[i].is_same ? AUTH_ALLOW : AUTH_WAIT);
        settle(f, 0);
        allowed(f, 0);
    }
}

// A refusal of one method or path is none of another.
static void test_without_ttl_a_refusal_is_kept_for_the_same_question(void **state)
{
    static struct str key[] = {{"header.Authorization", 20}};
    struct fixture *f = *state;
    struct asking *asking = &f->asking[0];
    be_forward(f);
    f->auth.settings.forward.cache =
        (struct auth_cache_settings){.negative_ttl_us = 60000000, .key = {key, 1}};
    reply(f, "403 Forbidden", "", "");
    ask_to_the_end(f, "Custom y");
    denied(f, END_DENIED_BY_AUTH_SERVICE);
    assert_int_equal(ask(f, 0, "Custom y"), AUTH_DENY);
    reply(f, "200 OK", "", "");
    request(asking, 0);
    add_header(asking, "Authorization", "Custom y");
    asking->request.path = STR("/other");
    assert_int_equal(again(f, asking), AUTH_WAIT);
    settle(f, 0);
    allowed(f, 0);
}

// ---- Cache-Control ----

static void test_freshness(void **state)
{
    static const struct {
        const char *control, *age;
        uint64_t us;
        bool stale;
    } cases[] = {
        {NULL, NULL, UINT64_MAX, true},
        {"max-age=60", NULL, 60000000, true},
        {"max-age=60", "20", 40000000, true},
        {"max-age=60", "60", 0, true},
        {"max-age=60, s-maxage=10", NULL, 10000000, true},
        {"max-age=\"30\"", NULL, 30000000, true},
        {"max-age=soon", NULL, 0, true},
        {"max-age", NULL, 0, true},
        {"MAX-AGE=5, Must-Revalidate", NULL, 5000000, false},
        {"proxy-revalidate", NULL, UINT64_MAX, false},
        {"no-store", NULL, 0, false},
        {"no-cache, max-age=60", NULL, 0, false},
        {"private", NULL, 0, false},
        {"public, immutable", NULL, UINT64_MAX, true},
    };
    (void)state;
    for (size_t i = 0; i < countof(cases); i++) {
        struct header fields[] = {{STR("Age"), str_of(cases[i].age), HEADER_OTHER},
                                  {STR("cache-control"), str_of(cases[i].control), HEADER_OTHER}};
        uint32_t first = cases[i].age ? 0 : 1, end = cases[i].control ? 2 : 1;
        struct headers headers = {fields + first, end - first, 2};
        bool stale;
        uint64_t us = question_freshness_us(&headers, &stale);
        if (us != cases[i].us || stale != cases[i].stale)
            fail_msg("%s: %llu %d", cases[i].control, (unsigned long long)us, stale);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_the_question),
        TEST(test_no_credentials_are_no_question),
        TEST(test_too_long_a_token),
        TEST(test_answers_that_refuse),
        TEST(test_answers_that_decide_nothing),
        TEST(test_equal_questions_are_asked_once),
        TEST(test_other_tokens_are_other_questions),
        TEST(test_who_has_gone_is_not_woken),
        TEST(test_so_many_may_wait),
        TEST(test_answers_are_kept),
        TEST(test_answers_are_kept_for_their_time),
        TEST(test_answers_that_may_not_be_kept),
        TEST(test_a_ban_that_is_ignored),
        TEST(test_no_cache_at_all),
        TEST(test_kept_no_longer_than_the_token_lives),
        TEST(test_revoked_while_kept),
        TEST(test_silence_ends_with_the_timeout),
        TEST(test_stale_when_the_service_is_down),
        TEST(test_the_breaker_opens_and_closes),
        TEST(test_answers_about_a_token_leave_the_breaker_closed),
        TEST(test_a_service_that_is_not_there),
        TEST(test_a_service_that_accepts_no_connection),
        TEST(test_the_worker_goes_while_it_is_asked),
        TEST(test_what_the_service_sees),
        TEST(test_what_the_service_says),
        TEST(test_without_ttl_only_the_same_question_is_shared),
        TEST(test_with_ttl_the_key_alone_counts),
        TEST(test_with_ttl_callers_are_told_apart),
        TEST(test_without_ttl_a_refusal_is_kept_for_the_same_question),
        cmocka_unit_test(test_freshness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
