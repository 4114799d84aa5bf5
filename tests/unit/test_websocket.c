#include "unit.h"

#include "http/websocket.h"

static void test_accept(void **state)
{
    (void)state;
    char accept[WEBSOCKET_ACCEPT_LENGTH];
    websocket_accept(STR("dGhlIHNhbXBsZSBub25jZQ=="), accept); // RFC 6455 1.3
    assert_memory_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", sizeof accept);
}

static void test_keys_are_new(void **state)
{
    (void)state;
    char a[WEBSOCKET_KEY_LENGTH], b[WEBSOCKET_KEY_LENGTH];
    websocket_new_key(a);
    websocket_new_key(b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_equal(a + sizeof a - 2, "==", 2);
    for (size_t i = 0; i + 2 < sizeof a; i++)
        assert_non_null(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", a[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_keys_are_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
