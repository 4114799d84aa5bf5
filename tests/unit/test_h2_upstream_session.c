// The life of a session with an upstream over HTTP/2: pings while it is quiet, what its end is to the calls
// on it, and how the gateway takes leave. The clock is pushed on where a test would wait.
#include "test_h2_upstream_fixture.h"

// ---- keeping alive ----

static void quiet_for(struct h2_session *s, uint64_t ms)
{
    s->heard_ms -= ms;
    s->tick.on_fire(&s->tick);
}

static void test_a_quiet_session_is_pinged_sparingly(void **state)
{
    struct fixture *f = *state;
    f->loop.now_us += 1000000000; // a machine that has run for a while: the past has room
    struct try *t = begin(f, 0);
    struct peer *peer = &f->peers[0];
    UNTIL(peer->stream_count == 1);
    struct h2_session *s = session_of_try(t);
    quiet_for(s, H2_QUIET_MS - 1000);
    turns(f, 5);
    assert_int_equal(peer->pings, 0);
    quiet_for(s, 1000);
    UNTIL(peer->pings == 1 && !s->pinged_ms);
    assert_true(s->ping_was_last);
    quiet_for(s, H2_QUIET_MS * 3); // a gRPC server would count it
    turns(f, 5);
    assert_int_equal(peer->pings, 1);
    quiet_for(s, H2_QUIETER_MS);
    UNTIL(peer->pings == 2 && !s->pinged_ms);
    answer(peer, 0, 1);
    UNTIL(t->ended);
    assert_ptr_equal(idle_session(f), s);
    quiet_for(s, H2_QUIET_MS);
    turns(f, 5);
    assert_int_equal(peer->pings, 2);
    quiet_for(s, H2_IDLE_QUIET_MS);
    UNTIL(peer->pings == 3 && !s->pinged_ms);
}

static void test_a_dead_session_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    struct h2_session *s = session_of_try(t);
    f->peers[0].is_deaf = true;
    quiet_for(s, H2_QUIET_MS);
    assert_true(s->pinged_ms);
    turns(f, 5);
    assert_false(t->failed);
    s->pinged_ms -= H2_PONG_MS;
    quiet_for(s, 0);
    assert_true(t->failed);
    assert_int_equal(t->cause, END_UPSTREAM_RESET);
    assert_int_equal(t->call.outcome.verdict, OUTCOME_FAILURE);
    assert_ptr_equal(t->call.outcome.endpoint, f->target.endpoint);
    assert_int_equal(links(f), 0);
}

static void test_a_silent_session_takes_no_more(void **state)
{
    struct fixture *f = *state;
    struct try *hasty = begin(f, 0), *staying = begin(f, 1);
    struct peer *peer = &f->peers[0];
    UNTIL(peer->stream_count == 2);
    struct h2_session *s = session_of_try(staying);
    finish(&hasty->call);
    assert_false(s->doubted);
    struct try *t = begin(f, 2);
    peer->is_deaf = true;
    s->heard_ms -= H2_DOUBT_MS * 3;
    container_of(t->call.link, struct h2_stream, link)->lent_ms -= H2_DOUBT_MS * 2;
    turns(f, 2);
    finish(&t->call); // it took too long
    assert_true(s->doubted && s->pinged_ms);
    t = begin(f, 3);
    UNTIL(t->ready);
    assert_ptr_not_equal(session_of_try(t), s);
    peer->is_deaf = false; // it was only slow
    UNTIL(!s->doubted && !s->pinged_ms);
    assert_true(s->base.room > 0);
}

// ---- what ends many calls at once ----

enum { CROWD = 40, EXCUSED = 3 }; // the first of them say nothing of the upstream

static void begin_crowd(struct fixture *f)
{
    f->peers[0].stream_count = 0;
    for (unsigned i = 0; i < CROWD; i++) {
        arena_reset(&f->tries[i].arena);
        begin(f, i)->is_stale = i < EXCUSED;
    }
}

static struct peer *crowd_under_way(struct fixture *f)
{
    begin_crowd(f);
    UNTIL(f->peers[0].stream_count == CROWD);
    return &f->peers[0];
}

static unsigned failed(const struct fixture *f)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CROWD; i++)
        n += f->tries[i].failed;
    return n;
}

// How often the endpoint's row has been told of a failure.
static unsigned rows(const struct fixture *f)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CROWD; i++) {
        const struct upstream_outcome *outcome = &f->tries[i].call.outcome;
        n += f->tries[i].failed && outcome->verdict == OUTCOME_FAILURE && !outcome->is_shared;
    }
    return n;
}

