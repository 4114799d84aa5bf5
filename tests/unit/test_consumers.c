#include "unit.h"

#include "auth/consumers.h"
#include "base/buf.h"

#include <malloc.h>
#include <time.h>

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { MANY = 20000 };
#else
enum { MANY = 1000000 };
#endif

// `printf %s secret | sha256sum`
#define SECRET_HASH "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"

static struct str hex_of(const char *key, char hex[64])
{
    consumers_hash_key(str_of(key), hex);
    return (struct str){hex, 64};
}

static struct consumers *from_lines(const char *text, struct err *err)
{
    const struct consumers_source source = {.file = STR("c.jsonl"), .text = str_of(text)};
    return consumers_new(&source, err);
}

static struct consumers *good_lines(const char *text)
{
    struct err err;
    struct consumers *consumers = from_lines(text, &err);
    if (!consumers)
        fail_msg("%s: %s: %s", text, err.where, err.what);
    return consumers;
}

static void assert_consumer(const struct consumer *consumer, const char *name)
{
    if (!name)
        assert_null(consumer);
    else if (!consumer || !str_eq(consumer->name, str_of(name)))
        fail_msg("%s is not found", name);
}

static void test_hashes(void **state)
{
    (void)state;
    char hex[64];
    assert_true(str_eq(hex_of("secret", hex), STR(SECRET_HASH)));
    // RFC 6234's "abc", and nothing.
    assert_true(
        str_eq(hex_of("abc", hex), STR("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")));
    assert_true(
        str_eq(hex_of("", hex), STR("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")));
}

static void test_by_key(void **state)
{
    (void)state;
    struct consumers *consumers =
        good_lines("{\"name\":\"acme\",\"api_keys\":[\"" SECRET_HASH
                   "\"],\"roles\":[\"gold\",\"eu\"],\"scopes\":[\"read\"]}\n"
                   "\r\n"
                   "  {\"name\":\"zo\\u00eb\",\"roles\":[],\"api_keys\":[{\"sha256\":"
                   "\"BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD\"}]}\r\n"
                   "{\"name\":\"other\",\"roles\":[\"gold\",\"eu\"]}");
    assert_int_equal(consumers_count(consumers), 3);
    const struct consumer *acme = consumers_by_key(consumers, STR("secret"));
    assert_consumer(acme, "acme");
    assert_int_equal(acme->roles.count, 2);
    assert_true(str_eq(acme->roles.v[1], STR("eu")));
    assert_int_equal(acme->scopes.count, 1);
    assert_consumer(consumers_by_key(consumers, STR("abc")), "zo\xc3\xab");
    assert_int_equal(consumers_by_key(consumers, STR("abc"))->roles.count, 0);
    assert_consumer(consumers_by_key(consumers, STR("secreT")), NULL);
    assert_consumer(consumers_by_key(consumers, STR("")), NULL);
    assert_consumer(consumers_by_key(consumers, STR(SECRET_HASH)), NULL); // the hash is no key
    consumers_unref(consumers_ref(consumers));
    consumers_unref(consumers);
    consumers_unref(NULL);
}

static void test_by_certificate(void **state)
{
    (void)state;
#define PRINT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
    struct consumers *consumers = good_lines(
        "{\"name\":\"a\",\"certificates\":[{\"san\":\"DNS=A.example\"},{\"san\":\"IP=::0001\"}]}\n"
        "{\"name\":\"b\",\"certificates\":[{\"san\":\"URI=spiffe://x/Y\"}]}\n"
        "{\"name\":\"c\",\"certificates\":[{\"subject\":\"CN=c,O=Example\"}]}\n"
        "{\"name\":\"d\",\"certificates\":[{\"fingerprint\":\"00:11:22:33:44:55:66:77:88:99:AA:BB:CC:"
        "DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\"}]}\n");
    static const struct {
        const char *sans, *subject, *fingerprint, *name;
    } rows[] = {
        {"DNS=a.example", "", "", "a"},
        {"DNS=www.example,DNS=a.EXAMPLE", "CN=c,O=Example", PRINT, "a"},
        {"IP=::1", "", "", "a"},
        {"URI=spiffe://x/Y", "", "", "b"},
        {"URI=spiffe://x/y", "", "", NULL},
        {"DNS=spiffe://x/Y", "", "", NULL},
        {"URI=spiffe://x/Y,DNS=a.example", "", "", "b"}, // the first of them
        {"email=c@example", "CN=c,O=Example", "", "c"},
        {"", "CN=c,O=example", "", NULL},
        {"", "DNS=a.example", "", NULL},
        {"CN=c,O=Example", "", "", NULL},
        {"", "CN=x", PRINT, "d"},
        {"", "", "00", NULL},
        {"", "", "", NULL},
        {"DNS=,DNS,,", "", "", NULL},
    };
    for (size_t i = 0; i < countof(rows); i++)
        assert_consumer(consumers_by_certificate(consumers, str_of(rows[i].sans), str_of(rows[i].subject),
                                                 str_of(rows[i].fingerprint)),
                        rows[i].name);
    static char longest[20000];
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "DNS=", 4);
    struct str hostile = {longest, sizeof longest};
    assert_consumer(consumers_by_certificate(consumers, hostile, hostile, hostile), NULL);
    consumers_unref(consumers);
}

