// Active checks over TLS: what is trusted and what is not, and that the one deadline covers the handshake.
// The server is our own side of TLS, on the loop of the checks.
#include "test_health_fixture.h"
#include "test_tls_fixture.h"

#include <netinet/in.h>

enum { CLIENTS = 256 };

#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

// ---- the server ----

struct server {
    int fd;
    struct addr addr;
    char name[ADDR_TEXT_MAX];
    struct loop *loop;
    struct tls_server *tls; // NULL: plain
    const char *answer;     // NULL: none; with TLS after the request, plain at once
    bool closes;            // whoever comes
    unsigned accepted, asked;
    struct client {
        struct conn conn;
        struct server *server;
        bool used;
    } clients[CLIENTS];
};

static void client_say(struct client *client)
{
    struct iovec iov = {(void *)(uintptr_t)client->server->answer, strlen(client->server->answer)};
    if (conn_sendv(&client->conn, &iov, 1) < 0)
        conn_close(&client->conn);
    conn_shutdown_send(&client->conn);
}

static void client_ready(struct conn *conn)
{
    struct client *client = container_of(conn, struct client, conn);
    char bytes[1024];
    while (!conn->closed && conn->readable) {
        ssize_t n = conn_recv(conn, bytes, sizeof bytes);
        if (n == CONN_AGAIN)
            return;
        if (n <= 0) {
            conn_close(conn);
            return;
        }
        client->server->asked++;
        if (client->server->tls && client->server->answer)
            client_say(client);
    }
}

static void client_secured(struct conn *conn, enum secured secured)
{
    if (secured != SECURED)
        conn_close(conn);
}

static void client_free(struct conn *conn)
{
    container_of(conn, struct client, conn)->used = false;
}

static const struct conn_events client_events = {
    .on_ready = client_ready, .on_secured = client_secured, .on_free = client_free};

static struct client *client_place(struct server *server)
{
    for (int i = 0; i < CLIENTS; i++)
        if (!server->clients[i].used)
            return &server->clients[i];
    fail_msg("no place for one more");
    return NULL;
}