static void test_a_connection_that_breaks_is_one_failure(void **state)
{
    struct fixture *f = *state;
    peer_close(crowd_under_way(f));
    UNTIL(failed(f) == CROWD);
    assert_int_equal(rows(f), 1);
    assert_false(f->tries[EXCUSED].call.outcome.is_shared); // the first that is a failure tells
    peer_close(crowd_under_way(f));
    UNTIL(failed(f) == CROWD);
    assert_int_equal(rows(f), 1);
}

static void test_a_connect_that_fails_is_one_failure(void **state)
{
    struct fixture *f = *state;
    f->max_streams = 0;
    for (unsigned round = 0; round < 2; round++) {
        begin_crowd(f);
        assert_int_equal(links(f), 1);
        UNTIL(failed(f) == CROWD);
        assert_int_equal(rows(f), 1);
        assert_true(f->tries[EXCUSED].call.outcome.connect_failed);
    }
    assert_int_equal(f->accepted, 2);
}

static void test_what_goaway_refuses_is_one_failure(void **state)
{
    struct fixture *f = *state;
    struct peer *peer = crowd_under_way(f);
    nghttp2_submit_goaway(peer->ng, NGHTTP2_FLAG_NONE, peer->streams[9], NGHTTP2_NO_ERROR, NULL, 0);
    UNTIL(failed(f) == CROWD - 10);
    assert_int_equal(f->tries[CROWD - 1].cause, END_UPSTREAM_REFUSED_STREAM);
    assert_int_equal(rows(f), 1);
    peer_close(peer);
    UNTIL(failed(f) == CROWD);
    assert_int_equal(rows(f), 1);
}

static void test_streams_that_are_reset_are_failures_each(void **state)
{
    struct fixture *f = *state;
    struct peer *peer = crowd_under_way(f);
    for (unsigned i = 0; i < CROWD; i++)
        nghttp2_submit_rst_stream(peer->ng, NGHTTP2_FLAG_NONE, peer->streams[i],
                                  i % 2 ? NGHTTP2_REFUSED_STREAM : NGHTTP2_INTERNAL_ERROR);
    UNTIL(failed(f) == CROWD);
    assert_int_equal(rows(f), CROWD - EXCUSED);
}

// ---- leaving ----

static void end_of_a_live_session(struct fixture *f, struct try *t)
{
    turns(f, 5);
    assert_int_equal(f->peers[0].goaways, 0);
    answer(&f->peers[0], 0, 10);
    UNTIL(t->ended);
    assert_int_equal(t->got, 10);
    UNTIL(f->peers[0].fd < 0);
    assert_int_equal(f->peers[0].goaways, 1);
}

static void test_drain_lets_streams_end(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    upstream_worker_drain(f->worker);
    end_of_a_live_session(f, t);
    assert_int_equal(links(f), 0);
}

static void test_an_upstream_that_is_no_longer_configured(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    upstream_worker_update(f->worker, NULL, 0);
    end_of_a_live_session(f, t);
    assert_int_equal(links(f), 0);
}

static void test_an_endpoint_that_is_no_longer_configured(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    make_upstream(f, 0);
    struct upstream *all = &f->upstream;
    upstream_worker_update(f->worker, &all, 1);
    end_of_a_live_session(f, t);
    assert_int_equal(links(f), 0);
}

static void test_another_protocol(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    f->settings.protocol = UPSTREAM_HTTP1;
    make_upstream(f, 1);
    struct upstream *all = &f->upstream;
    upstream_worker_update(f->worker, &all, 1);
    f->next_is_deaf = true; // to HTTP/1.1
    begin(f, 1);
    assert_int_equal(links(f), 2); // not on the old one
    end_of_a_live_session(f, t);
}

static void test_stop_at_any_moment(void **state)
{
    struct fixture *f = *state;
    for (unsigned moment = 0; moment < 12; moment++) {
        struct try *t = begin(f, moment);
        turns(f, moment);
        finish(&t->call);
        upstream_worker_free(f->worker);
        loop_turn(&f->loop, 0);
        make_worker(f);
        arena_reset(&t->arena);
        for (unsigned i = 0; i < 50 && f->peers[0].fd >= 0; i++)
            turn(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_quiet_session_is_pinged_sparingly),
        TEST(test_a_dead_session_is_given_up),
        TEST(test_a_silent_session_takes_no_more),
        TEST(test_a_connection_that_breaks_is_one_failure),
        TEST(test_a_connect_that_fails_is_one_failure),
        TEST(test_what_goaway_refuses_is_one_failure),
        TEST(test_streams_that_are_reset_are_failures_each),
        TEST(test_drain_lets_streams_end),
        TEST(test_an_upstream_that_is_no_longer_configured),
        TEST(test_an_endpoint_that_is_no_longer_configured),
        TEST(test_another_protocol),
        TEST(test_stop_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