static void test_mistakes(void **state)
{
    (void)state;
    static const struct {
        const char *text, *what;
    } rows[] = {
        {"{\"name\":\"a\"}\n\n{\"name\":\"a\"}", "line 3: a second consumer named \"a\""},
        {"{\"name\":\"a\",\"api_keys\":[\"" SECRET_HASH "\"]}\n{\"name\":\"b\",\"api_keys\":[\"" SECRET_HASH
         "\"]}",
         "line 2: an API key is held already by \"a\""},
        {"{\"name\":\"a\",\"api_keys\":[\"" SECRET_HASH "\",\"" SECRET_HASH "\"]}",
         "line 1: an API key is held already by \"a\""},
        {"{\"name\":\"a\",\"certificates\":[{\"san\":\"DNS=x\"}]}\n"
         "{\"name\":\"b\",\"certificates\":[{\"san\":\"DNS=X\"}]}",
         "line 2: a certificate is held already by \"a\""},
        {"{\"name\":\"a\",\"api_keys\":[\"secret\"]}", "line 1: an API key's sha256 is not 64 hex digits"},
        {"{\"name\":\"a\",\"api_keys\":[\"" SECRET_HASH "0\"]}",
         "line 1: an API key's sha256 is not 64 hex digits"},
        {"{\"name\":\"a\",\"api_keys\":[7]}", "line 1: a wrong value in: \"api_keys\""},
        {"{\"name\":\"a\",\"api_keys\":[{\"sha256\":\"x\",\"key\":\"y\"}]}",
         "line 1: a wrong value in: \"api_keys\""},
        {"{\"name\":\"a\",\"api_keys\":\"x\"}", "line 1: not a list, or too long a one: \"api_keys\""},
        {"{\"name\":\"a\",\"roles\":[\"x,y\"]}", "line 1: a wrong value in: \"roles\""},
        {"{\"name\":\"a\",\"roles\":[\"\"]}", "line 1: a wrong value in: \"roles\""},
        {"{\"name\":\"a\",\"scopes\":[\"x y\"]}", "line 1: a wrong value in: \"scopes\""},
        {"{\"name\":\"a\",\"role\":[]}", "line 1: unknown key: \"role\""},
        {"{\"name\":\"a\",\"\\u0007\":[]}", "line 1: unknown key"},
        {"{\"name\":\"\"}", "line 1: name is not 1 to 256 bytes of printable text"},
        {"{\"name\":\"a\\nb\"}", "line 1: name is not 1 to 256 bytes of printable text"},
        {"{\"roles\":[]}", "line 1: no name"},
        {"{\"name\":\"a\"}\n[]", "line 2: not a JSON object"},
        {"{\"name\":\"a\",\"certificates\":[{\"san\":\"x\"}]}",
         "line 1: a wrong value in certificates: \"san\""},
        {"{\"name\":\"a\",\"certificates\":[{\"san\":\"DNS=x\",\"subject\":\"y\"}]}",
         "line 1: a certificate is named by one of san, subject and fingerprint"},
        {"{\"name\":\"a\",\"certificates\":[{\"fingerprint\":\"00\"}]}",
         "line 1: a wrong value in certificates: \"fingerprint\""},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        struct err err = {0};
        assert_null(from_lines(rows[i].text, &err));
        assert_string_equal(err.where, "c.jsonl");
        assert_string_equal(err.what, rows[i].what);
        assert_null(from_lines(rows[i].text, NULL));
    }
    static const char *const broken[] = {"{", "{\"name\":\"a\"} x", "\xff", "{\"name\":\"a\",\"name\":\"b\"}",
                                         "{\"name\":\"a\"\n}"};
    for (size_t i = 0; i < countof(broken); i++) {
        struct err err = {0};
        assert_null(from_lines(broken[i], &err));
        assert_memory_equal(err.what, "line 1: ", 8);
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct buf text = {0};
    struct err err = {0};
    buf_append(&text, STR("{\"name\":\"a\",\"roles\":["));
    for (unsigned i = 0; i < 1001; i++)
        buf_append(&text, i ? STR(",\"r\"") : STR("\"r\""));
    buf_append(&text, STR("]}"));
    struct consumers_source source = {.file = STR("c.jsonl"), .text = buf_str(&text)};
    assert_null(consumers_new(&source, &err));
    assert_string_equal(err.what, "line 1: not a list, or too long a one: \"roles\"");
    buf_free(&text);

    text = (struct buf){0};
    buf_append(&text, STR("{\"name\":\"a\"}\n{\"name\":\"b\""));
    for (unsigned i = 0; i < 65536; i++)
        buf_append(&text, STR(" "));
    buf_append(&text, STR("}"));
    source.text = buf_str(&text);
    assert_null(consumers_new(&source, &err));
    assert_string_equal(err.what, "line 2: it is too long");
    buf_free(&text);
}

static void test_settings_and_file(void **state)
{
    (void)state;
    struct consumer_key key = {STR(SECRET_HASH)};
    struct consumer_settings settings[] = {
        {.line = 7, .name = STR("acme"), .api_keys = {&key, 1}},
        {.line = 9, .name = STR("other")},
    };
    const struct config_list list = {settings, countof(settings)};
    struct consumers_source source = {.settings = &list};
    struct err err = {0};
    struct consumers *consumers = consumers_new(&source, &err);
    assert_non_null(consumers);
    assert_int_equal(consumers_count(consumers), 2);
    assert_consumer(consumers_by_key(consumers, STR("secret")), "acme");
    consumers_unref(consumers);

    source.file = STR("c.jsonl");
    source.text = STR("{\"name\":\"third\"}\n{\"name\":\"acme\"}");
    assert_null(consumers_new(&source, &err));
    assert_string_equal(err.what, "line 2: a second consumer named \"acme\"");
    source.text = STR("{\"name\":\"third\",\"api_keys\":[\"" SECRET_HASH "\"]}");
    assert_null(consumers_new(&source, &err));
    assert_string_equal(err.what, "line 1: an API key is held already by \"acme\"");
    source.text = STR("{\"name\":\"third\"}");
    consumers = consumers_new(&source, &err);
    assert_int_equal(consumers_count(consumers), 3);
    consumers_unref(consumers);

    settings[1].name = STR("acme");
    assert_null(consumers_new(&source, &err));
    assert_string_equal(err.where, "consumers");
    assert_string_equal(err.what, "line 9: a second consumer named \"acme\"");

    const struct consumers_source none = {0};
    consumers = consumers_new(&none, &err);
    assert_int_equal(consumers_count(consumers), 0);
    assert_consumer(consumers_by_key(consumers, STR("secret")), NULL);
    assert_consumer(consumers_by_certificate(consumers, STR("DNS=x"), STR("y"), STR("z")), NULL);
    consumers_unref(consumers);
}

static void test_yaml(void **state)
{
    (void)state;
    struct consumers_source source = {
        .file = STR("c.yaml"),
        .text = STR("# who\n"
                    "acme:\n"
                    "  api_keys: [{ sha256: " SECRET_HASH " }]\n"
                    "  roles: [gold]\n"
                    "orders: { certificates: [{ san: DNS=orders.example }], scopes: [read] }\n"),
    };
    struct err err = {0};
    struct consumers *consumers = consumers_new(&source, &err);
    assert_string_equal(err.what, "");
    assert_non_null(consumers);
    assert_int_equal(consumers_count(consumers), 2);
    assert_consumer(consumers_by_key(consumers, STR("secret")), "acme");
    assert_true(str_eq(consumers_by_key(consumers, STR("secret"))->roles.v[0], STR("gold")));
    assert_consumer(consumers_by_certificate(consumers, STR("DNS=orders.example"), STR_NULL, STR_NULL),
                    "orders");
    consumers_unref(consumers);

    static const struct {
        const char *text, *what;
    } rows[] = {
        {"a: {}\nb:\n  role: [x]", "line 3: consumers.b.role: unknown key"},
        {"a: { roles: [\"x,y\"] }", "line 1: consumers.a.roles[0]: a comma in a role"},
        {"a: {}\na: {}", "line 2: a: duplicate key, first on line 1"},
        {"a: { api_keys: [{ sha256: " SECRET_HASH " }] }\nb: { api_keys: [{ sha256: " SECRET_HASH " }] }",
         "line 2: an API key is held already by \"a\""},
        {"a: { api_keys: [{ sha256: secret }] }",
         "line 1: consumers.a.api_keys[0].sha256: not a SHA-256 of 64 hex digits"},
        {"- a", "line 1: consumers: expected a map of names, got a list"},
        {"a b: {}", "line 1: consumers.a b: not a name: \"a b\""},
    };
    for (size_t i = 0; i < countof(rows); i++) {
        source.text = str_of(rows[i].text);
        assert_null(consumers_new(&source, &err));
        assert_string_equal(err.where, "c.yaml");
        assert_string_equal(err.what, rows[i].what);
        assert_null(consumers_new(&source, NULL));
    }
    static const char *const nobody[] = {"", "\n \n", "~", "--- # none\n"};
    for (size_t i = 0; i < countof(nobody); i++) {
        source.text = str_of(nobody[i]);
        consumers = consumers_new(&source, &err);
        if (!consumers)
            fail_msg("%s: %s", nobody[i], err.what);
        assert_int_equal(consumers_count(consumers), 0);
        consumers_unref(consumers);
    }
}

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

// Of this thread, whatever else the machine does.
static double cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void test_many(void **state)
{
    (void)state;
    struct buf text = {0};
    struct err err = {0};
    char key[32], hex[64];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(key, sizeof key, "key-%u", i);
        struct str hash = hex_of(key, hex);
        buf_printf(&text, "{\"name\":\"consumer-%u\",\"api_keys\":[\"%.*s\"],\"roles\":[\"%s\"]}\n", i,
                   STR_ARG(hash), i % 3 ? "gold" : "silver");
    }
    const struct consumers_source source = {.file = STR("c.jsonl"), .text = buf_str(&text)};
    size_t before = heap_bytes();
    double began_us = cpu_us();
    struct consumers *consumers = consumers_new(&source, &err);
    double load_us = cpu_us() - began_us;
    assert_non_null(consumers);
    size_t bytes = heap_bytes() - before;
    assert_int_equal(consumers_count(consumers), MANY);

    began_us = cpu_us();
    for (unsigned i = 0; i < MANY; i++) {
        size_t n = (size_t)snprintf(key, sizeof key, "key-%u", i);
        const struct consumer *consumer = consumers_by_key(consumers, (struct str){key, n});
        if (!consumer || !str_ends(consumer->name, (struct str){key + 3, n - 3}))
            fail_msg("%s is not found", key);
        assert_int_equal(consumer->roles.v[0].n, i % 3 ? 4 : 6);
    }
    double found_us = cpu_us() - began_us;
    printf("%d consumers: loaded in %.0f ms of CPU, %.0f bytes and %.2f µs to find one\n", MANY,
           load_us / 1000, (double)bytes / MANY, found_us / MANY);
    for (unsigned i = 0; i < 1000; i++) {
        size_t n = (size_t)snprintf(key, sizeof key, "yek-%u", i);
        assert_null(consumers_by_key(consumers, (struct str){key, n}));
    }
    consumers_unref(consumers);
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hashes),         cmocka_unit_test(test_by_key),
        cmocka_unit_test(test_by_certificate), cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_bounds),         cmocka_unit_test(test_settings_and_file),
        cmocka_unit_test(test_yaml),           cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