static void server_turn(struct server *server)
{
    int fd;
    while ((fd = accept4(server->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        server->accepted++;
        if (server->closes) {
            close(fd);
            continue;
        }
        struct client *client = client_place(server);
        *client = (struct client){.server = server, .used = true};
        assert_true(conn_open(&client->conn, server->loop, fd, &client_events));
        if (server->tls)
            assert_true(tls_accept(&client->conn, server->tls, STR_NULL));
        else if (server->answer)
            client_say(client);
    }
}

static void server_close(struct server *server)
{
    for (int i = 0; i < CLIENTS; i++)
        if (server->clients[i].used)
            conn_close(&server->clients[i].conn);
    for (int i = 0; i < 3; i++)
        loop_turn(server->loop, 0);
    close(server->fd);
    tls_server_unref(server->tls);
}

static struct server *server_new(const char *address)
{
    struct server *server = calloc(1, sizeof *server);
    assert_true(addr_parse(str_of(address), &server->addr));
    socklen_t length = server->addr.length;
    server->fd = socket(server->addr.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(server->fd >= 0);
    assert_int_equal(bind(server->fd, &server->addr.any, length), 0);
    assert_int_equal(listen(server->fd, 64), 0);
    assert_int_equal(getsockname(server->fd, &server->addr.any, &length), 0);
    addr_print(&server->addr, server->name);
    server->answer = OK_ANSWER;
    return server;
}

// ---- a scene ----

static struct made ca, other_ca;
static struct str ca_file, other_ca_file;
static struct tls_certificate_files good; // of s.example
static struct tls_client *clients[1];     // of the upstream, by slot

static struct tls_client *client_new(struct str trusted, const char *server_name, unsigned alpn)
{
    struct err err;
    struct tls_client_options options = {
        .ca = trusted, .server_name = str_of(server_name), .verify = true, .alpn = alpn};
    struct tls_client *client = tls_client_new(TLS_SLOT_CONTROL, &options, &err);
    if (!client)
        fail_msg("%s", err.what);
    return client;
}

static struct scene *scene_new(const char *address, const char *server_name)
{
    struct server *server = server_new(address);
    struct scene *scene = scene_around(server, "tls", server->name, &server->addr);
    server->loop = &scene->loop;
    clients[0] = client_new(ca_file, server_name, TLS_ALPN_HTTP1);
    scene->upstream.tls = clients;
    scene->settings.health_check.unhealthy = 1;
    scene->settings.health_check.healthy = 1;
    return scene;
}

static struct tls_certificate_files make_files(const char *sans, const struct made *issuer, long until_s)
{
    static unsigned number;
    char name[16];
    snprintf(name, sizeof name, "leaf%u", number++);
    struct made leaf = make_certificate("leaf", sans, issuer, "EC", false, -2 * DAY, until_s);
    struct tls_certificate_files files = write_made(name, &leaf);
    made_free(&leaf);
    return files;
}

static void show(struct scene *scene, const struct tls_certificate_files *files)
{
    struct err err;
    struct tls_server_options options = {.certificates = files,
                                         .certificate_count = 1,
                                         .alpn = TLS_ALPN_HTTP1,
                                         .name = STR("test"),
                                         .allow_expired = true};
    tls_server_unref(scene->server->tls);
    scene->server->tls = tls_server_new(TLS_SLOT_CONTROL, &options, &err);
    if (!scene->server->tls)
        fail_msg("%s", err.what);
}

static void drop(struct scene *scene)
{
    tls_client_unref(clients[0]); // the checks have a reference of their own
    clients[0] = NULL;
    scene_free(scene);
}

static int setup(void **state)
{
    if (fixture_setup(state) != 0)
        return -1;
    ca = make_ca("the CA");
    other_ca = make_ca("another CA");
    ca_file = write_made("ca", &ca).cert;
    other_ca_file = write_made("other", &other_ca).cert;
    good = make_files("DNS:s.example", &ca, DAY);
    return 0;
}

static int teardown(void **state)
{
    made_free(&ca);
    made_free(&other_ca);
    return fixture_teardown(state);
}

// ---- what is trusted ----

static void test_certificates_that_are_trusted(void **state)
{
    (void)state;
    static const struct {
        const char *address, *server_name, *sans;
    } rows[] = {
        {"127.0.0.1:0", "s.example", "DNS:s.example"},
        {"127.0.0.1:0", "a.s.example", "DNS:*.s.example"},
        {"127.0.0.1:0", "", "IP:127.0.0.1"}, // the target's host, without the port
        {"[::1]:0", "", "IP:::1"},           // and the brackets
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct scene *scene = scene_new(rows[i].address, rows[i].server_name);
        struct tls_certificate_files files = make_files(rows[i].sans, &ca, DAY);
        show(scene, &files);
        scene_start(scene);
        turn_checks(scene, 2);
        assert_says(scene, "status 200 after");
        assert_int_equal(atomic_load(&endpoint_of(scene)->check_failures), 0);
        drop(scene);
    }
}

static void test_certificates_that_are_not(void **state)
{
    (void)state;
    static const struct {
        const char *sans;
        struct made *issuer;
        long until_s;
        const char *says;
    } rows[] = {
        {"DNS:t.example", &ca, DAY, "tls: hostname mismatch"},
        {"IP:127.0.0.1", &ca, DAY, "tls: hostname mismatch"},
        {"DNS:s.example", &ca, -DAY, "tls: certificate has expired"},
        {"DNS:s.example", &other_ca, DAY, "tls: unable to get local issuer certificate"},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct scene *scene = scene_new("127.0.0.1:0", "s.example");
        struct tls_certificate_files files = make_files(rows[i].sans, rows[i].issuer, rows[i].until_s);
        show(scene, &files);
        scene_start(scene);
        turn_until(scene, false);
        if (strncasecmp(endpoint_of(scene)->last_check, rows[i].says, strlen(rows[i].says)) != 0)
            fail_msg("row %zu: %s", i, endpoint_of(scene)->last_check);
        assert_int_equal(scene->server->asked, 0); // nothing is said to whom we do not know
        show(scene, &good);
        turn_until(scene, true);
        drop(scene);
    }
}

static void test_who_does_not_speak_tls(void **state)
{
    (void)state;
    struct scene *scene = scene_new("127.0.0.1:0", "s.example"); // answers at once, without TLS
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "tls: ");
    scene->server->closes = true;
    turn_checks(scene, 2);
    assert_says(scene, "tls: ");
    scene->server->closes = false;
    show(scene, &good);
    turn_until(scene, true);
    drop(scene);
}

static void test_who_does_not_speak_http2(void **state)
{
    (void)state;
    struct scene *scene = scene_new("127.0.0.1:0", "s.example");
    show(scene, &good);
    tls_client_unref(clients[0]);
    clients[0] = client_new(ca_file, "s.example", TLS_ALPN_H2);
    scene->settings.protocol = UPSTREAM_H2;
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "tls: ");
    assert_int_equal(scene->server->asked, 0);
    drop(scene);
}

// ---- the deadline ----

static void test_silence_meets_the_deadline(void **state)
{
    (void)state;
    struct scene *scene = scene_new("127.0.0.1:0", "s.example");
    scene->server->answer = NULL;
    scene->settings.health_check.timeout_us = 700000;
    scene_start(scene);
    turn_until(scene, false);
    assert_says(scene, "timeout: no TLS handshake within 700 ms");
    show(scene, &good);
    while (!scene->server->asked)
        turn(scene);
    turn_checks(scene, 1);
    assert_says(scene, "timeout: no answer within 700 ms");
    drop(scene);
}

// ---- reload ----

static void test_a_reload_brings_other_trust(void **state)
{
    (void)state;
    struct scene *scene = scene_new("127.0.0.1:0", "s.example");
    struct tls_certificate_files files = make_files("DNS:s.example", &other_ca, DAY);
    show(scene, &files);
    scene_start(scene);
    turn_until(scene, false);
    tls_client_unref(clients[0]);
    clients[0] = client_new(other_ca_file, "s.example", TLS_ALPN_HTTP1);
    scene_start(scene);
    turn_until(scene, true);
    drop(scene);
}

// Stopped, or handed on to the next snapshot, in the middle of everything (ASan watches).
static void test_stop_at_any_moment(void **state)
{
    (void)state;
    for (int turns = 0; turns < 20; turns++) {
        struct scene *scene = scene_new("127.0.0.1:0", "s.example");
        show(scene, &good);
        interrupt_checks(scene, turns, "status 200 after");
        drop(scene);
    }
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificates_that_are_trusted),
        cmocka_unit_test(test_certificates_that_are_not),
        cmocka_unit_test(test_who_does_not_speak_tls),
        cmocka_unit_test(test_who_does_not_speak_http2),
        cmocka_unit_test(test_silence_meets_the_deadline),
        cmocka_unit_test(test_a_reload_brings_other_trust),
        cmocka_unit_test(test_stop_at_any_moment),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
