#include "token/token.h"

static const struct str algorithm_names[] = {
#define X(id, name) [id] = {name, sizeof(name) - 1},
    TOKEN_ALGORITHMS(X)
#undef X
};

static const struct str fault_words[] = {
#define X(id, words) [id] = {words, sizeof(words) - 1},
    TOKEN_FAULTS(X)
#undef X
};

struct str token_algorithm_name(enum token_algorithm algorithm)
{
    return algorithm_names[algorithm];
}

struct str token_fault_words(enum token_fault fault)
{
    return fault_words[fault];
}
