// Calls over HTTP/2 towards upstreams: how they share connections, wait for a place and leave, and how their
// bodies flow.
#include "test_h2_upstream_fixture.h"

enum { BODY = 600 * 1024 };

// ---- the pool ----

static void test_calls_wait_for_one_connection(void **state)
{
    struct fixture *f = *state;
    struct peer *peer = &f->peers[0];
    for (unsigned i = 0; i < 50; i++)
        begin(f, i);
    assert_int_equal(links(f), 1);
    UNTIL(peer->stream_count == 50);
    for (unsigned i = 1; i < 50; i++)
        assert_ptr_equal(session_of_try(&f->tries[i]), session_of_try(&f->tries[0]));
    for (unsigned i = 0; i < 50; i++) {
        answer(peer, i, 10);
        UNTIL(f->tries[i].ended);
        assert_int_equal(f->tries[i].got, 10);
    }
    assert_int_equal(f->accepted, 1);
    assert_non_null(idle_session(f));
}

static void test_more_than_the_peer_takes(void **state)
{
    struct fixture *f = *state;
    f->max_streams = 2;
    for (unsigned i = 0; i < 5; i++)
        begin(f, i);
    UNTIL(f->accepted == 3 && f->tries[4].ready);
    turns(f, 5);
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(f->peers[i].stream_count, 1, 2);
    assert_int_equal(links(f), 3);
}

static void test_a_peer_that_takes_none(void **state)
{
    struct fixture *f = *state;
    f->max_streams = 0;
    struct try *t = begin(f, 0);
    UNTIL(t->failed);
    assert_int_equal(t->cause, END_UPSTREAM_CONNECT_FAILED);
    assert_int_equal(links(f), 0);
}

static void test_who_waits_may_leave(void **state)
{
    struct fixture *f = *state;
    struct try *gone = begin(f, 0), *there = begin(f, 1);
    finish(&gone->call);
    UNTIL(f->peers[0].stream_count == 1 && there->ready);
    assert_false(gone->ready);
    finish(&there->call);
    UNTIL(f->peers[0].resets == 1);
    assert_non_null(idle_session(f)); // cancelled, not broken
}

static void test_the_last_stream_id(void **state)
{
    struct fixture *f = *state;
    struct try *first = begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    struct h2_session *s = session_of_try(first);
    assert_int_equal(nghttp2_session_set_next_stream_id(s->ng, INT32_MAX), 0);
    struct try *last = begin(f, 1);
    UNTIL(f->peers[0].stream_count == 2);
    assert_ptr_equal(session_of_try(last), s);
    struct try *next = begin(f, 2);
    UNTIL(f->accepted == 2 && f->peers[1].stream_count == 1);
    assert_ptr_not_equal(session_of_try(next), s);
    answer(&f->peers[0], 0, 1);
    answer(&f->peers[0], 1, 1);
    UNTIL(first->ended && last->ended && links(f) == 1);
}

static void test_what_was_not_sent(void **state)
{
    struct fixture *f = *state;
    begin(f, 0);
    UNTIL(f->peers[0].stream_count == 1);
    struct try *t = begin(f, 1);
    assert_true(t->ready);
    assert_true(upstream_call_unsent(&t->call)); // the turn is not over
    UNTIL(f->peers[0].stream_count == 2);
    assert_false(upstream_call_unsent(&t->call));
    // Ended before the turn: the peer hears nothing of it, and the session goes on.
    for (unsigned i = 2; i < CALLS; i++)
        finish(&begin(f, i)->call);
    turns(f, 5);
    assert_int_equal(f->peers[0].stream_count, 2);
    assert_int_equal(f->peers[0].resets, 0);
    answer(&f->peers[0], 1, 1);
    UNTIL(t->ended);
}

// The endpoint hears first that one is over, then of the next.
static void test_a_place_is_free_when_the_reset_is_written(void **state)
{
    struct fixture *f = *state;
    struct upstream *all = &f->upstream;
    f->settings.limits.requests = 1;
    make_upstream(f, 1);
    upstream_worker_update(f->worker, &all, 1);
    struct try *first = begin(f, 0), *second = begin(f, 1);
    UNTIL(f->peers[0].stream_count == 1);
    assert_true(second->call.queued);
    finish(&first->call);
    assert_false(second->ready);
    struct try *third = begin(f, 2); // the line stays one
    assert_false(third->ready);
    UNTIL(second->ready);
    assert_false(third->ready);
    UNTIL(f->peers[0].stream_count == 2);
    assert_int_equal(f->peers[0].resets, 1);
    peer_close(&f->peers[0]); // with a place that is not given back yet, perhaps
    finish(&second->call);
    UNTIL(third->ready);
    assert_int_equal(f->worker->locals[f->upstream.index]->requests.places.used, 1);
}

