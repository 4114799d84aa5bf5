// What the supervisor remembers and says, without a process: the sockets it holds, its messages, the
// description it leaves to a new binary, its pauses.
#include "unit.h"

#include "cli/control.h"
#include "cli/cpus.h"
#include "cli/file.h"
#include "cli/notify.h"
#include "cli/running.h"
#include "cli/sockets.h"
#include "cli/supervisor.h"
#include "cli/upgrade.h"
#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

// ---- sockets ----

static struct addr address(const char *text)
{
    struct addr addr;
    assert_true(addr_parse(str_of(text), &addr));
    return addr;
}

// A loopback address with a port that is free now.
static struct addr free_address(void)
{
    struct addr addr = address("127.0.0.1:0");
    struct err err;
    int fd = listen_socket(&addr, true, &err);
    assert_true(fd >= 0);
    socklen_t length = sizeof addr.v4;
    assert_int_equal(getsockname(fd, &addr.any, &length), 0);
    close(fd);
    return addr;
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void test_an_address_gets_a_socket_for_each_thread(void **state)
{
    (void)state;
    struct sockets sockets = {0};
    struct err err;
    struct addr addr = free_address();
    struct held_address *held = sockets_use(&sockets, &addr, 3, 0, &err);
    assert_non_null(held);
    assert_int_equal(held->count, 3);
    int first = held->fds[0];
    held = sockets_use(&sockets, &addr, 5, 1, &err); // more threads after an upgrade
    assert_int_equal(held->count, 5);
    assert_int_equal(held->fds[0], first);
    held = sockets_use(&sockets, &addr, 1, 2, &err); // fewer: none is closed, its queue would be lost
    assert_int_equal(held->count, 5);
    assert_int_equal(held->users, 7);
    assert_int_equal(sockets.count, 1);
    sockets_close(&sockets);
    assert_false(is_open(first));
}

static void test_a_socket_is_closed_when_nobody_uses_it(void **state)
{
    (void)state;
    struct sockets sockets = {0};
    struct err err;
    struct addr a = free_address(), b = free_address();
    int fd_a = sockets_use(&sockets, &a, 1, 0, &err)->fds[0];
    int fd_b = sockets_use(&sockets, &b, 1, 0, &err)->fds[0];
    sockets_use(&sockets, &b, 1, 1, &err);
    sockets_retire(&sockets, &a, 0);
    assert_true(is_open(fd_a)); // until the sweep
    sockets_sweep(&sockets);
    assert_false(is_open(fd_a));
    assert_null(sockets_find(&sockets, &a));
    sockets_forget(&sockets, 0);
    sockets_sweep(&sockets);
    assert_true(is_open(fd_b));
    sockets_forget(&sockets, 1);
    sockets_sweep(&sockets);
    assert_false(is_open(fd_b));
    assert_int_equal(sockets.count, 0);
    sockets_close(&sockets);
}

static void test_an_address_that_another_holds_is_refused(void **state)
{
    (void)state;
    struct sockets ours = {0}, theirs = {0};
    struct err err;
    struct addr addr = free_address();
    assert_non_null(sockets_use(&theirs, &addr, 1, 0, &err));
    assert_null(sockets_use(&ours, &addr, 1, 0, &err)); // though SO_REUSEPORT would allow it
    assert_int_equal(err.code, ERR_BUSY);
    assert_int_equal(ours.count, 0);
    sockets_close(&theirs);
    assert_non_null(sockets_use(&ours, &addr, 1, 0, &err));
    sockets_close(&ours);
}

static void test_a_unix_path_is_replaced_only_when_stale(void **state)
{
    (void)state;
    char text[64];
    snprintf(text, sizeof text, "unix:/tmp/sallyport-test-%d.sock", getpid());
    struct sockets ours = {0}, theirs = {0};
    struct err err;
    struct addr addr = address(text);
    struct held_address *held = sockets_use(&theirs, &addr, 4, 0, &err);
    assert_non_null(held);
    assert_int_equal(held->count, 1); // two sockets cannot have one path
    assert_null(sockets_use(&ours, &addr, 1, 0, &err));
    close(held->fds[0]); // as when its owner was killed
    held->count = 0;
    assert_non_null(sockets_use(&ours, &addr, 1, 0, &err));
    sockets_close(&ours);
    assert_int_equal(access(addr.local.sun_path, F_OK), -1);
    sockets_close(&theirs);
}

static void test_a_given_socket_is_shared_and_kept(void **state)
{
    (void)state;
    struct sockets sockets = {0};
    struct err err;
    struct addr addr = free_address();
    int fd = listen_socket(&addr, true, &err);
    sockets_adopt(&sockets, &addr, fd, true, 0);
    struct held_address *held = sockets_use(&sockets, &addr, 4, 0, &err);
    assert_int_equal(held->count, 1);
    assert_int_equal(held->fds[0], fd);
    sockets_retire(&sockets, &addr, 0);
    sockets_sweep(&sockets);
    assert_true(is_open(fd));
    sockets_close(&sockets);
}

static void test_a_given_socket_on_all_addresses_serves_ipv4(void **state)
{
    (void)state;
    struct sockets sockets = {0};
    struct addr all = address("[::]:8080"), v4 = address("0.0.0.0:8080"), one = address("127.0.0.1:8080");
    sockets_adopt(&sockets, &all, open("/dev/null", O_RDONLY), true, 0);
    assert_non_null(sockets_find(&sockets, &v4));
    assert_null(sockets_find(&sockets, &one)); // a narrower address is another one
    sockets_close(&sockets);
}

static void test_sockets_of_the_service_manager(void **state)
{
    (void)state;
    struct sockets sockets = {0};
    char pid[16];
    snprintf(pid, sizeof pid, "%d", getpid() + 1);
    setenv("LISTEN_PID", pid, 1); // another process's
    setenv("LISTEN_FDS", "1", 1);
    notify_take_sockets(&sockets);
    assert_int_equal(sockets.count, 0);
    assert_null(getenv("LISTEN_PID"));
    assert_null(getenv("LISTEN_FDS"));
    setenv("LISTEN_FDS", "nonsense", 1);
    notify_take_sockets(&sockets);
    assert_int_equal(sockets.count, 0);
    sockets_close(&sockets);
}

// ---- messages ----

static void test_messages_carry_text_and_descriptors(void **state)
{
    (void)state;
    int pair[2], pipe_fds[2];
    assert_true(control_pair(pair));
    assert_int_equal(pipe(pipe_fds), 0);
    struct control_message message;
    assert_int_equal(control_recv(pair[1], &message, 0), CONTROL_NOTHING);
    assert_true(control_send(pair[0], CONTROL_LISTEN, 7, STR("127.0.0.1:80"), pipe_fds, 2, 0));
    assert_true(control_send(pair[0], CONTROL_READY, 0, STR(""), NULL, 0, 0));
    assert_int_equal(control_recv(pair[1], &message, 1000), CONTROL_MESSAGE);
    assert_int_equal(message.type, CONTROL_LISTEN);
    assert_int_equal(message.value, 7);
    assert_string_equal(message.text, "127.0.0.1:80");
    assert_int_equal(message.fd_count, 2);
    assert_int_equal(write(message.fds[1], "x", 1), 1);
    char byte;
    assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
    assert_true(fcntl(message.fds[0], F_GETFD) & FD_CLOEXEC);
    control_drop_fds(&message);
    assert_int_equal(message.fd_count, 0);
    assert_int_equal(control_recv(pair[1], &message, 0), CONTROL_MESSAGE);
    assert_int_equal(message.type, CONTROL_READY);
    assert_string_equal(message.text, "");
    close(pair[0]);
    assert_int_equal(control_recv(pair[1], &message, 1000), CONTROL_CLOSED);
    assert_false(control_send(pair[1], CONTROL_READY, 0, STR(""), NULL, 0, 0));
    close(pair[1]);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void test_many_descriptors_in_one_message(void **state)
{
    (void)state;
    int pair[2], fds[CONTROL_FDS];
    assert_true(control_pair(pair));
    for (int i = 0; i < CONTROL_FDS; i++)
        fds[i] = pair[0];
    assert_true(control_send(pair[0], CONTROL_SOCKETS, 0, STR(""), fds, CONTROL_FDS, 0));
    struct control_message message;
    assert_int_equal(control_recv(pair[1], &message, 0), CONTROL_MESSAGE);
    assert_int_equal(message.fd_count, CONTROL_FDS);
    control_drop_fds(&message);
    close(pair[0]);
    close(pair[1]);
}

static void test_a_peer_that_does_not_read_holds_nobody_up(void **state)
{
    (void)state;
    int pair[2];
    assert_true(control_pair(pair));
    unsigned sent = 0;
    while (control_send(pair[0], CONTROL_RELOAD, 0, STR(""), NULL, 0, 0))
        assert_true(++sent < 1000000);
    assert_true(sent > 100);
    assert_false(control_send(pair[0], CONTROL_RELOAD, 0, STR(""), NULL, 0, 10));
    close(pair[0]);
    close(pair[1]);
}

static void test_what_is_no_message_is_passed_over(void **state)
{
    (void)state;
    int pair[2];
    char large[4096] = {0};
    assert_true(control_pair(pair));
    assert_int_equal(send(pair[0], "x", 1, 0), 1);
    assert_int_equal(send(pair[0], large, sizeof large, 0), sizeof large);
    assert_true(control_send(pair[0], CONTROL_READY, 0, STR(""), NULL, 0, 0));
    struct control_message message;
    assert_int_equal(control_recv(pair[1], &message, 0), CONTROL_MESSAGE);
    assert_int_equal(message.type, CONTROL_READY);
    close(pair[0]);
    close(pair[1]);
}

// ---- what is left to a new binary ----

static void test_the_description_survives(void **state)
{
    (void)state;
    struct supervisor before = {.current = 1,
                                .next = -1,
                                .restarts = 3,
                                .reloads_ok = 5,
                                .reloads_failed = 7,
                                .last_reload_ok = false,
                                .config = open("/dev/null", O_RDONLY)};
    before.children[1] = (struct child){
        .pid = 100, .control = open("/dev/null", O_RDONLY), .config = -1, .started_us = 42, .ready = true};
    before.children[4] = (struct child){
        .pid = 90, .control = -1, .config = -1, .kill_at_us = 43, .ready = true, .leaving = true};
    struct err err;
    struct addr addr = free_address(), local = address("unix:/tmp/a path with spaces.sock");
    assert_non_null(sockets_use(&before.sockets, &addr, 2, 1, &err));
    sockets_adopt(&before.sockets, &local, open("/dev/null", O_RDONLY), true, 0);

    for (unsigned i = 0; i < sizeof before.secret; i++)
        before.secret[i] = (uint8_t)(i * 37);

    struct supervisor after = {.current = -1, .next = -1, .config = -1, .last_reload_ok = true};
    assert_true(upgrade_read(&after, upgrade_write(&before)));
    assert_memory_equal(after.secret, before.secret, sizeof after.secret);
    assert_int_equal(after.restarts, 3);
    assert_int_equal(after.reloads_ok, 5);
    assert_int_equal(after.reloads_failed, 7);
    assert_false(after.last_reload_ok);
    assert_int_equal(after.config, before.config);
    assert_int_equal(after.current, 1);
    assert_int_equal(after.children[1].pid, 100);
    assert_int_equal(after.children[1].control, before.children[1].control);
    assert_int_equal(after.children[1].started_us, 42);
    assert_false(after.children[1].leaving);
    assert_int_equal(after.children[4].pid, 90);
    assert_int_equal(after.children[4].kill_at_us, 43);
    assert_true(after.children[4].leaving);
    assert_int_equal(after.sockets.count, 2);
    struct held_address *held = sockets_find(&after.sockets, &addr);
    assert_int_equal(held->count, 2);
    assert_int_equal(held->users, 2);
    assert_false(held->given);
    held = sockets_find(&after.sockets, &local);
    assert_non_null(held);
    assert_true(held->given);

    close(before.config);
    close(before.children[1].control);
    sockets_close(&before.sockets); // the same descriptors
    for (unsigned i = 0; i < after.sockets.count; i++)
        after.sockets.v[i].count = 0;
    sockets_close(&after.sockets);
}

static int memory_of(const char *text)
{
    return file_in_memory(str_of(text));
}

static void test_unknown_lines_of_a_description_are_ignored(void **state)
{
    (void)state;
    struct supervisor supervisor = {.current = -1, .next = -1, .config = -1, .secret = {9}};
    assert_true(upgrade_read(&supervisor,
                             memory_of("sallyport-upgrade 9\nfuture 1 2 3\nsecret 00ff\ncounts 1 2 3 1\n"
                                       "worker 99 5 5 0 0 current\nworker 1 -5 5 0 0 current\nworker\n")));
    assert_int_equal(supervisor.restarts, 1);
    assert_int_equal(supervisor.current, -1);
    assert_int_equal(supervisor.secret[0], 9); // half a secret is none
    assert_false(upgrade_read(&supervisor, memory_of("something else\n")));
    assert_false(upgrade_read(&supervisor, memory_of("")));
    setenv("SALLYPORT_UPGRADE", "1000000", 1);
    assert_false(upgrade_restore(&supervisor));
    assert_null(getenv("SALLYPORT_UPGRADE"));
    assert_false(upgrade_restore(&supervisor));
}

static void test_the_binary_is_found_again(void **state)
{
    (void)state;
    char *path = upgrade_binary_path("/bin/sh");
    assert_string_equal(path, "/bin/sh"); // a link is not followed
    free(path);
    path = upgrade_binary_path("sh");
    assert_int_equal(path[0], '/');
    assert_int_equal(access(path, X_OK), 0);
    free(path);
    path = upgrade_binary_path("./no-such-program"); // then what this process runs
    assert_int_equal(access(path, X_OK), 0);
    free(path);
}

// ---- what a worker process runs ----

static void test_what_runs_is_read_as_it_was_written(void **state)
{
    (void)state;
    struct gateway_file files[] = {
        {STR("certs/a b.pem"), STR("-----BEGIN\nfile 1 2\n"), {1, UINT64_MAX, 21, -5, INT64_MAX}},
        {STR("unreadable"), STR_NULL, {0}},
        {STR("empty"), STR(""), {0}},
    };
    const struct gateway_files all = {.v = files, .count = countof(files)};
    struct str text = STR("version: 1\ntext 5\n");
    struct running running;
    struct err err;
    int fd = running_write(text, &all);
    assert_true(fd >= 0);
    assert_int_equal(running_read(fd, "t", &running, &err), ERR_OK);
    assert_true(str_eq(running.text, text));
    assert_int_equal(running.file_count, 2);
    assert_true(str_eq(running.files[0].path, files[0].path));
    assert_true(str_eq(running.files[0].content, files[0].content));
    assert_memory_equal(&running.files[0].stamp, &files[0].stamp, sizeof files[0].stamp);
    assert_true(str_eq(running.files[1].path, STR("empty")));
    assert_true(running.files[1].content.p && running.files[1].content.n == 0);
    running_fini(&running);
    close(fd);
}

static void test_what_ran_before_is_read_with_care(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "sallyport-running 1\n",
        "sallyport-running 1\ntext 5\nabcd",
        "sallyport-running 1\ntext 18446744073709551615\nabcd",
        "sallyport-running 1\ntext 1\nxfile 1 1 1 1 1 1\nab",
        "sallyport-running 1\ntext 1\nxfile 1 3 1 1 1 1 1\nab",
        "sallyport-running 1\ntext 1\nxfile 1 1 1 1 1 1 1\nabc",
        "sallyport-running 1\ntext 1\nxsomething else",
    };
    struct running running;
    struct err err;
    for (size_t i = 0; i < countof(bad); i++) {
        int fd = memory_of(bad[i]);
        assert_int_equal(running_read(fd, "t", &running, &err), ERR_INVALID);
        close(fd);
    }
    int fd = memory_of("version: 1\n"); // an older version's
    assert_int_equal(running_read(fd, "t", &running, &err), ERR_OK);
    assert_true(str_eq(running.text, STR("version: 1\n")));
    assert_int_equal(running.file_count, 0);
    running_fini(&running);
    close(fd);
}

// ---- pauses, CPUs, files ----

static void test_pauses_grow_to_a_second(void **state)
{
    (void)state;
    static const struct {
        unsigned deaths;
        uint64_t ms;
    } table[] = {{0, 0},   {1, 0},    {2, 10},    {3, 20},     {4, 40},
                 {8, 640}, {9, 1000}, {10, 1000}, {100, 1000}, {UINT32_MAX, 1000}};
    for (size_t i = 0; i < countof(table); i++)
        assert_int_equal(supervisor_pause_ms(table[i].deaths), table[i].ms);
}

static void test_cpu_quotas(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned cpus;
    } table[] = {{"max 100000", 0},
                 {"100000 100000", 1},
                 {"150000 100000", 2},
                 {" 50000 100000 ", 1},
                 {"400000 100000", 4},
                 {"", 0},
                 {"-1 100000", 0},
                 {"100000", 0},
                 {"100000 0", 0},
                 {"0 100000", 0},
                 {"x y", 0}};
    for (size_t i = 0; i < countof(table); i++)
        assert_int_equal(cpus_of_quota(str_of(table[i].text)), table[i].cpus);
    assert_in_range(cpus_usable(), 1, 1024);
}

