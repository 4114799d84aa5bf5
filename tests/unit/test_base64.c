// Both alphabets, and that every text but the canonical one is refused.
#include "unit.h"

#include "base/base64.h"
#include "base/check.h"

#include <stdlib.h>

struct pair {
    struct str bytes, text;
};

#define PAIR(bytes, text)                                     \
    {                                                         \
        {bytes, sizeof(bytes) - 1}, {text, sizeof(text) - 1}, \
    }

static bool decoded(struct str text, bool url, struct str *bytes)
{
    static uint8_t out[512];
    char *exact = malloc(text.n ? text.n : 1); // for ASan
    size_t n = 0;
    memcpy(exact, text.p, text.n);
    bool good = url ? base64url_decode((struct str){exact, text.n}, out, &n)
                    : base64_decode((struct str){exact, text.n}, out, &n);
    free(exact);
    assert_true(n <= base64url_decoded_max(text.n));
    *bytes = (struct str){(const char *)out, n};
    return good;
}

static void expect_pairs(const struct pair *pairs, size_t count, bool url)
{
    for (size_t i = 0; i < count; i++) {
        char out[64];
        struct str bytes;
        const uint8_t *data = (const uint8_t *)pairs[i].bytes.p;
        size_t n =
            url ? base64url_encode(data, pairs[i].bytes.n, out) : base64_encode(data, pairs[i].bytes.n, out);
        if (!str_eq((struct str){out, n}, pairs[i].text))
            fail_msg("'%s': encoded as %.*s", pairs[i].text.p, (int)n, out);
        if (url)
            assert_int_equal(n, base64url_encoded_bytes(pairs[i].bytes.n));
        if (!decoded(pairs[i].text, url, &bytes) || !str_eq(bytes, pairs[i].bytes))
            fail_msg("'%s': not decoded", pairs[i].text.p);
    }
}

static void test_pairs(void **state)
{
    (void)state;
    static const struct pair url[] = {
        PAIR("", ""),
        PAIR("f", "Zg"),
        PAIR("fo", "Zm8"),
        PAIR("foo", "Zm9v"),
        PAIR("foob", "Zm9vYg"),
        PAIR("fooba", "Zm9vYmE"),
        PAIR("\xff", "_w"),
        PAIR("\xfb\xff", "-_8"),
        PAIR("\xff\xff\xff", "____"),
        PAIR("\0\0\0", "AAAA"),
        PAIR("\xfb\xef\xbe", "----"),
    };
    static const struct pair plain[] = {
        PAIR("", ""),
        PAIR("f", "Zg=="),
        PAIR("fo", "Zm8="),
        PAIR("foo", "Zm9v"),
        PAIR("foob", "Zm9vYg=="),
        PAIR("\xfb\xff", "+/8="),
        PAIR("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    };
    expect_pairs(url, countof(url), true);
    expect_pairs(plain, countof(plain), false);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct str url[] = {
        STR("A"),     STR("AAAAA"), STR("Zh"),      STR("Zm9"),      STR("Zg=="),  STR("Zm8="),
        STR("Zm9v="), STR("+/8"),   STR("Zg\n"),    STR(" Zg"),      STR("Zm 9v"), STR("Zm9\0"),
        STR("Zm9."),  STR("=AAA"),  STR("\xffm9v"), STR("Zm9v\r\n"),
    };
    static const struct str plain[] = {
        STR("Zg"),   STR("Zg="),  STR("Zg==="),    STR("Zh=="), STR("Zm9="),     STR("===="),   STR("A==="),
        STR("-_8="), STR("Zg=A"), STR("Zm9v===="), STR("=Zg="), STR("Zg==Zg=="), STR("Zm9v\n"),
    };
    struct str bytes;
    for (size_t i = 0; i < countof(url); i++)
        if (decoded(url[i], true, &bytes))
            fail_msg("url '%s' is taken", url[i].p);
    for (size_t i = 0; i < countof(plain); i++)
        if (decoded(plain[i], false, &bytes))
            fail_msg("plain '%s' is taken", plain[i].p);
}

// At every place, exactly the 64 letters are letters.
static void test_letters(void **state)
{
    (void)state;
    for (size_t place = 0; place < 7; place++)
        for (unsigned byte = 0; byte < 256; byte++) {
            char text[] = "AAAAAAA";
            struct str bytes;
            text[place] = (char)byte;
            bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                          (byte >= '0' && byte <= '9') || byte == '-' || byte == '_';
            bool canonical = place < 6 || strchr("AEIMQUYcgkosw048", (int)byte);
            if (decoded((struct str){text, 7}, true, &bytes) != (letter && canonical))
                fail_msg("byte %02x at %zu", byte, place);
        }
}

static void test_there_and_back(void **state)
{
    (void)state;
    uint8_t data[300];
    char text[512];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 131 + 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        struct str bytes;
        assert_true(decoded((struct str){text, base64url_encode(data, n, text)}, true, &bytes));
        assert_true(str_eq(bytes, (struct str){(const char *)data, n}));
        assert_true(decoded((struct str){text, base64_encode(data, n, text)}, false, &bytes));
        assert_true(str_eq(bytes, (struct str){(const char *)data, n}));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_letters),
        cmocka_unit_test(test_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