// ---- bodies ----

static void test_a_full_client_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct try *t = begin(f, 0);
    struct peer *peer = &f->peers[0];
    UNTIL(peer->stream_count == 1);
    t->is_full = true;
    answer(peer, 0, BODY);
    UNTIL(BODY - peer->body_left >= H2_FIRST_WINDOW);
    turns(f, 20);
    assert_true(t->got < H2_FIRST_WINDOW);                     // one span was handed over
    assert_int_equal(BODY - peer->body_left, H2_FIRST_WINDOW); // and the rest is held, within the window
    struct try *other = begin(f, 1);
    UNTIL(peer->stream_count == 2);
    while (t->got < BODY) {
        size_t before = t->got;
        upstream_call_resume(&t->call);
        UNTIL(t->got > before);
    }
    upstream_call_resume(&t->call);
    UNTIL(t->ended);
    answer(peer, 1, 10);
    UNTIL(other->ended);
}

// What the upstream has sent and the client does not take, when it has taken a third of it.
static size_t held_of(struct fixture *f, struct try *t)
{
    struct peer *peer = &f->peers[0];
    t->is_full = false;
    answer(peer, peer->stream_count - 1, BODY);
    UNTIL(t->got >= BODY / 3);
    t->is_full = true;
    turns(f, 50);
    return BODY - peer->body_left - t->got;
}

static void take_the_rest(struct fixture *f, struct try *t)
{
    t->is_full = false;
    upstream_call_resume(&t->call);
    UNTIL(t->ended);
    assert_int_equal(t->got, BODY);
}

static void test_windows_are_as_wide_as_the_client_has_room(void **state)
{
    struct fixture *f = *state;
    struct client_room room = {0}, full = {.held_bytes = CLIENT_ROOM_BYTES};
    struct {
        struct client_room *room;
        uint32_t granted_bytes;
    } cases[] = {{NULL, 0}, {&room, H2_STREAM_WINDOW - H2_FIRST_WINDOW}, {&full, 0}};
    for (unsigned i = 0; i < countof(cases); i++) {
        struct client_room *each = cases[i].room;
        struct try *t = begin(f, i);
        t->call.room = each;
        UNTIL(f->peers[0].stream_count == i + 1);
        size_t held = held_of(f, t), window = each == &full ? H2_FIRST_WINDOW : H2_STREAM_WINDOW;
        assert_in_range(held, window / 2, window);
        assert_int_equal(t->call.granted_bytes, cases[i].granted_bytes);
        if (each)
            assert_int_equal(each->granted_bytes, cases[i].granted_bytes);
        take_the_rest(f, t);
        if (each)
            assert_int_equal(each->granted_bytes, 0);
    }
}

static void test_a_client_that_goes_takes_its_room_with_it(void **state)
{
    struct fixture *f = *state;
    struct client_room room = {0};
    struct try *t = begin(f, 0);
    t->call.room = &room;
    UNTIL(f->peers[0].stream_count == 1);
    held_of(f, t);
    upstream_call_leave_client(&t->call);
    assert_int_equal(room.granted_bytes, 0);
    assert_null(t->call.room);
    take_the_rest(f, t);
}

static void test_what_is_held_outlives_the_connection(void **state)
{
    enum { HELD = 30 * 1024 };
    struct fixture *f = *state;
    struct try *t = begin(f, 0), *cut = begin(f, 1);
    struct peer *peer = &f->peers[0];
    UNTIL(peer->stream_count == 2);
    t->is_full = true;
    answer(peer, 0, HELD);
    UNTIL(!peer->body_left);
    turns(f, 20);
    assert_false(t->ended);
    peer_close(peer);
    UNTIL(cut->failed);
    assert_int_equal(cut->cause, END_UPSTREAM_RESET);
    assert_int_equal(links(f), 0);
    t->is_full = false;
    upstream_call_resume(&t->call);
    assert_true(t->ended);
    assert_int_equal(t->got, HELD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_calls_wait_for_one_connection),
        TEST(test_more_than_the_peer_takes),
        TEST(test_a_peer_that_takes_none),
        TEST(test_who_waits_may_leave),
        TEST(test_the_last_stream_id),
        TEST(test_what_was_not_sent),
        TEST(test_a_place_is_free_when_the_reset_is_written),
        TEST(test_a_full_client_is_waited_for),
        TEST(test_windows_are_as_wide_as_the_client_has_room),
        TEST(test_a_client_that_goes_takes_its_room_with_it),
        TEST(test_what_is_held_outlives_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