static void test_files_are_read_whole(void **state)
{
    (void)state;
    char *large = malloc(100000);
    assert_non_null(large);
    memset(large, 'x', 100000);
    int fd = file_in_memory((struct str){large, 100000});
    struct err err;
    for (int i = 0; i < 2; i++) { // the second reader does not begin where the first one stopped
        struct str text;
        assert_int_equal(file_read_fd(fd, "memory", &text, &err), ERR_OK);
        assert_int_equal(text.n, 100000);
        assert_memory_equal(text.p, large, text.n);
        assert_int_equal(text.p[text.n], '\0');
        free((void *)(uintptr_t)text.p);
    }
    assert_int_equal(write(fd, "y", 1), -1); // sealed
    close(fd);
    free(large);
    struct str text;
    assert_int_equal(file_read("/no/such/file", &text, &err), ERR_SYSTEM);
    assert_string_equal(err.where, "/no/such/file");
    assert_int_equal(file_read("/tmp", &text, &err), ERR_SYSTEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_address_gets_a_socket_for_each_thread),
        cmocka_unit_test(test_a_socket_is_closed_when_nobody_uses_it),
        cmocka_unit_test(test_an_address_that_another_holds_is_refused),
        cmocka_unit_test(test_a_unix_path_is_replaced_only_when_stale),
        cmocka_unit_test(test_a_given_socket_is_shared_and_kept),
        cmocka_unit_test(test_a_given_socket_on_all_addresses_serves_ipv4),
        cmocka_unit_test(test_sockets_of_the_service_manager),
        cmocka_unit_test(test_messages_carry_text_and_descriptors),
        cmocka_unit_test(test_many_descriptors_in_one_message),
        cmocka_unit_test(test_a_peer_that_does_not_read_holds_nobody_up),
        cmocka_unit_test(test_what_is_no_message_is_passed_over),
        cmocka_unit_test(test_the_description_survives),
        cmocka_unit_test(test_unknown_lines_of_a_description_are_ignored),
        cmocka_unit_test(test_the_binary_is_found_again),
        cmocka_unit_test(test_what_runs_is_read_as_it_was_written),
        cmocka_unit_test(test_what_ran_before_is_read_with_care),
        cmocka_unit_test(test_pauses_grow_to_a_second),
        cmocka_unit_test(test_cpu_quotas),
        cmocka_unit_test(test_files_are_read_whole),
    };
    return cmocka_run_group_tests_name("supervisor", tests, NULL, NULL);
}
