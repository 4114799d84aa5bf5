// Key sets: whatever is taken can be used, and what the network may bring is a part of what a person may.
#include "exact_copy.h"

#include "token/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// By no key: each algorithm in turn, with a signature of zeros in the lengths that pass the first looks.
static void check_refuses(struct token_verifier *verifier)
{
    static const char zeros[1024];
    static const size_t lengths[] = {0, 32, 64, 96, 132, 256, 512, 1024};
    struct token token = {.signing_input = STR("e30.e30")};
    for (unsigned i = 0; i < ALGORITHM_COUNT; i++)
        for (size_t j = 0; j < countof(lengths); j++) {
            token.algorithm = i;
            token.signature = (struct str){zeros, lengths[j]};
            check(token_verify(verifier, &token, ALGORITHMS_ALL) != TOKEN_GOOD);
        }
}

static void check_keys(struct token_keys *keys)
{
    check(token_keys_count(keys) > 0 && token_keys_count(keys) <= TOKEN_KEYS && token_keys_same(keys, keys));
    struct token_verifier *verifier = token_verifier_new(keys, NULL);
    check(verifier);
    check_refuses(verifier);
    token_verifier_free(verifier);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err err = {0};
    char *copy = exact_copy((const char *)data, n);
    struct token_keys *keys = token_keys_parse((struct str){copy, n}, &err);
    check(keys || (err.code != ERR_OK && err.what[0]));
    struct token_keys *all = token_keys_parse_private((struct str){copy, n}, &err);
    free(copy); // they hold no part of the text
    check(!keys || (all && token_keys_same(keys, all)));
    if (keys)
        check_keys(keys);
    else if (all)
        check_keys(all);
    token_keys_unref(keys);
    token_keys_unref(all);
    return 0;
}
