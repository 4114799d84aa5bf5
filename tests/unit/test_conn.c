// Connections and gathered output over a socket pair.
#include "unit.h"

#include "net/out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct side {
    struct conn conn;
    unsigned ready, freed;
};

static void on_ready(struct conn *conn)
{
    container_of(conn, struct side, conn)->ready++;
}

static void on_free(struct conn *conn)
{
    container_of(conn, struct side, conn)->freed++;
}

static const struct conn_events events = {.on_ready = on_ready, .on_free = on_free};

struct pair {
    struct loop loop;
    struct side side;
    struct buf_pool pool;
    int peer;
};

static void open_pair(struct pair *pair)
{
    struct err err;
    int fds[2];
    *pair = (struct pair){.pool.max = 4};
    assert_int_equal(loop_init(&pair->loop, &err), ERR_OK);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    assert_true(conn_open(&pair->side.conn, &pair->loop, fds[0], &events));
    pair->peer = fds[1];
}

static void close_pair(struct pair *pair)
{
    conn_close(&pair->side.conn);
    conn_close(&pair->side.conn); // twice is harmless
    if (pair->peer >= 0)
        close(pair->peer);
    loop_turn(&pair->loop, 0);
    assert_int_equal(pair->side.freed, 1);
    buf_pool_fini(&pair->pool);
    loop_fini(&pair->loop);
}

static void test_short_read_spares_the_next_call(void **state)
{
    (void)state;
    struct pair pair;
    char data[64];
    open_pair(&pair);
    assert_int_equal(write(pair.peer, "hello", 5), 5);
    loop_turn(&pair.loop, 100);
    assert_true(pair.side.ready > 0 && pair.side.conn.readable);
    assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), 5);
    assert_false(pair.side.conn.readable);
    assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), CONN_AGAIN);
    close_pair(&pair);
}

static void test_end_of_stream_is_read_after_the_data(void **state)
{
    (void)state;
    struct pair pair;
    char data[64];
    open_pair(&pair);
    assert_int_equal(write(pair.peer, "bye", 3), 3);
    close(pair.peer);
    pair.peer = -1;
    loop_turn(&pair.loop, 100);
    assert_true(pair.side.conn.peer_closed);
    assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), 3);
    assert_true(pair.side.conn.readable); // the end is still to be read
    assert_int_equal(conn_recv(&pair.side.conn, data, sizeof data), 0);
    close_pair(&pair);
}

static size_t read_all(int fd, char *into, size_t size)
{
    size_t n = 0;
    ssize_t got;
    while (n < size && (got = read(fd, into + n, size - n)) > 0)
        n += (size_t)got;
    return n;
}

static void test_small_spans_leave_together(void **state)
{
    (void)state;
    struct pair pair;
    struct out out = {0};
    char data[64];
    open_pair(&pair);
    out_span(&out, &pair.side.conn, &pair.pool, STR("a head, "));
    out_span(&out, &pair.side.conn, &pair.pool, STR("a body"));
    assert_int_equal(read(pair.peer, data, sizeof data), -1);
    out_flush(&out, &pair.side.conn, &pair.pool);
    assert_int_equal(read(pair.peer, data, sizeof data), 14);
    assert_memory_equal(data, "a head, a body", 14);
    assert_true(out_empty(&out) && !out.buf.base);
    close_pair(&pair);
}

static void test_a_full_peer_blocks_and_loses_nothing(void **state)
{
    (void)state;
    enum { SPAN = 16384, SPANS = 400 };
    struct pair pair;
    struct out out = {0};
    char *span = malloc(SPAN), *got = malloc(SPAN);
    open_pair(&pair);
    size_t received = 0, sent = 0;
    for (int i = 0; i < SPANS; i++) {
        for (size_t k = 0; k < SPAN; k++)
            span[k] = (char)((sent + k) * 31 >> 3);
        out_span(&out, &pair.side.conn, &pair.pool, (struct str){span, SPAN});
        sent += SPAN;
        while (out_flow(&out) == FLOW_FULL) {
            assert_true(buf_len(&out.buf) <= SPAN);
            size_t n = read_all(pair.peer, got, SPAN);
            for (size_t k = 0; k < n; k++)
                assert_int_equal(got[k], (char)((received + k) * 31 >> 3));
            received += n;
            loop_turn(&pair.loop, 10);
            out_flush(&out, &pair.side.conn, &pair.pool);
        }
    }
    for (size_t n; (n = read_all(pair.peer, got, SPAN)) > 0;) {
        received += n;
        loop_turn(&pair.loop, 10);
        out_flush(&out, &pair.side.conn, &pair.pool);
    }
    assert_int_equal(received, sent);
    free(span);
    free(got);
    close_pair(&pair);
}

static void test_a_broken_peer_swallows_the_rest(void **state)
{
    (void)state;
    struct pair pair;
    struct out out = {0};
    open_pair(&pair);
    close(pair.peer);
    pair.peer = -1;
    out_span(&out, &pair.side.conn, &pair.pool, STR("x"));
    out_flush(&out, &pair.side.conn, &pair.pool);
    assert_true(out.broken);
    assert_int_equal(pair.side.conn.error, EPIPE);
    out_span(&out, &pair.side.conn, &pair.pool, STR("y"));
    assert_true(out_empty(&out));
    assert_int_equal(out_flow(&out), FLOW_MORE);
    close_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_read_spares_the_next_call),
        cmocka_unit_test(test_end_of_stream_is_read_after_the_data),
        cmocka_unit_test(test_small_spans_leave_together),
        cmocka_unit_test(test_a_full_peer_blocks_and_loses_nothing),
        cmocka_unit_test(test_a_broken_peer_swallows_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
