// SipHash-2-4-128 against the published vectors and against OpenSSL's.
#include "unit.h"

#include "base/check.h"
#include "base/rand.h"
#include "base/siphash.h"

#include <endian.h>
#include <openssl/evp.h>

static void fill(uint8_t *key, char *text, size_t n)
{
    for (unsigned i = 0; i < 16; i++)
        key[i] = (uint8_t)i;
    for (size_t i = 0; i < n; i++)
        text[i] = (char)i;
}

// What siphash128 says of a text whose first eight bytes are the head.
static void hash_of(const uint8_t *key, const char *text, size_t n, uint8_t *out)
{
    struct siphash_key words;
    uint64_t head;
    memcpy(&words, key, sizeof words);
    memcpy(&head, text, sizeof head);
    words = (struct siphash_key){le64toh(words.k0), le64toh(words.k1)};
    struct hash128 hash = siphash128(&words, le64toh(head), (struct str){text + 8, n - 8});
    uint64_t lo = htole64(hash.lo), hi = htole64(hash.hi);
    memcpy(out, &lo, 8);
    memcpy(out + 8, &hi, 8);
}

// From vectors.h of the reference implementation: key 00 01 … 0f, text 00 01 … (length - 1).
static void test_published(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        uint8_t want[16];
    } cases[] = {
        {8, {0x3b, 0x62, 0xa9, 0xba, 0x62, 0x58, 0xf5, 0x61, 0x0f, 0x83, 0xe2, 0x64, 0xf3, 0x14, 0x97, 0xb4}},
        {9, {0x26, 0x44, 0x99, 0x06, 0x0a, 0xd9, 0xba, 0xab, 0xc4, 0x7f, 0x8b, 0x02, 0xbb, 0x6d, 0x71, 0xed}},
        {15,
         {0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11, 0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3, 0xd9}},
        {16,
         {0x6e, 0xe2, 0xa4, 0xca, 0x67, 0xb0, 0x54, 0xbb, 0xfd, 0x33, 0x15, 0xbf, 0x85, 0x23, 0x05, 0x77}},
        {32,
         {0x7c, 0x39, 0x56, 0xca, 0x5e, 0xea, 0xfc, 0x3e, 0x36, 0x3e, 0x9d, 0x55, 0x65, 0x46, 0xeb, 0x68}},
        {63,
         {0x51, 0x50, 0xd1, 0x77, 0x2f, 0x50, 0x83, 0x4a, 0x50, 0x3e, 0x06, 0x9a, 0x97, 0x3f, 0xbd, 0x7c}},
    };
    uint8_t key[16], got[16];
    char text[64];
    fill(key, text, sizeof text);
    for (size_t i = 0; i < countof(cases); i++) {
        hash_of(key, text, cases[i].n, got);
        if (memcmp(got, cases[i].want, 16) != 0)
            fail_msg("of %zu bytes", cases[i].n);
    }
}

static void test_openssl_agrees(void **state)
{
    (void)state;
    struct rand rand;
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
    assert_non_null(mac);
    rand_init_seed(&rand, 7);
    for (size_t n = 8; n < 300; n++) {
        uint8_t key[16], got[16], want[16];
        char text[300];
        for (size_t i = 0; i < 16; i++)
            key[i] = (uint8_t)rand_u64(&rand);
        for (size_t i = 0; i < n; i++)
            text[i] = (char)rand_u64(&rand);
        EVP_MAC_CTX *context = EVP_MAC_CTX_new(mac);
        size_t written = 0;
        assert_true(EVP_MAC_init(context, key, sizeof key, NULL) == 1 &&
                    EVP_MAC_update(context, (const unsigned char *)text, n) == 1 &&
                    EVP_MAC_final(context, want, &written, sizeof want) == 1);
        assert_int_equal(written, 16);
        EVP_MAC_CTX_free(context);
        hash_of(key, text, n, got);
        if (memcmp(got, want, 16) != 0)
            fail_msg("of %zu bytes", n);
    }
    EVP_MAC_free(mac);
}

static void test_process_key(void **state)
{
    (void)state;
    const struct siphash_key *key = siphash_process_key();
    assert_true(key->k0 || key->k1);
    assert_ptr_equal(key, siphash_process_key());
    struct hash128 a = siphash128(key, 0, STR("x")), b = siphash128(key, 1, STR("x"));
    assert_true(a.lo != b.lo && a.hi != b.hi && a.lo != a.hi);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_openssl_agrees),
        cmocka_unit_test(test_process_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
