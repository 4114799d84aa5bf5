#include "unit.h"

#include "base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// stderr is a pipe that nobody reads; cmocka keeps the true one meanwhile.
struct unread {
    int reader, kept;
};

static struct unread begin(void)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_true(fcntl(ends[1], F_SETPIPE_SZ, 16384) >= 16384);
    struct unread unread = {ends[0], dup(STDERR_FILENO)};
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    return unread;
}

static void end(struct unread *unread)
{
    dup2(unread->kept, STDERR_FILENO);
    close(unread->kept);
    close(unread->reader);
}

static size_t drain(struct unread *unread, char *text, size_t size)
{
    ssize_t n = read(unread->reader, text, size - 1);
    assert_true(n > 0);
    text[n] = '\0';
    return (size_t)n;
}

static void test_a_full_pipe_is_not_waited_for(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static char text[65536], want[80];
    struct unread unread = begin();
    unsigned long long before = log_dropped();
    for (int i = 0; i < COUNT; i++)
        log_line(LOG_ERROR, "test", "line %d of a thousand", i);
    unsigned long long dropped = log_dropped() - before;
    size_t n = drain(&unread, text, sizeof text);
    log_line(LOG_ERROR, "test", "room again");
    log_line(LOG_ERROR, "test", "and again");
    drain(&unread, text + n, sizeof text - n);
    end(&unread);

    assert_in_range(dropped, 1, COUNT - 1);
    snprintf(want, sizeof want, "line %d of a thousand\n", (int)(COUNT - 1 - dropped));
    assert_true(strncmp(text + n - strlen(want), want, strlen(want)) ==
                0); // whole, and the last that there was room for
    snprintf(want, sizeof want, "warn log: %llu lines dropped: stderr had no room\n", dropped);
    char *told = strstr(text + n, want);
    assert_non_null(told);
    assert_non_null(strstr(told, "error test: room again\n"));
    assert_non_null(strstr(told, "error test: and again\n"));
    assert_null(strstr(told + strlen(want), "dropped")); // once
    assert_int_equal(log_dropped() - before, dropped);
}

static void test_hostile_text_is_one_line(void **state)
{
    (void)state;
    static char text[8192], much[3000];
    memset(much, 'a', sizeof much - 1);
    struct unread unread = begin();
    log_line(LOG_WARN, "test", "a\nb\x1b[0m\x7f%s", much);
    size_t n = drain(&unread, text, sizeof text);
    end(&unread);
    assert_int_equal(n, 1024);
    assert_non_null(strstr(text, "warn test: a?b?[0m?aaaa"));
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_pipe_is_not_waited_for),
        cmocka_unit_test(test_hostile_text_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
